// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/open_file.h>
#include <fpolicy/tree.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace fpolicy {
namespace {

std::int64_t nanoseconds(const statx_timestamp& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

Result<FileInfo> info(int directory, const char* path) {
  struct statx status{};
  // DONT_SYNC: a server that does not answer holds nobody up.
  if (::statx(directory, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
              STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
    return fail_errno("statx", path);
  }
  return FileInfo{
      .key = {.device = makedev(status.stx_dev_major, status.stx_dev_minor), .inode = status.stx_ino},
      .mode = status.stx_mode,
      .owner = status.stx_uid,
      .ctime_ns = nanoseconds(status.stx_ctime),
      .birth_ns = (status.stx_mask & STATX_BTIME) != 0 ? nanoseconds(status.stx_btime) : 0};
}

}  // namespace

bool FileInfo::is_regular() const {
  return S_ISREG(mode);
}

bool FileInfo::is_directory() const {
  return S_ISDIR(mode);
}

Result<FileInfo> file_info(int fd) {
  return info(fd, "");
}

std::string path_here(int fd, const FileKey& key) {
  auto path = path_of(fd);
  if (!path) return {};
  const auto found = info(AT_FDCWD, path->c_str());
  if (!found || found->key != key) return {};
  return std::move(*path);
}

Result<Fd> open_path_only(const std::string& path) {
  Fd fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open", path);
  return fd;
}

Result<Fd> open_for_reading(int fd, std::string_view path) {
  Fd file(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) return fail_errno("open", path);
  return file;
}

Result<std::string> read_text(const std::string& path, std::size_t longest) {
  return sys::read_file(AT_FDCWD, path, longest);
}

Status make_directory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return fail_errno("mkdir", path);
  return {};
}

Result<Fd> lock_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno("open", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return fail_errno("flock", path);
  return fd;
}

}  // namespace fpolicy
