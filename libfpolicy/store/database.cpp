// SPDX-License-Identifier: LGPL-2.1-or-later
#include "store/database_file.h"
#include "store/migrations.h"
#include "store/sqlite.h"
#include "store/statements.h"
#include "sys/file_status.h"
#include "sys/state_file.h"

#include <fpolicy/rules.h>
#include <fpolicy/store.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <ranges>
#include <set>
#include <shared_mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fpolicy {
namespace {

using store::check_kind;
using store::Connection;
using store::max_path;
using store::max_policy;
using store::read_row;
using store::remove_database;
using store::Statement;
using store::StatementUse;
using store::stored_key;
using store::Transaction;

// Of those that tag a tree.
constexpr std::size_t full_batch = 4096;
// Rows that are passed on the way to a path before it is looked up.
constexpr int most_steps = 8;
// How long FileRef::device may answer for the files of a walk.
constexpr std::chrono::milliseconds device_answer_lasts{50};

/// Makes a new database under another name and then gives it its own: what is there is always whole, and an
/// empty file is therefore a damaged one.
Status create(const std::string& path) {
  if (const auto log = sys::private_file_size(path + "-wal"); !log || *log)
    return fail(EUCLEAN, fmt::format("{}: missing, but its log {}-wal is there", path, path));
  const std::string temporary = fmt::format("{}.new-{}", path, ::getpid());
  // Of a process with this number that was killed here.
  remove_database(temporary);
  if (auto done = sys::create_private_file(temporary); !done) return done;
  const auto fill = [&]() -> Status {
    auto connection = Connection::open(temporary, Connection::Access::read_write);
    if (!connection) return tl::unexpected(connection.error());
    const auto set_id = fmt::format("PRAGMA application_id = {}", store::application_id);
    // A tree's tags go into half as many pages as with the default of 4096, and the log takes two calls a
    // page.
    auto done = connection->execute("PRAGMA page_size = 8192");
    if (done) done = connection->execute(set_id.c_str());
    if (done) done = connection->execute("PRAGMA synchronous = FULL");
    if (done) done = store::migrate(*connection, store::migrations());
    // Last: with a log from the start all would be in the log, and closing, which writes it back, does not
    // say when that fails.
    if (done) done = connection->execute("PRAGMA journal_mode = WAL");
    return done;
  };
  auto done = fill();
  if (done)
    done = sys::publish_file(temporary, path);
  else
    done = with_context("create " + path, done.error());
  remove_database(temporary);
  return done;
}

std::tuple<const std::string&, Space> place_of(const TagRecord& record) {
  return {record.path, record.space};
}

bool is_within_bounds(const TagRecord& record) {
  return record.policy.size() <= max_policy && record.path.size() <= max_path &&
         record.identity.key.size() <= max_path && !record.identity.key.empty();
}

/// Is a record still the one that a correction was made for?
bool is_as_before(const std::optional<TagRecord>& now, const RecordCorrection& correction) {
  const auto& before = correction.before;
  // One of an earlier file with this key is not live. (overlayfs gives a file that is copied up another key.)
  const auto is_of_it = [&](const TagRecord& record) {
    return is_file_of(record.identity, correction.record.identity);
  };
  if (!before || !is_of_it(*before)) return !now || !is_of_it(*now);
  return now && now->identity == before->identity && now->carrier == before->carrier &&
         now->policy == before->policy && now->changed_ns == before->changed_ns;
}

/// Is a row of from_path_sql that of another file than this record's, in the same space?
bool is_of_other(const Statement& row, const TagRecord& record) {
  return row.integer(1) == (record.space == Space::system ? 0 : 1) &&
         (row.bytes(2) != stored_key(record.identity.key) || row.bytes(3) != record.identity.filesystem);
}

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(std::string path, Access access, Identifier* identifier)
      : path_(std::move(path)), access_(access), identifier_(identifier) {}

  Status connect();

  Result<std::optional<TagRecord>> find(const FileRef& file, Space space) override;
  Result<std::optional<TagRecord>> find_identity(const FileIdentity& identity, Space space) override;
  Result<bool> carries_tags(const FileRef& file) override;
  bool writable() const override { return access_ == Access::read_write; }
  Status put(std::span<const TagRecord> records) override;
  Status erase(std::span<const TagRecord> records) override;
  Status correct(std::span<const RecordCorrection> corrections) override;
  Result<std::vector<TagRecord>> erase_unchanged(std::span<const TagRecord> records,
                                                 const std::function<bool(const TagRecord&)>& still) override;
  Status for_each(std::string_view path_prefix, const std::function<bool(const TagRecord&)>& each) override;
  Result<std::uint64_t> data_version() override;

