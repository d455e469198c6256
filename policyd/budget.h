// SPDX-License-Identifier: LGPL-2.1-or-later
// Bounds on what is moved: for everything (bandwidth) and on the word of one user.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <unordered_map>

namespace fpolicy::policyd {

/// A bucket of bytes that fills at a steady rate, up to what flows in during `span`. It may be overdrawn: the
/// next customer waits until it has recovered. The caller passes the time, and serializes.
class Bucket {
 public:
  using Clock = std::chrono::steady_clock;

  /// `rate` bytes a second; full at first.
  Bucket(std::uint64_t rate, std::chrono::seconds span, Clock::time_point now);
  void take(std::uint64_t bytes, Clock::time_point now);
  /// When something is left in it again; not later than `now` if something is. The end of time with a rate of
  /// 0.
  [[nodiscard]] Clock::time_point ready(Clock::time_point now) const;

 private:
  [[nodiscard]] double level(Clock::time_point now) const;
  double rate_;
  double capacity_;
  double level_;
  Clock::time_point filled_;
};

/// One bucket for each user. Full ones are forgotten.
class UserBudgets {
 public:
  explicit UserBudgets(std::uint64_t mib_per_minute) : mib_per_minute_(mib_per_minute) {}
  void take(uid_t user, std::uint64_t bytes, Bucket::Clock::time_point now);
  [[nodiscard]] Bucket::Clock::time_point ready(uid_t user, Bucket::Clock::time_point now) const;
  /// One time for both sides of the comparison: the order in which operands are evaluated is not told.
  [[nodiscard]] bool is_spent(uid_t user, Bucket::Clock::time_point now) const {
    return ready(user, now) > now;
  }

 private:
  std::uint64_t mib_per_minute_;
  std::unordered_map<uid_t, Bucket> buckets_;
};

}  // namespace fpolicy::policyd
