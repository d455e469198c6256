// SPDX-License-Identifier: LGPL-2.1-or-later
// An invented machine with a job on it: processes, their page tables, files, folios, counts. move() does what
// do_pages_move() of Linux 6.1 to 6.12 does, early ends included.
#pragma once

#include "job/survey.h"
#include "sys/process_pages.h"

#include <fpolicy/migrate.h>
#include <fpolicy/topology.h>

#include <linux/kernel-page-flags.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fpolicy::job {

class FakeMachine : public sys::PageFrames {
 public:
  static constexpr std::uint64_t page_size = 4096;
  static constexpr std::uint64_t frames_per_node = 1U << 24U;
  using Number = std::size_t;  ///< of a page, wherever it lies

  struct Page {
    unsigned node = 0;
    std::uint64_t frame = 0;
    std::uint64_t folio = 1;   ///< of a head: pages of its folio
    Number head = 0;           ///< first page of its folio
    bool of_file = false;      ///< or of shared memory
    bool special = false;      ///< neither a file's nor private: zero page, a device's
    bool zero = false;         ///< KPF_ZERO_PAGE
    std::uint32_t mapped = 0;  ///< how often, outsiders included
    int isolate_busy = 0;      ///< times that it cannot be taken off the LRU list (-EBUSY); < 0: always
    int migrate_busy = 0;      ///< times that its migration fails (a reference is held); < 0: always
    unsigned migrated = 0;     ///< how often it was moved
  };

  /// Pages on `node` in frames side by side. Returns the first one's number.
  Number add(unsigned node, std::size_t count, bool of_file = false) {
    const Number first = pages.size();
    for (std::size_t i = 0; i < count; ++i) {
      Page page;
      page.head = pages.size();
      page.of_file = of_file;
      pages.push_back(page);
      put(page.head, node);
    }
    return first;
  }
  /// Large folios of `folio` pages each, a power of two.
  Number add_folios(unsigned node, std::size_t count, std::size_t folio, bool of_file = false) {
    const Number first = pages.size();
    for (std::size_t i = 0; i < count * folio; ++i) {
      Page page;
      page.head = first + i / folio * folio;
      page.folio = folio;
      page.of_file = of_file;
      pages.push_back(page);
    }
    for (std::size_t i = 0; i < count; ++i) put(first + i * folio, node);
    return first;
  }
  /// Outsiders that map pages [first, first + count), too.
  void map_outside(Number first, std::size_t count, std::uint32_t times = 1) {
    for (std::size_t i = 0; i < count; ++i) pages[first + i].mapped += times;
  }

  /// A topology that goes with it.
  static Topology topology(const NodeSet& nodes) {
    Topology topology;
    topology.memory = topology.cpu = nodes;
    for (const unsigned node : nodes.members())
      topology.frames.push_back({frames_of(node), frames_of(node) + frames_per_node, node});
    return topology;
  }
  /// Frame 0 is never a page's.
  static std::uint64_t frames_of(unsigned node) { return (node + 1) * frames_per_node; }

  int flags(std::uint64_t frame, std::span<std::uint64_t> flags) override {
    const std::scoped_lock lock(mutex);
    ++flag_calls;
    flags_read += flags.size();
    if (flags_error != 0) return flags_error;
    for (std::uint64_t& word : flags) {
      word = 0;
      const auto found = by_frame_.find(frame++);
      if (found == by_frame_.end()) continue;
      const Page& page = pages[found->second];
      const auto set = [&word](unsigned bit) { word |= std::uint64_t{1} << bit; };
      if (!page.of_file && !page.special) set(KPF_ANON);
      if (page.zero) set(KPF_ZERO_PAGE);
      if (folio_size(page.head) > 1) set(page.head == found->second ? KPF_COMPOUND_HEAD : KPF_COMPOUND_TAIL);
    }
    return 0;
  }
  int mapped(std::uint64_t frame, std::span<std::uint64_t> counts) override {
    const std::scoped_lock lock(mutex);
    counts_read += counts.size();
    if (mapped_error != 0) return mapped_error;
    for (std::uint64_t& count : counts) {
      const auto found = by_frame_.find(frame++);
      count = found == by_frame_.end() ? 0 : pages[found->second].mapped;
    }
    return 0;
  }
  [[nodiscard]] std::uint32_t smallest_private_folio() override { return smallest_folio; }

