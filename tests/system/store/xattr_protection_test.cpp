// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/xattr_protection.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace fpolicy::sys {
namespace {

/// The other way round: a process that has become nobody, on a real file of root's.
TEST(XattrProtection, AgreesWithWhatAnOrdinaryUserCanDo) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  char path[] = "/var/tmp/fpolicy-protection-XXXXXX";
  const int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
    ::_exit(::fsetxattr(fd, "security.fpolicy.probe", "1", 1, 0) == 0 ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ::close(fd);
  ::unlink(path);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2);
  EXPECT_EQ(protects_security_xattrs(), WEXITSTATUS(status) == 0);
}

TEST(XattrProtection, TheProbeLeavesTheCallersCapabilitiesAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  static_cast<void>(protects_security_xattrs());
  char path[] = "/var/tmp/fpolicy-protection-XXXXXX";
  const int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::fsetxattr(fd, "security.fpolicy.probe", "1", 1, 0), 0);
  ::close(fd);
  ::unlink(path);
}

}  // namespace
}  // namespace fpolicy::sys
