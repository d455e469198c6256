// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/json_text.h>

namespace fpolicy::tools {

/// Fields in the order in which they are set.
using Json = nlohmann::ordered_json;

}  // namespace fpolicy::tools
