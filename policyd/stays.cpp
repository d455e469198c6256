// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stays.h"

#include <fpolicy/process.h>

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

namespace fpolicy::policyd {
namespace {

/// Some 8 MiB of paths and the like.
constexpr std::size_t most_stays = 16'384;

/// A file may be reached through any of its mappers; the first may have ended.
constexpr std::size_t most_mappers = 3;

/// Anybody may map one file any number of times: each process is entered once, and no more of them than are
/// ever looked at.
void enter_mapper(pid_t pid, const FileMapping& mapping, std::unordered_multimap<ino_t, MappedAt>& mappers) {
  const auto [first, end] = mappers.equal_range(mapping.inode);
  if (static_cast<std::size_t>(std::distance(first, end)) >= most_mappers) return;
  const bool is_known = std::any_of(first, end, [&](const auto& entry) {
    return entry.second.pid == pid && entry.second.mapping.device == mapping.device;
  });
  if (!is_known) mappers.emplace(mapping.inode, MappedAt{.pid = pid, .mapping = mapping});
}

}  // namespace

bool pages_stay(const Effective& effective) {
  return effective.policy && !effective.unsupported && !effective.from_user &&
         (effective.policy->migrate != Migrate::yes || effective.policy->pin);
}

bool add_mappers(pid_t pid, const std::unordered_set<ino_t>& inodes,
                 std::unordered_multimap<ino_t, MappedAt>& mappers, Work::Clock::time_point until) {
  if (pid == ::getpid()) return true;
  const auto process = Process::open(pid);
  if (!process) return true;
  bool in_time = true;
  unsigned count = 0;
  const auto read = process->each_file_mapping([&](const FileMapping& mapping) {
    if (inodes.contains(mapping.inode)) enter_mapper(pid, mapping, mappers);
    constexpr unsigned between_looks = 256;
    if (++count % between_looks == 0) in_time = Work::Clock::now() < until;
    return in_time;
  });
  return in_time || !read;
}

Result<Fd> reopen(const Stay& stay) {
  const auto is_it = [&stay](int fd) {
    const auto info = file_info(fd);
    return info && info->key == stay.key && info->birth_ns == stay.birth_ns;
  };
  if (!stay.path.empty()) {
    auto fd = open_path_only(stay.path);
    if (fd && is_it(fd->get())) return std::move(*fd);
  }
  for (const MappedAt& at : stay.mappers) {
    const auto process = Process::open(at.pid);
    if (!process) continue;
    auto fd = process->open_mapped(at.mapping);
    if (fd && is_it(fd->get())) return std::move(*fd);
  }
  return fail_errno("open", stay.path, ENOENT);
}

Stays::Stays() : watch_(IN_OPEN) {}

bool Stays::put(Stay stay) {
  const std::scoped_lock lock(mutex_);
  ino_t inode_in_maps = 0;
  if (!stay.mappers.empty() && stay.mappers[0].mapping.inode != stay.key.inode)
    inode_in_maps = stay.mappers[0].mapping.inode;
  const auto found = stays_.find(stay.key);
  if (found == stays_.end()) {
    if (stays_.size() >= most_stays) return false;
    const FileKey key = stay.key;
    Entry& entry = stays_[key];
    entry.inode_in_maps = inode_in_maps;
    entry.stay = std::move(stay);
    tell_observer();
    return true;
  }
  if (inode_in_maps != 0) found->second.inode_in_maps = inode_in_maps;
  Stay& known = found->second.stay;
  if (stay.mappers.empty()) stay.mappers = std::move(known.mappers);
  known = std::move(stay);
  return false;
}

void Stays::erase(const FileKey& key) {
  const std::scoped_lock lock(mutex_);
  const auto found = stays_.find(key);
  if (found == stays_.end()) return;
  watch_.forget(key);
  stays_.erase(found);
  tell_observer();
}

void Stays::set_observer(std::function<void(bool any)> observer) {
  const std::scoped_lock lock(mutex_);
  observer_ = std::move(observer);
  told_any_ = !stays_.empty();
  if (observer_) observer_(told_any_);
}

/// With mutex_ held.
void Stays::tell_observer() {
  if (stays_.empty() != told_any_) return;
  told_any_ = !stays_.empty();
  if (observer_) observer_(told_any_);
}

std::size_t Stays::size() const {
  const std::scoped_lock lock(mutex_);
  return stays_.size();
}

std::size_t Stays::mapped() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<std::size_t>(
      std::ranges::count_if(stays_, [](const auto& item) { return !item.second.stay.mappers.empty(); }));
}

std::unordered_set<ino_t> Stays::inodes() const {
  const std::scoped_lock lock(mutex_);
  std::unordered_set<ino_t> inodes;
  inodes.reserve(stays_.size());
  for (const auto& [key, entry] : stays_) {
    inodes.insert(key.inode);
    if (entry.inode_in_maps != 0) inodes.insert(entry.inode_in_maps);
  }
  return inodes;
}

/// An inode number may be that of several files; which, reopen() tells.
std::vector<MappedAt> Stays::mappers_of(const Entry& entry,
                                        const std::unordered_multimap<ino_t, MappedAt>& mappers) {
  std::vector<MappedAt> found;
  for (const ino_t inode : {entry.stay.key.inode, entry.inode_in_maps}) {
    const auto [first, end] = mappers.equal_range(inode);
    for (auto mapper = first; mapper != end && found.size() < most_mappers; ++mapper)
      found.push_back(mapper->second);
  }
  return found;
}

void Stays::set_mappers(const std::unordered_multimap<ino_t, MappedAt>& mappers) {
  const std::scoped_lock lock(mutex_);
  for (auto& [key, entry] : stays_) entry.stay.mappers = mappers_of(entry, mappers);
}

std::vector<Stay> Stays::list_mapped() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Stay> list;
  for (const auto& [key, entry] : stays_)
    if (!entry.stay.mappers.empty()) list.push_back(entry.stay);
  return list;
}

std::vector<Stay> Stays::find(const std::unordered_multimap<ino_t, MappedAt>& mappers) const {
  const std::scoped_lock lock(mutex_);
  std::vector<Stay> list;
  for (const auto& [key, entry] : stays_) {
    auto found = mappers_of(entry, mappers);
    if (found.empty()) continue;
    list.push_back(entry.stay);
    list.back().mappers = std::move(found);
  }
  return list;
}

bool Stays::read_opened() {
  const std::scoped_lock lock(mutex_);
  const OpenWatch::Notices notices = watch_.read();
  return notices.lost || !notices.files.empty();
}

std::vector<Stay> Stays::unwatched() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Stay> list;
  for (const auto& [key, entry] : stays_)
    if (entry.stay.mappers.empty() && !watch_.contains(key)) list.push_back(entry.stay);
  return list;
}

bool Stays::watch(const FileKey& key, int fd) {
  const std::scoped_lock lock(mutex_);
  return !stays_.contains(key) || watch_.watch(key, fd);
}

}  // namespace fpolicy::policyd
