// SPDX-License-Identifier: LGPL-2.1-or-later
// The daemon as a process, on this machine as it is: it must run, and say what it cannot do here.
#include <fpolicy/carry_over.h>
#include <fpolicy/migrate_json.h>
#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace fpolicy {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class PolicydTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string name = "/var/tmp/policyd-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
    std::filesystem::create_directory(directory + "/rules");
    // Nobody on this machine is kept waiting for the sake of a test.
    configure("[guard]\nenabled = false\n[rules]\ndirectory = \"" + directory + "/rules\"\n");
  }
  void TearDown() override {
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    if (!directory.empty()) std::filesystem::remove_all(directory);
  }

  void configure(const std::string& text) const { std::ofstream(directory + "/policyd.toml") << text; }
  pid_t start(const std::string& socket = "/socket") const {
    std::vector<std::string> words{FPOLICY_POLICYD,   "--config",           directory + "/policyd.toml",
                                   "--state-dir",     directory + "/state", "--socket",
                                   directory + socket};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      const int log = ::open((directory + "/log").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
      ::dup2(log, STDERR_FILENO);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    return child;
  }
  static int status_of(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string log() const {
    std::ifstream file(directory + "/log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void run() {
    pid = start();
    EXPECT_TRUE(wait_for([this] { return call("Status").has_value(); })) << log();
  }
  Result<json> call(const std::string& method, const json& parameters = json::object(),
                    std::span<const int> fds = {}) const {
    auto connection = varlink::Connection::connect(directory + "/socket");
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
  std::uint64_t counter(const char* name) const {
    return call("Status").value()["counters"][name].get<std::uint64_t>();
  }
  /// Page frames, which moving takes, are shown on this machine.
  static bool frames_are_shown() {
    return static_cast<bool>(Fd(::open("/proc/kpageflags", O_RDONLY | O_CLOEXEC)));
  }
  /// A file with one MiB and a system tag; false where this filesystem has no such tags.
  static bool tag(const std::string& path, const std::string& value) {
    return ::setxattr(path.c_str(), "security.fpolicy", value.data(), value.size(), 0) == 0;
  }

  std::string directory;
  pid_t pid = 0;
};

TEST_F(PolicydTest, RunsAndSaysWhatItCannotDoHere) {
  run();
  const auto status = call("Status");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ((*status)["pid"], pid);
  const std::string limits = (*status)["limits"].dump();
  EXPECT_EQ((*status)["nodes"] == "0", limits.find("one memory node") != std::string::npos) << limits;
  EXPECT_EQ((*status)["watching"], limits.find("moves of jobs are not noticed") == std::string::npos)
      << limits;
}

TEST_F(PolicydTest, StopsCleanly) {
  run();
  ::kill(pid, SIGTERM);
  EXPECT_EQ(status_of(pid), 0);
  pid = 0;
  EXPECT_FALSE(std::filesystem::exists(directory + "/socket"));
}

TEST_F(PolicydTest, TheSecondOnOneStateDirectoryEndsWith2) {
  run();
  EXPECT_EQ(status_of(start("/other")), 2);
  EXPECT_EQ(log(), "policyd: another policyd has " + directory + "/state\n");
  EXPECT_TRUE(call("Status")) << "the first lives on";
}

TEST_F(PolicydTest, AfterKill9TheNextStarts) {
  run();
  ::kill(pid, SIGKILL);
  status_of(pid);
  run();
}

TEST_F(PolicydTest, AWrongConfigurationEndsWith2AndItsPlace) {
  configure("[enforcement]\nbandwith_mib = 5\n");
  EXPECT_EQ(status_of(start()), 2);
  EXPECT_EQ(log(), "policyd: " + directory + "/policyd.toml:2:1: unknown key \"bandwith_mib\"\n");
}

TEST_F(PolicydTest, AReloadThatFailsLeavesWhatWasInForce) {
  std::ofstream(directory + "/rules/a.rules") << "/srv/**\tbind:0\n";
  run();
  EXPECT_EQ(call("Status").value()["rules"], 1);
  std::ofstream(directory + "/rules/b.rules") << "/srv/**\tbond:0\n";
  const auto reloaded = call("Reload");
  ASSERT_FALSE(reloaded);
  EXPECT_TRUE(reloaded.error().message.starts_with(directory + "/rules/b.rules:1:"))
      << reloaded.error().message;
  EXPECT_EQ(call("Status").value()["rules"], 1);
  EXPECT_TRUE(wait_for(
      [&] { return call("Status").value()["limits"].dump().find("b.rules:1:") != std::string::npos; }));
  // Corrected: noticed without being told.
  std::ofstream(directory + "/rules/b.rules") << "/opt/**\tbind:0\n";
  EXPECT_TRUE(wait_for([&] { return call("Status").value()["rules"] == 2; }));
  // The same by signal, with the configuration.
  configure("[rules]\ndirectory = \"/nonexistent\"\n");
  ::kill(pid, SIGHUP);
  EXPECT_TRUE(wait_for([&] { return call("Status").value()["rules"] == 0; }));
}

// Between two versions of the rules there is none: in each of them the last rule of the file decides, and the
// first would if a part of the file alone were in force.
TEST_F(PolicydTest, RulesAreReplacedWholeWhileTheyAreAsked) {
  const std::string path = directory + "/data";
  std::ofstream(path) << "x";
  const auto write = [this](const std::string& policy, const std::string& name) {
    std::ofstream file(name);
    file << directory << "/**\tbind:0\n";
    for (int i = 0; i < 5000; ++i) file << "/srv/" << i << "/\tbind:0\n";
    file << directory << "/**\t" << policy << "\n";
  };
  const std::string rules = directory + "/rules/a.rules";
  write("prefer:0", rules);
  run();
  std::atomic<bool> stop = false;
  std::atomic<int> reloads = 0;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      // A name that is no rules file until it is whole.
      const char* policies[] = {"interleave:0", "prefer:0", "bond:0"};
      write(policies[i % 3], rules + ".new");
      std::filesystem::rename(rules + ".new", rules);
      // Half of them are noticed without being told.
      if (i % 2 == 0) reloads += call("Reload") ? 1 : 0;
    }
  });
  std::map<std::string, int> seen;
  std::set<json> counts;
  wait_for([&] {
    const auto applied = call("Apply", {{"paths", {path}}, {"fds", 0}});
    if (applied && (*applied)["files"].size() == 1)
      ++seen[(*applied)["files"][0]["policy"].get<std::string>()];
    else
      ++seen["error"];
    counts.insert(call("Status").value()["rules"]);
    return reloads >= 20 && seen.size() >= 2 && seen["prefer:0"] >= 20;
  });
  stop = true;
  writer.join();
  EXPECT_GE(reloads, 20);
  EXPECT_GT(seen["prefer:0"], 0);
  EXPECT_GT(seen["interleave:0"], 0);
  EXPECT_EQ(seen.size(), 2U) << json(seen).dump();
  EXPECT_EQ(counts, std::set<json>{5002});
}

