// SPDX-License-Identifier: LGPL-2.1-or-later
// Brings files' pages where their policies want them. All of it runs in one worker thread, but for what
// schedules work; at its pauses (between files, and between windows of one file) it does more urgent work
// first.
#pragma once

#include "budget.h"
#include "config.h"
#include "directory_watch.h"
#include "event_log.h"
#include "known_files.h"
#include "pins.h"
#include "stays.h"
#include "work_queue.h"

#include <fpolicy/carry_over.h>
#include <fpolicy/cgroup.h>
#include <fpolicy/mounted.h>
#include <fpolicy/open_file.h>
#include <fpolicy/placement.h>
#include <fpolicy/policy_cache.h>
#include <fpolicy/process.h>
#include <fpolicy/resolver.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace fpolicy::policyd {

/// One file, for those who asked: Applied of the Varlink interface.
struct Applied {
  std::string path;
  std::string policy;
  std::uint64_t resident_pages = 0;
  std::uint64_t moved_pages = 0;
  std::uint64_t misplaced_pages = 0;
  std::uint64_t spilled_pages = 0;  ///< of prefer: elsewhere for want of room, and in order
  FileState state = FileState::unset;
  std::string reason;
  bool stays = false;  ///< when jobs that map it move
  Work::Clock::duration took{};
};

struct JobInfo {
  std::string cgroup;
  std::string mems;
  std::uint64_t processes = 0;
  std::uint64_t tagged_files = 0;
  std::uint64_t misplaced_pages = 0;
  std::uint64_t moves = 0;
};

class Enforcer {
 public:
  /// What it works with; all of it outlives the enforcer.
  struct Parts {
    RecordStore* records = nullptr;
    PolicyStore* store = nullptr;
    Identifier* identifier = nullptr;
    Resolver* resolver = nullptr;
    const Topology* topology = nullptr;
    const CgroupTree* cgroups = nullptr;  ///< nullptr where cgroup2 is not mounted
    EventLog* events = nullptr;
    Counters* counters = nullptr;
    WorkQueue* queue = nullptr;
    MountedDevices* mounts = nullptr;
  };
  /// Whose work it is, and what he may use.
  struct Asker {
    uid_t uid = 0;
    NodeSet allowed;  ///< nodes of a caller who is not root
  };
  using EachApplied = std::function<void(const Applied&)>;
  using EachError = std::function<void(const std::string& path, const Error& error)>;

  Enforcer(const Parts& parts, const Config& config);

  // Any thread: queue work, and return at once.
  void schedule_move(const CgroupChange& change);
  void schedule_all_jobs(std::chrono::milliseconds delay = {});
  void schedule_start();
  void schedule_changed_paths(std::vector<std::string> paths);
  /// `done` is called by the worker when it is through with them.
  void schedule_changed_files(std::vector<Fd> files, const Asker& asker, const std::function<void()>& done);
  void schedule_config(const Config& config);
  void schedule_rules_changed();
  /// After pins().read_changes().
  void schedule_changed_pins();
  [[nodiscard]] Pins& pins() { return pins_; }
  /// Who maps what stays may have changed, or soon will have.
  void schedule_mappers(std::chrono::milliseconds delay);
  [[nodiscard]] Stays& stays() { return stays_; }
  /// Where files with tags may be replaced.
  [[nodiscard]] DirectoryWatch& directories() { return directories_; }
  /// After directories().read().
  void schedule_appeared(const DirectoryWatch::Notices& notices);
  [[nodiscard]] std::uint64_t waiting_for_retry() const { return waiting_for_retry_; }
  /// What is being worked on since when, for Status.
  struct Activity {
    std::string path;
    Work::Clock::time_point since;
  };
  [[nodiscard]] std::optional<Activity> activity() const;

  // The worker's thread.
  void apply_everything(const EachApplied& each, const EachError& error);
  void apply_paths(const std::vector<std::string>& paths, const EachApplied& each, const EachError& error);
  void apply_files(const std::vector<Fd>& files, const Asker& asker, const EachApplied& each,
                   const EachError& error);
  Result<std::vector<JobInfo>> jobs();

 private:
  /// A file that a policy may name, held open (O_PATH).
  struct Subject {
    int fd = -1;
    FileInfo info{};
    std::string path;  ///< in our mount namespace; empty where it has none
    uid_t uid = 0;     ///< whose job maps it; its owner where nobody does
    NodeSet allowed;   ///< nodes of that job
    std::optional<MappedAt> mapped;
    Priority priority = Priority::background;
  };
  struct Pass;
  struct Frame;

