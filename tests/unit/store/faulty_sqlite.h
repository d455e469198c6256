// SPDX-License-Identifier: LGPL-2.1-or-later
// SQLite between an allocator and a disk that fail when they are told to, as SQLite's own tests do
// (sqlite.org/testing.html, 3.1 and 3.2). What is written to the disk can be recorded, for crash_disk.h.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace fpolicy {

/// One thing that was done to the disk.
struct DiskOperation {
  enum class Kind : std::uint8_t { create, write, truncate, sync, sync_directory, remove };
  Kind kind = Kind::write;
  ino_t file = 0;         ///< all but sync_directory and remove
  std::string name = {};  ///< create and remove
  std::uint64_t at = 0;   ///< write: offset; truncate: size
  std::string data = {};  ///< write
};

/// While it lives SQLite uses it; no connection may be open when it is made or goes. One at a time.
class FaultySqlite {
 public:
  FaultySqlite() {
    self() = this;
    sqlite3_shutdown();
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory_);
    sqlite3_mem_methods failing = memory_;
    failing.xMalloc = [](int size) {
      return self()->deny(self()->allocations_) ? nullptr : memory().xMalloc(size);
    };
    failing.xRealloc = [](void* old, int size) {
      return self()->deny(self()->allocations_) ? nullptr : memory().xRealloc(old, size);
    };
    sqlite3_config(SQLITE_CONFIG_MALLOC, &failing);
    // Memory that SQLite set aside would be handed out without asking.
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, nullptr, 0, 0);
    EXPECT_EQ(sqlite3_initialize(), SQLITE_OK);
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.pNext = nullptr;
    vfs_.zName = "faulty";
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    vfs_.xAccess = access;
    EXPECT_EQ(sqlite3_vfs_register(&vfs_, 1), SQLITE_OK);
  }
  FaultySqlite(const FaultySqlite&) = delete;
  FaultySqlite& operator=(const FaultySqlite&) = delete;
  ~FaultySqlite() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_shutdown();
    sqlite3_config(SQLITE_CONFIG_MALLOC, &memory_);
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 1200, 40);
    self() = nullptr;
  }

  /// The nth call from now fails, counted from 1; with `lasting` all after it, too.
  void fail_allocation(unsigned nth, bool lasting) { allocations_ = {nth, lasting, false}; }
  /// The same of reads, writes (half of it is written), syncs, truncations, opens, deletions, locks and
  /// shared memory.
  void fail_disk(unsigned nth, bool lasting) { disk_ = {nth, lasting, false}; }
  /// The disk is full: what would make a file grow fails, and nothing else.
  void fail_growth(unsigned nth, bool lasting) { growth_ = {nth, lasting, false}; }
  /// No more faults. Was there one?
  bool heal() {
    const bool failed = allocations_.failed || disk_.failed || growth_.failed;
    allocations_ = disk_ = growth_ = {};
    return failed;
  }

  /// From now on operations are recorded.
  void record() { recording_ = true; }
  [[nodiscard]] const std::vector<DiskOperation>& recorded() const { return log_; }

 private:
  struct Fault {
    unsigned countdown = 0;  ///< 0: none
    bool lasting = false;
    bool failed = false;
  };
  struct File {
    sqlite3_file base;
    sqlite3_file* real;
    ino_t number;
    bool sync_directory;  ///< SQLite syncs the directory of a new log with its first sync
  };

  static FaultySqlite*& self() {
    static FaultySqlite* instance = nullptr;
    return instance;
  }
  static const sqlite3_mem_methods& memory() { return self()->memory_; }

  static bool deny(Fault& fault) {
    if (fault.countdown == 0) return false;
    if (fault.countdown > 1) {
      --fault.countdown;
      return false;
    }
    if (fault.failed && !fault.lasting) return false;
    fault.failed = true;
    return true;
  }
  static bool disk_fails() { return deny(self()->disk_); }
  static void log(DiskOperation operation) {
    if (self()->recording_) self()->log_.push_back(std::move(operation));
  }

  static File* of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }
  static sqlite3_file* real(sqlite3_file* file) { return of(file)->real; }

  static int open(sqlite3_vfs*, sqlite3_filename name, sqlite3_file* file, int flags, int* out) {
    file->pMethods = nullptr;
    if (disk_fails()) return SQLITE_CANTOPEN;
    of(file)->real = reinterpret_cast<sqlite3_file*>(of(file) + 1);
    struct stat status{};
    const bool existed = name == nullptr || ::stat(name, &status) == 0;
    sqlite3_vfs* vfs = self()->real_;
    const int code = vfs->xOpen(vfs, name, real(file), flags, out);
    if (code != SQLITE_OK) return code;
    if (name != nullptr) ::stat(name, &status);
    of(file)->number = status.st_ino;
    of(file)->sync_directory = !existed;
    if (!existed) log({DiskOperation::Kind::create, status.st_ino, name});
    file->pMethods = &methods();
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs*, const char* name, int sync_directory) {
    if (disk_fails()) return SQLITE_IOERR_DELETE;
    const int code = self()->real_->xDelete(self()->real_, name, 0);
    if (code == SQLITE_OK) log({DiskOperation::Kind::remove, 0, name});
    if (code == SQLITE_OK && sync_directory != 0) log({DiskOperation::Kind::sync_directory, 0, name});
    return code;
  }
  static int access(sqlite3_vfs*, const char* name, int flags, int* out) {
    if (disk_fails()) return SQLITE_IOERR_ACCESS;
    return self()->real_->xAccess(self()->real_, name, flags, out);
  }

  static int write(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
    sqlite3_int64 end = 0;
    real(file)->pMethods->xFileSize(real(file), &end);
    const bool full = at + size > end && deny(self()->growth_);
    if (full || disk_fails()) {
      real(file)->pMethods->xWrite(real(file), data, size / 2, at);
      return full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    }
    log({DiskOperation::Kind::write,
         of(file)->number,
         {},
         static_cast<std::uint64_t>(at),
         std::string(static_cast<const char*>(data), static_cast<std::size_t>(size))});
    return real(file)->pMethods->xWrite(real(file), data, size, at);
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    if (disk_fails()) return SQLITE_IOERR_TRUNCATE;
    log({DiskOperation::Kind::truncate, of(file)->number, {}, static_cast<std::uint64_t>(size)});
    return real(file)->pMethods->xTruncate(real(file), size);
  }
  static int sync(sqlite3_file* file, int) {
    if (disk_fails()) return SQLITE_IOERR_FSYNC;
    log({DiskOperation::Kind::sync, of(file)->number});
    if (of(file)->sync_directory) log({DiskOperation::Kind::sync_directory});
    of(file)->sync_directory = false;
    return SQLITE_OK;  // the machine does not go down: nothing is gained by waiting for its disk
  }
  static int map_shared(sqlite3_file* file, int page, int size, int extend, void volatile** out) {
    if (deny(self()->growth_) || disk_fails()) return SQLITE_IOERR_SHMSIZE;
    return real(file)->pMethods->xShmMap(real(file), page, size, extend, out);
  }

  static const sqlite3_io_methods& methods() {
    static const sqlite3_io_methods table = [] {
      sqlite3_io_methods made{};
      made.iVersion = 2;
      made.xClose = [](sqlite3_file* file) { return real(file)->pMethods->xClose(real(file)); };
      made.xRead = [](sqlite3_file* file, void* data, int size, sqlite3_int64 at) {
        return disk_fails() ? SQLITE_IOERR_READ : real(file)->pMethods->xRead(real(file), data, size, at);
      };
      made.xWrite = write;
      made.xTruncate = truncate;
      made.xSync = sync;
      made.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
        return disk_fails() ? SQLITE_IOERR_FSTAT : real(file)->pMethods->xFileSize(real(file), size);
      };
      made.xLock = [](sqlite3_file* file, int level) {
        return disk_fails() ? SQLITE_IOERR_LOCK : real(file)->pMethods->xLock(real(file), level);
      };
      made.xUnlock = [](sqlite3_file* file, int level) {
        return real(file)->pMethods->xUnlock(real(file), level);
      };
      made.xCheckReservedLock = [](sqlite3_file* file, int* out) {
        return real(file)->pMethods->xCheckReservedLock(real(file), out);
      };
      made.xFileControl = [](sqlite3_file* file, int what, void* argument) {
        return real(file)->pMethods->xFileControl(real(file), what, argument);
      };
      made.xSectorSize = [](sqlite3_file* file) { return real(file)->pMethods->xSectorSize(real(file)); };
      made.xDeviceCharacteristics = [](sqlite3_file* file) {
        return real(file)->pMethods->xDeviceCharacteristics(real(file));
      };
      made.xShmMap = map_shared;
      made.xShmLock = [](sqlite3_file* file, int first, int count, int flags) {
        if ((flags & SQLITE_SHM_LOCK) != 0 && disk_fails()) return SQLITE_IOERR_SHMLOCK;
        return real(file)->pMethods->xShmLock(real(file), first, count, flags);
      };
      made.xShmBarrier = [](sqlite3_file* file) { real(file)->pMethods->xShmBarrier(real(file)); };
      made.xShmUnmap = [](sqlite3_file* file, int remove_it) {
        return real(file)->pMethods->xShmUnmap(real(file), remove_it);
      };
      return made;
    }();
    return table;
  }

  sqlite3_mem_methods memory_{};
  sqlite3_vfs vfs_{};
  sqlite3_vfs* real_ = nullptr;
  Fault allocations_, disk_, growth_;
  bool recording_ = false;
  std::vector<DiskOperation> log_;
};

}  // namespace fpolicy