TEST_F(PolicydTest, AChangedTagIsEnforcedAndToldOf) {
  run();
  const std::string path = directory + "/data";
  std::ofstream(path) << std::string(1U << 20U, 'x');
  if (!tag(path, "1 bind:0")) GTEST_SKIP() << "no xattrs in " << directory;
  ASSERT_TRUE(call("Changed", {{"paths", {path}}, {"fds", 0}}));
  // Once more where the pass at start comes to it behind us.
  EXPECT_TRUE(wait_for([&] { return counter("files_enforced") >= 1; }));
  const auto applied = call("Apply", {{"paths", {path, "/nonexistent"}}, {"fds", 0}});
  ASSERT_TRUE(applied) << applied.error().message;
  ASSERT_EQ((*applied)["files"].size(), 1U);
  const json& file = (*applied)["files"][0];
  EXPECT_EQ(file["path"], path);
  EXPECT_EQ(file["policy"], "bind:0");
  EXPECT_EQ(file["resident_pages"], (1 << 20) / ::sysconf(_SC_PAGESIZE));
  EXPECT_EQ(file["state"], "ok");
  ASSERT_EQ((*applied)["errors"].size(), 1U);
  EXPECT_EQ((*applied)["errors"][0]["path"], "/nonexistent");
}

TEST_F(PolicydTest, TheCatalogueFollowsXattrsThatOthersChange) {
  run();
  const std::string path = directory + "/data";
  std::ofstream(path) << "x";
  if (::setxattr(path.c_str(), "user.fpolicy", "1 bind:0", 8, 0) != 0)
    GTEST_SKIP() << "no xattrs in " << directory;
  const auto entry = [&] {
    const auto identity = Identifier().identify({.fd = -1, .name = path.c_str(), .path = path});
    EXPECT_TRUE(identity);
    Identifier identifier;
    const auto database =
        Database::open(directory + "/state/fpolicy.db", Database::Access::read_only, &identifier);
    EXPECT_TRUE(database);
    const auto record = (*database)->find_identity(*identity, Space::user);
    return record && *record ? (*record)->policy + " " + (*record)->path : "none";
  };
  EXPECT_EQ(entry(), "none");
  ASSERT_TRUE(call("Apply", {{"paths", {path}}, {"fds", 0}}));
  EXPECT_EQ(entry(), "bind:0 " + path);
  ASSERT_EQ(::setxattr(path.c_str(), "user.fpolicy", "1 prefer:0", 10, 0), 0);
  ASSERT_TRUE(call("Apply", {{"paths", {path}}, {"fds", 0}}));
  EXPECT_EQ(entry(), "prefer:0 " + path);
  // A user has told that he removed it.
  ASSERT_EQ(::removexattr(path.c_str(), "user.fpolicy"), 0);
  const Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  const std::array fds{file.get()};
  ASSERT_TRUE(call("Changed", {{"paths", json::array()}, {"fds", 1}}, fds));
  EXPECT_TRUE(wait_for([&] { return entry() == "none"; }));
}

TEST_F(PolicydTest, ADirectoryTagReachesTheFilesBelow) {
  run();
  const std::string below = directory + "/lib/deep";
  std::filesystem::create_directories(below);
  std::ofstream(below + "/a") << "x";
  std::ofstream(directory + "/lib/b") << "x";
  if (!tag(directory + "/lib", "1 bind:0")) GTEST_SKIP() << "no xattrs in " << directory;
  ASSERT_TRUE(call("Changed", {{"paths", {directory + "/lib"}}, {"fds", 0}}));
  EXPECT_TRUE(wait_for([&] { return counter("files_enforced") >= 2; }));
}

TEST_F(PolicydTest, AnUnknownTagIsNotApplied) {
  run();
  const std::string path = directory + "/data";
  std::ofstream(path) << "x";
  if (!tag(path, "9 bind:0")) GTEST_SKIP() << "no xattrs in " << directory;
  EXPECT_EQ(call("Apply", {{"paths", {path}}, {"fds", 0}}).value()["files"][0]["state"], "unsupported");
}

TEST_F(PolicydTest, OtherUsersMayDoWhatTheyMayDo) {
  run();
  ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
  const std::string mine = directory + "/mine";
  const std::string theirs = directory + "/theirs";
  for (const auto& path : {mine, theirs}) std::ofstream(path) << "x";
  ASSERT_EQ(::chown(mine.c_str(), 1000, 1000), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(100);
    const Fd own(::open(mine.c_str(), O_RDONLY | O_CLOEXEC));
    const Fd other(::open(theirs.c_str(), O_RDONLY | O_CLOEXEC));
    const std::array own_fds{own.get()};
    const std::array other_fds{other.get()};
    const json one_file{{"paths", json::array()}, {"fds", 1}};
    const auto denied = [](const Result<json>& reply) { return !reply && reply.error().code == EPERM; };
    const std::array checks{
        call("Status").has_value(),
        denied(call("Reload")),
        denied(call("Events", {{"follow", false}})),
        denied(call("Apply", {{"paths", json::array()}, {"fds", 0}})),
        denied(call("Apply", {{"paths", {theirs}}, {"fds", 0}})),
        denied(call("Changed", {{"paths", {mine}}, {"fds", 0}})),
        denied(call("Apply", one_file, other_fds)),
        call("Apply", one_file, own_fds).has_value(),
        call("Changed", one_file, own_fds).has_value(),
        denied(call("SetTag", {{"space", "system"}, {"policy", "bind:0"}, {"path", mine}, {"force", false}},
                    own_fds)),
        denied(call("SetTag", {{"space", "user"}, {"policy", "bind:0"}, {"path", theirs}, {"force", false}},
                    other_fds)),
        denied(call("SetTag", {{"space", "user"}, {"policy", "bind:0,pin"}, {"path", mine}, {"force", false}},
                    own_fds)),
        call("SetTag", {{"space", "user"}, {"policy", "bind:0"}, {"path", mine}, {"force", false}}, own_fds)
            .has_value(),
        call("FindRecords", {{"space", "user"}, {"fds", 1}}, own_fds).value()["records"].size() == 1,
        call("RemoveTag", {{"space", "user"}, {"path", mine}}, own_fds).value()["changed"].get<bool>()};
    for (std::size_t i = 0; i < checks.size(); ++i) {
      if (!checks.at(i)) ::_exit(static_cast<int>(i) + 1);
    }
    ::_exit(0);
  }
  EXPECT_EQ(status_of(child), 0) << "the number of the check that failed";
}

