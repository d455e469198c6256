// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/move_pages.h"

#include "placement/act.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

namespace fpolicy::job {
namespace {

using placement::MoveOutcome;
using placement::Mover;
using placement::Moves;
using placement::PageAddresses;
using placement::PageState;

using Clock = std::chrono::steady_clock;

// A call drains the lists of all processors first: the fewer the better. What one takes bounds the memory for
// it, and how soon the work stops.
constexpr std::uint64_t most_folios = 65536;
constexpr std::uint64_t most_pages = 262144;
// Below this, a thread of its own costs more than it brings.
constexpr std::uint64_t least_folios = 8192;

class MoveJob {
 public:
  MoveJob(std::span<const MoveRun> runs, std::span<const std::unique_ptr<sys::ProcessPages>> processes,
          std::span<MigrateGroup> groups, const MoveOptions& options)
      : runs_(runs), processes_(processes), groups_(groups), options_(options) {
    std::uint64_t folios = 0;
    for (const MoveRun& run : runs) folios += run.pages / run.folio;
    threads_ = static_cast<unsigned>(
        std::clamp<std::uint64_t>(folios / least_folios, 1, std::max(options.threads, 1U)));
    folios_ = std::clamp(folios / threads_ + 1, least_folios, most_folios);
    if (options.bytes_per_second > 0) {
      // Ten steps a second.
      const std::uint64_t step = options.bytes_per_second / options.page_size / 10;
      folios_ = std::min(folios_, std::max<std::uint64_t>(step, 64));
      pages_ = std::min(pages_, std::max<std::uint64_t>(step, 64));
    }
  }

  MoveResult run() {
    if (runs_.empty()) return {};
    std::vector<std::jthread> threads;
    threads.reserve(threads_);
    running_ = threads_;
    for (unsigned i = 0; i < threads_; ++i) threads.emplace_back([this] { work(); });
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      ended_.wait_for(lock, std::chrono::milliseconds(100));
      if (!options_.progress) continue;
      const std::uint64_t done = done_;
      lock.unlock();
      const bool go_on = options_.progress(done);
      lock.lock();
      stop_ = stop_ || !go_on;
    }
    // What nobody took stays.
    result_.stopped = next_ < runs_.size();
    std::vector<MoveRun> rest;
    while (take(rest)) {
      for (const MoveRun& left : rest) {
        put_back(left, left.pages);
        groups_[left.group].counts.stayed += left.pages;
      }
    }
    return std::move(result_);
  }

 private:
  /// Cuts the next batch off: one process, folios of one size.
  bool take(std::vector<MoveRun>& batch) {
    batch.clear();
    std::uint64_t folios = 0;
    std::uint64_t pages = 0;
    while (next_ < runs_.size()) {
      MoveRun run = runs_[next_];
      if (!batch.empty() && (run.process != batch.front().process || run.folio != batch.front().folio)) break;
      run.address += taken_ * options_.page_size;
      run.pages -= static_cast<std::uint32_t>(taken_);
      const std::uint64_t room = std::min(folios_ - folios, (pages_ - std::min(pages, pages_)) / run.folio);
      if (room == 0 && !batch.empty()) break;
      const std::uint64_t fits = std::max<std::uint64_t>(room, 1) * run.folio;
      if (fits < run.pages) {
        run.pages = static_cast<std::uint32_t>(fits);
        taken_ += fits;
        batch.push_back(run);
        break;
      }
      taken_ = 0;
      ++next_;
      folios += run.pages / run.folio;
      pages += run.pages;
      batch.push_back(run);
    }
    return !batch.empty();
  }

  void work() {
    std::vector<MoveRun> batch;
    std::unique_lock lock(mutex_);
    while (!stop_ && take(batch)) {
      lock.unlock();
      move(batch);
      lock.lock();
    }
    --running_;
    ended_.notify_all();
  }

