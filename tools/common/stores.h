// SPDX-License-Identifier: LGPL-2.1-or-later
// The stores as a command sees them: root opens the database, others ask policyd for records.
#pragma once

#include "common/command.h"

#include <fpolicy/store.h>
#include <fpolicy/tree.h>

#include <memory>
#include <optional>
#include <string>

namespace fpolicy::tools {

/// May the caller use the database itself? root, and whoever names a database of their own.
bool uses_database(const Locations& locations);

class Stores {
 public:
  static Result<std::unique_ptr<Stores>> open(const Locations& locations, Database::Access access);

  /// nullptr where neither a database nor policyd is at hand: xattrs alone are seen then.
  [[nodiscard]] RecordStore* records() { return records_.get(); }
  [[nodiscard]] Identifier& identifier() { return identifier_; }
  [[nodiscard]] PolicyStore& store() { return *store_; }

 private:
  Identifier identifier_;
  std::unique_ptr<RecordStore> records_;
  std::unique_ptr<PolicyStore> store_;
};

/// Which symbolic links are followed: -P none, -H those named on the command line, -L all. As setfacl(1).
struct LinkOptions {
  bool none = false;
  bool named = false;
  bool all = false;
  bool one_file_system = false;
  void add_to(CLI::App& app);
  [[nodiscard]] bool follow_named() const { return !none; }
  [[nodiscard]] TreeOptions tree() const;
};

/// Opens what the user named; regular files and directories only, on filesystems that hold file pages.
Result<NamedFile> open_target(const std::string& name, bool follow);

}  // namespace fpolicy::tools
