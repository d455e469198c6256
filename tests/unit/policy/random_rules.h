// SPDX-License-Identifier: LGPL-2.1-or-later
// Random rules with paths that are likely to match them, and what they mean, written down as plainly as
// possible.
#pragma once

#include "plain_matcher.h"

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy::plain {

/// FPOLICY_SEED of the environment, or another each time. Printed, so that a failure can be had again.
inline unsigned take_seed() {
  const char* given = std::getenv("FPOLICY_SEED");
  const unsigned seed =
      given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device()();
  std::printf("FPOLICY_SEED=%u\n", seed);
  return seed;
}

/// A rule's pattern, and a path made from it, which it matches unless a random choice made it another.
struct Sample {
  std::string pattern;
  std::string path;
};

/// Few bytes, so that patterns and paths meet; among them those that have to be escaped.
class RandomRules {
 public:
  explicit RandomRules(unsigned seed) : engine_(seed) {}
  unsigned below(unsigned bound) { return static_cast<unsigned>(engine_() % bound); }

  std::string path() {
    std::string text;
    for (unsigned i = 1 + below(5); i > 0; --i) text += "/" + name(3);
    return text;
  }

  Sample sample() {
    Sample sample;
    for (unsigned i = 1 + below(5); i > 0; --i) {
      sample.pattern += '/';
      if (below(5) == 0) {
        sample.pattern += "**";
        if (below(3) != 0) sample.path += path();
        // As the last of a pattern it wants something.
        continue;
      }
      std::string component;
      std::string text;
      for (unsigned j = 1 + below(3); j > 0; --j) piece(component, text);
      sample.pattern += component;
      sample.path += "/" + (text.empty() ? name(1) : text);
    }
    if (below(4) == 0) {
      sample.pattern += '/';
      if (below(2) == 0) sample.path += path();
    }
    if (sample.path.empty() || below(8) == 0) sample.path = path();
    return sample;
  }

  /// A path of an alias: literal.
  Sample literal() {
    Sample sample;
    for (unsigned i = 1 + below(3); i > 0; --i) {
      sample.pattern += '/';
      sample.path += '/';
      for (unsigned j = 1 + below(2); j > 0; --j) literal(sample.pattern, sample.path);
    }
    return sample;
  }

 private:
  static constexpr std::string_view bytes = "aaabbbcc \t\n*?[]\\#-!^\"\xff\xc3\x01";

  std::string name(unsigned longest) {
    std::string text;
    for (unsigned i = 1 + below(longest); i > 0; --i) text += bytes[below(bytes.size())];
    return text;
  }

  /// One byte that stands for itself, written in one of the ways in which it can be.
  void literal(std::string& pattern, std::string& text) {
    const char c = bytes[below(bytes.size())];
    text += c;
    const bool octal = below(8) == 0 || c == '\x01';
    if (octal) {
      char digits[8];
      std::snprintf(digits, sizeof digits, "\\%03o", static_cast<unsigned char>(c));
      pattern += digits;
    } else if (c == '\t' || c == '\n') {
      pattern += c == '\t' ? "\\t" : "\\n";
    } else if (std::string_view("*?[\\").find(c) != std::string_view::npos) {
      pattern.append("\\").append(1, c);
    } else {
      pattern += c;
    }
  }

  void piece(std::string& pattern, std::string& text) {
    struct Class {
      const char* pattern;
      const char* members;
    };
    static constexpr Class classes[] = {{"[ab]", "ab"},
                                        {"[!a]", "bc#\xff"},
                                        {"[^b-c]", "a*\\\n"},
                                        {"[b-c]", "bc"},
                                        {"[]a]", "]a"},
                                        {"[\\]\\\\]", "]\\"},
                                        {"[\\001-\\037]", "\t\n\x01"},
                                        {"[a-]", "a-"},
                                        {"[\\200-\\377]", "\xff\xc3"},
                                        {"[!]\\n]", "ab\t"},
                                        {"[*?]", "*?"}};
    switch (below(9)) {
      case 0:
        // Side by side they would be others.
        if (pattern.ends_with('*')) break;
        pattern += '*';
        if (below(3) != 0) text += name(2);
        return;
      case 1:
        pattern += '?';
        text += name(1);
        return;
      case 2: {
        const Class& one = classes[below(std::size(classes))];
        pattern += one.pattern;
        text += one.members[below(static_cast<unsigned>(std::string_view(one.members).size()))];
        return;
      }
      case 3:
        if (pattern.ends_with('*') || below(2) == 0) break;
        pattern += "**";
        if (below(2) == 0) text += name(2) + "/" + name(2);
        return;
      default:
        break;
    }
    literal(pattern, text);
  }

  std::mt19937 engine_;
};

struct Alias {
  std::string from;
  std::string to;
};

/// The longest FROM is taken, of equal ones the last, and once.
inline std::string aliased(const std::vector<Alias>& aliases, const std::string& path) {
  const Alias* best = nullptr;
  for (const Alias& alias : aliases) {
    const bool stands = path == alias.from || path.starts_with(alias.from + "/");
    if (stands && (best == nullptr || alias.from.size() >= best->from.size())) best = &alias;
  }
  return best == nullptr ? path : best->to + path.substr(best->from.size());
}

/// Rules in files, as they are read one behind the other.
struct Rules {
  struct Line {
    std::string pattern;
    std::size_t file = 0;
    unsigned line = 0;
  };
  std::vector<std::string> files;  ///< their text
  std::vector<Line> lines;         ///< rules in their order; a later one wins
  std::vector<Alias> aliases;
  std::vector<std::string> paths;  ///< to ask for

  /// The rule that decides; nullptr where none does.
  [[nodiscard]] const Line* match(const std::string& path) const {
    const std::string meant = aliased(aliases, path);
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
      if (matches(line->pattern, meant)) return &*line;
    }
    return nullptr;
  }
};

