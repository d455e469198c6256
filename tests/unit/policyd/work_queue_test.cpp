// SPDX-License-Identifier: LGPL-2.1-or-later
#include "work_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace fpolicy::policyd {
namespace {

using namespace std::chrono_literals;
using Clock = Work::Clock;

Work work(Priority priority, const std::string& key, Clock::time_point due = {}) {
  return {.priority = priority, .key = key, .due = due, .run = [] {}};
}

TEST(WorkQueue, TheMostUrgentFirstThenInOrder) {
  WorkQueue queue(10);
  queue.push(work(Priority::background, "a"));
  queue.push(work(Priority::tag, "b"));
  queue.push(work(Priority::move, "c"));
  queue.push(work(Priority::tag, "d"));
  std::string order;
  for (int i = 0; i < 4; ++i) order += queue.pop().value_or(Work{}).key;
  EXPECT_EQ(order, "cbda");
}

TEST(WorkQueue, TheSameKeyIsDoneOnceWithTheLatestWork) {
  WorkQueue queue(10);
  int ran = 0;
  queue.push(
      {.priority = Priority::background, .key = "a", .due = Clock::now() + 1h, .run = [&] { ran = 1; }});
  queue.push({.priority = Priority::move, .key = "a", .due = {}, .run = [&] { ran = 2; }});
  EXPECT_EQ(queue.size(), 1U);
  const auto popped = queue.pop();
  ASSERT_TRUE(popped.has_value());
  EXPECT_EQ(popped->priority, Priority::move);
  popped->run();
  EXPECT_EQ(ran, 2);
}

TEST(WorkQueue, AfterItWasTakenTheSameKeyIsNew) {
  WorkQueue queue(10);
  queue.push(work(Priority::tag, "a"));
  ASSERT_TRUE(queue.pop().has_value());
  queue.push(work(Priority::tag, "a"));
  EXPECT_EQ(queue.size(), 1U);
}

TEST(WorkQueue, NothingIsDoneBeforeItIsDue) {
  WorkQueue queue(10);
  const auto due = Clock::now() + 30ms;
  queue.push(work(Priority::move, "later", due));
  queue.push(work(Priority::background, "now"));
  EXPECT_EQ(queue.pop().value_or(Work{}).key, "now");
  EXPECT_EQ(queue.pop().value_or(Work{}).key, "later");
  EXPECT_GE(Clock::now(), due);
}

TEST(WorkQueue, UrgentWorkIsTakenOnlyIfMoreUrgentAndDue) {
  WorkQueue queue(10);
  queue.push(work(Priority::tag, "tag"));
  queue.push(work(Priority::move, "later", Clock::now() + 1h));
  EXPECT_FALSE(queue.pop_urgent(Priority::tag).has_value());
  EXPECT_EQ(queue.pop_urgent(Priority::background).value_or(Work{}).key, "tag");
}

TEST(WorkQueue, FullRefusesButStillMerges) {
  WorkQueue queue(2);
  EXPECT_TRUE(queue.push(work(Priority::tag, "a")));
  EXPECT_TRUE(queue.push(work(Priority::tag, "b")));
  EXPECT_FALSE(queue.push(work(Priority::move, "c")));
  EXPECT_TRUE(queue.push(work(Priority::move, "b")));
  EXPECT_EQ(queue.pop().value_or(Work{}).key, "b");
}

TEST(WorkQueue, ClosingWakesWhoWaits) {
  WorkQueue queue(2);
  std::thread waiting([&] { EXPECT_FALSE(queue.pop().has_value()); });
  std::this_thread::sleep_for(5ms);
  queue.close();
  waiting.join();
  EXPECT_FALSE(queue.push(work(Priority::tag, "a")));
}

TEST(WorkQueue, APauseEndsWhenMoreUrgentWorkComes) {
  WorkQueue queue(2);
  std::thread pusher([&] {
    std::this_thread::sleep_for(5ms);
    queue.push(work(Priority::background, "a"));
    queue.push(work(Priority::move, "b"));
  });
  const auto began = Clock::now();
  queue.pause(Priority::tag, began + 10s);
  EXPECT_LT(Clock::now() - began, 5s);
  pusher.join();
  EXPECT_EQ(queue.pop_urgent(Priority::tag).value_or(Work{}).key, "b");
}

}  // namespace
}  // namespace fpolicy::policyd
