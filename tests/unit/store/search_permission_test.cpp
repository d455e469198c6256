// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/search_permission.h"

#include "temporary_directory.h"

#include <fmt/format.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>

namespace fpolicy {
namespace {

constexpr uid_t owner = 1000;
constexpr gid_t group = 2000;
const FileUser asker{.uid = 1001, .gid = 1001, .groups = {4, 2001}};

struct stat directory(mode_t mode, uid_t uid = owner, gid_t gid = group) {
  struct stat status{};
  status.st_mode = S_IFDIR | mode;
  status.st_uid = uid;
  status.st_gid = gid;
  return status;
}

struct Entry {
  unsigned tag;
  unsigned permissions;
  std::uint32_t id = 0xffffffff;
};

std::string bytes(std::uint32_t number, unsigned size) {
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += static_cast<char>(number >> (8 * i));
  return text;
}

std::string acl(std::initializer_list<Entry> entries) {
  std::string text = bytes(2, 4);
  for (const Entry& entry : entries)
    text += bytes(entry.tag, 2) + bytes(entry.permissions, 2) + bytes(entry.id, 4);
  return text;
}

TEST(MaySearch, TheFirstClassThatFitsDecides) {
  EXPECT_TRUE(sys::may_search(asker, directory(0701), ""));
  EXPECT_FALSE(sys::may_search(asker, directory(0770), ""));
  EXPECT_FALSE(sys::may_search(asker, directory(0077, asker.uid), "")) << "the owner, whatever others may";
  EXPECT_TRUE(sys::may_search(asker, directory(0100, asker.uid), ""));
  EXPECT_TRUE(sys::may_search(asker, directory(0710, owner, 2001), "")) << "a supplementary group";
  EXPECT_FALSE(sys::may_search(asker, directory(0707, owner, 1001), "")) << "the group, whatever others may";
  EXPECT_FALSE(sys::may_search(asker, directory(0746), "")) << "to read is not to search";
}

TEST(MaySearch, AnAclNamesUsersAndGroups) {
  // u::rwx, u:1001:---, g::r-x, m::r-x, o::r-x
  EXPECT_FALSE(
      sys::may_search(asker, directory(0755), acl({{1, 7}, {2, 0, 1001}, {4, 5}, {16, 5}, {32, 5}})));
  EXPECT_TRUE(sys::may_search(asker, directory(0750), acl({{1, 7}, {2, 1, 1001}, {4, 0}, {16, 5}, {32, 0}})));
  EXPECT_FALSE(sys::may_search(asker, directory(0740), acl({{1, 7}, {2, 1, 1001}, {4, 0}, {16, 4}, {32, 0}})))
      << "masked";
  EXPECT_TRUE(sys::may_search(asker, directory(0750), acl({{1, 7}, {4, 0}, {8, 1, 2001}, {16, 5}, {32, 0}})));
  EXPECT_FALSE(sys::may_search(asker, directory(0755), acl({{1, 7}, {4, 5}, {8, 4, 2001}, {16, 5}, {32, 5}})))
      << "in a group that may not: others' permission does not count";
  EXPECT_TRUE(sys::may_search(asker, directory(0755), acl({{1, 7}, {4, 5}, {8, 4, 3000}, {16, 5}, {32, 5}})));
  EXPECT_FALSE(sys::may_search({.uid = owner, .gid = 1, .groups = {}}, directory(0655),
                               acl({{1, 6}, {2, 7, owner}, {4, 5}, {16, 7}, {32, 5}})))
      << "ACLs do not matter to the owner";
}

TEST(MaySearch, WhatIsNoAclSaysNo) {
  EXPECT_FALSE(sys::may_search(asker, directory(0755), "x"));
  EXPECT_FALSE(sys::may_search(asker, directory(0755), bytes(3, 4)));
  EXPECT_FALSE(sys::may_search(asker, directory(0755), acl({{1, 7}, {32, 5}}) + "more"));
}

/// What the kernel says to a process of this user.
bool kernel_allows(const FileUser& user, const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_he = ::setgroups(user.groups.size(), user.groups.data()) == 0 &&
                       ::setresgid(user.gid, user.gid, user.gid) == 0 &&
                       ::setresuid(user.uid, user.uid, user.uid) == 0;
    struct stat status{};
    ::_exit(is_he ? ::stat((path + "/.").c_str(), &status) != 0 : 2);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2);
  return WEXITSTATUS(status) == 0;
}

TEST(ReachesDirectory, SaysWhatTheKernelSays) {
  if (::geteuid() != 0) GTEST_SKIP() << "to become other users needs root";
  const TemporaryDirectory files;
  ASSERT_EQ(::chmod(files.path().c_str(), 0711), 0);
  const std::string path = files.path() + "/directory";
  ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
  std::mt19937 random(1);  // NOLINT: the same each time
  const auto any = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
  // Few numbers, so that they meet.
  const std::array<unsigned, 4> numbers{1001, 1002, 1003, 1004};
  const auto number = [&] { return numbers.at(any(numbers.size())); };
  unsigned with_acl = 0;
  for (int round = 0; round < 400; ++round) {
    ::removexattr(path.c_str(), "system.posix_acl_access");
    ASSERT_EQ(::chown(path.c_str(), number(), number()), 0);
    ASSERT_EQ(::chmod(path.c_str(), any(01000)), 0);
    if (any(3) != 0) {
      std::string list = acl({{1, any(8)}, {2, any(8), 1001}, {2, any(8), 1003}, {4, any(8)}});
      list += acl({{8, any(8), 1002}, {8, any(8), 1004}, {16, any(8)}, {32, any(8)}}).substr(4);
      if (::setxattr(path.c_str(), "system.posix_acl_access", list.data(), list.size(), 0) == 0) ++with_acl;
    }
    const FileUser user{.uid = number(), .gid = number(), .groups = {number()}};
    struct stat status{};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(reaches_directory(user, path) == Reach::yes, kernel_allows(user, path))
        << fmt::format("round {}: user {} groups {} {}, directory of {}:{}, mode {:o}", round, user.uid,
                       user.gid, user.groups.front(), status.st_uid, status.st_gid, status.st_mode);
  }
  EXPECT_TRUE(with_acl > 100 || with_acl == 0) << with_acl;
}

TEST(ReachesDirectory, FollowsNoLinks) {
  const TemporaryDirectory files;
  const FileUser self{.uid = ::geteuid(), .gid = ::getegid(), .groups = {}};
  ASSERT_EQ(::mkdir((files.path() + "/real").c_str(), 0700), 0);
  ASSERT_EQ(::symlink("real", (files.path() + "/link").c_str()), 0);
  EXPECT_EQ(reaches_directory(self, files.path() + "//real/"), Reach::yes);
  EXPECT_EQ(reaches_directory(self, files.path() + "/link"), Reach::no);
  EXPECT_EQ(reaches_directory(self, files.path() + "/none"), Reach::no);
  EXPECT_EQ(reaches_directory(self, "real"), Reach::no);
  EXPECT_EQ(reaches_directory(self, "/"), Reach::yes);
}

}  // namespace
}  // namespace fpolicy
