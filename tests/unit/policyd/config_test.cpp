// SPDX-License-Identifier: LGPL-2.1-or-later
#include "config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace fpolicy::policyd {
namespace {

TEST(Config, EmptyTextGivesTheDefaults) {
  EXPECT_EQ(parse_config("", "x").value(), Config{});
}

TEST(Config, EverySettingIsRead) {
  const auto config = parse_config(
      "[enforcement]\nbandwidth_mib = 500\nthreads = 3\nfirst_retry_seconds = 2\nlongest_retry_seconds = 60\n"
      "walk_files_per_second = 7\n"
      "[guard]\nenabled = false\ndeadline_ms = 20\nhold_seconds = 5\nmax_bytes = 4096\n"
      "cgroups = [\"/system.slice\", \"/batch/a\"]\n"
      "[user_tags]\nhonoured = false\nbudget_mib_per_minute = 0\n[rules]\ndirectory = \"/srv/rules\"\n",
      "x");
  ASSERT_TRUE(config) << config.error().message;
  Config expected;
  expected.bandwidth_mib = 500;
  expected.threads = 3;
  expected.first_retry = std::chrono::seconds(2);
  expected.longest_retry = std::chrono::seconds(60);
  expected.walk_files_per_second = 7;
  expected.user_tags = false;
  expected.user_budget_mib = 0;
  expected.guard = false;
  expected.guard_deadline = std::chrono::milliseconds(20);
  expected.guard_hold = std::chrono::seconds(5);
  expected.guard_max_bytes = 4096;
  expected.guard_cgroups = {"/system.slice", "/batch/a"};
  expected.rules_directory = "/srv/rules";
  EXPECT_EQ(*config, expected);
}

TEST(Config, ErrorsSayFileLineAndColumn) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"[enforcement]\nbandwith_mib = 5\n", "f:2:1: unknown key \"bandwith_mib\""},
      {"\n[enforcment]\n", "f:2:2: unknown key \"enforcment\""},
      {"[enforcement]\nthreads = \"four\"\n", "f:2:11: threads: expected a whole number from 0 to 64"},
      {"[enforcement]\nthreads = 65\n", "f:2:11: threads: expected a whole number from 0 to 64"},
      {"[enforcement]\nbandwidth_mib = -1\n",
       "f:2:17: bandwidth_mib: expected a whole number from 0 to 1048576"},
      {"[enforcement]\nthreads = 1.0\n", "f:2:11: threads: expected a whole number from 0 to 64"},
      {"[user_tags]\nhonoured = 1\n", "f:2:12: honoured: expected true or false"},
      {"[rules]\ndirectory = \"rules.d\"\n", "f:2:13: directory: expected an absolute path"},
      {"[rules]\ndirectory = \"/a\\u0000b\"\n", "f:2:13: directory: expected an absolute path"},
      {"[guard]\ndeadline_ms = 0\n", "f:2:15: deadline_ms: expected a whole number from 1 to 1000"},
      {"[guard]\ncgroups = \"/\"\n",
       "f:2:11: cgroups: expected a list of absolute paths, as in [\"/system.slice\"]"},
      {"[guard]\ncgroups = [\"/a/\"]\n",
       "f:2:11: cgroups: expected a list of absolute paths, as in [\"/system.slice\"]"},
      {"[guard]\ncgroups = [\"/a\", 3]\n",
       "f:2:11: cgroups: expected a list of absolute paths, as in [\"/system.slice\"]"},
      {"rules = 3\n", "f:1:9: expected a section [rules]"},
  };
  for (const auto& [text, message] : cases) {
    const auto config = parse_config(text, "f");
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, EINVAL);
    EXPECT_EQ(config.error().message, message);
  }
}

TEST(Config, WhatIsNoTomlIsRefusedWithItsPlace) {
  for (const auto* text :
       {"[enforcement\n", "threads = = 3", "a = \"unended", "\xff\xfe", "a = 1\na = 2\n"}) {
    const auto config = parse_config(text, "f");
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, EINVAL);
    EXPECT_TRUE(config.error().message.starts_with("f:")) << config.error().message;
  }
}

TEST(Config, AMissingFileIsAnErrorOnlyWhereItWasAskedFor) {
  EXPECT_EQ(load_config("/nonexistent/policyd.toml", false).value(), Config{});
  const auto config = load_config("/nonexistent/policyd.toml", true);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ENOENT);
}

// The shipped file shows the defaults in comments: they must be true, and every setting must stand there.
TEST(Config, TheShippedFileShowsTheDefaults) {
  std::ifstream file(FPOLICY_SOURCE_DIR "/policyd/policyd.toml");
  ASSERT_TRUE(file);
  std::string text;
  std::string settings;
  for (std::string line; std::getline(file, line);) {
    text += line + "\n";
    const bool is_setting = line.starts_with('#') && line.find(" = ") != std::string::npos && line[1] != ' ';
    settings += (is_setting ? line.substr(1) : line) + "\n";
  }
  EXPECT_EQ(parse_config(text, "policyd.toml").value(), Config{});
  const auto shown = parse_config(settings, "policyd.toml");
  ASSERT_TRUE(shown) << shown.error().message;
  EXPECT_EQ(*shown, Config{});
  for (const auto* key :
       {"bandwidth_mib", "threads", "first_retry_seconds", "longest_retry_seconds", "walk_files_per_second",
        "honoured", "budget_mib_per_minute", "max_bytes", "directory"}) {
    EXPECT_NE(settings.find(std::string("\n") + key + " = "), std::string::npos) << key;
  }
}

}  // namespace
}  // namespace fpolicy::policyd
