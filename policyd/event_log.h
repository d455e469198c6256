// SPDX-License-Identifier: LGPL-2.1-or-later
// What policyd has done lately, and how often it has done what.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::policyd {

enum class EventKind : std::uint8_t {
  start,
  stop,
  move,
  attach,
  enforce,
  tag,
  retry,
  reload,
  error,
  migrate,
  carry
};

std::string_view to_string(EventKind kind);

struct Event {
  EventKind kind = EventKind::error;
  std::optional<std::string> cgroup;  ///< below the cgroup2 mount, with a leading slash
  std::optional<std::string> path;
  std::optional<std::string> policy;
  std::optional<std::uint64_t> moved_pages;
  std::optional<std::uint64_t> misplaced_pages;
  std::optional<std::string> message;
  std::uint64_t sequence = 0;   ///< given by the log
  std::uint64_t time_usec = 0;  ///< given by the log
};

/// The last events, in a ring. Thread-safe.
class EventLog {
 public:
  /// `added` is called after each event, by the thread that adds it.
  EventLog(std::size_t most, std::function<void()> added) : most_(most), added_(std::move(added)) {}

  void add(Event event);
  /// Events with a sequence number of at least `first`, in order.
  [[nodiscard]] std::vector<Event> since(std::uint64_t first) const;

 private:
  const std::size_t most_;
  const std::function<void()> added_;
  mutable std::mutex mutex_;
  std::deque<Event> events_;
  std::uint64_t next_ = 1;
};

/// Since policyd started. Counted by any thread.
struct Counters {
  std::atomic<std::uint64_t> moves{0};           ///< cpuset.mems written
  std::atomic<std::uint64_t> attaches{0};        ///< processes put into cgroups
  std::atomic<std::uint64_t> rescans{0};         ///< passes over all jobs
  std::atomic<std::uint64_t> files_enforced{0};  ///< files whose pages were looked at
  std::atomic<std::uint64_t> pages_moved{0};
  std::atomic<std::uint64_t> pages_returned{0};  ///< of files that stay where they are
  std::atomic<std::uint64_t> pages_slipped{0};   ///< of files that stay, brought home after a job had moved
  std::atomic<std::uint64_t> retries{0};
  std::atomic<std::uint64_t> budget_deferrals{0};
  std::atomic<std::uint64_t> tag_changes{0};
  std::atomic<std::uint64_t> tags_carried{0};  ///< over to files that have replaced tagged ones
  std::atomic<std::uint64_t> reloads{0};
  std::atomic<std::uint64_t> migrations{0};  ///< jobs moved for callers
  std::atomic<std::uint64_t> errors{0};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> connections_refused{0};
};

}  // namespace fpolicy::policyd
