// SPDX-License-Identifier: LGPL-2.1-or-later
// Checking a database, and copying it while others write.
#include "store/database_file.h"
#include "store/migrations.h"
#include "store/sqlite.h"
#include "store/statements.h"
#include "sys/state_file.h"

#include <fpolicy/database_care.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy {
namespace {

using store::Connection;
using store::Statement;

// As many as SQLite looks for by default; a file with more has been overwritten.
constexpr const char* integrity_sql = "PRAGMA integrity_check(100)";
constexpr const char* schema_sql = "SELECT type || ' ' || name, sql FROM sqlite_schema ORDER BY 1";

/// Opens for reading what is there. Error: ENOENT and those of check_kind.
Result<Connection> open_existing(const std::string& path) {
  const auto size = sys::private_file_size(path);
  if (!size) return tl::unexpected(size.error());
  if (!*size) return fail_errno("open", path, ENOENT);
  if (**size == 0) return fail(EUCLEAN, fmt::format("database {}: damaged: it is empty", path));
  if (const auto kind = store::check_kind(path); !kind) return tl::unexpected(kind.error());
  auto connection = Connection::open(path, Connection::Access::read_only);
  if (!connection) return with_context("database " + path, connection.error());
  return connection;
}

/// Calls `each` for every row. An error of SQLite is a fault as well.
void rows(Connection& connection, const char* sql, std::vector<std::string>& faults,
          const std::function<void(const Statement&)>& each) {
  auto statement = connection.prepare(sql);
  if (!statement) {
    faults.push_back(statement.error().message);
    return;
  }
  for (;;) {
    const auto row = statement->step();
    if (!row) faults.push_back(row.error().message);
    if (!row || !*row) return;
    each(*statement);
  }
}

using Schema = std::vector<std::pair<std::string, std::string>>;  ///< what and its SQL, by name

Schema schema_of(Connection& connection, std::vector<std::string>& faults) {
  Schema schema;
  rows(connection, schema_sql, faults, [&](const Statement& row) {
    schema.emplace_back(std::string(row.bytes(0)), std::string(row.bytes(1)));
  });
  return schema;
}

/// What differs from a database that this version would make.
Status compare_schema(Connection& connection, std::vector<std::string>& faults) {
  auto fresh = Connection::open(":memory:", Connection::Access::read_write);
  if (!fresh) return tl::unexpected(fresh.error());
  if (auto made = store::migrate(*fresh, store::migrations()); !made) return made;
  const Schema wanted = schema_of(*fresh, faults);
  const Schema found = schema_of(connection, faults);
  for (const auto& entry : wanted)
    if (std::find(found.begin(), found.end(), entry) == found.end())
      faults.push_back(fmt::format("schema: {} is missing or not as it was made", entry.first));
  for (const auto& entry : found)
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](const auto& known) { return known.first == entry.first; }))
      faults.push_back(fmt::format("schema: {} is not fpolicy's", escape_text(entry.first)));
  return {};
}

/// Why a record is not one, if it is not.
Status check_record(const TagRecord& record) {
  const std::string& key = record.identity.key;
  if (key.empty() || std::string_view("hpi").find(key.front()) == std::string_view::npos)
    return fail(EUCLEAN, "its key is of no known kind");
  if (!record.path.empty() && record.path.front() != '/') return fail(EUCLEAN, "its path is not absolute");
  // An entry for an xattr repeats what the xattr holds, which may be another version's.
  if (record.carrier == Carrier::xattr) return {};
  const auto policy = parse_policy(record.policy);
  if (!policy) return fail(EUCLEAN, "its policy: " + policy.error().message);
  return {};
}

/// Error where nothing can be said.
Result<DatabaseCheck> check(Connection& connection) {
  DatabaseCheck result;
  // Of one moment, whatever is written meanwhile.
  if (auto begun = connection.execute("BEGIN"); !begun) return tl::unexpected(begun.error());
  const auto version = connection.query_integer("PRAGMA user_version");
  if (!version) return tl::unexpected(version.error());
  result.schema = *version;
  const auto known = store::migrations().size();
  if (*version > static_cast<std::int64_t>(known))
    return tl::unexpected(store::newer_schema(*version, known));
  if (*version != static_cast<std::int64_t>(known))
    return fail(
        ENOTSUP,
        fmt::format("has schema {}, this fpolicy reads {}; policyd brings it up to date when it starts",
                    *version, known));
  rows(connection, integrity_sql, result.faults, [&](const Statement& row) {
    // One row may hold many, below a heading.
    for (std::string_view rest = row.bytes(0); !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      if (line != "ok" && !line.starts_with("***")) result.faults.push_back(escape_text(line));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    }
  });
  rows(connection, "PRAGMA foreign_key_check", result.faults, [&](const Statement& row) {
    result.faults.push_back(
        fmt::format("a row of {} names no row of {}", escape_text(row.bytes(0)), escape_text(row.bytes(2))));
  });
  if (auto compared = compare_schema(connection, result.faults); !compared)
    return tl::unexpected(compared.error());
  rows(connection, "SELECT 1 FROM filesystem", result.faults,
       [&](const Statement&) { ++result.filesystems; });
  rows(connection, store::every_sql, result.faults, [&](const Statement& row) {
    ++result.records;
    const auto record = store::read_row(row);
    if (!record) {
      result.faults.push_back(record.error().message);
    } else if (const auto checked = check_record(*record); !checked) {
      result.faults.push_back(
          fmt::format("record of {}: {}", escape_text(record->path), checked.error().message));
    }
  });
  return result;
}

