// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pins.h"

#include "../store/temporary_directory.h"

#include <fpolicy/open_file.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace fpolicy::policyd {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class PinsTest : public testing::Test {
 protected:
  struct File {
    Fd fd;
    KnownFile known;
    std::int64_t ctime_ns = 0;
    std::vector<PageRun> resident;
  };
  /// Just written, so that all of it is resident.
  File make(const std::string& name, std::uint64_t pages) {
    File file;
    const std::string path = directory.write(name, std::string(pages * page, 'x'));
    file.fd = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto info = file_info(file.fd.get());
    file.known.key = info.value().key;
    file.known.path = path;
    file.known.policy = "bind:1,pin";
    file.ctime_ns = info.value().ctime_ns;
    file.resident = {{.first = 0, .count = pages, .node = 0}};
    return file;
  }
  std::string hold(const File& file) {
    return pins.hold(file.known, file.ctime_ns, file.fd.get(), page, file.resident);
  }
  [[nodiscard]] bool is_readable() const {
    pollfd poll{.fd = pins.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) == 1;
  }

  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  TemporaryDirectory directory;
  Pins pins{100 * page};
};

TEST_F(PinsTest, WhatIsHeldIsCountedAndListed) {
  const File a = make("a", 10);
  const File b = make("b", 5);
  EXPECT_EQ(hold(a), "");
  EXPECT_EQ(hold(b), "");
  EXPECT_EQ(pins.held_bytes(), 15 * page);
  const auto list = pins.list();
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].path, a.known.path);
  EXPECT_EQ(list[0].policy, "bind:1,pin");
  EXPECT_EQ(list[0].held_bytes, 10 * page);
  EXPECT_EQ(list[0].reason, "");
  EXPECT_EQ(pins.find(b.known.key).value().path, b.known.path);
}

TEST_F(PinsTest, IsCurrentUntilPagesComeOrTheFileChanges) {
  const File a = make("a", 10);
  EXPECT_FALSE(pins.is_current(a.known.key, a.ctime_ns, 10));
  EXPECT_EQ(hold(a), "");
  EXPECT_TRUE(pins.is_current(a.known.key, a.ctime_ns, 10));
  EXPECT_FALSE(pins.is_current(a.known.key, a.ctime_ns, 11));
  EXPECT_FALSE(pins.is_current(a.known.key, a.ctime_ns + 1, 10));
}

TEST_F(PinsTest, HoldingAgainTakesThePlaceOfWhatWasHeld) {
  File a = make("a", 90);
  EXPECT_EQ(hold(a), "") << "the old pages do not count beside the new ones";
  a.resident = {{.first = 0, .count = 50, .node = 0}, {.first = 60, .count = 30, .node = 1}};
  EXPECT_EQ(hold(a), "");
  EXPECT_EQ(pins.held_bytes(), 80 * page);
}

TEST_F(PinsTest, WhatDoesNotFitIsRefusedAndWhatWasHeldStays) {
  const File a = make("a", 60);
  File b = make("b", 50);
  EXPECT_EQ(hold(a), "");
  EXPECT_THAT(hold(b), HasSubstr("do not fit"));
  EXPECT_EQ(pins.held_bytes(), 60 * page);
  EXPECT_EQ(pins.list()[1].held_bytes, 0U);
  EXPECT_THAT(pins.list()[1].reason, HasSubstr("pin.max_bytes"));
  EXPECT_THAT(pins.refused(), ElementsAre(b.known.key));
  b.resident[0].count = 40;
  EXPECT_EQ(hold(b), "");
  EXPECT_THAT(pins.refused(), IsEmpty());
  b.resident[0].count = 41;
  EXPECT_THAT(hold(b), HasSubstr("do not fit"));
  EXPECT_EQ(pins.list()[1].held_bytes, 40 * page) << "what was held of it";
}

TEST_F(PinsTest, NothingIsHeldWhereNothingMayBe) {
  pins.set_max(0);
  EXPECT_THAT(hold(make("a", 1)), HasSubstr("do not fit"));
  EXPECT_EQ(hold(make("empty", 0)), "");
  pins.set_max(page);
  EXPECT_EQ(hold(make("b", 1)), "");
}

TEST_F(PinsTest, HugeNumbersOfPagesAreRefused) {
  File a = make("a", 1);
  a.resident[0].count = std::uint64_t{1} << 51U;
  EXPECT_THAT(hold(a), HasSubstr("do not fit"));
}

TEST_F(PinsTest, ReleaseLetsGoOfPagesAndFile) {
  const File a = make("a", 10);
  EXPECT_FALSE(pins.release(a.known.key));
  EXPECT_EQ(hold(a), "");
  EXPECT_TRUE(pins.release(a.known.key));
  EXPECT_EQ(pins.held_bytes(), 0U);
  EXPECT_THAT(pins.list(), IsEmpty());
  EXPECT_FALSE(pins.find(a.known.key));
}

TEST_F(PinsTest, LetGoKeepsTheFile) {
  const File a = make("a", 10);
  EXPECT_EQ(hold(a), "");
  EXPECT_TRUE(pins.let_go(a.known.key));
  EXPECT_FALSE(pins.let_go(a.known.key));
  EXPECT_EQ(pins.held_bytes(), 0U);
  EXPECT_FALSE(pins.is_current(a.known.key, a.ctime_ns, 10));
  EXPECT_FALSE(pins.is_current(a.known.key, a.ctime_ns, 0));
  EXPECT_TRUE(pins.find(a.known.key));
  EXPECT_EQ(hold(a), "");
  EXPECT_EQ(pins.held_bytes(), 10 * page);
}

TEST_F(PinsTest, AFileThatGivesNoReferencesIsTold) {
  File a = make("a", 1);
  a.fd = Fd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  EXPECT_THAT(hold(a), HasSubstr("not pinned: "));
  EXPECT_EQ(pins.held_bytes(), 0U);
  EXPECT_THAT(pins.refused(), ElementsAre(a.known.key));
}

TEST_F(PinsTest, AChangeIsToldOnceUntilWatchedAgain) {
  const File a = make("a", 1);
  const File b = make("b", 1);
  EXPECT_EQ(hold(a), "");
  EXPECT_EQ(hold(b), "");
  pins.watch(a.known.key, a.fd.get());
  pins.watch(b.known.key, b.fd.get());
  EXPECT_FALSE(is_readable());
  for (int i = 0; i < 3; ++i) directory.write("a", "written");
  EXPECT_TRUE(is_readable());
  EXPECT_THAT(pins.read_changes(), ElementsAre(a.known.key));
  directory.write("a", "written");
  EXPECT_FALSE(is_readable()) << "idle while nobody asks";
  pins.watch(a.known.key, a.fd.get());
  directory.write("a", "written");
  EXPECT_THAT(pins.read_changes(), ElementsAre(a.known.key));
}

TEST_F(PinsTest, ReleasedFilesAreNotWatched) {
  const File a = make("a", 1);
  EXPECT_EQ(hold(a), "");
  pins.watch(a.known.key, a.fd.get());
  pins.release(a.known.key);
  directory.write("a", "written");
  EXPECT_THAT(pins.read_changes(), IsEmpty());
  pins.watch(a.known.key, a.fd.get());  // no pin: nothing is watched
  directory.write("a", "written");
  EXPECT_THAT(pins.read_changes(), IsEmpty());
}

}  // namespace
}  // namespace fpolicy::policyd
