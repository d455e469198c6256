// SPDX-License-Identifier: LGPL-2.1-or-later
// Who may search a directory, decided as the kernel does it (acl_permission_check and posix_acl_permission).
#include "sys/search_permission.h"

#include <fpolicy/fd.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace fpolicy {
namespace sys {
namespace {

constexpr unsigned search = 1;

bool is_member(const FileUser& user, gid_t group) {
  return user.gid == group || std::ranges::find(user.groups, group) != user.groups.end();
}

/// Of linux/posix_acl_xattr.h: a version, then entries, all little-endian.
struct AclEntry {
  enum Tag : unsigned {
    owner = 0x01,
    user = 0x02,
    group = 0x04,
    named_group = 0x08,
    mask = 0x10,
    other = 0x20
  };
  unsigned tag = 0;
  unsigned permissions = 0;
  std::uint32_t id = 0;
};
constexpr std::size_t acl_header = 4;
constexpr std::size_t acl_entry = 8;
constexpr std::uint32_t acl_version = 2;

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t number = 0;
  for (std::size_t i = bytes.size(); i > 0; --i)
    number = number << 8U | static_cast<unsigned char>(bytes[i - 1]);
  return number;
}

/// Nothing where it is no ACL.
std::optional<std::vector<AclEntry>> parse_acl(std::string_view acl) {
  if (acl.size() < acl_header || (acl.size() - acl_header) % acl_entry != 0 ||
      little_endian(acl.substr(0, acl_header)) != acl_version)
    return std::nullopt;
  std::vector<AclEntry> entries;
  for (acl.remove_prefix(acl_header); !acl.empty(); acl.remove_prefix(acl_entry))
    entries.push_back({.tag = little_endian(acl.substr(0, 2)),
                       .permissions = little_endian(acl.substr(2, 2)),
                       .id = little_endian(acl.substr(4, 4))});
  return entries;
}

/// For everybody but the owner.
bool acl_allows(const FileUser& user, gid_t group, const std::vector<AclEntry>& entries) {
  unsigned mask = search;
  for (const AclEntry& entry : entries)
    if (entry.tag == AclEntry::mask) mask = entry.permissions;
  for (const AclEntry& entry : entries)
    if (entry.tag == AclEntry::user && entry.id == user.uid) return (entry.permissions & mask & search) != 0;
  bool is_in_one = false;
  for (const AclEntry& entry : entries) {
    const bool is_group = entry.tag == AclEntry::group || entry.tag == AclEntry::named_group;
    if (!is_group || !is_member(user, entry.tag == AclEntry::group ? group : entry.id)) continue;
    is_in_one = true;
    if ((entry.permissions & search) != 0) return (mask & search) != 0;
  }
  if (is_in_one) return false;
  return std::ranges::any_of(entries, [](const AclEntry& entry) {
    return entry.tag == AclEntry::other && (entry.permissions & search) != 0;
  });
}

}  // namespace

bool may_search(const FileUser& user, const struct stat& directory, std::string_view acl) {
  if (user.uid == directory.st_uid) return (directory.st_mode & S_IXUSR) != 0;
  // With an ACL the group's bits are its mask, and one that masks everything is not even read.
  if (!acl.empty() && (directory.st_mode & S_IRWXG) != 0) {
    const auto entries = parse_acl(acl);
    return entries && acl_allows(user, directory.st_gid, *entries);
  }
  if (is_member(user, directory.st_gid)) return (directory.st_mode & S_IXGRP) != 0;
  return (directory.st_mode & S_IXOTH) != 0;
}

}  // namespace sys

namespace {

constexpr int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

Reach without(int code) {
  return code == EACCES || code == EPERM ? Reach::unknown : Reach::no;
}

/// For an open directory.
Reach searches(const FileUser& user, int directory) {
  struct stat status{};
  if (::fstat(directory, &status) != 0) return without(errno);
  // No ACL is larger: the kernel's own limit for an attribute.
  std::array<char, std::size_t{64} << 10U> acl;  // NOLINT: not worth clearing for each directory
  const std::string link = fmt::format("/proc/self/fd/{}", directory);
  const ssize_t size = ::getxattr(link.c_str(), "system.posix_acl_access", acl.data(), acl.size());
  if (size < 0 && errno != ENODATA && errno != EOPNOTSUPP) return without(errno);
  const std::string_view bytes(acl.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  return sys::may_search(user, status, bytes) ? Reach::yes : Reach::no;
}

}  // namespace

Reach reaches_directory(const FileUser& user, const std::string& directory) {
  if (!directory.starts_with('/')) return Reach::no;
  Fd held(::open("/", flags));
  if (!held) return without(errno);
  std::string_view rest = directory;
  for (;;) {
    if (const Reach found = searches(user, held.get()); found != Reach::yes) return found;
    rest.remove_prefix(std::min(rest.find_first_not_of('/'), rest.size()));
    if (rest.empty()) return Reach::yes;
    const std::string name(rest.substr(0, rest.find('/')));
    rest.remove_prefix(name.size());
    Fd next(::openat(held.get(), name.c_str(), flags));
    if (!next) return without(errno);
    held = std::move(next);
  }
}

}  // namespace fpolicy
