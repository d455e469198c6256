// SPDX-License-Identifier: LGPL-2.1-or-later
// Files that are held open: what they are, where they are, and opening them again.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fpolicy {

/// st_dev and st_ino: names a file while somebody holds it open or maps it; else compare the birth time as
/// well.
struct FPOLICY_API FileKey {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileKey&, const FileKey&) = default;
};

struct FPOLICY_API FileInfo {
  FileKey key;
  mode_t mode = 0;
  uid_t owner = 0;
  std::int64_t ctime_ns = 0;  ///< since 1970
  std::int64_t birth_ns = 0;  ///< 0 where the filesystem has none

  [[nodiscard]] bool is_regular() const;
  [[nodiscard]] bool is_directory() const;
};

/// What the kernel knows of the file without asking a server (AT_STATX_DONT_SYNC). `fd`: any, O_PATH
/// included.
FPOLICY_API Result<FileInfo> file_info(int fd);

/// The file's path, if from here it leads to this file: what the kernel tells of a file that was opened in
/// another mount namespace is its path there. Empty where it has none.
FPOLICY_API std::string path_here(int fd, const FileKey& key);

/// O_PATH; a symbolic link is not followed, and nothing is asked of what is opened.
FPOLICY_API Result<Fd> open_path_only(const std::string& path);

/// The file behind a descriptor again, for reading. Does not wait for a lease that somebody holds
/// (EWOULDBLOCK). `path`: for messages.
FPOLICY_API Result<Fd> open_for_reading(int fd, std::string_view path);

/// The whole of a file of at most `longest` bytes. Error: EFBIG.
FPOLICY_API Result<std::string> read_text(const std::string& path, std::size_t longest);

/// Creates a directory where it is missing (its parent is there).
FPOLICY_API Status make_directory(const std::string& path, mode_t mode);

/// Takes a file, created where it is missing, for as long as the descriptor is open. Error: EWOULDBLOCK where
/// another process has it.
FPOLICY_API Result<Fd> lock_file(const std::string& path);

}  // namespace fpolicy
