// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/migrate_report.h"

#include <fpolicy/rules.h>

#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

std::string nodes_text(const std::vector<std::uint64_t>& pages) {
  std::string text;
  for (std::size_t node = 0; node < pages.size(); ++node) {
    if (pages[node] != 0) text += fmt::format("{}{}:{}", text.empty() ? "" : " ", node, pages[node]);
  }
  return text.empty() ? "-" : text;
}

Json nodes_json(const std::vector<std::uint64_t>& pages) {
  Json nodes = Json::object();
  for (std::size_t node = 0; node < pages.size(); ++node) {
    if (pages[node] != 0) nodes[std::to_string(node)] = pages[node];
  }
  return nodes;
}

using Columns = std::vector<Column<MigrateGroup>>;

Column<MigrateGroup> text_column(std::string name, std::string help, bool by_default, const char* key,
                                 const std::function<std::string(const MigrateGroup&)>& text) {
  return {.name = std::move(name),
          .help = std::move(help),
          .by_default = by_default,
          .text = text,
          .json = [key, text](const MigrateGroup& row, Json& json) { json[key] = text(row); }};
}

Column<MigrateGroup> count_column(std::string name, std::string help, const char* key,
                                  std::uint64_t MigrateCounts::* count) {
  return {.name = std::move(name),
          .help = std::move(help),
          .right = true,
          .text =
              [count](const MigrateGroup& row) {
                return row.counts.*count == 0 ? std::string(".") : std::to_string(row.counts.*count);
              },
          .json = [key, count](const MigrateGroup& row, Json& json) { json[key] = row.counts.*count; }};
}

Column<MigrateGroup> nodes_column(std::string name, std::string help, const char* key,
                                  std::vector<std::uint64_t> MigrateGroup::* pages) {
  return {.name = std::move(name),
          .help = std::move(help),
          .text = [pages](const MigrateGroup& row) { return nodes_text(row.*pages); },
          .json = [key, pages](const MigrateGroup& row, Json& json) { json[key] = nodes_json(row.*pages); }};
}

Columns make_columns() {
  Columns columns;
  columns.push_back(text_column("KIND", "anonymous, heap, stack, file, shm or special", true, "kind",
                                [](const MigrateGroup& row) { return std::string(to_string(row.kind)); }));
  columns.push_back(
      {.name = "FILE",
       .help = "what is mapped",
       .text = [](const MigrateGroup& row) { return row.path.empty() ? "-" : escape_text(row.path); },
       .json = [](const MigrateGroup& row, Json& json) { put_path(json, "path", row.path); }});
  columns.push_back(text_column("POLICY", "effective policy", true, "policy", [](const MigrateGroup& row) {
    return row.policy.empty() ? "-" : escape_text(row.policy);
  }));
  columns.push_back(text_column("SOURCE", "where the policy comes from", false, "source",
                                [](const MigrateGroup& row) { return std::string(to_string(row.source)); }));
  columns.push_back(
      text_column("DECISION", "follow, exclusive, placement, stay or skip", true, "decision",
                  [](const MigrateGroup& row) { return std::string(to_string(row.decision)); }));
  columns.push_back(text_column("REASON", "why", false, "reason",
                                [](const MigrateGroup& row) { return escape_text(row.reason); }));
  columns.push_back({.name = "MAPPINGS",
                     .help = "how many there are, in all processes",
                     .right = true,
                     .by_default = false,
                     .text = [](const MigrateGroup& row) { return std::to_string(row.mappings); },
                     .json = [](const MigrateGroup& row, Json& json) { json["mappings"] = row.mappings; }});
  columns.push_back(nodes_column("BEFORE", "node:pages", "pages_by_node", &MigrateGroup::before));
  columns.push_back(nodes_column("AFTER", "node:pages", "pages_by_node_after", &MigrateGroup::after));
  columns.push_back(count_column("MOVED", "pages", "moved_pages", &MigrateCounts::moved));
  columns.push_back(
      count_column("STAYED", "pages that stay where they are", "stayed_pages", &MigrateCounts::stayed));
  columns.push_back(
      count_column("BUSY", "pages that were held all the time", "busy_pages", &MigrateCounts::busy));
  columns.push_back(
      count_column("FAILED", "pages without room or right", "failed_pages", &MigrateCounts::failed));
  columns.push_back(
      count_column("FORCED", "pages that stay, but for the cpuset", "forced_pages", &MigrateCounts::forced));
  return columns;
}

constexpr std::size_t first_failure = 11;  // BUSY, FAILED, FORCED: shown where there are any

/// What there was to look at: mappings without a page tell nothing.
bool is_shown(const MigrateGroup& group) {
  const MigrateCounts& counts = group.counts;
  return counts.moved + counts.stayed + counts.busy + counts.failed + counts.vanished > 0;
}

