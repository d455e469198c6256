// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/decide.h"

#include <algorithm>
#include <utility>

namespace fpolicy::placement {
namespace {

// The smallest growth of a plan: a vector that doubles from one would map and unmap for each of its first
// sizes.
constexpr std::size_t first_moves = 4096;

void append(Plan& plan, std::size_t page, std::uint32_t pages, unsigned node) {
  if (plan.moves.empty()) plan.moves.reserve(first_moves);
  plan.moves.push_back({static_cast<std::uint32_t>(page), pages, node});
}

}  // namespace

std::uint32_t folio_pages(std::span<const PageState> pages, std::size_t page) {
  std::size_t end = page + 1;
  while (end < pages.size() && pages[end].continues_folio()) ++end;
  return static_cast<std::uint32_t>(end - page);
}

Decider::Decider(const Target& target, const Topology& topology, std::function<Room()> read_room)
    : target_(target), topology_(topology), read_room_(std::move(read_room)) {}

bool Decider::take_room(unsigned node, std::uint64_t pages, bool reclaim) {
  if (node >= room_.size()) return false;
  NodeRoom& room = room_[node];
  if (room.free + (reclaim ? room.reclaimable : 0) < pages) return false;
  const std::uint64_t from_free = std::min(room.free, pages);
  room.free -= from_free;
  room.reclaimable -= pages - from_free;
  return true;
}

unsigned Decider::distance(unsigned from, unsigned to) const {
  constexpr unsigned unreachable = 255;  // as in the ACPI SLIT
  if (from >= topology_.distance.size() || to >= topology_.distance[from].size()) return unreachable;
  const unsigned known = topology_.distance[from][to];
  return known == 0 ? unreachable : known;
}

const std::vector<unsigned>& Decider::nearest(unsigned node) {
  if (node >= nearest_.size()) nearest_.resize(node + 1);
  std::vector<unsigned>& order = nearest_[node];
  if (order.empty()) {
    order = target_.nodes.members();
    std::ranges::stable_sort(order, {}, [&](unsigned to) { return distance(node, to); });
  }
  return order;
}

Decider::Choice Decider::choose_near(unsigned node, std::uint32_t pages) {
  if (target_.nodes.contains(node)) return {};
  const std::vector<unsigned>& order = nearest(node);
  if (read_room_) room_ = std::exchange(read_room_, nullptr)();
  const bool prefer = target_.mode == Mode::prefer;
  // Over the nodes, nearest first: for free room, then (bind) for room that reclaim can make.
  for (const bool reclaim : {false, true}) {
    if (reclaim && prefer) break;
    for (std::size_t first = 0; first < order.size();) {
      std::size_t end = first + 1;
      while (end < order.size() && distance(node, order[end]) == distance(node, order[first])) ++end;
      const std::size_t equals = end - first;
      for (std::size_t i = 0; i < equals; ++i) {
        const unsigned to = order[first + (turn_ + i) % equals];
        if (marked_.contains(to) || !take_room(to, pages, reclaim)) continue;
        ++turn_;
        return {true, static_cast<int>(to)};
      }
      first = end;
    }
  }
  full_ = full_ | target_.nodes;
  return {!prefer, -1};
}

Decider::Choice Decider::choose(std::uint64_t index, unsigned node, std::uint32_t pages) {
  switch (target_.mode) {
    case Mode::bind:
    case Mode::prefer:
      return choose_near(node, pages);
    case Mode::interleave: {
      const unsigned slot = target_.slots[index % target_.slots.size()];
      if (slot == node) return {};
      return {true, marked_.contains(slot) ? -1 : static_cast<int>(slot)};
    }
    case Mode::none:
    default:
      return {};
  }
}

Plan Decider::plan(const Snapshot& snapshot) {
  Plan plan;
  for (std::size_t page = 0; page < snapshot.pages.size();) {
    if (!snapshot.pages[page].is_located()) {
      ++page;
      continue;
    }
    const std::uint32_t pages = folio_pages(snapshot.pages, page);
    const Choice choice = choose(snapshot.first_page + page, snapshot.pages[page].node(), pages);
    if (choice.misplaced) {
      plan.misplaced_pages += pages;
      if (choice.node >= 0)
        append(plan, page, pages, static_cast<unsigned>(choice.node));
      else
        plan.no_memory_pages += pages;
    }
    page += pages;
  }
  return plan;
}

Plan HomePlanner::plan(const Snapshot& snapshot) {
  Plan plan;
  const std::uint64_t end = snapshot.first_page + snapshot.pages.size();
  const auto run_end = [](const PageRun& run) { return run.first + run.count; };
  auto run = std::ranges::upper_bound(home_, snapshot.first_page, {}, run_end);
  for (; run != home_.end() && run->first < end; ++run) {
    const std::uint64_t stop = std::min(run_end(*run), end);
    for (std::uint64_t index = std::max(run->first, snapshot.first_page); index < stop;) {
      const auto page = static_cast<std::size_t>(index - snapshot.first_page);
      const PageState state = snapshot.pages[page];
      // The rest of a folio goes where its first page belongs.
      if (!state.is_located() || state.continues_folio()) {
        ++index;
        continue;
      }
      const std::uint32_t pages = folio_pages(snapshot.pages, page);
      index += pages;
      if (state.node() == run->node) continue;
      plan.misplaced_pages += pages;
      if (full_.contains(run->node))
        plan.no_memory_pages += pages;
      else
        append(plan, page, pages, run->node);
    }
  }
  return plan;
}

void append_runs(const Snapshot& snapshot, std::vector<PageRun>& runs) {
  for (std::size_t page = 0; page < snapshot.pages.size(); ++page) {
    const PageState state = snapshot.pages[page];
    if (!state.is_located()) continue;
    const std::uint64_t index = snapshot.first_page + page;
    if (!runs.empty() && runs.back().node == state.node() && runs.back().first + runs.back().count == index)
      ++runs.back().count;
    else
      runs.push_back({index, 1, state.node()});
  }
}

}  // namespace fpolicy::placement
