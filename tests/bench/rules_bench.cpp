// SPDX-License-Identifier: LGPL-2.1-or-later
// 20,000 rules against 200,000 paths, compared with 20 rules against the same. One iteration is one path; the
// last line is the ratio, which is to reach 2.
#include <fpolicy/rules.h>

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {
namespace {

constexpr std::size_t many_rules = 20'000;
constexpr std::size_t few_rules = 20;
constexpr std::size_t path_count = 200'000;

/// As administrators write them: directories, files, libraries by version, types of data wherever they are.
/// Of the few there are all kinds, and each kind is as frequent among the many.
std::string rules_text(std::size_t count) {
  std::string text = "alias /lib\t/usr/lib\nalias /data\t/srv\n";
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t n = i / 10;
    switch (i % 10) {
      case 0:
      case 1:
        text += fmt::format("/srv/db/volume{}/", i);
        break;
      case 2:
      case 3:
        text += fmt::format("/usr/lib/x86_64-linux-gnu/libproduct{}.so.6", i);
        break;
      case 4:
        text += fmt::format("/opt/solver{}/**", n);
        break;
      case 5:
        text += fmt::format("/usr/lib/x86_64-linux-gnu/libpart{}.so.*", n);
        break;
      case 6:
        text += fmt::format("/home/*/project{}/", n);
        break;
      case 7:
        text += fmt::format("/srv/archive/**/run{}.parquet", n);
        break;
      case 8:
        text += fmt::format("/usr/share/**-{}.dat", n);
        break;
      default:
        text += fmt::format("/srv/cache/[a-f]{}/", n);
    }
    text += fmt::format("\tbind:{}\n", i % 4);
  }
  return text;
}

/// Of each kind, those that a rule of the many matches and others; numbers are drawn from `rules` of them.
std::vector<std::string> make_paths(std::size_t rules) {
  std::mt19937 random(1);  // the same in each run
  std::vector<std::string> paths;
  paths.reserve(path_count);
  while (paths.size() < path_count) {
    const std::size_t i = random() % rules;
    const std::size_t n = i / 10;
    switch (random() % 12) {
      case 0:
        paths.push_back(fmt::format("/srv/db/volume{}/base/16384/{}", i, random() % 100000));
        break;
      case 1:
        paths.push_back(fmt::format("/data/db/volume{}/base/1/{}", i, random() % 100000));
        break;
      case 2:
        paths.push_back(fmt::format("/usr/lib/x86_64-linux-gnu/libproduct{}.so.6", i));
        break;
      case 3:
        paths.push_back(fmt::format("/lib/x86_64-linux-gnu/libother{}.so.6.0.1", i));
        break;
      case 4:
        paths.push_back(fmt::format("/opt/solver{}/lib/python3/site-packages/m{}.so", n, random() % 1000));
        break;
      case 5:
        paths.push_back(fmt::format("/usr/lib/x86_64-linux-gnu/libpart{}.so.{}", n, random() % 9));
        break;
      case 6:
        paths.push_back(fmt::format("/home/user{}/project{}/src/main{}.c", random() % 100, n, random() % 50));
        break;
      case 7:
        paths.push_back(fmt::format("/srv/archive/2026/{}/run{}.parquet", random() % 12, n));
        break;
      case 8:
        paths.push_back(fmt::format("/usr/share/product/data/table-{}.dat", n));
        break;
      case 9:
        paths.push_back(fmt::format("/srv/cache/{}{}/blob{}", "abcdefgh"[random() % 8], n, random() % 1000));
        break;
      case 10:
        paths.push_back(fmt::format("/var/log/journal/machine/system@{}.journal", random()));
        break;
      default:
        paths.push_back(fmt::format("/usr/share/doc/package{}/changelog.gz", random() % 5000));
    }
  }
  return paths;
}

void BM_Match(benchmark::State& state, std::size_t rules, std::size_t drawn_from) {
  RuleSet set;
  const Status added = set.add(rules_text(rules), "bench.rules");
  if (!added) return state.SkipWithError(added.error().message.c_str());
  const std::vector<std::string> paths = make_paths(drawn_from);
  std::size_t matched = 0;
  std::size_t i = 0;
  for (auto _ : state) {
    matched += set.match(paths[i]) != nullptr ? 1 : 0;
    i = i + 1 == paths.size() ? 0 : i + 1;
  }
  state.counters["matched"] = static_cast<double>(matched) / static_cast<double>(state.iterations());
}

void BM_Load(benchmark::State& state) {
  const std::string text = rules_text(many_rules);
  for (auto _ : state) {
    RuleSet set;
    if (!set.add(text, "bench.rules")) state.SkipWithError("the rules were refused");
    benchmark::DoNotOptimize(set.size());
  }
}

/// Keeps the medians, for the ratios.
class Reporter : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      if (run.aggregate_name.empty() || run.aggregate_name == "median")
        medians[run.run_name.function_name] = run.GetAdjustedCPUTime();
    }
  }
  std::map<std::string, double> medians;
};

}  // namespace
}  // namespace fpolicy

int main(int argc, char** argv) {
  using namespace fpolicy;
  constexpr const char* few = "few_rules";
  constexpr const char* many = "many_rules";
  constexpr const char* many_on_few = "many_rules_where_few_match";
  // The whole list of paths once in each repetition; the paths are the same for both.
  for (const auto& [name, rules, drawn_from] :
       {std::tuple(few, few_rules, many_rules), std::tuple(many, many_rules, many_rules),
        std::tuple("few_rules_all_match", few_rules, few_rules),
        std::tuple(many_on_few, many_rules, few_rules)}) {
    benchmark::RegisterBenchmark(name, BM_Match, rules, drawn_from)->Iterations(path_count);
  }
  benchmark::RegisterBenchmark("load_many_rules", BM_Load)->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  Reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  std::printf("%zu rules : %zu rules, the same %zu paths          ratio %5.2f   (reach 2)\n", many_rules,
              few_rules, path_count, reporter.medians[many] / reporter.medians[few]);
  std::printf("%zu rules : %zu rules, paths of these %zu alone        ratio %5.2f   (reach 2)\n", many_rules,
              few_rules, few_rules, reporter.medians[many_on_few] / reporter.medians["few_rules_all_match"]);
  return 0;
}
