// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stays.h"

#include "../store/temporary_directory.h"

#include <fpolicy/open_file.h>
#include <fpolicy/policy.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>

namespace fpolicy::policyd {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

Effective with(const std::string& text) {
  Effective effective;
  effective.policy = parse_policy(text).value();
  effective.source = Source::system_xattr;
  return effective;
}

TEST(PagesStay, WhereRootSaysSo) {
  EXPECT_TRUE(pages_stay(with("bind:1"))) << "a place of its own";
  EXPECT_TRUE(pages_stay(with("migrate=no")));
  EXPECT_TRUE(pages_stay(with("migrate=private")));
  EXPECT_TRUE(pages_stay(with("bind:1,pin")));
  EXPECT_FALSE(pages_stay(with("bind:+0"))) << "follows the job";
  EXPECT_FALSE(pages_stay(with("migrate=yes")));
  EXPECT_FALSE(pages_stay(Effective{}));
}

TEST(PagesStay, NotOnAUsersWord) {
  Effective effective = with("migrate=no");
  effective.from_user = true;
  EXPECT_FALSE(pages_stay(effective));
}

class StaysTest : public testing::Test {
 protected:
  Stay make(const std::string& name) {
    const std::string path = directory.write(name, "x");
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto info = file_info(fd.get()).value();
    return {.key = info.key, .birth_ns = info.birth_ns, .path = path, .mappers = {}};
  }
  static std::unordered_multimap<ino_t, MappedAt> mapped(const Stay& stay, pid_t pid = 1) {
    return {{stay.key.inode, MappedAt{.pid = pid, .mapping = {}}}};
  }
  [[nodiscard]] bool is_readable() const {
    pollfd poll{.fd = stays.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) == 1;
  }
  TemporaryDirectory directory;
  Stays stays;
};

TEST_F(StaysTest, ThoseThatSomebodyMaps) {
  const Stay a = make("a");
  const Stay b = make("b");
  EXPECT_TRUE(stays.put(a));
  EXPECT_TRUE(stays.put(b));
  EXPECT_FALSE(stays.put(a)) << "known";
  EXPECT_EQ(stays.size(), 2U);
  EXPECT_THAT(stays.list_mapped(), IsEmpty());
  stays.set_mappers(mapped(b));
  ASSERT_THAT(stays.list_mapped(), SizeIs(1));
  EXPECT_EQ(stays.list_mapped()[0].path, b.path);
  EXPECT_EQ(stays.mapped(), 1U);
  // What is entered anew keeps what is known of its mappers.
  stays.put(b);
  EXPECT_EQ(stays.mapped(), 1U);
  stays.set_mappers({});
  EXPECT_EQ(stays.mapped(), 0U);
}

TEST_F(StaysTest, ThoseThatAJobMaps) {
  const Stay a = make("a");
  const Stay b = make("b");
  stays.put(a);
  stays.put(b);
  const auto found = stays.find(mapped(a, 77));
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].path, a.path);
  ASSERT_THAT(found[0].mappers, SizeIs(1));
  EXPECT_EQ(found[0].mappers[0].pid, 77);
  EXPECT_EQ(stays.mapped(), 0U) << "a question changes nothing";
}

TEST_F(StaysTest, OverlayfsMayShowAnotherInodeInMaps) {
  Stay a = make("a");
  FileMapping mapping;
  mapping.inode = a.key.inode + 1;
  a.mappers = {MappedAt{.pid = 5, .mapping = mapping}};
  stays.put(a);
  EXPECT_TRUE(stays.inodes().contains(a.key.inode));
  EXPECT_TRUE(stays.inodes().contains(mapping.inode));
  stays.set_mappers({});
  EXPECT_EQ(stays.mapped(), 0U);
  EXPECT_THAT(stays.find({{mapping.inode, MappedAt{.pid = 6, .mapping = mapping}}}), SizeIs(1));
}

