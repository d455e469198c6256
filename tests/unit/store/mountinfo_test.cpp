// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/mountinfo.h"

#include "temporary_directory.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <random>

namespace fpolicy::sys {
namespace {

TEST(Mountinfo, ReadsAllFields) {
  const auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:7 - ext3 /dev/root rw,errors=continue\n"
      "37 36 0:44 / /a\\040b\\011\\012\\134c rw - fuse.sshfs u@h:/x\\040y rw,user_id=0\n");
  ASSERT_TRUE(mounts) << mounts.error().message;
  ASSERT_EQ(mounts->size(), 2U);
  const Mount& first = mounts->front();
  EXPECT_EQ(first.id, 36);
  EXPECT_EQ(first.parent, 35);
  EXPECT_EQ(first.device, makedev(98, 0));
  EXPECT_EQ(first.root, "/mnt1");
  EXPECT_EQ(first.mount_point, "/mnt2");
  EXPECT_EQ(first.type, "ext3");
  EXPECT_EQ(first.source, "/dev/root");
  EXPECT_EQ(first.super_options, "rw,errors=continue");
  EXPECT_EQ(mounts->back().mount_point, "/a b\t\n\\c");
  EXPECT_EQ(mounts->back().source, "u@h:/x y");
}

TEST(Mountinfo, AnEmptySourceIsAllowed) {
  const auto mounts = parse_mountinfo("1 1 0:1 / /x rw - tmpfs  rw\n");
  ASSERT_TRUE(mounts) << mounts.error().message;
  EXPECT_EQ(mounts->front().source, "");
  EXPECT_EQ(mounts->front().super_options, "rw");
}

TEST(Mountinfo, RefusesWhatIsNotWhole) {
  const std::string good = "36 35 98:0 / /m rw shared:1 - ext3 /dev/root rw\n";
  ASSERT_TRUE(parse_mountinfo(good));
  ASSERT_TRUE(parse_mountinfo(""));
  for (const auto& [text, expected] : std::initializer_list<std::pair<std::string, std::string>>{
           {good + "x 35 98:0 / /m rw - t s o\n", "line 2: expected a mount id"},
           {"36 35 98 / /m rw - t s o\n", "major:minor"},
           {"36 35 98:0: / /m rw - t s o\n", "major:minor"},
           {"36 35 99999999999:0 / /m rw - t s o\n", "major:minor"},
           {"36 35 98:0 / /m\\04 rw - t s o\n", "mount point"},
           {"36 35 98:0 / /m\\000 rw - t s o\n", "mount point"},
           {"36 35 98:0 / /m\\777 rw - t s o\n", "mount point"},
           {"36 35 98:0 / /m rw shared:1\n", "\" - \""},
           {"36 35 98:0 / /m rw -\n", "filesystem type"},
           {"36 35 98:0 / /m rw - t s o", "newline"},
           {"\n", "expected a mount id"}}) {
    const auto mounts = parse_mountinfo(text);
    ASSERT_FALSE(mounts) << text;
    EXPECT_EQ(mounts.error().code, EINVAL);
    EXPECT_NE(mounts.error().message.find(expected), std::string::npos) << mounts.error().message;
  }
}

TEST(Mountinfo, SurvivesEveryCutAndChange) {
  const std::string good = "36 35 98:0 / /m\\040x rw shared:1 - ext3 /dev/root rw\n";
  for (std::size_t length = 1; length < good.size(); ++length)
    EXPECT_FALSE(parse_mountinfo(std::string_view(good).substr(0, length))) << length;
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (int change = 0; change < 3; ++change)
      text[random() % text.size()] = static_cast<char>(random() % 256);
    const auto mounts = parse_mountinfo(text);
    if (!mounts) continue;
    for (const Mount& mount : *mounts) EXPECT_FALSE(mount.mount_point.empty());
  }
}

TEST(MountTable, TheLiveTableHoldsTheRoot) {
  auto table = MountTable::open("");
  ASSERT_TRUE(table) << table.error().message;
  const auto mounts = table->read();
  ASSERT_TRUE(mounts) << mounts.error().message;
  EXPECT_TRUE(std::any_of(mounts->begin(), mounts->end(),
                          [](const Mount& mount) { return mount.mount_point == "/"; }));
  EXPECT_FALSE(table->changed());
}

TEST(MountTable, IsReadWholeHoweverLong) {
  const TemporaryDirectory root;
  std::string text;
  for (int i = 0; i < 5000; ++i)
    text += std::to_string(i + 1) + " 1 0:1 / /" + std::string(200, 'x') + " rw - t s o\n";
  root.write("proc/self/mountinfo", text);
  auto table = MountTable::open(root.path());
  ASSERT_TRUE(table);
  const auto mounts = table->read();
  ASSERT_TRUE(mounts) << mounts.error().message;
  EXPECT_EQ(mounts->size(), 5000U);
}

}  // namespace
}  // namespace fpolicy::sys
