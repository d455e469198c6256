// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pins.h"

#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fpolicy::policyd {
namespace {

/// Some 4 MiB of paths and the like.
constexpr std::size_t most_files = 4096;

/// Two descriptors each, of the 65,536 that we have. 4 GiB where none is larger than 1 MiB, which is what a
/// process without CAP_SYS_RESOURCE may have.
constexpr std::size_t most_pipes = 4096;

std::string in_mib(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1U << 20U));
}

}  // namespace

Pins::Pins(std::uint64_t max_bytes)
    : max_bytes_(max_bytes), inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}

std::optional<KnownFile> Pins::find(const FileKey& key) const {
  const std::scoped_lock lock(mutex_);
  const auto pin = pins_.find(key);
  return pin == pins_.end() ? std::nullopt : std::optional(pin->second.file);
}

bool Pins::is_current(const FileKey& key, std::int64_t ctime_ns, std::uint64_t resident_pages) const {
  const std::scoped_lock lock(mutex_);
  const auto pin = pins_.find(key);
  // What is held stays resident, unless it was cut off the file: as many pages are the same pages.
  return pin != pins_.end() && pin->second.reason.empty() && pin->second.ctime_ns == ctime_ns &&
         pin->second.held_pages == resident_pages;
}

std::string Pins::hold(const KnownFile& file, std::int64_t ctime_ns, int fd, std::uint64_t page_size,
                       std::span<const PageRun> resident) {
  std::uint64_t pages = 0;
  for (const PageRun& run : resident) pages += run.count;
  const std::uint64_t bytes = pages * page_size;
  std::unique_lock lock(mutex_);
  const auto known = pins_.find(file.key);
  const std::uint64_t others = held_bytes_ - (known == pins_.end() ? 0 : known->second.held_bytes);
  const std::size_t others_pipes = pipes_ - (known == pins_.end() ? 0 : known->second.hold.pipes());
  if (bytes > max_bytes_ || others > max_bytes_ - bytes) {
    const std::string reason = fmt::format("not pinned: {} do not fit beside {} in pin.max_bytes, {}",
                                           in_mib(bytes), in_mib(others), in_mib(max_bytes_));
    lock.unlock();
    refuse(file, reason);
    return reason;
  }
  lock.unlock();
  // Without the lock: it reads what was reclaimed a moment ago.
  PageHold fresh;
  for (const PageRun& run : resident) {
    const auto held = fresh.hold(fd, run.first * page_size, run.count * page_size);
    std::string why;
    if (!held) {
      why =
          held.error().code == EINVAL ? "its filesystem gives no references on pages" : held.error().message;
    } else if (fresh.pipes() + others_pipes > most_pipes) {
      why = "too many pipes would be needed";
    }
    if (why.empty()) continue;
    why = "not pinned: " + why;
    refuse(file, why);
    return why;
  }
  lock.lock();
  if (pins_.size() >= most_files && !pins_.contains(file.key))
    return fmt::format("not pinned: {} files are", most_files);
  Pin& pin = pins_[file.key];
  held_bytes_ += bytes - pin.held_bytes;
  pipes_ += fresh.pipes() - pin.hold.pipes();
  pin.file = file;
  pin.ctime_ns = ctime_ns;
  pin.held_pages = pages;
  pin.held_bytes = bytes;
  pin.reason.clear();
  pin.hold = std::move(fresh);
  return {};
}

void Pins::refuse(const KnownFile& file, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  if (pins_.size() >= most_files && !pins_.contains(file.key)) return;
  Pin& pin = pins_[file.key];
  pin.file = file;
  pin.reason = reason;
}

bool Pins::let_go(const FileKey& key) {
  const std::scoped_lock lock(mutex_);
  const auto found = pins_.find(key);
  if (found == pins_.end() || found->second.held_pages == 0) return false;
  Pin& pin = found->second;
  held_bytes_ -= pin.held_bytes;
  pipes_ -= pin.hold.pipes();
  pin.held_pages = pin.held_bytes = 0;
  pin.hold.release();
  pin.reason = "its pages are being moved";
  return true;
}

bool Pins::release(const FileKey& key) {
  const bool had_pages = let_go(key);
  const std::scoped_lock lock(mutex_);
  const auto found = pins_.find(key);
  if (found == pins_.end()) return false;
  forget_watch(found->second);
  pins_.erase(found);
  return had_pages;
}

void Pins::set_max(std::uint64_t max_bytes) {
  const std::scoped_lock lock(mutex_);
  max_bytes_ = max_bytes;
}

std::vector<FileKey> Pins::keys() const {
  const std::scoped_lock lock(mutex_);
  std::vector<FileKey> keys;
  keys.reserve(pins_.size());
  for (const auto& [key, pin] : pins_) keys.push_back(key);
  return keys;
}

std::vector<FileKey> Pins::refused() const {
  const std::scoped_lock lock(mutex_);
  std::vector<FileKey> keys;
  for (const auto& [key, pin] : pins_)
    if (!pin.reason.empty()) keys.push_back(key);
  return keys;
}

std::vector<PinInfo> Pins::list() const {
  const std::scoped_lock lock(mutex_);
  std::vector<PinInfo> list;
  list.reserve(pins_.size());
  for (const auto& [key, pin] : pins_)
    list.push_back({.path = pin.file.path,
                    .policy = pin.file.policy,
                    .held_bytes = pin.held_bytes,
                    .reason = pin.reason});
  std::ranges::sort(list, {}, &PinInfo::path);
  return list;
}

std::uint64_t Pins::held_bytes() const {
  const std::scoped_lock lock(mutex_);
  return held_bytes_;
}

std::uint64_t Pins::max_bytes() const {
  const std::scoped_lock lock(mutex_);
  return max_bytes_;
}

std::vector<FileKey> Pins::read_changes() {
  std::vector<FileKey> changed;
  alignas(inotify_event) std::array<char, 16384> buffer;  // NOLINT: filled by read
  while (true) {
    const ssize_t count = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return changed;
    const std::scoped_lock lock(mutex_);
    for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(count);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += sizeof event + event.len;
      if ((event.mask & IN_Q_OVERFLOW) != 0) {
        changed.clear();
        for (const auto& [key, pin] : pins_) changed.push_back(key);
        continue;
      }
      const auto watched = watches_.find(event.wd);
      if (watched == watches_.end()) continue;
      const FileKey key = watched->second;
      watches_.erase(watched);
      if (const auto pin = pins_.find(key); pin != pins_.end() && pin->second.watch == event.wd)
        pin->second.watch = -1;
      changed.push_back(key);
    }
  }
}

void Pins::watch(const FileKey& key, int fd) {
  const std::scoped_lock lock(mutex_);
  const auto found = pins_.find(key);
  if (found == pins_.end()) return;
  forget_watch(found->second);
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  const int watch = ::inotify_add_watch(inotify_.get(), path.c_str(),
                                        IN_OPEN | IN_ACCESS | IN_MODIFY | IN_DELETE_SELF | IN_ONESHOT);
  if (watch < 0) return;  // the next round over the file looks at it again
  found->second.watch = watch;
  watches_[watch] = key;
}

/// With mutex_ held.
void Pins::forget_watch(Pin& pin) {
  if (pin.watch < 0) return;
  watches_.erase(pin.watch);
  ::inotify_rm_watch(inotify_.get(), pin.watch);
  pin.watch = -1;
}

}  // namespace fpolicy::policyd
