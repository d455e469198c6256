// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/fd.h>

#include <unistd.h>

namespace fpolicy {

void Fd::reset(int fd) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

}  // namespace fpolicy
