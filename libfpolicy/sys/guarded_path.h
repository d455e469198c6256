// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <string>
#include <string_view>

namespace fpolicy::sys {

/// Opens (O_PATH) what an absolute path names, if `owner` alone can have put it there: every directory from
/// `top` on (itself included; what lies above is not asked) and the file itself are `owner`'s, nobody else
/// may write the directories, and no symbolic link is on the way. With an ACL the mode's group bits are its
/// mask, so the mode tells of ACLs as well. Error: EPERM with the reason, else that of the system call.
Result<Fd> open_guarded_path(std::string_view path, uid_t owner, const std::string& top = "/");

}  // namespace fpolicy::sys
