// SPDX-License-Identifier: LGPL-2.1-or-later
// Act: moves the pages of a plan, and learns what became of each.
#pragma once

#include "placement/decide.h"
#include "placement/observe.h"
#include "sys/mapped_vector.h"
#include "sys/page_mover.h"

#include <fpolicy/node_set.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace fpolicy::placement {

using Moves = sys::MappedVector<Move>;

/// What became of a plan's pages. Counts are pages.
struct MoveOutcome {
  std::uint64_t moved = 0;
  std::uint64_t vanished = 0;  ///< no longer in the file's mapping
  std::uint64_t busy = 0;
  Moves denied;  ///< of pages mapped by others, without CAP_SYS_NICE
  NodeSet full;  ///< nodes that take no more
  Moves left;    ///< what else was not done, whatever the reason

  void add(const MoveOutcome& other);
};

/// The addresses of pages that are counted through: runs of neighbours.
class PageAddresses {
 public:
  explicit PageAddresses(std::uint64_t page_size) : page_size_(page_size) {}
  PageAddresses(std::uint64_t page_size, std::byte* first) : page_size_(page_size) { add(0, first); }

  /// From page number `first` on they lie at `address`; ascending.
  void add(std::size_t first, std::byte* address) { runs_.push_back({first, address}); }
  void clear() { runs_.clear(); }
  [[nodiscard]] std::byte* at(std::size_t page) const {
    const auto behind =
        runs_.size() == 1 ? runs_.end() : std::ranges::upper_bound(runs_, page, {}, &Run::first);
    const Run& run = *std::prev(behind);
    return run.address + (page - run.first) * page_size_;
  }

 private:
  struct Run {
    std::size_t first;
    std::byte* address;
  };
  std::uint64_t page_size_;
  std::vector<Run> runs_;
};

/// Moves pages of windows of one address space. Keeps its buffers from one window to the next.
class Mover {
 public:
  Mover(sys::PageMover& memory, unsigned busy_retries) : memory_(memory), busy_retries_(busy_retries) {}

  /// Moves as planned, node by node, in calls as large as possible: every call first drains the lists of all
  /// processors, and the kernel migrates a run of addresses that have one target at a time. `pages` is
  /// brought up to date, `moves` is put in order.
  [[nodiscard]] MoveOutcome move(const PageAddresses& addresses, std::span<PageState> pages, Moves& moves);

  /// Why nodes refuse pages for another reason than being full; for people.
  [[nodiscard]] const std::map<unsigned, std::string>& refusals() const { return refusals_; }

 private:
  struct Window {
    const PageAddresses* addresses;
    std::span<PageState> pages;
    MoveOutcome* outcome;
  };
  void move_batch(const Window& window, unsigned node, Moves pending);
  enum class Answer : std::uint8_t { done, refused };
  /// One call for `pending`. What it left untried stays there, what it tried in vain is added to `failed`.
  /// Refused: the node takes no more.
  Answer call(const Window& window, unsigned node, Moves& pending, Moves& failed);
  /// Enters what the call did. True where a status says that the node is full.
  bool settle(const Window& window, unsigned node, Moves& pending, Moves& failed);
  /// Enters where the pages of moves are whose statuses do not tell; adds those that are still to be moved to
  /// `left`.
  void look_again(const Window& window, unsigned node, const Moves& open, Moves& left);
  static void put(const Window& window, std::size_t page, unsigned node);
  static void lose(const Window& window, std::size_t page);

  sys::PageMover& memory_;
  const unsigned busy_retries_;
  bool all_ = true;  ///< MPOL_MF_MOVE_ALL, until the kernel refuses it
  std::map<unsigned, std::string> refusals_;
  sys::MappedVector<void*> addresses_;
  sys::MappedVector<int> nodes_;
  sys::MappedVector<int> statuses_;
};

}  // namespace fpolicy::placement
