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
/// Pattern: an absolute path. `*` and `?` match within a component, `[...]` one byte of a class, `**` crosses
/// slashes. A pattern that ends in "/" means the directory and all below it. Special bytes are escaped as in
/// C
/// (\t \n \\ \ooo) and a glob character by a backslash. Last match wins, nothing else. Lines "alias
/// FROM<TAB>TO" make FROM and what is below it match as if it were TO.
class FPOLICY_API RuleSet {
 public:
  RuleSet();
  ~RuleSet();
  RuleSet(RuleSet&&) noexcept;
  RuleSet& operator=(RuleSet&&) noexcept;

  /// Adds the text of one file after those added before. Error: EINVAL, "FILE:LINE:COLUMN: what was
  /// expected"; the set is then not to be used.
  Status add(std::string_view text, const std::string& file);

  /// nullptr where no rule matches. A match whose policy is empty ("none") means: leave alone.
  [[nodiscard]] RuleMatch match(std::string_view path) const;

  [[nodiscard]] std::size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Reads every *.rules file of a directory in name order. A directory that does not exist holds no rules.
/// Files are read through one held directory fd; a file over 64 MiB is refused.
FPOLICY_API Result<std::shared_ptr<const RuleSet>> load_rules(const std::string& directory);

/// A path with every special byte escaped, so that as a pattern it matches itself only and stands on one
/// line.
FPOLICY_API std::string escape_path(std::string_view path);

/// Undoes escape_path. Error: EINVAL where a glob character stands unescaped or an escape is malformed.
FPOLICY_API Result<std::string> unescape_path(std::string_view pattern);

/// One entry of a dump: what getfpolicy prints and setfpolicy --restore reads. A dump is a rules file;
/// entries of the user space stand in comment lines ("#user PATTERN<TAB>POLICY") so that as rules they carry
/// no weight.
struct FPOLICY_API DumpEntry {
  std::string path;
  bool directory = false;  ///< written with a trailing "/"
  bool user_space = false;
  std::string policy;  ///< policy text, or the raw text of an unsupported tag
};
FPOLICY_API std::string format_dump_entry(const DumpEntry& entry);
/// Calls `each` for every entry with its line number. Error: EINVAL "NAME:LINE:COLUMN: what".
FPOLICY_API Status parse_dump(std::string_view text, const std::string& name,
                              const std::function<void(DumpEntry, unsigned line)>& each);

}  // namespace fpolicy
