// A job for tests: maps files, touches their pages, has memory of its own, and stays until SIGTERM.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void usage(FILE* out) {
  fputs(
      "Usage: mapper [OPTION...] [FILE...]\n"
      "Maps the FILEs, reads a byte of every page, prints \"ready\" and sleeps until SIGTERM (exit 0).\n"
      "SIGUSR1: read every page again, write every page of --anon again, and print \"touched\".\n"
      "  --shared     map MAP_SHARED (default)\n"
      "  --private    map MAP_PRIVATE\n"
      "  --exec       map MAP_PRIVATE and executable, as libraries are\n"
      "  --write N    write into the first N pages of each file's private mapping, so that it copies them\n"
      "  --anon MIB   allocate and write so much anonymous memory\n"
      "  --no-touch   map only\n"
      "  --pieces N   map the first page of each FILE in turn, N mappings in all\n"
      "  --many N     each FILE is a directory, in which N files of one page are made and mapped\n"
      "  --mlock      lock all that is mapped\n"
      "  --daemon     go to the background when ready, and print the process id instead of \"ready\"\n",
      out);
}

__attribute__((noreturn)) static void die(const char* what) {
  fprintf(stderr, "mapper: %s: %s\n", what, strerror(errno));
  exit(2);
}

struct mapping {
  char* at;
  size_t size;
};

static size_t page_size;

static void read_pages(struct mapping m) {
  for (size_t i = 0; i < m.size; i += page_size) (void)*(volatile char*)(m.at + i);
}

static void write_pages(struct mapping m, size_t limit) {
  // Adds nothing, but the kernel must copy the page all the same.
  for (size_t i = 0; i < m.size && i < limit; i += page_size) {
    volatile char* at = m.at + i;
    *at = *at;
  }
}

static size_t number(const char* text) {
  char* end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value > SIZE_MAX >> 21) {
    fprintf(stderr, "mapper: %s: not a number\n", text);
    exit(2);
  }
  return value;
}

static int open_file(const char* path, off_t* size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) die(path);
  *size = st.st_size;
  return fd;
}

static char* map(const char* path, int fd, size_t size, int protection, int flags) {
  char* at = mmap(NULL, size, protection, flags, fd, 0);
  if (at == MAP_FAILED) die(path);
  return at;
}

// Neighbours that lie side by side in one file are joined: of one file alone every other mapping is of
// another kind.
static void map_pieces(char** paths, size_t count, size_t pieces, int protection) {
  int fds[16];
  off_t size;
  if (count == 0 || count > sizeof fds / sizeof *fds) {
    fputs("mapper: --pieces: from 1 to 16 FILEs\n", stderr);
    exit(2);
  }
  for (size_t i = 0; i < count; i++) fds[i] = open_file(paths[i], &size);
  for (size_t i = 0; i < pieces; i++)
    map(paths[i % count], fds[i % count], page_size, protection, i % 2 == 0 ? MAP_SHARED : MAP_PRIVATE);
  for (size_t i = 0; i < count; i++) close(fds[i]);
}

static void map_many(const char* directory, size_t many, int protection, int flags, bool touch) {
  int where = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (where < 0) die(directory);
  for (size_t i = 0; i < many; i++) {
    char name[32];
    snprintf(name, sizeof name, "%zu", i);
    int fd = openat(where, name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)page_size) < 0) die(name);
    struct mapping m = {.at = map(name, fd, page_size, protection, flags), .size = page_size};
    if (touch) read_pages(m);
    close(fd);
  }
  close(where);
}

