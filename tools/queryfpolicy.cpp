// SPDX-License-Identifier: LGPL-2.1-or-later
// queryfpolicy: audits where files' pages are against what their policies say.
#include "common/audit.h"
#include "common/catalogue.h"
#include "common/columns.h"
#include "common/command.h"
#include "common/repair.h"
#include "common/resolution.h"
#include "common/stores.h"
#include "common/text.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/mounted.h>
#include <fpolicy/process.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>
#include <fpolicy/tree.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

/// Machines with more nodes get one column for all of them.
constexpr unsigned most_node_columns = 8;

struct Options {
  Locations locations;
  LinkOptions links;
  TableOptions table;
  bool recursive = false;
  bool all = false;
  bool check = false;
  bool graph = false;
  bool stale = false;
  bool repair = false;
  bool dry_run = false;
  pid_t pid = 0;
  std::string job;
};

using Columns = std::vector<Column<AuditedFile>>;

std::string count_or_unknown(const AuditedFile& row, std::uint64_t count) {
  return row.residency ? std::to_string(count) : "?";
}

std::uint64_t on_node(const AuditedFile& row, unsigned node) {
  if (!row.residency || node >= row.residency->pages_by_node.size()) return 0;
  return row.residency->pages_by_node[node];
}

Json nodes_json(const AuditedFile& row) {
  if (!row.residency) return nullptr;
  Json nodes = Json::object();
  for (unsigned node = 0; node < row.residency->pages_by_node.size(); ++node) {
    if (on_node(row, node) != 0) nodes[std::to_string(node)] = on_node(row, node);
  }
  return nodes;
}

std::string nodes_text(const AuditedFile& row) {
  if (!row.residency) return "?";
  std::string text;
  for (unsigned node = 0; node < row.residency->pages_by_node.size(); ++node) {
    if (on_node(row, node) != 0)
      text += fmt::format("{}{}:{}", text.empty() ? "" : " ", node, on_node(row, node));
  }
  return text;
}

/// The node columns stand for the machine that the command runs on.
Columns make_columns(const NodeSet& nodes) {
  Columns columns;
  columns.push_back({.name = "FILE",
                     .help = "absolute path",
                     .text = [](const AuditedFile& row) { return escape_text(row.path); },
                     .json = [](const AuditedFile& row, Json& json) { put_path(json, "path", row.path); }});
  columns.push_back(
      {.name = "POLICY",
       .help = "effective policy",
       .text = [](const AuditedFile& row) { return row.policy ? escape_text(*row.policy) : "-"; },
       .json = [](const AuditedFile& row,
                  Json& json) { json["policy"] = row.policy ? Json(*row.policy) : Json(nullptr); }});
  columns.push_back({.name = "SOURCE",
                     .help = "where the policy comes from",
                     .text = [](const AuditedFile& row) { return row.source; },
                     .json = [](const AuditedFile& row, Json& json) { json["source"] = row.source; }});
  columns.push_back(
      {.name = "ORIGIN",
       .help = "the attribute, directory, or rule (file:line) that it stands in",
       .by_default = false,
       .text = [](const AuditedFile& row) { return escape_text(row.origin); },
       .json = [](const AuditedFile& row, Json& json) { put_path(json, "origin", row.origin); }});
  columns.push_back({.name = "RESIDENT",
                     .help = "pages in the page cache",
                     .right = true,
                     .text =
                         [](const AuditedFile& row) {
                           return count_or_unknown(row, row.residency ? row.residency->resident_pages : 0);
                         },
                     .json =
                         [](const AuditedFile& row, Json& json) {
                           json["resident_pages"] =
                               row.residency ? Json(row.residency->resident_pages) : Json(nullptr);
                         }});
  columns.push_back(
      {.name = "NODES",
       .help = "node:pages for each node that has some",
       .by_default = nodes.size() > most_node_columns,
       .text = nodes_text,
       .json = [](const AuditedFile& row, Json& json) { json["pages_by_node"] = nodes_json(row); }});
  for (const unsigned node : nodes.members()) {
    columns.push_back(
        {.name = fmt::format("N{}", node),
         .help = fmt::format("pages on node {}", node),
         .right = true,
         .by_default = nodes.size() <= most_node_columns,
         .text =
             [node](const AuditedFile& row) {
               return !row.residency            ? "?"
                      : on_node(row, node) == 0 ? "."
                                                : std::to_string(on_node(row, node));
             },
         .json = [](const AuditedFile& row, Json& json) { json["pages_by_node"] = nodes_json(row); }});
  }
  columns.push_back({.name = "MISPLACED",
                     .help = "pages on a node that the policy does not allow",
                     .right = true,
                     .text = [](const AuditedFile& row) { return count_or_unknown(row, row.misplaced); },
                     .json =
                         [](const AuditedFile& row, Json& json) {
                           json["misplaced_pages"] = row.residency ? Json(row.misplaced) : Json(nullptr);
                         }});
  columns.push_back({.name = "STATE",
                     .help = "ok, misplaced, unset, unsupported, unsatisfiable, stale or unknown",
                     .text = [](const AuditedFile& row) { return std::string(to_string(row.state)); },
                     .json =
                         [](const AuditedFile& row, Json& json) {
                           json["state"] =
                               row.state == State::unknown ? Json(nullptr) : Json(to_string(row.state));
                         }});
  columns.push_back({.name = "REASON",
                     .help = "why the state is not ok",
                     .by_default = false,
                     .text = [](const AuditedFile& row) { return escape_text(row.reason); },
                     .json =
                         [](const AuditedFile& row, Json& json) {
                           if (!row.reason.empty()) json["reason"] = row.reason;
                         }});
  return columns;
}

