// SPDX-License-Identifier: LGPL-2.1-or-later
// Observe: which pages of a window are resident, and where.
#pragma once

#include "sys/memory.h"

#include <fpolicy/node_set.h>
#include <fpolicy/topology.h>

#include <cstdint>
#include <span>
#include <vector>

namespace fpolicy::placement {

/// Where one page of a window is.
class PageState {
 public:
  static constexpr PageState absent() { return PageState(absent_bits); }
  static constexpr PageState unknown() { return PageState(unknown_bits); }
  static constexpr PageState on(unsigned node) { return PageState(static_cast<std::uint16_t>(node)); }
  constexpr PageState() = default;

  [[nodiscard]] constexpr bool is_absent() const { return place() == absent_bits; }
  /// Resident, but gone before its node could be told.
  [[nodiscard]] constexpr bool is_unknown() const { return place() == unknown_bits; }
  [[nodiscard]] constexpr bool is_located() const { return place() < NodeSet::max_nodes; }
  [[nodiscard]] constexpr unsigned node() const { return place(); }
  /// The page belongs to the same large folio as the page before it.
  [[nodiscard]] constexpr bool continues_folio() const { return (bits_ & folio_bit) != 0; }
  [[nodiscard]] constexpr PageState in_folio() const {
    return PageState(static_cast<std::uint16_t>(bits_ | folio_bit));
  }

 private:
  static constexpr std::uint16_t folio_bit = 0x8000;
  static constexpr std::uint16_t absent_bits = 0x7fff;
  static constexpr std::uint16_t unknown_bits = 0x7ffe;
  static_assert(NodeSet::max_nodes <= unknown_bits);
  constexpr explicit PageState(std::uint16_t bits) : bits_(bits) {}
  [[nodiscard]] constexpr std::uint16_t place() const {
    return static_cast<std::uint16_t>(bits_ & ~folio_bit);
  }

  std::uint16_t bits_ = absent_bits;
};

/// For which pages the bounds of folios are looked up (it costs a read of /proc/kpageflags).
struct FolioInterest {
  bool wanted = false;
  /// Pages on these nodes need none: they stay.
  NodeSet except;
};

struct ObserveOptions {
  unsigned threads = 1;
  FolioInterest folios;
  /// Take the pages out of the page table once they are known, each thread its own.
  bool release = false;
};

/// Looks at the mapped window of `pages.size()` pages at `address` and fills `pages`. Populates what is
/// resident, reads nothing in.
void observe_window(sys::Memory& memory, const sys::FileShape& shape, const Topology& topology,
                    std::byte* address, std::span<PageState> pages, const ObserveOptions& options);

}  // namespace fpolicy::placement
