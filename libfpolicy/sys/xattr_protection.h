// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace fpolicy::sys {

/// Does this kernel let nobody but CAP_SYS_ADMIN write security.* attributes? Where the BPF LSM is active,
/// Linux before 6.10 lets everybody write them, on everybody's files: its empty hook answers "allowed" in
/// place of the capability check. Debian 12's 6.1 kernel is so by default. Found out once, by trying; false
/// where it cannot be tried.
bool protects_security_xattrs();

}  // namespace fpolicy::sys
