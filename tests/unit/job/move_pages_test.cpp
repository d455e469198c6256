// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/move_pages.h"

#include "fake_job.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <string>
#include <vector>

namespace fpolicy::job {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t page_size = FakeMachine::page_size;
constexpr std::uint64_t base = 0x7f0000000000;

std::uint64_t dealt_with(const MigrateCounts& counts) {
  return counts.moved + counts.busy + counts.failed + counts.vanished + counts.stayed;
}

class MovePages : public testing::Test {
 protected:
  /// Surveys, moves what was planned, and checks that the accounts agree with the machine.
  MoveResult move() {
    auto planned = job.survey(pairing);
    EXPECT_TRUE(planned) << planned.error().message;
    if (!planned) return {};
    return move(*planned);
  }
  MoveResult move(const MoveRuns& runs) {
    const std::vector<MigrateGroup> plan = job.groups;
    MoveResult result = move_runs(runs, job.processes, job.groups, options);
    const auto now = job.whereabouts();
    std::uint64_t moved = 0;
    for (std::size_t i = 0; i < plan.size(); ++i) {
      SCOPED_TRACE(i);
      const MigrateCounts& counts = job.groups[i].counts;
      EXPECT_EQ(dealt_with(counts), dealt_with(plan[i].counts)) << "pages were lost or invented";
      EXPECT_EQ(trimmed(job.groups[i].after), trimmed(now[i]));
      EXPECT_EQ(job.groups[i].before, plan[i].before);
      moved += counts.moved;
    }
    EXPECT_EQ(result.moved, moved);
    return result;
  }
  /// A job of one process with `pages` private pages on node 0.
  FakeProcess& simple(std::size_t pages) {
    group = job.add_group();
    const auto process = job.add_process();
    first = job.machine.add(0, pages);
    job.map(process, base, first, pages, group);
    return *job.raw[process];
  }
  [[nodiscard]] const MigrateCounts& counts() const { return job.groups[group].counts; }
  FakeMachine::Page& page(std::size_t i) { return job.machine.pages[first + i]; }

