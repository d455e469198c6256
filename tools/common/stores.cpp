// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/stores.h"

#include "common/policyd.h"

#include <sys/stat.h>
#include <unistd.h>

namespace fpolicy::tools {

bool uses_database(const Locations& locations) {
  return geteuid() == 0 || locations.database != default_database;
}

Result<std::unique_ptr<Stores>> Stores::open(const Locations& locations, Database::Access access) {
  auto stores = std::make_unique<Stores>();
  if (uses_database(locations)) {
    auto database = Database::open(locations.database, access, &stores->identifier_);
    if (!database) return tl::unexpected(database.error());
    stores->records_ = *std::move(database);
  } else {
    auto connection = varlink::Connection::connect(locations.socket);
    // Without policyd xattrs are seen all the same.
    if (connection) stores->records_ = std::make_unique<RemoteRecords>(*std::move(connection));
  }
  stores->store_ = std::make_unique<PolicyStore>(stores->records_.get(), &stores->identifier_);
  return stores;
}

void LinkOptions::add_to(CLI::App& app) {
  auto* h = app.add_flag("-H", named, "Follow symbolic links that are named (default)");
  auto* l = app.add_flag("-L", all, "Follow all symbolic links");
  auto* p = app.add_flag("-P", none, "Follow no symbolic link");
  h->excludes(l)->excludes(p);
  l->excludes(p);
  app.add_flag("--one-file-system", one_file_system, "With -R, stay on the filesystem of each named file");
}

TreeOptions LinkOptions::tree() const {
  TreeOptions options;
  options.follow_links = all;
  options.one_file_system = one_file_system;
  return options;
}

Result<NamedFile> open_target(const std::string& name, bool follow) {
  auto file = open_named(name, follow);
  if (!file) return file;
  if (!S_ISREG(file->mode) && !S_ISDIR(file->mode)) {
    return fail(EINVAL, "is neither a regular file nor a directory");
  }
  const auto holds = holds_file_pages(file->fd.get());
  if (!holds) return tl::unexpected(holds.error());
  if (!*holds) return fail(EINVAL, "its filesystem has no page-cache pages to place");
  return file;
}

}  // namespace fpolicy::tools
