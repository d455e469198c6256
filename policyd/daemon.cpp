// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon.h"

#include "interface.h"
#include "journal.h"

#include <fpolicy/open_file.h>
#include <fpolicy/privilege.h>

#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace fpolicy::policyd {
namespace {

constexpr std::size_t most_events = 1024;
constexpr std::size_t most_queued = 4096;
/// An editor or a package manager writes several files.
constexpr std::uint64_t rules_debounce_usec = 50'000;
/// systemd gives us 90 s; a filesystem that does not answer never lets go.
constexpr std::chrono::seconds patience{5};
/// Work on one file that takes longer is worth a word in Status.
constexpr std::chrono::seconds suspicious{60};
/// What is put into a cgroup, or has opened a file, maps what it maps soon afterwards.
constexpr std::chrono::milliseconds mapping_delay{200};

}  // namespace

Daemon::Daemon(Options options) : options_(std::move(options)) {}

Result<std::unique_ptr<Daemon>> Daemon::open(const Options& options) {
  if (!administers_machine())
    return fail(EPERM, "needs root: it moves other users' pages and reads their processes' maps");
  std::unique_ptr<Daemon> daemon(new Daemon(options));
  // As a service it lives in a copy of the machine's mount namespace.
  daemon->identifier_.include_machines_mounts();
  auto config = load_config(options.config, options.config_required);
  if (!config) return tl::unexpected(config.error());
  daemon->config_ = std::move(*config);
  // The order matters: whoever holds the lock may replace the socket; watches stand before the first look, so
  // that nothing falls between.
  using Step = Status (Daemon::*)();
  for (const Step step : {&Daemon::lock_state, &Daemon::open_loop, &Daemon::open_store, &Daemon::open_machine,
                          &Daemon::watch_rules, &Daemon::open_socket}) {
    if (auto status = (daemon.get()->*step)(); !status) return tl::unexpected(status.error());
  }
  return daemon;
}

Daemon::~Daemon() {
  // All at the same time, then wait.
  if (enforcing_) enforcing_->queue().close();
  if (storing_) storing_->queue().close();
  if (migrations_) migrations_->close();
  const bool guard_ended = !guard_ || guard_->stop(patience);
  const bool ended = guard_ended && (!enforcing_ || enforcing_->stop(patience)) &&
                     (!storing_ || storing_->stop(patience)) && (!migrations_ || migrations_->stop(patience));
  if (ended) return;
  log_line(Level::warning, "stopped while a filesystem did not answer");
  if (server_) ::unlink(options_.socket.c_str());
  ::_exit(0);
}

Status Daemon::lock_state() {
  if (auto made = make_directory(options_.state_directory, 0700); !made) return made;
  const std::string path = options_.state_directory + "/policyd.lock";
  auto lock = lock_file(path);
  if (!lock) {
    if (lock.error().code != EWOULDBLOCK) return tl::unexpected(lock.error());
    return fail(EALREADY, fmt::format("another policyd has {}", options_.state_directory));
  }
  lock_ = std::move(*lock);
  return {};
}

Status Daemon::open_loop() {
  // In all threads: they inherit the mask, and signals reach the loop alone.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) sigaddset(&signals, number);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &signals, nullptr); error != 0) {
    return fail_errno("pthread_sigmask", "", error);
  }
  // Callers' descriptors, and one for each level of the cgroup tree.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  auto loop = Loop::open();
  if (!loop) return tl::unexpected(loop.error());
  loop_ = std::move(*loop);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    sd_event_source* source = nullptr;
    const int error = sd_event_add_signal(loop_->get(), &source, number, on_signal, this);
    if (error < 0) return fail_errno("sd_event_add_signal", "", -error);
    sources_.emplace_back(source);
  }
  // Arms a timer only where systemd asks for it (WATCHDOG_USEC).
  if (const int error = sd_event_set_watchdog(loop_->get(), 1); error < 0) {
    return fail_errno("sd_event_set_watchdog", "", -error);
  }
  events_ = std::make_unique<EventLog>(most_events, [this] {
    loop_->post([this] {
      if (methods_) methods_->send_events();
    });
  });
  return {};
}

