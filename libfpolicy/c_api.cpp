// SPDX-License-Identifier: LGPL-2.1-or-later
// A thin layer: C structs to the C++ API and back. No exception crosses it.
#include <fpolicy/audit.h>
#include <fpolicy/client.h>
#include <fpolicy/fpolicy.h>
#include <fpolicy/migrate.h>
#include <fpolicy/open_file.h>
#include <fpolicy/policy.h>
#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>
#include <fpolicy/tree.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fpolicy {
namespace {

constexpr unsigned all_flags = (1U << 10U) - 1;
constexpr std::size_t most_pids = 1U << 22U;  // the kernel's PID_MAX_LIMIT

using CPhase = fpolicy_migrate_phase;
static_assert(static_cast<int>(MigrateProgress::Phase::plan) == CPhase::FPOLICY_MIGRATE_PLAN);
static_assert(static_cast<int>(MigrateProgress::Phase::quiet) == CPhase::FPOLICY_MIGRATE_QUIET);
static_assert(static_cast<int>(MigrateProgress::Phase::freeze) == CPhase::FPOLICY_MIGRATE_FREEZE);
static_assert(static_cast<int>(MigrateProgress::Phase::move) == CPhase::FPOLICY_MIGRATE_MOVE);
static_assert(static_cast<int>(MigrateProgress::Phase::cpuset) == CPhase::FPOLICY_MIGRATE_CPUSET);
static_assert(static_cast<int>(MigrateProgress::Phase::verify) == CPhase::FPOLICY_MIGRATE_LOOK_AGAIN);

void say(char* message, std::size_t size, std::string_view text) {
  if (message == nullptr || size == 0) return;
  const std::size_t length = std::min(text.size(), size - 1);
  std::memcpy(message, text.data(), length);
  message[length] = '\0';
}

/// Runs `call`, which gives a value of 0 or more and leaves in `text` what is worth knowing; no exception
/// gets out.
template <class Call>
int guarded(char* message, std::size_t size, const Call& call) {
  try {
    std::string text;
    const Result<int> done = call(text);
    if (!done) text = done.error().message;
    say(message, size, text);
    if (done) return *done;
    return done.error().code > 0 ? -done.error().code : -EIO;
  } catch (const std::bad_alloc&) {
    say(message, size, "out of memory");
    return -ENOMEM;
  } catch (const std::exception& error) {
    say(message, size, error.what());
    return -EIO;
  } catch (...) {
    say(message, size, "unexpected error");
    return -EIO;
  }
}

/// Copies what the caller knows of the struct; what it does not know is zero, which is the default of all
/// fields. `least`: its size in the first version that had it. `what`: the struct, for messages.
template <class Struct>
Status take(const Struct* from, std::size_t least, std::string_view what, Struct& into) {
  if (from == nullptr || from->size < least) {
    return fail(EINVAL, std::string(what) + " is not initialized");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  if (from->size > sizeof into &&
      std::any_of(bytes + sizeof into, bytes + from->size, [](unsigned char byte) { return byte != 0; }))
    return fail(E2BIG, std::string(what) + " is of a newer version");
  into = {};
  std::memcpy(&into, from, std::min(from->size, sizeof into));
  return {};
}

template <class Struct>
void set_defaults(Struct* options, std::size_t size) {
  if (options == nullptr || size < sizeof options->size) return;
  std::memset(options, 0, size);
  options->size = size;
}

Result<NodeSet> nodes(const char* name, const char* text) {
  if (text == nullptr) return fail(EINVAL, std::string(name) + ": no nodes are given");
  auto parsed = NodeSet::parse(text);
  if (!parsed) return with_context(name, parsed.error());
  return *parsed;
}

/// Where the parts of fpolicy are found.
struct Places {
  std::string database = default_database;
  std::string rules = "/etc/fpolicy/rules.d";
  std::string socket = varlink::default_socket;

  Places() = default;
  Places(const char* other_database, const char* other_rules, const char* other_socket) {
    if (other_database != nullptr) database = other_database;
    if (other_rules != nullptr) rules = other_rules;
    if (other_socket != nullptr) socket = other_socket;
  }
  /// May the caller use the database itself? As the commands: root, and whoever names one of their own.
  [[nodiscard]] bool uses_database() const { return geteuid() == 0 || database != default_database; }
};

/// The policies that are stored, and what resolves them.
struct Policies {
  Identifier identifier;
  std::unique_ptr<RecordStore> records;
  std::unique_ptr<PolicyStore> store;
  std::unique_ptr<Resolver> resolver;

  Status open(const Places& places, Database::Access access) {
    if (places.uses_database()) {
      auto opened = Database::open(places.database, access, &identifier);
      if (!opened) return tl::unexpected(opened.error());
      records = *std::move(opened);
    } else if (auto connection = client::connect_policyd(places.socket); connection) {
      records = std::make_unique<client::RemoteRecords>(*std::move(connection));
    }
    store = std::make_unique<PolicyStore>(records.get(), &identifier);
    auto rules = load_rules(places.rules);
    if (!rules) return tl::unexpected(rules.error());
    resolver = std::make_unique<Resolver>(store.get(), *std::move(rules));
    return {};
  }
};

/// What a handle remembers; a refresh makes another, and calls that run keep theirs.
struct Parts {
  Policies policies;
  Topology topology;

  static Result<std::shared_ptr<Parts>> open(const Places& places, bool write) {
    auto parts = std::make_shared<Parts>();
    auto topology = Topology::read();
    if (!topology) return tl::unexpected(topology.error());
    parts->topology = *std::move(topology);
    const auto access = write ? Database::Access::read_write : Database::Access::read_only;
    if (auto opened = parts->policies.open(places, access); !opened) return tl::unexpected(opened.error());
    return parts;
  }
};

}  // namespace
}  // namespace fpolicy