class QueryFpolicy {
 public:
  QueryFpolicy(Command& command, Options options, Topology topology)
      : command_(command), options_(std::move(options)), topology_(std::move(topology)) {}

  Status open() {
    auto stores = Stores::open(options_.locations, Database::Access::read_only);
    if (!stores) return tl::unexpected(stores.error());
    stores_ = *std::move(stores);
    auto resolution = Resolution::open(options_.locations, stores_->store());
    if (!resolution) return tl::unexpected(resolution.error());
    resolution_ = *std::move(resolution);
    nobodys_.allowed = topology_.memory;
    // One file at a time: all processors for it.
    whole_.emplace(*resolution_.resolver, topology_, options_.graph, 0);
    each_.emplace(*resolution_.resolver, topology_, options_.graph, 1);
    return {};
  }

  void collect() {
    command_.for_each_name([&](const std::string& name) { named(name); });
    if (options_.all || options_.stale) catalogue();
    if (options_.pid != 0) process(options_.pid);
    if (!options_.job.empty()) job(options_.job);
  }

  [[nodiscard]] const std::vector<AuditedFile>& rows() const { return rows_; }

  /// --check: a line for each fault.
  void check() {
    for (const AuditedFile& row : rows_) {
      if (row.state == State::ok || row.state == State::unset || is_unreadable(row)) continue;
      std::string text(to_string(row.state));
      if (row.state == State::misplaced && row.residency) {
        text = fmt::format("{} of {} resident pages misplaced", row.misplaced, row.residency->resident_pages);
      }
      if (row.policy) text += fmt::format(" ({})", escape_text(*row.policy));
      if (!row.reason.empty()) text += ": " + escape_text(row.reason);
      command_.error(escape_text(row.path) + ": " + text);
    }
  }

 private:
  /// Nobody knows its policy.
  static bool is_unreadable(const AuditedFile& row) { return row.state == State::unknown && !row.policy; }

  /// A tag that cannot be read is an error; pages that this caller is not told of are none.
  [[nodiscard]] AuditedFile audited(const Auditor& auditor, const NamedFile& file, const std::string& shown,
                                    const AuditJob& job) const {
    AuditedFile row = auditor.audit(file, shown, job);
    if (is_unreadable(row)) command_.error(row.path, Error{EIO, row.reason});
    return row;
  }

