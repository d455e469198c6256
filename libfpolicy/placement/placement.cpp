// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/run.h"
#include "sys/memory.h"

#include <fpolicy/placement.h>

#include <limits>

namespace fpolicy {
namespace {

/// For a file that the caller may not ask about, mincore(2) calls every page resident: to look would be to
/// read the whole file in.
Status check_observable(int fd) {
  const auto may = may_observe(fd);
  if (!may) return tl::unexpected(may.error());
  if (!*may)
    return fail(EPERM,
                "which of its pages are resident is told to its owner only, and to those who may write it");
  return {};
}

Status check_home(const std::vector<PageRun>& home) {
  std::uint64_t end = 0;
  for (const PageRun& run : home) {
    if (run.first < end || run.count > std::numeric_limits<std::uint64_t>::max() - run.first ||
        run.node >= NodeSet::max_nodes)
      return fail(EINVAL, "page runs are not ascending");
    end = run.first + run.count;
  }
  return {};
}

}  // namespace

Result<bool> may_observe(int fd) {
  return sys::may_ask_residency(fd);
}

Result<PlacementReport> audit_file(int fd, const Target& target, const Topology& topology,
                                   const PlacementOptions& options) {
  if (const auto observable = check_observable(fd); !observable) return tl::unexpected(observable.error());
  return placement::audit(*sys::open_memory(), fd, target, topology, options);
}

Result<PlacementReport> enforce_file(int fd, const Target& target, const Topology& topology,
                                     const PlacementOptions& options) {
  if (const auto observable = check_observable(fd); !observable) return tl::unexpected(observable.error());
  return placement::enforce(*sys::open_memory(), fd, target, topology, options);
}

Result<PlacementReport> return_home(int fd, const std::vector<PageRun>& home, const Topology& topology,
                                    const PlacementOptions& options) {
  if (const auto valid = check_home(home); !valid) return tl::unexpected(valid.error());
  if (const auto observable = check_observable(fd); !observable) return tl::unexpected(observable.error());
  return placement::return_home(*sys::open_memory(), fd, home, topology, options);
}

}  // namespace fpolicy