struct fpolicy_handle {  // NOLINT(readability-identifier-naming): C has no namespaces
  fpolicy::Places places;
  bool write = false;
  std::mutex writing;  ///< a flush tells of the caller's own tag
  std::mutex mutex;    ///< of parts
  std::shared_ptr<fpolicy::Parts> parts;

  std::shared_ptr<fpolicy::Parts> current() {
    const std::scoped_lock lock(mutex);
    return parts;
  }

  /// On an error the parts are as before.
  fpolicy::Status refresh() {
    auto fresh = fpolicy::Parts::open(places, write);
    if (!fresh) return tl::unexpected(fresh.error());
    const std::scoped_lock lock(mutex);
    parts.swap(*fresh);
    return {};
  }
};

namespace fpolicy {
namespace {

Result<int> open_handle(const fpolicy_open_options* given, fpolicy_handle** handle) {
  if (handle == nullptr) return fail(EINVAL, "handle is NULL");
  *handle = nullptr;
  fpolicy_open_options options{};
  if (given != nullptr) {
    constexpr std::size_t least = sizeof(fpolicy_open_options);
    if (auto taken = take(given, least, "struct fpolicy_open_options", options); !taken)
      return tl::unexpected(taken.error());
  }
  if ((options.flags & ~static_cast<unsigned>(FPOLICY_OPEN_WRITE)) != 0) return fail(EINVAL, "unknown flags");
  auto opened = std::make_unique<fpolicy_handle>();
  opened->places = Places(options.database, options.rules, options.socket);
  opened->write = (options.flags & FPOLICY_OPEN_WRITE) != 0;
  auto parts = Parts::open(opened->places, opened->write);
  if (!parts) return tl::unexpected(parts.error());
  opened->parts = *std::move(parts);
  *handle = opened.release();
  return 0;
}

/// One file, as a call names it.
struct FileArgument {
  int fd;
  const char* path;
  unsigned flags;
};

Result<NamedFile> look_up(const FileArgument& argument) {
  if (argument.path != nullptr) return open_named(argument.path, (argument.flags & FPOLICY_NO_FOLLOW) == 0);
  const auto info = file_info(argument.fd);
  if (!info) return tl::unexpected(info.error());
  if (!info->is_regular() && !info->is_directory()) {
    return fail(EINVAL, "is neither a regular file nor a directory");
  }
  return open_named("/proc/self/fd/" + std::to_string(argument.fd));
}

/// Holds the file. `known`: the flags that the call takes.
Result<NamedFile> hold(const FileArgument& argument, unsigned known) {
  if ((argument.flags & ~known) != 0) return fail(EINVAL, "unknown flags");
  if (argument.path != nullptr ? argument.fd != -1 : argument.fd < 0) {
    return fail(EINVAL, "a file is named either by path, with fd -1, or by fd, with path NULL");
  }
  const std::string name =
      argument.path != nullptr ? escape_text(argument.path) : "fd " + std::to_string(argument.fd);
  auto file = look_up(argument);
  if (!file) return with_context(name, file.error());
  if (!S_ISREG(file->mode) && !S_ISDIR(file->mode)) {
    return fail(EINVAL, name + ": is neither a regular file nor a directory");
  }
  const auto holds = holds_file_pages(file->fd.get());
  if (!holds) return with_context(name, holds.error());
  if (!*holds) return fail(EINVAL, name + ": its filesystem has no page-cache pages to place");
  return file;
}

FileRef reference(const NamedFile& file) {
  return {file.fd.get(), nullptr, file.path, file.device};
}

Result<Space> space_of(unsigned space) {
  if (space == FPOLICY_SYSTEM) return Space::system;
  if (space == FPOLICY_USER) return Space::user;
  return fail(EINVAL, "space is neither FPOLICY_SYSTEM nor FPOLICY_USER");
}

Status check_tag(const NamedFile& file, Space space, const Policy& policy, const Topology& topology,
                 bool force) {
  if (S_ISDIR(file.mode) && space == Space::user) {
    return fail(EINVAL, escape_text(file.path) + ": a user tag on a directory covers nothing below it");
  }
  if (force || !policy.has_absolute_placement()) return {};
  const auto target = evaluate_placement(policy, topology, topology.memory);
  if (!target) return with_context(format_policy(policy), target.error());
  return {};
}

bool no_room_for_xattr(int code) {
  return code == EOPNOTSUPP || code == EROFS || code == ENOSPC || code == EDQUOT;
}

/// What fpolicy_set and fpolicy_remove do: `policy` nothing removes.
struct Change {
  FileArgument file;
  Space space;
  std::optional<Policy> policy;
};

Result<SetOutcome> store_change(const Places& places, PolicyStore& store, const NamedFile& file,
                                const Change& change) {
  SetOptions how;
  how.force = (change.file.flags & FPOLICY_FORCE) != 0;
  how.dry_run = (change.file.flags & FPOLICY_DRY_RUN) != 0;
  const FileRef ref = reference(file);
  auto outcome = change.policy ? store.set(ref, change.space, *change.policy, how)
                               : store.remove(ref, change.space, how);
  if (!outcome && !places.uses_database() && change.space == Space::user &&
      no_room_for_xattr(outcome.error().code)) {
    // Nothing can be said of what policyd would do but that it would be asked.
    if (how.dry_run) return SetOutcome::changed;
    return client::TagRequests(places.socket)
        .request(file.fd.get(), file.path, change.space, change.policy, how.force);
  }
  if (auto flushed = store.flush(); outcome && !flushed) return tl::unexpected(flushed.error());
  return outcome;
}

Result<int> apply(fpolicy_handle& handle, const Change& change) {
  if (!handle.write) return fail(EBADF, "the handle was opened without FPOLICY_OPEN_WRITE");
  const auto file = hold(change.file, FPOLICY_NO_FOLLOW | FPOLICY_FORCE | FPOLICY_DRY_RUN);
  if (!file) return tl::unexpected(file.error());
  const auto parts = handle.current();
  if (change.policy) {
    const bool force = (change.file.flags & FPOLICY_FORCE) != 0;
    if (auto good = check_tag(*file, change.space, *change.policy, parts->topology, force); !good)
      return tl::unexpected(good.error());
  }
  {
    const std::scoped_lock lock(handle.writing);
    const auto outcome = store_change(handle.places, *parts->policies.store, *file, change);
    if (!outcome) return tl::unexpected(outcome.error());
    if (*outcome == SetOutcome::unchanged) return 0;
  }
  if ((change.file.flags & FPOLICY_DRY_RUN) != 0) return 1;
  parts->policies.resolver->invalidate();
  // What policyd has told of the database is remembered as well.
  if (!handle.places.uses_database()) static_cast<void>(handle.refresh());
  // The tag is stored: whether policyd hears of it now or finds it when it starts is no failure.
  client::ChangeNotice notice(handle.places.socket);
  notice.add(file->path, file->fd.get());
  static_cast<void>(notice.finish());
  return 1;
}

Result<int> set_tag(fpolicy_handle* handle, const FileArgument& file, unsigned space, const char* policy,
                    std::string& text) {
  if (handle == nullptr || policy == nullptr) return fail(EINVAL, "handle or policy is NULL");
  const auto who = space_of(space);
  if (!who) return tl::unexpected(who.error());
  auto parsed = parse_policy(policy);
  if (!parsed) return with_context("policy", parsed.error());
  if (parsed->pin && *who == Space::user) text = "pin does not count in a user tag";
  return apply(*handle, {file, *who, *std::move(parsed)});
}

Result<int> remove_tag(fpolicy_handle* handle, const FileArgument& file, unsigned space) {
  if (handle == nullptr) return fail(EINVAL, "handle is NULL");
  const auto who = space_of(space);
  if (!who) return tl::unexpected(who.error());
  return apply(*handle, {file, *who, std::nullopt});
}

// What is given out: the C struct, with what its pointers point to behind it.

struct OwnedTag : fpolicy_tag {
  explicit OwnedTag(const Tag& tag)
      : fpolicy_tag(), policy_text(tag.policy ? format_policy(*tag.policy) : escape_text(tag.text)) {
    policy = policy_text.c_str();
    unsupported = tag.policy ? 0 : 1;
    carrier = tag.carrier == Carrier::xattr ? "xattr" : "database";
  }
  std::string policy_text;
};

struct OwnedEffective : fpolicy_effective {
  OwnedEffective(std::string file_path, const Effective& effective)
      : fpolicy_effective(),
        path_text(std::move(file_path)),
        policy_text(effective.policy ? format_policy(*effective.policy) : ""),
        origin_text(effective.origin),
        stored_text(effective.unsupported ? escape_text(effective.text) : effective.text) {
    path = path_text.c_str();
    if (effective.policy) policy = policy_text.c_str();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): of a literal
    source = to_string(effective.source).data();
    origin = origin_text.c_str();
    text = stored_text.c_str();
    unsupported = effective.unsupported ? 1 : 0;
    from_user = effective.from_user ? 1 : 0;
    user_ignored = effective.user_ignored ? 1 : 0;
  }
  std::string path_text;
  std::string policy_text;
  std::string origin_text;
  std::string stored_text;
};

struct OwnedAudit : fpolicy_audit_result {
  explicit OwnedAudit(AuditedFile audited) : fpolicy_audit_result(), file(std::move(audited)) {
    if (file.state == State::unsupported && file.policy) file.policy = escape_text(*file.policy);
    path = file.path.c_str();
    if (file.policy) policy = file.policy->c_str();
    source = file.source.c_str();
    origin = file.origin.c_str();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): of a literal
    state = to_string(file.state).data();
    reason = file.reason.c_str();
    if (!file.residency) return;
    pages_told = 1;
    page_size = file.residency->page_size;
    file_pages = file.pages;
    resident_pages = file.residency->resident_pages;
    misplaced_pages = file.misplaced;
    unknown_pages = file.residency->unknown_pages;
    node_count = file.residency->pages_by_node.size();
    pages_by_node = file.residency->pages_by_node.data();
  }
  AuditedFile file;
};

