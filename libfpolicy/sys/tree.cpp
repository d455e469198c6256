// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/tree.h>

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace fpolicy {
namespace {

/// Files of one directory that a thread takes at a time, so that a directory of a million files is shared.
constexpr std::size_t slice_files = 512;
/// Output that may wait behind a slower part of the tree, in bytes.
constexpr std::size_t most_waiting = 32U << 20U;
/// Output worth waking the emitter for, in bytes.
constexpr std::size_t worth_emitting = 64U << 10U;
constexpr std::chrono::milliseconds tick{200};

struct Place {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

/// The directories above one, to find loops when links are followed.
struct Ancestor {
  Place place;
  std::shared_ptr<const Ancestor> parent;
};

struct Entry {
  std::size_t offset = 0;  ///< of its name, ended by NUL, in Directory::names
  std::size_t length = 0;
  bool directory = false;
  bool link = false;  ///< a symbolic link that is to be followed
};

/// An open directory with its names; lives until the last of its entries has been looked up.
struct Directory {
  Fd fd;
  std::string path;
  Place place;
  int mount = 0;  ///< 0: not known (before Linux 5.8)
  std::shared_ptr<const Ancestor> ancestors;
  std::string names;
  std::vector<Entry> entries;  ///< files, then directories, each by name

  [[nodiscard]] const char* name(const Entry& entry) const { return names.data() + entry.offset; }
  [[nodiscard]] std::string_view view(const Entry& entry) const {
    return std::string_view(names).substr(entry.offset, entry.length);
  }
};

std::string join(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (path.empty() || path.back() != '/') path += '/';
  return path.append(name);
}

/// A part of the tree in the order of output: a directory to be read, or some files of one that has been.
struct Part {
  enum class State : std::uint8_t { waiting, running, done };
  State state = State::waiting;
  std::shared_ptr<const Directory> parent;
  std::size_t first = 0;  ///< index in parent->entries
  std::size_t last = 0;   ///< one behind; first + 1 for a directory
  bool directory = false;
  std::string output;
};

unsigned processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails with EINVAL where the kernel knows more than 1024 processors.
  if (sched_getaffinity(0, sizeof set, &set) != 0) return std::max(1U, std::thread::hardware_concurrency());
  return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
}

/// A directory stays open while it has subdirectories that wait, so deep and wide trees need many
/// descriptors.
void raise_descriptor_limit() {
  struct rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
}

/// An entry went away, or became something else, between being listed and being looked up.
bool has_vanished(int code) {
  return code == ENOENT || code == ENOTDIR || code == ELOOP || code == ESTALE;
}

class Walk {
 public:
  Walk(const TreeOptions& options, const TreeVisitor& visitor) : options_(options), visitor_(visitor) {}

  void run(NamedFile root) {
    device_ = root.device;
    root_ = std::move(root);
    parts_.emplace_back().directory = true;
    waiting_ = 1;
    raise_descriptor_limit();
    const unsigned count = options_.threads != 0 ? options_.threads : processors();
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (unsigned i = 0; i < count; ++i) threads.emplace_back([this] { work(); });
    emit_all();
    for (std::thread& thread : threads) thread.join();
  }

 private:
  /// What a thread keeps from one part to the next.
  struct Worker {
    bool own_cwd = false;
    std::vector<char> buffer = std::vector<char>(64U << 10U);
    std::string path;
  };
  using Iterator = std::list<Part>::iterator;

  void work() {
    Worker worker;
    // A working directory of this thread alone: names are then looked up without a path. Seccomp profiles of
    // containers may refuse it; each file is then opened (O_PATH) instead.
    worker.own_cwd = unshare(CLONE_FS) == 0;
    std::unique_lock lock(mutex_);
    while (true) {
      const Iterator part = take(lock);
      if (part == parts_.end()) break;
      lock.unlock();
      std::list<Part> found;
      if (part->directory) {
        read_directory(worker, *part, found);
      } else {
        visit_files(worker, *part->parent, part->first, part->last, part->output);
      }
      part->parent.reset();
      lock.lock();
      finish(part, found);
    }
    lock.unlock();
    for_workers_.notify_all();
    for_emitter_.notify_one();
  }

  /// The first waiting part in the order of output, so that what is done behind one that runs stays little.
  Iterator take(std::unique_lock<std::mutex>& lock) {
    while (true) {
      if (stop_ || (waiting_ == 0 && running_ == 0)) return parts_.end();
      const bool held_up = pending_bytes_ > most_waiting && parts_.front().state != Part::State::waiting;
      if (waiting_ > 0 && !held_up) {
        // Short: before it lie only parts that run, and between them ones that are done, which finish()
        // joins.
        const Iterator part = std::find_if(parts_.begin(), parts_.end(), [](const Part& each) {
          return each.state == Part::State::waiting;
        });
        part->state = Part::State::running;
        --waiting_;
        ++running_;
        return part;
      }
      for_workers_.wait(lock);
    }
  }

  void finish(Iterator part, std::list<Part>& found) {
    part->state = Part::State::done;
    --running_;
    waiting_ += found.size();
    pending_bytes_ += part->output.size();
    const bool wake = found.size() > 1 || (waiting_ == 0 && running_ == 0);
    parts_.splice(std::next(part), found);
    join_done(part);
    if (wake) for_workers_.notify_all();
    if (pending_bytes_ >= worth_emitting || (waiting_ == 0 && running_ == 0)) for_emitter_.notify_one();
  }

  void join_done(Iterator part) {
    const auto next = std::next(part);
    if (next != parts_.end() && next->state == Part::State::done) {
      part->output += next->output;
      parts_.erase(next);
    }
    if (part == parts_.begin()) return;
    const auto before = std::prev(part);
    if (before->state != Part::State::done) return;
    if (before->output.empty()) {
      before->output = std::move(part->output);
    } else {
      before->output += part->output;
    }
    parts_.erase(part);
  }

  void emit_all() {
    std::unique_lock lock(mutex_);
    while (true) {
      const bool finished = waiting_ == 0 && running_ == 0;
      std::string output;
      while (!parts_.empty() && parts_.front().state == Part::State::done) {
        output += parts_.front().output;
        parts_.pop_front();
      }
      pending_bytes_ -= output.size();
      lock.unlock();
      if (!output.empty()) for_workers_.notify_all();
      const bool go_on = visitor_.emit(output);
      lock.lock();
      if (finished || !go_on) {
        stop_ = true;
        break;
      }
      const bool more = !parts_.empty() && parts_.front().state == Part::State::done;
      if (!more) for_emitter_.wait_for(lock, tick);
    }
    lock.unlock();
    for_workers_.notify_all();
  }

  void visit_files(Worker& worker, const Directory& directory, std::size_t first, std::size_t last,
                   std::string& output) {
    if (first == last) return;
    if (worker.own_cwd && fchdir(directory.fd.get()) != 0) {
      visitor_.error(directory.path, Error{errno, "chdir: " + errno_text(errno)});
      return;
    }
    worker.path = directory.path;
    if (worker.path.back() != '/') worker.path += '/';
    const std::size_t prefix = worker.path.size();
    for (std::size_t i = first; i < last && !stop_; ++i) {
      const Entry& entry = directory.entries[i];
      const char* name = directory.name(entry);
      worker.path.resize(prefix);
      worker.path.append(directory.view(entry));
      if (options_.one_file_system) {
        struct stat status = {};
        const int flags = entry.link ? 0 : AT_SYMLINK_NOFOLLOW;
        if (fstatat(directory.fd.get(), name, &status, flags) != 0 || status.st_dev != device_) continue;
      }
      TreeEntry found;
      Fd held;
      if (entry.link || !worker.own_cwd) {
        const int flags = O_PATH | O_CLOEXEC | (entry.link ? 0 : O_NOFOLLOW);
        held.reset(openat(directory.fd.get(), name, flags));
        if (!held) {
          if (!has_vanished(errno)) visitor_.error(worker.path, Error{errno, "open: " + errno_text(errno)});
          continue;
        }
        found.file.fd = held.get();
        if (entry.link) {
          auto path = path_of(held.get());
          if (!path) continue;
          found.file.path = worker.path = *std::move(path);
          visitor_.visit(found, output);
          worker.path = join(directory.path, "");
          continue;
        }
      } else {
        found.file.name = name;
      }
      // Right but for single files that something is mounted on.
      found.file.device = directory.place.device;
      found.file.path = worker.path;
      found.mount = directory.mount;
      visitor_.visit(found, output);
    }
  }

  void read_directory(Worker& worker, Part& part, std::list<Part>& found) {
    const Directory* parent = part.parent.get();
    const Entry* entry = parent != nullptr ? &parent->entries[part.first] : nullptr;
    auto directory = std::make_shared<Directory>();
    directory->path = parent != nullptr ? join(parent->path, parent->view(*entry)) : root_.path;
    const int at = parent != nullptr ? parent->fd.get() : root_.fd.get();
    const char* name = parent != nullptr ? parent->name(*entry) : ".";
    const int follow = entry != nullptr && entry->link ? 0 : O_NOFOLLOW;
    directory->fd.reset(openat(at, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC | follow));
    if (!directory->fd) {
      const int code = errno;
      if (has_vanished(code) && parent != nullptr) return;
      // Its own tag can be read all the same.
      directory->fd.reset(openat(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC | follow));
      if (directory->fd && enter(*directory, parent, entry)) visit_directory(*directory, part.output);
      visitor_.error(directory->path, Error{code, "open: " + errno_text(code)});
      return;
    }
    if (!enter(*directory, parent, entry)) return;
    visit_directory(*directory, part.output);
    if (!list(worker, *directory)) return;

    const auto& entries = directory->entries;
    const auto files = static_cast<std::size_t>(
        std::find_if(entries.begin(), entries.end(), [](const Entry& each) { return each.directory; }) -
        entries.begin());
    if (files <= slice_files) {
      visit_files(worker, *directory, 0, files, part.output);
    } else {
      for (std::size_t first = 0; first < files; first += slice_files) {
        Part& slice = found.emplace_back();
        slice.parent = directory;
        slice.first = first;
        slice.last = std::min(first + slice_files, files);
      }
    }
    for (std::size_t i = files; i < entries.size(); ++i) {
      Part& child = found.emplace_back();
      child.directory = true;
      child.parent = directory;
      child.first = i;
      child.last = i + 1;
    }
  }

  /// Finds out where an opened directory is; false where the walk ends before it.
  bool enter(Directory& directory, const Directory* parent, const Entry* entry) {
    struct statx status = {};
    if (statx(directory.fd.get(), "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &status) != 0) {
      visitor_.error(directory.path, Error{errno, "stat: " + errno_text(errno)});
      return false;
    }
    directory.place = Place{makedev(status.stx_dev_major, status.stx_dev_minor), status.stx_ino};
    if ((status.stx_mask & STATX_MNT_ID) != 0) directory.mount = static_cast<int>(status.stx_mnt_id);
    if (options_.one_file_system && directory.place.device != device_) return false;
    if (parent == nullptr || parent->place.device != directory.place.device) {
      const auto holds = holds_file_pages(directory.fd.get());
      if (!holds) visitor_.error(directory.path, holds.error());
      if (!holds || !*holds) return false;
    }
    if (!options_.follow_links) return true;
    const std::shared_ptr<const Ancestor> above = parent != nullptr ? parent->ancestors : nullptr;
    for (const Ancestor* each = above.get(); each != nullptr; each = each->parent.get()) {
      if (each->place == directory.place) {
        visitor_.error(directory.path, Error{ELOOP, "leads back to a directory above it; not entered again"});
        return false;
      }
    }
    directory.ancestors = std::make_shared<const Ancestor>(Ancestor{directory.place, above});
    if (entry != nullptr && entry->link) {
      auto path = path_of(directory.fd.get());
      if (!path) return false;
      directory.path = *std::move(path);
    }
    return true;
  }

  void visit_directory(const Directory& directory, std::string& output) {
    TreeEntry entry;
    entry.directory = true;
    entry.file.fd = directory.fd.get();
    entry.file.path = directory.path;
    entry.file.device = directory.place.device;
    visitor_.visit(entry, output);
  }

  /// Reads and sorts the names of what is to be visited.
  bool list(Worker& worker, Directory& directory) {
    while (true) {
      const ssize_t got = getdents64(directory.fd.get(), worker.buffer.data(), worker.buffer.size());
      // ENOENT: the directory was removed while it was being read.
      if (got == 0 || (got < 0 && errno == ENOENT)) break;
      if (got < 0) {
        visitor_.error(directory.path, Error{errno, "read: " + errno_text(errno)});
        break;
      }
      for (ssize_t at = 0; at < got;) {
        const char* bytes = worker.buffer.data() + at;
        const auto* record = reinterpret_cast<const struct dirent64*>(bytes);
        at += record->d_reclen;
        add_entry(directory, record->d_name, record->d_type);
      }
    }
    std::sort(directory.entries.begin(), directory.entries.end(), [&](const Entry& a, const Entry& b) {
      if (a.directory != b.directory) return b.directory;
      return directory.view(a) < directory.view(b);
    });
    return true;
  }

  void add_entry(Directory& directory, const char* name, unsigned char type) const {
    if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0) return;
    Entry entry;
    if (type == DT_UNKNOWN || (type == DT_LNK && options_.follow_links)) {
      struct stat status = {};
      if (fstatat(directory.fd.get(), name, &status, AT_SYMLINK_NOFOLLOW) != 0) return;
      if (S_ISLNK(status.st_mode) && options_.follow_links) {
        entry.link = true;
        // A link that leads nowhere names no file.
        if (fstatat(directory.fd.get(), name, &status, 0) != 0) return;
      }
      type = IFTODT(status.st_mode);
    }
    if (type != DT_REG && type != DT_DIR) return;
    entry.directory = type == DT_DIR;
    entry.offset = directory.names.size();
    entry.length = std::strlen(name);
    directory.names.append(name, entry.length + 1);
    directory.entries.push_back(entry);
  }

  const TreeOptions& options_;
  const TreeVisitor& visitor_;
  NamedFile root_;
  dev_t device_ = 0;

  std::mutex mutex_;
  std::condition_variable for_workers_;
  std::condition_variable for_emitter_;
  std::list<Part> parts_;  ///< in the order of output
  std::size_t waiting_ = 0;
  std::size_t running_ = 0;
  std::size_t pending_bytes_ = 0;
  std::atomic<bool> stop_ = false;
};

}  // namespace

Result<std::string> path_of(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::array<char, PATH_MAX> buffer;
  const ssize_t got = readlink(link.c_str(), buffer.data(), buffer.size());
  if (got < 0) return fail_errno("readlink", link);
  struct stat status = {};
  if (fstat(fd, &status) != 0) return fail_errno("stat", link);
  std::string path(buffer.data(), static_cast<std::size_t>(got));
  // "(unreachable)/…" outside the root, "pipe:[1]" and their like without a name, "… (deleted)" without
  // links.
  if (path.front() != '/' || status.st_nlink == 0) return fail(ENOENT, errno_text(ENOENT));
  if (path.size() >= buffer.size()) return fail(ENAMETOOLONG, errno_text(ENAMETOOLONG));
  return path;
}

Result<NamedFile> open_named(const std::string& name, bool follow) {
  NamedFile file;
  file.fd.reset(open(name.c_str(), O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)));
  if (!file.fd) return fail(errno, errno_text(errno));
  struct stat status = {};
  if (fstat(file.fd.get(), &status) != 0) return fail_errno("stat", "");
  if (S_ISLNK(status.st_mode)) return fail(ELOOP, "is a symbolic link");
  auto path = path_of(file.fd.get());
  if (!path) return tl::unexpected(path.error());
  file.path = *std::move(path);
  file.mode = status.st_mode;
  file.owner = status.st_uid;
  file.device = status.st_dev;
  file.inode = status.st_ino;
  return file;
}

