// SPDX-License-Identifier: LGPL-2.1-or-later
// The machine goes down at any moment: of what was written and not synced the disk holds nothing, all, or any
// part in any order. Then the database is whole, what was reported is there, and of a change all or nothing.
#include "faulty_sqlite.h"
#include "store/sqlite.h"
#include "temporary_directory.h"

#include <fpolicy/store.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace fpolicy {
namespace {

namespace fs = std::filesystem;
using Policies = std::map<std::string, std::string>;  ///< by path
using Kind = DiskOperation::Kind;

/// A disk that was given operations up to one of them, and what it may hold after the power is back.
class Disk {
 public:
  explicit Disk(const std::string& directory) {
    for (const auto& entry : fs::directory_iterator(directory)) {
      struct stat status{};
      ::stat(entry.path().c_str(), &status);
      std::ifstream stream(entry.path(), std::ios::binary);
      files_[status.st_ino].synced = {std::istreambuf_iterator<char>(stream), {}};
      names_[entry.path()] = status.st_ino;
    }
  }

  void apply(const DiskOperation& operation) {
    switch (operation.kind) {
      case Kind::create:
        // The number may have been another's, whose name is gone.
        files_[operation.file] = {};
        [[fallthrough]];
      case Kind::remove:
        unsynced_names_.push_back(operation);
        break;
      case Kind::write:
      case Kind::truncate:
        files_[operation.file].unsynced.push_back(operation);
        break;
      case Kind::sync: {
        File& file = files_[operation.file];
        for (const DiskOperation& change : file.unsynced) change_file(file.synced, change);
        file.unsynced.clear();
        break;
      }
      case Kind::sync_directory:
        for (const DiskOperation& change : unsynced_names_) change_names(names_, change);
        unsynced_names_.clear();
        break;
    }
  }

  /// link(2), and a sync of the directory.
  void link(const std::string& name, ino_t number) { names_[name] = number; }

  enum class Loss : std::uint8_t { everything, nothing, some_in_order, some_sectors_in_any_order };

  /// Lays the files in a directory, under their own names there.
  void write_to(const std::string& directory, Loss loss, std::mt19937& random) const {
    fs::remove_all(directory);
    fs::create_directory(directory);
    auto names = names_;
    const auto kept = [&](std::size_t all) {
      return loss == Loss::everything ? 0 : loss == Loss::nothing ? all : random() % (all + 1);
    };
    // Changes of names are journalled by filesystems, and so keep their order.
    const std::size_t changes = kept(unsynced_names_.size());
    for (std::size_t i = 0; i < changes; ++i) change_names(names, unsynced_names_[i]);
    for (const auto& [name, number] : names) {
      const File& file = files_.at(number);
      std::string content = file.synced;
      auto pending = loss == Loss::some_sectors_in_any_order ? sectors(file.unsynced) : file.unsynced;
      if (loss == Loss::some_sectors_in_any_order) std::shuffle(pending.begin(), pending.end(), random);
      pending.resize(kept(pending.size()));
      for (const DiskOperation& change : pending) change_file(content, change);
      const std::string path = directory + "/" + fs::path(name).filename().string();
      std::ofstream(path, std::ios::binary) << content;
      ::chmod(path.c_str(), 0600);
    }
  }

 private:
  struct File {
    std::string synced;
    std::vector<DiskOperation> unsynced;
  };

  static void change_file(std::string& content, const DiskOperation& change) {
    if (change.kind == Kind::truncate) return content.resize(change.at);
    if (content.size() < change.at + change.data.size()) content.resize(change.at + change.data.size());
    content.replace(change.at, change.data.size(), change.data);
  }
  static void change_names(std::map<std::string, ino_t>& names, const DiskOperation& change) {
    if (change.kind == Kind::create)
      names[change.name] = change.file;
    else
      names.erase(change.name);
  }
  static std::vector<DiskOperation> sectors(const std::vector<DiskOperation>& operations) {
    constexpr std::size_t sector = 512;
    std::vector<DiskOperation> parts;
    for (const DiskOperation& operation : operations) {
      if (operation.kind != Kind::write) parts.push_back(operation);
      for (std::size_t at = 0; at < operation.data.size(); at += sector)
        parts.push_back(
            {Kind::write, operation.file, {}, operation.at + at, operation.data.substr(at, sector)});
    }
    return parts;
  }

