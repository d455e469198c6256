// SPDX-License-Identifier: LGPL-2.1-or-later
#include "enforcer.h"

#include "journal.h"

#include <fpolicy/tree.h>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace fpolicy::policyd {
namespace {

using Clock = Work::Clock;
using namespace std::chrono_literals;

/// A write to cgroup.procs seldom comes alone.
constexpr auto debounce = 3ms;

/// Directory tags are remembered at most this long after a directory was renamed or retagged behind our back.
constexpr auto longest_lookup = 10s;

/// Files met and page runs remembered: some 4 MiB and 1.5 MiB at most.
constexpr std::size_t most_known = 16'384;
constexpr std::size_t most_runs = 65'536;

/// Lookups remembered, of files without a policy as well: some 2 MiB at most.
constexpr std::size_t most_cached = 16'384;

/// Paths of changed files that wait: some 10 MiB at most.
constexpr std::size_t most_waiting_paths = 65'536;

/// Cgroups whose moves are counted one by one.
constexpr std::size_t most_counted = 4096;

/// A package manager replaces many files at a time.
constexpr auto appeared_delay = 50ms;

/// Files of which it is told once why they get no tag.
constexpr std::size_t most_not_carried = 4096;

/// After a move, files that others map are looked at as well.
constexpr auto sweep_delay = 300ms;

/// A pinned file that others open, read or write is looked at this long afterwards, once.
constexpr auto pin_delay = 1s;

/// A job may map any number of files. What a move takes longer than this lets all others go first.
constexpr auto longest_turn = 100ms;

/// Who maps which file, as found in one round: some 6 MiB at most.
constexpr std::size_t most_mappers = 65'536;
/// Of one file, should the first have ended; of one inode number, which several subvolumes of btrfs may have.
constexpr std::ptrdiff_t most_mappers_of_file = 3;
constexpr std::ptrdiff_t most_mappers_of_inode = 16;
/// Files of a round for which all processes are looked through where that was not enough. Each may take long;
/// of more nobody's job is known.
constexpr unsigned most_searches = 16;

/// Untagged files of whose paths the catalogue was asked: some 3 MiB at most.
constexpr std::size_t most_asked = 16'384;

/// What repeats itself (sweeps, retries) takes at most 1/16 of the worker's time each.
constexpr int work_share = 16;

const std::uint64_t page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));

/// A user's placement holds within the nodes of the job only.
Target confine(Target target, const NodeSet& allowed) {
  target.nodes = target.nodes & allowed;
  std::erase_if(target.slots, [&allowed](unsigned node) { return !allowed.contains(node); });
  return target;
}

/// Must it be known who maps the file? Not for a placement by node numbers that root chose.
bool depends_on_job(const Effective& effective) {
  if (!effective.policy) return false;
  const Policy& policy = *effective.policy;
  return effective.from_user || !policy.has_absolute_placement() || policy.word != NodeWord::list;
}

bool is_own_tag(Source source) {
  return source == Source::system_xattr || source == Source::user_xattr || source == Source::database;
}

std::string cgroup_name(const std::string& path) {
  return "/" + path;
}

bool is_below(const std::string& path, const std::string& directory) {
  if (directory == "/") return path.starts_with('/');
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

std::string key_name(std::string_view kind, const FileKey& key) {
  return fmt::format("{}:{}:{}", kind, key.device, key.inode);
}

/// Pages of a file that prefer has left on other nodes.
std::uint64_t count_spilled(const Target& target, const Residency& residency) {
  if (target.mode != Mode::prefer) return 0;
  std::uint64_t spilled = 0;
  for (unsigned node = 0; node < residency.pages_by_node.size(); ++node) {
    if (!target.nodes.contains(node)) spilled += residency.pages_by_node[node];
  }
  return spilled;
}

Result<Fd> reopen(const KnownFile& file) {
  Stay where{.key = file.key, .birth_ns = file.birth_ns, .path = file.path, .mappers = {}};
  if (file.mapped) where.mappers.push_back(*file.mapped);
  return policyd::reopen(where);
}

}  // namespace

/// One round over files, each looked at once.
struct Enforcer::Pass {
  Priority priority = Priority::background;
  /// By user (whose tags are trusted depends on who maps), and by the superblock's device.
  std::unordered_map<uid_t, std::unordered_set<FileKey, FileKeyHash>> mapped_seen;
  std::unordered_set<FileKey, FileKeyHash> seen;
  std::string below;  ///< only files below this directory
  EachApplied each;
  EachError error;
  /// Who maps which inode number, looked up once for all files of the round that need it.
  struct Mapper {
    MappedAt at;
    std::size_t process = 0;  ///< in statuses
  };
  std::optional<std::unordered_multimap<ino_t, Mapper>> mappers;
  bool has_all_mappers = true;
  unsigned searches = 0;
  std::vector<ProcessStatus> statuses;
  std::uint64_t files = 0;
  std::uint64_t moved = 0;
  std::uint64_t misplaced = 0;
  /// The walk of a tree keeps to a rate.
  std::uint64_t walked = 0;
  Clock::time_point walk_began;

  /// Of a move: when its turn is over, and whether it then goes on in the pauses of others or stops.
  Clock::time_point turn_ends = Clock::time_point::max();
  bool yields = true;
  bool is_cut = false;

  bool after_move = false;  ///< what is brought home of pages that stay has slipped
  std::uint64_t slipped = 0;

  void add(const Applied& applied) {
    ++files;
    if (after_move && applied.stays) slipped += applied.moved_pages;
    moved += applied.moved_pages;
    misplaced += applied.misplaced_pages;
    if (each) each(applied);
  }
};

/// An enforcement under way. Urgent work that runs in its pauses may find that the same file's policy has
/// changed: then the rest of the outer one is out of date.
struct Enforcer::Frame {
  Frame(Enforcer* its_enforcer, const FileKey& its_key, const std::string& path)
      : enforcer(its_enforcer), key(its_key) {
    for (Frame* outer : enforcer->frames_) outer->superseded = outer->superseded || outer->key == key;
    enforcer->frames_.push_back(this);
    const std::scoped_lock lock(enforcer->activity_mutex_);
    outer_activity = std::exchange(enforcer->activity_, Activity{.path = path, .since = Clock::now()});
  }
  ~Frame() {
    enforcer->frames_.pop_back();
    const std::scoped_lock lock(enforcer->activity_mutex_);
    enforcer->activity_ = std::move(outer_activity);
  }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

  Enforcer* enforcer;
  FileKey key;
  bool superseded = false;
  bool over_budget = false;
  std::optional<Activity> outer_activity;
};

