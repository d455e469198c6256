// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/audit.h"

#include <fpolicy/policy.h>

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace fpolicy::tools {
namespace {

/// Worst last, for sums.
constexpr std::array severity = {State::unset,       State::ok,        State::unknown,      State::stale,
                                 State::unsupported, State::misplaced, State::unsatisfiable};

std::size_t rank(State state) {
  return static_cast<std::size_t>(std::find(severity.begin(), severity.end(), state) - severity.begin());
}

std::string pages_on(const std::vector<std::uint64_t>& by_node, const NodeSet& wanted) {
  std::string text;
  for (unsigned node = 0; node < by_node.size(); ++node) {
    if (by_node[node] == 0 || wanted.contains(node)) continue;
    text += fmt::format("{}{} on node {}", text.empty() ? "" : ", ", by_node[node], node);
  }
  return text;
}

}  // namespace

std::string_view to_string(State state) {
  switch (state) {
    case State::ok:
      return "ok";
    case State::misplaced:
      return "misplaced";
    case State::unset:
      return "unset";
    case State::unsupported:
      return "unsupported";
    case State::unsatisfiable:
      return "unsatisfiable";
    case State::stale:
      return "stale";
    case State::unknown:
      break;
  }
  return "unknown";
}

AuditedFile Auditor::audit(const NamedFile& file, const std::string& shown, const AuditJob& job) const {
  AuditedFile row;
  row.path = shown;
  const FileRef ref{file.fd.get(), nullptr, file.path, file.device};
  const auto effective = resolver_.resolve(ref, file.path, job.user);
  Target target;
  if (!effective) {
    row.state = State::unknown;
    row.reason = effective.error().message;
  } else {
    row.source = to_string(effective->source);
    row.origin = effective->origin;
    if (effective->unsupported) {
      row.policy = effective->text;
      row.state = State::unsupported;
      row.reason = "this version does not understand the tag";
    } else if (effective->policy) {
      row.policy = format_policy(*effective->policy);
      row.state = State::ok;
      auto evaluated = evaluate_placement(*effective->policy, topology_, job.allowed);
      if (evaluated && effective->from_user && job.confines_users && evaluated->mode != Mode::none) {
        evaluated->nodes = evaluated->nodes & job.allowed;
        std::erase_if(evaluated->slots, [&](unsigned node) { return !job.allowed.contains(node); });
        if (evaluated->nodes.empty()) {
          evaluated =
              fail(ENODEV, "a user tag places within the job's nodes " + job.allowed.format() + " only");
        }
      }
      if (evaluated) {
        target = *std::move(evaluated);
      } else {
        row.state = State::unsatisfiable;
        row.reason = evaluated.error().message;
      }
    }
  }
  if (S_ISREG(file.mode)) count(file, target, row);
  return row;
}

void Auditor::count(const NamedFile& file, const Target& target, AuditedFile& row) const {
  const auto not_told = [&](const std::string& why) {
    if (row.state == State::ok && target.mode != Mode::none) row.state = State::unknown;
    if (row.reason.empty()) row.reason = why;
  };
  const auto fd = reopen(file);
  if (!fd) return not_told("pages not told: " + errno_text(fd.error().code));
  const auto told = may_observe(fd->get());
  if (!told) return not_told(told.error().message);
  if (!*told) return not_told("pages not told: neither the owner nor allowed to write the file");
  PlacementOptions options;
  options.threads = threads_;
  if (with_runs_) options.runs = &row.runs;
  const auto report = audit_file(fd->get(), target, topology_, options);
  if (!report) return not_told(report.error().message);
  row.residency = report->residency;
  row.misplaced = report->misplaced_pages;
  struct stat status = {};
  if (fstat(fd->get(), &status) == 0 && row.residency->page_size != 0) {
    const auto size = static_cast<std::uint64_t>(status.st_size);
    row.pages = size / row.residency->page_size + (size % row.residency->page_size != 0 ? 1 : 0);
  }
  if (row.state != State::ok) return;
  row.reason = report->reason;
  if (row.misplaced == 0) return;
  row.state = State::misplaced;
  if (row.reason.empty()) row.reason = pages_on(row.residency->pages_by_node, target.nodes);
  if (row.reason.empty()) row.reason = "pages are on other nodes of the set than their index says";
}

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
