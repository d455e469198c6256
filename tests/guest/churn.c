// What a busy manager of jobs does to cgroups: churn PARENT COUNT RATE PID makes COUNT cgroups below the
// directory PARENT, one after another, at most RATE a minute. For each it sets cpuset.mems to node 1 and
// removes it again; into every tenth it moves the process PID, and back to PARENT. Prints how long the
// longest open took (ms), how many opens there were, and how long all took (s).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t longest_ns;
static long opens;

__attribute__((noreturn)) static void die(const char* what) {
  fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void write_to(const char* directory, const char* name, const char* text) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  const uint64_t began = now_ns();
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const uint64_t took = now_ns() - began;
  if (fd < 0) die(path);
  if (took > longest_ns) longest_ns = took;
  ++opens;
  if (write(fd, text, strlen(text)) < 0) die(path);
  close(fd);
}

int main(int argc, char** argv) {
  const long count = argc == 5 ? strtol(argv[2], NULL, 10) : 0;
  const long rate = argc == 5 ? strtol(argv[3], NULL, 10) : 0;
  if (count <= 0 || rate <= 0) {
    fputs("Usage: churn PARENT COUNT RATE PID\n", stderr);
    return 2;
  }
  const char* parent = argv[1];
  const uint64_t began = now_ns();
  for (long i = 0; i < count; ++i) {
    char path[4096];
    snprintf(path, sizeof path, "%s/churn-%ld", parent, i);
    if (mkdir(path, 0755) != 0) die(path);
    write_to(path, "cpuset.mems", "1");
    if (i % 10 == 0) {
      write_to(path, "cgroup.procs", argv[4]);
      write_to(parent, "cgroup.procs", argv[4]);
    }
    if (rmdir(path) != 0) die(path);
    while (now_ns() < began + (uint64_t)(i + 1) * 60000000000U / (uint64_t)rate) usleep(1000);
  }
  printf("%.1f %ld %.1f\n", (double)longest_ns / 1e6, opens, (double)(now_ns() - began) / 1e9);
  return 0;
}
