/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fpolicy's C API: C11, or C++. fpolicy(3) has an example.
 *
 * Conventions
 *   - Errors: functions return 0 or more, or a negative errno value. `message` gets a text for people:
 *     of an error why, else what is worth knowing, or "". It is cut to `message_size` bytes with its
 *     NUL, and may be NULL with size 0. Programs go by the value that is returned, never by the text.
 *     Nothing is printed, errno means nothing, no C++ exception leaves a function. Beside what stands
 *     with it any function may return -EINVAL for NULL where it is not allowed, for flags or values
 *     that are not known and for a struct without its size, -E2BIG for a struct of a newer version,
 *     -ENOMEM, and errors of system calls.
 *   - Ownership: what a function gives out through a pointer to a pointer is the caller's, and ends
 *     with the function named for it (fpolicy_close, fpolicy_tag_free, ...), which takes NULL as well.
 *     All that it points to ends with it. On an error the pointer is set to NULL. What the caller gives
 *     is read before the function returns, and not kept.
 *   - NULL: an options struct that is NULL has its defaults, where that is said; a string in one that
 *     is NULL, its default. Strings in results are NULL only where it is said.
 *   - Strings end with NUL. Paths are bytes, as the kernel takes them, and are looked up in the
 *     caller's mount namespace; longer than PATH_MAX with their NUL they are refused (-ENAMETOOLONG).
 *     Policies are the language of fpolicy(7), at most 253 bytes. Sets of nodes are text as in
 *     cpuset.mems: "0-1,3". Text of tags that are not understood is escaped as in C where it is not
 *     readable UTF-8.
 *   - Files: a file is named by `path`, and then `fd` is -1; or by `fd`, which may be O_PATH, and then
 *     `path` is NULL. Regular files and directories only (-EINVAL). The last component of a path may be
 *     a symbolic link, but with FPOLICY_NO_FOLLOW it may not (-ELOOP).
 *   - Pages are base pages of sysconf(_SC_PAGESIZE) bytes, of huge pages as well; an audit has its own
 *     page_size.
 *   - Threads: functions may be called by several threads at the same time, with one handle as well;
 *     not after or while it is closed. A handle does not survive fork(2): open another in the child.
 *   - Order: fpolicy_migrate, fpolicy_api_version and those that set defaults need no handle; all
 *     others are called between fpolicy_open and fpolicy_close.
 *   - Structs that the caller makes begin with their size as the caller was compiled to know it. Fields
 *     may be added at their ends: a library that knows more of them, or fewer, works with the others,
 *     since zero is the default of all. A struct that is larger than the library knows is refused
 *     (-E2BIG) if what it does not know is not zero. Structs that the library makes grow at their ends
 *     as well: never copy them or take their sizes.
 *   - ABI: what stands here is kept under this soname; functions, flags and fields are added, never
 *     changed. FPOLICY_API_VERSION counts the additions: what is "since N" is there where
 *     fpolicy_api_version() is N or more. An older library refuses the flag, has not got the field (ask
 *     before reading it), nor the function. What does not say is there since 1.
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

/* What this header describes. */
#define FPOLICY_API_VERSION 1

/* What the library that was loaded knows. */
FPOLICY_API unsigned fpolicy_api_version(void);

/* Tags, policies and audits. */

/* The stores, the rules and the nodes of this machine. */
struct fpolicy_handle;

enum fpolicy_open_flags {
  /* Tags are going to be set or removed. Creates the database where root opens it and it is missing. */
  FPOLICY_OPEN_WRITE = 1 << 0
};

/* Where the parts of fpolicy are. A program needs none of this but for tests and unusual set-ups. */
struct fpolicy_open_options {
  size_t size;
  unsigned flags;
  const char* database; /* NULL: /var/lib/fpolicy/fpolicy.db */
  const char* rules;    /* a directory. NULL: /etc/fpolicy/rules.d */
  const char* socket;   /* policyd's. NULL: /run/fpolicy/policyd.sock */
};

/* Sets every field to its default; call it first. `size`: sizeof *options. */
FPOLICY_API void fpolicy_open_options_init(struct fpolicy_open_options* options, size_t size);

