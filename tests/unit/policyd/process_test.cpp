// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/process.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <string>

namespace fpolicy {
namespace {

using namespace std::string_literals;

TEST(Maps, FileMappingsInOrderAndNothingElse) {
  const auto mappings = parse_maps(
      "55ec537cf000-55ec537d1000 r--p 00000000 fe:00 247498                     /usr/bin/head\n"
      "55ec7fd81000-55ec7fda2000 rw-p 00000000 00:00 0                          [heap]\n"
      "7f0000000000-7f0000001000 rw-s 00002000 103:10002 18446744073709551615   /srv/a b\\012c (deleted)\n"
      "7f1c2b273000-7f1c2b299000 r--p 00000000 00:00 0 \n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n");
  ASSERT_TRUE(mappings) << mappings.error().message;
  const std::vector<FileMapping> expected{
      {.start = 0x55ec537cf000, .end = 0x55ec537d1000, .device = makedev(0xfe, 0), .inode = 247498},
      {.start = 0x7f0000000000,
       .end = 0x7f0000001000,
       .device = makedev(0x103, 0x10002),
       .inode = 18446744073709551615U}};
  EXPECT_EQ(*mappings, expected);
}

TEST(Maps, ANameThatLooksLikeALineIsNoLine) {
  // The kernel writes a newline in a name as \012; a name may hold anything else.
  const auto mappings =
      parse_maps("1000-2000 r--p 00000000 08:01 7    /x\\0123000-4000 r--p 00000000 08:01 9 /y\n");
  ASSERT_TRUE(mappings);
  ASSERT_EQ(mappings->size(), 1U);
  EXPECT_EQ(mappings->front().inode, 7U);
}

TEST(Maps, EmptyIsNothing) {
  const auto mappings = parse_maps("");
  ASSERT_TRUE(mappings);
  EXPECT_TRUE(mappings->empty());
}

TEST(Maps, MalformedIsRefusedWithItsLine) {
  const std::string good = "1000-2000 r--p 00000000 08:01 7 /x\n";
  for (const auto& bad : {
           "1000-2000 r--p 00000000 08:01 7 /x"s,          // not ended
           "1000 r--p 00000000 08:01 7 /x\n"s,             // no end
           "2000-1000 r--p 00000000 08:01 7 /x\n"s,        // ends before it starts
           "1000-1000 r--p 00000000 08:01 7 /x\n"s,        // empty
           "x-2000 r--p 00000000 08:01 7 /x\n"s,           //
           "1000-2000 r-- 00000000 08:01 7 /x\n"s,         // three permissions
           "1000-2000 r--p 00000000 0801 7 /x\n"s,         // no colon
           "1000-2000 r--p 00000000 08:01 -7 /x\n"s,       //
           "1000-2000 r--p 00000000 08:01 7x /x\n"s,       //
           "11112222333344445-2000 r--p 0 08:01 7 /x\n"s,  // too large
           "\n"s,
           "1000-2000 r--p 00000000 08:01 99999999999999999999999 /x\n"s,
       }) {
    const auto mappings = parse_maps(good + bad);
    ASSERT_FALSE(mappings) << bad;
    EXPECT_EQ(mappings.error().code, EINVAL);
    EXPECT_NE(mappings.error().message.find("line 2"), std::string::npos) << mappings.error().message;
  }
}

TEST(ProcessStatus, EffectiveUserAndAllowedNodes) {
  const auto status = parse_process_status(
      "Name:\tUid:\t0\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\n"
      "Mems_allowed:\t00000000,0000000f\nMems_allowed_list:\t0,2-3\n");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->uid, 1001U);
  EXPECT_EQ(status->real_uid, 1000U);
  EXPECT_EQ(status->saved_uid, 1002U);
  EXPECT_EQ(status->allowed_nodes, (NodeSet{0, 2, 3}));
}

TEST(ProcessStatus, MissingOrMalformedIsRefused) {
  for (const auto* text :
       {"", "Uid:\t1\t1\t1\t1\n", "Mems_allowed_list:\t0\n", "Uid:\t1\nMems_allowed_list:\t0\n",
        "Uid:\tx\ty\tz\tw\nMems_allowed_list:\t0\n", "Uid:\t1\t1\t1\t1\nMems_allowed_list:\t0-\n",
        "Uid:\t1\t99999999999\t1\t1\nMems_allowed_list:\t0\n", "Uid:\t1\t1\nMems_allowed_list:\t0\n"}) {
    const auto status = parse_process_status(text);
    ASSERT_FALSE(status) << text;
    EXPECT_EQ(status.error().code, EINVAL);
  }
}

TEST(ProcessStatus, StateAndParent) {
  const std::string needed = "Uid:\t1\t1\t1\t1\nMems_allowed_list:\t0\n";
  const auto status = parse_process_status("Name:\tState:\tZ\nState:\tT (stopped)\nPPid:\t4711\n" + needed);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->state, 'T');
  EXPECT_EQ(status->parent, 4711);
  const auto without = parse_process_status(needed);
  ASSERT_TRUE(without);
  EXPECT_EQ(without->state, '?');
  EXPECT_EQ(without->parent, 0);
  for (const char* bad : {"PPid:\tx\n", "PPid:\t\n", "PPid:\n", "PPid:\t99999999999\n", "PPid:\t1 \n"})
    EXPECT_FALSE(parse_process_status(bad + needed)) << bad;
  const auto empty = parse_process_status("State:\nState:\t\n" + needed);
  ASSERT_TRUE(empty);
  EXPECT_EQ(empty->state, '?');
}

