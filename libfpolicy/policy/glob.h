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
  [[nodiscard]] std::string_view prefix() const { return std::string_view(ends_).substr(0, prefix_size_); }
  [[nodiscard]] std::string_view suffix() const { return std::string_view(ends_).substr(prefix_size_); }

 private:
  Glob(std::vector<GlobToken> tokens, const std::vector<ByteClass>& classes, bool below);
  [[nodiscard]] bool matches_middle(std::string_view text) const;

  /// What stands between the ends. Of a single "*" or "**" it is known without a look at the tokens.
  enum class Middle : std::uint8_t { tokens, star, globstar };

  std::string ends_;  ///< prefix and suffix
  std::uint32_t prefix_size_ = 0;
  Middle middle_ = Middle::tokens;
  bool below_ = false;
  std::vector<GlobToken> tokens_;
  std::vector<ByteClass> classes_;
};

/// Many globs, each with a number. Those that can match a text are found by their literal prefix or suffix,
/// whichever says more.
class GlobIndex {
 public:
  /// Gives the entry's position, for set_value.
  std::uint32_t add(Glob glob, std::uint32_t value);
  void set_value(std::uint32_t position, std::uint32_t value) { entries_[position].value = value; }

  /// Calls `each` with the values of the globs that match, where `wanted` says that the value is of interest.
  template <class Wanted, class Each>
  void for_matches(std::string_view text, const Wanted& wanted, const Each& each) const {
    for (std::uint32_t number = 0; number < shapes_.size(); ++number) {
      const Shape& shape = shapes_[number];
      if (shape.length > text.size()) continue;
      const std::string_view key = shape.of(text);
      if (!shape.can_be(key)) continue;
      const auto first = find_first(key, number);
      for (std::uint32_t next = first ? *first + 1 : 0; next != 0; next = entries_[next - 1].next) {
        const Entry& entry = entries_[next - 1];
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
    /// What keys have at their inner end: names that count their parts ("part9.so", "part10.so") make a shape
    /// for each number of digits, and this keeps all but one of them from being looked up.
    ByteClass inner;

    [[nodiscard]] std::string_view of(std::string_view text) const {
      return text.substr(at_end ? text.size() - length : 0, length);
    }
    [[nodiscard]] std::string_view key_of(const Glob& glob) const {
      return of(at_end ? glob.suffix() : glob.prefix());
    }
    [[nodiscard]] std::size_t inner_byte(std::string_view key) const {
      return static_cast<unsigned char>(at_end ? key.front() : key.back());
    }
    [[nodiscard]] bool can_be(std::string_view key) const { return key.empty() || inner[inner_byte(key)]; }
  };
  /// A glob, in a chain with those of the same key. What most texts need lies in one line of the processor's
  /// cache.
  struct alignas(64) Entry {
    std::uint32_t value = 0;
    std::uint32_t shape = 0;
    std::uint32_t next = 0;  ///< its position and 1; 0 is none
    Glob glob;
  };

  /// The first of the chain.
  [[nodiscard]] std::optional<std::uint32_t> find_first(std::string_view key, std::uint32_t shape) const {
    return index_.find(HashIndex::hash(key, shape), [&](std::uint32_t position) {
      const Entry& entry = entries_[position];
      return entry.shape == shape && shapes_[shape].key_of(entry.glob) == key;
    });
  }

  std::vector<Entry> entries_;
  std::vector<Shape> shapes_;
  HashIndex index_;  ///< the first entry of each chain
};

}  // namespace fpolicy
