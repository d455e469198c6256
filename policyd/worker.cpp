// SPDX-License-Identifier: LGPL-2.1-or-later
#include "worker.h"

#include <malloc.h>
#include <pthread.h>

#include <optional>

namespace fpolicy::policyd {

Worker::Worker(const char* name, std::size_t most_queued) : name_(name), queue_(most_queued) {}

Worker::~Worker() {
  queue_.close();
  if (thread_.joinable()) thread_.join();
}

void Worker::start() {
  thread_ = std::thread([this] { run(); });
}

void Worker::run() {
  ::pthread_setname_np(::pthread_self(), name_);
  while (const auto work = queue_.pop()) {
    work->run();
    // A pass over many processes leaves the heap large; a daemon that sleeps should not hold on to it.
    if (queue_.size() == 0) ::malloc_trim(0);
  }
  const std::scoped_lock lock(mutex_);
  ended_ = true;
  ended_signal_.notify_all();
}

bool Worker::stop(std::chrono::milliseconds patience) {
  queue_.close();
  if (!thread_.joinable()) return true;
  std::unique_lock lock(mutex_);
  if (!ended_signal_.wait_for(lock, patience, [this] { return ended_; })) return false;
  lock.unlock();
  thread_.join();
  return true;
}

}  // namespace fpolicy::policyd
