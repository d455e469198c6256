// SPDX-License-Identifier: LGPL-2.1-or-later
// The Varlink wire: JSON messages ended by NUL over a Unix stream socket, file descriptors beside them
// (SCM_RIGHTS). Source: https://varlink.org/Wire-Format; unix(7). A connection belongs to one thread.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/result.h>

#include <nlohmann/json.hpp>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::varlink {

inline constexpr const char* default_socket = "/run/fpolicy/policyd.sock";

/// Longest message that is accepted or sent, in bytes without its NUL.
inline constexpr std::size_t max_message = 4U << 20U;

/// The kernel's SCM_MAX_FD: descriptors that travel beside one message.
inline constexpr std::size_t max_fds = 253;

/// How long a client waits for policyd before it gives up.
inline constexpr std::chrono::milliseconds default_timeout{30'000};

struct Message {
  nlohmann::json body;  ///< an object
  std::vector<Fd> fds;
};

/// Who is at the other end, as the kernel knew it when the connection was made (SO_PEERCRED).
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};

/// One end of a connection. A client uses call() and call_more(), which wait; a server uses read_available(),
/// next(), queue() and write_available(), which never do.
class FPOLICY_API Connection {
 public:
  /// Takes a connected stream socket and makes it non-blocking.
  explicit Connection(Fd socket);

  /// Error: ENOENT or ECONNREFUSED where no policyd listens.
  static Result<Connection> connect(const std::string& path = default_socket);

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] Result<Peer> peer() const;
  /// A smaller bound for what this peer may send.
  void set_longest_received(std::size_t bytes) { longest_received_ = bytes; }

  // For servers.

  /// Reads once what has come, at most one buffer full, so that no peer takes the loop for itself. False at
  /// the end of the stream. Error: EMSGSIZE for a message that is too long, EPROTO for descriptors that were
  /// cut off.
  Result<bool> read_available();
  /// The next whole message, if one is there. Error: EPROTO for what is no JSON object, or nested
  /// deeper than 32.
  Result<std::optional<Message>> next();
  /// Appends a message to what is to be written. Error: EMSGSIZE.
  Status queue(const nlohmann::json& body);
  /// Writes what the socket takes; the rest stays unsent().
  Status write_available();
  /// Bytes that wait to be written.
  [[nodiscard]] std::size_t unsent() const { return out_.size() - sent_; }

  // For clients.

  /// Sends one message and its descriptors, whole.
  Status send(const nlohmann::json& body, std::span<const int> fds = {},
              std::chrono::milliseconds timeout = default_timeout);
  /// Waits for one message. Error: ETIMEDOUT; ECONNRESET where the other end closed.
  Result<Message> receive(std::chrono::milliseconds timeout = default_timeout);

  /// Calls a method and waits for its one reply: the parameters of it. An error reply becomes an Error with
  /// the message that it carries and code EPERM (PermissionDenied), EINVAL (InvalidPolicy, InvalidParameter),
  /// ENOTSUP (Unsupported), ENOSYS (no such method), or the code that Failed carries.
  Result<nlohmann::json> call(std::string_view method, const nlohmann::json& parameters,
                              std::span<const int> fds = {},
                              std::chrono::milliseconds timeout = default_timeout);
  /// Calls with "more"; `each` takes the parameters of every reply and returns false to stop (the connection
  /// is then not to be used any more). `timeout` is for each reply; negative: wait for ever.
  Status call_more(std::string_view method, const nlohmann::json& parameters,
                   const std::function<bool(const nlohmann::json&)>& each, std::span<const int> fds = {},
                   std::chrono::milliseconds timeout = default_timeout);

 private:
  Status wait(short events, std::optional<std::chrono::steady_clock::time_point> deadline) const;

  Fd socket_;
  std::size_t longest_received_ = max_message;
  std::string in_;
  std::size_t searched_ = 0;  ///< bytes of in_ known to hold no NUL
  std::string out_;
  std::size_t sent_ = 0;  ///< bytes of out_ already written
  /// Descriptors received, with the number of the message that they came beside.
  std::vector<std::pair<std::uint64_t, Fd>> fds_;
  std::uint64_t parsed_ = 0;   ///< messages taken out of in_
  std::uint64_t started_ = 0;  ///< messages of which at least one byte has come
  bool inside_ = false;        ///< the last byte that came was no NUL
};

/// Binds a listening socket with the given permissions, in place of one that a dead process left behind. The
/// caller makes sure that no other server lives (policyd: by its lock). Error: ENAMETOOLONG for a path over
/// 107 bytes.
FPOLICY_API Result<Fd> listen_at(const std::string& path, mode_t mode);

/// The next connection, without waiting. Nothing where none is there any more.
FPOLICY_API Result<std::optional<Fd>> accept_at(int listener);

}  // namespace fpolicy::varlink
