// SPDX-License-Identifier: LGPL-2.1-or-later
// What opening a database, checking it and copying it have in common.
#pragma once

#include "store/sqlite.h"

#include <fpolicy/store.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace fpolicy::store {

// Bounds for what is read from a row, in bytes: an xattr's value, a handle or path in a key, a path.
inline constexpr std::size_t max_policy = 255;
inline constexpr std::size_t max_path = 65'536;

/// Before anything can change it: a file that is not ours, or newer, must stay as it is. Error: EINVAL,
/// ENOTSUP, EUCLEAN, with the file's name.
Status check_kind(const std::string& path);

/// Removes a file that has not become a database, with what SQLite may have laid beside it.
void remove_database(const std::string& path);

/// A key as it stands in the database, and back: see schema/002_keys_by_inode.sql.
std::string stored_key(std::string_view key);

/// The record of a row with the columns of statements.h. Error: EUCLEAN, without the file's name.
Result<TagRecord> read_row(const Statement& row);

}  // namespace fpolicy::store
