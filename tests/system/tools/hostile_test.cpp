// SPDX-License-Identifier: LGPL-2.1-or-later
// The commands, run by root on files whose owner means ill.
#include <fpolicy/fd.h>
#include <fpolicy/store.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace fpolicy {
namespace {

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

class HostileFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string name = "/var/tmp/fpolicy-hostile-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
    ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
    std::filesystem::create_directory(directory + "/rules");
    std::ofstream(directory + "/probe") << "x";
    if (::setxattr((directory + "/probe").c_str(), "security.fpolicy", "1 bind:0", 8, 0) != 0)
      GTEST_SKIP() << "no security xattrs in " << directory;
  }
  void TearDown() override {
    if (!directory.empty()) std::filesystem::remove_all(directory);
  }

  /// A command against a database, rules and a socket of this test alone. What does not end is killed.
  Outcome run(std::vector<std::string> words, uid_t uid = 0) const {
    words[0] = std::string(FPOLICY_TOOLS) + "/" + words[0];
    for (const auto& [option, name] : {std::pair("--database", "/db"), std::pair("--rules", "/rules"),
                                       std::pair("--socket", "/no-socket")}) {
      // The database is root's.
      if (std::ranges::find(words, option) == words.end() &&
          (uid == 0 || option != std::string("--database")))
        words.insert(words.begin() + 1, {option, directory + name});
    }
    std::vector<char*> arguments{const_cast<char*>("timeout"), const_cast<char*>("60")};
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const std::string out = directory + "/out";
    const std::string err = directory + "/err";
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), STDOUT_FILENO);
      ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), STDERR_FILENO);
      if (uid != 0 && (::setgid(uid) != 0 || ::setuid(uid) != 0)) ::_exit(125);
      ::execvp(arguments[0], arguments.data());
      ::_exit(127);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .out = content(out),
            .err = content(err)};
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::string tag_of(const std::string& path, const char* name = "security.fpolicy") {
    std::array<char, 256> value{};
    const ssize_t size = ::lgetxattr(path.c_str(), name, value.data(), value.size());
    return size < 0 ? "" : std::string(value.data(), static_cast<std::size_t>(size));
  }
  void make_file(const std::string& name) const { std::ofstream(directory + "/" + name) << "x"; }

  std::string directory;
};

/// Swaps each of these pairs of names for one another, over and over, from its own thread.
class Swapper {
 public:
  Swapper(std::string directory, std::vector<std::pair<std::string, std::string>> pairs)
      : directory_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
        pairs_(std::move(pairs)),
        thread_([this] { run(); }) {}
  ~Swapper() {
    stop_ = true;
    thread_.join();
  }
  Swapper(const Swapper&) = delete;
  Swapper& operator=(const Swapper&) = delete;
  [[nodiscard]] std::uint64_t swaps() const { return swaps_; }

 private:
  void run() {
    while (!stop_) {
      for (const auto& [one, other] : pairs_) {
        if (::renameat2(directory_.get(), one.c_str(), directory_.get(), other.c_str(), RENAME_EXCHANGE) == 0)
          ++swaps_;
      }
    }
  }
  Fd directory_;
  std::vector<std::pair<std::string, std::string>> pairs_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> swaps_{0};
  std::thread thread_;
};

