// SPDX-License-Identifier: LGPL-2.1-or-later
// migratejob: moves a job between nodes by its files' policies.
#include "common/columns.h"
#include "common/command.h"
#include "common/migrate_options.h"
#include "common/migrate_report.h"
#include "common/resolution.h"
#include "common/stores.h"

#include <fpolicy/migrate.h>
#include <fpolicy/topology.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

namespace fpolicy::tools {
namespace {

struct Options {
  Locations locations;
  TableOptions table;
  MigrateArguments move;
};

std::atomic<bool> interrupted = false;

void interrupt(int /*signal*/) {
  interrupted = true;
}

int run(Command& command, Options options) {
  const auto topology = Topology::read();
  if (!topology) {
    command.error(topology.error().message);
    return command.finish();
  }
  if (const auto ended = options.move.complete(command, options.table, *topology)) return *ended;
  const MigrateOptions& migrate = options.move.migrate;
  options.move.migrate.progress = [&command](const MigrateProgress& progress) {
    command.progress([&] { return progress_text(progress); });
    return !interrupted.load();
  };
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

  const auto report = migrate_job(options.move.job, migrate, *topology, resolution->resolver.get());
  if (!report) {
    report_refusal(command, report.error());
    return command.finish();
  }
  if (command.json()) {
    const std::string text = to_text(report_json(*report, migrate)) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else {
    print_report(command, *report, migrate, options.table);
  }
  report_failures(command, *report, migrate);
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
  options.move.add_to(app);
  options.table.add_to(app);
  command.add_json();
  options.locations.add_to(app, true);
  app.footer(report_columns_help());
  if (const auto status = command.parse(argc, argv)) return *status;
  return run(command, std::move(options));
}
