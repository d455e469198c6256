// The host's side of a guest: starts QEMU, writes what comes over the link (link.h) to stdout and
// stderr, and exits with the command's status. Ends a guest that takes too long, or whose starter is
// gone, and shows the console when something went wrong.
//
// Usage: host TIMEOUT CONSOLE stdin|tty|none -- QEMU ARGUMENT...
//        host --tsc-khz      prints how fast the time stamp counter counts, 0 where there is none
// The link's end for QEMU is file descriptor 3.
#define _GNU_SOURCE
#include "link.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

enum { EXIT_PANIC = 123, EXIT_TIMEOUT = 124, EXIT_RIG = 125, MAX_RESTARTS = 3 };

static pid_t qemu;
static struct termios terminal;
static bool terminal_changed;

static void restore_terminal(void) {
  if (terminal_changed) tcsetattr(0, TCSANOW, &terminal);
}

static void on_signal(int number) {
  if (qemu > 0) kill(qemu, SIGKILL);
  restore_terminal();
  signal(number, SIG_DFL);
  raise(number);
}

static void end_qemu(void) {
  kill(qemu, SIGKILL);
  waitpid(qemu, NULL, 0);
}

static bool find_in_console(const char* path, const char* text) {
  FILE* console = fopen(path, "r");
  if (console == NULL) return false;
  char* line = NULL;
  size_t room = 0;
  bool found = false;
  while (!found && getline(&line, &room, console) > 0) found = strstr(line, text) != NULL;
  free(line);
  fclose(console);
  return found;
}

#ifdef __x86_64__
/// The counter at a moment that the clock tells as exactly as can be had: the closest of some tries.
static uint64_t counter_at(uint64_t* nanoseconds) {
  uint64_t counter = 0;
  uint64_t closest = UINT64_MAX;
  for (int i = 0; i < 50; ++i) {
    struct timespec now;
    const uint64_t before = __builtin_ia32_rdtsc();
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t after = __builtin_ia32_rdtsc();
    if (after - before >= closest) continue;
    closest = after - before;
    counter = before + closest / 2;
    *nanoseconds = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
  }
  return counter;
}
#endif

static unsigned long tsc_khz(void) {
#ifdef __x86_64__
  uint64_t began = 0;
  uint64_t ended = 0;
  const uint64_t first = counter_at(&began);
  nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  const uint64_t last = counter_at(&ended);
  return (unsigned long)((double)(last - first) * 1e6 / (double)(ended - began) + 0.5);
#else
  return 0;
#endif
}

static void show_console(const char* path) {
  FILE* console = fopen(path, "r");
  if (console == NULL) return;
  fprintf(stderr, "run: ---- the guest's console ----\n");
  int last = '\n';
  // A serial line's carriage returns would confuse whoever greps this.
  for (int c; (c = fgetc(console)) != EOF;) {
    if (c != '\r' && c != '\0') fputc(last = c, stderr);
  }
  if (last != '\n') fputc('\n', stderr);
  fprintf(stderr, "run: ---- end of the console ----\n");
  fclose(console);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// The guest has said its last: let it power off, so that disks that are kept are closed in order.
static void finish(int link, int wait_seconds) {
  char frame[LINK_HEADER];
  signal(SIGPIPE, SIG_IGN);
  link_send(link, LINK_ACK, frame, 0);
  for (int i = 0; i < wait_seconds * 100; i++) {
    if (waitpid(qemu, NULL, WNOHANG) != 0) return;
    usleep(10000);
  }
  end_qemu();
}

// Starts QEMU and returns our end of the link.
static int start_qemu(char** argv) {
  int link[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) < 0) {
    perror("run: socketpair");
    exit(EXIT_RIG);
  }
  qemu = fork();
  if (qemu < 0) {
    perror("run: fork");
    exit(EXIT_RIG);
  }
  if (qemu == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);  // Ctrl-C comes to us alone
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(2, 1);  // QEMU's own words are never the command's output
    if (link[1] == 3) {
      fcntl(3, F_SETFD, 0);
    } else {
      dup2(link[1], 3);
    }
    execvp(argv[0], argv);
    fprintf(stderr, "run: %s: %s\n", argv[0], strerror(errno));
    _exit(EXIT_RIG);
  }
  close(link[1]);
  return link[0];
}