// The walk lists a directory, then looks its entries up: between the two each may have become a link that
// leads out of the tree.
TEST_F(HostileFilesTest, NothingOutsideATreeIsReachedWhileItsEntriesAreSwapped) {
  constexpr unsigned pairs = 64;
  std::filesystem::create_directories(directory + "/tree");
  std::filesystem::create_directories(directory + "/outside/below");
  for (const char* name : {"outside/file", "outside/below/file"}) make_file(name);
  ASSERT_EQ(run({"setfpolicy", "-R", "prefer:0", directory + "/outside"}).status, 0);
  ASSERT_EQ(run({"setfpolicy", "prefer:0", directory + "/outside", directory + "/outside/below"}).status, 0);
  std::vector<std::pair<std::string, std::string>> swapped;
  for (unsigned i = 0; i < pairs; ++i) {
    const std::string number = std::to_string(i);
    make_file("tree/f" + number);
    std::filesystem::create_symlink("../outside/file", directory + "/tree/lf" + number);
    swapped.emplace_back("f" + number, "lf" + number);
    // "file" is below both.
    std::filesystem::create_directory(directory + "/tree/d" + number);
    make_file("tree/d" + number + "/file");
    std::filesystem::create_directory_symlink("../outside/below", directory + "/tree/ld" + number);
    swapped.emplace_back("d" + number, "ld" + number);
  }
  const auto expect_untouched = [this] {
    for (const char* name : {"/outside", "/outside/file", "/outside/below", "/outside/below/file"})
      ASSERT_EQ(tag_of(directory + name), "1 prefer:0") << name;
  };

  const Swapper swapper(directory + "/tree", swapped);
  const std::string tree = directory + "/tree";
  unsigned tries = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(15);
  for (; tries < 10 || (tries < 200 && std::chrono::steady_clock::now() < until); ++tries) {
    for (const auto& words :
         std::vector<std::vector<std::string>>{{"setfpolicy", "-R", "bind:0", tree},
                                               {"getfpolicy", "-R", tree},
                                               {"queryfpolicy", "-R", "-o", "policy,file", "--raw", tree},
                                               {"setfpolicy", "-R", "-x", tree}}) {
      const auto done = run(words);
      // What became a link between two looks is told, and no more.
      ASSERT_LE(done.status, 1) << words[0] << ": " << done.err;
      ASSERT_EQ(done.out.find("prefer:0"), std::string::npos) << words[0] << ": " << done.out;
      expect_untouched();
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(swapper.swaps(), 10'000U) << "in " << tries << " rounds";
  RecordProperty("rounds", static_cast<int>(tries));
  Identifier identifier;
  const auto database = Database::open(directory + "/db", Database::Access::read_only, &identifier);
  ASSERT_TRUE(database) << database.error().message;
  for (const char* name : {"/outside", "/outside/file", "/outside/below", "/outside/below/file"}) {
    FileRef file;
    const std::string path = directory + name;
    file.name = path.c_str();
    const auto record = (*database)->find(file, Space::system);
    ASSERT_TRUE(record && *record) << name;
    EXPECT_EQ((*record)->policy, "prefer:0") << name;
    EXPECT_EQ((*record)->path, path) << "the catalogue";
  }
}

// A user's directory into which files of others are linked (where fs.protected_hardlinks does not forbid it).
TEST_F(HostileFilesTest, AHardLinkToAnothersFileTakesNoUserTag) {
  std::filesystem::create_directory(directory + "/mine");
  ASSERT_EQ(::chown((directory + "/mine").c_str(), 1000, 1000), 0);
  for (const char* name : {"theirs", "writable"}) make_file(name);
  ASSERT_EQ(::chmod((directory + "/theirs").c_str(), 0644), 0);
  ASSERT_EQ(::chmod((directory + "/writable").c_str(), 0666), 0);
  for (const char* name : {"theirs", "writable"})
    std::filesystem::create_hard_link(directory + "/" + name, directory + "/mine/" + name);
  const auto refused = run({"setfpolicy", "--user", "bind:0", directory + "/mine/theirs"}, 1000);
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("user tags need write permission on the file"), std::string::npos)
      << refused.err;
  EXPECT_EQ(tag_of(directory + "/theirs", "user.fpolicy"), "");
  // Who may write the file may write the attribute: then it does not count.
  run({"setfpolicy", "--user", "bind:0", directory + "/mine/writable"}, 1000);
  const auto effective = run({"getfpolicy", "--explain", directory + "/mine/writable"});
  EXPECT_NE(effective.out.find("effective: none"), std::string::npos) << effective.out;
}

/// Tells of every open of these files, but of those that only hold them (O_PATH).
class OpenWatch {
 public:
  explicit OpenWatch(const std::vector<std::string>& paths) : fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    for (const std::string& path : paths)
      EXPECT_GE(::inotify_add_watch(fd_.get(), path.c_str(), IN_OPEN | IN_ACCESS | IN_MODIFY), 0) << path;
  }
  [[nodiscard]] bool was_opened() const {
    std::array<char, 4096> buffer;
    return ::read(fd_.get(), buffer.data(), buffer.size()) > 0;
  }

 private:
  Fd fd_;
};

TEST_F(HostileFilesTest, SpecialFilesAreRefusedAndNeverOpened) {
  const std::string fifo = directory + "/fifo";
  const std::string device = directory + "/device";
  const std::string block = directory + "/block";
  const std::string socket = directory + "/socket";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0666), 0);
  ASSERT_EQ(::mknod(device.c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(::mknod(block.c_str(), S_IFBLK | 0666, makedev(7, 0)), 0);
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::string link = directory + "/link";
  std::filesystem::create_symlink("fifo", link);

  const OpenWatch watch({fifo, device, block, socket});
  {
    const OpenWatch probe({device});
    const Fd opened(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(probe.was_opened()) << "the watch sees what it is there for";
    ASSERT_TRUE(watch.was_opened());
  }
  for (const std::string& path : {fifo, device, block, socket, link, std::string("/proc/self/status"),
                                  std::string("/sys/kernel/profiling"), std::string("/proc/self/mem"),
                                  std::string("/dev/tty"), std::string("/proc/self/fd/0")}) {
    if (!std::filesystem::exists(path)) continue;
    for (std::vector<std::string> words :
         std::vector<std::vector<std::string>>{{"setfpolicy", "bind:0"},
                                               {"setfpolicy", "--user", "bind:0"},
                                               {"setfpolicy", "-x"},
                                               {"setfpolicy", "-R", "bind:0"},
                                               {"setfpolicy", "-n", "--libs", "bind:0"},
                                               {"setfpolicy", "--from-rules"},
                                               {"setfpolicy", "bind:0", directory + "/probe", "--reference"},
                                               {"getfpolicy"},
                                               {"getfpolicy", "-R"},
                                               {"getfpolicy", "--explain"},
                                               {"queryfpolicy"},
                                               {"queryfpolicy", "-R"},
                                               {"queryfpolicy", "--graph"}}) {
      words.push_back(path);
      const auto done = run(words);
      std::string all;
      for (const std::string& word : words) all += word + " ";
      EXPECT_TRUE(done.status == 1 || done.status == 2) << all << done.status << done.out;
      EXPECT_TRUE(done.err.starts_with(words[0] + ": ")) << all << done.err;
      EXPECT_EQ(done.err.find("terminate"), std::string::npos) << all << done.err;
    }
  }
  // As what commands read themselves.
  for (const char* option : {"--database", "--rules"}) {
    const auto done = run({"getfpolicy", option, fifo, directory + "/probe"});
    EXPECT_EQ(done.status, 1) << option << done.err;
  }
  std::filesystem::create_symlink("../fifo", directory + "/rules/10.rules");
  const auto done = run({"getfpolicy", directory + "/probe"});
  EXPECT_NE(done.err.find("10.rules: expected a regular file"), std::string::npos) << done.err;
  for (const std::string& path : {fifo, device, block, socket}) {
    EXPECT_EQ(tag_of(path), "") << path;
    EXPECT_EQ(tag_of(path, "user.fpolicy"), "") << path;
  }
}

}  // namespace
}  // namespace fpolicy
