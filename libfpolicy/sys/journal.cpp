// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/journal.h"

#include <fpolicy/open_file.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

namespace fpolicy::sys {

namespace {

constexpr std::size_t longest = 16U << 20U;

}  // namespace

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
  // "FROM TO", the nodes that are done, then "INODE MEMS" for each cpuset, and "end"; whatever else it holds
  // is of no run that could be resumed.
  struct stat status{};
  std::string text;
  if (::fstat(fd_.get(), &status) == 0)
    text.resize(std::min(static_cast<std::size_t>(status.st_size), longest));
  const ssize_t count = ::pread(fd_.get(), text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  task_ = task;
  resumed_ = parse(text);
  if (!resumed_) {
    done_ = {};
    cpusets_.clear();
  }
  write();
  return done_;
}

bool Journal::parse(std::string_view text) {
  const auto line = [&text]() -> std::optional<std::string_view> {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    const auto found = text.substr(0, end);
    text.remove_prefix(end + 1);
    return found;
  };
  if (line() != task_) return false;
  const auto nodes = line();
  const auto done = nodes ? NodeSet::parse(*nodes) : fail(EINVAL, "");
  if (!done) return false;
  done_ = *done;
  while (const auto entry = line()) {
    if (*entry == "end") return text.empty();
    std::uint64_t inode = 0;
    const char* const stop = entry->data() + entry->size();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): both ends are given
    const auto [end, error] = std::from_chars(entry->data(), stop, inode);
    if (error != std::errc{} || end == stop || *end != ' ') return false;
    const auto mems = NodeSet::parse(std::string_view(end + 1, static_cast<std::size_t>(stop - end) - 1));
    if (!mems) return false;
    cpusets_[inode] = *mems;
  }
  return false;
}

void Journal::enter_cpusets(std::map<std::uint64_t, NodeSet> cpusets) {
  cpusets_ = std::move(cpusets);
  write();
}

void Journal::done(unsigned node) {
  done_.insert(node);
  write();
}

void Journal::write() const {
  std::string text = task_ + "\n" + done_.format() + "\n";
  for (const auto& [inode, mems] : cpusets_) text += std::to_string(inode) + " " + mems.format() + "\n";
  text += "end\n";
  if (text.size() > longest) return;
  // In memory (/run is a tmpfs), and in one call: a caller that is killed leaves the old text or the new.
  if (::pwrite(fd_.get(), text.data(), text.size(), 0) >= 0)
    (void)!::ftruncate(fd_.get(), static_cast<off_t>(text.size()));
}

void Journal::finish() {
  ::unlink(path_.c_str());
}

}  // namespace fpolicy::sys