Result<int> get_tag(fpolicy_handle* handle, const FileArgument& argument, unsigned space, fpolicy_tag** tag) {
  if (tag != nullptr) *tag = nullptr;
  if (handle == nullptr || tag == nullptr) return fail(EINVAL, "handle or tag is NULL");
  const auto who = space_of(space);
  if (!who) return tl::unexpected(who.error());
  const auto file = hold(argument, FPOLICY_NO_FOLLOW);
  if (!file) return tl::unexpected(file.error());
  const auto parts = handle->current();
  const auto found = parts->policies.store->get(reference(*file), *who);
  if (!found) return tl::unexpected(found.error());
  if (!*found) {
    return fail(ENODATA,
                escape_text(file->path) + ": has no " + (*who == Space::system ? "system" : "user") + " tag");
  }
  *tag = std::make_unique<OwnedTag>(**found).release();
  return 0;
}

Result<AuditJob> take_job(const fpolicy_job* given, const Topology& topology) {
  AuditJob job;
  job.allowed = topology.memory;
  if (given == nullptr) return job;
  fpolicy_job own{};
  if (auto taken = take(given, sizeof own, "struct fpolicy_job", own); !taken)
    return tl::unexpected(taken.error());
  if ((own.flags & ~static_cast<unsigned>(FPOLICY_JOB_USER)) != 0)
    return fail(EINVAL, "unknown flags of the job");
  if ((own.flags & FPOLICY_JOB_USER) != 0) job.user = own.user;
  if (own.nodes == nullptr) return job;
  const auto allowed = nodes("nodes", own.nodes);
  if (!allowed) return tl::unexpected(allowed.error());
  job.allowed = *allowed & topology.memory;
  job.confines_users = true;
  if (job.allowed.empty()) return fail(EINVAL, "nodes: none of them has memory here");
  return job;
}

