// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <fcntl.h>
#include <gtest/gtest.h>

namespace fpolicy {
namespace {

TEST(Result, FailErrnoNamesOperationObjectAndCause) {
  const Status status = fail_errno("setxattr", "/srv/x", EROFS);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, EROFS);
  EXPECT_EQ(status.error().message, "setxattr /srv/x: Read-only file system");
}

TEST(Result, UnknownErrnoIsNamedByNumber) {
  EXPECT_EQ(errno_text(99999), "error 99999");
}

TEST(Result, ContextComesFirstAndTheCodeStays) {
  const Status status = with_context("policyd", Error{EIO, "read x: broken"});
  EXPECT_EQ(status.error().message, "policyd: read x: broken");
  EXPECT_EQ(status.error().code, EIO);
}

TEST(Fd, MoveLeavesNothingBehindAndClosesWhatItReplaces) {
  Fd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Fd second(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int kept = first.get();
  const int replaced = second.get();
  second = std::move(first);
  EXPECT_EQ(second.get(), kept);
  EXPECT_EQ(::fcntl(replaced, F_GETFD), -1);
  EXPECT_NE(::fcntl(kept, F_GETFD), -1);
}

}  // namespace
}  // namespace fpolicy
