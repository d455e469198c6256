// SPDX-License-Identifier: LGPL-2.1-or-later
// What callers ask of policyd (schema/io.fpolicy.Policyd.varlink): records for those who cannot read the
// database, tags for those who cannot write it, and word of what has changed.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/fd.h>
#include <fpolicy/policy.h>
#include <fpolicy/result.h>
#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fpolicy::client {

/// Connects. Error: "policyd is not running (SOCKET: why)" where nobody listens.
FPOLICY_API Result<varlink::Connection> connect_policyd(const std::string& socket);

/// "io.fpolicy.Policyd.NAME".
FPOLICY_API std::string method(std::string_view name);

/// A path as it travels in JSON: escaped as in a dump where it is not UTF-8 or holds a backslash.
FPOLICY_API std::string wire_path(std::string_view path);

/// Files as a method takes them: paths from root, descriptors beside the message from others.
struct FPOLICY_API FileBatch {
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
class FPOLICY_API ChangeNotice {
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
class FPOLICY_API TagRequests {
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

/// The records as policyd shows them to a caller who cannot read the database. Nothing can be written.
class FPOLICY_API RemoteRecords : public RecordStore {
 public:
  explicit RemoteRecords(varlink::Connection connection) : connection_(std::move(connection)) {}

  [[nodiscard]] Result<std::optional<TagRecord>> find(const FileRef& file, Space space) override;
  [[nodiscard]] Result<bool> carries_tags(const FileRef& file) override;
  [[nodiscard]] bool writable() const override { return false; }
  Status put(std::span<const TagRecord> records) override;
  Status erase(std::span<const TagRecord> records) override;
  Status correct(std::span<const RecordCorrection> corrections) override;
  Status for_each(std::string_view path_prefix, const std::function<bool(const TagRecord&)>& each) override;
  [[nodiscard]] Result<std::uint64_t> data_version() override;

 private:
  std::mutex mutex_;
  varlink::Connection connection_;
  /// Devices that policyd has been asked about; the answer holds for the life of this object.
  std::unordered_map<dev_t, bool> carries_;
};

/// A record as it stands in policyd's reply (schema/io.fpolicy.Policyd.varlink). Error: EPROTO.
FPOLICY_API Result<TagRecord> parse_record(const nlohmann::json& json);

}  // namespace fpolicy::client
