// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/decide.h"

#include "fake_memory.h"

#include <gmock/gmock.h>

#include <map>

namespace fpolicy::placement {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<PageState> on(std::initializer_list<int> nodes) {
  std::vector<PageState> pages;
  for (const int node : nodes)
    pages.push_back(node < 0 ? PageState::absent() : PageState::on(static_cast<unsigned>(node)));
  return pages;
}

/// Free pages by node.
std::function<Room()> room(const std::vector<std::uint64_t>& free) {
  Room rooms;
  for (const std::uint64_t pages : free) rooms.push_back({pages, 0});
  return [rooms] { return rooms; };
}
/// More than is asked for, everywhere.
std::function<Room()> plenty() {
  return [] { return Room(NodeSet::max_nodes, NodeRoom{1U << 30U, 0}); };
}

std::vector<std::pair<unsigned, unsigned>> moves_of(const Plan& plan) {
  std::vector<std::pair<unsigned, unsigned>> moves;
  for (const Move& move : plan.moves) moves.emplace_back(move.page, move.node);
  return moves;
}

Topology line_of_four() {
  Topology topology = FakeMemory::topology({0, 1, 2, 3});
  topology.distance = {{10, 20, 30, 40}, {20, 10, 20, 30}, {30, 20, 10, 20}, {40, 30, 20, 10}};
  return topology;
}

TEST(PageState, KeepsNodeAndFolioApart) {
  EXPECT_TRUE(PageState().is_absent());
  EXPECT_TRUE(PageState::unknown().is_unknown());
  EXPECT_FALSE(PageState::unknown().is_located());
  const PageState page = PageState::on(1023).in_folio();
  EXPECT_TRUE(page.is_located());
  EXPECT_TRUE(page.continues_folio());
  EXPECT_EQ(page.node(), 1023U);
  EXPECT_FALSE(PageState::on(1023).continues_folio());
}

TEST(Decider, NoPlacementMovesNothing) {
  const Target target;
  const Topology topology = line_of_four();
  const auto pages = on({0, 1, 2, 3});
  const Plan plan = Decider(target, topology, plenty()).plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 0U);
  EXPECT_THAT(plan.moves, IsEmpty());
}

TEST(Decider, BindTakesTheNearestNode) {
  const Target target{Mode::bind, {1, 2}, {}};
  const Topology topology = line_of_four();
  const auto pages = on({0, 3, 1, 2, -1, 3});
  const Plan plan = Decider(target, topology, plenty()).plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 3U);
  EXPECT_THAT(moves_of(plan), ElementsAre(std::pair(0U, 1U), std::pair(1U, 2U), std::pair(5U, 2U)));
}

TEST(Decider, NodesEquallyNearTakeTurnsWhateverPagesAreMisplaced) {
  const Target target{Mode::bind, {1, 2, 3}, {}};
  const Topology topology = FakeMemory::topology({0, 1, 2, 3});
  std::vector<PageState> pages(3000);
  // Every third page: a choice by the page's index would put them all on one node.
  for (std::size_t i = 0; i < pages.size(); i += 3) pages[i] = PageState::on(0);
  std::map<unsigned, int> counts;
  for (const auto& [page, node] : moves_of(Decider(target, topology, plenty()).plan({0, pages})))
    ++counts[node];
  EXPECT_EQ(counts[1], 334);
  EXPECT_EQ(counts[2], 333);
  EXPECT_EQ(counts[3], 333);
}

TEST(Decider, BindUsesFreeRoomThenWhatReclaimCanMakeThenNone) {
  const Target target{Mode::bind, {1, 2}, {}};
  const Topology topology = line_of_four();
  const auto pages = on({0, 0, 0, 0, 0});
  Decider decider(target, topology, [] { return Room{{9, 9}, {1, 1}, {1, 1}}; });
  const Plan plan = decider.plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 5U);
  EXPECT_EQ(plan.no_memory_pages, 1U);
  EXPECT_THAT(moves_of(plan),
              ElementsAre(std::pair(0U, 1U), std::pair(1U, 2U), std::pair(2U, 1U), std::pair(3U, 2U)));
  EXPECT_EQ(decider.full(), (NodeSet{1, 2}));
}

TEST(Decider, RoomIsNotReadWhereNothingIsToBeMoved) {
  const Target target{Mode::bind, {1}, {}};
  const Topology topology = line_of_four();
  int reads = 0;
  Decider decider(target, topology, [&] {
    ++reads;
    return Room(2, NodeRoom{10, 0});
  });
  (void)decider.plan({0, on({1, 1})});
  EXPECT_EQ(reads, 0);
  (void)decider.plan({0, on({0, 1, 2})});
  (void)decider.plan({3, on({0})});
  EXPECT_EQ(reads, 1);
}

TEST(Decider, BindLeavesPagesMisplacedWhereAllNodesAreFull) {
  const Target target{Mode::bind, {1}, {}};
  const Topology topology = line_of_four();
  Decider decider(target, topology, plenty());
  decider.mark_full({1});
  const auto pages = on({0, 1});
  const Plan plan = decider.plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 1U);
  EXPECT_EQ(plan.no_memory_pages, 1U);
  EXPECT_THAT(plan.moves, IsEmpty());
}

