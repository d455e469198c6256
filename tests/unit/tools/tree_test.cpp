// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/tree.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace fpolicy {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class TreeTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "fpolicy-tree-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = fs::canonical(pattern).string();
  }
  void TearDown() override {
    std::error_code ignored;
    fs::permissions(root_ + "/closed", fs::perms::all, ignored);
    fs::remove_all(root_, ignored);
  }

  void file(const std::string& name) const {
    fs::create_directories(fs::path(root_ + "/" + name).parent_path());
    const Fd created(open((root_ + "/" + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_TRUE(created) << name;
  }

  struct Seen {
    std::vector<std::string> lines;  ///< as emitted, without the root's path; directories end in "/"
    std::vector<std::string> errors;
  };

  [[nodiscard]] Seen walk(const TreeOptions& options = {}, const std::string& below = "") const {
    auto root = open_named(root_ + below);
    EXPECT_TRUE(root) << root.error().message;
    Seen seen;
    std::mutex mutex;
    std::string text;
    const TreeVisitor visitor{
        .visit =
            [&](const TreeEntry& entry, std::string& output) {
              // The entry is what its path says: looked up by what the walk gave, not by the path.
              struct stat by_ref = {};
              struct stat by_path = {};
              const bool by_fd = entry.file.fd >= 0;
              if (fstatat(by_fd ? entry.file.fd : AT_FDCWD, by_fd ? "" : entry.file.name, &by_ref,
                          by_fd ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW) != 0) {
                return;
              }
              EXPECT_EQ(stat(std::string(entry.file.path).c_str(), &by_path), 0) << entry.file.path;
              EXPECT_EQ(by_ref.st_ino, by_path.st_ino) << entry.file.path;
              EXPECT_EQ(entry.directory, S_ISDIR(by_ref.st_mode));
              output.append(entry.file.path.substr(root_.size()))
                  .append(entry.directory ? "/" : "")
                  .append(1, '\0');
            },
        .emit =
            [&](std::string_view output) {
              text += output;
              return true;
            },
        .error =
            [&](std::string_view path, const Error& error) {
              const std::scoped_lock lock(mutex);
              seen.errors.push_back(std::string(path.substr(root_.size())) + ": " + error.message);
            }};
    walk_tree(*std::move(root), options, visitor);
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line, '\0');) seen.lines.push_back(line);
    return seen;
  }

  std::string root_;
};

TEST_F(TreeTest, OrderIsDirectoryThenFilesThenSubdirectoriesByBytes) {
  for (const char* name : {"b/2", "b/10", "b/c/x", "a/z", "zz", "B", "b.d/y"}) file(name);
  const Seen seen = walk();
  EXPECT_THAT(seen.lines, ElementsAre("/", "/B", "/zz", "/a/", "/a/z", "/b/", "/b/10", "/b/2", "/b/c/",
                                      "/b/c/x", "/b.d/", "/b.d/y"));
  EXPECT_THAT(seen.errors, IsEmpty());
}

TEST_F(TreeTest, OutputIsTheSameWithAnyNumberOfThreads) {
  for (int i = 0; i < 60; ++i) {
    for (int j = 0; j < 20; ++j)
      file(std::to_string(i % 7) + "/" + std::to_string(i) + "/" + std::to_string(j));
  }
  for (int i = 0; i < 1300; ++i) file("wide/" + std::to_string(i));
  TreeOptions one;
  one.threads = 1;
  TreeOptions many;
  many.threads = 8;
  const Seen first = walk(one);
  EXPECT_THAT(first.lines, SizeIs(1 + 7 + 60 + 1200 + 1 + 1300));
  for (int round = 0; round < 5; ++round) EXPECT_EQ(walk(many).lines, first.lines);
}

TEST_F(TreeTest, AnyNameIsVisited) {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/') all += static_cast<char>(byte);
  }
  const std::vector<std::string> names = {
      all.substr(0, 200), all.substr(200), " ", "\n", "-R", "++", "[a,b]", std::string(255, '\xff'), "..."};
  for (const std::string& name : names) file(name);
  std::vector<std::string> expected = {"/"};
  for (const std::string& name : names) expected.push_back("/" + name);
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(walk().lines, expected);
}

TEST_F(TreeTest, LinksAreNotFollowedUnlessAsked) {
  file("real/x");
  fs::create_directory_symlink(root_ + "/real", root_ + "/to-directory");
  fs::create_symlink("real/x", root_ + "/to-file");
  fs::create_symlink("nowhere", root_ + "/dangling");
  EXPECT_THAT(walk().lines, ElementsAre("/", "/real/", "/real/x"));
  TreeOptions follow;
  follow.follow_links = true;
  // Real paths, whichever way led there.
  EXPECT_THAT(walk(follow).lines, ElementsAre("/", "/real/x", "/real/", "/real/x", "/real/", "/real/x"));
}

TEST_F(TreeTest, LoopsAreReportedOnce) {
  file("a/b/x");
  fs::create_directory_symlink("../..", root_ + "/a/b/up");
  TreeOptions follow;
  follow.follow_links = true;
  const Seen seen = walk(follow);
  EXPECT_THAT(seen.lines, ElementsAre("/", "/a/", "/a/b/", "/a/b/x"));
  EXPECT_THAT(seen.errors, ElementsAre(HasSubstr("/a/b/up: leads back to a directory above it")));
}

TEST_F(TreeTest, OtherFileTypesAreNeitherVisitedNorOpened) {
  file("x");
  ASSERT_EQ(mkfifo((root_ + "/fifo").c_str(), 0600), 0);
  // Opening a FIFO would wait for a writer for ever.
  EXPECT_THAT(walk().lines, ElementsAre("/", "/x"));
}

