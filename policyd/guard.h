// SPDX-License-Identifier: LGPL-2.1-or-later
// Before a job is moved, references are taken on the pages that must stay: the kernel then leaves them.
#pragma once

#include "config.h"
#include "pins.h"
#include "sentinel.h"
#include "stays.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/page_hold.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace fpolicy::policyd {

/// What the guard is and has done, for those who ask.
struct GuardStatus {
  bool on = false;
  std::string reason;  ///< why it is not
  Sentinel::State sentinel;
  SentinelShared counters{};
  std::uint64_t holds = 0;    ///< moves for which pages were held
  std::uint64_t partial = 0;  ///< of these, not all that stays could be held
  std::uint64_t expired = 0;  ///< holds that ended by time: the file was still open, or its cgroup has gone
  std::uint64_t held_bytes = 0;  ///< now
  std::uint64_t most_held_bytes = 0;
  std::uint64_t files = 0;         ///< whose pages stay
  std::uint64_t mapped_files = 0;  ///< of these, mapped when last looked
  std::string last_refusal;        ///< a file whose pages could not be held, and why
};

class Guard {
 public:
  struct Parts {
    const CgroupTree* cgroups = nullptr;
    Stays* stays = nullptr;
    const Pins* pins = nullptr;
    std::string sentinel;         ///< the program
    std::function<void()> asked;  ///< after each move that was asked about: who maps what may have changed
  };

  Guard(Parts parts, const Config& config);
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  void start();
  /// False where the work at hand does not end within this time.
  [[nodiscard]] bool stop(std::chrono::milliseconds patience);
  void set_config(const Config& config);
  [[nodiscard]] GuardStatus status() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Request {
    std::uint32_t kind = 0;
    std::uint32_t number = 0;
    std::uint64_t inode = 0;
    pid_t thread = -1;
    Clock::time_point asked;
    std::string path;
  };
  /// Pages of a file, held for one or more moves.
  struct Held {
    PageHold hold;
    std::uint64_t bytes = 0;
    std::size_t users = 0;
    bool is_whole = false;
  };
  /// A file of a cgroup that somebody has open for writing.
  struct Move {
    std::size_t writers = 0;
    std::vector<pid_t> threads;  ///< that opened it last
    Clock::time_point expires;
    Clock::time_point ends;  ///< even in the midst of a write
    std::unordered_set<FileKey, FileKeyHash> files;
  };

  void enter(const SentinelMessage& message);
  void run();
  void ask(const Request& request, Clock::duration hold_time);
  void hold_for(Move& move, const Request& request, Clock::time_point until);
  /// Files to be held for a move; nothing where it is not watched.
  std::vector<Stay> choose(const Request& request, Clock::time_point until) const;
  bool hold(Move& move, const Stay& stay, Clock::time_point until);
  void let_go(std::unordered_map<std::uint64_t, Move>::iterator move);
  void expire();
  [[nodiscard]] bool is_watched(std::string_view cgroup) const;

  const Parts parts_;
  std::unique_ptr<Sentinel> sentinel_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Request> requests_;
  Config config_;
  bool stopping_ = false;
  bool ended_ = false;
  GuardStatus told_;

  // Of the thread alone.
  std::unordered_map<std::uint64_t, Move> moves_;  ///< by the inode of the cgroup's file
  std::unordered_map<FileKey, Held, FileKeyHash> held_;
  std::uint64_t held_bytes_ = 0;
  Clock::time_point next_expiry_ = Clock::time_point::max();
};

}  // namespace fpolicy::policyd
