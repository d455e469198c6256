// SPDX-License-Identifier: LGPL-2.1-or-later
#include "faulty_xattrs.h"
#include "temporary_directory.h"

#include <fpolicy/store.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <map>
#include <thread>

namespace fpolicy {
namespace {

using testing::HasSubstr;

class PolicyStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Database::open(directory / "state/fpolicy.db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(opened) << opened.error().message;
    database = std::move(*opened);
    store.emplace(database.get(), &identifier, &xattrs);
    path = directory.write("file", "x");
    if (::setxattr(path.c_str(), "user.fpolicy-test", "x", 1, 0) != 0)
      GTEST_SKIP() << "the directory for temporary files has no user xattrs";
  }

  static FileRef at(const std::string& name) {
    FileRef file;
    file.name = name.c_str();
    file.path = name;
    return file;
  }
  static Policy policy(std::string_view text) { return *parse_policy(text); }

  Result<SetOutcome> set(std::string_view text, const SetOptions& options = {}) {
    auto outcome = store->set(at(path), Space::user, policy(text), options);
    if (const auto done = store->flush(); !done) return tl::unexpected(done.error());
    return outcome;
  }
  std::optional<Tag> tag() {
    auto found = store->get(at(path), Space::user);
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : std::nullopt;
  }
  std::optional<TagRecord> record() {
    auto found = database->find(at(path), Space::user);
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : std::nullopt;
  }
  std::string xattr() {
    std::string value(256, '\0');
    const ssize_t size = ::getxattr(path.c_str(), "user.fpolicy", value.data(), value.size());
    return size < 0 ? "none" : value.substr(0, static_cast<std::size_t>(size));
  }

  TemporaryDirectory directory;
  Identifier identifier;
  FaultyXattrs xattrs;
  std::unique_ptr<Database> database;
  std::optional<PolicyStore> store;
  std::string path;
};

TEST_F(PolicyStoreTest, AnXattrIsWrittenReadAndCatalogued) {
  EXPECT_FALSE(tag());
  const auto outcome = set("bind:1");
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(*outcome, SetOutcome::changed);
  EXPECT_EQ(xattr(), "1 bind:1");
  const auto found = tag();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->carrier, Carrier::xattr);
  EXPECT_EQ(found->policy, policy("bind:1"));
  EXPECT_EQ(found->text, "bind:1");
  const auto entry = record();
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->carrier, Carrier::xattr);
  EXPECT_EQ(entry->policy, "bind:1");
  EXPECT_EQ(entry->path, path);
  EXPECT_EQ(entry->uid, ::geteuid());
  EXPECT_GT(entry->changed_ns, 1'600'000'000'000'000'000);
}

TEST_F(PolicyStoreTest, WhatIsStoredIsNotWrittenAgain) {
  ASSERT_TRUE(set("bind:1"));
  EXPECT_EQ(xattrs.sets, 1);
  EXPECT_EQ(*set("bind:1"), SetOutcome::unchanged);
  EXPECT_EQ(xattrs.sets, 1);
  EXPECT_EQ(*set("bind:2"), SetOutcome::changed);
  EXPECT_EQ(xattrs.sets, 2);
}

TEST_F(PolicyStoreTest, AnUnchangedTagThatTheCatalogueLacksIsEntered) {
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:1", 8, 0), 0);
  EXPECT_EQ(*set("bind:1"), SetOutcome::unchanged);
  ASSERT_TRUE(record());
  EXPECT_EQ(record()->policy, "bind:1");
}

TEST_F(PolicyStoreTest, RemovalTakesXattrAndEntry) {
  ASSERT_TRUE(set("bind:1"));
  EXPECT_EQ(*store->remove(at(path), Space::user), SetOutcome::changed);
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(xattr(), "none");
  EXPECT_FALSE(record());
  EXPECT_EQ(*store->remove(at(path), Space::user), SetOutcome::unchanged);
}

