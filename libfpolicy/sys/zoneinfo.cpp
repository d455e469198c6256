// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/zoneinfo.h"

#include "sys/read_file.h"

#include <fpolicy/node_set.h>

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

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
  std::vector<std::uint64_t> watermarks;
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
      if (room.size() <= *node) {
        room.resize(*node + 1);
        watermarks.resize(*node + 1);
      }
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
      watermarks[*node] += high;
    } else if (take(line, "nr_inactive_file ") || take(line, "nr_active_file ")) {
      const auto number = take_number(line);
      if (!number) return malformed();
      room[*node].reclaimable += *number;
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
  for (std::size_t i = 0; i < room.size(); ++i)
    room[i].reclaimable -= std::min(room[i].reclaimable / 2, watermarks[i]);
  return room;
}

Result<std::vector<NodeRoom>> read_room(const std::string& root) {
  // 1,024 nodes of 5 zones with the lists of 8,192 processors are a good hundred bytes each.
  constexpr std::size_t limit = std::size_t{1} << 30U;
  const auto text = read_file(AT_FDCWD, root + "/proc/zoneinfo", limit);
  if (!text) return tl::unexpected(text.error());
  return parse_room(*text);
}

Result<std::vector<NodeRoom>> read_huge_room(std::uint64_t page_size, const std::string& root) {
  const std::string nodes = root + "/sys/devices/system/node";
  const std::string pool = "/hugepages/hugepages-" + std::to_string(page_size / 1024) + "kB/";
  const auto list = read_file(AT_FDCWD, nodes + "/has_memory", 65536);
  if (!list) return tl::unexpected(list.error());
  const auto with_memory = NodeSet::parse(*list);
  if (!with_memory) return with_context(nodes + "/has_memory", with_memory.error());
  std::vector<NodeRoom> room;
  for (const unsigned node : with_memory->members()) {
    const std::string path = nodes + "/node" + std::to_string(node) + pool;
    room.resize(node + 1);
    room[node].reclaimable = std::numeric_limits<std::uint64_t>::max() / 2;
    for (const auto& [name, field] :
         {std::pair("free_hugepages", &NodeRoom::free), std::pair("nr_hugepages", &NodeRoom::managed)}) {
      const auto text = read_file(AT_FDCWD, path + name, 65536);
      if (!text) return tl::unexpected(text.error());
      std::string_view rest = *text;
      const auto number = take_number(rest);
      if (!number) return fail(EINVAL, path + name + ": expected a number");
      room[node].*field = *number;
    }
  }
  return room;
}

}  // namespace fpolicy::sys
