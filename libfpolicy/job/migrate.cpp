// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/mappings.h"
#include "job/move_pages.h"
#include "sys/guardian.h"
#include "sys/job_control.h"
#include "sys/journal.h"
#include "sys/zoneinfo.h"

#include <fpolicy/migrate.h>
#include <fpolicy/page_hold.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>

namespace fpolicy {
namespace {

using Clock = std::chrono::steady_clock;
using Phase = MigrateProgress::Phase;

constexpr std::chrono::seconds longest_freeze{10};
// Children are forked while the processes of a job are being stopped: looked for again, as often as this.
constexpr unsigned most_rounds = 100;

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

/// "a/b": no empty part, no dots, no NUL.
bool is_shortest(std::string_view path) {
  if (path.size() >= PATH_MAX || path.find('\0') != std::string_view::npos) return false;
  while (true) {
    const auto slash = path.find('/');
    const auto part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

void add(std::vector<std::uint64_t>& sum, const std::vector<std::uint64_t>& pages) {
  if (sum.size() < pages.size()) sum.resize(pages.size());
  for (std::size_t node = 0; node < pages.size(); ++node) sum[node] += pages[node];
}

class Migration {
 public:
  Migration(const Job& job, const MigrateOptions& options, const Topology& topology, Resolver* resolver)
      : job_(job), options_(options), topology_(topology), mappings_(topology, options, resolver) {}

  Result<MigrateReport> run() {
    if (auto checked = check(); !checked) return tl::unexpected(checked.error());
    auto frames = sys::open_page_frames();
    if (!frames) return tl::unexpected(frames.error());
    frames_ = *std::move(frames);
    auto done = options_.dry_run ? plan() : migrate();
    if (!done) return tl::unexpected(done.error());
    return finish();
  }

 private:
  Status check() {
    if (options_.from.empty() || options_.to.empty())
      return fail(EINVAL, "the sets of nodes must not be empty");
    const NodeSet unknown = (options_.from | options_.to) - topology_.memory;
    if (!unknown.empty())
      return fail(EINVAL, fmt::format("node {} does not exist here or has no memory", unknown.format()));
    if (job_.cgroup.empty() == job_.pids.empty())
      return fail(EINVAL, "either a cgroup or processes must be named");
    if (options_.set_cpuset && job_.cgroup.empty())
      return fail(EINVAL, "only a cgroup has a cpuset that could be set");
    if (!options_.cpus.empty() && !options_.set_cpuset)
      return fail(EINVAL, "processors are set together with cpuset.mems");
    if (job_.cgroup.empty()) return {};
    // Two paths to one cgroup would not be told to be the same, and ".." leads out of the hierarchy.
    if (!is_shortest(job_.cgroup))
      return fail(EINVAL, "the cgroup's path is not in its shortest form, below the mount");
    auto tree = CgroupTree::open(options_.root);
    if (!tree) return tl::unexpected(tree.error());
    tree_.emplace(*std::move(tree));
    cgroup_ = Fd(::openat(tree_->fd(), job_.cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!cgroup_) return fail_errno("open", fmt::format("{}/{}", tree_->mount_point(), job_.cgroup));
    return {};
  }

  Status look() {
    const auto pids = job::list_job(job_, tree_ ? &*tree_ : nullptr, options_.root);
    if (!pids) return tl::unexpected(pids.error());
    if (auto read = mappings_.read(*pids, options_.root); !read) return read;
    if (mappings_.processes().empty() && !job_.pids.empty())
      return fail(ESRCH, "none of these processes exists");
    // An empty cgroup is nobody's: not to be frozen on the word of others.
    if (mappings_.processes().empty() && options_.owner) return fail(ENOENT, "no process is in this cgroup");
    return {};
  }

  /// Observes and decides. `groups` get the counts.
  Result<job::MoveRuns> survey(std::vector<MigrateGroup>& groups, std::vector<MigrateMapping>* each,
                               const job::SurveyOptions& options, std::vector<job::StayRun>* stays) {
    job::Survey survey(*frames_, topology_, *pairing_, mappings_.rules(), groups, each, options);
    for (std::size_t i = 0; i < mappings_.pages().size(); ++i) {
      // Halted, the job waits for its moves, which look whether to stop.
      if (guardian_)
        guardian_->alive();
      else if (!progress(Phase::plan, 0, 0) && !has_moved())
        return fail(EINTR, "stopped before anything had moved");
      if (auto added =
              survey.add(static_cast<std::uint32_t>(i), *mappings_.pages()[i], mappings_.mapped()[i]);
          !added)
        return tl::unexpected(added.error());
    }
    if (auto finished = survey.finish(); !finished) return tl::unexpected(finished.error());
    if (stays != nullptr) *stays = survey.stays();
    if (!guardian_) (void)progress(Phase::plan, 0, 0);
    return std::move(survey.moves());
  }

  [[nodiscard]] job::SurveyOptions survey_options() const {
    return {.leaving = leaving_, .not_to = {}, .own_pages_only = options_.own_pages_only};
  }

  Status plan() {
    const auto began = Clock::now();
    if (auto looked = look(); !looked) return looked;
    if (options_.set_cpuset) {
      if (auto opened = open_cpusets(); !opened) return opened;
      report_.cpuset_after = options_.to.format();
    } else if (auto allowed = check_allowed(); !allowed) {
      note(allowed.error().message);
    }
    pairing_.emplace(options_.from, options_.to);
    auto moves = survey(mappings_.groups(), &mappings_.mappings(), survey_options(), nullptr);
    if (!moves) return tl::unexpected(moves.error());
    report_.plan_seconds = seconds_since(began);
    report_.mappings = std::move(mappings_.mappings());
    if (const std::string lacking = lacking_room(*moves); !lacking.empty()) note(lacking);
    note_memory_policies();
    return {};
  }

  Status open_cpusets() {
    auto cpusets = sys::JobCpusets::open(*tree_, job_.cgroup);
    if (!cpusets) return tl::unexpected(cpusets.error());
    cpusets_.emplace(*std::move(cpusets));
    report_.cpuset_before = cpusets_->mems().format();
    const auto effective = cpusets_->effective();
    if (!effective) return tl::unexpected(effective.error());
    leaving_ = (*effective | options_.from) - options_.to;
    return {};
  }

  Status check_allowed() {
    const NodeSet refused = options_.to - mappings_.allowed();
    if (refused.empty()) return {};
    return fail(EACCES, fmt::format("the job's cpuset does not allow node {} (--set-cpuset sets it)",
                                    refused.format()));
  }

  Status migrate() {
    const auto began = Clock::now();
    if (auto looked = look(); !looked) return looked;
    auto journal = sys::Journal::open(journal_name());
    if (!journal) return tl::unexpected(journal.error());
    pairing_.emplace(options_.from, options_.to, resumed(*journal));
    report_.plan_seconds = seconds_since(began);
    auto done = [&]() -> Status {
      if (options_.set_cpuset) {
        if (auto opened = open_cpusets(); !opened) return opened;
        cpusets_->remember(*journal);
        if (auto widened = widen(); !widened) return widened;
      } else if (auto allowed = check_allowed(); !allowed) {
        return allowed;
      }
      if (options_.pre_copy) {
        if (auto quiet = move_quiet(); !quiet) return quiet;
      }
      return halt_and_move(*journal);
    }();
    if (!done && !has_moved()) {
      if (cpusets_) (void)cpusets_->restore();
      // As if there had been no run; one that was to be finished still is.
      if (!journal->is_resumed() || options_.owner) journal->finish();
      return done;
    }
    if (!done) report_.failure = done.error().message;
    // On the word of others nothing is left behind.
    if ((done && !report_.stopped) || options_.owner) journal->finish();
    if (cpusets_) {
      if (const auto mems = cpusets_->top(); mems) report_.cpuset_after = mems->format();
    }
    note_memory_policies();
    return {};
  }

  /// From then on what goes wrong is told in the report.
  [[nodiscard]] bool has_moved() const { return begun_ || report_.quiet_pages > 0; }

  Status widen() {
    if (auto widened = cpusets_->widen(options_.from | options_.to); !widened) return widened;
    const auto effective = cpusets_->effective();
    if (!effective) return tl::unexpected(effective.error());
    const NodeSet refused = options_.to - *effective;
    if (refused.empty()) return {};
    return fail(EACCES,
                fmt::format("the parent of cgroup {} does not allow node {}", job_.cgroup, refused.format()));
  }

  /// Before anybody is frozen: where nothing lies that is itself to go on, so that no page moves twice.
  Status move_quiet() {
    job::SurveyOptions options = survey_options();
    options.not_to = options_.from;
    quiet_ = mappings_.groups();
    auto moves = survey(quiet_, nullptr, options, nullptr);
    if (!moves) return tl::unexpected(moves.error());
    if (!options_.partial) {
      if (const std::string lacking = lacking_room(*moves); !lacking.empty()) return fail(ENOSPC, lacking);
    }
    const job::MoveResult result = move(*moves, quiet_, Phase::quiet);
    report_.quiet_pages = result.moved;
    report_.stopped = result.stopped;
    return look();
  }

  Status halt_and_move(sys::Journal& journal) {
    if (report_.stopped) return {};
    if (!options_.freeze) return move_all(journal);
    const Fd root_procs(tree_ ? ::openat(tree_->fd(), "cgroup.procs", O_WRONLY | O_CLOEXEC)
                              : root_cgroup_procs());
    auto guardian = sys::Guardian::start(root_procs.get());
    if (!guardian) return tl::unexpected(guardian.error());
    guardian_.emplace(*std::move(guardian));
    const auto began = Clock::now();
    progress(Phase::freeze, 0, 0);
    auto done = job_.cgroup.empty() ? stop_and_move(journal) : freeze_and_move(journal);
    report_.frozen_seconds = seconds_since(began);
    guardian_->done();
    guardian_.reset();
    return done;
  }

  static int root_cgroup_procs() {
    const auto tree = CgroupTree::open();
    return tree ? ::openat(tree->fd(), "cgroup.procs", O_WRONLY | O_CLOEXEC) : -1;
  }

  Status freeze_and_move(sys::Journal& journal) {
    auto frozen = sys::FrozenCgroup::freeze(cgroup_.get(), *guardian_, longest_freeze);
    if (!frozen) return with_context(job_.cgroup, frozen.error());
    if (auto looked = look(); !looked) return looked;
    return move_all(journal);
  }

  Status stop_and_move(sys::Journal& journal) {
    sys::StoppedProcesses stopped(*guardian_);
    std::vector<pid_t> known;
    for (unsigned round = 0; round < most_rounds; ++round) {
      auto pids = job::list_job(job_, nullptr, options_.root);
      if (!pids) return tl::unexpected(pids.error());
      if (*pids == known) break;
      for (const pid_t pid : *pids) {
        if (std::ranges::binary_search(known, pid)) continue;
        const auto process = Process::open(pid, options_.root);
        auto done =
            process ? job::check_owner(*process, options_.owner) : Status(tl::unexpected(process.error()));
        if (done) done = stopped.stop(*process);
        if (!done && done.error().code != ESRCH) return done;
      }
      // A fork that was under way is over when its parent stands still.
      if (auto waited = stopped.wait(longest_freeze); !waited) return waited;
      known = *std::move(pids);
    }
    if (auto looked = look(); !looked) return looked;
    return move_all(journal);
  }

  Status move_all(sys::Journal& journal) {
    const auto began = Clock::now();
    std::vector<job::StayRun> stays;
    auto moves = survey(mappings_.groups(), nullptr, survey_options(), &stays);
    if (!moves) return tl::unexpected(moves.error());
    if (!options_.partial) {
      if (const std::string lacking = lacking_room(*moves); !lacking.empty()) return fail(ENOSPC, lacking);
    }
    if (!options_.cpus.empty()) {
      if (auto set = cpusets_->set_cpus(options_.cpus); !set) return set;
    }
    const auto phase = order(*moves);
    report_.plan_seconds += seconds_since(began);
    begun_ = true;  // from here on pages have moved
    for (auto first = moves->begin(); first != moves->end();) {
      const auto end = std::find_if(first, moves->end(),
                                    [&](const job::MoveRun& run) { return phase(run) != phase(*first); });
      const std::span runs(&*first, static_cast<std::size_t>(end - first));
      const job::MoveResult result = move(runs, mappings_.groups(), Phase::move);
      if (result.stopped) {
        // What comes behind was not begun either.
        stop(std::span(&*first, static_cast<std::size_t>(moves->end() - first)).subspan(runs.size()));
        return {};
      }
      if (pairing_->target(first->source) != first->source) journal.done(first->source);
      first = end;
    }
    if (options_.verify) verify(*moves);
    return options_.set_cpuset ? take_nodes_away(stays) : Status();
  }

  void stop(std::span<const job::MoveRun> runs) {
    for (const job::MoveRun& run : runs) {
      MigrateGroup& group = mappings_.groups()[run.group];
      group.counts.moved -= run.pages;
      group.counts.stayed += run.pages;
      group.after[run.target] -= run.pages;
      group.after[run.source] += run.pages;
    }
  }

  /// Sorts the moves so that each node is left before it is filled; returns what tells the phases apart.
  [[nodiscard]] std::function<std::size_t(const job::MoveRun&)> order(job::MoveRuns& moves) const {
    const auto& sources = pairing_->order();
    std::vector<std::size_t> rank(NodeSet::max_nodes, sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) rank[sources[i]] = i;
    auto phase = [rank = std::move(rank)](const job::MoveRun& run) { return rank[run.source]; };
    std::ranges::stable_sort(moves, {}, [&](const job::MoveRun& run) {
      return std::tuple(phase(run), run.process, run.target, run.address);
    });
    return phase;
  }

  job::MoveResult move(std::span<const job::MoveRun> runs, std::vector<MigrateGroup>& groups, Phase phase) {
    std::uint64_t pages = 0;
    for (const job::MoveRun& run : runs) pages += run.pages;
    job::MoveOptions options;
    // Others have work to do, too; and where it was measured more than these brought nothing.
    constexpr unsigned most_threads = 8;
    options.threads = options_.threads > 0
                          ? options_.threads
                          : std::clamp(std::thread::hardware_concurrency() / 2, 1U, most_threads);
    options.bytes_per_second = options_.bytes_per_second;
    options.busy_retries = phase == Phase::quiet ? 0 : options_.busy_retries;
    options.page_size = page_size_;
    options.own_pages_only = options_.own_pages_only;
    options.progress = [&](std::uint64_t done) { return progress(phase, done, pages); };
    const auto began = Clock::now();
    job::MoveResult result = job::move_runs(runs, mappings_.pages(), groups, options);
    if (phase == Phase::move) {
      report_.moving_seconds += seconds_since(began);
      report_.stopped = result.stopped;
      for (std::string& text : result.notes) note(std::move(text));
    }
    return result;
  }

  bool progress(Phase phase, std::uint64_t done, std::uint64_t all) {
    if (guardian_) guardian_->alive();
    return !options_.progress || options_.progress({.phase = phase, .done_pages = done, .all_pages = all});
  }

  /// The page is on another node, as far as its frame tells.
  [[nodiscard]] bool is_astray(sys::PageEntry entry, unsigned target) const {
    if (!entry.present()) return false;
    const auto range = std::ranges::upper_bound(topology_.frames, entry.frame(), {}, &PfnRange::end);
    return range != topology_.frames.end() && entry.frame() >= range->first && range->node != target;
  }

  void verify(const job::MoveRuns& moves) {
    constexpr std::uint64_t most_entries = 65536;
    std::uint64_t misplaced = 0;
    std::vector<sys::PageEntry> entries;
    for (const job::MoveRun& run : moves) {
      // A run may be of a terabyte.
      for (std::uint64_t first = 0; first < run.pages; first += entries.size()) {
        progress(Phase::verify, 0, 0);
        entries.resize(std::min<std::uint64_t>(run.pages - first, most_entries));
        if (mappings_.pages()[run.process]->entries(run.address + first * page_size_, entries) != 0) break;
        misplaced += static_cast<std::uint64_t>(std::ranges::count_if(
            entries, [&](sys::PageEntry entry) { return is_astray(entry, run.target); }));
      }
    }
    report_.misplaced = misplaced;
  }

  /// Sets the cpuset while what must stay is held, so that the kernel leaves it.
  Status take_nodes_away(const std::vector<job::StayRun>& stays) {
    progress(Phase::cpuset, 0, 0);
    PageHold hold;
    Fd file;
    std::optional<std::uint32_t> group;
    for (const job::StayRun& run : stays) {
      MigrateGroup& of = mappings_.groups()[run.group];
      if (group != run.group) {
        auto opened = mappings_.open(run.group);
        if (!opened) note(fmt::format("{}: {}", of.path, opened.error().message));
        file = opened ? *std::move(opened) : Fd();
        group = run.group;
      }
      const std::uint64_t bytes = run.count * page_size_;
      const auto held =
          file ? hold.hold(file.get(), run.first * page_size_, bytes) : Result<std::uint64_t>(0);
      if (!held) note(fmt::format("{}: its pages cannot be held: {}", of.path, held.error().message));
      // The last page of a file is held in part.
      const std::uint64_t pages = held ? (*held + page_size_ - 1) / page_size_ : 0;
      of.counts.forced += run.count - std::min(pages, run.count);
      if (guardian_) guardian_->alive();
    }
    auto narrowed = cpusets_->narrow(options_.to, [this](const NodeSet& mems) {
      const NodeSet there = NodePairing(options_.from, options_.to).target(mems) & options_.to;
      return there.empty() ? options_.to : there;
    });
    if (!narrowed) return narrowed;
    return look_at_forced();
  }

  /// Where the kernel has taken pages that were to stay.
  Status look_at_forced() {
    std::vector<MigrateGroup>& groups = mappings_.groups();
    if (std::ranges::none_of(groups, [](const MigrateGroup& group) { return group.counts.forced > 0; }))
      return {};
    std::vector<MigrateGroup> now = groups;
    for (MigrateGroup& group : now) group.before.clear();
    if (auto looked = survey(now, nullptr, {}, nullptr); !looked) return tl::unexpected(looked.error());
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (groups[i].counts.forced > 0) groups[i].after = now[i].before;
    }
    return {};
  }

  [[nodiscard]] std::string lacking_room(const job::MoveRuns& moves) const {
    std::vector<std::uint64_t> arriving(NodeSet::max_nodes);
    std::vector<std::uint64_t> leaving(NodeSet::max_nodes);
    for (const job::MoveRun& run : moves) {
      if (mappings_.is_hugetlb(run.group)) continue;  // from a pool of its own
      arriving[run.target] += run.pages;
      leaving[run.source] += run.pages;
    }
    const auto nodes = sys::read_room(options_.root);
    if (!nodes) return "";
    std::vector<std::uint64_t> room;
    for (const sys::NodeRoom& node : *nodes) room.push_back(node.free + node.reclaimable);
    return job::lacking_room(arriving, leaving, room, page_size_);
  }

  void note_memory_policies() {
    const NodeSet left = options_.from - options_.to;
    if (left.empty()) return;
    for (const Process& process : mappings_.processes()) {
      const auto policies = process.memory_policies();
      if (!policies) continue;
      for (const MemoryPolicy& policy : *policies) {
        const NodeSet named = policy.nodes & left;
        if (named.empty()) continue;
        note(fmt::format("process {}: the memory policy {} of {} mappings {} node {}", process.pid(),
                         policy.text, policy.mappings, options_.dry_run ? "names" : "still names",
                         named.format()));
      }
    }
  }

  /// A job that overlaps with itself is moved node by node; what an earlier run has emptied is not looked at
  /// again, for what lies there now has just arrived.
  NodeSet resumed(sys::Journal& journal) {
    const NodePairing whole(options_.from, options_.to);
    const NodeSet done = journal.begin(fmt::format("{} {}", options_.from.format(), options_.to.format()));
    if ((options_.from & options_.to).empty()) return {};
    if (whole.ring()) {
      if (journal.is_resumed())
        note(
            "an earlier run was cut short, and these sets send pages round in a ring: what it had moved may "
            "move again");
      return {};
    }
    if (!done.empty())
      note(fmt::format("an earlier run was cut short: it had emptied node {}", done.format()));
    return done;
  }

  [[nodiscard]] std::string journal_name() const {
    struct stat status{};
    if (cgroup_ && ::fstat(cgroup_.get(), &status) == 0) return fmt::format("cgroup-{}", status.st_ino);
    // A process by its number and when it began, in ticks since boot: numbers come again.
    const pid_t pid = *std::ranges::min_element(job_.pids);
    return fmt::format("process-{}-{}", pid, sys::start_time(pid, options_.root).value_or(0));
  }

  void note(std::string text) {
    if (std::ranges::find(report_.notes, text) == report_.notes.end())
      report_.notes.push_back(std::move(text));
  }

  /// What moved before the freeze was found at home afterwards.
  void enter_quiet() {
    for (std::size_t i = 0; i < quiet_.size(); ++i) {
      MigrateGroup& group = report_.groups[i];
      const MigrateGroup& before = quiet_[i];
      if (begun_) {
        group.counts.moved += before.counts.moved;
        group.counts.stayed -= std::min(group.counts.stayed, before.counts.moved);
      } else {
        group.counts = before.counts;
        group.after = before.after;
      }
      group.before = before.before;
    }
  }

  MigrateReport finish() {
    for (std::string& text : mappings_.notes()) note(std::move(text));
    report_.groups = std::move(mappings_.groups());
    enter_quiet();
    report_.processes = mappings_.processes().size();
    for (const MigrateGroup& group : report_.groups) {
      const MigrateCounts& counts = group.counts;
      report_.counts.moved += counts.moved;
      report_.counts.stayed += counts.stayed;
      report_.counts.busy += counts.busy;
      report_.counts.failed += counts.failed;
      report_.counts.skipped += counts.skipped;
      report_.counts.vanished += counts.vanished;
      report_.counts.forced += counts.forced;
      add(report_.before, group.before);
      add(report_.after, group.after);
    }
    report_.moved_bytes = report_.counts.moved * page_size_;
    return std::move(report_);
  }

  const Job& job_;
  const MigrateOptions& options_;
  const Topology& topology_;
  const std::uint64_t page_size_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::unique_ptr<sys::PageFrames> frames_;
  std::optional<CgroupTree> tree_;
  Fd cgroup_;
  job::Mappings mappings_;
  std::optional<NodePairing> pairing_;
  std::optional<sys::JobCpusets> cpusets_;
  NodeSet leaving_;
  bool begun_ = false;  ///< pages have moved while the job was halted
  std::optional<sys::Guardian> guardian_;
  std::vector<MigrateGroup> quiet_;  ///< groups as they were before the freeze, and what moved then
  MigrateReport report_;
};

}  // namespace

Result<MigrateReport> migrate_job(const Job& job, const MigrateOptions& options, const Topology& topology,
                                  Resolver* resolver) {
  return Migration(job, options, topology, resolver).run();
}

}  // namespace fpolicy
