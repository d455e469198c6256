// SPDX-License-Identifier: LGPL-2.1-or-later
// Processes: what they map of files, who they are, and which nodes they may use.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/node_set.h>
#include <fpolicy/result.h>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

/// A mapping of a file in a process (VMA).
struct FPOLICY_API FileMapping {
  std::uint64_t start = 0;  ///< address of its first byte
  std::uint64_t end = 0;    ///< address behind its last byte
  /// The superblock's device, as in mountinfo: not always st_dev (btrfs and overlayfs give their files
  /// others).
  dev_t device = 0;
  ino_t inode = 0;

  friend bool operator==(const FileMapping&, const FileMapping&) = default;
};

/// Parses the text of /proc/PID/maps whole: mappings of files, in order of their addresses. The kernel
/// escapes newlines in names (proc_pid_maps(5)), and a name is not looked at. Error: EINVAL with the line's
/// number.
FPOLICY_API Result<std::vector<FileMapping>> parse_maps(std::string_view text);

/// A mapping of any kind: a line of /proc/PID/maps.
struct FPOLICY_API Vma {
  std::uint64_t start = 0;   ///< address of its first byte
  std::uint64_t end = 0;     ///< address behind its last byte
  std::string permissions;   ///< "rw-p"
  std::uint64_t offset = 0;  ///< in the file, bytes
  dev_t device = 0;
  ino_t inode = 0;   ///< 0: of no file
  std::string name;  ///< the path with newlines escaped, "[heap]", or nothing

  friend bool operator==(const Vma&, const Vma&) = default;
};

/// Parses the text of /proc/PID/maps whole. Error: as parse_maps().
FPOLICY_API Result<std::vector<Vma>> parse_vmas(std::string_view text);

/// A memory policy in a process that names nodes, from /proc/PID/numa_maps.
struct FPOLICY_API MemoryPolicy {
  std::string text;  ///< as the kernel writes it: "bind=static:0-1"
  NodeSet nodes;
  std::uint64_t mappings = 0;  ///< how many have it

  friend bool operator==(const MemoryPolicy&, const MemoryPolicy&) = default;
};

/// Parses the text of /proc/PID/numa_maps: each policy that names nodes once, in the order they are met.
/// Error: EINVAL with the line's number.
FPOLICY_API Result<std::vector<MemoryPolicy>> parse_memory_policies(std::string_view text);

struct FPOLICY_API ProcessStatus {
  uid_t uid = 0;  ///< effective: with its right files were opened
  uid_t real_uid = 0;
  uid_t saved_uid = 0;
  NodeSet allowed_nodes;  ///< Mems_allowed_list: what its cpuset leaves to it
  char state = '?';       ///< 'R', 'S', 'T' (stopped) …; '?' where the text has none
  pid_t parent = 0;
  pid_t leader = 0;  ///< the process that a thread belongs to; its own number, of a process
};

/// Parses /proc/PID/status. Error: EINVAL where a field is missing or malformed.
FPOLICY_API Result<ProcessStatus> parse_process_status(std::string_view text);

/// One process by its /proc directory, held open: when the process is gone, calls fail with ESRCH; they never
/// reach another process that got its number.
class FPOLICY_API Process {
 public:
  /// `root`: below which proc is found. Error: ESRCH where there is none.
  static Result<Process> open(pid_t pid, const std::string& root = "/");

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Its /proc directory (O_PATH).
  [[nodiscard]] int fd() const { return directory_.get(); }
  [[nodiscard]] Result<ProcessStatus> status() const;
  /// It is wholly this user's: real, effective and saved uid are, and so are the files in its /proc
  /// directory, which are root's where the kernel shows its memory to nobody else (a program with more rights
  /// than the user's, or one that the user may not read; proc(5)).
  [[nodiscard]] Result<bool> belongs_to(uid_t uid) const;
  /// Gives the mappings of files to `take`, in order of their addresses, until it says false. None of kernel
  /// threads and zombies. Uses PROCMAP_QUERY where the kernel has it (6.11).
  [[nodiscard]] Status each_file_mapping(const std::function<bool(const FileMapping&)>& take) const;
  /// All of them, but at most max_mappings.
  [[nodiscard]] Result<std::vector<FileMapping>> file_mappings() const;
  /// All mappings, in order of their addresses; at most max_mappings. Empty for kernel threads and zombies.
  [[nodiscard]] Result<std::vector<Vma>> vmas() const;
  /// The memory policies that its mappings have. Costs a walk of its page tables.
  [[nodiscard]] Result<std::vector<MemoryPolicy>> memory_policies() const;
  /// The mapped inode itself, whatever is now at its path, as an O_PATH descriptor. Needs
  /// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. Error: ENOENT where the mapping is gone.
  [[nodiscard]] Result<Fd> open_mapped(const FileMapping& mapping) const;
  /// The path of the mapped file when it was last renamed, for callers without that privilege (it takes the
  /// right to trace the process): another file may be there by now. "… (deleted)" where it is unlinked.
  /// Error: as open_mapped.
  [[nodiscard]] Result<std::string> mapped_path(const FileMapping& mapping) const;

  /// Twice the kernel's default vm.max_map_count is 131,060; beyond this the rest is not looked at.
  static constexpr std::size_t max_mappings = 1U << 20U;

 private:
  Process(pid_t pid, Fd directory) : pid_(pid), directory_(std::move(directory)) {}
  pid_t pid_;
  Fd directory_;
};

/// All processes, in the order of /proc.
FPOLICY_API Result<std::vector<pid_t>> list_processes(const std::string& root = "/");

}  // namespace fpolicy