TEST_F(PolicyStoreTest, DryRunChangesNothing) {
  SetOptions dry;
  dry.dry_run = true;
  EXPECT_EQ(*set("bind:1", dry), SetOutcome::changed);
  EXPECT_EQ(xattr(), "none");
  EXPECT_FALSE(record());
  ASSERT_TRUE(set("bind:1"));
  EXPECT_EQ(*set("bind:1", dry), SetOutcome::unchanged);
  EXPECT_EQ(*store->remove(at(path), Space::user, dry), SetOutcome::changed);
  EXPECT_EQ(xattr(), "1 bind:1");
}

TEST_F(PolicyStoreTest, BothTagsAreFoundHoweverTheFilesystemListsNames) {
  const auto user = [&] {
    const auto tags = store->get(at(path));
    EXPECT_TRUE(tags);
    return tags && tags->user ? tags->user->text : "none";
  };
  EXPECT_EQ(user(), "none");
  ASSERT_TRUE(set("bind:1"));
  EXPECT_EQ(user(), "bind:1");
  xattrs.list_error = EOPNOTSUPP;
  EXPECT_EQ(user(), "bind:1");
  xattrs.list_error = 0;
  // More names than one expects of a file.
  for (int i = 0; i < 20; ++i) {
    const std::string name = "user.a-name-of-thirty-two-letters-" + std::to_string(i);
    ASSERT_EQ(::setxattr(path.c_str(), name.c_str(), "", 0, 0), 0);
  }
  EXPECT_EQ(user(), "bind:1");
}

TEST_F(PolicyStoreTest, APolicyThatIsNotValidIsNotStored) {
  Policy contradiction = policy("bind:1");
  contradiction.nodes.clear();
  const auto refused = store->set(at(path), Space::user, contradiction);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_THAT(refused.error().message, HasSubstr(path));
  EXPECT_EQ(xattr(), "none");
}

TEST_F(PolicyStoreTest, AnUnsupportedTagIsKeptWithoutForce) {
  const std::string future = "2 bind:1,colour=red";
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", future.data(), future.size(), 0), 0);
  const auto found = tag();
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->policy);
  EXPECT_EQ(found->text, future);
  const auto refused = set("bind:1");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ENOTSUP);
  EXPECT_THAT(refused.error().message,
              HasSubstr(path + ": has a user tag that this version does not understand (2 bind"));
  EXPECT_EQ(xattr(), future);
  EXPECT_EQ(store->remove(at(path), Space::user).error().code, ENOTSUP);
  EXPECT_EQ(xattr(), future);
  SetOptions force;
  force.force = true;
  EXPECT_EQ(*set("bind:1", force), SetOutcome::changed);
  EXPECT_EQ(xattr(), "1 bind:1");
}

TEST_F(PolicyStoreTest, HostileXattrBytesAreUnsupportedNeverApplied) {
  std::string all;
  for (int i = 0; i < 255; ++i) all += static_cast<char>(i);
  for (const std::string& value :
       {std::string(), std::string("1"), std::string("1 "), std::string("1 bind:1\0", 9),
        std::string("1 bind:1\n"), std::string(300, 'x'), all, std::string("1  bind:1"),
        std::string("01 bind:1")}) {
    ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", value.data(), value.size(), 0), 0);
    const auto found = tag();
    ASSERT_TRUE(found);
    EXPECT_FALSE(found->policy) << value;
    const auto refused = set("bind:1");
    ASSERT_FALSE(refused) << value;
    for (const char c : refused.error().message) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
  }
}

struct Fault {
  int get;
  int set;
};
class PolicyStoreFaultTest : public PolicyStoreTest, public testing::WithParamInterface<Fault> {};

