// SPDX-License-Identifier: LGPL-2.1-or-later
#include "open_watch.h"

#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace fpolicy::policyd {

OpenWatch::OpenWatch(std::uint32_t events)
    : events_(events), inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}

bool OpenWatch::watch(const FileKey& key, int fd) {
  forget(key);
  if (by_key_.size() >= most_watches) return false;
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  const int watch = ::inotify_add_watch(inotify_.get(), path.c_str(), events_ | IN_ONESHOT);
  if (watch < 0) return false;
  by_watch_[watch] = key;
  by_key_[key] = watch;
  return true;
}

void OpenWatch::forget(const FileKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  ::inotify_rm_watch(inotify_.get(), found->second);
  by_watch_.erase(found->second);
  by_key_.erase(found);
}

OpenWatch::Notices OpenWatch::read() {
  Notices notices;
  alignas(inotify_event) std::array<char, 16384> buffer;  // NOLINT: filled by read
  while (true) {
    const ssize_t count = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(count);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += sizeof event + event.len;
      if ((event.mask & IN_Q_OVERFLOW) != 0) notices.lost = true;
      const auto watched = by_watch_.find(event.wd);
      if (watched == by_watch_.end()) continue;  // forgotten, or the end of a watch that was told
      notices.files.push_back(watched->second);
      by_key_.erase(watched->second);
      by_watch_.erase(watched);
    }
  }
  if (notices.lost) {
    for (const auto& [watch, key] : by_watch_) ::inotify_rm_watch(inotify_.get(), watch);
    by_watch_.clear();
    by_key_.clear();
  }
  return notices;
}

}  // namespace fpolicy::policyd
