// SPDX-License-Identifier: LGPL-2.1-or-later
// An invented machine with one file in its page cache. move() does what do_pages_move() of Linux 6.1 to 6.12
// does, early ends included.
#pragma once

#include "sys/memory.h"

#include <fpolicy/topology.h>

#include <linux/kernel-page-flags.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

namespace fpolicy {

struct FakePage {
  bool resident = true;
  bool mapped = false;
  unsigned node = 0;
  std::uint64_t pfn = 0;
  std::size_t head = 0;      ///< first page of its folio
  int isolate_busy = 0;      ///< times that it cannot be taken off the LRU list (-EBUSY); < 0: always
  int migrate_busy = 0;      ///< times that its migration fails (a reference is held); < 0: always
  bool shared = false;       ///< others map it too
  bool skip_around = false;  ///< fault-around leaves it out
};

class FakeMemory : public sys::Memory {
 public:
  static constexpr std::uint64_t page_size = 4096;
  static constexpr std::uint64_t frames_per_node = 1U << 24U;

  explicit FakeMemory(std::size_t count, unsigned node = 0) : pages(count) {
    for (std::size_t i = 0; i < count; ++i) pages[i].head = i;
    for (std::size_t i = 0; i < count; ++i) put(i, node);
  }

  /// Makes one large folio of pages [first, first + count), count a power of two.
  void make_folio(std::size_t first, std::size_t count) {
    for (std::size_t i = first; i < std::min(first + count, pages.size()); ++i) pages[i].head = first;
    place_folio(first, pages[first].node);
  }
  void put(std::size_t page, unsigned node) { place_folio(pages[page].head, node); }
  [[nodiscard]] std::vector<unsigned> nodes() const {
    std::vector<unsigned> result;
    for (const FakePage& page : pages) result.push_back(page.node);
    return result;
  }

  /// A topology that goes with it: `nodes` have memory, all equally far from each other.
  static Topology topology(const NodeSet& nodes) {
    Topology topology;
    topology.memory = topology.cpu = nodes;
    const std::vector<unsigned> members = nodes.members();
    topology.distance.assign(members.back() + 1, std::vector<unsigned>(members.back() + 1, 0));
    for (const unsigned a : members) {
      for (const unsigned b : members) topology.distance[a][b] = a == b ? 10 : 20;
      topology.frames.push_back({a * frames_per_node, (a + 1) * frames_per_node, a});
    }
    return topology;
  }

