// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>

#include <optional>
#include <string>
#include <string_view>

namespace fpolicy::sys {

/// name_to_handle_at(2): handle type (32 bits, little-endian), then the handle's bytes. It holds the inode's
/// generation, so that a file which gets a deleted one's inode number has another handle. Nothing where the
/// filesystem gives no handle that open_by_handle_at(2) takes.
/// `mount_id`, where given, is set to the mount's in mountinfo.
Result<std::optional<std::string>> file_handle(const FileRef& file, int* mount_id = nullptr);

/// open_by_handle_at(2), for reading. `mount`: any descriptor on the filesystem, not O_PATH. `handle` as
/// file_handle gives it. Error: ESTALE where the file is gone, EPERM without CAP_DAC_READ_SEARCH, EINVAL for
/// bytes that are no handle.
Result<Fd> open_file_handle(int mount, std::string_view handle, std::string_view object);

/// The name that the kernel has for an open file, in the caller's mount namespace: the link in /proc/self/fd.
Result<std::string> path_of(int fd);

/// open(2) with O_PATH, never following the last component.
Result<Fd> open_path(const char* name, std::string_view object);

/// A descriptor for reading, from an O_PATH one of a regular file or directory.
Result<Fd> reopen_for_reading(int path_fd, std::string_view object);

}  // namespace fpolicy::sys
