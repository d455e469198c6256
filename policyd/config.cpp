// SPDX-License-Identifier: LGPL-2.1-or-later
#include "config.h"

#include <fpolicy/open_file.h>

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <optional>

namespace fpolicy::policyd {
namespace {

constexpr std::size_t longest_config = 1U << 20U;

/// Reads the settings and remembers the first error.
class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  tl::unexpected<Error> error_at(const toml::source_region& where, std::string_view what) const {
    return fail(EINVAL, fmt::format("{}:{}:{}: {}", file_, where.begin.line, where.begin.column, what));
  }

  void whole(const toml::table& table, const char* key, std::uint64_t least, std::uint64_t most,
             const std::function<void(std::uint64_t)>& set) {
    const toml::node* node = take(table, key);
    if (node == nullptr) return;
    const auto value = node->value_exact<std::int64_t>();
    if (!value || *value < 0 || static_cast<std::uint64_t>(*value) < least ||
        static_cast<std::uint64_t>(*value) > most) {
      refuse(*node, fmt::format("{}: expected a whole number from {} to {}", key, least, most));
      return;
    }
    set(static_cast<std::uint64_t>(*value));
  }

  void boolean(const toml::table& table, const char* key, bool& target) {
    const toml::node* node = take(table, key);
    if (node == nullptr) return;
    const auto value = node->value_exact<bool>();
    if (value) {
      target = *value;
    } else {
      refuse(*node, fmt::format("{}: expected true or false", key));
    }
  }

  void path(const toml::table& table, const char* key, std::string& target) {
    const toml::node* node = take(table, key);
    if (node == nullptr) return;
    auto value = node->value_exact<std::string>();
    if (value && value->starts_with('/') && value->find('\0') == std::string::npos) {
      target = std::move(*value);
    } else {
      refuse(*node, fmt::format("{}: expected an absolute path", key));
    }
  }

  /// Absolute paths in their shortest form.
  void paths(const toml::table& table, const char* key, std::vector<std::string>& target) {
    const toml::node* node = take(table, key);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    std::vector<std::string> paths;
    if (array != nullptr) {
      for (const toml::node& item : *array) {
        auto value = item.value_exact<std::string>();
        if (!value || !is_plain_path(*value)) break;
        paths.push_back(std::move(*value));
      }
    }
    if (array == nullptr || paths.size() != array->size()) {
      refuse(*node, fmt::format("{}: expected a list of absolute paths, as in [\"/system.slice\"]", key));
      return;
    }
    target = std::move(paths);
  }

  /// The table of a section; nullptr where the file has none.
  const toml::table* section(const toml::table& root, const char* key) {
    const toml::node* node = take(root, key);
    if (node == nullptr) return nullptr;
    if (node->as_table() == nullptr) refuse(*node, fmt::format("expected a section [{}]", key));
    return node->as_table();
  }

  /// What nobody asked for is a mistake of the writer's.
  void refuse_others(const toml::table& table, std::initializer_list<std::string_view> known) {
    for (const auto& [key, node] : table) {
      if (std::ranges::find(known, key.str()) == known.end()) {
        refuse(key.source(), fmt::format("unknown key \"{}\"", key.str()));
      }
    }
  }

  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  static bool is_plain_path(const std::string& path) {
    if (path == "/") return true;
    return path.starts_with('/') && !path.ends_with('/') && path.find('\0') == std::string::npos &&
           path.find("//") == std::string::npos;
  }
  static const toml::node* take(const toml::table& table, const char* key) { return table.get(key); }
  void refuse(const toml::node& node, std::string_view what) { refuse(node.source(), what); }
  void refuse(const toml::source_region& where, std::string_view what) {
    if (!error_) error_ = error_at(where, what).value();
  }

  const std::string& file_;
  std::optional<Error> error_;
};

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& file) {
  Reader reader(file);
  toml::table root;
  try {
    root = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    return reader.error_at(error.source(), error.description());
  }
  Config config;
  reader.refuse_others(root, {"enforcement", "user_tags", "guard", "pin", "rules"});
  if (const toml::table* table = reader.section(root, "enforcement")) {
    reader.refuse_others(*table, {"bandwidth_mib", "threads", "first_retry_seconds", "longest_retry_seconds",
                                  "walk_files_per_second"});
    // A TiB a second is beyond any machine, and keeps the arithmetic in bounds.
    reader.whole(*table, "bandwidth_mib", 0, 1U << 20U, [&](auto value) { config.bandwidth_mib = value; });
    reader.whole(*table, "threads", 0, 64,
                 [&](auto value) { config.threads = static_cast<unsigned>(value); });
    reader.whole(*table, "first_retry_seconds", 1, 3600,
                 [&](auto value) { config.first_retry = std::chrono::seconds(value); });
    reader.whole(*table, "longest_retry_seconds", 1, 86400,
                 [&](auto value) { config.longest_retry = std::chrono::seconds(value); });
    reader.whole(*table, "walk_files_per_second", 1, 1U << 20U,
                 [&](auto value) { config.walk_files_per_second = value; });
  }
  if (const toml::table* table = reader.section(root, "user_tags")) {
    reader.refuse_others(*table, {"honoured", "budget_mib_per_minute"});
    reader.boolean(*table, "honoured", config.user_tags);
    reader.whole(*table, "budget_mib_per_minute", 0, 1U << 26U,
                 [&](auto value) { config.user_budget_mib = value; });
  }
  if (const toml::table* table = reader.section(root, "guard")) {
    reader.refuse_others(*table, {"enabled", "deadline_ms", "hold_seconds", "max_bytes", "cgroups"});
    reader.boolean(*table, "enabled", config.guard);
    reader.whole(*table, "deadline_ms", 1, 1000,
                 [&](auto value) { config.guard_deadline = std::chrono::milliseconds(value); });
    reader.whole(*table, "hold_seconds", 1, 600,
                 [&](auto value) { config.guard_hold = std::chrono::seconds(value); });
    reader.whole(*table, "max_bytes", 0, std::uint64_t{1} << 50U,
                 [&](auto value) { config.guard_max_bytes = value; });
    reader.paths(*table, "cgroups", config.guard_cgroups);
  }
  if (const toml::table* table = reader.section(root, "pin")) {
    reader.refuse_others(*table, {"max_bytes"});
    // A PiB.
    reader.whole(*table, "max_bytes", 0, std::uint64_t{1} << 50U,
                 [&](auto value) { config.pin_max_bytes = value; });
  }
  if (const toml::table* table = reader.section(root, "rules")) {
    reader.refuse_others(*table, {"directory"});
    reader.path(*table, "directory", config.rules_directory);
  }
  if (const std::optional<Error>& error = reader.error()) return tl::unexpected(*error);
  return config;
}

Result<Config> load_config(const std::string& path, bool required) {
  const auto text = read_text(path, longest_config);
  if (text) return parse_config(*text, path);
  if (text.error().code == ENOENT && !required) return Config{};
  return tl::unexpected(text.error());
}

}  // namespace fpolicy::policyd