TEST_P(PolicyStoreFaultTest, TheDatabaseCarriesTheTag) {
  xattrs.get_error = GetParam().get;
  xattrs.set_error = GetParam().set;
  EXPECT_EQ(*set("bind:1"), SetOutcome::changed);
  EXPECT_EQ(xattr(), "none");
  const auto found = tag();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->carrier, Carrier::database);
  EXPECT_EQ(found->policy, policy("bind:1"));
  EXPECT_EQ(*set("bind:1"), SetOutcome::unchanged);
  EXPECT_EQ(*set("bind:2"), SetOutcome::changed);
  EXPECT_EQ(tag()->text, "bind:2");
  EXPECT_EQ(*store->remove(at(path), Space::user), SetOutcome::changed);
  ASSERT_TRUE(store->flush());
  EXPECT_FALSE(tag());
}

TEST_P(PolicyStoreFaultTest, WithoutRecordsTheErrorNamesPolicyd) {
  xattrs.get_error = GetParam().get;
  xattrs.set_error = GetParam().set;
  PolicyStore alone(nullptr, &identifier, &xattrs);
  const auto refused = alone.set(at(path), Space::user, policy("bind:1"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, GetParam().set);
  EXPECT_THAT(refused.error().message, HasSubstr("policyd"));
  EXPECT_THAT(refused.error().message, HasSubstr(path));
}

INSTANTIATE_TEST_SUITE_P(Faults, PolicyStoreFaultTest,
                         testing::Values(Fault{EOPNOTSUPP, EOPNOTSUPP}, Fault{0, EOPNOTSUPP}, Fault{0, EROFS},
                                         Fault{0, ENOSPC}, Fault{0, EDQUOT}),
                         [](const auto& param_info) {
                           return std::string(strerrorname_np(param_info.param.set)) +
                                  (param_info.param.get != 0 ? "_get" : "");
                         });

TEST_F(PolicyStoreTest, AFullFilesystemsOldXattrGivesWayToTheRecord) {
  ASSERT_TRUE(set("bind:1"));
  xattrs.set_error = ENOSPC;
  EXPECT_EQ(*set("interleave:0-3"), SetOutcome::changed);
  EXPECT_EQ(xattr(), "none");
  EXPECT_EQ(tag()->carrier, Carrier::database);
  EXPECT_EQ(tag()->text, "interleave:0-3");
}

TEST_F(PolicyStoreTest, AReadOnlyFilesystemsOldXattrStaysWhole) {
  ASSERT_TRUE(set("bind:1"));
  xattrs.set_error = EROFS;
  xattrs.remove_error = EROFS;
  const auto refused = set("bind:2");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EROFS);
  EXPECT_EQ(tag()->text, "bind:1");
  ASSERT_TRUE(record());
  EXPECT_EQ(record()->carrier, Carrier::xattr);
  EXPECT_EQ(record()->policy, "bind:1");
}

TEST_F(PolicyStoreTest, ARecordTurnsIntoTheEntryOfAnXattr) {
  xattrs.set_error = ENOSPC;
  ASSERT_TRUE(set("bind:1"));
  xattrs.set_error = 0;
  EXPECT_EQ(*set("bind:1"), SetOutcome::changed);
  EXPECT_EQ(xattr(), "1 bind:1");
  EXPECT_EQ(tag()->carrier, Carrier::xattr);
  EXPECT_EQ(record()->carrier, Carrier::xattr);
  EXPECT_FALSE(*database->carries_tags(at(path)));
}

TEST_F(PolicyStoreTest, PermissionErrorsSayWhatIsNeeded) {
  xattrs.set_error = EPERM;
  const auto system = store->set(at(path), Space::system, policy("bind:1"));
  ASSERT_FALSE(system);
  EXPECT_EQ(system.error().code, EPERM);
  EXPECT_THAT(system.error().message, HasSubstr("system tags need CAP_SYS_ADMIN (root)"));
  xattrs.set_error = EACCES;
  EXPECT_THAT(store->set(at(path), Space::user, policy("bind:1")).error().message,
              HasSubstr("user tags need write permission"));
  xattrs.set_error = EIO;
  EXPECT_EQ(store->set(at(path), Space::user, policy("bind:1")).error().message,
            "set user tag of " + path + ": Input/output error");
  ASSERT_TRUE(store->flush());
  EXPECT_FALSE(record());
}

TEST_F(PolicyStoreTest, OnlyRegularFilesAndDirectoriesCarryTags) {
  const std::string link = directory / "link";
  const std::string fifo = directory / "fifo";
  ASSERT_EQ(::symlink(path.c_str(), link.c_str()), 0);
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const auto& [name, what] : {std::pair(link, "symbolic link"), std::pair(fifo, "FIFO"),
                                   std::pair(std::string("/dev/null"), "device")}) {
    const auto refused = store->set(at(name), Space::user, policy("bind:1"));
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, EINVAL);
    EXPECT_THAT(refused.error().message, HasSubstr(what));
    EXPECT_FALSE(store->remove(at(name), Space::user));
  }
  EXPECT_EQ(xattr(), "none");
  EXPECT_TRUE(store->set(at(directory.path()), Space::user, policy("bind:1")));
  ASSERT_TRUE(store->flush());
  EXPECT_TRUE(database->find(at(directory.path()), Space::user)->value().directory);
  EXPECT_EQ(store->set(at(directory / "missing"), Space::user, policy("bind:1")).error().code, ENOENT);
}

TEST_F(PolicyStoreTest, EveryKindOfDescriptorWillDo) {
  for (const int flags : {O_RDONLY, O_PATH, O_RDWR}) {
    const Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
    FileRef file;
    file.fd = fd.get();
    file.path = path;
    const auto wanted = policy("bind:" + std::to_string(flags % 1000));
    ASSERT_TRUE(store->set(file, Space::user, wanted));
    EXPECT_EQ(store->get(file, Space::user)->value().policy, wanted);
    ASSERT_TRUE(store->flush());
    EXPECT_EQ(record()->policy, format_policy(wanted));
    EXPECT_EQ(*store->remove(file, Space::user), SetOutcome::changed);
  }
}

TEST_F(PolicyStoreTest, ADryRunIsContentWithADatabaseThatItOnlyReads) {
  const auto reading =
      Database::open(directory / "state/fpolicy.db", Database::Access::read_only, &identifier);
  ASSERT_TRUE(reading) << reading.error().message;
  store.emplace(reading->get(), &identifier, &xattrs);
  xattrs.get_error = EOPNOTSUPP;
  EXPECT_FALSE(set("bind:1"));
  SetOptions dry;
  dry.dry_run = true;
  const auto outcome = set("bind:1", dry);
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(*outcome, SetOutcome::changed);
}

TEST_F(PolicyStoreTest, ANewFileOfTheSameNameHasNoTag) {
  xattrs.set_error = EOPNOTSUPP;
  ASSERT_TRUE(set("bind:1"));
  ASSERT_TRUE(tag());
  // ext4 and tmpfs give the inode number to the next file.
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(::unlink(path.c_str()), 0);
    directory.write("file", "y");
    EXPECT_FALSE(tag());
  }
}

TEST_F(PolicyStoreTest, ATagFollowsRenameAndHardLink) {
  xattrs.set_error = EOPNOTSUPP;
  ASSERT_TRUE(set("bind:1"));
  const std::string second = directory / "second";
  ASSERT_EQ(::link(path.c_str(), second.c_str()), 0);
  EXPECT_EQ(store->get(at(second), Space::user)->value().text, "bind:1");
  const std::string third = directory / "third";
  ASSERT_EQ(::rename(path.c_str(), third.c_str()), 0);
  EXPECT_EQ(store->get(at(third), Space::user)->value().text, "bind:1");
}