 private:
  using Clock = std::chrono::steady_clock;
  struct DeviceAnswer {
    bool carries = false;
    Clock::time_point until;
    std::uint64_t own_commits = 0;  ///< until then: what one has set oneself is there at once
  };
  /// While it lives, this process has begun to write: nobody else can, so that what was known then holds.
  class Writing {
   public:
    explicit Writing(SqliteDatabase& database) : database_(database) {
      database_.writing_since_ = Clock::now();
    }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;
    ~Writing() { database_.writing_since_ = Clock::time_point::max(); }

   private:
    SqliteDatabase& database_;
  };

  // With mutex_ held:
  Result<std::int64_t> filesystem_id(const std::string& name);
  Status release_paths(std::span<const TagRecord* const> records);
  Result<std::optional<TagRecord>> read_one(const FileIdentity& identity, Space space);
  struct Row {
    const TagRecord* record = nullptr;
    std::int64_t filesystem = 0;
    std::string key;  ///< as it is stored
  };
  static void bind_row(Statement& statement, int index, const Row& row);
  Status put_all(std::span<const Row> rows);
  Status erase_one(const TagRecord& record);
  Result<std::vector<const TagRecord*>> paths_of_others(std::span<const TagRecord> records);
  Result<std::uint64_t> current_version();
  Status refresh_carried();

  [[nodiscard]] tl::unexpected<Error> context(const Error& error) const {
    return with_context("database " + path_, error);
  }

  const std::string path_;
  const Access access_;
  Identifier* const identifier_;

  std::mutex mutex_;       ///< over the connection and what follows
  Connection connection_;  ///< not open: a missing file, read only
  Statement find_, page_, carried_statement_, add_filesystem_, filesystem_, put_, put_rows_, erase_,
      erase_unchanged_, from_path_, release_path_, version_;
  std::atomic<std::uint64_t> own_commits_{0};  ///< PRAGMA data_version leaves them out
  std::optional<std::uint64_t> carried_version_;
  std::set<std::string, std::less<>> carried_;

  std::shared_mutex device_mutex_;
  std::unordered_map<dev_t, DeviceAnswer> device_answers_;
  std::atomic<Clock::time_point> writing_since_ = Clock::time_point::max();
};

Status SqliteDatabase::connect() {
  auto connection =
      Connection::open(path_, writable() ? Connection::Access::read_write : Connection::Access::read_only);
  if (!connection) return context(connection.error());
  connection_ = std::move(*connection);
  const auto prepare = [&](Statement& statement, const char* sql) -> Status {
    auto prepared = connection_.prepare(sql);
    if (!prepared) return tl::unexpected(prepared.error());
    statement = std::move(*prepared);
    return {};
  };
  Status done;
  if (writable()) {
    done = connection_.execute("PRAGMA journal_mode = WAL");
    if (done) done = connection_.execute("PRAGMA synchronous = FULL");
    // 2 MiB of log before it is written back, half of the default: while a tree is tagged that happens beside
    // other work, and what is left for the end, when there is none, is little.
    if (done) done = connection_.execute("PRAGMA wal_autocheckpoint = 256");
    // The index of a million tags while a batch goes in; given back after it.
    if (done) done = connection_.execute("PRAGMA cache_size = -16384");
    if (done) done = store::migrate(connection_, store::migrations());
    // What a statement of several rows may have to undo, for the milliseconds that it takes.
    if (done) done = connection_.execute("PRAGMA temp_store = MEMORY");
  } else if (const auto version = connection_.query_integer("PRAGMA user_version"); !version) {
    done = tl::unexpected(version.error());
  } else if (*version != static_cast<std::int64_t>(store::migrations().size())) {
    done = fail(ENOTSUP,
                fmt::format("has schema {}, this fpolicy reads {}", *version, store::migrations().size()));
  }
  if (!done) return context(done.error());
  // What lacks a table or column shows here, and not in the middle of the work.
  for (const auto& [statement, sql] :
       {std::pair(&find_, store::find_sql), std::pair(&page_, store::page_sql),
        std::pair(&carried_statement_, store::carried_sql),
        std::pair(&add_filesystem_, store::add_filesystem_sql),
        std::pair(&filesystem_, store::filesystem_sql), std::pair(&put_, store::put_sql),
        std::pair(&put_rows_, store::put_rows_sql), std::pair(&erase_, store::erase_sql),
        std::pair(&from_path_, store::from_path_sql), std::pair(&release_path_, store::release_path_sql),
        std::pair(&erase_unchanged_, store::erase_unchanged_sql), std::pair(&version_, store::version_sql)})
    if (const auto prepared = prepare(*statement, sql); !prepared) {
      if (sqlite3_errcode(connection_.get()) != SQLITE_ERROR) return context(prepared.error());
      return fail(EUCLEAN, fmt::format("database {}: damaged: {}", path_, prepared.error().message));
    }
  return {};
}

