// SPDX-License-Identifier: LGPL-2.1-or-later
#include "event_log.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

namespace fpolicy::policyd {

std::string_view to_string(EventKind kind) {
  constexpr std::array<std::string_view, 11> names{"start", "stop",   "move",  "attach",  "enforce", "tag",
                                                   "retry", "reload", "error", "migrate", "carry"};
  return names.at(static_cast<std::size_t>(kind));
}

void EventLog::add(Event event) {
  using namespace std::chrono;
  event.time_usec =
      static_cast<std::uint64_t>(duration_cast<microseconds>(system_clock::now().time_since_epoch()).count());
  {
    const std::scoped_lock lock(mutex_);
    event.sequence = next_++;
    events_.push_back(std::move(event));
    if (events_.size() > most_) events_.pop_front();
  }
  added_();
}

std::vector<Event> EventLog::since(std::uint64_t first) const {
  const std::scoped_lock lock(mutex_);
  const auto from = std::ranges::lower_bound(events_, first, {}, &Event::sequence);
  return {from, events_.end()};
}

}  // namespace fpolicy::policyd
