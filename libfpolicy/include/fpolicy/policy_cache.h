// SPDX-License-Identifier: LGPL-2.1-or-later
// Remembers which policy holds for a file, so that a move of a job does not read every tag again.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/resolver.h>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace fpolicy {

/// A bounded cache of effective policies. Thread-safe; a hit allocates nothing.
///
/// The change time in the key covers the file's own tags (a changed xattr changes it). Everything else that a
/// policy depends on needs invalidate(): records in the database, tags and names of directories, rules,
/// mounts.
class FPOLICY_API PolicyCache {
 public:
  struct Key {
    dev_t device = 0;
    ino_t inode = 0;
    std::int64_t ctime_ns = 0;
    uid_t job_uid = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };

  static constexpr std::size_t default_capacity = 65536;

  /// Holds at most `capacity` entries, a power of two (else the next one). What has not been found for long
  /// goes first.
  explicit PolicyCache(std::size_t capacity = default_capacity);
  ~PolicyCache();

  /// nullptr where nothing is remembered.
  [[nodiscard]] std::shared_ptr<const Effective> find(const Key& key);

  /// Counts calls of invalidate(). Read it before resolving, and give it to insert.
  [[nodiscard]] std::uint64_t generation() const;
  /// `effective`: not null; also for files without a policy. Does nothing if invalidate() has been called
  /// since `generation` was read: what was resolved may be old.
  void insert(const Key& key, std::shared_ptr<const Effective> effective, std::uint64_t generation);

  /// Forgets everything.
  void invalidate();

  [[nodiscard]] std::size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpolicy
