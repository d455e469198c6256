// SPDX-License-Identifier: LGPL-2.1-or-later
// The sentinel process (sentinel.c), kept running: it is asked before files of the cgroup filesystem are
// opened.
#pragma once

#include "sentinel_protocol.h"

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace fpolicy::policyd {

class Sentinel {
 public:
  /// `message`: sentinel_ask, sentinel_written or sentinel_closed, told by a thread of the sentinel's own; it
  /// must not wait for anything, least of all open a file of the cgroup filesystem.
  using OnMessage = std::function<void(const SentinelMessage& message)>;

  /// `program`: path of fpolicy-sentinel; `cgroups`: the cgroup2 mount, borrowed.
  Sentinel(std::string program, int cgroups, OnMessage on_message);
  ~Sentinel();
  Sentinel(const Sentinel&) = delete;
  Sentinel& operator=(const Sentinel&) = delete;

  /// Returns at once; state() tells when it watches.
  Status start();
  void stop();
  void set_deadline(std::chrono::milliseconds deadline);
  /// Whether it need not ask at all.
  void set_nothing_to_hold(bool nothing);
  /// The opener may go on. Never waits; any thread.
  void answer(std::uint32_t number);

  struct State {
    bool watching = false;
    pid_t pid = -1;
    std::string reason;  ///< why it does not watch
    std::uint64_t restarts = 0;
  };
  [[nodiscard]] State state() const;
  /// A copy, not of one moment.
  [[nodiscard]] SentinelShared counters() const;

 private:
  void run();
  Status spawn();
  /// Reads what has come. False where it has ended.
  bool receive();
  bool take(const SentinelMessage& message, std::size_t length, Fd fd);
  void tell(std::uint32_t kind, std::uint32_t number);
  /// Does it still read, now that there is something to read?
  void check();
  void bury();
  void set_state(bool watching, pid_t pid, const std::string& reason);

  const std::string program_;
  const int cgroups_;
  const OnMessage on_message_;
  Fd memory_fd_;
  SentinelShared* shared_ = nullptr;
  Fd wake_;
  std::thread thread_;

  mutable std::mutex mutex_;
  State state_;
  bool stopping_ = false;
  Fd socket_;

  // Of the thread alone. The group's descriptor is in both, though we do not have it open.
  Fd pidfd_;
  Fd edge_;   ///< readable once for each event
  Fd level_;  ///< readable while there is something to read
  pid_t pid_ = -1;
  std::chrono::steady_clock::time_point check_due_;
  bool checking_ = false;
  bool has_given_up_ = false;
  unsigned stuck_checks_ = 0;
  std::uint64_t progress_ = 0;
};

}  // namespace fpolicy::policyd
