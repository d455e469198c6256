// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/json_text.h>
#include <fpolicy/migrate_json.h>
#include <fpolicy/rules.h>

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy {
namespace {

using Wire = nlohmann::json;
using Json = nlohmann::ordered_json;
using Phase = MigrateProgress::Phase;

constexpr std::array counts_fields{std::pair("moved_pages", &MigrateCounts::moved),
                                   std::pair("stayed_pages", &MigrateCounts::stayed),
                                   std::pair("busy_pages", &MigrateCounts::busy),
                                   std::pair("failed_pages", &MigrateCounts::failed),
                                   std::pair("skipped_pages", &MigrateCounts::skipped),
                                   std::pair("vanished_pages", &MigrateCounts::vanished),
                                   std::pair("forced_pages", &MigrateCounts::forced)};
constexpr std::array kinds{MappingKind::anonymous, MappingKind::heap, MappingKind::stack,
                           MappingKind::file,      MappingKind::shm,  MappingKind::special};
constexpr std::array decisions{MigrateDecision::follow, MigrateDecision::exclusive,
                               MigrateDecision::placement, MigrateDecision::stay, MigrateDecision::skip};
constexpr std::array sources{Source::none,     Source::system_xattr, Source::user_xattr,
                             Source::database, Source::directory,    Source::rule};
constexpr std::array phases{Phase::plan, Phase::quiet,  Phase::freeze,
                            Phase::move, Phase::cpuset, Phase::verify};

Json nodes_json(const std::vector<std::uint64_t>& pages) {
  Json nodes = Json::object();
  for (std::size_t node = 0; node < pages.size(); ++node) {
    if (pages[node] != 0) nodes[std::to_string(node)] = pages[node];
  }
  return nodes;
}

void put_counts(Json& json, const MigrateCounts& counts) {
  for (const auto& [name, count] : counts_fields) json[name] = counts.*count;
}

double gigabytes_per_second(const MigrateReport& report) {
  return report.moving_seconds > 0 ? static_cast<double>(report.moved_bytes) / report.moving_seconds / 1e9
                                   : 0;
}

/// Reads fields; the first that is not what it should be makes all fail.
class Reader {
 public:
  explicit Reader(const Wire& object) : object_(object) {
    if (!object.is_object()) wrong("an object");
  }

  void read(const char* name, std::uint64_t& into) {
    const Wire* value = find(name, true);
    if (value == nullptr) return;
    // Negative ones are of another type.
    if (value->is_number_unsigned())
      into = value->get<std::uint64_t>();
    else if (value->is_number_integer() && value->get<std::int64_t>() >= 0)
      into = static_cast<std::uint64_t>(value->get<std::int64_t>());
    else
      wrong(name);
  }
  void read(const char* name, double& into) {
    const Wire* value = find(name, true);
    if (value == nullptr) return;
    if (!value->is_number()) return wrong(name);
    into = value->get<double>();
    if (!std::isfinite(into) || into < 0) wrong(name);
  }
  void read(const char* name, bool& into) {
    const Wire* value = find(name, true);
    if (value == nullptr) return;
    if (!value->is_boolean()) return wrong(name);
    into = value->get<bool>();
  }
  void read(const char* name, std::string& into, bool required = true) {
    const Wire* value = find(name, required);
    if (value == nullptr || (!required && value->is_null())) return;
    if (!value->is_string()) return wrong(name);
    into = value->get<std::string>();
  }
  void read_path(const char* name, std::string& into) {
    read(name, into);
    std::string escaped;
    read((std::string(name) + "_escaped").c_str(), escaped, false);
    if (escaped.empty()) return;
    auto path = unescape_path(escaped);
    if (!path) return wrong(name);
    into = *std::move(path);
  }
  template <class Enum, std::size_t n>
  void read(const char* name, Enum& into, const std::array<Enum, n>& values) {
    std::string text;
    read(name, text);
    if (failed()) return;
    for (const Enum value : values) {
      if (to_string(value) == text) {
        into = value;
        return;
      }
    }
    wrong(name);
  }
  void read_nodes(const char* name, std::vector<std::uint64_t>& into) {
    const Wire* value = find(name, true);
    if (value == nullptr) return;
    if (!value->is_object()) return wrong(name);
    for (const auto& [node_text, pages] : value->items()) {
      unsigned node = 0;
      const auto [end, error] = std::from_chars(node_text.data(), node_text.data() + node_text.size(), node);
      if (error != std::errc{} || end != node_text.data() + node_text.size() || node >= NodeSet::max_nodes ||
          !pages.is_number_unsigned())
        return wrong(name);
      if (into.size() <= node) into.resize(node + 1);
      into[node] = pages.get<std::uint64_t>();
    }
  }
  void read_address(const char* name, std::uint64_t& into) {
    std::string text;
    read(name, text);
    if (failed()) return;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into, 16);
    if (error != std::errc{} || end != text.data() + text.size()) wrong(name);
  }
  void read_counts(MigrateCounts& counts) {
    for (const auto& [name, count] : counts_fields) read(name, counts.*count);
  }
  [[nodiscard]] bool has(const char* name) const { return object_.is_object() && object_.contains(name); }
  /// nullptr where it is missing or no array.
  const Wire* array(const char* name) {
    const Wire* value = find(name, true);
    if (value == nullptr) return nullptr;
    if (!value->is_array()) {
      wrong(name);
      return nullptr;
    }
    return value;
  }
  [[nodiscard]] bool failed() const { return !status_; }
  [[nodiscard]] Status status() const { return status_; }
  void wrong(const char* name) {
    if (status_) status_ = fail(EPROTO, fmt::format("the report's field {} is not what it should be", name));
  }

 private:
  const Wire* find(const char* name, bool required) {
    if (failed()) return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end()) return &*found;
    if (required) wrong(name);
    return nullptr;
  }

  const Wire& object_;
  Status status_;
};

