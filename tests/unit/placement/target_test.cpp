// SPDX-License-Identifier: LGPL-2.1-or-later
#include "fake_memory.h"

#include <fpolicy/topology.h>

#include <gmock/gmock.h>

namespace fpolicy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class EvaluatePlacement : public ::testing::Test {
 protected:
  EvaluatePlacement() {
    topology_ = FakeMemory::topology({0, 1, 3, 4});
    topology_.cpu = {0, 1, 2};  // node 2 has processors and no memory, nodes 3 and 4 memory only
  }
  [[nodiscard]] Result<Target> evaluate(std::string_view text, const NodeSet& allowed) const {
    const auto policy = parse_policy(text);
    EXPECT_TRUE(policy) << (policy ? "" : policy.error().message);
    return evaluate_placement(*policy, topology_, allowed);
  }
  [[nodiscard]] Result<Target> evaluate(std::string_view text) const {
    return evaluate(text, {0, 1, 2, 3, 4});
  }
  void expect_unsatisfiable(const Result<Target>& target, const std::string& why) const {
    ASSERT_FALSE(target);
    EXPECT_EQ(target.error().code, ENODEV);
    EXPECT_THAT(target.error().message, HasSubstr(why));
  }
  Topology topology_;
};

TEST_F(EvaluatePlacement, NoPlacement) {
  const auto target = evaluate("migrate=no");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->mode, Mode::none);
}

TEST_F(EvaluatePlacement, AbsoluteNodesAreNotCutByTheJob) {
  const auto target = evaluate("bind:0-1", {3});
  ASSERT_TRUE(target);
  EXPECT_EQ(target->mode, Mode::bind);
  EXPECT_EQ(target->nodes, (NodeSet{0, 1}));
  EXPECT_THAT(target->slots, IsEmpty());
}

TEST_F(EvaluatePlacement, Words) {
  EXPECT_EQ(evaluate("bind:all")->nodes, (NodeSet{0, 1, 3, 4}));
  EXPECT_EQ(evaluate("bind:cpu")->nodes, (NodeSet{0, 1}));
  EXPECT_EQ(evaluate("prefer:cpuless")->nodes, (NodeSet{3, 4}));
  EXPECT_EQ(evaluate("prefer:cpuless", {0, 1, 4})->nodes, NodeSet{4});
  expect_unsatisfiable(evaluate("prefer:cpuless", {0, 1}), "prefer:cpuless: no node with memory only");
  expect_unsatisfiable(evaluate("bind:all", {2}), "bind:all: no node with memory among the allowed node 2");
}

TEST_F(EvaluatePlacement, RelativeCountsAllowedNodesWithMemory) {
  EXPECT_EQ(evaluate("bind:+0", {1, 3})->nodes, NodeSet{1});
  EXPECT_EQ(evaluate("bind:+0-1", {1, 2, 3})->nodes, (NodeSet{1, 3}));
  expect_unsatisfiable(evaluate("bind:+2", {1, 3}), "+2 is beyond the 2 allowed nodes with memory (1,3)");
  expect_unsatisfiable(evaluate("bind:+0", {}), "+0 is beyond the 0 allowed nodes");
}

TEST_F(EvaluatePlacement, WeightsBecomeSlotsInNodeOrder) {
  EXPECT_THAT(evaluate("interleave:0@3,3")->slots, ElementsAre(0, 0, 0, 3));
  EXPECT_THAT(evaluate("interleave:3,0@2")->slots, ElementsAre(0, 0, 3));
  EXPECT_THAT(evaluate("interleave:+1@2", {1, 4})->slots, ElementsAre(4, 4));
  EXPECT_THAT(evaluate("interleave:all")->slots, ElementsAre(0, 1, 3, 4));
  EXPECT_EQ(evaluate("interleave:0@3,3")->nodes, (NodeSet{0, 3}));
}

TEST_F(EvaluatePlacement, NamesMissingAndMemorylessNodes) {
  expect_unsatisfiable(evaluate("bind:7"), "bind:7: node 7 does not exist");
  expect_unsatisfiable(evaluate("bind:0,6-7"), "nodes 6-7 do not exist");
  expect_unsatisfiable(evaluate("bind:2"), "bind:2: node 2 has no memory (0-1,3-4 have)");
}

}  // namespace
}  // namespace fpolicy
