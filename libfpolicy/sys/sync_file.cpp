// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/sync_file.h"

#include "sys/file_handle.h"
#include "sys/file_status.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

namespace fpolicy::sys {
namespace {

/// O_PATH, so that a name is looked up once; the file's own descriptor where it has one.
Result<Fd> hold(const FileRef& file) {
  if (file.fd >= 0) return Fd();
  return open_path(file.name, object_of(file));
}

}  // namespace

Status sync_file(const FileRef& file) {
  const auto held = hold(file);
  if (!held) return tl::unexpected(held.error());
  const auto fd = reopen_for_reading(file.fd >= 0 ? file.fd : held->get(), object_of(file));
  if (!fd) return tl::unexpected(fd.error());
  // EINVAL: a filesystem without a disk.
  if (::fsync(fd->get()) != 0 && errno != EINVAL) return fail_errno("fsync", object_of(file));
  return {};
}

bool is_read_only(const FileRef& file) {
  const auto held = hold(file);
  if (!held) return false;
  struct statvfs status{};
  return ::fstatvfs(file.fd >= 0 ? file.fd : held->get(), &status) == 0 && (status.f_flag & ST_RDONLY) != 0;
}

}  // namespace fpolicy::sys