Status Daemon::open_store() {
  auto database =
      Database::open(options_.state_directory + "/fpolicy.db", Database::Access::read_write, &identifier_);
  if (!database) return tl::unexpected(database.error());
  database_ = std::move(*database);
  enforcers_store_ = std::make_unique<PolicyStore>(database_.get(), &identifier_);
  requests_store_ = std::make_unique<PolicyStore>(database_.get(), &identifier_);
  auto rules = load_rules(config_.rules_directory);
  if (rules) {
    rules_ = std::move(*rules);
  } else {
    // Tags do not depend on rules: better to apply these than nothing.
    rules_ = std::make_shared<const RuleSet>();
    rules_error_ = rules.error().message;
    ++counters_.errors;
    log_line(Level::error, fmt::format("{}; no rules are in force", rules.error().message));
    Event event;
    event.message = rules.error().message;
    events_->add(std::move(event));
  }
  resolver_ = std::make_unique<Resolver>(enforcers_store_.get(), rules_);
  return {};
}

Status Daemon::open_machine() {
  auto topology = Topology::read();
  if (topology) {
    topology_ = std::move(*topology);
  } else if (topology.error().code == ENOENT) {
    topology_.memory = {0};
    topology_.cpu = {0};
  } else {
    return tl::unexpected(topology.error());
  }
  if (topology_.memory.size() < 2) {
    lacks_.emplace_back("one memory node: there is nowhere to move pages; tags are kept, checked and told");
  }
  const auto missing = missing_capabilities();
  lacks_.insert(lacks_.end(), missing.begin(), missing.end());
  if (!system_xattrs_count()) {
    lacks_.emplace_back(
        "this kernel lets every user write security.* attributes (BPF LSM before Linux 6.10): system tags "
        "are kept in the database, and security.fpolicy is not believed");
  }
  for (auto* table : {&enforcer_mounts_, &mounts_}) {
    auto mounts = MountedDevices::open();
    if (!mounts) return tl::unexpected(mounts.error());
    table->emplace(std::move(*mounts));
  }

  constexpr std::string_view instead =
      "moves of jobs are not noticed; tags are applied at start, when they change "
      "and by policyctl apply";
  auto cgroups = CgroupTree::open();
  if (!cgroups) {
    lacks_.push_back(fmt::format("{}: {}", cgroups.error().message, instead));
    return {};
  }
  cgroups_.emplace(std::move(*cgroups));
  if (const auto cpuset = cgroups_->has_cpuset(); !cpuset || !*cpuset) {
    lacks_.push_back(
        fmt::format("{}: no cpuset controller: cpuset.mems cannot change there", cgroups_->mount_point()));
  }
  auto watch = CgroupWatch::open(*cgroups_);
  if (!watch) {
    lacks_.push_back(fmt::format("{}: {}", watch.error().message, instead));
    return {};
  }
  watch_.emplace(std::move(*watch));
  auto source = loop_->watch(watch_->fd(), EPOLLIN, [this](auto) { read_cgroup_changes(); });
  if (!source) return tl::unexpected(source.error());
  sources_.push_back(std::move(*source));
  return {};
}

Status Daemon::watch_rules() {
  rules_source_.reset();
  sd_event_source* source = nullptr;
  const int error = sd_event_add_inotify(
      loop_->get(), &source, config_.rules_directory.c_str(),
      IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ONLYDIR, on_rules, this);
  if (error < 0) {
    // Without the directory there are no rules; a reload looks for it again.
    log_line(Level::notice, fail_errno("watch", config_.rules_directory, -error).value().message);
    return {};
  }
  rules_source_.reset(source);
  return {};
}

