// SPDX-License-Identifier: LGPL-2.1-or-later
// What policyd's decisions cost: a cached lookup of a file's policy, a match of the rules, a parsed policy.
#include <fpolicy/policy_cache.h>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

namespace fpolicy {
namespace {

constexpr std::size_t lookups = 4096;

/// Scattered over all entries, as the mapped files of one job are.
std::vector<PolicyCache::Key> scattered_keys(std::size_t entries) {
  std::vector<PolicyCache::Key> keys;
  for (std::size_t i = 0; i < lookups; ++i) keys.push_back({8, (i * 7919) % entries, 1, 1000});
  return keys;
}

void BM_CacheHit(benchmark::State& state) {
  const auto entries = static_cast<std::size_t>(state.range(0));
  PolicyCache cache(2 * entries);
  for (ino_t inode = 0; inode < entries; ++inode) {
    Effective effective;
    effective.policy = *parse_policy("bind:1");
    cache.insert({8, inode, 1, 1000}, std::make_shared<const Effective>(effective), cache.generation());
  }
  const auto keys = scattered_keys(entries);
  std::size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(cache.find(keys[i++ % lookups]));
}
BENCHMARK(BM_CacheHit)->Arg(1000)->Arg(32768);

void BM_CacheMiss(benchmark::State& state) {
  PolicyCache cache;
  for (ino_t inode = 0; inode < 32768; ++inode) {
    cache.insert({8, inode, 1, 1000}, std::make_shared<const Effective>(), cache.generation());
  }
  ino_t inode = 1U << 20U;
  for (auto _ : state) benchmark::DoNotOptimize(cache.find({8, inode++, 1, 1000}));
}
BENCHMARK(BM_CacheMiss);

/// range(0) rules of one kind; a path that the middle one of them matches.
template <class Rule, class Path>
void match_rules(benchmark::State& state, const Rule& rule, const Path& path) {
  std::string text;
  for (std::int64_t i = 0; i < state.range(0); ++i) text += rule(std::to_string(i)) + "\tbind:1\n";
  RuleSet rules;
  if (!rules.add(text, "bench.rules")) state.SkipWithError("the rules were refused");
  const std::string probe = path(std::to_string(state.range(0) / 2));
  if (rules.match(probe) == nullptr) state.SkipWithError("no rule matched");
  for (auto _ : state) benchmark::DoNotOptimize(rules.match(probe));
}

void BM_LiteralRules(benchmark::State& state) {
  match_rules(
      state, [](const std::string& i) { return "/srv/db/volume" + i + "/data/"; },
      [](const std::string& i) { return "/srv/db/volume" + i + "/data/base/16384/2619"; });
}
BENCHMARK(BM_LiteralRules)->Arg(20)->Arg(20000);

void BM_GlobRules(benchmark::State& state) {
  match_rules(
      state, [](const std::string& i) { return "/usr/lib/lib*-" + i + ".so"; },
      [](const std::string& i) { return "/usr/lib/libfoo-" + i + ".so"; });
}
BENCHMARK(BM_GlobRules)->Arg(20)->Arg(20000);

void BM_CrossingRules(benchmark::State& state) {
  match_rules(
      state, [](const std::string& i) { return "/usr/lib/**-" + i + ".so"; },
      [](const std::string& i) { return "/usr/lib/x86_64-linux-gnu/libfoo-" + i + ".so"; });
}
BENCHMARK(BM_CrossingRules)->Arg(20)->Arg(20000);

void BM_ParsePolicy(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(parse_policy("interleave:0-3,migrate=no"));
}
BENCHMARK(BM_ParsePolicy);

}  // namespace
}  // namespace fpolicy

BENCHMARK_MAIN();
