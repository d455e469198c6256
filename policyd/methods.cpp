// SPDX-License-Identifier: LGPL-2.1-or-later
#include "methods.h"

#include "interface.h"

#include <fpolicy/migrate_json.h>
#include <fpolicy/open_file.h>
#include <fpolicy/privilege.h>
#include <fpolicy/process.h>
#include <fpolicy/rules.h>
#include <fpolicy/tree.h>

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

namespace fpolicy::policyd {
namespace {

using nlohmann::json;
using std::chrono::duration_cast;
using std::chrono::microseconds;

/// Descriptors of one user that may wait before his calls wait, too.
constexpr std::size_t most_waiting_files = 1024;

/// Threads that stream records, of all users and of one.
constexpr std::size_t most_streams = 8;
constexpr unsigned most_streams_of_a_user = 2;

/// A caller that follows events and does not read misses some.
constexpr std::size_t most_unread_events = 1U << 20U;

constexpr std::chrono::milliseconds between_progress{200};

/// A caller of Migrate that does not read is not told how far it has come.
constexpr std::size_t most_unread_progress = 1U << 16U;

/// For as long what was found out about a directory stands, for its next record.
constexpr std::chrono::milliseconds directory_answer_lasts{500};

/// Which records a user is shown: those whose files he reaches himself. Where policyd may not look (a server
/// that knows no capabilities of ours), those of his own tags.
class Sight {
 public:
  explicit Sight(FileUser user) : user_(std::move(user)) {}

  bool shows(const TagRecord& record) {
    const auto slash = record.path.rfind('/');
    if (slash == std::string::npos) return false;
    const Reach reach = directory(slash == 0 ? "/" : record.path.substr(0, slash));
    if (reach == Reach::unknown) return record.space == Space::user && record.uid == user_.uid;
    return reach == Reach::yes && reaches(record.path);
  }

 private:
  using Clock = std::chrono::steady_clock;

  Reach directory(std::string path) {
    const auto now = Clock::now();
    if (path != directory_ || now >= until_) {
      answer_ = reaches_directory(user_, path);
      directory_ = std::move(path);
      until_ = now + directory_answer_lasts;
    }
    return answer_;
  }

