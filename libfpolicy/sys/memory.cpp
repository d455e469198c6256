// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/memory.h"

#include "sys/capability.h"
#include "sys/words.h"
#include "sys/zoneinfo.h"

#include <fpolicy/fd.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <numaif.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <limits>
#include <optional>
#include <system_error>
#include <thread>

namespace fpolicy::sys {
namespace {

// cachestat(2) came with Linux 6.5, after the headers this is built with.
constexpr long cachestat_call = 451;
struct CachestatRange {
  std::uint64_t offset;
  std::uint64_t length;
};
struct Cachestat {
  std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

constexpr std::uint64_t pagemap_present = std::uint64_t{1} << 63U;
constexpr std::uint64_t pagemap_frame = (std::uint64_t{1} << 55U) - 1;

std::uint64_t base_page_size() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// Filesystems whose open files carry their page cache themselves, so that cachestat sees all that mmap would
/// show. Not overlayfs: a mapping of its files shows the pages of the file below, cachestat those of the file
/// above, which has none. Not tmpfs: what is in the swap cache is resident, yet not counted.
bool cachestat_sees_all(const struct statfs& filesystem) {
  constexpr std::uint64_t msdos = MSDOS_SUPER_MAGIC;
  constexpr std::uint64_t xfs = 0x58465342;
  constexpr std::uint64_t exfat = 0x2011BAB0;
  switch (static_cast<std::uint64_t>(filesystem.f_type)) {
    case EXT4_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case SQUASHFS_MAGIC:
    case NFS_SUPER_MAGIC:
    case msdos:
    case xfs:
    case exfat:
      return true;
    default:
      return false;
  }
}

/// Of "6.12.38+deb13-amd64" and the like.
bool is_kernel_at_least(unsigned major, unsigned minor) {
  struct utsname name{};
  if (::uname(&name) != 0) return false;
  std::array<unsigned, 2> version{};
  const char* const end = std::end(name.release);
  const auto first = std::from_chars(std::begin(name.release), end, version[0]);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '.') return false;
  const auto second = std::from_chars(first.ptr + 1, end, version[1]);
  return second.ec == std::errc{} && version >= std::array{major, minor};
}

class SystemMemory final : public Memory {
 public:
  SystemMemory()
      : pagemap_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)),
        flags_(::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC)) {
    // Without CAP_SYS_ADMIN in the first user namespace every frame number reads as 0 (since Linux 4.2).
    std::byte mine{};
    std::uint64_t pfn = no_frame;
    sees_frames_ = pagemap_ && flags_ && frames(&mine, {&pfn, 1}) == 0 && pfn != no_frame;
  }

  Result<FileShape> shape(int fd) override {
    struct statx status{};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &status) != 0) return fail_errno("statx", "");
    if (!S_ISREG(status.stx_mode)) return fail(EINVAL, "not a regular file: only those have pages to place");
    if ((status.stx_attributes & STATX_ATTR_DAX) != 0)
      return fail(ENOTSUP, "a DAX file has no page cache: its pages are where its device is");
    struct statfs filesystem{};
    if (::fstatfs(fd, &filesystem) != 0) return fail_errno("fstatfs", "");
    FileShape shape;
    shape.bytes = status.stx_size;
    shape.hugetlb = filesystem.f_type == HUGETLBFS_MAGIC;
    shape.page_size = shape.hugetlb ? static_cast<std::uint64_t>(filesystem.f_bsize) : base_page_size();
    return shape;
  }

  Result<std::byte*> map(int fd, std::uint64_t offset, std::uint64_t length,
                         const FileShape& shape) override {
    // MAP_NORESERVE: on hugetlbfs a mapping would take huge pages out of the pool. MAP_PRIVATE: userfaultfd
    // registers read-only mappings of files opened read-only only when they are private.
    void* const address =
        ::mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, static_cast<off_t>(offset));
    if (address == MAP_FAILED) return fail_errno("mmap", "");
    auto* const bytes = static_cast<std::byte*>(address);
    struct statfs filesystem{};
    if (!shape.hugetlb && ::fstatfs(fd, &filesystem) == 0 && cachestat_sees_all(filesystem))
      counted_.push_back({.address = bytes, .length = length, .fd = fd, .offset = offset});
    // A page that is reclaimed between mincore and populate would otherwise bring its neighbours in with it
    // (readahead), and unmapping would mark all that fault-around mapped as recently used (since 6.3).
    ::madvise(address, length, MADV_RANDOM);
    if (shape.hugetlb)
      if (const auto guarded = guard_holes(bytes, length); !guarded) {
        ::munmap(address, length);
        return tl::unexpected(guarded.error());
      }
    return bytes;
  }

  void unmap(std::byte* address, std::uint64_t length) override {
    ::munmap(address, length);
    std::erase_if(counted_, [address](const Window& window) { return window.address == address; });
  }

  std::uint64_t next_resident(int fd, const FileShape& shape, std::uint64_t offset, std::uint64_t granule,
                              bool skip_holes) override {
    struct statfs filesystem{};
    if (::fstatfs(fd, &filesystem) != 0) return offset;
    // tmpfs: every page, resident or in swap, is data, for SEEK_DATA walks the page cache itself.
    if (filesystem.f_type == TMPFS_MAGIC) return next_data(fd, shape, offset);
    if (cachestat_sees_all(filesystem))
      if (const auto next = next_cached(fd, shape, offset, granule)) return *next;
    return skip_holes ? next_data(fd, shape, offset) : offset;
  }

  int residency(std::byte* address, std::span<unsigned char> pages) override {
    // mincore looks each page up (50 to 80 ns); that all of them are there, cachestat tells for less.
    if (is_all_cached(address, pages.size() * base_page_size())) {
      std::ranges::fill(pages, 1);
      return 0;
    }
    return ::mincore(address, pages.size() * base_page_size(), pages.data()) == 0 ? 0 : errno;
  }

  int populate(std::byte* address, std::uint64_t length) override {
    return ::madvise(address, length, MADV_POPULATE_READ) == 0 ? 0 : errno;
  }

  void release(std::byte* address, std::uint64_t length) override {
    ::madvise(address, length, MADV_DONTNEED);
  }

  [[nodiscard]] bool sees_frames() const override { return sees_frames_; }

  int frames(std::byte* address, std::span<std::uint64_t> pfns) override {
    std::size_t done = 0;
    const std::uint64_t first = reinterpret_cast<std::uintptr_t>(address) / base_page_size();
    const int error = read_words(pagemap_.get(), first, pfns, done);
    for (std::uint64_t& word : pfns.first(done)) {
      const std::uint64_t pfn = word & pagemap_frame;
      word = (word & pagemap_present) != 0 && pfn != 0 ? pfn : no_frame;
    }
    std::ranges::fill(pfns.subspan(done), no_frame);
    return error;
  }

  int frame_flags(std::uint64_t pfn, std::span<std::uint64_t> flags) override {
    std::size_t done = 0;
    const int error = read_words(flags_.get(), pfn, flags, done);
    std::ranges::fill(flags.subspan(done), 0);
    return error;
  }

  int locate(std::span<void*> addresses, std::span<int> nodes) override {
    return ::move_pages(0, addresses.size(), addresses.data(), nullptr, nodes.data(), 0) < 0 ? errno : 0;
  }

  long move(std::span<void*> addresses, std::span<const int> nodes, std::span<int> statuses,
            bool all) override {
    const long left = ::move_pages(0, addresses.size(), addresses.data(), nodes.data(), statuses.data(),
                                   all ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE);
    return left < 0 ? -errno : left;
  }

  /// Since Linux 6.3 the TLBs of other processors are flushed for many pages at once. Before, each page
  /// interrupts every other thread that moves: two threads take longer than one.
  [[nodiscard]] bool moves_in_parallel() const override { return moves_in_parallel_; }

  Result<std::vector<NodeRoom>> room(const FileShape& shape) override {
    return shape.hugetlb ? read_huge_room(shape.page_size) : read_room();
  }

  void pause(std::chrono::microseconds time) override { std::this_thread::sleep_for(time); }

 private:
  /// A mapping of a file whose cached pages cachestat counts.
  struct Window {
    std::byte* address;
    std::uint64_t length;
    int fd;
    std::uint64_t offset;
  };

  [[nodiscard]] bool is_all_cached(const std::byte* address, std::uint64_t length) const {
    for (const Window& window : counted_) {
      if (address < window.address || address + length > window.address + window.length) continue;
      CachestatRange range{window.offset + static_cast<std::uint64_t>(address - window.address), length};
      Cachestat pages{};
      return ::syscall(cachestat_call, window.fd, &range, &pages, 0) == 0 &&
             pages.cached >= length / base_page_size();
    }
    return false;
  }

  /// Lets populate() fail on holes with EFAULT. On hugetlbfs a read fault would fill them with huge pages,
  /// and nothing tells holes from pages beforehand.
  Status guard_holes(std::byte* address, std::uint64_t length) {
    if (!faults_) {
      // UFFD_USER_MODE_ONLY: for everybody, whatever vm.unprivileged_userfaultfd says (Linux 5.11).
      Fd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
      if (!faults)
        return fail(ENOTSUP, "userfaultfd: " + errno_text(errno) +
                                 " (without it a hugetlbfs file's holes would be filled)");
      uffdio_api api{};
      api.api = UFFD_API;
      api.features = UFFD_FEATURE_SIGBUS;
      if (::ioctl(faults.get(), UFFDIO_API, &api) != 0) return fail_errno("ioctl UFFDIO_API", "", errno);
      faults_ = std::move(faults);
    }
    uffdio_register missing{};
    missing.range.start = reinterpret_cast<std::uintptr_t>(address);
    missing.range.len = length;
    missing.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (::ioctl(faults_.get(), UFFDIO_REGISTER, &missing) != 0)
      return fail_errno("ioctl UFFDIO_REGISTER", "");
    return {};
  }

  /// Steps that double while nothing is cached and halve where something is. Nothing where the kernel has no
  /// cachestat, or does not answer this caller.
  static std::optional<std::uint64_t> next_cached(int fd, const FileShape& shape, std::uint64_t offset,
                                                  std::uint64_t granule) {
    std::uint64_t step = granule;
    while (offset < shape.bytes) {
      CachestatRange range{offset, std::min(step, shape.bytes - offset)};
      Cachestat pages{};
      if (::syscall(cachestat_call, fd, &range, &pages, 0) != 0) return std::nullopt;
      if (pages.cached == 0) {
        offset += range.length;
        if (step <= std::numeric_limits<std::uint64_t>::max() / 2) step *= 2;
      } else if (step > granule) {
        step = std::max(granule, step / 2 / granule * granule);
      } else {
        return offset;
      }
    }
    return shape.bytes;
  }

  static std::uint64_t next_data(int fd, const FileShape& shape, std::uint64_t offset) {
    const off_t position = ::lseek(fd, 0, SEEK_CUR);
    const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
    const int error = errno;
    ::lseek(fd, position, SEEK_SET);
    if (data >= 0) return static_cast<std::uint64_t>(data);
    return error == ENXIO ? shape.bytes : offset;
  }

  Fd pagemap_;
  Fd flags_;
  Fd faults_;
  std::vector<Window> counted_;  ///< mapped now; one or two
  bool sees_frames_ = false;
  const bool moves_in_parallel_ = is_kernel_at_least(6, 3);
};

}  // namespace

std::unique_ptr<Memory> open_memory() {
  return std::make_unique<SystemMemory>();
}

Result<bool> may_ask_residency(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("fstat", "");
  if (status.st_uid == ::geteuid() || has_capability(CAP_FOWNER)) return true;
  return ::faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
}

}  // namespace fpolicy::sys
