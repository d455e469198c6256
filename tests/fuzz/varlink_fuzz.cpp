// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: who calls (r: root, u: a user; R, U: and a descriptor comes with the first byte), then what he sends
// to policyd's socket; 0xff, which no JSON has, is a pause. All of policyd answers but its workers: what
// would be done is queued and dropped, and a move is only looked at.
#include "check.h"
#include "methods.h"
#include "scratch.h"
#include "server.h"

#include <fpolicy/migrate_json.h>
#include <fpolicy/resolver.h>

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

using namespace fpolicy;
using namespace fpolicy::policyd;
using nlohmann::json;

namespace {

constexpr uid_t somebody = 65534;

class Policyd {
 public:
  Policyd() {
    scratch_.write("file", "content");
    file_ = Fd(::open(scratch_.path("file").c_str(), O_RDONLY | O_CLOEXEC));
    topology_.memory = {0, 1};
    topology_.cpu = {0};
    loop_ = *Loop::open();
    database_ = *Database::open(scratch_.path("db"), Database::Access::read_write, &identifier_);
    TagRecord record;
    record.identity = {"uuid:a", "hb", 1};
    record.policy = "bind:1";
    record.path = "/etc/passwd";
    FUZZ_CHECK(database_->put(std::span(&record, 1)));
    store_ = std::make_unique<PolicyStore>(database_.get(), &identifier_);
    resolver_ = std::make_unique<Resolver>(store_.get(), std::make_shared<const RuleSet>());
    mounts_.emplace(*MountedDevices::open());
    enforcer_ = std::make_unique<Enforcer>(Enforcer::Parts{.records = database_.get(),
                                                           .store = store_.get(),
                                                           .identifier = &identifier_,
                                                           .resolver = resolver_.get(),
                                                           .topology = &topology_,
                                                           .cgroups = nullptr,
                                                           .events = &events_,
                                                           .counters = &counters_,
                                                           .queue = &enforcing_.queue(),
                                                           .mounts = &*mounts_},
                                           Config());
    guard_ = std::make_unique<Guard>(Guard::Parts{.cgroups = nullptr,
                                                  .stays = &enforcer_->stays(),
                                                  .pins = &enforcer_->pins(),
                                                  .sentinel = "",
                                                  .asked = [] {}},
                                     Config());
    methods_ = std::make_unique<Methods>(Methods::Parts{.loop = loop_.get(),
                                                        .enforcer = enforcer_.get(),
                                                        .enforcing = &enforcing_,
                                                        .storing = &storing_,
                                                        .guard = guard_.get(),
                                                        .migrations = &migrations_,
                                                        .resolver = resolver_.get(),
                                                        .store = store_.get(),
                                                        .records = database_.get(),
                                                        .mounts = &*mounts_,
                                                        .topology = &topology_,
                                                        .cgroups = nullptr,
                                                        .events = &events_,
                                                        .counters = &counters_,
                                                        .reload = [] { return Status(); },
                                                        .rules = [] { return std::size_t{0}; },
                                                        .limits = [] { return std::vector<std::string>(); },
                                                        .watching = false});
    events_.add(Event());
    server_ =
        *Server::open(loop_.get(), scratch_.path("socket"), &counters_,
                      [this](Call call, const Responder& responder) { answer(std::move(call), responder); });
  }

  void take(char who, std::string_view text) {
    uid_ = who == 'r' || who == 'R' ? 0 : somebody;
    follows_ = false;
    calls_ = 0;
    answers_.clear();
    auto client = varlink::Connection::connect(scratch_.path("socket"));
    FUZZ_CHECK(client);
    bool with_file = who == 'R' || who == 'U';
    bool open = true;
    const auto ends = static_cast<std::size_t>(std::ranges::count(text, '\0'));
    while (!text.empty() && open) {
      const std::string_view piece = text.substr(0, text.find('\xff'));
      text.remove_prefix(std::min(piece.size() + 1, text.size()));
      for (std::size_t sent = 0; sent < piece.size() && open;) {
        const ssize_t count = send(client->fd(), piece.substr(sent), with_file);
        if (count > 0) {
          sent += static_cast<std::size_t>(count);
          with_file = false;
        }
        open = count > 0 || errno == EAGAIN;
        run(client->fd());
      }
      run(client->fd());
    }
    ::shutdown(client->fd(), SHUT_WR);
    // To the end, but who follows events gets none.
    for (int idle = 0; !run(client->fd());) {
      drop_work();
      if (sd_event_run(loop_->get(), 1000) == 0 && ++idle > 20 && follows_) break;
    }
    client = fail(0, "");
    while (sd_event_run(loop_->get(), 0) > 0) {
    }
    methods_->send_events();
    drop_work();
    check_answers(ends);
  }

