// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pins.h"

#include <fmt/format.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cerrno>
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
    : max_bytes_(max_bytes), watch_(IN_OPEN | IN_ACCESS | IN_MODIFY | IN_DELETE_SELF) {}

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
  watch_.forget(key);
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
  const std::scoped_lock lock(mutex_);
  OpenWatch::Notices notices = watch_.read();
  if (!notices.lost) return std::move(notices.files);
  std::vector<FileKey> all;
  all.reserve(pins_.size());
  for (const auto& [key, pin] : pins_) all.push_back(key);
  return all;
}

void Pins::watch(const FileKey& key, int fd) {
  const std::scoped_lock lock(mutex_);
  // Without a watch, the next round over the file looks at it again.
  if (pins_.contains(key)) watch_.watch(key, fd);
}

}  // namespace fpolicy::policyd