Enforcer::Enforcer(const Parts& parts, const Config& config)
    : parts_(parts),
      config_(config),
      bandwidth_(config.bandwidth_mib << 20U, 1s, Clock::now()),
      budgets_(config.user_budget_mib),
      known_(most_known, most_runs),
      pins_(config.pin_max_bytes),
      carry_over_(parts.records, parts.store, parts.identifier),
      cache_(most_cached),
      lookups_since_(Clock::now()) {
  parts_.resolver->set_user_tags(config.user_tags);
}

// Scheduling.

void Enforcer::schedule_move(const CgroupChange& change) {
  if (change.kind == CgroupChange::Kind::unknown) {
    schedule_all_jobs(100ms);
    return;
  }
  const bool is_attach = change.kind == CgroupChange::Kind::attach;
  const bool fits =
      parts_.queue->push({.priority = Priority::move,
                          .key = fmt::format("{}:{}", is_attach ? "attach" : "mems", change.cgroup),
                          .due = Clock::now() + debounce,
                          .run = [this, change] { job_moved(change); }});
  if (!fits) schedule_all_jobs(100ms);
}

void Enforcer::schedule_all_jobs(std::chrono::milliseconds delay) {
  parts_.queue->push({.priority = Priority::tag, .key = "all", .due = Clock::now() + delay, .run = [this] {
                        ++parts_.counters->rescans;
                        Pass pass;
                        pass.priority = Priority::tag;
                        all_jobs(pass);
                      }});
}

void Enforcer::schedule_start() {
  schedule_all_jobs();
  parts_.queue->push({.priority = Priority::background, .key = "catalogue", .due = {}, .run = [this] {
                        Pass pass;
                        catalogue(pass);
                      }});
}

void Enforcer::schedule_changed_paths(std::vector<std::string> paths) {
  // More than this waits: one pass over everything costs no more, and remembers nothing.
  const std::size_t count = paths.size();
  if (waiting_paths_ + count > most_waiting_paths) {
    schedule_start();
    return;
  }
  waiting_paths_ += count;
  const auto shared = std::make_shared<const std::vector<std::string>>(std::move(paths));
  // Each call is work of its own: a second change may come while the first is worked on.
  const bool fits = parts_.queue->push({.priority = Priority::tag,
                                        .key = fmt::format("changed:{}", ++changes_),
                                        .due = {},
                                        .run = [this, shared] {
                                          waiting_paths_ -= shared->size();
                                          forget_lookups();
                                          Pass pass;
                                          pass.priority = Priority::tag;
                                          for (const std::string& path : *shared) changed_path(path, pass);
                                          write_catalogue();
                                        }});
  if (fits) return;
  waiting_paths_ -= count;
  schedule_start();
}

void Enforcer::schedule_changed_files(std::vector<Fd> files, const Asker& asker,
                                      const std::function<void()>& done) {
  const auto shared = std::make_shared<const std::vector<Fd>>(std::move(files));
  const bool fits = parts_.queue->push({.priority = Priority::tag,
                                        .key = fmt::format("changed:{}", ++changes_),
                                        .due = {},
                                        .run = [this, shared, asker, done] {
                                          forget_lookups();
                                          Pass pass;
                                          pass.priority = Priority::tag;
                                          for (const Fd& file : *shared) {
                                            if (!breathe(pass.priority)) break;
                                            ++parts_.counters->tag_changes;
                                            open_file(file.get(), "", asker, pass, true);
                                          }
                                          write_catalogue();
                                          done();
                                        }});
  if (fits) return;
  schedule_all_jobs(1s);
  done();
}

void Enforcer::schedule_config(const Config& config) {
  parts_.queue->push({.priority = Priority::request, .key = "config", .due = {}, .run = [this, config] {
                        if (config.bandwidth_mib != config_.bandwidth_mib) {
                          bandwidth_ = Bucket(config.bandwidth_mib << 20U, 1s, Clock::now());
                        }
                        if (config.user_budget_mib != config_.user_budget_mib) {
                          budgets_ = UserBudgets(config.user_budget_mib);
                        }
                        if (config.pin_max_bytes != config_.pin_max_bytes) {
                          pins_.set_max(config.pin_max_bytes);
                          // Those that come first are held again.
                          const bool is_over = pins_.held_bytes() > config.pin_max_bytes;
                          for (const FileKey& key : pins_.keys()) {
                            if (is_over) pins_.let_go(key);
                            schedule_pin(key, 0ms);
                          }
                        }
                        config_ = config;
                        parts_.resolver->set_user_tags(config.user_tags);
                        forget_lookups();
                      }});
}

void Enforcer::schedule_rules_changed() {
  parts_.queue->push({.priority = Priority::request, .key = "rules", .due = {}, .run = [this] {
                        forget_lookups();
                        schedule_all_jobs();
                      }});
}

void Enforcer::schedule_retry(const FileKey& key, std::chrono::milliseconds delay) {
  parts_.queue->push({.priority = Priority::background,
                      .key = key_name("retry", key),
                      .due = Clock::now() + delay,
                      .run = [this, key] { retry(key); }});
}

void Enforcer::schedule_changed_pins() {
  for (const FileKey& key : pins_.read_changes()) schedule_pin(key, pin_delay);
}

void Enforcer::schedule_appeared(const DirectoryWatch::Notices& notices) {
  bool lost = notices.lost;
  {
    const std::scoped_lock lock(appeared_mutex_);
    for (const std::string& path : notices.paths) {
      if (appeared_.size() < most_waiting_paths) {
        appeared_.insert(path);
      } else {
        lost = true;
      }
    }
  }
  const bool fits = parts_.queue->push(
      {.priority = Priority::tag, .key = "appeared", .due = Clock::now() + appeared_delay, .run = [this] {
         appeared();
       }});
  // The whole catalogue is looked through then.
  if (lost || !fits) schedule_start();
}

void Enforcer::schedule_pin(const FileKey& key, std::chrono::milliseconds delay) {
  parts_.queue->push({.priority = Priority::background,
                      .key = key_name("pin", key),
                      .due = Clock::now() + delay,
                      .run = [this, key] { refresh_pin(key); }});
}

void Enforcer::schedule_mappers(std::chrono::milliseconds delay) {
  const auto wait = std::max<Clock::duration>(delay, Clock::duration(looking_took_) * work_share);
  parts_.queue->push(
      {.priority = Priority::request, .key = "mappers", .due = Clock::now() + wait, .run = [this] {
         look_for_mappers();
       }});
}

