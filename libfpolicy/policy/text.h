// SPDX-License-Identifier: LGPL-2.1-or-later
// What the parsers of node lists, policies and rules share.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fpolicy {

/// Takes the decimal digits at `at` and moves `at` behind them; nothing where no digit stands. A number too
/// large for its type is given as its largest value: every caller has a bound far below.
std::optional<unsigned> take_number(std::string_view text, std::size_t& at);

/// `, found "x"`, or `, found the end`: the tail of a message about what stands at `at`.
std::string found_at(std::string_view text, std::size_t at);

/// In double quotes, with what is not printable ASCII as \ooo, shortened to a length that fits a message.
std::string quoted(std::string_view text);

}  // namespace fpolicy
