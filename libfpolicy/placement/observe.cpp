// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/observe.h"

#include <linux/kernel-page-flags.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <system_error>
#include <thread>

namespace fpolicy::placement {
namespace {

// Work is cut in chunks of the largest folio that a page cache holds (MAX_PAGECACHE_ORDER is at most 11), so
// that no folio lies in two.
constexpr std::size_t chunk_pages = 2048;
// A fault on one page maps what is resident in the naturally aligned 64 KiB around it (fault_around_bytes).
constexpr std::uint64_t fault_around = 65536;
// Below this a thread costs more than it saves: creating one takes about as long as observing 500 pages.
constexpr std::size_t pages_per_thread = 2 * chunk_pages;

/// Frame number to node. Pages of a file mostly follow each other in memory, so the last range is tried
/// first.
class FrameTable {
 public:
  explicit FrameTable(const std::vector<PfnRange>& ranges) : ranges_(ranges) {}

  PageState find(std::uint64_t pfn) {
    if (pfn - first_ < count_) return state_;
    const auto after = std::ranges::upper_bound(ranges_, pfn, {}, &PfnRange::first);
    if (after == ranges_.begin() || pfn >= std::prev(after)->end) return PageState::unknown();
    const PfnRange& range = *std::prev(after);
    first_ = range.first;
    count_ = range.end - range.first;
    state_ = PageState::on(range.node);
    return state_;
  }

 private:
  const std::vector<PfnRange>& ranges_;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
  PageState state_;
};

/// Observes one chunk at a time; each thread has its own.
class ChunkObserver {
 public:
  ChunkObserver(sys::Memory& memory, const sys::FileShape& shape, const Topology& topology,
                const ObserveOptions& options)
      : memory_(memory),
        page_size_(shape.page_size),
        hugetlb_(shape.hugetlb),
        // hugetlbfs pages are few: asking for each is cheaper than a special case.
        by_frame_(memory.sees_frames() && !topology.frames.empty() && !shape.hugetlb),
        frames_of_(topology.frames),
        options_(options) {}

  void observe(std::byte* address, std::span<PageState> pages) {
    address_ = address;
    pages_ = pages;
    std::ranges::fill(pages_, PageState::absent());
    if (hugetlb_ ? populate_huge() : populate_resident()) {
      locate();
      if (!hugetlb_) locate_rest();
      if (options_.folios.wanted && by_frame_) find_folios();
    }
    if (options_.release) memory_.release(address_, pages_.size() * page_size_);
  }

 private:
  std::byte* at(std::size_t page) { return address_ + page * page_size_; }
  std::span<unsigned char> resident() { return std::span(resident_).first(pages_.size()); }
  [[nodiscard]] bool is_resident(std::size_t page) const { return (resident_[page] & 1U) != 0; }

  /// Every huge page by itself: population stops at the first hole.
  bool populate_huge() {
    bool any = false;
    for (std::size_t page = 0; page < pages_.size(); ++page) {
      resident_[page] = memory_.populate(at(page), page_size_) == 0 ? 1 : 0;
      any |= is_resident(page);
    }
    return any;
  }

  /// One resident page of each 64 KiB: fault-around maps the others (a third of the cost of populating each).
  bool populate_resident() {
    if (memory_.residency(address_, resident()) != 0) return false;
    bool any = false;
    std::uint64_t populated = ~std::uint64_t{0};
    for (std::size_t page = 0; page < pages_.size(); ++page) {
      if (!is_resident(page)) continue;
      any = true;
      const std::uint64_t block = reinterpret_cast<std::uintptr_t>(at(page)) / fault_around;
      if (block == populated) continue;
      populated = block;
      // What fails here is seen by locate() and tried again.
      (void)memory_.populate(at(page), page_size_);
    }
    return any;
  }

  /// Fills the state of resident pages that are mapped; those that are not become unknown.
  void locate() {
    if (by_frame_ && locate_by_frame()) return;
    std::size_t count = 0;
    for (std::size_t page = 0; page < pages_.size(); ++page)
      if (is_resident(page) && !pages_[page].is_located()) asked_[count++] = page;
    ask(count);
  }

  bool locate_by_frame() {
    if (memory_.frames(address_, std::span(frames_).first(pages_.size())) != 0) return false;
    std::size_t strangers = 0;
    for (std::size_t page = 0; page < pages_.size(); ++page) {
      if (!is_resident(page)) continue;
      if (frames_[page] == sys::no_frame) {
        pages_[page] = PageState::unknown();
        continue;
      }
      pages_[page] = frames_of_.find(frames_[page]);
      if (!pages_[page].is_located()) asked_[strangers++] = page;
    }
    if (strangers > 0) ask(strangers);
    return true;
  }

