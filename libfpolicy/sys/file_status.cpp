// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_status.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

namespace fpolicy::sys {

std::string object_of(const FileRef& file) {
  if (!file.path.empty()) return std::string(file.path);
  if (file.fd < 0 && file.name != nullptr) return file.name;
  return "descriptor " + std::to_string(file.fd);
}

Result<struct statx> file_status(const FileRef& file) {
  constexpr unsigned mask = STATX_TYPE | STATX_MODE | STATX_UID | STATX_INO | STATX_NLINK | STATX_BTIME |
                            STATX_MNT_ID;  // the mount id since Linux 5.8
  struct statx status{};
  const int result = file.fd >= 0
                         ? ::statx(file.fd, "", AT_EMPTY_PATH, mask, &status)
                         : ::statx(AT_FDCWD, file.name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, mask, &status);
  if (result != 0) return fail_errno("stat", object_of(file));
  return status;
}

dev_t device_of(const struct statx& status) {
  return makedev(status.stx_dev_major, status.stx_dev_minor);
}

std::int64_t birth_ns(const struct statx& status) {
  if ((status.stx_mask & STATX_BTIME) == 0) return 0;
  // A hostile image may hold any 64-bit number of seconds; the product then wraps, which is as good an
  // identity.
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000U +
                                   status.stx_btime.tv_nsec);
}

}  // namespace fpolicy::sys
