// SPDX-License-Identifier: LGPL-2.1-or-later
// Processes by the memory that they have: after vfork() and clone(CLONE_VM), two have one.
#pragma once

#include <fpolicy/process.h>

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

namespace fpolicy::job {

/// A set of address spaces. kcmp(2) puts them into an order, so that n processes that look alike, as after
/// fork() or without address randomization, take n log n calls.
class AddressSpaces {
 public:
  /// Takes in the one of process `pid`, whose mappings these are. False: it is there already. A process that
  /// has ended, or that may not be compared, has one of its own.
  bool insert(pid_t pid, std::span<const Vma> vmas);

 private:
  /// What one address space has at one time: number of mappings, start of the first, end of the last.
  using Layout = std::tuple<std::size_t, std::uint64_t, std::uint64_t>;
  std::map<Layout, std::vector<pid_t>> alike_;  ///< in the order of kcmp
};

}  // namespace fpolicy::job
