// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/rules.h>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace fpolicy {
namespace {

class LoadRules : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "fpolicy-rules-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name) << text;
  }
  [[nodiscard]] auto load() const { return load_rules(directory_.string()); }

  std::filesystem::path directory_;
};

TEST_F(LoadRules, ReadsRulesFilesInTheOrderOfTheirNames) {
  write("20-b.rules", "/a\tbind:2\n");
  write("10-a.rules", "/a\tbind:1\n/b\tbind:1\n");
  write("30-c.rules.bak", "/a\tbind:3\n");
  write(".hidden.rules", "/a\tbind:4\n");
  const auto rules = load();
  ASSERT_TRUE(rules) << rules.error().message;
  EXPECT_EQ((*rules)->size(), 3U);
  EXPECT_EQ((*rules)->match("/a")->file, (directory_ / "20-b.rules").string());
  EXPECT_EQ((*rules)->match("/b")->line, 2U);
}

TEST_F(LoadRules, NoDirectoryMeansNoRules) {
  const auto rules = load_rules((directory_ / "missing").string());
  ASSERT_TRUE(rules);
  EXPECT_EQ((*rules)->size(), 0U);
  EXPECT_EQ((*rules)->match("/a"), nullptr);
}

TEST_F(LoadRules, ErrorsNameTheFile) {
  write("10.rules", "/a\tbind:1\n");
  write("20.rules", "/a\tbind:1\n/b\tbind:x\n");
  auto rules = load();
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message,
            (directory_ / "20.rules").string() +
                ":2:9: expected nodes: numbers such as 0-3, or all, cpu, cpuless; found "
                "\"x\"");

  rules = load_rules((directory_ / "10.rules").string());
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message, "open " + (directory_ / "10.rules").string() + ": Not a directory");
}

TEST_F(LoadRules, ADanglingLinkIsAnError) {
  std::filesystem::create_symlink("missing", directory_ / "10.rules");
  const auto rules = load();
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message,
            "open " + (directory_ / "10.rules").string() + ": No such file or directory");
}

TEST_F(LoadRules, AFifoIsRefusedAndDoesNotBlock) {
  ASSERT_EQ(::mkfifo((directory_ / "10.rules").c_str(), 0600), 0);
  const auto rules = load();
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message, (directory_ / "10.rules").string() + ": expected a regular file");
}

TEST_F(LoadRules, TooLargeIsRefusedUnread) {
  write("10.rules", "");
  std::filesystem::resize_file(directory_ / "10.rules", (64U << 20U) + 1);
  const auto rules = load();
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message,
            (directory_ / "10.rules").string() + ": the rules are larger than 64 MiB in all");
}

TEST_F(LoadRules, ThousandFilesAndNoMore) {
  for (int i = 0; i < 1000; ++i) write(std::to_string(i) + ".rules", "/a\tpin\n");
  ASSERT_TRUE(load());
  write("one-more.rules", "");
  const auto rules = load();
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().message, directory_.string() + ": more than 1000 *.rules files");
}

}  // namespace
}  // namespace fpolicy
