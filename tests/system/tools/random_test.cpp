// SPDX-License-Identifier: LGPL-2.1-or-later
// The commands over random names and rules: dumps bring back every byte, and the rule that is named is the
// one that decides. Needs root.
#include "policy/random_rules.h"

#include <fpolicy/rules.h>
#include <fpolicy/store.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace fpolicy {
namespace {

namespace fs = std::filesystem;

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

class Commands : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string pattern = "/var/tmp/fpolicy-random-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    fs::create_directory(directory + "/rules");
  }
  void TearDown() override {
    if (directory.empty()) return;
    if (mounted) ::umount(tree().c_str());
    fs::remove_all(directory);
  }

  [[nodiscard]] std::string tree() const { return directory + "/tree"; }

  /// Runs a command on a database, rules and a socket of this test alone. Its output is in `out` and `err`.
  int run(const std::string& tool, std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.begin(), {FPOLICY_TOOLS "/" + tool, "--database", directory + "/db", "--rules",
                                 directory + "/rules", "--socket", directory + "/no-socket"});
    std::ofstream(directory + "/in", std::ios::binary) << input;
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(::open((directory + "/in").c_str(), O_RDONLY), 0);
      ::dup2(::open((directory + "/out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      ::dup2(::open((directory + "/err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    out = read_file(directory + "/out");
    err = read_file(directory + "/err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string directory;
  std::string out;
  std::string err;
  bool mounted = false;
};

/// Where the tags of a test are: the type that is mounted, or nullptr for the filesystem of /var/tmp.
struct Place {
  const char* name;
  const char* type;
  Carrier carrier;
};

class Dumps : public Commands, public testing::WithParamInterface<Place> {};

/// Path, directory, user space, policy.
using Entry = std::tuple<std::string, bool, bool, std::string>;

std::vector<Entry> entries_of(const std::string& dump) {
  std::vector<Entry> entries;
  const Status parsed = parse_dump(dump, "dump", [&](const DumpEntry& entry, unsigned) {
    entries.emplace_back(entry.path, entry.directory, entry.user_space, entry.policy);
  });
  EXPECT_TRUE(parsed) << parsed.error().message;
  return entries;
}

std::vector<std::string> sorted_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end == std::string::npos ? text.size() : end + 1;
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

/// Names that somebody will have, and random ones of every byte that a name can hold.
std::vector<std::string> names_of(std::mt19937& random) {
  std::vector<std::string> names = {" lead",
                                    "trail ",
                                    " ",
                                    "#hash",
                                    "#user ",
                                    "#unsupported /x\ty",
                                    "back\\slash",
                                    "\\",
                                    "\\n",
                                    "\\101",
                                    "tab\tin",
                                    "\t",
                                    "new\nline",
                                    "\n",
                                    "\r",
                                    "end\r\n",
                                    "'single' \"double\"",
                                    "$(x) `y`",
                                    "glob*?[x]",
                                    "**",
                                    "latin\xe9",
                                    "\xff\xfe",
                                    "gr\xc3\xbc\xc3\x9f",
                                    "\xe2\x80\xae",
                                    "\x1b[31m",
                                    "...",
                                    "-R",
                                    "gone (deleted)",
                                    "alias x",
                                    std::string(255, 'n'),
                                    std::string(255, '\n'),
                                    std::string(255, '\xff')};
  for (int i = 0; i < 150; ++i) {
    std::string name;
    const unsigned length = i % 10 == 0 ? 255 : 1 + random() % 12;
    while (name.size() < length) {
      const char byte = i % 3 == 0 ? " \t\n\r\\#*?[]'\"\x7f\xc3\xbc\x01"
                                     "a0"[random() % 18]
                                   : static_cast<char>(1 + random() % 255);
      if (byte != '/') name += byte;
    }
    if (name != "." && name != "..") names.push_back(name);
  }
  return names;
}

TEST_P(Dumps, EveryTagOfEveryNameComesBack) {
  const Place& place = GetParam();
  fs::create_directory(tree());
  if (place.type != nullptr) {
    if (::mount(place.type, tree().c_str(), place.type, 0, nullptr) != 0)
      GTEST_SKIP() << place.type << " cannot be mounted here: " << errno_text(errno);
    mounted = true;
  }
  const std::string tags = tree() + "/tags";
  fs::create_directory(tags);
  std::mt19937 random(plain::take_seed());
  const std::vector<std::string> policies = {"bind:0", "interleave:all", "migrate=no", "prefer:0,migrate=no",
                                             "bind:+3"};
  std::vector<Entry> wanted;
  const auto tag_all = [&] {
    Identifier identifier;
    auto database = Database::open(directory + "/db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(database) << database.error().message;
    PolicyStore store(database->get(), &identifier);
    std::vector<std::string> directories = {tags};
    for (const std::string& name : names_of(random)) {
      const std::string path = directories[random() % directories.size()] + "/" + name;
      // Three of the longest are enough to go below.
      const bool is_directory = random() % 4 == 0 && path.size() < 1500;
      if (is_directory) {
        if (::mkdir(path.c_str(), 0755) != 0) continue;
        directories.push_back(path);
      } else {
        const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0) continue;
        ::close(fd);
      }
      const unsigned spaces = 1 + random() % 3;
      for (const Space space : {Space::system, Space::user}) {
        if ((spaces & (space == Space::system ? 1U : 2U)) == 0) continue;
        const std::string& policy = policies[random() % policies.size()];
        FileRef file;
        file.name = path.c_str();
        file.path = path;
        const auto set = store.set(file, space, *parse_policy(policy));
        ASSERT_TRUE(set) << set.error().message;
        wanted.emplace_back(path, is_directory, space == Space::user, policy);
        if (space == Space::user) continue;
        ASSERT_TRUE(store.flush());
        EXPECT_EQ((*store.get(file, space))->carrier,
                  system_xattrs_count() ? place.carrier : Carrier::database);
      }
    }
    const Status done = store.flush();
    ASSERT_TRUE(done) << done.error().message;
  };
  tag_all();
  if (HasFatalFailure()) return;
  ASSERT_GT(wanted.size(), 150U);

  ASSERT_EQ(run("getfpolicy", {"--all"}), 0) << err;
  EXPECT_EQ(err, "");
  const std::string dump = out;
  const std::vector<Entry> found = entries_of(dump);
  // By path, a directory before what is below it, a file's system tag before its user tag.
  std::sort(wanted.begin(), wanted.end());
  EXPECT_EQ(found, wanted);
  ASSERT_EQ(run("getfpolicy", {"-R", tree()}), 0) << err;
  EXPECT_EQ(sorted_lines(out), sorted_lines(dump));

  // On a store that has been emptied, with tags since that the dump does not have.
  std::ofstream(directory + "/dump", std::ios::binary) << dump;
  for (const char* space : {"--system", "--user"})
    ASSERT_EQ(run("setfpolicy", {"-R", "-x", space, tree()}), 0) << err;
  ASSERT_EQ(run("getfpolicy", {"-R", tree()}), 0) << err;
  ASSERT_EQ(out, "");
  for (const char* file : {"/db", "/db-wal", "/db-shm"}) fs::remove(directory + file);
  ASSERT_EQ(run("setfpolicy", {"--restore", directory + "/dump", "--test"}), 0) << err;
  ASSERT_EQ(run("setfpolicy", {"--restore", directory + "/dump"}), 0) << err;
  EXPECT_EQ(out + err, "");
  ASSERT_EQ(run("getfpolicy", {"--all"}), 0) << err;
  EXPECT_EQ(out, dump);
  const std::vector<Entry> before = wanted;
  tag_all();
  if (HasFatalFailure()) return;
  ASSERT_GT(wanted.size(), before.size());
  ASSERT_EQ(run("setfpolicy", {"--restore", "-", "--prune"}, dump), 0) << err;
  ASSERT_EQ(run("getfpolicy", {"--all"}), 0) << err;
  EXPECT_EQ(out, dump);
  ASSERT_EQ(run("getfpolicy", {"-R", tree()}), 0) << err;
  EXPECT_EQ(sorted_lines(out), sorted_lines(dump));
}

INSTANTIATE_TEST_SUITE_P(On, Dumps,
                         testing::Values(Place{"disk", nullptr, Carrier::xattr},
                                         Place{"tmpfs", "tmpfs", Carrier::xattr},
                                         Place{"database", "ramfs", Carrier::database}),
                         [](const auto& place) { return std::string(place.param.name); });

// getfpolicy --explain names file and line of the rule that decides, whatever rules there are.
TEST_F(Commands, ExplainNamesTheRuleThatDecides) {
  plain::RandomRules random(plain::take_seed());
  std::size_t asked = 0;
  std::size_t decided = 0;
  for (int round = 0; round < 10; ++round) {
    fs::create_directory(tree());
    const plain::Rules made = plain::make_rules(random, 40, 60, tree());
    for (std::size_t file = 0; file < made.files.size(); ++file)
      std::ofstream(directory + "/rules/" + std::to_string(file) + ".rules", std::ios::binary)
          << made.files[file];
    // Of all these rules none is for what lies outside.
    std::vector<std::string> candidates = made.paths;
    candidates.push_back(directory + "/outside");
    std::vector<std::string> paths;
    std::string input;
    for (const std::string& path : candidates) {
      std::error_code failed;
      fs::create_directories(fs::path(path).parent_path(), failed);
      if (failed || fs::is_directory(path, failed))
        continue;  // a file is in the way, or it would be in the way
      std::ofstream(path, std::ios::binary).put('x');
      paths.push_back(path);
      input.append(path).append(1, '\0');
    }
    ASSERT_EQ(run("getfpolicy", {"--explain", "--json", "-0"}, input), 0) << err;
    const auto files = nlohmann::json::parse(out)["files"];
    ASSERT_EQ(files.size(), paths.size());
    for (std::size_t i = 0; i < paths.size(); ++i) {
      const auto& rule = files[i]["candidates"].back();
      ASSERT_EQ(rule["source"], "rule");
      const plain::Rules::Line* wanted = made.match(paths[i]);
      const std::string where = wanted == nullptr ? "none"
                                                  : directory + "/rules/" + std::to_string(wanted->file) +
                                                        ".rules:" + std::to_string(wanted->line);
      ASSERT_EQ(rule.value("where", "none"), where) << escape_path(paths[i]);
      ++asked;
      decided += wanted != nullptr ? 1 : 0;
    }
    fs::remove_all(tree());
  }
  EXPECT_GT(asked, 200U);
  EXPECT_GT(decided, 20U);
  EXPECT_LT(decided, asked);
}

}  // namespace
}  // namespace fpolicy
