// SPDX-License-Identifier: LGPL-2.1-or-later
// Files as callers name them, and walks of whole trees: on all processors, through directory descriptors,
// each name looked up once.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

namespace fpolicy {

/// A file that a caller named, held without being opened: no device is touched, no permission on the file
/// itself is needed.
struct FPOLICY_API NamedFile {
  Fd fd;             ///< O_PATH
  std::string path;  ///< absolute, without symbolic links, in the caller's mount namespace
  mode_t mode = 0;
  uid_t owner = 0;
  dev_t device = 0;
  ino_t inode = 0;
};

/// Looks a name up once. Error: ELOOP where the last component is a symbolic link and `follow` is not set;
/// ENOENT where the file was unlinked meanwhile or cannot be reached from the root.
FPOLICY_API Result<NamedFile> open_named(const std::string& name, bool follow = true);

/// Opens a regular file that is held, for reading: the same file, whatever its name leads to by now. Error:
/// EINVAL for other types, which are never opened.
FPOLICY_API Result<Fd> reopen(const NamedFile& file);

/// The absolute path of an open file, without symbolic links. Error: ENOENT where it has none (any more).
FPOLICY_API Result<std::string> path_of(int fd);

/// Can the filesystem behind `fd` hold page-cache pages of regular files? Not proc, sysfs, cgroup and their
/// like.
FPOLICY_API Result<bool> holds_file_pages(int fd);

struct FPOLICY_API TreeOptions {
  bool follow_links = false;     ///< symbolic links found on the way, as find -L; loops are reported
  bool one_file_system = false;  ///< stay on the filesystem of the root
  unsigned threads = 0;          ///< 0: as many as processors
};

/// One regular file or directory of a tree.
struct FPOLICY_API TreeEntry {
  /// A name in the calling thread's working directory, or a descriptor; with the absolute path. Valid during
  /// the visit only.
  FileRef file;
  bool directory = false;
  /// Of a regular file: the mount that its directory lies on, which is its own unless something is mounted on
  /// it. 0: not known.
  int mount = 0;
};

struct FPOLICY_API TreeVisitor {
  /// Called from the walk's threads, several at a time. What is appended to `output` reaches emit().
  std::function<void(const TreeEntry& entry, std::string& output)> visit;
  /// Called from the calling thread with what visit() has left, in the order of the tree: a directory first,
  /// then its files by name (bytes), then its subdirectories, each with all that is below it. Also called
  /// with nothing, some five times a second, so that progress can be shown. False ends the walk.
  std::function<bool(std::string_view output)> emit;
  /// A directory that could not be read, or a loop; the walk goes on. Called from the walk's threads.
  std::function<void(std::string_view path, const Error& error)> error;
};

/// Walks from `root`, itself included. Only regular files and directories are visited, and nothing below
/// directories of filesystems without file pages (see holds_file_pages). Entries that vanish meanwhile are
/// passed over. What waits to be emitted is bounded, whatever the size of the tree.
FPOLICY_API void walk_tree(NamedFile root, const TreeOptions& options, const TreeVisitor& visitor);

}  // namespace fpolicy
