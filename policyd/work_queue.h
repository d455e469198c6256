// SPDX-License-Identifier: LGPL-2.1-or-later
// What waits to be done by a worker thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace fpolicy::policyd {

/// The order in which work is done.
enum class Priority : std::uint8_t { move, request, tag, background };

struct Work {
  using Clock = std::chrono::steady_clock;
  Priority priority = Priority::background;
  /// Work with the same key is done once, at the earlier time and the higher priority of both.
  std::string key;
  Clock::time_point due;  ///< not before; the default is at once
  std::function<void()> run;
};

/// Thread-safe. Bounded: what does not fit is refused, and the caller falls back on work that covers it.
class WorkQueue {
 public:
  explicit WorkQueue(std::size_t most) : most_(most) {}

  /// False where the queue is full or closed.
  bool push(Work work);
  /// Waits for work that is due, the most urgent first, then the longest waiting. Without any pending it
  /// waits without a timeout: no wake-ups. Nothing once the queue is closed.
  std::optional<Work> pop();
  /// Work that is due and more urgent than `than`, without waiting: long work does it at its pauses.
  std::optional<Work> pop_urgent(Priority than);
  /// Waits until `until`, for less if the queue is closed or work more urgent than `than` is due.
  void pause(Priority than, Work::Clock::time_point until);
  [[nodiscard]] bool closed() const;
  [[nodiscard]] std::size_t size() const;
  void close();

 private:
  using List = std::list<Work>;
  [[nodiscard]] List::const_iterator best(Work::Clock::time_point now) const;
  Work take(List::const_iterator item);

  const std::size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  List items_;  ///< in the order of arrival
  std::unordered_map<std::string, List::iterator> by_key_;
  bool closed_ = false;
};

}  // namespace fpolicy::policyd
