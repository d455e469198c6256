// SPDX-License-Identifier: LGPL-2.1-or-later
#include "server.h"

#include "journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace fpolicy::policyd {
namespace {

using nlohmann::json;

// A tool needs one connection; followers of events stay. Root is let in when users have taken all they may.
constexpr std::size_t most_of_a_user = 16;
constexpr std::size_t most_of_users = 128;
constexpr std::size_t most = 256;

/// Descriptors travel beside a message and users send no paths: their messages are short.
constexpr std::size_t longest_of_a_user = 64U << 10U;

/// What a peer may leave unread before its connection is closed.
constexpr std::size_t most_unsent_of_a_user = 4U << 20U;
constexpr std::size_t most_unsent_of_root = 64U << 20U;

/// With more than this unread, a peer's next calls wait, errors included: answers may be much longer than
/// calls.
constexpr std::size_t most_unsent_before_next = 256U << 10U;

constexpr std::string_view interface_prefix = "io.fpolicy.Policyd.";

}  // namespace

struct Responder::Connection {
  Connection(Server* its_server, varlink::Connection&& its_wire, const varlink::Peer& its_peer)
      : server(its_server), wire(std::move(its_wire)), peer(its_peer) {}
  Server* server;  ///< nullptr once closed
  varlink::Connection wire;
  varlink::Peer peer;
  Loop::Source source;
  std::uint32_t watched = 0;
  bool busy = false;  ///< a call is being answered; the next waits
  bool dispatching = false;
  bool lent = false;
  bool ended = false;  ///< the peer sends nothing more
  std::atomic<bool> open{true};
  std::atomic<std::size_t> unsent{0};
};

/// The answer that one call is owed.
struct Responder::Ticket {
  std::weak_ptr<Connection> connection;
  Loop* loop = nullptr;
  bool silent = false;  ///< "oneway"
  bool done = false;

  Ticket() = default;
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  // Work that was dropped (policyd stops): the caller must not wait for ever. The last copy may die in a
  // worker.
  ~Ticket() {
    if (done) return;
    if (auto left = connection.lock()) {
      loop->post([left] {
        if (left->server != nullptr) left->server->close(left);
      });
    }
  }
};

void Responder::send(const json& parameters, bool continues) const {
  const auto connection = ticket_->connection.lock();
  if (!continues) ticket_->done = true;
  if (!connection || connection->server == nullptr) return;
  Server* server = connection->server;
  if (!ticket_->silent) {
    json message{{"parameters", parameters}};
    if (continues) message["continues"] = true;
    const std::size_t bound = connection->peer.uid == 0 ? most_unsent_of_root : most_unsent_of_a_user;
    if (!connection->wire.queue(message) || connection->wire.unsent() > bound) {
      server->close(connection);
      return;
    }
  }
  if (!continues) connection->busy = false;
  server->flush(connection);
}

void Responder::error(std::string_view name, const json& parameters) const {
  const auto connection = ticket_->connection.lock();
  ticket_->done = true;
  if (!connection || connection->server == nullptr) return;
  Server* server = connection->server;
  const std::string full = name.find('.') == std::string_view::npos
                               ? fmt::format("{}{}", interface_prefix, name)
                               : std::string(name);
  if (!ticket_->silent && !connection->wire.queue({{"error", full}, {"parameters", parameters}})) {
    server->close(connection);
    return;
  }
  connection->busy = false;
  server->flush(connection);
}

bool Responder::is_open() const {
  const auto connection = ticket_->connection.lock();
  return connection && connection->open;
}

std::size_t Responder::unsent() const {
  const auto connection = ticket_->connection.lock();
  return connection ? connection->unsent.load() : 0;
}