Status Daemon::open_socket() {
  enforcing_ = std::make_unique<Worker>("policyd-enforce", most_queued);
  storing_ = std::make_unique<Worker>("policyd-store", most_queued);
  enforcer_ = std::make_unique<Enforcer>(Enforcer::Parts{.records = database_.get(),
                                                         .store = enforcers_store_.get(),
                                                         .identifier = &identifier_,
                                                         .resolver = resolver_.get(),
                                                         .topology = &topology_,
                                                         .cgroups = cgroups_ ? &*cgroups_ : nullptr,
                                                         .events = events_.get(),
                                                         .counters = &counters_,
                                                         .queue = &enforcing_->queue(),
                                                         .mounts = &*enforcer_mounts_},
                                         config_);
  if (enforcer_->pins().fd() >= 0) {
    auto source =
        loop_->watch(enforcer_->pins().fd(), EPOLLIN, [this](auto) { enforcer_->schedule_changed_pins(); });
    if (!source) return tl::unexpected(source.error());
    sources_.push_back(std::move(*source));
  }
  if (enforcer_->stays().fd() >= 0) {
    auto source = loop_->watch(enforcer_->stays().fd(), EPOLLIN, [this](auto) {
      if (enforcer_->stays().read_opened()) enforcer_->schedule_mappers(mapping_delay);
    });
    if (!source) return tl::unexpected(source.error());
    sources_.push_back(std::move(*source));
  }
  if (enforcer_->directories().fd() >= 0) {
    auto source = loop_->watch(enforcer_->directories().fd(), EPOLLIN, [this](auto) {
      enforcer_->schedule_appeared(enforcer_->directories().read());
    });
    if (!source) return tl::unexpected(source.error());
    sources_.push_back(std::move(*source));
  }
  guard_ =
      std::make_unique<Guard>(Guard::Parts{.cgroups = cgroups_ ? &*cgroups_ : nullptr,
                                           .stays = &enforcer_->stays(),
                                           .pins = &enforcer_->pins(),
                                           .sentinel = options_.sentinel,
                                           .asked = [this] { enforcer_->schedule_mappers(mapping_delay); }},
                              config_);
  migrations_ = std::make_unique<Migrations>();
  methods_ = std::make_unique<Methods>(Methods::Parts{.loop = loop_.get(),
                                                      .enforcer = enforcer_.get(),
                                                      .enforcing = enforcing_.get(),
                                                      .storing = storing_.get(),
                                                      .guard = guard_.get(),
                                                      .migrations = migrations_.get(),
                                                      .resolver = resolver_.get(),
                                                      .store = requests_store_.get(),
                                                      .records = database_.get(),
                                                      .mounts = &*mounts_,
                                                      .topology = &topology_,
                                                      .cgroups = cgroups_ ? &*cgroups_ : nullptr,
                                                      .events = events_.get(),
                                                      .counters = &counters_,
                                                      .reload = [this] { return reload(); },
                                                      .rules = [this] { return rules_->size(); },
                                                      .limits = [this] { return limits(); },
                                                      .watching = watch_.has_value()});
  const auto slash = options_.socket.rfind('/');
  if (slash != std::string::npos && slash > 0) {
    if (auto made = make_directory(options_.socket.substr(0, slash), 0755); !made) return made;
  }
  auto server = Server::open(
      loop_.get(), options_.socket, &counters_,
      [this](Call call, const Responder& responder) { methods_->handle(std::move(call), responder); });
  if (!server) return tl::unexpected(server.error());
  server_ = std::move(*server);
  return {};
}

void Daemon::read_cgroup_changes() {
  const auto status = watch_->read([this](const CgroupChange& change) { enforcer_->schedule_move(change); });
  if (!status) {
    ++counters_.errors;
    log_line(Level::error, status.error().message);
    enforcer_->schedule_move({});
  }
}

