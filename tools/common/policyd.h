// SPDX-License-Identifier: LGPL-2.1-or-later
// What the commands ask of policyd.
#pragma once

#include <fpolicy/client.h>

namespace fpolicy::tools {
using namespace client;
}
