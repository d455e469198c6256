// SPDX-License-Identifier: LGPL-2.1-or-later
#include "migrations.h"

#include <fpolicy/json_text.h>
#include <fpolicy/migrate_json.h>
#include <fpolicy/rules.h>
#include <fpolicy/varlink.h>

#include <fmt/format.h>
#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

namespace fpolicy::policyd {
namespace {

using nlohmann::json;

constexpr std::size_t most_pids = 65536;
/// The list "0,2,4,…,1022" is shorter, and so is one of 8192 processors written in this way.
constexpr std::size_t longest_list = 65536;
constexpr std::uint64_t most_threads = 1024;
/// A PiB/s, so that a product with it stays far from overflow.
constexpr std::uint64_t most_bytes_per_second = std::uint64_t{1} << 50U;

/// What a user's job may have: some 40 MB of our memory, and 5,000 descriptors.
constexpr std::size_t most_processes_of_a_user = 1024;
constexpr std::size_t most_mappings_of_a_user = 1U << 18U;
/// Slower, and the job would be frozen for longer than anybody wants.
constexpr std::uint64_t fewest_bytes_per_second_of_a_user = 1U << 20U;

/// Leaves room for the message around it.
constexpr std::size_t longest_report = varlink::max_message - 65536;

/// Takes parameters out one by one; the first that is wrong makes the whole wrong.
class Parameters {
 public:
  explicit Parameters(const json& parameters) : parameters_(parameters) {}

  const json* find(const char* name) {
    known_.insert(name);
    const auto found = parameters_.find(name);
    return found == parameters_.end() || found->is_null() ? nullptr : &*found;
  }
  bool flag(const char* name, bool otherwise) {
    const json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) {
      refuse(name);
      return otherwise;
    }
    return value->get<bool>();
  }
  std::uint64_t number(const char* name, std::uint64_t most) {
    const json* value = find(name);
    if (value == nullptr) return 0;
    const auto given = positive(*value, most);
    if (!given) refuse(name);
    return given.value_or(0);
  }
  std::string text(const char* name, std::size_t longest) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_string() || value->get_ref<const std::string&>().size() > longest) {
      refuse(name);
      return {};
    }
    return value->get<std::string>();
  }
  NodeSet nodes(const char* name) {
    auto parsed = NodeSet::parse(text(name, longest_list));
    if (!parsed || parsed->empty()) {
      refuse(name);
      return {};
    }
    return *parsed;
  }
  /// A whole number from 0 to `most`.
  static std::optional<std::uint64_t> positive(const json& value, std::uint64_t most) {
    if (!value.is_number_integer()) return std::nullopt;
    if (!value.is_number_unsigned() && value.get<std::int64_t>() < 0) return std::nullopt;
    const auto given = value.get<std::uint64_t>();
    return given <= most ? std::optional(given) : std::nullopt;
  }
  void refuse(std::string_view name) {
    if (refused_.empty()) refused_ = name;
  }
  /// The name of what is wrong.
  [[nodiscard]] std::string finish() {
    for (const auto& [name, value] : parameters_.items()) {
      if (!known_.contains(name)) refuse(name);
    }
    return refused_;
  }

 private:
  const json& parameters_;
  std::set<std::string, std::less<>> known_;
  std::string refused_;
};

std::uint64_t pages_of(const MigrateGroup& group) {
  std::uint64_t pages = 0;
  for (const std::uint64_t of_node : group.before) pages += of_node;
  return pages;
}

}  // namespace

Result<MigrateRequest> parse_migrate(const json& parameters) {
  MigrateRequest request;
  Parameters given(parameters);
  if (given.find("cgroup") != nullptr) {
    const auto path = unescape_path(given.text("cgroup", std::size_t{4} * PATH_MAX));
    request.job.cgroup = path && path->starts_with('/') ? path->substr(1) : path.value_or(std::string());
    if (!path || request.job.cgroup.empty() || request.job.cgroup.size() >= PATH_MAX) given.refuse("cgroup");
  }
  if (const json* pids = given.find("pids")) {
    if (!pids->is_array() || pids->size() > most_pids) {
      given.refuse("pids");
    } else {
      for (const json& each : *pids) {
        const auto pid = Parameters::positive(each, std::numeric_limits<pid_t>::max());
        if (pid.value_or(0) == 0) given.refuse("pids");
        request.job.pids.push_back(static_cast<pid_t>(pid.value_or(0)));
      }
    }
  }
  if (request.job.cgroup.empty() == request.job.pids.empty())
    given.refuse(request.job.cgroup.empty() ? "cgroup" : "pids");
  MigrateOptions& options = request.options;
  request.job.descendants = given.flag("tree", false);
  options.from = given.nodes("from");
  options.to = given.nodes("to");
  options.dry_run = given.flag("dry_run", false);
  options.set_cpuset = given.flag("set_cpuset", false);
  options.cpus = given.text("cpus", longest_list);
  options.freeze = given.flag("freeze", true);
  options.partial = given.flag("partial", false);
  options.pre_copy = given.flag("pre_copy", false);
  options.verify = given.flag("verify", false);
  options.threads = static_cast<unsigned>(given.number("threads", most_threads));
  options.bytes_per_second = given.number("max_bytes_per_second", most_bytes_per_second);
  if (request.job.descendants && request.job.pids.empty()) given.refuse("tree");
  if (options.set_cpuset && request.job.cgroup.empty()) given.refuse("set_cpuset");
  // Written to cpuset.cpus as it is.
  if (options.cpus.find_first_not_of("0123456789,-") != std::string::npos ||
      (!options.cpus.empty() && !options.set_cpuset))
    given.refuse("cpus");
  if (options.pre_copy && !options.freeze) given.refuse("pre_copy");
  if (std::string refused = given.finish(); !refused.empty()) return fail(EINVAL, std::move(refused));
  return request;
}

