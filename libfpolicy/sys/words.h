// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace fpolicy::sys {

/// Reads words at an index of a file that is an array of them, as /proc/PID/pagemap is. `done`: how many;
/// fewer than asked only where the file ends. Gives 0 or an errno.
int read_words(int fd, std::uint64_t index, std::span<std::uint64_t> words, std::size_t& done);

}  // namespace fpolicy::sys