Result<int> resolve_file(fpolicy_handle* handle, const FileArgument& argument, const fpolicy_job* given,
                         fpolicy_effective** effective) {
  if (effective != nullptr) *effective = nullptr;
  if (handle == nullptr || effective == nullptr) return fail(EINVAL, "handle or effective is NULL");
  const auto parts = handle->current();
  const auto job = take_job(given, parts->topology);
  if (!job) return tl::unexpected(job.error());
  const auto file = hold(argument, FPOLICY_NO_FOLLOW);
  if (!file) return tl::unexpected(file.error());
  const auto found = parts->policies.resolver->resolve(reference(*file), file->path, job->user);
  if (!found) return tl::unexpected(found.error());
  *effective = std::make_unique<OwnedEffective>(file->path, *found).release();
  return 0;
}

Result<int> audit_named(fpolicy_handle* handle, const FileArgument& argument, const fpolicy_job* given,
                        fpolicy_audit_result** audit) {
  if (audit != nullptr) *audit = nullptr;
  if (handle == nullptr || audit == nullptr) return fail(EINVAL, "handle or audit is NULL");
  const auto parts = handle->current();
  const auto job = take_job(given, parts->topology);
  if (!job) return tl::unexpected(job.error());
  const auto file = hold(argument, FPOLICY_NO_FOLLOW);
  if (!file) return tl::unexpected(file.error());
  const Auditor auditor(*parts->policies.resolver, parts->topology, false, 0);
  *audit = std::make_unique<OwnedAudit>(auditor.audit(*file, file->path, *job)).release();
  return 0;
}