Result<MigrateGroup> group_from_json(const Wire& object) {
  Reader reader(object);
  MigrateGroup group;
  reader.read("kind", group.kind, kinds);
  reader.read_path("path", group.path);
  reader.read("policy", group.policy, false);
  reader.read("source", group.source, sources);
  reader.read("decision", group.decision, decisions);
  reader.read("private_stays", group.private_stays);
  reader.read("reason", group.reason);
  reader.read("mappings", group.mappings);
  reader.read_counts(group.counts);
  reader.read_nodes("pages_by_node", group.before);
  reader.read_nodes("pages_by_node_after", group.after);
  if (reader.failed()) return tl::unexpected(reader.status().error());
  return group;
}

Result<MigrateMapping> mapping_from_json(const Wire& object, std::size_t groups) {
  Reader reader(object);
  MigrateMapping mapping;
  std::uint64_t pid = 0;
  std::uint64_t group = 0;
  reader.read("pid", pid);
  reader.read_address("start", mapping.start);
  reader.read_address("end", mapping.end);
  reader.read("permissions", mapping.permissions);
  reader.read("group", group);
  reader.read("resident_pages", mapping.resident);
  reader.read("moved_pages", mapping.moves);
  if (pid > static_cast<std::uint64_t>(std::numeric_limits<pid_t>::max())) reader.wrong("pid");
  // It is an index.
  if (group >= groups) reader.wrong("group");
  if (reader.failed()) return tl::unexpected(reader.status().error());
  mapping.pid = static_cast<pid_t>(pid);
  mapping.group = group;
  return mapping;
}

}  // namespace

std::string_view to_string(MigrateProgress::Phase phase) {
  constexpr std::array<std::string_view, phases.size()> names{"plan", "quiet",  "freeze",
                                                              "move", "cpuset", "verify"};
  return names.at(static_cast<std::size_t>(phase));
}

Json progress_json(const MigrateProgress& progress) {
  return {{"phase", to_string(progress.phase)},
          {"done_pages", progress.done_pages},
          {"all_pages", progress.all_pages}};
}

Result<MigrateProgress> progress_from_json(const Wire& object) {
  Reader reader(object);
  MigrateProgress progress;
  reader.read("phase", progress.phase, phases);
  reader.read("done_pages", progress.done_pages);
  reader.read("all_pages", progress.all_pages);
  if (reader.failed()) return tl::unexpected(reader.status().error());
  return progress;
}