Result<std::optional<TagRecord>> SqliteDatabase::find(const FileRef& file, Space space) {
  const auto identity = identifier_->identify(file);
  if (!identity) {
    // No record can be live for a file without identity here.
    if (identity.error().code == ENODEV || identity.error().code == ENOTSUP) return std::nullopt;
    return tl::unexpected(identity.error());
  }
  auto found = find_identity(*identity, space);
  if (found && *found && !is_file_of((*found)->identity, *identity)) return std::nullopt;
  return found;
}

Result<std::optional<TagRecord>> SqliteDatabase::find_identity(const FileIdentity& identity, Space space) {
  const std::lock_guard lock(mutex_);
  if (!connection_.is_open()) return std::nullopt;
  auto record = read_one(identity, space);
  if (!record) return context(record.error());
  return record;
}

Result<std::optional<TagRecord>> SqliteDatabase::read_one(const FileIdentity& identity, Space space) {
  const std::string key = stored_key(identity.key);
  const StatementUse use(find_);
  find_.bind_text(1, identity.filesystem);
  find_.bind_blob(2, key);
  find_.bind(3, space == Space::system ? 0 : 1);
  const auto row = find_.step();
  if (!row) return tl::unexpected(row.error());
  if (!*row) return std::nullopt;
  auto record = read_row(find_);
  if (!record) return tl::unexpected(record.error());
  return std::move(*record);
}

Result<bool> SqliteDatabase::carries_tags(const FileRef& file) {
  const auto now = Clock::now();
  const std::uint64_t own_commits = own_commits_;
  if (file.device != 0) {
    const std::shared_lock lock(device_mutex_);
    const auto answer = device_answers_.find(file.device);
    // A batch takes longer than an answer lasts, and holds mutex_.
    if (answer != device_answers_.end() && std::min(now, writing_since_.load()) < answer->second.until &&
        answer->second.own_commits == own_commits)
      return answer->second.carries;
  }
  bool any = false;
  {
    const std::lock_guard lock(mutex_);
    if (auto done = refresh_carried(); !done) return tl::unexpected(done.error());
    any = !carried_.empty();
  }
  bool carries = false;
  if (any) {
    const auto filesystem = identifier_->filesystem(file);
    if (filesystem) {
      const std::lock_guard lock(mutex_);
      carries = carried_.contains(*filesystem);
    } else if (filesystem.error().code != ENODEV && filesystem.error().code != ENOTSUP) {
      return tl::unexpected(filesystem.error());
    }
  }
  if (file.device != 0) {
    const std::lock_guard lock(device_mutex_);
    device_answers_[file.device] = {carries, now + device_answer_lasts, own_commits};
  }
  return carries;
}

Result<std::uint64_t> SqliteDatabase::current_version() {
  const StatementUse use(version_);
  const auto row = version_.step();
  if (!row) return context(row.error());
  return (static_cast<std::uint64_t>(version_.integer(0)) << 32U) + own_commits_;
}

Status SqliteDatabase::refresh_carried() {
  if (!connection_.is_open()) return {};
  // Asked before reading, so that a commit in between shows the next time.
  const auto version = current_version();
  if (!version) return tl::unexpected(version.error());
  if (carried_version_ == *version) return {};
  const StatementUse use(carried_statement_);
  std::set<std::string, std::less<>> carried;
  for (;;) {
    const auto row = carried_statement_.step();
    if (!row) return context(row.error());
    if (!*row) break;
    carried.emplace(carried_statement_.bytes(0));
  }
  carried_ = std::move(carried);
  carried_version_ = *version;
  return {};
}

