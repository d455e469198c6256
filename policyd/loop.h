// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <systemd/sd-event.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace fpolicy::policyd {

/// The event loop, with a letter box through which other threads have things done in it.
class Loop {
 public:
  struct Unref {
    void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
    void operator()(sd_event* event) const { sd_event_unref(event); }
  };
  using Source = std::unique_ptr<sd_event_source, Unref>;

  static Result<std::unique_ptr<Loop>> open();

  [[nodiscard]] sd_event* get() const { return event_.get(); }
  /// Calls `handler` with the events of epoll(7) when `fd` is ready.
  Result<Source> watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> handler);
  /// Calls `handler` once, so many microseconds from now.
  Result<Source> after(std::uint64_t usec, std::function<void()> handler);
  /// Runs `letter` in the loop. Thread-safe; the only call that is.
  void post(std::function<void()> letter);

  Status run();
  void quit() { sd_event_exit(event_.get(), 0); }

 private:
  Loop() = default;
  void read_letters();

  std::unique_ptr<sd_event, Unref> event_;
  Fd bell_;
  Source bell_source_;
  std::mutex mutex_;
  std::vector<std::function<void()>> letters_;
};

}  // namespace fpolicy::policyd
