// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/text.h"

#include <fpolicy/rules.h>

namespace fpolicy::tools {

void put_path(Json& object, const std::string& key, std::string_view path) {
  object[key] = std::string(path);
  // What comes back otherwise has been replaced: it was not UTF-8.
  const std::string text = to_text(object[key]);
  if (Json::parse(text).get_ref<const std::string&>() != path) object[key + "_escaped"] = escape_path(path);
}

std::string to_text(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace fpolicy::tools