  void move(const std::vector<MoveRun>& batch) {
    sys::ProcessPages& process = *processes_[batch.front().process];
    PageAddresses addresses(options_.page_size);
    std::vector<PageState> states;
    Moves moves;
    std::vector<std::size_t> firsts;  // page number of each run's first page
    std::uint64_t pages = 0;
    std::vector<bool> full;
    {
      const std::scoped_lock lock(mutex_);
      for (const MoveRun& run : batch) full.push_back(is_full(run));
    }
    for (const MoveRun& run : batch) pages += run.pages;
    states.reserve(pages);
    moves.reserve(pages / batch.front().folio);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const MoveRun& run = batch[i];
      firsts.push_back(states.size());
      // NOLINTNEXTLINE(performance-no-int-to-ptr): of another process
      addresses.add(states.size(), reinterpret_cast<std::byte*>(run.address));
      for (std::uint32_t page = 0; page < run.pages; page += run.folio) {
        if (!full[i])
          moves.push_back(
              {static_cast<std::uint32_t>(states.size()), std::min(run.folio, run.pages - page), run.target});
        states.push_back(PageState::on(run.source));
        for (std::uint32_t rest = 1; rest < std::min(run.folio, run.pages - page); ++rest)
          states.push_back(PageState::on(run.source).in_folio());
      }
    }
    Mover mover(process, options_.busy_retries);
    const auto began = Clock::now();
    const MoveOutcome outcome = mover.move(addresses, states, moves);
    settle(batch, firsts, states, outcome, mover, process.is_gone());
    if (options_.bytes_per_second > 0) {
      const std::chrono::duration<double> due(static_cast<double>(pages * options_.page_size) /
                                              static_cast<double>(options_.bytes_per_second) * threads_);
      std::this_thread::sleep_until(began + std::chrono::duration_cast<Clock::duration>(due));
    }
  }

  /// A page that was not moved is not where it should be: its state tells which.
  void settle(const std::vector<MoveRun>& batch, const std::vector<std::size_t>& firsts,
              const std::vector<PageState>& states, const MoveOutcome& outcome, const Mover& mover,
              bool is_gone) {
    std::vector<bool> denied(states.size());
    for (const placement::Move& move : outcome.denied)
      std::fill_n(denied.begin() + move.page, move.pages, true);
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const MoveRun& run = batch[i];
      MigrateCounts& counts = groups_[run.group].counts;
      std::uint64_t left = 0;
      std::uint64_t shared = 0;
      std::uint64_t vanished = 0;
      for (std::size_t page = firsts[i]; page < firsts[i] + run.pages; ++page) {
        if (states[page].is_absent())
          ++vanished;
        else if (denied[page])
          ++shared;
        else if (states[page].node() != run.target)
          ++left;
      }
      result_.moved += run.pages - left - shared - vanished;
      counts.vanished += vanished;
      counts.moved -= vanished;
      groups_[run.group].after[run.target] -= vanished;
      put_back(run, shared);
      (options_.own_pages_only ? counts.stayed : counts.failed) += shared;
      if (left == 0) continue;
      if (is_gone) {
        // With the process its pages are gone.
        counts.vanished += left;
        counts.moved -= left;
        groups_[run.group].after[run.target] -= left;
        continue;
      }
      put_back(run, left);
      if (outcome.full.contains(run.target) || is_full(run))
        counts.failed += left;
      else
        counts.busy += left;
      if (outcome.full.contains(run.target) && !mover.refusals().contains(run.target))
        full_.insert({run.target, run.folio});
    }
    if (!is_gone) {
      for (const auto& [node, refusal] : mover.refusals())
        note(fmt::format("node {} refuses pages: {}", node, refusal));
    }
    for (const auto& [node, folio] : full_)
      note(fmt::format("node {} has no room for {}pages any more", node, folio > 1 ? "large " : ""));
    for (const MoveRun& run : batch) done_ += run.pages;
  }

  void put_back(const MoveRun& run, std::uint64_t pages) {
    MigrateGroup& group = groups_[run.group];
    group.counts.moved -= pages;
    group.after[run.target] -= pages;
    group.after[run.source] += pages;
  }

  void note(std::string text) {
    if (std::ranges::find(result_.notes, text) == result_.notes.end())
      result_.notes.push_back(std::move(text));
  }

  bool is_full(const MoveRun& run) { return full_.contains({run.target, run.folio}); }

  std::span<const MoveRun> runs_;
  std::span<const std::unique_ptr<sys::ProcessPages>> processes_;
  std::span<MigrateGroup> groups_;
  const MoveOptions& options_;
  unsigned threads_ = 1;
  std::uint64_t folios_ = most_folios;
  std::uint64_t pages_ = most_pages;

  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t next_ = 0;
  std::uint64_t taken_ = 0;  ///< pages of the next run that are taken
  unsigned running_ = 0;
  bool stop_ = false;
  std::uint64_t done_ = 0;
  /// Nodes that take no more folios of a size: a pool of huge pages is another thing than free memory.
  std::set<std::pair<unsigned, std::uint32_t>> full_;
  MoveResult result_;
};

}  // namespace

MoveResult move_runs(std::span<const MoveRun> runs,
                     std::span<const std::unique_ptr<sys::ProcessPages>> processes,
                     std::span<MigrateGroup> groups, const MoveOptions& options) {
  return MoveJob(runs, processes, groups, options).run();
}

}  // namespace fpolicy::job
