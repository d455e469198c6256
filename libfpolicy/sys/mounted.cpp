// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/mountinfo.h"

#include <fpolicy/mounted.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace fpolicy {
namespace {

/// "rw,user_id=1000,group_id=1000,allow_other": FUSE says there who mounted it.
bool is_mounted_by_user(const sys::Mount& mount) {
  if (mount.type != "fuse" && !mount.type.starts_with("fuse.") && mount.type != "fuseblk") return false;
  std::string_view rest = mount.super_options;
  while (!rest.empty()) {
    const auto end = rest.find(',');
    const std::string_view option = rest.substr(0, end);
    if (option.starts_with("user_id=")) return option != "user_id=0";
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return true;
}

}  // namespace

struct MountedDevices::Impl {
  sys::MountTable table;
  std::unordered_map<dev_t, bool> unique_numbers;  ///< by device
  std::unordered_set<std::uint64_t> ids;           ///< of mounts

  Status read() {
    const auto mounts = table.read();
    if (!mounts) return tl::unexpected(mounts.error());
    unique_numbers.clear();
    ids.clear();
    for (const sys::Mount& mount : *mounts) {
      if (is_mounted_by_user(mount)) continue;
      ids.insert(static_cast<std::uint64_t>(mount.id));
      unique_numbers.emplace(mount.device,
                             mount.type != "btrfs" && mount.type != "overlay" && mount.type != "bcachefs");
    }
    return {};
  }
};

MountedDevices::MountedDevices(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MountedDevices::MountedDevices(MountedDevices&&) noexcept = default;
MountedDevices& MountedDevices::operator=(MountedDevices&&) noexcept = default;
MountedDevices::~MountedDevices() = default;

Result<MountedDevices> MountedDevices::open(const std::string& root) {
  auto table = sys::MountTable::open(root == "/" ? "" : root, sys::Mounts::own_and_machines);
  if (!table) return tl::unexpected(table.error());
  MountedDevices devices(
      std::make_unique<Impl>(Impl{.table = std::move(*table), .unique_numbers = {}, .ids = {}}));
  // What has changed until now is in what is read next.
  devices.impl_->table.changed();
  if (auto status = devices.impl_->read(); !status) return tl::unexpected(status.error());
  return devices;
}

Status MountedDevices::refresh() {
  return impl_->table.changed() ? impl_->read() : Status{};
}

bool MountedDevices::contains(dev_t device) const {
  return impl_->unique_numbers.contains(device);
}

Result<bool> MountedDevices::contains_file(int fd) const {
  struct statx status{};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &status) != 0) {
    return fail_errno("statx", "descriptor");
  }
  return (status.stx_mask & STATX_MNT_ID) != 0 && impl_->ids.contains(status.stx_mnt_id);
}

bool MountedDevices::numbers_are_unique(dev_t device) const {
  const auto found = impl_->unique_numbers.find(device);
  return found != impl_->unique_numbers.end() && found->second;
}

}  // namespace fpolicy
