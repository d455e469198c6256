// SPDX-License-Identifier: LGPL-2.1-or-later
// Moving a job between NUMA nodes by its files' policies: observe, decide, act.
// Counts are base pages of sysconf(_SC_PAGESIZE) bytes, of huge pages as well.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/node_set.h>
#include <fpolicy/resolver.h>
#include <fpolicy/result.h>
#include <fpolicy/topology.h>

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace fpolicy {

/// The processes of one cgroup subtree, or processes by their numbers.
struct FPOLICY_API Job {
  /// Path below the mount of the cgroup2 hierarchy, without a leading slash. Empty: `pids` are meant.
  std::string cgroup;
  std::vector<pid_t> pids;
  bool descendants = false;  ///< of `pids`, too
};

/// Where the pages of a move go: the i-th node of `from` to the (i mod |to|)-th of `to`.
class FPOLICY_API NodePairing {
 public:
  /// Neither is empty. Pages of `done` stay where they are: an earlier run has emptied these nodes.
  NodePairing(const NodeSet& from, const NodeSet& to, const NodeSet& done = {});

  [[nodiscard]] const NodeSet& from() const { return from_; }
  [[nodiscard]] const NodeSet& to() const { return to_; }
  /// Where pages of `node` go; `node` itself where it is not in from().
  [[nodiscard]] unsigned target(unsigned node) const;
  /// Where the nodes of a set go.
  [[nodiscard]] NodeSet target(const NodeSet& nodes) const;
  /// The nodes of from() that pages leave, each before those that send pages to it: so no page is moved
  /// twice, and a node is emptied before it is filled. Where nodes send to each other in a ring, the ring's
  /// order is arbitrary, and ring() is true.
  [[nodiscard]] const std::vector<unsigned>& order() const { return order_; }
  [[nodiscard]] bool ring() const { return ring_; }

 private:
  NodeSet from_;
  NodeSet to_;
  std::map<unsigned, unsigned> targets_;
  std::vector<unsigned> order_;
  bool ring_ = false;
};

/// What a mapping is of.
enum class MappingKind : std::uint8_t {
  anonymous,
  heap,
  stack,
  file,     ///< a regular file, deleted ones too
  shm,      ///< System V segment, shared anonymous memory, memfd
  special,  ///< [vdso] and its like, devices: not pages that could move
};
FPOLICY_API std::string_view to_string(MappingKind kind);

/// What becomes of a mapping's pages that are the file's. Private copies follow the job, but with migrate=no.
enum class MigrateDecision : std::uint8_t {
  follow,     ///< all go along
  exclusive,  ///< no policy: pages that only the job maps go along, others stay
  placement,  ///< a relative placement: where it says within the nodes `to`
  stay,
  skip,  ///< cannot move
};
FPOLICY_API std::string_view to_string(MigrateDecision decision);

/// Pages by what became of them. Of a dry run: what would.
struct FPOLICY_API MigrateCounts {
  std::uint64_t moved = 0;
  std::uint64_t stayed = 0;   ///< by decision; those that are where they belong included
  std::uint64_t busy = 0;     ///< still busy after the retries
  std::uint64_t failed = 0;   ///< no room on their node, or no right to move them
  std::uint64_t skipped = 0;  ///< pages that cannot move: zero pages, devices
  std::uint64_t vanished = 0;
  /// Pages that were to stay, yet lie on a node that --set-cpuset takes away, and cannot be held: the kernel
  /// takes them along. Also counted in `stayed`.
  std::uint64_t forced = 0;
};

/// The mappings of one file, or all of a kind that have none, in all processes of the job.
struct FPOLICY_API MigrateGroup {
  MappingKind kind = MappingKind::anonymous;
  std::string path;  ///< of files and segments; as mapped, " (deleted)" included
  std::string policy;
  Source source = Source::none;
  MigrateDecision decision = MigrateDecision::follow;
  bool private_stays = false;  ///< migrate=no: private copies stay too
  std::string reason;          ///< for people: why so decided
  std::uint64_t mappings = 0;
  MigrateCounts counts;
  /// Pages by node that the job maps, each counted once: as they were found, and as they are (or would be).
  std::vector<std::uint64_t> before;
  std::vector<std::uint64_t> after;
};

/// One mapping, for the plan of a dry run.
struct FPOLICY_API MigrateMapping {
  pid_t pid = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::string permissions;  ///< "rw-p"
  std::size_t group = 0;    ///< index in MigrateReport::groups
  std::uint64_t resident = 0;
  std::uint64_t moves = 0;  ///< pages; those shared between processes stand with the first
};

struct FPOLICY_API MigrateReport {
  std::vector<MigrateGroup> groups;
  std::vector<MigrateMapping> mappings;  ///< of a dry run only
  std::uint64_t processes = 0;
  MigrateCounts counts;  ///< the sum over groups
  std::vector<std::uint64_t> before;
  std::vector<std::uint64_t> after;
  std::uint64_t moved_bytes = 0;
  double plan_seconds = 0;        ///< observing and deciding
  double moving_seconds = 0;      ///< in the kernel's hands
  double frozen_seconds = 0;      ///< 0 where the job ran on
  std::uint64_t quiet_pages = 0;  ///< of those moved: before the freeze (pre_copy)
  /// verify: pages that were to move and do not lie where they belong, found by looking again before the
  /// thaw.
  std::optional<std::uint64_t> misplaced;
  std::string cpuset_before;  ///< with set_cpuset: cpuset.mems of the job's cgroup
  std::string cpuset_after;   ///< as it is now (or would be)
  bool stopped = false;       ///< by `progress`
  /// Why the work ended before its end, though pages had moved by then; empty: it did not.
  std::string failure;
  /// For people: processes that could not be looked at, memory policies that still name nodes the job has
  /// left, pages that were forced, and the like.
  std::vector<std::string> notes;
};

struct FPOLICY_API MigrateProgress {
  enum class Phase : std::uint8_t { plan, quiet, freeze, move, cpuset, verify };
  Phase phase = Phase::plan;
  std::uint64_t done_pages = 0;
  std::uint64_t all_pages = 0;
};

struct FPOLICY_API MigrateOptions {
  NodeSet from;
  NodeSet to;
  bool dry_run = false;
  /// Set cpuset.mems of the cgroup, and of those below that have their own, to where their nodes go. A cgroup
  /// with cpuset is needed for it.
  bool set_cpuset = false;
  std::string cpus;      ///< with set_cpuset: cpuset.cpus, empty to leave it
  bool freeze = true;    ///< cgroup: cgroup.freeze; processes: SIGSTOP
  bool partial = false;  ///< go on where the target nodes are too small
  bool pre_copy = false;
  bool verify = false;
  /// Only pages that one process of the job maps and nobody else, whatever the policies say: for callers who
  /// ask on the word of others.
  bool own_pages_only = false;
  /// Every process of the job must be wholly this user's (Process::belongs_to), whenever it is looked at:
  /// also one that enters the cgroup while it is frozen. Such a move is not resumed if it is cut short.
  std::optional<uid_t> owner;
  /// More than so many make it fail: for callers who must not use up the memory and the descriptors of
  /// theirs. 0: no limit.
  std::size_t max_processes = 0;
  std::size_t max_mappings = 0;
  unsigned threads = 0;                ///< 0: half as many as processors, at most 8
  std::uint64_t bytes_per_second = 0;  ///< 0: no limit
  unsigned busy_retries = 5;
  /// Called now and then by the calling thread; false stops: what is not moved stays, the job is thawed.
  std::function<bool(const MigrateProgress&)> progress;
  /// Below which proc and the cgroup mount are found: for tests.
  std::string root = "/";
};

/// Moves a job. The resolver tells files' policies; nullptr: no file has one.
///
/// Needs CAP_SYS_NICE, CAP_SYS_PTRACE and CAP_SYS_ADMIN (page frames, the files that processes map). A job
/// that is frozen is thawed whatever happens to the caller: a process of its own sees to that (Guardian).
/// Errors, with nothing moved: EINTR `progress` said stop; EINVAL a set that is empty, names a node without
/// memory, a cgroup's path that is not in its shortest form, or options that contradict each other; EPERM
/// without privilege, or a process that is not `owner`'s; E2BIG more processes or mappings than the limits;
/// ENOENT no such cgroup; ESRCH none of the processes exists; ENOSPC the target nodes are too small (see
/// partial); EACCES target nodes that the job's cpuset does not allow, without set_cpuset; ETIMEDOUT the job
/// could not be frozen; EBUSY another migration of the job is under way. What happens to pages and single
/// processes later is no error, but in the report.
FPOLICY_API Result<MigrateReport> migrate_job(const Job& job, const MigrateOptions& options,
                                              const Topology& topology, Resolver* resolver);

}  // namespace fpolicy
