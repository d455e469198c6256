// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/xattr_protection.h"

#include <fpolicy/fd.h>
#include <fpolicy/store.h>

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <thread>

namespace fpolicy {
namespace sys {
namespace {

/// Gives up CAP_SYS_ADMIN for the calling thread alone: the call knows threads, unlike libcap's.
bool drop_sys_admin() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return false;
  static_assert(CAP_SYS_ADMIN < 32);
  sets[0].effective &= ~(1U << CAP_SYS_ADMIN);
  return ::syscall(SYS_capset, &header, sets.data()) == 0;
}

bool probe() {
  // A file of tmpfs without a name: it holds security.* on every kernel, and goes with its descriptor.
  const Fd file(::memfd_create("fpolicy-xattr-protection", MFD_CLOEXEC));
  if (!file) return false;
  bool is_protected = false;
  const auto try_to_write = [&] {
    is_protected = drop_sys_admin() && ::fsetxattr(file.get(), "security.fpolicy.probe", "1", 1, 0) != 0 &&
                   (errno == EPERM || errno == EACCES);
  };
  try {
    std::jthread(try_to_write).join();
  } catch (const std::system_error&) {
    return false;
  }
  return is_protected;
}

}  // namespace

bool protects_security_xattrs() {
  static const bool is_protected = probe();
  return is_protected;
}

}  // namespace sys

bool system_xattrs_count() {
  return sys::protects_security_xattrs();
}

}  // namespace fpolicy
