// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/process_pages.h"

#include "sys/read_file.h"
#include "sys/words.h"

#include <fpolicy/fd.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <numaif.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <thread>
#include <vector>

namespace fpolicy::sys {
namespace {

// linux/fs.h since 6.7; Debian 12's headers are older.
struct PageRegion {
  std::uint64_t start, end, categories;
};
struct PagemapScan {
  std::uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages, category_inverted,
      category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(PagemapScan) == 96);
const unsigned long pagemap_scan = _IOWR('f', 16, PagemapScan);
constexpr std::uint64_t page_is_present = 1U << 3U;

std::uint64_t page_size() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

class SystemPages final : public ProcessPages {
 public:
  SystemPages(pid_t pid, Fd directory, Fd pagemap, bool own_only)
      : pid_(pid), directory_(std::move(directory)), pagemap_(std::move(pagemap)), own_only_(own_only) {}

  int entries(std::uint64_t address, std::span<PageEntry> entries) override {
    std::size_t done = 0;
    static_assert(sizeof(PageEntry) == sizeof(std::uint64_t));
    const int error =
        read_words(pagemap_.get(), address / page_size(), {&entries.data()->word, entries.size()}, done);
    std::ranges::fill(entries.subspan(done), PageEntry{});
    return error;
  }

  int present(std::uint64_t start, std::uint64_t end,
              const std::function<void(std::uint64_t, std::uint64_t)>& each) override {
    // A word for each page, those that are not there included, is a lot for memory that was only reserved;
    // asking first is more than that for little.
    constexpr std::uint64_t worth_asking = 16U << 20U;
    if (end - start >= worth_asking && scans_) {
      const int error = scan(start, end, each);
      if (error != ENOTTY) return error;
      scans_ = false;
    }
    constexpr std::uint64_t worth_a_walk = 1U << 30U;
    if (end - start >= worth_a_walk && is_empty(start)) return 0;
    each(start, end);
    return 0;
  }

  bool is_gone() override {
    const auto text = read_file(directory_.get(), "status", 1U << 20U);
    if (!text) return true;
    const auto status = parse_process_status(*text);
    return !status || status->state == 'Z' || status->state == 'X';
  }

  int locate(std::span<void*> addresses, std::span<int> nodes) override {
    return ::move_pages(pid_, addresses.size(), addresses.data(), nullptr, nodes.data(), 0) < 0 ? errno : 0;
  }

  long move(std::span<void*> addresses, std::span<const int> nodes, std::span<int> statuses,
            bool all) override {
    const long left = ::move_pages(pid_, addresses.size(), addresses.data(), nodes.data(), statuses.data(),
                                   all && !own_only_ ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE);
    if (left < 0) return -errno;
    return left + unhide(addresses, statuses);
  }

  void pause(std::chrono::microseconds time) override { std::this_thread::sleep_for(time); }

 private:
  /// Linux 6.1 does not find pages that NUMA balancing has marked for a hinting fault (-ENOENT). A read from
  /// outside takes the mark away; these pages are then busy, to be tried again. Returns how many.
  long unhide(std::span<void*> addresses, std::span<int> statuses) {
    long hidden = 0;
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      if (statuses[i] != -ENOENT) continue;
      const auto address = reinterpret_cast<std::uintptr_t>(addresses[i]);
      PageEntry entry;
      if (entries(address, {&entry, 1}) != 0 || !entry.present()) continue;
      // This thread's own policy decides whether the fault moves the page to this thread's node: not with
      // this one.
      if (hidden == 0) ::set_mempolicy(MPOL_LOCAL, nullptr, 0);
      char byte = 0;
      const iovec here{&byte, 1};
      const iovec there{addresses[i], 1};
      if (::process_vm_readv(pid_, &here, 1, &there, 1, 0) != 1) continue;
      statuses[i] = -EBUSY;
      ++hidden;
    }
    if (hidden > 0) ::set_mempolicy(MPOL_DEFAULT, nullptr, 0);
    return hidden;
  }

  int scan(std::uint64_t start, std::uint64_t end,
           const std::function<void(std::uint64_t, std::uint64_t)>& each) {
    std::vector<PageRegion> regions(512);
    while (start < end) {
      PagemapScan scan{};
      scan.size = sizeof scan;
      scan.start = start;
      scan.end = end;
      scan.regions = reinterpret_cast<std::uintptr_t>(regions.data());
      scan.region_count = regions.size();
      scan.category_mask = page_is_present;
      scan.return_mask = page_is_present;
      const int count = ::ioctl(pagemap_.get(), pagemap_scan, &scan);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno;
      for (int i = 0; i < count; ++i)
        each(regions[static_cast<std::size_t>(i)].start, regions[static_cast<std::size_t>(i)].end);
      if (scan.walk_end <= start) break;
      start = scan.walk_end;
    }
    return 0;
  }