void Enforcer::schedule_sweep() {
  const auto due = std::max(Clock::now() + sweep_delay, swept_ + sweep_took_ * work_share);
  parts_.queue->push({.priority = Priority::tag, .key = "sweep", .due = due, .run = [this] { sweep(); }});
}

// Pauses.

void Enforcer::run_urgent(Priority than) {
  while (const auto work = parts_.queue->pop_urgent(than)) work->run();
}

bool Enforcer::breathe(Priority priority) {
  run_urgent(priority);
  return !parts_.queue->closed();
}

/// The same in the midst of a job. False also where the round has to stop.
bool Enforcer::go_on(Pass& pass) {
  if (Clock::now() >= pass.turn_ends) {
    if (!pass.yields) {
      pass.is_cut = true;
      return false;
    }
    pass.turn_ends = Clock::time_point::max();
    pass.priority = Priority::background;
    // The files that are known to have a policy need not wait for those that may not.
    schedule_sweep();
  }
  return breathe(pass.priority);
}

std::optional<Enforcer::Activity> Enforcer::activity() const {
  const std::scoped_lock lock(activity_mutex_);
  return activity_;
}

void Enforcer::forget_lookups() {
  parts_.resolver->invalidate();
  cache_.invalidate();
  asked_.clear();
  lookups_since_ = Clock::now();
}

// Rounds.

void Enforcer::job_moved(const CgroupChange& change) {
  const bool is_attach = change.kind == CgroupChange::Kind::attach;
  ++(is_attach ? parts_.counters->attaches : parts_.counters->moves);
  if (moves_of_.size() < most_counted || moves_of_.contains(change.cgroup)) ++moves_of_[change.cgroup];
  look_at_moved(change);
}

void Enforcer::look_at_moved(const CgroupChange& change) {
  const bool is_attach = change.kind == CgroupChange::Kind::attach;
  Pass pass;
  pass.priority = Priority::move;
  pass.after_move = true;
  pass.turn_ends = Clock::now() + longest_turn;
  // Thousands of cgroups may stand below: other moves need not wait for them, but for those that are
  // themselves done in such a pause (which bounds the stack).
  pass.yields = !std::exchange(yielding_, true);
  const auto walked = parts_.cgroups->walk(change.cgroup, !is_attach,
                                           [&](const std::string& /*path*/, const std::vector<pid_t>& pids) {
                                             for (const pid_t pid : pids) {
                                               process(pid, pass);
                                               if (pass.is_cut) return false;
                                             }
                                             if (!pass.yields) return !parts_.queue->closed();
                                             pass.priority = std::max(pass.priority, Priority::tag);
                                             return breathe(pass.priority);
                                           });
  if (pass.yields) yielding_ = false;
  if (pass.is_cut) {
    // From the beginning: where it was is not there any more when its turn comes.
    const bool fits = parts_.queue->push({.priority = Priority::background,
                                          .key = fmt::format("rest:{}", change.cgroup),
                                          .due = {},
                                          .run = [this, change] { look_at_moved(change); }});
    if (!fits) schedule_all_jobs(100ms);
  }
  parts_.counters->pages_slipped += pass.slipped;
  // A cgroup that is gone took its processes along; their pages are looked at below.
  if (!walked && walked.error().code != ENOENT) report_error(walked.error());
  if (pass.files > 0) {
    Event event;
    event.kind = is_attach ? EventKind::attach : EventKind::move;
    event.cgroup = cgroup_name(change.cgroup);
    event.moved_pages = pass.moved;
    event.misplaced_pages = pass.misplaced;
    event.message = fmt::format("{} files with a policy", pass.files);
    parts_.events->add(std::move(event));
  }
  // The kernel moved what the process mapped when it was attached: by now it may have started another program
  // or ended.
  if (known_.size() > pass.files) schedule_sweep();
}

void Enforcer::all_jobs(Pass& pass) {
  const auto pids = list_processes();
  if (!pids) {
    report_error(pids.error());
    return;
  }
  for (const pid_t pid : *pids) {
    process(pid, pass);
    if (!breathe(pass.priority)) return;
  }
}

void Enforcer::catalogue(Pass& pass) {
  // Each call may take long: the store lets its lock go meanwhile.
  const auto status = parts_.records->for_each("", [&](const TagRecord& record) {
    if (!breathe(pass.priority)) return false;
    if (!record.path.empty()) directories_.watch_directory_of(record.path);
    auto file = parts_.identifier->open(record.identity, record.path);
    if (!file) {
      // Replaced while policyd did not run, or where no watch has seen it.
      if (file.error().code == ESTALE && !record.path.empty() && carry_over(record.path)) {
        changed_path(record.path, pass);
        return true;
      }
      // Not mounted, deleted, replaced: nothing of it is in memory under this record.
      if (pass.error && file.error().code != ESTALE && file.error().code != ENODEV) {
        pass.error(record.path, file.error());
      }
      return true;
    }
    const auto found = file_info(file->get());
    if (!found) return true;
    correct_catalogue(file->get(), path_here(file->get(), found->key));
    if (found->is_directory()) {
      const std::string path = path_here(file->get(), found->key);
      if (!path.empty()) tree(path, pass);
    } else {
      open_file(file->get(), "", std::nullopt, pass, false);
    }
    return true;
  });
  if (!status) report_error(status.error());
  write_catalogue();
}

/// The xattrs of a file say what its tags are: an entry that says something else, or is missing, was not told
/// of a change (a user's, or one made with setfattr). Only the catalogue: files are not written to unasked
/// (queryfpolicy --repair moves tags). Queued; write_catalogue() commits.
void Enforcer::correct_catalogue(int fd, const std::string& path) {
  FileRef file;
  file.fd = fd;
  file.path = path;
  const auto done = parts_.store->reconcile(file);
  // No identity in this mount namespace, no record: another file may well have one.
  if (!done && done.error().code != ENODEV && done.error().code != ENOTSUP) report_error(done.error());
}

void Enforcer::write_catalogue() {
  if (const auto done = parts_.store->flush(); !done) report_error(done.error());
}