/// A process of this user that waits, and what it is called.
class Sleeper {
 public:
  explicit Sleeper(uid_t uid) : pid_(::fork()) {
    if (pid_ == 0) {
      if (uid != 0 && (::setgid(uid) != 0 || ::setuid(uid) != 0)) ::_exit(1);
      // A program of its own: what has only changed its user is nobody's to look into.
      ::execl("/bin/sleep", "sleep", "600", nullptr);
      ::_exit(127);
    }
    // Until it is that program.
    for (int i = 0; i < 1000 && name() != "sleep\n"; ++i) std::this_thread::sleep_for(5ms);
  }
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] char state() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string text;
    std::getline(file, text);
    return text.at(text.rfind(") ") + 2);
  }

 private:
  [[nodiscard]] std::string name() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/comm");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  pid_t pid_;
};

/// Files where root alone may put some.
class ReplacedFilesTest : public PolicydTest {
 protected:
  void SetUp() override {
    PolicydTest::SetUp();
    if (IsSkipped()) return;
    std::string name = "/var/lib/policyd-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    home = name;
    if (const auto guarded = open_administrators_directory(home); !guarded)
      GTEST_SKIP() << guarded.error().message;
    path = home + "/lib/library";
    std::filesystem::create_directory(home + "/lib");
    std::ofstream(path) << "old";
  }
  void TearDown() override {
    PolicydTest::TearDown();
    if (!home.empty()) std::filesystem::remove_all(home);
  }

  /// As setfpolicy does, which tells policyd.
  void set(const std::string& policy) const {
    const std::string command = std::string(FPOLICY_TOOLS) + "/setfpolicy --database " + directory +
                                "/state/fpolicy.db --socket " + directory + "/socket " + policy + " " + path;
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  /// As package managers do.
  void replace() const {
    std::ofstream(path + ".dpkg-new") << "new";
    std::filesystem::rename(path + ".dpkg-new", path);
  }
  std::string tag() const {
    Identifier identifier;
    const auto database =
        Database::open(directory + "/state/fpolicy.db", Database::Access::read_only, &identifier);
    if (!database) return database.error().message;
    PolicyStore store(database->get(), &identifier);
    FileRef file;
    file.name = path.c_str();
    file.path = path;
    const auto found = store.get(file, Space::system);
    if (!found) return found.error().message;
    return *found ? (*found)->text : "none";
  }
  std::vector<json> carried() const {
    auto connection = varlink::Connection::connect(directory + "/socket");
    std::vector<json> events;
    if (!connection) return events;
    const auto done =
        connection->call_more("io.fpolicy.Policyd.Events", {{"follow", false}}, [&](const json& reply) {
          if (reply["event"]["kind"] == "carry") events.push_back(reply["event"]);
          return true;
        });
    EXPECT_TRUE(done) << done.error().message;
    return events;
  }

  std::string home;
  std::string path;
};

TEST_F(ReplacedFilesTest, GetTheTagThatRootHadSetAsSoonAsTheyAppear) {
  run();
  set("bind:0");
  EXPECT_TRUE(wait_for([this] { return counter("tag_changes") == 1; }));
  replace();
  EXPECT_TRUE(wait_for([this] { return tag() == "bind:0"; })) << tag();
  EXPECT_TRUE(wait_for([this] { return counter("tags_carried") == 1; }));
  const auto events = carried();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["path"], path);
  EXPECT_EQ(events[0]["policy"], "bind:0");
  replace();
  EXPECT_TRUE(wait_for([this] { return counter("tags_carried") == 2; }));
  EXPECT_EQ(counter("errors"), 0U);
}

