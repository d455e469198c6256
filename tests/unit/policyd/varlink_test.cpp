// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/varlink.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <thread>

namespace fpolicy::varlink {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

/// The next message that has come whole; null where none has.
json next_body(Connection& connection) {
  auto message = connection.next();
  if (!message) return message.error().message;
  const std::optional<Message> whole = std::move(*message);
  return whole ? whole->body : json();
}

class VarlinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    raw = Fd(pair[0]);
    peer_end = Fd(pair[1]);
  }
  void write_raw(std::string_view bytes) const {
    ASSERT_EQ(::send(raw.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  Fd raw;
  Fd peer_end;
};

TEST_F(VarlinkTest, MessageAndDescriptorsArriveTogether) {
  Connection client(std::move(raw));
  Connection server(std::move(peer_end));
  const Fd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Fd second(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::array fds{first.get(), second.get()};
  ASSERT_TRUE(client.send({{"method", "a.B"}}, fds));
  auto message = server.receive(1s);
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_EQ(message->body["method"], "a.B");
  ASSERT_EQ(message->fds.size(), 2U);
  struct stat status{};
  ASSERT_EQ(::fstat(message->fds[1].get(), &status), 0);
  EXPECT_TRUE(S_ISDIR(status.st_mode)) << "the order is kept";
  EXPECT_NE(::fcntl(message->fds[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(VarlinkTest, DescriptorsStayWithTheirOwnMessageWhenCallsArePipelined) {
  Connection client(std::move(raw));
  Connection server(std::move(peer_end));
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::array fds{null.get()};
  ASSERT_TRUE(client.send({{"n", 1}}));
  ASSERT_TRUE(client.send({{"n", 2}}, fds));
  ASSERT_TRUE(client.send({{"n", 3}}));
  ASSERT_TRUE(client.send({{"n", 4}}, fds));
  const std::array<std::size_t, 4> expected{0, 1, 0, 1};
  for (int n = 1; n <= 4; ++n) {
    auto message = server.receive(1s);
    ASSERT_TRUE(message);
    EXPECT_EQ(message->body["n"], n);
    EXPECT_EQ(message->fds.size(), expected.at(static_cast<std::size_t>(n) - 1));
  }
}

TEST_F(VarlinkTest, MessageInPiecesAndTwoInOnePiece) {
  Connection server(std::move(peer_end));
  write_raw(R"({"a":)");
  ASSERT_TRUE(server.read_available());
  auto none = server.next();
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
  write_raw(std::string_view("1}\0{\"b\":2}\0{\"c\"", 14 + 1));
  ASSERT_TRUE(server.read_available());
  EXPECT_EQ(next_body(server), json({{"a", 1}}));
  EXPECT_EQ(next_body(server), json({{"b", 2}}));
  auto third = server.next();
  ASSERT_TRUE(third);
  EXPECT_FALSE(*third);
}

TEST_F(VarlinkTest, WhatIsNoObjectIsRefused) {
  Connection server(std::move(peer_end));
  const std::array<std::string_view, 6> hostile{
      std::string_view("\0", 1),     std::string_view("[]\0", 3),  std::string_view("{\0", 2),
      std::string_view("null\0", 5), std::string_view("{}x\0", 4), std::string_view("\xff\xfe\0", 3)};
  for (const auto& bytes : hostile) {
    write_raw(bytes);
    ASSERT_TRUE(server.read_available());
    auto message = server.next();
    ASSERT_FALSE(message);
    EXPECT_EQ(message.error().code, EPROTO);
  }
}

TEST_F(VarlinkTest, DeepNestingIsRefusedAndDoesNotOverflowTheStack) {
  Connection server(std::move(peer_end));
  const std::string deep = R"({"a":)" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  std::thread writer([&] {
    std::size_t sent = 0;
    while (sent < deep.size()) {
      const ssize_t count = ::send(raw.get(), deep.data() + sent, deep.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += static_cast<std::size_t>(count);
    }
    ::send(raw.get(), "", 1, MSG_NOSIGNAL);
  });
  auto message = server.receive(10s);
  writer.join();
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, EPROTO);
}

TEST_F(VarlinkTest, TooLongAMessageIsRefusedBeforeItsEnd) {
  Connection server(std::move(peer_end));
  server.set_longest_received(1000);
  write_raw(std::string(1001, 'x'));
  auto open = server.read_available();
  ASSERT_FALSE(open);
  EXPECT_EQ(open.error().code, EMSGSIZE);
}

TEST_F(VarlinkTest, MessageOfTheGreatestLengthPasses) {
  Connection server(std::move(peer_end));
  server.set_longest_received(1000);
  const std::string body = R"({"a":")" + std::string(1000 - 8, 'x') + R"("})";
  ASSERT_EQ(body.size(), 1000U);
  write_raw(std::string_view(body.c_str(), body.size() + 1));
  ASSERT_TRUE(server.read_available());
  auto message = server.next();
  ASSERT_TRUE(message) << message.error().message;
  EXPECT_TRUE(*message);
}

TEST_F(VarlinkTest, ManyDescriptorsWithoutAMessageAreRefused) {
  Connection server(std::move(peer_end));
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> fds(max_fds, null.get());
  alignas(cmsghdr) std::array<char, CMSG_SPACE(max_fds * sizeof(int))> control{};
  Status refused;
  for (int i = 0; i < 3 && refused; ++i) {
    char byte = 'x';
    iovec vector{.iov_base = &byte, .iov_len = 1};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
    ASSERT_EQ(::sendmsg(raw.get(), &header, MSG_NOSIGNAL), 1);
    auto open = server.read_available();
    if (!open) refused = tl::unexpected(open.error());
  }
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EPROTO);
}

TEST_F(VarlinkTest, EndOfStreamIsToldAndReceiveFails) {
  Connection server(std::move(peer_end));
  raw.reset();
  auto open = server.read_available();
  ASSERT_TRUE(open);
  EXPECT_FALSE(*open);
  auto message = server.receive(1s);
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error().code, ECONNRESET);
}

TEST_F(VarlinkTest, ASilentPeerTimesOut) {
  Connection client(std::move(raw));
  auto reply = client.call("a.B", json::object(), {}, 20ms);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ETIMEDOUT);
}

TEST_F(VarlinkTest, WritingToASlowPeerNeverBlocks) {
  Connection server(std::move(raw));
  const json big{{"text", std::string(1U << 20U, 'x')}};
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(server.queue(big));
  ASSERT_TRUE(server.write_available());
  EXPECT_GT(server.unsent(), 0U);
  Connection client(std::move(peer_end));
  std::thread reader([&] {
    for (int i = 0; i < 3; ++i) {
      auto message = client.receive(10s);
      ASSERT_TRUE(message);
      EXPECT_EQ(message->body, big);
    }
  });
  while (server.unsent() > 0) ASSERT_TRUE(server.write_available());
  reader.join();
}

TEST_F(VarlinkTest, WritingToAClosedPeerIsAnErrorAndNoSignal) {
  Connection server(std::move(raw));
  peer_end.reset();
  ASSERT_TRUE(server.queue({{"a", 1}}));
  auto written = server.write_available();
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, EPIPE);
}

TEST_F(VarlinkTest, ErrorRepliesBecomeErrors) {
  Connection client(std::move(raw));
  Connection server(std::move(peer_end));
  ASSERT_TRUE(server.queue({{"error", "io.fpolicy.Policyd.PermissionDenied"},
                            {"parameters", {{"message", "reload: only root may"}}}}));
  ASSERT_TRUE(server.write_available());
  auto reply = client.call("io.fpolicy.Policyd.Reload", json::object(), {}, 1s);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, EPERM);
  EXPECT_EQ(reply.error().message, "reload: only root may");
}

TEST_F(VarlinkTest, MoreRepliesUntilTheLast) {
  Connection client(std::move(raw));
  Connection server(std::move(peer_end));
  for (int i = 0; i < 3; ++i) {
    json reply{{"parameters", {{"n", i}}}};
    if (i < 2) reply["continues"] = true;
    ASSERT_TRUE(server.queue(reply));
  }
  ASSERT_TRUE(server.write_available());
  std::vector<int> seen;
  const auto status = client.call_more("a.B", json::object(), [&](const json& parameters) {
    seen.push_back(parameters["n"].get<int>());
    return true;
  });
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(seen, (std::vector{0, 1, 2}));
}

TEST(VarlinkListener, ListensConnectsAndKnowsThePeer) {
  const std::string directory = testing::TempDir() + "varlink-" + std::to_string(::getpid());
  std::filesystem::create_directory(directory);
  const std::string path = directory + "/socket";
  for (int round = 0; round < 2; ++round) {  // the second replaces what the first left behind
    auto listener = listen_at(path, 0666);
    ASSERT_TRUE(listener) << listener.error().message;
    auto nobody = accept_at(listener->get());
    ASSERT_TRUE(nobody);
    EXPECT_FALSE(*nobody);
    auto client = Connection::connect(path);
    ASSERT_TRUE(client) << client.error().message;
    auto accepted = accept_at(listener->get());
    ASSERT_TRUE(accepted);
    std::optional<Fd> socket = std::move(*accepted);
    if (!socket) FAIL() << "nobody connected";
    const Connection server(std::move(*socket));
    auto peer = server.peer();
    ASSERT_TRUE(peer);
    EXPECT_EQ(peer->uid, ::getuid());
    EXPECT_EQ(peer->pid, ::getpid());
  }
  std::filesystem::remove_all(directory);
}

TEST(VarlinkListener, WhatIsNoSocketIsNotReplaced) {
  const std::string path = testing::TempDir() + "varlink-file-" + std::to_string(::getpid());
  const Fd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  auto listener = listen_at(path, 0666);
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().code, EEXIST);
  std::filesystem::remove(path);
}

TEST(VarlinkListener, MissingServerAndTooLongPathAreErrors) {
  auto missing = Connection::connect("/nonexistent/socket");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
  EXPECT_EQ(missing.error().message, "connect /nonexistent/socket: No such file or directory");
  auto too_long = Connection::connect(std::string(200, 'x'));
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code, ENAMETOOLONG);
}

}  // namespace
}  // namespace fpolicy::varlink
