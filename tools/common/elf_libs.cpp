// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/elf_libs.h"

#include <fpolicy/tree.h>

#include <fmt/format.h>
#include <gelf.h>
#include <libelf.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <set>

namespace fpolicy::tools {
namespace {

// Bounds for hostile files; real ones stay far below.
constexpr std::size_t most_objects = 4096;
constexpr std::size_t most_headers = 4096;
constexpr std::size_t most_needed = 4096;
constexpr std::size_t most_strings = 64U << 20U;  // bytes
constexpr std::size_t most_cache = 64U << 20U;    // bytes
constexpr std::size_t longest_path = 4096;
constexpr std::size_t most_lookups = 1U << 18U;  // of names in directories

struct ElfCloser {
  void operator()(Elf* elf) const { elf_end(elf); }
};

struct Machine {
  int elf_class = 0;
  int data = 0;
  unsigned machine = 0;
  friend bool operator==(const Machine&, const Machine&) = default;
};

/// What the dynamic section of one ELF file says.
struct Object {
  Machine machine;
  dev_t device = 0;
  ino_t inode = 0;
  std::string path;  ///< as it was found: $ORIGIN is its directory
  std::string real;  ///< without symbolic links
  std::string interpreter;
  std::string soname;
  std::vector<std::string> needed;
  std::string rpath;
  std::string runpath;
  bool no_default_directories = false;
  const Object* loader = nullptr;  ///< the object that needed it
};

struct Segment {
  std::uint64_t address = 0;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

std::optional<std::uint64_t> offset_of(const std::vector<Segment>& segments, std::uint64_t address) {
  for (const Segment& segment : segments) {
    if (address >= segment.address && address - segment.address < segment.size) {
      return segment.offset + (address - segment.address);
    }
  }
  return std::nullopt;
}

/// A chunk of the file, bounded by libelf to what the file holds; empty where it holds less.
std::string_view chunk(Elf* elf, std::uint64_t offset, std::uint64_t size) {
  const Elf_Data* data = elf_getdata_rawchunk(elf, static_cast<std::int64_t>(offset), size, ELF_T_BYTE);
  if (data == nullptr || data->d_buf == nullptr) return {};
  return {static_cast<const char*>(data->d_buf), data->d_size};
}

std::string text_at(std::string_view strings, std::uint64_t offset) {
  if (offset >= strings.size()) return {};
  strings.remove_prefix(offset);
  const auto end = strings.find('\0');
  // A string that does not end (npos) is none.
  return end > longest_path ? std::string() : std::string(strings.substr(0, end));
}

/// Error: ENOEXEC for what is not ELF, or damaged.
Result<Object> read_object(const std::string& path) {
  const auto file = open_named(path);
  if (!file) return tl::unexpected(file.error());
  if (!S_ISREG(file->mode)) return fail(ENOEXEC, "is no regular file");
  const auto fd = reopen(*file);
  if (!fd) return tl::unexpected(fd.error());
  const auto broken = [] { return fail(ENOEXEC, "is not an ELF program or library, or is damaged"); };

  elf_version(EV_CURRENT);
  // Read, not mapped: the file may be truncated under us, and a mapping would raise SIGBUS.
  const std::unique_ptr<Elf, ElfCloser> elf(elf_begin(fd->get(), ELF_C_READ, nullptr));
  GElf_Ehdr header;
  if (!elf || elf_kind(elf.get()) != ELF_K_ELF || gelf_getehdr(elf.get(), &header) == nullptr)
    return broken();
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return broken();

  Object object;
  object.path = path;
  object.real = file->path;
  object.device = file->device;
  object.inode = file->inode;
  object.machine = {header.e_ident[EI_CLASS], header.e_ident[EI_DATA], header.e_machine};
  std::size_t headers = 0;
  if (elf_getphdrnum(elf.get(), &headers) != 0 || headers > most_headers) return broken();
  std::vector<Segment> segments;
  std::optional<GElf_Phdr> dynamic;
  for (std::size_t i = 0; i < headers; ++i) {
    GElf_Phdr program;
    if (gelf_getphdr(elf.get(), static_cast<int>(i), &program) == nullptr) return broken();
    if (program.p_type == PT_LOAD) segments.push_back({program.p_vaddr, program.p_offset, program.p_filesz});
    if (program.p_type == PT_DYNAMIC) dynamic = program;
    if (program.p_type == PT_INTERP && program.p_filesz <= longest_path) {
      object.interpreter = text_at(chunk(elf.get(), program.p_offset, program.p_filesz), 0);
    }
  }
  if (!dynamic) return object;

  if (dynamic->p_filesz > most_strings) return broken();
  Elf_Data* entries = elf_getdata_rawchunk(elf.get(), static_cast<std::int64_t>(dynamic->p_offset),
                                           dynamic->p_filesz, ELF_T_DYN);
  if (entries == nullptr) return broken();
  std::uint64_t strings_at = 0;
  std::uint64_t strings_size = 0;
  std::vector<std::uint64_t> needed;
  std::optional<std::uint64_t> soname;
  std::optional<std::uint64_t> rpath;
  std::optional<std::uint64_t> runpath;
  GElf_Dyn entry;
  for (int i = 0; gelf_getdyn(entries, i, &entry) != nullptr && entry.d_tag != DT_NULL; ++i) {
    switch (entry.d_tag) {
      case DT_NEEDED:
        if (needed.size() == most_needed) return broken();
        needed.push_back(entry.d_un.d_val);
        break;
      case DT_STRTAB:
        strings_at = entry.d_un.d_ptr;
        break;
      case DT_STRSZ:
        strings_size = entry.d_un.d_val;
        break;
      case DT_SONAME:
        soname = entry.d_un.d_val;
        break;
      case DT_RPATH:
        rpath = entry.d_un.d_val;
        break;
      case DT_RUNPATH:
        runpath = entry.d_un.d_val;
        break;
      case DT_FLAGS_1:
        object.no_default_directories = (entry.d_un.d_val & DF_1_NODEFLIB) != 0;
        break;
      default:
        break;
    }
  }
  const auto offset = offset_of(segments, strings_at);
  if (needed.empty() && !soname) return object;
  if (!offset || strings_size > most_strings) return broken();
  const std::string_view strings = chunk(elf.get(), *offset, strings_size);
  for (const std::uint64_t at : needed) {
    std::string name = text_at(strings, at);
    if (name.empty()) return broken();
    object.needed.push_back(std::move(name));
  }
  if (soname) object.soname = text_at(strings, *soname);
  if (rpath) object.rpath = text_at(strings, *rpath);
  if (runpath) object.runpath = text_at(strings, *runpath);
  return object;
}

/// Subdirectories of glibc-hwcaps that the loader prefers on this processor, best first (glibc 2.33).
std::vector<std::string> hwcap_levels(const Machine& machine) {
  std::vector<std::string> levels;
#ifdef __x86_64__
  if (machine.machine == EM_X86_64 && machine.elf_class == ELFCLASS64) {
    if (__builtin_cpu_supports("x86-64-v4")) levels.emplace_back("x86-64-v4");
    if (__builtin_cpu_supports("x86-64-v3")) levels.emplace_back("x86-64-v3");
    if (__builtin_cpu_supports("x86-64-v2")) levels.emplace_back("x86-64-v2");
  }
#else
  (void)machine;
#endif
  return levels;
}

/// Debian's directory of an architecture's libraries, empty where it has none.
std::string multiarch(const Machine& machine) {
  const bool wide = machine.elf_class == ELFCLASS64;
  switch (machine.machine) {
    case EM_X86_64:
      return wide ? "x86_64-linux-gnu" : "x86_64-linux-gnux32";
    case EM_386:
      return "i386-linux-gnu";
    case EM_AARCH64:
      return "aarch64-linux-gnu";
    case EM_PPC64:
      return machine.data == ELFDATA2LSB ? "powerpc64le-linux-gnu" : "powerpc64-linux-gnu";
    case EM_S390:
      return wide ? "s390x-linux-gnu" : "";
    case EM_RISCV:
      return wide ? "riscv64-linux-gnu" : "";
    default:
      return {};
  }
}

std::string directory_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

class Loader {
 public:
  explicit Loader(std::string root) : root_(std::move(root)) {}

