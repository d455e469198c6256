// SPDX-License-Identifier: LGPL-2.1-or-later
// Where a file's resident pages are, and bringing misplaced ones home: observe, decide, act.
// Pages are base pages of sysconf(_SC_PAGESIZE) bytes throughout; for hugetlbfs files they are huge pages.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/node_set.h>
#include <fpolicy/result.h>
#include <fpolicy/topology.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fpolicy {

/// Pages of a file by node.
struct FPOLICY_API Residency {
  std::uint64_t page_size = 0;       ///< bytes; a huge page's size for hugetlbfs
  std::uint64_t resident_pages = 0;  ///< in page_size units
  std::vector<std::uint64_t> pages_by_node;
  std::uint64_t unknown_pages = 0;  ///< resident, but gone before their node could be told
};

/// A run of resident pages on one node, for snapshots of where pages lie.
struct FPOLICY_API PageRun {
  std::uint64_t first = 0;  ///< page index in the file
  std::uint64_t count = 0;
  unsigned node = 0;
};

struct FPOLICY_API PlacementReport {
  Residency residency;                ///< at the end of the work
  std::uint64_t misplaced_pages = 0;  ///< left at the end of the work
  std::uint64_t moved_pages = 0;
  std::uint64_t busy_pages = 0;       ///< still busy after the retries
  std::uint64_t no_memory_pages = 0;  ///< of those left: their nodes are full
  std::uint64_t vanished_pages = 0;   ///< reclaimed or truncated meanwhile
  std::uint64_t denied_pages = 0;     ///< mapped by other processes, and the caller lacks CAP_SYS_NICE
  /// Why misplaced pages are left, for people. Of an audit: what an enforcement would meet, as a full node.
  std::string reason;
};

struct FPOLICY_API PlacementOptions {
  unsigned threads = 0;                        ///< 0: as many as processors, at most 8
  std::uint64_t window_bytes = 256ULL << 20U;  ///< most of one file that is mapped at a time
  unsigned busy_retries = 5;
  /// Called after each window with pages moved since the last call; returns false to stop: the report then
  /// covers the windows up to there and says so. For bandwidth limits and progress.
  std::function<bool(std::uint64_t moved_pages)> after_window;
  /// Filled with where the resident pages lie at the end, if not null.
  std::vector<PageRun>* runs = nullptr;
};

/// May the caller ask which pages of this file are resident? mincore(2) calls every page resident for a file
/// that the caller neither owns nor may write.
FPOLICY_API Result<bool> may_observe(int fd);

/// Counts a file's resident pages by node, and those that `target` (mode none: nothing) does not allow. Reads
/// no page in. The file may be truncated or deleted at any moment. `fd`: open for reading, a regular file.
/// Without CAP_SYS_ADMIN the sizes of large folios are unknown, and interleave counts them page by page: the
/// report's reason then says so.
/// The work follows what is resident, also in sparse files of any size; on kernels before 6.5, and on
/// filesystems such as overlayfs, pages of zeros over a hole are no longer looked for after 16 GiB without a
/// resident page. Errors: EINVAL not a regular file, EBADF an O_PATH descriptor, ENOTSUP a DAX file (it has
/// no page cache) or a hugetlbfs file where userfaultfd(2) is missing, EPERM where may_observe() says no,
/// ENODEV a file that cannot be mapped.
FPOLICY_API Result<PlacementReport> audit_file(int fd, const Target& target, const Topology& topology,
                                               const PlacementOptions& options = {});

/// Moves the misplaced pages home. Needs CAP_SYS_NICE for pages that others map too. Never fails for pages
/// that cannot be moved: they are counted in the report. Errors: those of audit_file(); EPERM for interleave
/// without CAP_SYS_ADMIN (a large folio moved for a page in its middle would come to lie on the wrong node).
FPOLICY_API Result<PlacementReport> enforce_file(int fd, const Target& target, const Topology& topology,
                                                 const PlacementOptions& options = {});

/// Moves resident pages back to where `home` says they were; pages that it does not name are left alone.
FPOLICY_API Result<PlacementReport> return_home(int fd, const std::vector<PageRun>& home,
                                                const Topology& topology,
                                                const PlacementOptions& options = {});

}  // namespace fpolicy
