// SPDX-License-Identifier: LGPL-2.1-or-later
#include "guard.h"

#include "journal.h"

#include <fpolicy/open_file.h>
#include <fpolicy/process.h>

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace fpolicy::policyd {
namespace {

/// What waits for the thread: more than the sentinel asks at a time, and what is told beside.
constexpr std::size_t most_requests = 4096;

/// Cgroup files that are held open for writing at a time; of more, nothing is held.
constexpr std::size_t most_moves = 1024;

/// Of the deadline: then what is held by now has to do, so that the answer is in time.
constexpr double share_of_deadline = 0.8;

/// Of the deadline: then all that stays is taken instead of what this job maps.
constexpr double share_for_maps = 0.3;

/// The kernel moves the pages within write(2). A write that takes longer than pages are held is waited for,
/// but not for ever: a writer can make his own stand still.
constexpr int longest_write = 60;        // times [guard] hold_seconds
constexpr std::size_t most_threads = 8;  // of a file's writers that are looked at
constexpr std::chrono::seconds look_again(1);

/// Is the thread within a write to the file with this inode? What it does while it runs is not shown: then
/// it is not. Source: proc(5), /proc/PID/syscall.
bool is_writing(pid_t thread, ino_t inode) {
  const auto call = read_text(fmt::format("/proc/{}/syscall", thread), 256);
  if (!call) return false;
  char* end = nullptr;
  const long number = std::strtol(call->c_str(), &end, 10);
  if (end == call->c_str()) return false;
  constexpr std::array writes = {SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_sendfile};
  if (std::ranges::find(writes, number) == writes.end()) return false;
  const auto fd = static_cast<unsigned>(std::strtoul(end, nullptr, 16));
  struct stat status{};
  return ::stat(fmt::format("/proc/{}/fd/{}", thread, fd).c_str(), &status) == 0 && status.st_ino == inode;
}

}  // namespace

Guard::Guard(Parts parts, const Config& config) : parts_(std::move(parts)), config_(config) {}

Guard::~Guard() {
  static_cast<void>(stop(std::chrono::seconds(5)));
}

void Guard::start() {
  const std::scoped_lock lock(mutex_);
  if (thread_.joinable()) return;
  if (!config_.guard) {
    told_.reason = "switched off";
    return;
  }
  if (parts_.cgroups == nullptr) {
    told_.reason = "cgroup2 is not mounted";
    return;
  }
  stopping_ = ended_ = false;
  sentinel_ = std::make_unique<Sentinel>(parts_.sentinel, parts_.cgroups->fd(),
                                         [this](const SentinelMessage& message) { enter(message); });
  if (const auto started = sentinel_->start(); !started) {
    told_.reason = started.error().message;
    sentinel_.reset();
    return;
  }
  sentinel_->set_deadline(config_.guard_deadline);
  parts_.stays->set_observer([sentinel = sentinel_.get()](bool any) { sentinel->set_nothing_to_hold(!any); });
  thread_ = std::thread([this] { run(); });
}

bool Guard::stop(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return true;
  stopping_ = true;
  changed_.notify_all();
  lock.unlock();
  parts_.stays->set_observer(nullptr);
  // Before all that may wait: nobody waits for us any more.
  sentinel_->stop();
  lock.lock();
  if (!changed_.wait_for(lock, patience, [this] { return ended_; })) return false;
  lock.unlock();
  thread_.join();
  lock.lock();
  sentinel_.reset();
  return true;
}

void Guard::set_config(const Config& config) {
  std::unique_lock lock(mutex_);
  const bool restarts = thread_.joinable() != config.guard || (sentinel_ && !sentinel_->state().watching);
  config_ = config;
  if (sentinel_) sentinel_->set_deadline(config.guard_deadline);
  lock.unlock();
  if (!restarts) return;
  if (!stop(std::chrono::seconds(1))) {
    log_line(Level::warning, "guard: it is busy with a filesystem that does not answer");
    return;
  }
  start();
}

GuardStatus Guard::status() const {
  const std::scoped_lock lock(mutex_);
  GuardStatus status = told_;
  if (sentinel_) {
    status.sentinel = sentinel_->state();
    status.counters = sentinel_->counters();
    status.on = status.sentinel.watching;
    status.reason = status.sentinel.reason;
  }
  status.files = parts_.stays->size();
  status.mapped_files = parts_.stays->mapped();
  return status;
}

/// In the sentinel's thread.
void Guard::enter(const SentinelMessage& message) {
  const Clock::time_point asked{std::chrono::nanoseconds(message.asked_ns)};
  const std::scoped_lock lock(mutex_);
  if (requests_.size() >= most_requests) return;  // the deadline lets the opener go
  requests_.push_back({.kind = message.kind,
                       .number = message.number,
                       .inode = message.inode,
                       .thread = message.thread,
                       .asked = asked,
                       .path = static_cast<const char*>(message.path)});
  changed_.notify_all();
}

void Guard::run() {
  ::pthread_setname_np(::pthread_self(), "policyd-guard");
  // Somebody waits for what this thread does; it sleeps otherwise.
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), -20);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (requests_.empty()) {
      lock.unlock();
      expire();
      lock.lock();
      told_.held_bytes = held_bytes_;
      if (!requests_.empty() || stopping_) continue;
      if (moves_.empty()) {
        changed_.wait(lock);
      } else {
        changed_.wait_until(lock, next_expiry_);
      }
      continue;
    }
    const Request request = std::move(requests_.front());
    requests_.pop_front();
    const auto hold_time = config_.guard_hold;
    lock.unlock();
    if (request.kind == sentinel_ask) {
      ask(request, hold_time);
    } else if (const auto move = moves_.find(request.inode); move == moves_.end()) {
      // Its writer was let go without asking us, or its pages were held long enough.
    } else if (request.kind == sentinel_written) {
      // Whoever goes on writing goes on moving.
      move->second.expires = Clock::now() + hold_time;
      move->second.ends = Clock::now() + longest_write * hold_time;
    } else if (--move->second.writers == 0) {
      let_go(move);
    }
    if (Clock::now() >= next_expiry_) expire();
    lock.lock();
    told_.held_bytes = held_bytes_;
  }
  moves_.clear();
  held_.clear();
  held_bytes_ = told_.held_bytes = 0;
  requests_.clear();
  ended_ = true;
  changed_.notify_all();
}

