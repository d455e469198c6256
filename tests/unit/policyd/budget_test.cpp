// SPDX-License-Identifier: LGPL-2.1-or-later
#include "budget.h"

#include <gtest/gtest.h>

namespace fpolicy::policyd {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t mib = 1U << 20U;

TEST(Bucket, OverdrawnItRecoversAtItsRate) {
  const Bucket::Clock::time_point start{};
  Bucket bucket(10 * mib, 1s, start);
  EXPECT_EQ(bucket.ready(start), start);
  bucket.take(30 * mib, start);  // 20 MiB too much: two seconds
  const auto ready = bucket.ready(start);
  EXPECT_GE(ready - start, 2s);
  EXPECT_LT(ready - start, 2100ms);
  EXPECT_EQ(bucket.ready(ready), ready);
}

TEST(Bucket, WhatFlowsInIsBounded) {
  const Bucket::Clock::time_point start{};
  Bucket bucket(10 * mib, 1s, start);
  const auto later = start + 1h;
  bucket.take(20 * mib, later);
  EXPECT_GE(bucket.ready(later) - later, 1s);
}

TEST(Bucket, WithoutARateNeverReadyOnceEmpty) {
  const Bucket::Clock::time_point start{};
  const Bucket bucket(0, 1s, start);
  EXPECT_EQ(bucket.ready(start), Bucket::Clock::time_point::max());
}

TEST(UserBudgets, EachUserHasHisOwn) {
  const Bucket::Clock::time_point start{};
  UserBudgets budgets(60);
  budgets.take(1000, 61 * mib, start);
  EXPECT_GT(budgets.ready(1000, start), start);
  EXPECT_LT(budgets.ready(1000, start) - start, 2s);
  EXPECT_EQ(budgets.ready(1001, start), start);
}

TEST(UserBudgets, WhoHasTakenNothingHasSpentNothing) {
  UserBudgets budgets(60);
  EXPECT_FALSE(budgets.is_spent(1000, {}));
  budgets.take(1000, 61 * mib, {});
  EXPECT_TRUE(budgets.is_spent(1000, {}));
}

TEST(UserBudgets, ZeroIsNever) {
  const UserBudgets budgets(0);
  EXPECT_EQ(budgets.ready(1000, {}), Bucket::Clock::time_point::max());
}

TEST(UserBudgets, ManyUsersAreForgottenWithoutGivingAnyoneMore) {
  const Bucket::Clock::time_point start{};
  UserBudgets budgets(60);
  budgets.take(1, 120 * mib, start);
  for (uid_t user = 2; user < 6000; ++user) budgets.take(user, 1, start);
  EXPECT_GT(budgets.ready(1, start), start);
}

}  // namespace
}  // namespace fpolicy::policyd