bool Enforcer::carry_over(const std::string& path) {
  const auto carried = carry_over_.carry(path);
  const auto done = carry_over_.finish();
  if (!done) report_error(done.error());
  if (!carried) {
    if (not_carried_.size() >= most_not_carried) not_carried_.clear();
    if (!not_carried_.insert(path).second) return false;
    log_line(Level::notice, carried.error().message);
    Event event;
    event.kind = EventKind::carry;
    event.path = path;
    event.message = carried.error().message;
    parts_.events->add(std::move(event));
    return false;
  }
  if (!*carried) return false;
  not_carried_.erase(path);
  // Where the database holds the tag nothing of the file has changed.
  forget_lookups();
  directories_.watch_directory_of(path);
  for (const auto& tag : (*carried)->tags) {
    ++parts_.counters->tags_carried;
    Event event;
    event.kind = EventKind::carry;
    event.path = path;
    event.policy = format_policy(tag.policy);
    event.message = "the file was replaced";
    parts_.events->add(std::move(event));
  }
  return true;
}

/// The same for a file that is met again and again: the catalogue is asked once, until something changes.
/// (The ctime tells an inode number that is used again.)
bool Enforcer::carry_over_once(const Subject& subject) {
  if (asked_.size() >= most_asked) asked_.clear();
  const auto [asked, is_new] = asked_.try_emplace(subject.info.key, subject.info.ctime_ns, subject.path);
  if (!is_new) {
    const std::pair now(subject.info.ctime_ns, subject.path);
    if (asked->second == now) return false;
    asked->second = now;
  }
  return carry_over(subject.path);
}

void Enforcer::appeared() {
  std::unordered_set<std::string> paths;
  {
    const std::scoped_lock lock(appeared_mutex_);
    paths.swap(appeared_);
  }
  Pass pass;
  pass.priority = Priority::tag;
  for (const std::string& path : paths) {
    if (!breathe(pass.priority)) return;
    if (carry_over(path)) changed_path(path, pass);
  }
  write_catalogue();
}

void Enforcer::sweep() {
  const auto began = Clock::now();
  Pass pass;
  pass.priority = Priority::tag;
  pass.after_move = true;
  for (const FileKey& key : known_.keys()) {
    if (!breathe(pass.priority)) return;
    const KnownFile* known = known_.find(key);
    if (known == nullptr) continue;
    const auto file = reopen(*known);
    if (!file) {
      if (!known->mapped && known->path.empty()) known_.erase(key);
      continue;
    }
    Subject subject = met_before(*known, file->get(), pass.priority);
    if (!inspect(subject)) continue;
    if (const auto effective = lookup(subject); effective && *effective) {
      pass.add(enforce(subject, **effective));
    }
  }
  parts_.counters->pages_slipped += pass.slipped;
  swept_ = Clock::now();
  sweep_took_ = swept_ - began;
}

void Enforcer::retry(const FileKey& key) {
  const KnownFile* known = known_.find(key);
  if (known == nullptr || known->backoff == 0ms) return;
  ++parts_.counters->retries;
  const auto file = reopen(*known);
  if (!file) {
    // Unmounted or deleted, or its last process has ended: there is nothing left to try.
    known_.clear_backoff(key);
    waiting_for_retry_ = known_.waiting();
    return;
  }
  Subject subject = met_before(*known, file->get(), Priority::background);
  if (!inspect(subject)) return;
  const auto effective = lookup(subject);
  if (!effective) {
    // What brings the file up again will tell.
    known_.clear_backoff(key);
  } else if (!*effective) {
    known_.erase(key);
  } else {
    const Applied applied = enforce(subject, **effective);
    if (applied.moved_pages > 0) report(EventKind::retry, "", fmt::format("{}: tried again", applied.path));
    return;
  }
  waiting_for_retry_ = known_.waiting();
}

void Enforcer::refresh_pin(const FileKey& key) {
  const auto known = pins_.find(key);
  if (!known) return;
  const auto file = reopen(*known);
  if (!file) {
    // Deleted or unmounted: what was held are nobody's pages any more.
    unpin(key);
    return;
  }
  Subject subject = met_before(*known, file->get(), Priority::background);
  if (!inspect(subject)) return;
  if (const auto effective = lookup(subject); effective && *effective) enforce(subject, **effective);
}

void Enforcer::unpin(const FileKey& key) {
  if (!pins_.release(key)) return;
  for (const FileKey& waiting : pins_.refused()) schedule_pin(waiting, 0ms);
}

void Enforcer::enter_stay(const Subject& subject) {
  Stay stay{.key = subject.info.key, .birth_ns = subject.info.birth_ns, .path = subject.path, .mappers = {}};
  if (subject.mapped) stay.mappers.push_back(*subject.mapped);
  if (!stays_.put(std::move(stay))) return;
  schedule_mappers(0ms);
  if (!subject.mapped) stays_.watch(subject.info.key, subject.fd);
}

void Enforcer::look_for_mappers() {
  const auto began = Clock::now();
  const auto inodes = stays_.inodes();
  std::unordered_multimap<ino_t, MappedAt> mappers;
  if (!inodes.empty()) {
    for (const pid_t pid : list_processes().value_or(std::vector<pid_t>())) {
      if (!breathe(Priority::request)) return;
      add_mappers(pid, inodes, mappers);
    }
  }
  stays_.set_mappers(mappers);
  for (const Stay& stay : stays_.unwatched()) {
    if (!breathe(Priority::request)) return;
    if (const auto file = reopen(stay); !file) {
      stays_.erase(stay.key);
    } else if (!stays_.watch(stay.key, file->get())) {
      break;  // then it is found mapped when something else asks for a round
    }
  }
  looking_took_ = (Clock::now() - began).count();
}

bool Enforcer::pin(const Subject& subject, int fd, const Effective& effective, const PlacementReport& report,
                   const std::vector<PageRun>& resident, Applied& applied) {
  if (pins_.is_current(subject.info.key, subject.info.ctime_ns, report.residency.resident_pages))
    return false;
  const std::string reason = pins_.hold(known_file(subject, effective), subject.info.ctime_ns, fd,
                                        report.residency.page_size, resident);
  if (reason.empty()) return true;
  const KnownFile* known = known_.find(subject.info.key);
  if (known == nullptr || known->reason != reason)
    log_line(Level::warning, fmt::format("{}: {}", subject.path, reason));
  if (applied.reason.empty()) applied.reason = reason;
  return false;
}