std::string mebibytes(std::uint64_t pages) {
  return fmt::format("{:.1f} MiB",
                     static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1U << 20U));
}

double gigabytes_per_second(const MigrateReport& report) {
  return report.moving_seconds > 0 ? static_cast<double>(report.moved_bytes) / report.moving_seconds / 1e9
                                   : 0;
}

}  // namespace

void print_report(Command& command, const MigrateReport& report, const MigrateOptions& options,
                  const TableOptions& table) {
  const Columns columns = make_columns();
  std::string unknown;
  auto chosen = choose(columns, table, unknown);
  std::vector<MigrateGroup> rows;
  for (const MigrateGroup& group : report.groups) {
    if (is_shown(group)) rows.push_back(group);
  }
  if (table.output.empty()) {
    std::erase_if(chosen, [&](const Column<MigrateGroup>* column) {
      if (column < &columns[first_failure]) return false;
      return std::ranges::all_of(rows, [&](const MigrateGroup& row) { return column->text(row) == "."; });
    });
  }
  if (!rows.empty()) print_rows(chosen, rows, table);
  const MigrateCounts& counts = report.counts;
  std::string text;
  if (options.dry_run) {
    text = fmt::format("{} processes: {} would move, {} stay", report.processes, mebibytes(counts.moved),
                       mebibytes(counts.stayed));
  } else {
    text = fmt::format("{} processes: {} moved in {:.3f} s ({:.2f} GB/s), {} stay", report.processes,
                       mebibytes(counts.moved), report.moving_seconds, gigabytes_per_second(report),
                       mebibytes(counts.stayed));
    if (report.frozen_seconds > 0) text += fmt::format("; frozen for {:.3f} s", report.frozen_seconds);
    if (report.quiet_pages > 0) text += fmt::format(", {} moved before", mebibytes(report.quiet_pages));
  }
  if (options.set_cpuset)
    text += fmt::format("; cpuset.mems {} -> {}",
                        report.cpuset_before.empty() ? "(its parent's)" : report.cpuset_before,
                        report.cpuset_after);
  if (report.misplaced) text += fmt::format("; verified: {} pages misplaced", *report.misplaced);
  command.print(text + "\n");
}

std::string unknown_column(const TableOptions& table) {
  const Columns columns = make_columns();
  std::string unknown;
  (void)choose(columns, table, unknown);
  return unknown;
}

std::string report_columns_help() {
  return column_help(make_columns());
}

void report_failures(Command& command, const MigrateReport& report, const MigrateOptions& options) {
  for (const std::string& text : report.notes) command.note(escape_text(text));
  for (const MigrateGroup& group : report.groups) {
    const std::string name =
        group.path.empty() ? std::string(to_string(group.kind)) : escape_text(group.path);
    if (group.counts.forced > 0) {
      command.note(
          fmt::format("{}: {} pages {} forced by cpuset: they were to stay, but the job loses their node",
                      name, group.counts.forced, options.dry_run ? "would be" : "are"));
    }
    if (group.counts.busy > 0)
      command.error(fmt::format("{}: {} pages are busy and did not move", name, group.counts.busy));
    if (group.counts.failed > 0)
      command.error(fmt::format("{}: {} pages could not be moved", name, group.counts.failed));
  }
  if (report.misplaced.value_or(0) > 0)
    command.error(fmt::format("{} pages are not where they were moved to", *report.misplaced));
  if (!report.failure.empty()) command.error(escape_text(report.failure));
  if (report.stopped) {
    command.error(fmt::format("stopped: {} moved, the rest stays where it was; the same command goes on",
                              mebibytes(report.counts.moved)));
  }
}

void report_refusal(Command& command, const Error& error) {
  std::string message = error.message;
  if (error.code == ENOSPC) message += " (--partial goes on all the same); nothing was moved";
  command.error(message);
}

std::string progress_text(const MigrateProgress& progress) {
  switch (progress.phase) {
    case MigrateProgress::Phase::plan:
      return "looking at the job";
    case MigrateProgress::Phase::freeze:
      return "freezing the job";
    case MigrateProgress::Phase::cpuset:
      return "setting the cpuset";
    case MigrateProgress::Phase::verify:
      return "looking again";
    case MigrateProgress::Phase::quiet:
    case MigrateProgress::Phase::move:
      break;
  }
  return fmt::format("{} of {} moved{}", mebibytes(progress.done_pages), mebibytes(progress.all_pages),
                     progress.phase == MigrateProgress::Phase::quiet ? ", the job runs" : "");
}

}  // namespace fpolicy::tools
