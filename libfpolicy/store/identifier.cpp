// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_handle.h"
#include "sys/file_status.h"
#include "sys/filesystem_id.h"
#include "sys/mountinfo.h"
#include "sys/open_path.h"

#include <fpolicy/store.h>

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <tuple>
#include <unordered_map>

namespace fpolicy {
namespace {

// How long what is known of a mount answers for the files of a walk.
constexpr std::chrono::milliseconds known_lasts{10};

/// What a file's key is made of.
enum class KeyKind : std::uint8_t { handle, path, inode, none };
/// What a filesystem's id is made of.
enum class IdKind : std::uint8_t { btrfs, superblock, uuid, tmpfs, memory, overlay, source };

struct Traits {
  KeyKind key;
  IdKind id;
};

bool is_kernel_type(std::string_view type) {
  // Files without page cache of their own, made anew at each boot.
  constexpr std::array<std::string_view, 24> types{
      "autofs",  "binder",  "binfmt_misc", "bpf",       "cgroup",     "cgroup2", "configfs", "cpuset",
      "debugfs", "devpts",  "devtmpfs",    "efivarfs",  "fusectl",    "mqueue",  "nsfs",     "proc",
      "pstore",  "resctrl", "rpc_pipefs",  "selinuxfs", "securityfs", "smackfs", "sysfs",    "tracefs"};
  return std::find(types.begin(), types.end(), type) != types.end();
}

/// vfat, exfat and FUSE make up inode numbers as files are looked up, and handles with them; overlayfs gives
/// handles only when told to (nfs_export=on).
bool is_keyed_by_path(std::string_view type) {
  return type == "vfat" || type == "msdos" || type == "exfat" || type == "overlay" || type == "fuse" ||
         type == "fuseblk" || type == "virtiofs" || type.starts_with("fuse.") || type.starts_with("fuseblk.");
}

/// An inode that is given out again has another generation there, drawn at random or counted on from a random
/// number (btrfs gives none out again), and its handle holds it.
bool draws_generations(std::string_view type) {
  return type == "ext4" || type == "xfs" || type == "btrfs" || type == "tmpfs" || type == "f2fs" ||
         type == "ext3" || type == "ext2";
}

/// Mounted twice, it is still the one filesystem of its server.
bool is_network_type(std::string_view type) {
  return type == "nfs" || type == "nfs4" || type == "cifs" || type == "smb3" || type == "ceph" ||
         type == "9p" || type == "afs" || type == "lustre";
}

Traits traits_of(const sys::Mount& mount) {
  const KeyKind key = is_keyed_by_path(mount.type) ? KeyKind::path : KeyKind::handle;
  if (is_kernel_type(mount.type)) return {KeyKind::none, IdKind::source};
  if (mount.type == "btrfs") return {key, IdKind::btrfs};
  // An erofs that is mounted from a file (Linux 6.12) has no block device to read.
  if (mount.type == "squashfs" || (mount.type == "erofs" && mount.source.starts_with("/dev/")))
    return {key, IdKind::superblock};
  if (mount.type == "tmpfs") return {key, IdKind::tmpfs};
  if (mount.type == "hugetlbfs" || mount.type == "ramfs") return {KeyKind::inode, IdKind::memory};
  if (mount.type == "overlay") return {key, IdKind::overlay};
  // A block device or, with several devices, a list of them.
  if (mount.source.starts_with("/dev/")) return {key, IdKind::uuid};
  return {key, IdKind::source};
}

bool is_below(std::string_view path, std::string_view directory) {
  if (directory == "/") return path.starts_with('/');
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

/// `path` with `to` in place of the directory `from`; nothing where it is not below it.
std::optional<std::string> rebase(std::string_view path, std::string_view from, std::string_view to) {
  if (!is_below(path, from)) return std::nullopt;
  path.remove_prefix(from == "/" ? 1 : from.size());
  if (path.starts_with('/')) path.remove_prefix(1);
  std::string result(to);
  if (path.empty()) return result;
  if (result != "/") result += '/';
  return result.append(path);
}

std::string little_endian(std::uint64_t number) {
  std::string bytes(8, '\0');
  for (unsigned i = 0; i < 8; ++i) bytes[i] = static_cast<char>(number >> (8 * i));
  return bytes;
}

/// upperdir and lowerdir tell one overlay from another: most have the source "overlay". (Its UUID will not
/// do: overlayfs has none before Linux 6.6, and on later kernels only sometimes.)
std::string overlay_layers(std::string_view options) {
  std::string layers;
  while (!options.empty()) {
    const std::size_t comma = options.find(',');
    const std::string_view option = options.substr(0, comma);
    if (option.starts_with("lowerdir") || option.starts_with("upperdir")) layers.append(":").append(option);
    options.remove_prefix(comma == std::string_view::npos ? options.size() : comma + 1);
  }
  return layers;
}

/// FAT keeps local time, and the kernel's idea of the time zone may differ at the next mount. Zones differ by
/// quarters of an hour, so only the rest is kept; never 0, which would mean unknown.
std::int64_t without_time_zone(std::int64_t birth_ns) {
  constexpr std::int64_t quarter_hour = 900LL * 1'000'000'000LL;
  const std::int64_t rest = birth_ns % quarter_hour;
  return (rest < 0 ? rest + quarter_hour : rest) + 1;
}

std::int64_t birth_in(const sys::Mount& mount, const struct statx& status) {
  const std::int64_t birth = sys::birth_ns(status);
  return birth != 0 && (mount.type == "vfat" || mount.type == "msdos") ? without_time_zone(birth) : birth;
}

bool is_same_file(const struct statx& a, const struct statx& b) {
  return a.stx_ino == b.stx_ino && a.stx_mnt_id == b.stx_mnt_id && sys::device_of(a) == sys::device_of(b);
}

/// One superblock.
struct Filesystem {
  dev_t device = 0;
  Traits traits{};
  /// Those that show most of it first.
  std::vector<const sys::Mount*> mounts;
  /// Nothing until asked for.
  std::optional<std::string> id;
  std::optional<bool> ambiguous;

  [[nodiscard]] const sys::Mount& mount() const { return *mounts.front(); }
};

/// As it is inside the filesystem, whatever part of it is mounted where.
Result<std::string> inner_path(const FileRef& file, const struct statx& status, const sys::Mount& mount) {
  Fd opened;
  if (file.fd < 0) {
    auto path_fd = sys::open_path(file.name, sys::object_of(file));
    if (!path_fd) return tl::unexpected(path_fd.error());
    opened = std::move(*path_fd);
  }
  const auto path = sys::path_of(file.fd < 0 ? opened.get() : file.fd);
  if (!path) return tl::unexpected(path.error());
  // The kernel's name may be out of date (" (deleted)") or hidden below another mount: look it up.
  const std::string there = mount.reached_by + *path;
  FileRef named;
  named.name = there.c_str();
  const auto found = sys::file_status(named);
  auto inner = rebase(*path, mount.mount_point, mount.root);
  if (!found || !is_same_file(*found, status) || !inner)
    return fail(ESTALE, fmt::format("{}: has no path that leads to it", sys::object_of(file)));
  return std::move(*inner);
}

}  // namespace

struct Identifier::Impl {
  explicit Impl(std::string root_directory) : root(std::move(root_directory)) {}

