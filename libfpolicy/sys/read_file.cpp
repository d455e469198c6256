// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/fd.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace fpolicy::sys {

Result<std::string> read_file(int directory, const std::string& path, std::size_t limit) {
  const Fd fd(::openat(directory, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open", path);
  std::string text;
  std::array<char, 16384> piece;  // NOLINT: not worth clearing for each of many small files
  while (true) {
    if (text.size() > limit) return fail_errno("read", path, EFBIG);
    const ssize_t count = ::read(fd.get(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("read", path);
    if (count == 0) break;
    text.append(piece.data(), static_cast<std::size_t>(count));
  }
  if (text.size() > limit) return fail_errno("read", path, EFBIG);
  return text;
}

}  // namespace fpolicy::sys
