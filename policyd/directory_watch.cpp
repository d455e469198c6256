// SPDX-License-Identifier: LGPL-2.1-or-later
#include "directory_watch.h"

#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fpolicy::policyd {

DirectoryWatch::DirectoryWatch(Administrator administrator)
    : administrator_(std::move(administrator)), inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}

void DirectoryWatch::watch_directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos || path.size() == 1) return;
  const std::string directory = slash == 0 ? "/" : path.substr(0, slash);
  {
    const std::scoped_lock lock(mutex_);
    if (paths_.contains(directory)) return;
  }
  // A filesystem that does not answer keeps the caller, not those who read.
  const auto held = open_administrators_directory(directory, administrator_);
  if (!held) return;
  const std::scoped_lock lock(mutex_);
  if (by_watch_.size() >= most_watches) {
    full_ = true;
    return;
  }
  const std::string name = fmt::format("/proc/self/fd/{}", held->get());
  // A rename, as package managers do, and what is made in place, also by a link.
  const int watch = ::inotify_add_watch(inotify_.get(), name.c_str(), IN_MOVED_TO | IN_CREATE | IN_ONLYDIR);
  if (watch < 0) {
    full_ = full_ || errno == ENOSPC;
    return;
  }
  // It may have been watched under another path: the one it has now counts.
  if (const auto before = by_watch_.find(watch); before != by_watch_.end()) paths_.erase(before->second);
  by_watch_[watch] = directory;
  paths_.insert(directory);
}

DirectoryWatch::Notices DirectoryWatch::read() {
  Notices notices;
  alignas(inotify_event) std::array<char, 65536> buffer;  // NOLINT: filled by read
  while (true) {
    const ssize_t count = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    const std::scoped_lock lock(mutex_);
    for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(count);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      const char* name = buffer.data() + at + sizeof event;
      at += sizeof event + event.len;
      if ((event.mask & IN_Q_OVERFLOW) != 0) notices.lost = true;
      const auto watched = by_watch_.find(event.wd);
      if (watched == by_watch_.end()) continue;
      if ((event.mask & IN_IGNORED) != 0) {
        // The directory is gone.
        paths_.erase(watched->second);
        by_watch_.erase(watched);
      } else if (event.len > 0) {
        // The name is padded with NUL bytes.
        const std::string_view above = watched->second == "/" ? "" : std::string_view(watched->second);
        notices.paths.push_back(fmt::format("{}/{}", above, name));
      }
    }
  }
  return notices;
}

std::size_t DirectoryWatch::size() const {
  const std::scoped_lock lock(mutex_);
  return by_watch_.size();
}

bool DirectoryWatch::is_full() const {
  const std::scoped_lock lock(mutex_);
  return full_;
}

}  // namespace fpolicy::policyd
