// SPDX-License-Identifier: LGPL-2.1-or-later
#include "check.h"

#include <fpolicy/policy.h>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz_text(data, size);
  const auto policy = parse_xattr_value(bytes);
  if (!policy) {
    FUZZ_CHECK(policy.error().code == ENOTSUP);
    return 0;
  }
  FUZZ_CHECK(bytes.size() <= 255);
  const std::string value = format_xattr_value(*policy);
  FUZZ_CHECK(value.size() <= 255);
  const auto again = parse_xattr_value(value);
  FUZZ_CHECK(again && *again == *policy);
  return 0;
}
