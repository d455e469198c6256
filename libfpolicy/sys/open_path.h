// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <string_view>

namespace fpolicy::sys {

/// Opens (O_PATH) what an absolute path names without any symbolic link on the way, so that nobody who may
/// rename directories leads elsewhere; the last component is not followed if it is one. The path may be
/// longer than the PATH_MAX bytes that one system call takes: directories can be nested that deep with
/// relative names. Error: ELOOP or ENOTDIR for a link on the way.
Result<Fd> open_real_path(std::string_view path);

/// Opens (O_PATH) what a relative path names below a directory, on the directory's own mount and without any
/// symbolic link on the way; the last component is not followed if it is one. Error: EXDEV where another
/// mount is on the way or over it, ELOOP for a link, ENOSYS and EPERM where a sandbox refuses openat2(2).
Result<Fd> open_on_mount(int directory, const std::string& path, std::string_view object);

}  // namespace fpolicy::sys