Result<std::uint64_t> SqliteDatabase::data_version() {
  const std::lock_guard lock(mutex_);
  if (!connection_.is_open()) return 0;
  return current_version();
}

Result<std::int64_t> SqliteDatabase::filesystem_id(const std::string& name) {
  {
    const StatementUse use(filesystem_);
    filesystem_.bind_text(1, name);
    const auto row = filesystem_.step();
    if (!row) return tl::unexpected(row.error());
    if (*row) return filesystem_.integer(0);
  }
  const StatementUse use(add_filesystem_);
  add_filesystem_.bind_text(1, name);
  if (const auto row = add_filesystem_.step(); !row) return tl::unexpected(row.error());
  return sqlite3_last_insert_rowid(connection_.get());
}

void SqliteDatabase::bind_row(Statement& statement, int index, const Row& row) {
  const TagRecord& record = *row.record;
  statement.bind(index, row.filesystem);
  statement.bind_blob(index + 1, row.key);
  statement.bind(index + 2, record.space == Space::system ? 0 : 1);
  statement.bind(index + 3, record.carrier == Carrier::xattr ? 0 : 1);
  statement.bind_text(index + 4, record.policy);
  statement.bind_blob(index + 5, record.path);
  statement.bind(index + 6, record.directory ? 1 : 0);
  statement.bind(index + 7, record.identity.birth_ns);
  statement.bind(index + 8, record.uid);
  statement.bind(index + 9, record.changed_ns);
}

Status SqliteDatabase::put_all(std::span<const Row> rows) {
  while (!rows.empty()) {
    const bool many = rows.size() >= store::put_rows;
    Statement& statement = many ? put_rows_ : put_;
    const auto some = rows.first(many ? store::put_rows : 1);
    const StatementUse use(statement);
    int index = 1;
    for (const Row& row : some) bind_row(statement, std::exchange(index, index + store::put_columns), row);
    if (const auto done = statement.step(); !done) return tl::unexpected(done.error());
    rows = rows.subspan(some.size());
  }
  return {};
}

Status SqliteDatabase::put(std::span<const TagRecord> records) {
  if (!writable()) return fail(EROFS, fmt::format("database {}: opened for reading only", path_));
  for (const TagRecord& record : records)
    if (!is_within_bounds(record))
      return fail(EINVAL, fmt::format("database {}: record of {} is out of bounds", path_, record.path));
  const std::lock_guard lock(mutex_);
  auto transaction = Transaction::begin(connection_);
  if (!transaction) return context(transaction.error());
  const Writing writing(*this);
  // Looked for before: of a tree that is new to the database no row is passed then.
  const auto shared = paths_of_others(records);
  if (!shared) return context(shared.error());
  std::unordered_map<std::string_view, std::int64_t> ids;
  std::vector<Row> rows;
  rows.reserve(records.size());
  for (const TagRecord& record : records) {
    auto id = ids.find(record.identity.filesystem);
    if (id == ids.end()) {
      const auto found = filesystem_id(record.identity.filesystem);
      if (!found) return context(found.error());
      id = ids.emplace(record.identity.filesystem, *found).first;
    }
    rows.push_back({&record, id->second, stored_key(record.identity.key)});
  }
  if (const auto done = put_all(rows); !done) return context(done.error());
  if (const auto done = release_paths(*shared); !done) return context(done.error());
  if (const auto done = transaction->commit(); !done) return context(done.error());
  ++own_commits_;
  // Behind a full batch mostly comes another, which needs the same pages.
  if (records.size() < full_batch) sqlite3_db_release_memory(connection_.get());
  return {};
}

Status SqliteDatabase::erase(std::span<const TagRecord> records) {
  if (!writable()) return fail(EROFS, fmt::format("database {}: opened for reading only", path_));
  const std::lock_guard lock(mutex_);
  auto transaction = Transaction::begin(connection_);
  if (!transaction) return context(transaction.error());
  const Writing writing(*this);
  for (const TagRecord& record : records)
    if (const auto done = erase_one(record); !done) return context(done.error());
  const auto shared = paths_of_others(records);
  if (!shared) return context(shared.error());
  if (const auto done = release_paths(*shared); !done) return context(done.error());
  if (const auto done = transaction->commit(); !done) return context(done.error());
  ++own_commits_;
  return {};
}

