// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/capability.h"

#include <fpolicy/fd.h>
#include <fpolicy/privilege.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace fpolicy {
namespace {

struct Need {
  unsigned number;
  const char* what;
};

constexpr std::array needs{
    Need{CAP_SYS_ADMIN, "CAP_SYS_ADMIN: cannot watch cgroups, open what processes map, or write system tags"},
    Need{CAP_SYS_NICE, "CAP_SYS_NICE: cannot move pages that other processes map"},
    Need{CAP_SYS_PTRACE, "CAP_SYS_PTRACE: cannot see what other users' processes map"},
    Need{CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH: cannot open other users' files"},
    Need{CAP_FOWNER,
         "CAP_FOWNER: cannot see which pages are resident of others' files that nobody may write"},
    Need{CAP_KILL, "CAP_KILL: cannot stop other users' processes while their pages are moved"},
};

/// The kernel gives its first user namespace this number (PROC_USER_INIT_INO, include/linux/proc_ns.h).
constexpr ino_t first_user_namespace = 0xEFFFFFFD;

}  // namespace

bool sys::has_capability(unsigned number) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  // glibc has no wrapper (capget(2)).
  return ::syscall(SYS_capget, &header, data.data()) == 0 &&
         (data.at(number / 32).effective >> (number % 32) & 1U) != 0;
}

bool administers_machine() {
  if (::geteuid() == 0) return true;
  struct stat status{};
  return sys::has_capability(CAP_SYS_ADMIN) && ::stat("/proc/self/ns/user", &status) == 0 &&
         status.st_ino == first_user_namespace;
}

std::vector<std::string> missing_capabilities() {
  std::vector<std::string> missing;
  for (const Need& need : needs) {
    // CAP_DAC_OVERRIDE reads as well.
    if (sys::has_capability(need.number) ||
        (need.number == CAP_DAC_READ_SEARCH && sys::has_capability(CAP_DAC_OVERRIDE)))
      continue;
    missing.emplace_back(need.what);
  }
  return missing;
}

Result<std::vector<gid_t>> peer_groups(int socket) {
  // NGROUPS_MAX (65,536) groups at most; most users have few.
  std::vector<gid_t> groups(32);
  while (true) {
    auto bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const int status = ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes);
    if (status != 0 && errno != ERANGE) return fail_errno("getsockopt", "SO_PEERGROUPS");
    const bool is_whole = status == 0;
    groups.resize(bytes / sizeof(gid_t));
    if (is_whole) return groups;
  }
}

bool reaches(const std::string& path) {
  return static_cast<bool>(Fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)));
}

}  // namespace fpolicy
