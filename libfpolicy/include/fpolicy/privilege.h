// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fpolicy {

/// May the caller do what root may on this machine: is it root, or does it have CAP_SYS_ADMIN in the
/// machine's first user namespace (where everybody who makes a namespace of his own has it, too, it does not
/// count)?
FPOLICY_API bool administers_machine();

/// Of the capabilities that policyd needs, those that this process lacks, with what it cannot do without
/// each: "CAP_SYS_NICE: cannot move pages that other processes map".
FPOLICY_API std::vector<std::string> missing_capabilities();

/// The supplementary groups of the process at the other end of a Unix socket (SO_PEERGROUPS, unix(7)).
FPOLICY_API Result<std::vector<gid_t>> peer_groups(int socket);

/// Can the calling thread reach this path? The file is not opened.
FPOLICY_API bool reaches(const std::string& path);

/// By whom and what the kernel decides who may reach a file.
struct FPOLICY_API FileUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< supplementary ones
};

enum class Reach : std::uint8_t {
  yes,
  no,
  unknown  ///< the caller itself cannot look: a server asks for more than this machine's capabilities
};

/// May this user search the directory and all on the way to it? By owners, modes and ACLs, as the kernel
/// decides (capabilities of his aside), so that no thread needs to become him; `no` also where a symbolic
/// link is on the way, and where somebody else's FUSE server or anything else cannot be asked. For a caller
/// who may look everywhere (CAP_DAC_READ_SEARCH).
FPOLICY_API Reach reaches_directory(const FileUser& user, const std::string& directory);

}  // namespace fpolicy