  [[nodiscard]] std::uint64_t folio_size(Number head) const { return pages[head].folio; }
  /// Fresh frames, aligned as those of large folios are.
  void put(Number head, unsigned node) {
    const std::uint64_t size = folio_size(head);
    std::uint64_t& next = next_frame_[node];
    next = (next + size - 1) / size * size;
    for (Number page = head; page < head + size; ++page) {
      by_frame_.erase(pages[page].frame);
      pages[page].node = node;
      pages[page].frame = frames_of(node) + next++;
      by_frame_[pages[page].frame] = page;
    }
  }
  [[nodiscard]] unsigned most_migrated() const {
    unsigned most = 0;
    for (const Page& page : pages) most = std::max(most, page.migrated);
    return most;
  }

  std::vector<Page> pages;
  std::uint32_t smallest_folio = 512;
  int flags_error = 0;
  int mapped_error = 0;
  std::map<unsigned, std::uint64_t> free_pages;  ///< nodes not in it have no end of room
  NodeSet no_large;                              ///< nodes that take no large folio
  std::set<unsigned> forbidden;                  ///< by the cpuset (-EACCES)
  bool may_move_all = true;

  std::uint64_t flag_calls = 0;
  std::uint64_t flags_read = 0;
  std::uint64_t counts_read = 0;
  std::mutex mutex;

 private:
  std::map<unsigned, std::uint64_t> next_frame_;
  std::unordered_map<std::uint64_t, Number> by_frame_;
};

class FakeProcess : public sys::ProcessPages {
 public:
  using Number = FakeMachine::Number;
  static constexpr std::uint64_t page_size = FakeMachine::page_size;

  explicit FakeProcess(FakeMachine& machine) : machine_(machine) {}

