// SPDX-License-Identifier: LGPL-2.1-or-later
// policyctl: talks to policyd, and looks after its database.
#include "common/columns.h"
#include "common/command.h"
#include "common/migrate_options.h"
#include "common/migrate_report.h"
#include "common/policyd.h"
#include "common/stores.h"
#include "common/text.h"

#include <fpolicy/database_care.h>
#include <fpolicy/migrate_json.h>
#include <fpolicy/rules.h>
#include <fpolicy/topology.h>
#include <fpolicy/tree.h>
#include <fpolicy/varlink.h>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

using nlohmann::json;

// What policyd says is not trusted to have the shape that it should: a field that is missing or of another
// type reads as nothing.

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

std::string number_text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? std::to_string(found->get<std::int64_t>())
                                                             : "-";
}

const json& list(const json& object, const char* key) {
  static const json nothing = json::array();
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : nothing;
}

/// The path of a reply, fit for a terminal: on the wire it is escaped already.
std::string path_text(const json& object, const char* key) {
  const std::string path = text(object, key);
  const auto unescaped = unescape_path(path);
  return escape_text(unescaped ? *unescaped : path);
}

/// A field of the reply as it is; paths in their own bytes, as in the other commands' JSON.
Column<json> column(std::string name, const char* key, std::string help, bool right = false) {
  return {
      .name = std::move(name),
      .help = std::move(help),
      .right = right,
      .text = [key, right](
                  const json& row) { return right ? number_text(row, key) : escape_text(text(row, key)); },
      .json =
          [key](const json& row, Json& out) {
            if (const auto found = row.find(key); found != row.end()) out[key] = Json(*found);
          }};
}

Column<json> path_column(std::string name, const char* key, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .text = [key](const json& row) { return path_text(row, key); },
          .json =
              [key](const json& row, Json& out) {
                const std::string path = text(row, key);
                const auto unescaped = unescape_path(path);
                put_path(out, key, unescaped ? *unescaped : path);
              }};
}

/// Microseconds as people say them: "3d 4h", "12min 5s".
std::string duration(std::int64_t microseconds) {
  const std::int64_t seconds = microseconds / 1'000'000;
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}min {}s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{}h {}min", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{}d {}h", seconds / 86400, seconds / 3600 % 24);
}

class PolicyCtl {
 public:
  PolicyCtl(Command& command, std::string socket) : command_(command), socket_(std::move(socket)) {}

  static void wait_histogram(const json& delays, std::string& out) {
    constexpr std::string_view name = "fpolicy_guard_wait_seconds";
    out += fmt::format("# HELP {0} How long writers waited for policyd.\n# TYPE {0} histogram\n", name);
    std::int64_t below = 0;
    double limit = 1e-6;
    for (const json& count : delays) {
      if (count.is_number_integer()) below += count.get<std::int64_t>();
      out += fmt::format("{}_bucket{{le=\"{:g}\"}} {}\n", name, limit, below);
      limit *= 2;
    }
    out += fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_count {1}\n", name, below);
  }

  static void guard_lines(const json& guard,
                          const std::function<void(std::string_view, const std::string&)>& line) {
    const auto on = guard.find("on");
    if (on == guard.end() || !on->is_boolean() || !on->get<bool>()) {
      line("guard", "off: " + escape_text(text(guard, "reason")));
      return;
    }
    line("guard", fmt::format("on, process {}, {} files stay, {} of them mapped, {} bytes held",
                              number(guard, "sentinel"), number(guard, "files"),
                              number(guard, "mapped_files"), number(guard, "held_bytes")));
    line("", fmt::format("asked {} times, longest wait {} us of {}",
                         number(guard.value("counters", json::object()), "asked"),
                         number(guard, "longest_usec"), number(guard, "deadline_usec")));
    if (const std::string refusal = text(guard, "last_refusal"); !refusal.empty())
      line("", "not held: " + escape_text(refusal));
  }

