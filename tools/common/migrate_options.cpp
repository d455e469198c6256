// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/migrate_options.h"

#include "common/migrate_report.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/rules.h>

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <utility>

namespace fpolicy::tools {
namespace {

/// "0-1", or a word as in policies.
Result<NodeSet> parse_nodes(const std::string& text, const Topology& topology) {
  if (text == "all") return topology.memory;
  if (text == "cpu") return topology.memory & topology.cpu;
  if (text == "cpuless") return topology.cpuless();
  auto nodes = NodeSet::parse(text);
  if (!nodes) return tl::unexpected(nodes.error());
  return *nodes;
}

Result<std::vector<pid_t>> parse_pids(const std::vector<std::string>& texts) {
  std::vector<pid_t> pids;
  for (const std::string& text : texts) {
    std::string_view rest = text;
    while (true) {
      pid_t pid = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), pid);
      const bool whole = end == rest.data() + rest.size();
      if (error != std::errc{} || pid <= 0 || (!whole && *end != ','))
        return fail(EINVAL, "--pid " + text + ": not a process number");
      pids.push_back(pid);
      if (whole) break;
      rest.remove_prefix(static_cast<std::size_t>(end - rest.data()) + 1);
    }
  }
  return pids;
}

/// Below the mount of the hierarchy, or with its path.
Result<std::string> parse_cgroup(std::string name) {
  const auto tree = CgroupTree::open();
  if (!tree) return tl::unexpected(tree.error());
  if (name.starts_with(tree->mount_point() + "/")) name.erase(0, tree->mount_point().size());
  name.erase(0, name.find_first_not_of('/'));
  while (name.ends_with('/')) name.pop_back();
  if (name.empty() || name == tree->mount_point().substr(1)) return fail(EINVAL, "the root cgroup is no job");
  return name;
}

}  // namespace

std::optional<int> MigrateArguments::complete(const Command& command, const TableOptions& table,
                                              const Topology& topology) {
  for (const auto& [text, nodes, name] :
       {std::tuple(&from_, &migrate.from, "--from"), std::tuple(&to_, &migrate.to, "--to")}) {
    auto parsed = parse_nodes(*text, topology);
    if (!parsed)
      return command.usage_error(fmt::format("{} {}: {}", name, escape_text(*text), parsed.error().message));
    if (parsed->empty()) return command.usage_error(fmt::format("{} {}: no node", name, escape_text(*text)));
    *nodes = *parsed;
  }
  if (cgroup_.empty() && pids_.empty()) return command.usage_error("--cgroup or --pid is needed");
  if (!cgroup_.empty() && !pids_.empty()) return command.usage_error("--cgroup and --pid exclude each other");
  if (const std::string unknown = unknown_column(table); !unknown.empty())
    return command.usage_error("no column is called " + escape_text(unknown) + " (see --help)");
  if (cgroup_.empty()) {
    auto parsed = parse_pids(pids_);
    if (!parsed) return command.usage_error(escape_text(parsed.error().message));
    job.pids = *std::move(parsed);
  } else {
    auto parsed = parse_cgroup(cgroup_);
    if (!parsed)
      return command.usage_error("--cgroup " + escape_text(cgroup_) + ": " + parsed.error().message);
    job.cgroup = *std::move(parsed);
  }
  migrate.freeze = !no_freeze_;
  if (migrate.set_cpuset && cgroup_.empty()) return command.usage_error("--set-cpuset needs --cgroup");
  if (!migrate.cpus.empty() && !migrate.set_cpuset) return command.usage_error("--cpus needs --set-cpuset");
  migrate.bytes_per_second = static_cast<std::uint64_t>(mebibytes_per_second_ * (1U << 20U));
  return std::nullopt;
}

void MigrateArguments::add_to(CLI::App& app) {
  add_text(app, "-c,--cgroup", cgroup_, "PATH", "The processes of this cgroup and of those below it");
  app.add_option("-p,--pid", pids_, "These processes")->type_name("PID")->allow_extra_args(false);
  app.add_flag("-T,--tree", job.descendants, "With --pid, their descendants too");
  add_text(app, "-f,--from", from_, "NODES", "Nodes that the job leaves: a list, cpu, cpuless or all")
      ->required();
  add_text(app, "-t,--to", to_, "NODES",
           "Where it goes: pages of the i-th node of --from to the i-th of these, in turn")
      ->required();
  app.add_flag("-n,--dry-run", migrate.dry_run, "Show what would be moved, and why; change nothing");
  app.add_flag("-s,--set-cpuset", migrate.set_cpuset, "Set the cgroup's cpuset.mems to --to as well");
  add_text(app, "--cpus", migrate.cpus, "LIST", "With --set-cpuset, set cpuset.cpus too");
  auto* no_freeze = app.add_flag("--no-freeze", no_freeze_, "Let the job run on meanwhile");
  app.add_flag("--pre-copy", migrate.pre_copy, "Move what can be moved before the job is frozen")
      ->excludes(no_freeze);
  app.add_option("-j,--threads", migrate.threads,
                 "Threads that move pages (default: one for two processors, at most 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  app.add_option("--max-mbps", mebibytes_per_second_, "Move at most so many MiB a second")
      ->type_name("N")
      ->check(CLI::Range(0.001, 1e9));
  app.add_flag("--verify", migrate.verify,
               "Look again, before the job goes on, whether all pages have arrived");
  app.add_flag("--partial", migrate.partial, "Go on where the target nodes have no room for all");
}

}  // namespace fpolicy::tools
