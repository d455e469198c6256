// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/node_set.h>

#include <gtest/gtest.h>

#include <random>

namespace fpolicy {
namespace {

TEST(NodeSet, ReadsTheKernelsListFormat) {
  const auto set = NodeSet::parse("0-3,7,9-10\n");
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_EQ(set->members(), (std::vector<unsigned>{0, 1, 2, 3, 7, 9, 10}));
  EXPECT_EQ(set->format(), "0-3,7,9-10");
  EXPECT_EQ(set->size(), 7U);
}

TEST(NodeSet, EmptyTextIsTheEmptySet) {
  for (const char* text : {"", "\n", " \t\n"}) {
    const auto set = NodeSet::parse(text);
    ASSERT_TRUE(set);
    EXPECT_TRUE(set->empty());
    EXPECT_EQ(set->format(), "");
  }
}

TEST(NodeSet, MergesAndSorts) {
  EXPECT_EQ(NodeSet::parse("9,1-2,2-4,0")->format(), "0-4,9");
  EXPECT_EQ(NodeSet::parse("0-1023")->format(), "0-1023");
  EXPECT_EQ(NodeSet::parse("0-1023")->size(), NodeSet::max_nodes);
}

TEST(NodeSet, RefusesWhatTheKernelWouldNotPrint) {
  const std::pair<const char*, const char*> cases[] = {
      {"a", "column 1: expected a node number, found \"a\""},
      {"0-", "column 3: expected the last node of the range, found the end"},
      {"1,", "column 3: expected a node number, found the end"},
      {",1", "column 1: expected a node number, found \",\""},
      {"3-1", "column 1: expected a range that ascends"},
      {"1024", "column 1: expected nodes from 0 to 1023"},
      {"0-99999999999999999999", "column 1: expected nodes from 0 to 1023"},
      {"0 1", "column 2: expected \",\" or the end of the list, found a space"},
      {" 1", "column 1: expected a node number, found a space"},
      {"+1", "column 1: expected a node number, found \"+\""},
  };
  for (const auto& [text, message] : cases) {
    const auto set = NodeSet::parse(text);
    ASSERT_FALSE(set) << text;
    EXPECT_EQ(set.error().code, EINVAL);
    EXPECT_EQ(set.error().message, message) << text;
  }
}

TEST(NodeSet, SetOperations) {
  const NodeSet a{0, 1, 2};
  const NodeSet b{2, 3};
  EXPECT_EQ((a & b).format(), "2");
  EXPECT_EQ((a | b).format(), "0-3");
  EXPECT_EQ((a - b).format(), "0-1");
  EXPECT_FALSE(a.contains(NodeSet::max_nodes));
}

TEST(NodeSet, RandomSetsRoundTrip) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    NodeSet set;
    const unsigned bound = round % 2 == 0 ? 12 : NodeSet::max_nodes;
    for (unsigned i = random() % 40; i > 0; --i) set.insert(random() % bound);
    const auto again = NodeSet::parse(set.format());
    ASSERT_TRUE(again) << set.format();
    ASSERT_EQ(*again, set);
  }
}

}  // namespace
}  // namespace fpolicy
