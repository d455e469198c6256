// SPDX-License-Identifier: LGPL-2.1-or-later
// fpolicy-sentinel: reads the questions of policyd's fanotify group, and lets everybody go on who has waited
// too long.
//
// Whoever opens a file of the cgroup filesystem waits in the kernel until this process answers. So it does
// next to nothing, waits for nobody, asks for no memory, and is the only one to have the group open: should
// it end, the kernel lets everybody go. It ends when policyd does.
#include "sentinel_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef FAN_MARK_EVICTABLE
#define FAN_MARK_EVICTABLE 0x00000200
#endif

struct question {
  int fd;  // -1: none
  uint32_t number;
  uint64_t asked_ns;
};

static struct SentinelShared* shared;
static int group = -1;
static pid_t caller;
static struct question questions[sentinel_most_questions];
static uint32_t last_number;
static bool caller_is_late;
static struct SentinelMessage message;
static uint32_t waiting;  // questions that policyd has

// Files that matter, by their inodes, which the cgroup filesystem does not use twice: the name of one is read
// once.
enum { most_known = 1024 };
static uint64_t known[most_known];

#define ADD(counter, amount) __atomic_fetch_add(&shared->counter, amount, __ATOMIC_RELAXED)

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void send_message(size_t path_length) {
  // What does not fit is lost: policyd then answers no question, and forgets a file after its own deadline.
  send(sentinel_socket_fd, &message, offsetof(struct SentinelMessage, path) + path_length,
       MSG_DONTWAIT | MSG_NOSIGNAL);
}

static _Noreturn void give_up(const char* what) {
  memset(&message, 0, sizeof message);
  message.kind = sentinel_fault;
  const int length = snprintf(message.path, sizeof message.path, "%s: %s", what, strerror(errno));
  send_message((size_t)length + 1);
  _exit(1);
}

static void allow(int fd) {
  const struct fanotify_response response = {.fd = fd, .response = FAN_ALLOW};
  // Fails where the opener was killed meanwhile: then nobody waits.
  while (write(group, &response, sizeof response) < 0 && errno == EINTR) {
  }
  close(fd);
}

static void count_delay(uint64_t asked_ns) {
  const uint64_t us = (now_ns() - asked_ns) / 1000;
  unsigned bucket = 0;
  while (bucket + 1 < sentinel_delay_buckets && us >> bucket != 0) ++bucket;
  ADD(delays[bucket], 1);
  if (us > shared->longest_us) __atomic_store_n(&shared->longest_us, us, __ATOMIC_RELAXED);
}

static void settle(struct question* question) {
  allow(question->fd);
  question->fd = -1;
  --waiting;
  ADD(waiting, -1);
  count_delay(question->asked_ns);
}

// The file's path in message.path; its length, or 0.
static size_t read_path(int fd) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, message.path, sizeof message.path - 1);
  if (length < 0) length = 0;
  message.path[length] = '\0';
  return (size_t)length;
}

static bool matters(size_t length) {
  const char* slash = length > 0 ? strrchr(message.path, '/') : NULL;
  if (slash == NULL) return false;
  return strcmp(slash, "/cpuset.mems") == 0 || strcmp(slash, "/cgroup.procs") == 0 ||
         strcmp(slash, "/cgroup.threads") == 0;
}

// Nobody is asked about it again as long as the kernel remembers the file.
static void ignore(int fd) {
  fanotify_mark(group,
                FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_EVICTABLE,
                FAN_OPEN_PERM | FAN_MODIFY | FAN_CLOSE_WRITE, fd, NULL);
}

// The flags of openat2, which are in the opener's memory.
static long read_how(pid_t thread, unsigned long address) {
  uint64_t flags = 0;
  const struct iovec here = {.iov_base = &flags, .iov_len = sizeof flags};
  const struct iovec there = {.iov_base = (void*)address,
                              .iov_len = sizeof flags};  // NOLINT: an address over there
  if (process_vm_readv(thread, &here, 1, &there, 1, 0) != (ssize_t)sizeof flags) return O_RDWR;
  return (long)flags;
}

// The next number of a line of /proc/PID/syscall: decimal first, then hexadecimal ones. False where there is
// none.
static bool next_number(char** at, int base, unsigned long* value) {
  char* end = NULL;
  *value = strtoul(*at, &end, base);
  const bool is_one = end != *at;
  *at = end;
  return is_one;
}

