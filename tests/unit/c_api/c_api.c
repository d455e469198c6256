/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The C API as a C program meets it; c_api_test.cpp runs what stands here. A check that fails returns its
 * line. */
#include "c_api.h"

#include <fpolicy/fpolicy.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)               \
  do {                                 \
    if (!(condition)) return __LINE__; \
  } while (0)

/* Programs have these compiled in; no check of symbols sees them change. */
_Static_assert(FPOLICY_OPEN_WRITE == 1, "");
_Static_assert(FPOLICY_SYSTEM == 0, "");
_Static_assert(FPOLICY_USER == 1, "");
_Static_assert(FPOLICY_NO_FOLLOW == 1, "");
_Static_assert(FPOLICY_FORCE == 2, "");
_Static_assert(FPOLICY_DRY_RUN == 4, "");
_Static_assert(FPOLICY_JOB_USER == 1, "");
_Static_assert(FPOLICY_MIGRATE_TREE == 1, "");
_Static_assert(FPOLICY_MIGRATE_DRY_RUN == 2, "");
_Static_assert(FPOLICY_MIGRATE_SET_CPUSET == 4, "");
_Static_assert(FPOLICY_MIGRATE_NO_FREEZE == 8, "");
_Static_assert(FPOLICY_MIGRATE_PARTIAL == 16, "");
_Static_assert(FPOLICY_MIGRATE_PRE_COPY == 32, "");
_Static_assert(FPOLICY_MIGRATE_VERIFY == 64, "");
_Static_assert(FPOLICY_MIGRATE_OWN_PAGES == 128, "");
_Static_assert(FPOLICY_MIGRATE_OWNER == 256, "");
_Static_assert(FPOLICY_MIGRATE_POLICIES == 512, "");
_Static_assert(FPOLICY_MIGRATE_PLAN == 0, "");
_Static_assert(FPOLICY_MIGRATE_QUIET == 1, "");
_Static_assert(FPOLICY_MIGRATE_FREEZE == 2, "");
_Static_assert(FPOLICY_MIGRATE_MOVE == 3, "");
_Static_assert(FPOLICY_MIGRATE_CPUSET == 4, "");
_Static_assert(FPOLICY_MIGRATE_LOOK_AGAIN == 5, "");

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
  options.progress = stop_at_once;
  options.user_data = &calls;
  CHECK(fpolicy_migrate(&options, NULL, message, message_size) == -EINTR && calls > 0);
  /* Really, stopping before anything is done. */
  options.flags = 0;
  calls = 0;
  *status = fpolicy_migrate(&options, &report.known, message, message_size);
  if (*status != 0) return 0;
  CHECK(calls > 0);
  /* Somebody else's. */
  options.flags = FPOLICY_MIGRATE_OWNER;
  options.owner = geteuid() + 1;
  CHECK(fpolicy_migrate(&options, NULL, message, message_size) == -EPERM);
  return 0;
}

/* A set-up of its own in the test's directory; what every test of tags begins with. */
struct place {
  char database[PATH_MAX];
  char rules[PATH_MAX];
  char socket[PATH_MAX];
  char file[PATH_MAX];
  const char* directory;
  char message[512];
  struct fpolicy_open_options options;
  struct fpolicy_handle* handle;
  unsigned space; /* what the caller may set */
};

static int write_text(const char* path, const char* text) {
  FILE* file = fopen(path, "w");
  int written;
  if (file == NULL) return -1;
  written = fputs(text, file);
  return fclose(file) == 0 && written >= 0 ? 0 : -1;
}

static int is(const char* text, const char* wanted) {
  return text != NULL && strcmp(text, wanted) == 0;
}

static int set_up(struct place* place, const char* directory) {
  memset(place, 0, sizeof *place);
  place->directory = directory;
  CHECK(snprintf(place->database, sizeof place->database, "%s/db/fpolicy.db", directory) < PATH_MAX);
  CHECK(snprintf(place->rules, sizeof place->rules, "%s/rules.d", directory) < PATH_MAX);
  CHECK(snprintf(place->socket, sizeof place->socket, "%s/no-policyd", directory) < PATH_MAX);
  CHECK(snprintf(place->file, sizeof place->file, "%s/file", directory) < PATH_MAX);
  CHECK(mkdir(place->rules, 0755) == 0);
  CHECK(write_text(place->file, "some text\n") == 0);
  place->space = geteuid() == 0 ? FPOLICY_SYSTEM : FPOLICY_USER;
  fpolicy_open_options_init(&place->options, sizeof place->options);
  place->options.flags = FPOLICY_OPEN_WRITE;
  place->options.database = place->database;
  place->options.rules = place->rules;
  place->options.socket = place->socket;
  CHECK(fpolicy_open(&place->options, &place->handle, place->message, sizeof place->message) == 0);
  CHECK(place->handle != NULL && place->message[0] == '\0');
  return 0;
}

