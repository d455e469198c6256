// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/open_path.h"

#include "temporary_directory.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>

namespace fpolicy::sys {
namespace {

/// As the filters of older container engines do.
bool refuse_openat2() {
  std::array filter{sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                    sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
                    sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                    sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{.len = filter.size(), .filter = filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// 0, or the number of the check that failed.
int failed_check(const std::string& root) {
  const auto leads_to = [&root](const std::string& path, const std::string& file) {
    const auto fd = open_real_path(root + path);
    struct stat found{};
    struct stat wanted{};
    return fd && ::fstat(fd->get(), &found) == 0 && ::lstat((root + file).c_str(), &wanted) == 0 &&
           found.st_ino == wanted.st_ino;
  };
  const auto code = [&root](const std::string& path) {
    const auto fd = open_real_path(root + path);
    return fd ? 0 : fd.error().code;
  };
  const std::array checks{leads_to("/a/b", "/a/b"),    leads_to("/a", "/a"),
                          leads_to("/link", "/link"),  code("/link/b") == ELOOP || code("/link/b") == ENOTDIR,
                          code("/a/none/x") == ENOENT, open_real_path("/").has_value()};
  for (std::size_t i = 0; i < checks.size(); ++i)
    if (!checks.at(i)) return static_cast<int>(i) + 1;
  return 0;
}

TEST(OpenRealPathTest, FollowsNoLinkWithAndWithoutOpenat2) {
  const TemporaryDirectory directory;
  const std::string root = std::filesystem::canonical(directory.path()).string();
  std::filesystem::create_directories(root + "/a/b");
  std::filesystem::create_directory_symlink("a", root + "/link");
  EXPECT_EQ(failed_check(root), 0);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(refuse_openat2() ? failed_check(root) : 100);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0) << "the number of the check that failed";
}

}  // namespace
}  // namespace fpolicy::sys
