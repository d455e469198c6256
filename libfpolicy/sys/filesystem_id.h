// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/result.h>

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

namespace fpolicy::sys {

// What tells one filesystem from all others, by way of a descriptor of one of its files or directories (not
// O_PATH), or of the device below it.

/// FS_IOC_GETFSUUID (Linux 6.9): 36 characters, lower case. Nothing where kernel or filesystem lack it. A
/// UUID shorter than 16 bytes is left to blkid; an empty string is a UUID of zeros: the filesystem has none.
std::optional<std::string> kernel_uuid(int fd);

/// BTRFS_IOC_FS_INFO: the fsid, 36 characters. Nothing where this is no btrfs.
std::optional<std::string> btrfs_fsid(int fd);

/// f_fsid of statfs(2), 16 hexadecimal digits. tmpfs draws it at random for each mount (Linux 5.12).
Result<std::string> statfs_id(int fd);

/// The UUID that libblkid reads from a block device; empty where the filesystem has none. `device`: what the
/// node must be, so that a stale source in mountinfo is not taken for another disk.
Result<std::string> blkid_uuid(const std::string& node, dev_t device);

/// The superblock of a filesystem that is made as a whole and never changes, in hexadecimal: time of
/// creation, sizes, offsets of all tables. squashfs has no UUID, and those who want the same erofs image from
/// the same files give each the same. `type`: "squashfs" or "erofs". Error: EINVAL where it is not that.
Result<std::string> superblock_of(std::string_view type, const std::string& node, dev_t device);

/// The file behind a loop device, below `root`/sys; nothing where the device is no loop device.
Result<std::optional<std::string>> loop_backing_file(const std::string& root, dev_t device);

/// Differs from boot to boot: proc/sys/kernel/random/boot_id below `root`.
Result<std::string> boot_id(const std::string& root);

}  // namespace fpolicy::sys
