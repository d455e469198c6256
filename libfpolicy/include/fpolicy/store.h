// SPDX-License-Identifier: LGPL-2.1-or-later
// Where tags are kept: extended attributes, and records in a database where a filesystem has none.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct statx;

namespace fpolicy {

/// Who speaks: root (security.fpolicy) or the file's owner (user.fpolicy).
enum class Space : std::uint8_t { system, user };

/// What holds a tag.
enum class Carrier : std::uint8_t { xattr, database };

/// One file, by an open descriptor (O_PATH will do), or by a name in the calling thread's working directory.
/// A name is never followed when it is a symbolic link.
struct FPOLICY_API FileRef {
  int fd = -1;
  const char* name = nullptr;  ///< used where fd < 0
  std::string_view path;       ///< absolute, for messages and the catalogue; may be empty
};

/// A file's identity over reboots and device renumbering.
struct FPOLICY_API FileIdentity {
  /// "uuid:…", "btrfs:…", "source:…": the filesystem, not its device number.
  std::string filesystem;
  /// "h" + handle type + handle bytes; or "p" + path inside the filesystem, where handles are not stable.
  std::string key;
  /// Birth time in ns, 0 where the filesystem has none: a record whose birth time differs is stale.
  std::int64_t birth_ns = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// Finds identities; remembers what it learned of each mounted filesystem. Safe to share between threads.
class FPOLICY_API Identifier {
 public:
  /// `root`: where proc and dev are looked for; "/" but in tests.
  explicit Identifier(std::string root = "/");
  ~Identifier();

  [[nodiscard]] Result<FileIdentity> identify(const FileRef& file);
  /// The filesystem part alone, for a device number as statx gives it.
  [[nodiscard]] Result<std::string> filesystem(const FileRef& file);
  /// Two live filesystems have this file's filesystem id (cloned images).
  [[nodiscard]] Result<bool> is_ambiguous(const FileRef& file);
  /// Opens the file of an identity whose filesystem is mounted, wherever it is named now. Needs
  /// CAP_DAC_READ_SEARCH. Error: ESTALE where it no longer exists, ENODEV where the filesystem is not
  /// mounted.
  [[nodiscard]] Result<int> open(const FileIdentity& identity, const std::string& last_path);
  /// Forget what was learned (mounts changed).
  void refresh();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One row of the catalogue.
struct FPOLICY_API TagRecord {
  FileIdentity identity;
  Space space = Space::system;
  /// database: this record is the tag. xattr: the xattr is, and the record only says that it was set.
  Carrier carrier = Carrier::xattr;
  std::string policy;  ///< canonical text; or what an unsupported tag holds
  std::string path;    ///< where the file was when it was tagged; for people
  bool directory = false;
  std::uint32_t uid = 0;        ///< who set it
  std::int64_t changed_ns = 0;  ///< when, CLOCK_REALTIME
};

/// The records, however they are reached: SQLite for root, policyd's socket for others.
class FPOLICY_API RecordStore {
 public:
  virtual ~RecordStore() = default;

  [[nodiscard]] virtual Result<std::optional<TagRecord>> find(const FileIdentity& identity, Space space) = 0;
  /// Inserts or replaces, all in one transaction.
  virtual Status put(std::span<const TagRecord> records) = 0;
  /// Removes, all in one transaction; what is not there is no error.
  virtual Status erase(std::span<const TagRecord> records) = 0;
  /// Does any record carry a tag itself (Carrier::database) for this filesystem? Asked for each file of a
  /// tree, so answered from memory, and kept right when another process writes.
  [[nodiscard]] virtual Result<bool> carries_tags(const std::string& filesystem) = 0;
  /// Every record whose path starts with `path_prefix`, by path. `each` returns false to stop.
  virtual Status for_each(std::string_view path_prefix,
                          const std::function<bool(const TagRecord&)>& each) = 0;
  /// Changes whenever any process has committed a change; for caches.
  [[nodiscard]] virtual Result<std::uint64_t> data_version() = 0;
};

inline constexpr const char* default_database = "/var/lib/fpolicy/fpolicy.db";

/// The SQLite database. WAL, synchronous FULL; a newer schema is refused untouched; one that is damaged is an
/// error, never a silently empty store. Safe to share between threads (one connection behind a mutex,
/// statements prepared once).
class FPOLICY_API Database : public RecordStore {
 public:
  enum class Access : std::uint8_t { read_only, read_write };
  /// Creates file and directory (0755, 0644) where they are missing and access is read_write. read_only on a
  /// missing file gives an empty store; a file that is no database of ours is an error.
  static Result<std::unique_ptr<Database>> open(const std::string& path, Access access);
};

/// A stored tag: its policy, or why it has none.
struct FPOLICY_API Tag {
  Carrier carrier = Carrier::xattr;
  std::string text;              ///< the stored text without its version
  std::optional<Policy> policy;  ///< nothing: unsupported (unknown version or item)
};

/// Both tags of one file.
struct FPOLICY_API Tags {
  std::optional<Tag> system;
  std::optional<Tag> user;
};

struct FPOLICY_API SetOptions {
  bool force = false;    ///< overwrite a tag that is unsupported
  bool dry_run = false;  ///< say what would happen, change nothing
};

enum class SetOutcome : std::uint8_t { unchanged, changed };

/// The layered store: xattr first, the database where the filesystem cannot hold one, every change in the
/// catalogue. Thread-safe. Records are written in batches: call flush() and check it before reporting
/// success.
class FPOLICY_API PolicyStore {
 public:
  /// `records` may be nullptr: xattrs only (then a filesystem without them is an error that says so).
  PolicyStore(RecordStore* records, Identifier* identifier);
  ~PolicyStore();

  /// The tags of a file, from its xattrs and its live record. Stale records never count.
  [[nodiscard]] Result<Tags> get(const FileRef& file);
  [[nodiscard]] Result<std::optional<Tag>> get(const FileRef& file, Space space);

  /// Writes only where the stored tag differs (a write changes ctime). Falls back to the database on
  /// EOPNOTSUPP, EROFS, ENOSPC and EDQUOT. Error: EPERM/EACCES with what is needed, ENOTSUP for an
  /// unsupported tag without force.
  Result<SetOutcome> set(const FileRef& file, Space space, const Policy& policy,
                         const SetOptions& options = {});
  /// Removes the tag from whatever carries it.
  Result<SetOutcome> remove(const FileRef& file, Space space, const SetOptions& options = {});

  /// Commits what set and remove have queued for the catalogue.
  Status flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpolicy
