// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/policy_cache.h>

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <vector>

namespace fpolicy {
namespace {

constexpr std::size_t ways = 8;
constexpr std::size_t first_sets = 256;

struct Slot {
  PolicyCache::Key key;
  std::shared_ptr<const Effective> effective;  ///< null: free
  bool used = false;                           ///< found since the last search for a victim
};

using Set = std::array<Slot, ways>;

std::size_t hash_of(const PolicyCache::Key& key) {
  constexpr std::size_t odd = 0x9e3779b97f4a7c15;
  std::size_t hash = key.inode;
  for (const std::size_t part :
       {std::size_t{key.device}, static_cast<std::size_t>(key.ctime_ns), std::size_t{key.job_uid}}) {
    hash = (hash ^ part) * odd;
    hash ^= hash >> 32U;
  }
  return hash;
}

}  // namespace

// A table of sets of a few slots: what a key can be in lies side by side, so that a look-up misses the
// processor's cache once for it and once for the policy. The table doubles as it fills, up to the capacity.
struct PolicyCache::Impl {
  explicit Impl(std::size_t capacity)
      : most_sets(std::bit_ceil(std::max<std::size_t>(capacity / ways, 1))),
        sets(std::min(first_sets, most_sets)) {}

  Set& set_of(const Key& key) { return sets[hash_of(key) & (sets.size() - 1)]; }
  void put(const Key& key, std::shared_ptr<const Effective> effective);
  void grow();

  std::mutex mutex;
  const std::size_t most_sets;
  std::vector<Set> sets;
  std::size_t size = 0;
  std::uint64_t generation = 0;
};

void PolicyCache::Impl::put(const Key& key, std::shared_ptr<const Effective> effective) {
  Set& set = set_of(key);
  const auto find = [&](const auto& is_wanted) { return std::find_if(set.begin(), set.end(), is_wanted); };
  auto slot = find([&](const Slot& one) { return one.effective && one.key == key; });
  if (slot == set.end()) slot = find([](const Slot& one) { return !one.effective; });
  if (slot == set.end()) {
    slot = find([](const Slot& one) { return !one.used; });
    for (Slot& one : set) one.used = false;
    if (slot == set.end()) slot = set.begin();
    // The newest stands last, so that among equals the oldest goes first.
    slot = std::rotate(slot, slot + 1, set.end());
    --size;
    slot->effective.reset();
  }
  if (!slot->effective) ++size;
  *slot = Slot{key, std::move(effective), false};
}

void PolicyCache::Impl::grow() {
  std::vector<Set> old(sets.size() * 2);
  old.swap(sets);
  size = 0;
  for (Set& set : old) {
    for (Slot& slot : set) {
      if (slot.effective) put(slot.key, std::move(slot.effective));
    }
  }
}

PolicyCache::PolicyCache(std::size_t capacity) : impl_(std::make_unique<Impl>(capacity)) {}
PolicyCache::~PolicyCache() = default;

std::shared_ptr<const Effective> PolicyCache::find(const Key& key) {
  const std::scoped_lock lock(impl_->mutex);
  for (Slot& slot : impl_->set_of(key)) {
    if (slot.effective && slot.key == key) {
      slot.used = true;
      return slot.effective;
    }
  }
  return nullptr;
}

std::uint64_t PolicyCache::generation() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->generation;
}

void PolicyCache::insert(const Key& key, std::shared_ptr<const Effective> effective,
                         std::uint64_t generation) {
  const std::scoped_lock lock(impl_->mutex);
  if (generation != impl_->generation || !effective) return;
  // Half full: a set that overflows is then the exception.
  if (impl_->size * 2 >= impl_->sets.size() * ways && impl_->sets.size() < impl_->most_sets) impl_->grow();
  impl_->put(key, std::move(effective));
}

void PolicyCache::invalidate() {
  const std::scoped_lock lock(impl_->mutex);
  ++impl_->generation;
  impl_->size = 0;
  impl_->sets = std::vector<Set>(std::min(first_sets, impl_->most_sets));
}

std::size_t PolicyCache::size() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->size;
}

}  // namespace fpolicy