Result<MigrateReport> migrate(const fpolicy_migrate_options& given) {
  const auto has = [&given](unsigned flag) { return (given.flags & flag) != 0; };
  if ((given.flags & ~all_flags) != 0) return fail(EINVAL, "unknown flags");
  if (given.pid_count > most_pids || (given.pids == nullptr && given.pid_count > 0))
    return fail(EINVAL, "pids and pid_count do not agree");
  Job job;
  if (given.cgroup != nullptr) job.cgroup = given.cgroup;
  job.pids.assign(given.pids, given.pids + given.pid_count);
  job.descendants = has(FPOLICY_MIGRATE_TREE);
  MigrateOptions options;
  const auto from = nodes("from", given.from);
  if (!from) return tl::unexpected(from.error());
  const auto to = nodes("to", given.to);
  if (!to) return tl::unexpected(to.error());
  options.from = *from;
  options.to = *to;
  options.dry_run = has(FPOLICY_MIGRATE_DRY_RUN);
  options.set_cpuset = has(FPOLICY_MIGRATE_SET_CPUSET);
  if (given.cpus != nullptr) options.cpus = given.cpus;
  options.freeze = !has(FPOLICY_MIGRATE_NO_FREEZE);
  options.partial = has(FPOLICY_MIGRATE_PARTIAL);
  options.pre_copy = has(FPOLICY_MIGRATE_PRE_COPY);
  options.verify = has(FPOLICY_MIGRATE_VERIFY);
  options.own_pages_only = has(FPOLICY_MIGRATE_OWN_PAGES);
  if (has(FPOLICY_MIGRATE_OWNER)) options.owner = given.owner;
  options.threads = given.threads;
  options.bytes_per_second = given.max_bytes_per_second;
  if (given.progress != nullptr) {
    options.progress = [&given](const MigrateProgress& progress) {
      const fpolicy_migrate_progress now{.size = sizeof now,
                                         .phase = static_cast<unsigned>(progress.phase),
                                         .done_pages = progress.done_pages,
                                         .all_pages = progress.all_pages};
      return given.progress(&now, given.user_data) == 0;
    };
  }
  const auto topology = Topology::read();
  if (!topology) return tl::unexpected(topology.error());
  Policies policies;
  if (has(FPOLICY_MIGRATE_POLICIES)) {
    const Places places(given.database, given.rules, nullptr);
    if (auto opened = policies.open(places, Database::Access::read_only); !opened)
      return tl::unexpected(opened.error());
  }
  return migrate_job(job, options, *topology, policies.resolver.get());
}

