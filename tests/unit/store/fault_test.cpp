// SPDX-License-Identifier: LGPL-2.1-or-later
// Every allocation of SQLite and every call to the disk fails once, alone and with all that follow. Then the
// call says so or has succeeded, the tags are those from before or those from after, and what was reported is
// there.
#include "faulty_sqlite.h"
#include "store/sqlite.h"
#include "temporary_directory.h"

#include <fpolicy/store.h>

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <map>

namespace fpolicy {
namespace {

namespace fs = std::filesystem;
using store::Connection;

using Policies = std::map<std::string, std::string>;  ///< policies by path

TagRecord record(const std::string& path, const std::string& policy) {
  TagRecord made;
  made.identity = {"uuid:" + path.substr(0, 2), "h" + path, 42};
  made.policy = policy;
  made.path = path;
  made.carrier = Carrier::database;
  return made;
}

std::vector<TagRecord> many() {
  std::vector<TagRecord> records;
  for (int i = 0; i < 300; ++i) records.push_back(record("/b/" + std::to_string(i), "migrate=no"));
  return records;
}

Result<Policies> all_tags(Database& database) {
  Policies tags;
  const auto done = database.for_each("", [&](const TagRecord& entry) {
    tags[entry.path] = entry.policy;
    return true;
  });
  if (!done) return tl::unexpected(done.error());
  return tags;
}

/// What is done while something fails.
struct Operation {
  const char* name;
  std::function<Status(Database&)> run;
  Policies after;
};

const Policies before{{"/a/1", "bind:1"}, {"/a/2", "bind:2"}, {"/a/3", "bind:3"}};

std::vector<Operation> operations() {
  Policies set = before;
  set["/c/new"] = "bind:7";
  Policies overwritten = before;
  overwritten["/a/2"] = "interleave:all";
  Policies removed = before;
  removed.erase("/a/1");
  Policies bulk = before;
  for (const TagRecord& entry : many()) bulk[entry.path] = entry.policy;
  const auto put = [](const std::vector<TagRecord>& records) {
    return [records](Database& database) { return database.put(records); };
  };
  return {
      {"set", put({record("/c/new", "bind:7")}), set},
      {"overwrite", put({record("/a/2", "interleave:all")}), overwritten},
      {"bulk set", put(many()), bulk},
      {"remove",
       [](Database& database) {
         const TagRecord gone = record("/a/1", "");
         return database.erase(std::span(&gone, 1));
       },
       removed},
      {"list",
       [](Database& database) -> Status {
         const auto tags = all_tags(database);
         if (!tags) return tl::unexpected(tags.error());
         EXPECT_EQ(*tags, before);
         return {};
       },
       before},
      {"look up",
       [](Database& database) -> Status {
         for (const auto& [path, policy] : before) {
           const auto found = database.find_identity(record(path, "").identity, Space::system);
           if (!found) return tl::unexpected(found.error());
           EXPECT_EQ(*found ? (*found)->policy : "none", policy);
         }
         return {};
       },
       before},
      {"ask what carries tags",
       [](Database& database) -> Status {
         FileRef file;
         file.name = "/";
         const auto carries = database.carries_tags(file);
         if (!carries) return tl::unexpected(carries.error());
         EXPECT_FALSE(*carries);
         return {};
       },
       before},
  };
}

struct Kind {
  const char* name;
  void (FaultySqlite::*fail)(unsigned nth, bool lasting);
  bool lasting;
};

class Faults : public testing::TestWithParam<Kind> {
 protected:
  /// Calls `each` until no call is left to fail: after its arm() it is the first that fails, the next time
  /// the second, and so on. Without fault when `check` is called.
  void at_every_call(const std::function<void()>& each, const std::function<void()>& check) {
    for (nth_ = 1;; nth_ += step()) {
      SCOPED_TRACE(std::string(GetParam().name) + ", call " + std::to_string(nth_));
      fs::remove_all(directory / "state");
      if (fs::exists(directory / "template")) fs::copy(directory / "template", directory / "state");
      failed_ = false;
      each();
      heal();
      check();
      if (!failed_ || HasFailure()) break;
    }
  }
  /// Allocations are many: one in seven, unless all are asked for.
  static unsigned step() {
    return GetParam().fail == &FaultySqlite::fail_allocation && std::getenv("FPOLICY_TEST_ALL") == nullptr
               ? 7
               : 1;
  }
  void arm() { (sqlite.*GetParam().fail)(nth_, GetParam().lasting); }
  /// Is there, or was there, a fault?
  bool heal() { return failed_ = sqlite.heal() || failed_; }
  /// A fault of the moment is not called damage.
  static void is_told(const Error& error) {
    EXPECT_NE(error.code, 0);
    EXPECT_NE(error.code, EUCLEAN) << error.message;
    EXPECT_GT(error.message.size(), 10U) << error.message;
  }
  /// The tags that are there; the database is whole.
  Policies whole() {
    auto opened = Database::open(path, Database::Access::read_write, &identifier);
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return {};
    const auto tags = all_tags(**opened);
    EXPECT_TRUE(tags);
    auto connection = Connection::open(path, Connection::Access::read_only);
    EXPECT_TRUE(connection);
    auto checked = connection->prepare("PRAGMA integrity_check");
    EXPECT_TRUE(checked && *checked->step());
    EXPECT_EQ(checked->bytes(0), "ok");
    return tags ? *tags : Policies();
  }
  void fill() {
    {
      auto opened = Database::open(path, Database::Access::read_write, &identifier);
      ASSERT_TRUE(opened) << opened.error().message;
      std::vector<TagRecord> records;
      for (const auto& [file, policy] : before) records.push_back(record(file, policy));
      ASSERT_TRUE((*opened)->put(records));
    }
    fs::rename(directory / "state", directory / "template");
  }

