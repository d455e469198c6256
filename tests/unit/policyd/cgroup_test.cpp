// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/cgroup.h>
#include <fpolicy/mounted.h>

#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace fpolicy {
namespace {

TEST(CgroupProcs, ProcessesOfOtherNamespacesAreLeftOut) {
  const auto pids = parse_cgroup_procs("1\n0\n4194304\n");
  ASSERT_TRUE(pids);
  EXPECT_EQ(*pids, (std::vector<pid_t>{1, 4194304}));
  EXPECT_TRUE(parse_cgroup_procs("")->empty());
}

TEST(CgroupProcs, MalformedIsRefused) {
  for (const auto* text : {"1", "x\n", "1 2\n", "-1\n", "\n", "1\n99999999999\n"}) {
    const auto pids = parse_cgroup_procs(text);
    ASSERT_FALSE(pids) << text;
    EXPECT_EQ(pids.error().code, EINVAL);
  }
}

TEST(CgroupWrite, OnlyThreeFilesAreMoves) {
  using Kind = CgroupChange::Kind;
  EXPECT_EQ(classify_cgroup_write("a/b/cpuset.mems"), (CgroupChange{.kind = Kind::mems, .cgroup = "a/b"}));
  EXPECT_EQ(classify_cgroup_write("a/cgroup.procs"), (CgroupChange{.kind = Kind::attach, .cgroup = "a"}));
  EXPECT_EQ(classify_cgroup_write("cgroup.threads"), (CgroupChange{.kind = Kind::attach, .cgroup = ""}));
  for (const auto* other : {"a/cpuset.mems.effective", "a/memory.max", "cpuset.mems/memory.max", "", "/",
                            "a/xcgroup.procs", "cpuset.mem"}) {
    EXPECT_FALSE(classify_cgroup_write(other)) << other;
  }
}

/// A captured machine: a directory that holds proc and a cgroup hierarchy.
class CapturedCgroups : public testing::Test {
 protected:
  void SetUp() override {
    root = testing::TempDir() + "cgroup-" + std::to_string(::getpid());
    std::filesystem::create_directories(root + "/proc/self");
    mountinfo(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        "41 31 0:38 / /cg rw,relatime - cgroup2 cgroup2 rw\n");
    add("", "1\n2\n", "");
    add("job", "10\n", "0-1\n");
    add("job/a", "11\n12\n", "0\n");
    add("job/a/deep", "", "");
    add("other", "20\n", "3\n");
    write("cg/cgroup.controllers", "cpu cpuset memory\n");
    write("cg/cgroup.stat", "nr_descendants 4\nnr_dying_descendants 0\n");
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void mountinfo(const std::string& text) const { write("proc/self/mountinfo", text); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(root + "/" + name) << text;
  }
  void add(const std::string& cgroup, const std::string& procs, const std::string& mems) const {
    std::filesystem::create_directories(root + "/cg/" + cgroup);
    write("cg/" + cgroup + "/cgroup.procs", procs);
    if (!mems.empty()) write("cg/" + cgroup + "/cpuset.mems.effective", mems);
  }
  std::map<std::string, std::vector<pid_t>> walk(const std::string& cgroup, bool recursive) const {
    std::map<std::string, std::vector<pid_t>> seen;
    auto tree = CgroupTree::open(root);
    if (!tree) return seen;
    const auto status =
        tree->walk(cgroup, recursive, [&](const std::string& path, const std::vector<pid_t>& pids) {
          seen[path] = pids;
          return true;
        });
    EXPECT_TRUE(status) << status.error().message;
    return seen;
  }
  std::string root;
};

TEST_F(CapturedCgroups, FindsTheMountAndWhatItCanDo) {
  const auto tree = CgroupTree::open(root);
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(tree->mount_point(), root + "/cg");
  EXPECT_TRUE(tree->has_cpuset().value());
  EXPECT_EQ(tree->count().value(), 5U);
}

TEST_F(CapturedCgroups, WalksASubtreeOrOneCgroup) {
  using Seen = std::map<std::string, std::vector<pid_t>>;
  EXPECT_EQ(walk("job", true), (Seen{{"job", {10}}, {"job/a", {11, 12}}, {"job/a/deep", {}}}));
  EXPECT_EQ(walk("job", false), (Seen{{"job", {10}}}));
  EXPECT_EQ(walk("", true).size(), 5U);
}

TEST_F(CapturedCgroups, GoesNotBelowOneWithoutAnyProcess) {
  using Seen = std::map<std::string, std::vector<pid_t>>;
  add("job/a", "", "");
  write("cg/job/a/cgroup.events", "populated 0\nfrozen 0\n");
  write("cg/job/cgroup.events", "populated 1\nfrozen 0\n");
  EXPECT_EQ(walk("job", true), (Seen{{"job", {10}}, {"job/a", {}}}));
}

TEST_F(CapturedCgroups, StopsWhenTold) {
  const auto tree = CgroupTree::open(root);
  ASSERT_TRUE(tree);
  int visits = 0;
  ASSERT_TRUE(tree->walk("", true, [&](const auto&, const auto&) { return ++visits < 2; }));
  EXPECT_EQ(visits, 2);
}

TEST_F(CapturedCgroups, ACgroupThatIsGoneIsEnoent) {
  const auto tree = CgroupTree::open(root);
  ASSERT_TRUE(tree);
  const auto status = tree->walk("gone", true, [](const auto&, const auto&) { return true; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ENOENT);
}

TEST_F(CapturedCgroups, ALinkIsNotFollowed) {
  std::filesystem::create_directory_symlink(root + "/cg/other", root + "/cg/job/link");
  EXPECT_EQ(walk("job", true).size(), 3U);
}

TEST_F(CapturedCgroups, MemsOfTheNearestThatHasThem) {
  const auto tree = CgroupTree::open(root);
  ASSERT_TRUE(tree);
  EXPECT_EQ(tree->effective_mems("job/a/deep").value(), (NodeSet{0}));
  EXPECT_EQ(tree->effective_mems("other").value(), (NodeSet{3}));
  EXPECT_EQ(tree->effective_mems("").value(), std::nullopt);
}

TEST_F(CapturedCgroups, WithoutCgroup2SaysSo) {
  mountinfo("22 27 0:21 / /proc rw,relatime - proc proc rw\n");
  const auto tree = CgroupTree::open(root);
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code, ENODEV);
  EXPECT_EQ(tree.error().message, "cgroup2: not mounted");
}

TEST_F(CapturedCgroups, FilesystemsOfOthersDoNotCount) {
  mountinfo(
      "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
      "50 27 0:50 / /home/u/mnt rw - fuse.sshfs host: rw,user_id=1000,group_id=1000,allow_other\n"
      "51 27 0:51 / /srv rw - fuse.mergerfs a:b rw,user_id=0,group_id=0,allow_other\n"
      "52 27 0:52 / /b rw - btrfs /dev/vdb rw\n"
      "53 27 0:53 / /o rw - overlay overlay rw\n");
  const auto mounts = MountedDevices::open(root);
  ASSERT_TRUE(mounts) << mounts.error().message;
  EXPECT_TRUE(mounts->contains(makedev(254, 0)));
  EXPECT_FALSE(mounts->contains(makedev(0, 50))) << "a user's FUSE server";
  EXPECT_TRUE(mounts->contains(makedev(0, 51)));
  EXPECT_FALSE(mounts->contains(makedev(0, 99))) << "not mounted here";
  EXPECT_TRUE(mounts->numbers_are_unique(makedev(254, 0)));
  EXPECT_FALSE(mounts->numbers_are_unique(makedev(0, 52)));
  EXPECT_FALSE(mounts->numbers_are_unique(makedev(0, 53)));
}

}  // namespace
}  // namespace fpolicy
