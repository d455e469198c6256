// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Everything else in libfpolicy.so is hidden.
#define FPOLICY_API __attribute__((visibility("default")))