int main(int argc, char** argv) {
  enum { SHARED = 256, PRIVATE, EXEC, WRITE, ANON, TOUCH, NO_TOUCH, PIECES, MANY, MLOCK, DAEMON, HELP };
  static const struct option options[] = {{"shared", no_argument, NULL, SHARED},
                                          {"private", no_argument, NULL, PRIVATE},
                                          {"exec", no_argument, NULL, EXEC},
                                          {"write", required_argument, NULL, WRITE},
                                          {"anon", required_argument, NULL, ANON},
                                          {"touch", no_argument, NULL, TOUCH},
                                          {"no-touch", no_argument, NULL, NO_TOUCH},
                                          {"pieces", required_argument, NULL, PIECES},
                                          {"many", required_argument, NULL, MANY},
                                          {"mlock", no_argument, NULL, MLOCK},
                                          {"daemon", no_argument, NULL, DAEMON},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
  int flags = MAP_SHARED, protection = PROT_READ;
  bool touch = true, lock = false, daemon = false;
  size_t anonymous = 0, written = 0, pieces = 0, many = 0;
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case SHARED:
        flags = MAP_SHARED;
        break;
      case PRIVATE:
        flags = MAP_PRIVATE;
        break;
      case EXEC:
        flags = MAP_PRIVATE;
        protection |= PROT_EXEC;
        break;
      case WRITE:
        flags = MAP_PRIVATE;
        protection |= PROT_WRITE;
        written = number(optarg);
        break;
      case ANON:
        anonymous = number(optarg);
        break;
      case TOUCH:
        touch = true;
        break;
      case NO_TOUCH:
        touch = false;
        break;
      case PIECES:
        pieces = number(optarg);
        break;
      case MANY:
        many = number(optarg);
        break;
      case MLOCK:
        lock = true;
        break;
      case DAEMON:
        daemon = true;
        break;
      case HELP:
        usage(stdout);
        return 0;
      default:
        usage(stderr);
        return 2;
    }
  }
  page_size = (size_t)sysconf(_SC_PAGESIZE);

  // From here on, so that no signal is lost between "ready" and the wait for it.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  sigprocmask(SIG_BLOCK, &signals, NULL);

  int ready[2];
  if (daemon) {
    // Forked before anything is mapped: the pages are to be the child's alone.
    if (pipe2(ready, O_CLOEXEC) < 0) die("pipe");
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid > 0) {
      char byte;
      close(ready[1]);
      if (read(ready[0], &byte, 1) != 1) return 2;  // the child has said why
      printf("%d\n", (int)pid);
      return 0;
    }
    close(ready[0]);
    setsid();
  }

  size_t count = (size_t)(argc - optind);
  if (pieces > 0) map_pieces(argv + optind, count, pieces, protection);
  for (size_t i = 0; many > 0 && i < count; i++)
    map_many(argv[optind + (int)i], many, protection, flags, touch);
  if (pieces > 0 || many > 0) count = 0;
  struct mapping* files = calloc(count + 1, sizeof *files);
  if (files == NULL) die("memory");
  for (size_t i = 0; i < count; i++) {
    const char* path = argv[optind + (int)i];
    off_t size;
    int fd = open_file(path, &size);
    files[i].size = (size_t)size;
    if (files[i].size > 0) {
      files[i].at = map(path, fd, files[i].size, protection, flags);
      if (touch) read_pages(files[i]);
      write_pages(files[i], written * page_size);
    }
    close(fd);
  }
  struct mapping own = {.size = anonymous << 20};
  if (own.size > 0) {
    own.at = mmap(NULL, own.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own.at == MAP_FAILED) die("anonymous memory");
    if (touch) memset(own.at, 1, own.size);
  }
  if (lock && mlockall(MCL_CURRENT) < 0) die("mlockall");

  if (daemon) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (write(ready[1], "", 1) != 1) return 2;
    close(ready[1]);
  } else {
    printf("ready\n");
    fflush(stdout);
  }
  for (;;) {
    int number;
    if (sigwait(&signals, &number) != 0 || number == SIGTERM) return 0;
    for (size_t i = 0; i < count; i++) read_pages(files[i]);
    write_pages(own, SIZE_MAX);
    printf("touched\n");
    fflush(stdout);
  }
}
