// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/xattr_calls.h"

#include "sys/xattr_protection.h"

#include <sys/xattr.h>

#include <cerrno>
#include <cstdio>

namespace fpolicy::sys {
namespace {

/// The f*xattr calls refuse O_PATH descriptors (EBADF); the file behind one is reached through its link in
/// /proc.
class ProcLink {
 public:
  explicit ProcLink(int fd) { std::snprintf(text_, sizeof text_, "/proc/self/fd/%d", fd); }
  [[nodiscard]] const char* c_str() const { return text_; }

 private:
  char text_[32];
};

/// To a kernel that lets everybody write security.*, no filesystem holds system tags.
bool is_unprotected(const char* name) {
  return name == xattr_name(Space::system) && !protects_security_xattrs();
}

template <class Number>
Number or_errno(Number result) {
  return result < 0 ? static_cast<Number>(-errno) : result;
}

}  // namespace

const char* xattr_name(Space space) {
  return space == Space::system ? "security.fpolicy" : "user.fpolicy";
}

ssize_t KernelXattrCalls::get(const FileRef& file, const char* name, char* value, std::size_t size) {
  if (is_unprotected(name)) return -EOPNOTSUPP;
  if (file.fd < 0) return or_errno(::lgetxattr(file.name, name, value, size));
  const ssize_t result = or_errno(::fgetxattr(file.fd, name, value, size));
  return result == -EBADF ? or_errno(::getxattr(ProcLink(file.fd).c_str(), name, value, size)) : result;
}

ssize_t KernelXattrCalls::list(const FileRef& file, char* names, std::size_t size) {
  if (file.fd < 0) return or_errno(::llistxattr(file.name, names, size));
  const ssize_t result = or_errno(::flistxattr(file.fd, names, size));
  return result == -EBADF ? or_errno(::listxattr(ProcLink(file.fd).c_str(), names, size)) : result;
}

int KernelXattrCalls::set(const FileRef& file, const char* name, std::string_view value, bool only_new) {
  if (is_unprotected(name)) return -EOPNOTSUPP;
  const int flags = only_new ? XATTR_CREATE : 0;
  if (file.fd < 0) return or_errno(::lsetxattr(file.name, name, value.data(), value.size(), flags));
  const int result = or_errno(::fsetxattr(file.fd, name, value.data(), value.size(), flags));
  return result == -EBADF
             ? or_errno(::setxattr(ProcLink(file.fd).c_str(), name, value.data(), value.size(), flags))
             : result;
}

int KernelXattrCalls::remove(const FileRef& file, const char* name) {
  if (is_unprotected(name)) return -EOPNOTSUPP;
  if (file.fd < 0) return or_errno(::lremovexattr(file.name, name));
  const int result = or_errno(::fremovexattr(file.fd, name));
  return result == -EBADF ? or_errno(::removexattr(ProcLink(file.fd).c_str(), name)) : result;
}

}  // namespace fpolicy::sys
