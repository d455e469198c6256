// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/rules_dir.h"

#include <fpolicy/rules.h>

namespace fpolicy {

Result<std::shared_ptr<const RuleSet>> load_rules(const std::string& directory) {
  const auto files = read_rules_dir(directory);
  if (!files) return tl::unexpected<Error>(files.error());
  auto rules = std::make_shared<RuleSet>();
  for (const RulesFile& file : *files) {
    if (Status added = rules->add(file.text, file.path); !added) {
      return tl::unexpected<Error>(std::move(added.error()));
    }
  }
  return rules;
}

}  // namespace fpolicy