/* The last call's message says this. */
static int says(const struct place* place, const char* text) {
  return strstr(place->message, text) != NULL;
}

static int add_rule(const struct place* place, const char* text) {
  char path[PATH_MAX + 16];
  (void)snprintf(path, sizeof path, "%s/10.rules", place->rules);
  return write_text(path, text);
}

#define MESSAGE place->message, sizeof place->message

static int opening(struct place* place) {
  struct {
    struct fpolicy_open_options known;
    long new_field;
  } newer;
  struct fpolicy_open_options options = place->options;
  struct fpolicy_handle* handle = place->handle;

  CHECK(fpolicy_api_version() == FPOLICY_API_VERSION);
  CHECK(fpolicy_open(&options, NULL, MESSAGE) == -EINVAL && says(place, "handle"));
  options.flags = 1U << 31;
  CHECK(fpolicy_open(&options, &handle, MESSAGE) == -EINVAL && says(place, "flags") && handle == NULL);
  options = place->options;
  options.size = 4;
  CHECK(fpolicy_open(&options, &handle, MESSAGE) == -EINVAL && says(place, "initialized"));
  memset(&newer, 0, sizeof newer);
  newer.known = place->options;
  newer.known.size = sizeof newer;
  CHECK(fpolicy_open(&newer.known, &handle, MESSAGE) == 0 && handle != NULL);
  fpolicy_close(handle);
  newer.new_field = 1;
  CHECK(fpolicy_open(&newer.known, &handle, MESSAGE) == -E2BIG && says(place, "newer") && handle == NULL);
  options = place->options;
  options.database = place->file; /* no database */
  CHECK(fpolicy_open(&options, &handle, MESSAGE) == -EUCLEAN && says(place, place->file) && handle == NULL);
  CHECK(fpolicy_open(&options, &handle, NULL, 0) == -EUCLEAN);

  /* A rule that is wrong: the handle is as before. */
  CHECK(add_rule(place, "/srv/**\tbind:\n") == 0);
  CHECK(fpolicy_refresh(place->handle, MESSAGE) == -EINVAL && says(place, "10.rules:1:"));
  CHECK(fpolicy_open(&place->options, &handle, MESSAGE) == -EINVAL && says(place, "10.rules:1:"));
  CHECK(fpolicy_set(place->handle, -1, place->file, place->space, "bind:0", 0, MESSAGE) == 1);
  CHECK(add_rule(place, "") == 0);
  CHECK(fpolicy_refresh(place->handle, MESSAGE) == 0);
  CHECK(fpolicy_refresh(NULL, MESSAGE) == -EINVAL);
  fpolicy_close(NULL);
  fpolicy_open_options_init(NULL, sizeof options);
  fpolicy_job_init(NULL, sizeof(struct fpolicy_job));
  return 0;
}