// The opener waits inside its system call, whose arguments the kernel shows. False only for a sure reader.
static bool opens_for_writing(pid_t thread) {
  char path[40];
  char text[256];
  if (thread <= 0) return true;  // of another pid namespace
  snprintf(path, sizeof path, "/proc/%d/syscall", (int)thread);
  for (int attempt = 0; attempt < 8; ++attempt) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return true;
    const ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return true;
    text[length] = '\0';
    char* at = text;
    unsigned long number = 0;
    unsigned long arguments[3];
    bool is_whole = next_number(&at, 10, &number);
    for (size_t i = 0; i < 3 && is_whole; ++i) is_whole = next_number(&at, 16, &arguments[i]);
    if (!is_whole) {
      // "running": not yet asleep.
      const struct timespec soon = {.tv_nsec = 20000};
      clock_nanosleep(CLOCK_MONOTONIC, 0, &soon, NULL);
      continue;
    }
    long flags = O_RDWR;
    if (number == SYS_openat || number == SYS_open_by_handle_at) flags = (long)arguments[2];
#ifdef SYS_open
    if (number == SYS_open) flags = (long)arguments[1];
#endif
#ifdef SYS_openat2
    if (number == SYS_openat2) flags = read_how(thread, arguments[2]);
#endif
    return (flags & O_ACCMODE) != O_RDONLY;
  }
  return true;
}

static bool is_callers(pid_t thread) {
  char path[64];
  struct stat status;
  snprintf(path, sizeof path, "/proc/%d/task/%d", (int)caller, (int)thread);
  // Not access(2), which asks for a user without capabilities: to him processes may be invisible.
  return stat(path, &status) == 0;
}

static void ask(int fd, size_t length, pid_t thread, uint64_t asked_ns) {
  struct question* free_slot = NULL;
  for (size_t i = 0; i < sentinel_most_questions && free_slot == NULL; ++i)
    if (questions[i].fd < 0) free_slot = &questions[i];
  if (free_slot == NULL || caller_is_late) {
    if (free_slot == NULL)
      ADD(overflow, 1);
    else
      ADD(passed, 1);
    allow(fd);
    return;
  }
  message.kind = sentinel_ask;
  message.number = ++last_number;
  message.asked_ns = asked_ns;
  message.thread = thread;
  if (send(sentinel_socket_fd, &message, offsetof(struct SentinelMessage, path) + length + 1,
           MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    ADD(overflow, 1);
    allow(fd);
    return;
  }
  *free_slot = (struct question){.fd = fd, .number = message.number, .asked_ns = asked_ns};
  ADD(asked, 1);
  ++waiting;
  ADD(waiting, 1);
}

// Is it a file whose opening may be a move? message.inode is then its inode.
static bool is_known(int fd) {
  struct stat status;
  message.inode = fstat(fd, &status) == 0 ? status.st_ino : 0;
  uint64_t* place = &known[message.inode % most_known];
  if (message.inode != 0 && *place == message.inode) return true;
  if (!matters(read_path(fd))) return false;
  *place = message.inode;
  return true;
}

static void answer_question(int fd, pid_t thread, uint64_t asked_ns) {
  ADD(questions, 1);
  if (!is_known(fd)) {
    ADD(ignored, 1);
    ignore(fd);
    allow(fd);
  } else if (__atomic_load_n(&shared->nothing_to_hold, __ATOMIC_RELAXED) != 0) {
    ADD(idle, 1);
    allow(fd);
  } else if (!opens_for_writing(thread)) {
    ADD(readers, 1);
    allow(fd);
  } else if (is_callers(thread)) {
    ADD(own, 1);
    allow(fd);
  } else {
    ask(fd, read_path(fd), thread, asked_ns);
  }
}

// Somebody has written the file, or closed it after he may have.
static void tell(int fd, uint64_t mask) {
  if (!is_known(fd)) {
    ignore(fd);
  } else if (__atomic_load_n(&shared->nothing_to_hold, __ATOMIC_RELAXED) == 0) {
    message.number = 0;
    message.path[0] = '\0';
    if ((mask & FAN_MODIFY) != 0) {
      message.kind = sentinel_written;
      send_message(1);
    }
    if ((mask & FAN_CLOSE_WRITE) != 0) {
      message.kind = sentinel_closed;
      send_message(1);
    }
  }
  close(fd);
}

static void take_event(const struct fanotify_event_metadata* event, uint64_t asked_ns) {
  if (event->fd < 0) return;
  if ((event->mask & FAN_OPEN_PERM) != 0)
    answer_question(event->fd, event->pid, asked_ns);
  else
    tell(event->fd, event->mask);
}

static void read_events(void) {
  static char buffer[4096] __attribute__((aligned(8)));
  const ssize_t length = read(group, buffer, sizeof buffer);
  if (length < 0) {
    // The file of one event is gone (its opener has been refused), and the next read brings the next.
    if (errno != EAGAIN && errno != EINTR) ADD(unreadable, 1);
    return;
  }
  const uint64_t asked_ns = now_ns();
  const struct fanotify_event_metadata* event = (const struct fanotify_event_metadata*)buffer;
  for (ssize_t left = length; FAN_EVENT_OK(event, left); event = FAN_EVENT_NEXT(event, left))
    take_event(event, asked_ns);
}

static void read_answers(void) {
  struct SentinelMessage answer;
  for (int round = 0; round < sentinel_most_questions; ++round) {
    const ssize_t length = recv(sentinel_socket_fd, &answer, sizeof answer, MSG_DONTWAIT);
    if (length == 0) _exit(0);
    if (length < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) _exit(0);
      return;
    }
    if (length < (ssize_t)offsetof(struct SentinelMessage, path) || answer.kind != sentinel_answer) continue;
    // Whatever it answers, policyd is there again.
    caller_is_late = false;
    for (size_t i = 0; i < sentinel_most_questions; ++i) {
      if (questions[i].fd < 0 || questions[i].number != answer.number) continue;
      ADD(answered, 1);
      settle(&questions[i]);
    }
  }
}