TEST_F(StaysTest, AreForgotten) {
  const Stay a = make("a");
  stays.put(a);
  EXPECT_EQ(stays.size(), 1U);
  stays.erase(a.key);
  stays.erase(a.key);
  EXPECT_EQ(stays.size(), 0U);
}

TEST_F(StaysTest, FewMappersAreRemembered) {
  const Stay a = make("a");
  stays.put(a);
  std::unordered_multimap<ino_t, MappedAt> mappers;
  for (pid_t pid = 1; pid <= 100; ++pid) mappers.emplace(a.key.inode, MappedAt{.pid = pid, .mapping = {}});
  stays.set_mappers(mappers);
  ASSERT_THAT(stays.list_mapped(), SizeIs(1));
  EXPECT_THAT(stays.list_mapped()[0].mappers, SizeIs(3));
}

TEST_F(StaysTest, OpeningAFileThatNobodyMapsIsToldOnce) {
  const Stay a = make("a");
  stays.put(a);
  EXPECT_THAT(stays.unwatched(), SizeIs(1));
  {
    const Fd fd(::open(a.path.c_str(), O_PATH | O_CLOEXEC));
    EXPECT_TRUE(stays.watch(a.key, fd.get()));
  }
  EXPECT_THAT(stays.unwatched(), IsEmpty());
  EXPECT_FALSE(is_readable());
  Fd(::open(a.path.c_str(), O_RDONLY | O_CLOEXEC)).reset();
  Fd(::open(a.path.c_str(), O_RDONLY | O_CLOEXEC)).reset();
  EXPECT_TRUE(is_readable());
  EXPECT_TRUE(stays.read_opened());
  EXPECT_FALSE(stays.read_opened());
  EXPECT_THAT(stays.unwatched(), SizeIs(1)) << "to be watched again, if still nobody maps it";
  const Fd fd(::open(a.path.c_str(), O_PATH | O_CLOEXEC));
  stays.watch(a.key, fd.get());
  stays.erase(a.key);
  EXPECT_FALSE(stays.read_opened()) << "no news of a file that is forgotten";
}

TEST_F(StaysTest, TheVeryFileIsOpenedAgain) {
  const Stay a = make("a");
  EXPECT_TRUE(reopen(a));
  std::filesystem::rename(a.path, a.path + ".old");
  const Stay other = make("a");
  EXPECT_FALSE(reopen(a)) << "another file has its path";
  EXPECT_TRUE(reopen(other));
}

// Anybody may map a file as often as vm.max_map_count allows.
TEST_F(StaysTest, AProcessThatMapsAFileManyTimesIsEnteredOnce) {
  constexpr unsigned pieces = 2000;
  const Stay stay = make("a");
  const std::string between = directory.write("b", "x");
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd told(ends[0]);
  Fd tells(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Fd file(::open(stay.path.c_str(), O_RDONLY | O_CLOEXEC));
    const Fd other(::open(between.c_str(), O_RDONLY | O_CLOEXEC));
    for (unsigned i = 0; i < pieces; ++i) {
      const int fd = i % 2 == 0 ? file.get() : other.get();
      if (::mmap(nullptr, 1, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) ::_exit(1);
    }
    if (::write(tells.get(), "r", 1) != 1) ::_exit(1);
    ::pause();
  }
  tells.reset();
  char ready = 0;
  const bool is_ready = ::read(told.get(), &ready, 1) == 1;
  const std::unordered_set<ino_t> inodes{stay.key.inode};
  std::unordered_multimap<ino_t, MappedAt> mappers;
  const bool is_whole = add_mappers(child, inodes, mappers);
  std::unordered_multimap<ino_t, MappedAt> none;
  const bool is_late = !add_mappers(child, inodes, none, Work::Clock::now());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(is_ready);
  EXPECT_TRUE(is_whole);
  ASSERT_THAT(mappers, SizeIs(1));
  EXPECT_EQ(mappers.begin()->second.pid, child);
  EXPECT_TRUE(is_late) << "it stops in the midst of a process";
}

}  // namespace
}  // namespace fpolicy::policyd
