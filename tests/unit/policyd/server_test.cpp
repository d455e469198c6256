// SPDX-License-Identifier: LGPL-2.1-or-later
// The control socket against peers that are slow, silent, gone, or hostile.
#include "server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

namespace fpolicy::policyd {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    path = testing::TempDir() + "server-" + std::to_string(::getpid());
    auto opened = Loop::open();
    ASSERT_TRUE(opened) << opened.error().message;
    loop = std::move(*opened);
    auto listening =
        Server::open(loop.get(), path, &counters,
                     [this](const Call& call, const Responder& responder) { answer(call, responder); });
    ASSERT_TRUE(listening) << listening.error().message;
    server = std::move(*listening);
    thread = std::thread([this] { EXPECT_TRUE(loop->run()); });
  }
  void TearDown() override {
    loop->post([this] { loop->quit(); });
    thread.join();
    kept.reset();
    server.reset();
    EXPECT_FALSE(std::filesystem::exists(path)) << "the socket is left behind";
  }

  void answer(const Call& call, const Responder& responder) {
    ++calls;
    if (call.method == "echo") responder.reply(call.parameters);
    if (call.method == "big") responder.reply({{"text", std::string(1U << 20U, 'x')}});
    if (call.method == "fail") responder.error("Failed", {{"message", "no"}, {"code", 5}});
    if (call.method == "keep") kept = responder;
    if (call.method == "flood") {
      for (int i = 0; i < 1000 && responder.is_open(); ++i) {
        responder.reply_and_go_on({{"text", std::string(1U << 20U, 'x')}});
      }
    }
    // "drop": no answer at all.
  }

  varlink::Connection connect() const {
    auto connection = varlink::Connection::connect(path);
    EXPECT_TRUE(connection) << connection.error().message;
    return std::move(*connection);
  }
  /// The server serves others.
  void expect_alive() const {
    auto connection = connect();
    const auto reply = connection.call("echo", {{"a", 1}}, {}, 60s);
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ((*reply)["a"], 1);
  }
  /// The other end closes after these bytes.
  void expect_closed_after(std::string_view bytes) const {
    auto connection = connect();
    ASSERT_EQ(::send(connection.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    const auto reply = connection.receive(5s);
    ASSERT_FALSE(reply) << reply->body.dump();
    EXPECT_EQ(reply.error().code, ECONNRESET);
  }

  std::string path;
  std::atomic<unsigned> calls{0};
  Counters counters;
  std::unique_ptr<Loop> loop;
  std::optional<Responder> kept;
  std::unique_ptr<Server> server;
  std::thread thread;
};

TEST_F(ServerTest, AnswersErrorsAndReplies) {
  auto connection = connect();
  EXPECT_EQ(connection.call("echo", {{"x", "y"}}).value()["x"], "y");
  const auto failed = connection.call("fail", json::object());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, 5);
  EXPECT_EQ(failed.error().message, "no");
  EXPECT_TRUE(connection.call("echo", json::object())) << "the connection stays";
}

TEST_F(ServerTest, ManyCallsAtOnceAreAnsweredInOrder) {
  auto connection = connect();
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(connection.send({{"method", "echo"}, {"parameters", {{"i", i}}}}));
  }
  for (int i = 0; i < 2000; ++i) {
    const auto reply = connection.receive(5s);
    ASSERT_TRUE(reply) << reply.error().message;
    ASSERT_EQ(reply->body["parameters"]["i"], i);
  }
}

TEST_F(ServerTest, WhatIsNoCallClosesTheConnection) {
  using namespace std::string_view_literals;
  for (const auto bytes : {"\0"sv, "[]\0"sv, "{}\0"sv, "{\"method\":1}\0"sv,
                           "{\"method\":\"echo\",\"parameters\":[]}\0"sv, "GET / HTTP/1.1\r\n\r\n\0"sv}) {
    expect_closed_after(bytes);
  }
  expect_alive();
}

