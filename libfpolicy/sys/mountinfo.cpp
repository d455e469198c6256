// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/mountinfo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <optional>

namespace fpolicy::sys {
namespace {

// fs.mount-max is 100,000 mounts; a line is a few hundred bytes, and up to two pages of options and paths.
constexpr std::size_t max_text = std::size_t{256} << 20U;

bool is_octal(char c) {
  return c >= '0' && c <= '7';
}

/// Undoes \ooo, the only escape that the kernel writes (space, tab, newline, backslash, '#').
std::optional<std::string> unescape(std::string_view field) {
  std::string text;
  text.reserve(field.size());
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] != '\\') {
      text += field[i];
      continue;
    }
    if (i + 3 >= field.size() || !is_octal(field[i + 1]) || !is_octal(field[i + 2]) ||
        !is_octal(field[i + 3]))
      return std::nullopt;
    const int value = (field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0');
    if (value == 0 || value > 255) return std::nullopt;
    text += static_cast<char>(value);
    i += 3;
  }
  return text;
}

template <class Number>
bool parse_number(std::string_view field, Number& number) {
  const char* end = field.data() + field.size();
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): both ends are given
  const auto [stop, error] = std::from_chars(field.data(), end, number);
  return error == std::errc() && stop == end && !field.empty();
}

/// Takes the text up to the next space; fields may be empty.
std::string_view next_field(std::string_view& line) {
  const std::size_t space = line.find(' ');
  const std::string_view field = line.substr(0, space);
  line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  return field;
}

/// nullptr, or what was expected.
const char* parse_line(std::string_view line, Mount& mount) {
  if (!parse_number(next_field(line), mount.id)) return "expected a mount id";
  if (!parse_number(next_field(line), mount.parent)) return "expected the parent's mount id";
  const std::string_view device = next_field(line);
  const std::size_t colon = device.find(':');
  unsigned major = 0;
  unsigned minor = 0;
  if (colon == std::string_view::npos || !parse_number(device.substr(0, colon), major) ||
      !parse_number(device.substr(colon + 1), minor))
    return "expected major:minor";
  mount.device = makedev(major, minor);
  auto root = unescape(next_field(line));
  auto mount_point = unescape(next_field(line));
  if (!root || root->empty() || !mount_point || mount_point->empty()) return "expected root and mount point";
  next_field(line);  // mount options
  // Optional fields ("shared:1"), ended by a hyphen.
  for (std::string_view field = next_field(line); field != "-"; field = next_field(line))
    if (line.empty()) return "expected \" - \"";
  auto type = unescape(next_field(line));
  auto source = unescape(next_field(line));
  if (!type || type->empty() || !source) return "expected filesystem type and source";
  mount.root = std::move(*root);
  mount.mount_point = std::move(*mount_point);
  mount.type = std::move(*type);
  mount.source = std::move(*source);
  mount.super_options = line;
  return nullptr;
}

/// "mnt:[4026531841]"; nothing where this process may not know.
std::optional<std::string> namespace_of(const std::string& root, std::string_view process) {
  const std::string link = fmt::format("{}/proc/{}/ns/mnt", root, process);
  std::array<char, 64> buffer{};
  const ssize_t length = ::readlink(link.c_str(), buffer.data(), buffer.size());
  if (length <= 0) return std::nullopt;
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

bool has_changed(const Fd& table) {
  struct pollfd request{table.get(), POLLPRI, 0};
  return ::poll(&request, 1, 0) == 1 && (request.revents & (POLLPRI | POLLERR)) != 0;
}

Result<std::vector<Mount>> read_table(const Fd& table) {
  std::string text;
  std::array<char, std::size_t{64} << 10U> buffer{};
  for (;;) {
    const ssize_t size = ::pread(table.get(), buffer.data(), buffer.size(), static_cast<off_t>(text.size()));
    if (size < 0) {
      if (errno == EINTR) continue;
      return fail_errno("read", "mountinfo");
    }
    if (size == 0) return parse_mountinfo(text);
    text.append(buffer.data(), static_cast<std::size_t>(size));
    if (text.size() > max_text) return fail_errno("read", "mountinfo", EFBIG);
  }
}

}  // namespace

Result<std::vector<Mount>> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  for (unsigned number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos)
      return fail(EINVAL, fmt::format("mountinfo line {}: expected a newline at its end", number));
    if (const char* expected = parse_line(text.substr(0, end), mounts.emplace_back()))
      return fail(EINVAL, fmt::format("mountinfo line {}: {}", number, expected));
    text.remove_prefix(end + 1);
  }
  return mounts;
}

Result<MountTable> MountTable::open(const std::string& root, Mounts whose) {
  const std::string path = root + "/proc/self/mountinfo";
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open", path);
  MountTable table(std::move(fd));
  if (whose == Mounts::own) return table;
  const auto own = namespace_of(root, "self");
  const auto machines = namespace_of(root, "1");
  if (!own || !machines || *own == *machines) return table;
  const std::string of_one = root + "/proc/1/mountinfo";
  table.machines_ = Fd(::open(of_one.c_str(), O_RDONLY | O_CLOEXEC));
  if (!table.machines_) return fail_errno("open", of_one);
  table.machines_root_ = root + "/proc/1/root";
  return table;
}

bool MountTable::changed() {
  // Both are asked: each tells of its changes once.
  const bool own = has_changed(own_);
  return (machines_ && has_changed(machines_)) || own;
}

Result<std::vector<Mount>> MountTable::read() {
  auto mounts = read_table(own_);
  if (!mounts || !machines_) return mounts;
  auto machines = read_table(machines_);
  if (!machines) return machines;
  for (Mount& mount : *machines) {
    mount.reached_by = machines_root_;
    mounts->push_back(std::move(mount));
  }
  return mounts;
}

}  // namespace fpolicy::sys