  void add(AuditedFile row) {
    rows_.push_back(std::move(row));
    command_.progress([&] { return fmt::format("{} files", rows_.size()); });
  }

  void named(const std::string& name) {
    auto file = open_target(name, options_.links.follow_named());
    if (!file) return command_.error(name, file.error());
    if (!S_ISDIR(file->mode)) return add(audited(*whole_, *file, file->path, nobodys_));
    if (options_.recursive) {
      tree(*std::move(file), [&](AuditedFile row) { add(std::move(row)); });
    } else {
      add(sum_of(*std::move(file)));
    }
  }

  /// A directory in one row: its own policy, and the pages of all files below it.
  AuditedFile sum_of(NamedFile directory) {
    AuditedFile sum = audited(*each_, directory, directory.path, nobodys_);
    sum.path += sum.path == "/" ? "" : "/";
    sum.residency.emplace();
    tree(std::move(directory), [&](const AuditedFile& row) { add_to_sum(sum, row); });
    return sum;
  }

  template <class Take>
  void tree(NamedFile root, const Take& take) {
    std::mutex mutex;
    std::vector<AuditedFile> found;
    std::atomic<std::uint64_t> visited = 0;
    const TreeVisitor visitor{
        .visit =
            [&](const TreeEntry& entry, std::string&) {
              if (entry.directory) return;
              ++visited;
              auto file = hold(entry.file);
              if (!file) {
                if (file.error().code != ENOENT) command_.error(entry.file.path, file.error());
                return;
              }
              file->path = entry.file.path;
              AuditedFile row = audited(*each_, *file, file->path, nobodys_);
              const std::scoped_lock lock(mutex);
              found.push_back(std::move(row));
            },
        .emit =
            [&](std::string_view) {
              command_.progress([&] { return fmt::format("{} files", visited.load()); });
              return true;
            },
        .error = [&](std::string_view path, const Error& error) { command_.error(path, error); }};
    walk_tree(std::move(root), options_.links.tree(), visitor);
    std::sort(found.begin(), found.end(),
              [](const AuditedFile& a, const AuditedFile& b) { return a.path < b.path; });
    for (AuditedFile& row : found) take(std::move(row));  // NOLINT(misc-const-correctness): moved from
  }

  /// The catalogue: every tag that was ever set and not removed, and what has become of its file.
  void catalogue() {
    const Status read =
        for_each_record(*stores_, options_.locations, [&](const TagRecord& record, bool first) {
          if (first) catalogued(record);
        });
    if (!read) command_.error("--all: " + read.error().message);
  }

  /// That a file cannot be found is none where its filesystem is not mounted, or another is as well or over
  /// it, nor where it is not for this caller to see.
  static bool is_fault(int code) {
    return code != ENODEV && code != ENOTUNIQ && code != EXDEV && code != EPERM && code != EACCES;
  }

  void catalogued(const TagRecord& record) {
    const auto row_for = [&](State state, std::string reason) {
      AuditedFile row;
      row.path = record.path + (record.directory && !record.path.ends_with('/') ? "/" : "");
      row.policy = record.policy;
      row.source = record.carrier == Carrier::database ? "database"
                   : record.space == Space::system     ? "system-xattr"
                                                       : "user-xattr";
      row.state = state;
      row.reason = std::move(reason);
      return row;
    };
    const Finding finding = stores_->identifier().examine(record.identity, record.path);
    if (finding.fate == Fate::stale || finding.fate == Fate::gone)
      return add(row_for(State::stale, finding.reason));
    if (finding.fate == Fate::unknown) {
      // Not mounted says nothing of the record.
      if (options_.stale ? finding.code != ENODEV : is_fault(finding.code))
        command_.error(record.path, Error{finding.code, finding.reason});
      if (!options_.stale) add(row_for(State::unknown, finding.reason));
      return;
    }
    auto file = open_record(stores_->identifier(), record);
    if (!file) {
      // Between the two looks, or not for this caller to open.
      const bool lost = file.error().code == ESTALE || file.error().code == ENOENT;
      if (!lost && is_fault(file.error().code)) command_.error(record.path, file.error());
      return add(row_for(lost ? State::stale : State::unknown, file.error().message));
    }
    const FileRef ref{file->fd.get(), nullptr, file->path, file->device};
    const auto tag = stores_->store().get(ref, record.space);
    if (tag && !*tag) return add(row_for(State::stale, "the file has lost this tag (--repair removes it)"));
    if (options_.stale) {
      if (!tag) command_.error(record.path, tag.error());
      return;
    }
    if (S_ISDIR(file->mode)) {
      add(sum_of(*std::move(file)));
    } else {
      add(audited(*whole_, *file, file->path.empty() ? record.path : file->path, nobodys_));
    }
  }

