// Process 1 of the guest, or a service of systemd there: runs /usr/lib/guest/setup, then the command of
// /run/guest/argv; carries its output to the host, frame by frame (link.h), reports its status and powers
// off. It reaps what is orphaned meanwhile, as tests start daemons.
#define _GNU_SOURCE
#include "link.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

static int link_fd = -1;
static sigset_t original_mask;

static void power_off(void) {
  // The disks are thrown away, except those that setup names in this file.
  FILE* kept = fopen("/run/guest/keep", "r");
  char path[256];
  while (kept != NULL && fscanf(kept, "%255s", path) == 1) {
    if (umount2(path, 0) < 0) sync();
  }
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

// Standard input on its way: one frame, never waited for, since a command that stops reading until its
// output is taken would wait for us too.
static struct {
  char frame[LINK_HEADER + LINK_MAX_PAYLOAD];
  size_t have, written;
  int complete;
} input;

static void take_input(void) {
  size_t wanted = LINK_HEADER + (input.have < LINK_HEADER ? 0 : link_size(input.frame));
  ssize_t n = read(link_fd, input.frame + input.have, wanted - input.have);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) power_off();  // the host is gone
  input.have += (size_t)n;
  input.complete = input.have >= LINK_HEADER && input.have == LINK_HEADER + link_size(input.frame);
}

static void await_ack(void) {
  // Standard input that nobody wants any more may still come before it.
  for (;;) {
    if (input.complete && input.frame[0] == LINK_ACK) return;
    if (input.complete) {
      input.have = input.written = 0;
      input.complete = 0;
    }
    take_input();
  }
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char* format, ...) {
  char frame[LINK_HEADER + 512];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(frame + LINK_HEADER, sizeof frame - LINK_HEADER, format, args);
  va_end(args);
  if (n >= (int)(sizeof frame - LINK_HEADER)) n = sizeof frame - LINK_HEADER - 1;
  fprintf(stderr, "guest: %s\n", frame + LINK_HEADER);
  if (link_fd >= 0 && link_send(link_fd, LINK_FAILURE, frame, (size_t)n) == 0) await_ack();
  power_off();
  abort();
}

static int open_link(void) {
  // The ports get their names a moment after the driver has bound.
  for (int tries = 0; tries < 500; tries++) {
    DIR* dir = opendir("/sys/class/virtio-ports");
    for (struct dirent* entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
      char path[512], name[64] = "";
      snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      if (fd < 0) continue;
      ssize_t n = read(fd, name, sizeof name - 1);
      close(fd);
      if (n <= 0 || strncmp(name, LINK_PORT "\n", (size_t)n) != 0) continue;
      snprintf(path, sizeof path, "/dev/%s", entry->d_name);
      fd = open(path, O_RDWR | O_CLOEXEC);
      if (fd >= 0) {
        closedir(dir);
        return fd;
      }
    }
    if (dir != NULL) closedir(dir);
    usleep(10000);
  }
  return -1;
}

static char* read_file(const char* path, size_t* size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  char* text = NULL;
  size_t have = 0;
  for (;;) {
    char* grown = realloc(text, have + 65537);
    if (grown == NULL) break;
    text = grown;
    ssize_t n = read(fd, text + have, 65536);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    have += (size_t)n;
  }
  close(fd);
  if (text != NULL) text[have] = '\0';
  *size = have;
  return text;
}

// The number after `key` on the kernel's command line, or `otherwise`.
static long boot_number(const char* key, long otherwise) {
  size_t size;
  char* text = read_file("/proc/cmdline", &size);
  char* at = text == NULL ? NULL : strstr(text, key);
  long value = at == NULL ? otherwise : atol(at + strlen(key));
  free(text);
  return value;
}