  FakeJob job;
  NodePairing pairing{NodeSet{0, 1}, NodeSet{2, 3}};
  MoveOptions options;
  std::uint32_t group = 0;
  FakeMachine::Number first = 0;
};

TEST_F(MovePages, NothingIsNothing) {
  options.progress = [](std::uint64_t /*pages*/) { return false; };
  const MoveResult result = move(MoveRuns{});
  EXPECT_EQ(result.moved, 0U);
  EXPECT_FALSE(result.stopped);
}

TEST_F(MovePages, AllInOneCall) {
  const FakeProcess& process = simple(5000);
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 5000U);
  EXPECT_FALSE(result.stopped);
  EXPECT_THAT(result.notes, IsEmpty());
  EXPECT_EQ(process.moves, 1U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, SeveralProcessesAndNodes) {
  const auto anonymous = job.add_group();
  const auto file = job.add_file(MigrateDecision::follow);
  const auto shared = job.machine.add(1, 300, true);
  for (unsigned i = 0; i < 4; ++i) {
    const auto process = job.add_process();
    job.map(process, base, job.machine.add(i % 2, 100 + i), 100 + i, anonymous);
    job.map(process, base + 1000 * page_size, shared, 300, file);
  }
  EXPECT_EQ(move().moved, 706U);
  EXPECT_EQ(job.groups[file].counts.moved, 300U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, CallsAreOfAtMost65536Folios) {
  const FakeProcess& process = simple(150'000);
  EXPECT_EQ(move().moved, 150'000U);
  EXPECT_EQ(process.largest_move, 65'536U);
  EXPECT_EQ(process.moves, 3U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, HugePagesGetOneAddressEach) {
  const auto huge = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add_folios(0, 1100, 512), 1100UL * 512, huge);
  EXPECT_EQ(move().moved, 1100U * 512);
  EXPECT_EQ(job.raw[process]->largest_move, 512U) << "262,144 pages a call";
  EXPECT_EQ(job.raw[process]->moves, 3U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, AFolioLargerThanACall) {
  const auto huge = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add_folios(0, 2, 262'144), 2UL * 262'144, huge);
  job.map(process, base + 2UL * 262'144 * page_size, job.machine.add(0, 3), 3, huge);
  options.bytes_per_second = std::uint64_t{1} << 45U;
  EXPECT_EQ(move().moved, 2U * 262'144 + 3);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, FoliosOfSeveralSizesInOneProcess) {
  job.machine.smallest_folio = 4;
  group = job.add_group();
  const auto process = job.add_process();
  std::uint64_t at = base;
  for (const std::size_t folio : {4U, 16U, 64U, 8U}) {
    job.map(process, at, job.machine.add_folios(0, 5, folio), 5 * folio, group);
    at += 5 * folio * page_size;
    job.map(process, at, job.machine.add(0, 7), 7, group);
    at += 7 * page_size;
  }
  EXPECT_EQ(move().moved, 5U * 92 + 28);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, FoliosThatAreShownInPart) {
  job.machine.smallest_folio = 4;
  group = job.add_group();
  const auto folios = job.machine.add_folios(0, 3, 8);
  job.map(job.add_process(), base, folios + 5, 15, group);
  EXPECT_EQ(move().moved, 15U);
}

TEST_F(MovePages, ManyThreadsMoveEachPageOnce) {
  group = job.add_group();
  for (unsigned i = 0; i < 4; ++i)
    job.map(job.add_process(), base, job.machine.add(i % 2, 40'000), 40'000, group);
  options.threads = 8;
  EXPECT_EQ(move().moved, 160'000U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

// --- busy pages

TEST_F(MovePages, PagesThatAreBusyForAWhileMoveLater) {
  simple(3000);
  page(0).isolate_busy = 1;
  page(1234).isolate_busy = 3;
  page(2000).migrate_busy = 2;
  page(2999).isolate_busy = 2;
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 3000U);
  EXPECT_EQ(counts().busy, 0U);
  EXPECT_EQ(job.machine.most_migrated(), 1U);
}

TEST_F(MovePages, PagesThatStayBusyAreTold) {
  const FakeProcess& process = simple(3000);
  for (const std::size_t i : {0U, 1500U, 2999U}) page(i).isolate_busy = -1;
  page(700).migrate_busy = -1;  // the call returns a positive number and says nothing of any page
  options.busy_retries = 3;
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 2996U);
  EXPECT_EQ(counts().busy, 4U);
  EXPECT_EQ(counts().failed, 0U);
  EXPECT_THAT(result.notes, IsEmpty());
  EXPECT_EQ(process.pauses, 3U);
}

TEST_F(MovePages, ABusyHugePageCountsWhole) {
  group = job.add_group();
  const auto folios = job.machine.add_folios(0, 3, 512);
  job.map(job.add_process(), base, folios, 3UL * 512, group);
  job.machine.pages[folios + 512].migrate_busy = -1;
  options.busy_retries = 0;
  EXPECT_EQ(move().moved, 1024U);
  EXPECT_EQ(counts().busy, 512U);
}

TEST_F(MovePages, HostileMixturesEnd) {
  const FakeProcess& process = simple(2000);
  for (std::size_t i = 0; i < 2000; i += 2) page(i).isolate_busy = page(i).migrate_busy = -1;
  move();
  EXPECT_GE(counts().busy, 1000U);
  EXPECT_LE(process.moves, 64U);
}

// --- pages and processes that go

TEST_F(MovePages, PagesThatAreGoneHaveVanished) {
  FakeProcess& process = simple(1000);
  auto planned = job.survey(pairing);
  ASSERT_TRUE(planned);
  process.unmap(base + 10 * page_size, 20);
  process.unmap(base + 999 * page_size, 1);
  const MoveResult result = move(*planned);
  EXPECT_EQ(result.moved, 979U);
  EXPECT_EQ(counts().vanished, 21U);
  EXPECT_EQ(counts().failed + counts().busy + counts().stayed, 0U);
}

class DeadProcess : public MovePages, public testing::WithParamInterface<int> {};

TEST_P(DeadProcess, ItsPagesHaveVanished) {
  FakeProcess& process = simple(1000);
  const auto other = job.add_process();
  job.map(other, base, job.machine.add(1, 500), 500, group);
  process.dead_error = GetParam();
  auto planned = job.survey(pairing);
  ASSERT_TRUE(planned);
  process.die();
  const MoveResult result = move(*planned);
  EXPECT_EQ(result.moved, 500U);
  EXPECT_EQ(counts().vanished, 1000U);
  EXPECT_EQ(counts().failed + counts().busy, 0U);
  EXPECT_THAT(result.notes, IsEmpty()) << "nothing is wrong with the node";
}

TEST_P(DeadProcess, InTheMidstOfTheWork) {
  FakeProcess& process = simple(150'000);
  process.dead_error = GetParam();
  process.before_move = [&process] {
    if (process.moves == 2) process.die();
  };
  auto planned = job.survey(pairing);
  ASSERT_TRUE(planned);
  const MoveResult result = move_runs(*planned, job.processes, job.groups, options);
  EXPECT_EQ(result.moved, 65'536U) << "they did move; they are gone since";
  EXPECT_EQ(counts().moved, 65'536U);
  EXPECT_EQ(counts().vanished, 150'000U - 65'536);
  EXPECT_THAT(trimmed(job.groups[group].after), ElementsAre(0, 0, 65'536));
}

INSTANTIATE_TEST_SUITE_P(Errors, DeadProcess, testing::Values(ESRCH, EINVAL));

// --- nodes that take nothing

TEST_F(MovePages, AFullNodeFailsWhatIsLeft) {
  simple(3000);
  job.machine.free_pages[2] = 1000;
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 1000U);
  EXPECT_EQ(counts().failed, 2000U);
  EXPECT_THAT(result.notes, ElementsAre("node 2 has no room for pages any more"));
}

TEST_F(MovePages, AFullNodeIsNotAskedAgain) {
  const FakeProcess& process = simple(300'000);
  job.map(0, base + (1U << 31U), job.machine.add(1, 100), 100, group);
  job.machine.free_pages[2] = 10;
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 110U);
  EXPECT_EQ(counts().failed, 299'990U);
  EXPECT_EQ(process.moves, 2U) << "one for each node";
}

TEST_F(MovePages, ANodeWithoutRoomForHugePagesTakesSmallOnes) {
  group = job.add_group();
  const auto process = job.add_process();
  job.machine.no_large.insert(2);
  job.map(process, base, job.machine.add_folios(0, 4, 512), 4UL * 512, group);
  job.map(process, base + 4096 * page_size, job.machine.add(0, 100), 100, group);
  job.map(process, base + 8192 * page_size, job.machine.add_folios(1, 1, 512), 512, group);
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 612U);
  EXPECT_EQ(counts().failed, 2048U);
  EXPECT_THAT(result.notes, ElementsAre("node 2 has no room for large pages any more"));
}

TEST_F(MovePages, ANodeOutsideTheCpusetRefuses) {
  simple(100);
  job.map(0, base + (1U << 24U), job.machine.add(1, 50), 50, group);
  job.machine.forbidden.insert(2);
  const MoveResult result = move();
  EXPECT_EQ(result.moved, 50U);
  EXPECT_EQ(counts().failed, 100U);
  ASSERT_EQ(result.notes.size(), 1U);
  EXPECT_THAT(result.notes.front(), testing::StartsWith("node 2 refuses pages: it is not among"));
}

TEST_F(MovePages, WithoutTheRightSharedPagesFail) {
  const auto file = job.add_file(MigrateDecision::follow);
  const auto pages = job.machine.add(0, 10, true);
  for (int i = 0; i < 2; ++i) job.map(job.add_process(), base, pages, 10, file);
  const auto own = job.add_group();
  job.map(0, base + 100 * page_size, job.machine.add(0, 10), 10, own);
  job.machine.may_move_all = false;
  EXPECT_EQ(move().moved, 10U);
  EXPECT_EQ(job.groups[file].counts.failed, 10U);
  EXPECT_EQ(job.groups[own].counts.moved, 10U);
}

TEST_F(MovePages, ForAUserPagesThatOthersMapByNowStay) {
  const auto file = job.add_file(MigrateDecision::exclusive);
  const auto pages = job.machine.add(0, 10, true);
  job.map(job.add_process(), base, pages, 10, file);
  const auto planned = job.survey(pairing);
  ASSERT_TRUE(planned);
  job.machine.may_move_all = false;
  options.own_pages_only = true;
  job.machine.map_outside(pages + 4, 4);
  EXPECT_EQ(move(*planned).moved, 6U);
  EXPECT_EQ(job.groups[file].counts.stayed, 4U);
  EXPECT_EQ(job.groups[file].counts.failed, 0U);
}

// --- progress, stop, rate

TEST_F(MovePages, ProgressCountsUpToTheEnd) {
  simple(200'000);
  std::uint64_t last = 0;
  options.progress = [&last](std::uint64_t done) {
    EXPECT_GE(done, last);
    last = done;
    return true;
  };
  move();
  EXPECT_EQ(last, 200'000U);
}

TEST_F(MovePages, StoppedAtOnceNothingMovesUnaccounted) {
  simple(400'000);
  options.progress = [](std::uint64_t /*done*/) { return false; };
  const MoveResult result = move();
  EXPECT_EQ(result.stopped, counts().stayed > 0);
  EXPECT_EQ(counts().moved + counts().stayed, 400'000U);
}

class Stopped : public MovePages, public testing::WithParamInterface<unsigned> {};

TEST_P(Stopped, WhatIsNotMovedStays) {
  // Small steps, so that there is a point to stop at: 64 pages in about a millisecond.
  simple(2000);
  job.map(0, base + (1U << 24U), job.machine.add(1, 500), 500, group);
  options.threads = 1;
  options.bytes_per_second = 64 * page_size * 10;  // 64 pages in 100 ms
  unsigned calls = 0;
  options.progress = [&](std::uint64_t /*done*/) { return ++calls < GetParam(); };
  const MoveResult result = move();
  EXPECT_TRUE(result.stopped);
  EXPECT_GE(counts().stayed, 1U);
  EXPECT_EQ(counts().moved + counts().stayed, 2500U);
  EXPECT_EQ(counts().moved % 64, 0U) << "a batch is not cut";
}

INSTANTIATE_TEST_SUITE_P(After, Stopped, testing::Values(1, 2, 4, 7));

TEST_F(MovePages, StoppedWithManyThreads) {
  group = job.add_group();
  for (unsigned i = 0; i < 4; ++i)
    job.map(job.add_process(), base, job.machine.add(i % 2, 100'000), 100'000, group);
  options.threads = 4;
  std::atomic<bool> stop = false;
  job.raw[1]->before_move = [&stop] { stop = true; };
  options.progress = [&stop](std::uint64_t /*done*/) { return !stop; };
  move();
  EXPECT_EQ(counts().moved + counts().stayed, 400'000U);
}

TEST_F(MovePages, ALimitIsKept) {
  simple(2000);
  options.bytes_per_second = 20'000 * page_size;
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(move().moved, 2000U);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  EXPECT_GE(took.count(), 0.099);
  EXPECT_LT(took.count(), 5);
}

TEST_F(MovePages, ALimitIsThatOfAllThreadsTogether) {
  group = job.add_group();
  for (unsigned i = 0; i < 2; ++i)
    job.map(job.add_process(), base, job.machine.add(0, 10'000), 10'000, group);
  options.threads = 4;
  options.bytes_per_second = 100'000 * page_size;
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(move().moved, 20'000U);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  EXPECT_GE(took.count(), 0.19);
}

// --- any job, any fault

TEST(MoveProperty, AccountsAgreeWithTheMachineWhateverHappens) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto any = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
    FakeJob job;
    job.machine.smallest_folio = any(2) != 0 ? 512 : 4;
    const NodePairing pairing({0, 1}, any(2) != 0 ? NodeSet{2, 3} : NodeSet{1, 2});
    for (unsigned i = 0; i < 4; ++i) job.add_process();
    for (unsigned i = 0; i < 6; ++i) {
      const bool file = any(2) != 0;
      const auto group =
          file ? job.add_file(any(2) != 0 ? MigrateDecision::follow : MigrateDecision::exclusive)
               : job.add_group();
      const FakeMachine::Number first = job.machine.pages.size();
      for (unsigned part = 0; part < 1 + any(3); ++part) {
        if (any(3) == 0)
          job.machine.add_folios(any(3), 1 + any(4), 4U << any(2), file);
        else
          job.machine.add(any(3), 1 + any(500), file);
      }
      const std::size_t pages = job.machine.pages.size() - first;
      // Whole objects: what moves with a folio is then the job's as well.
      for (unsigned k = 0; k < 1 + any(3); ++k)
        job.map(any(4), base + (std::uint64_t{i} << 32U) + (std::uint64_t{k} << 28U), first, pages, group);
      if (any(4) == 0) job.machine.map_outside(first, pages);
      for (FakeMachine::Number page = first; page < first + pages; ++page) {
        FakeMachine::Page& head = job.machine.pages[job.machine.pages[page].head];
        if (any(200) == 0) head.isolate_busy = static_cast<int>(any(4)) - 1;
        if (any(200) == 0) head.migrate_busy = static_cast<int>(any(4)) - 1;
      }
    }
    if (any(3) == 0) job.machine.free_pages[2] = any(600);
    if (any(4) == 0) job.machine.no_large.insert(any(4));
    if (any(5) == 0) job.machine.forbidden.insert(any(4));
    if (any(5) == 0) job.machine.may_move_all = false;
    const auto moves = job.survey(pairing);
    ASSERT_TRUE(moves);
    const auto plan = job.groups;
    // Pages of one that go meanwhile.
    if (any(3) == 0) {
      FakeProcess& process = *job.raw[any(4)];
      const auto table = process.table;
      for (const auto& [page, number] : table)
        if (job.machine.pages[number].mapped == 1 && any(50) == 0) process.unmap(page * page_size, 1);
    }
    MoveOptions options;
    options.threads = 1 + any(3);
    options.busy_retries = any(4);
    const MoveResult result = move_runs(*moves, job.processes, job.groups, options);
    const auto now = job.whereabouts();
    for (std::size_t group = 0; group < plan.size(); ++group) {
      const MigrateGroup& found = job.groups[group];
      ASSERT_EQ(dealt_with(found.counts), dealt_with(plan[group].counts));
      // A page that left a stayed one's company: only what was planned is accounted.
      std::uint64_t after = 0;
      std::uint64_t there = 0;
      for (const std::uint64_t pages : found.after) after += pages;
      for (const std::uint64_t pages : now[group]) there += pages;
      ASSERT_GE(after, there);
      if (there == after) {
        ASSERT_EQ(trimmed(found.after), trimmed(now[group]));
      }
    }
    ASSERT_LE(job.machine.most_migrated(), 1U);
    ASSERT_FALSE(result.stopped);
  }
}

}  // namespace
}  // namespace fpolicy::job
