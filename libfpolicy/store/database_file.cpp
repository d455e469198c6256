// SPDX-License-Identifier: LGPL-2.1-or-later
#include "store/database_file.h"

#include "store/migrations.h"

#include <fpolicy/rules.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace fpolicy::store {

Status check_kind(const std::string& path) {
  const auto header = read_header(path);
  if (!header) return with_context("database " + path, header.error());
  if (header->application_id != application_id)
    return fail(EINVAL, fmt::format("database {}: is not fpolicy's", path));
  if (header->user_version > static_cast<std::int64_t>(migrations().size()))
    return with_context("database " + path, newer_schema(header->user_version, migrations().size()));
  return {};
}

void remove_database(const std::string& path) {
  for (const char* suffix : {"", "-journal", "-wal", "-shm"}) ::unlink((path + suffix).c_str());
}

std::string stored_key(std::string_view key) {
  std::string stored(key);
  // Behind the letter and the handle's type.
  if (stored.starts_with('h') && stored.size() >= 9) std::reverse(stored.begin() + 5, stored.begin() + 9);
  return stored;
}

Result<TagRecord> read_row(const Statement& row) {
  TagRecord record;
  record.identity.filesystem = row.bytes(1);
  record.identity.key = stored_key(row.bytes(2));
  record.space = row.integer(3) == 0 ? Space::system : Space::user;
  record.carrier = row.integer(4) == 0 ? Carrier::xattr : Carrier::database;
  record.policy = row.bytes(5);
  record.path = row.bytes(6);
  record.directory = row.integer(7) != 0;
  record.identity.birth_ns = row.integer(8);
  record.uid = static_cast<std::uint32_t>(row.integer(9));
  record.changed_ns = row.integer(10);
  if (record.identity.filesystem.empty() || record.policy.size() > max_policy ||
      record.path.size() > max_path || record.identity.key.size() > max_path ||
      record.path.find('\0') != std::string::npos)
    return fail(EUCLEAN, fmt::format("damaged: the record of {} is out of bounds",
                                     escape_text(record.path.substr(0, 256))));
  return record;
}

}  // namespace fpolicy::store
