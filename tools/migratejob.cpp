// SPDX-License-Identifier: LGPL-2.1-or-later
// migratejob: moves a job between nodes by its files' policies.
#include "common/columns.h"
#include "common/command.h"
#include "common/migrate_report.h"
#include "common/resolution.h"
#include "common/stores.h"
#include "common/text.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/migrate.h>
#include <fpolicy/topology.h>

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

struct Options {
  Locations locations;
  TableOptions table;
  std::string cgroup;
  std::vector<std::string> pids;
  std::string from;
  std::string to;
  double mebibytes_per_second = 0;
  bool no_freeze = false;
  Job job;
  MigrateOptions migrate;
};

std::atomic<bool> interrupted = false;

void interrupt(int /*signal*/) {
  interrupted = true;
}

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

/// A value is the exit status to end with.
std::optional<int> complete(Command& command, Options& options, const Topology& topology) {
  for (const auto& [text, nodes, name] : {std::tuple(&options.from, &options.migrate.from, "--from"),
                                          std::tuple(&options.to, &options.migrate.to, "--to")}) {
    auto parsed = parse_nodes(*text, topology);
    if (!parsed)
      return command.usage_error(fmt::format("{} {}: {}", name, escape_text(*text), parsed.error().message));
    if (parsed->empty()) return command.usage_error(fmt::format("{} {}: no node", name, escape_text(*text)));
    *nodes = *parsed;
  }
  if (options.cgroup.empty() && options.pids.empty())
    return command.usage_error("--cgroup or --pid is needed");
  if (!options.cgroup.empty() && !options.pids.empty())
    return command.usage_error("--cgroup and --pid exclude each other");
  if (const std::string unknown = unknown_column(options.table); !unknown.empty())
    return command.usage_error("no column is called " + escape_text(unknown) + " (see --help)");
  if (options.cgroup.empty()) {
    auto pids = parse_pids(options.pids);
    if (!pids) return command.usage_error(escape_text(pids.error().message));
    options.job.pids = *std::move(pids);
  } else {
    auto cgroup = parse_cgroup(options.cgroup);
    if (!cgroup)
      return command.usage_error("--cgroup " + escape_text(options.cgroup) + ": " + cgroup.error().message);
    options.job.cgroup = *std::move(cgroup);
  }
  MigrateOptions& migrate = options.migrate;
  migrate.freeze = !options.no_freeze;
  if (migrate.set_cpuset && options.cgroup.empty()) return command.usage_error("--set-cpuset needs --cgroup");
  if (!migrate.cpus.empty() && !migrate.set_cpuset) return command.usage_error("--cpus needs --set-cpuset");
  migrate.bytes_per_second = static_cast<std::uint64_t>(options.mebibytes_per_second * (1U << 20U));
  migrate.progress = [&command](const MigrateProgress& progress) {
    command.progress([&] { return progress_text(progress); });
    return !interrupted.load();
  };
  return std::nullopt;
}

int run(Command& command, Options options) {
  const auto topology = Topology::read();
  if (!topology) {
    command.error(topology.error().message);
    return command.finish();
  }
  if (const auto ended = complete(command, options, *topology)) return *ended;
  auto stores = Stores::open(options.locations, Database::Access::read_only);
  auto resolution = stores ? Resolution::open(options.locations, (*stores)->store())
                           : Result<Resolution>(tl::unexpected(stores.error()));
  if (!resolution) {
    command.error(resolution.error().message);
    return command.finish();
  }
  // The job is let go before the command ends.
  struct sigaction action{};
  action.sa_handler = interrupt;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);

  const auto report = migrate_job(options.job, options.migrate, *topology, resolution->resolver.get());
  if (!report) {
    std::string message = report.error().message;
    if (report.error().code == ENOSPC) message += " (--partial goes on all the same); nothing was moved";
    if (report.error().code == ESRCH) message = "--pid: " + message;
    command.error(message);
    return command.finish();
  }
  if (command.json()) {
    const std::string text = to_text(report_json(*report, options.migrate)) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else {
    print_report(command, *report, options.migrate, options.table);
  }
  report_failures(command, *report, options.migrate);
  return command.finish();
}

}  // namespace
}  // namespace fpolicy::tools

int main(int argc, char** argv) {
  using namespace fpolicy::tools;
  Command command("migratejob", "Move a job between NUMA nodes by its files' policies.",
                  {"[OPTION...] --cgroup PATH --from NODES --to NODES",
                   "[OPTION...] --pid PID[,PID...] --from NODES --to NODES"});
  Options options;
  CLI::App& app = command.app();
  add_text(app, "-c,--cgroup", options.cgroup, "PATH", "The processes of this cgroup and of those below it");
  app.add_option("-p,--pid", options.pids, "These processes")->type_name("PID")->allow_extra_args(false);
  app.add_flag("-T,--tree", options.job.descendants, "With --pid, their descendants too");
  add_text(app, "-f,--from", options.from, "NODES", "Nodes that the job leaves: a list, cpu, cpuless or all")
      ->required();
  add_text(app, "-t,--to", options.to, "NODES",
           "Where it goes: pages of the i-th node of --from to the i-th of these, in turn")
      ->required();
  app.add_flag("-n,--dry-run", options.migrate.dry_run, "Show what would be moved, and why; change nothing");
  app.add_flag("-s,--set-cpuset", options.migrate.set_cpuset, "Set the cgroup's cpuset.mems to --to as well");
  add_text(app, "--cpus", options.migrate.cpus, "LIST", "With --set-cpuset, set cpuset.cpus too");
  auto* no_freeze = app.add_flag("--no-freeze", options.no_freeze, "Let the job run on meanwhile");
  app.add_flag("--pre-copy", options.migrate.pre_copy, "Move what can be moved before the job is frozen")
      ->excludes(no_freeze);
  app.add_option("-j,--threads", options.migrate.threads,
                 "Threads that move pages (default: one a processor, at most 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  app.add_option("--max-mbps", options.mebibytes_per_second, "Move at most so many MiB a second")
      ->type_name("N")
      ->check(CLI::Range(0.001, 1e9));
  app.add_flag("--verify", options.migrate.verify,
               "Look again, before the job goes on, whether all pages have arrived");
  app.add_flag("--partial", options.migrate.partial, "Go on where the target nodes have no room for all");
  options.table.add_to(app);
  command.add_json();
  options.locations.add_to(app, true);
  app.footer(report_columns_help());
  if (const auto status = command.parse(argc, argv)) return *status;
  return run(command, std::move(options));
}