  void status() {
    const auto reply = call("Status", json::object());
    if (!reply) return;
    if (command_.json()) return print(Json(*reply));
    std::string out;
    const auto line = [&](std::string_view label, const std::string& value) {
      out += fmt::format("{:>10}: {}\n", label, value);
    };
    line("policyd", fmt::format("{}, process {}, up {}", escape_text(text(*reply, "version")),
                                number(*reply, "pid"), duration(number(*reply, "uptime_usec"))));
    line("nodes", escape_text(text(*reply, "nodes")));
    const auto watching = reply->find("watching");
    const bool watches = watching != reply->end() && watching->is_boolean() && watching->get<bool>();
    line("cgroups",
         fmt::format("{}, {}", number(*reply, "cgroups"), watches ? "moves are watched" : "not watched"));
    line("rules", number_text(*reply, "rules"));
    line("queue", fmt::format("{} files, {} to be tried again", number(*reply, "queued_files"),
                              number(*reply, "retry_files")));
    line("pins", fmt::format("{} files, {} of {} bytes", number(*reply, "pinned_files"),
                             number(*reply, "pinned_bytes"), number(*reply, "pin_max_bytes")));
    if (const auto guard = reply->find("guard"); guard != reply->end() && guard->is_object())
      guard_lines(*guard, line);
    for (const json& limit : list(*reply, "limits")) {
      if (limit.is_string()) line("limit", escape_text(limit.get<std::string>()));
    }
    const auto counters = reply->find("counters");
    if (counters != reply->end() && counters->is_object()) {
      for (const auto& [name, value] : counters->items()) {
        if (value.is_number_integer())
          out += fmt::format("{:>24}  {}\n", value.get<std::int64_t>(), escape_text(name));
      }
    }
    if (const auto guard = reply->find("guard"); guard != reply->end() && guard->is_object()) {
      const auto its = guard->find("counters");
      if (its != guard->end() && its->is_object()) {
        for (const auto& [name, value] : its->items()) {
          if (value.is_number_integer())
            out += fmt::format("{:>24}  guard {}\n", value.get<std::int64_t>(), escape_text(name));
        }
      }
    }
    std::fwrite(out.data(), 1, out.size(), stdout);
  }

  /// The text format of Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/
  void metrics() {
    const auto reply = call("Status", json::object());
    if (!reply) return;
    std::string out;
    const auto one = [&](std::string_view name, std::string_view type, std::string_view help,
                         std::int64_t value) {
      out += fmt::format("# HELP fpolicy_{0} {1}\n# TYPE fpolicy_{0} {2}\nfpolicy_{0} {3}\n", name, help,
                         type, value);
    };
    const auto all = [&](std::string_view name, std::string_view help, const json& counters) {
      out += fmt::format("# HELP fpolicy_{0} {1}\n# TYPE fpolicy_{0} counter\n", name, help);
      for (const auto& [kind, value] : counters.items())
        if (value.is_number_integer())
          out += fmt::format("fpolicy_{}{{kind=\"{}\"}} {}\n", name, kind, value.get<std::int64_t>());
    };
    one("uptime_seconds", "gauge", "Since policyd started.", number(*reply, "uptime_usec") / 1'000'000);
    one("cgroups", "gauge", "Cgroups that there are.", number(*reply, "cgroups"));
    one("rules", "gauge", "Rules in force.", number(*reply, "rules"));
    one("queued", "gauge", "Work that waits.", number(*reply, "queued_files"));
    one("retry_files", "gauge", "Files to be tried again.", number(*reply, "retry_files"));
    one("pinned_files", "gauge", "Files that are pinned.", number(*reply, "pinned_files"));
    one("pinned_bytes", "gauge", "Bytes that pins hold.", number(*reply, "pinned_bytes"));
    all("done_total", "What policyd has done.", reply->value("counters", json::object()));
    const json guard = reply->value("guard", json::object());
    one("guard_on", "gauge", "1: moves of jobs wait until what stays is held.",
        guard.value("on", false) ? 1 : 0);
    one("guard_held_bytes", "gauge", "Bytes held now.", number(guard, "held_bytes"));
    one("guard_sentinel_restarts_total", "counter", "Sentinels that ended.", number(guard, "restarts"));
    one("guard_longest_wait_microseconds", "gauge", "The longest that a writer waited.",
        number(guard, "longest_usec"));
    all("guard_total", "What the guard was asked and did.", guard.value("counters", json::object()));
    wait_histogram(list(guard, "delays"), out);
    std::fwrite(out.data(), 1, out.size(), stdout);
  }

