// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/glob.h"

#include "policy/escape.h"
#include "policy/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>
#include <utility>

namespace fpolicy {
namespace {

using Kind = GlobToken::Kind;

constexpr std::size_t max_components = 2048;  // PATH_MAX holds no more
constexpr std::size_t max_globstars = 16;

class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) { pattern_.text = text; }

  tl::expected<Pattern, SyntaxError> run() {
    if (!components()) return tl::unexpected<SyntaxError>(std::move(error_));
    return std::move(pattern_);
  }

 private:
  // Each of these returns false when it has set error_.

  bool components() {
    if (text_.empty() || text_[0] != '/') {
      return expected(0, "expected an absolute pattern, which starts with \"/\"" + found_at(text_, 0));
    }
    at_ = 1;
    pattern_.below = text_.size() == 1;
    while (at_ < text_.size()) {
      const std::size_t start = at_;
      if (pattern_.components.size() == max_components) {
        return expected(start, fmt::format("expected at most {} components", max_components));
      }
      PatternComponent component;
      if (!this->component(component)) return false;
      component.text = text_.substr(start, at_ - start);
      if (component.text.empty()) return expected(start, "expected a name between the slashes");
      if (component.literal == "." || component.literal == "..") {
        return expected(start, fmt::format("expected a name, found \"{}\", which no resolved path contains",
                                           component.literal));
      }
      const bool repeated = component.kind == PatternComponent::Kind::globstar && ends_in_globstar();
      if (!repeated) pattern_.components.push_back(std::move(component));
      if (at_ == text_.size()) break;
      ++at_;  // the slash
      pattern_.below = at_ == text_.size();
    }
    if (pattern_.below && ends_in_globstar()) pattern_.components.pop_back();
    return true;
  }

  [[nodiscard]] bool ends_in_globstar() const {
    return !pattern_.components.empty() &&
           pattern_.components.back().kind == PatternComponent::Kind::globstar;
  }

  bool component(PatternComponent& component) {
    bool globs = false;
    bool crossing = false;
    for (; at_ < text_.size() && text_[at_] != '/';) {
      const std::size_t start = at_;
      GlobToken token;
      switch (text_[at_]) {
        case '*':
          if (text_.substr(at_, 3) == "***")
            return expected(start, "expected one or two asterisks, found more");
          if (text_.substr(at_, 2) == "**") {
            if (++globstars_ > max_globstars) {
              return expected(start, fmt::format("expected at most {} times \"**\"", max_globstars));
            }
            token.kind = Kind::globstar;
            crossing = true;
            at_ += 2;
          } else {
            token.kind = Kind::star;
            ++at_;
          }
          globs = true;
          break;
        case '?':
          token.kind = Kind::any;
          globs = true;
          ++at_;
          break;
        case '[':
          if (!byte_class(token)) return false;
          globs = true;
          break;
        case '\\': {
          const auto byte = take_escape(text_, at_);
          if (!byte) return expected(start, byte.error());
          if (*byte == '/' || *byte == '\0') {
            return expected(start, "expected no escaped slash or NUL: a name cannot contain one");
          }
          token.byte = *byte;
          break;
        }
        default:
          token.byte = text_[at_++];
      }
      component.tokens.push_back(token);
    }
    if (crossing) {
      component.kind =
          component.tokens.size() == 1 ? PatternComponent::Kind::globstar : PatternComponent::Kind::crossing;
    } else if (globs) {
      component.kind = PatternComponent::Kind::glob;
    } else {
      for (const GlobToken& token : component.tokens) component.literal += token.byte;
      component.tokens.clear();
    }
    return true;
  }

