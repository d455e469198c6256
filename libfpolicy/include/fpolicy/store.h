// SPDX-License-Identifier: LGPL-2.1-or-later
// Where tags are kept: extended attributes, and records in a database where a filesystem has none.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct statx;  // NOLINT(readability-identifier-naming): the name is the C library's

namespace fpolicy {

/// Who speaks: root (security.fpolicy) or the file's owner (user.fpolicy).
enum class Space : std::uint8_t { system, user };

/// Do system tags in xattrs count on this machine? Not where the kernel lets everybody write security.*
/// (Linux before 6.10 with the BPF LSM, Debian 12's by default): there system tags are kept in the database
/// alone.
FPOLICY_API bool system_xattrs_count();

/// What holds a tag.
enum class Carrier : std::uint8_t { xattr, database };

/// One file, by an open descriptor (O_PATH will do), or by a name in the calling thread's working directory.
/// A name is never followed when it is a symbolic link.
struct FPOLICY_API FileRef {
  int fd = -1;
  const char* name = nullptr;  ///< used where fd < 0
  std::string_view path;       ///< absolute, for messages and the catalogue; may be empty
  /// st_dev of the file, where a walk of a tree knows it. Then what the database said of this device in the
  /// last 50 ms is taken again, so that an untagged file costs no more than reading its xattrs. 0: not known.
  dev_t device = 0;
};

/// A file's identity over reboots and device renumbering.
struct FPOLICY_API FileIdentity {
  /// The filesystem, not its device number: "uuid:…", "btrfs:…", "squashfs:…" and "erofs:…" (the superblock),
  /// "source:…" (type and source of the mount), or "boot:…" where it cannot outlive the running kernel.
  std::string filesystem;
  /// "h" + handle type (32 bits, little-endian) + handle bytes; "p" + path inside the filesystem, where
  /// handles are not stable; "i" + inode number (64 bits, little-endian) in memory filesystems without
  /// handles.
  std::string key;
  /// Birth time in ns, 0 where the filesystem has none: a record whose birth time differs is stale. Also 0 in
  /// the entry of an xattr whose file's handle says enough, see is_file_of().
  std::int64_t birth_ns = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// Is a file the one that a record is of? Where both have a handle and the record no birth time, the handle
/// says it: it holds the inode's generation.
FPOLICY_API bool is_file_of(const FileIdentity& recorded, const FileIdentity& file);

/// What has become of the file that an identity names.
enum class Fate : std::uint8_t {
  live,
  stale,   ///< no file has this identity, but that it will not come back is not proved
  gone,    ///< proved: it cannot come back
  unknown  ///< its filesystem is not mounted, or it cannot be examined
};

struct FPOLICY_API Finding {
  Fate fate = Fate::unknown;
  std::string reason;  ///< for people; empty where the file is live
  /// Why it is unknown: ENODEV where the filesystem is not mounted, ENOTUNIQ where two have its id, EXDEV
  /// where another is mounted over the file, else what the kernel answered.
  int code = 0;
};

/// Finds identities; remembers what it learned of each mounted filesystem until mounts change. Safe to share
/// between threads. Errors: ENODEV where the file's filesystem is not mounted in this mount namespace,
/// ENOTSUP where it has no identity (kernel filesystems such as proc).
class FPOLICY_API Identifier {
 public:
  /// `root`: where proc, sys and dev are looked for; "/" but in tests.
  explicit Identifier(std::string root = "/");
  /// From now on also what is mounted in the machine's mount namespace (process 1's) counts as mounted here,
  /// and is reached there. For a service to which systemd gave a copy of that namespace: what callers send,
  /// and what processes map, was opened through mounts of the original. Needs CAP_SYS_PTRACE; without,
  /// nothing is added.
  void include_machines_mounts();
  ~Identifier();
  Identifier(Identifier&&) noexcept;
  Identifier& operator=(Identifier&&) noexcept;

