// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "sys/xattr_calls.h"

namespace fpolicy {

/// The kernel's calls, but those named fail as on a filesystem that is full, read-only or without xattrs.
class FaultyXattrs final : public sys::XattrCalls {
 public:
  int get_error = 0;
  int set_error = 0;
  int remove_error = 0;
  int sets = 0;

  ssize_t get(const FileRef& file, const char* name, char* value, std::size_t size) override {
    return get_error != 0 ? -get_error : kernel_.get(file, name, value, size);
  }
  int set(const FileRef& file, const char* name, std::string_view value) override {
    ++sets;
    return set_error != 0 ? -set_error : kernel_.set(file, name, value);
  }
  int remove(const FileRef& file, const char* name) override {
    return remove_error != 0 ? -remove_error : kernel_.remove(file, name);
  }

 private:
  sys::KernelXattrCalls kernel_;
};

}  // namespace fpolicy
