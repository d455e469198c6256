// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/mountinfo.h"
#include "sys/read_file.h"

#include <fpolicy/cgroup.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <memory>

namespace fpolicy {
namespace {

using Visit = std::function<bool(const std::string&, const std::vector<pid_t>&)>;

/// cgroup.procs of one cgroup: every process of a machine may be in it (pid_max is at most 4,194,304).
constexpr std::size_t longest_file = 64U << 20U;

/// A cgroup that vanishes answers ENOENT to open and ENODEV to read; cgroup.procs of one with threads
/// EOPNOTSUPP.
bool is_gone(int code) {
  return code == ENOENT || code == ENODEV;
}

/// Names of the cgroups directly below.
Result<std::vector<std::string>> children(int directory, const std::string& cgroup) {
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return fail_errno("open", cgroup);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy), ::closedir);
  if (!stream) {
    const int error = errno;
    ::close(copy);
    return fail_errno("open", cgroup, error);
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    if (entry->d_type != DT_DIR || std::strcmp(entry->d_name, ".") == 0 ||
        std::strcmp(entry->d_name, "..") == 0) {
      continue;
    }
    names.emplace_back(entry->d_name);
  }
  return names;
}

/// Has the cgroup, or one below it, a process? In doubt (the root does not tell) it may have.
bool may_be_populated(const Fd& directory) {
  const auto text = sys::read_file(directory.get(), "cgroup.events", longest_file);
  return !text || text->find("populated 0\n") == std::string::npos;
}

Status visit_tree(const Fd& directory, const std::string& cgroup, bool recursive, unsigned depth,
                  const Visit& visit, bool& go_on) {
  std::vector<pid_t> processes;
  if (!may_be_populated(directory)) {
    go_on = visit(cgroup, processes);
    return {};
  }
  const auto text = sys::read_file(directory.get(), "cgroup.procs", longest_file);
  if (text) {
    auto parsed = parse_cgroup_procs(*text);
    if (!parsed) return with_context(cgroup, parsed.error());
    processes = std::move(*parsed);
  } else if (text.error().code == EOPNOTSUPP) {
    // The processes of a threaded cgroup stand in its nearest ancestor that is no threaded one; the threads'
    // ids serve as well as names of them.
    const auto threads = sys::read_file(directory.get(), "cgroup.threads", longest_file);
    if (threads) {
      auto parsed = parse_cgroup_procs(*threads);
      if (!parsed) return with_context(cgroup, parsed.error());
      processes = std::move(*parsed);
    }
  } else if (!is_gone(text.error().code)) {
    return tl::unexpected(text.error());
  }
  go_on = visit(cgroup, processes);
  if (!go_on || !recursive || depth >= CgroupTree::max_depth) return {};
  const auto names = children(directory.get(), cgroup);
  if (!names) {
    if (is_gone(names.error().code)) return {};
    return tl::unexpected(names.error());
  }
  for (const std::string& name : *names) {
    const Fd child(::openat(directory.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!child) {
      if (is_gone(errno)) continue;
      return fail_errno("open", fmt::format("{}/{}", cgroup, name));
    }
    const std::string path = cgroup.empty() ? name : fmt::format("{}/{}", cgroup, name);
    if (auto status = visit_tree(child, path, true, depth + 1, visit, go_on); !status) return status;
    if (!go_on) return {};
  }
  return {};
}

}  // namespace

Result<std::vector<pid_t>> parse_cgroup_procs(std::string_view text) {
  std::vector<pid_t> pids;
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return fail(EINVAL, "cgroup.procs: a line is not ended");
    pid_t pid = -1;
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): both ends are given
    const auto [stop, error] = std::from_chars(text.data(), text.data() + end, pid);
    if (error != std::errc{} || stop != text.data() + end || pid < 0) {
      return fail(EINVAL, "cgroup.procs: a line is no process number");
    }
    if (pid > 0) pids.push_back(pid);
    text.remove_prefix(end + 1);
  }
  return pids;
}

Result<CgroupTree> CgroupTree::open(const std::string& root) {
  const std::string base = root == "/" ? "" : root;
  auto table = sys::MountTable::open(base);
  if (!table) return tl::unexpected(table.error());
  const auto mounts = table->read();
  if (!mounts) return tl::unexpected(mounts.error());
  for (const sys::Mount& mount : *mounts) {
    if (mount.type != "cgroup2") continue;
    const std::string path = base + mount.mount_point;
    Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return fail_errno("open", path);
    return CgroupTree(path, std::move(directory));
  }
  return fail(ENODEV, "cgroup2: not mounted");
}

Result<bool> CgroupTree::has_cpuset() const {
  const auto text = sys::read_file(directory_.get(), "cgroup.controllers", longest_file);
  if (!text) return tl::unexpected(text.error());
  std::string_view rest = *text;
  while (!rest.empty()) {
    const auto end = rest.find_first_of(" \n");
    if (rest.substr(0, end) == "cpuset") return true;
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return false;
}

Result<std::uint64_t> CgroupTree::count() const {
  const auto text = sys::read_file(directory_.get(), "cgroup.stat", longest_file);
  if (!text) return tl::unexpected(text.error());
  constexpr std::string_view key = "nr_descendants ";
  const auto at = text->find(key);
  std::uint64_t descendants = 0;
  if (at == std::string::npos ||
      std::from_chars(text->data() + at + key.size(), text->data() + text->size(), descendants).ec !=
          std::errc{}) {
    return fail(EINVAL, fmt::format("{}/cgroup.stat: no nr_descendants", mount_point_));
  }
  return descendants + 1;
}

Status CgroupTree::walk(const std::string& cgroup, bool recursive, const Visit& visit) const {
  const Fd directory(::openat(directory_.get(), cgroup.empty() ? "." : cgroup.c_str(),
                              O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory) return fail_errno("open", fmt::format("{}/{}", mount_point_, cgroup));
  bool go_on = true;
  return visit_tree(directory, cgroup, recursive, 0, visit, go_on);
}

Result<std::optional<NodeSet>> CgroupTree::effective_mems(const std::string& cgroup) const {
  std::string path = cgroup;
  while (true) {
    const std::string name = path.empty() ? "cpuset.mems.effective" : path + "/cpuset.mems.effective";
    const auto text = sys::read_file(directory_.get(), name, longest_file);
    if (text) {
      auto nodes = NodeSet::parse(*text);
      if (!nodes) return with_context(name, nodes.error());
      return std::optional<NodeSet>(*nodes);
    }
    if (!is_gone(text.error().code)) return tl::unexpected(text.error());
    if (path.empty()) return std::nullopt;
    const auto slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
  }
}

}  // namespace fpolicy
