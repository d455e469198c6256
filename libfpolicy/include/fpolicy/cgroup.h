// SPDX-License-Identifier: LGPL-2.1-or-later
// The cgroup2 tree: its processes, and notice of jobs that are moved.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/node_set.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

/// A cgroup2 hierarchy as it is mounted. Cgroups are named by their path below the mount, without a leading
/// slash; the empty path is the root cgroup.
class FPOLICY_API CgroupTree {
 public:
  /// Finds the mount in proc/self/mountinfo below `root`. Error: ENODEV where no cgroup2 is mounted.
  static Result<CgroupTree> open(const std::string& root = "/");

  [[nodiscard]] const std::string& mount_point() const { return mount_point_; }
  [[nodiscard]] int fd() const { return directory_.get(); }
  /// The cpuset controller is to be had here: cpuset.mems of a cgroup can change.
  [[nodiscard]] Result<bool> has_cpuset() const;
  /// How many cgroups there are, the root included.
  [[nodiscard]] Result<std::uint64_t> count() const;

  /// Visits a cgroup and, with `recursive`, those below it, but for what is below one without any process (so
  /// that empty parts of a tree cost nothing), through directory descriptors: a cgroup that vanishes
  /// meanwhile is passed over, and one made anew in its place is not mistaken for it. `visit` gets the path
  /// and the processes; it returns false to stop. Error: ENOENT where the first cgroup does not exist.
  Status walk(
      const std::string& cgroup, bool recursive,
      const std::function<bool(const std::string& path, const std::vector<pid_t>& processes)>& visit) const;

  /// cpuset.mems.effective of the cgroup, or of the nearest ancestor that has the controller. Nothing where
  /// none has.
  [[nodiscard]] Result<std::optional<NodeSet>> effective_mems(const std::string& cgroup) const;

  /// Deeper cgroups are not looked at: a descriptor is held for each level.
  static constexpr unsigned max_depth = 256;

 private:
  CgroupTree(std::string mount_point, Fd directory)
      : mount_point_(std::move(mount_point)), directory_(std::move(directory)) {}
  std::string mount_point_;
  Fd directory_;
};

/// Processes listed in cgroup.procs. Those of other pid namespaces stand there as 0 and are left out.
FPOLICY_API Result<std::vector<pid_t>> parse_cgroup_procs(std::string_view text);

/// A job was moved: the kernel has moved its pages when this is told.
struct FPOLICY_API CgroupChange {
  enum class Kind : std::uint8_t {
    mems,    ///< cpuset.mems of the cgroup was written: all below it are concerned
    attach,  ///< a process or thread was put into the cgroup
    unknown  ///< events were lost, or came through a mount of the hierarchy that is not ours: any cgroup
  };
  Kind kind = Kind::unknown;
  std::string cgroup;

  friend bool operator==(const CgroupChange&, const CgroupChange&) = default;
};

/// Is a write to this file a move? `path`: below the mount of the hierarchy, e.g. "a/b/cpuset.mems".
FPOLICY_API std::optional<CgroupChange> classify_cgroup_write(std::string_view path);

/// Writes to the files of a whole hierarchy, of cgroups to come as well: one fanotify mark on the filesystem.
class FPOLICY_API CgroupWatch {
 public:
  /// Needs CAP_SYS_ADMIN.
  static Result<CgroupWatch> open(const CgroupTree& tree);

  /// Readable when changes can be read.
  [[nodiscard]] int fd() const { return group_.get(); }
  /// What has happened since, without waiting; bounded: what remains is for the next call.
  Status read(const std::function<void(const CgroupChange&)>& each);

 private:
  CgroupWatch(Fd group, Fd directory, std::string mount_point)
      : group_(std::move(group)), directory_(std::move(directory)), mount_point_(std::move(mount_point)) {}
  Fd group_;
  Fd directory_;  ///< the mount's
  std::string mount_point_;
};

}  // namespace fpolicy
