// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/result.h>

#include <cstddef>
#include <string>

namespace fpolicy::sys {

/// The whole of a small file, as those in /proc and /sys. `directory`: an open directory, or AT_FDCWD.
/// Error: EFBIG where it is longer than `limit` bytes.
Result<std::string> read_file(int directory, const std::string& path, std::size_t limit);

}  // namespace fpolicy::sys
