/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The C API as a C program meets it; c_api_test.cpp runs what stands here. A check that fails returns its
 * line. */
#include "c_api.h"

#include <fpolicy/fpolicy.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)               \
  do {                                 \
    if (!(condition)) return __LINE__; \
  } while (0)

static int stop_at_once(const struct fpolicy_migrate_progress* progress, void* user_data) {
  ++*(int*)user_data;
  return progress->size >= sizeof *progress ? 1 : 0;
}

static int errors(void) {
  struct fpolicy_migrate_options options;
  struct fpolicy_migrate_report report;
  char message[256];
  const pid_t none = 1 << 22; /* the kernel's PID_MAX_LIMIT: no process has it */
  memset(&report, 0, sizeof report);

  CHECK(fpolicy_migrate(NULL, NULL, message, sizeof message) == -EINVAL);
  CHECK(strlen(message) > 0);
  fpolicy_migrate_options_init(&options, sizeof options);
  CHECK(options.size == sizeof options && options.flags == 0 && options.cgroup == NULL);
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  CHECK(strstr(message, "from") != NULL);
  options.from = "0";
  options.to = "0-";
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  CHECK(strstr(message, "to") != NULL);
  options.to = "0";
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL); /* no job */
  options.pid_count = 1;
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  options.pids = &none;
  options.flags = 1U << 31;
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  options.flags = FPOLICY_MIGRATE_SET_CPUSET;
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  options.flags = 0;
  options.to = "1023";
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);
  CHECK(strstr(message, "1023") != NULL);
  options.to = "0";
  CHECK(fpolicy_migrate(&options, &report, message, sizeof message) == -EINVAL); /* report.size is 0 */
  options.cgroup = "../../etc";
  options.pid_count = 0;
  CHECK(fpolicy_migrate(&options, NULL, message, sizeof message) == -EINVAL);

  /* A message is cut, and may be unwanted. */
  memset(message, 'x', sizeof message);
  CHECK(fpolicy_migrate(&options, NULL, message, 8) == -EINVAL);
  CHECK(strlen(message) == 7 && message[8] == 'x');
  CHECK(fpolicy_migrate(&options, NULL, NULL, 0) == -EINVAL);
  return 0;
}

static int versions(void) {
  struct {
    struct fpolicy_migrate_options known;
    long new_field;
  } newer;
  char message[256];
  memset(&newer, 0, sizeof newer);
  fpolicy_migrate_options_init(&newer.known, sizeof newer);
  newer.known.from = "0";
  /* What is not known is zero: as if it were not there. */
  CHECK(fpolicy_migrate(&newer.known, NULL, message, sizeof message) == -EINVAL);
  newer.new_field = 1;
  CHECK(fpolicy_migrate(&newer.known, NULL, message, sizeof message) == -E2BIG);
  newer.known.size = 4;
  CHECK(fpolicy_migrate(&newer.known, NULL, message, sizeof message) == -EINVAL);
  return 0;
}

/* A child's pages, from node 0 to node 0. */
static int child(pid_t pid, int* status, char* message, size_t message_size) {
  struct fpolicy_migrate_options options;
  struct {
    struct fpolicy_migrate_report known;
    long new_field;
  } report;
  int calls = 0;
  memset(&report, 0xff, sizeof report);
  report.known.size = sizeof report;
  fpolicy_migrate_options_init(&options, sizeof options);
  options.pids = &pid;
  options.pid_count = 1;
  options.from = "0";
  options.to = "0";
  options.flags = FPOLICY_MIGRATE_DRY_RUN | FPOLICY_MIGRATE_OWNER;
  options.owner = geteuid();
  *status = fpolicy_migrate(&options, &report.known, message, message_size);
  if (*status != 0) return 0;
  CHECK(report.known.size == sizeof report && report.new_field == 0);
  CHECK(report.known.processes == 1 && report.known.moved_pages == 0 && report.known.moved_bytes == 0);
  CHECK(report.known.stayed_pages > 0 && report.known.stopped == 0);
  /* Really, stopping before anything is done. */
  options.flags = 0;
  options.progress = stop_at_once;
  options.user_data = &calls;
  *status = fpolicy_migrate(&options, &report.known, message, message_size);
  if (*status != 0) return 0;
  CHECK(calls > 0);
  /* Somebody else's. */
  options.flags = FPOLICY_MIGRATE_OWNER;
  options.owner = geteuid() + 1;
  CHECK(fpolicy_migrate(&options, NULL, message, message_size) == -EPERM);
  return 0;
}

int c_api_errors(void) {
  return errors();
}
int c_api_versions(void) {
  return versions();
}

int c_api_child(int* status, char* message, size_t message_size) {
  int line;
  const pid_t pid = fork();
  if (pid == 0) {
    for (;;) pause();
  }
  if (pid < 0) return __LINE__;
  line = child(pid, status, message, message_size);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return line;
}
