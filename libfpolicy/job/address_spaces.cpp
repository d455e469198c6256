// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/address_spaces.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace fpolicy::job {
namespace {

/// 0: one and the same, 1: `a` is before `b`, 2: behind; -1 where one has ended or may not be compared.
long compare(pid_t a, pid_t b) {
  return ::syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0);
}

}  // namespace

bool AddressSpaces::insert(pid_t pid, std::span<const Vma> vmas) {
  if (vmas.empty()) return true;
  std::vector<pid_t>& alike = alike_[{vmas.size(), vmas.front().start, vmas.back().end}];
  std::size_t first = 0;
  std::size_t end = alike.size();
  while (first < end) {
    const std::size_t middle = first + (end - first) / 2;
    const long order = compare(alike[middle], pid);
    if (order == 0) return false;
    if (order == 1) {
      first = middle + 1;
    } else if (order == 2) {
      end = middle;
    } else {
      if (compare(pid, pid) != 0) return true;
      alike.erase(alike.begin() + static_cast<std::ptrdiff_t>(middle));
      --end;
    }
  }
  alike.insert(alike.begin() + static_cast<std::ptrdiff_t>(first), pid);
  return true;
}

}  // namespace fpolicy::job
