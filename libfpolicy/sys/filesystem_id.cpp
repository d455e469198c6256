// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/filesystem_id.h"

#include <fpolicy/fd.h>

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/btrfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <memory>

namespace fpolicy::sys {
namespace {

// Of linux/fs.h since Linux 6.9; Debian 12's headers are older.
struct KernelUuid {
  std::uint8_t length;
  std::array<std::uint8_t, 16> bytes;
};
constexpr unsigned long get_uuid = _IOR(0x15, 0, KernelUuid);

/// Of fs/squashfs/squashfs_fs.h and fs/erofs/erofs_fs.h: where a superblock lies and what it begins with.
struct SuperblockLayout {
  std::string_view type;
  off_t offset;
  std::size_t size;
  std::string_view magic;
};
constexpr std::array layouts{SuperblockLayout{"squashfs", 0, 96, "hsqs"},
                             SuperblockLayout{"erofs", 1024, 128, "\xe2\xe1\xf5\xe0"}};

std::string format_uuid(const std::uint8_t* bytes) {
  std::string text;
  for (unsigned i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

Result<Fd> open_block_device(const std::string& node, dev_t device) {
  Fd fd(::open(node.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno("open", node);
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("stat", node);
  if (!S_ISBLK(status.st_mode) || status.st_rdev != device)
    return fail(ENODEV, fmt::format("{}: not block device {}:{}", node, major(device), minor(device)));
  return fd;
}

/// A small file of /proc or /sys, without its trailing newline.
Result<std::string> read_line(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open", path);
  std::array<char, 4097> buffer{};
  const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
  if (size < 0) return fail_errno("read", path);
  std::string text(buffer.data(), static_cast<std::size_t>(size));
  if (text.empty() || text.size() == buffer.size()) return fail_errno("read", path, EINVAL);
  if (text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

std::optional<std::string> kernel_uuid(int fd) {
  KernelUuid uuid{};
  if (::ioctl(fd, get_uuid, &uuid) != 0 || uuid.length != uuid.bytes.size()) return std::nullopt;
  if (std::all_of(uuid.bytes.begin(), uuid.bytes.end(), [](std::uint8_t byte) { return byte == 0; }))
    return std::string();
  return format_uuid(uuid.bytes.data());
}

std::optional<std::string> btrfs_fsid(int fd) {
  struct btrfs_ioctl_fs_info_args info{};
  if (::ioctl(fd, BTRFS_IOC_FS_INFO, &info) != 0) return std::nullopt;
  return format_uuid(info.fsid);
}

Result<std::string> statfs_id(int fd) {
  struct statfs status{};
  if (::fstatfs(fd, &status) != 0) return fail_errno("statfs", "descriptor " + std::to_string(fd));
  std::array<std::uint32_t, 2> id{};
  static_assert(sizeof id == sizeof status.f_fsid);
  std::memcpy(id.data(), &status.f_fsid, sizeof id);
  return fmt::format("{:08x}{:08x}", id[0], id[1]);
}

Result<std::string> blkid_uuid(const std::string& node, dev_t device) {
  const auto fd = open_block_device(node, device);
  if (!fd) return tl::unexpected(fd.error());
  const std::unique_ptr<std::remove_pointer_t<blkid_probe>, decltype(&blkid_free_probe)> probe(
      blkid_new_probe(), &blkid_free_probe);
  if (!probe || blkid_probe_set_device(probe.get(), fd->get(), 0, 0) != 0)
    return fail_errno("blkid", node, EIO);
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_UUID);
  // 0: found, 1: nothing known there, -2: ambivalent, -1: error.
  const int result = blkid_do_safeprobe(probe.get());
  if (result == -2) return fail(EIO, fmt::format("blkid {}: more than one filesystem", node));
  if (result < 0) return fail_errno("blkid", node, EIO);
  const char* value = nullptr;
  if (result == 1 || blkid_probe_lookup_value(probe.get(), "UUID", &value, nullptr) != 0)
    return std::string();
  std::string uuid = value;
  // A 16-byte UUID is written as the kernel's, so that a newer kernel finds the same filesystem.
  if (uuid.size() == 36)
    std::transform(uuid.begin(), uuid.end(), uuid.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return uuid;
}

Result<std::string> superblock_of(std::string_view type, const std::string& node, dev_t device) {
  const auto* const layout = std::find_if(layouts.begin(), layouts.end(),
                                          [&](const SuperblockLayout& each) { return each.type == type; });
  if (layout == layouts.end()) return fail(EINVAL, fmt::format("read {}: {} is not read so", node, type));
  const auto fd = open_block_device(node, device);
  if (!fd) return tl::unexpected(fd.error());
  std::string bytes(layout->size, '\0');
  const ssize_t size = ::pread(fd->get(), bytes.data(), bytes.size(), layout->offset);
  if (size < 0) return fail_errno("read", node);
  if (static_cast<std::size_t>(size) != bytes.size() || !bytes.starts_with(layout->magic))
    return fail(EINVAL, fmt::format("read {}: no {} superblock", node, type));
  std::string text;
  for (const char byte : std::string_view(bytes).substr(layout->magic.size()))
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

Result<std::optional<std::string>> loop_backing_file(const std::string& root, dev_t device) {
  const std::string path =
      fmt::format("{}/sys/dev/block/{}:{}/loop/backing_file", root, major(device), minor(device));
  auto file = read_line(path);
  if (file) return std::optional(std::move(*file));
  if (file.error().code == ENOENT) return std::nullopt;
  return tl::unexpected(file.error());
}

Result<std::string> boot_id(const std::string& root) {
  return read_line(root + "/proc/sys/kernel/random/boot_id");
}

}  // namespace fpolicy::sys
