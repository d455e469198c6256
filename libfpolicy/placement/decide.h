// SPDX-License-Identifier: LGPL-2.1-or-later
// Decide: which pages of a window are misplaced, and where they belong. Pure.
#pragma once

#include "placement/observe.h"
#include "sys/mapped_vector.h"

#include <fpolicy/placement.h>
#include <fpolicy/topology.h>

#include <cstdint>
#include <functional>
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

/// What still fits on a node, in pages.
struct NodeRoom {
  std::uint64_t free = 0;
  /// What reclaim can make free besides. Beyond it the kernel would make room by reclaiming the very pages
  /// that were moved there a moment before.
  std::uint64_t reclaimable = 0;
};
/// By node; nodes beyond its end have none.
using Room = std::vector<NodeRoom>;

/// Plans window after window of one file.
class Planner {
 public:
  virtual ~Planner() = default;
  [[nodiscard]] virtual Plan plan(const Snapshot& snapshot) = 0;
  /// Nothing more is moved to these nodes.
  virtual void mark_full(const NodeSet& nodes) = 0;
  /// Nodes that were marked, or for which there was no room left.
  [[nodiscard]] virtual const NodeSet& full() const = 0;
  /// A planned move was not done.
  virtual void give_back(const Move& move) = 0;
};

/// Decides for one target over a file's windows. A folio counts and moves whole, by its first page.
///
/// - bind: a page outside the set belongs on the nearest node of the set that has free room; where none has,
/// on the
///   nearest where reclaim can make some; where none can, it stays misplaced. Nodes equally near take turns.
/// - prefer: only into free room: what does not fit is not misplaced.
/// - interleave: page index i belongs on slots[i % slots.size()].
class Decider final : public Planner {
 public:
  /// `read_room` is called once, and only when a page is to be moved by bind or prefer. What plan() places
  /// takes of the room.
  Decider(const Target& target, const Topology& topology, std::function<Room()> read_room);

  [[nodiscard]] Plan plan(const Snapshot& snapshot) override;
  void mark_full(const NodeSet& nodes) override {
    marked_ = marked_ | nodes;
    full_ = full_ | nodes;
  }
  [[nodiscard]] const NodeSet& full() const override { return full_; }
  void give_back(const Move& move) override {
    if (move.node < room_.size()) room_[move.node].free += move.pages;
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
  /// Takes `pages` of the node's room. False where there is not so much.
  bool take_room(unsigned node, std::uint64_t pages, bool reclaim);

  const Target& target_;
  const Topology& topology_;
  std::function<Room()> read_room_;  ///< empty once it was called
  Room room_;
  NodeSet marked_;
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
  [[nodiscard]] const NodeSet& full() const override { return full_; }
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
