// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "sys/xattr_calls.h"

namespace fpolicy {

/// The kernel's calls, but those named fail as on a filesystem that is full, read-only or without xattrs.
class FaultyXattrs final : public sys::XattrCalls {
 public:
  int get_error = 0;
  int list_error = 0;
  int set_error = 0;
  int remove_error = 0;
  int sets = 0;  ///< that succeeded

  ssize_t get(const FileRef& file, const char* name, char* value, std::size_t size) override {
    return get_error != 0 ? -get_error : kernel_.get(file, name, value, size);
  }
  ssize_t list(const FileRef& file, char* names, std::size_t size) override {
    return list_error != 0 ? -list_error : kernel_.list(file, names, size);
  }
  int set(const FileRef& file, const char* name, std::string_view value, bool only_new) override {
    // Where there are none to read, none can be written.
    if (set_error != 0 || get_error == EOPNOTSUPP) return set_error != 0 ? -set_error : -get_error;
    const int result = kernel_.set(file, name, value, only_new);
    if (result == 0) ++sets;
    return result;
  }
  int remove(const FileRef& file, const char* name) override {
    return remove_error != 0 ? -remove_error : kernel_.remove(file, name);
  }

 private:
  sys::KernelXattrCalls kernel_;
};

}  // namespace fpolicy
