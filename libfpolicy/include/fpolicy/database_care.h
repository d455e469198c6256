// SPDX-License-Identifier: LGPL-2.1-or-later
// Checking the database of tags, and copying it while others write.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fpolicy {

/// What a check of a database has found.
struct FPOLICY_API DatabaseCheck {
  std::int64_t schema = 0;
  std::uint64_t filesystems = 0;
  std::uint64_t records = 0;
  std::vector<std::string> faults;  ///< one line each, without the database's name
};

/// Reads all of a database, in one snapshot, whatever others write meanwhile: is the file whole, is the
/// schema the one of this version, does each record parse? Changes nothing. Error where it cannot be read at
/// all: ENOENT, EINVAL (not ours), ENOTSUP (another schema), EUCLEAN (damaged beyond reading).
FPOLICY_API Result<DatabaseCheck> check_database(const std::string& path);

/// Copies a database, in one snapshot, whatever others write meanwhile, into a file that only its owner may
/// read. The copy is checked and synced before it has its name, and what had that name before is there until
/// then. Returns what the copy holds. Error: EEXIST where there is a file of that name, unless `replace`;
/// EUCLEAN where the database has a fault, since it must not take the place of a copy that has none.
FPOLICY_API Result<DatabaseCheck> backup_database(const std::string& path, const std::string& to,
                                                  bool replace);

}  // namespace fpolicy