Result<Fd> reopen(const NamedFile& file) {
  if (!S_ISREG(file.mode)) return fail(EINVAL, "is not a regular file");
  const std::string link = "/proc/self/fd/" + std::to_string(file.fd.get());
  // O_NONBLOCK: leases and mandatory locks of others must not hold us up.
  Fd fd(open(link.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return fail_errno("open", file.path);
  return fd;
}

Result<bool> holds_file_pages(int fd) {
  struct statfs status = {};
  if (fstatfs(fd, &status) != 0) return fail_errno("statfs", "");
  constexpr unsigned long mqueue_magic = 0x19800202;    // ipc/mqueue.c
  constexpr unsigned long configfs_magic = 0x62656570;  // fs/configfs/mount.c
  switch (static_cast<unsigned long>(status.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case SELINUX_MAGIC:
    case SMACK_MAGIC:
    case BPF_FS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
    case BINFMTFS_MAGIC:
    case NSFS_MAGIC:
    case mqueue_magic:
    case configfs_magic:
      return false;
    default:
      return true;
  }
}

void walk_tree(NamedFile root, const TreeOptions& options, const TreeVisitor& visitor) {
  if (S_ISDIR(root.mode)) {
    Walk(options, visitor).run(std::move(root));
    return;
  }
  TreeEntry entry;
  entry.file.fd = root.fd.get();
  entry.file.path = root.path;
  std::string output;
  if (S_ISREG(root.mode)) visitor.visit(entry, output);
  visitor.emit(output);
}

}  // namespace fpolicy