  Result<ElfLibraries> load(const std::string& path) {
    auto program = read_object(path);
    if (!program) return tl::unexpected(program.error());
    // The loader learns the program's own directory from /proc/self/exe: without symbolic links.
    program->path = program->real;
    machine_ = program->machine;
    levels_ = hwcap_levels(machine_);
    if (const Status read = read_cache(); !read) return tl::unexpected(read.error());

    ElfLibraries result;
    if (!program->interpreter.empty()) {
      if (auto interpreter = candidate(root_ + program->interpreter); interpreter) {
        take(std::move(*interpreter), program->interpreter, nullptr, result);
      } else {
        result.missing.push_back(fmt::format("{} (interpreter of {})", program->interpreter, path));
      }
    }
    queue_.push_back(std::make_unique<Object>(*std::move(program)));
    for (std::size_t i = 0; i < queue_.size(); ++i) {
      // The vector may grow, the objects stay where they are.
      const Object& object = *queue_[i];
      for (const std::string& name : object.needed) need(name, object, result);
    }
    if (lookups_ > most_lookups)
      return fail(E2BIG,
                  fmt::format("its libraries would be looked for in more than {} places", most_lookups));
    return result;
  }

 private:
  void need(const std::string& name, const Object& by, ElfLibraries& result) {
    if (names_.contains(name) || lookups_ > most_lookups) return;
    auto found = find(name, by);
    if (!found) {
      names_.insert(name);
      result.missing.push_back(fmt::format("{} (needed by {})", name, by.path));
      return;
    }
    take(std::move(*found), name, &by, result);
  }

