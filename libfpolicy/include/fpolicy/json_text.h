// SPDX-License-Identifier: LGPL-2.1-or-later
// File names in JSON: they may hold any byte but "/" and NUL.
#pragma once

#include <fpolicy/export.h>

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace fpolicy {

/// Sets `key`; where the text is not UTF-8, its bytes are replaced there (U+FFFD) and `key`_escaped holds the
/// whole of it, escaped as in a dump.
FPOLICY_API void put_path(nlohmann::ordered_json& object, const std::string& key, std::string_view path);

/// On one line. What is not UTF-8 is replaced.
FPOLICY_API std::string to_text(const nlohmann::ordered_json& value);

}  // namespace fpolicy
