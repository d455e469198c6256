// SPDX-License-Identifier: LGPL-2.1-or-later
// Pages of files with a pin in their policy, held in memory: nobody moves or reclaims them.
#pragma once

#include "known_files.h"
#include "open_watch.h"

#include <fpolicy/fd.h>
#include <fpolicy/page_hold.h>
#include <fpolicy/placement.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace fpolicy::policyd {

/// One pinned file, for those who ask.
struct PinInfo {
  std::string path;
  std::string policy;
  std::uint64_t held_bytes = 0;
  std::string reason;  ///< why nothing, or not all, is held
};

/// Thread-safe: the enforcer's worker pins, the loop reads what has changed and answers who asks. All is let
/// go with it.
class Pins {
 public:
  explicit Pins(std::uint64_t max_bytes);

  /// Where a pinned file was found last, and with which policy. Nothing for one that is not to be pinned.
  [[nodiscard]] std::optional<KnownFile> find(const FileKey& key) const;
  /// All of these resident pages are held, and nothing has changed the file since.
  [[nodiscard]] bool is_current(const FileKey& key, std::int64_t ctime_ns,
                                std::uint64_t resident_pages) const;
  /// Holds the pages of `resident`, in pages of `page_size`, and lets go of what was held of the file before.
  /// All or nothing: where they do not fit, what was held stays. Returns why not, or an empty text. `fd`:
  /// open for reading.
  std::string hold(const KnownFile& file, std::int64_t ctime_ns, int fd, std::uint64_t page_size,
                   std::span<const PageRun> resident);
  /// Enters a file that cannot be pinned now; what is held of it stays.
  void refuse(const KnownFile& file, const std::string& reason);
  /// Lets go of the pages, and of the file. True if there were any.
  bool release(const FileKey& key);
  /// Lets go of the pages alone, so that they can be moved. True if there were any.
  bool let_go(const FileKey& key);
  void set_max(std::uint64_t max_bytes);

  [[nodiscard]] std::vector<FileKey> keys() const;
  /// Files that wait for room.
  [[nodiscard]] std::vector<FileKey> refused() const;
  [[nodiscard]] std::vector<PinInfo> list() const;
  [[nodiscard]] std::uint64_t held_bytes() const;
  [[nodiscard]] std::uint64_t max_bytes() const;

  /// Readable when a watched file was opened, read, written, deleted or unmounted; -1 where the kernel has no
  /// watches left.
  [[nodiscard]] int fd() const { return watch_.fd(); }
  /// Which. Each is told once, until it is watched again: a file in use costs nothing more.
  std::vector<FileKey> read_changes();
  /// `fd`: any, O_PATH included. What the caller opens itself afterwards is told as well.
  void watch(const FileKey& key, int fd);

 private:
  struct Pin {
    KnownFile file;
    std::int64_t ctime_ns = 0;
    std::uint64_t held_pages = 0;
    std::uint64_t held_bytes = 0;
    PageHold hold;
    std::string reason;
  };

  mutable std::mutex mutex_;
  std::uint64_t max_bytes_;
  std::uint64_t held_bytes_ = 0;
  std::size_t pipes_ = 0;
  std::unordered_map<FileKey, Pin, FileKeyHash> pins_;
  OpenWatch watch_;
};

}  // namespace fpolicy::policyd
