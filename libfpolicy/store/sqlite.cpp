// SPDX-License-Identifier: LGPL-2.1-or-later
#include "store/sqlite.h"

#include "sys/state_file.h"

#include <endian.h>
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace fpolicy::store {
namespace {

int errno_of(int code, int system_errno) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ENOSPC;
    case SQLITE_READONLY:
      return EROFS;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return EBUSY;
    case SQLITE_NOMEM:
      return ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CONSTRAINT:
      return EUCLEAN;
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return EACCES;
    case SQLITE_CANTOPEN:
      return system_errno != 0 ? system_errno : EACCES;
    case SQLITE_IOERR:
      if (code == SQLITE_IOERR_NOMEM) return ENOMEM;
      return system_errno == ENOSPC || system_errno == EDQUOT ? system_errno : EIO;
    default:
      return EIO;
  }
}

// How long a writer waits for another: a batch takes some 10 milliseconds, a checkpoint on a slow disk
// seconds.
constexpr int busy_timeout_ms = 10'000;

/// SQLite's calls on a file, with one put before the mapping of shared memory.
struct SafeMethods {
  sqlite3_io_methods methods;  // first: the file points to it
  const sqlite3_io_methods* original;
};

/// SQLite allocates the file behind its shared memory a byte for each page. Where the filesystem's blocks are
/// smaller than a page, the rest of the page is a hole, and on a full disk writing to it is SIGBUS. Here it
/// is an error (madvise(2), MADV_POPULATE_WRITE, Linux 5.14).
int map_shared(sqlite3_file* file, int region, int size, int extend, void volatile** memory) {
  const auto* safe = reinterpret_cast<const SafeMethods*>(file->pMethods);
  const int code = safe->original->xShmMap(file, region, size, extend, memory);
  if (code != SQLITE_OK || *memory == nullptr) return code;
  if (!sys::populate_writable(const_cast<void*>(*memory), static_cast<std::size_t>(size))) {
    *memory = nullptr;
    return SQLITE_FULL;
  }
  return code;
}

/// Puts map_shared() before the file's own.
void make_safe(sqlite3* connection) {
  sqlite3_file* file = nullptr;
  if (sqlite3_file_control(connection, nullptr, SQLITE_FCNTL_FILE_POINTER, static_cast<void*>(&file)) !=
          SQLITE_OK ||
      file == nullptr || file->pMethods == nullptr || file->pMethods->iVersion < 2 ||
      file->pMethods->xShmMap == nullptr)
    return;
  static std::mutex mutex;
  static std::map<const sqlite3_io_methods*, SafeMethods> known;
  const std::lock_guard lock(mutex);
  auto [found, added] = known.try_emplace(file->pMethods, SafeMethods{*file->pMethods, file->pMethods});
  if (added) found->second.methods.xShmMap = map_shared;
  file->pMethods = &found->second.methods;
}

}  // namespace