Json report_json(const MigrateReport& report, const MigrateOptions& options) {
  Json json;
  json["from"] = options.from.format();
  json["to"] = options.to.format();
  const NodePairing pairing(options.from, options.to);
  json["pairs"] = Json::array();
  for (const unsigned node : options.from.members())
    json["pairs"].push_back({{"from", node}, {"to", pairing.target(node)}});
  json["dry_run"] = options.dry_run;
  json["stopped"] = report.stopped;
  if (!report.failure.empty()) json["failure"] = report.failure;
  json["processes"] = report.processes;
  put_counts(json, report.counts);
  json["moved_bytes"] = report.moved_bytes;
  json["plan_seconds"] = report.plan_seconds;
  json["moving_seconds"] = report.moving_seconds;
  json["frozen_seconds"] = report.frozen_seconds;
  json["quiet_pages"] = report.quiet_pages;
  json["gbytes_per_second"] = gigabytes_per_second(report);
  json["pages_by_node"] = nodes_json(report.before);
  json["pages_by_node_after"] = nodes_json(report.after);
  if (options.set_cpuset) {
    json["cpuset_before"] = report.cpuset_before;
    json["cpuset_after"] = report.cpuset_after;
  }
  if (report.misplaced) json["misplaced_pages"] = *report.misplaced;
  json["groups"] = Json::array();
  for (const MigrateGroup& group : report.groups) {
    Json row;
    row["kind"] = to_string(group.kind);
    put_path(row, "path", group.path);
    row["policy"] = group.policy.empty() ? Json(nullptr) : Json(group.policy);
    row["source"] = to_string(group.source);
    row["decision"] = to_string(group.decision);
    row["private_stays"] = group.private_stays;
    row["reason"] = group.reason;
    row["mappings"] = group.mappings;
    put_counts(row, group.counts);
    row["pages_by_node"] = nodes_json(group.before);
    row["pages_by_node_after"] = nodes_json(group.after);
    json["groups"].push_back(std::move(row));
  }
  if (options.dry_run) {
    json["mappings"] = Json::array();
    for (const MigrateMapping& mapping : report.mappings) {
      json["mappings"].push_back({{"pid", mapping.pid},
                                  {"start", fmt::format("{:x}", mapping.start)},
                                  {"end", fmt::format("{:x}", mapping.end)},
                                  {"permissions", mapping.permissions},
                                  {"group", mapping.group},
                                  {"resident_pages", mapping.resident},
                                  {"moved_pages", mapping.moves}});
    }
  }
  json["notes"] = report.notes;
  return json;
}

Result<MigrateReport> report_from_json(const Wire& object) {
  Reader reader(object);
  MigrateReport report;
  reader.read("stopped", report.stopped);
  reader.read("failure", report.failure, false);
  reader.read("processes", report.processes);
  reader.read_counts(report.counts);
  reader.read("moved_bytes", report.moved_bytes);
  reader.read("plan_seconds", report.plan_seconds);
  reader.read("moving_seconds", report.moving_seconds);
  reader.read("frozen_seconds", report.frozen_seconds);
  reader.read("quiet_pages", report.quiet_pages);
  reader.read_nodes("pages_by_node", report.before);
  reader.read_nodes("pages_by_node_after", report.after);
  reader.read("cpuset_before", report.cpuset_before, false);
  reader.read("cpuset_after", report.cpuset_after, false);
  if (reader.has("misplaced_pages")) reader.read("misplaced_pages", report.misplaced.emplace());
  if (const Wire* groups = reader.array("groups")) {
    for (const Wire& each : *groups) {
      auto group = group_from_json(each);
      if (!group) return tl::unexpected(group.error());
      report.groups.push_back(*std::move(group));
    }
  }
  if (const Wire* mappings = reader.has("mappings") ? reader.array("mappings") : nullptr) {
    for (const Wire& each : *mappings) {
      auto mapping = mapping_from_json(each, report.groups.size());
      if (!mapping) return tl::unexpected(mapping.error());
      report.mappings.push_back(*std::move(mapping));
    }
  }
  if (const Wire* notes = reader.array("notes")) {
    for (const Wire& note : *notes) {
      if (!note.is_string()) {
        reader.wrong("notes");
        break;
      }
      report.notes.push_back(note.get<std::string>());
    }
  }
  if (reader.failed()) return tl::unexpected(reader.status().error());
  return report;
}

}  // namespace fpolicy
