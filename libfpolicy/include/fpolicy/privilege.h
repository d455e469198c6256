// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <string>
#include <vector>

namespace fpolicy {

/// Of the capabilities that policyd needs, those that this process lacks, with what it cannot do without
/// each: "CAP_SYS_NICE: cannot move pages that other processes map".
FPOLICY_API Result<std::vector<std::string>> missing_capabilities();

/// The supplementary groups of the process at the other end of a Unix socket (SO_PEERGROUPS, unix(7)).
FPOLICY_API Result<std::vector<gid_t>> peer_groups(int socket);

/// From now on the calling thread, and it alone, reaches files only as this user may (setfsuid(2)); its
/// capabilities to pass over file permissions are gone. For threads that end when they have served the user.
FPOLICY_API Status assume_file_access(uid_t uid, gid_t gid, const std::vector<gid_t>& groups);

/// Can the calling thread reach this path? The file is not opened.
FPOLICY_API bool reaches(const std::string& path);

}  // namespace fpolicy
