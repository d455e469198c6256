// SPDX-License-Identifier: LGPL-2.1-or-later
#include "work_queue.h"

#include <algorithm>
#include <utility>

namespace fpolicy::policyd {

bool WorkQueue::push(Work work) {
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return false;
    if (const auto found = by_key_.find(work.key); found != by_key_.end()) {
      Work& queued = *found->second;
      queued.priority = std::min(queued.priority, work.priority);
      queued.due = std::min(queued.due, work.due);
      queued.run = std::move(work.run);
    } else {
      if (items_.size() >= most_) return false;
      items_.push_back(std::move(work));
      by_key_.emplace(items_.back().key, std::prev(items_.end()));
    }
  }
  changed_.notify_all();
  return true;
}

WorkQueue::List::const_iterator WorkQueue::best(Work::Clock::time_point now) const {
  auto found = items_.end();
  for (auto item = items_.begin(); item != items_.end(); ++item) {
    if (item->due <= now && (found == items_.end() || item->priority < found->priority)) found = item;
  }
  return found;
}

Work WorkQueue::take(List::const_iterator item) {
  by_key_.erase(item->key);
  List taken;
  taken.splice(taken.begin(), items_, item);
  return std::move(taken.front());
}

std::optional<Work> WorkQueue::pop() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    if (const auto found = best(Work::Clock::now()); found != items_.end()) return take(found);
    if (items_.empty()) {
      changed_.wait(lock);
    } else {
      const auto next = std::ranges::min_element(items_, {}, &Work::due)->due;
      changed_.wait_until(lock, next);
    }
  }
  return std::nullopt;
}

std::optional<Work> WorkQueue::pop_urgent(Priority than) {
  const std::scoped_lock lock(mutex_);
  const auto found = best(Work::Clock::now());
  if (found == items_.end() || found->priority >= than) return std::nullopt;
  return take(found);
}

void WorkQueue::pause(Priority than, Work::Clock::time_point until) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, until, [&] {
    if (closed_) return true;
    const auto found = best(Work::Clock::now());
    return found != items_.end() && found->priority < than;
  });
}

bool WorkQueue::closed() const {
  const std::scoped_lock lock(mutex_);
  return closed_;
}

std::size_t WorkQueue::size() const {
  const std::scoped_lock lock(mutex_);
  return items_.size();
}

void WorkQueue::close() {
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    items_.clear();
    by_key_.clear();
  }
  changed_.notify_all();
}

}  // namespace fpolicy::policyd
