// SPDX-License-Identifier: LGPL-2.1-or-later
// Which records are stale, and taking them out.
#include <fpolicy/database_care.h>
#include <fpolicy/store.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fpolicy {
namespace {

// A transaction keeps others from writing.
constexpr std::size_t batch_size = 1024;

bool cannot_be_read(int code) {
  return code == EIO || code == EUCLEAN;
}

}  // namespace

Result<std::vector<StaleRecord>> find_stale(RecordStore& records, Identifier& identifier) {
  std::vector<StaleRecord> stale;
  std::set<std::string> failing;  // filesystems
  const auto done = records.for_each("", [&](const TagRecord& record) {
    auto finding = identifier.examine(record.identity, record.path);
    if (finding.fate == Fate::live) return true;
    if (cannot_be_read(finding.code)) failing.insert(record.identity.filesystem);
    stale.push_back({record, std::move(finding)});
    return true;
  });
  if (!done) return tl::unexpected(done.error());
  for (StaleRecord& found : stale)
    if (found.finding.fate == Fate::gone && failing.contains(found.record.identity.filesystem))
      found.finding = {
          .fate = Fate::unknown, .reason = "its filesystem cannot be read everywhere", .code = EIO};
  return stale;
}

Result<std::vector<TagRecord>> collect_stale(Database& database, Identifier& identifier,
                                             const std::vector<StaleRecord>& stale) {
  std::vector<TagRecord> gone;
  for (const StaleRecord& found : stale)
    if (found.finding.fate == Fate::gone) gone.push_back(found.record);
  // A path can be taken again. With a birth time the record would have changed then; without one, setting the
  // same policy says nothing new, and only the file shows that it was.
  const auto still = [&](const TagRecord& record) {
    return record.identity.birth_ns != 0 ||
           identifier.examine(record.identity, record.path).fate == Fate::gone;
  };
  std::vector<TagRecord> removed;
  std::span<const TagRecord> rest(gone);
  while (!rest.empty()) {
    const auto batch = rest.first(std::min(batch_size, rest.size()));
    auto erased = database.erase_unchanged(batch, still);
    if (!erased) return tl::unexpected(erased.error());
    std::move(erased->begin(), erased->end(), std::back_inserter(removed));
    rest = rest.subspan(batch.size());
  }
  return removed;
}

}  // namespace fpolicy