  void take(Object object, const std::string& name, const Object* by, ElfLibraries& result) {
    names_.insert(name);
    if (!object.soname.empty()) names_.insert(object.soname);
    if (!files_.insert({object.device, object.inode}).second || queue_.size() >= most_objects) return;
    object.loader = by;
    result.paths.push_back(object.real);
    queue_.push_back(std::make_unique<Object>(std::move(object)));
  }

  std::optional<Object> find(const std::string& name, const Object& by) {
    if (name.find('/') != std::string::npos) {
      for (const std::string& path : expand(name, by)) {
        if (path.front() == '/') {
          if (auto found = candidate(path); found) return found;
        }
      }
      return std::nullopt;
    }
    // DT_RPATH of the object and of those that led to it, unless a DT_RUNPATH stands beside it.
    if (by.runpath.empty()) {
      for (const Object* each = &by; each != nullptr; each = each->loader) {
        if (!each->runpath.empty()) continue;
        if (auto found = in_list(each->rpath, name, *each); found) return found;
      }
      const Object& program = *queue_.front();
      if (program.runpath.empty()) {
        if (auto found = in_list(program.rpath, name, program); found) return found;
      }
    }
    if (auto found = in_list(by.runpath, name, by); found) return found;
    const std::vector<std::string> defaults = default_directories();
    if (auto found = in_cache(name, by, defaults); found) return found;
    if (by.no_default_directories) return std::nullopt;
    for (const std::string& directory : defaults) {
      if (auto found = in_directory(directory, name); found) return found;
    }
    return std::nullopt;
  }

  std::optional<Object> in_list(std::string_view list, const std::string& name, const Object& of) {
    while (!list.empty() && ++lookups_ <= most_lookups) {
      const auto colon = list.find(':');
      const std::string_view item = list.substr(0, colon);
      list.remove_prefix(colon == std::string_view::npos ? list.size() : colon + 1);
      for (const std::string& directory : expand(std::string(item), of)) {
        // A relative one is the current directory of whoever starts the program: nothing to tag.
        if (directory.empty() || directory.front() != '/') continue;
        if (auto found = in_directory(directory, name); found) return found;
      }
    }
    return std::nullopt;
  }

  std::optional<Object> in_directory(const std::string& directory, const std::string& name) {
    for (const std::string& level : levels_) {
      if (auto found = candidate(directory + "/glibc-hwcaps/" + level + "/" + name); found) return found;
    }
    return candidate(directory + "/" + name);
  }

  std::optional<Object> in_cache(const std::string& name, const Object& by,
                                 const std::vector<std::string>& defaults) {
    std::vector<const CachedLibrary*> plain;
    std::vector<std::pair<std::size_t, const CachedLibrary*>> special;
    for (const CachedLibrary& library : cache_) {
      if (library.soname != name) continue;
      if (by.no_default_directories &&
          std::find(defaults.begin(), defaults.end(), root_ + directory_of(library.path)) != defaults.end()) {
        continue;
      }
      if (library.hwcap == 0) {
        plain.push_back(&library);
        continue;
      }
      for (std::size_t level = 0; level < levels_.size(); ++level) {
        if (library.path.find("/glibc-hwcaps/" + levels_[level] + "/") != std::string::npos) {
          special.emplace_back(level, &library);
        }
      }
    }
    std::stable_sort(special.begin(), special.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [level, library] : special) {
      if (auto found = candidate(root_ + library->path); found) return found;
    }
    for (const CachedLibrary* library : plain) {
      if (auto found = candidate(root_ + library->path); found) return found;
    }
    return std::nullopt;
  }

  /// A library for this program's machine; the loader passes others over.
  std::optional<Object> candidate(const std::string& path) {
    if (path.size() > longest_path || ++lookups_ > most_lookups) return std::nullopt;
    auto object = read_object(path);
    if (!object || object->machine != machine_) return std::nullopt;
    return *std::move(object);
  }

