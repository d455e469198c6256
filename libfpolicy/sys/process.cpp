// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/process.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
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

/// "55ec537cf000-55ec537d1000 r--p 00000000 fe:00 247498    /usr/bin/head"
std::optional<FileMapping> parse_line(std::string_view line) {
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
  return FileMapping{
      .start = *start, .end = *end, .device = makedev(*major_number, *minor_number), .inode = *inode};
}

/// Appends the mappings of whole lines; returns how many bytes these were.
Result<std::size_t> parse_lines(std::string_view text, std::size_t& line_number,
                                std::vector<FileMapping>& mappings) {
  std::size_t used = 0;
  std::string_view rest = text;
  while (const auto line = cut(rest, '\n')) {
    ++line_number;
    const auto mapping = parse_line(*line);
    if (!mapping) return fail(EINVAL, fmt::format("maps line {}: malformed", line_number));
    if (mapping->inode != 0) mappings.push_back(*mapping);
    used = text.size() - rest.size();
  }
  return used;
}

/// Nothing where the kernel has no such query.
Result<std::optional<std::vector<FileMapping>>> query_mappings(int maps) {
  std::vector<FileMapping> mappings;
  ProcmapQuery query;
  std::uint64_t address = 0;
  while (mappings.size() < Process::max_mappings) {
    query = {};
    query.size = sizeof query;
    query.query_flags = covering_or_next_vma | file_backed_vma;
    query.query_addr = address;
    if (::ioctl(maps, procmap_query, &query) != 0) {
      if (errno == EINTR) continue;
      if (errno == ENOENT) break;  // no more mappings
      // A kernel thread or a process that has ended has no memory.
      if (errno == ESRCH) break;
      if (errno == ENOTTY) return std::nullopt;
      return fail_errno("ioctl", "PROCMAP_QUERY");
    }
    mappings.push_back({.start = query.vma_start,
                        .end = query.vma_end,
                        .device = makedev(query.dev_major, query.dev_minor),
                        .inode = query.inode});
    if (query.vma_end <= address) break;
    address = query.vma_end;
  }
  return mappings;
}

Result<std::vector<FileMapping>> read_mappings(int maps) {
  constexpr std::size_t piece = 64U << 10U;
  // A name has at most PATH_MAX bytes, of which each newline becomes four.
  constexpr std::size_t longest_line = 4 * 4096 + 128;
  std::vector<FileMapping> mappings;
  std::string text;
  std::size_t line = 0;
  while (mappings.size() < Process::max_mappings) {
    const std::size_t kept = text.size();
    if (kept > longest_line) return fail(EINVAL, fmt::format("maps line {}: too long", line + 1));
    text.resize(kept + piece);
    const ssize_t count = ::read(maps, text.data() + kept, piece);
    if (count < 0 && errno != EINTR) return fail_errno("read", "maps");
    text.resize(kept + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    if (count == 0) {
      if (!text.empty()) return fail(EINVAL, fmt::format("maps line {}: not ended", line + 1));
      break;
    }
    const auto used = parse_lines(text, line, mappings);
    if (!used) return tl::unexpected(used.error());
    text.erase(0, *used);
  }
  return mappings;
}

}  // namespace

Result<std::vector<FileMapping>> parse_maps(std::string_view text) {
  std::vector<FileMapping> mappings;
  std::size_t line = 0;
  const auto used = parse_lines(text, line, mappings);
  if (!used) return tl::unexpected(used.error());
  if (*used != text.size()) return fail(EINVAL, fmt::format("maps line {}: not ended", line + 1));
  return mappings;
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
      cut(rest, '\t');
      const auto uid = number<uid_t>(cut(rest, '\t'), 10);
      if (!uid) return fail(EINVAL, "status: Uid is malformed");
      status.uid = *uid;
      have_uid = true;
    } else if (*name == "Mems_allowed_list" && !have_nodes) {
      cut(rest, '\t');
      auto nodes = NodeSet::parse(rest);
      if (!nodes) return with_context("status: Mems_allowed_list", nodes.error());
      status.allowed_nodes = *nodes;
      have_nodes = true;
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

Result<std::vector<FileMapping>> Process::file_mappings() const {
  const Fd maps(::openat(directory_.get(), "maps", O_RDONLY | O_CLOEXEC));
  if (!maps) return fail_errno("open", fmt::format("/proc/{}/maps", pid_), errno == ENOENT ? ESRCH : errno);
  auto queried = query_mappings(maps.get());
  if (!queried) return tl::unexpected(queried.error());
  if (std::optional<std::vector<FileMapping>> mappings = std::move(*queried)) return std::move(*mappings);
  return read_mappings(maps.get());
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