  /// `ambiguous`, where given, is set to whether two live filesystems have this file's filesystem id (cloned
  /// images).
  [[nodiscard]] Result<FileIdentity> identify(const FileRef& file, bool* ambiguous = nullptr);
  /// The same for a file whose type, inode, birth time, device and mount id statx(2) has just told.
  [[nodiscard]] Result<FileIdentity> identify(const FileRef& file, const struct ::statx& status,
                                              bool* ambiguous = nullptr);
  /// The same without the birth time, for a file whose directory is held and lies on `mount`: by its handle
  /// alone, where that tells it from every other that had or will have its inode. Nothing elsewhere, and
  /// where something is mounted on the file. What is known of the mount may be 10 ms old.
  [[nodiscard]] Result<std::optional<FileIdentity>> identify_listed(const FileRef& file, int mount,
                                                                    bool* ambiguous = nullptr);
  /// The filesystem part alone.
  [[nodiscard]] Result<std::string> filesystem(const FileRef& file);
  /// Opens the file of an identity for reading, wherever it is named now, if its filesystem is mounted. Needs
  /// CAP_DAC_READ_SEARCH where `last_path` no longer leads to it. Error: ESTALE where it no longer exists,
  /// ENODEV where the filesystem is not mounted.
  [[nodiscard]] Result<Fd> open(const FileIdentity& identity, const std::string& last_path);
  /// Is this a deleted file that somebody still has open or maps? Needs CAP_DAC_READ_SEARCH.
  [[nodiscard]] bool in_use_without_name(const FileIdentity& identity);
  /// What has become of the file of an identity? Never says `gone` without proof. Root only gets that proof
  /// where files have handles.
  [[nodiscard]] Finding examine(const FileIdentity& identity, const std::string& last_path);
  /// Forget what was learned.
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

/// A change to a record that somebody has read: it is made only while the record is still as it was then.
struct FPOLICY_API RecordCorrection {
  TagRecord record;
  bool erase = false;
  /// The live record that was read; nothing where there was none.
  std::optional<TagRecord> before;
};

/// The records, however they are reached: SQLite for root, policyd's socket for others.
class FPOLICY_API RecordStore {
 public:
  virtual ~RecordStore() = default;

  /// The live record of a file, of either carrier; a stale one is never returned.
  [[nodiscard]] virtual Result<std::optional<TagRecord>> find(const FileRef& file, Space space) = 0;
  /// Does any record carry a tag itself (Carrier::database) on this file's filesystem? Asked for each file of
  /// a tree, so answered from memory; see FileRef::device.
  [[nodiscard]] virtual Result<bool> carries_tags(const FileRef& file) = 0;
  /// Can put and erase succeed? If not, PolicyStore enters nothing in the catalogue, and a tag that no xattr
  /// can hold is an error with the code of the xattr call.
  [[nodiscard]] virtual bool writable() const = 0;
  /// Inserts or replaces, all in one transaction. The path of each leads to its file now: records of other
  /// files that have the same path and space lose it, and nothing else. Thus the entry of a file that was
  /// replaced is not found by a path of which somebody has said something since.
  virtual Status put(std::span<const TagRecord> records) = 0;
  /// Removes by identity and space, all in one transaction; what is not there is no error. Other files lose
  /// the path, where it is not empty, as with put.
  virtual Status erase(std::span<const TagRecord> records) = 0;
  /// As put and erase, all in one transaction; what others have changed since it was read is left alone,
  /// which is no error.
  virtual Status correct(std::span<const RecordCorrection> corrections) = 0;
  /// Every record whose path starts with `path_prefix`, by path. `each` returns false to stop; it may call
  /// the store. Records that others write meanwhile may or may not be seen.
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
  /// Creates file and directory (0700, 0600: paths are nobody else's business; users ask policyd) where they
  /// are missing and access is read_write. read_only on a missing file gives an empty store; a file that is
  /// no database of ours is an error. `identifier` must outlive the database.
  static Result<std::unique_ptr<Database>> open(const std::string& path, Access access,
                                                Identifier* identifier);

