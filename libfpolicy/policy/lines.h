// SPDX-License-Identifier: LGPL-2.1-or-later
// The lines of rules files and dumps.
#pragma once

#include "policy/grammar.h"

#include <fpolicy/result.h>

#include <functional>
#include <string>
#include <string_view>

namespace fpolicy {

/// Calls `each` with every line that is not blank, bounded and free of bytes that no line may hold. Error: of
/// `each`, as "FILE:LINE:COLUMN: what".
Status for_each_line(
    std::string_view text, const std::string& file,
    const std::function<tl::expected<void, SyntaxError>(std::string_view line, unsigned number)>& each);

/// A line in two: what stands before the first tab, and behind it and those that follow it.
struct Fields {
  std::string_view first;
  std::string_view second;
  std::size_t second_at = 0;  ///< offset of `second` in the line
};
tl::expected<Fields, SyntaxError> split_fields(std::string_view line, std::string_view what);

}  // namespace fpolicy
