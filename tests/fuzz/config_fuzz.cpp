// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: the text of policyd.toml. What it sets is within bounds, or it is refused whole with a place.
#include "check.h"
#include "config.h"

#include <cctype>
#include <string>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz_text(data, size);
  const auto config = policyd::parse_config(text, "f");
  if (!config) {
    const std::string& message = config.error().message;
    FUZZ_CHECK(config.error().code == EINVAL && message.starts_with("f:"));
    // "f:LINE:COLUMN: ", both from 1.
    std::size_t at = 2;
    for (int number = 0; number < 2; ++number) {
      FUZZ_CHECK(at < message.size() && message[at] >= '1' && message[at] <= '9');
      while (at < message.size() && std::isdigit(static_cast<unsigned char>(message[at])) != 0) ++at;
      FUZZ_CHECK(at < message.size() && message[at] == ':');
      ++at;
    }
    FUZZ_CHECK(message.size() > at + 1);
    return 0;
  }
  FUZZ_CHECK(config->threads <= 64 && config->first_retry.count() >= 1 && config->longest_retry.count() >= 1);
  FUZZ_CHECK(config->walk_files_per_second >= 1 && config->bandwidth_mib <= (1U << 20U));
  // What is multiplied later stays within 64 bits.
  FUZZ_CHECK(config->user_budget_mib <= (std::uint64_t{1} << 26U));
  FUZZ_CHECK(config->pin_max_bytes <= (std::uint64_t{1} << 50U) &&
             config->guard_max_bytes <= (std::uint64_t{1} << 50U));
  FUZZ_CHECK(config->guard_deadline.count() >= 1 && config->guard_deadline.count() <= 1000);
  FUZZ_CHECK(config->guard_hold.count() >= 1 && config->guard_hold.count() <= 600);
  std::vector<std::string> paths = config->guard_cgroups;
  paths.push_back(config->rules_directory);
  for (const std::string& path : paths)
    FUZZ_CHECK(path.starts_with('/') && path.find('\0') == std::string::npos);
  return 0;
}
