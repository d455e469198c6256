// SPDX-License-Identifier: LGPL-2.1-or-later
#include "check.h"

#include <fpolicy/policy.h>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz_text(data, size);
  const auto policy = parse_policy(text);
  if (policy) {
    const std::string canonical = format_policy(*policy);
    FUZZ_CHECK(canonical.size() <= max_policy_text);
    const auto again = parse_policy(canonical);
    FUZZ_CHECK(again && *again == *policy && format_policy(*again) == canonical);
    FUZZ_CHECK(validate_policy(*policy).has_value());
  } else {
    FUZZ_CHECK(policy.error().message.starts_with("column "));
  }
  if (const auto nodes = NodeSet::parse(text)) {
    const auto again = NodeSet::parse(nodes->format());
    FUZZ_CHECK(again && *again == *nodes);
  }
  return 0;
}
