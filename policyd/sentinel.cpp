// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sentinel.h"

#include "journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

namespace fpolicy::policyd {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A sentinel that ends again and again is started again after this long, then after twice as long.
constexpr auto first_restart = 50ms;
constexpr auto longest_restart = 10s;

constexpr std::size_t header_bytes = offsetof(SentinelMessage, path);

/// Out of the range of the descriptors that the sentinel is given.
Fd out_of_the_way(int fd) {
  return Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 16));
}

}  // namespace

Sentinel::Sentinel(std::string program, int cgroups, OnMessage on_message)
    : program_(std::move(program)), cgroups_(cgroups), on_message_(std::move(on_message)) {}

Sentinel::~Sentinel() {
  stop();
  if (shared_ != nullptr) ::munmap(shared_, sizeof *shared_);
}

Status Sentinel::start() {
  memory_fd_ = Fd(::memfd_create("fpolicy-sentinel", MFD_CLOEXEC));
  if (!memory_fd_ || ::ftruncate(memory_fd_.get(), sizeof *shared_) != 0)
    return fail_errno("memfd_create", "");
  void* memory = ::mmap(nullptr, sizeof *shared_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_.get(), 0);
  if (memory == MAP_FAILED) return fail_errno("mmap", "");
  shared_ = static_cast<SentinelShared*>(memory);
  shared_->deadline_us = sentinel_default_deadline_us;
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno("eventfd", "");
  set_state(false, -1, "starting");
  thread_ = std::thread([this] { run(); });
  return {};
}

void Sentinel::stop() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

void Sentinel::set_deadline(std::chrono::milliseconds deadline) {
  const auto us = static_cast<std::uint32_t>(std::chrono::microseconds(deadline).count());
  __atomic_store_n(&shared_->deadline_us, us, __ATOMIC_RELAXED);
}

void Sentinel::set_nothing_to_hold(bool nothing) {
  __atomic_store_n(&shared_->nothing_to_hold, nothing ? 1U : 0U, __ATOMIC_RELAXED);
}

Sentinel::State Sentinel::state() const {
  const std::scoped_lock lock(mutex_);
  return state_;
}

SentinelShared Sentinel::counters() const {
  SentinelShared copy{};
  if (shared_ != nullptr) std::memcpy(&copy, shared_, sizeof copy);
  return copy;
}

void Sentinel::set_state(bool watching, pid_t pid, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  state_.watching = watching;
  state_.pid = pid;
  state_.reason = reason;
}

void Sentinel::tell(std::uint32_t kind, std::uint32_t number) {
  SentinelMessage message;  // NOLINT: only its head is sent
  std::memset(&message, 0, header_bytes);
  message.kind = kind;
  message.number = number;
  const std::scoped_lock lock(mutex_);
  // Lost where its queue is full: then the deadline lets the opener go.
  if (socket_) (void)!::send(socket_.get(), &message, header_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Sentinel::answer(std::uint32_t number) {
  tell(sentinel_answer, number);
}

Status Sentinel::spawn() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno("socketpair", "");
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  const Fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!self) return fail_errno("pidfd_open", "");
  edge_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  level_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!edge_ || !level_) return fail_errno("epoll_create1", "");

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  // What it is given is moved out of the way first: a descriptor's number may be another's place.
  std::array<Fd, 4> given = {out_of_the_way(theirs.get()), out_of_the_way(memory_fd_.get()),
                             out_of_the_way(self.get()), out_of_the_way(cgroups_)};
  constexpr std::array<int, 4> places = {sentinel_socket_fd, sentinel_shared_fd, sentinel_caller_fd,
                                         sentinel_cgroups_fd};
  int error = 0;
  for (std::size_t i = 0; i < given.size() && error == 0; ++i) {
    if (!given.at(i)) error = errno;
    if (error == 0) error = ::posix_spawn_file_actions_adddup2(&actions, given.at(i).get(), places.at(i));
  }
  // It has nothing to say to whoever reads our output, and must not be stopped by it.
  for (int fd = 0; fd < 3 && error == 0; ++fd)
    error = ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", fd == 0 ? O_RDONLY : O_WRONLY, 0);
  if (error == 0) error = ::posix_spawn_file_actions_addclosefrom_np(&actions, sentinel_cgroups_fd + 1);
  std::string name = "fpolicy-sentinel";
  std::array<char*, 2> arguments = {name.data(), nullptr};
  std::array<char*, 1> environment = {nullptr};
  pid_t pid = -1;
  if (error == 0) {
    error =
        ::posix_spawn(&pid, program_.c_str(), &actions, &attributes, arguments.data(), environment.data());
  }
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno("start", program_, error);
  pid_ = pid;
  pidfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd_) {
    const int why = errno;
    ::kill(pid, SIGKILL);
    bury();
    return fail_errno("pidfd_open", "", why);
  }
  const std::scoped_lock lock(mutex_);
  socket_ = std::move(ours);
  state_.pid = pid;
  return {};
}

void Sentinel::bury() {
  if (pid_ > 0)
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  pid_ = -1;
  pidfd_.reset();
  edge_.reset();
  level_.reset();
  checking_ = false;
  stuck_checks_ = 0;
  __atomic_store_n(&shared_->waiting, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&shared_->realtime, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&shared_->locked, 0, __ATOMIC_RELAXED);
  const std::scoped_lock lock(mutex_);
  socket_.reset();
  state_.watching = false;
  state_.pid = -1;
}

