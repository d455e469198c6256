// SPDX-License-Identifier: LGPL-2.1-or-later
// What the commands ask of policyd, and how they say that it does not run.
#pragma once

#include <fpolicy/fd.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::tools {

/// Connects. Error: "policyd is not running (SOCKET: why)" where nobody listens.
Result<varlink::Connection> connect_policyd(const std::string& socket);

/// "io.fpolicy.Policyd.NAME".
std::string method(std::string_view name);

/// A path as it travels in JSON: escaped as in a dump where it is not UTF-8 or holds a backslash.
std::string wire_path(std::string_view path);

/// Files as a method takes them: paths from root, descriptors beside the message from others.
struct FileBatch {
  std::vector<std::string> paths;
  std::vector<Fd> fds;
  [[nodiscard]] bool empty() const { return paths.empty() && fds.empty(); }
  /// As many as one message carries.
  [[nodiscard]] bool full() const;
  [[nodiscard]] nlohmann::json parameters() const;
  [[nodiscard]] std::vector<int> raw_fds() const;
  /// Adds a file; `fd` is duplicated where it has to travel. Error: EMFILE and its like.
  Status add(std::string_view path, int fd);
};

/// Tells policyd which files' tags have changed. It need not run: what it is not told it finds when it
/// starts.
class ChangeNotice {
 public:
  explicit ChangeNotice(std::string socket) : socket_(std::move(socket)) {}
  void add(std::string_view path, int fd);
  /// Sends what is left. The error of the first message that failed, if any did.
  Status finish();

 private:
  void send();
  std::string socket_;
  std::optional<varlink::Connection> connection_;
  bool given_up_ = false;
  Status first_error_;
  FileBatch batch_;
};

/// For callers that cannot write the database: policyd enters the tag for them.
class TagRequests {
 public:
  explicit TagRequests(std::string socket) : socket_(std::move(socket)) {}
  /// `policy` empty: remove. Thread-safe.
  Result<SetOutcome> request(int fd, std::string_view path, Space space, const std::optional<Policy>& policy,
                             bool force);

 private:
  std::mutex mutex_;
  std::string socket_;
  std::optional<varlink::Connection> connection_;
};

}  // namespace fpolicy::tools