  void process(pid_t pid) {
    const auto opened = Process::open(pid);
    if (!opened) return command_.error(opened.error().message);
    const auto status = opened->status();
    if (!status) return command_.error(status.error().message);
    mapped_by(*opened, AuditJob{status->allowed_nodes & topology_.memory, status->uid, true});
  }

  void job(const std::string& name) {
    const auto tree = CgroupTree::open();
    if (!tree) return command_.error("--job " + escape_text(name) + ": " + tree.error().message);
    std::string cgroup = name;
    if (cgroup.starts_with(tree->mount_point() + "/")) cgroup.erase(0, tree->mount_point().size());
    cgroup.erase(0, cgroup.find_first_not_of('/'));
    while (cgroup.ends_with('/')) cgroup.pop_back();
    const auto mems = tree->effective_mems(cgroup);
    if (!mems) return command_.error("--job " + escape_text(name) + ": " + mems.error().message);
    const NodeSet allowed = *mems ? **mems & topology_.memory : topology_.memory;
    const Status walked =
        tree->walk(cgroup, true, [&](const std::string&, const std::vector<pid_t>& processes) {
          for (const pid_t pid : processes) {
            const auto opened = Process::open(pid);
            const auto status =
                opened ? opened->status() : Result<ProcessStatus>(tl::unexpected(opened.error()));
            if (!status) {
              // Processes of a job come and go.
              if (status.error().code != ESRCH) command_.error(status.error().message);
              continue;
            }
            mapped_by(*opened, AuditJob{allowed, status->uid, true});
          }
          return true;
        });
    if (!walked) command_.error("--job " + escape_text(name) + ": " + walked.error().message);
  }

  void mapped_by(const Process& process, const AuditJob& job) {
    const auto mappings = process.file_mappings();
    if (!mappings) {
      if (mappings.error().code != ESRCH) command_.error(mappings.error().message);
      return;
    }
    if (!mounted_) {
      auto mounted = MountedDevices::open();
      if (!mounted) return command_.error(mounted.error().message);
      mounted_.emplace(*std::move(mounted));
    }
    for (const FileMapping& mapping : *mappings) {
      if (!mapped_.insert({mapping.device, mapping.inode}).second) continue;
      auto file = hold_mapped(process, mapping);
      if (!file) {
        if (file.error().code == ENOENT || file.error().code == ESRCH) continue;
        command_.error(file.error().message);
        // Without the right to look at one mapping there is none for any.
        if (file.error().code == EPERM || file.error().code == EACCES) return;
        continue;
      }
      if (!S_ISREG(file->mode)) continue;
      std::string shown = file->path;
      if (shown.empty())
        shown = fmt::format("(unreachable inode {} of process {})", file->inode, process.pid());
      // A container can forge tags on filesystems that it mounted itself.
      if (!mounted_->contains(mapping.device)) {
        AuditedFile row;
        row.path = std::move(shown);
        row.reason = "its filesystem is not mounted here: its tags do not count";
        add(std::move(row));
        continue;
      }
      add(audited(*whole_, *file, shown, job));
    }
  }

