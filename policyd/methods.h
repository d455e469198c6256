// SPDX-License-Identifier: LGPL-2.1-or-later
// The methods of io.fpolicy.Policyd, and who may call them.
#pragma once

#include "enforcer.h"
#include "event_log.h"
#include "guard.h"
#include "loop.h"
#include "migrations.h"
#include "server.h"
#include "worker.h"

#include <fpolicy/mounted.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace fpolicy::policyd {

class Methods {
 public:
  /// What they work with; all of it outlives them.
  struct Parts {
    Loop* loop = nullptr;
    Enforcer* enforcer = nullptr;
    Worker* enforcing = nullptr;  ///< runs the enforcer
    Worker* storing = nullptr;    ///< reads and writes tags for callers: not behind long enforcement
    Guard* guard = nullptr;
    Migrations* migrations = nullptr;
    Resolver* resolver = nullptr;
    PolicyStore* store = nullptr;
    RecordStore* records = nullptr;
    MountedDevices* mounts = nullptr;
    const Topology* topology = nullptr;
    const CgroupTree* cgroups = nullptr;
    EventLog* events = nullptr;
    Counters* counters = nullptr;
    std::function<Status()> reload;
    std::function<std::size_t()> rules;
    std::function<std::vector<std::string>()> limits;
    bool watching = false;
  };
  explicit Methods(Parts parts);
  ~Methods();
  Methods(const Methods&) = delete;
  Methods& operator=(const Methods&) = delete;

  void handle(Call call, const Responder& responder);
  /// Events were added: those who follow get them.
  void send_events();

 private:
  struct Follower {
    Responder responder;
    std::uint64_t next = 1;
  };
  struct Stream;
  using Handler = void (Methods::*)(Call&, const Responder&);
  static const std::unordered_map<std::string_view, Handler>& table();

  void get_info(Call& call, const Responder& responder);
  void get_interface_description(Call& call, const Responder& responder);
  void status(Call& call, const Responder& responder);
  void jobs(Call& call, const Responder& responder);
  void pins(Call& call, const Responder& responder);
  void events(Call& call, const Responder& responder);
  void apply(Call& call, const Responder& responder);
  void changed(Call& call, const Responder& responder);
  void reload(Call& call, const Responder& responder);
  void set_tag(Call& call, const Responder& responder);
  void remove_tag(Call& call, const Responder& responder);
  void ask_store(Call& call, const Responder& responder,
                 std::function<Result<nlohmann::json>(const std::vector<Fd>&)> question);
  void find_records(Call& call, const Responder& responder);
  void carries_tags(Call& call, const Responder& responder);
  void records(Call& call, const Responder& responder);
  void migrate(Call& call, const Responder& responder);

  std::optional<std::vector<std::string>> root_paths(const Call& call, const Responder& responder) const;
  Status check_users_files(const Call& call) const;
  Enforcer::Asker asker(const Call& call) const;
  void change_tag(Call& call, const Responder& responder, Space in, std::optional<Policy> policy, bool force);
  void record(const MigrateRequest& request, uid_t uid, const Result<MigrateReport>& report) const;
  void send_records(Fd socket, const varlink::Peer& peer, const std::string& prefix) const;

  Parts parts_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::vector<Follower> followers_;
  std::unordered_map<uid_t, std::size_t> waiting_files_;  ///< descriptors from users that wait to be enforced
  std::uint64_t requests_ = 0;                            ///< makes keys of work unique
  std::vector<std::unique_ptr<Stream>> streams_;
};

}  // namespace fpolicy::policyd
