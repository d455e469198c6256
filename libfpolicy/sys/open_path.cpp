// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/open_path.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace fpolicy::sys {
namespace {

constexpr int flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;

int open_without_links(int directory, const char* path, std::uint64_t resolve = 0) {
  open_how how{};
  how.flags = flags;
  how.resolve = RESOLVE_NO_SYMLINKS | resolve;
  return static_cast<int>(::syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/// For sandboxes that refuse openat2, which seccomp filters cannot look into.
Result<Fd> open_by_names(std::string_view path) {
  Fd directory(::open("/", flags | O_DIRECTORY));
  std::string_view rest = path;
  while (directory && !rest.empty()) {
    const std::size_t slash = rest.find('/');
    const std::string name(rest.substr(0, slash));
    rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
    if (!name.empty()) directory = Fd(::openat(directory.get(), name.c_str(), flags));
  }
  if (!directory) return fail_errno("open", path);
  return directory;
}

}  // namespace

Result<Fd> open_real_path(std::string_view path) {
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
    Fd opened(open_without_links(directory ? directory.get() : AT_FDCWD, std::string(part).c_str()));
    if (!opened && (errno == ENOSYS || errno == EPERM)) return open_by_names(path);
    if (!opened) return fail_errno("open", path);
    if (part.size() == rest.size()) return opened;
    directory = std::move(opened);
    rest.remove_prefix(part.size() + 1);
  }
}

Result<Fd> open_on_mount(int directory, const std::string& path, std::string_view object) {
  Fd fd(open_without_links(directory, path.c_str(), RESOLVE_BENEATH | RESOLVE_NO_XDEV));
  if (!fd) return fail_errno("open", object);
  return fd;
}

}  // namespace fpolicy::sys
