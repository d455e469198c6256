// SPDX-License-Identifier: LGPL-2.1-or-later
#include "faulty_xattrs.h"
#include "sys/file_status.h"
#include "sys/guarded_path.h"
#include "temporary_directory.h"

#include <fpolicy/carry_over.h>
#include <fpolicy/store.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

namespace fpolicy {
namespace {

using testing::HasSubstr;

/// The administrator is whoever runs the tests, and what lies above the directory of the test is not asked:
/// then user tags do for everything that needs no root.
class CarryOverTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Database::open(directory / "state/fpolicy.db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(opened) << opened.error().message;
    database = std::move(*opened);
    store.emplace(database.get(), &identifier, &xattrs);
    carry_over.emplace(database.get(), &*store, &identifier, Administrator{::geteuid(), directory.path()});
    ::umask(022);
    path = directory.write("lib/file", "old");
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
  void set(const std::string& name, std::string_view text, const SetOptions& options = {}) {
    const auto outcome = store->set(at(name), Space::user, policy(text), options);
    EXPECT_TRUE(outcome) << outcome.error().message;
    EXPECT_TRUE(store->flush());
  }
  /// As package managers do.
  void replace(const std::string& name, const std::string& text = "new") const {
    const std::filesystem::path file(name);
    const std::string fresh = name + ".dpkg-new";
    std::ofstream(fresh) << text;
    std::filesystem::rename(fresh, file);
  }
  /// The policies that were carried over; the message where that was refused.
  std::string carry(const CarryOptions& options = {}) { return carry(path, options); }
  std::string carry(const std::string& name, const CarryOptions& options = {}) {
    const auto carried = carry_over->carry(name, options);
    const auto done = carry_over->finish();
    EXPECT_TRUE(done) << done.error().message;
    if (!carried) return carried.error().message;
    if (!*carried) return "nothing";
    std::string text;
    for (const auto& tag : (*carried)->tags) text += format_policy(tag.policy);
    return text;
  }
  std::string tag(const std::string& name) {
    const auto found = store->get(at(name), Space::user);
    EXPECT_TRUE(found) << found.error().message;
    return found && *found ? (*found)->text : "none";
  }
  /// Only root, who opens files by their handles, knows of an old one that it is gone.
  std::vector<std::string> catalogue() {
    std::vector<std::string> lines;
    EXPECT_TRUE(database->for_each("", [&](const TagRecord& record) {
      if (::geteuid() == 0 || !record.path.empty()) lines.push_back(record.path + " " + record.policy);
      return true;
    }));
    return lines;
  }

  TemporaryDirectory directory;
  Identifier identifier;
  FaultyXattrs xattrs;
  std::unique_ptr<Database> database;
  std::optional<PolicyStore> store;
  std::optional<CarryOver> carry_over;
  std::string path;
};

TEST_F(CarryOverTest, AReplacedFileGetsTheTagAndTheOldEntryGoes) {
  set(path, "bind:1");
  EXPECT_EQ(carry(), "nothing") << "the file is the one that was tagged";
  replace(path);
  EXPECT_EQ(tag(path), "none");
  EXPECT_EQ(carry(), "bind:1");
  EXPECT_EQ(tag(path), "bind:1");
  EXPECT_THAT(catalogue(), testing::ElementsAre(path + " bind:1"));
  EXPECT_EQ(carry(), "nothing");
  // Again and again, also with the same bytes.
  replace(path);
  EXPECT_EQ(carry(), "bind:1");
  // Removed, and there again.
  std::filesystem::remove(path);
  EXPECT_EQ(carry(), "nothing");
  replace(path);
  EXPECT_EQ(carry(), "bind:1");
  EXPECT_THAT(catalogue(), testing::ElementsAre(path + " bind:1"));
}

TEST_F(CarryOverTest, AHalfCarriedFileGetsItsUserTagToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root sets system tags";
  const auto set_system = [&](std::string_view text) {
    ASSERT_TRUE(store->set(at(path), Space::system, policy(text)));
    ASSERT_TRUE(store->flush());
  };
  set_system("bind:0");
  set(path, "bind:1");
  replace(path);
  // As if killed in between; once after and once before the entry was written.
  set_system("bind:0");
  EXPECT_EQ(carry(), "bind:1");
  replace(path);
  ASSERT_EQ(xattrs.set(at(path), "security.fpolicy", "1 bind:0", true), 0);
  EXPECT_EQ(carry(), "bind:1");
  EXPECT_EQ(tag(path), "bind:1");
  EXPECT_EQ(carry(), "nothing");
  EXPECT_THAT(catalogue(), testing::IsSupersetOf({path + " bind:0", path + " bind:1"}));
}

TEST_F(CarryOverTest, WhereTheDatabaseHoldsTheTagItIsTheSame) {
  xattrs.get_error = EOPNOTSUPP;
  set(path, "bind:1");
  replace(path);
  EXPECT_EQ(tag(path), "none");
  EXPECT_EQ(carry(), "bind:1");
  EXPECT_EQ(tag(path), "bind:1");
  EXPECT_THAT(catalogue(), testing::ElementsAre(path + " bind:1"));
}

TEST_F(CarryOverTest, AFileThatIsStillInUseKeepsItsTagInTheDatabase) {
  if (::geteuid() != 0) GTEST_SKIP() << "opening by handle needs root";
  xattrs.get_error = EOPNOTSUPP;
  set(path, "bind:1");
  const Fd job(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto identity = identifier.identify(at(path));
  ASSERT_TRUE(identity);
  if (!identity->key.starts_with('h')) GTEST_SKIP() << "no file handles here";
  replace(path);
  EXPECT_TRUE(identifier.in_use_without_name(*identity));
  EXPECT_EQ(carry(), "bind:1");
  FileRef old;
  old.fd = job.get();
  const auto found = store->get(old, Space::user);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE(*found);
  EXPECT_THAT(catalogue(), testing::ElementsAre(" bind:1", path + " bind:1"));
}

// A server that was set up anew says of every file what it says of one that is gone.
TEST_F(CarryOverTest, ANetworkServersWordDoesNotEndAnEntry) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root opens files by their handles";
  const auto status = sys::file_status(at(path));
  ASSERT_TRUE(status);
  const TemporaryDirectory root;
  root.write("proc/self/mountinfo",
             fmt::format("{} 1 {}:{} / {} rw - nfs4 server:/export rw\n", status->stx_mnt_id,
                         status->stx_dev_major, status->stx_dev_minor, directory.path()));
  Identifier remote(root.path());
  auto records = Database::open(directory / "remote/fpolicy.db", Database::Access::read_write, &remote);
  ASSERT_TRUE(records) << records.error().message;
  PolicyStore tags(records->get(), &remote, &xattrs);
  CarryOver carrier(records->get(), &tags, &remote, Administrator{::geteuid(), directory.path()});
  ASSERT_TRUE(tags.set(at(path), Space::user, policy("bind:1")));
  ASSERT_TRUE(tags.flush());
  replace(path);
  const auto carried = carrier.carry(path);
  ASSERT_TRUE(carried && *carried);
  EXPECT_TRUE(carrier.finish());
  std::vector<std::string> paths;
  EXPECT_TRUE((*records)->for_each("", [&](const TagRecord& record) {
    paths.push_back(record.path);
    return true;
  }));
  EXPECT_EQ(paths, (std::vector<std::string>{"", path}));
}

TEST_F(CarryOverTest, ATagOfItsOwnStands) {
  set(path, "bind:1");
  replace(path);
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:0", 8, 0), 0);
  EXPECT_EQ(carry(), "nothing");
  EXPECT_EQ(tag(path), "bind:0");
}

// Killed between the attribute and the database.
TEST_F(CarryOverTest, OneThatWasCutOffIsFinished) {
  set(path, "bind:1");
  replace(path);
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:1", 8, 0), 0);
  CarryOptions dry;
  dry.dry_run = true;
  EXPECT_EQ(carry(dry), "nothing");
  EXPECT_FALSE(database->find(at(path), Space::user).value());
  EXPECT_EQ(carry(), "nothing");
  const auto entry = database->find(at(path), Space::user);
  ASSERT_TRUE(entry && *entry);
  EXPECT_EQ((*entry)->policy, "bind:1");
}

TEST_F(CarryOverTest, ARemovedTagStaysRemoved) {
  set(path, "bind:1");
  ASSERT_TRUE(store->remove(at(path), Space::user));
  ASSERT_TRUE(store->flush());
  replace(path);
  EXPECT_EQ(carry(), "nothing");
  // Also where it was removed, or changed and removed, from a file that has replaced the tagged one.
  for (const bool changed : {false, true}) {
    set(path, "bind:1");
    replace(path);
    if (changed) set(path, "bind:0");
    ASSERT_TRUE(store->remove(at(path), Space::user));
    ASSERT_TRUE(store->flush());
    EXPECT_EQ(carry(), "nothing") << changed;
    replace(path);
    EXPECT_EQ(carry(), "nothing") << changed;
    EXPECT_EQ(tag(path), "none");
  }
}

TEST_F(CarryOverTest, TheLatestWordCounts) {
  set(path, "bind:1");
  replace(path);
  set(path, "bind:0");
  replace(path);
  EXPECT_EQ(carry(), "bind:0");
}

TEST_F(CarryOverTest, AFileThatWasOnlyRenamedKeepsItsTagAndEntry) {
  set(path, "bind:1");
  const std::string kept = path + ".old";
  std::filesystem::rename(path, kept);
  directory.write("lib/file", "new");
  EXPECT_EQ(carry(), "bind:1");
  EXPECT_EQ(tag(kept), "bind:1");
  EXPECT_EQ(catalogue().size(), ::geteuid() == 0 ? 2U : 1U);
}

TEST_F(CarryOverTest, WhatOthersMayHavePutThereGetsNothing) {
  set(path, "bind:1");
  replace(path);
  const std::string above = directory / "lib";
  ASSERT_EQ(::chmod(above.c_str(), 01777), 0);
  EXPECT_THAT(carry(), HasSubstr("others than its owner may put files into " + above));
  ASSERT_EQ(::chmod(above.c_str(), 0775), 0);
  EXPECT_THAT(carry(), HasSubstr("others than its owner may put files into " + above));
  ASSERT_EQ(::chmod(above.c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  EXPECT_THAT(carry(), HasSubstr("others than its owner may write the file"));
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  // A link in its place, and one on the way.
  std::filesystem::rename(path, directory / "elsewhere");
  std::filesystem::create_symlink(directory / "elsewhere", path);
  EXPECT_THAT(carry(), HasSubstr("is a symbolic link"));
  std::filesystem::rename(directory / "elsewhere", path);
  std::filesystem::rename(above, directory / "other");
  std::filesystem::create_symlink(directory / "other", above);
  EXPECT_THAT(carry(), HasSubstr("a symbolic link is on the way"));
  std::filesystem::remove(above);
  std::filesystem::rename(directory / "other", above);
  EXPECT_EQ(tag(path), "none");
  EXPECT_EQ(carry(), "bind:1") << "that was all that stood in the way";
}

TEST_F(CarryOverTest, OwnersAreAsked) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const std::string above = directory / "lib";
  set(path, "bind:1");
  replace(path);
  ASSERT_EQ(::chown(above.c_str(), 65534, 65534), 0);
  EXPECT_THAT(carry(), HasSubstr(above + " belongs to user 65534, who may put other files there"));
  ASSERT_EQ(::chown(above.c_str(), 0, 0), 0);
  ASSERT_EQ(::chown(path.c_str(), 65534, 65534), 0);
  EXPECT_THAT(carry(), HasSubstr(path + " belongs to user 65534, who may have put it there"));
  EXPECT_EQ(tag(path), "none");
}

TEST_F(CarryOverTest, OnlyTheAdministratorsTagsAreCarriedOver) {
  SetOptions options;
  options.uid = ::geteuid() + 1;
  set(path, "bind:1", options);
  replace(path);
  EXPECT_EQ(carry(), "nothing");
  if (::geteuid() != 0) return;
  // A user tag of root's file that others could have written is nobody's.
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 bind:0", 8, 0), 0);
  ASSERT_TRUE(store->reconcile(at(path)));
  ASSERT_TRUE(store->flush());
  replace(path);
  EXPECT_EQ(carry(), "nothing");
}

TEST_F(CarryOverTest, AnotherTypeAnotherFilesystemAndAnUnknownPolicyAreTold) {
  set(path, "bind:1");
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_THAT(carry(), HasSubstr("it is a directory now"));
  std::filesystem::remove(path);
  directory.write("lib/file", "new");

  auto entry = TagRecord{};
  ASSERT_TRUE(database->for_each(path, [&](const TagRecord& record) {
    entry = record;
    return true;
  }));
  ASSERT_TRUE(database->erase(std::span(&entry, 1)));
  entry.identity.filesystem = "uuid:another";
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  EXPECT_THAT(carry(), HasSubstr("another filesystem"));
  EXPECT_EQ(tag(path), "none");
  CarryOptions options;
  options.other_filesystem = true;
  options.dry_run = true;
  EXPECT_EQ(carry(options), "bind:1");
  EXPECT_EQ(tag(path), "none");

  entry.policy = "colour=red";
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  options.dry_run = false;
  EXPECT_THAT(carry(options), HasSubstr("does not understand"));
  entry.policy = "bind:1";
  ASSERT_TRUE(database->put(std::span(&entry, 1)));
  EXPECT_EQ(carry(options), "bind:1");
  EXPECT_EQ(tag(path), "bind:1");
}

TEST_F(CarryOverTest, SystemTagsOfFilesAndDirectories) {
  if (::geteuid() != 0) GTEST_SKIP() << "system tags need root";
  const std::string below = directory / "lib";
  ASSERT_TRUE(store->set(at(below), Space::system, policy("interleave:all")));
  ASSERT_TRUE(store->set(at(path), Space::system, policy("bind:1")));
  ASSERT_TRUE(store->flush());
  std::filesystem::remove_all(below);
  directory.write("lib/file", "new");
  // The mode does not matter here: what a user writes into the file does not change where it belongs.
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  EXPECT_EQ(carry(below), "interleave:all");
  EXPECT_EQ(carry(), "bind:1");
  const auto found = store->get(at(path), Space::system);
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->text, "bind:1");
}

TEST_F(CarryOverTest, ADryRunChangesNothing) {
  set(path, "bind:1");
  replace(path);
  const auto before = catalogue();
  CarryOptions options;
  options.dry_run = true;
  EXPECT_EQ(carry(options), "bind:1");
  EXPECT_EQ(tag(path), "none");
  EXPECT_EQ(catalogue(), before);
}

TEST_F(CarryOverTest, GuardedPaths) {
  const uid_t self = ::geteuid();
  EXPECT_TRUE(sys::open_guarded_path(path, self, directory.path()));
  EXPECT_TRUE(open_administrators_directory(directory / "lib", {self, directory.path()}));
  EXPECT_EQ(sys::open_guarded_path(directory / "missing", self, directory.path()).error().code, ENOENT);
  EXPECT_EQ(sys::open_guarded_path(path + "/below", self, directory.path()).error().code, ENOTDIR);
  EXPECT_EQ(sys::open_guarded_path(path, self, directory / "other").error().code, EINVAL);
  EXPECT_EQ(sys::open_guarded_path(path, self + 1, directory.path()).error().code, EPERM);
  ASSERT_EQ(::chmod((directory / "lib").c_str(), 0777), 0);
  EXPECT_EQ(open_administrators_directory(directory / "lib", {self, directory.path()}).error().code, EPERM);
  // Nobody can replace /usr, but everybody puts files into /tmp.
  EXPECT_TRUE(sys::open_guarded_path("/", 0));
  EXPECT_TRUE(sys::open_guarded_path("/usr", 0));
}

}  // namespace
}  // namespace fpolicy