void Enforcer::process(pid_t pid, Pass& pass) {
  // What policyd maps, it maps to look at it: its own nodes are nobody's job.
  if (pid == ::getpid()) return;
  // A process that ends while we look is no error.
  const auto process = Process::open(pid);
  if (!process) return;
  const auto mappings = process->file_mappings();
  if (!mappings) {
    if (mappings.error().code != ESRCH && mappings.error().code != EACCES && mappings.error().code != EPERM) {
      report_error(mappings.error());
    }
    return;
  }
  if (mappings->empty()) return;
  const auto status = process->status();
  if (!status) return;
  if (const auto refreshed = parts_.mounts->refresh(); !refreshed) report_error(refreshed.error());
  FileMapping last;
  for (const FileMapping& mapping : *mappings) {
    // The segments of one library lie side by side.
    const bool is_same =
        mapping.device == last.device && mapping.inode == last.inode && mapping.start == last.end;
    last = mapping;
    if (is_same || !parts_.mounts->contains(mapping.device)) continue;
    if (parts_.mounts->numbers_are_unique(mapping.device) &&
        !pass.mapped_seen[status->uid].insert({mapping.device, mapping.inode}).second) {
      continue;
    }
    mapped_file(*process, *status, mapping, pass);
    if (!go_on(pass)) return;
  }
}

void Enforcer::mapped_file(const Process& process, const ProcessStatus& status, const FileMapping& mapping,
                           Pass& pass) {
  const auto file = process.open_mapped(mapping);
  if (!file) return;
  Subject subject{.fd = file->get(),
                  .info = {},
                  .path = "",
                  .uid = status.uid,
                  .allowed = status.allowed_nodes,
                  .mapped = MappedAt{.pid = process.pid(), .mapping = mapping},
                  .priority = pass.priority};
  if (!inspect(subject)) return;
  if (pass.seen.contains(subject.info.key)) return;
  auto found = lookup(subject);
  if (!found) return;
  if (const bool has_tag = *found && is_own_tag((*found)->source);
      !has_tag && !subject.path.empty() && carry_over_once(subject) && inspect(subject)) {
    found = lookup(subject);
    if (!found) return;
  }
  const auto& effective = *found;
  if (!effective || (!pass.below.empty() && !is_below(subject.path, pass.below))) return;
  pass.seen.insert(subject.info.key);
  pass.add(enforce(subject, *effective));
}

void Enforcer::changed_path(const std::string& path, Pass& pass) {
  if (!breathe(pass.priority)) return;
  ++parts_.counters->tag_changes;
  directories_.watch_directory_of(path);
  if (!open_path(path, pass, true)) return;
  // A directory: the files that somebody maps first, then all others.
  Pass mapped;
  mapped.priority = pass.priority;
  mapped.below = path;
  mapped.each = pass.each;
  mapped.error = pass.error;
  all_jobs(mapped);
  pass.seen.insert(mapped.seen.begin(), mapped.seen.end());
  tree(path, pass);
}

/// Enforces a file. True where the path is a directory's.
bool Enforcer::open_path(const std::string& path, Pass& pass, bool is_asked_for) {
  const auto file = open_named(path, false);
  if (!file) {
    if (pass.error) pass.error(path, file.error());
    return false;
  }
  if (S_ISDIR(file->mode)) {
    if (is_asked_for) correct_catalogue(file->fd.get(), file->path);
    return true;
  }
  open_file(file->fd.get(), file->path, std::nullopt, pass, is_asked_for);
  return false;
}

void Enforcer::tree(const std::string& path, Pass& pass) {
  auto root = open_named(path, false);
  if (!root) {
    if (pass.error) pass.error(path, root.error());
    return;
  }
  TreeOptions options;
  options.threads = 1;
  pass.walk_began = Clock::now();
  pass.walked = 0;
  TreeVisitor visitor;
  visitor.visit = [](const TreeEntry& entry, std::string& output) {
    if (entry.directory) return;
    output.append(entry.file.path).push_back('\0');
  };
  visitor.emit = [&](std::string_view names) {
    while (!names.empty()) {
      const auto end = names.find('\0');
      const std::string name(names.substr(0, end));
      names.remove_prefix(end == std::string_view::npos ? names.size() : end + 1);
      if (!breathe(pass.priority)) return false;
      open_path(name, pass, false);
      // Ahead of the rate by 50 ms: wait.
      const auto due = pass.walk_began +
                       std::chrono::microseconds(++pass.walked * 1'000'000 / config_.walk_files_per_second);
      while (due > Clock::now() + 50ms && !parts_.queue->closed()) {
        parts_.queue->pause(pass.priority, due);
        run_urgent(pass.priority);
      }
    }
    return !parts_.queue->closed();
  };
  visitor.error = [&](std::string_view name, const Error& error) {
    log_line(Level::warning, fmt::format("{}: {}", name, error.message));
  };
  walk_tree(std::move(*root), options, visitor);
}

void Enforcer::open_file(int fd, const std::string& path, const std::optional<Asker>& asker, Pass& pass,
                         bool is_asked_for) {
  Subject subject{.fd = fd,
                  .info = {},
                  .path = path,
                  .uid = 0,
                  .allowed = parts_.topology->memory,
                  .mapped = std::nullopt,
                  .priority = pass.priority};
  if (!inspect(subject)) return;
  // A rule may match the path of a file of /proc or a cgroup, which has no pages there, and whose opening is
  // not for us.
  if (const auto holds = holds_file_pages(fd); !holds || !*holds) return;
  if (!pass.seen.insert(subject.info.key).second) return;
  if (is_asked_for) correct_catalogue(fd, path.empty() ? path_here(fd, subject.info.key) : path);
  subject.uid = subject.info.owner;
  if (asker) subject.allowed = asker->allowed;
  // Whose job: the last that was seen to map it.
  if (const KnownFile* known = known_.find(subject.info.key);
      known != nullptr && known->mapped && known->birth_ns == subject.info.birth_ns) {
    subject.uid = known->uid;
    subject.allowed = known->allowed;
    subject.mapped = known->mapped;
  }
  auto found = lookup(subject);
  if (found && *found && !subject.mapped && depends_on_job(**found) && find_job(subject, pass)) {
    found = lookup(subject);
  }
  // What is known of a file stands as long as nobody can say that it has no tag any more.
  if (!found) {
    if (pass.error) pass.error(subject.path, found.error());
  } else if (*found) {
    pass.add(enforce(subject, **found));
  } else {
    known_.erase(subject.info.key);
    if (is_asked_for && pass.each) pass.each({.path = subject.path, .policy = "", .reason = ""});
  }
}

/// Enters who maps which file. A user's processes may map one file any number of times: of each a few are
/// entered, and where there are too many files, not all are.
void Enforcer::find_mappers(Pass& pass) {
  pass.mappers.emplace();
  if (const auto refreshed = parts_.mounts->refresh(); !refreshed) report_error(refreshed.error());
  for (const pid_t pid : list_processes().value_or(std::vector<pid_t>())) {
    run_urgent(pass.priority);
    // An enforcement that this one has interrupted holds a window of its file mapped.
    if (pid == ::getpid()) continue;
    const auto process = Process::open(pid);
    if (!process) continue;
    const auto mappings = process->file_mappings();
    const auto status = process->status();
    if (!mappings || !status) continue;
    pass.statuses.push_back(*status);
    for (const FileMapping& mapping : *mappings) {
      if (parts_.mounts->contains(mapping.device)) enter_mapper({.pid = pid, .mapping = mapping}, pass);
    }
  }
}

