// How long a file takes to open: open_times r|w COUNT RATE FILE... opens each FILE in turn, COUNT times in
// all, at most RATE a second (0: as fast as it goes), and prints the median and the longest in microseconds.
// Reads what it opens for reading, as a monitoring agent does; writes nothing.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static int compare(const void* a, const void* b) {
  const uint64_t left = *(const uint64_t*)a, right = *(const uint64_t*)b;
  return left < right ? -1 : left > right;
}

int main(int argc, char** argv) {
  const long count = argc > 4 ? strtol(argv[2], NULL, 10) : 0;
  const long rate = argc > 4 ? strtol(argv[3], NULL, 10) : 0;
  if (count <= 0 || rate < 0 || (strcmp(argv[1], "r") != 0 && strcmp(argv[1], "w") != 0)) {
    fputs("Usage: open_times r|w COUNT RATE FILE...\n", stderr);
    return 2;
  }
  const int writes = argv[1][0] == 'w';
  uint64_t* took = calloc((size_t)count, sizeof *took);
  if (took == NULL) return 1;
  char buffer[4096];
  const uint64_t began = now_ns();
  for (long i = 0; i < count; ++i) {
    const char* path = argv[4 + i % (argc - 4)];
    const uint64_t opened = now_ns();
    const int fd = open(path, (writes ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    took[i] = now_ns() - opened;
    if (fd < 0) {
      fprintf(stderr, "open_times: %s: %s\n", path, strerror(errno));
      return 1;
    }
    if (!writes && read(fd, buffer, sizeof buffer) < 0) return 1;
    close(fd);
    while (rate > 0 && now_ns() < began + (uint64_t)(i + 1) * 1000000000U / (uint64_t)rate) usleep(200);
  }
  qsort(took, (size_t)count, sizeof *took, compare);
  printf("%.1f %.1f\n", (double)took[count / 2] / 1000, (double)took[count - 1] / 1000);
  free(took);
  return 0;
}
