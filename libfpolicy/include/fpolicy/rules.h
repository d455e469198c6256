// SPDX-License-Identifier: LGPL-2.1-or-later
// Rules give a policy to every path that matches a pattern. Pure but for load_rules.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

/// One line of a rules file or of a dump, `PATTERN<TAB>POLICY`.
struct FPOLICY_API RuleLine {
  std::string pattern;           ///< as written, still escaped
  std::optional<Policy> policy;  ///< nothing: the word "none", leave alone
  std::string file;
  unsigned line = 0;
};

/// The last rule that matches a path. The pointee lives as long as the RuleSet.
using RuleMatch = const RuleLine*;

/// A compiled set of rules; immutable, so that threads share it and a reload swaps it whole.
///
/// A line is `PATTERN<TAB>POLICY`, `alias FROM<TAB>TO`, a comment ("#" in the first column) or blank. POLICY
/// is a policy or the word "none". Lines end in LF.
///
/// Pattern: an absolute path. `*` and `?` match within a component, `[...]` one byte of a class ([a-z], [!a],
/// [^a]); `**` crosses slashes. As a whole component `**` stands for any number of directories, none included
/// ("/a/**/b" matches "/a/b"), and at the end for all that lies below ("/a/**" does not match "/a" itself). A
/// pattern that ends in "/" means the directory and all below it. Special bytes are escaped as in C (a
/// backslash and t, n, another backslash or three octal digits) and glob characters by a backslash.
///
/// Last match wins, nothing else. An alias makes FROM and what is below it match as if it were TO, wherever
/// the line stands; the longest FROM is taken, once.
///
/// Bounds: 64 KiB a line, 1,000,000 rules, 2048 components and 16 times `**` a pattern. The time of a match
/// depends on the path and on the rules whose literal parts fit it, not on the number of rules.
class FPOLICY_API RuleSet {
 public:
  RuleSet();
  ~RuleSet();
  RuleSet(RuleSet&&) noexcept;
  RuleSet& operator=(RuleSet&&) noexcept;

  /// Adds the text of one file after those added before. Error: EINVAL, "FILE:LINE:COLUMN: what was
  /// expected"; the set is then not to be used.
  Status add(std::string_view text, const std::string& file);

  /// `path`: absolute, without empty, "." and ".." components. nullptr where no rule matches. A match whose
  /// policy is empty ("none") means: leave alone.
  [[nodiscard]] RuleMatch match(std::string_view path) const;

  /// Number of rules; aliases do not count.
  [[nodiscard]] std::size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Reads every *.rules file of a directory in name order (bytes), but hidden ones. A directory that does not
/// exist holds no rules. Files are read through one held directory fd; more than 64 MiB or 1000 files in all
/// are refused. Error: names the file, for its text with line and column.
FPOLICY_API Result<std::shared_ptr<const RuleSet>> load_rules(const std::string& directory);

/// A path with every special byte escaped, so that as a pattern it matches itself only and stands on one
/// line. Readable UTF-8 stays as it is; control characters, invisible ones and all other bytes do not.
FPOLICY_API std::string escape_path(std::string_view path);

/// The same, but glob characters stay as they are: for messages and for JSON, which cannot carry every byte.
FPOLICY_API std::string escape_text(std::string_view text);

/// Undoes escape_path. Error: EINVAL where a glob character stands unescaped or an escape is malformed.
FPOLICY_API Result<std::string> unescape_path(std::string_view pattern);

/// One entry of a dump: what getfpolicy prints and setfpolicy --restore reads. A dump is a rules file. What
/// as a rule would carry no weight or would be no rule stands in comments: entries of the user space
/// ("#user PATTERN<TAB>POLICY"), and tags that are not understood ("#unsupported PATTERN<TAB>TEXT").
struct FPOLICY_API DumpEntry {
  std::string path;
  bool directory = false;  ///< written with a trailing "/"
  bool user_space = false;
  std::string policy;  ///< policy text, or the raw text of an unsupported tag
};
FPOLICY_API std::string format_dump_entry(const DumpEntry& entry);
/// Calls `each` for every entry with its line number. Patterns must name one path (no glob characters), and
/// what stands outside of comments must be a policy; other comments are passed over, and whether the policy
/// of a comment is one is left to the caller. Error: EINVAL "NAME:LINE:COLUMN: what"; what came before has
/// been reported to `each` by then.
FPOLICY_API Status parse_dump(std::string_view text, const std::string& name,
                              const std::function<void(DumpEntry, unsigned line)>& each);

}  // namespace fpolicy
