// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/result.h>
#include <fpolicy/store.h>

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace fpolicy::sys {

/// What messages call the file: its path, else its name, else its descriptor.
std::string object_of(const FileRef& file);

/// statx(2): type, mode, owner, inode, links, birth time, device and mount id. Follows no symbolic link and
/// triggers no automount.
Result<struct statx> file_status(const FileRef& file);

/// st_dev as stat(2) gives it.
dev_t device_of(const struct statx& status);

/// Nanoseconds since 1970; 0 where the filesystem keeps no birth time.
std::int64_t birth_ns(const struct statx& status);

}  // namespace fpolicy::sys