  void map(std::uint64_t address, Number first, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      table[address / page_size + i] = first + i;
      ++machine_.pages[first + i].mapped;
    }
  }
  void unmap(std::uint64_t address, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto entry = table.find(address / page_size + i);
      if (entry == table.end()) continue;
      --machine_.pages[entry->second].mapped;
      table.erase(entry);
    }
  }
  void die() {
    for (const auto& [page, number] : table) --machine_.pages[number].mapped;
    table.clear();
    gone = true;
  }

  int entries(std::uint64_t address, std::span<sys::PageEntry> entries) override {
    const std::scoped_lock lock(machine_.mutex);
    ++reads;
    longest_read = std::max(longest_read, entries.size());
    entries_read += entries.size();
    if (entries_error != 0) return entries_error;
    for (sys::PageEntry& entry : entries) {
      entry = {};
      const auto found = table.find(address / page_size);
      address += page_size;
      if (found == table.end()) continue;
      const FakeMachine::Page& page = machine_.pages[found->second];
      entry.word = std::uint64_t{1} << 63U | (frames_hidden ? 0 : page.frame);
      if (page.of_file) entry.word |= std::uint64_t{1} << 61U;
      if (page.mapped == 1 && !page.special) entry.word |= std::uint64_t{1} << 56U;
    }
    return 0;
  }
  int present(std::uint64_t start, std::uint64_t end,
              const std::function<void(std::uint64_t, std::uint64_t)>& each) override {
    if (present_error != 0) return present_error;
    if (!scans) {
      each(start, end);
      return 0;
    }
    for (auto entry = table.lower_bound(start / page_size);
         entry != table.end() && entry->first < end / page_size;) {
      const std::uint64_t first = entry->first;
      std::uint64_t behind = first;
      while (entry != table.end() && entry->first == behind && behind < end / page_size) {
        ++behind;
        ++entry;
      }
      each(first * page_size, behind * page_size);
    }
    return 0;
  }
  bool is_gone() override { return gone; }

  int locate(std::span<void*> addresses, std::span<int> nodes) override {
    const std::scoped_lock lock(machine_.mutex);
    ++locates;
    if (gone) return dead_error;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      const auto found = table.find(reinterpret_cast<std::uintptr_t>(addresses[i]) / page_size);
      nodes[i] = found == table.end() ? -ENOENT : static_cast<int>(machine_.pages[found->second].node);
    }
    return 0;
  }
  long move(std::span<void*> addresses, std::span<const int> nodes, std::span<int> statuses,
            bool all) override {
    const std::scoped_lock lock(machine_.mutex);
    ++moves;
    largest_move = std::max(largest_move, addresses.size());
    if (before_move) before_move();
    if (gone) return -dead_error;
    if (all && !machine_.may_move_all) return -EPERM;
    const auto count = static_cast<long>(addresses.size());
    std::vector<std::pair<long, Number>> queued;
    std::set<Number> isolated;
    const auto flush = [&](long end) -> long {
      const auto list = std::exchange(queued, {});
      isolated.clear();
      long failed = 0;
      for (const auto& [i, head] : list) {
        const auto node = static_cast<unsigned>(nodes[i]);
        FakeMachine::Page& page = machine_.pages[head];
        if (page.migrate_busy != 0) {
          page.migrate_busy -= page.migrate_busy > 0 ? 1 : 0;
          ++failed;
          continue;
        }
        const std::uint64_t size = machine_.folio_size(head);
        if (size > 1 && machine_.no_large.contains(node)) return -ENOMEM;
        if (const auto free = machine_.free_pages.find(node); free != machine_.free_pages.end()) {
          if (free->second < size) return -ENOMEM;
          free->second -= size;
        }
        machine_.put(head, node);
        for (Number tail = head; tail < head + size; ++tail) ++machine_.pages[tail].migrated;
      }
      if (failed > 0) return failed + count - end;
      for (const auto& [i, head] : list) statuses[i] = nodes[i];
      return 0;
    };
    for (long i = 0; i < count; ++i) {
      if (machine_.forbidden.contains(static_cast<unsigned>(nodes[i]))) return -EACCES;
      const auto found = table.find(reinterpret_cast<std::uintptr_t>(addresses[i]) / page_size);
      int error = 0;
      if (found == table.end()) {
        error = -ENOENT;
      } else {
        FakeMachine::Page& page = machine_.pages[machine_.pages[found->second].head];
        if (page.node == static_cast<unsigned>(nodes[i])) {
          error = nodes[i];
        } else if (page.mapped > 1 && !all) {
          error = -EACCES;
        } else if (page.isolate_busy != 0 || isolated.contains(page.head)) {
          if (page.isolate_busy > 0) --page.isolate_busy;
          error = -EBUSY;
        } else {
          isolated.insert(page.head);
          queued.emplace_back(i, page.head);
          continue;
        }
      }
      statuses[i] = error;
      if (const long result = flush(i); result != 0) return result > 0 ? result - 1 : result;
    }
    return flush(count);
  }
  void pause(std::chrono::microseconds /*time*/) override { ++pauses; }

  std::map<std::uint64_t, Number> table;  ///< by page number of the address
  bool gone = false;
  int dead_error = ESRCH;
  int entries_error = 0;
  int present_error = 0;
  bool frames_hidden = false;
  bool scans = true;
  std::function<void()> before_move;  ///< called with the machine locked

  unsigned reads = 0;
  std::size_t longest_read = 0;
  std::uint64_t entries_read = 0;
  unsigned locates = 0;
  unsigned moves = 0;
  std::size_t largest_move = 0;
  std::atomic<unsigned> pauses = 0;

 private:
  FakeMachine& machine_;
};

/// A job on that machine: what Mappings finds out in earnest.
class FakeJob {
 public:
  static constexpr std::uint64_t page_size = FakeMachine::page_size;

