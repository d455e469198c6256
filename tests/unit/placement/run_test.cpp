// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/run.h"

#include "fake_memory.h"

#include <gmock/gmock.h>

namespace fpolicy::placement {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const NodeSet four{0, 1, 2, 3};

Target bind(const NodeSet& nodes) {
  return {Mode::bind, nodes, {}};
}
Target interleave(const std::vector<unsigned>& slots) {
  Target target{Mode::interleave, {}, slots};
  for (const unsigned node : slots) target.nodes.insert(node);
  return target;
}

PlacementReport enforced(FakeMemory& memory, const Target& target, const PlacementOptions& options = {}) {
  const auto report = enforce(memory, 3, target, FakeMemory::topology(four), options);
  EXPECT_TRUE(report) << (report ? "" : report.error().message);
  EXPECT_EQ(memory.read_in, 0U);
  EXPECT_EQ(memory.mapped_length, 0U);
  // What the report says is what is.
  std::vector<std::uint64_t> by_node;
  for (const FakePage& page : memory.pages) {
    if (!page.resident) continue;
    if (by_node.size() <= page.node) by_node.resize(page.node + 1);
    ++by_node[page.node];
  }
  EXPECT_EQ(report->residency.pages_by_node, by_node);
  return *report;
}
PlacementReport audited(FakeMemory& memory, const Target& target, const PlacementOptions& options = {}) {
  const auto report = audit(memory, 3, target, FakeMemory::topology(four), options);
  EXPECT_TRUE(report) << (report ? "" : report.error().message);
  EXPECT_EQ(memory.read_in, 0U);
  EXPECT_EQ(memory.mapped_length, 0U);
  EXPECT_EQ(memory.moves, 0U);
  return *report;
}

TEST(Audit, CountsResidentPagesByNodeOnBothPaths) {
  for (const bool privileged : {true, false}) {
    FakeMemory memory(5000);
    memory.privileged = privileged;
    for (std::size_t i = 0; i < 5000; ++i) memory.put(i, i % 3);
    for (std::size_t i = 100; i < 5000; i += 7) memory.pages[i].resident = false;
    for (std::size_t i = 3; i < 5000; i += 50) memory.pages[i].skip_around = true;
    const PlacementReport report = audited(memory, bind({0, 2}));
    EXPECT_EQ(report.residency.page_size, 4096U);
    EXPECT_EQ(report.residency.resident_pages, 4300U);
    EXPECT_EQ(report.residency.unknown_pages, 0U);
    EXPECT_EQ(report.misplaced_pages, report.residency.pages_by_node[1]);
    EXPECT_EQ(report.moved_pages, 0U);
    EXPECT_EQ(memory.locates == 0, privileged);
  }
}

TEST(Audit, AnEmptyFileIsNotMapped) {
  FakeMemory memory(0);
  const PlacementReport report = audited(memory, bind({1}));
  EXPECT_EQ(report.residency.resident_pages, 0U);
  EXPECT_EQ(memory.mappings, 0U);
}

TEST(Audit, WindowsAreBoundedAndEmptyStretchesSkipped) {
  FakeMemory memory(std::size_t{40} * 2048);
  for (FakePage& page : memory.pages) page.resident = false;
  for (const std::size_t i : {0, 1, 61000, 81919}) memory.pages[i].resident = true;
  PlacementOptions options;
  options.window_bytes = 1;
  std::vector<PageRun> runs;
  options.runs = &runs;
  const PlacementReport report = audited(memory, bind({1}), options);
  EXPECT_EQ(report.misplaced_pages, 4U);
  EXPECT_EQ(memory.longest_mapping, 2048U * 4096U);
  EXPECT_LE(memory.mappings, 6U);
  ASSERT_EQ(runs.size(), 3U);
  EXPECT_EQ(runs[1].first, 61000U);
  EXPECT_FALSE(memory.holes_skipped);
}

TEST(Audit, PagesReclaimedUnderItsHandsAreNotReadIn) {
  FakeMemory memory(4096);
  bool reclaimed = false;
  memory.after_residency = [&] {
    if (reclaimed) return;
    reclaimed = true;
    // All of a fault-around block but the page that is populated first, and others around one that
    // fault-around leaves out.
    for (std::size_t i = 17; i < 32; ++i) memory.pages[i].resident = false;
    for (std::size_t i = 65; i < 68; ++i) memory.pages[i].resident = false;
    memory.pages[68].skip_around = true;
  };
  PlacementOptions options;
  options.threads = 1;
  const PlacementReport report = audited(memory, bind({0}), options);
  EXPECT_EQ(report.residency.resident_pages, 4096U - 18U);
  EXPECT_EQ(report.residency.unknown_pages, 0U);
  EXPECT_EQ(memory.read_in, 0U);
}

TEST(Audit, PagesThatCannotBeMappedAreUnknownNotMisplaced) {
  FakeMemory memory(64);
  memory.pages[20].skip_around = true;
  memory.beyond_end.insert(20);
  const PlacementReport report = audited(memory, bind({1}));
  EXPECT_EQ(report.residency.resident_pages, 64U);
  EXPECT_EQ(report.residency.unknown_pages, 1U);
  EXPECT_EQ(report.misplaced_pages, 63U);
}

TEST(Audit, FramesOutsideTheTableAreAskedOfTheKernel) {
  FakeMemory memory(2048, 3);
  Topology topology = FakeMemory::topology(four);
  topology.frames.pop_back();
  const auto report = audit(memory, 3, bind({0}), topology, {});
  ASSERT_TRUE(report);
  EXPECT_THAT(report->residency.pages_by_node, ElementsAre(0, 0, 0, 2048));
  EXPECT_GT(memory.locates, 0U);
}

TEST(Audit, PreferLeavesTheKernelsComingAndGoingAlone) {
  FakeMemory memory(100);
  memory.rooms = {{0, 0, 6400}, {100, 0, 6400}, {0, 0, 6400}, {0, 0, 6400}};
  EXPECT_EQ(audited(memory, {Mode::prefer, {1}, {}}).misplaced_pages, 0U);
  memory.rooms[1].free = 130;
  EXPECT_EQ(audited(memory, {Mode::prefer, {1}, {}}).misplaced_pages, 30U);
}

TEST(Audit, WithoutPrivilegeInterleaveSaysHowItCounted) {
  FakeMemory memory(8);
  memory.make_folio(0, 8);
  const Target target = interleave({0, 1});
  EXPECT_EQ(audited(memory, target).misplaced_pages, 0U);
  memory.privileged = false;
  const PlacementReport report = audited(memory, target);
  EXPECT_EQ(report.misplaced_pages, 4U);
  EXPECT_THAT(report.reason, HasSubstr("page by page"));
  const auto refused = enforce(memory, 3, target, FakeMemory::topology(four), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EPERM);
}

TEST(Enforce, MovesAllInOneCallForEachNode) {
  FakeMemory memory(10000);
  PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 10000U);
  EXPECT_EQ(report.misplaced_pages, 0U);
  EXPECT_EQ(report.reason, "");
  EXPECT_EQ(memory.moves, 1U);
  report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 0U);
  EXPECT_EQ(memory.moves, 1U);
  report = enforced(memory, interleave({0, 1, 2, 3}));
  EXPECT_EQ(report.moved_pages, 7500U);
  EXPECT_EQ(memory.moves, 4U);
  for (std::size_t i = 0; i < 10000; ++i) ASSERT_EQ(memory.pages[i].node, i % 4);
}