  bool byte_class(GlobToken& token) {
    const std::size_t open = at_++;
    ByteClass members;
    const bool negated = at_ < text_.size() && (text_[at_] == '!' || text_[at_] == '^');
    if (negated) ++at_;
    for (const std::size_t first = at_; at_ < text_.size() && (text_[at_] != ']' || at_ == first);) {
      const std::size_t start = at_;
      if (text_[at_] == '[' && text_.substr(at_ + 1).find_first_of(":.=") == 0) {
        return expected(at_, "expected single bytes and ranges: names such as [:alpha:] are not known");
      }
      const std::optional<unsigned char> low = class_byte();
      if (!low) return false;
      unsigned char high = *low;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        const std::optional<unsigned char> end = class_byte();
        if (!end) return false;
        high = *end;
      }
      if (high < *low) return expected(start, "expected a range that ascends");
      for (unsigned byte = *low; byte <= high; ++byte) members.set(byte);
    }
    if (at_ == text_.size()) return expected(open, "expected a \"]\" that closes this \"[\"");
    ++at_;
    if (negated) members.flip();
    members.reset('/');
    token.kind = Kind::byte_class;
    if (pattern_.classes.size() > std::numeric_limits<std::uint16_t>::max()) {
      return expected(open, "expected fewer classes");
    }
    token.byte_class = static_cast<std::uint16_t>(pattern_.classes.size());
    pattern_.classes.push_back(members);
    return true;
  }

  std::optional<unsigned char> class_byte() {
    const std::size_t start = at_;
    char c = text_[at_];
    if (c == '\\') {
      const auto byte = take_escape(text_, at_);
      if (!byte) {
        expected(start, byte.error());
        return std::nullopt;
      }
      c = *byte;
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      expected(start, "expected ASCII in a class: it matches one byte, and this character has several");
      return std::nullopt;
    } else {
      ++at_;
    }
    if (c == '/') {
      expected(start, "expected no \"/\" in a class: it matches within a component");
      return std::nullopt;
    }
    return static_cast<unsigned char>(c);
  }

  bool expected(std::size_t at, std::string message) {
    error_ = SyntaxError{at + 1, std::move(message)};
    return false;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t globstars_ = 0;
  Pattern pattern_;
  SyntaxError error_;
};

/// A set of positions in a glob: as many as tokens, and the end.
class Positions {
 public:
  void clear(std::size_t words) { std::fill_n(bits_.begin(), words, 0); }
  void insert(std::size_t position) { bits_[position / 64] |= std::uint64_t{1} << (position % 64); }
  [[nodiscard]] bool contains(std::size_t position) const {
    return ((bits_[position / 64] >> (position % 64)) & 1U) != 0;
  }
  [[nodiscard]] std::uint64_t word(std::size_t i) const { return bits_[i]; }

 private:
  std::array<std::uint64_t, Glob::max_tokens / 64 + 1> bits_{};
};

}  // namespace

tl::expected<Pattern, SyntaxError> parse_pattern(std::string_view text) {
  return PatternParser(text).run();
}

Glob Glob::component(const Pattern& pattern, std::size_t index) {
  return Glob(pattern.components[index].tokens, pattern.classes, false);
}

Glob Glob::tail(const Pattern& pattern, std::size_t first) {
  std::vector<GlobToken> tokens;
  for (std::size_t i = first; i < pattern.components.size(); ++i) {
    const PatternComponent& component = pattern.components[i];
    const bool last = i + 1 == pattern.components.size();
    if (component.kind == PatternComponent::Kind::globstar && !last) {
      tokens.push_back({Kind::dirs, 0, 0});
      continue;
    }
    for (const char byte : component.literal) tokens.push_back({Kind::byte, byte, 0});
    tokens.insert(tokens.end(), component.tokens.begin(), component.tokens.end());
    if (!last) tokens.push_back({Kind::byte, '/', 0});
  }
  return Glob(std::move(tokens), pattern.classes, pattern.below);
}

