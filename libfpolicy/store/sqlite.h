// SPDX-License-Identifier: LGPL-2.1-or-later
// What the store needs of SQLite, with Result in place of return codes. Not thread-safe.
#pragma once

#include "store/migrations.h"

#include <fpolicy/result.h>

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace fpolicy::store {

/// "fplc": marks a database as fpolicy's own.
inline constexpr int application_id = 0x66706c63;

class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  /// Parameters count from 1. What is bound must live until reset().
  void bind(int index, std::int64_t value) { bound(sqlite3_bind_int64(get(), index, value)); }
  void bind_text(int index, std::string_view value);
  void bind_blob(int index, std::string_view value);

  /// true: there is a row. Error: also of a bind since the last reset().
  Result<bool> step();
  /// To be used again.
  void reset();

  /// Columns count from 0. A view lives until the next step() or reset().
  [[nodiscard]] std::int64_t integer(int column) const { return sqlite3_column_int64(get(), column); }
  [[nodiscard]] std::string_view bytes(int column) const;

  [[nodiscard]] sqlite3_stmt* get() const { return statement_.get(); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  void bound(int code) {
    if (bind_error_ == SQLITE_OK) bind_error_ = code;
  }

  int bind_error_ = SQLITE_OK;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

/// Resets a statement at the end of a scope, so that no read transaction stays open behind an early return.
class StatementUse {
 public:
  explicit StatementUse(Statement& statement) : statement_(statement) {}
  StatementUse(const StatementUse&) = delete;
  StatementUse& operator=(const StatementUse&) = delete;
  ~StatementUse() { statement_.reset(); }

 private:
  Statement& statement_;
};

/// What a database says of itself in its file, without its log.
struct Header {
  std::int64_t application_id = 0;
  std::int64_t user_version = 0;
};

/// Reads it and nothing else: while another process writes its log back, or after one was killed doing so,
/// the file alone is no whole database. Through SQLite, since closing a descriptor of our own would drop the
/// locks that the process holds through another connection (sqlite.org/howtocorrupt.html, 2.2). Error:
/// EUCLEAN for what is no SQLite database.
Result<Header> read_header(const std::string& path);

class Connection {
 public:
  /// immutable: as if on read-only media. Only what the file itself says, without its log; takes no lock and
  /// leaves nothing behind.
  enum class Access : std::uint8_t { immutable, read_only, read_write };

  Connection() = default;
  /// Opens an existing file; on a read-only filesystem one without a log as if it were immutable. No trigger
  /// or view of it ever runs, and no statement can write to its schema but by DDL.
  static Result<Connection> open(const std::string& path, Access access);

  Status execute(const char* sql);
  Result<Statement> prepare(const char* sql);
  Result<std::int64_t> query_integer(const char* sql);
  [[nodiscard]] bool is_open() const { return connection_ != nullptr; }
  [[nodiscard]] sqlite3* get() const { return connection_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  std::unique_ptr<sqlite3, Close> connection_;
};

/// Rolls back unless committed.
class Transaction {
 public:
  static Result<Transaction> begin(Connection& connection);
  Transaction(Transaction&& other) noexcept
      : connection_(std::exchange(other.connection_, nullptr)), rollback_(std::move(other.rollback_)) {}
  Transaction& operator=(Transaction&&) = delete;
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  Status commit();

 private:
  Transaction(Connection& connection, Statement rollback)
      : connection_(&connection), rollback_(std::move(rollback)) {}
  Connection* connection_;
  Statement rollback_;
};

/// The error of the last call, with an errno that fits.
tl::unexpected<Error> sqlite_error(sqlite3* connection);

/// ENOTSUP: the database has a schema that this version does not know.
Error newer_schema(std::int64_t version, std::size_t known);

/// Applies what is missing of `steps`, each in a transaction of its own with its user_version. Error: ENOTSUP
/// for a database that is newer.
Status migrate(Connection& connection, std::span<const Migration> steps);

}  // namespace fpolicy::store
