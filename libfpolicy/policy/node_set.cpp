// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/text.h"

#include <fpolicy/node_set.h>

namespace fpolicy {

Result<NodeSet> NodeSet::parse(std::string_view list) {
  const std::size_t end = list.find_last_not_of(" \t\n");
  list = end == std::string_view::npos ? std::string_view{} : list.substr(0, end + 1);

  const auto error = [&](std::size_t at, std::string_view what) {
    return fail(EINVAL, "column " + std::to_string(at + 1) + ": " + std::string(what) + found_at(list, at));
  };
  NodeSet set;
  std::size_t at = 0;
  while (at < list.size()) {
    const std::size_t start = at;
    const std::optional<unsigned> first = take_number(list, at);
    if (!first) return error(at, "expected a node number");
    unsigned last = *first;
    if (at < list.size() && list[at] == '-') {
      ++at;
      const std::optional<unsigned> number = take_number(list, at);
      if (!number) return error(at, "expected the last node of the range");
      last = *number;
    }
    if (last >= max_nodes || *first >= max_nodes) {
      return fail(EINVAL, "column " + std::to_string(start + 1) + ": expected nodes from 0 to " +
                              std::to_string(max_nodes - 1));
    }
    if (last < *first) {
      return fail(EINVAL, "column " + std::to_string(start + 1) + ": expected a range that ascends");
    }
    for (unsigned node = *first; node <= last; ++node) set.insert(node);
    if (at == list.size()) break;
    if (list[at] != ',') return error(at, "expected \",\" or the end of the list");
    ++at;
    if (at == list.size()) return error(at, "expected a node number");
  }
  return set;
}

std::string NodeSet::format() const {
  std::string text;
  for (unsigned node = 0; node < max_nodes; ++node) {
    if (!contains(node)) continue;
    unsigned last = node;
    while (contains(last + 1)) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(node);
    if (last > node) text.append("-").append(std::to_string(last));
    node = last;
  }
  return text;
}

std::vector<unsigned> NodeSet::members() const {
  std::vector<unsigned> nodes;
  nodes.reserve(size());
  for (unsigned node = 0; node < max_nodes; ++node) {
    if (contains(node)) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace fpolicy
