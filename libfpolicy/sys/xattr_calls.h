// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/store.h>

#include <sys/types.h>

#include <cstddef>
#include <string_view>

namespace fpolicy::sys {

/// Longest value of a tag in bytes; what is longer is not read but reported as ERANGE.
inline constexpr std::size_t max_xattr_value = 255;

/// "security.fpolicy" or "user.fpolicy".
const char* xattr_name(Space space);

/// The extended attribute calls on one file. Virtual so that tests can have a filesystem that is full,
/// read-only or over its quota.
class XattrCalls {
 public:
  virtual ~XattrCalls() = default;
  /// Bytes read, or -errno: ENODATA where there is none, ERANGE where it is longer than `size`.
  virtual ssize_t get(const FileRef& file, const char* name, char* value, std::size_t size) = 0;
  /// The names that a file has, each ended by NUL, as listxattr(2): bytes or -errno, ERANGE where they do not
  /// fit.
  virtual ssize_t list(const FileRef& file, char* names, std::size_t size) = 0;
  /// 0 or -errno. Creates or replaces; with `only_new` EEXIST where there is one.
  virtual int set(const FileRef& file, const char* name, std::string_view value, bool only_new) = 0;
  /// 0 or -errno.
  virtual int remove(const FileRef& file, const char* name) = 0;
};

/// The kernel's: by descriptor (O_PATH too), or by name without following a symbolic link.
class KernelXattrCalls final : public XattrCalls {
 public:
  ssize_t get(const FileRef& file, const char* name, char* value, std::size_t size) override;
  ssize_t list(const FileRef& file, char* names, std::size_t size) override;
  int set(const FileRef& file, const char* name, std::string_view value, bool only_new) override;
  int remove(const FileRef& file, const char* name) override;
};

}  // namespace fpolicy::sys
