// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <chrono>
#include <span>

namespace fpolicy::sys {

/// move_pages(2) on one address space. May be called by several threads at a time.
class PageMover {
 public:
  virtual ~PageMover() = default;
  /// The node of each page, or a negative errno in its place. Gives 0 or an errno.
  virtual int locate(std::span<void*> addresses, std::span<int> nodes) = 0;
  /// Pages that could not be moved, or a negative errno. `all`: also pages that others map (CAP_SYS_NICE). A
  /// status is written only where the kernel says something of that page.
  virtual long move(std::span<void*> addresses, std::span<const int> nodes, std::span<int> statuses,
                    bool all) = 0;
  virtual void pause(std::chrono::microseconds time) = 0;
};

}  // namespace fpolicy::sys
