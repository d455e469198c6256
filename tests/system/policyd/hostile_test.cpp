// SPDX-License-Identifier: LGPL-2.1-or-later
// The daemon against users who mean ill: it serves others meanwhile, within its memory, and gives no user
// what he could not have had.
#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace fpolicy {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr uid_t hostile = 1000;
constexpr uid_t other = 1001;

class HostileUsersTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string name = "/var/tmp/policyd-hostile-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
    ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
    std::filesystem::create_directory(directory + "/rules");
  }
  void TearDown() override {
    for (const pid_t child : children) end(child);
    if (pid > 0) end(pid);
    if (!directory.empty()) std::filesystem::remove_all(directory);
  }

  static void end(pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  void run(const std::string& more = "") {
    // Nobody on this machine is kept waiting for the sake of a test.
    std::ofstream(directory + "/policyd.toml")
        << "[guard]\nenabled = false\n[rules]\ndirectory = \"" + directory + "/rules\"\n" + more;
    std::vector<std::string> words{FPOLICY_POLICYD,      "--config",           directory + "/policyd.toml",
                                   "--state-dir",        directory + "/state", "--socket",
                                   directory + "/socket"};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid = ::fork();
    if (pid == 0) {
      const int log = ::open((directory + "/log").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
      ::dup2(log, STDERR_FILENO);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ASSERT_TRUE(wait_for([this] { return call("Status").has_value(); }));
  }
  /// A process of this user that does `what`; 0 where it says true.
  pid_t start(uid_t uid, const std::function<bool()>& what) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::setgid(uid) != 0 || ::setuid(uid) != 0) ::_exit(100);
      ::_exit(what() ? 0 : 1);
    }
    return child;
  }
  /// One that goes on until the test is over.
  void attack(const std::function<void()>& what) {
    children.push_back(start(hostile, [&what] {
      what();
      return false;
    }));
  }
  static int status_of(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  [[nodiscard]] Result<varlink::Connection> connect() const {
    return varlink::Connection::connect(directory + "/socket");
  }
  [[nodiscard]] Result<json> call(const std::string& method, const json& parameters = json::object(),
                                  std::span<const int> fds = {}) const {
    auto connection = connect();
    if (!connection) return tl::unexpected(connection.error());
    return connection->call("io.fpolicy.Policyd." + method, parameters, fds);
  }
  static bool wait_for(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  [[nodiscard]] std::uint64_t status(const char* name) const {
    const json all = call("Status").value();
    return (all.contains(name) ? all[name] : all["counters"][name]).get<std::uint64_t>();
  }
  /// KiB of policyd's memory that are resident.
  [[nodiscard]] std::uint64_t resident() const {
    std::ifstream file("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("VmRSS:")) return std::stoull(line.substr(6));
    ADD_FAILURE() << "policyd is gone";
    return 0;
  }
  /// Root and another user are served, again and again, within so much memory.
  void expect_service(std::uint64_t most_resident) {
    for (int i = 0; i < 30; ++i) {
      const auto answered = call("Status");
      ASSERT_TRUE(answered) << answered.error().message;
      ASSERT_LE(resident(), most_resident);
      std::this_thread::sleep_for(50ms);
    }
    EXPECT_EQ(status_of(start(other, [this] { return call("Status").has_value(); })), 0);
  }
  static bool denied(const Result<json>& reply) { return !reply && reply.error().code == EPERM; }

  std::string directory;
  pid_t pid = 0;
  std::vector<pid_t> children;
};

/// Memory that attackers may cost beside what policyd has anyway, in KiB. Sanitizers keep what was freed.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t most_of_attackers = 1U << 20U;
#else
constexpr std::uint64_t most_of_attackers = 20U << 10U;
#endif

TEST_F(HostileUsersTest, PeersThatFloodStallOrSendWithoutEnd) {
  run();
  const std::uint64_t before = resident();
  // A thousand connections, kept.
  attack([this] {
    std::vector<Result<varlink::Connection>> kept;
    for (int i = 0; i < 1000; ++i) kept.push_back(connect());
    ::pause();
  });
  expect_service(before + most_of_attackers);
  EXPECT_GE(status("connections_refused"), 1000U - 16U);
  end(children.back());
  children.pop_back();

  const auto flood = [this](const std::string& piece) {
    attack([this, piece] {
      for (;;) {
        const auto connection = connect();
        if (!connection) continue;
        // Until policyd closes; where it takes no more, this one stalls.
        const int flags = ::fcntl(connection->fd(), F_GETFL);
        ::fcntl(connection->fd(), F_SETFL, flags & ~O_NONBLOCK);
        for (std::size_t sent = 0; sent < (100U << 20U); sent += piece.size())
          if (::send(connection->fd(), piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
      }
    });
  };
  const auto many = [](const std::string& text) {
    std::string piece;
    while (piece.size() < 60'000) piece.append(text).push_back('\0');
    return piece;
  };
  // 100 MB without a NUL; calls whose answers nobody reads, good and bad ones.
  flood(std::string(65'536, 'x'));
  for (int i = 0; i < 4; ++i) flood(many(R"({"method":"io.fpolicy.Policyd.Status"})"));
  for (int i = 0; i < 4; ++i) flood(many(R"({"method":"x.y"})"));
  flood(many(R"({"method":"io.fpolicy.Policyd.Records","more":true,"parameters":{"prefix":""}})"));
  flood(many(
      R"({"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.fpolicy.Policyd"}})"));
  expect_service(before + most_of_attackers);
  // Half a message, and nothing more; one that sends no more but keeps reading.
  attack([this] {
    const auto stalled = connect();
    const auto half_closed = connect();
    if (!stalled || !half_closed) return;
    static_cast<void>(::send(stalled->fd(), "{\"meth", 6, MSG_NOSIGNAL));
    static_cast<void>(::send(half_closed->fd(), "{\"meth", 6, MSG_NOSIGNAL));
    ::shutdown(half_closed->fd(), SHUT_WR);
    ::pause();
  });
  expect_service(before + most_of_attackers);
  // Their places come free again.
  for (const pid_t child : children) end(child);
  children.clear();
  EXPECT_EQ(
      status_of(start(hostile, [this] { return wait_for([this] { return call("Status").has_value(); }); })),
      0);
  RecordProperty("resident_before_kib", static_cast<int>(before));
  RecordProperty("resident_after_kib", static_cast<int>(resident()));
}

TEST_F(HostileUsersTest, AUserWhoFlipsTagsAtFullSpeed) {
  run("[user_tags]\nbudget_mib_per_minute = 0\n");
  const std::string ours = directory + "/ours";
  std::ofstream(ours) << std::string(1U << 20U, 'x');
  if (::setxattr(ours.c_str(), "security.fpolicy", "1 bind:0", 8, 0) != 0 ||
      ::setxattr(ours.c_str(), "user.fpolicy", "1 bind:0", 8, 0) != 0)
    GTEST_SKIP() << "no xattrs in " << directory;
  const std::uint64_t before = resident();
  for (int i = 0; i < 4; ++i) {
    const std::string path = directory + "/theirs" + std::to_string(i);
    std::ofstream(path) << std::string(1U << 20U, 'x');
    ASSERT_EQ(::chown(path.c_str(), hostile, hostile), 0);
    attack([this, path] {
      const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      // The same file many times over.
      const std::vector<int> fds(200, file.get());
      for (unsigned turn = 0;; ++turn) {
        const char* value = turn % 2 == 0 ? "1 bind:0" : "1 prefer:0";
        if (::setxattr(path.c_str(), "user.fpolicy", value, std::strlen(value), 0) != 0) return;
        static_cast<void>(call("Changed", {{"paths", json::array()}, {"fds", fds.size()}}, fds));
      }
    });
  }
  EXPECT_TRUE(wait_for([this] { return status("tag_changes") > 2000; }));
  for (int i = 0; i < 10; ++i) {
    const auto applied = call("Apply", {{"paths", {ours}}, {"fds", 0}});
    ASSERT_TRUE(applied) << applied.error().message;
    ASSERT_EQ((*applied)["files"].size(), 1U) << *applied;
    EXPECT_EQ((*applied)["files"][0]["policy"], "bind:0");
  }
  expect_service(before + most_of_attackers);
  EXPECT_GT(status("budget_deferrals"), 0U) << "what he may not have waits";
  EXPECT_EQ(status("rescans"), 1U) << "no change makes policyd look at all jobs, but its own start";
  for (const pid_t child : children) end(child);
  children.clear();
  // Nothing piles up.
  EXPECT_TRUE(wait_for([this] { return status("queued_files") <= 8; }));
  EXPECT_LE(status("retry_files"), 4U);
  EXPECT_LE(resident(), before + most_of_attackers);
}

// In a user namespace of his own a user is root over what he mounts, and there the kernel lets him write
// security.fpolicy.
TEST_F(HostileUsersTest, ATagForgedInAUserNamespaceDoesNotCount) {
  run();
  const std::string mount = directory + "/mount";
  std::filesystem::create_directory(mount);
  constexpr int not_here = 77;
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd told(ends[0]);
  Fd tells(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::setgid(hostile) != 0 || ::setuid(hostile) != 0) ::_exit(100);
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ::_exit(not_here);
    ::prctl(PR_SET_DUMPABLE, 1);
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << hostile << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << hostile << " 1";
    if (::mount("forged", mount.c_str(), "tmpfs", 0, nullptr) != 0) ::_exit(not_here);
    const std::string path = mount + "/file";
    std::ofstream(path) << std::string(1U << 16U, 'x');
    if (::setxattr(path.c_str(), "security.fpolicy", "1 bind:0,pin", 12, 0) != 0) ::_exit(not_here);
    const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    const Fd held(::open(path.c_str(), O_PATH | O_CLOEXEC));
    const json one_file{{"paths", json::array()}, {"fds", 1}};
    int number = 0;
    for (const Fd* fd : {&file, &held}) {
      const std::array fds{fd->get()};
      const json tag{{"space", "user"}, {"policy", "bind:0"}, {"path", path}, {"force", false}};
      for (const bool is_denied :
           {denied(call("Apply", one_file, fds)), denied(call("Changed", one_file, fds)),
            denied(call("SetTag", tag, fds)), denied(call("RemoveTag", tag, fds)),
            denied(call("FindRecords", {{"space", "system"}, {"fds", 1}}, fds)),
            denied(call("CarriesTags", {{"fds", 1}}, fds))}) {
        ++number;
        if (!is_denied) ::_exit(number);
      }
    }
    // A job that maps it, until it is told to end.
    if (::mmap(nullptr, 1U << 16U, PROT_READ, MAP_SHARED | MAP_POPULATE, file.get(), 0) == MAP_FAILED)
      ::_exit(101);
    const char ready = 'r';
    static_cast<void>(!::write(tells.get(), &ready, 1));
    ::pause();
  }
  children.push_back(child);
  tells.reset();
  char ready = 0;
  if (::read(told.get(), &ready, 1) != 1) {
    children.clear();
    const int code = status_of(child);
    if (code == not_here) GTEST_SKIP() << "users have no namespaces with tmpfs here";
    FAIL() << "the number of the call that was not denied: " << code;
  }
  // Mapped by a job, it is passed over by policyd, and told by the audit.
  ASSERT_TRUE(call("Apply", {{"paths", json::array()}, {"fds", 0}}));
  const auto pins = call("Pins");
  ASSERT_TRUE(pins) << pins.error().message;
  EXPECT_TRUE((*pins)["pins"].empty()) << *pins;
  const std::string command = std::string(FPOLICY_TOOLS) + "/queryfpolicy --json --pid " +
                              std::to_string(child) + " --database " + directory + "/db --rules " +
                              directory + "/rules";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  ASSERT_TRUE(pipe);
  std::string out;
  for (std::array<char, 4096> piece{}; std::fgets(piece.data(), piece.size(), pipe.get()) != nullptr;)
    out += piece.data();
  const json audit = json::parse(out, nullptr, false);
  ASSERT_TRUE(audit.is_object()) << out;
  bool is_told = false;
  for (const json& file : audit["files"]) {
    EXPECT_NE(file.value("policy", json()), "bind:0,pin") << file;
    if (file.dump().find("its tags do not count") != std::string::npos) is_told = true;
  }
  EXPECT_TRUE(is_told) << audit.dump(2);
}

TEST_F(HostileUsersTest, WhatIsNoRegularFileIsRefused) {
  run();
  const std::string fifo = directory + "/fifo";
  const std::string device = directory + "/device";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0666), 0);
  ASSERT_EQ(::mknod(device.c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  for (const std::string& path : {fifo, device}) ASSERT_EQ(::chown(path.c_str(), hostile, hostile), 0);
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  const Fd socket(pair[0]);
  const Fd peer(pair[1]);
  const auto checks = [&, this] {
    std::vector<Fd> files;
    files.emplace_back(::open(fifo.c_str(), O_PATH | O_CLOEXEC));
    files.emplace_back(::open(fifo.c_str(), O_RDWR | O_CLOEXEC));
    files.emplace_back(::open(device.c_str(), O_RDWR | O_CLOEXEC));
    files.emplace_back(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
    files.emplace_back(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    bool is_refused = true;
    for (std::size_t i = 0; i < files.size(); ++i) {
      const std::array fds{files[i].get()};
      const json tag{{"space", "user"}, {"policy", "bind:0"}, {"path", fifo}, {"force", false}};
      const json one_file{{"paths", json::array()}, {"fds", 1}};
      const auto expect = [&](bool holds, const char* what) {
        if (!holds) std::fprintf(stderr, "uid %u: file %zu: %s\n", ::geteuid(), i, what);
        is_refused = is_refused && holds;
      };
      expect(!call("SetTag", tag, fds), "SetTag");
      // Files of /proc are regular ones; of them nothing is done.
      if (::geteuid() != 0 && i + 1 < files.size()) {
        expect(denied(call("Apply", one_file, fds)), "Apply");
        expect(denied(call("Changed", one_file, fds)), "Changed");
      }
      // They tell of no file, but neither wait for one.
      static_cast<void>(call("FindRecords", {{"space", "user"}, {"fds", 1}}, fds));
      static_cast<void>(call("CarriesTags", {{"fds", 1}}, fds));
    }
    return is_refused;
  };
  EXPECT_EQ(status_of(start(hostile, checks)), 0);
  EXPECT_TRUE(checks()) << "as root";
  // A rule may cover what has no page-cache pages: such files are not even opened.
  std::ofstream(directory + "/rules/a.rules") << "/**\tbind:0\n";
  ASSERT_TRUE(call("Reload"));
  const auto applied = call("Apply", {{"paths", {fifo, device, "/proc/self/status"}}, {"fds", 0}});
  ASSERT_TRUE(applied) << applied.error().message;
  for (const json& file : (*applied)["files"]) EXPECT_EQ(file["policy"], "") << file;
  EXPECT_TRUE(call("Status"));
}

}  // namespace
}  // namespace fpolicy