 private:
  void answer(Call call, const Responder& responder) {
    ++calls_;
    call.peer.uid = uid_;
    if (call.method == "io.fpolicy.Policyd.Events") follows_ = true;
    if (call.method != "io.fpolicy.Policyd.Migrate") {
      methods_->handle(std::move(call), responder);
      return;
    }
    auto request = parse_migrate(call.parameters);
    if (!request) {
      FUZZ_CHECK(request.error().code == EINVAL && !request.error().message.empty());
      responder.error("org.varlink.service.InvalidParameter", {{"parameter", request.error().message}});
      return;
    }
    FUZZ_CHECK(request->job.cgroup.empty() != request->job.pids.empty());
    FUZZ_CHECK(!request->job.cgroup.starts_with('/'));
    for (const pid_t pid : request->job.pids) FUZZ_CHECK(pid > 0);
    const auto confined = confine(*request, uid_);
    FUZZ_CHECK(confined || (uid_ != 0 && confined.error().code == EPERM));
    responder.reply({{"confined", confined.has_value()}});
  }

  /// Never waits. `with_file`: a descriptor beside the first byte.
  [[nodiscard]] ssize_t send(int socket, std::string_view bytes, bool with_file) const {
    iovec vector{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (with_file) {
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      cmsghdr* part = CMSG_FIRSTHDR(&header);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = file_.get();
      std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
    }
    return ::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  /// The loop, and what it has answered. True at the end of the connection.
  bool run(int socket) {
    for (int turn = 0; turn < 64 && sd_event_run(loop_->get(), 0) > 0; ++turn) {
    }
    std::array<char, 65536> buffer;
    while (true) {
      const ssize_t count = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) return false;
      if (count <= 0) return true;
      answers_.append(buffer.data(), static_cast<std::size_t>(count));
    }
  }

  void drop_work() {
    constexpr auto any = static_cast<Priority>(255);
    for (Worker* worker : {&enforcing_, &storing_})
      while (worker->queue().pop_urgent(any)) {
      }
  }

  void check_answers(std::size_t ends) const {
    FUZZ_CHECK(calls_ <= ends);
    std::string_view rest = answers_;
    std::size_t whole = 0;
    while (!rest.empty()) {
      const auto end = rest.find('\0');
      FUZZ_CHECK(end != std::string_view::npos);
      const json answer = json::parse(rest.substr(0, end), nullptr, false);
      rest.remove_prefix(end + 1);
      FUZZ_CHECK(answer.is_object() && answer.contains("parameters") && answer["parameters"].is_object());
      if (answer.contains("error"))
        FUZZ_CHECK(answer["error"].get<std::string>().find('.') != std::string::npos);
      if (!answer.contains("continues")) ++whole;
      // What a client of ours would make of it.
      static_cast<void>(report_from_json(answer["parameters"]));
      static_cast<void>(progress_from_json(answer["parameters"]));
    }
    FUZZ_CHECK(whole <= calls_);
  }

  Scratch scratch_;
  Fd file_;
  Identifier identifier_;
  Topology topology_;
  EventLog events_{10, [] {}};
  Counters counters_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<PolicyStore> store_;
  std::unique_ptr<Resolver> resolver_;
  std::optional<MountedDevices> mounts_;
  std::unique_ptr<Loop> loop_;
  // Never started.
  Worker enforcing_{"enforcing", 1000};
  Worker storing_{"storing", 1000};
  Migrations migrations_;
  std::unique_ptr<Enforcer> enforcer_;
  std::unique_ptr<Guard> guard_;
  std::unique_ptr<Methods> methods_;
  std::unique_ptr<Server> server_;

  uid_t uid_ = 0;
  bool follows_ = false;
  std::size_t calls_ = 0;
  std::string answers_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Policyd policyd;
  const std::string_view input = fuzz_text(data, size);
  if (!input.empty()) policyd.take(input.front(), input.substr(1));
  return 0;
}
