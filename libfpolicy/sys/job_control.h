// SPDX-License-Identifier: LGPL-2.1-or-later
// Halting a job, and its cpuset. What is halted is let go by the destructor, and by a Guardian if it comes to
// no destructor.
#pragma once

#include "sys/guardian.h"
#include "sys/journal.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/fd.h>
#include <fpolicy/node_set.h>
#include <fpolicy/process.h>
#include <fpolicy/result.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace fpolicy::sys {

/// A cgroup with all below it, frozen by cgroup.freeze.
class FrozenCgroup {
 public:
  /// Confirmed by cgroup.events. Error: ETIMEDOUT where a process cannot be frozen (it waits for a device or
  /// a server); ENOENT, ENODEV where the cgroup is gone. A cgroup that is frozen already stays so afterwards.
  static Result<FrozenCgroup> freeze(int cgroup, Guardian& guardian, std::chrono::milliseconds longest);
  FrozenCgroup(FrozenCgroup&&) noexcept = default;
  FrozenCgroup& operator=(FrozenCgroup&&) = delete;
  FrozenCgroup(const FrozenCgroup&) = delete;
  FrozenCgroup& operator=(const FrozenCgroup&) = delete;
  ~FrozenCgroup() { thaw(); }
  void thaw();

 private:
  explicit FrozenCgroup(Fd freeze) : freeze_(std::move(freeze)) {}
  Fd freeze_;  ///< empty: it is not ours to thaw
};

/// When a process began: ticks since boot, field 22 of /proc/PID/stat. Error: ESRCH.
Result<std::uint64_t> start_time(pid_t pid, const std::string& root = "/");

/// Processes stopped by SIGSTOP. Those that somebody else has stopped stay so.
class StoppedProcesses {
 public:
  explicit StoppedProcesses(Guardian& guardian) : guardian_(&guardian) {}
  StoppedProcesses(StoppedProcesses&&) noexcept = default;
  StoppedProcesses& operator=(StoppedProcesses&&) = delete;
  StoppedProcesses(const StoppedProcesses&) = delete;
  StoppedProcesses& operator=(const StoppedProcesses&) = delete;
  ~StoppedProcesses() { resume(); }

  /// Error: EPERM; ESRCH where it has ended.
  Status stop(const Process& process);
  /// Until all threads of all of them stand still. Error: ETIMEDOUT.
  Status wait(std::chrono::milliseconds longest);
  void resume();

 private:
  struct Stopped {
    Fd pidfd;
    Fd directory;  ///< /proc/PID
    pid_t pid;
  };
  Guardian* guardian_;
  std::vector<Stopped> stopped_;
};

/// The cpusets of a cgroup and of those below it that have their own nodes.
class JobCpusets {
 public:
  struct Cpuset {
    std::string cgroup;
    Fd directory;
    NodeSet mems;  ///< as it was; empty: the parent's
  };
  /// Error: EOPNOTSUPP where the cgroup has no cpuset.mems.
  static Result<JobCpusets> open(const CgroupTree& tree, const std::string& cgroup);

  [[nodiscard]] const NodeSet& mems() const { return sets_.front().mems; }
  [[nodiscard]] const std::vector<Cpuset>& sets() const { return sets_; }
  /// Takes what they were before a run that was cut short from its journal, and enters it there.
  void remember(Journal& journal);
  /// cpuset.mems of the job's cgroup, now; and what of it is effective.
  [[nodiscard]] Result<NodeSet> top() const;
  [[nodiscard]] Result<NodeSet> effective() const;
  /// Adds nodes to each that has its own, and to the job's cgroup whatever it has: moves nothing.
  Status widen(const NodeSet& nodes);
  /// Writes what `nodes` makes of what each had, those below first: of the job's cgroup, `top`. The kernel
  /// moves whatever is left.
  Status narrow(const NodeSet& top, const std::function<NodeSet(const NodeSet&)>& nodes);
  /// As they were.
  Status restore();
  /// Of the job's cgroup; restore() takes it back.
  Status set_cpus(const std::string& cpus);

 private:
  std::optional<std::string> cpus_before_;
  std::vector<Cpuset> sets_;  ///< the job's cgroup first, parents before children
};

}  // namespace fpolicy::sys
