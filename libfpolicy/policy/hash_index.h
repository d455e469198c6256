// SPDX-License-Identifier: LGPL-2.1-or-later
// A hash table of positions, for keys that its owner holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

namespace fpolicy {

/// Positions by the hash of their keys. Open addressing, at most half full, eight slots in a cache line: a
/// look-up of what is not there, and most are, costs one access to memory, where a std::unordered_map of
/// 20,000 rules costs three.
class HashIndex {
 public:
  /// `seed` tells apart keys of one text.
  static std::uint32_t hash(std::string_view text, std::uint64_t seed) {
    const std::uint64_t mixed =
        (std::hash<std::string_view>{}(text) ^ (seed * 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd;
    return static_cast<std::uint32_t>(mixed >> 32U);
  }

  /// The position of that hash for which `equal(position)` is true.
  template <class Equal>
  [[nodiscard]] std::optional<std::uint32_t> find(std::uint32_t hash, const Equal& equal) const {
    if (slots_.empty()) return std::nullopt;
    for (std::size_t at = home(hash); slots_[at].number != 0; at = (at + 1) & (slots_.size() - 1)) {
      const std::uint32_t position = slots_[at].number - 1;
      if (slots_[at].hash == hash && equal(position)) return position;
    }
    return std::nullopt;
  }

  /// Of a key that is not there yet. `position` is less than 2^32 - 1.
  void insert(std::uint32_t hash, std::uint32_t position) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    put({hash, position + 1});
    ++count_;
  }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::uint32_t number = 0;  ///< the position and 1; 0 is free
  };

  [[nodiscard]] std::size_t home(std::uint32_t hash) const { return hash & (slots_.size() - 1); }

  void put(const Slot& slot) {
    std::size_t at = home(slot.hash);
    while (slots_[at].number != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }

  void grow() {
    std::vector<Slot> old(slots_.empty() ? 8 : 2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.number != 0) put(slot);
    }
  }

  std::vector<Slot> slots_;  ///< as many as a power of two
  std::size_t count_ = 0;
};

}  // namespace fpolicy