TEST(Enforce, NoPlacementTouchesNothing) {
  FakeMemory memory(100);
  const PlacementReport report = enforced(memory, {});
  EXPECT_EQ(report.residency.resident_pages, 100U);
  EXPECT_EQ(memory.moves, 0U);
}

TEST(Enforce, ALargeFolioIsOneAddress) {
  FakeMemory memory(64);
  memory.make_folio(16, 16);
  memory.make_folio(48, 16);
  const PlacementReport report = enforced(memory, bind({2}));
  EXPECT_EQ(report.moved_pages, 64U);
  // A second address of a folio would end the run with -EBUSY, and the call with it.
  EXPECT_EQ(memory.moves, 1U);
  EXPECT_EQ(report.busy_pages, 0U);
  const PlacementReport spread = enforced(memory, interleave({0, 1, 2, 3}));
  EXPECT_EQ(spread.misplaced_pages, 0U);
  EXPECT_THAT(std::vector(memory.pages.begin() + 16, memory.pages.begin() + 32),
              Each(::testing::Field(&FakePage::node, 0U)));
}

TEST(Enforce, WithoutFolioBoundsTheKernelsAnswersDo) {
  FakeMemory memory(64);
  memory.make_folio(16, 16);
  memory.privileged = false;
  const PlacementReport report = enforced(memory, bind({2}));
  EXPECT_EQ(report.moved_pages, 64U);
  EXPECT_EQ(report.busy_pages, 0U);
}