  using Clock = std::chrono::steady_clock;

  std::string root;
  std::mutex mutex;  ///< over all down to `filesystems`
  sys::Mounts whose = sys::Mounts::own;
  std::optional<sys::MountTable> table;
  bool loaded = false;
  std::vector<sys::Mount> mounts;
  std::unordered_map<int, const sys::Mount*> by_id;
  std::map<dev_t, Filesystem> filesystems;

  /// What is remembered of a mount.
  struct Known {
    Clock::time_point until;
    bool handle_suffices = false;
    bool ambiguous = false;
    std::string id;
  };
  std::shared_mutex remembered_mutex;
  std::map<int, std::shared_ptr<const Known>> remembered;  ///< by mount id

  /// Where a file lies. `mount` is null where it is open through a mount that is in no table.
  struct Place {
    Filesystem* filesystem = nullptr;
    const sys::Mount* mount = nullptr;
  };

  /// A filesystem to look for a file in.
  struct Seat {
    bool network = false;
    std::vector<sys::Mount> mounts;
    Fd fd;  ///< to open handles with; for keys that are handles
  };

  Status load();
  std::optional<Seat> seat_of(const FileIdentity& identity, Finding& why);
  Result<Known> learn(int mount_id);
  Result<std::shared_ptr<const Known>> known_of(int mount_id);
  Result<Place> place_of(const FileRef& file, const struct statx& status);
  Result<std::string> id_of(Filesystem& filesystem);
  bool is_ambiguous(Filesystem& filesystem, const std::string& id);
  Error not_found();
  [[nodiscard]] Result<std::string> make_id(const Filesystem& filesystem) const;
  [[nodiscard]] Result<std::string> source_id(const Filesystem& filesystem) const;
  [[nodiscard]] Result<std::string> device_id(const Filesystem& filesystem) const;
  [[nodiscard]] std::string device_node(const Filesystem& filesystem) const;
};

namespace {

/// What a mount shows at its mount point (O_PATH). Error: ENODEV where another is mounted over it.
Result<Fd> open_mount(const sys::Mount& mount) {
  auto path_fd = sys::open_path(mount.path().c_str(), mount.mount_point);
  if (!path_fd) return path_fd;
  FileRef file;
  file.fd = path_fd->get();
  const auto status = sys::file_status(file);
  if (!status) return tl::unexpected(status.error());
  if (static_cast<int>(status->stx_mnt_id) != mount.id)
    return fail(ENODEV, fmt::format("{}: another filesystem is mounted over it", mount.mount_point));
  return path_fd;
}

/// What a disk says that cannot be read, or whose filesystem has given up.
bool cannot_be_read(int code) {
  return code == EIO || code == EUCLEAN;
}

/// A directory or file of the filesystem, to ask it or to open handles with. Error: EIO or EUCLEAN where its
/// disk fails, else EACCES.
Result<Fd> open_on(const Filesystem& filesystem) {
  for (const sys::Mount* mount : filesystem.mounts) {
    auto fd = open_mount(*mount);
    if (fd) fd = sys::reopen_for_reading(fd->get(), mount->mount_point);
    if (fd || cannot_be_read(fd.error().code)) return fd;
  }
  return fail(EACCES,
              fmt::format("{}: none of its mount points can be opened", filesystem.mount().mount_point));
}

}  // namespace

/// Reads the mount table again if it has changed.
Status Identifier::Impl::load() {
  if (!table) {
    auto opened = sys::MountTable::open(root, whose);
    if (!opened) return tl::unexpected(opened.error());
    table = std::move(*opened);
  }
  // Asked before reading, so that a change while reading shows the next time.
  if (!table->changed() && loaded) return {};
  loaded = false;
  auto read = table->read();
  if (!read) return tl::unexpected(read.error());
  mounts = std::move(*read);
  by_id.clear();
  filesystems.clear();
  for (const sys::Mount& mount : mounts) {
    by_id[mount.id] = &mount;
    Filesystem& filesystem = filesystems[mount.device];
    filesystem.device = mount.device;
    filesystem.mounts.push_back(&mount);
  }
  for (auto& [device, filesystem] : filesystems) {
    std::sort(filesystem.mounts.begin(), filesystem.mounts.end(),
              [](const sys::Mount* a, const sys::Mount* b) {
                // The machine's before their copies, which are numbered in another order: the source of the
                // first is in some ids, and programs outside must find the same.
                return std::tuple(a->root.size(), a->reached_by.empty(), a->id) <
                       std::tuple(b->root.size(), b->reached_by.empty(), b->id);
              });
    filesystem.traits = traits_of(filesystem.mount());
  }
  loaded = true;
  return {};
}

Result<Identifier::Impl::Place> Identifier::Impl::place_of(const FileRef& file, const struct statx& status) {
  if (const auto done = load(); !done) return tl::unexpected(done.error());
  if (const auto mount = by_id.find(static_cast<int>(status.stx_mnt_id)); mount != by_id.end())
    return Place{&filesystems.at(mount->second->device), mount->second};
  // Open through a mount of another namespace (a container's): the filesystem may still be mounted here.
  if (const auto found = filesystems.find(sys::device_of(status)); found != filesystems.end())
    return Place{&found->second, nullptr};
  // A btrfs subvolume has a device number of its own, which mountinfo does not show.
  if (const auto fsid = file.fd >= 0 ? sys::btrfs_fsid(file.fd) : std::nullopt)
    for (auto& [device, filesystem] : filesystems)
      if (filesystem.traits.id == IdKind::btrfs && id_of(filesystem) == "btrfs:" + *fsid)
        return Place{&filesystem, nullptr};
  return fail(ENODEV,
              fmt::format("{}: its filesystem is not mounted in this mount namespace", sys::object_of(file)));
}

/// What was learned of a mount, or learned now. Only for a mount that is held: as long as it is, its id is
/// not given to another, and what was learned of it holds, but for another filesystem that has come to have
/// its id. What is left is a mount that had this id before, for as long as an answer lasts.
Result<std::shared_ptr<const Identifier::Impl::Known>> Identifier::Impl::known_of(int mount_id) {
  {
    const auto now = Clock::now();
    const std::shared_lock lock(remembered_mutex);
    const auto found = remembered.find(mount_id);
    if (found != remembered.end() && now < found->second->until) return found->second;
  }
  auto answer = learn(mount_id);
  if (!answer) return tl::unexpected(answer.error());
  auto learned = std::make_shared<const Known>(*std::move(answer));
  const std::lock_guard lock(remembered_mutex);
  std::erase_if(remembered,
                [&](const auto& each) { return each.second->until <= learned->until - known_lasts; });
  return remembered[mount_id] = std::move(learned);
}

/// Of a mount of another namespace nothing is said: handle_suffices is not set.
Result<Identifier::Impl::Known> Identifier::Impl::learn(int mount_id) {
  const std::lock_guard lock(mutex);
  Known answer;
  // From before the table is read: what changes while it is read shows in time.
  answer.until = Clock::now() + known_lasts;
  if (const auto done = load(); !done) return tl::unexpected(done.error());
  const auto mount = by_id.find(mount_id);
  if (mount == by_id.end()) return answer;
  Filesystem& filesystem = filesystems.at(mount->second->device);
  answer.handle_suffices =
      filesystem.traits.key == KeyKind::handle && draws_generations(filesystem.mount().type);
  if (!answer.handle_suffices) return answer;
  auto id = id_of(filesystem);
  if (!id) return tl::unexpected(id.error());
  answer.id = std::move(*id);
  answer.ambiguous = is_ambiguous(filesystem, answer.id);
  return answer;
}

Result<std::string> Identifier::Impl::id_of(Filesystem& filesystem) {
  if (filesystem.id) return *filesystem.id;
  auto id = make_id(filesystem);
  if (!id)
    return with_context(fmt::format("identity of the {} filesystem on {}", filesystem.mount().type,
                                    filesystem.mount().mount_point),
                        id.error());
  filesystem.id = *id;  // an error is not remembered: it may pass
  return id;
}

bool Identifier::Impl::is_ambiguous(Filesystem& filesystem, const std::string& id) {
  if (filesystem.ambiguous) return *filesystem.ambiguous;
  bool ambiguous = false;
  if (!is_network_type(filesystem.mount().type))
    for (auto& [device, other] : filesystems)
      if (device != filesystem.device && other.mount().type == filesystem.mount().type)
        ambiguous = ambiguous || id_of(other) == id;
  filesystem.ambiguous = ambiguous;
  return ambiguous;
}

/// Why no mounted filesystem has an id. One whose disk cannot be read may be the one.
Error Identifier::Impl::not_found() {
  for (auto& [device, filesystem] : filesystems) {
    if (filesystem.traits.key == KeyKind::none) continue;
    if (const auto id = id_of(filesystem); !id && cannot_be_read(id.error().code)) return id.error();
  }
  return {ENODEV, "its filesystem is not mounted"};
}

Result<std::string> Identifier::Impl::make_id(const Filesystem& filesystem) const {
  const sys::Mount& mount = filesystem.mount();
  if (filesystem.traits.key == KeyKind::none)
    return fail(ENOTSUP, "files of the kernel's own have no pages to place");
  switch (filesystem.traits.id) {
    case IdKind::btrfs: {
      const auto fd = open_on(filesystem);
      if (!fd) return tl::unexpected(fd.error());
      const auto fsid = sys::btrfs_fsid(fd->get());
      if (!fsid) return fail_errno("BTRFS_IOC_FS_INFO", mount.mount_point);
      return "btrfs:" + *fsid;
    }
    case IdKind::superblock: {
      const auto superblock = sys::superblock_of(mount.type, device_node(filesystem), filesystem.device);
      if (!superblock) return tl::unexpected(superblock.error());
      return fmt::format("{}:{}", mount.type, *superblock);
    }
    case IdKind::tmpfs:
    case IdKind::memory: {
      // Nothing of it outlives its last unmount. A tmpfs draws a UUID; in hugetlbfs and ramfs inode numbers
      // come from one counter for the whole system, so that no later mount repeats them before the next boot.
      std::string number = fmt::format("{}:{}", major(filesystem.device), minor(filesystem.device));
      if (filesystem.traits.id == IdKind::tmpfs) {
        const auto fd = open_on(filesystem);
        if (!fd) return tl::unexpected(fd.error());
        auto random = sys::statfs_id(fd->get());
        if (!random) return random;
        number = std::move(*random);
      }
      const auto boot = sys::boot_id(root);
      if (!boot) return tl::unexpected(boot.error());
      return fmt::format("boot:{}:{}:{}", *boot, mount.type, number);
    }
    case IdKind::uuid:
      return device_id(filesystem);
    case IdKind::overlay:
      return fmt::format("source:overlay:{}{}", mount.source, overlay_layers(mount.super_options));
    case IdKind::source:
      break;
  }
  return source_id(filesystem);
}

/// For a filesystem on a block device: the same id on kernels with and without FS_IOC_GETFSUUID.
Result<std::string> Identifier::Impl::device_id(const Filesystem& filesystem) const {
  const auto fd = open_on(filesystem);
  if (!fd) return tl::unexpected(fd.error());
  std::string uuid;
  if (const auto known = sys::kernel_uuid(fd->get())) {
    uuid = *known;
  } else {
    auto read = sys::blkid_uuid(device_node(filesystem), filesystem.device);
    if (!read) return read;
    uuid = std::move(*read);
  }
  return uuid.empty() ? source_id(filesystem) : "uuid:" + uuid;
}

Result<std::string> Identifier::Impl::source_id(const Filesystem& filesystem) const {
  const sys::Mount& mount = filesystem.mount();
  // Loop devices are numbered as they come; the file behind one is what stays.
  const auto backing = sys::loop_backing_file(root, filesystem.device);
  if (!backing) return tl::unexpected(backing.error());
  return fmt::format("source:{}:{}", mount.type, backing->value_or(mount.source));
}

/// mountinfo's source is what mount(8) was told, which may be a link or, for the root filesystem, not exist.
std::string Identifier::Impl::device_node(const Filesystem& filesystem) const {
  const std::string node = root + filesystem.mount().source;
  const std::string by_number =
      fmt::format("{}/dev/block/{}:{}", root, major(filesystem.device), minor(filesystem.device));
  FileRef file;
  file.name = node.c_str();
  return sys::file_status(file) ? node : by_number;
}

Identifier::Identifier(std::string root)
    : impl_(std::make_unique<Impl>(root == "/" ? std::string() : std::move(root))) {}
Identifier::~Identifier() = default;
Identifier::Identifier(Identifier&&) noexcept = default;
Identifier& Identifier::operator=(Identifier&&) noexcept = default;

void Identifier::include_machines_mounts() {
  const std::lock_guard lock(impl_->mutex);
  impl_->whose = sys::Mounts::own_and_machines;
  impl_->table.reset();
  impl_->loaded = false;
}

Result<FileIdentity> Identifier::identify(const FileRef& file, bool* ambiguous) {
  const auto status = sys::file_status(file);
  if (!status) return tl::unexpected(status.error());
  return identify(file, *status, ambiguous);
}

Result<FileIdentity> Identifier::identify(const FileRef& file, const struct statx& status, bool* ambiguous) {
  FileIdentity identity;
  KeyKind kind = KeyKind::none;
  std::optional<sys::Mount> mount;
  {
    const std::lock_guard lock(impl_->mutex);
    const auto place = impl_->place_of(file, status);
    if (!place) return tl::unexpected(place.error());
    auto id = impl_->id_of(*place->filesystem);
    if (!id) return with_context(sys::object_of(file), id.error());
    identity.filesystem = std::move(*id);
    if (ambiguous != nullptr) *ambiguous = impl_->is_ambiguous(*place->filesystem, identity.filesystem);
    identity.birth_ns = birth_in(place->filesystem->mount(), status);
    kind = place->filesystem->traits.key;
    if (kind != KeyKind::handle && place->mount != nullptr) mount = *place->mount;
  }
  if (kind == KeyKind::handle) {
    auto handle = sys::file_handle(file);
    if (!handle) return tl::unexpected(handle.error());
    if (const std::optional<std::string>& bytes = *handle) {
      identity.key = "h" + *bytes;
      return identity;
    }
  } else if (kind == KeyKind::inode) {
    identity.key = "i" + little_endian(status.stx_ino);
    return identity;
  }
  if (!mount) {
    const std::lock_guard lock(impl_->mutex);
    const auto place = impl_->place_of(file, status);
    if (!place) return tl::unexpected(place.error());
    if (place->mount == nullptr)
      return fail(ENODEV, fmt::format("{}: is not to be reached by a path in this mount namespace",
                                      sys::object_of(file)));
    mount = *place->mount;
  }
  auto path = inner_path(file, status, *mount);
  if (!path) return tl::unexpected(path.error());
  identity.key = "p" + *path;
  return identity;
}

Result<std::optional<FileIdentity>> Identifier::identify_listed(const FileRef& file, int mount,
                                                                bool* ambiguous) {
  if (mount == 0) return std::nullopt;
  int mount_id = 0;
  auto handle = sys::file_handle(file, &mount_id);
  if (!handle) return tl::unexpected(handle.error());
  std::optional<std::string>& bytes = *handle;
  if (!bytes || mount_id != mount) return std::nullopt;
  const auto known = impl_->known_of(mount_id);
  if (!known) return with_context(sys::object_of(file), known.error());
  if (!(*known)->handle_suffices) return std::nullopt;
  if (ambiguous != nullptr) *ambiguous = (*known)->ambiguous;
  FileIdentity identity;
  identity.filesystem = (*known)->id;
  identity.key = std::move(bytes->insert(0, 1, 'h'));
  return identity;
}

Result<std::string> Identifier::filesystem(const FileRef& file) {
  const auto status = sys::file_status(file);
  if (!status) return tl::unexpected(status.error());
  const std::lock_guard lock(impl_->mutex);
  const auto place = impl_->place_of(file, *status);
  if (!place) return tl::unexpected(place.error());
  auto id = impl_->id_of(*place->filesystem);
  if (!id) return with_context(sys::object_of(file), id.error());
  return id;
}

bool is_file_of(const FileIdentity& recorded, const FileIdentity& file) {
  return recorded.key == file.key && recorded.filesystem == file.filesystem &&
         (recorded.birth_ns == file.birth_ns || (recorded.birth_ns == 0 && recorded.key.starts_with('h')));
}

namespace {

/// Was a file that has opened by its handle born when the record says?
bool is_born(const FileIdentity& recorded, const struct statx& status) {
  return recorded.birth_ns == 0 || recorded.birth_ns == sys::birth_ns(status);
}

}  // namespace

Result<Fd> Identifier::open(const FileIdentity& identity, const std::string& last_path) {
  const std::string object = last_path.empty() ? identity.filesystem : last_path;
  // Most files are where they were.
  const auto open_if_same = [&](const std::string& path) -> std::optional<Result<Fd>> {
    const auto path_fd = sys::open_path(path.c_str(), object);
    if (!path_fd) return std::nullopt;
    FileRef file;
    file.fd = path_fd->get();
    file.path = object;
    const auto found = identify(file);
    if (!found || !is_file_of(identity, *found)) return std::nullopt;
    return sys::reopen_for_reading(path_fd->get(), object);
  };
  if (!last_path.empty())
    if (auto opened = open_if_same(last_path)) return std::move(*opened);

  std::optional<Fd> mount_fd;
  std::vector<std::string> candidates;
  Error missing;
  {
    const std::lock_guard lock(impl_->mutex);
    if (const auto done = impl_->load(); !done) return tl::unexpected(done.error());
    // An id names the type of filesystems it may belong to only in part, so each that is mounted is asked
    // once.
    for (auto& [device, filesystem] : impl_->filesystems) {
      if (filesystem.traits.key == KeyKind::none || impl_->id_of(filesystem) != identity.filesystem) continue;
      if (identity.key.starts_with('h')) {
        auto fd = open_on(filesystem);
        if (!fd) return tl::unexpected(fd.error());
        mount_fd = std::move(*fd);
      } else {
        mount_fd.emplace();
        if (identity.key.starts_with('p'))
          for (const sys::Mount* mount : filesystem.mounts)
            if (auto path = rebase(std::string_view(identity.key).substr(1), mount->root, mount->mount_point))
              candidates.push_back(mount->reached_by + *path);
      }
      break;
    }
    if (!mount_fd) missing = impl_->not_found();
  }
  if (!mount_fd) return with_context(object, missing);
  if (*mount_fd) {
    auto fd = sys::open_file_handle(mount_fd->get(), std::string_view(identity.key).substr(1), object);
    if (!fd) return fd;
    FileRef file;
    file.fd = fd->get();
    file.path = object;
    const auto status = sys::file_status(file);
    if (!status) return tl::unexpected(status.error());
    // A deleted file that is still open somewhere opens by its handle, too.
    if (status->stx_nlink != 0 && is_born(identity, *status)) return fd;
  }
  for (const std::string& path : candidates)
    if (auto opened = open_if_same(path)) return std::move(*opened);
  return fail_errno("open", object, ESTALE);
}

bool Identifier::in_use_without_name(const FileIdentity& identity) {
  if (!identity.key.starts_with('h')) return false;
  Result<Fd> mount = fail(ENODEV, "");
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->load()) return false;
    for (auto& [device, filesystem] : impl_->filesystems) {
      if (filesystem.traits.key != KeyKind::handle || impl_->id_of(filesystem) != identity.filesystem)
        continue;
      mount = open_on(filesystem);
      break;
    }
  }
  if (!mount) return false;
  const auto file = sys::open_file_handle(mount->get(), std::string_view(identity.key).substr(1), "");
  if (!file) return false;
  FileRef held;
  held.fd = file->get();
  const auto status = sys::file_status(held);
  return status && status->stx_nlink == 0 && is_born(identity, *status);
}

