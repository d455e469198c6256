// SPDX-License-Identifier: LGPL-2.1-or-later
// Every statement that runs on the catalogue, in one place: a test asks SQLite for the plan of each.
#pragma once

namespace fpolicy::store {

// Columns 0 to 10 of every row that is read.
#define FPOLICY_TAG_COLUMNS                                                                         \
  "tag.filesystem, filesystem.name, tag.stored_key, tag.space, tag.carrier, tag.policy, tag.path, " \
  "tag.directory, "                                                                                 \
  "tag.birth_ns, tag.uid, tag.changed_ns"

inline constexpr const char* find_sql =
    "SELECT " FPOLICY_TAG_COLUMNS
    " FROM filesystem JOIN tag ON tag.filesystem = filesystem.id"
    " WHERE filesystem.name = ?1 AND tag.stored_key = ?2 AND tag.space = ?3";

// Every record, in the table's own order, for a check; as below, one without its filesystem is not left out.
inline constexpr const char* every_sql =
    "SELECT " FPOLICY_TAG_COLUMNS " FROM tag LEFT JOIN filesystem ON filesystem.id = tag.filesystem";

// In pages, so that no read transaction is held while the caller works. Starts behind the row of these four.
// A row whose filesystem is missing comes without its name: damage, and not to be left out.
inline constexpr const char* page_sql =
    "SELECT " FPOLICY_TAG_COLUMNS
    " FROM tag LEFT JOIN filesystem ON filesystem.id = tag.filesystem"
    " WHERE (tag.path, tag.filesystem, tag.stored_key, tag.space) > (?1, ?2, ?3, ?4)"
    " ORDER BY tag.path, tag.filesystem, tag.stored_key, tag.space LIMIT 256";

#undef FPOLICY_TAG_COLUMNS

inline constexpr const char* carried_sql =
    "SELECT name FROM filesystem"
    " WHERE EXISTS (SELECT 1 FROM tag INDEXED BY tag_carried WHERE tag.filesystem = filesystem.id AND "
    "tag.carrier = 1)";

inline constexpr const char* add_filesystem_sql =
    "INSERT INTO filesystem (name) VALUES (?1) ON CONFLICT (name) DO NOTHING";

inline constexpr const char* filesystem_sql = "SELECT id FROM filesystem WHERE name = ?1";

// A record that says nothing new is not written again; an unknown path does not replace a known one.
#define FPOLICY_PUT                                                                                   \
  "INSERT INTO tag (filesystem, stored_key, space, carrier, policy, path, directory, birth_ns, uid, " \
  "changed_ns)"                                                                                       \
  " VALUES "
#define FPOLICY_PUT_ROW "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
#define FPOLICY_PUT_OR_UPDATE                                                                        \
  " ON CONFLICT (filesystem, stored_key, space) DO UPDATE SET carrier = excluded.carrier, policy = " \
  "excluded.policy,"                                                                                 \
  " path = iif(excluded.path = x'', path, excluded.path), directory = excluded.directory,"           \
  " birth_ns = excluded.birth_ns, uid = excluded.uid, changed_ns = excluded.changed_ns"              \
  " WHERE carrier <> excluded.carrier OR policy <> excluded.policy OR birth_ns <> excluded.birth_ns" \
  " OR directory <> excluded.directory OR (path <> excluded.path AND excluded.path <> x'')"

inline constexpr int put_columns = 10;
inline constexpr const char* put_sql = FPOLICY_PUT FPOLICY_PUT_ROW FPOLICY_PUT_OR_UPDATE;

// So many at a time cost each less, since SQLite stays where it is in the table and its indexes.
inline constexpr int put_rows = 64;
#define FPOLICY_PUT_4 FPOLICY_PUT_ROW ", " FPOLICY_PUT_ROW ", " FPOLICY_PUT_ROW ", " FPOLICY_PUT_ROW
#define FPOLICY_PUT_16 FPOLICY_PUT_4 ", " FPOLICY_PUT_4 ", " FPOLICY_PUT_4 ", " FPOLICY_PUT_4
inline constexpr const char* put_rows_sql = FPOLICY_PUT FPOLICY_PUT_16
    ", " FPOLICY_PUT_16 ", " FPOLICY_PUT_16 ", " FPOLICY_PUT_16 FPOLICY_PUT_OR_UPDATE;
#undef FPOLICY_PUT
#undef FPOLICY_PUT_ROW
#undef FPOLICY_PUT_4
#undef FPOLICY_PUT_16
#undef FPOLICY_PUT_OR_UPDATE

inline constexpr const char* erase_sql =
    "DELETE FROM tag WHERE filesystem = (SELECT id FROM filesystem WHERE name = ?1) AND stored_key = ?2 AND "
    "space = "
    "?3";

// A record that was set anew since it was read is another.
inline constexpr const char* erase_unchanged_sql =
    "DELETE FROM tag WHERE filesystem = (SELECT id FROM filesystem WHERE name = ?1) AND stored_key = ?2 AND "
    "space = "
    "?3 AND carrier = ?4 AND policy = ?5 AND birth_ns = ?6 AND changed_ns = ?7";

// From a path on. Only the first rows are looked at, which therefore must need no sorting.
inline constexpr const char* from_path_sql =
    "SELECT tag.path, tag.space, tag.stored_key, filesystem.name"
    " FROM tag LEFT JOIN filesystem ON filesystem.id = tag.filesystem"
    " WHERE tag.path >= ?1 ORDER BY tag.path, tag.filesystem, tag.stored_key, tag.space";

// Of all other files: their path leads to this one now. What they carry, and are found by, stays.
inline constexpr const char* release_path_sql =
    "UPDATE tag SET path = x'' WHERE path = ?1 AND space = ?2"
    " AND (stored_key <> ?3 OR filesystem IS NOT (SELECT id FROM filesystem WHERE name = ?4))";

inline constexpr const char* version_sql = "PRAGMA data_version";

}  // namespace fpolicy::store