static int run_setup(void) {
  pid_t pid = fork();
  if (pid == 0) {
    sigprocmask(SIG_SETMASK, &original_mask, NULL);
    execl("/usr/lib/guest/setup", "setup", NULL);
    _exit(127);
  }
  int status = -1;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

// Who waits where, on the console, a little before the host ends a guest that hangs.
static void show_processes(void) {
  fprintf(stderr, "guest: out of time; its processes (pid, state, command, kernel stack):\n");
  DIR* proc = opendir("/proc");
  for (struct dirent* entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    char path[300];
    size_t size = 0;
    snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
    char* command = read_file(path, &size);
    if (command == NULL || size == 0) {  // a kernel thread, or gone
      free(command);
      continue;
    }
    for (size_t i = 0; i + 1 < size; i++) {
      if (command[i] == '\0') command[i] = ' ';
    }
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    char* stat = read_file(path, &size);
    char* state = stat == NULL ? NULL : strrchr(stat, ')');
    fprintf(stderr, "%5s %c %.200s\n", entry->d_name, state != NULL && state[1] != '\0' ? state[2] : '?',
            command);
    snprintf(path, sizeof path, "/proc/%s/stack", entry->d_name);
    char* stack = read_file(path, &size);
    int lines = 0;
    for (char* line = stack == NULL ? NULL : strtok(stack, "\n"); line != NULL && lines < 6; lines++) {
      char* name = strchr(line, ']');
      fprintf(stderr, "        %s\n", name != NULL ? name + 1 : line);
      line = strtok(NULL, "\n");
    }
    free(stack);
    free(stat);
    free(command);
  }
  if (proc != NULL) closedir(proc);
  int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    (void)!write(fd, "w", 1);  // tasks in uninterruptible sleep, kernel threads too
    close(fd);
  }
}

struct command {
  pid_t pid;
  int in, out, err;  // our ends; -1: closed. With a terminal, in and out are the master side
};

static struct command start(char** argv, int with_stdin, int with_terminal) {
  struct command c = {.in = -1, .out = -1, .err = -1};
  int in[2] = {-1, -1}, out[2], err[2];
  if (with_terminal) {
    struct winsize size = {.ws_row = (unsigned short)boot_number("guest.rows=", 24),
                           .ws_col = (unsigned short)boot_number("guest.columns=", 80)};
    c.pid = forkpty(&c.out, NULL, NULL, &size);
    if (c.pid > 0) c.in = dup(c.out);
  } else {
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || (with_stdin && pipe2(in, O_CLOEXEC) < 0)) {
      fail("pipe: %s", strerror(errno));
    }
    c.pid = fork();
  }
  if (c.pid < 0) fail("fork: %s", strerror(errno));
  if (c.pid == 0) {
    sigprocmask(SIG_SETMASK, &original_mask, NULL);
    signal(SIGTERM, SIG_DFL);
    if (!with_terminal) {
      setsid();
      int null = open("/dev/null", O_RDONLY);
      dup2(with_stdin ? in[0] : null, 0);
      if (null > 2) close(null);
      dup2(out[1], 1);
      dup2(err[1], 2);
    }
    if (chdir("/root") < 0) _exit(126);
    execvp(argv[0], argv);
    int error = errno;
    dprintf(2, "%s: %s\n", argv[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
  }
  if (!with_terminal) {
    close(out[1]);
    close(err[1]);
    if (with_stdin) close(in[0]);
    c.in = in[1];
    c.out = out[0];
    c.err = err[0];
  }
  if (c.out >= 0) fcntl(c.out, F_SETFL, O_NONBLOCK);
  if (c.err >= 0) fcntl(c.err, F_SETFL, O_NONBLOCK);
  if (c.in >= 0) fcntl(c.in, F_SETFL, O_NONBLOCK);
  return c;
}

// Sends what there is; closes the fd at its end. Returns whether anything was there.
static int forward(int* fd, enum link_type type) {
  static char frame[LINK_HEADER + LINK_MAX_PAYLOAD];
  if (*fd < 0) return 0;
  ssize_t n = read(*fd, frame + LINK_HEADER, LINK_MAX_PAYLOAD);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n <= 0) {  // a terminal's master side gives EIO when the other side is closed
    close(*fd);
    *fd = -1;
    return 0;
  }
  if (link_send(link_fd, type, frame, (size_t)n) < 0) power_off();
  return 1;
}

