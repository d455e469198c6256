// SPDX-License-Identifier: LGPL-2.1-or-later
// What the administrator asks of policyd: command line and /etc/fpolicy/policyd.toml.
#pragma once

#include <fpolicy/result.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::policyd {

inline constexpr const char* default_config = "/etc/fpolicy/policyd.toml";

/// Every setting, with its default. policyd.toml describes each.
struct Config {
  std::uint64_t bandwidth_mib = 0;  ///< MiB/s that may be moved; 0: no limit
  unsigned threads = 0;             ///< of one file's enforcement; 0: as many as processors, at most 8
  std::chrono::seconds first_retry{1};
  std::chrono::seconds longest_retry{10};
  std::uint64_t walk_files_per_second = 20'000;
  bool user_tags = true;
  std::uint64_t user_budget_mib = 1024;                     ///< MiB a minute, for each user
  std::uint64_t pin_max_bytes = std::uint64_t{256} << 20U;  ///< of pages that pins hold
  bool guard = true;
  std::chrono::milliseconds guard_deadline{50};  ///< whoever moves a job waits no longer than this
  std::chrono::seconds guard_hold{10};           ///< after the last write, of a file that is kept open
  std::uint64_t guard_max_bytes = std::uint64_t{1} << 30U;  ///< of pages held at a time
  std::vector<std::string> guard_cgroups{"/"};              ///< and all below
  std::string rules_directory = "/etc/fpolicy/rules.d";

  friend bool operator==(const Config&, const Config&) = default;
};

/// Parses the whole text or nothing; an unknown key is an error. Error: EINVAL "FILE:LINE:COLUMN: what".
Result<Config> parse_config(std::string_view text, const std::string& file);

/// Reads a file. One that is missing gives the defaults, unless `required`.
Result<Config> load_config(const std::string& path, bool required);

}  // namespace fpolicy::policyd
