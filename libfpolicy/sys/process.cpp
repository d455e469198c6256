// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/process.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <functional>
#include <memory>
#include <optional>

namespace fpolicy {
namespace {

// linux/fs.h since 6.11; Debian 12's headers are older.
struct ProcmapQuery {
  std::uint64_t size = 0;
  std::uint64_t query_flags = 0;
  std::uint64_t query_addr = 0;
  std::uint64_t vma_start = 0;
  std::uint64_t vma_end = 0;
  std::uint64_t vma_flags = 0;
  std::uint64_t vma_page_size = 0;
  std::uint64_t vma_offset = 0;
  std::uint64_t inode = 0;
  std::uint32_t dev_major = 0;
  std::uint32_t dev_minor = 0;
  std::uint32_t vma_name_size = 0;
  std::uint32_t build_id_size = 0;
  std::uint64_t vma_name_addr = 0;
  std::uint64_t build_id_addr = 0;
};
static_assert(sizeof(ProcmapQuery) == 104);
constexpr std::uint64_t covering_or_next_vma = 0x10;
constexpr std::uint64_t file_backed_vma = 0x20;
const unsigned long procmap_query = _IOWR('f', 17, ProcmapQuery);

/// Cuts the text before `end` off the front of `text`; nothing where `end` does not occur.
std::optional<std::string_view> cut(std::string_view& text, char end) {
  const auto at = text.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at + 1);
  return part;
}

template <class T>
std::optional<T> number(std::optional<std::string_view> text, int base) {
  if (!text) return std::nullopt;
  T value{};
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value, base);
  if (error != std::errc{} || end != text->data() + text->size() || text->empty()) return std::nullopt;
  return value;
}

/// A line, not copied yet.
struct Line {
  std::uint64_t start;
  std::uint64_t end;
  std::string_view permissions;
  std::uint64_t offset;
  dev_t device;
  ino_t inode;
  std::string_view name;
};

/// "55ec537cf000-55ec537d1000 r--p 00000000 fe:00 247498    /usr/bin/head"
std::optional<Line> parse_line(std::string_view line) {
  const auto start = number<std::uint64_t>(cut(line, '-'), 16);
  const auto end = number<std::uint64_t>(cut(line, ' '), 16);
  const auto permissions = cut(line, ' ');
  const auto offset = number<std::uint64_t>(cut(line, ' '), 16);
  const auto major_number = number<unsigned>(cut(line, ':'), 16);
  const auto minor_number = number<unsigned>(cut(line, ' '), 16);
  const auto inode = number<ino_t>(line.substr(0, line.find(' ')), 10);
  if (!start || !end || !permissions || permissions->size() != 4 || !offset || !major_number ||
      !minor_number || !inode || *start >= *end) {
    return std::nullopt;
  }
  // Columns of spaces, then the name, which may begin with none of its own: it is a path or in brackets.
  line.remove_prefix(std::min(line.find(' '), line.size()));
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  return Line{.start = *start,
              .end = *end,
              .permissions = *permissions,
              .offset = *offset,
              .device = makedev(*major_number, *minor_number),
              .inode = *inode,
              .name = line};
}

/// Gives each of the whole lines to `take`; returns how many bytes these were.
template <class Take>
Result<std::size_t> parse_lines(std::string_view text, std::size_t& line_number, const Take& take) {
  std::size_t used = 0;
  std::string_view rest = text;
  while (const auto line = cut(rest, '\n')) {
    ++line_number;
    const auto parsed = parse_line(*line);
    if (!parsed) return fail(EINVAL, fmt::format("maps line {}: malformed", line_number));
    take(*parsed);
    used = text.size() - rest.size();
  }
  return used;
}

/// The same for a whole text.
template <class Take>
Status parse_whole(std::string_view text, const Take& take) {
  std::size_t line = 0;
  const auto used = parse_lines(text, line, take);
  if (!used) return tl::unexpected(used.error());
  if (*used != text.size()) return fail(EINVAL, fmt::format("maps line {}: not ended", line + 1));
  return {};
}

/// Where mappings of files alone are wanted.
auto files_into(std::vector<FileMapping>& mappings) {
  return [&mappings](const Line& line) {
    if (line.inode != 0) {
      mappings.push_back({.start = line.start, .end = line.end, .device = line.device, .inode = line.inode});
    }
  };
}

auto vmas_into(std::vector<Vma>& vmas) {
  return [&vmas](const Line& line) {
    vmas.push_back({.start = line.start,
                    .end = line.end,
                    .permissions = std::string(line.permissions),
                    .offset = line.offset,
                    .device = line.device,
                    .inode = line.inode,
                    .name = std::string(line.name)});
  };
}

using TakeMapping = std::function<bool(const FileMapping&)>;

