// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/rules_dir.h"

#include <fpolicy/fd.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace fpolicy {
namespace {

constexpr std::size_t max_files = 1000;
constexpr std::size_t max_bytes = 64U << 20U;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

Result<std::vector<std::string>> rules_names(DIR* dir, const std::string& directory) {
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir);  // NOLINT(concurrency-mt-unsafe): a stream of our own
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (!name.ends_with(".rules") || name.front() == '.') continue;
    if (names.size() == max_files) {
      return fail(E2BIG, directory + ": more than " + std::to_string(max_files) + " *.rules files");
    }
    names.emplace_back(name);
  }
  if (errno != 0) return fail_errno("read", directory);
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::string> read_rules_file(int dir, const char* name, const std::string& path, std::size_t room) {
  // Without O_NONBLOCK a FIFO put there would stop its reader.
  const Fd file(::openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) return fail_errno("open", path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno("stat", path);
  if (!S_ISREG(status.st_mode)) return fail(EINVAL, path + ": expected a regular file");
  const auto too_much = [&] {
    return fail(EFBIG,
                path + ": the rules are larger than " + std::to_string(max_bytes >> 20U) + " MiB in all");
  };
  if (static_cast<std::size_t>(status.st_size) > room) return too_much();
  // One byte more than it had: the file may have grown since.
  std::string text(static_cast<std::size_t>(status.st_size) + 1, '\0');
  std::size_t length = 0;
  for (;;) {
    const ssize_t got = ::read(file.get(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("read", path);
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
    if (length > room) return too_much();
    if (length == text.size()) text.resize(std::min(text.size() * 2, room + 1));
  }
  text.resize(length);
  return text;
}

}  // namespace

Result<std::vector<RulesFile>> read_rules_dir(const std::string& directory) {
  std::vector<RulesFile> files;
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return files;
  if (!fd) return fail_errno("open", directory);
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(fd.get()));
  if (!dir) return fail_errno("open", directory);
  const int held = fd.release();  // the stream closes it

  const auto names = rules_names(dir.get(), directory);
  if (!names) return tl::unexpected<Error>(names.error());
  std::size_t room = max_bytes;
  for (const std::string& name : *names) {
    std::string path = directory;
    if (!path.ends_with('/')) path += '/';
    path += name;
    auto text = read_rules_file(held, name.c_str(), path, room);
    // Removed between the listing and the opening: it is no longer among the rules.
    if (!text && text.error().code == ENOENT &&
        ::faccessat(held, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW | AT_EACCESS) != 0) {
      continue;
    }
    if (!text) return tl::unexpected<Error>(std::move(text.error()));
    room -= text->size();
    files.push_back({std::move(path), std::move(*text)});
  }
  return files;
}

}  // namespace fpolicy