TEST_F(ReplacedFilesTest, AreFoundAtStart) {
  run();
  set("bind:0");
  ::kill(pid, SIGTERM);
  EXPECT_EQ(status_of(pid), 0);
  replace();
  EXPECT_EQ(tag(), "none");
  run();
  EXPECT_TRUE(wait_for([this] { return tag() == "bind:0"; })) << tag();
}

// The directory was made again: nobody tells of what appears there. A process that maps it is seen.
TEST_F(ReplacedFilesTest, AreFoundWhereAProcessMapsThem) {
  run();
  set("bind:0");
  EXPECT_TRUE(wait_for([this] { return counter("tag_changes") == 1; }));
  std::filesystem::remove_all(home + "/lib");
  std::filesystem::create_directory(home + "/lib");
  std::ofstream(path) << "new";
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  void* const mapped = ::mmap(nullptr, 3, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  EXPECT_EQ(tag(), "none");
  // All jobs are looked at after a reload.
  EXPECT_TRUE(call("Reload"));
  EXPECT_TRUE(wait_for([this] { return tag() == "bind:0"; })) << tag();
  ::munmap(mapped, 3);
}

TEST_F(ReplacedFilesTest, GetNothingWhereOthersMayHavePutThem) {
  run();
  set("bind:0");
  EXPECT_TRUE(wait_for([this] { return counter("tag_changes") == 1; }));
  std::filesystem::permissions(home + "/lib", std::filesystem::perms::all);
  replace();
  EXPECT_TRUE(wait_for([this] { return carried().size() == 1; }));
  EXPECT_EQ(carried()[0]["message"], path +
                                         ": its tag was not carried over: others than its owner may put "
                                         "files into " +
                                         home + "/lib");
  EXPECT_EQ(tag(), "none");
  EXPECT_EQ(counter("tags_carried"), 0U);
}

TEST_F(PolicydTest, AJobIsMovedForACaller) {
  if (!frames_are_shown()) GTEST_SKIP() << "page frames are not shown here";
  run();
  const Sleeper sleeper(0);
  json parameters{{"pids", {sleeper.pid()}}, {"from", "0"}, {"to", "0"}, {"verify", true}};
  const auto moved = call("Migrate", parameters);
  ASSERT_TRUE(moved) << moved.error().message;
  const auto report = report_from_json(moved->at("report"));
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->processes, 1U);
  EXPECT_GT(report->counts.stayed, 0U) << "they are where they belong";
  EXPECT_EQ(report->misplaced, 0U);
  EXPECT_TRUE(report->mappings.empty());
  EXPECT_EQ(sleeper.state(), 'S') << "it goes on";
  const auto event = call("Events", {{"follow", false}}).value()["event"];
  EXPECT_EQ(event["kind"], "migrate") << event;
  EXPECT_EQ(counter("migrations"), 1U);
  // The plan, with each mapping, and how far it has come.
  parameters["dry_run"] = true;
  auto connection = varlink::Connection::connect(directory + "/socket");
  ASSERT_TRUE(connection);
  json last;
  const auto planned =
      connection->call_more("io.fpolicy.Policyd.Migrate", parameters, [&last](const json& reply) {
        last = reply;
        return true;
      });
  ASSERT_TRUE(planned) << planned.error().message;
  const auto plan = report_from_json(last.at("report"));
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_FALSE(plan->mappings.empty());
}