/// False where the kernel has no such query.
Result<bool> query_mappings(int maps, const TakeMapping& take) {
  ProcmapQuery query;
  std::uint64_t address = 0;
  while (true) {
    query = {};
    query.size = sizeof query;
    query.query_flags = covering_or_next_vma | file_backed_vma;
    query.query_addr = address;
    if (::ioctl(maps, procmap_query, &query) != 0) {
      if (errno == EINTR) continue;
      if (errno == ENOENT) break;  // no more mappings
      // A kernel thread or a process that has ended has no memory.
      if (errno == ESRCH) break;
      if (errno == ENOTTY) return false;
      return fail_errno("ioctl", "PROCMAP_QUERY");
    }
    if (!take({.start = query.vma_start,
               .end = query.vma_end,
               .device = makedev(query.dev_major, query.dev_minor),
               .inode = query.inode}))
      break;
    if (query.vma_end <= address) break;
    address = query.vma_end;
  }
  return true;
}

/// Gives each line to `take` until `full`.
template <class Take, class Full>
Status read_lines(int maps, const Take& take, const Full& full) {
  // The kernel gives a page at a time.
  std::array<char, 8192> piece;  // NOLINT: not worth clearing for each process
  // A name has at most PATH_MAX bytes, of which each newline becomes four.
  constexpr std::size_t longest_line = 4 * 4096 + 128;
  std::string text;
  std::size_t line = 0;
  while (!full()) {
    if (text.size() > longest_line) return fail(EINVAL, fmt::format("maps line {}: too long", line + 1));
    const ssize_t count = ::read(maps, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("read", "maps");
    text.append(piece.data(), static_cast<std::size_t>(count));
    if (count == 0) {
      if (!text.empty()) return fail(EINVAL, fmt::format("maps line {}: not ended", line + 1));
      break;
    }
    const auto used = parse_lines(text, line, take);
    if (!used) return tl::unexpected(used.error());
    text.erase(0, *used);
  }
  return {};
}

}  // namespace

Result<std::vector<FileMapping>> parse_maps(std::string_view text) {
  std::vector<FileMapping> mappings;
  if (const auto parsed = parse_whole(text, files_into(mappings)); !parsed)
    return tl::unexpected(parsed.error());
  return mappings;
}

Result<std::vector<Vma>> parse_vmas(std::string_view text) {
  std::vector<Vma> vmas;
  if (const auto parsed = parse_whole(text, vmas_into(vmas)); !parsed) return tl::unexpected(parsed.error());
  return vmas;
}

Result<std::vector<MemoryPolicy>> parse_memory_policies(std::string_view text) {
  std::vector<MemoryPolicy> policies;
  std::size_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    // "7f1c00000000 bind:0-1 anon=3 dirty=3 N0=3 kernelpagesize_kB=4"
    auto line = cut(text, '\n');
    const auto malformed = [&] {
      return fail(EINVAL, fmt::format("numa_maps line {}: malformed", line_number));
    };
    if (!line) return malformed();
    if (!number<std::uint64_t>(cut(*line, ' '), 16)) return malformed();
    // Modes are words; two have a space of their own.
    std::size_t mode = 0;
    for (const std::string_view name : {"prefer (many)", "weighted interleave"})
      if (line->starts_with(name)) mode = name.size();
    const std::size_t end = std::min(line->find(' ', mode), line->size());
    if (line->substr(0, end).find(':') == std::string_view::npos) continue;  // "default", "local"
    const std::string_view policy = line->substr(0, end);
    const auto nodes = NodeSet::parse(policy.substr(policy.rfind(':') + 1));
    if (!nodes) return malformed();
    const auto known = std::ranges::find(policies, policy, &MemoryPolicy::text);
    if (known != policies.end())
      ++known->mappings;
    else
      policies.push_back({.text = std::string(policy), .nodes = *nodes, .mappings = 1});
  }
  return policies;
}

Result<ProcessStatus> parse_process_status(std::string_view text) {
  ProcessStatus status;
  bool have_uid = false;
  bool have_nodes = false;
  while (const auto line = cut(text, '\n')) {
    std::string_view rest = *line;
    const auto name = cut(rest, ':');
    if (!name) continue;
    if (*name == "Uid" && !have_uid) {
      // Real, effective, saved, filesystem.
      cut(rest, '\t');
      const auto real = number<uid_t>(cut(rest, '\t'), 10);
      const auto uid = number<uid_t>(cut(rest, '\t'), 10);
      const auto saved = number<uid_t>(cut(rest, '\t'), 10);
      if (!real || !uid || !saved) return fail(EINVAL, "status: Uid is malformed");
      status.real_uid = *real;
      status.uid = *uid;
      status.saved_uid = *saved;
      have_uid = true;
    } else if (*name == "Mems_allowed_list" && !have_nodes) {
      cut(rest, '\t');
      auto nodes = NodeSet::parse(rest);
      if (!nodes) return with_context("status: Mems_allowed_list", nodes.error());
      status.allowed_nodes = *nodes;
      have_nodes = true;
    } else if (*name == "State" && rest.size() > 1) {
      status.state = rest[1];
    } else if (*name == "PPid" || *name == "Tgid") {
      cut(rest, '\t');
      const auto pid = number<pid_t>(rest, 10);
      if (!pid) return fail(EINVAL, fmt::format("status: {} is malformed", *name));
      (*name == "PPid" ? status.parent : status.leader) = *pid;
    }
  }
  if (!have_uid || !have_nodes) return fail(EINVAL, "status: no Uid or no Mems_allowed_list");
  return status;
}

