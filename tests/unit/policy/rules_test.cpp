// SPDX-License-Identifier: LGPL-2.1-or-later
#include "random_rules.h"

#include <fpolicy/rules.h>

#include <gtest/gtest.h>

#include <random>

namespace fpolicy {
namespace {

RuleSet rules(std::string_view text) {
  RuleSet set;
  const Status status = set.add(text, "test.rules");
  EXPECT_TRUE(status) << status.error().message;
  return set;
}

/// The policy of the rule that decides, "none", or "-" where none matches.
std::string decides(const RuleSet& set, std::string_view path) {
  const RuleMatch match = set.match(path);
  if (match == nullptr) return "-";
  return match->policy ? format_policy(*match->policy) : "none";
}

bool matches(const std::string& pattern, std::string_view path) {
  return rules(pattern + "\tpin\n").match(path) != nullptr;
}

TEST(Rules, PatternsMatch) {
  const std::tuple<const char*, const char*, bool> cases[] = {
      {"/a/b", "/a/b", true},
      {"/a/b", "/a/b/c", false},
      {"/a/b", "/a", false},
      {"/a/b/", "/a/b", true},
      {"/a/b/", "/a/b/c/d", true},
      {"/a/b/", "/a/bc", false},
      {"/", "/", true},
      {"/", "/a/b", true},
      {"/**", "/", false},
      {"/**", "/a/b", true},
      {"/a/**", "/a", false},
      {"/a/**", "/a/b", true},
      {"/a/**", "/a/b/c", true},
      {"/a/**/b", "/a/b", true},
      {"/a/**/b", "/a/x/y/b", true},
      {"/a/**/b", "/a/xb", false},
      {"/a/**/**/b", "/a/b", true},
      {"/a/**/", "/a", true},
      {"/a/**/", "/a/b/c", true},
      {"/a/**.so", "/a/x.so", true},
      {"/a/**.so", "/a/b/c/x.so", true},
      {"/a/**.so", "/a/.so", true},
      {"/a/**.so", "/a/x.so.1", false},
      {"/a/x**y/z", "/a/xy/z", true},
      {"/a/x**y/z", "/a/x/q/y/z", true},
      {"/a/x**y/z", "/a/x/q/y/q/z", false},
      {"/a/x**/**/y", "/a/xq/y", true},
      {"/a/x**/**/y", "/a/x/p/q/y", true},
      {"/a/x**y/", "/a/x/1y", true},
      {"/a/x**y/", "/a/x/1y/below/it", true},
      {"/a/x**y/", "/a/x/1yz", false},
      {"/a/*", "/a/b", true},
      {"/a/*", "/a/.hidden", true},
      {"/a/*", "/a/b/c", false},
      {"/a/*/c", "/a/b/c", true},
      {"/a/*/c", "/a/c", false},
      {"/a/lib*.so", "/a/libfoo.so", true},
      {"/a/lib*.so", "/a/lib.so", true},
      {"/a/lib*b.so", "/a/lib.so", false},
      {"/a/*b*c*", "/a/xbxcx", true},
      {"/a/*b*c*", "/a/xcxbx", false},
      {"/a/?", "/a/b", true},
      {"/a/?", "/a/bc", false},
      {"/a/[bc]d", "/a/cd", true},
      {"/a/[!bc]d", "/a/cd", false},
      {"/a/[^bc]d", "/a/xd", true},
      {"/a/[a-c0-9]", "/a/7", true},
      {"/a/[a-]", "/a/-", true},
      {"/a/[]x]", "/a/]", true},
      {"/a/[!]x]", "/a/]", false},
      {"/a/[\\]x]", "/a/]", true},
      {"/a/[\\001-\\037]", "/a/\t", true},
      {"/a/\\*", "/a/*", true},
      {"/a/\\*", "/a/b", false},
      {"/a/b]", "/a/b]", true},
      {"/a/\\tb\\n\\\\\\040", "/a/\tb\n\\ ", true},
      {"/a/b c", "/a/b c", true},
      {"/gr\xc3\xbc\xc3\x9f", "/gr\xc3\xbc\xc3\x9f", true},
      {"/a/b", "/a/b/", true},
      {"/a/b", "a/b", false},
      {"/a/b", "", false},
  };
  for (const auto& [pattern, path, wanted] : cases) {
    EXPECT_EQ(matches(pattern, path), wanted) << pattern << " on " << path;
  }
}

TEST(Rules, LastMatchWinsAndNothingElse) {
  const RuleSet set = rules(
      "# a comment\n"
      "\n"
      " \t\n"
      "/usr/lib/\tbind:1\n"
      "/usr/lib/libc.so\tbind:2\n"
      "/usr/**.so\tbind:3\n"
      "/usr/lib/x/**\tbind:4\n"
      "/usr/lib/x/keep\tnone\n"
      "/usr/lib/x/k*\tbind:5\n"
      "/usr/lib/x/keep\tnone");
  EXPECT_EQ(set.size(), 7U);
  EXPECT_EQ(decides(set, "/usr/lib"), "bind:1");
  EXPECT_EQ(decides(set, "/usr/lib/a"), "bind:1");
  EXPECT_EQ(decides(set, "/usr/lib/libc.so"), "bind:3") << "more exact, but earlier";
  EXPECT_EQ(decides(set, "/usr/lib/x"), "bind:1");
  EXPECT_EQ(decides(set, "/usr/lib/x/y.so"), "bind:4");
  EXPECT_EQ(decides(set, "/usr/lib/x/kk"), "bind:5");
  EXPECT_EQ(decides(set, "/usr/lib/x/keep"), "none");
  EXPECT_EQ(decides(set, "/etc/passwd"), "-");
  EXPECT_EQ(set.match("/usr/lib/x/keep")->line, 10U);
  EXPECT_EQ(set.match("/usr/lib/x/keep")->file, "test.rules");
  EXPECT_EQ(set.match("/usr/lib/x/y.so")->pattern, "/usr/lib/x/**");
}

TEST(Rules, TheSamePatternAgainReplacesTheFirst) {
  for (const std::string pattern : {"/a/b", "/a/b/", "/a/*b", "/a/**b", "/a/**", "/a/**/b"}) {
    const RuleSet set = rules(pattern + "\tbind:1\n/a/\tbind:2\n" + pattern + "\t\tbind:3\n");
    EXPECT_EQ(decides(set, "/a/b"), "bind:3") << pattern;
  }
}

TEST(Rules, FilesAddUpInTheirOrder) {
  RuleSet set;
  ASSERT_TRUE(set.add("/a/\tbind:1\n", "10.rules"));
  ASSERT_TRUE(set.add("/a/b\tbind:2\n", "20.rules"));
  EXPECT_EQ(set.match("/a/b")->file, "20.rules");
  EXPECT_EQ(set.match("/a/c")->file, "10.rules");
  const RuleSet moved = std::move(set);
  EXPECT_EQ(decides(moved, "/a/b"), "bind:2");
}

TEST(Rules, AliasesStandForTheirPath) {
  const RuleSet set = rules(
      "/usr/lib/\tbind:1\n"
      "/srv/x\tbind:2\n"
      "/one\tbind:3\n"
      "alias /lib\t/usr/lib\n"
      "alias /lib/extra\t/srv\n"
      "alias /two\t/lib\n"
      "alias /with\\040space\t/srv\n"
      "alias /root\t/\n");
  EXPECT_EQ(set.size(), 3U);
  EXPECT_EQ(decides(set, "/lib/libc.so"), "bind:1");
  EXPECT_EQ(decides(set, "/lib"), "bind:1");
  EXPECT_EQ(decides(set, "/library"), "-");
  EXPECT_EQ(decides(set, "/lib/extra/x"), "bind:2") << "the longest alias is taken";
  EXPECT_EQ(decides(set, "/two/libc.so"), "-") << "an alias is applied once";
  EXPECT_EQ(decides(set, "/with space/x"), "bind:2");
  EXPECT_EQ(decides(set, "/root/one"), "bind:3");
  EXPECT_EQ(decides(set, "/root"), "-");
}

TEST(Rules, ErrorsNameFileLineAndColumn) {
  using namespace std::string_view_literals;
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"a/b\tpin"sv, "f:1:1: expected an absolute pattern, which starts with \"/\", found \"a\""sv},
      {"\n /a\tpin"sv, "f:2:1: expected an absolute pattern, which starts with \"/\", found a space"sv},
      {"\xef\xbb\xbf/a\tpin"sv,
       "f:1:1: expected an absolute pattern, which starts with \"/\", found \"\\357\""sv},
      {"/a\n"sv, "f:1:3: expected a tab and a policy behind the pattern"sv},
      {"/a bind:1\n"sv, "f:1:3: expected a tab and a policy behind the pattern, found a space only"sv},
      {"/a\t\n"sv, "f:1:4: expected a policy, such as bind:1 or migrate=private; the text is empty"sv},
      {"/ok\tpin\n/a\tbind:1,shiny\n"sv,
       "f:2:11: expected a placement (bind:, prefer:, interleave:, default), migrate= or pin, found \"shiny\""sv},
      {"/a\tbind:1 \n"sv, "f:1:10: expected \",\" or the end of the policy, found a space"sv},
      {"/a\tpin\r\n"sv,
       "f:1:7: expected no carriage return: lines end in LF, and in a name it is written \\015"sv},
      {"/a\0b\tpin"sv, "f:1:3: expected text, found a NUL byte"sv},
      {"#\0"sv, "f:1:2: expected text, found a NUL byte"sv},
      {"/a//b\tpin"sv, "f:1:4: expected a name between the slashes"sv},
      {"//\tpin"sv, "f:1:2: expected a name between the slashes"sv},
      {"/a/./b\tpin"sv, "f:1:4: expected a name, found \".\", which no resolved path contains"sv},
      {"/a/..\tpin"sv, "f:1:4: expected a name, found \"..\", which no resolved path contains"sv},
      {"/a/\\056.\tpin"sv, "f:1:4: expected a name, found \"..\", which no resolved path contains"sv},
      {"/a/***\tpin"sv, "f:1:4: expected one or two asterisks, found more"sv},
      {"/a/b[cd\tpin"sv, "f:1:5: expected a \"]\" that closes this \"[\""sv},
      {"/a/[]\tpin"sv, "f:1:4: expected a \"]\" that closes this \"[\""sv},
      {"/a/[!]\tpin"sv, "f:1:4: expected a \"]\" that closes this \"[\""sv},
      {"/a/[z-a]\tpin"sv, "f:1:5: expected a range that ascends"sv},
      {"/a/[a/b]\tpin"sv, "f:1:6: expected no \"/\" in a class: it matches within a component"sv},
      {"/a/[[:alpha:]]\tpin"sv,
       "f:1:5: expected single bytes and ranges: names such as [:alpha:] are not known"sv},
      {"/a/[\xc3\xa9]\tpin"sv,
       "f:1:5: expected ASCII in a class: it matches one byte, and this character has several"sv},
      {"/a\\x\tpin"sv,
       "f:1:3: expected \\t, \\n, \\\\, three octal digits, or one of * ? [ ] # after the backslash, found \"x\""sv},
      {"/a\\\tpin"sv,
       "f:1:3: expected \\t, \\n, \\\\, three octal digits, or one of * ? [ ] # after the backslash, found the end"sv},
      {"/a\\400\tpin"sv, "f:1:3: expected three octal digits from 000 to 377 after the backslash"sv},
      {"/a\\000\tpin"sv, "f:1:3: expected no escaped slash or NUL: a name cannot contain one"sv},
      {"/a\\07\tpin"sv, "f:1:3: expected three octal digits from 000 to 377 after the backslash"sv},
      {"/a\\057b\tpin"sv, "f:1:3: expected no escaped slash or NUL: a name cannot contain one"sv},
      {"alias /a\n"sv,
       "f:1:6: expected a tab and the path that the alias stands for behind the pattern, found a space only"sv},
      {"alias a\t/b\n"sv, "f:1:7: expected an absolute pattern, which starts with \"/\", found \"a\""sv},
      {"alias /a\tb\n"sv, "f:1:10: expected an absolute pattern, which starts with \"/\", found \"b\""sv},
      {"alias /a*\t/b\n"sv, "f:1:8: expected a path: an alias takes no pattern characters"sv},
      {"alias /a/\t/b\n"sv, "f:1:9: expected a path that does not end in \"/\""sv},
      {"alias /\t/b\n"sv, "f:1:7: expected a path that does not end in \"/\""sv},
      {"alias /a\t/b/\n"sv, "f:1:12: expected a path that does not end in \"/\""sv},
  };
  for (const auto& [text, message] : cases) {
    RuleSet set;
    const Status status = set.add(text, "f");
    ASSERT_FALSE(status) << text;
    EXPECT_EQ(status.error().code, EINVAL);
    EXPECT_EQ(status.error().message, message) << text;
  }
}

