// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::sys {

/// One line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), octal escapes undone.
struct Mount {
  int id = 0;
  int parent = 0;
  dev_t device = 0;           ///< the superblock's
  std::string root;           ///< which directory (or file) of the filesystem is mounted
  std::string mount_point;    ///< as seen from the process's root
  std::string type;           ///< "ext4", "fuse.sshfs", …
  std::string source;         ///< may be empty
  std::string super_options;  ///< still escaped
  std::string reached_by;     ///< what goes before the mount point to get there: empty, or ".../proc/1/root"

  [[nodiscard]] std::string path() const { return reached_by + mount_point; }
};

/// Parses the whole text or nothing. Error: EINVAL "mountinfo line N: what was expected".
Result<std::vector<Mount>> parse_mountinfo(std::string_view text);

/// Whose mounts.
enum class Mounts : std::uint8_t {
  own,
  /// Those of process 1 as well, where it lives in another mount namespace and may be looked at (ptrace(2)).
  own_and_machines
};

/// The live table. Not to be shared between threads without a lock.
class MountTable {
 public:
  /// Opens proc/self/mountinfo below `root`, and proc/1/mountinfo.
  static Result<MountTable> open(const std::string& root, Mounts whose = Mounts::own);

  /// Have mounts changed since the last call? The kernel reports each change once to each descriptor
  /// (proc_pid_mounts(5): POLLPRI).
  bool changed();
  /// The caller's own come first.
  Result<std::vector<Mount>> read();

 private:
  explicit MountTable(Fd own) : own_(std::move(own)) {}
  Fd own_;
  Fd machines_;
  std::string machines_root_;
};

}  // namespace fpolicy::sys
