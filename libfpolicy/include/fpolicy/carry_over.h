// SPDX-License-Identifier: LGPL-2.1-or-later
// Tags that an administrator has set on files which were replaced since: package managers, editors and copies
// put a new inode under the old path, and the tag is gone with the old one. The catalogue still has it.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace fpolicy {

/// Whose tags are carried over, and who alone may write the directories on the way to a file. Root and "/"
/// but in tests.
struct FPOLICY_API Administrator {
  uid_t uid = 0;
  std::string top = "/";  ///< directories above it are not asked
};

struct FPOLICY_API CarryOptions {
  bool dry_run = false;           ///< say what would happen, change nothing
  bool other_filesystem = false;  ///< also where the path is on another filesystem than then
};

/// What was carried over to the file that has the path now.
struct FPOLICY_API CarriedTags {
  struct FPOLICY_API One {
    Space space = Space::system;
    Policy policy;
  };
  Fd fd;  ///< O_PATH
  bool directory = false;
  std::vector<One> tags;  ///< at least one
};

/// Not thread-safe.
class FPOLICY_API CarryOver {
 public:
  /// All must outlive it.
  CarryOver(RecordStore* records, PolicyStore* store, Identifier* identifier,
            Administrator administrator = {});

  /// Sets the policy of the latest entry that the catalogue has under this absolute path, where the
  /// administrator made it and the path now names another file than then, without any tag; a user tag also
  /// beside a system tag. Nothing: there is no such entry or file, or the file has a tag, which then is in
  /// the catalogue. A user tag is carried over only where the administrator has set it.
  /// Error: EPERM where somebody else may have put the file there (he owns it or a directory on
  /// the way, or may write one; a symbolic link; for a user tag, may write the file), EXDEV on another
  /// filesystem, ENOTUNIQ where two have its id, EISDIR or ENOTDIR for another type, ENOTSUP for an entry
  /// that is not understood, else as of PolicyStore::set. The messages begin with the path.
  Result<std::optional<CarriedTags>> carry(const std::string& path, const CarryOptions& options = {});

  /// Commits what carry() has queued, and drops the entries of files that are gone for good.
  Status finish();

 private:
  static Result<std::optional<Fd>> hold(const std::string& path);
  [[nodiscard]] Status check_place(const std::string& path, const struct ::statx& status) const;
  static Status check_entry(const struct ::statx& status, const std::string& path, const TagRecord& entry,
                            const FileIdentity& now, const CarryOptions& options);
  Result<Policy> set(const FileRef& file, const TagRecord& entry, const CarryOptions& options);
  void forget(const TagRecord& entry, const FileIdentity& now);

  RecordStore* records_;
  PolicyStore* store_;
  Identifier* identifier_;
  Administrator administrator_;
  std::vector<TagRecord> gone_;
};

/// May nobody but the administrator put files into this directory, nor others on the way to it? Opens it
/// (O_PATH). Error: EPERM with the reason.
FPOLICY_API Result<Fd> open_administrators_directory(const std::string& path,
                                                     const Administrator& administrator = {});

}  // namespace fpolicy