void Enforcer::enter_mapper(const MappedAt& at, Pass& pass) const {
  const auto [first, end] = pass.mappers->equal_range(at.mapping.inode);
  const auto is_same_file = [&](const auto& entry) {
    return entry.second.at.mapping.device == at.mapping.device;
  };
  // Of a process that maps two files with one number the first counts.
  if (std::any_of(first, end,
                  [&](const auto& entry) { return entry.second.at.pid == at.pid && is_same_file(entry); }))
    return;
  if (parts_.mounts->numbers_are_unique(at.mapping.device) &&
      std::count_if(first, end, is_same_file) >= most_mappers_of_file)
    return;
  if (pass.mappers->size() >= most_mappers || std::distance(first, end) >= most_mappers_of_inode) {
    pass.has_all_mappers = false;
    return;
  }
  pass.mappers->emplace(at.mapping.inode, Pass::Mapper{.at = at, .process = pass.statuses.size() - 1});
}

/// Does this process map the file there? Then it is its job's.
bool Enforcer::is_mapped_by(Subject& subject, const MappedAt& at, const ProcessStatus& status) {
  const auto process = Process::open(at.pid);
  if (!process) return false;
  const auto file = process->open_mapped(at.mapping);
  if (!file) return false;
  const auto info = file_info(file->get());
  if (!info || info->key != subject.info.key) return false;
  subject.mapped = at;
  subject.uid = status.uid;
  subject.allowed = status.allowed_nodes;
  return true;
}

/// Whose job maps the file, if anyone's.
bool Enforcer::find_job(Subject& subject, Pass& pass) {
  if (!pass.mappers) find_mappers(pass);
  const auto [first, end] = pass.mappers->equal_range(subject.info.key.inode);
  for (auto entry = first; entry != end; ++entry)
    if (is_mapped_by(subject, entry->second.at, pass.statuses[entry->second.process])) return true;
  if (pass.has_all_mappers || ++pass.searches > most_searches) return false;
  // It may be one of those that were not entered.
  const std::unordered_set<ino_t> inodes{subject.info.key.inode};
  for (const pid_t pid : list_processes().value_or(std::vector<pid_t>())) {
    run_urgent(pass.priority);
    std::unordered_multimap<ino_t, MappedAt> mappers;
    add_mappers(pid, inodes, mappers);
    if (mappers.empty()) continue;
    const auto process = Process::open(pid);
    const auto status = process ? process->status() : tl::unexpected(process.error());
    if (!status) continue;
    for (const auto& [inode, at] : mappers)
      if (is_mapped_by(subject, at, *status)) return true;
  }
  return false;
}

// One file.

KnownFile Enforcer::known_file(const Subject& subject, const Effective& effective) {
  return {.key = subject.info.key,
          .birth_ns = subject.info.birth_ns,
          .path = subject.path,
          .mapped = subject.mapped,
          .uid = subject.uid,
          .allowed = subject.allowed,
          .policy = effective.text,
          .state = FileState::ok,
          .misplaced_pages = 0,
          .reason = "",
          .home = std::nullopt};
}

Enforcer::Subject Enforcer::met_before(const KnownFile& known, int fd, Priority priority) {
  return {.fd = fd,
          .info = {},
          .path = "",
          .uid = known.uid,
          .allowed = known.allowed,
          .mapped = known.mapped,
          .priority = priority};
}

/// False for what is no regular file.
bool Enforcer::inspect(Subject& subject) {
  auto info = file_info(subject.fd);
  if (!info || !info->is_regular()) return false;
  subject.info = *info;
  return true;
}

/// Null: nothing is wanted of the file. An error is reported here.
Result<std::shared_ptr<const Effective>> Enforcer::lookup(Subject& subject) {
  if (Clock::now() - lookups_since_ > longest_lookup) forget_lookups();
  const PolicyCache::Key key{.device = subject.info.key.device,
                             .inode = subject.info.key.inode,
                             .ctime_ns = subject.info.ctime_ns,
                             .job_uid = subject.uid};
  auto effective = cache_.find(key);
  if (!effective || effective->source != Source::none) {
    if (subject.path.empty()) subject.path = path_here(subject.fd, subject.info.key);
  }
  if (!effective) {
    const auto generation = cache_.generation();
    FileRef file;
    file.fd = subject.fd;
    file.path = subject.path;
    auto resolved = parts_.resolver->resolve(file, subject.path, subject.uid);
    if (!resolved) {
      report_error(resolved.error());
      return tl::unexpected(resolved.error());
    }
    effective = std::make_shared<const Effective>(std::move(*resolved));
    cache_.insert(key, effective, generation);
    if (effective->source == Source::system_xattr || effective->source == Source::user_xattr) {
      correct_catalogue(subject.fd, subject.path);
      write_catalogue();
    }
  }
  if (is_own_tag(effective->source)) directories_.watch_directory_of(subject.path);
  if (effective->source != Source::none) return effective;
  unpin(subject.info.key);
  stays_.erase(subject.info.key);
  return nullptr;
}

PlacementOptions Enforcer::options(Subject& subject, bool is_users, Frame& frame) {
  PlacementOptions options;
  options.threads = config_.threads;
  options.after_window = [this, &subject, is_users, &frame](std::uint64_t moved_pages) {
    const std::uint64_t bytes = moved_pages * page_bytes;
    if (config_.bandwidth_mib > 0) bandwidth_.take(bytes, Clock::now());
    if (is_users) budgets_.take(subject.uid, bytes, Clock::now());
    run_urgent(subject.priority);
    while (config_.bandwidth_mib > 0 && !parts_.queue->closed()) {
      const auto ready = bandwidth_.ready(Clock::now());
      if (ready <= Clock::now()) break;
      parts_.queue->pause(subject.priority, ready);
      run_urgent(subject.priority);
    }
    if (is_users && budgets_.is_spent(subject.uid, Clock::now())) frame.over_budget = true;
    return !frame.superseded && !frame.over_budget && !parts_.queue->closed();
  };
  return options;
}

Applied Enforcer::enforce(Subject& subject, const Effective& effective) {
  Applied applied = bring_home(subject, effective);
  applied.stays = pages_stay(effective);
  if (applied.stays) {
    enter_stay(subject);
  } else {
    stays_.erase(subject.info.key);
  }
  return applied;
}

