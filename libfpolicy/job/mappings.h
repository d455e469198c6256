// SPDX-License-Identifier: LGPL-2.1-or-later
// A job's processes and what they map, in groups with a rule each.
#pragma once

#include "job/survey.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/migrate.h>
#include <fpolicy/mounted.h>
#include <fpolicy/open_file.h>
#include <fpolicy/process.h>
#include <fpolicy/resolver.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace fpolicy::job {

/// Error: EPERM where the process is not wholly the user's (MigrateOptions::owner); ESRCH.
Status check_owner(const Process& process, const std::optional<uid_t>& owner);

/// The processes of a job now, and its caller refused; of a threaded cgroup its threads. Error: ENOENT,
/// ESRCH; EINVAL where the caller is itself one of them.
Result<std::vector<pid_t>> list_job(const Job& job, const CgroupTree* tree, const std::string& root);

/// Groups of mappings, with rules that are asked for once for each file: the first time before the job is
/// frozen, so that a server that does not answer keeps nobody frozen.
class Mappings {
 public:
  Mappings(const Topology& topology, const MigrateOptions& options, Resolver* resolver)
      : topology_(topology), options_(options), resolver_(resolver) {}

  /// Looks at the processes anew. Groups stay what they are. Processes that end meanwhile are left out.
  /// Error: EPERM, E2BIG (MigrateOptions::max_processes).
  Status read(const std::vector<pid_t>& pids, const std::string& root);

  [[nodiscard]] std::vector<MigrateGroup>& groups() { return groups_; }
  [[nodiscard]] const std::vector<GroupRule>& rules() const { return rules_; }
  [[nodiscard]] const std::vector<Process>& processes() const { return processes_; }
  [[nodiscard]] const std::vector<std::unique_ptr<sys::ProcessPages>>& pages() const { return pages_; }
  [[nodiscard]] const std::vector<std::vector<Mapped>>& mapped() const { return mapped_; }
  /// One for each mapping, as Mapped::mapping counts them; `group` filled in.
  [[nodiscard]] std::vector<MigrateMapping>& mappings() { return mappings_; }
  /// Nodes that every process may use.
  [[nodiscard]] const NodeSet& allowed() const { return allowed_; }
  [[nodiscard]] bool is_hugetlb(std::size_t group) const { return hugetlb_[group]; }
  /// The group's file again, for reading. Error: ENOENT where nobody maps it any more.
  Result<Fd> open(std::size_t group) const;
  [[nodiscard]] std::vector<std::string>& notes() { return notes_; }

 private:
  /// What a mapping's line says of its file.
  using FileName = std::tuple<dev_t, ino_t, std::string>;
  Result<std::uint32_t> group_of(const Process& process, const ProcessStatus& status, const Vma& vma);
  Result<std::uint32_t> file_group(const Process& process, const ProcessStatus& status, const Vma& vma);
  std::uint32_t add(MappingKind kind, const Rule& rule);
  Result<MappedFile> look_at(int fd, const FileInfo& info, const Vma& vma, const ProcessStatus& status,
                             bool& hugetlb);

  const Topology& topology_;
  const MigrateOptions& options_;
  Resolver* resolver_;
  std::vector<MigrateGroup> groups_;
  std::vector<GroupRule> rules_;
  std::vector<bool> hugetlb_;
  std::map<MappingKind, std::uint32_t> of_kind_;
  std::map<FileName, std::uint32_t> of_name_;
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> of_file_;
  std::vector<Process> processes_;
  std::vector<std::unique_ptr<sys::ProcessPages>> pages_;
  std::vector<std::vector<Mapped>> mapped_;
  std::vector<MigrateMapping> mappings_;
  NodeSet allowed_;
  std::optional<MountedDevices> mounts_;  ///< tags on other filesystems do not count
  std::vector<std::string> notes_;
};

}  // namespace fpolicy::job
