// SPDX-License-Identifier: LGPL-2.1-or-later
#include "check.h"
#include "sys/search_permission.h"

#include <fpolicy/policy.h>

using namespace fpolicy;

namespace {

/// The bytes as the ACL of a directory of somebody else: they may say yes only where they are one.
void check_acl(std::string_view bytes) {
  struct stat directory{};
  directory.st_uid = 1;
  directory.st_gid = 1;
  directory.st_mode = S_IFDIR | S_IRWXU | S_IRWXG;
  const FileUser user{.uid = 1000, .gid = 1000, .groups = {1001, 1002}};
  constexpr std::size_t header = 4;
  constexpr std::size_t entry = 8;
  if (sys::may_search(user, directory, bytes))
    FUZZ_CHECK(bytes.size() > header && (bytes.size() - header) % entry == 0);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz_text(data, size);
  check_acl(bytes);
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
