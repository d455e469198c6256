// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace fpolicy::sys {

/// Has the calling thread this capability (CAP_…) in force, in its own user namespace?
bool has_capability(unsigned number);

}  // namespace fpolicy::sys
