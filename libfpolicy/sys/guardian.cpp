// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/guardian.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fpolicy::sys {
namespace {

enum Message : char { stop_message = 'S', freeze_message = 'F', alive_message = 'A', done_message = 'D' };

/// A message of one byte, and room for a descriptor beside it.
struct Letter {
  explicit Letter(char text = 0) : what(text) {
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  Letter(const Letter&) = delete;
  Letter& operator=(const Letter&) = delete;

  char what;
  iovec data{&what, 1};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
};

/// What the guardian remembers. Mapped before the fork: afterwards it asks for no memory.
struct Charges {
  static constexpr std::size_t most = 1U << 20U;
  std::size_t count;
  struct Charge {
    int fd;
    char what;
  } each[most];
};

/// Takes one message. False: the caller is gone, or has said that it is done (`done`).
bool take(int socket, Charges& charges, bool& done) {
  Letter letter;
  const ssize_t count = ::recvmsg(socket, &letter.message, MSG_CMSG_CLOEXEC);
  if (count < 0 && errno == EINTR) return true;
  if (count <= 0) return false;
  if (letter.what == done_message) {
    done = true;
    return false;
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&letter.message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS && charges.count < Charges::most) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    charges.each[charges.count].fd = fd;
    charges.each[charges.count].what = letter.what;
    ++charges.count;
  }
  return true;
}

void let_go(const Charges& charges) {
  // Frozen processes are thawed first: to continue is then theirs.
  for (std::size_t i = 0; i < charges.count; ++i) {
    const auto& charge = charges.each[i];
    if (charge.what == freeze_message) {
      while (::write(charge.fd, "0", 1) < 0 && errno == EINTR) {
      }
    } else {
      ::syscall(SYS_pidfd_send_signal, charge.fd, SIGCONT, nullptr, 0);
    }
  }
}

/// Only calls that are safe in a child of a process with threads.
[[noreturn]] void guard(int socket, int root_procs, Charges& charges) {
  ::setsid();
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_IGN);
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  if (root_procs >= 0) (void)!::write(root_procs, "0", 1);
  const int oom = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom >= 0) (void)!::write(oom, "-1000", 5);
  // It outlives whoever waits for the caller's output, and holds none of the caller's locks.
  const int kept = ::dup3(socket, 3, O_CLOEXEC) == 3 || socket == 3 ? 3 : socket;
  for (int fd = 0; fd < 3; ++fd) ::close(fd);
  ::syscall(SYS_close_range, static_cast<unsigned>(kept) + 1, ~0U, 0);
  if (kept != 3) ::syscall(SYS_close_range, 0, static_cast<unsigned>(kept) - 1, 0);
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  bool done = false;
  bool let = false;
  while (true) {
    pollfd readable{kept, POLLIN, 0};
    const auto silence = std::chrono::milliseconds(Guardian::longest_silence).count();
    const int ready = ::poll(&readable, 1, static_cast<int>(silence));
    if (ready < 0) continue;
    if (ready == 0) {
      // The caller hangs: the job does not.
      if (!let) let_go(charges);
      let = charges.count > 0;
      continue;
    }
    if (!take(kept, charges, done)) break;
  }
  if (!done) let_go(charges);
  ::_exit(0);
}

}  // namespace

Result<Guardian> Guardian::start(int root_procs) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno("socketpair", "");
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  void* memory = ::mmap(nullptr, sizeof(Charges), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno("mmap", "");
  // No signal to the caller's group reaches the guardian before it is ready for it.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  // A fork whose end sends no signal: the caller may be a program with children of its own.
  const auto pid = static_cast<pid_t>(::syscall(SYS_clone, 0UL, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) guard(theirs.get(), root_procs, *static_cast<Charges*>(memory));
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::munmap(memory, sizeof(Charges));
  if (pid < 0) return fail_errno("clone", "", error);
  return Guardian(std::move(ours), pid);
}

Guardian::~Guardian() {
  // Not closed alone: a child that the caller has forked meanwhile has it open as well.
  if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
  socket_.reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, __WCLONE);
}

Status Guardian::tell(char what, int fd) {
  Letter letter(what);
  cmsghdr* const header = CMSG_FIRSTHDR(&letter.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  while (::sendmsg(socket_.get(), &letter.message, MSG_NOSIGNAL) < 0) {
    // Descriptors on their way are counted: the guardian takes them in.
    if (errno == ETOOMANYREFS) {
      ::usleep(1000);
      continue;
    }
    if (errno != EINTR) return fail_errno("tell the guardian process", "");
  }
  return {};
}

Status Guardian::will_stop(int pidfd) {
  return tell(stop_message, pidfd);
}

Status Guardian::will_freeze(int freeze) {
  return tell(freeze_message, freeze);
}

void Guardian::alive() const {
  const char what = alive_message;
  (void)!::send(socket_.get(), &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Guardian::done() {
  const char what = done_message;
  while (::send(socket_.get(), &what, 1, MSG_NOSIGNAL) < 0 && errno == EINTR) {
  }
}

}  // namespace fpolicy::sys