// Lets those go who have waited long enough; nanoseconds until the next has, or -1.
static int64_t let_go(void) {
  if (waiting == 0) return -1;
  const uint64_t deadline_ns = (uint64_t)__atomic_load_n(&shared->deadline_us, __ATOMIC_RELAXED) * 1000U;
  const uint64_t now = now_ns();
  int64_t next = -1;
  for (size_t i = 0; i < sentinel_most_questions; ++i) {
    if (questions[i].fd < 0) continue;
    const uint64_t due = questions[i].asked_ns + deadline_ns;
    if (due <= now) {
      caller_is_late = true;
      ADD(late, 1);
      settle(&questions[i]);
    } else if (next < 0 || (int64_t)(due - now) < next) {
      next = (int64_t)(due - now);
    }
  }
  return next;
}

// Out of the reach of what happens to policyd's cgroup, of signals to its process group, and of reclaim.
static void stand_apart(void) {
  setsid();
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_IGN);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  const int procs = openat(sentinel_cgroups_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (procs >= 0) {
    (void)!write(procs, "0", 1);
    close(procs);
  }
  const int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom >= 0) {
    (void)!write(oom, "-1000", 5);
    close(oom);
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  const struct sched_param first = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
  if (sched_setscheduler(0, SCHED_FIFO, &first) == 0)
    ADD(realtime, 1);
  else
    setpriority(PRIO_PROCESS, 0, -20);
  if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0) ADD(locked, 1);
}

static void send_group(void) {
  char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
  memset(control, 0, sizeof control);
  message.kind = sentinel_hello;
  struct iovec body = {.iov_base = &message, .iov_len = offsetof(struct SentinelMessage, path)};
  struct msghdr letter = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* header = CMSG_FIRSTHDR(&letter);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &group, sizeof group);
  if (sendmsg(sentinel_socket_fd, &letter, MSG_NOSIGNAL) < 0) give_up("sendmsg");
}

static void start(void) {
  void* memory =
      mmap(NULL, sizeof(struct SentinelShared), PROT_READ | PROT_WRITE, MAP_SHARED, sentinel_shared_fd, 0);
  if (memory == MAP_FAILED) give_up("mmap");
  shared = memory;
  caller = getppid();
  for (size_t i = 0; i < sentinel_most_questions; ++i) questions[i].fd = -1;
  stand_apart();
  group = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE |
                            FAN_UNLIMITED_MARKS | FAN_REPORT_TID,
                        O_RDONLY | O_CLOEXEC | O_LARGEFILE);
  if (group < 0) give_up("fanotify_init");
  // policyd looks at it through an epoll that keeps no reference, and closes it before anything is watched.
  send_group();
  struct SentinelMessage answer;
  const ssize_t length = recv(sentinel_socket_fd, &answer, sizeof answer, 0);
  if (length < (ssize_t)offsetof(struct SentinelMessage, path) || answer.kind != sentinel_armed) _exit(1);
  if (fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN_PERM | FAN_MODIFY | FAN_CLOSE_WRITE,
                    sentinel_cgroups_fd, ".") != 0) {
    give_up("fanotify_mark");
  }
  message.kind = sentinel_watching;
  send_message(0);
}

int main(void) {
  start();
  while (true) {
    struct pollfd ready[3] = {{.fd = group, .events = POLLIN},
                              {.fd = sentinel_socket_fd, .events = POLLIN},
                              {.fd = sentinel_caller_fd, .events = POLLIN}};
    const int64_t next = let_go();
    const struct timespec timeout = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
    if (ppoll(ready, 3, next < 0 ? NULL : &timeout, NULL) < 0) continue;
    ADD(progress, 1);
    if (ready[1].revents != 0) read_answers();
    if (ready[0].revents != 0) read_events();
    if (ready[2].revents != 0) _exit(0);
  }
}
