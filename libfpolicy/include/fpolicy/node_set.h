// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/result.h>

#include <bitset>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

/// A set of NUMA node numbers, 0 to 1023 (the kernel's MAX_NUMNODES).
class FPOLICY_API NodeSet {
 public:
  static constexpr unsigned max_nodes = 1024;

  NodeSet() = default;
  NodeSet(std::initializer_list<unsigned> nodes) {
    for (const unsigned node : nodes) bits_.set(node);
  }

  /// The kernel's list format, as in cpuset.mems: "0-3,7"; "" is the empty set. Trailing white space is
  /// allowed.
  static Result<NodeSet> parse(std::string_view list);

  /// The kernel's list format: merged and sorted.
  [[nodiscard]] std::string format() const;

  [[nodiscard]] bool contains(unsigned node) const { return node < max_nodes && bits_.test(node); }
  void insert(unsigned node) { bits_.set(node); }
  void erase(unsigned node) { bits_.reset(node); }
  [[nodiscard]] bool empty() const { return bits_.none(); }
  [[nodiscard]] unsigned size() const { return static_cast<unsigned>(bits_.count()); }
  /// Members in ascending order.
  [[nodiscard]] std::vector<unsigned> members() const;

  friend NodeSet operator&(NodeSet a, const NodeSet& b) {
    a.bits_ &= b.bits_;
    return a;
  }
  friend NodeSet operator|(NodeSet a, const NodeSet& b) {
    a.bits_ |= b.bits_;
    return a;
  }
  /// Members of a that are not in b.
  friend NodeSet operator-(NodeSet a, const NodeSet& b) {
    a.bits_ &= ~b.bits_;
    return a;
  }
  friend bool operator==(const NodeSet& a, const NodeSet& b) { return a.bits_ == b.bits_; }

 private:
  std::bitset<max_nodes> bits_;
};

}  // namespace fpolicy
