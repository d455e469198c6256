// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/fd.h>
#include <fpolicy/privilege.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
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

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

/// Of the calling thread. glibc has no wrapper (capget(2)).
bool read_capabilities(Capabilities& data) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return ::syscall(SYS_capget, &header, data.data()) == 0;
}

bool has_capability(const Capabilities& data, unsigned number) {
  return (data.at(number / 32).effective >> (number % 32) & 1U) != 0;
}

/// The kernel gives its first user namespace this number (PROC_USER_INIT_INO, include/linux/proc_ns.h).
constexpr ino_t first_user_namespace = 0xEFFFFFFD;

}  // namespace

bool administers_machine() {
  if (::geteuid() == 0) return true;
  Capabilities data{};
  struct stat status{};
  return read_capabilities(data) && has_capability(data, CAP_SYS_ADMIN) &&
         ::stat("/proc/self/ns/user", &status) == 0 && status.st_ino == first_user_namespace;
}

Result<std::vector<std::string>> missing_capabilities() {
  Capabilities data{};
  if (!read_capabilities(data)) return fail_errno("capget", "");
  const auto has = [&data](unsigned number) { return has_capability(data, number); };
  std::vector<std::string> missing;
  for (const Need& need : needs) {
    // CAP_DAC_OVERRIDE reads as well.
    if (has(need.number) || (need.number == CAP_DAC_READ_SEARCH && has(CAP_DAC_OVERRIDE))) continue;
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

Status assume_file_access(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  // The system calls themselves change one thread; glibc's wrapper of setgroups would change all (nptl(7)).
  if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0) return fail_errno("setgroups", "");
  ::setfsgid(gid);
  ::setfsuid(uid);
  // They report no error, but what was in force before.
  if (::setfsgid(gid) != static_cast<int>(gid) || ::setfsuid(uid) != static_cast<int>(uid)) {
    return fail_errno("setfsuid", fmt::format("{}", uid), EPERM);
  }
  // The kernel takes those over files away from a thread that was root (capabilities(7)), and none from
  // another user's that has them all the same.
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const Capabilities none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return fail_errno("capset", "");
  return {};
}

bool reaches(const std::string& path) {
  return static_cast<bool>(Fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)));
}

}  // namespace fpolicy
