// SPDX-License-Identifier: LGPL-2.1-or-later
// Files whose pages stay where they are when jobs that map them move.
#pragma once

#include "known_files.h"
#include "open_watch.h"
#include "work_queue.h"

#include <fpolicy/fd.h>
#include <fpolicy/resolver.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace fpolicy::policyd {

/// Do the pages of a file with this policy stay when a job moves? Only on root's word: what users tag lives
/// and moves within their jobs' nodes.
bool pages_stay(const Effective& effective);

/// A file whose pages stay.
struct Stay {
  FileKey key;
  std::int64_t birth_ns = 0;
  std::string path;
  std::vector<MappedAt> mappers;  ///< some that mapped it when last looked
};

/// Enters which of these inode numbers a process maps, and where: of each number what a few map. Nothing of
/// one that has ended, and of our own process. False where it had to stop at `until`.
bool add_mappers(pid_t pid, const std::unordered_set<ino_t>& inodes,
                 std::unordered_multimap<ino_t, MappedAt>& mappers,
                 Work::Clock::time_point until = Work::Clock::time_point::max());

/// The very file, whatever has its path by now, as an O_PATH descriptor. Error: ENOENT where it is nowhere to
/// be found.
Result<Fd> reopen(const Stay& stay);

/// Thread-safe: the enforcer enters, the guard asks.
class Stays {
 public:
  Stays();

  /// Called whenever there are none any more, or some again, with the lock held; at once with what is.
  void set_observer(std::function<void(bool any)> observer);
  /// True if it is new.
  bool put(Stay stay);
  void erase(const FileKey& key);
  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t mapped() const;

  [[nodiscard]] std::unordered_set<ino_t> inodes() const;
  /// Who maps which inode number, as found in one round over all processes; replaces what was known.
  void set_mappers(const std::unordered_multimap<ino_t, MappedAt>& mappers);
  /// Those that somebody maps.
  [[nodiscard]] std::vector<Stay> list_mapped() const;
  /// Those with one of these inode numbers, mapped by these.
  [[nodiscard]] std::vector<Stay> find(const std::unordered_multimap<ino_t, MappedAt>& mappers) const;

  /// Readable when a file that nobody mapped was opened: soon somebody may. -1 where the kernel has no
  /// watches.
  [[nodiscard]] int fd() const { return watch_.fd(); }
  /// Each is told once, until it is watched again. True if there were any.
  bool read_opened();
  /// Files that nobody maps and that are not watched.
  [[nodiscard]] std::vector<Stay> unwatched() const;
  /// False where it cannot be watched, nor can others.
  bool watch(const FileKey& key, int fd);

 private:
  struct Entry {
    Stay stay;
    /// What the maps of processes say, where it is not the file's own: overlayfs shows a copy's before
    /// Linux 6.8.
    ino_t inode_in_maps = 0;
  };
  static std::vector<MappedAt> mappers_of(const Entry& entry,
                                          const std::unordered_multimap<ino_t, MappedAt>& mappers);
  void tell_observer();

  mutable std::mutex mutex_;
  std::unordered_map<FileKey, Entry, FileKeyHash> stays_;
  std::function<void(bool any)> observer_;
  bool told_any_ = false;
  OpenWatch watch_;
};

}  // namespace fpolicy::policyd
