// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/topology.h>

namespace fpolicy {
namespace {

struct Nodes {
  NodeSet set;
  std::vector<WeightedNode> weighted;
};

tl::unexpected<Error> unsatisfiable(const Policy& policy, const std::string& why) {
  return fail(ENODEV, format_policy(policy) + ": " + why);
}

std::string name(const NodeSet& nodes) {
  return (nodes.size() == 1 ? "node " : "nodes ") + nodes.format();
}

Result<Nodes> evaluate_word(const Policy& policy, const Topology& topology, const NodeSet& allowed) {
  const NodeSet usable = topology.memory & allowed;
  Nodes nodes;
  const char* what = nullptr;
  switch (policy.word) {
    case NodeWord::all:
      nodes.set = usable;
      what = "memory";
      break;
    case NodeWord::cpu:
      nodes.set = usable & topology.cpu;
      what = "memory and processors";
      break;
    case NodeWord::cpuless:
    default:
      nodes.set = usable - topology.cpu;
      what = "memory only";
      break;
  }
  if (nodes.set.empty())
    return unsatisfiable(policy, std::string("no node with ") + what + " among the allowed " + name(allowed));
  for (const unsigned node : nodes.set.members()) nodes.weighted.push_back({node, 1});
  return nodes;
}

Result<Nodes> evaluate_relative(const Policy& policy, const Topology& topology, const NodeSet& allowed) {
  const std::vector<unsigned> usable = (topology.memory & allowed).members();
  Nodes nodes;
  for (const WeightedNode& wanted : policy.nodes) {
    if (wanted.node >= usable.size())
      return unsatisfiable(
          policy, "+" + std::to_string(wanted.node) + " is beyond the " + std::to_string(usable.size()) +
                      " allowed nodes with memory" +
                      (usable.empty() ? "" : " (" + (topology.memory & allowed).format() + ")"));
    nodes.set.insert(usable[wanted.node]);
    nodes.weighted.push_back({usable[wanted.node], wanted.weight});
  }
  return nodes;
}

Result<Nodes> evaluate_absolute(const Policy& policy, const Topology& topology) {
  Nodes nodes;
  for (const WeightedNode& wanted : policy.nodes) {
    if (wanted.node >= NodeSet::max_nodes)
      return unsatisfiable(policy, "node " + std::to_string(wanted.node) + " does not exist");
    nodes.set.insert(wanted.node);
    nodes.weighted.push_back(wanted);
  }
  const NodeSet without_memory = (nodes.set - topology.memory) & topology.cpu;
  const NodeSet missing = nodes.set - topology.memory - topology.cpu;
  if (!missing.empty())
    return unsatisfiable(policy, name(missing) + (missing.size() == 1 ? " does" : " do") +
                                     " not exist or has no memory (there are " + topology.memory.format() +
                                     ")");
  if (!without_memory.empty())
    return unsatisfiable(policy, name(without_memory) + (without_memory.size() == 1 ? " has" : " have") +
                                     " no memory (" + topology.memory.format() + " have)");
  return nodes;
}

}  // namespace

Result<Target> evaluate_placement(const Policy& policy, const Topology& topology, const NodeSet& allowed) {
  Target target;
  if (!policy.has_placement()) return target;
  const auto nodes = policy.word != NodeWord::list ? evaluate_word(policy, topology, allowed)
                     : policy.relative             ? evaluate_relative(policy, topology, allowed)
                                                   : evaluate_absolute(policy, topology);
  if (!nodes) return tl::unexpected(nodes.error());
  if (nodes->set.empty()) return unsatisfiable(policy, "names no node");
  target.mode = policy.mode;
  target.nodes = nodes->set;
  if (policy.mode == Mode::interleave)
    for (const WeightedNode& node : nodes->weighted)
      target.slots.insert(target.slots.end(), node.weight, node.node);
  return target;
}

}  // namespace fpolicy
