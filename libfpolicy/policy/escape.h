// SPDX-License-Identifier: LGPL-2.1-or-later
// The escapes of rules files and dumps, one at a time.
#pragma once

#include <tl/expected.hpp>

#include <string>
#include <string_view>

namespace fpolicy {

inline bool is_glob_character(char c) {
  return c == '*' || c == '?' || c == '[' || c == ']';
}

/// Decodes the escape whose backslash stands at `at` and moves `at` behind it. Error: what was expected
/// there.
tl::expected<char, std::string> take_escape(std::string_view text, std::size_t& at);

}  // namespace fpolicy
