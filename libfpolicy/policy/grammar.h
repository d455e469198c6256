// SPDX-License-Identifier: LGPL-2.1-or-later
// The policy language's parser, for callers that must tell a column in a longer line.
#pragma once

#include <fpolicy/policy.h>

#include <tl/expected.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace fpolicy {

struct SyntaxError {
  std::size_t column = 1;  ///< bytes, from 1
  std::string message;     ///< what was expected there
};

tl::expected<Policy, SyntaxError> parse_policy_text(std::string_view text);

}  // namespace fpolicy
