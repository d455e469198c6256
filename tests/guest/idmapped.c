// Mounts a directory once more, with every owner moved up by a number: what mount -o X-mount.idmap does since
// util-linux 2.39.
//
// Usage: idmapped DIRECTORY TARGET SHIFT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int die(const char* what) {
  fprintf(stderr, "idmapped: %s: %s\n", what, strerror(errno));
  return 1;
}

static int write_map(pid_t process, const char* name, const char* shift) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", process, name);
  FILE* map = fopen(path, "we");
  if (map == NULL) return -1;
  const int written = fprintf(map, "0 %s 65536\n", shift);
  return fclose(map) != 0 || written < 0 ? -1 : 0;
}

/// A user namespace that somebody has set up and nobody is in. -1 and errno where it cannot be.
static int user_namespace(const char* shift) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return -1;
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    char status = 0;
    if (unshare(CLONE_NEWUSER) != 0) status = 1;
    if (write(ready[1], &status, 1) == 1) pause();
    _exit(0);
  }
  char status = 1;
  int namespace_fd = -1;
  if (read(ready[0], &status, 1) == 1 && status == 0 && write_map(child, "uid_map", shift) == 0 &&
      write_map(child, "gid_map", shift) == 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", child);
    namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
  }
  const int error = errno;
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  errno = error;
  return namespace_fd;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: idmapped DIRECTORY TARGET SHIFT\n");
    return 2;
  }
  const int namespace_fd = user_namespace(argv[3]);
  if (namespace_fd < 0) return die("user namespace");
  const long tree = syscall(SYS_open_tree, AT_FDCWD, argv[1], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree < 0) return die(argv[1]);
  struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP,
                                  .userns_fd = (unsigned long long)namespace_fd};
  if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
    return die("mount_setattr");
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, argv[2], MOVE_MOUNT_F_EMPTY_PATH) != 0) return die(argv[2]);
  return 0;
}
