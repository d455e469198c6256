// SPDX-License-Identifier: LGPL-2.1-or-later
// policyd, put together.
#pragma once

#include "config.h"
#include "enforcer.h"
#include "event_log.h"
#include "guard.h"
#include "interface.h"
#include "loop.h"
#include "methods.h"
#include "migrations.h"
#include "server.h"
#include "worker.h"

#include <fpolicy/cgroup.h>
#include <fpolicy/mounted.h>
#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fpolicy::policyd {

struct Options {
  std::string config = default_config;
  bool config_required = false;  ///< named on the command line
  std::string state_directory = "/var/lib/fpolicy";
  std::string socket = varlink::default_socket;
  std::string sentinel = default_sentinel;
};

class Daemon {
 public:
  /// Everything but the loop: lock, configuration, rules, store, watches, socket, threads. Error: EINVAL for
  /// a wrong configuration, EPERM without privilege, EALREADY where another policyd has this state directory.
  static Result<std::unique_ptr<Daemon>> open(const Options& options);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Runs until SIGTERM or SIGINT.
  Status run();

 private:
  explicit Daemon(Options options);
  Status lock_state();
  Status open_store();
  Status open_machine();
  Status open_loop();
  Status open_socket();
  Status watch_rules();
  Status reload();
  Status load_new_rules();
  void read_cgroup_changes();
  [[nodiscard]] std::vector<std::string> limits() const;
  static int on_signal(sd_event_source* source, const struct signalfd_siginfo* info, void* data);
  static int on_rules(sd_event_source* source, const struct inotify_event* event, void* data);

  const Options options_;
  Fd lock_;
  Config config_;
  std::vector<std::string> lacks_;  ///< limits that do not change while policyd runs
  std::optional<std::string> rules_error_;
  std::shared_ptr<const RuleSet> rules_;
  Topology topology_;
  std::optional<CgroupTree> cgroups_;
  std::optional<CgroupWatch> watch_;
  std::optional<MountedDevices> enforcer_mounts_;
  std::optional<MountedDevices> mounts_;
  Counters counters_;

  std::unique_ptr<Loop> loop_;  // destroyed after all that posts to it
  std::unique_ptr<EventLog> events_;
  Identifier identifier_;
  std::unique_ptr<Database> database_;
  /// One for each thread that writes: flush() then tells of a thread's own changes.
  std::unique_ptr<PolicyStore> enforcers_store_;
  std::unique_ptr<PolicyStore> requests_store_;
  std::unique_ptr<Resolver> resolver_;
  std::unique_ptr<Worker> enforcing_;
  std::unique_ptr<Worker> storing_;
  std::unique_ptr<Enforcer> enforcer_;
  std::unique_ptr<Guard> guard_;
  std::unique_ptr<Migrations> migrations_;
  std::unique_ptr<Methods> methods_;
  std::unique_ptr<Server> server_;
  std::vector<Loop::Source> sources_;
  Loop::Source rules_source_;
  Loop::Source rules_timer_;
};

}  // namespace fpolicy::policyd