  int jobs(const TableOptions& table) {
    const std::vector<Column<json>> columns = {
        path_column("CGROUP", "cgroup", "cgroup"),
        column("MEMS", "mems", "nodes that it may use"),
        column("PROCESSES", "processes", "processes", true),
        column("TAGGED", "tagged_files", "files with a policy that they map", true),
        column("MISPLACED", "misplaced_pages", "pages of these that are misplaced", true),
        column("MOVES", "moves", "times that it was moved", true)};
    return list_rows("Jobs", "jobs", columns, table);
  }

  int pins(const TableOptions& table) {
    const std::vector<Column<json>> columns = {
        path_column("FILE", "path", "absolute path"), column("POLICY", "policy", "effective policy"),
        column("HELD", "held_bytes", "bytes held in memory", true),
        column("REASON", "reason", "why nothing, or not all, is held")};
    return list_rows("Pins", "pins", columns, table);
  }

  int apply(const TableOptions& table, bool recursive, const LinkOptions& links) {
    const std::vector<Column<json>> columns = {
        path_column("FILE", "path", "absolute path"),
        column("POLICY", "policy", "effective policy"),
        column("RESIDENT", "resident_pages", "pages in the page cache", true),
        column("MOVED", "moved_pages", "pages moved now", true),
        column("MISPLACED", "misplaced_pages", "pages left misplaced", true),
        column("STATE", "state", "ok, misplaced, unset, unsupported or unsatisfiable"),
        column("REASON", "reason", "why pages are left")};
    std::string unknown;
    const auto chosen = choose(columns, table, unknown);
    if (!unknown.empty()) return command_.usage_error("no column is called " + escape_text(unknown));
    auto connection = connect();
    if (!connection) return command_.finish();

    std::vector<json> rows;
    FileBatch batch;
    const auto send = [&] {
      apply_batch(*connection, batch, rows);
      batch = FileBatch{};
    };
    const auto add = [&](std::string_view path, int fd) {
      if (const auto added = batch.add(path, fd); !added) return command_.error(path, added.error());
      if (batch.full()) send();
    };
    if (command_.names().empty() && !command_.null()) {
      send();
    } else {
      command_.for_each_name([&](const std::string& name) {
        auto file = open_target(name, links.follow_named());
        if (!file) return command_.error(name, file.error());
        // policyd would refuse the whole message.
        if (geteuid() != 0 && file->owner != geteuid()) {
          return command_.error(name, Error{EPERM, "only root or its owner may have it enforced"});
        }
        if (!S_ISDIR(file->mode)) return add(file->path, file->fd.get());
        if (!recursive) return command_.error(name, Error{EISDIR, "is a directory (-R: all below it)"});
        // policyd itself walks for root alone: it looks up no path on the word of others.
        if (geteuid() == 0) return add(file->path, file->fd.get());
        own_files_below(*std::move(file), links, add);
      });
      if (!batch.empty()) send();
    }
    if (command_.json()) {
      Json files = Json::array();
      for (const json& row : rows) files.push_back(to_json(chosen, row));
      print({{"files", std::move(files)}});
    } else if (!rows.empty()) {
      print_rows(chosen, rows, table);
    }
    return command_.finish();
  }

  void events(bool follow) {
    auto connection = connect();
    if (!connection) return;
    const auto show = [&](const json& reply) {
      const auto event = reply.find("event");
      if (event != reply.end() && event->is_object()) show_event(*event);
      return std::ferror(stdout) == 0;
    };
    const auto timeout = follow ? std::chrono::milliseconds(-1) : varlink::default_timeout;
    const Status called = connection->call_more(method("Events"), {{"follow", follow}}, show, {}, timeout);
    if (!called) command_.error(called.error().message);
  }

  int migrate(MigrateArguments& arguments, const TableOptions& table) {
    // Words for nodes, and sizes: this machine is policyd's.
    const auto topology = Topology::read();
    if (!topology) {
      command_.error(topology.error().message);
      return command_.finish();
    }
    if (const auto ended = arguments.complete(command_, table, *topology)) return *ended;
    auto connection = connect();
    if (!connection) return command_.finish();
    const MigrateOptions& options = arguments.migrate;
    Result<MigrateReport> report = fail(EPROTO, "policyd has sent no report");
    const auto take = [&](const json& reply) {
      if (const auto found = reply.find("report"); found != reply.end() && !found->is_null()) {
        report = report_from_json(*found);
      } else if (const auto progress = progress_from_json(reply)) {
        command_.progress([&] { return progress_text(*progress); });
      }
      return true;
    };
    // As long as it takes. Interrupted, this process ends; policyd notices, and lets the job go on.
    constexpr std::chrono::milliseconds for_ever(-1);
    const auto called = connection->call_more(method("Migrate"), parameters(arguments), take, {}, for_ever);
    if (!called) {
      report_refusal(command_, called.error());
    } else if (!report) {
      command_.error(report.error().message);
    } else {
      if (command_.json())
        print(report_json(*report, options));
      else
        print_report(command_, *report, options, table);
      report_failures(command_, *report, options);
    }
    return command_.finish();
  }

  /// Of the file itself: policyd need not run.
  void check(const Locations& locations) {
    if (!reads_database(locations)) return;
    const std::string& path = locations.database;
    const auto checked = check_database(path);
    if (checked)
      for (const std::string& fault : checked->faults) command_.error(path, Error{EUCLEAN, fault});
    else
      command_.error(checked.error().message);
    if (command_.json()) {
      Json out;
      put_path(out, "database", path);
      if (checked) {
        out["schema"] = checked->schema;
        out["filesystems"] = checked->filesystems;
        out["records"] = checked->records;
        out["faults"] = checked->faults;
      } else {
        out["faults"] = {checked.error().message};
      }
      print(out);
    } else if (checked && checked->faults.empty()) {
      print_line(fmt::format("{}: schema {}, {} records of {} filesystems, no fault", escape_text(path),
                             checked->schema, checked->records, checked->filesystems));
    }
  }

  void backup(const Locations& locations, const std::string& to, bool replace) {
    if (!reads_database(locations)) return;
    const auto copied = backup_database(locations.database, to, replace);
    if (!copied) {
      const bool exists = copied.error().code == EEXIST;
      command_.error(copied.error().message + (exists ? " (--force replaces it)" : ""));
    } else if (command_.json()) {
      Json out;
      put_path(out, "database", locations.database);
      put_path(out, "backup", to);
      out["schema"] = copied->schema;
      out["records"] = copied->records;
      print(out);
    }
  }

  /// Of the file itself, as check. policyd learns of it as of every change that others make.
  int gc(const Locations& locations, bool dry_run, const TableOptions& table) {
    const auto columns = stale_columns();
    std::string unknown;
    const auto chosen = choose(columns, table, unknown);
    if (!unknown.empty()) return command_.usage_error("no column is called " + escape_text(unknown));
    if (!reads_database(locations)) return command_.finish();
    Identifier identifier;
    std::uint64_t kept = 0;
    const auto removed = collect(locations, identifier, dry_run, kept);
    if (!removed) {
      command_.error(removed.error().message);
    } else if (command_.json()) {
      Json records = Json::array();
      for (const StaleRecord& row : *removed) records.push_back(to_json(chosen, row));
      print({{"records", std::move(records)}, {"dry_run", dry_run}, {"kept", kept}});
    } else if (!removed->empty()) {
      print_rows(chosen, *removed, table);
    }
    return command_.finish();
  }

  void reload() {
    const auto reply = call("Reload", json::object());
    if (reply && command_.json()) print(Json::object());
  }

