// SPDX-License-Identifier: LGPL-2.1-or-later
// What a pattern means, written down as plainly as possible: shares nothing with the library, takes
// exponential time, and is what the compiled rules are compared with.
#pragma once

#include <string>
#include <string_view>

namespace fpolicy::plain {

inline char take_literal(std::string_view& pattern) {
  char c = pattern[0];
  pattern.remove_prefix(1);
  if (c != '\\') return c;
  c = pattern[0];
  if (c >= '0' && c <= '7') {
    c = static_cast<char>(std::stoi(std::string(pattern.substr(0, 3)), nullptr, 8));
    pattern.remove_prefix(3);
    return c;
  }
  pattern.remove_prefix(1);
  return c == 't' ? '\t' : c == 'n' ? '\n' : c;
}

/// Takes a whole class; is `byte` in it?
inline bool take_class(std::string_view& pattern, char byte) {
  pattern.remove_prefix(1);
  const bool negated = pattern[0] == '!' || pattern[0] == '^';
  if (negated) pattern.remove_prefix(1);
  bool found = false;
  for (bool first = true; first || pattern[0] != ']'; first = false) {
    const auto low = static_cast<unsigned char>(take_literal(pattern));
    auto high = low;
    if (pattern[0] == '-' && pattern[1] != ']') {
      pattern.remove_prefix(1);
      high = static_cast<unsigned char>(take_literal(pattern));
    }
    const auto value = static_cast<unsigned char>(byte);
    found = found || (low <= value && value <= high);
  }
  pattern.remove_prefix(1);
  return found != negated;
}

inline bool matches(std::string_view pattern, std::string_view path) {
  if (pattern == "/") return path.empty() || path[0] == '/';
  if (pattern == "/**") return path.size() > 1 && path[0] == '/';
  if (pattern.starts_with("/**/")) {
    const std::string_view rest = pattern.substr(3);
    if (matches(rest, path)) return true;
    for (std::size_t i = 1; i < path.size(); ++i) {
      if (path[0] == '/' && path[i] == '/' && matches(rest, path.substr(i))) return true;
    }
    // "/**/" at the end: the directory itself, and any directory below.
    return rest == "/" && !path.empty() && path[0] == '/';
  }
  if (pattern.empty()) return path.empty();
  if (pattern.starts_with("**")) {
    for (std::size_t i = 0; i <= path.size(); ++i) {
      if (matches(pattern.substr(2), path.substr(i))) return true;
    }
    return false;
  }
  if (pattern[0] == '*') {
    for (std::size_t i = 0; i <= path.size(); ++i) {
      if (matches(pattern.substr(1), path.substr(i))) return true;
      if (i < path.size() && path[i] == '/') break;
    }
    return false;
  }
  if (path.empty()) return false;
  const char byte = path[0];
  if (pattern[0] == '?') return byte != '/' && matches(pattern.substr(1), path.substr(1));
  if (pattern[0] == '[') return take_class(pattern, byte) && byte != '/' && matches(pattern, path.substr(1));
  return take_literal(pattern) == byte && matches(pattern, path.substr(1));
}

}  // namespace fpolicy::plain
