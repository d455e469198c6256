// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/node_set.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <vector>

namespace fpolicy {

/// Page frame numbers [first, end) on one node.
struct FPOLICY_API PfnRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  unsigned node = 0;
};

/// The machine's NUMA nodes. Source: /sys/devices/system/node (a captured tree serves as well).
struct FPOLICY_API Topology {
  NodeSet memory;  ///< nodes that have memory: on these pages can be
  NodeSet cpu;     ///< nodes that have processors
  /// distance[a][b] as in nodeN/distance, for a and b up to the highest node; 0 where unknown.
  std::vector<std::vector<unsigned>> distance;
  /// Which node a page frame is on: ascending, without overlap. Source: nodeN/memoryM. Memory blocks that
  /// more than one node shares are left out; empty where the kernel does not list blocks. Frames that are not
  /// in it are asked of the kernel one by one.
  std::vector<PfnRange> frames;

  /// Memory-only nodes: CXL, HBM.
  [[nodiscard]] NodeSet cpuless() const { return memory - cpu; }

  /// `sysfs_root`: "/" on a live machine, or a directory that holds a captured sys/devices/system/node.
  /// Error: ENOENT where the kernel knows no NUMA, EINVAL where a file does not parse.
  static Result<Topology> read(const std::string& sysfs_root = "/");
};

/// A placement in terms of this machine and this job: where each page belongs.
struct FPOLICY_API Target {
  Mode mode = Mode::none;
  /// Allowed nodes (bind, prefer), or the nodes of `slots`.
  NodeSet nodes;
  /// interleave: page index i belongs on slots[i % slots.size()]; a large folio counts by its first page.
  std::vector<unsigned> slots;
};

/// Evaluates a policy's placement. Pure.
/// `allowed`: the nodes the job may use; words and "+" are evaluated within those of it that have memory, an
/// absolute list is not cut by it. Error (ENODEV): the placement is unsatisfiable here: it names a node that
/// does not exist or has no memory, its word is an empty set here, or a relative number is not below the
/// number of nodes allowed (numactl refuses that as well). A policy without placement gives mode none.
FPOLICY_API Result<Target> evaluate_placement(const Policy& policy, const Topology& topology,
                                              const NodeSet& allowed);

}  // namespace fpolicy