Glob::Glob(std::vector<GlobToken> tokens, const std::vector<ByteClass>& classes, bool below) : below_(below) {
  const auto is_byte = [](const GlobToken& token) { return token.kind == Kind::byte; };
  const auto first = std::find_if_not(tokens.begin(), tokens.end(), is_byte);
  // What lies below a match ends in anything.
  const auto last = below ? tokens.end() : std::find_if_not(tokens.rbegin(), tokens.rend(), is_byte).base();
  std::for_each(tokens.begin(), first, [&](const GlobToken& token) { ends_ += token.byte; });
  prefix_size_ = static_cast<std::uint32_t>(ends_.size());
  std::for_each(last, tokens.end(), [&](const GlobToken& token) { ends_ += token.byte; });
  tokens_.assign(first, last);
  if (tokens_.size() == 1 && !below_) {
    if (tokens_[0].kind == Kind::star) middle_ = Middle::star;
    if (tokens_[0].kind == Kind::globstar) middle_ = Middle::globstar;
  }
  for (GlobToken& token : tokens_) {
    if (token.kind != Kind::byte_class) continue;
    classes_.push_back(classes[token.byte_class]);
    token.byte_class = static_cast<std::uint16_t>(classes_.size() - 1);
  }
}

bool Glob::matches(std::string_view text) const {
  return text.size() >= ends_.size() && text.starts_with(prefix()) && text.ends_with(suffix()) &&
         matches_middle(text.substr(prefix_size_, text.size() - ends_.size()));
}

// All positions of the glob that the text read so far can stand at are followed at once, so that no pattern
// makes it look at a byte of the text more often than the pattern is long.
bool Glob::matches_middle(std::string_view text) const {
  if (middle_ == Middle::globstar) return true;
  if (middle_ == Middle::star) return text.find('/') == std::string_view::npos;
  const std::size_t end = tokens_.size();
  const std::size_t words = end / 64 + 1;
  Positions now;
  Positions next;
  // What matches nothing can be passed at once.
  const auto enter = [&](Positions& positions, std::size_t position) {
    positions.insert(position);
    while (position < end &&
           (tokens_[position].kind == Kind::star || tokens_[position].kind == Kind::globstar ||
            tokens_[position].kind == Kind::dirs)) {
      positions.insert(++position);
    }
  };
  enter(now, 0);
  for (const char c : text) {
    if (below_ && c == '/' && now.contains(end)) return true;
    next.clear(words);
    bool alive = false;
    for (std::size_t word = 0; word < words; ++word) {
      for (std::uint64_t bits = now.word(word); bits != 0; bits &= bits - 1) {
        const std::size_t position = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        if (position == end) continue;
        const GlobToken& token = tokens_[position];
        bool forward = false;
        bool stays = false;
        switch (token.kind) {
          case Kind::byte:
            forward = c == token.byte;
            break;
          case Kind::any:
            forward = c != '/';
            break;
          case Kind::byte_class:
            forward = classes_[token.byte_class][static_cast<unsigned char>(c)];
            break;
          case Kind::star:
            stays = forward = c != '/';
            break;
          case Kind::globstar:
            stays = forward = true;
            break;
          case Kind::dirs:
            stays = true;
            forward = c == '/';
            break;
        }
        if (stays) next.insert(position);
        if (forward) enter(next, position + 1);
        alive = alive || stays || forward;
      }
    }
    if (!alive) return false;
    std::swap(now, next);
  }
  return now.contains(end);
}

std::uint32_t GlobIndex::add(Glob glob, std::uint32_t value) {
  Shape shape;
  shape.at_end = glob.suffix().size() > glob.prefix().size();
  shape.length = std::min((shape.at_end ? glob.suffix() : glob.prefix()).size(), max_key);
  const auto number = static_cast<std::uint32_t>(std::find_if(shapes_.begin(), shapes_.end(),
                                                              [&](const Shape& one) {
                                                                return one.length == shape.length &&
                                                                       one.at_end == shape.at_end;
                                                              }) -
                                                 shapes_.begin());
  if (number == shapes_.size()) shapes_.push_back(shape);
  const std::string_view key = shape.key_of(glob);
  if (!key.empty()) shapes_[number].inner.set(shape.inner_byte(key));
  const auto position = static_cast<std::uint32_t>(entries_.size());
  std::uint32_t next = 0;
  if (const auto first = find_first(key, number))
    next = std::exchange(entries_[*first].next, position + 1);
  else
    index_.insert(HashIndex::hash(key, number), position);
  entries_.push_back({value, number, next, std::move(glob)});
  return position;
}

}  // namespace fpolicy
