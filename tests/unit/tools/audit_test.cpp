// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/audit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace fpolicy::tools {
namespace {

AuditedFile file_of(std::uint64_t pages, std::vector<PageRun> runs) {
  AuditedFile file;
  file.pages = pages;
  file.runs = std::move(runs);
  return file;
}

TEST(PageMap, OneCellAPageWhereTheyFit) {
  EXPECT_EQ(page_map(file_of(8, {{0, 2, 0}, {2, 1, 3}, {6, 2, 1}}), 40), "003...11");
  EXPECT_EQ(page_map(file_of(0, {}), 40), "");
  EXPECT_EQ(page_map(file_of(3, {}), 40), "...");
}

TEST(PageMap, ACellShowsTheNodeOfMostOfItsPages) {
  EXPECT_EQ(page_map(file_of(20, {{0, 4, 0}, {4, 6, 2}, {10, 6, 1}, {16, 4, 0}}), 2), "21");
  EXPECT_EQ(page_map(file_of(1ULL << 50U, {{(1ULL << 50U) - 1, 1, 7}}), 4), "...7");
}

TEST(PageMap, ManyNodesHaveLettersThenPlus) {
  EXPECT_EQ(page_map(file_of(3, {{0, 1, 10}, {1, 1, 35}, {2, 1, 36}}), 3), "az+");
}

TEST(PageMap, RunsBeyondTheEndOfAFileThatShrankAreLeftOut) {
  EXPECT_EQ(page_map(file_of(2, {{0, 100, 1}, {200, 5, 2}}), 10), "11");
}

TEST(PageMap, CellsAndRunsThatDoNotDivideEvenly) {
  for (std::uint64_t pages = 1; pages < 60; ++pages) {
    const AuditedFile file = file_of(pages, {{0, pages, 4}});
    for (std::size_t width = 1; width < 30; ++width) {
      EXPECT_EQ(page_map(file, width), std::string(std::min<std::uint64_t>(width, pages), '4'))
          << pages << " " << width;
    }
  }
}

TEST(Bar, EighthsOfACell) {
  EXPECT_EQ(bar(0, 10, 4), "");
  EXPECT_EQ(bar(10, 10, 2), "██");
  EXPECT_EQ(bar(5, 10, 1), "▌");
  EXPECT_EQ(bar(1, 1000000, 4), "▏");  // what is there is seen
  EXPECT_EQ(bar(0, 0, 4), "");
}

TEST(Sum, AddsPagesAndKeepsTheWorstState) {
  AuditedFile sum;
  sum.state = State::ok;
  AuditedFile good;
  good.state = State::ok;
  good.residency = Residency{.page_size = 4096, .resident_pages = 3, .pages_by_node = {3}};
  AuditedFile bad;
  bad.path = "/bad";
  bad.state = State::misplaced;
  bad.reason = "2 on node 2";
  bad.misplaced = 2;
  bad.residency = Residency{.page_size = 4096, .resident_pages = 5, .pages_by_node = {3, 0, 2}};
  add_to_sum(sum, good);
  add_to_sum(sum, bad);
  add_to_sum(sum, good);
  EXPECT_EQ(sum.state, State::misplaced);
  EXPECT_EQ(sum.reason, "/bad: 2 on node 2");
  EXPECT_EQ(sum.misplaced, 2U);
  ASSERT_TRUE(sum.residency);
  EXPECT_EQ(sum.residency->resident_pages, 11U);
  EXPECT_EQ(sum.residency->pages_by_node, (std::vector<std::uint64_t>{9, 0, 2}));
}

}  // namespace
}  // namespace fpolicy::tools