  void run_urgent(Priority than);
  /// Between two files: does what is more urgent. False when policyd stops.
  bool breathe(Priority priority);
  bool go_on(Pass& pass);

  void job_moved(const CgroupChange& change);
  void look_at_moved(const CgroupChange& change);
  void all_jobs(Pass& pass);
  void catalogue(Pass& pass);
  void correct_catalogue(int fd, const std::string& path);
  void write_catalogue();
  /// Gives the file that has this path now the tag that root had set there. False where there was nothing to
  /// give, or it may not be.
  bool carry_over(const std::string& path);
  bool carry_over_once(const Subject& subject);
  void appeared();
  void sweep();
  void retry(const FileKey& key);
  void process(pid_t pid, Pass& pass);
  void mapped_file(const Process& process, const ProcessStatus& status, const FileMapping& mapping,
                   Pass& pass);
  void changed_path(const std::string& path, Pass& pass);
  void tree(const std::string& path, Pass& pass);
  bool open_path(const std::string& path, Pass& pass, bool is_asked_for);
  void open_file(int fd, const std::string& path, const std::optional<Asker>& asker, Pass& pass,
                 bool is_asked_for);

  void find_mappers(Pass& pass);
  void enter_mapper(const MappedAt& at, Pass& pass) const;
  static bool is_mapped_by(Subject& subject, const MappedAt& at, const ProcessStatus& status);
  bool find_job(Subject& subject, Pass& pass);
  [[nodiscard]] static bool inspect(Subject& subject);
  /// A file that was met before, open again at `fd`.
  [[nodiscard]] static Subject met_before(const KnownFile& known, int fd, Priority priority);
  [[nodiscard]] static KnownFile known_file(const Subject& subject, const Effective& effective);
  [[nodiscard]] Result<std::shared_ptr<const Effective>> lookup(Subject& subject);
  Applied enforce(Subject& subject, const Effective& effective);
  Applied bring_home(Subject& subject, const Effective& effective);
  /// Holds the file's resident pages, which lie where they should. True where it has taken new references.
  bool pin(const Subject& subject, int fd, const Effective& effective, const PlacementReport& report,
           const std::vector<PageRun>& resident, Applied& applied);
  void unpin(const FileKey& key);
  void refresh_pin(const FileKey& key);
  /// What the guard holds when somebody moves a job that maps it.
  void enter_stay(const Subject& subject);
  void look_for_mappers();
  void schedule_pin(const FileKey& key, std::chrono::milliseconds delay);
  Applied place(Subject& subject, const Effective& effective, Applied applied);
  bool enter(const Result<PlacementReport>& report, Applied& applied);
  Applied stay(Subject& subject, const Effective& effective, Applied applied);
  PlacementOptions options(Subject& subject, bool is_users, Frame& frame);
  void settle(const Subject& subject, const Applied& applied, bool is_users,
              std::optional<std::vector<PageRun>> home);
  void schedule_retry(const FileKey& key, std::chrono::milliseconds delay);
  void schedule_sweep();
  void forget_lookups();
  void report(EventKind kind, const std::string& cgroup, const std::string& message);
  void report_tags(const std::string& first, std::size_t count);
  void report_error(const Error& error);

  Parts parts_;
  Config config_;
  Bucket bandwidth_;
  UserBudgets budgets_;
  KnownFiles known_;
  Pins pins_;
  Stays stays_;
  DirectoryWatch directories_;
  CarryOver carry_over_;
  /// Files without a tag of their own whose path the catalogue was asked for: ctime and path then.
  std::unordered_map<FileKey, std::pair<std::int64_t, std::string>, FileKeyHash> asked_;
  PolicyCache cache_;
  std::vector<Frame*> frames_;  ///< enforcements under way, the innermost last
  std::unordered_map<std::string, std::uint64_t> moves_of_;
  Work::Clock::time_point lookups_since_;
  bool yielding_ = false;  ///< a move is under way in whose pauses other moves are done
  Work::Clock::time_point swept_;
  Work::Clock::duration sweep_took_{};
  std::atomic<Work::Clock::rep> looking_took_{0};
  std::atomic<std::uint64_t> waiting_for_retry_{0};
  std::atomic<std::uint64_t> waiting_paths_{0};
  std::atomic<std::uint64_t> changes_{0};
  std::mutex appeared_mutex_;
  std::unordered_set<std::string> appeared_;  ///< paths
  /// Paths of whose files it was told why they get no tag: once each.
  std::unordered_set<std::string> not_carried_;
  mutable std::mutex activity_mutex_;
  std::optional<Activity> activity_;
};

}  // namespace fpolicy::policyd
