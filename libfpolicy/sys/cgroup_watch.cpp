// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/cgroup.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>

namespace fpolicy {
namespace {

/// Where the event's file is below our mount of the hierarchy; nothing where the writer used another mount (a
/// container's), whose paths mean nothing here: the kernel names the file as that mount shows it.
std::optional<std::string> path_below(int fd, const std::string& mount_point) {
  std::array<char, PATH_MAX> buffer{};
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = ::readlink(link.c_str(), buffer.data(), buffer.size());
  if (length <= 0 || static_cast<std::size_t>(length) == buffer.size()) return std::nullopt;
  const std::string path(buffer.data(), static_cast<std::size_t>(length));
  if (path.size() <= mount_point.size() + 1 || !path.starts_with(mount_point) ||
      path[mount_point.size()] != '/') {
    return std::nullopt;
  }
  return path.substr(mount_point.size() + 1);
}

bool same_file(int fd, int directory, const std::string& path) {
  struct stat by_fd{};
  struct stat by_path{};
  return ::fstat(fd, &by_fd) == 0 && ::fstatat(directory, path.c_str(), &by_path, AT_SYMLINK_NOFOLLOW) == 0 &&
         by_fd.st_dev == by_path.st_dev && by_fd.st_ino == by_path.st_ino;
}

/// The name alone says whether the file matters, by whichever mount it was reached.
bool may_matter(int fd) {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), buffer.data(), buffer.size());
  if (length <= 0) return true;
  return classify_cgroup_write({buffer.data(), static_cast<std::size_t>(length)}).has_value();
}

}  // namespace

std::optional<CgroupChange> classify_cgroup_write(std::string_view path) {
  const auto slash = path.rfind('/');
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  const std::string cgroup(slash == std::string_view::npos ? "" : path.substr(0, slash));
  if (name == "cpuset.mems") return CgroupChange{.kind = CgroupChange::Kind::mems, .cgroup = cgroup};
  if (name == "cgroup.procs" || name == "cgroup.threads") {
    return CgroupChange{.kind = CgroupChange::Kind::attach, .cgroup = cgroup};
  }
  return std::nullopt;
}

Result<CgroupWatch> CgroupWatch::open(const CgroupTree& tree) {
  // Descriptors in events, not names: these work on cgroup2 from 6.1 on, names (FAN_REPORT_FID) not
  // before 6.8.
  Fd group(::fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_CLASS_NOTIF, O_RDONLY | O_CLOEXEC));
  if (!group) return fail_errno("fanotify_init", tree.mount_point());
  if (::fanotify_mark(group.get(), FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, tree.fd(), nullptr) != 0) {
    return fail_errno("fanotify_mark", tree.mount_point());
  }
  Fd directory(::openat(tree.fd(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno("open", tree.mount_point());
  return CgroupWatch(std::move(group), std::move(directory), tree.mount_point());
}

Status CgroupWatch::read(const std::function<void(const CgroupChange&)>& each) {
  // An event may name a file of a cgroup that is gone, and read() then fails with ENODEV for this event
  // alone: the next read brings the next event. The bound keeps one storm of writes from holding the caller
  // for ever.
  constexpr int rounds = 64;
  alignas(fanotify_event_metadata) std::array<char, 4096> buffer{};
  for (int round = 0; round < rounds; ++round) {
    const ssize_t length = ::read(group_.get(), buffer.data(), buffer.size());
    if (length < 0) {
      if (errno == EAGAIN) return {};
      if (errno == EINTR || errno == ENODEV || errno == ENOENT || errno == EOPNOTSUPP || errno == ENXIO)
        continue;
      if (errno == EMFILE || errno == ENFILE) {
        each({});
        return fail_errno("read", "fanotify events");
      }
      return fail_errno("read", "fanotify events");
    }
    auto left = static_cast<std::size_t>(length);
    const char* at = buffer.data();
    while (left >= sizeof(fanotify_event_metadata)) {
      const auto* event = reinterpret_cast<const fanotify_event_metadata*>(at);
      if (event->event_len < sizeof *event || event->event_len > left) break;
      at += event->event_len;
      left -= event->event_len;
      const Fd fd(event->fd);
      if (event->vers != FANOTIFY_METADATA_VERSION)
        return fail(EPROTO, "fanotify: unknown version of events");
      if ((event->mask & FAN_Q_OVERFLOW) != 0) {
        each({});
        continue;
      }
      if (!fd || !may_matter(fd.get())) continue;
      const auto path = path_below(fd.get(), mount_point_);
      if (!path || !same_file(fd.get(), directory_.get(), *path)) {
        each({});
        continue;
      }
      if (const auto change = classify_cgroup_write(*path)) each(*change);
    }
  }
  return {};
}

}  // namespace fpolicy
