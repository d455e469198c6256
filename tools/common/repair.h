// SPDX-License-Identifier: LGPL-2.1-or-later
// queryfpolicy --repair: puts tags that lie in the wrong carrier, or that the catalogue does not know, right.
#pragma once

#include "common/columns.h"
#include "common/command.h"
#include "common/stores.h"

#include <fpolicy/store.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace fpolicy::tools {

/// One tag that was put right, or with dry_run would be.
struct Repaired {
  std::string path;
  Reconciled what;
};

/// The columns of its output.
std::vector<Column<Repaired>> repair_columns();

struct RepairOptions {
  Locations locations;
  LinkOptions links;
  bool recursive = false;  ///< also what is below directories
  bool all = false;        ///< also the files of the catalogue
  bool dry_run = false;
};

class Repair {
 public:
  Repair(Command& command, RepairOptions options) : command_(command), options_(std::move(options)) {}

  /// Error: the database cannot be opened, or the caller may not.
  Status open();
  /// The named files, then those of the catalogue; errors go to the command. All is committed when it
  /// returns.
  void run();
  [[nodiscard]] const std::vector<Repaired>& rows() const { return rows_; }

 private:
  void named(const std::string& name);
  void catalogued(const TagRecord& record);
  void one(const FileRef& file);

  Command& command_;
  RepairOptions options_;
  std::unique_ptr<Stores> stores_;
  std::mutex mutex_;  ///< over what follows
  std::vector<Repaired> rows_;
};

}  // namespace fpolicy::tools
