// SPDX-License-Identifier: LGPL-2.1-or-later
// Files of which one wants to know that they were opened, or used, once.
#pragma once

#include "known_files.h"

#include <fpolicy/fd.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace fpolicy::policyd {

/// One-shot inotify watches: a file in use costs nothing more than the first notice. Not thread-safe.
class OpenWatch {
 public:
  /// `events`: of inotify(7).
  explicit OpenWatch(std::uint32_t events);

  /// Readable when something was noticed; -1 where the kernel has no instances left.
  [[nodiscard]] int fd() const { return inotify_.get(); }
  /// Watches a file (`fd`: any, O_PATH included) from now on. False where the kernel or we have no watches
  /// left: other users of root need some.
  bool watch(const FileKey& key, int fd);
  void forget(const FileKey& key);
  [[nodiscard]] bool contains(const FileKey& key) const { return by_key_.contains(key); }

  struct Notices {
    std::vector<FileKey> files;  ///< no longer watched
    bool lost = false;           ///< some were lost: no file is watched any more
  };
  /// What was noticed, without waiting.
  Notices read();

 private:
  static constexpr std::size_t most_watches = 4096;
  const std::uint32_t events_;
  Fd inotify_;
  std::unordered_map<int, FileKey> by_watch_;
  std::unordered_map<FileKey, int, FileKeyHash> by_key_;
};

}  // namespace fpolicy::policyd
