// SPDX-License-Identifier: LGPL-2.1-or-later
// Checking the database of tags, copying it while others write, and collecting what is stale in it.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>

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

/// A record that no file answers to, or of which that cannot be said.
struct FPOLICY_API StaleRecord {
  TagRecord record;
  Finding finding;
};

/// Examines every record; those of live files are left out. A file that is gone by its handle counts as
/// unknown where another of its filesystem could not be read: the kernel's answer for handles does not tell
/// the two apart. Error: the records could not be read to the end.
FPOLICY_API Result<std::vector<StaleRecord>> find_stale(RecordStore& records, Identifier& identifier);

/// Removes records whose files are gone, and those alone, in transactions of 1,024: what has been set anew
/// since it was found stays. Returns what was removed; on an error some of it may have been.
FPOLICY_API Result<std::vector<TagRecord>> collect_stale(Database& database, Identifier& identifier,
                                                         const std::vector<StaleRecord>& stale);

}  // namespace fpolicy