TEST(Vmas, EveryKindInOrder) {
  const auto vmas = parse_vmas(
      "55ec537cf000-55ec537d1000 r--p 00002000 fe:00 247498                     /usr/bin/a b (deleted)\n"
      "55ec7fd81000-55ec7fda2000 rw-p 00000000 00:00 0                          [heap]\n"
      "7f1c2b273000-7f1c2b299000 rw-s 00000000 00:00 0 \n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n");
  ASSERT_TRUE(vmas) << vmas.error().message;
  const std::vector<Vma> expected{{.start = 0x55ec537cf000,
                                   .end = 0x55ec537d1000,
                                   .permissions = "r--p",
                                   .offset = 0x2000,
                                   .device = makedev(0xfe, 0),
                                   .inode = 247498,
                                   .name = "/usr/bin/a b (deleted)"},
                                  {.start = 0x55ec7fd81000,
                                   .end = 0x55ec7fda2000,
                                   .permissions = "rw-p",
                                   .offset = 0,
                                   .device = 0,
                                   .inode = 0,
                                   .name = "[heap]"},
                                  {.start = 0x7f1c2b273000,
                                   .end = 0x7f1c2b299000,
                                   .permissions = "rw-s",
                                   .offset = 0,
                                   .device = 0,
                                   .inode = 0,
                                   .name = ""},
                                  {.start = 0xffffffffff600000,
                                   .end = 0xffffffffff601000,
                                   .permissions = "--xp",
                                   .offset = 0,
                                   .device = 0,
                                   .inode = 0,
                                   .name = "[vsyscall]"}};
  EXPECT_EQ(*vmas, expected);
}

TEST(Vmas, MalformedIsRefusedWithItsLine) {
  for (const char* bad : {"1000-2000 r--p 00000000 08:01 7 /x", "1000-2000 r--p x 08:01 7 /x\n",
                          "2000-1000 r--p 0 8:1 7\n", "1000-2000 r--pp 0 8:1 7 /x\n", "1000-2000\n", "\n",
                          "1000-2000 r--p 0 8:1\n", "1000-2000 r--p 0 8:1 \n"}) {
    const auto vmas = parse_vmas(std::string("1000-2000 r--p 0 8:1 7 /x\n") + bad);
    ASSERT_FALSE(vmas) << bad;
    EXPECT_EQ(vmas.error().code, EINVAL);
    EXPECT_NE(vmas.error().message.find("line 2"), std::string::npos) << vmas.error().message;
  }
}

TEST(MemoryPolicies, EachThatNamesNodesOnce) {
  const auto policies = parse_memory_policies(
      "55ec537cf000 default file=/usr/bin/a:0-1 mapped=2 N0=2 kernelpagesize_kB=4\n"
      "7f0000000000 bind:0-1 anon=3 dirty=3 N0=3 kernelpagesize_kB=4\n"
      "7f0000010000 local anon=1 N0=1\n"
      "7f0000020000 interleave=static:0,2 anon=3\n"
      "7f0000030000 bind:0-1\n"
      "7f0000040000 prefer (many):1,3 anon=1\n"
      "7f0000050000 prefer (many)=relative:0 anon=1\n"
      "7f0000060000 weighted interleave:0-2 anon=1\n"
      "7f0000070000 prefer:2 file=/weighted\\040interleave:7\n"
      "7f0000080000 prefer\n"
      "7f0000090000 bind=balancing:3 file=/x\n");
  ASSERT_TRUE(policies) << policies.error().message;
  const std::vector<MemoryPolicy> expected{
      {.text = "bind:0-1", .nodes = {0, 1}, .mappings = 2},
      {.text = "interleave=static:0,2", .nodes = {0, 2}, .mappings = 1},
      {.text = "prefer (many):1,3", .nodes = {1, 3}, .mappings = 1},
      {.text = "prefer (many)=relative:0", .nodes = {0}, .mappings = 1},
      {.text = "weighted interleave:0-2", .nodes = {0, 1, 2}, .mappings = 1},
      {.text = "prefer:2", .nodes = {2}, .mappings = 1},
      {.text = "bind=balancing:3", .nodes = {3}, .mappings = 1},
  };
  EXPECT_EQ(*policies, expected);
}

