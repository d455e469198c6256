// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/guarded_path.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

namespace fpolicy::sys {
namespace {

constexpr int path_flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;

Status check_owner(const struct stat& status, std::string_view path, uid_t owner) {
  if (status.st_uid == owner) return {};
  return fail(EPERM, fmt::format("{} belongs to user {}, who may have put it there", path, status.st_uid));
}

/// Could anybody but the owner put another file there?
Status check_directory(int fd, std::string_view path, uid_t owner) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("stat", path);
  if (S_ISLNK(status.st_mode)) return fail(EPERM, fmt::format("{} is a symbolic link", path));
  if (!S_ISDIR(status.st_mode)) return fail_errno("open", path, ENOTDIR);
  if (status.st_uid != owner)
    return fail(EPERM,
                fmt::format("{} belongs to user {}, who may put other files there", path, status.st_uid));
  // A sticky directory lets everybody put files where there is none.
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(EPERM, fmt::format("others than its owner may put files into {}", path));
  return {};
}

}  // namespace

Result<Fd> open_guarded_path(std::string_view path, uid_t owner, const std::string& top) {
  const std::string_view above = top == "/" ? std::string_view() : std::string_view(top);
  if (!path.starts_with(above) || (path.size() > above.size() && path[above.size()] != '/'))
    return fail(EINVAL, fmt::format("{} is not below {}", path, top));
  Fd held(::open(top.c_str(), path_flags));
  if (!held) return fail_errno("open", top);
  std::size_t done = above.size();
  while (done < path.size()) {
    const std::size_t begin = path.find_first_not_of('/', done);
    if (begin == std::string_view::npos) break;
    const auto directory = done == 0 ? std::string_view("/") : path.substr(0, done);
    if (auto checked = check_directory(held.get(), directory, owner); !checked)
      return tl::unexpected(checked.error());
    const std::size_t end = path.find('/', begin);
    const std::string name(path.substr(begin, end == std::string_view::npos ? end : end - begin));
    done = end == std::string_view::npos ? path.size() : end;
    Fd next(::openat(held.get(), name.c_str(), path_flags));
    if (!next) return fail_errno("open", path.substr(0, done));
    held = std::move(next);
  }
  struct stat status{};
  if (::fstat(held.get(), &status) != 0) return fail_errno("stat", path);
  if (S_ISLNK(status.st_mode)) return fail(EPERM, fmt::format("{} is a symbolic link", path));
  if (auto checked = check_owner(status, path, owner); !checked) return tl::unexpected(checked.error());
  return held;
}

}  // namespace fpolicy::sys