TEST(Rules, BoundsAreKept) {
  const auto refused = [](const std::string& text) {
    RuleSet set;
    const Status status = set.add(text, "f");
    return status ? std::string("accepted") : status.error().message;
  };
  EXPECT_EQ(refused("#" + std::string(1U << 16U, 'x')), "f:1:65537: expected at most 65536 bytes");
  std::string deep;
  for (int i = 0; i < 2048; ++i) deep += "/a";
  EXPECT_EQ(refused(deep + "\tpin"), "accepted");
  EXPECT_EQ(refused(deep + "/a\tpin"), "f:1:4098: expected at most 2048 components");
  std::string stars;
  for (int i = 0; i < 16; ++i) stars += "/a**";
  EXPECT_EQ(refused(stars + "\tpin"), "accepted");
  EXPECT_EQ(refused(stars + "/**\tpin"), "f:1:66: expected at most 16 times \"**\"");
  const std::string wild(1001, '?');
  EXPECT_EQ(refused("/a/" + wild + "\tpin"),
            "f:1:4: expected at most 1000 bytes and pattern characters from here on");
  EXPECT_EQ(refused("/a/**" + wild + "\tpin"),
            "f:1:4: expected at most 1000 bytes and pattern characters from here on");
}

// Whatever rules, aliases and files there are: the last rule that matches decides, and it is named rightly.
TEST(RulesProperty, AgreesWithThePlainMatcher) {
  plain::RandomRules random(plain::take_seed());
  std::size_t matched = 0;
  std::size_t through_alias = 0;
  for (int round = 0; round < 300; ++round) {
    const plain::Rules made = plain::make_rules(random, 1 + random.below(60), 100);
    RuleSet set;
    for (std::size_t file = 0; file < made.files.size(); ++file) {
      const Status added = set.add(made.files[file], std::to_string(file));
      ASSERT_TRUE(added) << added.error().message << " of\n" << made.files[file];
    }
    ASSERT_EQ(set.size(), made.lines.size());
    for (const std::string& path : made.paths) {
      const plain::Rules::Line* wanted = made.match(path);
      const RuleMatch got = set.match(path);
      const auto name = [](const std::string& pattern, std::string_view file, unsigned line) {
        return std::string(file) + ":" + std::to_string(line) + ": " + pattern;
      };
      ASSERT_EQ(
          got == nullptr ? "none" : name(got->pattern, got->file, got->line),
          wanted == nullptr ? "none" : name(wanted->pattern, std::to_string(wanted->file), wanted->line))
          << "for " << escape_path(path);
      matched += wanted != nullptr ? 1 : 0;
      through_alias += wanted != nullptr && plain::aliased(made.aliases, path) != path ? 1 : 0;
    }
  }
  // Neither everything nor nothing matches, or this would say little.
  EXPECT_GT(matched, 3000U);
  EXPECT_LT(matched, 29000U);
  EXPECT_GT(through_alias, 300U);
}

