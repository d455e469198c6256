// SPDX-License-Identifier: LGPL-2.1-or-later
// The rules directory, /etc/fpolicy/rules.d.
#pragma once

#include <fpolicy/result.h>

#include <string>
#include <vector>

namespace fpolicy {

struct RulesFile {
  std::string path;
  std::string text;
};

/// Reads every *.rules file of a directory, in the order of their names' bytes; hidden ones (an editor's) are
/// passed over. A directory that does not exist holds none. Files are opened in the held directory, so that
/// one that is replaced meanwhile is read whole, as it was or as it is. Error: what cannot be read, is no
/// regular file, or exceeds 1000 files or 64 MiB in all.
Result<std::vector<RulesFile>> read_rules_dir(const std::string& directory);

}  // namespace fpolicy
