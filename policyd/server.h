// SPDX-License-Identifier: LGPL-2.1-or-later
// The control socket: connections, their limits, and the calls that come in. Lives in the loop's thread.
#pragma once

#include "event_log.h"
#include "loop.h"

#include <fpolicy/fd.h>
#include <fpolicy/result.h>
#include <fpolicy/varlink.h>

#include <nlohmann/json.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::policyd {

struct Call {
  varlink::Peer peer;
  std::string method;         ///< "io.fpolicy.Policyd.Status"
  nlohmann::json parameters;  ///< an object
  std::vector<Fd> fds;
  bool more = false;  ///< the caller takes several replies
};

class Server;

/// Where the replies to one call go. Copyable; used in the loop's thread, but for is_open(). A call is
/// answered once reply() or error() was called, or the last copy is gone (then by an error).
class Responder {
 public:
  void reply(const nlohmann::json& parameters) const { send(parameters, false); }
  /// One of several replies (Call::more).
  void reply_and_go_on(const nlohmann::json& parameters) const { send(parameters, true); }
  /// `name`: "PermissionDenied" or another error of io.fpolicy.Policyd, or a full name.
  void error(std::string_view name, const nlohmann::json& parameters) const;
  /// The caller is still there and takes what is sent. Any thread may ask.
  [[nodiscard]] bool is_open() const;
  /// Bytes that wait to be taken by the caller.
  [[nodiscard]] std::size_t unsent() const;
  /// Lends the socket to a thread that answers by itself: the loop leaves the connection alone until
  /// give_back().
  [[nodiscard]] Result<Fd> borrow_socket() const;
  /// Ends what borrow_socket() began; the call is answered.
  void give_back() const;

 private:
  friend class Server;
  struct Connection;
  struct Ticket;
  explicit Responder(std::shared_ptr<Ticket> ticket) : ticket_(std::move(ticket)) {}
  void send(const nlohmann::json& parameters, bool continues) const;
  std::shared_ptr<Ticket> ticket_;
};

class Server {
 public:
  using Handler = std::function<void(Call, Responder)>;

  /// Listens at `path` (mode 0666: who calls is known by SO_PEERCRED).
  static Result<std::unique_ptr<Server>> open(Loop* loop, const std::string& path, Counters* counters,
                                              Handler handler);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  friend class Responder;
  using Connection = Responder::Connection;
  using List = std::list<std::shared_ptr<Connection>>;

  Server() = default;
  void accept();
  void serve(const std::shared_ptr<Connection>& connection, std::uint32_t events);
  void dispatch(const std::shared_ptr<Connection>& connection);
  void dispatch_waiting(const std::shared_ptr<Connection>& connection);
  void flush(const std::shared_ptr<Connection>& connection);
  void close(const std::shared_ptr<Connection>& connection);
  [[nodiscard]] bool has_room_for(uid_t uid) const;

  Loop* loop_ = nullptr;
  Counters* counters_ = nullptr;
  std::string path_;
  Handler handler_;
  Fd listener_;
  Loop::Source listener_source_;
  Loop::Source accept_again_;
  List connections_;
};

}  // namespace fpolicy::policyd