bool Guard::is_watched(std::string_view cgroup) const {
  const std::scoped_lock lock(mutex_);
  return std::ranges::any_of(config_.guard_cgroups, [&](const std::string& top) {
    return top == "/" ||
           (cgroup.starts_with(top) && (cgroup.size() == top.size() || cgroup[top.size()] == '/'));
  });
}

void Guard::ask(const Request& request, Clock::duration hold_time) {
  std::unique_lock lock(mutex_);
  const auto until =
      request.asked + std::chrono::duration_cast<Clock::duration>(config_.guard_deadline * share_of_deadline);
  lock.unlock();
  // Too late: the opener may be gone already.
  if (Clock::now() < until && (moves_.size() < most_moves || moves_.contains(request.inode))) {
    Move& move = moves_[request.inode];
    ++move.writers;
    if (move.threads.size() >= most_threads) move.threads.erase(move.threads.begin());
    move.threads.push_back(request.thread);
    move.expires = Clock::now() + hold_time;
    move.ends = Clock::now() + longest_write * hold_time;
    next_expiry_ = std::min(next_expiry_, move.expires);
    hold_for(move, request, until);
  }
  sentinel_->answer(request.number);
  if (parts_.asked) parts_.asked();
}

void Guard::hold_for(Move& move, const Request& request, Clock::time_point until) {
  bool is_whole = true;
  const auto files = choose(request, until);
  for (const Stay& stay : files) is_whole = hold(move, stay, until) && is_whole;
  if (files.empty()) return;
  const std::scoped_lock lock(mutex_);
  ++told_.holds;
  if (!is_whole) ++told_.partial;
  told_.most_held_bytes = std::max(told_.most_held_bytes, held_bytes_);
}

