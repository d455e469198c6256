// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: rules, the byte 0xff, a path. The compiled set must agree with its rules asked one by one.
#include "check.h"

#include <fpolicy/rules.h>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz_text(data, size);
  const std::size_t split = input.find('\xff');
  const std::string_view text = input.substr(0, split);
  const std::string path = split == std::string_view::npos ? "/a/b/c" : std::string(input.substr(split + 1));

  RuleSet set;
  if (const Status status = set.add(text, "f"); !status) {
    FUZZ_CHECK(status.error().code == EINVAL && status.error().message.starts_with("f:"));
    return 0;
  }
  const RuleMatch match = set.match(path);
  std::string aliases;
  std::string_view rest = text;
  unsigned wanted = 0;
  // Aliases hold for the whole set, so they come first here.
  for (const bool are_aliases : {true, false}) {
    rest = text;
    for (unsigned line = 1; !rest.empty(); ++line) {
      const std::size_t end = rest.find('\n');
      const std::string one = std::string(rest.substr(0, end)) + "\n";
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      if (one.starts_with("alias ") != are_aliases) continue;
      if (are_aliases) {
        aliases += one;
        continue;
      }
      RuleSet single;
      FUZZ_CHECK(single.add(aliases + one, "f").has_value());
      if (single.match(path) != nullptr) wanted = line;
    }
  }
  FUZZ_CHECK((match == nullptr ? 0 : match->line) == wanted);
  return 0;
}
