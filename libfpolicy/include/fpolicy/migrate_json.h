// SPDX-License-Identifier: LGPL-2.1-or-later
// The report of a move as JSON: what migratejob --json prints, and what policyd's Migrate answers.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/migrate.h>
#include <fpolicy/result.h>

#include <nlohmann/json.hpp>

namespace fpolicy {

/// The field names stand in migratejob(1).
FPOLICY_API nlohmann::ordered_json report_json(const MigrateReport& report, const MigrateOptions& options);

/// The report that report_json() has written; text that was not UTF-8 comes back replaced, but for paths.
/// Nothing that it holds is trusted. Error: EPROTO with the name of a field that is missing, of another type,
/// or beyond what is possible.
FPOLICY_API Result<MigrateReport> report_from_json(const nlohmann::json& json);

/// MigrateProgress::Phase: "plan", "quiet", "freeze", "move", "cpuset", "verify".
FPOLICY_API std::string_view to_string(MigrateProgress::Phase phase);
FPOLICY_API Result<MigrateProgress> progress_from_json(const nlohmann::json& json);
FPOLICY_API nlohmann::ordered_json progress_json(const MigrateProgress& progress);

}  // namespace fpolicy
