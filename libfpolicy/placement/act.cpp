// SPDX-License-Identifier: LGPL-2.1-or-later
#include "placement/act.h"

#include <algorithm>
#include <climits>
#include <tuple>
#include <utility>

namespace fpolicy::placement {
namespace {

// The kernel's own limit is far above; a call of this size takes 0.7 of the time that 128 calls of 512 take.
constexpr std::size_t batch_pages = 65536;
// A page that the kernel cannot take ends the run it stands in, and after a failure nothing behind it is
// tried. Each call gets at least one such page out of the way; this bounds what hostile mixtures of them
// cost.
constexpr unsigned most_calls = 64;
// No errno and no node: the kernel said nothing of this page.
constexpr int untold = INT_MIN;

}  // namespace

void MoveOutcome::add(const MoveOutcome& other) {
  moved += other.moved;
  vanished += other.vanished;
  busy += other.busy;
  denied.insert(denied.end(), other.denied.begin(), other.denied.end());
  full = full | other.full;
  left.insert(left.end(), other.left.begin(), other.left.end());
}

MoveOutcome Mover::move(const PageAddresses& addresses, std::span<PageState> pages, Moves& moves) {
  MoveOutcome outcome;
  const Window window{&addresses, pages, &outcome};
  const auto order = [](const Move& move) { return std::tuple(move.node, move.page); };
  if (!std::ranges::is_sorted(moves, {}, order)) std::ranges::sort(moves, {}, order);
  for (auto first = moves.begin(); first != moves.end();) {
    auto end = std::ranges::upper_bound(first, moves.end(), first->node, {}, &Move::node);
    if (end - first > static_cast<std::ptrdiff_t>(batch_pages)) end = first + batch_pages;
    if (outcome.full.contains(first->node))
      outcome.left.insert(outcome.left.end(), first, end);
    else
      move_batch(window, first->node, Moves(first, end));
    first = end;
  }
  return outcome;
}

void Mover::move_batch(const Window& window, unsigned node, Moves pending) {
  MoveOutcome& outcome = *window.outcome;
  unsigned stalls = 0;
  unsigned calls = 0;
  while (!pending.empty()) {
    // A round tries every page once; it takes one call but where pages end calls early.
    Moves failed;
    const std::size_t before = pending.size();
    while (!pending.empty() && calls < most_calls) {
      ++calls;
      const Answer answer = call(window, node, pending, failed);
      if (answer == Answer::refused) {
        outcome.full.insert(node);
        outcome.left.insert(outcome.left.end(), pending.begin(), pending.end());
        outcome.left.insert(outcome.left.end(), failed.begin(), failed.end());
        return;
      }
    }
    const bool progress = failed.size() < before;
    pending.insert(pending.end(), failed.begin(), failed.end());
    if (pending.empty()) return;
    if (calls == most_calls || (!progress && stalls == busy_retries_)) break;
    // Whoever holds a page mostly lets it go within milliseconds: the end of a read, a writeback.
    if (!progress) memory_.pause(std::chrono::milliseconds(1U << std::min(stalls++, 6U)));
  }
  for (const Move& move : pending) outcome.busy += move.pages;
  outcome.left.insert(outcome.left.end(), pending.begin(), pending.end());
}

Mover::Answer Mover::call(const Window& window, unsigned node, Moves& pending, Moves& failed) {
  addresses_.resize(pending.size());
  for (std::size_t i = 0; i < pending.size(); ++i) addresses_[i] = window.addresses->at(pending[i].page);
  nodes_.assign(pending.size(), static_cast<int>(node));
  statuses_.assign(pending.size(), untold);
  const long result = memory_.move(addresses_, nodes_, statuses_, all_);
  if (result == -EPERM && all_) {
    all_ = false;
    return Answer::done;
  }
  if (result < 0 && result != -ENOMEM) {
    refusals_[node] = result == -EACCES ? "it is not among this process's allowed nodes (cpuset.mems)"
                                        : errno_text(static_cast<int>(-result));
    return Answer::refused;
  }
  const bool no_memory = settle(window, node, pending, failed) || result == -ENOMEM;
  return no_memory ? Answer::refused : Answer::done;
}

bool Mover::settle(const Window& window, unsigned node, Moves& pending, Moves& failed) {
  MoveOutcome& outcome = *window.outcome;
  const auto told =
      std::ranges::find_if(statuses_.rbegin(), statuses_.rend(), [](int status) { return status != untold; });
  // After a failure the kernel stops at the page it told last; what is behind that one is yet to be tried.
  // Where it told none it has tried all.
  const std::size_t tried =
      told == statuses_.rend() ? statuses_.size() : static_cast<std::size_t>(statuses_.rend() - told);
  bool no_memory = false;
  Moves tried_in_vain;
  Moves untried;
  for (std::size_t i = 0; i < pending.size(); ++i) {
    const Move& move = pending[i];
    const int status = statuses_[i];
    if (status == static_cast<int>(node)) {
      for (std::uint32_t page = 0; page < move.pages; ++page) put(window, move.page + page, node);
    } else if (status == -ENOENT || status == -EFAULT) {
      for (std::uint32_t page = 0; page < move.pages; ++page) lose(window, move.page + page);
    } else if (status == -EACCES) {
      outcome.denied.push_back(move);
    } else {
      no_memory |= status == -ENOMEM;
      (i < tried ? tried_in_vain : untried).push_back(move);
    }
  }
  look_again(window, node, tried_in_vain, failed);
  pending.clear();
  look_again(window, node, untried, pending);
  return no_memory;
}

void Mover::look_again(const Window& window, unsigned node, const Moves& open, Moves& left) {
  if (open.empty()) return;
  addresses_.clear();
  for (const Move& move : open)
    for (std::uint32_t page = 0; page < move.pages; ++page)
      addresses_.push_back(window.addresses->at(move.page + page));
  statuses_.assign(addresses_.size(), untold);
  (void)memory_.locate(addresses_, statuses_);

  const int* status = statuses_.data();
  for (const Move& move : open) {
    const std::span statuses(status, move.pages);
    status += move.pages;
    const auto is_away = [&](int where) {
      return where != static_cast<int>(node) && where != -ENOENT && where != -EFAULT;
    };
    if (std::ranges::all_of(statuses, is_away)) {
      left.push_back(move);
      continue;
    }
    // The kernel has split a large folio and moved a part of it: what is left is no longer one folio.
    for (std::uint32_t page = 0; page < move.pages; ++page) {
      if (is_away(statuses[page]))
        left.push_back({move.page + page, 1, node});
      else if (statuses[page] == static_cast<int>(node))
        put(window, move.page + page, node);
      else
        lose(window, move.page + page);
    }
  }
}

void Mover::put(const Window& window, std::size_t page, unsigned node) {
  PageState& state = window.pages[page];
  state = state.continues_folio() ? PageState::on(node).in_folio() : PageState::on(node);
  ++window.outcome->moved;
}

void Mover::lose(const Window& window, std::size_t page) {
  window.pages[page] = PageState::absent();
  ++window.outcome->vanished;
}

}  // namespace fpolicy::placement