TEST(Enforce, APartialMoveIsResumed) {
  FakeMemory memory(1024);
  memory.pages[7].migrate_busy = 2;
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 1024U);
  EXPECT_EQ(report.misplaced_pages, 0U);
  EXPECT_EQ(memory.moves, 3U);
}

TEST(Enforce, AHeldPageIsGivenUpAfterBoundedRetries) {
  FakeMemory memory(1024);
  memory.pages[7].migrate_busy = -1;
  memory.pages[9].isolate_busy = -1;
  PlacementOptions options;
  options.busy_retries = 3;
  const PlacementReport report = enforced(memory, bind({1}), options);
  EXPECT_EQ(report.moved_pages, 1022U);
  EXPECT_EQ(report.misplaced_pages, 2U);
  EXPECT_EQ(report.busy_pages, 2U);
  EXPECT_EQ(report.reason, "2 pages are busy");
  EXPECT_LE(memory.moves, 8U);
  EXPECT_GT(memory.paused.count(), 0);
  EXPECT_LE(memory.paused, std::chrono::milliseconds(1 + 2 + 4));
}

TEST(Enforce, BusyPagesDoNotKeepOthersFromTheirTurn) {
  FakeMemory memory(4096);
  // Each first pair ends a call early.
  for (std::size_t i = 0; i < 40; i += 2) {
    memory.pages[i].migrate_busy = -1;
    memory.pages[i + 1].isolate_busy = -1;
  }
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 4096U - 40U);
  EXPECT_EQ(report.busy_pages, 40U);
}

TEST(Enforce, HostileMixturesCostABoundedNumberOfCalls) {
  FakeMemory memory(8192);
  memory.may_move_all = false;
  for (std::size_t i = 0; i < 8192; ++i)
    if (i % 2 == 0)
      memory.pages[i].migrate_busy = -1;
    else
      memory.pages[i].shared = true;
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 0U);
  EXPECT_EQ(report.misplaced_pages, 8192U);
  EXPECT_EQ(report.busy_pages + report.denied_pages, 8192U);
  EXPECT_LE(memory.moves, 65U);
}

TEST(Enforce, WithoutPrivilegeOwnPagesMoveAndSharedOnesAreCounted) {
  FakeMemory memory(100);
  memory.may_move_all = false;
  for (std::size_t i = 50; i < 60; ++i) memory.pages[i].shared = true;
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 90U);
  EXPECT_EQ(report.denied_pages, 10U);
  EXPECT_EQ(report.misplaced_pages, 10U);
  EXPECT_THAT(report.reason, HasSubstr("10 pages are mapped by other processes"));
  EXPECT_THAT(report.reason, HasSubstr("CAP_SYS_NICE"));
}

TEST(Enforce, ManyPagesAreMovedByPartsWhereThatPays) {
  constexpr std::size_t count = 40960;
  for (const bool pays : {true, false}) {
    FakeMemory memory(count);
    memory.parallel = pays;
    for (std::size_t i = 1; i < count; i += 100) memory.pages[i].isolate_busy = 1;
    memory.make_folio(10240 - 16, 16);
    memory.make_folio(10240, 512);
    PlacementOptions options;
    options.threads = 4;
    const PlacementReport report = enforced(memory, bind({1}), options);
    EXPECT_EQ(report.moved_pages, count);
    EXPECT_EQ(report.misplaced_pages, 0U);
    EXPECT_EQ(memory.most_at_once > count / 2, !pays);
    EXPECT_THAT(memory.nodes(), Each(1U));
  }
}

TEST(Enforce, PartsThatFillANodeTogetherSayWhatIsLeft) {
  FakeMemory memory(20480);
  memory.parallel = true;
  memory.free_pages[1] = 9000;
  memory.allowed = {0, 1};
  PlacementOptions options;
  options.threads = 4;
  PlacementReport report = enforced(memory, bind({1}), options);
  EXPECT_EQ(report.moved_pages, 9000U);
  EXPECT_EQ(report.misplaced_pages, 20480U - 9000U);
  EXPECT_EQ(report.no_memory_pages, 20480U - 9000U);
  EXPECT_EQ(report.reason, "node 1 is full");
  report = enforced(memory, bind({2}), options);
  EXPECT_EQ(report.moved_pages, 0U);
  EXPECT_THAT(report.reason, HasSubstr("node 2 refuses pages"));
}

