// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/words.h"

#include <unistd.h>

#include <cerrno>

namespace fpolicy::sys {

int read_words(int fd, std::uint64_t index, std::span<std::uint64_t> words, std::size_t& done) {
  done = 0;
  while (done < words.size()) {
    const ssize_t count = ::pread(fd, words.data() + done, (words.size() - done) * sizeof(std::uint64_t),
                                  static_cast<off_t>((index + done) * sizeof(std::uint64_t)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (static_cast<std::size_t>(count) < sizeof(std::uint64_t)) return 0;
    done += static_cast<std::size_t>(count) / sizeof(std::uint64_t);
  }
  return 0;
}

}  // namespace fpolicy::sys