Applied Enforcer::bring_home(Subject& subject, const Effective& effective) {
  Applied applied;
  applied.path = subject.path;
  applied.policy = effective.text;
  if (!effective.policy || !effective.policy->pin) unpin(subject.info.key);
  if (effective.unsupported) {
    applied.state = FileState::unsupported;
    applied.reason = fmt::format("{}: not understood", effective.origin);
    settle(subject, applied, false, std::nullopt);
    return applied;
  }
  // A rule that says "none", or a tag that wants nothing of its pages.
  if (!effective.policy) return applied;
  const Policy& policy = *effective.policy;
  if (policy.has_placement()) return place(subject, effective, std::move(applied));
  if (policy.migrate != Migrate::yes || policy.pin) return stay(subject, effective, std::move(applied));
  applied.state = FileState::ok;
  return applied;
}

/// What was done, or why nothing was: then false.
bool Enforcer::enter(const Result<PlacementReport>& report, Applied& applied) {
  if (!report) {
    applied.reason = report.error().message;
    report_error(report.error());
    return false;
  }
  applied.resident_pages = report->residency.resident_pages;
  applied.moved_pages = report->moved_pages;
  applied.misplaced_pages = report->misplaced_pages;
  applied.state = report->misplaced_pages > 0 ? FileState::misplaced : FileState::ok;
  applied.reason = report->reason;
  return true;
}

Applied Enforcer::place(Subject& subject, const Effective& effective, Applied applied) {
  const bool is_users = effective.from_user;
  auto target = evaluate_placement(*effective.policy, *parts_.topology, subject.allowed);
  if (target && is_users) {
    *target = confine(std::move(*target), subject.allowed);
    if (target->nodes.empty()) target = fail(ENODEV, "a user's placement outside the nodes of the job");
  }
  if (!target) {
    unpin(subject.info.key);
    applied.state = FileState::unsatisfiable;
    applied.reason = target.error().message;
    settle(subject, applied, false, std::nullopt);
    return applied;
  }
  if (is_users && budgets_.is_spent(subject.uid, Clock::now())) {
    ++parts_.counters->budget_deferrals;
    applied.state = FileState::misplaced;
    applied.reason = fmt::format("the budget of user {} is used up for now", subject.uid);
    settle(subject, applied, true, std::nullopt);
    return applied;
  }
  const auto file = open_for_reading(subject.fd, subject.path);
  if (!file) {
    applied.reason = file.error().message;
    report_error(file.error());
    return applied;
  }
  const auto began = Clock::now();
  Frame frame(this, subject.info.key, subject.path);
  PlacementOptions choice = options(subject, is_users, frame);
  std::vector<PageRun> now;
  if (effective.policy->pin) choice.runs = &now;
  // What is held cannot be moved.
  const auto pinned = pins_.find(subject.info.key);
  if (pinned && pinned->policy != effective.text) pins_.let_go(subject.info.key);
  auto report = enforce_file(file->get(), *target, *parts_.topology, choice);
  if (report && report->misplaced_pages > 0 && !frame.superseded && pins_.let_go(subject.info.key)) {
    const std::uint64_t moved = report->moved_pages;
    report = enforce_file(file->get(), *target, *parts_.topology, choice);
    if (report) report->moved_pages += moved;
  }
  if (!enter(report, applied)) return applied;
  applied.spilled_pages = count_spilled(*target, report->residency);
  parts_.counters->pages_moved += report->moved_pages;
  if (frame.over_budget) {
    // The report covers what was looked at until then.
    ++parts_.counters->budget_deferrals;
    applied.state = FileState::misplaced;
    applied.reason = fmt::format("the budget of user {} is used up for now", subject.uid);
  }
  if (effective.policy->pin && !frame.superseded) {
    if (applied.state != FileState::ok) {
      pins_.refuse(known_file(subject, effective),
                   fmt::format("not pinned: {} of its pages are misplaced", applied.misplaced_pages));
    } else if (pin(subject, file->get(), effective, *report, now, applied)) {
      // Between being placed and being held pages may have been taken along by others.
      const auto check =
          audit_file(file->get(), *target, *parts_.topology, options(subject, is_users, frame));
      if (check && check->misplaced_pages > 0) {
        pins_.let_go(subject.info.key);
        static_cast<void>(enter(check, applied));
      }
    }
    // Last: what we do ourselves is not to be told.
    pins_.watch(subject.info.key, subject.fd);
  } else if (effective.policy->pin) {
    // Whatever came between may have found pages that were let go here.
    schedule_pin(subject.info.key, pin_delay);
  }
  applied.took = Clock::now() - began;
  if (!frame.superseded) settle(subject, applied, is_users, std::nullopt);
  return applied;
}

Applied Enforcer::stay(Subject& subject, const Effective& effective, Applied applied) {
  applied.state = FileState::ok;
  // Nobody takes the pages of a file along that nobody maps.
  const KnownFile* known = known_.find(subject.info.key);
  if (!subject.mapped && known == nullptr && !effective.policy->pin) return applied;
  const auto file = open_for_reading(subject.fd, subject.path);
  if (!file) {
    applied.reason = file.error().message;
    report_error(file.error());
    return applied;
  }
  const bool is_users = effective.from_user;
  std::vector<PageRun> home;
  if (known != nullptr && known->home && known->birth_ns == subject.info.birth_ns) {
    home = *known->home;
    // A user's file does not leave the nodes of the job.
    if (is_users)
      std::erase_if(home, [&](const PageRun& run) { return !subject.allowed.contains(run.node); });
  }
  std::vector<PageRun> now;
  const auto began = Clock::now();
  Frame frame(this, subject.info.key, subject.path);
  PlacementOptions choice = options(subject, is_users, frame);
  choice.runs = &now;
  const auto report = home.empty() ? audit_file(file->get(), Target{}, *parts_.topology, choice)
                                   : return_home(file->get(), home, *parts_.topology, choice);
  if (!enter(report, applied)) return applied;
  if (effective.policy->pin && !frame.superseded) {
    pin(subject, file->get(), effective, *report, now, applied);
    pins_.watch(subject.info.key, subject.fd);
  }
  parts_.counters->pages_returned += report->moved_pages;
  applied.took = Clock::now() - began;
  if (frame.superseded) return applied;
  // Pages that are still astray must not be taken for being at home.
  const bool is_whole = report->misplaced_pages == 0 && !frame.over_budget;
  settle(subject, applied, is_users, is_whole || home.empty() ? std::move(now) : std::move(home));
  return applied;
}

