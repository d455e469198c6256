// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/policy_cache.h>

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace fpolicy {
namespace {

std::shared_ptr<const Effective> effective(const std::string& text) {
  Effective value;
  value.text = text;
  return std::make_shared<const Effective>(std::move(value));
}

TEST(PolicyCache, FindsWhatWasInsertedAndNothingElse) {
  PolicyCache cache;
  const PolicyCache::Key key{8, 42, 1000, 7};
  EXPECT_EQ(cache.find(key), nullptr);
  const auto value = effective("bind:1");
  cache.insert(key, value, cache.generation());
  EXPECT_EQ(cache.find(key), value);
  EXPECT_EQ(cache.find({9, 42, 1000, 7}), nullptr);
  EXPECT_EQ(cache.find({8, 43, 1000, 7}), nullptr);
  EXPECT_EQ(cache.find({8, 42, 1001, 7}), nullptr) << "a changed file";
  EXPECT_EQ(cache.find({8, 42, 1000, 8}), nullptr) << "another user's job";
  const auto newer = effective("bind:2");
  cache.insert(key, newer, cache.generation());
  EXPECT_EQ(cache.find(key), newer);
  EXPECT_EQ(cache.size(), 1U);
}

TEST(PolicyCache, InvalidateForgetsAlsoWhatIsBeingResolved) {
  PolicyCache cache;
  const PolicyCache::Key key{8, 42, 1000, 7};
  cache.insert(key, effective("old"), cache.generation());
  const std::uint64_t before = cache.generation();
  cache.invalidate();
  EXPECT_EQ(cache.find(key), nullptr);
  cache.insert(key, effective("resolved before"), before);
  EXPECT_EQ(cache.find(key), nullptr);
  cache.insert(key, effective("resolved after"), cache.generation());
  EXPECT_NE(cache.find(key), nullptr);
}

TEST(PolicyCache, IsBoundedAndKeepsWhatIsUsed) {
  constexpr std::size_t capacity = 64;
  PolicyCache cache(capacity);
  const auto value = effective("x");
  const PolicyCache::Key used{1, 1, 1, 1};
  cache.insert(used, value, cache.generation());
  for (ino_t inode = 2; inode < 1000; ++inode) {
    cache.insert({1, inode, 1, 1}, value, cache.generation());
    ASSERT_LE(cache.size(), capacity);
    ASSERT_NE(cache.find(used), nullptr) << inode;
  }
  EXPECT_EQ(cache.size(), capacity);
  unsigned found = 0;
  for (ino_t inode = 1; inode < 1000; ++inode) found += cache.find({1, inode, 1, 1}) ? 1 : 0;
  EXPECT_EQ(found, capacity);
}

TEST(PolicyCache, GrowsWithoutForgetting) {
  PolicyCache cache;
  const auto value = effective("x");
  for (ino_t inode = 0; inode < 20000; ++inode) cache.insert({8, inode, 1, 1}, value, cache.generation());
  unsigned found = 0;
  for (ino_t inode = 0; inode < 20000; ++inode) found += cache.find({8, inode, 1, 1}) ? 1 : 0;
  // A set may overflow where many keys meet.
  EXPECT_GT(found, 19000U);
  EXPECT_EQ(cache.size(), found);
}

TEST(PolicyCache, ServesThreadsWhileOthersInvalidate) {
  PolicyCache cache(64);
  std::atomic<unsigned> wrong{0};
  const auto work = [&](unsigned seed) {
    for (unsigned i = 0; i < 20000; ++i) {
      const PolicyCache::Key key{1, (i * seed) % 97, 1, 1};
      const auto found = cache.find(key);
      if (found && found->text != std::to_string(key.inode)) ++wrong;
      if (!found) cache.insert(key, effective(std::to_string(key.inode)), cache.generation());
      if (i % 1000 == 0) cache.invalidate();
    }
  };
  std::thread other(work, 7);
  work(3);
  other.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace fpolicy