TEST(Decider, PreferMovesWhatFitsAndTheRestIsNotMisplaced) {
  const Target target{Mode::prefer, {1}, {}};
  const Topology topology = line_of_four();
  Decider decider(target, topology, room({100, 2}));
  const auto pages = on({0, 2, 1, 0, 0});
  Plan plan = decider.plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 2U);
  EXPECT_EQ(plan.no_memory_pages, 0U);
  EXPECT_THAT(moves_of(plan), ElementsAre(std::pair(0U, 1U), std::pair(1U, 1U)));
  // The room is used up for later windows, and comes back with a move that was not done.
  EXPECT_EQ(decider.plan({5, pages}).misplaced_pages, 0U);
  decider.give_back(plan.moves[0]);
  EXPECT_EQ(decider.plan({5, pages}).misplaced_pages, 1U);
}

TEST(Decider, PreferDoesNotCutAFolio) {
  const Target target{Mode::prefer, {1}, {}};
  const Topology topology = line_of_four();
  auto pages = on({0, 0, 0, 0, 0});
  for (const std::size_t i : {1, 2, 3}) pages[i] = pages[i].in_folio();
  const Plan plan = Decider(target, topology, room({0, 3})).plan({0, pages});
  EXPECT_THAT(moves_of(plan), ElementsAre(std::pair(4U, 1U)));
}

TEST(Decider, InterleaveGoesByIndexInTheFile) {
  const Target target{Mode::interleave, {0, 2}, {0, 0, 0, 2}};
  const Topology topology = line_of_four();
  const auto pages = on({0, 0, 0, 0, 2, 1, -1, 2});
  Plan plan = Decider(target, topology, plenty()).plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 3U);
  EXPECT_THAT(moves_of(plan), ElementsAre(std::pair(3U, 2U), std::pair(4U, 0U), std::pair(5U, 0U)));
  // The window that starts at page 2 of the file: its second page is on slot 3.
  plan = Decider(target, topology, plenty()).plan({2, on({0, 2, 0, 0, 0})});
  EXPECT_EQ(plan.misplaced_pages, 0U);
}

TEST(Decider, AFolioCountsByItsFirstPageAndIsOneMove) {
  const Target target{Mode::interleave, {0, 1, 2, 3}, {0, 1, 2, 3}};
  const Topology topology = line_of_four();
  auto pages = on({3, 3, 3, 3, 0, 0, 0, 0, 0, 1});
  for (const std::size_t i : {1, 2, 3, 5, 6, 7}) pages[i] = pages[i].in_folio();
  const Plan plan = Decider(target, topology, plenty()).plan({4, pages});
  EXPECT_EQ(plan.misplaced_pages, 4U);
  ASSERT_EQ(plan.moves.size(), 1U);
  EXPECT_EQ(plan.moves[0].page, 0U);
  EXPECT_EQ(plan.moves[0].pages, 4U);
  EXPECT_EQ(plan.moves[0].node, 0U);
}

TEST(Decider, SixtyFourNodesOddlyNumberedAndWithoutDistances) {
  Topology topology;
  Target target{Mode::bind, {}, {}};
  std::vector<PageState> pages;
  for (unsigned node = 1; node < 1024; node += 16) {
    topology.memory.insert(node);
    if (node % 32 == 1) target.nodes.insert(node);
    pages.push_back(PageState::on(node));
  }
  ASSERT_EQ(pages.size(), 64U);
  const Plan plan = Decider(target, topology, plenty()).plan({0, pages});
  EXPECT_EQ(plan.misplaced_pages, 32U);
  NodeSet used;
  for (const Move& move : plan.moves) used.insert(move.node);
  EXPECT_EQ(used, target.nodes);
}

TEST(HomePlanner, SendsPagesWhereTheRunsSay) {
  const std::vector<PageRun> home{{10, 3, 1}, {13, 1, 2}, {100, 5, 0}};
  const auto pages = on({0, 0, 1, -1, 0, 0});
  const Plan plan = HomePlanner(home).plan({9, pages});
  // Page 9 is named by no run, page 11 is at home, page 12 not resident, page 13 belongs on 2, page 14
  // nowhere.
  EXPECT_EQ(plan.misplaced_pages, 2U);
  EXPECT_THAT(moves_of(plan), ElementsAre(std::pair(1U, 1U), std::pair(4U, 2U)));
}

TEST(HomePlanner, MovesAFolioOnceAndLeavesFullNodesAlone) {
  const std::vector<PageRun> home{{0, 2, 1}, {2, 4, 2}};
  auto pages = on({0, 0, 0, 0, 0, 0});
  for (const std::size_t i : {1, 2, 3}) pages[i] = pages[i].in_folio();
  HomePlanner planner(home);
  planner.mark_full({2});
  const Plan plan = planner.plan({0, pages});
  ASSERT_EQ(plan.moves.size(), 1U);
  EXPECT_EQ(plan.moves[0].pages, 4U);
  EXPECT_EQ(plan.moves[0].node, 1U);
  EXPECT_EQ(plan.misplaced_pages, 6U);
  EXPECT_EQ(plan.no_memory_pages, 2U);
}

TEST(AppendRuns, JoinsNeighboursAlsoOverWindows) {
  std::vector<PageRun> runs;
  append_runs({0, on({0, 0, 1, -1, 1})}, runs);
  append_runs({5, on({1, 1, 0})}, runs);
  ASSERT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs[0].count, 2U);
  EXPECT_EQ(runs[2].first, 4U);
  EXPECT_EQ(runs[2].count, 3U);
  EXPECT_EQ(runs[3].first, 7U);
}

}  // namespace
}  // namespace fpolicy::placement
