// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <string_view>

namespace fpolicy::sys {

/// Opens (O_PATH) a file whose absolute path may be longer than the PATH_MAX bytes that one system call
/// takes; directories can be nested that deep with relative names. The last component is not followed if it
/// is a symbolic link.
Result<Fd> open_long_path(std::string_view path);

}  // namespace fpolicy::sys
