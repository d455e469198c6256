// SPDX-License-Identifier: LGPL-2.1-or-later
// Which policy holds for a file, and where it comes from.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace fpolicy {

enum class Source : std::uint8_t { none, system_xattr, user_xattr, database, directory, rule };

/// As in queryfpolicy's JSON: "system-xattr", "user-xattr", "database", "directory", "rule", "none".
FPOLICY_API std::string_view to_string(Source source);

struct FPOLICY_API Effective {
  Source source = Source::none;
  /// Nothing with Source::none, and where the tag that decides is unsupported or the rule says none.
  std::optional<Policy> policy;
  /// The tag that decides is not understood; it is not applied, and nothing behind it is asked.
  bool unsupported = false;
  /// A user tag decides: its placement is confined to the job's cpuset, and pin does not count.
  bool from_user = false;
  /// A user tag is there and was passed over because it is not trusted, or one may be there that the caller
  /// may not read. Not told where a system tag decides.
  bool user_ignored = false;
  /// The stored text; for unsupported tags, too.
  std::string text;
  /// Where it stands: an xattr's name, the database, a directory's path, a rule's "file:line".
  std::string origin;
};

/// Everything that resolution looks at, read from the system: a pure function decides over it.
struct FPOLICY_API Candidates {
  std::optional<Tag> system;
  std::optional<Tag> user;
  bool user_trusted = false;
  bool user_denied = false;  ///< as in Tags
  /// The nearest ancestor directory that has a system tag.
  std::optional<Tag> directory;
  std::string directory_path;
  RuleMatch rule = nullptr;
};

/// The first that answers wins: system tag, trusted user tag, nearest directory, last rule. Pure.
FPOLICY_API Effective resolve(const Candidates& candidates);

/// May a user tag be trusted? Root or the job's user owns the file and no one else may write it. Pure.
/// `mode` and `owner` as in statx; `job_uid` is the user whose job maps the file.
FPOLICY_API bool trusts_user_tag(mode_t mode, uid_t owner, uid_t job_uid);

/// Reads candidates through the store and resolves. Directory tags are remembered until invalidate(), so that
/// for the other files of a directory they cost one hash lookup. Thread-safe. A directory's own policy: its
/// own tags first, then as for a file. Error: a tag on the way that cannot be read; what no longer exists has
/// none.
class FPOLICY_API Resolver {
 public:
  Resolver(PolicyStore* store, std::shared_ptr<const RuleSet> rules);
  ~Resolver();

  /// `path`: absolute in the caller's mount namespace, without symbolic links; empty where the file cannot be
  /// reached there, and then only its own tags count. `job_uid`: whose job; the file's owner if none is
  /// meant.
  [[nodiscard]] Result<Effective> resolve(const FileRef& file, std::string_view path,
                                          std::optional<uid_t> job_uid = std::nullopt);

  /// The same for a file whose tags have just been read.
  [[nodiscard]] Result<Effective> resolve(const FileRef& file, std::string_view path, Tags tags,
                                          std::optional<uid_t> job_uid = std::nullopt);

  /// Swaps the rules; what runs goes on with the old ones.
  void set_rules(std::shared_ptr<const RuleSet> rules);
  /// Forget remembered directory tags: a directory's tag has changed, or directories have been renamed.
  void invalidate();
  /// If not honoured, user tags are not even read.
  void set_user_tags(bool honoured);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fpolicy