TEST_F(PolicyStoreTest, ReconcileCorrectsTheCatalogue) {
  ASSERT_TRUE(set("bind:1"));
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:2", 8, 0), 0);
  ASSERT_TRUE(store->reconcile(at(path)));
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(record()->policy, "bind:2");
  ASSERT_EQ(::removexattr(path.c_str(), "user.fpolicy"), 0);
  ASSERT_TRUE(store->reconcile(at(path)));
  ASSERT_TRUE(store->flush());
  EXPECT_FALSE(record());
  xattrs.set_error = ENOSPC;
  ASSERT_TRUE(set("bind:3"));
  ASSERT_TRUE(store->reconcile(at(path)));
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(tag()->text, "bind:3");
}

TEST_F(PolicyStoreTest, WhatOthersHaveChangedMeanwhileIsNotCorrected) {
  // Another process, whose changes are in the database before what is queued here.
  PolicyStore other(database.get(), &identifier, &xattrs);
  const auto set_by_other = [&](std::string_view text) {
    ASSERT_TRUE(other.set(at(path), Space::user, policy(text)));
    ASSERT_TRUE(other.flush());
  };
  const auto reconciled = [&] {
    const auto done = store->reconcile(at(path));
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_EQ(done->size(), 1U);
  };
  ASSERT_TRUE(set("bind:1"));
  // An entry without its xattr goes; but now the database carries the tag.
  ASSERT_EQ(::removexattr(path.c_str(), "user.fpolicy"), 0);
  reconciled();
  xattrs.set_error = ENOSPC;
  set_by_other("bind:2");
  ASSERT_TRUE(store->flush());
  ASSERT_TRUE(tag());
  EXPECT_EQ(tag()->text, "bind:2");
  // An entry that is corrected, and one that was missing.
  xattrs.set_error = 0;
  set_by_other("bind:3");
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:4", 8, 0), 0);
  reconciled();
  set_by_other("bind:5");
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(record()->policy, "bind:5");
  ASSERT_TRUE(other.remove(at(path), Space::user));
  ASSERT_TRUE(other.flush());
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:6", 8, 0), 0);
  reconciled();
  set_by_other("bind:7");
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(record()->policy, "bind:7");
}

TEST_F(PolicyStoreTest, TheEntryOfAListedFileIsKnownByItsHandle) {
  struct statx status{};
  ASSERT_EQ(::statx(AT_FDCWD, path.c_str(), 0, STATX_MNT_ID, &status), 0);
  const int mount = static_cast<int>(status.stx_mnt_id);
  const auto full = identifier.identify(at(path));
  ASSERT_TRUE(full);
  const auto listed = identifier.identify_listed(at(path), mount);
  ASSERT_TRUE(listed) << listed.error().message;
  if (!*listed) GTEST_SKIP() << "no handles with generations here";
  EXPECT_EQ((*listed)->key, full->key);
  EXPECT_EQ((*listed)->filesystem, full->filesystem);
  EXPECT_EQ((*listed)->birth_ns, 0);
  EXPECT_TRUE(is_file_of(**listed, *full));
  // What is mounted on it is another file, and its type not known.
  EXPECT_EQ(*identifier.identify_listed(at(path), mount + 1), std::nullopt);
  EXPECT_EQ(*identifier.identify_listed(at(path), 0), std::nullopt);

  for (const SetOutcome outcome : {SetOutcome::changed, SetOutcome::unchanged}) {
    EXPECT_EQ(*store->set_listed(at(path), mount, Space::user, policy("bind:1")), outcome);
    ASSERT_TRUE(store->flush());
    const auto entry = record();
    ASSERT_TRUE(entry) << "live";
    EXPECT_EQ(entry->identity, **listed);
    EXPECT_EQ(identifier.examine(entry->identity, path).fate, Fate::live);
    EXPECT_TRUE(store->reconcile(at(path))->empty());
  }
  // Somebody else says something else: the entry is corrected, but not over a later one.
  const auto entry = record();
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:4", 8, 0), 0);
  EXPECT_EQ(store->reconcile(at(path))->size(), 1U);
  PolicyStore other(database.get(), &identifier, &xattrs);
  ASSERT_TRUE(other.set_listed(at(path), mount, Space::user, policy("bind:5")));
  ASSERT_TRUE(other.flush());
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(record()->policy, "bind:5");
  // A tag that the database carries has its birth time.
  xattrs.set_error = ENOSPC;
  ASSERT_TRUE(store->set_listed(at(path), mount, Space::user, policy("bind:6")));
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(record()->carrier, Carrier::database);
  EXPECT_EQ(record()->identity, *full);
  xattrs.set_error = 0;

  // Another file at its path is another.
  directory.write("other", "");
  ASSERT_EQ(::rename((directory / "other").c_str(), path.c_str()), 0);
  EXPECT_FALSE(is_file_of(entry->identity, *identifier.identify(at(path))));
  EXPECT_EQ(identifier.open(entry->identity, path).error().code, ::geteuid() == 0 ? ESTALE : EPERM);
}

