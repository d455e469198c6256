// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/zoneinfo.h"

#include "sys/read_file.h"

#include <fpolicy/node_set.h>

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace fpolicy::sys {
namespace {

void skip_spaces(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

std::optional<std::uint64_t> take_number(std::string_view& text) {
  skip_spaces(text);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

/// The largest of "(0, 2938, 15983)".
std::optional<std::uint64_t> take_largest(std::string_view& text) {
  skip_spaces(text);
  if (!take(text, "(")) return std::nullopt;
  std::uint64_t largest = 0;
  do {
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    largest = std::max(largest, *number);
  } while (take(text, ","));
  if (!take(text, ")")) return std::nullopt;
  return largest;
}

}  // namespace

Result<std::vector<NodeRoom>> parse_room(std::string_view zoneinfo) {
  std::vector<NodeRoom> room;
  std::optional<std::uint64_t> node;
  std::uint64_t free = 0;
  std::uint64_t high = 0;
  unsigned line_number = 0;
  while (!zoneinfo.empty()) {
    ++line_number;
    const std::size_t end = std::min(zoneinfo.find('\n'), zoneinfo.size());
    std::string_view line = zoneinfo.substr(0, end);
    zoneinfo.remove_prefix(std::min(end + 1, zoneinfo.size()));
    const auto malformed = [&] {
      return fail(EINVAL, "/proc/zoneinfo:" + std::to_string(line_number) + ": expected a number");
    };
    if (take(line, "Node ")) {
      node = take_number(line);
      if (!node || *node >= NodeSet::max_nodes) return malformed();
      free = high = 0;
      if (room.size() <= *node) room.resize(*node + 1);
      continue;
    }
    if (!node) continue;
    skip_spaces(line);
    if (take(line, "pages free ")) {
      const auto number = take_number(line);
      if (!number) return malformed();
      free = *number;
    } else if (take(line, "high ")) {
      const auto number = take_number(line);
      if (!number) return malformed();
      high = *number;
    } else if (take(line, "managed ")) {
      const auto number = take_number(line);
      if (!number) return malformed();
      room[*node].managed += *number;
    } else if (take(line, "protection:")) {
      // The last of a zone's lines that matter.
      const auto reserved = take_largest(line);
      if (!reserved) return malformed();
      if (free > high && free - high > *reserved) room[*node].free += free - high - *reserved;
      free = high = 0;
    }
  }
  return room;
}

Result<std::vector<NodeRoom>> read_room(const std::string& root) {
  // 1,024 nodes of 5 zones with the lists of 8,192 processors are a good hundred bytes each.
  constexpr std::size_t limit = std::size_t{1} << 30U;
  const auto text = read_file(AT_FDCWD, root + "/proc/zoneinfo", limit);
  if (!text) return tl::unexpected(text.error());
  return parse_room(*text);
}

}  // namespace fpolicy::sys