bool Sentinel::take(const SentinelMessage& message, std::size_t length, Fd fd) {
  switch (message.kind) {
    case sentinel_hello: {
      epoll_event event{};
      event.events = EPOLLIN | EPOLLET;
      if (!fd || ::epoll_ctl(edge_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return false;
      event.events = EPOLLIN;
      if (::epoll_ctl(level_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return false;
      // From here on the sentinel is the only one to have the group open: with it, the group ends.
      fd.reset();
      tell(sentinel_armed, 0);
      return true;
    }
    case sentinel_watching:
      set_state(true, pid_, "");
      return true;
    case sentinel_fault:
      set_state(false, pid_, std::string(message.path, ::strnlen(message.path, length - header_bytes)));
      has_given_up_ = true;
      return true;
    case sentinel_ask:
    case sentinel_written:
    case sentinel_closed:
      on_message_(message);
      return true;
    default:
      return true;
  }
}

bool Sentinel::receive() {
  static thread_local SentinelMessage message;
  for (int round = 0; round < 64; ++round) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec body{.iov_base = &message, .iov_len = sizeof message};
    msghdr letter{};
    letter.msg_iov = &body;
    letter.msg_iovlen = 1;
    letter.msg_control = control.data();
    letter.msg_controllen = control.size();
    const ssize_t length = ::recvmsg(socket_.get(), &letter, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0) return errno == EAGAIN || errno == EINTR;
    if (static_cast<std::size_t>(length) < header_bytes) return false;
    Fd fd;
    const cmsghdr* header = CMSG_FIRSTHDR(&letter);
    if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header), sizeof number);
      fd.reset(number);
    }
    message.path[std::min(static_cast<std::size_t>(length) - header_bytes, sizeof message.path - 1)] = '\0';
    if (!take(message, static_cast<std::size_t>(length), std::move(fd))) return false;
  }
  return true;
}

/// It is killed when there is something to read and it has read nothing since the last check but one: the
/// kernel then lets all go whom it kept.
void Sentinel::check() {
  epoll_event event{};
  const bool is_left = ::epoll_wait(level_.get(), &event, 1, 0) > 0 ||
                       __atomic_load_n(&shared_->waiting, __ATOMIC_RELAXED) > 0;
  const std::uint64_t progress = __atomic_load_n(&shared_->progress, __ATOMIC_RELAXED);
  stuck_checks_ = is_left && progress == progress_ ? stuck_checks_ + 1 : 0;
  progress_ = progress;
  checking_ = is_left;
  if (stuck_checks_ < 2) return;
  // Before anything is said: whoever reads our log may be among those who wait.
  ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  log_line(Level::error, "the sentinel has stopped working: it is replaced");
}

void Sentinel::run() {
  ::pthread_setname_np(::pthread_self(), "policyd-sentry");
  auto pause = std::chrono::milliseconds(first_restart);
  while (true) {
    const auto began = Clock::now();
    const auto spawned = spawn();
    bool ended = pid_ < 0;
    while (!ended) {
      {
        const std::scoped_lock lock(mutex_);
        if (stopping_) break;
      }
      const auto period = std::max<Clock::duration>(
          100ms, 2 * std::chrono::microseconds(__atomic_load_n(&shared_->deadline_us, __ATOMIC_RELAXED)));
      std::array<pollfd, 4> ready = {
          pollfd{.fd = socket_.get(), .events = POLLIN, .revents = 0},
          pollfd{.fd = pidfd_.get(), .events = POLLIN, .revents = 0},
          pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0},
          pollfd{.fd = checking_ ? -1 : edge_.get(), .events = POLLIN, .revents = 0}};
      int timeout = -1;
      if (checking_) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(check_due_ - Clock::now()).count();
        timeout = static_cast<int>(std::max<std::int64_t>(left, 0));
      }
      if (::poll(ready.data(), ready.size(), timeout) < 0 && errno != EINTR) break;
      if (ready[0].revents != 0 && !receive()) ended = true;
      if (ready[1].revents != 0) ended = true;
      if (ready[3].revents != 0) {
        // Once for many events: while a check is due nobody is woken for more.
        epoll_event event{};
        ::epoll_wait(edge_.get(), &event, 1, 0);
        progress_ = __atomic_load_n(&shared_->progress, __ATOMIC_RELAXED);
        stuck_checks_ = 0;
        checking_ = true;
        check_due_ = Clock::now() + period;
      } else if (checking_ && Clock::now() >= check_due_) {
        check();
        check_due_ = Clock::now() + period;
      }
    }
    const bool was_watching = state().watching;
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    bury();
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    ++state_.restarts;
    if (!spawned) {
      state_.reason = spawned.error().message;
      has_given_up_ = spawned.error().code == ENOENT || spawned.error().code == EACCES;
    } else if (!has_given_up_) {
      state_.reason = "the sentinel has ended; it is being started again";
    }
    const std::string reason = state_.reason;
    lock.unlock();
    if (was_watching || has_given_up_ || pause == first_restart)
      log_line(Level::warning, fmt::format("guard: {}", reason));
    // What the kernel refuses once it refuses again; what worked for a while may work again at once.
    if (was_watching && Clock::now() - began > 10s) pause = first_restart;
    pollfd woken{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    ::poll(&woken, 1, has_given_up_ ? -1 : static_cast<int>(pause.count()));
    pause = std::min<std::chrono::milliseconds>(pause * 2, longest_restart);
    const std::scoped_lock again(mutex_);
    if (stopping_) return;
  }
}

}  // namespace fpolicy::policyd