  TemporaryDirectory directory;
  std::string path = directory / "state/fpolicy.db";
  Identifier identifier;
  FaultySqlite sqlite;

 private:
  unsigned nth_ = 1;
  bool failed_ = false;
};

TEST_P(Faults, WhileCreating) {
  at_every_call(
      [&] {
        arm();
        const auto opened = Database::open(path, Database::Access::read_write, &identifier);
        if (!opened) is_told(opened.error());
      },
      [&] {
        EXPECT_EQ(whole(), Policies());
        std::vector<std::string> left;
        for (const auto& entry : fs::directory_iterator(directory / "state"))
          left.push_back(entry.path().filename());
        EXPECT_EQ(left, std::vector<std::string>{"fpolicy.db"});
      });
}

TEST_P(Faults, WhileOpening) {
  fill();
  for (const auto access : {Database::Access::read_write, Database::Access::read_only})
    at_every_call(
        [&] {
          arm();
          const auto opened = Database::open(path, access, &identifier);
          if (!opened) return is_told(opened.error());
          // One that says that it is open holds what is there, or says that it cannot tell.
          const auto tags = all_tags(**opened);
          if (!tags) return is_told(tags.error());
          EXPECT_EQ(*tags, before);
        },
        [&] { EXPECT_EQ(whole(), before); });
}

TEST_P(Faults, WhileMigrating) {
  const std::array steps{
      store::Migration{"001", "CREATE TABLE one (x); INSERT INTO one VALUES (1), (2), (3)"},
      store::Migration{
          "002", "CREATE TABLE two AS SELECT x FROM one; CREATE INDEX by_x ON two (x); DROP TABLE one"}};
  at_every_call(
      [&] {
        fs::create_directory(directory / "state");
        const std::ofstream made(path);
        arm();
        auto connection = Connection::open(path, Connection::Access::read_write);
        if (!connection) return is_told(connection.error());
        if (const auto done = connection->execute("PRAGMA journal_mode = WAL"); !done)
          return is_told(done.error());
        if (const auto done = store::migrate(*connection, steps); !done) is_told(done.error());
      },
      [&] {
        auto connection = Connection::open(path, Connection::Access::read_write);
        ASSERT_TRUE(connection);
        const auto version = connection->query_integer("PRAGMA user_version");
        ASSERT_TRUE(version);
        const std::array expected{0, 1, 2};  // tables and indexes of each
        ASSERT_GE(*version, 0);
        ASSERT_LE(*version, 2);
        EXPECT_EQ(*connection->query_integer("SELECT count(*) FROM sqlite_schema"),
                  expected[static_cast<std::size_t>(*version)]);
        EXPECT_TRUE(store::migrate(*connection, steps));
        EXPECT_EQ(*connection->query_integer("SELECT sum(x) FROM two"), 6);
      });
}

TEST_P(Faults, WhileWorking) {
  fill();
  for (const auto& [name, run, after] : operations()) {
    SCOPED_TRACE(name);
    // The same store goes on once the fault is over; or it is closed while the fault lasts.
    for (const bool goes_on : {true, false}) {
      bool reported = false;
      at_every_call(
          [&] {
            auto opened = Database::open(path, Database::Access::read_write, &identifier);
            ASSERT_TRUE(opened) << opened.error().message;
            arm();
            const auto done = run(**opened);
            reported = done.has_value();
            if (!done) is_told(done.error());
            if (!goes_on) return;
            const bool failed = heal();
            const auto tags = all_tags(**opened);
            EXPECT_TRUE(tags && (*tags == after || (failed && *tags == before)));
            const auto again = run(**opened);
            EXPECT_TRUE(again) << again.error().message;
            reported = again.has_value();
          },
          [&] {
            const Policies tags = whole();
            EXPECT_TRUE(tags == after || (!reported && tags == before))
                << tags.size() << " tags, reported: " << reported;
          });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Faults,
                         testing::Values(Kind{"NoMemoryOnce", &FaultySqlite::fail_allocation, false},
                                         Kind{"NoMemory", &FaultySqlite::fail_allocation, true},
                                         Kind{"DiskErrorOnce", &FaultySqlite::fail_disk, false},
                                         Kind{"DiskError", &FaultySqlite::fail_disk, true},
                                         Kind{"DiskFullOnce", &FaultySqlite::fail_growth, false},
                                         Kind{"DiskFull", &FaultySqlite::fail_growth, true}),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace fpolicy