Status confine(MigrateRequest& request, uid_t uid) {
  if (uid == 0) return {};
  MigrateOptions& options = request.options;
  if (options.set_cpuset || !options.cpus.empty()) return fail(EPERM, "a cpuset: only root may have it set");
  if (options.bytes_per_second > 0 && options.bytes_per_second < fewest_bytes_per_second_of_a_user)
    return fail(EPERM, "less than 1 MiB/s: only root may ask for it");
  options.owner = uid;
  options.own_pages_only = true;
  // The kernel's work is not charged to the caller.
  options.threads = 1;
  options.max_processes = most_processes_of_a_user;
  options.max_mappings = most_mappings_of_a_user;
  return {};
}

json report_reply(MigrateReport report, const MigrateOptions& options) {
  constexpr std::size_t of_a_mapping = 160;  // at most, as JSON
  if (report.mappings.size() > longest_report / 2 / of_a_mapping) {
    report.notes.push_back(
        fmt::format("{} mappings are left out: the reply would be too long", report.mappings.size()));
    report.mappings.clear();
  }
  // Notes are for people.
  constexpr std::size_t most_notes = 1000;
  constexpr std::size_t longest_note = 1000;
  if (report.notes.size() > most_notes) report.notes.resize(most_notes);
  for (std::string& note : report.notes) note.resize(std::min(note.size(), longest_note));
  std::string text = to_text(report_json(report, options));
  if (text.size() > longest_report) {
    report.mappings.clear();  // they name groups by number
    std::ranges::stable_sort(report.groups, std::greater<>(), pages_of);
    const std::size_t all = report.groups.size();
    while (text.size() > longest_report && !report.groups.empty()) {
      report.groups.resize(report.groups.size() / 2);
      text = to_text(report_json(report, options));
    }
    report.notes.push_back(fmt::format("{} files with few pages are left out: the reply would be too long",
                                       all - report.groups.size()));
    text = to_text(report_json(report, options));
  }
  return json{{"report", json::parse(text)}};
}

Migrations::~Migrations() {
  close();
  for (Run& run : runs_) run.thread.join();
}

void Migrations::reap() {
  for (auto run = runs_.begin(); run != runs_.end();) {
    if (run->ended) {
      run->thread.join();
      run = runs_.erase(run);
    } else {
      ++run;
    }
  }
}

Status Migrations::start(uid_t uid, Work work) {
  const std::scoped_lock lock(mutex_);
  reap();
  const auto of = [this](auto&& whose) {
    return static_cast<std::size_t>(
        std::ranges::count_if(runs_, [&](const Run& run) { return whose(run.uid); }));
  };
  if (uid == 0 && of([](uid_t other) { return other == 0; }) >= most_of_root)
    return fail(EAGAIN, fmt::format("{} jobs are being moved already", most_of_root));
  if (uid != 0 && of([uid](uid_t other) { return other == uid; }) > 0)
    return fail(EAGAIN, "a job of yours is being moved already");
  if (uid != 0 && of([](uid_t other) { return other != 0; }) >= most_of_users)
    return fail(EAGAIN, "too many users' jobs are being moved already");
  Run& run = runs_.emplace_back();
  run.uid = uid;
  try {
    run.thread = std::thread([this, &run, its = std::move(work)]() mutable {
      ::pthread_setname_np(::pthread_self(), "policyd-migrate");
      const auto afterwards = its(stopping_);
      its = nullptr;
      ::malloc_trim(0);
      {
        const std::scoped_lock ending(mutex_);
        run.ended = true;
        ended_.notify_all();
      }
      afterwards();
    });
  } catch (const std::system_error& error) {
    runs_.pop_back();
    return fail(error.code().value(), "no thread is to be had: " + errno_text(error.code().value()));
  }
  return {};
}

bool Migrations::stop(std::chrono::milliseconds patience) {
  close();
  std::unique_lock lock(mutex_);
  const bool all = ended_.wait_for(lock, patience, [this] {
    return std::ranges::all_of(runs_, [](const Run& run) { return run.ended; });
  });
  std::list<Run> ended;
  for (auto run = runs_.begin(); run != runs_.end();) {
    const auto next = std::next(run);
    if (run->ended) ended.splice(ended.end(), runs_, run);
    run = next;
  }
  lock.unlock();
  for (Run& run : ended) run.thread.join();
  return all;
}

}  // namespace fpolicy::policyd
