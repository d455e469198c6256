// SPDX-License-Identifier: LGPL-2.1-or-later
#include "check.h"

#include <fpolicy/rules.h>

#include <vector>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz_text(data, size);
  const Status status = parse_dump(input, "d", [](const DumpEntry& entry, unsigned) {
    std::vector<DumpEntry> again;
    const std::string line = format_dump_entry(entry);
    FUZZ_CHECK(line.find('\n') == line.size() - 1);
    FUZZ_CHECK(parse_dump(line, "again", [&](DumpEntry one, unsigned) {
                 again.push_back(std::move(one));
               }).has_value());
    FUZZ_CHECK(again.size() == 1 && again[0].path == entry.path && again[0].directory == entry.directory &&
               again[0].user_space == entry.user_space && again[0].policy == entry.policy);
    RuleSet set;
    FUZZ_CHECK(set.add(line, "rules").has_value());
  });
  FUZZ_CHECK(status || status.error().message.starts_with("d:"));

  // Any bytes without NUL can be part of a name.
  const std::string path = "/" + std::string(input.substr(0, input.find('\0')));
  const auto back = unescape_path(escape_path(path));
  FUZZ_CHECK(back && *back == path);
  return 0;
}
