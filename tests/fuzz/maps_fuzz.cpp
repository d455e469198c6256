// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: the text of a file of /proc/PID, taken for each of maps, numa_maps and status. What is parsed can be
// written again, and then parses to the same.
#include "check.h"

#include <fpolicy/process.h>

#include <sys/sysmacros.h>

#include <string>

using namespace fpolicy;

namespace {

void check_maps(std::string_view text) {
  const auto vmas = parse_vmas(text);
  const auto files = parse_maps(text);
  FUZZ_CHECK(vmas.has_value() == files.has_value());
  if (!vmas) {
    FUZZ_CHECK(vmas.error().code == EINVAL && vmas.error().message == files.error().message);
    return;
  }
  std::size_t file = 0;
  std::string again;
  for (const Vma& vma : *vmas) {
    FUZZ_CHECK(vma.start < vma.end && vma.permissions.size() == 4);
    FUZZ_CHECK(vma.name.find('\n') == std::string::npos && !vma.name.starts_with(' '));
    if (vma.inode != 0) {
      FUZZ_CHECK(file < files->size());
      const FileMapping expected{
          .start = vma.start, .end = vma.end, .device = vma.device, .inode = vma.inode};
      FUZZ_CHECK((*files)[file++] == expected);
    }
    char line[160];
    std::snprintf(line, sizeof line, "%lx-%lx %s %08lx %02x:%02x %lu ", vma.start, vma.end,
                  vma.permissions.find('\0') == std::string::npos ? vma.permissions.c_str() : "r--p",
                  vma.offset, major(vma.device), minor(vma.device), vma.inode);
    again += line;
    again.append(20, ' ').append(vma.name).append("\n");
  }
  FUZZ_CHECK(file == files->size());
  const auto reread = parse_vmas(again);
  FUZZ_CHECK(reread.has_value() && reread->size() == vmas->size());
  for (std::size_t i = 0; i < vmas->size(); ++i) {
    Vma one = (*vmas)[i];
    if (one.permissions.find('\0') != std::string::npos) one.permissions = "r--p";
    FUZZ_CHECK((*reread)[i] == one);
  }
}

void check_memory_policies(std::string_view text) {
  const auto policies = parse_memory_policies(text);
  if (!policies) {
    FUZZ_CHECK(policies.error().code == EINVAL);
    return;
  }
  std::string again;
  for (const MemoryPolicy& policy : *policies) {
    FUZZ_CHECK(policy.mappings > 0 && policy.text.find('\n') == std::string::npos);
    for (std::uint64_t i = 0; i < policy.mappings; ++i) again += "1000 " + policy.text + " anon=1\n";
  }
  const auto reread = parse_memory_policies(again);
  FUZZ_CHECK(reread.has_value() && *reread == *policies);
}

void check_status(std::string_view text) {
  const auto status = parse_process_status(text);
  if (!status) {
    FUZZ_CHECK(status.error().code == EINVAL);
    return;
  }
  std::string again = "State:\t";
  if (status->state != '?') again += status->state;
  again += "\nPPid:\t" + std::to_string(status->parent) + "\nUid:\t0\t" + std::to_string(status->uid) +
           "\t0\t0\nMems_allowed_list:\t" + status->allowed_nodes.format() + "\n";
  const auto reread = parse_process_status(again);
  FUZZ_CHECK(reread.has_value());
  FUZZ_CHECK(reread->uid == status->uid && reread->parent == status->parent &&
             reread->allowed_nodes == status->allowed_nodes && reread->state == status->state);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz_text(data, size);
  check_maps(text);
  check_memory_policies(text);
  check_status(text);
  return 0;
}
