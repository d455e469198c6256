// SPDX-License-Identifier: LGPL-2.1-or-later
// Act: moves what a survey has decided, several processes and threads at a time.
#pragma once

#include "job/survey.h"
#include "sys/process_pages.h"

#include <fpolicy/migrate.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fpolicy::job {

struct MoveOptions {
  unsigned threads = 1;
  std::uint64_t bytes_per_second = 0;  ///< 0: no limit
  unsigned busy_retries = 5;
  std::uint64_t page_size = 4096;
  bool own_pages_only = false;  ///< pages that others map by now stay, and do not fail
  /// Called by the calling thread now and then with pages that were dealt with; false: stop.
  std::function<bool(std::uint64_t pages)> progress;
};

struct MoveResult {
  std::uint64_t moved = 0;  ///< pages
  bool stopped = false;
  std::vector<std::string> notes;  ///< for people: why pages were left
};

/// Moves `runs`. In `groups`, pages that were counted as moved and are not become busy, failed, vanished or,
/// where the work was stopped before, stayed; and lie where they were.
MoveResult move_runs(std::span<const MoveRun> runs,
                     std::span<const std::unique_ptr<sys::ProcessPages>> processes,
                     std::span<MigrateGroup> groups, const MoveOptions& options);

}  // namespace fpolicy::job