TEST(Enforce, AFullNodeIsNotHammered) {
  FakeMemory memory(std::size_t{10} * 2048);
  memory.free_pages[1] = 3000;
  PlacementOptions options;
  options.window_bytes = std::uint64_t{2048} * 4096;
  const PlacementReport report = enforced(memory, bind({1}), options);
  EXPECT_EQ(report.moved_pages, 3000U);
  EXPECT_EQ(report.misplaced_pages, 20480U - 3000U);
  EXPECT_EQ(report.no_memory_pages, 20480U - 3000U);
  EXPECT_EQ(report.reason, "node 1 is full");
  EXPECT_EQ(memory.moves, 2U);
}

TEST(Enforce, BindDoesNotPushOutWhatItHasJustMoved) {
  FakeMemory memory(1000);
  memory.rooms = {{0, 0, 1000}, {100, 50, 1000}};
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 150U);
  EXPECT_EQ(report.misplaced_pages, 850U);
  EXPECT_EQ(report.no_memory_pages, 850U);
  EXPECT_EQ(report.reason, "node 1 is full");
}

TEST(Audit, SaysThatANodeIsFull) {
  FakeMemory memory(1000);
  memory.rooms = {{0, 0, 1000}, {100, 0, 1000}};
  const PlacementReport report = audited(memory, bind({1}));
  EXPECT_EQ(report.misplaced_pages, 1000U);
  EXPECT_EQ(report.no_memory_pages, 900U);
  EXPECT_EQ(report.reason, "node 1 is full");
}

TEST(Enforce, OtherNodesOfTheSetTakeWhatAFullOneDoesNot) {
  FakeMemory memory(1000);
  memory.rooms = {{0, 0, 1000}, {400, 0, 1000}, {5000, 0, 6000}, {0, 0, 1000}};
  memory.free_pages[1] = 50;  // less than it seemed
  const PlacementReport report = enforced(memory, bind({1, 2}));
  EXPECT_EQ(report.misplaced_pages, 0U);
  EXPECT_EQ(report.moved_pages, 1000U);
  EXPECT_EQ(report.residency.pages_by_node[1], 50U);
  EXPECT_EQ(report.reason, "");
}

TEST(Enforce, PreferSpillsAndAllIsWell) {
  FakeMemory memory(1000);
  memory.rooms = {{0, 0, 1000}, {300, 0, 1000}};
  PlacementReport report = enforced(memory, {Mode::prefer, {1}, {}});
  EXPECT_EQ(report.moved_pages, 300U);
  EXPECT_EQ(report.misplaced_pages, 0U);
  EXPECT_EQ(report.reason, "");
  // Room that vanishes meanwhile is no fault either.
  memory.free_pages[1] = 10;
  report = enforced(memory, {Mode::prefer, {1}, {}});
  EXPECT_EQ(report.moved_pages, 10U);
  EXPECT_EQ(report.misplaced_pages, 0U);
}

TEST(Enforce, PreferWithBusyPagesSaysSo) {
  FakeMemory memory(10);
  memory.rooms = {{0, 0, 1000}, {300, 0, 1000}};
  memory.pages[3].migrate_busy = -1;
  const PlacementReport report = enforced(memory, {Mode::prefer, {1}, {}});
  EXPECT_EQ(report.misplaced_pages, 1U);
  EXPECT_EQ(report.busy_pages, 1U);
}

TEST(Enforce, InterleaveHasNoOtherNodeForAFullOne) {
  FakeMemory memory(400);
  memory.free_pages[2] = 0;
  const PlacementReport report = enforced(memory, interleave({0, 1, 2, 3}));
  EXPECT_EQ(report.moved_pages, 200U);
  EXPECT_EQ(report.misplaced_pages, 100U);
  EXPECT_EQ(report.no_memory_pages, 100U);
  EXPECT_EQ(report.reason, "node 2 is full");
}

TEST(Enforce, ANodeOutsideTheCallersCpusetIsNamed) {
  FakeMemory memory(10);
  memory.allowed = {0};
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.misplaced_pages, 10U);
  EXPECT_EQ(report.reason,
            "node 1 refuses pages: it is not among this process's allowed nodes (cpuset.mems)");
}