fpolicy_migrate_report to_c(const MigrateReport& report) {
  return {.size = 0,
          .processes = report.processes,
          .moved_pages = report.counts.moved,
          .stayed_pages = report.counts.stayed,
          .busy_pages = report.counts.busy,
          .failed_pages = report.counts.failed,
          .skipped_pages = report.counts.skipped,
          .vanished_pages = report.counts.vanished,
          .forced_pages = report.counts.forced,
          .misplaced_pages = report.misplaced.value_or(0),
          .quiet_pages = report.quiet_pages,
          .moved_bytes = report.moved_bytes,
          .plan_seconds = report.plan_seconds,
          .moving_seconds = report.moving_seconds,
          .frozen_seconds = report.frozen_seconds,
          .stopped = report.stopped ? 1 : 0,
          .failed = report.failure.empty() ? 0 : 1};
}

/// A caller that knows more fields than we gets zeros there.
void give(const fpolicy_migrate_report& from, fpolicy_migrate_report* into) {
  const std::size_t size = into->size;
  std::memset(into, 0, size);
  std::memcpy(into, &from, std::min(size, sizeof from));
  into->size = size;
}

Result<int> run(const fpolicy_migrate_options* options, fpolicy_migrate_report* report, std::string& text) {
  fpolicy_migrate_options own{};
  // `cgroup` is the first field that no job can do without.
  constexpr std::size_t least = offsetof(fpolicy_migrate_options, cgroup);
  if (auto taken = take(options, least, "struct fpolicy_migrate_options", own); !taken)
    return tl::unexpected(taken.error());
  if (report != nullptr && report->size < offsetof(fpolicy_migrate_report, stayed_pages))
    return fail(EINVAL, "the report's size is not set");
  const auto done = migrate(own);
  if (!done) return tl::unexpected(done.error());
  text = done->failure;
  for (const std::string& note : done->notes) text += (text.empty() ? "" : "\n") + note;
  if (report != nullptr) give(to_c(*done), report);
  return 0;
}

}  // namespace
}  // namespace fpolicy

