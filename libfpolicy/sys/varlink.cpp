// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/varlink.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

namespace fpolicy::varlink {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t read_size = 64U << 10U;

/// Deeper than any message of ours; copying and printing JSON recurses.
constexpr int max_depth = 32;

std::optional<Clock::time_point> deadline_after(std::chrono::milliseconds timeout) {
  if (timeout.count() < 0) return std::nullopt;
  return Clock::now() + timeout;
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // sun_path ends with a NUL (unix(7)).
  if (path.size() >= sizeof address.sun_path) return fail_errno("socket", path, ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// bind and connect take the general sockaddr.
const sockaddr* as_sockaddr(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

/// Room for the descriptors of one message, aligned as cmsg(3) wants it.
struct alignas(cmsghdr) ControlBuffer {
  std::array<char, CMSG_SPACE(max_fds * sizeof(int))> bytes{};
};

std::vector<Fd> take_fds(msghdr& header) {
  std::vector<Fd> fds;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

Result<std::string> serialize(const nlohmann::json& body) {
  // Text that is not UTF-8 is replaced, not thrown at us: paths are escaped before they come here.
  std::string text = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > max_message) return fail(EMSGSIZE, "varlink: message too long");
  text.push_back('\0');
  return text;
}

/// The Error that an error reply stands for.
tl::unexpected<Error> error_of(const nlohmann::json& reply) {
  const auto& name_value = reply.at("error");
  const std::string name = name_value.is_string() ? name_value.get<std::string>() : "error";
  const std::string word = name.substr(name.rfind('.') + 1);
  std::string message = name;
  int code = EIO;
  if (word == "PermissionDenied") code = EPERM;
  if (word == "InvalidPolicy" || word == "InvalidParameter") code = EINVAL;
  if (word == "Unsupported") code = ENOTSUP;
  if (word == "MethodNotFound" || word == "InterfaceNotFound" || word == "MethodNotImplemented") {
    code = ENOSYS;
  }
  if (const auto parameters = reply.find("parameters");
      parameters != reply.end() && parameters->is_object()) {
    if (const auto text = parameters->find("message"); text != parameters->end() && text->is_string()) {
      message = text->get<std::string>();
    }
    if (const auto number = parameters->find("code");
        number != parameters->end() && number->is_number_integer()) {
      const auto value = number->get<std::int64_t>();
      if (value > 0 && value < 4096) code = static_cast<int>(value);
    }
  }
  return fail(code, std::move(message));
}

nlohmann::json request(std::string_view method, const nlohmann::json& parameters) {
  return {{"method", method}, {"parameters", parameters}};
}

nlohmann::json parameters_of(nlohmann::json& reply) {
  const auto found = reply.find("parameters");
  if (found == reply.end() || !found->is_object()) return nlohmann::json::object();
  return std::move(*found);
}

}  // namespace

Connection::Connection(Fd socket) : socket_(std::move(socket)) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  if (flags >= 0) ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
}

Result<Connection> Connection::connect(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno("socket", path);
  // Blocks only while the listener's backlog is full, and SO_SNDTIMEO bounds that (unix_stream_connect).
  const timeval timeout{.tv_sec = default_timeout.count() / 1000, .tv_usec = 0};
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) != 0) {
    return fail_errno("setsockopt", path);
  }
  if (::connect(socket.get(), as_sockaddr(*address), sizeof *address) != 0)
    return fail_errno("connect", path);
  return Connection(std::move(socket));
}

Result<Peer> Connection::peer() const {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail_errno("getsockopt", "SO_PEERCRED");
  }
  return Peer{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
}

Result<bool> Connection::read_available() {
  const std::size_t before = in_.size();
  ControlBuffer control;
  in_.resize(before + read_size);
  iovec vector{.iov_base = in_.data() + before, .iov_len = read_size};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes.data();
  header.msg_controllen = control.bytes.size();
  ssize_t count = -1;
  do {
    count = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  in_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  if (count < 0) {
    if (error == EAGAIN) return true;
    return fail_errno("receive", "message", error);
  }
  std::vector<Fd> fds = take_fds(header);
  if ((header.msg_flags & MSG_CTRUNC) != 0) return fail(EPROTO, "varlink: file descriptors were cut off");
  if (count == 0) return false;

  for (std::size_t i = before; i < in_.size(); ++i) {
    if (!inside_) ++started_;
    inside_ = in_[i] != '\0';
  }
  // The kernel ends a read with the first piece that has descriptors, and a sender attaches them to the first
  // byte of a message: so they belong to the message that started last.
  if (fds_.size() + fds.size() > max_fds) return fail(EPROTO, "varlink: too many file descriptors");
  for (Fd& fd : fds) fds_.emplace_back(started_, std::move(fd));

  if (in_.size() - searched_ > longest_received_) {
    const auto end = in_.find('\0', searched_);
    const std::size_t length = (end == std::string::npos ? in_.size() : end);
    if (length > longest_received_) return fail(EMSGSIZE, "varlink: message too long");
  }
  return true;
}

Result<std::optional<Message>> Connection::next() {
  const auto end = in_.find('\0', searched_);
  if (end == std::string::npos) {
    searched_ = in_.size();
    if (in_.size() > longest_received_) return fail(EMSGSIZE, "varlink: message too long");
    return std::nullopt;
  }
  if (end > longest_received_) return fail(EMSGSIZE, "varlink: message too long");
  Message message;
  bool too_deep = false;
  const auto bound_depth = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > max_depth;
    return !too_deep;
  };
  message.body =
      nlohmann::json::parse(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(end), bound_depth, false);
  in_.erase(0, end + 1);
  searched_ = 0;
  ++parsed_;
  const auto mine = std::stable_partition(fds_.begin(), fds_.end(),
                                          [this](const auto& entry) { return entry.first > parsed_; });
  for (auto entry = mine; entry != fds_.end(); ++entry) message.fds.push_back(std::move(entry->second));
  fds_.erase(mine, fds_.end());
  if (in_.empty()) in_.shrink_to_fit();
  if (too_deep || !message.body.is_object())
    return fail(EPROTO, "varlink: a message is no JSON object, or nested too deep");
  return message;
}

