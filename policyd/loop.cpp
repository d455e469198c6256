// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

namespace fpolicy::policyd {
namespace {

using IoHandler = std::function<void(std::uint32_t)>;
using TimeHandler = std::function<void()>;

// A handler may drop its own source: its function must outlive the call, so each call runs a copy of the
// pointer.
int on_io(sd_event_source* /*source*/, int /*fd*/, std::uint32_t events, void* data) {
  const auto handler = *static_cast<std::shared_ptr<IoHandler>*>(data);
  (*handler)(events);
  return 0;
}

int on_time(sd_event_source* /*source*/, std::uint64_t /*usec*/, void* data) {
  const auto handler = *static_cast<std::shared_ptr<TimeHandler>*>(data);
  (*handler)();
  return 0;
}

template <class Handler>
void destroy(void* data) {
  delete static_cast<std::shared_ptr<Handler>*>(data);
}

template <class Handler>
void own(sd_event_source* source, std::unique_ptr<std::shared_ptr<Handler>> data) {
  sd_event_source_set_destroy_callback(source, destroy<Handler>);
  static_cast<void>(data.release());
}

}  // namespace

Result<std::unique_ptr<Loop>> Loop::open() {
  std::unique_ptr<Loop> loop(new Loop);
  sd_event* event = nullptr;
  if (const int error = sd_event_new(&event); error < 0) return fail_errno("sd_event_new", "", -error);
  loop->event_.reset(event);
  loop->bell_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->bell_) return fail_errno("eventfd", "");
  auto source = loop->watch(loop->bell_.get(), EPOLLIN, [raw = loop.get()](auto) { raw->read_letters(); });
  if (!source) return tl::unexpected(source.error());
  loop->bell_source_ = std::move(*source);
  return loop;
}

Result<Loop::Source> Loop::watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> handler) {
  auto data = std::make_unique<std::shared_ptr<IoHandler>>(std::make_shared<IoHandler>(std::move(handler)));
  sd_event_source* source = nullptr;
  const int error = sd_event_add_io(event_.get(), &source, fd, events, on_io, data.get());
  if (error < 0) return fail_errno("sd_event_add_io", "", -error);
  own(source, std::move(data));
  return Source(source);
}

Result<Loop::Source> Loop::after(std::uint64_t usec, std::function<void()> handler) {
  auto data =
      std::make_unique<std::shared_ptr<TimeHandler>>(std::make_shared<TimeHandler>(std::move(handler)));
  sd_event_source* source = nullptr;
  const int error =
      sd_event_add_time_relative(event_.get(), &source, CLOCK_MONOTONIC, usec, 0, on_time, data.get());
  if (error < 0) return fail_errno("sd_event_add_time_relative", "", -error);
  own(source, std::move(data));
  return Source(source);
}

void Loop::post(std::function<void()> letter) {
  {
    const std::scoped_lock lock(mutex_);
    letters_.push_back(std::move(letter));
  }
  const std::uint64_t one = 1;
  // Fails only when the bell has been rung 2^64-2 times and nobody came.
  if (::write(bell_.get(), &one, sizeof one) < 0) return;
}

void Loop::read_letters() {
  std::uint64_t count = 0;
  if (::read(bell_.get(), &count, sizeof count) < 0) return;
  std::vector<std::function<void()>> letters;
  {
    const std::scoped_lock lock(mutex_);
    letters.swap(letters_);
  }
  for (const auto& letter : letters) letter();
}

Status Loop::run() {
  const int error = sd_event_loop(event_.get());
  if (error < 0) return fail_errno("sd_event_loop", "", -error);
  return {};
}

}  // namespace fpolicy::policyd