Status SqliteDatabase::erase_one(const TagRecord& record) {
  const std::string key = stored_key(record.identity.key);
  const StatementUse use(erase_);
  erase_.bind_text(1, record.identity.filesystem);
  erase_.bind_blob(2, key);
  erase_.bind(3, record.space == Space::system ? 0 : 1);
  if (const auto row = erase_.step(); !row) return tl::unexpected(row.error());
  return {};
}

Status SqliteDatabase::correct(std::span<const RecordCorrection> corrections) {
  if (!writable()) return fail(EROFS, fmt::format("database {}: opened for reading only", path_));
  std::vector<TagRecord> made;
  const std::lock_guard lock(mutex_);
  auto transaction = Transaction::begin(connection_);
  if (!transaction) return context(transaction.error());
  const Writing writing(*this);
  for (const RecordCorrection& correction : corrections) {
    const TagRecord& record = correction.record;
    if (!is_within_bounds(record))
      return fail(EINVAL, fmt::format("database {}: record of {} is out of bounds", path_, record.path));
    const auto now = read_one(record.identity, record.space);
    if (!now) return context(now.error());
    if (!is_as_before(*now, correction)) continue;
    if (correction.erase) {
      if (const auto done = erase_one(record); !done) return context(done.error());
    } else {
      const auto id = filesystem_id(record.identity.filesystem);
      if (!id) return context(id.error());
      const Row row{&record, *id, stored_key(record.identity.key)};
      if (const auto done = put_all(std::span(&row, 1)); !done) return context(done.error());
    }
    made.push_back(record);
  }
  const auto shared = paths_of_others(made);
  if (!shared) return context(shared.error());
  if (const auto done = release_paths(*shared); !done) return context(done.error());
  if (const auto done = transaction->commit(); !done) return context(done.error());
  ++own_commits_;
  return {};
}

/// Those whose path other files have as well, in the table or among the records, by path and space. Asked
/// before any is released: most often there are none, and an UPDATE makes a temporary table before it looks.
Result<std::vector<const TagRecord*>> SqliteDatabase::paths_of_others(std::span<const TagRecord> records) {
  std::vector<const TagRecord*> sorted;
  sorted.reserve(records.size());
  // Of several files that had one path the last has it.
  for (const TagRecord& record : records | std::views::reverse)
    if (!record.path.empty()) sorted.push_back(&record);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const TagRecord* a, const TagRecord* b) { return place_of(*a) < place_of(*b); });
  std::vector<const TagRecord*> shared;
  std::size_t kept = 0;
  for (const TagRecord* record : sorted) {
    if (kept == 0 || place_of(*sorted[kept - 1]) != place_of(*record))
      sorted[kept++] = record;
    else if (shared.empty() || shared.back() != sorted[kept - 1])
      shared.push_back(sorted[kept - 1]);
  }
  sorted.resize(kept);
  const StatementUse use(from_path_);
  Result<bool> row = false;  // is there one to look at?
  const std::string* sought = nullptr;
  for (const TagRecord* record : sorted) {
    // The next file of a walk stands right behind this one: a few steps cost less than a look-up.
    for (int steps = 0; row && *row && from_path_.bytes(0) < record->path && steps < most_steps; ++steps)
      row = from_path_.step();
    const bool behind = row && *row && from_path_.bytes(0) < record->path;
    // Of one path there may be a record for each space.
    if (sought == nullptr || behind || *sought == record->path) {
      from_path_.reset();
      from_path_.bind_blob(1, record->path);
      row = from_path_.step();
    }
    sought = &record->path;
    bool others = false;
    for (; row && *row && from_path_.bytes(0) == record->path; row = from_path_.step())
      others = others || is_of_other(from_path_, *record);
    if (!row) return tl::unexpected(row.error());
    if (others) shared.push_back(record);
  }
  return shared;
}

