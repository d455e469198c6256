// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <span>

namespace fpolicy::store {

/// schema/NNN_name.sql, embedded at build time. The i-th brings a database from user_version i to i + 1.
struct Migration {
  const char* name;
  const char* sql;
};

std::span<const Migration> migrations();

}  // namespace fpolicy::store