  /// Removes those that are still as they were read, all in one transaction, in which nobody else writes.
  /// `still`, called in it, has the last word on each. Returns those that were removed.
  virtual Result<std::vector<TagRecord>> erase_unchanged(
      std::span<const TagRecord> records, const std::function<bool(const TagRecord&)>& still) = 0;

  /// The record with this filesystem and key, stale or not: compare its birth time.
  [[nodiscard]] virtual Result<std::optional<TagRecord>> find_identity(const FileIdentity& identity,
                                                                       Space space) = 0;
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
  bool user_denied = false;  ///< there may be one, but reading it needs read permission on the file
};

struct FPOLICY_API SetOptions {
  bool force = false;    ///< overwrite a tag that is unsupported
  bool dry_run = false;  ///< say what would happen, change nothing
  /// Who is entered in the record; the caller where it does not say.
  std::optional<std::uint32_t> uid;
};

enum class SetOutcome : std::uint8_t { unchanged, changed };

/// What was found wrong with a tag's carriers, and is put right.
enum class Correction : std::uint8_t {
  entered,           ///< the xattr had no entry in the catalogue
  corrected,         ///< the entry, or a record beside the xattr, said something else
  entry_removed,     ///< the xattr is gone, and its entry with it
  moved_to_xattr,    ///< the filesystem holds xattrs now: the record's tag is one
  moved_to_database  ///< the filesystem holds none any more: the entry carries the tag
};

struct FPOLICY_API Reconciled {
  Space space = Space::system;
  Correction correction = Correction::entered;
  std::string policy;  ///< the tag's text; of what was removed, its last
  std::string before;  ///< what the catalogue said, if it was something else
};

struct FPOLICY_API ReconcileOptions {
  bool move = false;     ///< also move tags to the carrier where they belong now; else only the catalogue
  bool dry_run = false;  ///< say what would happen, change nothing
};

namespace sys {
class XattrCalls;
}

/// The layered store: xattr first, the database where the filesystem cannot hold one, every change in the
/// catalogue. Thread-safe. Records are written in batches: call flush() and check it before reporting
/// success.
class FPOLICY_API PolicyStore {
 public:
  /// `records` may be nullptr: xattrs only (then a filesystem without them is an error that says so). Both
  /// must outlive the store. `xattrs`: the kernel's where nullptr; another only to test faults.
  PolicyStore(RecordStore* records, Identifier* identifier, sys::XattrCalls* xattrs = nullptr);
  /// Flushes; call flush() before to learn of errors.
  ~PolicyStore();

  /// The tags of a file, from its xattrs and its live record. Stale records never count.
  [[nodiscard]] Result<Tags> get(const FileRef& file);
  [[nodiscard]] Result<std::optional<Tag>> get(const FileRef& file, Space space);

  /// Writes only where the stored tag differs (a write changes ctime). Falls back to the database on
  /// EOPNOTSUPP, EROFS, ENOSPC and EDQUOT. Error: EPERM/EACCES with what is needed, ENOTSUP for an
  /// unsupported tag without force, EINVAL for anything but a regular file or a directory (nothing is
  /// opened) and for a policy that is not in its canonical form.
  Result<SetOutcome> set(const FileRef& file, Space space, const Policy& policy,
                         const SetOptions& options = {});
  /// The same for a regular file that a walk has just found, whose type is then not asked for again: see
  /// TreeEntry::mount.
  Result<SetOutcome> set_listed(const FileRef& file, int mount, Space space, const Policy& policy,
                                const SetOptions& options = {});
  /// Removes the tag from whatever carries it; an unsupported one only with force. Errors as for set.
  Result<SetOutcome> remove(const FileRef& file, Space space, const SetOptions& options = {});

  /// Applies the rule of docs/decisions/009 to a file's tags, after somebody else has changed one or the
  /// file's filesystem another way of keeping them. A tag is in its new carrier, and on the disk, before the
  /// old one lets go of it. Queued like set. Error: EPERM for a system tag that only root may move.
  Result<std::vector<Reconciled>> reconcile(const FileRef& file, const ReconcileOptions& options = {});

  /// Commits what set, remove and reconcile have queued. Error: the first since the last flush.
  Status flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpolicy
