// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/run.h"

#include "placement/act.h"
#include "placement/decide.h"
#include "placement/observe.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace fpolicy::placement {
namespace {

// Windows are a multiple of this many pages, the largest folio of a page cache, so that no folio lies in two.
constexpr std::uint64_t window_pages_step = 2048;
constexpr unsigned most_threads = 8;
// Two took 0.6 of the time of one (Linux 6.12, two processors). More were not measured to gain, and take
// memory bandwidth from the machine's jobs.
constexpr std::size_t most_movers = 2;
constexpr std::size_t pages_per_mover = 4096;
// Where the kernel has no cachestat(2), mincore takes 50 ns for each absent page: 13 s for an empty file of 1
// TiB, and days for one that somebody truncated to 8 EiB. After so much of nothing, holes are skipped.
constexpr std::uint64_t patience_bytes = std::uint64_t{16} << 30U;

std::uint64_t window_bytes(const sys::FileShape& shape, std::uint64_t wanted) {
  const std::uint64_t step = shape.page_size * (shape.hugetlb ? 1 : window_pages_step);
  // A Move counts pages of its window in 32 bits.
  const std::uint64_t most = shape.page_size * (std::uint64_t{1} << 31U);
  return std::clamp(wanted / step * step, step, std::max(step, most));
}

unsigned thread_count(unsigned wanted) {
  return wanted != 0 ? wanted : std::clamp(std::thread::hardware_concurrency(), 1U, most_threads);
}

/// A window of the file in the address space.
class Mapping {
 public:
  static Result<Mapping> map(sys::Memory& memory, int fd, std::uint64_t offset, std::uint64_t length,
                             const sys::FileShape& shape) {
    const auto address = memory.map(fd, offset, length, shape);
    if (!address) return tl::unexpected(address.error());
    return Mapping(memory, *address, length);
  }
  Mapping(Mapping&& other) noexcept
      : memory_(other.memory_), address_(std::exchange(other.address_, nullptr)), length_(other.length_) {}
  Mapping& operator=(Mapping&&) = delete;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (address_ != nullptr) memory_.unmap(address_, length_);
  }
  [[nodiscard]] std::byte* address() const { return address_; }

 private:
  Mapping(sys::Memory& memory, std::byte* address, std::uint64_t length)
      : memory_(memory), address_(address), length_(length) {}

  sys::Memory& memory_;
  std::byte* address_;
  std::uint64_t length_;
};

/// One call's run over the windows of one file.
class Run {
 public:
  Run(sys::Memory& memory, int fd, const Topology& topology, const PlacementOptions& options,
      const sys::FileShape& shape, bool moving)
      : memory_(memory), fd_(fd), topology_(topology), options_(options), shape_(shape), moving_(moving) {}

  Result<PlacementReport> run(Planner& planner, const FolioInterest& folios) {
    report_.residency.page_size = shape_.page_size;
    if (options_.runs != nullptr) options_.runs->clear();
    observe_ = {thread_count(options_.threads), folios, !moving_};
    movers_.emplace_back(memory_, options_.busy_retries);

    const std::uint64_t window = window_bytes(shape_, options_.window_bytes);
    std::uint64_t empty_bytes = 0;
    bool going_on = true;
    for (std::uint64_t offset = 0; offset < shape_.bytes && going_on; offset += window) {
      const std::uint64_t length = std::min(window, shape_.bytes - offset);
      const auto resident = run_window(offset, length, planner);
      if (!resident) return tl::unexpected(resident.error());
      // Full windows follow full ones mostly; the question costs as much as looking where pages are resident.
      if (!*resident && offset + window < shape_.bytes) {
        empty_bytes += length;
        const std::uint64_t next =
            memory_.next_resident(fd_, shape_, offset + window, window, empty_bytes >= patience_bytes);
        offset = std::max(offset, next / window * window - window);
      }
      if (options_.after_window) going_on = options_.after_window(std::exchange(moved_since_, 0));
      stopped_ = !going_on && offset + window < shape_.bytes;
    }
    explain(planner);
    return std::move(report_);
  }

 private:
  /// Gives whether any page of the window was resident.
  Result<bool> run_window(std::uint64_t offset, std::uint64_t length, Planner& planner) {
    const std::uint64_t page_size = shape_.page_size;
    pages_.resize((length + page_size - 1) / page_size);
    const auto mapping = Mapping::map(memory_, fd_, offset, pages_.size() * page_size, shape_);
    if (!mapping) return tl::unexpected(mapping.error());
    observe_window(memory_, shape_, topology_, mapping->address(), pages_, observe_);

    const Snapshot snapshot{offset / page_size, pages_};
    Plan plan = planner.plan(snapshot);
    if (moving_ && plan.misplaced_pages > 0)
      act(mapping->address(), snapshot, planner, std::move(plan));
    else {
      report_.misplaced_pages += plan.misplaced_pages;
      report_.no_memory_pages += plan.no_memory_pages;
    }
    if (options_.runs != nullptr) append_runs(snapshot, *options_.runs);
    return count();
  }

  /// Moves until no node that is newly full leaves another to be tried.
  void act(std::byte* address, const Snapshot& snapshot, Planner& planner, Plan plan) {
    while (true) {
      const MoveOutcome outcome = move({shape_.page_size, address}, plan);
      report_.moved_pages += outcome.moved;
      report_.vanished_pages += outcome.vanished;
      moved_since_ += outcome.moved;
      for (const Move& move : outcome.left) planner.give_back(move);
      for (const Move& move : outcome.denied) planner.give_back(move);
      if (outcome.full.empty()) {
        report_.misplaced_pages += plan.misplaced_pages - outcome.moved - outcome.vanished;
        report_.no_memory_pages += plan.no_memory_pages;
        report_.busy_pages += outcome.busy;
        for (const Move& move : outcome.denied) report_.denied_pages += move.pages;
        return;
      }
      planner.mark_full(outcome.full);
      plan = planner.plan(snapshot);
    }
  }

  MoveOutcome move(const PageAddresses& addresses, Plan& plan) {
    Moves& moves = plan.moves;
    const std::size_t pages = plan.misplaced_pages - plan.no_memory_pages;
    const std::size_t useful = memory_.moves_in_parallel() ? pages / pages_per_mover : 1;
    const std::size_t count =
        std::clamp<std::size_t>(useful, 1, std::min<std::size_t>(most_movers, observe_.threads));
    if (count == 1) return movers_.front().move(addresses, pages_, moves);
    while (movers_.size() < count) movers_.emplace_back(memory_, options_.busy_retries);
    std::vector<MoveOutcome> outcomes(count);
    std::atomic<std::size_t> next{0};
    // No folio lies in two parts: a move is one folio.
    const auto work = [&](Mover& mover) {
      for (std::size_t part = next++; part < count; part = next++) {
        const auto at = [&](std::size_t index) {
          return moves.begin() + static_cast<std::ptrdiff_t>(moves.size() * index / count);
        };
        Moves mine(at(part), at(part + 1));
        outcomes[part] = mover.move(addresses, pages_, mine);
      }
    };
    std::vector<std::future<void>> helpers;
    try {
      while (helpers.size() + 1 < count)
        helpers.push_back(std::async(std::launch::async, work, std::ref(movers_[helpers.size() + 1])));
    } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
      // No more threads to be had: those there are do the work.
    }
    work(movers_.front());
    for (std::future<void>& helper : helpers) helper.get();
    for (std::size_t part = 1; part < count; ++part) outcomes.front().add(outcomes[part]);
    return std::move(outcomes.front());
  }

  bool count() {
    Residency& residency = report_.residency;
    const std::uint64_t before = residency.resident_pages;
    for (const PageState page : pages_) {
      if (page.is_absent()) continue;
      ++residency.resident_pages;
      if (page.is_unknown()) {
        ++residency.unknown_pages;
        continue;
      }
      if (page.node() >= residency.pages_by_node.size()) residency.pages_by_node.resize(page.node() + 1);
      ++residency.pages_by_node[page.node()];
    }
    return residency.resident_pages > before;
  }

  void explain(const Planner& planner) {
    std::string& reason = report_.reason;
    const auto add = [&](const std::string& text) { reason.append(reason.empty() ? "" : "; ").append(text); };
    if (report_.misplaced_pages > 0) {
      NodeSet full = planner.full();
      std::map<unsigned, std::string> refusals;
      for (const Mover& mover : movers_) refusals.insert(mover.refusals().begin(), mover.refusals().end());
      for (const auto& [node, refusal] : refusals) {
        add("node " + std::to_string(node) + " refuses pages: " + refusal);
        full.erase(node);
      }
      if (report_.no_memory_pages > 0 && !full.empty())
        add((full.size() == 1 ? "node " : "nodes ") + full.format() + (full.size() == 1 ? " is" : " are") +
            " full");
      if (report_.busy_pages > 0) add(std::to_string(report_.busy_pages) + " pages are busy");
      if (report_.denied_pages > 0)
        add(std::to_string(report_.denied_pages) +
            " pages are mapped by other processes too, and moving those needs CAP_SYS_NICE");
      if (!moving_ && observe_.folios.wanted && !memory_.sees_frames() && !shape_.hugetlb)
        add("large folios were counted page by page: their bounds are shown with CAP_SYS_ADMIN only");
    }
    if (stopped_) add("stopped before the end of the file");
  }

  sys::Memory& memory_;
  const int fd_;
  const Topology& topology_;
  const PlacementOptions& options_;
  const sys::FileShape shape_;
  const bool moving_;
  ObserveOptions observe_;
  std::deque<Mover> movers_;  ///< one for each thread that moves
  std::vector<PageState> pages_;
  PlacementReport report_;
  std::uint64_t moved_since_ = 0;
  bool stopped_ = false;
};

/// What there is room for. `slack`: leave so much alone that the kernel's own coming and going (per-CPU
/// lists, watermarks) does not make an audit of prefer call misplaced what an enforcement has just left.
/// `failed` is set where it cannot be told.
Room read_room(sys::Memory& memory, const sys::FileShape& shape, bool slack, std::optional<Error>& failed) {
  const auto nodes = memory.room(shape);
  if (!nodes) {
    failed = nodes.error();
    return {};
  }
  Room room;
  room.reserve(nodes->size());
  for (const sys::NodeRoom& node : *nodes) {
    const std::uint64_t kept = slack ? node.managed / 64 : 0;
    room.push_back({node.free > kept ? node.free - kept : 0, node.reclaimable});
  }
  return room;
}

Result<PlacementReport> run_for_target(sys::Memory& memory, int fd, const Target& target,
                                       const Topology& topology, const PlacementOptions& options,
                                       const FolioInterest& folios, bool moving) {
  const auto shape = memory.shape(fd);
  if (!shape) return tl::unexpected(shape.error());
  if (moving && target.mode == Mode::interleave && !memory.sees_frames() && !shape->hugetlb)
    return fail(EPERM, "interleave needs CAP_SYS_ADMIN: without it the bounds of large folios are not shown");
  std::optional<Error> failed;
  const bool slack = !moving && target.mode == Mode::prefer;
  Decider decider(target, topology, [&] { return read_room(memory, *shape, slack, failed); });
  auto report = Run(memory, fd, topology, options, *shape, moving).run(decider, folios);
  if (failed) return tl::unexpected(*failed);
  return report;
}

/// bind and prefer: folios matter where pages are to be moved. interleave: everywhere, for a folio counts by
/// its first page.
FolioInterest folio_interest(const Target& target, bool moving) {
  if (target.mode == Mode::interleave) return {true, {}};
  return {moving && target.mode != Mode::none, target.nodes};
}

}  // namespace

Result<PlacementReport> audit(sys::Memory& memory, int fd, const Target& target, const Topology& topology,
                              const PlacementOptions& options) {
  return run_for_target(memory, fd, target, topology, options, folio_interest(target, false), false);
}

Result<PlacementReport> enforce(sys::Memory& memory, int fd, const Target& target, const Topology& topology,
                                const PlacementOptions& options) {
  return run_for_target(memory, fd, target, topology, options, folio_interest(target, true),
                        target.mode != Mode::none);
}

Result<PlacementReport> return_home(sys::Memory& memory, int fd, const std::vector<PageRun>& home,
                                    const Topology& topology, const PlacementOptions& options) {
  const auto shape = memory.shape(fd);
  if (!shape) return tl::unexpected(shape.error());
  HomePlanner planner(home);
  return Run(memory, fd, topology, options, *shape, true).run(planner, {true, {}});
}

}  // namespace fpolicy::placement