TEST(Enforce, PagesThatVanishMeanwhileAreCounted) {
  FakeMemory memory(100);
  memory.before_move = [&] {
    for (std::size_t i = 90; i < 100; ++i) memory.pages[i].resident = false;
  };
  const PlacementReport report = enforced(memory, bind({1}));
  EXPECT_EQ(report.moved_pages, 90U);
  EXPECT_EQ(report.vanished_pages, 10U);
  EXPECT_EQ(report.misplaced_pages, 0U);
  EXPECT_EQ(report.residency.resident_pages, 90U);
}

TEST(Enforce, ASplitFolioIsFinishedPageByPage) {
  FakeMemory memory(16);
  memory.make_folio(0, 16);
  bool first = true;
  memory.before_move = [&] {
    if (!std::exchange(first, false)) return;
    // The kernel splits it; half of it moves, one page is held for a while.
    for (std::size_t i = 0; i < 16; ++i) memory.pages[i].head = i;
    for (std::size_t i = 0; i < 8; ++i) memory.put(i, 1);
    memory.pages[0].migrate_busy = 0;
    memory.pages[0].head = 9;
    memory.pages[9].migrate_busy = 1;
  };
  memory.pages[0].migrate_busy = 1;
  const auto report = enforce(memory, 3, bind({1}), FakeMemory::topology(four), {});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->moved_pages, 16U);
  EXPECT_EQ(report->misplaced_pages, 0U);
}

TEST(Enforce, HugetlbfsHolesStayHoles) {
  FakeMemory memory(8);
  memory.hugetlb = true;
  memory.pages[1].resident = memory.pages[5].resident = false;
  const PlacementReport report = enforced(memory, interleave({0, 1}));
  EXPECT_EQ(report.residency.resident_pages, 6U);
  EXPECT_THAT(report.residency.pages_by_node, ElementsAre(4, 2));
  EXPECT_EQ(report.misplaced_pages, 0U);
}

TEST(Enforce, TheCallersHandIsOnTheBrake) {
  FakeMemory memory(std::size_t{10} * 2048);
  PlacementOptions options;
  options.window_bytes = std::uint64_t{2048} * 4096;
  std::vector<std::uint64_t> calls;
  options.after_window = [&](std::uint64_t moved) {
    calls.push_back(moved);
    return calls.size() < 3;
  };
  const auto report = enforce(memory, 3, bind({1}), FakeMemory::topology(four), options);
  ASSERT_TRUE(report);
  EXPECT_THAT(calls, ElementsAre(2048, 2048, 2048));
  EXPECT_EQ(report->moved_pages, 3U * 2048U);
  EXPECT_EQ(report->reason, "stopped before the end of the file");
}

TEST(Enforce, AnInventedMachineOfSixtyFourNodes) {
  NodeSet nodes;
  for (unsigned node = 3; node < 64 * 5; node += 5) nodes.insert(node);
  FakeMemory memory(6400, 3);
  const std::vector<unsigned> slots = nodes.members();
  const auto report = enforce(memory, 3, interleave(slots), FakeMemory::topology(nodes), {});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->misplaced_pages, 0U);
  for (std::size_t i = 0; i < 6400; ++i) ASSERT_EQ(memory.pages[i].node, slots[i % slots.size()]);
  EXPECT_EQ(report->residency.pages_by_node[3], 100U);
}

TEST(ReturnHome, BringsPagesBackAndLeavesOthersAlone) {
  FakeMemory memory(300);
  for (std::size_t i = 0; i < 300; ++i) memory.put(i, i % 3);
  std::vector<PageRun> home;
  PlacementOptions options;
  options.runs = &home;
  (void)audited(memory, {}, options);
  EXPECT_EQ(home.size(), 300U);
  home.resize(200);
  for (std::size_t i = 0; i < 300; ++i) memory.put(i, 3);
  options.runs = nullptr;
  const auto report = return_home(memory, 3, home, FakeMemory::topology(four), options);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->moved_pages, 200U);
  EXPECT_EQ(report->misplaced_pages, 0U);
  EXPECT_THAT(report->residency.pages_by_node, ElementsAre(67, 67, 66, 100));
}

TEST(ReturnHome, RunsThatAreNoSnapshotAreRefused) {
  const auto refused = fpolicy::return_home(0, {{5, 3, 0}, {7, 1, 0}}, FakeMemory::topology(four), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_FALSE(fpolicy::return_home(0, {{5, ~std::uint64_t{0}, 0}}, FakeMemory::topology(four), {}));
}

}  // namespace
}  // namespace fpolicy::placement