  /// The mapped file itself; for callers who may not open mappings, what is at its path if that is the same
  /// file.
  static Result<NamedFile> hold_mapped(const Process& process, const FileMapping& mapping) {
    auto fd = process.open_mapped(mapping);
    if (fd) return hold_fd(*std::move(fd));
    if (fd.error().code != EPERM) return tl::unexpected(fd.error());
    const auto path = process.mapped_path(mapping);
    if (!path) return tl::unexpected(path.error());
    auto file = open_named(*path, false);
    if (file && (file->device != mapping.device || file->inode != mapping.inode)) file = fail(ESTALE, "");
    if (!file && file.error().code != EACCES) {
      return fail(ESTALE, fmt::format("{}: mapped by process {}, and to be opened by root only",
                                      escape_text(*path), process.pid()));
    }
    if (!file) return fail(ESTALE, fmt::format("{}: {}", escape_text(*path), file.error().message));
    return file;
  }

  /// Holds what a walk has found, without opening it.
  static Result<NamedFile> hold(const FileRef& ref) {
    if (ref.fd >= 0) return hold_fd(Fd(dup_cloexec(ref.fd)));
    return open_named(ref.name, false);
  }

  static int dup_cloexec(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }

  Command& command_;
  Options options_;
  Topology topology_;
  std::unique_ptr<Stores> stores_;
  Resolution resolution_;
  std::optional<Auditor> whole_;
  std::optional<Auditor> each_;
  AuditJob nobodys_;
  std::optional<MountedDevices> mounted_;
  std::set<std::pair<dev_t, ino_t>> mapped_;
  std::vector<AuditedFile> rows_;
};

std::size_t terminal_width() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 80;
}

/// --graph: for each file a bar for each node, and a strip of where in the file its pages lie.
void print_graph(const std::vector<AuditedFile>& rows) {
  const std::size_t width = std::min<std::size_t>(terminal_width(), 120);
  for (const AuditedFile& row : rows) {
    std::string text =
        fmt::format("{}\n  {} ({}), {}", escape_text(row.path),
                    row.policy ? escape_text(*row.policy) : "no policy", row.source, to_string(row.state));
    if (row.misplaced != 0) text += fmt::format(", {} misplaced", row.misplaced);
    if (!row.reason.empty()) text += ": " + escape_text(row.reason);
    text += '\n';
    if (row.residency) {
      const std::uint64_t all = row.residency->resident_pages;
      for (unsigned node = 0; node < row.residency->pages_by_node.size(); ++node) {
        const std::uint64_t pages = on_node(row, node);
        if (pages == 0) continue;
        text += fmt::format("  node {:<4} {:>10} {:>4}% {}\n", node, pages, pages * 100 / all,
                            bar(pages, all, width - 30));
      }
      if (row.files == 1 && row.pages != 0) {
        text += fmt::format("  file  [{}]\n", page_map(row, width - 10));
      }
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
}

template <class Row>
void print_files_json(const std::vector<const Column<Row>*>& columns, const std::vector<Row>& rows) {
  std::string text = "{\"files\":[";
  for (const Row& row : rows) text += (text.back() == '[' ? "\n" : ",\n") + to_text(to_json(columns, row));
  text += "]}\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int repair(Command& command, const Options& options) {
  if (command.names().empty() && !command.null() && !options.all)
    return command.usage_error("--repair: no file named, and no --all");
  const auto columns = repair_columns();
  std::string unknown;
  const auto chosen = choose(columns, options.table, unknown);
  if (!unknown.empty())
    return command.usage_error("no column is called " + escape_text(unknown) + " (see --help)");
  Repair tool(command, {.locations = options.locations,
                        .links = options.links,
                        .recursive = options.recursive,
                        .all = options.all,
                        .dry_run = options.dry_run});
  if (const Status opened = tool.open(); !opened) {
    command.error(opened.error().message);
    return command.finish();
  }
  tool.run();
  if (command.json())
    print_files_json(chosen, tool.rows());
  else if (!tool.rows().empty())
    print_rows(chosen, tool.rows(), options.table);
  return command.finish();
}

int run(Command& command, Options options) {
  if (options.repair) return repair(command, options);
  const bool anything = !command.names().empty() || command.null() || options.all || options.stale ||
                        options.pid != 0 || !options.job.empty();
  if (!anything) return command.usage_error("no file named, and none of --all, --stale, --pid, --job");
  auto topology = Topology::read();
  if (!topology) {
    command.error(topology.error().message);
    return command.finish();
  }
  Columns columns = make_columns(topology->memory);
  std::string unknown;
  auto chosen = choose(columns, options.table, unknown);
  if (!unknown.empty())
    return command.usage_error("no column is called " + escape_text(unknown) + " (see --help)");

  const bool check = options.check;
  const bool graph = options.graph;
  const TableOptions table = options.table;
  QueryFpolicy tool(command, std::move(options), *std::move(topology));
  if (const Status opened = tool.open(); !opened) {
    command.error(opened.error().message);
    return command.finish();
  }
  tool.collect();
  if (check) tool.check();
  if (command.json()) {
    // Every field, unless -o says otherwise.
    if (table.output.empty()) {
      chosen.clear();
      for (const auto& column : columns) chosen.push_back(&column);
    }
    print_files_json(chosen, tool.rows());
  } else if (graph) {
    print_graph(tool.rows());
  } else if (!tool.rows().empty()) {
    // A reason is worth a column where there is one.
    const bool reasons = std::any_of(tool.rows().begin(), tool.rows().end(),
                                     [](const AuditedFile& row) { return !row.reason.empty(); });
    if (table.output.empty() && reasons) chosen.push_back(&columns.back());
    print_rows(chosen, tool.rows(), table);
  }
  return command.finish();
}

}  // namespace
}  // namespace fpolicy::tools

