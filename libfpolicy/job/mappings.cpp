// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/mappings.h"

#include "job/address_spaces.h"
#include "sys/read_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

namespace fpolicy::job {
namespace {

/// Filesystems whose regular files show the kernel's insides, or a device's memory (the BARs of PCI in
/// sysfs).
bool shows_the_kernel(std::uint64_t type) {
  switch (type) {
    case SYSFS_MAGIC:
    case PROC_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
      return true;
    default:
      return false;
  }
}

/// The processes of these processes and threads.
std::set<pid_t> leaders(const std::set<pid_t>& pids, const std::string& root) {
  std::set<pid_t> leaders;
  for (const pid_t pid : pids) {
    const auto process = Process::open(pid, root);
    const auto status = process ? process->status() : Result<ProcessStatus>(tl::unexpected(process.error()));
    leaders.insert(status && status->leader > 0 ? status->leader : pid);
  }
  return leaders;
}

/// Is the calling process in this cgroup or below?
bool is_own_cgroup(const std::string& cgroup, const std::string& root) {
  const auto text = sys::read_file(AT_FDCWD, (root == "/" ? "" : root) + "/proc/self/cgroup", 65536);
  if (!text) return false;
  // "0::/system.slice/x"
  const auto at = text->find("0::/");
  if (at == std::string::npos || (at > 0 && (*text)[at - 1] != '\n')) return false;
  const std::string own = text->substr(at + 4, text->find('\n', at) - at - 4);
  return own == cgroup || own.starts_with(cgroup + "/");
}

}  // namespace

Status check_owner(const Process& process, const std::optional<uid_t>& owner) {
  if (!owner) return {};
  const auto belongs = process.belongs_to(*owner);
  if (!belongs) return tl::unexpected(belongs.error());
  if (*belongs) return {};
  return fail(EPERM, fmt::format("process {} of the job is not user {}'s", process.pid(), *owner));
}

Result<std::vector<pid_t>> list_job(const Job& job, const CgroupTree* tree, const std::string& root) {
  std::set<pid_t> pids;
  if (tree != nullptr) {
    if (is_own_cgroup(job.cgroup, root))
      return fail(EINVAL, "the caller is in this cgroup, and would be frozen with it");
    const auto walked =
        tree->walk(job.cgroup, true, [&pids](const std::string&, const std::vector<pid_t>& processes) {
          pids.insert(processes.begin(), processes.end());
          return true;
        });
    if (!walked) return tl::unexpected(walked.error());
  } else {
    pids.insert(job.pids.begin(), job.pids.end());
    if (job.descendants) {
      const auto all = list_processes(root);
      if (!all) return tl::unexpected(all.error());
      std::multimap<pid_t, pid_t> children;
      for (const pid_t pid : *all) {
        const auto process = Process::open(pid, root);
        const auto status =
            process ? process->status() : Result<ProcessStatus>(tl::unexpected(process.error()));
        if (status) children.emplace(status->parent, pid);
      }
      std::vector<pid_t> open(pids.begin(), pids.end());
      while (!open.empty()) {
        const pid_t parent = open.back();
        open.pop_back();
        const auto [first, end] = children.equal_range(parent);
        for (auto child = first; child != end; ++child) {
          if (pids.insert(child->second).second) open.push_back(child->second);
        }
      }
    }
    pids = leaders(pids, root);
    if (pids.contains(::getpid()))
      return fail(EINVAL, "the caller is one of these processes, and would be stopped with them");
  }
  return std::vector<pid_t>(pids.begin(), pids.end());
}

Status Mappings::read(const std::vector<pid_t>& pids, const std::string& root) {
  processes_.clear();
  pages_.clear();
  mapped_.clear();
  mappings_.clear();
  for (MigrateGroup& group : groups_) group.mappings = 0;
  NodeSet allowed = topology_.memory;
  if (resolver_ != nullptr) {
    if (!mounts_) {
      auto mounts = MountedDevices::open(root);
      if (!mounts) return tl::unexpected(mounts.error());
      mounts_.emplace(*std::move(mounts));
    } else if (auto refreshed = mounts_->refresh(); !refreshed) {
      return refreshed;
    }
  }
  std::set<pid_t> seen;
  AddressSpaces spaces;
  for (const pid_t named : pids) {
    auto process = Process::open(named, root);
    if (!process) continue;
    auto status = process->status();
    if (!status) continue;
    const pid_t pid = status->leader > 0 ? status->leader : named;
    if (!seen.insert(pid).second) continue;
    if (options_.max_processes > 0 && seen.size() > options_.max_processes)
      return fail(E2BIG, fmt::format("the job has more than {} processes", options_.max_processes));
    if (pid != named) {
      process = Process::open(pid, root);
      if (!process) continue;
      status = process->status();
      if (!status) continue;
    }
    if (auto owned = check_owner(*process, options_.owner); !owned) {
      if (owned.error().code == ESRCH) continue;
      return owned;
    }
    const auto vmas = process->vmas();
    if (!vmas) {
      if (vmas.error().code == ESRCH) continue;
      return tl::unexpected(vmas.error());
    }
    // Kernel threads, and processes that have ended.
    if (vmas->empty()) continue;
    if (options_.max_mappings > 0 && mappings_.size() + vmas->size() > options_.max_mappings)
      return fail(E2BIG, fmt::format("the job has more than {} mappings", options_.max_mappings));
    auto pages = sys::open_process_pages(*process, options_.own_pages_only);
    if (!pages) {
      if (pages.error().code == ESRCH) continue;
      return tl::unexpected(pages.error());
    }
    // Counted twice, its pages would look like those of two processes.
    if (!spaces.insert(pid, *vmas)) continue;
    // What was read may be of a program that it has begun meanwhile.
    if (auto owned = check_owner(*process, options_.owner); !owned) {
      if (owned.error().code == ESRCH) continue;
      return owned;
    }
    std::vector<Mapped> mapped;
    mapped.reserve(vmas->size());
    for (const Vma& vma : *vmas) {
      const auto group = group_of(*process, *status, vma);
      if (!group) return tl::unexpected(group.error());
      ++groups_[*group].mappings;
      mapped.push_back({.start = vma.start,
                        .end = vma.end,
                        .offset = vma.offset,
                        .group = *group,
                        .mapping = static_cast<std::uint32_t>(mappings_.size())});
      mappings_.push_back(
          {.pid = pid, .start = vma.start, .end = vma.end, .permissions = vma.permissions, .group = *group});
    }
    allowed = allowed & status->allowed_nodes;
    processes_.push_back(*std::move(process));
    pages_.push_back(*std::move(pages));
    mapped_.push_back(std::move(mapped));
  }
  allowed_ = allowed;
  return {};
}

std::uint32_t Mappings::add(MappingKind kind, const Rule& rule) {
  MigrateGroup group;
  group.kind = kind;
  group.decision = rule.decision;
  group.private_stays = rule.private_stays;
  group.reason = rule.reason;
  groups_.push_back(std::move(group));
  rules_.push_back({rule, false});
  hugetlb_.push_back(false);
  return static_cast<std::uint32_t>(groups_.size() - 1);
}

Result<std::uint32_t> Mappings::group_of(const Process& process, const ProcessStatus& status,
                                         const Vma& vma) {
  if (is_of_file(vma)) return file_group(process, status, vma);
  const MappingKind kind = classify(vma);
  const auto known = of_kind_.find(kind);
  if (known != of_kind_.end()) return known->second;
  return of_kind_[kind] = add(kind, rule_for(kind));
}

Result<std::uint32_t> Mappings::file_group(const Process& process, const ProcessStatus& status,
                                           const Vma& vma) {
  const FileName name(vma.device, vma.inode, vma.name);
  if (const auto known = of_name_.find(name); known != of_name_.end()) return known->second;
  const auto fd =
      process.open_mapped({.start = vma.start, .end = vma.end, .device = vma.device, .inode = vma.inode});
  if (!fd && fd.error().code != ENOENT && fd.error().code != ESRCH) return tl::unexpected(fd.error());
  const auto info = fd ? file_info(fd->get()) : Result<FileInfo>(tl::unexpected(fd.error()));
  if (!info) {
    // Unmapped a moment ago: whatever it was, its pages are not there any more. Asked again next time.
    const auto group = add(MappingKind::file, Rule{.decision = MigrateDecision::skip,
                                                   .private_stays = true,
                                                   .target = {},
                                                   .reason = "unmapped meanwhile"});
    groups_[group].path = vma.name;
    return group;
  }
  // In one filesystem several files may have one number (btrfs), and one file several names.
  const auto [entry, is_new] = of_file_.try_emplace({info->key.device, info->key.inode}, 0);
  if (!is_new) return of_name_[name] = entry->second;
  bool hugetlb = false;
  auto file = look_at(fd->get(), *info, vma, status, hugetlb);
  if (!file) return tl::unexpected(file.error());
  const Rule rule = rule_for(*file, topology_, options_.to);
  const std::uint32_t group =
      add(file->nature == MappedFile::Nature::device ? MappingKind::special : classify(vma), rule);
  entry->second = of_name_[name] = group;
  groups_[group].path = vma.name;
  if (file->policy) {
    groups_[group].policy = file->policy->text;
    groups_[group].source = file->policy->source;
  }
  hugetlb_[group] = hugetlb;
  rules_[group].holdable = file->nature == MappedFile::Nature::regular && !hugetlb;
  return group;
}

Result<MappedFile> Mappings::look_at(int fd, const FileInfo& info, const Vma& vma,
                                     const ProcessStatus& status, bool& hugetlb) {
  MappedFile file;
  struct statx details{};
  struct statfs filesystem{};
  if (!info.is_regular()) {
    file.nature = MappedFile::Nature::device;
    return file;
  }
  if (::fstatfs(fd, &filesystem) == 0) {
    const auto type = static_cast<std::uint64_t>(filesystem.f_type);
    if (shows_the_kernel(type)) file.nature = MappedFile::Nature::device;
    hugetlb = type == HUGETLBFS_MAGIC;
  }
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &details) == 0 &&
      (details.stx_attributes & STATX_ATTR_DAX) != 0) {
    file.nature = MappedFile::Nature::direct_access;
  }
  if (file.nature != MappedFile::Nature::regular || resolver_ == nullptr) return file;
  // Anybody can forge tags on what he has mounted himself, and his server need not answer.
  if (mounts_ && !mounts_->contains(vma.device)) return file;
  const std::string path = path_here(fd, info.key);
  FileRef reference;
  reference.fd = fd;
  reference.path = path;
  auto effective = resolver_->resolve(reference, path, status.uid);
  if (!effective) {
    // Not known is not "none": it stays where it is.
    notes_.push_back(fmt::format("{}: {} (its pages stay)", vma.name, effective.error().message));
    Effective unknown;
    unknown.policy.emplace();
    unknown.policy->migrate = Migrate::only_private;
    file.policy = std::move(unknown);
    return file;
  }
  file.policy = *std::move(effective);
  return file;
}

Result<Fd> Mappings::open(std::size_t group) const {
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    for (const Mapped& mapped : mapped_[i]) {
      if (mapped.group != group) continue;
      const auto fd =
          processes_[i].open_mapped({.start = mapped.start, .end = mapped.end, .device = 0, .inode = 0});
      if (!fd) continue;
      return open_for_reading(fd->get(), groups_[group].path);
    }
  }
  return fail_errno("open", groups_[group].path, ENOENT);
}

}  // namespace fpolicy::job
