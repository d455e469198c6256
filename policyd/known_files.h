// SPDX-License-Identifier: LGPL-2.1-or-later
// Files with a policy that policyd has met: how they fared, where they stay at home, when they are tried
// again.
#pragma once

#include <fpolicy/node_set.h>
#include <fpolicy/open_file.h>
#include <fpolicy/placement.h>
#include <fpolicy/process.h>

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fpolicy::policyd {

struct FileKeyHash {
  std::size_t operator()(const FileKey& key) const noexcept {
    return std::hash<std::uint64_t>{}(key.inode * 0x9e3779b97f4a7c15U ^ key.device);
  }
};

enum class FileState : std::uint8_t { ok, misplaced, unset, unsupported, unsatisfiable };
std::string_view to_string(FileState state);

/// Where a process maps the file, to find it again when it has no path.
struct MappedAt {
  pid_t pid = 0;
  FileMapping mapping;
};

struct KnownFile {
  FileKey key;
  std::int64_t birth_ns = 0;  ///< 0 where the filesystem has none
  std::string path;
  std::optional<MappedAt> mapped;
  uid_t uid = 0;
  NodeSet allowed;
  std::string policy;
  FileState state = FileState::unset;
  std::uint64_t misplaced_pages = 0;
  std::string reason;
  /// Where its pages lay when policyd last looked, for a policy that says: stay where you are.
  std::optional<std::vector<PageRun>> home;
  std::chrono::milliseconds backoff{0};  ///< of the retry that is due; 0: none
};

/// Bounded: beyond its bounds what was met longest ago is forgotten, snapshots first.
class KnownFiles {
 public:
  KnownFiles(std::size_t most_files, std::size_t most_runs)
      : most_files_(most_files), most_runs_(most_runs) {}

  [[nodiscard]] KnownFile* find(const FileKey& key);
  /// Enters a file, or takes the place of what was known of it.
  void put(KnownFile file);
  void erase(const FileKey& key);
  /// No retry is due any more.
  void clear_backoff(const FileKey& key);
  [[nodiscard]] std::vector<FileKey> keys() const;
  [[nodiscard]] std::size_t size() const { return files_.size(); }
  /// Page runs held in snapshots.
  [[nodiscard]] std::size_t runs() const { return runs_; }
  /// Files for which a retry is due.
  [[nodiscard]] std::size_t waiting() const { return waiting_; }

 private:
  struct Entry {
    KnownFile file;
    std::uint64_t met = 0;
  };
  void shrink(const FileKey& kept);

  const std::size_t most_files_;
  const std::size_t most_runs_;
  std::size_t runs_ = 0;
  std::size_t waiting_ = 0;
  std::uint64_t now_ = 0;
  std::unordered_map<FileKey, Entry, FileKeyHash> files_;
};

}  // namespace fpolicy::policyd
