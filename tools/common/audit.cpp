// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/audit.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace fpolicy::tools {
namespace {

/// Worst last, for sums.
constexpr std::array severity = {State::unset,       State::ok,        State::unknown,      State::stale,
                                 State::unsupported, State::misplaced, State::unsatisfiable};

std::size_t rank(State state) {
  return static_cast<std::size_t>(std::find(severity.begin(), severity.end(), state) - severity.begin());
}

}  // namespace

void add_to_sum(AuditedFile& sum, const AuditedFile& file) {
  ++sum.files;
  sum.misplaced += file.misplaced;
  sum.pages += file.pages;
  if (rank(file.state) > rank(sum.state)) {
    sum.state = file.state;
    sum.reason = file.reason.empty() ? "" : file.path + ": " + file.reason;
  }
  if (!file.residency) return;
  if (!sum.residency) sum.residency.emplace();
  sum.residency->page_size = file.residency->page_size;
  sum.residency->resident_pages += file.residency->resident_pages;
  sum.residency->unknown_pages += file.residency->unknown_pages;
  auto& by_node = sum.residency->pages_by_node;
  const auto& more = file.residency->pages_by_node;
  by_node.resize(std::max(by_node.size(), more.size()));
  for (std::size_t node = 0; node < more.size(); ++node) by_node[node] += more[node];
}

std::string page_map(const AuditedFile& file, std::size_t width) {
  constexpr std::string_view names = "0123456789abcdefghijklmnopqrstuvwxyz";
  if (file.pages == 0) return {};
  const std::size_t cells = std::min<std::uint64_t>(width, file.pages);
  std::vector<std::vector<std::uint64_t>> counts(cells);
  const auto end_of = [&](std::size_t cell) { return (cell + 1) * file.pages / cells; };
  for (const PageRun& run : file.runs) {
    std::uint64_t at = run.first;
    const std::uint64_t end = std::min(run.first + run.count, file.pages);
    while (at < end) {
      // The cell whose last page is not before this one.
      std::size_t cell = std::min<std::size_t>(at * cells / file.pages, cells - 1);
      while (end_of(cell) <= at) ++cell;
      const std::uint64_t stop = std::min(end, end_of(cell));
      auto& by_node = counts[cell];
      by_node.resize(std::max<std::size_t>(by_node.size(), run.node + 1));
      by_node[run.node] += stop - at;
      at = stop;
    }
  }
  std::string strip;
  for (const auto& by_node : counts) {
    const auto most = std::max_element(by_node.begin(), by_node.end());
    if (most == by_node.end()) {
      strip += '.';
    } else {
      const auto node = static_cast<std::size_t>(most - by_node.begin());
      strip += node < names.size() ? names[node] : '+';
    }
  }
  return strip;
}

std::string bar(std::uint64_t part, std::uint64_t whole, std::size_t width) {
  constexpr std::array<std::string_view, 8> eighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (whole == 0) return {};
  const auto cells = static_cast<std::size_t>(static_cast<double>(part) / static_cast<double>(whole) *
                                              static_cast<double>(width) * 8);
  std::string text;
  for (std::size_t i = 0; i < cells / 8; ++i) text += "█";
  text += eighths.at(cells % 8);
  // What is there must be seen.
  return text.empty() && part != 0 ? std::string(eighths[1]) : text;
}

}  // namespace fpolicy::tools