std::vector<Stay> Guard::choose(const Request& request, Clock::time_point until) const {
  if (parts_.stays->size() == 0) return {};
  // Another mount of the hierarchy (a container's) shows the file under another name: then the cgroup is not
  // known.
  const std::string& top = parts_.cgroups->mount_point();
  std::optional<CgroupChange> change;
  struct stat status{};
  if (request.path.starts_with(top + "/") && ::lstat(request.path.c_str(), &status) == 0 &&
      status.st_ino == request.inode) {
    change = classify_cgroup_write(std::string_view(request.path).substr(top.size() + 1));
  }
  if (change && !is_watched("/" + change->cgroup)) return {};
  if (!change || change->kind != CgroupChange::Kind::mems) return parts_.stays->list_mapped();

  const auto inodes = parts_.stays->inodes();
  const auto too_late =
      request.asked + std::chrono::duration_cast<Clock::duration>((until - request.asked) * share_for_maps);
  std::unordered_multimap<ino_t, MappedAt> mappers;
  bool is_whole = true;
  const auto walked = parts_.cgroups->walk(
      change->cgroup, true, [&](const std::string& /*path*/, const std::vector<pid_t>& processes) {
        for (const pid_t pid : processes) {
          is_whole = Clock::now() < too_late && add_mappers(pid, inodes, mappers, too_late);
          if (!is_whole) return false;
        }
        return true;
      });
  if (!walked || !is_whole) return parts_.stays->list_mapped();
  return parts_.stays->find(mappers);
}

/// False where not all of it could be held.
bool Guard::hold(Move& move, const Stay& stay, Clock::time_point until) {
  // Pins hold it for good.
  if (const auto pin = parts_.pins->find(stay.key); pin && pin->reason.empty()) return true;
  if (move.files.contains(stay.key)) return true;
  if (const auto held = held_.find(stay.key); held != held_.end()) {
    ++held->second.users;
    move.files.insert(stay.key);
    return held->second.is_whole;
  }
  const auto refuse = [&](const std::string& why) {
    const std::scoped_lock lock(mutex_);
    told_.last_refusal = fmt::format("{}: {}", stay.path, why);
    return false;
  };
  if (Clock::now() >= until) return refuse("no time was left");
  const auto named = reopen(stay);
  if (!named) return true;  // gone, with its pages
  const auto file = open_for_reading(named->get(), stay.path);
  if (!file) return refuse(file.error().message);
  std::uint64_t most = 0;
  {
    const std::scoped_lock lock(mutex_);
    most = config_.guard_max_bytes;
  }
  std::string why;
  Held held;
  const auto taken = held.hold.hold_resident(file->get(), [&](std::uint64_t so_far) {
    if (Clock::now() >= until) why = "no time was left";
    if (held_bytes_ + so_far >= most) why = "guard.max_bytes is reached";
    return why.empty();
  });
  if (!taken) return refuse(taken.error().message);
  held.bytes = *taken;
  held.users = 1;
  held.is_whole = why.empty();
  held_bytes_ += held.bytes;
  held_.emplace(stay.key, std::move(held));
  move.files.insert(stay.key);
  return why.empty() ? true : refuse(why);
}

void Guard::let_go(std::unordered_map<std::uint64_t, Move>::iterator move) {
  for (const FileKey& key : move->second.files) {
    const auto held = held_.find(key);
    if (held == held_.end() || --held->second.users > 0) continue;
    held_bytes_ -= held->second.bytes;
    held_.erase(held);
  }
  moves_.erase(move);
}

/// Lets go of what was held long enough.
void Guard::expire() {
  const auto now = Clock::now();
  next_expiry_ = Clock::time_point::max();
  for (auto move = moves_.begin(); move != moves_.end();) {
    const auto current = move++;
    const auto writes = [&](pid_t thread) { return is_writing(thread, current->first); };
    if (current->second.expires <= now && now < current->second.ends &&
        std::ranges::any_of(current->second.threads, writes)) {
      current->second.expires = now + look_again;
    }
    if (current->second.expires > now) {
      next_expiry_ = std::min(next_expiry_, current->second.expires);
      continue;
    }
    const bool had_held = !current->second.files.empty();
    let_go(current);
    if (!had_held) continue;
    const std::scoped_lock lock(mutex_);
    ++told_.expired;
  }
}

}  // namespace fpolicy::policyd