  Result<sys::FileShape> shape(int /*fd*/) override {
    return sys::FileShape{pages.size() * page_size, page_size, hugetlb};
  }
  Result<std::byte*> map(int /*fd*/, std::uint64_t offset, std::uint64_t length,
                         const sys::FileShape& /*shape*/) override {
    if (mapped_length != 0) return fail(EINVAL, "two windows at a time");
    mapped_length = length;
    longest_mapping = std::max(longest_mapping, length);
    ++mappings;
    return base() + offset;
  }
  void unmap(std::byte* /*address*/, std::uint64_t length) override {
    if (length == mapped_length) mapped_length = 0;
    for (FakePage& page : pages) page.mapped = false;
  }
  std::uint64_t next_resident(int /*fd*/, const sys::FileShape& shape, std::uint64_t offset,
                              std::uint64_t /*granule*/, bool skip_holes) override {
    holes_skipped |= skip_holes;
    ++skips;
    for (std::size_t page = offset / page_size; page < pages.size(); ++page)
      if (pages[page].resident) return page * page_size;
    return shape.bytes;
  }
  int residency(std::byte* address, std::span<unsigned char> out) override {
    const std::lock_guard lock(mutex_);
    const std::size_t first = index(address);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = first + i < pages.size() && pages[first + i].resident ? 1 : 0;
    if (after_residency) after_residency();
    return 0;
  }
  int populate(std::byte* address, std::uint64_t length) override {
    const std::lock_guard lock(mutex_);
    const std::size_t first = index(address);
    for (std::size_t i = first; i < first + length / page_size; ++i) {
      if (i >= pages.size() || beyond_end.contains(i)) return EFAULT;
      if (!pages[i].resident) {
        if (hugetlb) return EFAULT;
        ++read_in;
        pages[i].resident = true;
      }
      if (!pages[i].mapped && !hugetlb)
        for (std::size_t around = i / 16 * 16; around < std::min(i / 16 * 16 + 16, pages.size()); ++around)
          pages[around].mapped |= pages[around].resident && !pages[around].skip_around;
      pages[i].mapped = true;
    }
    return 0;
  }
  void release(std::byte* address, std::uint64_t length) override {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = index(address); i < index(address) + length / page_size && i < pages.size(); ++i)
      pages[i].mapped = false;
  }
  [[nodiscard]] bool sees_frames() const override { return privileged; }
  int frames(std::byte* address, std::span<std::uint64_t> pfns) override {
    const std::lock_guard lock(mutex_);
    const std::size_t first = index(address);
    for (std::size_t i = 0; i < pfns.size(); ++i) {
      const bool mapped = first + i < pages.size() && pages[first + i].mapped && pages[first + i].resident;
      pfns[i] = mapped ? pages[first + i].pfn : sys::no_frame;
    }
    return 0;
  }
  int frame_flags(std::uint64_t pfn, std::span<std::uint64_t> flags) override {
    const std::lock_guard lock(mutex_);
    flags_read += flags.size();
    for (std::uint64_t& flag : flags) {
      const auto page = by_pfn_.find(pfn);
      const bool tail =
          page != by_pfn_.end() && pages[page->second].pfn == pfn && pages[page->second].head != page->second;
      flag = tail ? std::uint64_t{1} << KPF_COMPOUND_TAIL : 0;
      ++pfn;
    }
    return 0;
  }
  int locate(std::span<void*> addresses, std::span<int> nodes) override {
    const std::lock_guard lock(mutex_);
    ++locates;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      const std::size_t page = index(static_cast<std::byte*>(addresses[i]));
      nodes[i] = page < pages.size() && pages[page].mapped && pages[page].resident
                     ? static_cast<int>(pages[page].node)
                     : -ENOENT;
    }
    return 0;
  }
  long move(std::span<void*> addresses, std::span<const int> nodes, std::span<int> statuses,
            bool all) override {
    const std::lock_guard lock(mutex_);
    most_at_once = std::max(most_at_once, addresses.size());
    ++moves;
    if (before_move) before_move();
    if (all && !may_move_all) return -EPERM;
    const auto count = static_cast<long>(addresses.size());
    std::vector<long> queued;
    std::set<std::size_t> isolated;
    const auto flush = [&](long end) -> long {
      const std::vector<long> list = std::exchange(queued, {});
      isolated.clear();
      long failed = 0;
      for (const long i : list) {
        const std::size_t head = pages[index(static_cast<std::byte*>(addresses[i]))].head;
        const auto node = static_cast<unsigned>(nodes[i]);
        FakePage& page = pages[head];
        if (page.migrate_busy != 0) {
          page.migrate_busy -= page.migrate_busy > 0 ? 1 : 0;
          ++failed;
          continue;
        }
        const std::uint64_t size = folio_size(head);
        if (free_pages.contains(node)) {
          if (free_pages[node] < size) return -ENOMEM;
          free_pages[node] -= size;
        }
        place_folio(head, node);
      }
      if (failed > 0) return failed + count - end;
      for (const long i : list) statuses[i] = nodes[i];
      return 0;
    };
    for (long i = 0; i < count; ++i) {
      if (!allowed.contains(static_cast<unsigned>(nodes[i]))) return -EACCES;
      const std::size_t at = index(static_cast<std::byte*>(addresses[i]));
      int error = 0;
      if (at >= pages.size() || !pages[at].resident || !pages[at].mapped) error = -ENOENT;
      if (error == 0) {
        FakePage& page = pages[pages[at].head];
        if (page.node == static_cast<unsigned>(nodes[i])) {
          error = nodes[i];
        } else if (page.shared && !all) {
          error = -EACCES;
        } else if (page.isolate_busy != 0 || isolated.contains(pages[at].head)) {
          if (page.isolate_busy > 0) --page.isolate_busy;
          error = -EBUSY;
        } else {
          isolated.insert(pages[at].head);
          queued.push_back(i);
          continue;
        }
      }
      statuses[i] = error;
      if (const long result = flush(i); result != 0) return result > 0 ? result - 1 : result;
    }
    return flush(count);
  }
  [[nodiscard]] bool moves_in_parallel() const override { return parallel; }
  Result<std::vector<sys::NodeRoom>> room(const sys::FileShape& /*shape*/) override {
    ++room_reads;
    return rooms;
  }
  void pause(std::chrono::microseconds time) override { paused += time; }

  std::vector<FakePage> pages;
  bool hugetlb = false;
  bool privileged = true;
  bool parallel = false;
  bool may_move_all = true;
  NodeSet allowed = all_nodes();
  std::map<unsigned, std::uint64_t> free_pages;  ///< nodes not in it have no end of room
  std::vector<sys::NodeRoom> rooms =
      std::vector<sys::NodeRoom>(NodeSet::max_nodes, {1U << 30U, 0, 1U << 30U});
  unsigned room_reads = 0;
  std::set<std::size_t> beyond_end;
  std::function<void()> after_residency;
  std::function<void()> before_move;

  std::uint64_t mapped_length = 0;
  std::uint64_t longest_mapping = 0;
  unsigned mappings = 0;
  unsigned skips = 0;
  bool holes_skipped = false;
  unsigned moves = 0;
  std::size_t most_at_once = 0;  ///< pages of one call of move()
  unsigned locates = 0;
  std::uint64_t read_in = 0;
  std::uint64_t flags_read = 0;
  std::chrono::microseconds paused{0};

 private:
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address that is never used
  static std::byte* base() { return reinterpret_cast<std::byte*>(std::uintptr_t{0x10000000000}); }
  static std::size_t index(const std::byte* address) {
    return static_cast<std::size_t>(address - base()) / page_size;
  }
  static NodeSet all_nodes() {
    NodeSet nodes;
    for (unsigned node = 0; node < NodeSet::max_nodes; ++node) nodes.insert(node);
    return nodes;
  }
  [[nodiscard]] std::uint64_t folio_size(std::size_t head) const {
    std::size_t end = head + 1;
    while (end < pages.size() && pages[end].head == head) ++end;
    return end - head;
  }
  /// Fresh frames, aligned as those of large folios are.
  void place_folio(std::size_t head, unsigned node) {
    const std::uint64_t size = folio_size(head);
    std::uint64_t& next = next_frame_[node];
    const std::uint64_t aligned = 4096;
    std::uint64_t pfn = 0;
    if (size > 1) {
      pfn = next = (next + aligned - 1) / aligned * aligned;
      next += aligned;
    } else {
      pfn = next++;
    }
    for (std::size_t i = head; i < head + size; ++i) {
      pages[i].node = node;
      pages[i].pfn = node * frames_per_node + pfn + (i - head);
      by_pfn_[pages[i].pfn] = i;
    }
  }

  std::map<unsigned, std::uint64_t> next_frame_;
  std::unordered_map<std::uint64_t, std::size_t> by_pfn_;
  std::mutex mutex_;
};

}  // namespace fpolicy
