// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/privilege.h>

#include <sys/stat.h>

#include <string_view>

namespace fpolicy::sys {

/// May this user search a directory with this owner, group and mode? `acl`: its system.posix_acl_access,
/// empty where it has none. What cannot be understood says no.
bool may_search(const FileUser& user, const struct stat& directory, std::string_view acl);

}  // namespace fpolicy::sys
