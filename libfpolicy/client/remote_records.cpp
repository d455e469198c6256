// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/client.h>
#include <fpolicy/rules.h>

#include <fcntl.h>

#include <cerrno>
#include <utility>

namespace fpolicy::client {
namespace {

std::string text(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t number(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

/// A descriptor for the wire: the file's own, or one opened by its name without touching what it names.
Result<std::pair<int, Fd>> descriptor(const FileRef& file) {
  if (file.fd >= 0) return std::pair<int, Fd>(file.fd, Fd());
  Fd opened(open(file.name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return fail_errno("open", file.path);
  const int fd = opened.get();
  return std::pair<int, Fd>(fd, std::move(opened));
}

}  // namespace

Result<std::optional<TagRecord>> RemoteRecords::find(const FileRef& file, Space space) {
  const auto fd = descriptor(file);
  if (!fd) return tl::unexpected(fd.error());
  const std::scoped_lock lock(mutex_);
  const int fds[] = {fd->first};
  const auto reply = connection_.call(
      method("FindRecords"), {{"space", space == Space::system ? "system" : "user"}, {"fds", 1}}, fds);
  if (!reply) return tl::unexpected(reply.error());
  const auto records = reply->find("records");
  if (records == reply->end() || !records->is_array() || records->size() != 1) {
    return fail(EPROTO, "policyd: reply without one record for one file");
  }
  if (records->front().is_null()) return std::nullopt;
  auto record = parse_record(records->front());
  if (!record) return tl::unexpected(record.error());
  return *std::move(record);
}

Result<bool> RemoteRecords::carries_tags(const FileRef& file) {
  const std::scoped_lock lock(mutex_);
  if (const auto known = carries_.find(file.device); file.device != 0 && known != carries_.end()) {
    return known->second;
  }
  const auto fd = descriptor(file);
  if (!fd) return tl::unexpected(fd.error());
  const int fds[] = {fd->first};
  const auto reply = connection_.call(method("CarriesTags"), {{"fds", 1}}, fds);
  if (!reply) return tl::unexpected(reply.error());
  const auto carries = reply->find("carries");
  if (carries == reply->end() || !carries->is_boolean())
    return fail(EPROTO, "policyd: reply without \"carries\"");
  if (file.device != 0) carries_[file.device] = carries->get<bool>();
  return carries->get<bool>();
}

Status RemoteRecords::put(std::span<const TagRecord> /*records*/) {
  return fail(EPERM, "the database is root's; policyd writes it for others");
}

Status RemoteRecords::erase(std::span<const TagRecord> /*records*/) {
  return fail(EPERM, "the database is root's; policyd writes it for others");
}

Status RemoteRecords::correct(std::span<const RecordCorrection> /*corrections*/) {
  return fail(EPERM, "the database is root's; policyd writes it for others");
}

Status RemoteRecords::for_each(std::string_view path_prefix,
                               const std::function<bool(const TagRecord&)>& each) {
  std::vector<TagRecord> all;
  Status bad;
  {
    const std::scoped_lock lock(mutex_);
    const auto take = [&](const nlohmann::json& reply) {
      const auto record = reply.find("record");
      if (record == reply.end() || record->is_null()) return true;
      auto parsed = parse_record(*record);
      if (!parsed) {
        bad = tl::unexpected(parsed.error());
        return false;
      }
      all.push_back(*std::move(parsed));
      return true;
    };
    Status called = connection_.call_more(method("Records"), {{"prefix", wire_path(path_prefix)}}, take);
    if (!bad) return bad;
    if (!called) return called;
  }
  for (const TagRecord& record : all) {
    if (!each(record)) break;
  }
  return {};
}

Result<std::uint64_t> RemoteRecords::data_version() {
  return 0;
}

Result<TagRecord> parse_record(const nlohmann::json& json) {
  if (!json.is_object()) return fail(EPROTO, "policyd: a record is no object");
  TagRecord record;
  record.identity.filesystem = text(json, "filesystem");
  const std::string key = text(json, "key");
  for (std::size_t i = 0; i + 1 < key.size(); i += 2) {
    const int high = hex_digit(key[i]);
    const int low = hex_digit(key[i + 1]);
    if (high < 0 || low < 0) return fail(EPROTO, "policyd: a record's key is not hexadecimal");
    record.identity.key += static_cast<char>(high * 16 + low);
  }
  if (record.identity.key.empty() || key.size() % 2 != 0)
    return fail(EPROTO, "policyd: a record without a key");
  const std::string space = text(json, "space");
  const std::string carrier = text(json, "carrier");
  if ((space != "user" && space != "system") || (carrier != "database" && carrier != "xattr")) {
    return fail(EPROTO, "policyd: a record of unknown space or carrier");
  }
  record.identity.birth_ns = number(json, "birth_ns");
  record.space = space == "user" ? Space::user : Space::system;
  record.carrier = carrier == "database" ? Carrier::database : Carrier::xattr;
  record.policy = text(json, "policy");
  auto path = unescape_path(text(json, "path"));
  if (!path) return with_context("policyd: a record's path", path.error());
  record.path = *std::move(path);
  const auto directory = json.find("directory");
  record.directory = directory != json.end() && directory->is_boolean() && directory->get<bool>();
  record.uid = static_cast<std::uint32_t>(number(json, "uid"));
  record.changed_ns = number(json, "changed_ns");
  return record;
}

}  // namespace fpolicy::client
