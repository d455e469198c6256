// SPDX-License-Identifier: LGPL-2.1-or-later
#include "known_files.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace fpolicy::policyd {
namespace {

KnownFile file(ino_t inode, std::size_t runs = 0, std::chrono::milliseconds backoff = {}) {
  KnownFile known;
  known.key = {.device = 1, .inode = inode};
  if (runs > 0) known.home.emplace(runs);
  known.backoff = backoff;
  return known;
}

TEST(KnownFiles, TheOldestIsForgottenFirst) {
  KnownFiles known(2, 100);
  known.put(file(1));
  known.put(file(2));
  known.put(file(1));  // met again
  known.put(file(3));
  EXPECT_NE(known.find({1, 1}), nullptr);
  EXPECT_EQ(known.find({1, 2}), nullptr);
  EXPECT_NE(known.find({1, 3}), nullptr);
}

TEST(KnownFiles, SnapshotsAreBoundedTogether) {
  KnownFiles known(10, 100);
  known.put(file(1, 60));
  known.put(file(2, 60));
  EXPECT_EQ(known.runs(), 60U);
  EXPECT_FALSE(known.find({1, 1})->home.has_value());
  EXPECT_TRUE(known.find({1, 2})->home.has_value());
}

TEST(KnownFiles, ASnapshotTooLargeByItselfIsNotKept) {
  KnownFiles known(10, 100);
  known.put(file(1, 101));
  EXPECT_EQ(known.runs(), 0U);
  EXPECT_FALSE(known.find({1, 1})->home.has_value());
}

TEST(KnownFiles, CountsWhatWaits) {
  using std::chrono::milliseconds;
  KnownFiles known(2, 100);
  known.put(file(1, 0, milliseconds(5)));
  known.put(file(2, 0, milliseconds(5)));
  EXPECT_EQ(known.waiting(), 2U);
  known.put(file(2));
  EXPECT_EQ(known.waiting(), 1U);
  known.put(file(3));  // 1 is forgotten
  EXPECT_EQ(known.waiting(), 0U);
  known.put(file(3, 0, milliseconds(5)));
  known.clear_backoff({1, 3});
  known.clear_backoff({1, 3});
  known.clear_backoff({1, 99});
  EXPECT_EQ(known.waiting(), 0U);
}

TEST(KnownFiles, ErasingGivesBackItsRuns) {
  KnownFiles known(2, 100);
  known.put(file(1, 60));
  known.erase({1, 1});
  known.erase({1, 1});
  EXPECT_EQ(known.runs(), 0U);
  EXPECT_EQ(known.size(), 0U);
}

}  // namespace
}  // namespace fpolicy::policyd
