// SPDX-License-Identifier: LGPL-2.1-or-later
// What deciding and planning a move costs, as a batch manager pays it who calls the library: CPU time of this
// process, its threads included, until the plan stands (the report of a dry run then looks for memory
// policies).
//   plan_bench CGROUP FROM TO [ROUNDS]      needs root; migrate.sh makes the job. Prints milliseconds, a line
//   a round
#include <fpolicy/migrate.h>
#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>

namespace {

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "plan_bench: %s\n", what.c_str());
  std::exit(1);
}

template <class Value>
Value value_of(fpolicy::Result<Value> result) {
  if (!result) die(result.error().message);
  return *std::move(result);
}

double cpu_ms() {
  timespec now{};
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0) die("clock_gettime failed");
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) die("usage: plan_bench CGROUP FROM TO [ROUNDS]");
  const auto topology = value_of(fpolicy::Topology::read());
  fpolicy::Identifier identifier;
  const auto database = value_of(
      fpolicy::Database::open(fpolicy::default_database, fpolicy::Database::Access::read_only, &identifier));
  fpolicy::PolicyStore store(database.get(), &identifier);
  const auto rules = value_of(fpolicy::load_rules("/etc/fpolicy/rules.d"));
  fpolicy::Job job;
  job.cgroup = argv[1];
  fpolicy::MigrateOptions options;
  options.from = value_of(fpolicy::NodeSet::parse(argv[2]));
  options.to = value_of(fpolicy::NodeSet::parse(argv[3]));
  options.dry_run = true;
  const int rounds = argc > 4 ? std::atoi(argv[4]) : 5;
  // As many before that are not counted: an emulated processor translates what it has not yet run.
  for (int i = -rounds; i < rounds; ++i) {
    // Nothing that the round before has learned.
    fpolicy::Resolver resolver(&store, rules);
    const double began = cpu_ms();
    double planned = 0;
    options.progress = [&](const fpolicy::MigrateProgress& progress) {
      if (progress.phase == fpolicy::MigrateProgress::Phase::plan) planned = cpu_ms();
      return true;
    };
    const auto report = value_of(fpolicy::migrate_job(job, options, topology, &resolver));
    if (report.mappings.empty() || planned < began) die("nothing was planned");
    if (i >= 0) std::printf("%.2f\n", planned - began);
  }
  return 0;
}
