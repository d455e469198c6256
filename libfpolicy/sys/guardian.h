// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <chrono>
#include <utility>

namespace fpolicy::sys {

/// A process of its own that lets go what was halted, should the caller end before it does so itself: killed,
/// out of memory, crashed. It also lets go when the caller has not said for `longest_silence` that it is
/// getting on. It is told beforehand what is going to be halted.
class Guardian {
 public:
  static constexpr std::chrono::seconds longest_silence{30};

  /// `root_procs`: cgroup.procs of the root cgroup, so that what kills the caller's whole cgroup spares the
  /// guardian; -1: it stays in the caller's.
  static Result<Guardian> start(int root_procs);
  Guardian(Guardian&& other) noexcept
      : socket_(std::move(other.socket_)), pid_(std::exchange(other.pid_, -1)) {}
  Guardian& operator=(Guardian&&) = delete;
  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;
  /// Without done(): as if the caller had ended.
  ~Guardian();

  /// The process behind this pidfd is going to be stopped.
  Status will_stop(int pidfd);
  /// This cgroup.freeze, open for writing, is going to get a 1.
  Status will_freeze(int freeze);
  /// The caller is getting on. Never waits.
  void alive() const;
  /// Everything has been let go.
  void done();

 private:
  Guardian(Fd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}
  Status tell(char what, int fd);

  Fd socket_;
  pid_t pid_ = -1;
};

}  // namespace fpolicy::sys