static int tags(struct place* place) {
  struct fpolicy_tag* tag = NULL;
  struct fpolicy_handle* handle = place->handle;
  const char* file = place->file;
  const unsigned space = place->space;
  const int fd = open(file, O_PATH | O_CLOEXEC);
  CHECK(fd >= 0);

  CHECK(fpolicy_get(handle, -1, file, space, 0, &tag, MESSAGE) == -ENODATA && tag == NULL);
  CHECK(fpolicy_set(handle, -1, file, space, "migrate=no,bind:0", FPOLICY_DRY_RUN, MESSAGE) == 1);
  CHECK(fpolicy_get(handle, -1, file, space, 0, &tag, MESSAGE) == -ENODATA);
  CHECK(fpolicy_set(handle, -1, file, space, "migrate=no,bind:0", 0, MESSAGE) == 1);
  CHECK(place->message[0] == '\0');
  CHECK(fpolicy_set(handle, fd, NULL, space, "bind:0,migrate=no", 0, MESSAGE) == 0);
  CHECK(fpolicy_get(handle, fd, NULL, space, 0, &tag, MESSAGE) == 0 && tag != NULL);
  CHECK(is(tag->policy, "bind:0,migrate=no") && tag->unsupported == 0);
  CHECK(is(tag->carrier, "xattr") || is(tag->carrier, "database"));
  fpolicy_tag_free(tag);
  fpolicy_tag_free(NULL);

  /* Another handle, opened to read, sees it. */
  place->options.flags = 0;
  CHECK(fpolicy_open(&place->options, &handle, MESSAGE) == 0);
  CHECK(fpolicy_get(handle, -1, file, space, FPOLICY_NO_FOLLOW, &tag, MESSAGE) == 0);
  fpolicy_tag_free(tag);
  CHECK(fpolicy_set(handle, -1, file, space, "bind:0", 0, MESSAGE) == -EBADF && says(place, "WRITE"));
  CHECK(fpolicy_remove(handle, -1, file, space, 0, MESSAGE) == -EBADF);
  fpolicy_close(handle);

  handle = place->handle;
  CHECK(fpolicy_remove(handle, -1, file, space, FPOLICY_DRY_RUN, MESSAGE) == 1);
  CHECK(fpolicy_remove(handle, -1, file, space, 0, MESSAGE) == 1);
  CHECK(fpolicy_remove(handle, fd, NULL, space, 0, MESSAGE) == 0);
  CHECK(fpolicy_set(handle, fd, NULL, FPOLICY_USER, "bind:0,pin", 0, MESSAGE) == 1);
  CHECK(says(place, "pin"));
  CHECK(close(fd) == 0);
  return 0;
}