namespace {

Finding found(Fate fate, std::string reason) {
  return {.fate = fate, .reason = std::move(reason), .code = 0};
}

Finding unknown(const Error& error) {
  return {.fate = Fate::unknown, .reason = error.message, .code = error.code};
}

/// Errors of a look-up that say: there is no such name. A link in place of a directory or file is none of the
/// tagged file's names.
bool says_not_there(int code) {
  return code == ENOENT || code == ENOTDIR || code == ELOOP;
}

/// Of a file that was found under the key of a record: is it the record's?
Finding compare_birth(std::int64_t recorded, std::int64_t now, bool copied_up, const char* other) {
  if (recorded == now) return found(Fate::live, {});
  // Kernels learn of birth times: one that was not known, or is not any more, tells nothing.
  if (recorded == 0 || now == 0) return found(Fate::stale, "its birth time cannot be compared");
  // overlayfs shows the birth of the copy once a file is copied up; it may be the tagged one all the same.
  if (copied_up) return found(Fate::stale, "another file is at its path, or it was copied up");
  return found(Fate::gone, other);
}

/// A file with a handle. open_by_handle_at(2) on a mount of its filesystem fails with ESTALE when the inode
/// is free or has a later generation: handles are never given out again. But the kernel makes an ESTALE of
/// nearly every error that it meets on the way (exportfs_decode_fh), of a disk that cannot be read too, so
/// the path is looked at as well: such a disk gives EIO there. `at_path`: what that look-up said, 0 where
/// there is a file.
Finding examine_handle(const FileIdentity& identity, int mount_fd, bool network, int at_path,
                       const std::string& object) {
  const auto fd = sys::open_file_handle(mount_fd, std::string_view(identity.key).substr(1), object);
  if (!fd && fd.error().code != ESTALE) return unknown(fd.error());
  if (!fd) {
    // A server that was set up anew, or that exports something else now, answers so too.
    if (network) return found(Fate::stale, "its server does not know it (ESTALE)");
    if (at_path == 0) return found(Fate::gone, "deleted; another file is at its path");
    if (says_not_there(at_path)) return found(Fate::gone, "deleted");
    return unknown({at_path, "its path cannot be looked at: " + errno_text(at_path)});
  }
  FileRef file;
  file.fd = fd->get();
  file.path = object;
  const auto status = sys::file_status(file);
  if (!status) return unknown(status.error());
  // Or made with O_TMPFILE: it may still be given a name.
  if (status->stx_nlink == 0) return found(Fate::stale, "deleted, and still open in some process");
  // Without one recorded the handle has told all.
  if (identity.birth_ns == 0) return found(Fate::live, {});
  return compare_birth(identity.birth_ns, sys::birth_ns(*status), false,
                       "its inode was given to another file");
}

/// A file that its path inside the filesystem names. `mount`: one that shows this part of it, `inside`: the
/// path below its mount point, empty for that itself. Nothing where this mount cannot tell.
std::optional<Finding> examine_path(const FileIdentity& identity, const sys::Mount& mount,
                                    const std::string& inside, Finding& obstacle) {
  auto root = open_mount(mount);
  if (!root) {
    obstacle = unknown(root.error());
    return std::nullopt;
  }
  Result<Fd> opened = std::move(root);
  if (!inside.empty()) opened = sys::open_on_mount(opened->get(), inside, mount.mount_point + "/" + inside);
  if (!opened) {
    if (says_not_there(opened.error().code)) return found(Fate::gone, "its path does not exist any more");
    obstacle = unknown(opened.error().code == EXDEV ? Error{EXDEV, "another filesystem is mounted over it"}
                                                    : opened.error());
    return std::nullopt;
  }
  FileRef file;
  file.fd = opened->get();
  const auto status = sys::file_status(file);
  if (!status) {
    obstacle = unknown(status.error());
    return std::nullopt;
  }
  return compare_birth(identity.birth_ns, birth_in(mount, *status), mount.type == "overlay",
                       "another file is at its path");
}

/// "BOOT_ID" of "boot:BOOT_ID:…"; empty for filesystems that outlive the kernel.
std::string_view boot_of(std::string_view filesystem) {
  constexpr std::string_view prefix = "boot:";
  if (!filesystem.starts_with(prefix)) return {};
  filesystem.remove_prefix(prefix.size());
  return filesystem.substr(0, filesystem.find(':'));
}

}  // namespace