  FileUser user_;
  std::string directory_;
  Reach answer_ = Reach::no;
  Clock::time_point until_;
};

json failed(const Error& error) {
  return {{"message", error.message}, {"code", error.code}};
}

void deny(const Responder& responder, std::string_view message) {
  responder.error("PermissionDenied", {{"message", message}});
}

void refuse_parameter(const Responder& responder, std::string_view name) {
  responder.error("org.varlink.service.InvalidParameter", {{"parameter", name}});
}

void answer_error(const Responder& responder, const Error& error) {
  if (error.code == EPERM || error.code == EACCES) {
    deny(responder, error.message);
  } else if (error.code == ENOTSUP) {
    responder.error("Unsupported", {{"message", error.message}});
  } else {
    responder.error("Failed", failed(error));
  }
}

/// Nothing where the parameter is missing or of another type.
std::optional<std::string> text(const json& parameters, const char* name) {
  const auto found = parameters.find(name);
  if (found == parameters.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

bool flag(const json& parameters, const char* name) {
  const auto found = parameters.find(name);
  return found != parameters.end() && found->is_boolean() && found->get<bool>();
}

std::optional<Space> space(const json& parameters) {
  const auto name = text(parameters, "space");
  if (name == "system") return Space::system;
  if (name == "user") return Space::user;
  return std::nullopt;
}

std::string hexadecimal(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

json to_json(const TagRecord& record) {
  return {{"filesystem", record.identity.filesystem},
          {"key", hexadecimal(record.identity.key)},
          {"birth_ns", record.identity.birth_ns},
          {"space", record.space == Space::system ? "system" : "user"},
          {"carrier", record.carrier == Carrier::xattr ? "xattr" : "database"},
          {"policy", record.policy},
          {"path", escape_path(record.path)},
          {"directory", record.directory},
          {"uid", record.uid},
          {"changed_ns", record.changed_ns}};
}

json to_json(const Applied& applied) {
  json out{{"path", escape_path(applied.path)},          {"policy", applied.policy},
           {"resident_pages", applied.resident_pages},   {"moved_pages", applied.moved_pages},
           {"misplaced_pages", applied.misplaced_pages}, {"state", to_string(applied.state)}};
  if (!applied.reason.empty()) out["reason"] = applied.reason;
  return out;
}

json to_json(const Event& event) {
  json out{{"sequence", event.sequence}, {"time_usec", event.time_usec}, {"kind", to_string(event.kind)}};
  if (event.cgroup) out["cgroup"] = escape_path(*event.cgroup);
  if (event.path) out["path"] = escape_path(*event.path);
  if (event.policy) out["policy"] = *event.policy;
  if (event.moved_pages) out["moved_pages"] = *event.moved_pages;
  if (event.misplaced_pages) out["misplaced_pages"] = *event.misplaced_pages;
  if (event.message) out["message"] = *event.message;
  return out;
}

}  // namespace

/// A thread that answers one call by itself.
struct Methods::Stream {
  explicit Stream(Fd its_socket) : socket(std::move(its_socket)) {}
  ~Stream() {
    if (thread.joinable()) thread.join();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Fd socket;
  std::thread thread;
  uid_t uid = 0;
};

Methods::Methods(Parts parts) : parts_(std::move(parts)) {}
Methods::~Methods() {
  // A send that waits for a slow reader ends at once.
  for (const auto& stream : streams_) ::shutdown(stream->socket.get(), SHUT_RDWR);
}

const std::unordered_map<std::string_view, Methods::Handler>& Methods::table() {
  static const std::unordered_map<std::string_view, Handler> handlers{
      {"org.varlink.service.GetInfo", &Methods::get_info},
      {"org.varlink.service.GetInterfaceDescription", &Methods::get_interface_description},
      {"io.fpolicy.Policyd.Status", &Methods::status},
      {"io.fpolicy.Policyd.Jobs", &Methods::jobs},
      {"io.fpolicy.Policyd.Pins", &Methods::pins},
      {"io.fpolicy.Policyd.Events", &Methods::events},
      {"io.fpolicy.Policyd.Apply", &Methods::apply},
      {"io.fpolicy.Policyd.Changed", &Methods::changed},
      {"io.fpolicy.Policyd.Reload", &Methods::reload},
      {"io.fpolicy.Policyd.SetTag", &Methods::set_tag},
      {"io.fpolicy.Policyd.RemoveTag", &Methods::remove_tag},
      {"io.fpolicy.Policyd.FindRecords", &Methods::find_records},
      {"io.fpolicy.Policyd.CarriesTags", &Methods::carries_tags},
      {"io.fpolicy.Policyd.Records", &Methods::records},
      {"io.fpolicy.Policyd.Migrate", &Methods::migrate},
  };
  return handlers;
}

void Methods::handle(Call call, const Responder& responder) {
  const auto found = table().find(call.method);
  if (found != table().end()) {
    (this->*found->second)(call, responder);
    return;
  }
  const auto dot = call.method.rfind('.');
  const std::string interface = call.method.substr(0, dot == std::string::npos ? 0 : dot);
  if (interface == "io.fpolicy.Policyd" || interface == "org.varlink.service") {
    responder.error("org.varlink.service.MethodNotFound", {{"method", call.method}});
  } else {
    responder.error("org.varlink.service.InterfaceNotFound", {{"interface", interface}});
  }
}

void Methods::get_info(Call& /*call*/, const Responder& responder) {
  responder.reply({{"vendor", "fpolicy"},
                   {"product", "policyd"},
                   {"version", version},
                   {"url", ""},
                   {"interfaces", {"org.varlink.service", "io.fpolicy.Policyd"}}});
}

void Methods::get_interface_description(Call& call, const Responder& responder) {
  const auto name = text(call.parameters, "interface");
  if (!name) {
    refuse_parameter(responder, "interface");
  } else if (*name == "io.fpolicy.Policyd") {
    responder.reply({{"description", interface_description}});
  } else if (*name == "org.varlink.service") {
    responder.reply({{"description", service_description}});
  } else {
    responder.error("org.varlink.service.InterfaceNotFound", {{"interface", *name}});
  }
}

namespace {

json guard_json(const GuardStatus& status) {
  json delays = json::array();
  for (const std::uint64_t count : status.counters.delays) delays.push_back(count);
  json out = {{"on", status.on},
              {"restarts", status.sentinel.restarts},
              {"realtime", status.counters.realtime != 0},
              {"locked", status.counters.locked != 0},
              {"deadline_usec", status.counters.deadline_us},
              {"files", status.files},
              {"mapped_files", status.mapped_files},
              {"held_bytes", status.held_bytes},
              {"most_held_bytes", status.most_held_bytes},
              {"longest_usec", status.counters.longest_us},
              {"delays", std::move(delays)},
              {"counters",
               {{"questions", status.counters.questions},
                {"ignored", status.counters.ignored},
                {"readers", status.counters.readers},
                {"own", status.counters.own},
                {"idle", status.counters.idle},
                {"asked", status.counters.asked},
                {"answered", status.counters.answered},
                {"late", status.counters.late},
                {"passed", status.counters.passed},
                {"overflow", status.counters.overflow},
                {"unreadable", status.counters.unreadable},
                {"holds", status.holds},
                {"partial", status.partial},
                {"expired", status.expired}}}};
  if (!status.on) out["reason"] = status.reason;
  if (status.sentinel.pid > 0) out["sentinel"] = status.sentinel.pid;
  if (!status.last_refusal.empty()) out["last_refusal"] = escape_path(status.last_refusal);
  return out;
}

}  // namespace

void Methods::status(Call& /*call*/, const Responder& responder) {
  const Counters& counters = *parts_.counters;
  const auto uptime = duration_cast<microseconds>(std::chrono::steady_clock::now() - started_).count();
  std::uint64_t cgroups = 0;
  if (parts_.cgroups != nullptr) cgroups = parts_.cgroups->count().value_or(0);
  const std::vector<PinInfo> pins = parts_.enforcer->pins().list();
  responder.reply(
      {{"version", version},
       {"pid", ::getpid()},
       {"uptime_usec", uptime},
       {"nodes", parts_.topology->memory.format()},
       {"cgroups", cgroups},
       {"watching", parts_.watching},
       {"limits", parts_.limits()},
       {"rules", parts_.rules()},
       {"queued_files", parts_.enforcing->queue().size()},
       {"retry_files", parts_.enforcer->waiting_for_retry()},
       {"pinned_files", std::ranges::count_if(pins, [](const PinInfo& pin) { return pin.held_bytes > 0; })},
       {"pinned_bytes", parts_.enforcer->pins().held_bytes()},
       {"pin_max_bytes", parts_.enforcer->pins().max_bytes()},
       {"guard", guard_json(parts_.guard->status())},
       {"counters",
        {{"moves", counters.moves.load()},
         {"attaches", counters.attaches.load()},
         {"rescans", counters.rescans.load()},
         {"files_enforced", counters.files_enforced.load()},
         {"pages_moved", counters.pages_moved.load()},
         {"pages_returned", counters.pages_returned.load()},
         {"pages_slipped", counters.pages_slipped.load()},
         {"retries", counters.retries.load()},
         {"budget_deferrals", counters.budget_deferrals.load()},
         {"tag_changes", counters.tag_changes.load()},
         {"tags_carried", counters.tags_carried.load()},
         {"reloads", counters.reloads.load()},
         {"migrations", counters.migrations.load()},
         {"errors", counters.errors.load()},
         {"requests", counters.requests.load()},
         {"connections_refused", counters.connections_refused.load()}}}});
}

void Methods::jobs(Call& /*call*/, const Responder& responder) {
  const bool fits =
      parts_.enforcing->queue().push({.priority = Priority::background,
                                      .key = fmt::format("jobs:{}", ++requests_),
                                      .due = {},
                                      .run = [this, responder] {
                                        auto jobs = parts_.enforcer->jobs();
                                        parts_.loop->post([responder, jobs = std::move(jobs)] {
                                          if (!jobs) {
                                            answer_error(responder, jobs.error());
                                            return;
                                          }
                                          json out = json::array();
                                          for (const JobInfo& job : *jobs) {
                                            out.push_back({{"cgroup", escape_path(job.cgroup)},
                                                           {"mems", job.mems},
                                                           {"processes", job.processes},
                                                           {"tagged_files", job.tagged_files},
                                                           {"misplaced_pages", job.misplaced_pages},
                                                           {"moves", job.moves}});
                                          }
                                          responder.reply({{"jobs", std::move(out)}});
                                        });
                                      }});
  if (!fits) responder.error("Failed", failed({EAGAIN, "policyd is too busy"}));
}

void Methods::pins(Call& call, const Responder& responder) {
  // They name other users' files.
  if (call.peer.uid != 0) {
    deny(responder, "pins: only root may see them");
    return;
  }
  json out = json::array();
  for (const PinInfo& pin : parts_.enforcer->pins().list()) {
    json entry{{"path", escape_path(pin.path)}, {"policy", pin.policy}, {"held_bytes", pin.held_bytes}};
    if (!pin.reason.empty()) entry["reason"] = pin.reason;
    out.push_back(std::move(entry));
  }
  responder.reply({{"pins", std::move(out)}});
}

void Methods::events(Call& call, const Responder& responder) {
  // They name other users' files.
  if (call.peer.uid != 0) {
    deny(responder, "events: only root may see them");
    return;
  }
  const auto past = parts_.events->since(0);
  if (!call.more) {
    responder.reply({{"event", past.empty() ? json() : to_json(past.back())}});
    return;
  }
  const bool follow = flag(call.parameters, "follow");
  for (std::size_t i = 0; i < past.size(); ++i) {
    const json out{{"event", to_json(past[i])}};
    if (!follow && i + 1 == past.size()) {
      responder.reply(out);
      return;
    }
    responder.reply_and_go_on(out);
  }
  if (!follow) {
    responder.reply({{"event", nullptr}});
    return;
  }
  followers_.push_back({responder, past.empty() ? 1 : past.back().sequence + 1});
}

void Methods::send_events() {
  std::erase_if(followers_, [](const Follower& follower) { return !follower.responder.is_open(); });
  for (Follower& follower : followers_) {
    if (follower.responder.unsent() > most_unread_events) continue;
    for (const Event& event : parts_.events->since(follower.next)) {
      follower.next = event.sequence + 1;
      follower.responder.reply_and_go_on({{"event", to_json(event)}});
    }
  }
}

/// The paths of a call from root. Nothing after an error was answered.
std::optional<std::vector<std::string>> Methods::root_paths(const Call& call,
                                                            const Responder& responder) const {
  std::vector<std::string> paths;
  const auto found = call.parameters.find("paths");
  if (found == call.parameters.end() || found->is_null()) return paths;
  if (!found->is_array()) {
    refuse_parameter(responder, "paths");
    return std::nullopt;
  }
  for (const json& entry : *found) {
    auto path = entry.is_string() ? unescape_path(entry.get_ref<const std::string&>())
                                  : Result<std::string>(fail(EINVAL, ""));
    if (!path || !path->starts_with('/') || path->find('\0') != std::string::npos) {
      refuse_parameter(responder, "paths");
      return std::nullopt;
    }
    paths.push_back(std::move(*path));
  }
  if (!paths.empty() && call.peer.uid != 0) {
    deny(responder, "paths: only from root; others send file descriptors");
    return std::nullopt;
  }
  return paths;
}

/// May this caller ask for work on the files that he sent?
Status Methods::check_users_files(const Call& call) const {
  if (auto status = parts_.mounts->refresh(); !status) return status;
  for (const Fd& file : call.fds) {
    // Before anything is asked of the filesystem itself.
    const auto is_here = parts_.mounts->contains_file(file.get());
    if (!is_here) return tl::unexpected(is_here.error());
    if (!*is_here) return fail(EPERM, "a file's filesystem is not mounted where policyd runs");
    const auto info = file_info(file.get());
    if (!info) return tl::unexpected(info.error());
    if (call.peer.uid == 0) continue;
    if (!info->is_regular()) return fail(EPERM, "only root may ask for what is no regular file");
    if (info->owner != call.peer.uid) return fail(EPERM, "only root or a file's owner may ask for it");
  }
  return {};
}

/// What a caller without privilege may use is what his own processes may use.
Enforcer::Asker Methods::asker(const Call& call) const {
  Enforcer::Asker asker{.uid = call.peer.uid, .allowed = {}};
  if (call.peer.uid == 0) {
    asker.allowed = parts_.topology->memory;
    return asker;
  }
  if (const auto process = Process::open(call.peer.pid)) {
    if (const auto status = process->status()) asker.allowed = status->allowed_nodes;
  }
  return asker;
}

void Methods::apply(Call& call, const Responder& responder) {
  auto paths = root_paths(call, responder);
  if (!paths) return;
  if (paths->empty() && call.fds.empty() && call.peer.uid != 0) {
    deny(responder, "apply: only root may have everything enforced");
    return;
  }
  if (const auto allowed = check_users_files(call); !allowed) {
    answer_error(responder, allowed.error());
    return;
  }
  struct Answer {
    json files = json::array();
    json errors = json::array();
  };
  const auto answer = std::make_shared<Answer>();
  const auto files = std::make_shared<const std::vector<Fd>>(std::move(call.fds));
  const bool fits = parts_.enforcing->queue().push(
      {.priority = Priority::request,
       .key = fmt::format("apply:{}", ++requests_),
       .due = {},
       .run = [this, responder, answer, files, paths = std::move(*paths), more = call.more,
               whose = asker(call)] {
         const auto each = [&](const Applied& applied) {
           if (more) {
             parts_.loop->post([responder, out = to_json(applied)] {
               responder.reply_and_go_on({{"files", {out}}, {"errors", json::array()}});
             });
           } else {
             answer->files.push_back(to_json(applied));
           }
         };
         const auto error = [&](const std::string& path, const Error& what) {
           answer->errors.push_back({{"path", escape_path(path)}, {"message", what.message}});
         };
         if (!files->empty()) {
           parts_.enforcer->apply_files(*files, whose, each, error);
         } else if (paths.empty()) {
           parts_.enforcer->apply_everything(each, error);
         } else {
           parts_.enforcer->apply_paths(paths, each, error);
         }
         parts_.loop->post([responder, answer] {
           responder.reply({{"files", std::move(answer->files)}, {"errors", std::move(answer->errors)}});
         });
       }});
  if (!fits) responder.error("Failed", failed({EAGAIN, "policyd is too busy"}));
}

void Methods::changed(Call& call, const Responder& responder) {
  auto paths = root_paths(call, responder);
  if (!paths) return;
  if (const auto allowed = check_users_files(call); !allowed) {
    answer_error(responder, allowed.error());
    return;
  }
  if (!paths->empty()) parts_.enforcer->schedule_changed_paths(std::move(*paths));
  if (call.fds.empty()) {
    responder.reply(json::object());
    return;
  }
  const uid_t uid = call.peer.uid;
  const std::size_t count = call.fds.size();
  std::size_t& waiting = waiting_files_[uid];
  waiting += count;
  // A user who is ahead of the work waits for it, so that descriptors do not pile up.
  const bool answer_later = waiting > most_waiting_files;
  parts_.enforcer->schedule_changed_files(std::move(call.fds), asker(call),
                                          [this, responder, uid, count, answer_later] {
                                            parts_.loop->post([this, responder, uid, count, answer_later] {
                                              std::size_t& left = waiting_files_[uid];
                                              left -= count;
                                              if (left == 0) waiting_files_.erase(uid);
                                              if (answer_later) responder.reply(json::object());
                                            });
                                          });
  if (!answer_later) responder.reply(json::object());
}

void Methods::reload(Call& call, const Responder& responder) {
  if (call.peer.uid != 0) {
    deny(responder, "reload: only root may");
    return;
  }
  const auto status = parts_.reload();
  if (status) {
    responder.reply(json::object());
  } else {
    responder.error("Failed", failed(status.error()));
  }
}

void Methods::set_tag(Call& call, const Responder& responder) {
  const auto in = space(call.parameters);
  const auto policy_text = text(call.parameters, "policy");
  if (!in || !policy_text) {
    refuse_parameter(responder, in ? "policy" : "space");
    return;
  }
  const auto policy = parse_policy(*policy_text);
  if (!policy) {
    responder.error("InvalidPolicy", {{"message", policy.error().message}});
    return;
  }
  change_tag(call, responder, *in, *policy, flag(call.parameters, "force"));
}

void Methods::remove_tag(Call& call, const Responder& responder) {
  const auto in = space(call.parameters);
  if (!in) {
    refuse_parameter(responder, "space");
    return;
  }
  change_tag(call, responder, *in, std::nullopt, flag(call.parameters, "force"));
}

void Methods::change_tag(Call& call, const Responder& responder, Space in, std::optional<Policy> policy,
                         bool force) {
  if (call.fds.size() != 1) {
    refuse_parameter(responder, "fds");
    return;
  }
  if (in == Space::system && call.peer.uid != 0) {
    deny(responder, "system tags: only root may change them");
    return;
  }
  // Checks the owner, too.
  if (const auto allowed = check_users_files(call); !allowed) {
    answer_error(responder, allowed.error());
    return;
  }
  if (in == Space::user && policy && policy->pin && call.peer.uid != 0) {
    deny(responder, "pin: only in system tags");
    return;
  }
  ask_store(call, responder,
            [this, in, policy = std::move(policy), force,
             uid = call.peer.uid](const std::vector<Fd>& files) -> Result<json> {
              // Not the path that the caller tells: the catalogue would show it to others.
              const int fd = files.front().get();
              const std::string path = path_of(fd).value_or(std::string());
              FileRef reference;
              reference.fd = fd;
              reference.path = path;
              SetOptions options;
              options.force = force;
              options.uid = uid;
              const auto outcome = policy ? parts_.store->set(reference, in, *policy, options)
                                          : parts_.store->remove(reference, in, options);
              if (!outcome) return tl::unexpected(outcome.error());
              if (auto flushed = parts_.store->flush(); !flushed) return tl::unexpected(flushed.error());
              return json{{"changed", *outcome == SetOutcome::changed}};
            });
}

/// Does work on the files that a caller sent where tags are read and written, and answers with what it
/// returns.
void Methods::ask_store(Call& call, const Responder& responder,
                        std::function<Result<json>(const std::vector<Fd>&)> question) {
  // Before anything is asked of the filesystems themselves.
  auto status = parts_.mounts->refresh();
  for (const Fd& file : call.fds) {
    if (!status) break;
    const auto is_here = parts_.mounts->contains_file(file.get());
    if (!is_here || !*is_here) status = fail(EPERM, "a file's filesystem is not mounted where policyd runs");
  }
  if (!status) {
    answer_error(responder, status.error());
    return;
  }
  const auto files = std::make_shared<const std::vector<Fd>>(std::move(call.fds));
  const bool fits =
      parts_.storing->queue().push({.priority = Priority::request,
                                    .key = fmt::format("store:{}", ++requests_),
                                    .due = {},
                                    .run = [this, responder, files, question = std::move(question)] {
                                      parts_.loop->post([responder, answer = question(*files)] {
                                        if (answer) {
                                          responder.reply(*answer);
                                        } else {
                                          answer_error(responder, answer.error());
                                        }
                                      });
                                    }});
  if (!fits) responder.error("Failed", failed({EAGAIN, "policyd is too busy"}));
}

void Methods::find_records(Call& call, const Responder& responder) {
  const auto in = space(call.parameters);
  if (!in) {
    refuse_parameter(responder, "space");
    return;
  }
  ask_store(call, responder, [this, in = *in](const std::vector<Fd>& files) -> Result<json> {
    json records = json::array();
    for (const Fd& file : files) {
      FileRef reference;
      reference.fd = file.get();
      const auto record = parts_.records->find(reference, in);
      if (!record) return tl::unexpected(record.error());
      records.push_back(record->has_value() ? to_json(record->value()) : json());
    }
    return json{{"records", std::move(records)}};
  });
}

void Methods::carries_tags(Call& call, const Responder& responder) {
  if (call.fds.size() != 1) {
    refuse_parameter(responder, "fds");
    return;
  }
  ask_store(call, responder, [this](const std::vector<Fd>& files) -> Result<json> {
    FileRef reference;
    reference.fd = files.front().get();
    const auto carries = parts_.records->carries_tags(reference);
    if (!carries) return tl::unexpected(carries.error());
    return json{{"carries", *carries}};
  });
}

void Methods::records(Call& call, const Responder& responder) {
  const auto escaped = text(call.parameters, "prefix");
  const auto prefix = escaped ? unescape_path(*escaped) : Result<std::string>(fail(EINVAL, ""));
  if (!prefix) {
    refuse_parameter(responder, "prefix");
    return;
  }
  if (!call.more) {
    responder.error("org.varlink.service.ExpectedMore", json::object());
    return;
  }
  const uid_t uid = call.peer.uid;
  const auto of_this = std::ranges::count(streams_, uid, [](const auto& stream) { return stream->uid; });
  if (streams_.size() >= most_streams || of_this >= most_streams_of_a_user) {
    responder.error("Failed", failed({EAGAIN, "too many callers read records at this time"}));
    return;
  }
  auto socket = responder.borrow_socket();
  auto kept = responder.borrow_socket();
  if (!socket || !kept) return;
  auto stream = std::make_unique<Stream>(std::move(*kept));
  stream->uid = uid;
  Stream* const raw = stream.get();
  streams_.push_back(std::move(stream));
  // As fast as the caller reads: this would hold up others in any other thread.
  raw->thread = std::thread([this, raw, responder, peer = call.peer, prefix = *prefix,
                             socket = std::make_shared<Fd>(std::move(*socket))] {
    send_records(std::move(*socket), peer, prefix);
    parts_.loop->post([this, raw, responder] {
      std::erase_if(streams_, [raw](const auto& each) { return each.get() == raw; });
      responder.give_back();
    });
  });
}

void Methods::migrate(Call& call, const Responder& responder) {
  auto request = parse_migrate(call.parameters);
  if (!request) {
    refuse_parameter(responder, request.error().message);
    return;
  }
  const uid_t uid = call.peer.uid;
  if (const auto confined = confine(*request, uid); !confined) {
    answer_error(responder, confined.error());
    return;
  }
  const auto started = parts_.migrations->start(
      uid,
      [this, responder, uid, more = call.more,
       request = std::move(*request)](const std::atomic<bool>& stopping) mutable -> std::function<void()> {
        using Clock = std::chrono::steady_clock;
        auto told_phase = MigrateProgress::Phase::plan;
        auto told = Clock::now();
        // A caller who has gone wants nothing any more.
        request.options.progress = [&](const MigrateProgress& progress) {
          if (stopping || !responder.is_open()) return false;
          const auto now = Clock::now();
          const bool is_news = progress.phase != told_phase || now - told >= between_progress;
          if (more && is_news && responder.unsent() <= most_unread_progress) {
            told_phase = progress.phase;
            told = now;
            parts_.loop->post(
                [responder, out = json(progress_json(progress))] { responder.reply_and_go_on(out); });
          }
          return true;
        };
        auto report = migrate_job(request.job, request.options, *parts_.topology, parts_.resolver);
        record(request, uid, report);
        json out = report ? report_reply(std::move(*report), request.options) : json();
        return [this, responder, out = std::move(out), status = report.map([](const auto&) {})] {
          parts_.loop->post([responder, out, status] {
            if (status)
              responder.reply(out);
            else
              answer_error(responder, status.error());
          });
        };
      });
  if (!started) answer_error(responder, started.error());
}

/// One event for each move. What comes to nothing is told to the caller alone, unless that is root: users
/// could drive out what the log holds.
void Methods::record(const MigrateRequest& request, uid_t uid, const Result<MigrateReport>& report) const {
  const MigrateOptions& options = request.options;
  if (options.dry_run || (!report && uid != 0)) return;
  if (report) ++parts_.counters->migrations;
  Event event;
  event.kind = EventKind::migrate;
  if (!request.job.cgroup.empty()) event.cgroup = "/" + request.job.cgroup;
  std::string text = fmt::format("{} -> {}", options.from.format(), options.to.format());
  if (request.job.cgroup.empty())
    text +=
        fmt::format(", process {}{}", request.job.pids.front(), request.job.pids.size() > 1 ? ", ..." : "");
  if (uid != 0) text += fmt::format(", asked by user {}", uid);
  if (report) {
    const MigrateCounts& counts = report->counts;
    event.moved_pages = counts.moved;
    text += fmt::format(", {} processes", report->processes);
    if (counts.busy > 0) text += fmt::format(", {} pages busy", counts.busy);
    if (counts.failed > 0) text += fmt::format(", {} pages failed", counts.failed);
    if (report->stopped) text += ", stopped before the end";
    if (!report->failure.empty()) text += ": " + report->failure;
  } else {
    text += ": " + report.error().message;
  }
  event.message = std::move(text);
  parts_.events->add(std::move(event));
}

void Methods::send_records(Fd socket, const varlink::Peer& peer, const std::string& prefix) const {
  varlink::Connection connection(std::move(socket));
  const auto send = [&connection](const json& record, bool continues) {
    json message{{"parameters", {{"record", record}}}};
    if (continues) message["continues"] = true;
    return connection.send(message).has_value();
  };
  std::optional<Sight> sight;
  if (peer.uid != 0) {
    auto groups = peer_groups(connection.fd());
    if (!groups) {
      static_cast<void>(
          connection.send({{"error", "io.fpolicy.Policyd.Failed"}, {"parameters", failed(groups.error())}}));
      return;
    }
    sight.emplace(FileUser{.uid = peer.uid, .gid = peer.gid, .groups = std::move(*groups)});
  }
  bool is_reading = true;
  const auto status = parts_.records->for_each(prefix, [&](const TagRecord& record) {
    if (sight && !sight->shows(record)) return true;
    is_reading = send(to_json(record), true);
    return is_reading;
  });
  if (!is_reading) return;
  if (status) {
    send(nullptr, false);
  } else {
    static_cast<void>(
        connection.send({{"error", "io.fpolicy.Policyd.Failed"}, {"parameters", failed(status.error())}}));
  }
}

}  // namespace fpolicy::policyd