/// What is missing of the last page reads as zeros, to which SQLite has no objection. While there is a log,
/// the page may yet come from it.
Status check_length(Connection& connection, const std::string& path, std::vector<std::string>& faults) {
  const auto page_size = connection.query_integer("PRAGMA page_size");
  if (!page_size) return with_context("database " + path, page_size.error());
  const auto size = sys::private_file_size(path);
  if (!size) return tl::unexpected(size.error());
  const auto log = sys::private_file_size(path + "-wal");
  if (!log) return tl::unexpected(log.error());
  if (log->value_or(0) == 0 && size->value_or(0) % static_cast<std::uint64_t>(*page_size) != 0)
    faults.emplace_back("its last page is cut off");
  return {};
}

/// Copies into an empty file; whole and synced, or an error.
Status copy(Connection& from, Connection& to) {
  if (auto done = to.execute("PRAGMA synchronous = FULL"); !done) return done;
  sqlite3_backup* backup = sqlite3_backup_init(to.get(), "main", from.get(), "main");
  if (backup == nullptr) return store::sqlite_error(to.get());
  // In one step: a copy that lets others write in between begins again each time that they do.
  sqlite3_backup_step(backup, -1);
  // Tells of the step's error, too.
  if (sqlite3_backup_finish(backup) != SQLITE_OK) return store::sqlite_error(to.get());
  return {};
}

}  // namespace

Result<DatabaseCheck> check_database(const std::string& path) {
  auto connection = open_existing(path);
  if (!connection) return tl::unexpected(connection.error());
  auto result = check(*connection);
  if (!result) return with_context("database " + path, result.error());
  if (auto checked = check_length(*connection, path, result->faults); !checked)
    return tl::unexpected(checked.error());
  return result;
}

Result<DatabaseCheck> backup_database(const std::string& path, const std::string& to, bool replace) {
  auto from = open_existing(path);
  if (!from) return tl::unexpected(from.error());
  if (sys::same_file(path, to)) return fail(EINVAL, fmt::format("{}: is the database itself", to));
  if (!replace && ::access(to.c_str(), F_OK) == 0) return fail_errno("create", to, EEXIST);
  // SQLite would apply it to the copy. An empty one is left by whoever only reads.
  for (const char* suffix : {"-wal", "-journal"})
    if (const auto log = sys::private_file_size(to + suffix); log && log->value_or(0) > 0)
      return fail(EBUSY, fmt::format("{0}: is in use as a database: its log {0}{1} is there", to, suffix));
  const std::string temporary = fmt::format("{}.new-{}", to, ::getpid());
  store::remove_database(temporary);
  if (auto made = sys::create_private_file(temporary); !made) return tl::unexpected(made.error());
  const auto fill = [&]() -> Result<DatabaseCheck> {
    {
      auto target = Connection::open(temporary, Connection::Access::read_write);
      if (!target) return with_context(to, target.error());
      if (auto copied = copy(*from, *target); !copied) return with_context(to, copied.error());
    }
    auto target = Connection::open(temporary, Connection::Access::immutable);
    if (!target) return with_context(to, target.error());
    auto checked = check(*target);
    if (!checked) return with_context("database " + path, checked.error());
    if (auto length = check_length(*from, path, checked->faults); !length)
      return tl::unexpected(length.error());
    if (!checked->faults.empty())
      return fail(EUCLEAN, fmt::format("database {}: has {} faults, the first: {}", path,
                                       checked->faults.size(), checked->faults.front()));
    return checked;
  };
  auto result = fill();
  if (result)
    if (auto published = sys::publish_file_as(temporary, to, replace); !published)
      result = tl::unexpected(published.error());
  store::remove_database(temporary);
  return result;
}

}  // namespace fpolicy
