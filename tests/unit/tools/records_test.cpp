// SPDX-License-Identifier: LGPL-2.1-or-later
// Records as policyd shows them: a real socket, and whatever may stand on it.
#include "common/policyd.h"
#include "common/text.h"

#include <fpolicy/rules.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>
#include <thread>

namespace fpolicy::tools {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json good_record() {
  return {{"filesystem", "uuid:1"}, {"key", "68ff00"},       {"birth_ns", 5},
          {"space", "system"},      {"carrier", "database"}, {"policy", "bind:1"},
          {"path", "/a\\nb"},       {"directory", true},     {"uid", 7},
          {"changed_ns", 1234567}};
}

TEST(Record, IsReadWhole) {
  const auto record = parse_record(good_record());
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->identity.filesystem, "uuid:1");
  EXPECT_EQ(record->identity.key, std::string("h\xff\0", 3));
  EXPECT_EQ(record->identity.birth_ns, 5);
  EXPECT_EQ(record->space, Space::system);
  EXPECT_EQ(record->carrier, Carrier::database);
  EXPECT_EQ(record->policy, "bind:1");
  EXPECT_EQ(record->path, "/a\nb");
  EXPECT_TRUE(record->directory);
  EXPECT_EQ(record->uid, 7U);
}

TEST(Record, OfAnotherShapeIsRefused) {
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, json>>{{"key", "6"},
                                                                                      {"key", ""},
                                                                                      {"key", "zz"},
                                                                                      {"key", 5},
                                                                                      {"space", "root"},
                                                                                      {"carrier", nullptr},
                                                                                      {"path", "/a\\"}}) {
    json record = good_record();
    record[key] = value;
    const auto parsed = parse_record(record);
    ASSERT_FALSE(parsed) << key << " " << value;
    EXPECT_THAT(parsed.error().message, HasSubstr("policyd")) << key;
  }
  EXPECT_FALSE(parse_record(json::array()));
  EXPECT_FALSE(parse_record(nullptr));
}

/// A peer that answers each call with what it is told to.
class RecordsTest : public testing::Test {
 protected:
  void serve(std::function<json(const json& call, std::size_t fds)> answer, int calls) {
    std::array<int, 2> ends{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    client_ = Fd(ends[0]);
    peer_ = std::thread([end = ends[1], answer = std::move(answer), calls] {
      varlink::Connection connection{Fd(end)};
      for (int i = 0; i < calls; ++i) {
        auto call = connection.receive();
        if (!call) return;
        if (!connection.send(answer(call->body, call->fds.size()))) return;
      }
    });
  }
  void TearDown() override {
    if (peer_.joinable()) peer_.join();
  }
  Fd client_;
  std::thread peer_;
};

TEST_F(RecordsTest, AFileTravelsAsADescriptorAndADeviceIsAskedForOnce) {
  int asked = 0;
  serve(
      [&](const json& call, std::size_t fds) -> json {
        EXPECT_EQ(fds, 1U);
        if (call["method"] == "io.fpolicy.Policyd.CarriesTags") {
          ++asked;
          return {{"parameters", {{"carries", true}}}};
        }
        EXPECT_EQ(call["method"], "io.fpolicy.Policyd.FindRecords");
        EXPECT_EQ(call["parameters"]["space"], "user");
        return {{"parameters", {{"records", json::array({good_record()})}}}};
      },
      2);
  {
    RemoteRecords records{varlink::Connection(std::move(client_))};
    const FileRef file{.fd = -1, .name = "/", .path = "/", .device = 42};
    EXPECT_TRUE(records.carries_tags(file).value());
    EXPECT_TRUE(records.carries_tags(file).value());
    const auto record = records.find(file, Space::user);
    ASSERT_TRUE(record) << record.error().message;
    ASSERT_TRUE(*record);
    EXPECT_EQ((*record)->policy, "bind:1");
    EXPECT_FALSE(records.writable());
    EXPECT_EQ(records.put({}).error().code, EPERM);
  }
  peer_.join();
  EXPECT_EQ(asked, 1);
}

TEST_F(RecordsTest, AnswersOfAnotherShapeAreErrors) {
  int call_number = 0;
  serve(
      [&](const json&, std::size_t) -> json {
        switch (call_number++) {
          case 0:
            return {{"parameters", {{"records", json::array()}}}};
          case 1:
            return {{"parameters", {{"carries", "yes"}}}};
          default:
            return {{"error", "io.fpolicy.Policyd.PermissionDenied"},
                    {"parameters", {{"message", "not yours"}}}};
        }
      },
      3);
  RemoteRecords records{varlink::Connection(std::move(client_))};
  const FileRef file{.fd = -1, .name = "/", .path = "/", .device = 0};
  EXPECT_EQ(records.find(file, Space::system).error().code, EPROTO);
  EXPECT_EQ(records.carries_tags(file).error().code, EPROTO);
  EXPECT_EQ(records.find(file, Space::system).error().code, EPERM);
}

TEST(ChangeNotice, WithoutPolicydIsAnErrorOnceAndNoMore) {
  ChangeNotice notice("/nonexistent/policyd.sock");
  for (int i = 0; i < 1000; ++i) notice.add("/", AT_FDCWD);
  const Fd root(open("/", O_PATH | O_CLOEXEC));
  notice.add("/", root.get());
  const Status told = notice.finish();
  // Users tell of their own files only, and "/" is root's.
  if (geteuid() == 0) {
    ASSERT_FALSE(told);
    EXPECT_EQ(told.error().message,
              "policyd is not running (/nonexistent/policyd.sock: No such file or directory)");
  } else {
    EXPECT_TRUE(told);
  }
}

TEST(Text, PathsInJson) {
  Json object;
  put_path(object, "path", "/plain/ü");
  EXPECT_EQ(to_text(object), "{\"path\":\"/plain/ü\"}");
  Json odd;
  put_path(odd, "path", "/latin\xe9");
  EXPECT_EQ(to_text(odd), "{\"path\":\"/latin\xef\xbf\xbd\",\"path_escaped\":\"/latin\\\\351\"}");
  // The escaped form leads back to every byte.
  EXPECT_EQ(unescape_path(odd["path_escaped"].get<std::string>()).value(), "/latin\xe9");
}

}  // namespace
}  // namespace fpolicy::tools