 private:
  static std::vector<Column<StaleRecord>> stale_columns() {
    return {
        {.name = "FILE",
         .help = "where it was when it was tagged",
         .text = [](const StaleRecord& row) { return escape_text(row.record.path); },
         .json = [](const StaleRecord& row, Json& out) { put_path(out, "path", row.record.path); }},
        {.name = "TAG",
         .help = "system or user",
         .text = [](const StaleRecord& row) { return space_text(row); },
         .json = [](const StaleRecord& row, Json& out) { out["tag"] = space_text(row); }},
        {.name = "POLICY",
         .help = "its policy",
         .text = [](const StaleRecord& row) { return escape_text(row.record.policy); },
         .json = [](const StaleRecord& row, Json& out) { put_path(out, "policy", row.record.policy); }},
        {.name = "REASON",
         .help = "what has become of the file",
         .text = [](const StaleRecord& row) { return escape_text(row.finding.reason); },
         .json = [](const StaleRecord& row, Json& out) { out["reason"] = escape_text(row.finding.reason); }}};
  }

  static std::string space_text(const StaleRecord& row) {
    return row.record.space == Space::system ? "system" : "user";
  }

  /// What was removed, or would be. `kept`: records that are not live, but whose files are not known to be
  /// gone; those that could not be examined are reported.
  Result<std::vector<StaleRecord>> collect(const Locations& locations, Identifier& identifier, bool dry_run,
                                           std::uint64_t& kept) {
    // A new one would be made where there is none.
    if (::access(locations.database.c_str(), F_OK) != 0) return fail_errno("open", locations.database);
    const auto access = dry_run ? Database::Access::read_only : Database::Access::read_write;
    const auto database = Database::open(locations.database, access, &identifier);
    if (!database) return tl::unexpected(database.error());
    auto stale = find_stale(**database, identifier);
    if (!stale) return stale;
    kept = std::erase_if(*stale, [&](const StaleRecord& found) {
      const Finding& finding = found.finding;
      // Not mounted is no fault.
      if (finding.fate == Fate::unknown && finding.code != ENODEV)
        command_.error(found.record.path, Error{finding.code, finding.reason});
      return finding.fate != Fate::gone;
    });
    if (dry_run) return stale;
    const auto removed = collect_stale(**database, identifier, *stale);
    if (!removed) return tl::unexpected(removed.error());
    std::set<std::tuple<std::string, std::string, Space>> names;
    for (const TagRecord& record : *removed)
      names.emplace(record.identity.filesystem, record.identity.key, record.space);
    std::erase_if(*stale, [&](const StaleRecord& found) {
      const FileIdentity& identity = found.record.identity;
      return !names.contains({identity.filesystem, identity.key, found.record.space});
    });
    return stale;
  }

  /// What a method without parameters lists, as a table.
  int list_rows(const char* method, const char* key, const std::vector<Column<json>>& columns,
                const TableOptions& table) {
    std::string unknown;
    const auto chosen = choose(columns, table, unknown);
    if (!unknown.empty()) return command_.usage_error("no column is called " + escape_text(unknown));
    const auto reply = call(method, json::object());
    if (!reply) return command_.finish();
    const json::array_t& found = list(*reply, key);
    const std::vector<json> rows(found.begin(), found.end());
    if (command_.json()) {
      Json out = Json::array();
      for (const json& row : rows) out.push_back(to_json(chosen, row));
      print({{key, std::move(out)}});
    } else if (!rows.empty()) {
      print_rows(chosen, rows, table);
    }
    return command_.finish();
  }

  static json parameters(const MigrateArguments& arguments) {
    const MigrateOptions& options = arguments.migrate;
    json out = {{"from", options.from.format()},
                {"to", options.to.format()},
                {"tree", arguments.job.descendants},
                {"dry_run", options.dry_run},
                {"set_cpuset", options.set_cpuset},
                {"freeze", options.freeze},
                {"partial", options.partial},
                {"pre_copy", options.pre_copy},
                {"verify", options.verify},
                {"threads", options.threads},
                {"max_bytes_per_second", options.bytes_per_second}};
    if (!arguments.job.cgroup.empty()) out["cgroup"] = wire_path(arguments.job.cgroup);
    if (!arguments.job.pids.empty()) out["pids"] = arguments.job.pids;
    if (!options.cpus.empty()) out["cpus"] = options.cpus;
    return out;
  }