TEST(MemoryPolicies, MalformedIsRefusedWithItsLine) {
  EXPECT_TRUE(parse_memory_policies("").value().empty());
  for (const char* bad :
       {"7f0000000000 bind:0", "x bind:0\n", "\n", "7f0000000000\n", "7f0000000000 bind:\x01\n",
        "7f0000000000 bind:0-\n", "7f0000000000 bind:9999 anon=1\n"}) {
    const auto policies = parse_memory_policies(std::string("1000 default\n") + bad);
    ASSERT_FALSE(policies) << bad;
    EXPECT_EQ(policies.error().code, EINVAL);
    EXPECT_NE(policies.error().message.find("line 2"), std::string::npos) << policies.error().message;
  }
}

class CapturedProc : public testing::Test {
 protected:
  void SetUp() override {
    root = testing::TempDir() + "proc-" + std::to_string(::getpid());
    std::filesystem::create_directories(root + "/proc/42/map_files");
    std::filesystem::create_directories(root + "/proc/7");
    std::filesystem::create_directories(root + "/proc/self");
    std::filesystem::create_directories(root + "/proc/0x1");
  }
  void TearDown() override { std::filesystem::remove_all(root); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(root + "/proc/42/" + name) << text;
  }
  std::string root;
};

TEST_F(CapturedProc, OnlyNumbersAreProcesses) {
  auto pids = list_processes(root);
  ASSERT_TRUE(pids) << pids.error().message;
  std::ranges::sort(*pids);
  EXPECT_EQ(*pids, (std::vector<pid_t>{7, 42}));
}

TEST_F(CapturedProc, TextIsReadWhereTheKernelHasNoQuery) {
  std::string text;
  for (unsigned i = 1; i <= 5000; ++i) {
    char line[128];
    std::snprintf(line, sizeof line, "%x-%x r--p 00000000 08:01 %u   /srv/file-%u\n", i * 0x1000,
                  (i + 1) * 0x1000, i, i);
    text += line;
  }
  write("maps", text);
  const auto process = Process::open(42, root);
  ASSERT_TRUE(process) << process.error().message;
  const auto mappings = process->file_mappings();
  ASSERT_TRUE(mappings) << mappings.error().message;
  ASSERT_EQ(mappings->size(), 5000U);
  EXPECT_EQ(mappings->back().inode, 5000U);
}

TEST_F(CapturedProc, ALineWithoutEndIsRefusedAndNotReadForEver) {
  write("maps", "1000-2000 r--p 00000000 08:01 7 /" + std::string(1U << 20U, 'x'));
  const auto process = Process::open(42, root);
  ASSERT_TRUE(process);
  const auto mappings = process->file_mappings();
  ASSERT_FALSE(mappings);
  EXPECT_EQ(mappings.error().code, EINVAL);
}

TEST_F(CapturedProc, AProcessThatDoesNotExistIsEsrch) {
  const auto process = Process::open(43, root);
  ASSERT_FALSE(process);
  EXPECT_EQ(process.error().code, ESRCH);
}

// What this kernel says of this very process: by query where it has that, and by text, alike.
TEST(LiveProcess, SeesAMappedFileAndTextAgreesWithQuery) {
  const std::string path = testing::TempDir() + "mapped\nwith newline " + std::to_string(::getpid());
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), 8192), 0);
  void* const address = ::mmap(nullptr, 8192, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(address, MAP_FAILED);
  std::filesystem::remove(path);  // " (deleted)"
  struct stat status{};
  ASSERT_EQ(::fstat(file.get(), &status), 0);

  const auto process = Process::open(::getpid());
  ASSERT_TRUE(process);
  const auto mappings = process->file_mappings();
  ASSERT_TRUE(mappings) << mappings.error().message;
  const auto found =
      std::ranges::find(*mappings, reinterpret_cast<std::uint64_t>(address), &FileMapping::start);
  ASSERT_NE(found, mappings->end());
  EXPECT_EQ(found->inode, status.st_ino);
  EXPECT_EQ(found->end - found->start, 8192U);

  std::ifstream maps("/proc/self/maps");
  const std::string text((std::istreambuf_iterator<char>(maps)), {});
  const auto parsed = parse_maps(text);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_NE(std::ranges::find(*parsed, *found), parsed->end());

  const auto own = process->status();
  ASSERT_TRUE(own) << own.error().message;
  EXPECT_EQ(own->uid, ::geteuid());
  EXPECT_FALSE(own->allowed_nodes.empty());

  // map_files is for the privileged (CAP_CHECKPOINT_RESTORE).
  const auto opened = process->open_mapped(*found);
  if (::geteuid() == 0) {
    ASSERT_TRUE(opened) << opened.error().message;
    struct stat by_mapping{};
    ASSERT_EQ(::fstat(opened->get(), &by_mapping), 0);
    EXPECT_EQ(by_mapping.st_ino, status.st_ino) << "a deleted file is found by its mapping";
  }
  ::munmap(address, 8192);
}

}  // namespace
}  // namespace fpolicy
