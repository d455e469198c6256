// SPDX-License-Identifier: LGPL-2.1-or-later
// Another process's pages, and page frames, as the kernel shows and moves them: /proc/PID/pagemap,
// /proc/kpageflags, /proc/kpagecount, move_pages(2). The boundary at which tests put invented machines and
// faults.
#pragma once

#include "sys/page_mover.h"

#include <fpolicy/process.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace fpolicy::sys {

/// A word of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
struct PageEntry {
  std::uint64_t word = 0;

  [[nodiscard]] bool present() const { return (word >> 63U & 1U) != 0; }
  /// Of a file, or shared anonymous memory; else private.
  [[nodiscard]] bool of_file() const { return (word >> 61U & 1U) != 0; }
  /// Mapped once in all.
  [[nodiscard]] bool exclusive() const { return (word >> 56U & 1U) != 0; }
  [[nodiscard]] std::uint64_t frame() const { return word & ((std::uint64_t{1} << 55U) - 1); }
};

/// Calls give 0 or an errno.
class ProcessPages : public PageMover {
 public:
  /// The entries of the pages from `address` on.
  virtual int entries(std::uint64_t address, std::span<PageEntry> entries) = 0;
  /// Calls `each` with ranges of [start, end) that hold all present pages, in order.
  virtual int present(std::uint64_t start, std::uint64_t end,
                      const std::function<void(std::uint64_t start, std::uint64_t end)>& each) = 0;
  /// The process has ended, or is ending.
  [[nodiscard]] virtual bool is_gone() = 0;
};

class PageFrames {
 public:
  virtual ~PageFrames() = default;
  /// As in /proc/kpageflags, from frame `pfn` on.
  virtual int flags(std::uint64_t pfn, std::span<std::uint64_t> flags) = 0;
  /// How often each is mapped.
  virtual int mapped(std::uint64_t pfn, std::span<std::uint64_t> counts) = 0;
  /// The smallest number of pages that large folios of private memory have, as it is set up now.
  [[nodiscard]] virtual std::uint32_t smallest_private_folio() = 0;
};

/// `own_only`: pages that other processes map are refused by move(), whatever it is told.
/// Error: EPERM where page frames are not shown (CAP_SYS_ADMIN), ESRCH.
Result<std::unique_ptr<ProcessPages>> open_process_pages(const Process& process, bool own_only);
Result<std::unique_ptr<PageFrames>> open_page_frames();

}  // namespace fpolicy::sys
