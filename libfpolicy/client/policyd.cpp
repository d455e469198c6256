// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/client.h>
#include <fpolicy/rules.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace fpolicy::client {
namespace {

/// Paths in one message: 512 of the longest stay under varlink::max_message, escapes included.
constexpr std::size_t paths_at_once = 256;
/// The kernel takes 253 beside one message, and a caller may have only 1024 open.
constexpr std::size_t fds_at_once = 128;

}  // namespace

Result<varlink::Connection> connect_policyd(const std::string& socket) {
  auto connection = varlink::Connection::connect(socket);
  if (connection) return connection;
  const int code = connection.error().code;
  if (code == ENOENT || code == ECONNREFUSED) {
    return fail(code, "policyd is not running (" + socket + ": " + errno_text(code) + ")");
  }
  return tl::unexpected(connection.error());
}

std::string method(std::string_view name) {
  return std::string("io.fpolicy.Policyd.").append(name);
}

std::string wire_path(std::string_view path) {
  return escape_path(path);
}

bool FileBatch::full() const {
  return paths.size() >= paths_at_once || fds.size() >= fds_at_once;
}

nlohmann::json FileBatch::parameters() const {
  return {{"paths", paths}, {"fds", fds.size()}};
}

std::vector<int> FileBatch::raw_fds() const {
  std::vector<int> raw;
  raw.reserve(fds.size());
  for (const Fd& fd : fds) raw.push_back(fd.get());
  return raw;
}

Status FileBatch::add(std::string_view path, int fd) {
  if (geteuid() == 0) {
    paths.push_back(wire_path(path));
    return {};
  }
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno("dup", path);
  fds.push_back(std::move(copy));
  return {};
}

void ChangeNotice::add(std::string_view path, int fd) {
  if (given_up_) return;
  // Whoever may write another's file may tag it, but policyd takes work on it from its owner only, and would
  // refuse the whole message.
  struct stat status = {};
  if (geteuid() != 0 && (fstat(fd, &status) != 0 || status.st_uid != geteuid())) return;
  if (const Status added = batch_.add(path, fd); !added && first_error_) first_error_ = added;
  if (batch_.full()) send();
}

void ChangeNotice::send() {
  if (!connection_ && !given_up_) {
    auto connection = connect_policyd(socket_);
    if (connection) {
      connection_.emplace(*std::move(connection));
    } else {
      given_up_ = true;
      first_error_ = tl::unexpected(connection.error());
    }
  }
  if (connection_) {
    const auto reply = connection_->call(method("Changed"), batch_.parameters(), batch_.raw_fds());
    if (!reply) {
      // What is in the connection after a failure is unknown.
      given_up_ = true;
      connection_.reset();
      if (first_error_) first_error_ = tl::unexpected(reply.error());
    }
  }
  batch_ = FileBatch{};
}

Status ChangeNotice::finish() {
  if (!batch_.empty()) send();
  // Not a copy: tl::expected ends the program where there is no memory for it.
  return std::move(first_error_);
}

Result<SetOutcome> TagRequests::request(int fd, std::string_view path, Space space,
                                        const std::optional<Policy>& policy, bool force) {
  const std::scoped_lock lock(mutex_);
  if (!connection_) {
    auto connection = connect_policyd(socket_);
    if (!connection) return tl::unexpected(connection.error());
    connection_.emplace(*std::move(connection));
  }
  nlohmann::json parameters = {{"space", space == Space::system ? "system" : "user"},
                               {"path", wire_path(path)}};
  if (policy) {
    parameters["policy"] = format_policy(*policy);
    parameters["force"] = force;
  }
  const int fds[] = {fd};
  const auto reply = connection_->call(method(policy ? "SetTag" : "RemoveTag"), parameters, fds);
  if (!reply) {
    if (reply.error().code == ECONNRESET || reply.error().code == ETIMEDOUT) connection_.reset();
    return tl::unexpected(reply.error());
  }
  const auto changed = reply->find("changed");
  if (changed == reply->end() || !changed->is_boolean())
    return fail(EPROTO, "policyd: reply without \"changed\"");
  return changed->get<bool>() ? SetOutcome::changed : SetOutcome::unchanged;
}

}  // namespace fpolicy::client
