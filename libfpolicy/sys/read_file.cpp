// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/fd.h>

#include <fcntl.h>
#include <unistd.h>

namespace fpolicy::sys {

Result<std::string> read_file(int directory, const std::string& path, std::size_t limit) {
  const Fd fd(::openat(directory, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open", path);
  std::string text;
  while (true) {
    constexpr std::size_t step = 16384;
    const std::size_t used = text.size();
    if (used > limit) return fail_errno("read", path, EFBIG);
    text.resize(used + step);
    const ssize_t count = ::read(fd.get(), text.data() + used, step);
    if (count < 0 && errno == EINTR) {
      text.resize(used);
      continue;
    }
    if (count < 0) return fail_errno("read", path);
    text.resize(used + static_cast<std::size_t>(count));
    if (count == 0) break;
  }
  if (text.size() > limit) return fail_errno("read", path, EFBIG);
  return text;
}

}  // namespace fpolicy::sys