  /// Asks the kernel where the first `count` pages of asked_ are.
  void ask(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) addresses_[i] = at(asked_[i]);
    const int error = memory_.locate(std::span(addresses_).first(count), std::span(nodes_).first(count));
    for (std::size_t i = 0; i < count; ++i) {
      const bool told = error == 0 && nodes_[i] >= 0 && static_cast<unsigned>(nodes_[i]) < NodeSet::max_nodes;
      pages_[asked_[i]] = told ? PageState::on(static_cast<unsigned>(nodes_[i])) : PageState::unknown();
    }
  }

  /// Pages that fault-around left out: locked for a moment, marked for readahead, alone in their block, or
  /// gone.
  void locate_rest() {
    for (int tries = 0; tries < 2 && any_unknown(); ++tries) {
      for_each_unknown_run([this](std::size_t first, std::size_t count) { populate_again(first, count); });
      locate();
    }
  }

  /// Truncated or reclaimed meanwhile? Then they are no longer resident, and populating them would read them
  /// in.
  void populate_again(std::size_t first, std::size_t count) {
    if (memory_.residency(at(first), resident().subspan(first, count)) != 0) return;
    const std::size_t end = first + count;
    while (first < end) {
      std::size_t behind = first;
      while (behind < end && is_resident(behind)) ++behind;
      if (behind > first) (void)memory_.populate(at(first), (behind - first) * page_size_);
      if (behind < end) pages_[behind] = PageState::absent();
      first = behind + 1;
    }
  }

  [[nodiscard]] bool any_unknown() const {
    return std::ranges::any_of(pages_, [](PageState page) { return page.is_unknown(); });
  }

  template <class Each>
  void for_each_unknown_run(Each each) {
    for (std::size_t first = 0; first < pages_.size();) {
      std::size_t end = first;
      while (end < pages_.size() && pages_[end].is_unknown()) ++end;
      if (end > first) each(first, end - first);
      first = end + 1;
    }
  }

  /// A large folio is naturally aligned in the file and in memory, so a page can share one only with its
  /// buddy: the page whose index and frame number differ in the last bit alone. A buddy that is not at hand
  /// may lie beyond the end of the file.
  [[nodiscard]] bool may_be_large(std::size_t page) const {
    const std::size_t buddy = page ^ 1U;
    return (frames_[page] & 1U) == (page & 1U) &&
           (buddy >= pages_.size() || !pages_[buddy].is_located() || frames_[buddy] == (frames_[page] ^ 1U));
  }

  [[nodiscard]] bool matters(std::size_t page) const {
    return pages_[page].is_located() && frames_[page] != sys::no_frame &&
           !options_.folios.except.contains(pages_[page].node()) && may_be_large(page);
  }

  void find_folios() {
    for (std::size_t first = 0; first < pages_.size();) {
      if (!matters(first)) {
        ++first;
        continue;
      }
      std::size_t end = first + 1;
      while (end < pages_.size() && matters(end) && frames_[end] == frames_[end - 1] + 1) ++end;
      const auto flags = std::span(flags_).first(end - first);
      if (memory_.frame_flags(frames_[first], flags) == 0)
        for (std::size_t page = first + 1; page < end; ++page)
          if ((flags[page - first] >> KPF_COMPOUND_TAIL & 1U) != 0) pages_[page] = pages_[page].in_folio();
      first = end;
    }
  }

  sys::Memory& memory_;
  const std::uint64_t page_size_;
  const bool hugetlb_;
  const bool by_frame_;
  FrameTable frames_of_;
  const ObserveOptions& options_;

  std::byte* address_ = nullptr;
  std::span<PageState> pages_;
  // Not initialised: a small file uses a small part of them.
  std::array<unsigned char, chunk_pages> resident_;
  std::array<std::uint64_t, chunk_pages> frames_;
  std::array<std::uint64_t, chunk_pages> flags_;
  std::array<std::size_t, chunk_pages> asked_;
  std::array<void*, chunk_pages> addresses_;
  std::array<int, chunk_pages> nodes_;
};

}  // namespace

void observe_window(sys::Memory& memory, const sys::FileShape& shape, const Topology& topology,
                    std::byte* address, std::span<PageState> pages, const ObserveOptions& options) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    ChunkObserver observer(memory, shape, topology, options);
    while (true) {
      const std::size_t first = next.fetch_add(chunk_pages, std::memory_order_relaxed);
      if (first >= pages.size()) return;
      observer.observe(address + first * shape.page_size,
                       pages.subspan(first, std::min(chunk_pages, pages.size() - first)));
    }
  };
  const std::size_t useful = pages.size() / pages_per_thread;
  std::vector<std::jthread> helpers;
  try {
    while (helpers.size() + 1 < std::min<std::size_t>(options.threads, useful)) helpers.emplace_back(work);
  } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
    // No more threads to be had: those there are do the work.
  }
  work();
}

}  // namespace fpolicy::placement
