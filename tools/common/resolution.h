// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "common/command.h"

#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>

#include <memory>

namespace fpolicy::tools {

/// The rules, and a resolver over them and the store.
struct Resolution {
  std::shared_ptr<const RuleSet> rules;
  std::unique_ptr<Resolver> resolver;
  static Result<Resolution> open(const Locations& locations, PolicyStore& store);
};

}  // namespace fpolicy::tools
