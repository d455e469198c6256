// SPDX-License-Identifier: LGPL-2.1-or-later
// A thin layer: C structs to the C++ API and back. No exception crosses it.
#include <fpolicy/fpolicy.h>
#include <fpolicy/migrate.h>
#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>

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

/// Copies what the caller knows of the struct; what it does not know is zero, which is the default of all
/// fields.
Status take(const fpolicy_migrate_options* from, fpolicy_migrate_options& into) {
  if (from == nullptr || from->size < offsetof(fpolicy_migrate_options, cgroup))
    return fail(EINVAL, "the options are not initialized");
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  if (from->size > sizeof into &&
      std::any_of(bytes + sizeof into, bytes + from->size, [](unsigned char byte) { return byte != 0; }))
    return fail(E2BIG, "the options are of a newer version");
  into = {};
  std::memcpy(&into, from, std::min(from->size, sizeof into));
  return {};
}

Result<NodeSet> nodes(const char* name, const char* text) {
  if (text == nullptr) return fail(EINVAL, std::string(name) + ": no nodes are given");
  auto parsed = NodeSet::parse(text);
  if (!parsed) return with_context(name, parsed.error());
  return *parsed;
}

/// The policies that are stored, and what resolves them.
struct Policies {
  Identifier identifier;
  std::unique_ptr<Database> database;
  std::unique_ptr<PolicyStore> store;
  std::unique_ptr<Resolver> resolver;

  Status open(const fpolicy_migrate_options& options) {
    auto opened = Database::open(options.database != nullptr ? options.database : default_database,
                                 Database::Access::read_only, &identifier);
    if (!opened) return tl::unexpected(opened.error());
    database = *std::move(opened);
    store = std::make_unique<PolicyStore>(database.get(), &identifier);
    auto rules = load_rules(options.rules != nullptr ? options.rules : "/etc/fpolicy/rules.d");
    if (!rules) return tl::unexpected(rules.error());
    resolver = std::make_unique<Resolver>(store.get(), *std::move(rules));
    return {};
  }
};

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
    if (auto opened = policies.open(given); !opened) return tl::unexpected(opened.error());
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

int run(const fpolicy_migrate_options* options, fpolicy_migrate_report* report, std::string& text) {
  fpolicy_migrate_options own{};
  Status taken = take(options, own);
  if (taken && report != nullptr && report->size < offsetof(fpolicy_migrate_report, stayed_pages))
    taken = fail(EINVAL, "the report's size is not set");
  const auto done = taken ? migrate(own) : Result<MigrateReport>(tl::unexpected(taken.error()));
  if (!done) {
    text = done.error().message;
    return done.error().code > 0 ? -done.error().code : -EIO;
  }
  text = done->failure;
  for (const std::string& note : done->notes) text += (text.empty() ? "" : "\n") + note;
  if (report != nullptr) give(to_c(*done), report);
  return 0;
}

}  // namespace
}  // namespace fpolicy

void fpolicy_migrate_options_init(fpolicy_migrate_options* options, size_t size) {
  std::memset(options, 0, size);
  options->size = size;
}

int fpolicy_migrate(const fpolicy_migrate_options* options, fpolicy_migrate_report* report, char* message,
                    size_t message_size) {
  try {
    std::string text;
    const int status = fpolicy::run(options, report, text);
    fpolicy::say(message, message_size, text);
    return status;
  } catch (const std::bad_alloc&) {
    fpolicy::say(message, message_size, "out of memory");
    return -ENOMEM;
  } catch (const std::exception& error) {
    fpolicy::say(message, message_size, error.what());
    return -EIO;
  } catch (...) {
    fpolicy::say(message, message_size, "unexpected error");
    return -EIO;
  }
}