void Enforcer::settle(const Subject& subject, const Applied& applied, bool is_users,
                      std::optional<std::vector<PageRun>> home) {
  ++parts_.counters->files_enforced;
  const KnownFile* before = known_.find(subject.info.key);
  // What is in order and was not out of order before is no news.
  const auto state_before = before == nullptr ? FileState::ok : before->state;
  const bool is_news = applied.moved_pages > 0 || state_before != applied.state ||
                       (before != nullptr && before->reason != applied.reason);
  const auto waited = before == nullptr ? 0ms : before->backoff;
  KnownFile file{.key = subject.info.key,
                 .birth_ns = subject.info.birth_ns,
                 .path = subject.path,
                 .mapped = subject.mapped,
                 .uid = subject.uid,
                 .allowed = subject.allowed,
                 .policy = applied.policy,
                 .state = applied.state,
                 .misplaced_pages = applied.misplaced_pages,
                 .reason = applied.reason,
                 .home = std::move(home)};
  using std::chrono::milliseconds;
  const bool gets_on = applied.state == FileState::misplaced && applied.moved_pages > 0;
  const milliseconds next = waited == 0ms || gets_on ? milliseconds(config_.first_retry) : waited * 2;
  // Where prefer found no room some may come soon: what was freed a moment ago stands on the processors'
  // lists. A few tries; later is for whatever brings the file up again.
  const bool may_fit_soon = applied.spilled_pages > 0 && next <= config_.longest_retry;
  if (applied.state == FileState::misplaced || may_fit_soon) {
    file.backoff = std::min<milliseconds>(next, config_.longest_retry);
    // What moved pages was worth its time.
    const auto wasted = applied.moved_pages > 0 ? Clock::duration{} : applied.took;
    auto delay = std::max(file.backoff, std::chrono::ceil<milliseconds>(wasted * work_share));
    if (is_users) {
      const auto ready = budgets_.ready(subject.uid, Clock::now());
      const auto most = Clock::now() + config_.longest_retry;
      delay = std::max(delay, std::chrono::ceil<milliseconds>(std::min(ready, most) - Clock::now()));
    }
    schedule_retry(subject.info.key, delay);
  }
  known_.put(std::move(file));
  waiting_for_retry_ = known_.waiting();
  if (!is_news) return;
  Event event;
  event.kind = EventKind::enforce;
  event.path = applied.path;
  event.policy = applied.policy;
  event.moved_pages = applied.moved_pages;
  event.misplaced_pages = applied.misplaced_pages;
  if (!applied.reason.empty()) event.message = applied.reason;
  parts_.events->add(std::move(event));
}

// Requests.

void Enforcer::apply_everything(const EachApplied& each, const EachError& error) {
  forget_lookups();
  Pass pass;
  pass.priority = Priority::request;
  pass.each = each;
  pass.error = error;
  all_jobs(pass);
  catalogue(pass);
}

void Enforcer::apply_paths(const std::vector<std::string>& paths, const EachApplied& each,
                           const EachError& error) {
  forget_lookups();
  Pass pass;
  pass.priority = Priority::request;
  pass.each = each;
  pass.error = error;
  for (const std::string& path : paths) {
    if (!breathe(pass.priority)) return;
    if (open_path(path, pass, true)) tree(path, pass);
  }
  write_catalogue();
}

void Enforcer::apply_files(const std::vector<Fd>& files, const Asker& asker, const EachApplied& each,
                           const EachError& error) {
  forget_lookups();
  Pass pass;
  pass.priority = Priority::request;
  pass.each = each;
  pass.error = error;
  for (const Fd& file : files) {
    if (!breathe(pass.priority)) return;
    open_file(file.get(), "", asker, pass, true);
  }
  write_catalogue();
}

Result<std::vector<JobInfo>> Enforcer::jobs() {
  std::vector<JobInfo> jobs;
  if (parts_.cgroups == nullptr) return fail(ENODEV, "cgroup2: not mounted");
  const auto walked =
      parts_.cgroups->walk("", true, [&](const std::string& path, const std::vector<pid_t>& pids) {
        JobInfo job;
        std::unordered_set<FileKey, FileKeyHash> seen;
        for (const pid_t pid : pids) {
          const auto process = Process::open(pid);
          if (!process) continue;
          const auto mappings = process->file_mappings();
          const auto status = process->status();
          if (!mappings || !status) continue;
          if (!mappings->empty()) ++job.processes;
          for (const FileMapping& mapping : *mappings) {
            if (!parts_.mounts->contains(mapping.device) ||
                !seen.insert({mapping.device, mapping.inode}).second) {
              continue;
            }
            run_urgent(Priority::request);
            const auto file = process->open_mapped(mapping);
            if (!file) continue;
            Subject subject{.fd = file->get(),
                            .info = {},
                            .path = "",
                            .uid = status->uid,
                            .allowed = {},
                            .mapped = std::nullopt};
            if (!inspect(subject)) continue;
            const auto effective = lookup(subject);
            if (!effective || !*effective || !(*effective)->policy) continue;
            ++job.tagged_files;
            if (const KnownFile* known = known_.find(subject.info.key))
              job.misplaced_pages += known->misplaced_pages;
          }
        }
        run_urgent(Priority::request);
        if (job.tagged_files == 0) return !parts_.queue->closed();
        job.cgroup = cgroup_name(path);
        if (const auto mems = parts_.cgroups->effective_mems(path); mems && mems->has_value()) {
          job.mems = mems->value().format();
        }
        if (const auto moves = moves_of_.find(path); moves != moves_of_.end()) job.moves = moves->second;
        jobs.push_back(std::move(job));
        return !parts_.queue->closed();
      });
  if (!walked) return tl::unexpected(walked.error());
  return jobs;
}

void Enforcer::report(EventKind kind, const std::string& cgroup, const std::string& message) {
  Event event;
  event.kind = kind;
  if (!cgroup.empty()) event.cgroup = cgroup;
  event.message = message;
  parts_.events->add(std::move(event));
}

void Enforcer::report_tags(const std::string& first, std::size_t count) {
  Event event;
  event.kind = EventKind::tag;
  event.path = first;
  if (count > 1) event.message = fmt::format("and {} others", count - 1);
  parts_.events->add(std::move(event));
}

void Enforcer::report_error(const Error& error) {
  ++parts_.counters->errors;
  log_line(Level::error, error.message);
  report(EventKind::error, "", error.message);
}

}  // namespace fpolicy::policyd