tl::unexpected<Error> sqlite_error(sqlite3* connection) {
  const int code = sqlite3_extended_errcode(connection);
  const int system_errno = sqlite3_system_errno(connection);
  std::string message = sqlite3_errmsg(connection);
  if (const int primary = code & 0xff; primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
    message = "damaged (" + message + ")";
  else if ((primary == SQLITE_CANTOPEN || primary == SQLITE_IOERR) && system_errno != 0)
    message += ": " + errno_text(system_errno);
  else if (primary == SQLITE_BUSY)
    message += fmt::format(": another process has held it for {} seconds", busy_timeout_ms / 1000);
  return fail(errno_of(code, system_errno), std::move(message));
}

void Statement::bind_text(int index, std::string_view value) {
  // A null pointer would bind NULL.
  bound(sqlite3_bind_text(get(), index, value.data() != nullptr ? value.data() : "",
                          static_cast<int>(value.size()), SQLITE_STATIC));
}

void Statement::bind_blob(int index, std::string_view value) {
  bound(sqlite3_bind_blob(get(), index, value.data() != nullptr ? value.data() : "",
                          static_cast<int>(value.size()), SQLITE_STATIC));
}

Result<bool> Statement::step() {
  // Else it would run with what was bound before, or with nothing.
  if (bind_error_ != SQLITE_OK) return fail(errno_of(bind_error_, 0), sqlite3_errstr(bind_error_));
  const int code = sqlite3_step(get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return sqlite_error(sqlite3_db_handle(get()));
}

void Statement::reset() {
  sqlite3_reset(get());
  bind_error_ = SQLITE_OK;
}

std::string_view Statement::bytes(int column) const {
  // The order of these calls is what SQLite's manual asks for.
  const void* data = sqlite3_column_blob(get(), column);
  const int size = sqlite3_column_bytes(get(), column);
  return data == nullptr ? std::string_view()
                         : std::string_view(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

Result<Header> read_header(const std::string& path) {
  const auto connection = Connection::open(path, Connection::Access::immutable);
  if (!connection) return tl::unexpected(connection.error());
  sqlite3_file* file = nullptr;
  const int found =
      sqlite3_file_control(connection->get(), nullptr, SQLITE_FCNTL_FILE_POINTER, static_cast<void*>(&file));
  if (found != SQLITE_OK || file == nullptr || file->pMethods == nullptr) return fail(EIO, "cannot be read");
  // sqlite.org/fileformat2.html, 1.3
  using namespace std::string_view_literals;
  constexpr std::string_view magic = "SQLite format 3\0"sv;
  std::array<char, 100> bytes{};
  const int code = file->pMethods->xRead(file, bytes.data(), bytes.size(), 0);
  if (code == SQLITE_IOERR_SHORT_READ ||
      (code == SQLITE_OK && !std::string_view(bytes.data(), bytes.size()).starts_with(magic)))
    return fail(EUCLEAN, "damaged, or no SQLite database");
  if (code != SQLITE_OK) return fail(errno_of(code, 0), sqlite3_errstr(code));
  const auto number = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return static_cast<std::int32_t>(be32toh(value));
  };
  return Header{.application_id = number(68), .user_version = number(60)};
}

Result<Connection> Connection::open(const std::string& path, Access access) {
  if (access != Access::immutable && sys::on_read_only_filesystem(path)) {
    if (access == Access::read_write) return fail(EROFS, errno_text(EROFS));
    const auto log = sys::private_file_size(path + "-wal");
    const auto shared = sys::private_file_size(path + "-shm");
    // SQLite reads a log there only with the shared memory that a writer has left.
    if (log && log->value_or(0) == 0)
      access = Access::immutable;
    else if (!shared || !*shared)
      return fail(EROFS, fmt::format("its log {}-wal cannot be read on a read-only filesystem", path));
  }
  // As a URI (sqlite.org/uri.html), where everything but a slash may be escaped.
  std::string uri = "file:";
  for (const char c : path) uri += c == '/' ? "/" : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  if (access == Access::immutable) uri += "?immutable=1";
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(uri.c_str(), &raw,
                      (access == Access::read_write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) |
                          SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                      nullptr);
  Connection connection;
  connection.connection_.reset(raw);
  if (raw == nullptr) return fail_errno("open", path, ENOMEM);
  if (code != SQLITE_OK) return sqlite_error(raw);
  make_safe(raw);
  sqlite3_busy_timeout(raw, busy_timeout_ms);
  // The file may have been edited by somebody else: nothing in it is run.
  for (const auto& [option, on] :
       {std::pair(SQLITE_DBCONFIG_DEFENSIVE, 1), std::pair(SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
        std::pair(SQLITE_DBCONFIG_ENABLE_TRIGGER, 0), std::pair(SQLITE_DBCONFIG_ENABLE_VIEW, 0)})
    sqlite3_db_config(raw, option, on, nullptr);
  sqlite3_limit(raw, SQLITE_LIMIT_LENGTH, 1 << 20);
  if (auto done = connection.execute("PRAGMA cell_size_check = ON"); !done)
    return tl::unexpected(done.error());
  return connection;
}

Status Connection::execute(const char* sql) {
  if (sqlite3_exec(get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) return sqlite_error(get());
  return {};
}

Result<Statement> Connection::prepare(const char* sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v3(get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr) != SQLITE_OK)
    return sqlite_error(get());
  return Statement(raw);
}

Result<std::int64_t> Connection::query_integer(const char* sql) {
  auto statement = prepare(sql);
  if (!statement) return tl::unexpected(statement.error());
  const auto row = statement->step();
  if (!row) return tl::unexpected(row.error());
  return *row ? statement->integer(0) : 0;
}

Result<Transaction> Transaction::begin(Connection& connection) {
  // Prepared now: without memory it could not be when it is needed, and the transaction would stay.
  auto rollback = connection.prepare("ROLLBACK");
  if (!rollback) return tl::unexpected(rollback.error());
  // IMMEDIATE: waits for other writers here, where the busy timeout works, and not in the middle.
  if (auto done = connection.execute("BEGIN IMMEDIATE"); !done) return tl::unexpected(done.error());
  return Transaction(connection, *std::move(rollback));
}

Transaction::~Transaction() {
  // SQLite has rolled back by itself after some errors.
  if (connection_ != nullptr && sqlite3_get_autocommit(connection_->get()) == 0)
    static_cast<void>(rollback_.step());
}

Status Transaction::commit() {
  auto done = connection_->execute("COMMIT");
  if (done) connection_ = nullptr;
  return done;
}

Error newer_schema(std::int64_t version, std::size_t known) {
  return {ENOTSUP, fmt::format("written by a newer fpolicy (schema {}; this one knows {})", version, known)};
}

Status migrate(Connection& connection, std::span<const Migration> steps) {
  for (;;) {
    auto transaction = Transaction::begin(connection);
    if (!transaction) return tl::unexpected(transaction.error());
    // Read within the transaction: another process may be migrating as well.
    const auto version = connection.query_integer("PRAGMA user_version");
    if (!version) return tl::unexpected(version.error());
    if (*version < 0 || static_cast<std::size_t>(*version) > steps.size())
      return tl::unexpected(newer_schema(*version, steps.size()));
    if (static_cast<std::size_t>(*version) == steps.size()) return {};
    const Migration& step = steps[static_cast<std::size_t>(*version)];
    const auto set_version = fmt::format("PRAGMA user_version = {}", *version + 1);
    auto done = connection.execute(step.sql);
    if (done) done = connection.execute(set_version.c_str());
    if (done) done = transaction->commit();
    if (!done) return with_context(fmt::format("migration {}", step.name), done.error());
  }
}

}  // namespace fpolicy::store