  std::optional<varlink::Connection> connect() {
    auto connection = connect_policyd(socket_);
    if (!connection) {
      command_.error(connection.error().message);
      return std::nullopt;
    }
    return *std::move(connection);
  }

  std::optional<json> call(std::string_view name, const json& parameters) {
    auto connection = connect();
    if (!connection) return std::nullopt;
    auto reply = connection->call(method(name), parameters);
    if (!reply) {
      command_.error(reply.error().message);
      return std::nullopt;
    }
    return *std::move(reply);
  }

  /// A user's own regular files below a directory: policyd takes no others from users.
  template <class Add>
  void own_files_below(NamedFile root, const LinkOptions& links, const Add& add) {
    std::mutex mutex;
    const TreeVisitor visitor{
        .visit =
            [&](const TreeEntry& entry, std::string&) {
              if (entry.directory) return;
              const auto file = entry.file.fd >= 0 ? open_named(std::string(entry.file.path), false)
                                                   : open_named(entry.file.name, false);
              if (!file || file->owner != geteuid()) return;
              const std::scoped_lock lock(mutex);
              add(entry.file.path, file->fd.get());
            },
        .emit = [](std::string_view) { return true; },
        .error = [&](std::string_view path, const Error& error) { command_.error(path, error); }};
    walk_tree(std::move(root), links.tree(), visitor);
  }

  void apply_batch(varlink::Connection& connection, const FileBatch& batch, std::vector<json>& rows) {
    const auto take = [&](const json& reply) {
      for (const json& file : list(reply, "files")) {
        if (!file.is_object()) continue;
        rows.push_back(file);
        const std::string state = text(file, "state");
        if (state != "ok" && state != "unset") {
          const std::string reason = text(file, "reason");
          command_.error(path_text(file, "path") + ": " + escape_text(state) +
                         (reason.empty() ? "" : ": " + escape_text(reason)));
        }
      }
      for (const json& error : list(reply, "errors")) {
        if (error.is_object())
          command_.error(path_text(error, "path") + ": " + escape_text(text(error, "message")));
      }
      command_.progress([&] { return fmt::format("{} files", rows.size()); });
      return true;
    };
    // A large file may take its time.
    constexpr std::chrono::milliseconds for_ever(-1);
    const auto called =
        connection.call_more(method("Apply"), batch.parameters(), take, batch.raw_fds(), for_ever);
    if (!called) command_.error(called.error().message);
  }

  static void print(const Json& value) { print_line(to_text(value)); }

  static void print_line(std::string line) {
    line += '\n';
    std::fwrite(line.data(), 1, line.size(), stdout);
  }

  bool reads_database(const Locations& locations) {
    if (uses_database(locations)) return true;
    command_.error(fmt::format("only root may read {}", locations.database));
    return false;
  }

  void show_event(const json& event) {
    std::string line;
    if (command_.json()) {
      line = to_text(Json(event)) + "\n";
    } else {
      const std::int64_t microseconds = number(event, "time_usec");
      const std::time_t seconds = microseconds / 1'000'000;
      std::tm local = {};
      localtime_r(&seconds, &local);
      line = fmt::format("{:%F %T}.{:03d} {:<8}", local, microseconds / 1000 % 1000,
                         escape_text(text(event, "kind")));
      for (const char* key : {"cgroup", "path"}) {
        if (!text(event, key).empty()) line += " " + path_text(event, key);
      }
      if (!text(event, "policy").empty()) line += " " + escape_text(text(event, "policy"));
      if (event.contains("moved_pages")) line += fmt::format(" moved {}", number_text(event, "moved_pages"));
      if (event.contains("misplaced_pages"))
        line += fmt::format(" misplaced {}", number_text(event, "misplaced_pages"));
      if (!text(event, "message").empty()) line += ": " + escape_text(text(event, "message"));
      line += '\n';
    }
    std::fwrite(line.data(), 1, line.size(), stdout);
    // Whoever follows wants it now, through a pipe too.
    std::fflush(stdout);
  }