TEST_F(ServerTest, AnEndlessMessageClosesTheConnection) {
  auto connection = connect();
  const std::string piece(64U << 10U, 'x');
  // More than root may send (4 MiB).
  bool is_closed = false;
  for (int i = 0; i < 200 && !is_closed; ++i) {
    for (int tries = 0; tries < 500; ++tries) {
      const ssize_t count = ::send(connection.fd(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      is_closed = count < 0 && errno != EAGAIN;
      if (count >= 0 || is_closed) break;
      std::this_thread::sleep_for(10ms);
    }
  }
  EXPECT_TRUE(is_closed);
  expect_alive();
}

TEST_F(ServerTest, AHalfClosedPeerGetsItsAnswer) {
  auto connection = connect();
  ASSERT_TRUE(connection.send({{"method", "big"}}));
  ASSERT_EQ(::shutdown(connection.fd(), SHUT_WR), 0);
  const auto reply = connection.receive(5s);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body["parameters"]["text"].get<std::string>().size(), 1U << 20U);
  EXPECT_EQ(connection.receive(5s).error().code, ECONNRESET) << "and then the end";
}

TEST_F(ServerTest, APeerThatReadsNothingHoldsNobodyUp) {
  auto slow = connect();
  ASSERT_TRUE(slow.send({{"method", "big"}}));
  ASSERT_TRUE(slow.send({{"method", "echo"}}));
  expect_alive();
  EXPECT_TRUE(slow.receive(5s));
  EXPECT_TRUE(slow.receive(5s));
}

TEST_F(ServerTest, WhatAPeerLeavesUnreadIsBounded) {
  auto slow = connect();
  ASSERT_TRUE(slow.send({{"method", "flood"}, {"more", true}}));
  expect_alive();
  // 1000 MiB were offered; it was cut off long before.
  std::size_t received = 0;
  while (slow.receive(60s)) ++received;
  EXPECT_LT(received, 70U);
}

TEST_F(ServerTest, CallsWaitUntilAnswersAreRead) {
  auto slow = connect();
  constexpr unsigned count = 80;
  for (unsigned i = 0; i < count; ++i) ASSERT_TRUE(slow.send({{"method", "big"}}));
  expect_alive();
  expect_alive();
  EXPECT_LT(calls, 10U) << "an answer of a MiB each, and none was read";
  for (unsigned i = 0; i < count; ++i) {
    const auto reply = slow.receive(60s);
    ASSERT_TRUE(reply) << i << ": " << reply.error().message;
    ASSERT_EQ(reply->body["parameters"]["text"].get_ref<const std::string&>().size(), 1U << 20U);
  }
}

TEST_F(ServerTest, ErrorsThatNobodyReadsAreBounded) {
  auto slow = connect();
  std::string piece;
  while (piece.size() < (64U << 10U)) piece.append("{\"method\":\"fail\"}").push_back('\0');
  constexpr std::size_t most = 8U << 20U;
  std::size_t sent = 0;
  // Until it takes no more for a while.
  for (int refused = 0; refused < 300 && sent < most;) {
    const ssize_t count = ::send(slow.fd(), piece.data() + sent % piece.size(),
                                 piece.size() - sent % piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
      refused = 0;
    } else {
      ASSERT_EQ(errno, EAGAIN);
      ++refused;
      std::this_thread::sleep_for(1ms);
    }
  }
  EXPECT_LT(sent, most);
  expect_alive();
  const auto reply = slow.receive(60s);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body["error"], "io.fpolicy.Policyd.Failed");
}

TEST_F(ServerTest, APeerThatGoesWhileItsCallIsWorkedOnIsNoticed) {
  {
    auto connection = connect();
    ASSERT_TRUE(connection.send({{"method", "keep"}}));
    expect_alive();
    ASSERT_TRUE(kept.has_value());
    EXPECT_TRUE(kept->is_open());
  }
  for (int i = 0; i < 500 && kept->is_open(); ++i) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(kept->is_open());
  loop->post([this] { kept->reply(json::object()); });
  expect_alive();
}

TEST_F(ServerTest, ACallThatNobodyAnswersEndsTheConnection) {
  auto connection = connect();
  const auto reply = connection.call("drop", json::object(), {}, 5s);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ECONNRESET);
}

TEST_F(ServerTest, ConnectionsAreBounded) {
  // As root 256, as a user 16: what comes beyond is closed at once, and room comes free again.
  const std::size_t most = ::geteuid() == 0 ? 256 : 16;
  {
    std::vector<varlink::Connection> connections;
    for (std::size_t i = 0; i < most; ++i) connections.push_back(connect());
    ASSERT_TRUE(connections.back().call("echo", json::object(), {}, 5s));
    auto more = connect();
    EXPECT_FALSE(more.call("echo", json::object(), {}, 5s));
  }
  for (int i = 0; i < 500; ++i) {
    auto connection = connect();
    if (connection.call("echo", json::object(), {}, 5s)) return;
    std::this_thread::sleep_for(10ms);
  }
  FAIL() << "no room again";
}

TEST_F(ServerTest, OnewayIsNotAnswered) {
  auto connection = connect();
  ASSERT_TRUE(connection.send({{"method", "echo"}, {"parameters", {{"n", 1}}}, {"oneway", true}}));
  ASSERT_TRUE(connection.send({{"method", "echo"}, {"parameters", {{"n", 2}}}}));
  EXPECT_EQ(connection.receive(5s)->body["parameters"]["n"], 2);
}

}  // namespace
}  // namespace fpolicy::policyd