  /// Of memory of no file.
  std::uint32_t add_group(MappingKind kind = MappingKind::anonymous) {
    return add_group(kind, rule_for(kind));
  }
  std::uint32_t add_group(MappingKind kind, const Rule& rule, bool holdable = false) {
    MigrateGroup group;
    group.kind = kind;
    group.decision = rule.decision;
    group.private_stays = rule.private_stays;
    groups.push_back(group);
    rules.push_back({rule, holdable});
    return static_cast<std::uint32_t>(groups.size() - 1);
  }
  /// A regular file whose pages can be held.
  std::uint32_t add_file(MigrateDecision decision) {
    Rule rule;
    rule.decision = decision;
    return add_group(MappingKind::file, rule, true);
  }
  std::uint32_t add_process() {
    auto process = std::make_unique<FakeProcess>(machine);
    raw.push_back(process.get());
    processes.push_back(std::move(process));
    mapped.emplace_back();
    return static_cast<std::uint32_t>(raw.size() - 1);
  }
  /// A mapping of `pages` pages, of which nothing is present yet.
  void add_mapping(std::uint32_t process, std::uint64_t address, std::size_t pages, std::uint32_t group,
                   std::uint64_t offset_pages = 0) {
    mapped[process].push_back({.start = address,
                               .end = address + pages * page_size,
                               .offset = offset_pages * page_size,
                               .group = group,
                               .mapping = static_cast<std::uint32_t>(mappings.size())});
    mappings.emplace_back();
  }
  /// The same, with pages from `first` on.
  void map(std::uint32_t process, std::uint64_t address, FakeMachine::Number first, std::size_t pages,
           std::uint32_t group, std::uint64_t offset_pages = 0) {
    add_mapping(process, address, pages, group, offset_pages);
    raw[process]->map(address, first, pages);
  }

  Result<MoveRuns> survey(const NodePairing& pairing, const SurveyOptions& options = {}) {
    Survey survey(machine, topology, pairing, rules, groups, &mappings, options);
    for (std::uint32_t i = 0; i < processes.size(); ++i)
      if (auto added = survey.add(i, *processes[i], mapped[i]); !added) return tl::unexpected(added.error());
    if (auto finished = survey.finish(); !finished) return tl::unexpected(finished.error());
    stays = survey.stays();
    return std::move(survey.moves());
  }

  /// Where the pages of each group are that the job maps, each once; of what can move at all.
  [[nodiscard]] std::vector<std::vector<std::uint64_t>> whereabouts() const {
    std::vector<std::set<FakeMachine::Number>> pages(groups.size());
    for (std::size_t i = 0; i < raw.size(); ++i) {
      for (const Mapped& mapping : mapped[i]) {
        for (auto entry = raw[i]->table.lower_bound(mapping.start / page_size);
             entry != raw[i]->table.end() && entry->first < mapping.end / page_size; ++entry)
          pages[mapping.group].insert(entry->second);
      }
    }
    std::vector<std::vector<std::uint64_t>> result(groups.size());
    for (std::size_t group = 0; group < groups.size(); ++group) {
      for (const FakeMachine::Number page : pages[group]) {
        auto& counts = result[group];
        const unsigned node = machine.pages[page].node;
        if (counts.size() <= node) counts.resize(node + 1);
        ++counts[node];
      }
    }
    return result;
  }

  FakeMachine machine;
  Topology topology = FakeMachine::topology({0, 1, 2, 3});
  std::vector<MigrateGroup> groups;
  std::vector<GroupRule> rules;
  std::vector<std::unique_ptr<sys::ProcessPages>> processes;
  std::vector<FakeProcess*> raw;
  std::vector<std::vector<Mapped>> mapped;
  std::vector<MigrateMapping> mappings;
  std::vector<StayRun> stays;
};

/// Without zeroes at the end.
inline std::vector<std::uint64_t> trimmed(std::vector<std::uint64_t> pages) {
  while (!pages.empty() && pages.back() == 0) pages.pop_back();
  return pages;
}

}  // namespace fpolicy::job
