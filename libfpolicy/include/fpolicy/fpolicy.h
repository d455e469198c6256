/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fpolicy's C API: C11, or C++.
 *
 * Conventions
 *   - Functions return 0, or a negative errno value. Text for people goes into the caller's buffer.
 *   - Structs begin with their size as the caller was compiled to know it. Fields may be added at their ends:
 *     a library that knows more of them, or fewer, works with the others. A struct that is larger than the
 *     library knows is refused (-E2BIG) if what it does not know is not zero.
 *   - Sets of nodes are text as in cpuset.mems: "0-1,3".
 *   - Pages are base pages of sysconf(_SC_PAGESIZE) bytes, of huge pages as well.
 *   - All text that is given is read before the function returns, and not kept.
 *   - Functions may be called by several threads at the same time.
 */
#ifndef FPOLICY_FPOLICY_H
#define FPOLICY_FPOLICY_H

#include <fpolicy/export.h>

#include <stddef.h> /* NOLINT(modernize-deprecated-headers): C */
#include <stdint.h> /* NOLINT(modernize-deprecated-headers): C */
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NOLINTBEGIN(readability-identifier-naming): C has no namespaces, and its names are written so. */

/* Flags of a move. What they mean is what migratejob's options mean; see migratejob(1). */
enum fpolicy_migrate_flags {
  /* Of `pids`, their descendants too. */
  FPOLICY_MIGRATE_TREE = 1 << 0,
  /* Change nothing; the report tells what would be. */
  FPOLICY_MIGRATE_DRY_RUN = 1 << 1,
  /* Also set the cgroup's cpuset.mems to `to`. */
  FPOLICY_MIGRATE_SET_CPUSET = 1 << 2,
  /* Let the job run on meanwhile. */
  FPOLICY_MIGRATE_NO_FREEZE = 1 << 3,
  /* Go on where the target nodes are too small. */
  FPOLICY_MIGRATE_PARTIAL = 1 << 4,
  /* Move what can be moved before the freeze. */
  FPOLICY_MIGRATE_PRE_COPY = 1 << 5,
  /* Look again whether all pages have arrived. */
  FPOLICY_MIGRATE_VERIFY = 1 << 6,
  /* Only pages that one process of the job maps and nobody else, whatever the policies say. */
  FPOLICY_MIGRATE_OWN_PAGES = 1 << 7,
  /* Every process of the job must be wholly `owner`'s: for those who ask on the word of a user. */
  FPOLICY_MIGRATE_OWNER = 1 << 8,
  /* By the policies that are stored: tags, the database (read only) and the rules. Without this flag no file
   * has a policy. */
  FPOLICY_MIGRATE_POLICIES = 1 << 9
};

enum fpolicy_migrate_phase {
  FPOLICY_MIGRATE_PLAN = 0,
  FPOLICY_MIGRATE_QUIET = 1, /* before the freeze (FPOLICY_MIGRATE_PRE_COPY) */
  FPOLICY_MIGRATE_FREEZE = 2,
  FPOLICY_MIGRATE_MOVE = 3,
  FPOLICY_MIGRATE_CPUSET = 4,
  FPOLICY_MIGRATE_LOOK_AGAIN = 5 /* FPOLICY_MIGRATE_VERIFY */
};

struct fpolicy_migrate_progress {
  size_t size;
  unsigned phase; /* enum fpolicy_migrate_phase; more may come */
  uint64_t done_pages;
  uint64_t all_pages; /* 0 where it is not known */
};

struct fpolicy_migrate_options {
  size_t size;
  unsigned flags;
  /* 0: as many as processors, at most 8. */
  unsigned threads;
  /* The job: either the processes of a cgroup and of those below it (its path below the mount, without a
   * leading slash), or these processes. */
  const char* cgroup;
  const pid_t* pids;
  size_t pid_count;
  /* Nodes that the job leaves. */
  const char* from;
  /* Pages of the i-th node of `from` go to the i-th of these, in turn. */
  const char* to;
  /* With FPOLICY_MIGRATE_SET_CPUSET: cpuset.cpus. NULL to leave it. */
  const char* cpus;
  /* 0: no limit. */
  uint64_t max_bytes_per_second;
  /* With FPOLICY_MIGRATE_OWNER. */
  uid_t owner;
  /* Called now and then by the calling thread. Anything but 0 stops: what has moved stays there, the job goes
   * on, and the report says `stopped`. The struct is the library's, and good until the function returns. It
   * must not throw. */
  int (*progress)(const struct fpolicy_migrate_progress* progress, void* user_data);
  void* user_data;
  /* With FPOLICY_MIGRATE_POLICIES: NULL for /var/lib/fpolicy/fpolicy.db and /etc/fpolicy/rules.d. */
  const char* database;
  const char* rules;
};

/* Of a dry run: what would be. */
struct fpolicy_migrate_report {
  size_t size;
  uint64_t processes;
  uint64_t moved_pages;
  uint64_t stayed_pages;    /* by decision, those that are where they belong included */
  uint64_t busy_pages;      /* still busy after the retries */
  uint64_t failed_pages;    /* no room on their node, or no right to move them */
  uint64_t skipped_pages;   /* pages that cannot move */
  uint64_t vanished_pages;  /* unmapped meanwhile */
  uint64_t forced_pages;    /* were to stay, but the kernel takes them along with the cpuset */
  uint64_t misplaced_pages; /* with FPOLICY_MIGRATE_VERIFY: moved, and yet not there */
  uint64_t quiet_pages;     /* of those moved: before the freeze */
  uint64_t moved_bytes;
  double plan_seconds;
  double moving_seconds;
  double frozen_seconds; /* 0 where the job ran on */
  int stopped;           /* by `progress` */
  int failed; /* the work ended before its end, though pages had moved by then: the message says why */
};

/* Sets every field to its default; call it first. `size`: sizeof *options. */
FPOLICY_API void fpolicy_migrate_options_init(struct fpolicy_migrate_options* options, size_t size);

/* Moves a job between nodes, as migratejob(1) does. It takes what that takes: CAP_SYS_NICE, CAP_SYS_PTRACE
 * and CAP_SYS_ADMIN, for cgroups and cpusets the right to write their files, and for processes of others
 * CAP_KILL. A job that was frozen or stopped goes on whatever happens to the caller.
 *
 * `report`: its `size` set by the caller; may be NULL. It is filled in only where 0 is returned; that some
 * pages are busy or have failed, or that the rest failed when pages had moved, is no error, but told there.
 * `message`: gets a text, cut to `message_size` bytes with its NUL; of an error why, of success what is worth
 * knowing (a line for each note), or "". May be NULL with size 0.
 *
 * Errors, with nothing moved: -EINVAL sets or options that are wrong or contradict each other; -EPERM no
 * privilege, or a process that is not `owner`'s; -ENOENT no such cgroup; -ESRCH none of the processes exists;
 * -ENOSPC the target nodes are too small; -EACCES nodes that the job's cpuset does not allow; -ETIMEDOUT the
 * job could not be frozen; -EBUSY the job is being moved already; -E2BIG a struct of a newer version;
 * -ENOMEM; others of the calls that failed. */
FPOLICY_API int fpolicy_migrate(const struct fpolicy_migrate_options* options,
                                struct fpolicy_migrate_report* report, char* message, size_t message_size);

/* NOLINTEND(readability-identifier-naming) */

#ifdef __cplusplus
}
#endif

#endif
