// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/node_set.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace fpolicy::sys {

/// How far the move of a job has come, in a file: for the run that finishes it should this one be killed. It
/// also keeps two runs from one job.
class Journal {
 public:
  /// Error: EBUSY where a run is under way.
  static Result<Journal> open(const std::string& name, const std::string& directory = "/run/fpolicy");

  /// Begins a run for `task`, or resumes one. Returns the nodes that the run which was cut short had emptied;
  /// none if it was for another task.
  NodeSet begin(const std::string& task);
  /// begin() found a run that was cut short.
  [[nodiscard]] bool is_resumed() const { return resumed_; }
  /// cpuset.mems of cgroups, by their inode numbers, as they were before the run that was cut short.
  [[nodiscard]] const std::map<std::uint64_t, NodeSet>& cpusets() const { return cpusets_; }
  void enter_cpusets(std::map<std::uint64_t, NodeSet> cpusets);
  /// All pages that leave this node have left it.
  void done(unsigned node);
  /// The work is finished: nothing is to be resumed.
  void finish();

 private:
  Journal(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  bool parse(std::string_view text);
  void write() const;

  Fd fd_;
  std::string path_;
  std::string task_;
  NodeSet done_;
  std::map<std::uint64_t, NodeSet> cpusets_;
  bool resumed_ = false;
};

}  // namespace fpolicy::sys
