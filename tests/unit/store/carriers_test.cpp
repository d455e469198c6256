// SPDX-License-Identifier: LGPL-2.1-or-later
// docs/decisions/009: what is in the xattr, what in the database, who looks, and what there is then.
#include "faulty_sqlite.h"
#include "faulty_xattrs.h"
#include "temporary_directory.h"

#include <fpolicy/database_care.h>
#include <fpolicy/store.h>

#include <gtest/gtest.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

namespace fpolicy {
namespace {

FileRef at(const std::string& name) {
  FileRef file;
  file.name = name.c_str();
  file.path = name;
  return file;
}

/// One file with its xattr, and a database.
struct Bench {
  TemporaryDirectory directory;
  Identifier identifier;
  FaultyXattrs xattrs;
  std::string path = directory.write("file", "x");
  std::unique_ptr<Database> database;
  std::optional<PolicyStore> store;

  void open() {
    auto opened = Database::open(directory / "state/fpolicy.db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(opened) << opened.error().message;
    database = std::move(*opened);
    store.emplace(database.get(), &identifier, &xattrs);
  }
  void close() {
    store.reset();
    database.reset();
  }
  /// As it is on the disk, whatever the faults.
  [[nodiscard]] std::string xattr() const {
    std::string value(256, '\0');
    const ssize_t size = ::getxattr(path.c_str(), "user.fpolicy", value.data(), value.size());
    return size < 0 ? "" : value.substr(0, static_cast<std::size_t>(size));
  }
  /// "database bind:1" for a record that is the tag, "entry bind:1" for one of an xattr.
  std::string record() {
    const auto found = database->find(at(path), Space::user);
    if (!found) return found.error().message;
    if (!*found) return "";
    return ((*found)->carrier == Carrier::database ? "database " : "entry ") + (*found)->policy;
  }
  std::string tag() {
    const auto found = store->get(at(path), Space::user);
    if (!found) return found.error().message;
    return *found ? (*found)->text : "";
  }
  void put(const std::string& xattr, std::string record) {
    if (!xattr.empty()) {
      ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", xattr.data(), xattr.size(), 0), 0);
    }
    if (record.empty()) return;
    TagRecord made;
    made.identity = *identifier.identify(at(path));
    made.space = Space::user;
    made.carrier = record.starts_with("database ") ? Carrier::database : Carrier::xattr;
    made.policy = record.substr(record.find(' ') + 1);
    made.path = path;
    ASSERT_TRUE(database->put(std::span(&made, 1)));
  }
};

bool has_xattrs() {
  const TemporaryDirectory directory;
  const std::string file = directory.write("file", "x");
  return ::setxattr(file.c_str(), "user.fpolicy-test", "x", 1, 0) == 0;
}

struct Disagreement {
  const char* name;
  // Before.
  const char* xattr;
  const char* record;
  int get_error;
  int set_error;
  // Who looks: policyd, or --repair.
  bool move;
  // After.
  std::optional<Correction> correction;
  const char* xattr_after;
  const char* record_after;
  const char* tag_after;
};

constexpr int none = EOPNOTSUPP;

const Disagreement disagreements[] = {
    {"SetWithSetfattr", "1 bind:1", "", 0, 0, false, Correction::entered, "1 bind:1", "entry bind:1",
     "bind:1"},
    {"ChangedWithSetfattr", "1 bind:2", "entry bind:1", 0, 0, false, Correction::corrected, "1 bind:2",
     "entry bind:2", "bind:2"},
    {"RemovedWithSetfattr", "", "entry bind:1", 0, 0, false, Correction::entry_removed, "", "", ""},
    {"RemovedWithSetfattrSeenByRepair", "", "entry bind:1", 0, 0, true, Correction::entry_removed, "", "",
     ""},
    {"BothAndTheXattrWins", "1 bind:2", "database bind:1", 0, 0, false, Correction::corrected, "1 bind:2",
     "entry bind:2", "bind:2"},
    {"BothSayTheSame", "1 bind:1", "database bind:1", 0, 0, false, Correction::corrected, "1 bind:1",
     "entry bind:1", "bind:1"},
    {"BothAndTheXattrIsNotUnderstood", "9 new", "database bind:1", 0, 0, true, Correction::corrected, "9 new",
     "entry 9 new", "9 new"},
    {"AllAgrees", "1 bind:1", "entry bind:1", 0, 0, true, std::nullopt, "1 bind:1", "entry bind:1", "bind:1"},
    {"XattrsGainedAndPolicydLeavesTheFileAlone", "", "database bind:1", 0, 0, false, std::nullopt, "",
     "database bind:1", "bind:1"},
    {"XattrsGained", "", "database bind:1", 0, 0, true, Correction::moved_to_xattr, "1 bind:1",
     "entry bind:1", "bind:1"},
    {"XattrsGainedButTheDiskIsFull", "", "database bind:1", 0, ENOSPC, true, std::nullopt, "",
     "database bind:1", "bind:1"},
    {"XattrsGainedButReadOnly", "", "database bind:1", 0, EROFS, true, std::nullopt, "", "database bind:1",
     "bind:1"},
    {"XattrsGainedForATagThatIsNotUnderstood", "", "database new", 0, 0, true, std::nullopt, "",
     "database new", "new"},
    {"XattrsLostAndPolicydWaits", "1 bind:1", "entry bind:1", none, none, false, std::nullopt, "1 bind:1",
     "entry bind:1", ""},
    {"XattrsLost", "1 bind:1", "entry bind:1", none, none, true, Correction::moved_to_database, "1 bind:1",
     "database bind:1", "bind:1"},
    {"XattrsLostOfATagThatIsNotUnderstood", "9 new", "entry 9 new", none, none, true, std::nullopt, "9 new",
     "entry 9 new", ""},
    {"NoXattrsAndCarried", "", "database bind:1", none, none, true, std::nullopt, "", "database bind:1",
     "bind:1"},
    {"NothingAtAll", "", "", 0, 0, true, std::nullopt, "", "", ""},
};

class Carriers : public testing::TestWithParam<Disagreement> {};

TEST_P(Carriers, AreCorrectedOnce) {
  if (!has_xattrs()) GTEST_SKIP() << "the directory for temporary files has no user xattrs";
  const Disagreement& of = GetParam();
  Bench bench;
  bench.open();
  bench.put(of.xattr, of.record);
  bench.xattrs.get_error = of.get_error;
  bench.xattrs.set_error = of.set_error;
  const bool read_only_told = of.set_error == 0 || of.set_error == none;

  const auto shown = bench.store->reconcile(at(bench.path), {.move = of.move, .dry_run = true});
  ASSERT_TRUE(shown) << shown.error().message;
  ASSERT_TRUE(bench.store->flush());
  // That a disk is full, only trying shows.
  if (read_only_told) {
    ASSERT_EQ(shown->size(), of.correction ? 1U : 0U);
  }
  EXPECT_EQ(bench.xattr(), of.xattr);
  EXPECT_EQ(bench.record(), of.record);

  const auto done = bench.store->reconcile(at(bench.path), {.move = of.move});
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_TRUE(bench.store->flush());
  ASSERT_EQ(done->size(), of.correction ? 1U : 0U);
  if (of.correction) {
    EXPECT_EQ(done->front().correction, *of.correction);
    EXPECT_EQ(done->front().space, Space::user);
  }
  EXPECT_EQ(bench.xattr(), of.xattr_after);
  EXPECT_EQ(bench.record(), of.record_after);
  EXPECT_EQ(bench.tag(), of.tag_after);

  const auto again = bench.store->reconcile(at(bench.path), {.move = of.move});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->empty());
}

INSTANTIATE_TEST_SUITE_P(Each, Carriers, testing::ValuesIn(disagreements),
                         [](const auto& of) { return std::string(of.param.name); });

// The second step of a move fails at every call that it makes to the disk.
TEST(CarrierFaults, AMoveThatStopsHalfWayIsFinishedByTheNext) {
  if (!has_xattrs()) GTEST_SKIP() << "the directory for temporary files has no user xattrs";
  FaultySqlite faulty;
  unsigned failures = 0;
  for (const bool to_xattr : {true, false}) {
    for (unsigned nth = 1;; ++nth) {
      Bench bench;
      bench.open();
      bench.put(to_xattr ? "" : "1 bind:1", to_xattr ? "database bind:1" : "entry bind:1");
      bench.xattrs.get_error = bench.xattrs.set_error = to_xattr ? 0 : EOPNOTSUPP;
      faulty.fail_disk(nth, true);
      const auto moved = bench.store->reconcile(at(bench.path), {.move = true});
      const auto flushed = bench.store->flush();
      bench.close();
      const bool failed = faulty.heal();
      if (!failed) {
        EXPECT_TRUE(moved && flushed);
        break;
      }
      ++failures;
      bench.open();
      if (to_xattr)
        EXPECT_EQ(bench.tag(), "bind:1") << nth;
      else
        EXPECT_EQ(bench.xattr(), "1 bind:1") << nth;
      ASSERT_TRUE(bench.store->reconcile(at(bench.path), {.move = true})) << nth;
      ASSERT_TRUE(bench.store->flush()) << nth;
      EXPECT_EQ(bench.xattr(), "1 bind:1") << nth;
      EXPECT_EQ(bench.record(), to_xattr ? "entry bind:1" : "database bind:1") << nth;
      EXPECT_EQ(bench.tag(), "bind:1") << nth;
    }
  }
  EXPECT_GT(failures, 0U);
}

TEST(Collecting, WhatWasSetAnewSinceTheLookStays) {
  Bench bench;
  bench.open();
  std::vector<TagRecord> records(3);
  for (std::size_t i = 0; i < records.size(); ++i) {
    // Of a filesystem that went with an earlier boot: gone, whoever asks.
    records[i].identity = {"boot:earlier:tmpfs:1", "i" + std::to_string(i), 42};
    records[i].policy = "bind:1";
    records[i].path = "/gone/" + std::to_string(i);
    records[i].carrier = Carrier::database;
  }
  ASSERT_TRUE(bench.database->put(records));
  const auto stale = find_stale(*bench.database, bench.identifier);
  ASSERT_TRUE(stale) << stale.error().message;
  ASSERT_EQ(stale->size(), 3U);
  for (const StaleRecord& found : *stale) EXPECT_EQ(found.finding.fate, Fate::gone);
  TagRecord anew = records[1];
  anew.policy = "bind:2";
  anew.changed_ns = 7;
  ASSERT_TRUE(bench.database->put(std::span(&anew, 1)));
  const auto removed = collect_stale(*bench.database, bench.identifier, *stale);
  ASSERT_TRUE(removed) << removed.error().message;
  EXPECT_EQ(removed->size(), 2U);
  const auto left = bench.database->find_identity(anew.identity, Space::system);
  ASSERT_TRUE(left && *left);
  EXPECT_EQ((*left)->policy, "bind:2");
}

TEST(Collecting, WhatIsMerelyNotMountedStays) {
  Bench bench;
  bench.open();
  TagRecord record;
  record.policy = "bind:1";
  record.path = "/nowhere";
  for (const char* key : {"h1234abcd", "p/file", "i1"}) {
    record.identity = {"uuid:00000000-0000-0000-0000-000000000000", key, 42};
    ASSERT_TRUE(bench.database->put(std::span(&record, 1)));
    const Finding finding = bench.identifier.examine(record.identity, record.path);
    EXPECT_EQ(finding.fate, Fate::unknown) << key;
    EXPECT_EQ(finding.code, ENODEV) << key;
  }
  const auto stale = find_stale(*bench.database, bench.identifier);
  ASSERT_TRUE(stale);
  EXPECT_EQ(stale->size(), 3U);
  const auto removed = collect_stale(*bench.database, bench.identifier, *stale);
  ASSERT_TRUE(removed) << removed.error().message;
  EXPECT_TRUE(removed->empty());
}

TEST(Collecting, AFileThatIsThereIsLiveWhereverItIs) {
  Bench bench;
  bench.open();
  const auto identity = bench.identifier.identify(at(bench.path));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(bench.identifier.examine(*identity, bench.path).fate, Fate::live);
  if (::geteuid() != 0 || !identity->key.starts_with('h'))
    GTEST_SKIP() << "to find a renamed file needs root, and a filesystem with handles";
  ASSERT_EQ(::rename(bench.path.c_str(), (bench.directory / "renamed").c_str()), 0);
  EXPECT_EQ(bench.identifier.examine(*identity, bench.path).fate, Fate::live);
  const Fd open(::open((bench.directory / "renamed").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::unlink((bench.directory / "renamed").c_str()), 0);
  EXPECT_EQ(bench.identifier.examine(*identity, bench.path).fate, Fate::stale);
}

}  // namespace
}  // namespace fpolicy
