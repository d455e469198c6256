// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/journal.h"

#include <fpolicy/open_file.h>

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace fpolicy::sys {

Result<Journal> Journal::open(const std::string& name, const std::string& directory) {
  if (auto made = make_directory(directory, 0755); !made) return tl::unexpected(made.error());
  const std::string path = directory + "/migrate-" + name;
  while (true) {
    auto fd = lock_file(path);
    if (!fd && fd.error().code == EWOULDBLOCK) return fail(EBUSY, "the job is being moved already");
    if (!fd) return tl::unexpected(fd.error());
    // The one who had it may have taken the name away a moment ago.
    struct stat status{};
    if (::fstat(fd->get(), &status) == 0 && status.st_nlink > 0) return Journal(*std::move(fd), path);
  }
}

NodeSet Journal::begin(const std::string& task) {
  // "FROM TO\nDONE\n"; whatever else it holds is of no run that could be resumed.
  std::array<char, 16384> buffer{};
  const ssize_t count = ::pread(fd_.get(), buffer.data(), buffer.size(), 0);
  const std::string_view text(buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
  task_ = task;
  if (text.starts_with(task + "\n")) {
    const auto rest = text.substr(task.size() + 1);
    const auto nodes = NodeSet::parse(rest.substr(0, rest.find('\n')));
    if (nodes && rest.ends_with('\n')) {
      done_ = *nodes;
      resumed_ = true;
    }
  }
  write();
  return done_;
}

void Journal::done(unsigned node) {
  done_.insert(node);
  write();
}

void Journal::write() const {
  // Short enough for one call: whoever reads it later finds the old text or the new.
  const std::string text = task_ + "\n" + done_.format() + "\n";
  if (::pwrite(fd_.get(), text.data(), text.size(), 0) >= 0)
    (void)!::ftruncate(fd_.get(), static_cast<off_t>(text.size()));
}

void Journal::finish() {
  ::unlink(path_.c_str());
}

}  // namespace fpolicy::sys
