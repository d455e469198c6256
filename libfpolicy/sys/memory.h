// SPDX-License-Identifier: LGPL-2.1-or-later
// A file's page-cache pages as the kernel shows and moves them: mmap, mincore, pagemap, move_pages.
// The boundary at which tests put invented machines and faults.
#pragma once

#include "sys/page_mover.h"
#include "sys/zoneinfo.h"

#include <fpolicy/result.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fpolicy::sys {

/// What of a file decides how its pages are looked at.
struct FileShape {
  std::uint64_t bytes = 0;
  std::uint64_t page_size = 0;  ///< bytes; of a huge page for hugetlbfs
  bool hugetlb = false;
};

/// What frames() gives for a page that is not mapped.
inline constexpr std::uint64_t no_frame = ~std::uint64_t{0};

/// Addresses lie in a mapping made by map(); lengths are bytes. Calls that return int give 0 or an errno. All
/// but shape(), map(), unmap() and next_resident() may be called by several threads at a time.
class Memory : public PageMover {
 public:
  [[nodiscard]] virtual Result<FileShape> shape(int fd) = 0;
  /// Maps a window for reading; `fd` stays open until it is unmapped. Touching it is forbidden (SIGBUS where
  /// the file was truncated): populate() it.
  [[nodiscard]] virtual Result<std::byte*> map(int fd, std::uint64_t offset, std::uint64_t length,
                                               const FileShape& shape) = 0;
  virtual void unmap(std::byte* address, std::uint64_t length) = 0;
  /// A lower bound of the next resident page's offset from `offset` on, found in steps of `granule`; the
  /// file's size if none follows; `offset` itself where that cannot be told. Never skips a resident page, but
  /// with `skip_holes`: then a kernel without cachestat(2) (before 6.5) skips the pages of zeros that reads
  /// of a sparse file's holes left in the cache.
  [[nodiscard]] virtual std::uint64_t next_resident(int fd, const FileShape& shape, std::uint64_t offset,
                                                    std::uint64_t granule, bool skip_holes) = 0;

  /// One byte a page, bit 0: resident. Not for hugetlbfs: mincore(2) looks at the page table only there.
  virtual int residency(std::byte* address, std::span<unsigned char> pages) = 0;
  /// Maps the pages, all that fault-around finds beside them included. Fails with EFAULT where the file ends
  /// or, on hugetlbfs, has a hole.
  virtual int populate(std::byte* address, std::uint64_t length) = 0;
  /// Takes the pages out of the page table.
  virtual void release(std::byte* address, std::uint64_t length) = 0;

  /// May the caller see page frame numbers and their flags? (CAP_SYS_ADMIN)
  [[nodiscard]] virtual bool sees_frames() const = 0;
  /// Frame number of each page; no_frame where it is not mapped.
  virtual int frames(std::byte* address, std::span<std::uint64_t> pfns) = 0;
  /// Flags of the frames from `pfn` on, as in /proc/kpageflags.
  virtual int frame_flags(std::uint64_t pfn, std::span<std::uint64_t> flags) = 0;

  /// Does it pay to move() from several threads at a time?
  [[nodiscard]] virtual bool moves_in_parallel() const = 0;

  /// By node, in pages of the file's size.
  [[nodiscard]] virtual Result<std::vector<NodeRoom>> room(const FileShape& shape) = 0;
};

/// The running kernel's.
std::unique_ptr<Memory> open_memory();

/// May the caller ask which pages of this file are resident?
Result<bool> may_ask_residency(int fd);

}  // namespace fpolicy::sys