/// `rules` rules in three files, with comments, blank lines and some aliases between; `paths` paths. All
/// below `directory`, whose name has nothing to escape.
inline Rules make_rules(RandomRules& random, unsigned rules, unsigned paths,
                        const std::string& directory = "") {
  Rules made;
  made.files.resize(3);
  unsigned numbers[3] = {0, 0, 0};
  const auto add = [&](std::size_t file, const std::string& text) {
    made.files[file] += text + "\n";
    return ++numbers[file];
  };
  std::vector<std::string> samples;
  std::vector<Sample> froms;
  for (unsigned i = 0; i < rules; ++i) {
    const std::size_t file = i * made.files.size() / rules;
    if (random.below(10) == 0) add(file, random.below(2) == 0 ? "# a comment" : "");
    if (random.below(12) == 0) {
      Sample from = random.literal();
      // The same once more, or one below another.
      if (!made.aliases.empty() && random.below(3) == 0) {
        if (random.below(2) == 0) from = {};
        from.pattern.insert(0, froms.back().pattern);
        from.path.insert(0, froms.back().path);
      }
      froms.push_back(from);
      const Sample to = random.literal();
      add(file, "alias " + directory + from.pattern + "\t" + directory + to.pattern);
      made.aliases.push_back({directory + from.path, directory + to.path});
    }
    const Sample sample = random.sample();
    const std::string pattern = directory + sample.pattern;
    made.lines.push_back(
        {pattern, file, add(file, pattern + "\t" + (random.below(9) == 0 ? "none" : "bind:0"))});
    samples.push_back(directory + sample.path);
  }
  for (unsigned i = 0; i < paths; ++i) {
    std::string path = random.below(4) == 0 ? directory + random.path() : samples[random.below(rules)];
    // Through an alias to what it stands for.
    if (!made.aliases.empty() && random.below(4) == 0) {
      const Alias& alias = made.aliases[random.below(static_cast<unsigned>(made.aliases.size()))];
      if (path.starts_with(alias.to + "/")) {
        path = alias.from + path.substr(alias.to.size());
      } else {
        path = alias.from + random.path();
      }
    }
    made.paths.push_back(std::move(path));
  }
  return made;
}

}  // namespace fpolicy::plain
