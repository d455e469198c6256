// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <memory>
#include <string>

namespace fpolicy {

/// Which filesystems are mounted in the caller's own mount namespace or in the machine's (process 1's, of
/// which the caller's is a copy where systemd made it one), by an administrator: tags on others do not count,
/// since a container can forge them on filesystems that it mounted itself. Kept up to date by itself. Not
/// thread-safe.
class FPOLICY_API MountedDevices {
 public:
  /// Reads proc/self/mountinfo below `root`, and proc/1/mountinfo where that is of another mount namespace.
  static Result<MountedDevices> open(const std::string& root = "/");
  MountedDevices(MountedDevices&&) noexcept;
  MountedDevices& operator=(MountedDevices&&) noexcept;
  ~MountedDevices();

  /// Reads again what has changed since; cheap where nothing has. Error: the table of before stays.
  Status refresh();
  /// `device`: the superblock's (FileMapping::device). A FUSE filesystem counts only if root mounted it:
  /// another user's server could answer with any tag, or never.
  [[nodiscard]] bool contains(dev_t device) const;
  /// Was this file opened through a mount of one of these namespaces, as in contains()? Asks the filesystem
  /// nothing, so that a server that never answers holds nobody up. `fd`: any, O_PATH included.
  [[nodiscard]] Result<bool> contains_file(int fd) const;
  /// Device and inode number name one file. Not on btrfs (a number for each subvolume) and overlayfs (for
  /// each layer).
  [[nodiscard]] bool numbers_are_unique(dev_t device) const;

 private:
  struct Impl;
  explicit MountedDevices(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpolicy
