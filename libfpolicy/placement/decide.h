// SPDX-License-Identifier: LGPL-2.1-or-later
// Decide: which pages of a window are misplaced, and where they belong. Pure.
#pragma once

#include "placement/observe.h"
#include "sys/mapped_vector.h"

#include <fpolicy/placement.h>
#include <fpolicy/topology.h>

#include <cstdint>
#include <span>
#include <vector>

namespace fpolicy::placement {

/// One folio to be moved.
struct Move {
  std::uint32_t page = 0;   ///< its first page in the window
  std::uint32_t pages = 0;  ///< how many of its pages the window shows; 1 but for large folios
  std::uint32_t node = 0;   ///< where it belongs
};

struct Plan {
  sys::MappedVector<Move> moves;
  std::uint64_t misplaced_pages = 0;
  /// Of the misplaced pages, those that stay because their nodes are known to be full.
  std::uint64_t no_memory_pages = 0;
};

/// A window as it was observed.
struct Snapshot {
  std::uint64_t first_page = 0;  ///< index in the file
  std::span<const PageState> pages;
};

/// Pages that still fit on each node; nodes beyond its end have none.
using Room = std::vector<std::uint64_t>;

/// Plans window after window of one file.
class Planner {
 public:
  virtual ~Planner() = default;
  [[nodiscard]] virtual Plan plan(const Snapshot& snapshot) = 0;
  /// Nothing more is moved to these nodes.
  virtual void mark_full(const NodeSet& nodes) = 0;
  /// A planned move was not done.
  virtual void give_back(const Move& move) = 0;
};

/// Decides for one target over a file's windows. A folio counts and moves whole, by its first page.
///
/// - bind: a page outside the set belongs on the nearest node of the set that has room, and where none has,
/// on the
///   nearest that is not known to be full (the kernel then makes some). Nodes equally near take turns.
/// - prefer: the same, but only into room: what does not fit is not misplaced.
/// - interleave: page index i belongs on slots[i % slots.size()].
class Decider final : public Planner {
 public:
  /// `room` counts for prefer, and for bind to several nodes. What plan() places takes of it.
  Decider(const Target& target, const Topology& topology, Room room);

  [[nodiscard]] Plan plan(const Snapshot& snapshot) override;
  void mark_full(const NodeSet& nodes) override { full_ = full_ | nodes; }
  void give_back(const Move& move) override {
    if (move.node < room_.size()) room_[move.node] += move.pages;
  }

 private:
  struct Choice {
    bool misplaced = false;
    int node = -1;  ///< -1: nowhere to go
  };
  [[nodiscard]] Choice choose(std::uint64_t index, unsigned node, std::uint32_t pages);
  [[nodiscard]] Choice choose_near(unsigned node, std::uint32_t pages);
  /// The target's nodes by distance from `node`.
  const std::vector<unsigned>& nearest(unsigned node);
  [[nodiscard]] unsigned distance(unsigned from, unsigned to) const;
  [[nodiscard]] std::uint64_t room(unsigned node) const { return node < room_.size() ? room_[node] : 0; }

  const Target& target_;
  const Topology& topology_;
  Room room_;
  NodeSet full_;
  std::uint64_t turn_ = 0;
  std::vector<std::vector<unsigned>> nearest_;
};

/// Plans the way back to where `home` says that pages were; pages it does not name stay.
class HomePlanner final : public Planner {
 public:
  /// `home`: ascending, without overlap.
  explicit HomePlanner(std::span<const PageRun> home) : home_(home) {}
  [[nodiscard]] Plan plan(const Snapshot& snapshot) override;
  void mark_full(const NodeSet& nodes) override { full_ = full_ | nodes; }
  void give_back(const Move& /*move*/) override {}

 private:
  std::span<const PageRun> home_;
  NodeSet full_;
};

/// Appends where the snapshot's pages lie, joined to the last run where they continue it.
void append_runs(const Snapshot& snapshot, std::vector<PageRun>& runs);

/// The pages of the folio that starts at `page`.
[[nodiscard]] std::uint32_t folio_pages(std::span<const PageState> pages, std::size_t page);

}  // namespace fpolicy::placement
