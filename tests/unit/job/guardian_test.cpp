// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/guardian.h"

#include "../store/temporary_directory.h"

#include <fpolicy/process.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <thread>

namespace fpolicy::sys {
namespace {

using namespace std::chrono_literals;

Fd pidfd_of(pid_t pid) {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

char state_of(pid_t pid) {
  const auto process = Process::open(pid);
  const auto status = process ? process->status() : Result<ProcessStatus>(tl::unexpected(process.error()));
  return status ? status->state : 'X';
}

/// Waits for it; false where it does not come within 10 s.
bool becomes(const std::function<bool()>& what) {
  for (int i = 0; i < 2000; ++i) {
    if (what()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

/// A process that does nothing. It dies with the test.
class Idler {
 public:
  Idler() : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (true) ::pause();
    }
  }
  Idler(const Idler&) = delete;
  Idler& operator=(const Idler&) = delete;
  ~Idler() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void stop() const {
    ::kill(pid_, SIGSTOP);
    EXPECT_TRUE(becomes([this] { return is_stopped(); }));
  }
  [[nodiscard]] bool is_stopped() const { return state_of(pid_) == 'T'; }

 private:
  pid_t pid_;
};

/// Runs `what` in a process of its own, which says that it is done and waits to be killed.
class Caller {
 public:
  explicit Caller(const std::function<bool()>& what) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    ready_ = Fd(ends[0]);
    const Fd write(ends[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ready_.reset();
      const char byte = what() ? 'y' : 'n';
      (void)!::write(write.get(), &byte, 1);
      while (true) ::pause();
    }
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;
  ~Caller() { kill(); }
  bool is_ready() {
    char byte = 0;
    return ::read(ready_.get(), &byte, 1) == 1 && byte == 'y';
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  Fd ready_;
};

TEST(Guardian, LetsGoWhenItsCallerIsKilled) {
  const Idler one;
  const Idler two;
  {
    // Declared outside of what runs in the caller, so that no destructor is involved there.
    Caller caller([&] {
      static std::optional<Guardian> guardian;
      auto started = Guardian::start(-1);
      if (!started) return false;
      guardian.emplace(*std::move(started));
      for (const pid_t pid : {one.pid(), two.pid()}) {
        const Fd pidfd = pidfd_of(pid);
        if (!pidfd || !guardian->will_stop(pidfd.get())) return false;
        if (::kill(pid, SIGSTOP) != 0) return false;
      }
      return true;
    });
    ASSERT_TRUE(caller.is_ready());
    ASSERT_TRUE(becomes([&] { return one.is_stopped() && two.is_stopped(); }));
    std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(one.is_stopped()) << "as long as the caller lives";
    caller.kill();
  }
  EXPECT_TRUE(becomes([&] { return !one.is_stopped() && !two.is_stopped(); }));
}

TEST(Guardian, ThawsWhenItsCallerIsKilled) {
  const TemporaryDirectory directory;
  const std::string freeze = directory.write("cgroup.freeze", "1");
  const auto text = [&] {
    std::ifstream file(freeze);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  Caller caller([&] {
    static std::optional<Guardian> guardian;
    auto started = Guardian::start(-1);
    if (!started) return false;
    guardian.emplace(*std::move(started));
    const Fd fd(::open(freeze.c_str(), O_WRONLY | O_CLOEXEC));
    return fd && guardian->will_freeze(fd.get());
  });
  ASSERT_TRUE(caller.is_ready());
  EXPECT_EQ(text(), "1");
  caller.kill();
  EXPECT_TRUE(becomes([&] { return text() == "0"; }));
}

TEST(Guardian, WithoutDoneItsEndLetsGo) {
  const Idler idler;
  {
    auto guardian = Guardian::start(-1);
    ASSERT_TRUE(guardian) << guardian.error().message;
    ASSERT_TRUE(guardian->will_stop(pidfd_of(idler.pid()).get()));
    idler.stop();
  }
  // The destructor has waited for the guardian.
  EXPECT_TRUE(becomes([&] { return !idler.is_stopped(); }));
}

TEST(Guardian, DoneIsDone) {
  const Idler idler;
  {
    auto guardian = Guardian::start(-1);
    ASSERT_TRUE(guardian);
    ASSERT_TRUE(guardian->will_stop(pidfd_of(idler.pid()).get()));
    idler.stop();
    guardian->alive();
    guardian->done();
  }
  std::this_thread::sleep_for(50ms);
  EXPECT_TRUE(idler.is_stopped());
}

TEST(Guardian, DoneAndThenKilled) {
  const Idler idler;
  {
    Caller caller([&] {
      static std::optional<Guardian> guardian;
      auto started = Guardian::start(-1);
      if (!started) return false;
      guardian.emplace(*std::move(started));
      const Fd pidfd = pidfd_of(idler.pid());
      if (!guardian->will_stop(pidfd.get())) return false;
      ::kill(idler.pid(), SIGSTOP);
      guardian->done();
      return true;
    });
    ASSERT_TRUE(caller.is_ready());
    caller.kill();
  }
  ASSERT_TRUE(becomes([&] { return idler.is_stopped(); }));
  std::this_thread::sleep_for(50ms);
  EXPECT_TRUE(idler.is_stopped());
}

TEST(Guardian, TakesOnManyProcesses) {
  const Idler idler;
  {
    auto guardian = Guardian::start(-1);
    ASSERT_TRUE(guardian);
    const Fd pidfd = pidfd_of(idler.pid());
    // More than a default limit of open files less what is usual; each is a descriptor in the guardian.
    for (int i = 0; i < 700; ++i) ASSERT_TRUE(guardian->will_stop(pidfd.get())) << i;
    for (int i = 0; i < 10'000; ++i) guardian->alive();
    idler.stop();
  }
  EXPECT_TRUE(becomes([&] { return !idler.is_stopped(); }));
}

TEST(Guardian, MovesWithoutLettingGo) {
  const Idler idler;
  {
    std::optional<Guardian> kept;
    {
      auto guardian = Guardian::start(-1);
      ASSERT_TRUE(guardian);
      ASSERT_TRUE(guardian->will_stop(pidfd_of(idler.pid()).get()));
      idler.stop();
      kept.emplace(*std::move(guardian));
    }
    std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(idler.is_stopped()) << "what was moved from holds nothing";
    // The new one still speaks to it.
    const Idler another;
    EXPECT_TRUE(kept->will_stop(pidfd_of(another.pid()).get()));
    another.stop();
    kept.reset();
    EXPECT_TRUE(becomes([&] { return !another.is_stopped(); }));
  }
  EXPECT_TRUE(becomes([&] { return !idler.is_stopped(); }));
}

TEST(Guardian, SurvivesWhatEndsItsCallersSession) {
  // Ctrl-C, a terminal that hangs up: signals to the caller's process group.
  const Idler idler;
  Caller caller([&] {
    ::setpgid(0, 0);
    static std::optional<Guardian> guardian;
    auto started = Guardian::start(-1);
    if (!started) return false;
    guardian.emplace(*std::move(started));
    const Fd pidfd = pidfd_of(idler.pid());
    if (!guardian->will_stop(pidfd.get())) return false;
    ::kill(idler.pid(), SIGSTOP);
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGTERM, SIG_IGN);
    // At once, before the guardian has come far, and later.
    for (int i = 0; i < 2; ++i) {
      for (const int number : {SIGINT, SIGTERM}) ::kill(0, number);
      std::this_thread::sleep_for(50ms);
    }
    return true;
  });
  ASSERT_TRUE(caller.is_ready());
  ASSERT_TRUE(becomes([&] { return idler.is_stopped(); }));
  std::this_thread::sleep_for(50ms);
  EXPECT_TRUE(idler.is_stopped());
  caller.kill();
  EXPECT_TRUE(becomes([&] { return !idler.is_stopped(); }));
}

TEST(Guardian, LeavesNoChildForItsCallerToWaitFor) {
  {
    auto guardian = Guardian::start(-1);
    ASSERT_TRUE(guardian);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD) << "a program's own wait for any child does not see it";
    guardian->done();
  }
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD) << "no zombie";
}

}  // namespace
}  // namespace fpolicy::sys