unsigned fpolicy_api_version() {
  return FPOLICY_API_VERSION;
}

void fpolicy_open_options_init(fpolicy_open_options* options, size_t size) {
  fpolicy::set_defaults(options, size);
}

int fpolicy_open(const fpolicy_open_options* options, fpolicy_handle** handle, char* message,
                 size_t message_size) {
  return fpolicy::guarded(message, message_size,
                          [&](std::string& /*text*/) { return fpolicy::open_handle(options, handle); });
}

void fpolicy_close(fpolicy_handle* handle) {
  delete handle;
}

int fpolicy_refresh(fpolicy_handle* handle, char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& /*text*/) -> fpolicy::Result<int> {
    if (handle == nullptr) return fpolicy::fail(EINVAL, "handle is NULL");
    if (auto done = handle->refresh(); !done) return tl::unexpected(done.error());
    return 0;
  });
}

int fpolicy_set(fpolicy_handle* handle, int fd, const char* path, unsigned space, const char* policy,
                unsigned flags, char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& text) {
    return fpolicy::set_tag(handle, {fd, path, flags}, space, policy, text);
  });
}

int fpolicy_remove(fpolicy_handle* handle, int fd, const char* path, unsigned space, unsigned flags,
                   char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& /*text*/) {
    return fpolicy::remove_tag(handle, {fd, path, flags}, space);
  });
}

int fpolicy_get(fpolicy_handle* handle, int fd, const char* path, unsigned space, unsigned flags,
                fpolicy_tag** tag, char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& /*text*/) {
    return fpolicy::get_tag(handle, {fd, path, flags}, space, tag);
  });
}

int fpolicy_resolve(fpolicy_handle* handle, int fd, const char* path, const fpolicy_job* job, unsigned flags,
                    fpolicy_effective** effective, char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& /*text*/) {
    return fpolicy::resolve_file(handle, {fd, path, flags}, job, effective);
  });
}

int fpolicy_audit(fpolicy_handle* handle, int fd, const char* path, const fpolicy_job* job, unsigned flags,
                  fpolicy_audit_result** audit, char* message, size_t message_size) {
  return fpolicy::guarded(message, message_size, [&](std::string& /*text*/) {
    return fpolicy::audit_named(handle, {fd, path, flags}, job, audit);
  });
}

void fpolicy_job_init(fpolicy_job* job, size_t size) {
  fpolicy::set_defaults(job, size);
}

void fpolicy_tag_free(fpolicy_tag* tag) {
  delete static_cast<fpolicy::OwnedTag*>(tag);
}

void fpolicy_effective_free(fpolicy_effective* effective) {
  delete static_cast<fpolicy::OwnedEffective*>(effective);
}

void fpolicy_audit_free(fpolicy_audit_result* audit) {
  delete static_cast<fpolicy::OwnedAudit*>(audit);
}

void fpolicy_migrate_options_init(fpolicy_migrate_options* options, size_t size) {
  fpolicy::set_defaults(options, size);
}

int fpolicy_migrate(const fpolicy_migrate_options* options, fpolicy_migrate_report* report, char* message,
                    size_t message_size) {
  return fpolicy::guarded(message, message_size,
                          [&](std::string& text) { return fpolicy::run(options, report, text); });
}