Result<Fd> Responder::borrow_socket() const {
  const auto connection = ticket_->connection.lock();
  if (!connection || connection->server == nullptr) return fail(ECONNRESET, "connection closed");
  Fd copy(::fcntl(connection->wire.fd(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno("dup", "socket");
  connection->lent = true;
  connection->source.reset();
  return copy;
}

void Responder::give_back() const {
  ticket_->done = true;
  const auto connection = ticket_->connection.lock();
  if (!connection || connection->server == nullptr) return;
  connection->lent = false;
  connection->busy = false;
  connection->server->flush(connection);
}

Result<std::unique_ptr<Server>> Server::open(Loop* loop, const std::string& path, Counters* counters,
                                             Handler handler) {
  auto listener = varlink::listen_at(path, 0666);
  if (!listener) return tl::unexpected(listener.error());
  std::unique_ptr<Server> server(new Server);
  server->loop_ = loop;
  server->counters_ = counters;
  server->path_ = path;
  server->handler_ = std::move(handler);
  server->listener_ = std::move(*listener);
  auto source = loop->watch(server->listener_.get(), EPOLLIN, [raw = server.get()](auto) { raw->accept(); });
  if (!source) return tl::unexpected(source.error());
  server->listener_source_ = std::move(*source);
  return server;
}

Server::~Server() {
  while (!connections_.empty()) close(connections_.front());
  if (!path_.empty()) ::unlink(path_.c_str());
}

bool Server::has_room_for(uid_t uid) const {
  if (uid == 0) return connections_.size() < most;
  std::size_t of_users = 0;
  std::size_t of_this = 0;
  for (const auto& connection : connections_) {
    if (connection->peer.uid != 0) ++of_users;
    if (connection->peer.uid == uid) ++of_this;
  }
  return of_users < most_of_users && of_this < most_of_a_user;
}

void Server::accept() {
  // One at a time: the loop comes back while more wait, and others get their turn between.
  auto accepted = varlink::accept_at(listener_.get());
  if (!accepted) {
    // EMFILE and the like: the connection stays in the backlog, and the loop would spin.
    log_line(Level::error, accepted.error().message);
    sd_event_source_set_enabled(listener_source_.get(), SD_EVENT_OFF);
    auto later =
        loop_->after(1'000'000, [this] { sd_event_source_set_enabled(listener_source_.get(), SD_EVENT_ON); });
    if (later) accept_again_ = std::move(*later);
    return;
  }
  std::optional<Fd> socket = std::move(*accepted);
  if (!socket) return;
  varlink::Connection wire(std::move(*socket));
  const auto peer = wire.peer();
  if (!peer || !has_room_for(peer->uid)) {
    ++counters_->connections_refused;
    return;
  }
  if (peer->uid != 0) wire.set_longest_received(longest_of_a_user);
  connections_.push_back(std::make_shared<Connection>(this, std::move(wire), *peer));
  flush(connections_.back());
}

void Server::serve(const std::shared_ptr<Connection>& connection, std::uint32_t events) {
  if ((events & EPOLLIN) != 0) {
    const auto open = connection->wire.read_available();
    if (!open) {
      close(connection);
      return;
    }
    connection->ended = connection->ended || !*open;
    dispatch(connection);
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    close(connection);
    return;
  }
  flush(connection);
}

void Server::dispatch(const std::shared_ptr<Connection>& connection) {
  // A handler that answers at once comes back through flush(); this loop takes the next call then.
  connection->dispatching = true;
  dispatch_waiting(connection);
  connection->dispatching = false;
}

void Server::dispatch_waiting(const std::shared_ptr<Connection>& connection) {
  while (connection->server != nullptr && !connection->busy &&
         connection->wire.unsent() <= most_unsent_before_next) {
    auto next = connection->wire.next();
    if (!next) {
      close(connection);
      return;
    }
    std::optional<varlink::Message> message = std::move(*next);
    if (!message) return;
    json& body = message->body;
    const auto flag = [&body](const char* name) {
      const auto found = body.find(name);
      return found != body.end() && found->is_boolean() && found->get<bool>();
    };
    const auto method = body.find("method");
    const auto parameters = body.find("parameters");
    if (method == body.end() || !method->is_string() ||
        (parameters != body.end() && !parameters->is_object())) {
      close(connection);
      return;
    }
    ++counters_->requests;
    connection->busy = true;
    auto ticket = std::make_shared<Responder::Ticket>();
    ticket->connection = connection;
    ticket->loop = loop_;
    ticket->silent = flag("oneway");
    Call call{.peer = connection->peer,
              .method = method->get<std::string>(),
              .parameters = parameters == body.end() ? json::object() : std::move(*parameters),
              .fds = std::move(message->fds),
              .more = flag("more")};
    handler_(std::move(call), Responder(std::move(ticket)));
  }
}

void Server::flush(const std::shared_ptr<Connection>& connection) {
  if (connection->server == nullptr || connection->lent) return;
  if (!connection->wire.write_available()) {
    close(connection);
    return;
  }
  // Calls that came while this one was being answered, or its answer waited to be read, are in the wire's
  // buffer: epoll does not tell of them.
  if (!connection->busy && !connection->dispatching) dispatch(connection);
  if (connection->server == nullptr || connection->lent) return;
  connection->unsent = connection->wire.unsent();
  if (connection->ended && !connection->busy && connection->wire.unsent() == 0) {
    close(connection);
    return;
  }
  // While a call is being answered, or answers pile up, nothing more is read, so that a peer cannot fill our
  // memory; that it is gone is told all the same (EPOLLHUP).
  std::uint32_t wanted = 0;
  if (!connection->busy && !connection->ended && connection->wire.unsent() <= most_unsent_before_next)
    wanted |= EPOLLIN;
  if (connection->wire.unsent() > 0) wanted |= EPOLLOUT;
  if (connection->source && connection->watched == wanted) return;
  connection->watched = wanted;
  if (connection->source) {
    sd_event_source_set_io_events(connection->source.get(), wanted);
    return;
  }
  auto source = loop_->watch(connection->wire.fd(), wanted,
                             [this, connection](std::uint32_t events) { serve(connection, events); });
  if (!source) {
    close(connection);
    return;
  }
  connection->source = std::move(*source);
}

void Server::close(const std::shared_ptr<Connection>& connection) {
  // The list's and the source's may be the last others.
  const auto kept = connection;  // NOLINT(performance-unnecessary-copy-initialization)
  kept->server = nullptr;
  kept->open = false;
  kept->source.reset();
  connections_.remove(kept);
}

}  // namespace fpolicy::policyd