TEST_F(PolicyStoreTest, ThreadsTagSideBySide) {
  // Together more changes than a batch holds.
  constexpr int files = 500;
  constexpr int threads = 3;
  constexpr int rounds = 6;
  for (int i = 0; i < files * threads; ++i) directory.write("many/" + std::to_string(i), "");
  std::vector<std::thread> workers;
  std::atomic<int> failures = 0;
  for (int t = 0; t < threads; ++t)
    workers.emplace_back([&, t] {
      for (int round = 1; round <= rounds; ++round)
        for (int i = t * files; i < (t + 1) * files; ++i)
          if (!store->set(at(directory / ("many/" + std::to_string(i))), Space::user,
                          policy("bind:" + std::to_string(round))))
            ++failures;
    });
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(failures, 0);
  ASSERT_TRUE(store->flush());
  int entries = 0;
  ASSERT_TRUE(database->for_each(directory / "many/", [&](const TagRecord& entry) {
    EXPECT_EQ(entry.policy, "bind:6") << "the last word on a file stands";
    return ++entries > 0;
  }));
  EXPECT_EQ(entries, files * threads);
}

TEST_F(PolicyStoreTest, FlushTellsThatTheDatabaseFailed) {
  const auto read_only =
      Database::open(directory / "state/fpolicy.db", Database::Access::read_only, &identifier);
  ASSERT_TRUE(read_only) << read_only.error().message;
  // A database that says it can be written and then fails, as one on a full disk.
  class Failing final : public RecordStore {
   public:
    explicit Failing(RecordStore& below) : below_(below) {}
    Result<std::optional<TagRecord>> find(const FileRef& file, Space space) override {
      return below_.find(file, space);
    }
    Result<bool> carries_tags(const FileRef& file) override { return below_.carries_tags(file); }
    bool writable() const override { return true; }
    Status put(std::span<const TagRecord> records) override { return below_.put(records); }
    Status erase(std::span<const TagRecord> records) override { return below_.erase(records); }
    Status correct(std::span<const RecordCorrection> corrections) override {
      return below_.correct(corrections);
    }
    Status for_each(std::string_view prefix, const std::function<bool(const TagRecord&)>& each) override {
      return below_.for_each(prefix, each);
    }
    Result<std::uint64_t> data_version() override { return below_.data_version(); }

   private:
    RecordStore& below_;
  } failing(**read_only);
  PolicyStore over(&failing, &identifier, &xattrs);
  xattrs.set_error = EOPNOTSUPP;
  ASSERT_TRUE(over.set(at(path), Space::user, policy("bind:1")));
  const auto done = over.flush();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, EROFS);
  EXPECT_THAT(done.error().message, HasSubstr("1 records were not changed"));
  EXPECT_TRUE(over.flush()) << "told once";
}

}  // namespace
}  // namespace fpolicy