  Command& command_;
  std::string socket_;
};

}  // namespace
}  // namespace fpolicy::tools

int main(int argc, char** argv) {
  using namespace fpolicy::tools;
  Command command("policyctl", "Ask and direct policyd, and look after its database.",
                  {"[OPTION...] status", "[OPTION...] metrics", "[OPTION...] jobs", "[OPTION...] pins",
                   "[OPTION...] events [-f]", "[OPTION...] apply [-R] [FILE...]",
                   "[OPTION...] migrate --cgroup PATH --from NODES --to NODES",
                   "[OPTION...] migrate --pid PID[,PID...] --from NODES --to NODES", "[OPTION...] reload",
                   "[OPTION...] check", "[OPTION...] gc [-n]", "[OPTION...] backup [--force] FILE"});
  Locations locations;
  LinkOptions links;
  TableOptions table;
  bool follow = false;
  bool recursive = false;
  CLI::App& app = command.app();
  command.add_json();
  locations.add_to(app, false);
  app.require_subcommand(1);
  app.fallthrough();
  auto* status =
      app.add_subcommand("status", "What policyd is, does and has done, and what it cannot do here");
  auto* metrics = app.add_subcommand("metrics", "The same for Prometheus");
  auto* jobs = app.add_subcommand("jobs", "Cgroups whose processes map files with a policy");
  table.add_to(*jobs);
  auto* pins = app.add_subcommand("pins", "Files that are pinned or should be");
  table.add_to(*pins);
  auto* events = app.add_subcommand("events", "What has happened lately");
  events->add_flag("-f,--follow", follow, "Go on with what happens from now");
  auto* apply = app.add_subcommand("apply", "Bring misplaced pages home now: of these files, or of all");
  apply->add_flag("-R,--recursive", recursive, "All below directories");
  links.add_to(*apply);
  table.add_to(*apply);
  command.add_null(*apply);
  command.add_names("FILE", "Files and directories", apply);
  MigrateArguments arguments;
  auto* migrate = app.add_subcommand("migrate", "Move a job between nodes by its files' policies");
  arguments.add_to(*migrate);
  table.add_to(*migrate);
  migrate->footer(report_columns_help());
  auto* reload = app.add_subcommand("reload", "Re-read configuration and rules");
  const auto add_database = [&](CLI::App& to) {
    add_text(to, "--database", locations.database, "FILE",
             "Database to use in place of " + locations.database);
  };
  auto* check = app.add_subcommand("check", "Look for faults in the database (root)");
  add_database(*check);
  bool dry_run = false;
  auto* gc = app.add_subcommand("gc", "Remove the database's records of files that are gone (root)");
  gc->add_flag("-n,--dry-run", dry_run, "Show, change nothing");
  table.add_to(*gc);
  add_database(*gc);
  bool force = false;
  auto* backup = app.add_subcommand("backup", "Copy the database, whatever is written meanwhile (root)");
  backup->add_flag("--force", force, "Replace FILE where it exists");
  add_database(*backup);
  command.add_names("FILE", "The copy", backup);
  if (const auto ended = command.parse(argc, argv)) return *ended;
  if (backup->parsed() && command.names().size() != 1)
    return command.usage_error("backup takes one file to write to");

  PolicyCtl tool(command, locations.socket);
  if (status->parsed()) tool.status();
  if (metrics->parsed()) tool.metrics();
  if (jobs->parsed()) return tool.jobs(table);
  if (pins->parsed()) return tool.pins(table);
  if (events->parsed()) tool.events(follow);
  if (apply->parsed()) return tool.apply(table, recursive, links);
  if (migrate->parsed()) return tool.migrate(arguments, table);
  if (reload->parsed()) tool.reload();
  if (check->parsed()) tool.check(locations);
  if (gc->parsed()) return tool.gc(locations, dry_run, table);
  if (backup->parsed()) tool.backup(locations, command.names().front(), force);
  return command.finish();
}