int main(int argc, char** argv) {
  using namespace fpolicy::tools;
  Command command("queryfpolicy", "Audit where files' page-cache pages are, and which are misplaced.",
                  {"[OPTION...] FILE...", "[OPTION...] --all", "[OPTION...] --stale", "[OPTION...] --pid PID",
                   "[OPTION...] --job CGROUP", "[OPTION...] --repair [-n] [--all] [FILE...]"});
  Options options;
  CLI::App& app = command.app();
  app.add_flag("-R,--recursive", options.recursive, "A row for each file below directories, not their sum");
  app.add_flag("-a,--all", options.all, "The catalogue: every file that was tagged, stale ones too");
  auto* stale =
      app.add_flag("--stale", options.stale, "The records of the catalogue that no file answers to, and why");
  auto* pid = app.add_option("-p,--pid", options.pid, "The files that a process maps")
                  ->type_name("PID")
                  ->check(CLI::PositiveNumber);
  auto* job = add_text(app, "-j,--job", options.job, "CGROUP",
                       "The files that the processes of a cgroup and those below map");
  auto* check = app.add_flag("-c,--check", options.check,
                             "Exit with 1 and name each file that is not as its policy says");
  auto* graph = app.add_flag("-g,--graph", options.graph, "Bars for nodes, and a map of each file's pages");
  auto* repair = app.add_flag("--repair", options.repair,
                              "Move tags to where they belong now, and correct the catalogue (root)");
  for (auto* other : {stale, pid, job, check, graph}) repair->excludes(other);
  app.add_flag("-n,--dry-run", options.dry_run, "With --repair: show, change nothing")->needs(repair);
  options.links.add_to(app);
  options.table.add_to(app);
  command.add_null();
  command.add_json()->excludes(graph);
  options.locations.add_to(app, true);
  command.add_names("FILE", "Files and directories");
  app.footer(column_help(make_columns(fpolicy::NodeSet{})) +
             "  N0, N1 …    pages on that node\n\nWith --repair: " + column_help(repair_columns()));
  if (const auto status = command.parse(argc, argv)) return *status;
  return run(command, std::move(options));
}
