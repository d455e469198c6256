// The host's side of a guest: starts QEMU, writes what comes over the link (link.h) to stdout and
// stderr, and exits with the command's status. Ends a guest that takes too long, or whose starter is
// gone, and shows the console when something went wrong.
//
// Usage: host TIMEOUT CONSOLE stdin|tty|none -- QEMU ARGUMENT...
// The link's end for QEMU is file descriptor 3.
#define _GNU_SOURCE
#include "link.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

enum { EXIT_PANIC = 123, EXIT_TIMEOUT = 124, EXIT_RIG = 125 };

static pid_t qemu;
static struct termios terminal;
static int terminal_changed;

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

// Returns whether the guest's kernel panicked.
static int show_console(const char* path) {
  FILE* console = fopen(path, "r");
  if (console == NULL) return 0;
  fprintf(stderr, "run: ---- the guest's console ----\n");
  char* line = NULL;
  size_t room = 0;
  int panicked = 0, last = '\n';
  ssize_t n;
  while ((n = getline(&line, &room, console)) > 0) {
    if (strstr(line, "Kernel panic - not syncing") != NULL) panicked = 1;
    // A serial line's carriage returns would confuse whoever greps this.
    for (ssize_t i = 0; i < n; i++) {
      if (line[i] != '\r' && line[i] != '\0') fputc(last = line[i], stderr);
    }
  }
  if (last != '\n') fputc('\n', stderr);
  fprintf(stderr, "run: ---- end of the console ----\n");
  free(line);
  fclose(console);
  return panicked;
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

int main(int argc, char** argv) {
  if (argc < 6) return EXIT_RIG;
  double deadline = now() + atof(argv[1]);
  const char* console = argv[2];
  int input = strcmp(argv[3], "none") != 0;
  pid_t starter = getppid();

  int link[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) < 0) {
    perror("run: socketpair");
    return EXIT_RIG;
  }
  // Whoever kills the script that started us with SIGKILL must not leave an emulator behind.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != starter) return EXIT_RIG;
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  signal(SIGHUP, on_signal);
  signal(SIGPIPE, on_signal);
  qemu = fork();
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
    execvp(argv[5], argv + 5);
    fprintf(stderr, "run: %s: %s\n", argv[5], strerror(errno));
    _exit(EXIT_RIG);
  }
  if (qemu < 0) {
    perror("run: fork");
    return EXIT_RIG;
  }
  close(link[1]);
  if (strcmp(argv[3], "tty") == 0 && tcgetattr(0, &terminal) == 0) {
    struct termios raw = terminal;
    cfmakeraw(&raw);
    terminal_changed = tcsetattr(0, TCSANOW, &raw) == 0;
    atexit(restore_terminal);
  }

  static char frame[LINK_HEADER + LINK_MAX_PAYLOAD + 1];
  static char outgoing[LINK_HEADER + LINK_MAX_PAYLOAD];
  size_t have = 0;
  for (;;) {
    double left = deadline - now();
    struct pollfd fds[] = {{.fd = link[0], .events = POLLIN}, {.fd = input ? 0 : -1, .events = POLLIN}};
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
    struct pollfd room = {.fd = link[0], .events = POLLOUT};
    if (fds[1].revents != 0 && poll(&room, 1, 0) == 0) {
      usleep(1000);
    } else if (fds[1].revents != 0) {
      ssize_t n = read(0, outgoing + LINK_HEADER, 4096);
      if (n <= 0) input = 0;
      if (link_send(link[0], LINK_STDIN, outgoing, n > 0 ? (size_t)n : 0) < 0) input = 0;
    }
    if (fds[0].revents == 0) continue;
    size_t wanted = have < LINK_HEADER ? LINK_HEADER : LINK_HEADER + link_size(frame);
    ssize_t n = wanted > have ? read(link[0], frame + have, wanted - have) : 0;
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 && wanted > have) {  // QEMU is gone, and no status came
      int status = 0;
      waitpid(qemu, &status, 0);
      restore_terminal();
      int panicked = show_console(console);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        fprintf(stderr, panicked ? "run: the guest's kernel panicked\n"
                                 : "run: the guest went down before the command ended\n");
      } else {
        fprintf(stderr, "run: qemu failed\n");
      }
      return panicked ? EXIT_PANIC : EXIT_RIG;
    }
    have += (size_t)n;
    if (have < LINK_HEADER) continue;
    size_t size = link_size(frame);
    if (size > LINK_MAX_PAYLOAD) {
      end_qemu();
      fprintf(stderr, "run: the guest sent something that is not a frame\n");
      show_console(console);
      return EXIT_RIG;
    }
    if (have < LINK_HEADER + size) continue;
    have = 0;
    switch (frame[0]) {
      case LINK_STDOUT:
      case LINK_STDERR:
        if (write_all(frame[0] == LINK_STDOUT ? 1 : 2, frame + LINK_HEADER, size) < 0) {
          end_qemu();
          fprintf(stderr, "run: cannot write the output: %s\n", strerror(errno));
          return EXIT_RIG;
        }
        break;
      case LINK_STATUS:
        finish(link[0], 10);
        return (unsigned char)frame[LINK_HEADER];
      case LINK_FAILURE:
        finish(link[0], 2);
        restore_terminal();
        fprintf(stderr, "run: guest: %.*s\n", (int)size, frame + LINK_HEADER);
        show_console(console);
        return EXIT_RIG;
      default:
        break;
    }
  }
}
