// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/escape.h"

#include "policy/text.h"

#include <fpolicy/rules.h>

#include <fmt/format.h>

#include <iterator>

namespace fpolicy {
namespace {

/// Characters that are well-formed UTF-8 and yet would not be seen as what they are on a terminal or in an
/// editor: C1 controls, line and paragraph separators, and the marks that reverse the direction of text.
bool is_invisible(char32_t code) {
  return (code >= 0x80 && code <= 0x9f) || code == 0x200e || code == 0x200f ||
         (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/// Bytes of the readable non-ASCII character at the start of `text`; 0 where none stands there. Well-formed
/// as in table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing above U+10FFFF.
std::size_t readable_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  std::size_t length = 0;
  char32_t code = 0;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
    code = lead & 0x1fU;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    code = lead & 0x0fU;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    code = lead & 0x07U;
  }
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return 0;
    code = (code << 6U) | (byte(i) & 0x3fU);
  }
  if (length == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff))) return 0;
  if (length == 4 && (code < 0x10000 || code > 0x10ffff)) return 0;
  return is_invisible(code) ? 0 : length;
}

std::string escape(std::string_view text, bool globs) {
  std::string out;
  out.reserve(text.size());
  // White space at an end would be lost in an editor.
  const std::size_t last = text.find_last_not_of(' ') + 1;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const auto byte = static_cast<unsigned char>(c);
    const std::size_t wide = byte >= 0x80 ? readable_utf8(text.substr(at)) : 0;
    if (wide != 0) {
      out += text.substr(at, wide);
      at += wide;
      continue;
    }
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || (globs && is_glob_character(c)) || (c == '#' && at == 0)) {
      out.append(1, '\\').append(1, c);
    } else if (byte < 0x20 || byte >= 0x7f || (c == ' ' && (at == 0 || at >= last))) {
      fmt::format_to(std::back_inserter(out), "\\{:03o}", byte);
    } else {
      out += c;
    }
    ++at;
  }
  return out;
}

}  // namespace

tl::expected<char, std::string> take_escape(std::string_view text, std::size_t& at) {
  const auto wrong = [&] {
    return tl::unexpected<std::string>(
        "expected \\t, \\n, \\\\, three octal digits, or one of * ? [ ] # after the backslash" +
        found_at(text, at + 1));
  };
  if (at + 1 >= text.size()) return wrong();
  const char c = text[at + 1];
  if (c >= '0' && c <= '7') {
    unsigned value = 0;
    std::size_t end = at + 1;
    for (; end < text.size() && end < at + 4 && text[end] >= '0' && text[end] <= '7'; ++end) {
      value = value * 8 + static_cast<unsigned>(text[end] - '0');
    }
    if (end != at + 4 || value > 255) {
      return tl::unexpected<std::string>("expected three octal digits from 000 to 377 after the backslash");
    }
    at = end;
    return static_cast<char>(value);
  }
  if (c == 't' || c == 'n') {
    at += 2;
    return c == 't' ? '\t' : '\n';
  }
  if (c != '\\' && c != '#' && !is_glob_character(c)) return wrong();
  at += 2;
  return c;
}

std::string escape_path(std::string_view path) {
  return escape(path, true);
}

std::string escape_text(std::string_view text) {
  return escape(text, false);
}

Result<std::string> unescape_path(std::string_view pattern) {
  std::string out;
  out.reserve(pattern.size());
  for (std::size_t at = 0; at < pattern.size();) {
    if (pattern[at] == '\\') {
      const std::size_t start = at;
      const auto byte = take_escape(pattern, at);
      if (!byte) return fail(EINVAL, fmt::format("column {}: {}", start + 1, byte.error()));
      if (*byte == '\0') return fail(EINVAL, fmt::format("column {}: expected no NUL byte", start + 1));
      out += *byte;
    } else if (is_glob_character(pattern[at])) {
      return fail(EINVAL,
                  fmt::format("column {}: expected a path, found the pattern character {} (as part of "
                              "a name it is written \\{})",
                              at + 1, pattern[at], pattern[at]));
    } else {
      out += pattern[at++];
    }
  }
  return out;
}

}  // namespace fpolicy
