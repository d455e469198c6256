// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/json_text.h>
#include <fpolicy/rules.h>

namespace fpolicy {

void put_path(nlohmann::ordered_json& object, const std::string& key, std::string_view path) {
  object[key] = std::string(path);
  // What comes back otherwise has been replaced: it was not UTF-8.
  const std::string text = to_text(object[key]);
  if (nlohmann::ordered_json::parse(text).get_ref<const std::string&>() != path)
    object[key + "_escaped"] = escape_path(path);
}

std::string to_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace fpolicy