// The link ended, and no status came.
static int guest_lost(const char* console) {
  int status = 0;
  waitpid(qemu, &status, 0);
  restore_terminal();
  bool panicked = find_in_console(console, "Kernel panic - not syncing");
  show_console(console);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "run: qemu failed\n");
  } else if (panicked && find_in_console(console, "Oops: int3")) {
    fprintf(stderr,
            "run: the guest's kernel panicked: the emulator ran code that the kernel had patched already\n"
            "run: (a race in QEMU's multi-threaded TCG before 8.1); --single-thread avoids it\n");
  } else {
    fprintf(stderr, panicked ? "run: the guest's kernel panicked\n"
                             : "run: the guest went down before the command ended\n");
  }
  return panicked ? EXIT_PANIC : EXIT_RIG;
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--tsc-khz") == 0) {
    printf("%lu\n", tsc_khz());
    return 0;
  }
  if (argc < 6) return EXIT_RIG;
  const double deadline = now() + atof(argv[1]);
  const char* console = argv[2];
  bool input = strcmp(argv[3], "none") != 0;
  pid_t starter = getppid();

  // Whoever kills the script that started us with SIGKILL must not leave an emulator behind.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != starter) return EXIT_RIG;
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  signal(SIGHUP, on_signal);
  signal(SIGPIPE, on_signal);
  int link = start_qemu(argv + 5);
  if (strcmp(argv[3], "tty") == 0 && tcgetattr(0, &terminal) == 0) {
    struct termios raw = terminal;
    cfmakeraw(&raw);
    terminal_changed = tcsetattr(0, TCSANOW, &raw) == 0;
    atexit(restore_terminal);
  }

  static char frame[LINK_HEADER + LINK_MAX_PAYLOAD + 1];
  static char outgoing[LINK_HEADER + LINK_MAX_PAYLOAD];
  size_t have = 0;
  bool started = false;
  int restarts = 0;
  for (;;) {
    double left = deadline - now();
    struct pollfd fds[] = {{.fd = link, .events = POLLIN},
                           {.fd = input && started ? 0 : -1, .events = POLLIN}};
    int ready = left <= 0 ? 0 : poll(fds, 2, (int)(left * 1000) + 1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      if (deadline - now() > 0) continue;
      end_qemu();
      restore_terminal();
      fprintf(stderr, "run: timed out after %s s: the guest was ended\n", argv[1]);
      show_console(console);
      return EXIT_TIMEOUT;
    }
    // Only while the link has room: the guest may be waiting for us to take its output first.
    struct pollfd room = {.fd = link, .events = POLLOUT};
    if (fds[1].revents != 0 && poll(&room, 1, 0) == 0) {
      usleep(1000);
    } else if (fds[1].revents != 0) {
      ssize_t n = read(0, outgoing + LINK_HEADER, 4096);
      if (n <= 0) input = false;
      if (link_send(link, LINK_STDIN, outgoing, n > 0 ? (size_t)n : 0) < 0) input = false;
    }
    if (fds[0].revents == 0) continue;
    size_t wanted = LINK_HEADER + (have < LINK_HEADER ? 0 : link_size(frame));
    ssize_t n = read(link, frame + have, wanted - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      // Nothing has been run yet, so that another try is as good as the first. What makes kernels
      // panic here is the emulator (see guest_lost), more so on a busy host.
      if (started || restarts == MAX_RESTARTS || !find_in_console(console, "Oops: int3")) {
        return guest_lost(console);
      }
      restarts++;
      close(link);
      end_qemu();
      if (truncate(console, 0) < 0) perror(console);
      have = 0;
      link = start_qemu(argv + 5);
      continue;
    }
    have += (size_t)n;
    if (have < LINK_HEADER) continue;
    size_t size = link_size(frame);
    if (size > LINK_MAX_PAYLOAD) {
      end_qemu();
      restore_terminal();
      fprintf(stderr, "run: the guest sent something that is not a frame\n");
      show_console(console);
      return EXIT_RIG;
    }
    if (have < LINK_HEADER + size) continue;
    have = 0;
    switch (frame[0]) {
      case LINK_STARTED:
        started = true;
        break;
      case LINK_STDOUT:
      case LINK_STDERR:
        if (write_all(frame[0] == LINK_STDOUT ? 1 : 2, frame + LINK_HEADER, size) < 0) {
          end_qemu();
          restore_terminal();
          fprintf(stderr, "run: cannot write the output: %s\n", strerror(errno));
          return EXIT_RIG;
        }
        break;
      case LINK_STATUS:
        finish(link, 10);
        return (unsigned char)frame[LINK_HEADER];
      case LINK_FAILURE:
        finish(link, 2);
        restore_terminal();
        fprintf(stderr, "run: guest: %.*s\n", (int)size, frame + LINK_HEADER);
        show_console(console);
        return EXIT_RIG;
      default:
        break;
    }
  }
}
