// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/resolution.h"

namespace fpolicy::tools {

Result<Resolution> Resolution::open(const Locations& locations, PolicyStore& store) {
  auto rules = load_rules(locations.rules);
  if (!rules) return tl::unexpected(rules.error());
  Resolution resolution;
  resolution.rules = *std::move(rules);
  resolution.resolver = std::make_unique<Resolver>(&store, resolution.rules);
  return resolution;
}

}  // namespace fpolicy::tools
