// SPDX-License-Identifier: LGPL-2.1-or-later
// Free memory by node: /proc/zoneinfo, and the pools of huge pages.
#pragma once

#include <fpolicy/result.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::sys {

struct NodeRoom {
  /// Pages free above the high watermark: what movable pages can fill without waking reclaim. The part of a
  /// zone that is kept for allocations from lower zones ("protection") is not counted.
  std::uint64_t free = 0;
  /// Pages of files that reclaim can make free for others, as MemAvailable counts them: what is in use stays,
  /// at least a half.
  std::uint64_t reclaimable = 0;
  std::uint64_t managed = 0;  ///< pages that the node has in all
};

/// By node number, out of zoneinfo's text. Error: EINVAL with the line.
Result<std::vector<NodeRoom>> parse_room(std::string_view zoneinfo);

/// The running kernel's, or that of a captured tree.
Result<std::vector<NodeRoom>> read_room(const std::string& root = "/");

/// The same in huge pages of `page_size` bytes: those free in each node's pool. Reclaimable is without limit,
/// for whether the pool grows for a migration the kernel alone can tell.
Result<std::vector<NodeRoom>> read_huge_room(std::uint64_t page_size, const std::string& root = "/");

}  // namespace fpolicy::sys