/* What is wrong with a file, the same for every function that takes one. */
static int file_errors(struct place* place) {
  char other[PATH_MAX + 16];
  char longest[PATH_MAX + 2];
  struct fpolicy_tag* tag = NULL;
  struct fpolicy_handle* handle = place->handle;
  int fds[2];

  CHECK(fpolicy_get(handle, -1, NULL, 0, 0, &tag, MESSAGE) == -EINVAL && says(place, "fd"));
  CHECK(fpolicy_get(handle, 0, place->file, 0, 0, &tag, MESSAGE) == -EINVAL && says(place, "fd"));
  CHECK(fpolicy_get(handle, INT_MAX, NULL, 0, 0, &tag, MESSAGE) == -EBADF);
  CHECK(fpolicy_get(handle, INT_MIN, NULL, 0, 0, &tag, MESSAGE) == -EINVAL);
  CHECK(fpolicy_get(handle, -1, "", 0, 0, &tag, MESSAGE) == -ENOENT);
  memset(longest, 'a', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  CHECK(fpolicy_get(handle, -1, longest, 0, 0, &tag, MESSAGE) == -ENAMETOOLONG);
  CHECK(fpolicy_get(handle, -1, "/proc/self/status", 0, 0, &tag, MESSAGE) == -EINVAL);
  CHECK(fpolicy_get(handle, -1, "/dev/null", 0, 0, &tag, MESSAGE) == -EINVAL && says(place, "/dev/null"));
  CHECK(pipe(fds) == 0);
  CHECK(fpolicy_get(handle, fds[0], NULL, 0, 0, &tag, MESSAGE) == -EINVAL);
  CHECK(close(fds[0]) == 0 && close(fds[1]) == 0);
  (void)snprintf(other, sizeof other, "%s/absent", place->directory);
  CHECK(fpolicy_get(handle, -1, other, 0, 0, &tag, MESSAGE) == -ENOENT && says(place, other));
  (void)snprintf(other, sizeof other, "%s/link", place->directory);
  CHECK(symlink(place->file, other) == 0);
  CHECK(fpolicy_get(handle, -1, other, 0, 0, &tag, MESSAGE) == -ENODATA);
  CHECK(fpolicy_get(handle, -1, other, 0, FPOLICY_NO_FOLLOW, &tag, MESSAGE) == -ELOOP);
  CHECK(fpolicy_get(handle, -1, place->file, 0, FPOLICY_FORCE, &tag, MESSAGE) == -EINVAL &&
        says(place, "flags"));
  CHECK(fpolicy_get(handle, -1, place->file, 2, 0, &tag, MESSAGE) == -EINVAL && says(place, "space"));
  CHECK(fpolicy_get(handle, -1, place->file, 0, 0, NULL, MESSAGE) == -EINVAL);
  CHECK(fpolicy_get(NULL, -1, place->file, 0, 0, &tag, MESSAGE) == -EINVAL && tag == NULL);
  return 0;
}

static int tag_errors(struct place* place) {
  char longest[512];
  struct fpolicy_handle* handle = place->handle;
  const char* file = place->file;
  const unsigned space = place->space;

  CHECK(fpolicy_set(NULL, -1, file, space, "bind:0", 0, MESSAGE) == -EINVAL && says(place, "handle"));
  CHECK(fpolicy_set(handle, -1, file, space, NULL, 0, MESSAGE) == -EINVAL && says(place, "policy"));
  CHECK(fpolicy_set(handle, -1, file, space, "bind:0,x", 0, MESSAGE) == -EINVAL && says(place, "column"));
  memset(longest, '0', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  memcpy(longest, "bind:", 5);
  CHECK(fpolicy_set(handle, -1, file, space, longest, 0, MESSAGE) == -EINVAL);
  CHECK(fpolicy_set(handle, -1, file, 7, "bind:0", 0, MESSAGE) == -EINVAL && says(place, "space"));
  CHECK(fpolicy_set(handle, -1, file, space, "bind:0", 1U << 31, MESSAGE) == -EINVAL && says(place, "flags"));
  CHECK(fpolicy_set(handle, -1, place->directory, FPOLICY_USER, "bind:0", 0, MESSAGE) == -EINVAL);
  CHECK(fpolicy_set(handle, -1, file, space, "bind:1023", 0, MESSAGE) == -ENODEV && says(place, "1023"));
  CHECK(fpolicy_set(handle, -1, file, space, "bind:1023", FPOLICY_FORCE, MESSAGE) == 1);
  CHECK(fpolicy_remove(NULL, -1, file, space, 0, MESSAGE) == -EINVAL);
  CHECK(fpolicy_remove(handle, -1, file, 7, 0, MESSAGE) == -EINVAL && says(place, "space"));
  CHECK(fpolicy_remove(handle, -1, file, space, 1U << 31, MESSAGE) == -EINVAL && says(place, "flags"));
  CHECK(fpolicy_remove(handle, -1, file, space, 0, NULL, 0) == 1);
  if (geteuid() != 0) CHECK(fpolicy_set(handle, -1, file, FPOLICY_SYSTEM, "bind:0", 0, MESSAGE) == -EPERM);
  return 0;
}

static int results(struct place* place) {
  struct fpolicy_effective* effective = NULL;
  struct fpolicy_audit_result* audit = NULL;
  struct fpolicy_job job;
  char rule[PATH_MAX + 64];
  uint64_t pages = 0;
  struct fpolicy_handle* handle = place->handle;
  const char* file = place->file;

  CHECK(fpolicy_resolve(handle, -1, file, NULL, 0, &effective, MESSAGE) == 0);
  CHECK(effective->policy == NULL && is(effective->source, "none") && is(effective->origin, ""));
  CHECK(is(effective->text, "") && effective->unsupported == 0 && effective->from_user == 0);
  fpolicy_effective_free(effective);
  CHECK(fpolicy_audit(handle, -1, file, NULL, 0, &audit, MESSAGE) == 0);
  CHECK(is(audit->state, "unset") && audit->policy == NULL);
  fpolicy_audit_free(audit);

  (void)snprintf(rule, sizeof rule, "%s\tbind:0\n", file);
  CHECK(add_rule(place, rule) == 0 && fpolicy_refresh(handle, MESSAGE) == 0);
  CHECK(fpolicy_resolve(handle, -1, file, NULL, 0, &effective, MESSAGE) == 0);
  CHECK(is(effective->policy, "bind:0") && is(effective->source, "rule"));
  CHECK(strstr(effective->origin, "10.rules:1") != NULL && strstr(effective->path, "/file") != NULL);
  fpolicy_effective_free(effective);
  fpolicy_effective_free(NULL);

  CHECK(fpolicy_set(handle, -1, file, place->space, "interleave:0", 0, MESSAGE) == 1);
  fpolicy_job_init(&job, sizeof job);
  job.flags = FPOLICY_JOB_USER;
  job.user = geteuid();
  job.nodes = "0";
  CHECK(fpolicy_resolve(handle, -1, file, &job, 0, &effective, MESSAGE) == 0);
  CHECK(is(effective->policy, "interleave:0") && effective->from_user == (place->space == FPOLICY_USER));
  fpolicy_effective_free(effective);
  CHECK(fpolicy_audit(handle, -1, file, &job, FPOLICY_NO_FOLLOW, &audit, MESSAGE) == 0);
  CHECK(is(audit->state, "ok") && is(audit->policy, "interleave:0") && audit->pages_told == 1);
  CHECK(audit->misplaced_pages == 0 && audit->file_pages == 1 && audit->page_size >= 4096);
  for (size_t node = 0; node < audit->node_count; ++node) pages += audit->pages_by_node[node];
  CHECK(pages + audit->unknown_pages == audit->resident_pages && audit->resident_pages <= 1);
  fpolicy_audit_free(audit);
  fpolicy_audit_free(NULL);

  CHECK(fpolicy_set(handle, -1, file, place->space, "bind:1023", FPOLICY_FORCE, MESSAGE) == 1);
  CHECK(fpolicy_audit(handle, -1, file, NULL, 0, &audit, MESSAGE) == 0);
  CHECK(is(audit->state, "unsatisfiable") && strstr(audit->reason, "1023") != NULL);
  fpolicy_audit_free(audit);
  return 0;
}

static int results_errors(struct place* place) {
  struct fpolicy_effective* effective = NULL;
  struct fpolicy_audit_result* audit = NULL;
  struct {
    struct fpolicy_job known;
    long new_field;
  } newer;
  struct fpolicy_job* job = &newer.known;
  struct fpolicy_handle* handle = place->handle;
  const char* file = place->file;

  CHECK(fpolicy_resolve(NULL, -1, file, NULL, 0, &effective, MESSAGE) == -EINVAL && effective == NULL);
  CHECK(fpolicy_resolve(handle, -1, file, NULL, 0, NULL, MESSAGE) == -EINVAL);
  CHECK(fpolicy_resolve(handle, -1, NULL, NULL, 0, &effective, MESSAGE) == -EINVAL && says(place, "fd"));
  CHECK(fpolicy_resolve(handle, -1, file, NULL, FPOLICY_DRY_RUN, &effective, MESSAGE) == -EINVAL);
  CHECK(fpolicy_audit(NULL, -1, file, NULL, 0, &audit, MESSAGE) == -EINVAL && audit == NULL);
  CHECK(fpolicy_audit(handle, -1, file, NULL, 0, NULL, MESSAGE) == -EINVAL);
  CHECK(fpolicy_audit(handle, -1, NULL, NULL, 0, &audit, MESSAGE) == -EINVAL && says(place, "fd"));
  CHECK(fpolicy_audit(handle, -1, file, NULL, FPOLICY_FORCE, &audit, MESSAGE) == -EINVAL);

  memset(&newer, 0, sizeof newer);
  CHECK(fpolicy_audit(handle, -1, file, job, 0, &audit, MESSAGE) == -EINVAL && says(place, "initialized"));
  fpolicy_job_init(job, sizeof newer);
  newer.new_field = 1;
  CHECK(fpolicy_resolve(handle, -1, file, job, 0, &effective, MESSAGE) == -E2BIG && says(place, "newer"));
  newer.new_field = 0;
  CHECK(fpolicy_audit(handle, -1, file, job, 0, &audit, MESSAGE) == 0);
  fpolicy_audit_free(audit);
  job->flags = 1U << 31;
  CHECK(fpolicy_audit(handle, -1, file, job, 0, &audit, MESSAGE) == -EINVAL && says(place, "flags"));
  job->flags = 0;
  job->nodes = "0-";
  CHECK(fpolicy_resolve(handle, -1, file, job, 0, &effective, MESSAGE) == -EINVAL && says(place, "nodes"));
  job->nodes = "1023";
  CHECK(fpolicy_audit(handle, -1, file, job, 0, &audit, MESSAGE) == -EINVAL && audit == NULL);
  job->nodes = "";
  CHECK(fpolicy_audit(handle, -1, file, job, 0, &audit, MESSAGE) == -EINVAL && audit == NULL);
  return 0;
}

/* With what `test` does in a set-up of its own. */
static int in_place(const char* directory, int (*test)(struct place* place)) {
  static struct place place; /* too large for a stack frame; tests run one at a time */
  int line = set_up(&place, directory);
  if (line == 0) line = test(&place);
  fpolicy_close(place.handle);
  return line;
}

static int files_and_tags(struct place* place) {
  const int line = file_errors(place);
  return line != 0 ? line : tag_errors(place);
}

int c_api_open(const char* directory) {
  return in_place(directory, opening);
}
int c_api_tags(const char* directory) {
  return in_place(directory, tags);
}
int c_api_tag_errors(const char* directory) {
  return in_place(directory, files_and_tags);
}
int c_api_results(const char* directory) {
  return in_place(directory, results);
}
int c_api_results_errors(const char* directory) {
  return in_place(directory, results_errors);
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