TEST(RulesProperty, ManyGlobsInOneDirectory) {
  std::string text;
  for (int i = 0; i < 10000; ++i) {
    const std::string number = std::to_string(i);
    text += "/usr/lib/lib*-" + number + ".so\tpin\n/usr/lib/x" + number + "-*\tpin\n/opt/**/y" + number +
            ".dat\tpin\n/srv/**-" + number + ".db\tpin\n";
  }
  const RuleSet set = rules(text);
  for (int i = 0; i < 10000; i += 7) {
    const std::string number = std::to_string(i);
    const auto line = static_cast<unsigned>(4 * i);
    ASSERT_EQ(set.match("/usr/lib/libfoo-" + number + ".so")->line, line + 1);
    ASSERT_EQ(set.match("/usr/lib/x" + number + "-foo")->line, line + 2);
    ASSERT_EQ(set.match("/opt/a/b/c/y" + number + ".dat")->line, line + 3);
    ASSERT_EQ(set.match("/srv/p/q-" + number + ".db")->line, line + 4);
    ASSERT_EQ(set.match("/usr/lib/libfoo-" + number + ".sO"), nullptr);
  }
}

// With backtracking each of these would take longer than the machine lasts.
TEST(RulesProperty, HostilePatternsEnd) {
  std::string crossing = "/";
  std::string components;
  std::string within = "/";
  for (int i = 0; i < 16; ++i) {
    crossing += "**a";
    components += "/**/a";
  }
  for (int i = 0; i < 100; ++i) within += "*a";
  std::string text;
  for (const std::string& pattern : {crossing, components, within}) {
    for (int i = 0; i < 16; ++i) text += pattern + std::string(static_cast<unsigned>(i), 'a') + "b\tpin\n";
  }
  const RuleSet set = rules(text);
  std::string path;
  for (int i = 0; i < 2048; ++i) path += "/a";
  EXPECT_EQ(set.match(path), nullptr);
  EXPECT_NE(set.match(path + "/ab"), nullptr);
  EXPECT_EQ(set.match("/" + std::string(4095, 'a')), nullptr);
}

TEST(RulesProperty, RandomTextIsTakenWholeOrRefused) {
  std::mt19937 random(6);
  const std::string letters = "/ab*?[]!-\\\t\n01n#:,bindpre \xc3\xbc";
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (unsigned i = random() % 60; i > 0; --i) text += letters[random() % letters.size()];
    if (round % 2 == 0) text = "/" + text + "\tpin\n";
    RuleSet set;
    const Status status = set.add(text, "f");
    if (status) {
      const RuleMatch match = set.match("/a/b");
      ASSERT_TRUE(match == nullptr || match->line >= 1);
    } else {
      ASSERT_EQ(status.error().message.rfind("f:", 0), 0U);
    }
  }
}

}  // namespace
}  // namespace fpolicy
