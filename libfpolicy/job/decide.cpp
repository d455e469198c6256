// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/decide.h"

#include <fmt/format.h>

#include <algorithm>

namespace fpolicy {

NodePairing::NodePairing(const NodeSet& from, const NodeSet& to, const NodeSet& done) : from_(from), to_(to) {
  const auto sources = from.members();
  const auto targets = to.members();
  NodeSet waiting;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const unsigned there = targets[i % targets.size()];
    if (there == sources[i] || done.contains(sources[i])) continue;
    targets_[sources[i]] = there;
    waiting.insert(sources[i]);
  }
  while (!waiting.empty()) {
    const auto nodes = waiting.members();
    // A node whose pages arrive where nothing waits to leave.
    auto next = std::ranges::find_if(nodes, [&](unsigned node) { return !waiting.contains(targets_[node]); });
    if (next == nodes.end()) {
      ring_ = true;
      next = nodes.begin();
    }
    order_.push_back(*next);
    waiting.erase(*next);
  }
}

unsigned NodePairing::target(unsigned node) const {
  const auto there = targets_.find(node);
  return there == targets_.end() ? node : there->second;
}

NodeSet NodePairing::target(const NodeSet& nodes) const {
  NodeSet there;
  for (const unsigned node : nodes.members()) there.insert(target(node));
  return there;
}

std::string_view to_string(MappingKind kind) {
  switch (kind) {
    case MappingKind::anonymous:
      return "anonymous";
    case MappingKind::heap:
      return "heap";
    case MappingKind::stack:
      return "stack";
    case MappingKind::file:
      return "file";
    case MappingKind::shm:
      return "shm";
    case MappingKind::special:
      return "special";
  }
  return "?";
}

std::string_view to_string(MigrateDecision decision) {
  switch (decision) {
    case MigrateDecision::follow:
      return "follow";
    case MigrateDecision::exclusive:
      return "exclusive";
    case MigrateDecision::placement:
      return "placement";
    case MigrateDecision::stay:
      return "stay";
    case MigrateDecision::skip:
      return "skip";
  }
  return "?";
}

namespace job {
namespace {

Rule rule_for_policy(const Policy& policy, const Topology& topology, const NodeSet& to) {
  Rule rule;
  if (policy.migrate == Migrate::no) {
    rule.decision = MigrateDecision::stay;
    rule.private_stays = true;
    rule.reason = "migrate=no";
    return rule;
  }
  if (policy.migrate == Migrate::only_private) {
    rule.decision = MigrateDecision::stay;
    rule.reason = policy.has_absolute_placement() ? "it has a place of its own" : "migrate=private";
    return rule;
  }
  if (policy.pin) {
    // Whoever holds its pages lets go of them first: policyd, if they are to follow.
    rule.decision = MigrateDecision::stay;
    rule.reason = "pinned";
    return rule;
  }
  if (!policy.has_placement()) {
    rule.reason = "migrate=yes";
    return rule;
  }
  auto target = evaluate_placement(policy, topology, to);
  if (!target) {
    rule.decision = MigrateDecision::stay;
    rule.reason = target.error().message;
    return rule;
  }
  rule.decision = MigrateDecision::placement;
  rule.target = *std::move(target);
  rule.reason = "placed within nodes " + to.format();
  return rule;
}

}  // namespace

bool is_of_file(const Vma& vma) {
  return vma.inode != 0 || vma.name.starts_with('/');
}

MappingKind classify(const Vma& vma) {
  const std::string_view name = vma.name;
  if (!is_of_file(vma)) {
    if (name == "[heap]") return MappingKind::heap;
    if (name == "[stack]") return MappingKind::stack;
    if (name.empty() || name.starts_with("[anon:") || name.starts_with("[anon_shmem:"))
      return MappingKind::anonymous;
    return MappingKind::special;
  }
  // What no directory names: segments of shmget, MAP_SHARED | MAP_ANONYMOUS, memfd_create.
  if (name.starts_with("/SYSV") || name.starts_with("/memfd:") || name.starts_with("[anon_shmem:") ||
      name == "/dev/zero (deleted)" || name.starts_with("/anon_hugepage")) {
    return MappingKind::shm;
  }
  return MappingKind::file;
}

Rule rule_for(MappingKind kind) {
  Rule rule;
  if (kind == MappingKind::special) {
    rule.decision = MigrateDecision::skip;
    rule.private_stays = true;
    rule.reason = "the kernel's own";
  } else {
    rule.reason = "private";
  }
  return rule;
}

Rule rule_for(const MappedFile& file, const Topology& topology, const NodeSet& to) {
  Rule rule;
  switch (file.nature) {
    case MappedFile::Nature::device:
      rule.decision = MigrateDecision::skip;
      rule.private_stays = true;
      rule.reason = "a device's memory";
      return rule;
    case MappedFile::Nature::direct_access:
      // Its private copies are ordinary memory.
      rule.decision = MigrateDecision::skip;
      rule.reason = "DAX: its pages are where its device is";
      return rule;
    case MappedFile::Nature::regular:
      break;
  }
  if (file.policy && file.policy->policy) return rule_for_policy(*file.policy->policy, topology, to);
  rule.decision = MigrateDecision::exclusive;
  rule.reason = file.policy && file.policy->unsupported ? "its policy is not understood" : "no policy";
  return rule;
}

unsigned target_of_private_page(const Rule& rule, const NodePairing& pairing, unsigned node) {
  return rule.private_stays ? node : pairing.target(node);
}

unsigned target_of_file_page(const Rule& rule, const NodePairing& pairing, std::uint64_t index, unsigned node,
                             bool exclusive) {
  switch (rule.decision) {
    case MigrateDecision::follow:
      return pairing.target(node);
    case MigrateDecision::exclusive:
      return exclusive ? pairing.target(node) : node;
    case MigrateDecision::placement: {
      const Target& target = rule.target;
      if (target.mode == Mode::interleave) return target.slots[index % target.slots.size()];
      if (target.nodes.contains(node)) return node;
      const unsigned there = pairing.target(node);
      if (target.nodes.contains(there)) return there;
      const auto nodes = target.nodes.members();
      return nodes[there % nodes.size()];
    }
    case MigrateDecision::stay:
    case MigrateDecision::skip:
      break;
  }
  return node;
}

std::string lacking_room(const std::vector<std::uint64_t>& arriving,
                         const std::vector<std::uint64_t>& leaving, const std::vector<std::uint64_t>& room,
                         std::uint64_t page_size) {
  const auto of = [](const std::vector<std::uint64_t>& pages, std::size_t node) {
    return node < pages.size() ? pages[node] : 0;
  };
  // What would come is rounded up and what there is down: never "room for 4 MiB of the 4 MiB".
  const auto mib = [page_size](std::uint64_t pages, std::uint64_t more) {
    return (pages * page_size + more) >> 20U;
  };
  std::string text;
  for (std::size_t node = 0; node < arriving.size(); ++node) {
    const std::uint64_t has = of(room, node) + of(leaving, node);
    if (arriving[node] <= has) continue;
    text += fmt::format("{}node {} has room for {} MiB of the {} MiB that would come",
                        text.empty() ? "" : "; ", node, mib(has, 0), mib(arriving[node], (1U << 20U) - 1));
  }
  return text;
}

}  // namespace job
}  // namespace fpolicy
