// SPDX-License-Identifier: LGPL-2.1-or-later
// What migratejob and policyctl migrate are told of a move.
#pragma once

#include "common/columns.h"
#include "common/command.h"

#include <fpolicy/migrate.h>
#include <fpolicy/topology.h>

#include <optional>
#include <string>
#include <vector>

namespace fpolicy::tools {

class MigrateArguments {
 public:
  void add_to(CLI::App& app);
  /// After parsing: fills in `job` and `migrate`. A value is the exit status to end with.
  std::optional<int> complete(const Command& command, const TableOptions& table, const Topology& topology);

  Job job;
  MigrateOptions migrate;

 private:
  std::string cgroup_;
  std::vector<std::string> pids_;
  std::string from_;
  std::string to_;
  double mebibytes_per_second_ = 0;
  bool no_freeze_ = false;
};

}  // namespace fpolicy::tools
