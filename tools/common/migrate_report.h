// SPDX-License-Identifier: LGPL-2.1-or-later
// What migratejob and policyctl migrate say of a move.
#pragma once

#include "common/columns.h"
#include "common/command.h"
#include "common/text.h"

#include <fpolicy/migrate.h>
#include <fpolicy/migrate_json.h>

#include <string>

namespace fpolicy::tools {

/// The first of the columns that are asked for which is none; empty: all are.
std::string unknown_column(const TableOptions& table);
/// A row for each file or kind of memory, and a line with the sum.
void print_report(Command& command, const MigrateReport& report, const MigrateOptions& options,
                  const TableOptions& table);
/// For the help of commands that print a report.
std::string report_columns_help();

/// Notes, and a line for whatever was left; the latter count as failures.
void report_failures(Command& command, const MigrateReport& report, const MigrateOptions& options);

/// A move that was not made.
void report_refusal(Command& command, const Error& error);

std::string progress_text(const MigrateProgress& progress);

}  // namespace fpolicy::tools
