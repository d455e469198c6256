// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/job_control.h"

#include "sys/read_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <map>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

namespace fpolicy::sys {
namespace {

using Clock = std::chrono::steady_clock;

Status write_file(int directory, const char* name, std::string_view text, std::string_view what) {
  const Fd fd(::openat(directory, name, O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open", fmt::format("{}/{}", what, name));
  // At once: each write(2) to such a file is a command.
  while (::write(fd.get(), text.data(), text.size()) < 0) {
    if (errno != EINTR) return fail_errno("write", fmt::format("{}/{}", what, name));
  }
  return {};
}

Result<NodeSet> read_nodes(int directory, const char* name, std::string_view what) {
  const auto text = read_file(directory, name, 65536);
  if (!text) return with_context(what, text.error());
  auto nodes = NodeSet::parse(*text);
  if (!nodes) return with_context(fmt::format("{}/{}", what, name), nodes.error());
  return *nodes;
}

/// All threads of a process stand still, or it has none any more.
bool stands_still(int proc) {
  const int copy = ::openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return true;
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(::fdopendir(copy), ::closedir);
  while (const dirent* entry = tasks ? ::readdir(tasks.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const auto text = read_file(copy, std::string(entry->d_name) + "/stat", 65536);
    if (!text) continue;  // a thread that has ended
    // "PID (NAME) STATE …", and a name may hold anything.
    const auto at = text->rfind(") ");
    if (at == std::string::npos || at + 2 >= text->size()) continue;
    if (std::string_view("TtZX").find((*text)[at + 2]) == std::string_view::npos) return false;
  }
  return true;
}

}  // namespace

Result<FrozenCgroup> FrozenCgroup::freeze(int cgroup, Guardian& guardian, std::chrono::milliseconds longest) {
  const auto before = read_file(cgroup, "cgroup.freeze", 64);
  if (!before) return tl::unexpected(before.error());
  if (before->starts_with('1')) return FrozenCgroup(Fd());
  const Fd events(::openat(cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC));
  if (!events) return fail_errno("open", "cgroup.events");
  Fd freeze(::openat(cgroup, "cgroup.freeze", O_WRONLY | O_CLOEXEC));
  if (!freeze) return fail_errno("open", "cgroup.freeze");
  if (auto told = guardian.will_freeze(freeze.get()); !told) return tl::unexpected(told.error());
  FrozenCgroup frozen(std::move(freeze));
  if (::write(frozen.freeze_.get(), "1", 1) < 0) return fail_errno("write", "cgroup.freeze");
  const auto until = Clock::now() + longest;
  while (true) {
    const auto text = read_file(cgroup, "cgroup.events", 65536);
    if (!text) return tl::unexpected(text.error());
    if (text->find("frozen 1\n") != std::string::npos || text->find("populated 0\n") != std::string::npos)
      return frozen;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    if (left.count() <= 0)
      return fail(ETIMEDOUT, fmt::format("could not be frozen within {} s", longest.count() / 1000));
    // A change before this wait is told by it: reading the descriptor would have taken it off.
    pollfd changed{events.get(), POLLPRI, 0};
    ::poll(&changed, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 50)));
  }
}

void FrozenCgroup::thaw() {
  if (!freeze_) return;
  while (::write(freeze_.get(), "0", 1) < 0 && errno == EINTR) {
  }
  freeze_.reset();
}

Result<std::uint64_t> start_time(pid_t pid, const std::string& root) {
  const std::string path = fmt::format("{}/proc/{}/stat", root == "/" ? "" : root, pid);
  const auto text = read_file(AT_FDCWD, path, 65536);
  if (!text) return fail_errno("read", path, ESRCH);
  // "PID (NAME) STATE …", and a name may hold anything; the state is field 3.
  std::string_view rest = *text;
  rest.remove_prefix(std::min(rest.rfind(')'), rest.size()));
  for (unsigned field = 2; field < 22; ++field) {
    const auto space = rest.find(' ');
    if (space == std::string_view::npos) return fail(EINVAL, path + ": malformed");
    rest.remove_prefix(space + 1);
  }
  std::uint64_t ticks = 0;
  if (std::from_chars(rest.data(), rest.data() + rest.size(), ticks).ec != std::errc{})
    return fail(EINVAL, path + ": malformed");
  return ticks;
}

Status StoppedProcesses::stop(const Process& process) {
  const auto status = process.status();
  if (!status) return tl::unexpected(status.error());
  if (status->state == 'T' || status->state == 't' || status->state == 'Z' || status->state == 'X') return {};
  Stopped stopped{Fd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0))), Fd(), process.pid()};
  if (!stopped.pidfd) return fail_errno("pidfd_open", std::to_string(process.pid()));
  stopped.directory = Fd(::openat(process.fd(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  // The number may have become another's between the two: then the directory is dead.
  if (!stopped.directory || !process.status())
    return fail_errno("pidfd_open", std::to_string(process.pid()), ESRCH);
  if (auto told = guardian_->will_stop(stopped.pidfd.get()); !told) return told;
  const int pidfd = stopped.pidfd.get();
  stopped_.push_back(std::move(stopped));
  if (::syscall(SYS_pidfd_send_signal, pidfd, SIGSTOP, nullptr, 0) != 0) {
    const int error = errno;
    stopped_.pop_back();
    return fail_errno("stop", std::to_string(process.pid()), error);
  }
  return {};
}

Status StoppedProcesses::wait(std::chrono::milliseconds longest) {
  const auto until = Clock::now() + longest;
  for (const Stopped& stopped : stopped_) {
    while (!stands_still(stopped.directory.get())) {
      if (Clock::now() > until) {
        return fail(ETIMEDOUT, fmt::format("process {} could not be stopped within {} s", stopped.pid,
                                           longest.count() / 1000));
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
  return {};
}

void StoppedProcesses::resume() {
  for (const Stopped& stopped : stopped_)
    ::syscall(SYS_pidfd_send_signal, stopped.pidfd.get(), SIGCONT, nullptr, 0);
  stopped_.clear();
}

Result<JobCpusets> JobCpusets::open(const CgroupTree& tree, const std::string& cgroup) {
  JobCpusets cpusets;
  Status failed;
  const auto walked =
      tree.walk(cgroup, true, [&](const std::string& path, const std::vector<pid_t>& /*processes*/) {
        const std::string name = path.empty() ? "." : path;
        Fd directory(::openat(tree.fd(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const bool top = cpusets.sets_.empty();
        const auto mems = directory ? read_nodes(directory.get(), "cpuset.mems", path)
                                    : Result<NodeSet>(fail_errno("open", path));
        if (!mems) {
          // One without the controller has its parent's nodes; one that is gone has none.
          if (mems.error().code != ENOENT && mems.error().code != ENODEV)
            failed = tl::unexpected(mems.error());
          if (top)
            failed = fail(EOPNOTSUPP,
                          "the cgroup has no cpuset.mems: its parent does not give it the cpuset controller");
          return failed.has_value();
        }
        if (top || !mems->empty()) cpusets.sets_.push_back({path, std::move(directory), *mems});
        return true;
      });
  if (!walked) return tl::unexpected(walked.error());
  if (!failed) return tl::unexpected(failed.error());
  return cpusets;
}

void JobCpusets::remember(Journal& journal) {
  std::map<std::uint64_t, NodeSet> entered;
  for (Cpuset& set : sets_) {
    struct stat status{};
    if (::fstat(set.directory.get(), &status) != 0) continue;
    const auto before = journal.cpusets().find(status.st_ino);
    if (before != journal.cpusets().end()) set.mems = before->second;
    entered[status.st_ino] = set.mems;
  }
  journal.enter_cpusets(std::move(entered));
}

Result<NodeSet> JobCpusets::top() const {
  return read_nodes(sets_.front().directory.get(), "cpuset.mems", sets_.front().cgroup);
}

Result<NodeSet> JobCpusets::effective() const {
  return read_nodes(sets_.front().directory.get(), "cpuset.mems.effective", sets_.front().cgroup);
}

Status JobCpusets::widen(const NodeSet& nodes) {
  for (const Cpuset& set : sets_) {
    // The job's cgroup without nodes of its own has its parent's.
    NodeSet now = set.mems;
    if (now.empty()) {
      const auto inherited = effective();
      if (!inherited) return tl::unexpected(inherited.error());
      now = *inherited;
    }
    const NodeSet wide = now | nodes;
    if (wide == set.mems) continue;
    if (auto written = write_file(set.directory.get(), "cpuset.mems", wide.format(), set.cgroup); !written)
      return written;
  }
  return {};
}

Status JobCpusets::narrow(const NodeSet& top, const std::function<NodeSet(const NodeSet&)>& nodes) {
  for (std::size_t i = sets_.size(); i-- > 0;) {
    const Cpuset& set = sets_[i];
    const NodeSet wanted = i == 0 ? top : nodes(set.mems);
    auto written = write_file(set.directory.get(), "cpuset.mems", wanted.format(), set.cgroup);
    // A cgroup that was removed meanwhile has no nodes to lose.
    if (!written && (i == 0 || (written.error().code != ENODEV && written.error().code != ENOENT)))
      return written;
  }
  return {};
}

Status JobCpusets::restore() {
  Status failed;
  if (cpus_before_)
    failed = write_file(sets_.front().directory.get(), "cpuset.cpus", *cpus_before_, sets_.front().cgroup);
  for (std::size_t i = sets_.size(); i-- > 0;) {
    const Cpuset& set = sets_[i];
    auto written = write_file(set.directory.get(), "cpuset.mems", set.mems.format() + "\n", set.cgroup);
    if (!written) failed = written;
  }
  return failed;
}

Status JobCpusets::set_cpus(const std::string& cpus) {
  if (const auto before = read_file(sets_.front().directory.get(), "cpuset.cpus", 65536))
    cpus_before_ = *before;
  return write_file(sets_.front().directory.get(), "cpuset.cpus", cpus, sets_.front().cgroup);
}

}  // namespace fpolicy::sys