Result<Process> Process::open(pid_t pid, const std::string& root) {
  const std::string path = fmt::format("{}/proc/{}", root == "/" ? "" : root, pid);
  Fd directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno("open", path, errno == ENOENT ? ESRCH : errno);
  return Process(pid, std::move(directory));
}

Result<ProcessStatus> Process::status() const {
  // Under 2 KiB, but for Mems_allowed and Groups, which grow with the machine and the user.
  const auto text = sys::read_file(directory_.get(), "status", 1U << 20U);
  if (!text) return tl::unexpected(text.error());
  return parse_process_status(*text);
}

Result<bool> Process::belongs_to(uid_t uid) const {
  const auto of = status();
  if (!of) return tl::unexpected(of.error());
  if (of->real_uid != uid || of->uid != uid || of->saved_uid != uid) return false;
  struct stat maps{};
  if (::fstatat(directory_.get(), "maps", &maps, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno("stat", fmt::format("/proc/{}/maps", pid_), errno == ENOENT ? ESRCH : errno);
  return maps.st_uid == uid;
}

Status Process::each_file_mapping(const std::function<bool(const FileMapping&)>& take) const {
  const Fd maps(::openat(directory_.get(), "maps", O_RDONLY | O_CLOEXEC));
  if (!maps) return fail_errno("open", fmt::format("/proc/{}/maps", pid_), errno == ENOENT ? ESRCH : errno);
  const auto queried = query_mappings(maps.get(), take);
  if (!queried) return tl::unexpected(queried.error());
  if (*queried) return {};
  bool go_on = true;
  const auto take_line = [&](const Line& line) {
    if (line.inode != 0 && go_on)
      go_on = take({.start = line.start, .end = line.end, .device = line.device, .inode = line.inode});
  };
  return read_lines(maps.get(), take_line, [&] { return !go_on; });
}

Result<std::vector<FileMapping>> Process::file_mappings() const {
  std::vector<FileMapping> mappings;
  const auto read = each_file_mapping([&](const FileMapping& mapping) {
    mappings.push_back(mapping);
    return mappings.size() < max_mappings;
  });
  if (!read) return tl::unexpected(read.error());
  return mappings;
}

Result<std::vector<Vma>> Process::vmas() const {
  const Fd maps(::openat(directory_.get(), "maps", O_RDONLY | O_CLOEXEC));
  if (!maps) return fail_errno("open", fmt::format("/proc/{}/maps", pid_), errno == ENOENT ? ESRCH : errno);
  std::vector<Vma> vmas;
  const auto read = read_lines(maps.get(), vmas_into(vmas), [&] { return vmas.size() >= max_mappings; });
  if (!read) return tl::unexpected(read.error());
  return vmas;
}

Result<std::vector<MemoryPolicy>> Process::memory_policies() const {
  // Some 100 bytes for each of at most max_mappings, and paths.
  const auto text = sys::read_file(directory_.get(), "numa_maps", std::size_t{1} << 30U);
  if (!text) return tl::unexpected(text.error());
  return parse_memory_policies(*text);
}

Result<Fd> Process::open_mapped(const FileMapping& mapping) const {
  const std::string name = fmt::format("map_files/{:x}-{:x}", mapping.start, mapping.end);
  Fd fd(::openat(directory_.get(), name.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) return fail_errno("open", fmt::format("/proc/{}/{}", pid_, name));
  return fd;
}

Result<std::string> Process::mapped_path(const FileMapping& mapping) const {
  const std::string name = fmt::format("map_files/{:x}-{:x}", mapping.start, mapping.end);
  std::array<char, PATH_MAX> buffer;
  const ssize_t got = ::readlinkat(directory_.get(), name.c_str(), buffer.data(), buffer.size());
  if (got < 0) return fail_errno("readlink", fmt::format("/proc/{}/{}", pid_, name));
  return std::string(buffer.data(), static_cast<std::size_t>(got));
}

Result<std::vector<pid_t>> list_processes(const std::string& root) {
  const std::string path = (root == "/" ? "" : root) + "/proc";
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) return fail_errno("open", path);
  std::vector<pid_t> pids;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr) break;
    if (const auto pid = number<pid_t>(std::string_view(entry->d_name), 10); pid && *pid > 0)
      pids.push_back(*pid);
  }
  if (errno != 0) return fail_errno("read", path);
  return pids;
}

}  // namespace fpolicy
