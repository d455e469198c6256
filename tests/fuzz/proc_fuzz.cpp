// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: a text of the kernel's, taken for each of /proc/PID/mountinfo, /proc/PID/stat, /proc/zoneinfo and
// cgroup.procs, whose names of mounts and processes are users' choice; and, after "J", for the journal of a
// move.
#include "check.h"
#include "scratch.h"
#include "sys/job_control.h"
#include "sys/journal.h"
#include "sys/mountinfo.h"
#include "sys/zoneinfo.h"

#include <fpolicy/cgroup.h>

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>

using namespace fpolicy;

namespace {

/// As the kernel escapes it (seq_escape: " \t\n\\").
std::string octal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\')
      out += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out;
}

void check_mountinfo(std::string_view text) {
  const auto mounts = sys::parse_mountinfo(text);
  if (!mounts) {
    FUZZ_CHECK(mounts.error().code == EINVAL && mounts.error().message.starts_with("mountinfo line "));
    return;
  }
  std::string again;
  for (const sys::Mount& mount : *mounts) {
    FUZZ_CHECK(!mount.mount_point.empty() && !mount.root.empty());
    again +=
        fmt::format("{} {} {}:{} {} {} rw shared:1 - {} {} {}\n", mount.id, mount.parent, major(mount.device),
                    minor(mount.device), octal(mount.root), octal(mount.mount_point), octal(mount.type),
                    octal(mount.source), mount.super_options);
  }
  const auto reread = sys::parse_mountinfo(again);
  FUZZ_CHECK(reread && reread->size() == mounts->size());
  for (std::size_t i = 0; i < mounts->size(); ++i) {
    const sys::Mount& a = (*mounts)[i];
    const sys::Mount& b = (*reread)[i];
    FUZZ_CHECK(a.id == b.id && a.parent == b.parent && a.device == b.device && a.root == b.root &&
               a.mount_point == b.mount_point && a.type == b.type && a.source == b.source &&
               a.super_options == b.super_options);
  }
}

void check_room(std::string_view text) {
  const auto room = sys::parse_room(text);
  if (!room) {
    FUZZ_CHECK(room.error().code == EINVAL && room.error().message.starts_with("/proc/zoneinfo:"));
    return;
  }
  FUZZ_CHECK(room->size() <= NodeSet::max_nodes);
}

void check_processes(std::string_view text) {
  const auto pids = parse_cgroup_procs(text);
  if (!pids) {
    FUZZ_CHECK(pids.error().code == EINVAL);
    return;
  }
  std::string again;
  for (const pid_t pid : *pids) {
    FUZZ_CHECK(pid > 0);
    again += std::to_string(pid) + "\n";
  }
  const auto reread = parse_cgroup_procs(again);
  FUZZ_CHECK(reread && *reread == *pids);
}

void check_start_time(const Scratch& scratch, std::string_view text) {
  scratch.write("proc/1/stat", text);
  const auto ticks = sys::start_time(1, scratch.path(""));
  if (ticks) {
    // Whatever the name before it holds.
    scratch.write("proc/1/stat", ") 1 (" + std::string(text));
    const auto again = sys::start_time(1, scratch.path(""));
    FUZZ_CHECK(again && *again == *ticks);
  } else {
    FUZZ_CHECK(ticks.error().code == EINVAL);
  }
}

void check_journal(const Scratch& scratch, std::string_view text) {
  const std::string task(text.substr(0, std::min(text.find('\n'), text.size())));
  if (task.find('\0') != std::string::npos) return;
  scratch.write("run/migrate-x", text);
  NodeSet done;
  std::map<std::uint64_t, NodeSet> cpusets;
  {
    auto journal = sys::Journal::open("x", scratch.path("run"));
    FUZZ_CHECK(journal);
    done = journal->begin(task);
    FUZZ_CHECK(journal->is_resumed() || (done.empty() && journal->cpusets().empty()));
    cpusets = journal->cpusets();
  }
  // What it wrote is what it understood.
  auto journal = sys::Journal::open("x", scratch.path("run"));
  FUZZ_CHECK(journal);
  FUZZ_CHECK(journal->begin(task) == done && journal->is_resumed() && journal->cpusets() == cpusets);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Scratch scratch;
  static const bool made = std::filesystem::create_directories(scratch.path("proc/1")) &&
                           std::filesystem::create_directories(scratch.path("run"));
  FUZZ_CHECK(made);
  const std::string_view text = fuzz_text(data, size);
  if (text.starts_with('J')) {
    check_journal(scratch, text.substr(1));
    return 0;
  }
  check_mountinfo(text);
  check_room(text);
  check_processes(text);
  check_start_time(scratch, text);
  return 0;
}