/* Opens the database as root, or where `database` is named; others ask policyd for what the database holds,
 * and where it does not run, see extended attributes alone. `options` may be NULL.
 *
 * Errors: -EINVAL a rule is wrong (the message has file:line:column); -EUCLEAN the database is damaged, or no
 * database; -ENOTSUP it is of a newer version; -EACCES or -EPERM no right to open them. */
FPOLICY_API int fpolicy_open(const struct fpolicy_open_options* options, struct fpolicy_handle** handle,
                             char* message, size_t message_size);

FPOLICY_API void fpolicy_close(struct fpolicy_handle* handle);

/* Rules, nodes, tags of directories and the connection to policyd are remembered: a handle that is kept sees
 * what others have changed in them, and a policyd that was started anew, after this. What runs in other
 * threads goes on with the old ones. On an error (those of fpolicy_open) the handle is as before. */
FPOLICY_API int fpolicy_refresh(struct fpolicy_handle* handle, char* message, size_t message_size);

/* Who speaks; `space` below. */
enum fpolicy_space {
  FPOLICY_SYSTEM = 0, /* root (CAP_SYS_ADMIN) */
  FPOLICY_USER = 1    /* the file's owner */
};

/* Flags of what is done to one file. */
enum fpolicy_flags {
  /* Not a symbolic link's target. Of all functions that take a file. */
  FPOLICY_NO_FOLLOW = 1 << 0,
  /* Overwrite or remove a tag that is not understood; accept nodes that this machine lacks. Of fpolicy_set
   * and fpolicy_remove. */
  FPOLICY_FORCE = 1 << 1,
  /* Only say what would be. Of fpolicy_set and fpolicy_remove. */
  FPOLICY_DRY_RUN = 1 << 2
};

/* Tags a file, or a directory for all below it, as setfpolicy(1) does. Returns 1 where the tag has changed, 0
 * where it was so already. The tag is on disk by then as far as the filesystem keeps its promises, and
 * policyd, if it runs, has been told: it brings the pages home soon, fpolicy_audit shows when. The tag goes
 * into the database where the filesystem cannot hold it; for others than root policyd enters it.
 *
 * Errors: -EBADF the handle was opened without FPOLICY_OPEN_WRITE; -EINVAL the policy is wrong (the message
 * has the column), a user tag on a directory, or a file that cannot have a tag; -ENODEV a node that this
 * machine lacks; -EPERM or -EACCES no right to set it; -ENOTSUP a tag that is not understood is there;
 * -ENOENT. */
FPOLICY_API int fpolicy_set(struct fpolicy_handle* handle, int fd, const char* path, unsigned space,
                            const char* policy, unsigned flags, char* message, size_t message_size);

/* Removes a tag. Returns 1 where there was one, else 0. Errors as for fpolicy_set. */
FPOLICY_API int fpolicy_remove(struct fpolicy_handle* handle, int fd, const char* path, unsigned space,
                               unsigned flags, char* message, size_t message_size);

/* What is stored for one file. */
struct fpolicy_tag {
  const char* policy;  /* canonical; of a tag that is not understood, what it holds */
  int unsupported;     /* not understood by this version: it is not applied */
  const char* carrier; /* "xattr" or "database" */
};

/* The file's own tag. Errors: -ENODATA it has none; -EACCES a user tag that the caller may not read; -ENOENT.
 */
FPOLICY_API int fpolicy_get(struct fpolicy_handle* handle, int fd, const char* path, unsigned space,
                            unsigned flags, struct fpolicy_tag** tag, char* message, size_t message_size);

FPOLICY_API void fpolicy_tag_free(struct fpolicy_tag* tag);

enum fpolicy_job_flags {
  /* `user` is set. */
  FPOLICY_JOB_USER = 1 << 0
};

/* For which job a file is looked at. Without one: all nodes, and the file's owner as its user. */
struct fpolicy_job {
  size_t size;
  unsigned flags;
  /* With FPOLICY_JOB_USER: user tags count on files that this user or root owns, and no one else may write.
   */
  uid_t user;
  /* The nodes that it may use: "+" and words count within them, and user tags place within them only. NULL:
   * all. */
  const char* nodes;
};