TEST_F(PolicydTest, WhatCannotBeMovedIsRefused) {
  if (!frames_are_shown()) GTEST_SKIP() << "page frames are not shown here";
  run();
  const auto code = [this](const json& parameters) {
    const auto reply = call("Migrate", parameters);
    return reply ? 0 : reply.error().code;
  };
  EXPECT_EQ(code({{"pids", {1 << 22}}, {"from", "0"}, {"to", "0"}}), ESRCH);
  EXPECT_EQ(code({{"pids", {pid}}, {"from", "0"}, {"to", "0"}}), EINVAL) << "policyd itself";
  EXPECT_EQ(code({{"pids", {1 << 22}}, {"from", "0"}, {"to", "1023"}}), EINVAL);
  for (const char* path : {"../..", "a/../b", "a//b", "a/", "./a"})
    EXPECT_EQ(code({{"cgroup", path}, {"from", "0"}, {"to", "0"}}), EINVAL) << path;
  EXPECT_NE(code({{"cgroup", "no-such-cgroup"}, {"from", "0"}, {"to", "0"}}), 0);
  EXPECT_EQ(code({{"pids", "x"}, {"from", "0"}, {"to", "0"}}), EINVAL);
  EXPECT_EQ(code({{"frob", 1}}), EINVAL);
  EXPECT_EQ(counter("migrations"), 0U);
}

TEST_F(PolicydTest, UsersMoveWhatIsTheirsAlone) {
  if (!frames_are_shown()) GTEST_SKIP() << "page frames are not shown here";
  run();
  ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
  const Sleeper mine(1000);
  const Sleeper theirs(1001);
  const Sleeper roots(0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(1000) != 0 || ::setuid(1000) != 0) ::_exit(100);
    const auto code = [this](std::vector<pid_t> pids, const json& more = json::object()) {
      json parameters{{"pids", std::move(pids)}, {"from", "0"}, {"to", "0"}};
      parameters.update(more);
      const auto reply = call("Migrate", parameters);
      return reply ? 0 : reply.error().code;
    };
    const int own = code({mine.pid()});
    const std::array checks{own == 0,
                            code({mine.pid()}, {{"dry_run", true}}) == 0,
                            code({theirs.pid()}) == EPERM,
                            code({theirs.pid()}, {{"dry_run", true}}) == EPERM,
                            code({mine.pid(), theirs.pid()}) == EPERM,
                            code({roots.pid()}) == EPERM,
                            code({mine.pid()}, {{"max_bytes_per_second", 1}}) == EPERM,
                            code({}, {{"cgroup", "a"}, {"pids", nullptr}, {"set_cpuset", true}}) == EPERM};
    for (std::size_t i = 0; i < checks.size(); ++i) {
      if (!checks.at(i)) ::_exit(static_cast<int>(i) + 1);
    }
    ::_exit(0);
  }
  const int status = status_of(child);
  EXPECT_EQ(status, 0) << "the number of the check that failed";
  for (const Sleeper* sleeper : {&mine, &theirs, &roots}) EXPECT_EQ(sleeper->state(), 'S');
}

TEST_F(PolicydTest, NeedsRoot) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(100);
    ::execl(FPOLICY_POLICYD, "policyd", nullptr);
    ::_exit(127);
  }
  EXPECT_EQ(status_of(child), 2);
}

TEST_F(PolicydTest, IdleItWakesForNothing) {
  run();
  const auto switches = [this] {
    std::uint64_t sum = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
      std::ifstream file(task.path() / "status");
      for (std::string line; std::getline(file, line);) {
        if (line.starts_with("voluntary_ctxt_switches:"))
          sum += std::stoull(line.substr(line.find('\t') + 1));
      }
    }
    return sum;
  };
  // The first look at all jobs is over when nothing has changed for a while. What others do in cgroups does
  // wake it, rightly: hence several tries.
  std::uint64_t before = switches();
  EXPECT_TRUE(wait_for([&] {
    std::this_thread::sleep_for(2s);
    const auto now = switches();
    return std::exchange(before, now) == now;
  }));
}

}  // namespace
}  // namespace fpolicy