/// In the transaction that changes these records.
Status SqliteDatabase::release_paths(std::span<const TagRecord* const> records) {
  for (const TagRecord* record : records) {
    const std::string key = stored_key(record->identity.key);
    const StatementUse use(release_path_);
    release_path_.bind_blob(1, record->path);
    release_path_.bind(2, record->space == Space::system ? 0 : 1);
    release_path_.bind_blob(3, key);
    release_path_.bind_text(4, record->identity.filesystem);
    if (const auto row = release_path_.step(); !row) return tl::unexpected(row.error());
  }
  return {};
}

Result<std::vector<TagRecord>> SqliteDatabase::erase_unchanged(
    std::span<const TagRecord> records, const std::function<bool(const TagRecord&)>& still) {
  if (!writable()) return fail(EROFS, fmt::format("database {}: opened for reading only", path_));
  std::vector<TagRecord> erased;
  const std::lock_guard lock(mutex_);
  auto transaction = Transaction::begin(connection_);
  if (!transaction) return context(transaction.error());
  const Writing writing(*this);
  for (const TagRecord& record : records) {
    if (!still(record)) continue;
    const std::string key = stored_key(record.identity.key);
    const StatementUse use(erase_unchanged_);
    erase_unchanged_.bind_text(1, record.identity.filesystem);
    erase_unchanged_.bind_blob(2, key);
    erase_unchanged_.bind(3, record.space == Space::system ? 0 : 1);
    erase_unchanged_.bind(4, record.carrier == Carrier::xattr ? 0 : 1);
    erase_unchanged_.bind_text(5, record.policy);
    erase_unchanged_.bind(6, record.identity.birth_ns);
    erase_unchanged_.bind(7, record.changed_ns);
    if (const auto row = erase_unchanged_.step(); !row) return context(row.error());
    if (sqlite3_changes(connection_.get()) != 0) erased.push_back(record);
  }
  if (const auto done = transaction->commit(); !done) return context(done.error());
  ++own_commits_;
  return erased;
}

Status SqliteDatabase::for_each(std::string_view path_prefix,
                                const std::function<bool(const TagRecord&)>& each) {
  std::string path(path_prefix);
  std::string key;
  std::int64_t filesystem = -1;
  std::int64_t space = -1;
  std::vector<TagRecord> records;
  for (;;) {
    records.clear();
    {
      const std::lock_guard lock(mutex_);
      if (!connection_.is_open()) return {};
      const StatementUse use(page_);
      const std::string after_path = path;
      const std::string after_key = key;
      page_.bind_blob(1, after_path);
      page_.bind(2, filesystem);
      page_.bind_blob(3, after_key);
      page_.bind(4, space);
      for (;;) {
        const auto row = page_.step();
        if (!row) return context(row.error());
        if (!*row) break;
        auto record = read_row(page_);
        if (!record) return context(record.error());
        // Of an index that is damaged the same rows could come again and again.
        if (std::tuple(std::string_view(record->path), page_.integer(0), page_.bytes(2), page_.integer(3)) <=
            std::tuple(std::string_view(path), filesystem, std::string_view(key), space))
          return fail(EUCLEAN, fmt::format("database {}: damaged: its records are out of order", path_));
        if (!record->path.starts_with(path_prefix)) break;
        filesystem = page_.integer(0);
        key = page_.bytes(2);
        space = page_.integer(3);
        path = record->path;
        records.push_back(std::move(*record));
      }
    }
    if (records.empty()) return {};
    for (const TagRecord& record : records)
      if (!each(record)) return {};
  }
}

}  // namespace

Result<std::unique_ptr<Database>> Database::open(const std::string& path, Access access,
                                                 Identifier* identifier) {
  const bool writable = access == Access::read_write;
  auto database = std::make_unique<SqliteDatabase>(path, access, identifier);
  if (writable)
    if (const auto done = sys::make_directory_of(path); !done) return tl::unexpected(done.error());
  const auto checked = sys::private_file_size(path);
  if (!checked) return tl::unexpected(checked.error());
  const std::optional<std::uint64_t> size = *checked;
  if (!size) {
    if (!writable) return database;
    if (const auto done = create(path); !done) return tl::unexpected(done.error());
  } else if (*size == 0) {
    return fail(EUCLEAN, fmt::format("database {}: damaged: it is empty", path));
  }
  if (const auto done = check_kind(path); !done) return tl::unexpected(done.error());
  if (const auto done = database->connect(); !done) return tl::unexpected(done.error());
  return database;
}

}  // namespace fpolicy
