// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/text.h"

#include <fmt/format.h>

#include <limits>

namespace fpolicy {

std::optional<unsigned> take_number(std::string_view text, std::size_t& at) {
  constexpr unsigned most = std::numeric_limits<unsigned>::max();
  const std::size_t start = at;
  unsigned value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    const unsigned digit = static_cast<unsigned>(text[at] - '0');
    value = value > (most - digit) / 10 ? most : value * 10 + digit;
  }
  if (at == start) return std::nullopt;
  return value;
}

std::string quoted(std::string_view text) {
  constexpr std::size_t longest = 40;
  std::string out = "\"";
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\{:03o}", byte);
    } else {
      out += c;
    }
  }
  out += text.size() > longest ? "...\"" : "\"";
  return out;
}

std::string found_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return ", found the end";
  if (text[at] == ' ') return ", found a space";
  if (text[at] == '\t') return ", found a tab";
  return ", found " + quoted(text.substr(at, 1));
}

}  // namespace fpolicy
