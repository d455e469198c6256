// SPDX-License-Identifier: LGPL-2.1-or-later
#include "store/migrations.h"
#include "store/sqlite.h"
#include "store/statements.h"
#include "temporary_directory.h"

#include <fpolicy/store.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <future>
#include <iterator>
#include <map>
#include <random>
#include <thread>
#include <tuple>

namespace fpolicy {
namespace {

using store::Connection;
using testing::HasSubstr;
using Access = Database::Access;

class DatabaseTest : public testing::Test {
 protected:
  std::unique_ptr<Database> open(Access access = Access::read_write) {
    auto opened = Database::open(path, access, &identifier);
    if (!opened) {
      ADD_FAILURE() << opened.error().message;
      return nullptr;
    }
    return std::move(*opened);
  }
  Error refusal(Access access = Access::read_write) {
    auto opened = Database::open(path, access, &identifier);
    return opened ? Error{} : opened.error();
  }
  void sql(const char* text) {
    auto connection = Connection::open(path, Connection::Access::read_write);
    ASSERT_TRUE(connection) << connection.error().message;
    const auto done = connection->execute(text);
    ASSERT_TRUE(done) << done.error().message;
  }
  static std::string content(const std::string& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static TagRecord record(const std::string& key, const std::string& path,
                          const std::string& policy = "bind:1") {
    TagRecord made;
    made.identity = {"uuid:test", "h" + key, 42};
    made.policy = policy;
    made.path = path;
    made.changed_ns = 7;
    return made;
  }

  TemporaryDirectory directory;
  std::string path = directory / "state/fpolicy.db";
  Identifier identifier;
};

TEST_F(DatabaseTest, IsForItsOwnerOnly) {
  const auto database = open();
  const TagRecord one = record("a", "/a");
  ASSERT_TRUE(database->put(std::span(&one, 1)));
  for (const auto& [name, mode] : std::initializer_list<std::pair<std::string, mode_t>>{
           {directory / "state", 0700}, {path, 0600}, {path + "-wal", 0600}, {path + "-shm", 0600}}) {
    struct stat status{};
    ASSERT_EQ(::stat(name.c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 07777U, mode) << name;
  }
}

TEST_F(DatabaseTest, KeepsEveryFieldAndEveryByte) {
  TagRecord wanted;
  wanted.identity = {"source:nfs4:h:/x y", std::string("h\x01\0\0\0\xff\0\n", 8), -5};
  wanted.space = Space::user;
  wanted.carrier = Carrier::database;
  wanted.policy = "interleave:0-3,migrate=no";
  wanted.path = "/a\xff\n b'\"";
  wanted.directory = true;
  wanted.uid = 4'000'000'000U;
  wanted.changed_ns = 1'700'000'000'123'456'789;
  ASSERT_TRUE(open()->put(std::span(&wanted, 1)));
  const auto database = open(Access::read_only);
  const auto found = database->find_identity(wanted.identity, Space::user);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->identity, wanted.identity);
  EXPECT_EQ((*found)->space, wanted.space);
  EXPECT_EQ((*found)->carrier, wanted.carrier);
  EXPECT_EQ((*found)->policy, wanted.policy);
  EXPECT_EQ((*found)->path, wanted.path);
  EXPECT_EQ((*found)->directory, wanted.directory);
  EXPECT_EQ((*found)->uid, wanted.uid);
  EXPECT_EQ((*found)->changed_ns, wanted.changed_ns);
  EXPECT_FALSE(*database->find_identity(wanted.identity, Space::system));
}

TEST_F(DatabaseTest, PutReplacesAndEraseRemoves) {
  const auto database = open();
  TagRecord one = record("a", "/a");
  ASSERT_TRUE(database->put(std::span(&one, 1)));
  one.policy = "bind:2";
  one.path.clear();
  one.identity.birth_ns = 43;
  ASSERT_TRUE(database->put(std::span(&one, 1)));
  const auto found = database->find_identity(one.identity, Space::system);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->policy, "bind:2");
  EXPECT_EQ((*found)->path, "/a") << "an unknown path does not replace a known one";
  EXPECT_EQ((*found)->identity.birth_ns, 43);
  ASSERT_TRUE(database->erase(std::span(&one, 1)));
  EXPECT_FALSE(*database->find_identity(one.identity, Space::system));
  EXPECT_TRUE(database->erase(std::span(&one, 1))) << "what is not there is no error";
}

TEST_F(DatabaseTest, AFaultyRecordLeavesNothingOfItsBatch) {
  const auto database = open();
  std::array records{record("a", "/a"), record("b", "/b", std::string(256, 'x'))};
  EXPECT_EQ(database->put(records).error().code, EINVAL);
  records[1] = record("b", std::string(70'000, 'x'));
  EXPECT_EQ(database->put(records).error().code, EINVAL);
  EXPECT_FALSE(*database->find_identity(records[0].identity, Space::system));
}

TEST_F(DatabaseTest, ReadOnlyWithoutAFileIsEmptyAndMakesNone) {
  const auto database = open(Access::read_only);
  EXPECT_FALSE(*database->find_identity(record("a", "/a").identity, Space::system));
  FileRef file;
  file.name = "/";
  EXPECT_FALSE(*database->carries_tags(file));
  EXPECT_TRUE(database->for_each("/", [](const TagRecord&) { return true; }));
  const TagRecord one = record("a", "/a");
  EXPECT_EQ(database->put(std::span(&one, 1)).error().code, EROFS);
  EXPECT_FALSE(database->writable());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(DatabaseTest, RecordsOutOfOrderAreDamageAndNotReadForEver) {
  const std::array records{record("1", "/srv/aa"), record("2", "/srv/bb"), record("3", "/srv/cc")};
  ASSERT_TRUE(open()->put(records));
  std::string bytes = content(path);
  std::size_t changed = 0;
  for (auto at = bytes.find("/srv/bb"); at != std::string::npos; at = bytes.find("/srv/bb", at), ++changed)
    bytes.replace(at, 7, "/srv/zz");
  ASSERT_GE(changed, 2U) << "in the table and in its index";
  std::ofstream(path, std::ios::binary) << bytes;
  const auto database = open(Access::read_only);
  unsigned rows = 0;
  const auto listed = database->for_each("", [&rows](const TagRecord&) { return ++rows < 100; });
  ASSERT_FALSE(listed) << rows;
  EXPECT_EQ(listed.error().code, EUCLEAN);
  EXPECT_THAT(listed.error().message, HasSubstr("out of order"));
}

TEST_F(DatabaseTest, ANewerSchemaIsRefusedUntouched) {
  open();
  sql("PRAGMA user_version = 99");
  const std::string before = content(path);
  const auto error = refusal();
  EXPECT_EQ(error.code, ENOTSUP);
  EXPECT_THAT(error.message, HasSubstr("written by a newer fpolicy (schema 99; this one knows 2)"));
  EXPECT_EQ(refusal(Access::read_only).code, ENOTSUP);
  EXPECT_EQ(content(path), before);
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
}

TEST_F(DatabaseTest, ANewerSchemaThatOnlyTheLogTellsIsRefused) {
  const auto first = open();  // keeps the log
  sql("PRAGMA user_version = 3");
  EXPECT_EQ(refusal().code, ENOTSUP);
  EXPECT_EQ(refusal(Access::read_only).code, ENOTSUP);
}

TEST_F(DatabaseTest, ForeignFilesAreRefusedUntouched) {
  std::filesystem::create_directories(directory / "state");
  for (const std::string& text :
       {std::string("not a database, but long enough to have a header of one hundred bytes"
                    " and some more bytes behind it"),
        std::string("x"), std::string(100, '\0'), std::string(65'536, '\0')}) {
    directory.write("state/fpolicy.db", text);
    for (const Access access : {Access::read_write, Access::read_only}) EXPECT_NE(refusal(access).code, 0);
    EXPECT_EQ(content(path), text);
  }
  std::filesystem::remove(path);
  directory.write("state/fpolicy.db", "");
  EXPECT_EQ(refusal().code, EUCLEAN) << "an empty file is a damaged one, never a new store";
  std::filesystem::remove(path);
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "CREATE TABLE theirs (x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  const std::string before = content(path);
  EXPECT_THAT(refusal().message, HasSubstr("is not fpolicy's"));
  EXPECT_EQ(content(path), before);
}

TEST_F(DatabaseTest, ALogWithoutItsDatabaseIsNotAppliedToANewOne) {
  std::filesystem::create_directories(directory / "state");
  directory.write("state/fpolicy.db-wal", "frames");
  EXPECT_EQ(refusal().code, EUCLEAN);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(DatabaseTest, AFileThatOthersMayWriteIsRefused) {
  open();
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  EXPECT_EQ(refusal().code, EPERM);
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_EQ(refusal().code, EINVAL);
}

TEST_F(DatabaseTest, DamageIsAnErrorNeverAnEmptyStore) {
  {
    const auto database = open();
    std::vector<TagRecord> records;
    for (int i = 0; i < 2000; ++i) records.push_back(record(std::to_string(i), "/x/" + std::to_string(i)));
    ASSERT_TRUE(database->put(records));
  }
  const std::string whole = content(path);
  std::mt19937 random(3);
  int told = 0;
  for (int i = 0; i < 60; ++i) {
    std::string damaged = whole;
    const std::size_t first = 100 + random() % (damaged.size() - 100);
    for (std::size_t at = first; at < std::min(first + 4096, damaged.size()); ++at)
      damaged[at] = static_cast<char>(random() % 256);
    directory.write("state/fpolicy.db", damaged);
    auto opened = Database::open(path, Access::read_only, &identifier);
    if (!opened) {
      ++told;
      continue;
    }
    int records = 0;
    const auto done = (*opened)->for_each("", [&](const TagRecord&) { return ++records > 0; });
    if (!done) {
      ++told;
      continue;
    }
    // What this walk does not read, or the text of a row, can be damaged unseen; but no row is lost unseen.
    EXPECT_EQ(records, 2000);
  }
  EXPECT_GT(told, 0);
}

TEST_F(DatabaseTest, AnotherWriterIsWaitedForButNotForEver) {
  const auto database = open();
  auto other = Connection::open(path, Connection::Access::read_write);
  ASSERT_TRUE(other);
  const TagRecord one = record("a", "/a");
  {
    const auto held = store::Transaction::begin(*other);
    ASSERT_TRUE(held);
    EXPECT_FALSE(*database->find_identity(one.identity, Space::system)) << "readers do not wait";
    const auto done = database->put(std::span(&one, 1));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, EBUSY);
    EXPECT_THAT(done.error().message,
                HasSubstr("fpolicy.db: database is locked: another process has held it for 10 seconds"));
  }
  EXPECT_TRUE(database->put(std::span(&one, 1)));
}

TEST_F(DatabaseTest, AMissingTableIsDamage) {
  open();
  sql("DROP INDEX tag_by_path; DROP TABLE tag");
  EXPECT_EQ(refusal().code, EUCLEAN);
  EXPECT_THAT(refusal(Access::read_only).message, HasSubstr("damaged"));
}

TEST_F(DatabaseTest, RowsOutOfBoundsAreDamage) {
  const TagRecord one = record("a", "/a");
  ASSERT_TRUE(open()->put(std::span(&one, 1)));
  sql("UPDATE tag SET policy = printf('%.300c', 'x')");
  EXPECT_EQ(open()->find_identity(one.identity, Space::system).error().code, EUCLEAN);
  EXPECT_EQ(open()->for_each("", [](const TagRecord&) { return true; }).error().code, EUCLEAN);
}

TEST_F(DatabaseTest, ATriggerPlantedInTheFileDoesNotRun) {
  open();
  sql("CREATE TRIGGER planted AFTER INSERT ON tag BEGIN DELETE FROM tag; END");
  const auto database = open();
  const TagRecord one = record("a", "/a");
  ASSERT_TRUE(database->put(std::span(&one, 1)));
  EXPECT_TRUE(*database->find_identity(one.identity, Space::system));
}

TEST_F(DatabaseTest, WalksByPathAndPrefixInPages) {
  const auto database = open();
  std::vector<TagRecord> records;
  for (int i = 0; i < 1000; ++i) records.push_back(record(std::to_string(i), "/srv/" + std::to_string(i)));
  // More files of one path than a page holds: of none.
  for (int i = 0; i < 600; ++i) records.push_back(record("s" + std::to_string(i), ""));
  records.push_back(record("x", "/srw"));
  records.push_back(record("y", "/sr"));
  records.push_back(record("z", ""));
  ASSERT_TRUE(database->put(records));
  std::vector<std::string> seen;
  const auto collect = [&](const TagRecord& entry) {
    seen.push_back(entry.path);
    return true;
  };
  ASSERT_TRUE(database->for_each("/srv/", collect));
  EXPECT_EQ(seen.size(), 1000U);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  seen.clear();
  ASSERT_TRUE(database->for_each("", collect));
  EXPECT_EQ(seen.size(), 1603U);
  seen.clear();
  ASSERT_TRUE(database->for_each("/srv/99", collect));
  EXPECT_EQ(seen.size(), 11U);
  seen.clear();
  ASSERT_TRUE(database->for_each("/srx", collect));
  EXPECT_TRUE(seen.empty());
  int count = 0;
  ASSERT_TRUE(database->for_each("/srv/", [&](const TagRecord&) { return ++count < 3; }));
  EXPECT_EQ(count, 3);
}

TEST_F(DatabaseTest, AWalkMayChangeTheStore) {
  const auto database = open();
  std::vector<TagRecord> records;
  for (int i = 0; i < 700; ++i) records.push_back(record(std::to_string(i), "/srv/" + std::to_string(i)));
  ASSERT_TRUE(database->put(records));
  const auto second = open();
  int count = 0;
  ASSERT_TRUE(database->for_each("/srv/", [&](const TagRecord& entry) {
    EXPECT_TRUE(second->erase(std::span(&entry, 1)));
    return ++count > 0;
  }));
  EXPECT_EQ(count, 700);
  ASSERT_TRUE(database->for_each("", [](const TagRecord&) -> bool {
    ADD_FAILURE();
    return false;
  }));
}

TEST_F(DatabaseTest, DataVersionFollowsEveryCommit) {
  const auto one = open();
  const auto two = open();
  const auto first = *one->data_version();
  EXPECT_EQ(*one->data_version(), first);
  const TagRecord entry = record("a", "/a");
  ASSERT_TRUE(one->put(std::span(&entry, 1)));
  const auto second = *one->data_version();
  EXPECT_NE(second, first);
  ASSERT_TRUE(two->erase(std::span(&entry, 1)));
  EXPECT_NE(*one->data_version(), second);
}

TEST_F(DatabaseTest, CarriesTagsFollowsOtherConnections) {
  const auto one = open();
  const auto two = open();
  const std::string name = directory.write("file", "");
  FileRef file;
  file.name = name.c_str();
  TagRecord entry;
  entry.identity = *identifier.identify(file);
  entry.policy = "bind:1";
  ASSERT_TRUE(two->put(std::span(&entry, 1)));
  EXPECT_FALSE(*one->carries_tags(file)) << "an entry for an xattr carries nothing";
  EXPECT_EQ((*one->find(file, Space::system))->carrier, Carrier::xattr);
  entry.carrier = Carrier::database;
  ASSERT_TRUE(two->put(std::span(&entry, 1)));
  EXPECT_TRUE(*one->carries_tags(file));
  ASSERT_TRUE(two->erase(std::span(&entry, 1)));
  EXPECT_FALSE(*one->carries_tags(file));
}

// What is known of a device is taken again for a while, but not over what one has written oneself.
TEST_F(DatabaseTest, CarriesTagsOfADeviceFollowsOwnChanges) {
  const auto database = open();
  const std::string name = directory.write("file", "");
  struct stat status{};
  ASSERT_EQ(::stat(name.c_str(), &status), 0);
  FileRef file;
  file.name = name.c_str();
  file.device = status.st_dev;
  TagRecord entry;
  entry.identity = *identifier.identify(file);
  entry.policy = "bind:1";
  entry.carrier = Carrier::database;
  EXPECT_FALSE(*database->carries_tags(file));
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  EXPECT_TRUE(*database->carries_tags(file));
  ASSERT_TRUE(database->erase(std::span(&entry, 1)));
  EXPECT_FALSE(*database->carries_tags(file));
}

// A walk asks of each file; while one thread writes a batch, the others must not wait for its end.
TEST_F(DatabaseTest, CarriesTagsAnswersWhileABatchIsWritten) {
  const auto database = open();
  const std::string name = directory.write("file", "");
  struct stat status{};
  ASSERT_EQ(::stat(name.c_str(), &status), 0);
  FileRef file;
  file.name = name.c_str();
  file.device = status.st_dev;
  const TagRecord entry = record("a", "/a");
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  bool answered = false;
  // Again where this thread was kept for so long that the answer was too old when the batch began.
  for (int round = 0; round < 10 && !answered; ++round) {
    std::future<Result<bool>> answer;
    ASSERT_TRUE(database->carries_tags(file));
    const auto erased = database->erase_unchanged(std::span(&entry, 1), [&](const TagRecord&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(60));  // longer than an answer lasts
      answer = std::async(std::launch::async, [&] { return database->carries_tags(file); });
      answered = answer.wait_for(std::chrono::seconds(1)) == std::future_status::ready;
      return false;
    });
    ASSERT_TRUE(erased) << erased.error().message;
    const auto carries = answer.get();
    ASSERT_TRUE(carries) << carries.error().message;
    EXPECT_FALSE(*carries);
  }
  EXPECT_TRUE(answered);
}

// Whatever records there are: other files' lose a path in the same space, and nothing else changes.
TEST_F(DatabaseTest, PathsAreTakenFromOtherFiles) {
  std::mt19937 random(11);
  const auto database = open();
  const auto draw = [&](unsigned paths) {
    TagRecord made = record(std::to_string(random() % 400), "/d/" + std::to_string(random() % paths));
    if (random() % 20 == 0) made.path.clear();
    made.identity.filesystem = random() % 3 == 0 ? "uuid:clone" : "uuid:test";
    made.space = random() % 3 == 0 ? Space::user : Space::system;
    return made;
  };
  using Row = std::tuple<std::string, std::string, Space>;
  const auto row_of = [](const TagRecord& one) {
    return Row(one.identity.filesystem, one.identity.key, one.space);
  };
  const auto read = [&] {
    std::map<Row, std::string> rows;
    EXPECT_TRUE(database->for_each("", [&](const TagRecord& one) {
      rows[row_of(one)] = one.path;
      return true;
    }));
    return rows;
  };
  std::size_t released = 0;
  for (int round = 0; round < 60; ++round) {
    // Paths that stand side by side, and some with many others between them.
    const unsigned paths = round % 2 == 0 ? 60 : 3000;
    std::vector<TagRecord> known(200);
    for (TagRecord& one : known) one = draw(paths);
    ASSERT_TRUE(database->put(known));
    auto wanted = read();
    std::vector<TagRecord> batch(1 + random() % 80);
    for (TagRecord& one : batch) one = random() % 2 == 0 ? draw(paths) : known[random() % known.size()];
    // Also of files that have no record any more.
    const bool erase = round % 3 == 0;
    ASSERT_TRUE(erase ? database->erase(batch) : database->put(batch));
    for (const TagRecord& one : batch) {
      if (erase)
        wanted.erase(row_of(one));
      else if (!one.path.empty() || !wanted.contains(row_of(one)))  // who knows no path leaves the old one
        wanted[row_of(one)] = one.path;
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const TagRecord& one = batch[i];
      const bool is_last =
          std::none_of(batch.begin() + static_cast<std::ptrdiff_t>(i) + 1, batch.end(),
                       [&](const auto& later) { return later.path == one.path && later.space == one.space; });
      for (auto& [row, at] : wanted)
        if (is_last && !one.path.empty() && at == one.path && std::get<Space>(row) == one.space &&
            row != row_of(one)) {
          at.clear();
          ++released;
        }
    }
    ASSERT_EQ(read(), wanted) << "round " << round;
  }
  EXPECT_GT(released, 500U);
}

TEST_F(DatabaseTest, ARecordOfAnotherBirthIsStale) {
  const auto database = open();
  const std::string name = directory.write("file", "");
  FileRef file;
  file.name = name.c_str();
  TagRecord entry;
  entry.identity = *identifier.identify(file);
  if (entry.identity.birth_ns == 0) GTEST_SKIP() << "no birth times here";
  entry.policy = "bind:1";
  entry.identity.birth_ns += 1;
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  EXPECT_FALSE(*database->find(file, Space::system));
  EXPECT_TRUE(*database->find_identity(entry.identity, Space::system));
}

TEST_F(DatabaseTest, RecordsOfTheFirstSchemaAreWhatTheyWere) {
  using namespace std::string_literals;
  std::filesystem::create_directories(directory / "state");
  directory.write("state/fpolicy.db", "");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  {
    auto connection = Connection::open(path, Connection::Access::read_write);
    ASSERT_TRUE(connection);
    const std::string id = "PRAGMA application_id = " + std::to_string(store::application_id);
    ASSERT_TRUE(connection->execute(id.c_str()));
    ASSERT_TRUE(store::migrate(*connection, store::migrations().first(1)));
    ASSERT_TRUE(
        connection->execute("INSERT INTO filesystem VALUES (1, 'uuid:1');"
                            "INSERT INTO tag VALUES"
                            " (1, x'68010000000102030a00ff8040', 0, 0, 'bind:1', x'2f61', 0, 5, 0, 7),"
                            " (1, x'680100000000000001', 1, 1, 'bind:2', x'2f62', 1, 6, 3, 8),"
                            " (1, x'6801000000000001', 0, 1, 'bind:3', x'2f63', 0, 0, 0, 9),"
                            " (1, x'702f782f792f7a2f7877', 0, 1, 'bind:4', x'2f64', 0, 0, 0, 9),"
                            " (1, x'690102030405060708', 0, 1, 'bind:5', x'2f65', 0, 0, 0, 9)"));
  }
  const auto database = open();
  ASSERT_TRUE(database);
  const std::array keys{"h\x01\0\0\0\x01\x02\x03\x0a\0\xff\x80\x40"s, "h\x01\0\0\0\0\0\0\x01"s,
                        "h\x01\0\0\0\0\0\x01"s, "p/x/y/z/xw"s, "i\x01\x02\x03\x04\x05\x06\x07\x08"s};
  std::size_t number = 0;
  ASSERT_TRUE(database->for_each("", [&](const TagRecord& each) {
    EXPECT_EQ(each.identity.key, keys.at(number));
    EXPECT_EQ(each.policy, "bind:" + std::to_string(number + 1));
    const auto found = database->find_identity(each.identity, each.space);
    EXPECT_TRUE(found && *found && (*found)->path == each.path) << number;
    return ++number < keys.size();
  }));
  EXPECT_EQ(number, keys.size());
  const auto second = *database->find_identity({"uuid:1", keys[1], 0}, Space::user);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->carrier, Carrier::database);
  EXPECT_TRUE(second->directory);
  EXPECT_EQ(second->identity.birth_ns, 6);
  EXPECT_EQ(second->uid, 3U);
  EXPECT_EQ(second->changed_ns, 8);
}

// More than a statement takes, with some of them twice.
TEST_F(DatabaseTest, OfManyRecordsTheLastOfEachFileStands) {
  const auto database = open();
  std::vector<TagRecord> records;
  for (int i = 0; i < 1000; ++i) records.push_back(record(std::to_string(i % 900), "/f" + std::to_string(i)));
  for (int i = 0; i < 1000; ++i) records[static_cast<std::size_t>(i)].policy = "bind:" + std::to_string(i);
  ASSERT_TRUE(database->put(records));
  for (int i = 0; i < 900; ++i) {
    const auto found = *database->find_identity(record(std::to_string(i), "").identity, Space::system);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->policy, "bind:" + std::to_string(i < 100 ? i + 900 : i));
    EXPECT_EQ(found->path, "/f" + std::to_string(i < 100 ? i + 900 : i));
  }
}

TEST_F(DatabaseTest, EveryStatementUsesAnIndex) {
  open();
  auto connection = Connection::open(path, Connection::Access::read_only);
  ASSERT_TRUE(connection);
  const auto plan = [&](const std::string& text) {
    auto statement = connection->prepare(("EXPLAIN QUERY PLAN " + text).c_str());
    EXPECT_TRUE(statement) << text;
    std::string lines;
    while (statement && *statement->step()) lines.append(statement->bytes(3)).append("\n");
    return lines;
  };
  for (const char* text :
       {store::find_sql, store::filesystem_sql, store::erase_sql, store::erase_unchanged_sql, store::page_sql,
        store::from_path_sql, store::release_path_sql}) {
    const std::string lines = plan(text);
    EXPECT_THAT(lines, HasSubstr("SEARCH ")) << text;
    EXPECT_THAT(lines, testing::Not(HasSubstr("SCAN "))) << text << "\n" << lines;
    EXPECT_THAT(lines, testing::Not(HasSubstr("TEMP B-TREE"))) << text << "\n" << lines;
  }
  EXPECT_THAT(plan(store::find_sql),
              HasSubstr("tag USING PRIMARY KEY (filesystem=? AND stored_key=? AND space=?)"));
  EXPECT_THAT(plan(store::erase_sql),
              HasSubstr("tag USING PRIMARY KEY (filesystem=? AND stored_key=? AND space=?)"));
  EXPECT_THAT(plan(store::page_sql), HasSubstr("tag USING INDEX tag_by_path"));
  EXPECT_THAT(plan(store::from_path_sql), HasSubstr("tag USING COVERING INDEX tag_by_path (path>?)"));
  EXPECT_THAT(plan(store::release_path_sql), HasSubstr("tag_by_path (path=?)"));
  // One look for each filesystem, of which there are few.
  EXPECT_THAT(plan(store::carried_sql), HasSubstr("SEARCH tag USING INDEX tag_carried (filesystem=?)"));
}

TEST_F(DatabaseTest, AMigrationThatFailsLeavesTheVersionBefore) {
  std::filesystem::create_directories(directory / "state");
  directory.write("state/fpolicy.db", "");
  auto connection = Connection::open(path, Connection::Access::read_write);
  ASSERT_TRUE(connection);
  const std::array steps{store::Migration{"001_good", "CREATE TABLE one (x)"},
                         store::Migration{"002_bad", "CREATE TABLE two (x); INSERT INTO missing VALUES (1)"}};
  const auto done = store::migrate(*connection, steps);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("migration 002_bad"));
  EXPECT_EQ(*connection->query_integer("PRAGMA user_version"), 1);
  EXPECT_EQ(*connection->query_integer("SELECT count(*) FROM sqlite_schema"), 1);
  const std::array repaired{steps[0], store::Migration{"002_good", "CREATE TABLE two (x)"}};
  EXPECT_TRUE(store::migrate(*connection, repaired));
  EXPECT_EQ(*connection->query_integer("PRAGMA user_version"), 2);
  EXPECT_EQ(store::migrate(*connection, std::span(repaired).first(1)).error().code, ENOTSUP);
}

}  // namespace
}  // namespace fpolicy
