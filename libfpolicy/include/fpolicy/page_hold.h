// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace fpolicy {

/// References on pages of files: what holds one cannot be moved or reclaimed. Taken by splice into pipes,
/// without a copy.
class FPOLICY_API PageHold {
 public:
  /// Takes references on the resident pages of [offset, offset + length) of `fd`, open for reading, up to the
  /// end of the file. Returns how many bytes are held. Pages that are not resident would be read in: name
  /// such as are mapped. Error: those of splice(2); EINVAL on filesystems that cannot (hugetlbfs).
  Result<std::uint64_t> hold(int fd, std::uint64_t offset, std::uint64_t length);
  /// Takes references on those pages of the file that are resident, and returns how many bytes are held.
  /// `go_on` is asked before each 256 KiB, with what is held so far; false ends the work. Error: as of
  /// hold(); ENOTSUP for hugetlbfs; EPERM where the caller may not know what is resident.
  Result<std::uint64_t> hold_resident(int fd, const std::function<bool(std::uint64_t held)>& go_on);
  void release() {
    pipes_.clear();
    full_ = true;
  }
  /// Each is two descriptors.
  [[nodiscard]] std::size_t pipes() const { return pipes_.size(); }

 private:
  struct Pipe {
    Fd read;
    Fd write;
  };
  Status add_pipe();
  std::vector<Pipe> pipes_;
  bool full_ = true;  ///< the last pipe takes no more
};

}  // namespace fpolicy
