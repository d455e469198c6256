// SPDX-License-Identifier: LGPL-2.1-or-later
// The files of the catalogue, wherever they are now.
#pragma once

#include "common/stores.h"

#include <fpolicy/store.h>
#include <fpolicy/tree.h>

#include <functional>

namespace fpolicy::tools {

/// What an open file is. Its path is empty where it has none that leads to it from here.
Result<NamedFile> hold_fd(Fd fd);

/// The file of a record, wherever it is now. Error: ESTALE or ENOENT where there is none any more, ENODEV
/// where its filesystem is not mounted.
Result<NamedFile> open_record(Identifier& identifier, const TagRecord& record);

/// Calls `each` for every record, by the path that it was tagged under. `first`: no other record of this file
/// came before. Error: nobody can tell the records (policyd does not run, and the caller may not read the
/// database), or they could not be read to the end.
Status for_each_record(Stores& stores, const Locations& locations,
                       const std::function<void(const TagRecord& record, bool first)>& each);

}  // namespace fpolicy::tools