  std::vector<std::string> default_directories() const {
    std::vector<std::string> directories;
    if (const std::string triplet = multiarch(machine_); !triplet.empty()) {
      directories.push_back(root_ + "/lib/" + triplet);
      directories.push_back(root_ + "/usr/lib/" + triplet);
    }
    if (machine_.elf_class == ELFCLASS64) {
      directories.push_back(root_ + "/lib64");
      directories.push_back(root_ + "/usr/lib64");
    }
    directories.push_back(root_ + "/lib");
    directories.push_back(root_ + "/usr/lib");
    return directories;
  }

  /// Replaces $ORIGIN, $LIB and $PLATFORM. What $LIB is was fixed when glibc was built, so each is tried.
  std::vector<std::string> expand(const std::string& text, const Object& of) const {
    std::vector<std::string> libs = {"lib64", "lib"};
    if (const std::string triplet = multiarch(machine_); !triplet.empty())
      libs.insert(libs.begin(), "lib/" + triplet);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the auxiliary vector holds pointers as numbers
    const auto* platform = reinterpret_cast<const char*>(getauxval(AT_PLATFORM));
    std::vector<std::string> all;
    for (const std::string& lib : libs) {
      std::string expanded = text;
      replace(expanded, "ORIGIN", directory_of(of.path));
      replace(expanded, "LIB", lib);
      replace(expanded, "PLATFORM", platform != nullptr ? platform : "");
      if (expanded.size() > longest_path) continue;
      if (std::find(all.begin(), all.end(), expanded) == all.end()) all.push_back(std::move(expanded));
    }
    return all;
  }

  static void replace(std::string& text, std::string_view token, const std::string& by) {
    for (const std::string& written : {fmt::format("${{{}}}", token), fmt::format("${}", token)}) {
      for (auto at = text.find(written); at != std::string::npos && text.size() <= longest_path;
           at = text.find(written, at + by.size())) {
        text.replace(at, written.size(), by);
      }
    }
  }

  Status read_cache() {
    const std::string path = root_ + "/etc/ld.so.cache";
    const auto file = open_named(path);
    // Without a cache the loader goes on to the default directories.
    if (!file) return {};
    const auto fd = reopen(*file);
    if (!fd) return with_context(path, fd.error());
    std::string bytes;
    std::array<char, 65536> buffer;
    ssize_t got = 0;
    while ((got = read(fd->get(), buffer.data(), buffer.size())) > 0 && bytes.size() <= most_cache) {
      bytes.append(buffer.data(), static_cast<std::size_t>(got));
    }
    if (got < 0) return fail_errno("read", path);
    auto cache = parse_ld_cache(bytes);
    if (!cache) return with_context(path, cache.error());
    cache_ = *std::move(cache);
    return {};
  }

  std::string root_;
  std::size_t lookups_ = 0;
  Machine machine_;
  std::vector<std::string> levels_;
  std::vector<CachedLibrary> cache_;
  std::vector<std::unique_ptr<Object>> queue_;  ///< the program, then what was found for it
  std::set<std::string> names_;                 ///< as needed, and DT_SONAME of what was found
  std::set<std::pair<dev_t, ino_t>> files_;
};

template <class T>
T number_at(std::string_view bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

Result<std::vector<CachedLibrary>> parse_ld_cache(std::string_view bytes) {
  // glibc: sysdeps/generic/dl-cache.h. In the machine's byte order; offsets count from the magic.
  constexpr std::string_view magic = "glibc-ld.so.cache1.1";
  constexpr std::size_t header_size = 48;
  constexpr std::size_t entry_size = 24;
  if (bytes.size() > most_cache) return fail(EFBIG, "is too large");
  if (!bytes.starts_with(magic)) return fail(EINVAL, "is not in the format \"" + std::string(magic) + "\"");
  if (bytes.size() < header_size) return fail(EINVAL, "ends within its header");
  const auto count = number_at<std::uint32_t>(bytes, 20);
  if (count > (bytes.size() - header_size) / entry_size) return fail(EINVAL, "ends within its entries");
  std::vector<CachedLibrary> libraries;
  libraries.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::size_t at = header_size + i * entry_size;
    CachedLibrary library;
    library.flags = number_at<std::int32_t>(bytes, at);
    library.soname = text_at(bytes, number_at<std::uint32_t>(bytes, at + 4));
    library.path = text_at(bytes, number_at<std::uint32_t>(bytes, at + 8));
    library.hwcap = number_at<std::uint64_t>(bytes, at + 16);
    if (library.soname.empty() || library.path.empty() || library.path.front() != '/') {
      return fail(EINVAL, fmt::format("entry {} is damaged", i));
    }
    libraries.push_back(std::move(library));
  }
  return libraries;
}

Result<ElfLibraries> elf_libraries(const std::string& path, const std::string& root) {
  return Loader(root).load(path);
}

}  // namespace fpolicy::tools
