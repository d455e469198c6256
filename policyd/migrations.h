// SPDX-License-Identifier: LGPL-2.1-or-later
// Moves of jobs that callers ask for: what they may ask, and the threads that do it.
#pragma once

#include <fpolicy/migrate.h>
#include <fpolicy/result.h>

#include <nlohmann/json.hpp>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

namespace fpolicy::policyd {

struct MigrateRequest {
  Job job;
  MigrateOptions options;
};

/// Reads the parameters of Migrate: each checked, none unknown. Error: EINVAL, its message the name of the
/// parameter that is wrong.
Result<MigrateRequest> parse_migrate(const nlohmann::json& parameters);

/// What a caller may not ask is refused, and what he may is confined to what is his: his own processes, the
/// pages that one of them alone maps, one thread, and so much of policyd's memory and descriptors. Error:
/// EPERM.
Status confine(MigrateRequest& request, uid_t uid);

/// The report as a reply that one message carries: of what is too long, mappings are left out first, then the
/// groups with the fewest pages; a note tells it.
nlohmann::json report_reply(MigrateReport report, const MigrateOptions& options);

/// A thread for each move, a few at a time. Neither the loop nor the workers wait for them.
class Migrations {
 public:
  static constexpr std::size_t most_of_users = 2;
  static constexpr std::size_t most_of_root = 4;

  Migrations() = default;
  /// stop() must have succeeded, or not have been needed.
  ~Migrations();
  Migrations(const Migrations&) = delete;
  Migrations& operator=(const Migrations&) = delete;

  /// Returns what is to be done once the thread's place is free again: tell the caller, who may ask anew.
  using Work = std::function<std::function<void()>(const std::atomic<bool>& stopping)>;

  /// Runs `work`, which is to end soon once `stopping` is set. Error: EAGAIN where too many are under way: of
  /// this user one, of all users but root most_of_users.
  Status start(uid_t uid, Work work);
  /// Those under way are to end.
  void close() { stopping_ = true; }
  /// Closes, and waits. False where one does not end within this time.
  [[nodiscard]] bool stop(std::chrono::milliseconds patience);

 private:
  struct Run {
    uid_t uid = 0;
    bool ended = false;
    std::thread thread;
  };
  void reap();

  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::list<Run> runs_;
};

}  // namespace fpolicy::policyd
