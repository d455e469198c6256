// SPDX-License-Identifier: LGPL-2.1-or-later
#include "budget.h"

#include <algorithm>
#include <cmath>

namespace fpolicy::policyd {
namespace {
constexpr double bytes_in_mib = 1024.0 * 1024.0;
constexpr std::chrono::seconds budget_span{60};
/// More users than this at a time: those with something left are forgotten.
constexpr std::size_t most_buckets = 4096;
}  // namespace

Bucket::Bucket(std::uint64_t rate, std::chrono::seconds span, Clock::time_point now)
    : rate_(static_cast<double>(rate)),
      capacity_(rate_ * static_cast<double>(span.count())),
      level_(capacity_),
      filled_(now) {}

double Bucket::level(Clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - filled_).count();
  return std::min(capacity_, level_ + rate_ * std::max(0.0, seconds));
}

void Bucket::take(std::uint64_t bytes, Clock::time_point now) {
  level_ = level(now) - static_cast<double>(bytes);
  filled_ = now;
}

Bucket::Clock::time_point Bucket::ready(Clock::time_point now) const {
  const double left = level(now);
  if (left > 0) return now;
  if (rate_ <= 0) return Clock::time_point::max();
  // A little more than empty, lest rounding asks again for nothing.
  const std::chrono::duration<double> missing((1.0 - left) / rate_ + 0.001);
  return now + std::chrono::ceil<Clock::duration>(missing);
}

void UserBudgets::take(uid_t user, std::uint64_t bytes, Bucket::Clock::time_point now) {
  const double rate = static_cast<double>(mib_per_minute_) * bytes_in_mib / 60.0;
  if (buckets_.size() >= most_buckets && !buckets_.contains(user)) {
    std::erase_if(buckets_, [now](const auto& entry) { return entry.second.ready(now) <= now; });
    if (buckets_.size() >= most_buckets) buckets_.erase(buckets_.begin());
  }
  const auto [bucket, is_new] =
      buckets_.try_emplace(user, Bucket(static_cast<std::uint64_t>(std::llround(rate)), budget_span, now));
  bucket->second.take(bytes, now);
}

Bucket::Clock::time_point UserBudgets::ready(uid_t user, Bucket::Clock::time_point now) const {
  if (mib_per_minute_ == 0) return Bucket::Clock::time_point::max();
  const auto found = buckets_.find(user);
  return found == buckets_.end() ? now : found->second.ready(now);
}

}  // namespace fpolicy::policyd
