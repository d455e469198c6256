// SPDX-License-Identifier: LGPL-2.1-or-later
#include "known_files.h"

#include <algorithm>
#include <array>
#include <utility>

namespace fpolicy::policyd {

std::string_view to_string(FileState state) {
  constexpr std::array<std::string_view, 5> names{"ok", "misplaced", "unset", "unsupported", "unsatisfiable"};
  return names.at(static_cast<std::size_t>(state));
}

KnownFile* KnownFiles::find(const FileKey& key) {
  const auto found = files_.find(key);
  return found == files_.end() ? nullptr : &found->second.file;
}

void KnownFiles::put(KnownFile file) {
  const FileKey key = file.key;
  erase(key);
  if (file.home) runs_ += file.home->size();
  if (file.backoff.count() > 0) ++waiting_;
  files_.emplace(key, Entry{.file = std::move(file), .met = ++now_});
  shrink(key);
}

void KnownFiles::erase(const FileKey& key) {
  const auto found = files_.find(key);
  if (found == files_.end()) return;
  if (found->second.file.home) runs_ -= found->second.file.home->size();
  if (found->second.file.backoff.count() > 0) --waiting_;
  files_.erase(found);
}

void KnownFiles::clear_backoff(const FileKey& key) {
  const auto found = files_.find(key);
  if (found == files_.end() || found->second.file.backoff.count() == 0) return;
  found->second.file.backoff = {};
  --waiting_;
}

void KnownFiles::shrink(const FileKey& kept) {
  const auto by_age = [](const auto& a, const auto& b) { return a.second.met < b.second.met; };
  if (files_.size() > most_files_) {
    const auto oldest = std::ranges::min_element(files_, by_age);
    erase(oldest->first);
  }
  // The snapshot of one file may by itself be too large; then it has none.
  while (runs_ > most_runs_) {
    auto victim = files_.end();
    for (auto entry = files_.begin(); entry != files_.end(); ++entry) {
      if (!entry->second.file.home || entry->second.file.home->empty() || entry->first == kept) continue;
      if (victim == files_.end() || by_age(*entry, *victim)) victim = entry;
    }
    if (victim == files_.end()) victim = files_.find(kept);
    runs_ -= victim->second.file.home->size();
    victim->second.file.home.reset();
  }
}

std::vector<FileKey> KnownFiles::keys() const {
  std::vector<FileKey> keys;
  keys.reserve(files_.size());
  for (const auto& [key, entry] : files_) keys.push_back(key);
  return keys;
}

}  // namespace fpolicy::policyd