static void give_input(int* in) {
  size_t size = link_size(input.frame);
  ssize_t n = size == 0 ? 0 : write(*in, input.frame + LINK_HEADER + input.written, size - input.written);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    close(*in);
    *in = -1;
  } else if ((input.written += (size_t)n) < size) {
    return;
  }
  input.have = input.written = 0;
  input.complete = 0;
}

int main(void) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  sigprocmask(SIG_BLOCK, &mask, &original_mask);
  signal(SIGPIPE, SIG_IGN);
  // As a service: when the machine is shut down, COMMAND is told, and ends or does not.
  signal(SIGTERM, SIG_IGN);
  int children = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  reboot(RB_DISABLE_CAD);
  setvbuf(stderr, NULL, _IOLBF, 0);

  link_fd = open_link();
  if (link_fd < 0) {
    fprintf(stderr, "guest: no virtio-serial port named " LINK_PORT "\n");
    power_off();
  }
  setenv("PATH", "/tests:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  setenv("HOME", "/root", 1);
  setenv("USER", "root", 1);
  setenv("LOGNAME", "root", 1);
  setenv("SHELL", "/bin/bash", 1);
  setenv("LANG", "C.UTF-8", 1);
  setenv("TERM", "dumb", 1);
  int status = 0;
  if (getpid() == 1 && run_setup() != 0) fail("setup failed, see the console");

  size_t size;
  char* text = read_file("/run/guest/argv", &size);
  if (text == NULL || size == 0) fail("/run/guest/argv: missing or empty");
  size_t count = 0;
  for (size_t i = 0; i < size; i++) count += text[i] == '\0';
  char** argv = calloc(count + 1, sizeof *argv);
  char* at = text;
  for (size_t i = 0; i < count; i++, at += strlen(at) + 1) argv[i] = at;
  char* environment = read_file("/run/guest/environment", &size);
  for (char* e = environment; e != NULL && e < environment + size; e += strlen(e) + 1) putenv(e);

  char started[LINK_HEADER];
  if (link_send(link_fd, LINK_STARTED, started, 0) < 0) power_off();
  struct command c = start(argv, access("/run/guest/stdin", F_OK) == 0, access("/run/guest/tty", F_OK) == 0);
  long deadline = boot_number("guest.deadline=", 0);
  int exit_status = -1;
  while (exit_status < 0) {
    struct pollfd fds[] = {{.fd = children, .events = POLLIN},
                           {.fd = c.out, .events = POLLIN},
                           {.fd = c.err, .events = POLLIN},
                           {.fd = c.in >= 0 && !input.complete ? link_fd : -1, .events = POLLIN},
                           {.fd = c.in >= 0 && input.complete ? c.in : -1, .events = POLLOUT}};
    int timeout = -1;
    if (deadline > 0) {
      struct timespec now;
      clock_gettime(CLOCK_BOOTTIME, &now);
      if (now.tv_sec >= deadline) {
        show_processes();
        deadline = 0;
      } else {
        timeout = (int)(deadline - now.tv_sec) * 1000;
      }
    }
    if (poll(fds, sizeof fds / sizeof *fds, timeout) <= 0) continue;
    if (fds[1].revents != 0) forward(&c.out, LINK_STDOUT);
    if (fds[2].revents != 0) forward(&c.err, LINK_STDERR);
    if (fds[3].revents != 0) take_input();
    if (fds[4].revents != 0) give_input(&c.in);
    if (fds[0].revents != 0) {
      struct signalfd_siginfo info;
      while (read(children, &info, sizeof info) > 0) {
      }
      pid_t pid;
      while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != c.pid) continue;
        exit_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      }
    }
  }
  // What the command wrote; not what daemons that it left behind may write later.
  while (forward(&c.out, LINK_STDOUT) | forward(&c.err, LINK_STDERR)) {
  }
  char last[LINK_HEADER + 1];
  last[LINK_HEADER] = (char)exit_status;
  if (link_send(link_fd, LINK_STATUS, last, 1) == 0) await_ack();
  power_off();
}
