// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace fpolicy::tools {

/// The records as policyd shows them to a caller who cannot read the database. Nothing can be written.
class RemoteRecords : public RecordStore {
 public:
  explicit RemoteRecords(varlink::Connection connection) : connection_(std::move(connection)) {}

  [[nodiscard]] Result<std::optional<TagRecord>> find(const FileRef& file, Space space) override;
  [[nodiscard]] Result<bool> carries_tags(const FileRef& file) override;
  [[nodiscard]] bool writable() const override { return false; }
  Status put(std::span<const TagRecord> records) override;
  Status erase(std::span<const TagRecord> records) override;
  Status for_each(std::string_view path_prefix, const std::function<bool(const TagRecord&)>& each) override;
  [[nodiscard]] Result<std::uint64_t> data_version() override;

 private:
  std::mutex mutex_;
  varlink::Connection connection_;
  /// Devices that policyd has been asked about; a command is short, so the answer holds for its life.
  std::unordered_map<dev_t, bool> carries_;
};

/// A record as it stands in policyd's reply (schema/io.fpolicy.Policyd.varlink). Error: EPROTO.
Result<TagRecord> parse_record(const nlohmann::json& json);

}  // namespace fpolicy::tools
