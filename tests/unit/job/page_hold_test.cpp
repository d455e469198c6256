// SPDX-License-Identifier: LGPL-2.1-or-later
#include "../store/temporary_directory.h"

#include <fpolicy/page_hold.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

namespace fpolicy {
namespace {

/// Descriptors that this process has open.
std::size_t descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

class PageHoldTest : public testing::Test {
 protected:
  void SetUp() override {
    file =
        Fd(::open(directory.write("file", std::string(10 * page + 100, 'x')).c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(file);
  }
  const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  TemporaryDirectory directory;
  Fd file;
};

TEST_F(PageHoldTest, HoldsWhatIsAsked) {
  PageHold hold;
  EXPECT_EQ(hold.hold(file.get(), 0, 4 * page).value_or(0), 4 * page);
  EXPECT_EQ(hold.hold(file.get(), 7 * page, page).value_or(0), page);
  EXPECT_EQ(hold.hold(file.get(), 0, 0).value_or(1), 0U);
  EXPECT_EQ(::lseek(file.get(), 0, SEEK_CUR), 0) << "the file's position is not touched";
}

TEST_F(PageHoldTest, EndsWithTheFile) {
  PageHold hold;
  EXPECT_EQ(hold.hold(file.get(), 8 * page, 100 * page).value_or(0), 2 * page + 100);
  EXPECT_EQ(hold.hold(file.get(), 11 * page, page).value_or(1), 0U);
  EXPECT_EQ(hold.hold(file.get(), 1000 * page, page).value_or(1), 0U);
}

TEST_F(PageHoldTest, MoreThanOnePipeTakes) {
  // 3000 pages: three pipes and more without privilege.
  const std::string large = directory / "large";
  const Fd made(::open(large.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(made);
  const std::string text(1U << 20U, 'y');
  for (std::uint64_t written = 0; written < 3000 * page; written += text.size())
    ASSERT_EQ(::write(made.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  const std::size_t before = descriptors();
  {
    PageHold hold;
    EXPECT_EQ(hold.hold(made.get(), 0, 3000 * page).value_or(0), 3000 * page);
    EXPECT_EQ(hold.hold(file.get(), 0, 10 * page).value_or(0), 10 * page) << "and more of another file";
    EXPECT_GT(descriptors(), before);
    hold.release();
    EXPECT_EQ(descriptors(), before);
  }
  EXPECT_EQ(descriptors(), before);
}

TEST_F(PageHoldTest, HoldsAgainAfterARelease) {
  PageHold hold;
  ASSERT_EQ(hold.hold(file.get(), 0, 4 * page).value_or(0), 4 * page);
  hold.release();
  EXPECT_EQ(hold.hold(file.get(), 0, 4 * page).value_or(0), 4 * page);
  hold.release();
  hold.release();
  EXPECT_EQ(hold.hold(file.get(), 0, page).value_or(0), page);
}

TEST_F(PageHoldTest, HoldsWhatIsResident) {
  PageHold hold;
  int asked = 0;
  EXPECT_EQ(hold.hold_resident(file.get(), [&](std::uint64_t /*held*/) { return ++asked > 0; }).value_or(0),
            10 * page + 100);
  EXPECT_EQ(asked, 1);
}

TEST_F(PageHoldTest, HoldsNothingOfAHole) {
  // A TiB, with a page in its midst: what is looked at is what is there.
  const std::string path = directory / "sparse";
  const Fd sparse(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(sparse);
  ASSERT_EQ(::ftruncate(sparse.get(), off_t{1} << 40U), 0);
  ASSERT_EQ(::pwrite(sparse.get(), "x", 1, off_t{1} << 39U), 1);
  PageHold hold;
  EXPECT_EQ(hold.hold_resident(sparse.get(), [](std::uint64_t) { return true; }).value_or(0), page);
}

TEST_F(PageHoldTest, StopsWhenItIsTold) {
  const std::string path = directory / "large";
  const Fd large(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const std::string text(40U << 20U, 'y');
  ASSERT_EQ(::write(large.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  PageHold hold;
  const auto held = hold.hold_resident(large.get(), [](std::uint64_t so_far) { return so_far < 20U << 20U; });
  EXPECT_EQ(held.value_or(0), 20U << 20U) << "asked before each 256 KiB";
}

TEST_F(PageHoldTest, WhatCannotBeHeldIsAFault) {
  PageHold hold;
  const Fd write_only(::open((directory / "file").c_str(), O_WRONLY | O_CLOEXEC));
  const auto refused = hold.hold(write_only.get(), 0, page);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBADF);
  EXPECT_FALSE(hold.hold(-1, 0, page));
}

}  // namespace
}  // namespace fpolicy
