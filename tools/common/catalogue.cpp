// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/catalogue.h"

#include "common/policyd.h"

#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <string>
#include <utility>

namespace fpolicy::tools {

Result<NamedFile> hold_fd(Fd fd) {
  NamedFile file;
  struct stat status = {};
  if (!fd || fstat(fd.get(), &status) != 0) return fail_errno("stat", "");
  if (auto path = path_of(fd.get()); path) {
    const auto there = open_named(*path, false);
    if (there && there->device == status.st_dev && there->inode == status.st_ino)
      file.path = *std::move(path);
  }
  file.fd = std::move(fd);
  file.mode = status.st_mode;
  file.owner = status.st_uid;
  file.device = status.st_dev;
  file.inode = status.st_ino;
  return file;
}

Result<NamedFile> open_record(Identifier& identifier, const TagRecord& record) {
  auto at_path = open_named(record.path, false);
  if (at_path) {
    const FileRef ref{at_path->fd.get(), nullptr, at_path->path, at_path->device};
    const auto identity = identifier.identify(ref);
    if (identity && is_file_of(record.identity, *identity)) return at_path;
  }
  auto fd = identifier.open(record.identity, record.path);
  if (!fd) return tl::unexpected(fd.error());
  return hold_fd(*std::move(fd));
}

Status for_each_record(Stores& stores, const Locations& locations,
                       const std::function<void(const TagRecord& record, bool first)>& each) {
  if (stores.records() == nullptr) {
    const auto connected = connect_policyd(locations.socket);
    return connected ? fail(EPROTO, "policyd did not answer") : Status(tl::unexpected(connected.error()));
  }
  std::set<std::pair<std::string, std::string>> seen;
  return stores.records()->for_each("", [&](const TagRecord& record) {
    each(record, seen.insert({record.identity.filesystem, record.identity.key}).second);
    return true;
  });
}

}  // namespace fpolicy::tools
