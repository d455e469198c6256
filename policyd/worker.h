// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "work_queue.h"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>

namespace fpolicy::policyd {

/// One thread that does what is queued.
class Worker {
 public:
  Worker(const char* name, std::size_t most_queued);
  /// stop() must have succeeded, or not have been needed: a thread that hangs in the kernel cannot be joined.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();
  [[nodiscard]] WorkQueue& queue() { return queue_; }
  /// Closes the queue and waits. False where the work at hand does not end within this time.
  [[nodiscard]] bool stop(std::chrono::milliseconds patience);

 private:
  void run();

  const char* name_;
  WorkQueue queue_;
  std::mutex mutex_;
  std::condition_variable ended_signal_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace fpolicy::policyd