  /// The mapping has no page at all, by /proc/PID/smaps: a walk of the page tables, made once.
  bool is_empty(std::uint64_t start) {
    if (!smaps_read_) {
      smaps_read_ = true;
      const auto text = read_file(directory_.get(), "smaps", std::size_t{1} << 30U);
      if (text) find_empty(*text);
    }
    return std::ranges::binary_search(empty_, start);
  }

  void find_empty(std::string_view text) {
    std::uint64_t start = 0;
    while (!text.empty()) {
      const std::size_t length = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, length);
      text.remove_prefix(std::min(length + 1, text.size()));
      if (line.starts_with("Rss:")) {
        const auto digit = line.find_first_not_of(' ', 4);
        if (digit != std::string_view::npos && line.substr(digit) == "0 kB") empty_.push_back(start);
        continue;
      }
      // Names of fields have no digits before a '-'.
      std::uint64_t number = 0;
      const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), number, 16);
      if (error == std::errc{} && stop != line.data() + line.size() && *stop == '-') start = number;
    }
  }

  pid_t pid_;
  Fd directory_;
  Fd pagemap_;
  bool own_only_;
  bool scans_ = true;
  bool smaps_read_ = false;
  std::vector<std::uint64_t> empty_;  ///< where mappings without any page start, ascending
};

class SystemFrames final : public PageFrames {
 public:
  SystemFrames(Fd flags, Fd counts) : flags_(std::move(flags)), counts_(std::move(counts)) {}

  int flags(std::uint64_t pfn, std::span<std::uint64_t> flags) override {
    return read(flags_.get(), pfn, flags);
  }
  int mapped(std::uint64_t pfn, std::span<std::uint64_t> counts) override {
    return read(counts_.get(), pfn, counts);
  }

  std::uint32_t smallest_private_folio() override {
    const std::string base = "/sys/kernel/mm/transparent_hugepage";
    // The size of a huge page, and since 6.8 smaller ones, where they are switched on.
    std::uint64_t bytes = 0;
    const auto take = [&bytes](std::string_view text) {
      std::from_chars(text.data(), text.data() + text.size(), bytes);
    };
    const auto huge = read_file(AT_FDCWD, base + "/hpage_pmd_size", 64);
    take(huge ? *huge : "2097152");
    std::uint64_t smallest = bytes;
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(base.c_str()), ::closedir);
    while (directory) {
      const dirent* entry = ::readdir(directory.get());
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (!name.starts_with("hugepages-")) continue;
      const auto enabled = read_file(AT_FDCWD, fmt::format("{}/{}/enabled", base, name), 256);
      if (!enabled || enabled->find("[never]") != std::string::npos) continue;
      bytes = 0;
      take(name.substr(10));
      if (bytes != 0) smallest = std::min(smallest, bytes * 1024);
    }
    return static_cast<std::uint32_t>(std::max<std::uint64_t>(smallest / page_size(), 2));
  }

 private:
  static int read(int fd, std::uint64_t pfn, std::span<std::uint64_t> words) {
    std::size_t done = 0;
    const int error = read_words(fd, pfn, words, done);
    std::ranges::fill(words.subspan(done), 0);
    return error;
  }

  Fd flags_;
  Fd counts_;
};

}  // namespace

Result<std::unique_ptr<ProcessPages>> open_process_pages(const Process& process, bool own_only) {
  const auto fail_open = [&](const char* name) {
    return fail_errno("open", fmt::format("/proc/{}/{}", process.pid(), name),
                      errno == ENOENT ? ESRCH : errno);
  };
  Fd directory(::fcntl(process.fd(), F_DUPFD_CLOEXEC, 0));
  if (!directory) return fail_open("");
  Fd pagemap(::openat(process.fd(), "pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap) return fail_open("pagemap");
  return std::make_unique<SystemPages>(process.pid(), std::move(directory), std::move(pagemap), own_only);
}

Result<std::unique_ptr<PageFrames>> open_page_frames() {
  Fd flags(::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC));
  if (!flags) return fail_errno("open", "/proc/kpageflags");
  Fd counts(::open("/proc/kpagecount", O_RDONLY | O_CLOEXEC));
  if (!counts) return fail_errno("open", "/proc/kpagecount");
  return std::make_unique<SystemFrames>(std::move(flags), std::move(counts));
}

}  // namespace fpolicy::sys
