// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/policy_cache.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace fpolicy {
namespace {

struct KeyHash {
  std::size_t operator()(const PolicyCache::Key& key) const noexcept {
    // Inode numbers are dense, and the buckets a prime: mixing the others in is all there is to do.
    constexpr std::size_t odd = 0x9e3779b97f4a7c15;
    std::size_t hash = key.inode;
    for (const std::size_t part :
         {std::size_t{key.device}, static_cast<std::size_t>(key.ctime_ns), std::size_t{key.job_uid}}) {
      hash = (hash ^ part) * odd;
      hash ^= hash >> 32U;
    }
    return hash;
  }
};

using Map = std::unordered_map<PolicyCache::Key, std::shared_ptr<const Effective>, KeyHash>;

}  // namespace

// Two halves: what has been used since the last turn, and what was before. When the first is full, it becomes
// the second, and what had stayed in that unused is forgotten.
struct PolicyCache::Impl {
  explicit Impl(std::size_t capacity) : half(std::max<std::size_t>(capacity / 2, 1)) {
    recent.reserve(half);
    older.reserve(half);
  }

  void turn_if_full() {
    if (recent.size() < half) return;
    recent.swap(older);
    recent.clear();
  }

  const std::size_t half;
  std::mutex mutex;
  Map recent;
  Map older;
  std::uint64_t generation = 0;
};

PolicyCache::PolicyCache(std::size_t capacity) : impl_(std::make_unique<Impl>(capacity)) {}
PolicyCache::~PolicyCache() = default;

std::shared_ptr<const Effective> PolicyCache::find(const Key& key) {
  const std::scoped_lock lock(impl_->mutex);
  if (const auto found = impl_->recent.find(key); found != impl_->recent.end()) return found->second;
  const auto found = impl_->older.find(key);
  if (found == impl_->older.end()) return nullptr;
  std::shared_ptr<const Effective> effective = found->second;
  Map::node_type node = impl_->older.extract(found);
  impl_->turn_if_full();
  impl_->recent.insert(std::move(node));
  return effective;
}

std::uint64_t PolicyCache::generation() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->generation;
}

void PolicyCache::insert(const Key& key, std::shared_ptr<const Effective> effective,
                         std::uint64_t generation) {
  const std::scoped_lock lock(impl_->mutex);
  if (generation != impl_->generation) return;
  impl_->older.erase(key);
  if (const auto found = impl_->recent.find(key); found != impl_->recent.end()) {
    found->second = std::move(effective);
    return;
  }
  impl_->turn_if_full();
  impl_->recent.emplace(key, std::move(effective));
}

void PolicyCache::invalidate() {
  const std::scoped_lock lock(impl_->mutex);
  ++impl_->generation;
  impl_->recent.clear();
  impl_->older.clear();
}

std::size_t PolicyCache::size() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->recent.size() + impl_->older.size();
}

}  // namespace fpolicy
