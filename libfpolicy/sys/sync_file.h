// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/result.h>
#include <fpolicy/store.h>

namespace fpolicy::sys {

/// fsync(2) of a regular file or directory: its xattrs are on the disk with it.
Status sync_file(const FileRef& file);

/// Is its filesystem, or the mount through which it is reached, read-only (statvfs(3))? False where it cannot
/// be told.
bool is_read_only(const FileRef& file);

}  // namespace fpolicy::sys