/* Sets every field to its default; call it first. `size`: sizeof *job. */
FPOLICY_API void fpolicy_job_init(struct fpolicy_job* job, size_t size);

/* Which policy holds for a file, as `getfpolicy --explain` tells. */
struct fpolicy_effective {
  const char* path;   /* absolute, without symbolic links */
  const char* policy; /* canonical; NULL where there is none, or the one that decides is not understood */
  /* "system-xattr", "user-xattr", "database", "directory", "rule" or "none" */
  const char* source;
  const char* origin; /* the attribute, the database, a directory's path, a rule's "file:line", or "" */
  const char* text;   /* as it is stored, also where it is not understood; "" where there is none */
  int unsupported;    /* what decides is not understood: nothing is applied */
  int from_user;      /* a user tag decides: it places within the job's nodes only and does not pin */
  int user_ignored;   /* there is, or may be, a user tag, but it is not trusted or not to be read */
};

/* `job` may be NULL. Errors: -EINVAL the job's nodes; -ENOENT; -EACCES a directory or tag on the way that
 * cannot be read. */
FPOLICY_API int fpolicy_resolve(struct fpolicy_handle* handle, int fd, const char* path,
                                const struct fpolicy_job* job, unsigned flags,
                                struct fpolicy_effective** effective, char* message, size_t message_size);

FPOLICY_API void fpolicy_effective_free(struct fpolicy_effective* effective);

/* Where a file's pages are, and whether its policy wants them there, as queryfpolicy(1) shows it. */
struct fpolicy_audit_result {
  const char* path;   /* absolute, without symbolic links */
  const char* policy; /* canonical, or the text that is not understood; NULL where there is none */
  const char* source; /* as in fpolicy_effective */
  const char* origin; /* as in fpolicy_effective */
  /* "ok", "misplaced", "unset" (no policy), "unsupported" (not understood), "unsatisfiable" (nodes that this
   * machine or the job lacks), or "unknown" (the pages are not told, or the policy cannot be read); more may
   * come */
  const char* state;
  const char* reason; /* why, or "" */
  int pages_told;     /* else the counts below are 0 and mean nothing: a directory, or no right to know */
  uint64_t page_size; /* bytes; a huge page's for hugetlbfs. The counts are in these */
  uint64_t file_pages;
  uint64_t resident_pages;
  uint64_t misplaced_pages;
  uint64_t unknown_pages; /* resident, but gone before their node could be told */
  size_t node_count;      /* of pages_by_node: nodes 0 to node_count - 1 */
  const uint64_t* pages_by_node;
};

/* Reads no page in. `job` may be NULL. A file whose pages or policy are not to be had is no error but the
 * state "unknown"; of a directory there is the policy alone. Errors: -EINVAL the job's nodes; -ENOENT;
 * -EACCES. */
FPOLICY_API int fpolicy_audit(struct fpolicy_handle* handle, int fd, const char* path,
                              const struct fpolicy_job* job, unsigned flags,
                              struct fpolicy_audit_result** audit, char* message, size_t message_size);

FPOLICY_API void fpolicy_audit_free(struct fpolicy_audit_result* audit);

/* Moving a job. */

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
 * Errors, with nothing moved: -EINVAL sets or options that are wrong or contradict each other; -EINTR stopped
 * by `progress`; -EPERM no privilege, or a process that is not `owner`'s; -ENOENT no such cgroup; -ESRCH none
 * of the processes exists; -ENOSPC the target nodes are too small; -EACCES nodes that the job's cpuset does
 * not allow; -ETIMEDOUT the job could not be frozen; -EBUSY the job is being moved already; -E2BIG a struct
 * of a newer version; -ENOMEM; others of the calls that failed. */
FPOLICY_API int fpolicy_migrate(const struct fpolicy_migrate_options* options,
                                struct fpolicy_migrate_report* report, char* message, size_t message_size);

/* NOLINTEND(readability-identifier-naming) */

#ifdef __cplusplus
}
#endif

#endif