/// The one mounted filesystem that has the id; copied out, to be used without the lock. Not set where it
/// cannot be said, and `why` tells.
std::optional<Identifier::Impl::Seat> Identifier::Impl::seat_of(const FileIdentity& identity, Finding& why) {
  const std::lock_guard lock(mutex);
  if (const auto done = load(); !done) {
    why = unknown(done.error());
    return std::nullopt;
  }
  std::optional<Seat> seat;
  for (auto& [device, filesystem] : filesystems) {
    if (filesystem.traits.key == KeyKind::none || id_of(filesystem) != identity.filesystem) continue;
    if (is_ambiguous(filesystem, identity.filesystem)) {
      why = unknown({ENOTUNIQ, "two mounted filesystems have the id " + identity.filesystem});
      return std::nullopt;
    }
    seat.emplace();
    seat->network = is_network_type(filesystem.mount().type);
    for (const sys::Mount* mount : filesystem.mounts) seat->mounts.push_back(*mount);
    if (identity.key.starts_with('h')) {
      auto fd = open_on(filesystem);
      if (!fd) {
        why = unknown(fd.error());
        return std::nullopt;
      }
      seat->fd = std::move(*fd);
    }
    return seat;
  }
  why = unknown(not_found());
  return std::nullopt;
}

Finding Identifier::examine(const FileIdentity& identity, const std::string& last_path) {
  // What lived in memory went with the kernel that it lived in.
  if (const auto boot = boot_of(identity.filesystem); !boot.empty()) {
    const auto now = sys::boot_id(impl_->root);
    if (!now) return unknown(now.error());
    if (boot != *now) return found(Fate::gone, "its filesystem went with an earlier boot");
  }
  Finding finding;
  const auto seat = impl_->seat_of(identity, finding);
  if (!seat) return finding;
  // Most files are where they were.
  int at_path = ENOENT;
  if (!last_path.empty()) {
    const auto path_fd = sys::open_path(last_path.c_str(), last_path);
    at_path = path_fd ? 0 : path_fd.error().code;
    FileRef file;
    file.path = last_path;
    if (path_fd) file.fd = path_fd->get();
    const auto there = path_fd ? identify(file) : fail(at_path, "");
    if (there && is_file_of(identity, *there)) return found(Fate::live, {});
  }
  if (identity.key.starts_with('h'))
    return examine_handle(identity, seat->fd.get(), seat->network, at_path,
                          last_path.empty() ? identity.filesystem : last_path);
  // Nothing opens an inode by its number alone: it may have another name.
  if (!identity.key.starts_with('p'))
    return says_not_there(at_path) || at_path == 0 ? found(Fate::stale, "is not at its path any more")
                                                   : unknown({at_path, errno_text(at_path)});
  finding = unknown({ENODEV, "the part of its filesystem that holds it is not mounted"});
  for (const sys::Mount& mount : seat->mounts) {
    const auto inside = rebase(std::string_view(identity.key).substr(1), mount.root, "/");
    if (!inside) continue;
    if (auto told = examine_path(identity, mount, inside->substr(1), finding)) return *std::move(told);
  }
  return finding;
}

void Identifier::refresh() {
  const std::lock_guard lock(impl_->mutex);
  impl_->loaded = false;
  const std::lock_guard known_lock(impl_->remembered_mutex);
  impl_->remembered.clear();
}

}  // namespace fpolicy