  std::map<ino_t, File> files_;
  std::map<std::string, ino_t> names_;
  std::vector<DiskOperation> unsynced_names_;
};

TagRecord record(const std::string& path, const std::string& policy) {
  TagRecord made;
  made.identity = {"uuid:one", "h" + path, 42};
  made.policy = policy;
  made.path = path;
  made.carrier = Carrier::database;
  return made;
}

/// A change, and how many operations the disk had been given when it was reported as lasting.
struct Commit {
  std::size_t reported = 0;
  Policies after;
};

class PowerLoss : public testing::Test {
 protected:
  std::unique_ptr<Database> open(const std::string& file) {
    auto opened = Database::open(file, Database::Access::read_write, &identifier);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? *std::move(opened) : nullptr;
  }
  void commit(const Status& done) {
    ASSERT_TRUE(done) << done.error().message;
    commits.push_back({sqlite.recorded().size(), policies});
  }
  void put(Database& database, const std::vector<TagRecord>& records) {
    for (const TagRecord& entry : records) policies[entry.path] = entry.policy;
    commit(database.put(records));
  }
  void erase(Database& database, const std::string& tagged) {
    policies.erase(tagged);
    const TagRecord gone = record(tagged, "");
    commit(database.erase(std::span(&gone, 1)));
  }
  /// Single changes and batches, over pages that are in the file, in the log, and new; the log is written
  /// back in the middle, at the end of each part, and begun anew.
  void work() {
    for (int part = 0; part < 3; ++part) {
      const auto database = open(path);
      ASSERT_TRUE(database);
      for (int i = 0; i < 4; ++i)
        put(*database, {record("/a/" + std::to_string(i), "bind:" + std::to_string(part))});
      std::vector<TagRecord> batch;
      for (int i = 0; i < 60; ++i)
        batch.push_back(record("/b/" + std::to_string(part) + "/" + std::string(100, 'x') + std::to_string(i),
                               "migrate=no"));
      put(*database, batch);
      erase(*database, "/a/2");
      auto connection = store::Connection::open(path, store::Connection::Access::read_write);
      ASSERT_TRUE(connection);
      ASSERT_TRUE(connection->execute("PRAGMA wal_checkpoint"));
      put(*database, {record("/a/2", "prefer:1")});
      ASSERT_TRUE(database->erase(batch));
      for (const TagRecord& entry : batch) policies.erase(entry.path);
      commit({});
      put(*database, batch);
    }
  }

  TemporaryDirectory directory;
  std::string path = directory / "state/fpolicy.db";
  Identifier identifier;
  FaultySqlite sqlite;
  Policies policies;
  std::vector<Commit> commits;
};

TEST_F(PowerLoss, WhatWasReportedLasts) {
  open(path);
  Disk disk(directory / "state");
  commits.push_back({0, {}});
  sqlite.record();
  work();
  ASSERT_FALSE(HasFailure());
  const std::vector<DiskOperation> operations = sqlite.recorded();
  ASSERT_GT(operations.size(), 300U);
  std::mt19937 random(11);
  const std::string copy = directory / "after";
  std::size_t last = 0;
  for (std::size_t done = 0; done <= operations.size(); ++done) {
    if (done > 0) disk.apply(operations[done - 1]);
    while (last + 1 < commits.size() && commits[last + 1].reported <= done) ++last;
    for (const auto loss : {Disk::Loss::everything, Disk::Loss::nothing, Disk::Loss::some_in_order,
                            Disk::Loss::some_sectors_in_any_order, Disk::Loss::some_sectors_in_any_order}) {
      SCOPED_TRACE("operation " + std::to_string(done) + " of " + std::to_string(operations.size()) +
                   ", loss " + std::to_string(static_cast<int>(loss)));
      disk.write_to(copy, loss, random);
      const auto database = open(copy + "/fpolicy.db");
      ASSERT_TRUE(database);
      Policies found;
      ASSERT_TRUE(database->for_each("", [&](const TagRecord& entry) {
        found[entry.path] = entry.policy;
        return true;
      }));
      const bool next = last + 1 < commits.size() && found == commits[last + 1].after;
      ASSERT_TRUE(found == commits[last].after || next) << found.size() << " tags";
      auto connection = store::Connection::open(copy + "/fpolicy.db", store::Connection::Access::read_only);
      ASSERT_TRUE(connection);
      auto check = connection->prepare("PRAGMA integrity_check");
      ASSERT_TRUE(check && *check->step());
      ASSERT_EQ(check->bytes(0), "ok");
    }
  }
}

/// Until a new database has its name nothing is lost with it; then all of it must be on the disk.
TEST_F(PowerLoss, ANewDatabaseIsSyncedBeforeItHasItsName) {
  fs::create_directory(directory / "state");
  Disk disk(directory / "state");
  sqlite.record();
  auto database = open(path);
  ASSERT_TRUE(database);
  const std::vector<DiskOperation> operations = sqlite.recorded();
  // The last time that SQLite takes anything away from the temporary one, its log is closed.
  const auto closed =
      std::find_if(operations.rbegin(), operations.rend(), [](const DiskOperation& operation) {
        return operation.kind == Kind::remove && operation.name.find(".new-") != std::string::npos;
      });
  ASSERT_NE(closed, operations.rend());
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  bool written = false;
  for (auto operation = operations.begin(); operation != closed.base(); ++operation) {
    disk.apply(*operation);
    written = written || (operation->kind == Kind::write && operation->file == status.st_ino);
  }
  EXPECT_TRUE(written);
  // Its name is given by link(2) and a sync of the directory, which SQLite's disk does not see.
  disk.link(path, status.st_ino);
  std::mt19937 random(1);
  disk.write_to(directory / "after", Disk::Loss::everything, random);
  const auto after = open(directory / "after/fpolicy.db");
  ASSERT_TRUE(after);
  put(*after, {record("/a", "bind:1")});
}

}  // namespace
}  // namespace fpolicy
