// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/state_file.h"

#include <fpolicy/fd.h>
#include <fpolicy/store.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

namespace fpolicy::sys {
namespace {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// What has been named in it lasts.
Status sync_directory_of(const std::string& path) {
  const std::string directory = directory_of(path);
  const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno("sync", directory);
  return {};
}

bool others_write(const struct stat& status) {
  return (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

/// Has root given the state directory to this user, policyd's (its unit has User= and StateDirectory=)? Of
/// the directory above, which is root's, nobody else can.
bool has_state_directory(uid_t owner) {
  const std::string directory = directory_of(default_database);
  struct stat above{};
  struct stat status{};
  return ::lstat(directory_of(directory).c_str(), &above) == 0 && S_ISDIR(above.st_mode) &&
         above.st_uid == 0 && !others_write(above) && ::lstat(directory.c_str(), &status) == 0 &&
         S_ISDIR(status.st_mode) && status.st_uid == owner && !others_write(status);
}

/// Whose files are believed: root's, the caller's own, and in the state directory those of its owner.
bool may_own(const std::string& path, uid_t owner) {
  if (owner == 0 || owner == ::geteuid()) return true;
  return directory_of(path) == directory_of(default_database) && has_state_directory(owner);
}

}  // namespace

Status make_directory_of(const std::string& path) {
  const std::string directory = directory_of(path);
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno("mkdir", directory);
  return {};
}

Result<std::optional<std::uint64_t>> private_file_size(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return std::nullopt;
    return fail_errno("open", path);
  }
  if (!S_ISREG(status.st_mode)) return fail(EINVAL, fmt::format("open {}: not a regular file", path));
  if (others_write(status) || !may_own(path, status.st_uid))
    return fail(EPERM, fmt::format("open {}: others may write it (mode {:04o}, owner {})", path,
                                   status.st_mode & 07777U, status.st_uid));
  return static_cast<std::uint64_t>(status.st_size);
}

Status create_private_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return fail_errno("create", path);
  return {};
}

Status publish_file(const std::string& temporary, const std::string& path) {
  Status result;
  // link(2), unlike rename(2), never replaces what another process has published meanwhile.
  if (::link(temporary.c_str(), path.c_str()) != 0 && errno != EEXIST) result = fail_errno("create", path);
  ::unlink(temporary.c_str());
  if (!result) return result;
  return sync_directory_of(path);
}

Status publish_file_as(const std::string& temporary, const std::string& path, bool replace) {
  int code = ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), replace ? 0 : RENAME_NOREPLACE);
  // NFS and some FUSE filesystems do not know the flag; vfat, which does, knows no links.
  if (code != 0 && errno == EINVAL && !replace) code = ::link(temporary.c_str(), path.c_str());
  Status result;
  if (code != 0) result = fail_errno("create", path);
  ::unlink(temporary.c_str());
  if (!result) return result;
  return sync_directory_of(path);
}

bool on_read_only_filesystem(const std::string& path) {
  // With the capabilities that a user of one's own may have.
  return ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0 && errno == EROFS;
}

bool populate_writable(void* memory, std::size_t size) {
  return ::madvise(memory, size, MADV_POPULATE_WRITE) == 0 || errno != EFAULT;
}

bool same_file(const std::string& one, const std::string& other) {
  struct stat a{};
  struct stat b{};
  return ::stat(one.c_str(), &a) == 0 && ::stat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

}  // namespace fpolicy::sys