TEST_F(TreeTest, RootMayBeAFileOrALink) {
  file("d/x");
  EXPECT_THAT(walk({}, "/d/x").lines, ElementsAre("/d/x"));
  fs::create_directory_symlink("d", root_ + "/link");
  EXPECT_THAT(walk({}, "/link").lines, ElementsAre("/d/", "/d/x"));
}

TEST_F(TreeTest, NothingBelowProc) {
  auto root = open_named("/proc/self");
  ASSERT_TRUE(root);
  std::atomic<int> visits = 0;
  walk_tree(*std::move(root), {},
            TreeVisitor{.visit = [&](const TreeEntry&, std::string&) { ++visits; },
                        .emit = [](std::string_view) { return true; },
                        .error = [](std::string_view path,
                                    const Error& error) { ADD_FAILURE() << path << ": " << error.message; }});
  EXPECT_EQ(visits, 0);
}

TEST_F(TreeTest, UnreadableDirectoryIsReportedAndTheRestDone) {
  file("closed/x");
  file("open/y");
  fs::permissions(root_ + "/closed", fs::perms::none);
  if (geteuid() == 0) GTEST_SKIP() << "root may read every directory";
  const Seen seen = walk();
  EXPECT_THAT(seen.lines, ElementsAre("/", "/closed/", "/open/", "/open/y"));
  EXPECT_THAT(seen.errors, ElementsAre(HasSubstr("/closed: open: Permission denied")));
}

TEST_F(TreeTest, EntriesThatVanishAndAppearMeanwhile) {
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 10; ++j) file("stays/" + std::to_string(i) + "/" + std::to_string(j));
  }
  std::atomic<bool> stop = false;
  std::thread churn([&] {
    while (!stop) {
      for (int i = 0; i < 20; ++i) {
        const std::string directory = root_ + "/stays/" + std::to_string(i) + "/churn";
        fs::create_directories(directory + "/deep");
        std::ofstream(directory + "/deep/file") << "x";
      }
      for (int i = 0; i < 20; ++i) fs::remove_all(root_ + "/stays/" + std::to_string(i) + "/churn");
    }
  });
  // Paths of churned entries may be gone when the visit checks them, so only the rest is counted here.
  for (int round = 0; round < 20; ++round) {
    auto root = open_named(root_);
    ASSERT_TRUE(root);
    std::atomic<int> visited = 0;
    std::atomic<int> errors = 0;
    walk_tree(
        *std::move(root), {},
        TreeVisitor{.visit =
                        [&](const TreeEntry& entry, std::string&) {
                          if (!entry.directory && entry.file.path.find("churn") == std::string_view::npos) {
                            ++visited;
                          }
                        },
                    .emit = [](std::string_view) { return true; },
                    .error = [&](std::string_view, const Error&) { ++errors; }});
    EXPECT_EQ(visited, 200);
    EXPECT_EQ(errors, 0);
  }
  stop = true;
  churn.join();
}

TEST_F(TreeTest, EmitEndsTheWalk) {
  for (int i = 0; i < 300; ++i) file(std::to_string(i % 50) + "/" + std::to_string(i));
  auto root = open_named(root_);
  ASSERT_TRUE(root);
  int calls = 0;
  walk_tree(*std::move(root), {},
            TreeVisitor{.visit = [](const TreeEntry&, std::string& output) { output.append(1000, 'x'); },
                        .emit =
                            [&](std::string_view) {
                              ++calls;
                              return false;
                            },
                        .error = [](std::string_view, const Error&) {}});
  EXPECT_EQ(calls, 1);
}

TEST_F(TreeTest, DeepTreeBeyondPathMax) {
  // Longer than any path the kernel takes: only names relative to descriptors reach it.
  const std::string name(200, 'd');
  Fd at(open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(at);
  for (int depth = 0; depth < 30; ++depth) {
    ASSERT_EQ(mkdirat(at.get(), name.c_str(), 0700), 0);
    at.reset(openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(at);
  }
  auto root = open_named(root_);
  ASSERT_TRUE(root);
  std::atomic<int> visited = 0;
  walk_tree(
      *std::move(root), {},
      TreeVisitor{.visit = [&](const TreeEntry&, std::string&) { ++visited; },
                  .emit = [](std::string_view) { return true; },
                  .error = [](std::string_view, const Error& error) { ADD_FAILURE() << error.message; }});
  EXPECT_EQ(visited, 31);
}

TEST_F(TreeTest, NamedFileIsHeldWithoutBeingOpened) {
  file("secret");
  fs::create_symlink("secret", root_ + "/link");
  ASSERT_EQ(chmod((root_ + "/secret").c_str(), 0), 0);
  const auto through_link = open_named(root_ + "/link");
  ASSERT_TRUE(through_link) << through_link.error().message;
  EXPECT_EQ(through_link->path, root_ + "/secret");
  EXPECT_TRUE(S_ISREG(through_link->mode));
  const auto link_itself = open_named(root_ + "/link", false);
  ASSERT_FALSE(link_itself);
  EXPECT_EQ(link_itself.error().code, ELOOP);
  EXPECT_EQ(open_named(root_ + "/missing").error().code, ENOENT);
  EXPECT_EQ(open_named(root_ + "/missing").error().message, "No such file or directory");
}

TEST_F(TreeTest, PathOfADeletedFileIsAnError) {
  file("gone");
  const auto held = open_named(root_ + "/gone");
  ASSERT_TRUE(held);
  fs::remove(root_ + "/gone");
  EXPECT_EQ(path_of(held->fd.get()).error().code, ENOENT);
}

}  // namespace
}  // namespace fpolicy
