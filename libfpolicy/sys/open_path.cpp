// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/open_path.h"

#include <fcntl.h>
#include <limits.h>

#include <string>

namespace fpolicy::sys {

Result<Fd> open_long_path(std::string_view path) {
  Fd directory;
  std::string_view rest = path;
  for (;;) {
    // PATH_MAX counts the NUL. A name has at most NAME_MAX bytes, so a slash is there to part at.
    std::string_view part = rest;
    if (rest.size() >= PATH_MAX) {
      const std::size_t slash = rest.rfind('/', PATH_MAX - 1);
      if (slash == 0 || slash == std::string_view::npos) return fail_errno("open", path, ENAMETOOLONG);
      part = rest.substr(0, slash);
    }
    Fd opened(::openat(directory ? directory.get() : AT_FDCWD, std::string(part).c_str(),
                       O_PATH | O_CLOEXEC | O_NOFOLLOW));
    if (!opened) return fail_errno("open", path);
    if (part.size() == rest.size()) return opened;
    directory = std::move(opened);
    rest.remove_prefix(part.size() + 1);
  }
}

}  // namespace fpolicy::sys
