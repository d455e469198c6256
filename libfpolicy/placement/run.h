// SPDX-License-Identifier: LGPL-2.1-or-later
// Observe, decide, act over a file's windows: what the public calls of placement.h do, on any sys::Memory.
#pragma once

#include "sys/memory.h"

#include <fpolicy/placement.h>
#include <fpolicy/topology.h>

#include <vector>

namespace fpolicy::placement {

Result<PlacementReport> audit(sys::Memory& memory, int fd, const Target& target, const Topology& topology,
                              const PlacementOptions& options);
Result<PlacementReport> enforce(sys::Memory& memory, int fd, const Target& target, const Topology& topology,
                                const PlacementOptions& options);
Result<PlacementReport> return_home(sys::Memory& memory, int fd, const std::vector<PageRun>& home,
                                    const Topology& topology, const PlacementOptions& options);

}  // namespace fpolicy::placement