Status Daemon::run() {
  enforcing_->start();
  storing_->start();
  guard_->start();
  for (const std::string& limit : lacks_) log_line(Level::warning, limit);
  log_line(Level::notice,
           fmt::format("version {}, nodes {}, {}", version, topology_.memory.format(),
                       watch_ ? "watching " + cgroups_->mount_point() : std::string("not watching jobs")));
  Event event;
  event.kind = EventKind::start;
  events_->add(std::move(event));
  enforcer_->schedule_start();
  sd_notify(0, "READY=1");
  auto status = loop_->run();
  sd_notify(0, "STOPPING=1");
  log_line(Level::notice, "stopping");
  return status;
}

/// All or nothing: what fails leaves in force what was.
Status Daemon::reload() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
             static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000);
  auto status = [this]() -> Status {
    auto config = load_config(options_.config, options_.config_required);
    if (!config) return tl::unexpected(config.error());
    auto rules = load_rules(config->rules_directory);
    if (!rules) return tl::unexpected(rules.error());
    config_ = std::move(*config);
    rules_ = std::move(*rules);
    rules_error_.reset();
    resolver_->set_rules(rules_);
    enforcer_->schedule_config(config_);
    guard_->set_config(config_);
    enforcer_->schedule_rules_changed();
    return watch_rules();
  }();
  ++counters_.reloads;
  Event event;
  if (status) {
    event.kind = EventKind::reload;
    event.message = fmt::format("{} rules", rules_->size());
    log_line(Level::notice, fmt::format("reloaded: {} rules", rules_->size()));
  } else {
    ++counters_.errors;
    event.message = status.error().message;
    log_line(Level::error, fmt::format("{}; what was in force stays in force", status.error().message));
  }
  events_->add(std::move(event));
  sd_notify(0, "READY=1");
  return status;
}

Status Daemon::load_new_rules() {
  auto rules = load_rules(config_.rules_directory);
  Event event;
  if (rules) {
    rules_ = std::move(*rules);
    rules_error_.reset();
    resolver_->set_rules(rules_);
    enforcer_->schedule_rules_changed();
    event.kind = EventKind::reload;
    event.message = fmt::format("{} rules", rules_->size());
  } else {
    rules_error_ = rules.error().message;
    ++counters_.errors;
    event.message = rules.error().message;
    log_line(Level::error, fmt::format("{}; the old rules stay in force", rules.error().message));
  }
  events_->add(std::move(event));
  return {};
}

std::vector<std::string> Daemon::limits() const {
  std::vector<std::string> limits = lacks_;
  if (rules_error_) limits.push_back(fmt::format("{}; the old rules stay in force", *rules_error_));
  if (!rules_source_) {
    limits.push_back(
        fmt::format("{}: not watched: rules are read again on reload only", config_.rules_directory));
  }
  if (enforcer_->directories().fd() < 0 || enforcer_->directories().is_full()) {
    limits.emplace_back(
        "no inotify watches are left: where a tagged file is replaced is not noticed in some directories");
  }
  if (const auto activity = enforcer_->activity()) {
    const auto took = std::chrono::duration_cast<std::chrono::seconds>(Work::Clock::now() - activity->since);
    if (took > suspicious) {
      limits.push_back(fmt::format("busy with {} for {} s", activity->path, took.count()));
    }
  }
  return limits;
}

int Daemon::on_signal(sd_event_source* /*source*/, const struct signalfd_siginfo* info, void* data) {
  auto* daemon = static_cast<Daemon*>(data);
  if (info->ssi_signo == SIGHUP) {
    static_cast<void>(daemon->reload());  // has told whoever listens
  } else {
    daemon->loop_->quit();
  }
  return 0;
}

int Daemon::on_rules(sd_event_source* /*source*/, const struct inotify_event* /*event*/, void* data) {
  auto* daemon = static_cast<Daemon*>(data);
  auto timer =
      daemon->loop_->after(rules_debounce_usec, [daemon] { static_cast<void>(daemon->load_new_rules()); });
  if (timer) daemon->rules_timer_ = std::move(*timer);
  return 0;
}

}  // namespace fpolicy::policyd