Status Connection::queue(const nlohmann::json& body) {
  auto text = serialize(body);
  if (!text) return tl::unexpected(text.error());
  out_.append(*text);
  return {};
}

Status Connection::write_available() {
  while (unsent() > 0) {
    // A peer that is gone must be an error, not a signal.
    const ssize_t count = ::send(socket_.get(), out_.data() + sent_, unsent(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) break;
      return fail_errno("send", "message");
    }
    sent_ += static_cast<std::size_t>(count);
  }
  if (unsent() == 0) {
    out_.clear();
    out_.shrink_to_fit();
    sent_ = 0;
  } else if (sent_ >= read_size) {
    out_.erase(0, sent_);
    sent_ = 0;
  }
  return {};
}

Status Connection::wait(short events, std::optional<Clock::time_point> deadline) const {
  while (true) {
    int milliseconds = -1;
    if (deadline) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      milliseconds = static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
    }
    pollfd entry{.fd = socket_.get(), .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, milliseconds);
    if (ready > 0) return {};
    if (ready == 0) return fail(ETIMEDOUT, "policyd: no answer in time");
    if (errno != EINTR) return fail_errno("poll", "socket");
  }
}

Status Connection::send(const nlohmann::json& body, std::span<const int> fds,
                        std::chrono::milliseconds timeout) {
  if (fds.size() > max_fds) return fail(E2BIG, "varlink: too many file descriptors");
  auto text = serialize(body);
  if (!text) return tl::unexpected(text.error());
  const auto deadline = deadline_after(timeout);
  std::size_t sent = 0;
  while (sent < text->size()) {
    iovec vector{.iov_base = text->data() + sent, .iov_len = text->size() - sent};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    ControlBuffer control;
    if (sent == 0 && !fds.empty()) {
      header.msg_control = control.bytes.data();
      header.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* part = CMSG_FIRSTHDR(&header);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(part), fds.data(), fds.size_bytes());
    }
    const ssize_t count = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      sent += static_cast<std::size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail_errno("send", "message");
    if (auto ready = wait(POLLOUT, deadline); !ready) return ready;
  }
  return {};
}

Result<Message> Connection::receive(std::chrono::milliseconds timeout) {
  const auto deadline = deadline_after(timeout);
  bool open = true;
  while (true) {
    auto message = next();
    if (!message) return tl::unexpected(message.error());
    if (std::optional<Message> whole = std::move(*message)) return std::move(*whole);
    if (!open) return fail(ECONNRESET, "policyd: connection closed");
    if (auto ready = wait(POLLIN, deadline); !ready) return tl::unexpected(ready.error());
    auto still_open = read_available();
    if (!still_open) return tl::unexpected(still_open.error());
    open = *still_open;
  }
}

Result<nlohmann::json> Connection::call(std::string_view method, const nlohmann::json& parameters,
                                        std::span<const int> fds, std::chrono::milliseconds timeout) {
  if (auto sent = send(request(method, parameters), fds, timeout); !sent) {
    return tl::unexpected(sent.error());
  }
  auto reply = receive(timeout);
  if (!reply) return tl::unexpected(reply.error());
  if (reply->body.contains("error")) return error_of(reply->body);
  return parameters_of(reply->body);
}

Status Connection::call_more(std::string_view method, const nlohmann::json& parameters,
                             const std::function<bool(const nlohmann::json&)>& each, std::span<const int> fds,
                             std::chrono::milliseconds timeout) {
  auto message = request(method, parameters);
  message["more"] = true;
  if (auto sent = send(message, fds, timeout); !sent) return sent;
  while (true) {
    auto reply = receive(timeout);
    if (!reply) return tl::unexpected(reply.error());
    if (reply->body.contains("error")) return error_of(reply->body);
    const auto continues = reply->body.find("continues");
    const bool more = continues != reply->body.end() && continues->is_boolean() && continues->get<bool>();
    if (!each(parameters_of(reply->body)) || !more) return {};
  }
}

Result<Fd> listen_at(const std::string& path, mode_t mode) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno("socket", path);
  // Only a socket is replaced: whatever else has this name was put there by somebody.
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return fail_errno("bind", path, EEXIST);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("unlink", path);
  }
  if (::bind(socket.get(), as_sockaddr(*address), sizeof *address) != 0) return fail_errno("bind", path);
  if (::chmod(path.c_str(), mode) != 0) return fail_errno("chmod", path);
  if (::listen(socket.get(), 64) != 0) return fail_errno("listen", path);
  return socket;
}

Result<std::optional<Fd>> accept_at(int listener) {
  while (true) {
    Fd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) return std::optional<Fd>(std::move(socket));
    if (errno == EAGAIN) return std::nullopt;
    // ECONNABORTED: that peer has already gone; the next may be there (accept(2)).
    if (errno != EINTR && errno != ECONNABORTED) return fail_errno("accept", "socket");
  }
}

}  // namespace fpolicy::varlink
