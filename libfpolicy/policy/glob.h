// SPDX-License-Identifier: LGPL-2.1-or-later
// Patterns of rules: parsed into components, and the matching of those that are not literal.
#pragma once

#include "policy/grammar.h"
#include "policy/hash_index.h"

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

using ByteClass = std::bitset<256>;

struct GlobToken {
  enum class Kind : std::uint8_t {
    byte,
    any,         ///< ?: one byte but "/"
    byte_class,  ///< [...]
    star,        ///< *: bytes but "/"
    globstar,    ///< **: bytes
    dirs,        ///< "**/" as a whole component: nothing, or bytes up to and with a "/"
  };
  Kind kind = Kind::byte;
  char byte = 0;
  std::uint16_t byte_class = 0;  ///< index into the classes beside the tokens
};

struct PatternComponent {
  enum class Kind : std::uint8_t {
    literal,   ///< matches its bytes
    glob,      ///< matches within the component
    globstar,  ///< "**": any number of components
    crossing,  ///< "**" beside other bytes: reaches into later components
  };
  Kind kind = Kind::literal;
  std::string_view text;          ///< as written
  std::string literal;            ///< of a literal
  std::vector<GlobToken> tokens;  ///< of the others
};

/// An absolute pattern. "**" components are merged where they stand side by side, and dropped before a
/// trailing
/// "/", where they change nothing.
struct Pattern {
  std::string_view text;  ///< as written
  std::vector<PatternComponent> components;
  std::vector<ByteClass> classes;
  bool below = false;  ///< ended in "/": the directory and all below it
};

/// `text` must live as long as the result. Columns count within `text`.
tl::expected<Pattern, SyntaxError> parse_pattern(std::string_view text);

/// Matches one component, or the rest of a path. Time: at most length of pattern times length of text.
class Glob {
 public:
  /// Most tokens that can stand between the literal ends of a glob.
  static constexpr std::size_t max_tokens = 1000;

  /// For the text of one component.
  static Glob component(const Pattern& pattern, std::size_t index);
  /// For the rest of a path from the component `first` on.
  static Glob tail(const Pattern& pattern, std::size_t first);

  [[nodiscard]] bool fits() const { return tokens_.size() <= max_tokens; }
  [[nodiscard]] bool matches(std::string_view text) const;

  /// What every match starts and ends with.
  [[nodiscard]] std::string_view prefix() const { return prefix_; }
  [[nodiscard]] std::string_view suffix() const { return suffix_; }

 private:
  Glob(std::vector<GlobToken> tokens, const std::vector<ByteClass>& classes, bool below);
  [[nodiscard]] bool matches_middle(std::string_view text) const;

  std::string prefix_;
  std::vector<GlobToken> tokens_;
  std::string suffix_;
  std::vector<ByteClass> classes_;
  bool below_ = false;
};

/// Many globs, each with a number. Those that can match a text are found by their literal prefix or suffix,
/// whichever says more.
class GlobIndex {
 public:
  struct Entry {
    Glob glob;
    std::uint32_t value = 0;
  };

  /// Gives the entry's position, for set_value.
  std::uint32_t add(Glob glob, std::uint32_t value);
  void set_value(std::uint32_t position, std::uint32_t value) { entries_[position].value = value; }

  /// Calls `each` with the values of the globs that match, where `wanted` says that the value is of interest.
  template <class Wanted, class Each>
  void for_matches(std::string_view text, const Wanted& wanted, const Each& each) const {
    for (std::uint32_t shape = 0; shape < shapes_.size(); ++shape) {
      const auto& [length, at_end] = shapes_[shape];
      if (length > text.size()) continue;
      const std::string_view key = text.substr(at_end ? text.size() - length : 0, length);
      const auto found = find_group(key, shape);
      if (!found) continue;
      for (const std::uint32_t position : groups_[*found].positions) {
        const Entry& entry = entries_[position];
        if (wanted(entry.value) && entry.glob.matches(text)) each(entry.value);
      }
    }
  }

 private:
  /// Longest key: it bounds the number of shapes, and so of look-ups for each text.
  static constexpr std::size_t max_key = 32;

  /// Which part of a text is a key.
  struct Shape {
    std::size_t length = 0;
    bool at_end = false;
  };
  /// The globs of one key.
  struct Group {
    std::string key;
    std::uint32_t shape = 0;
    std::vector<std::uint32_t> positions;
  };

  [[nodiscard]] std::optional<std::uint32_t> find_group(std::string_view key, std::uint32_t shape) const {
    return index_.find(HashIndex::hash(key, shape), [&](std::uint32_t group) {
      return groups_[group].shape == shape && groups_[group].key == key;
    });
  }

  std::vector<Entry> entries_;
  std::vector<Shape> shapes_;
  std::vector<Group> groups_;
  HashIndex index_;  ///< groups
};

}  // namespace fpolicy
