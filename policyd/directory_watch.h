// SPDX-License-Identifier: LGPL-2.1-or-later
// Directories in which files with tags may be replaced.
#pragma once

#include <fpolicy/carry_over.h>
#include <fpolicy/fd.h>

#include <cstddef>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace fpolicy::policyd {

/// Told by the kernel of every name that appears in them: nothing is looked at again and again. Thread-safe.
class DirectoryWatch {
 public:
  explicit DirectoryWatch(Administrator administrator = {});

  /// Readable when something has appeared; -1 where the kernel has no instances left.
  [[nodiscard]] int fd() const { return inotify_.get(); }
  /// Watches the directory of a file from now on. Only one where the administrator alone puts files: of
  /// others nothing is carried over, and they may be busy.
  void watch_directory_of(const std::string& path);

  struct Notices {
    std::vector<std::string> paths;  ///< what has appeared
    bool lost = false;               ///< some were lost
  };
  /// What has appeared, without waiting.
  Notices read();

  [[nodiscard]] std::size_t size() const;
  /// Some directory is not watched, for the kernel or we have no watches left.
  [[nodiscard]] bool is_full() const;

 private:
  static constexpr std::size_t most_watches = 8192;
  const Administrator administrator_;
  const Fd inotify_;
  mutable std::mutex mutex_;  ///< over all below
  std::unordered_map<int, std::string> by_watch_;
  std::unordered_set<std::string> paths_;
  bool full_ = false;
};

}  // namespace fpolicy::policyd
