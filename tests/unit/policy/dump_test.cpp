// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/rules.h>

#include <gtest/gtest.h>

#include <random>

namespace fpolicy {
namespace {

TEST(Escape, SpecialBytes) {
  using namespace std::string_view_literals;
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"/usr/lib/libc.so.6"sv, "/usr/lib/libc.so.6"sv},
      {"/a b"sv, "/a b"sv},
      {"/a b  "sv, "/a b\\040\\040"sv},
      {" a"sv, "\\040a"sv},
      {"#a#"sv, "\\#a#"sv},
      {"/a\nb\tc\\d"sv, "/a\\nb\\tc\\\\d"sv},
      {"/[a]*?"sv, "/\\[a\\]\\*\\?"sv},
      {"/\x01\x7f\r"sv, "/\\001\\177\\015"sv},
      {"/gr\xc3\xbc\xc3\x9f\x65/\xe6\x97\xa5/\xf0\x9f\x90\xa7"sv,
       "/gr\xc3\xbc\xc3\x9f\x65/\xe6\x97\xa5/\xf0\x9f\x90\xa7"sv},
      {"/\xff\xc3"sv, "/\\377\\303"sv},
      {"/\xc0\xaf"sv, "/\\300\\257"sv},                    // overlong
      {"/\xed\xa0\x80"sv, "/\\355\\240\\200"sv},           // surrogate
      {"/\xf4\x90\x80\x80"sv, "/\\364\\220\\200\\200"sv},  // above U+10FFFF
      {"/\xe0\x80\x80"sv, "/\\340\\200\\200"sv},
      {"/\xc2\x9b"sv, "/\\302\\233"sv},           // CSI: would steer the terminal
      {"/\xe2\x80\xae"sv, "/\\342\\200\\256"sv},  // right-to-left override
  };
  for (const auto& [path, escaped] : cases) {
    EXPECT_EQ(escape_path(path), escaped);
    const auto back = unescape_path(escaped);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, path);
  }
  EXPECT_EQ(escape_text("/[a]*\n"), "/[a]*\\n");
}

TEST(Escape, UnescapeRefusesPatternsAndMalformedEscapes) {
  const std::pair<const char*, const char*> cases[] = {
      {"/a*",
       "column 3: expected a path, found the pattern character * (as part of a name it is written \\*)"},
      {"/[",
       "column 2: expected a path, found the pattern character [ (as part of a name it is written \\[)"},
      {"/a\\",
       "column 3: expected \\t, \\n, \\\\, three octal digits, or one of * ? [ ] # after the backslash, "
       "found the end"},
      {"/a\\1", "column 3: expected three octal digits from 000 to 377 after the backslash"},
      {"/a\\000", "column 3: expected no NUL byte"},
  };
  for (const auto& [text, message] : cases) {
    const auto path = unescape_path(text);
    ASSERT_FALSE(path);
    EXPECT_EQ(path.error().code, EINVAL);
    EXPECT_EQ(path.error().message, message);
  }
}

std::vector<DumpEntry> read_dump(std::string_view text) {
  std::vector<DumpEntry> entries;
  const Status status =
      parse_dump(text, "dump", [&](const DumpEntry& entry, unsigned) { entries.push_back(entry); });
  EXPECT_TRUE(status) << status.error().message;
  return entries;
}

TEST(Dump, EntriesAndComments) {
  const auto entries = read_dump(
      "# getfpolicy\n"
      "#user comments are no entries\n"
      "/srv/\tbind:1\n"
      "\n"
      "#user /srv/x\tmigrate=no\n"
      "#unsupported /srv/y\tbind:1,shiny\n"
      "/\tpin\n");
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries[0].path, "/srv");
  EXPECT_TRUE(entries[0].directory);
  EXPECT_EQ(entries[0].policy, "bind:1");
  EXPECT_EQ(entries[1].path, "/srv/x");
  EXPECT_TRUE(entries[1].user_space);
  EXPECT_FALSE(entries[1].directory);
  EXPECT_EQ(entries[2].policy, "bind:1,shiny");
  EXPECT_FALSE(entries[2].user_space);
  EXPECT_EQ(entries[3].path, "/");
  EXPECT_TRUE(entries[3].directory);
}

TEST(Dump, ErrorsNameLineAndColumn) {
  const std::pair<const char*, const char*> cases[] = {
      {"/a\tpin\n/b*\tpin\n",
       "dump:2:2: expected a path: pattern characters in a name are written with a backslash"},
      {"/a\n", "dump:1:3: expected a tab and a policy behind the pattern"},
      {"#user /a\n", "dump:1:9: expected a tab and a policy behind the pattern"},
      {"#user /a//b\tpin\n", "dump:1:10: expected a name between the slashes"},
      {"alias /a\t/b\n", "dump:1:1: expected an absolute pattern, which starts with \"/\", found \"a\""},
      {"/a\tpin\n/b\tbind:1,shiny\n",
       "dump:2:11: expected a placement (bind:, prefer:, interleave:, default), migrate= or pin, found "
       "\"shiny\""},
      {"#unsupported /a\tb\\q\n",
       "dump:1:18: expected \\t, \\n, \\\\, three octal digits, or one of * ? [ ] # after the backslash, "
       "found "
       "\"q\""},
  };
  for (const auto& [text, message] : cases) {
    const Status status = parse_dump(text, "dump", [](const DumpEntry&, unsigned) {});
    ASSERT_FALSE(status) << text;
    EXPECT_EQ(status.error().message, message);
  }
}

TEST(DumpProperty, EveryNameRoundTripsAndIsARuleForItselfOnly) {
  std::mt19937 random(7);
  const std::string special =
      " \n\t\r\\#*?[]!-\"'\x7f\xc3\xbc\xe2\x82\xac\xff\x01"
      "a0";
  for (int round = 0; round < 2000; ++round) {
    std::string path;
    for (unsigned i = 1 + random() % 3; i > 0; --i) {
      std::string name;
      for (unsigned j = 1 + random() % 8; j > 0; --j) {
        const char c =
            round % 2 == 0 ? special[random() % special.size()] : static_cast<char>(1 + random() % 255);
        if (c != '/') name += c;
      }
      if (name.empty() || name == "." || name == "..") name = "x";
      path += "/" + name;
    }
    const DumpEntry entry{path, random() % 2 == 0, random() % 2 == 0, "bind:1"};
    const std::string line = format_dump_entry(entry);
    ASSERT_EQ(line.find('\n'), line.size() - 1) << line;
    const auto entries = read_dump(line);
    ASSERT_EQ(entries.size(), 1U) << line;
    ASSERT_EQ(entries[0].path, path) << line;
    ASSERT_EQ(entries[0].directory, entry.directory);
    ASSERT_EQ(entries[0].user_space, entry.user_space);
    ASSERT_EQ(*unescape_path(escape_path(path)), path);

    RuleSet set;
    ASSERT_TRUE(set.add(line, "dump"));
    ASSERT_EQ(set.match(path) != nullptr, !entry.user_space) << line;
    ASSERT_EQ(set.match(path + "x"), nullptr);
    ASSERT_EQ(set.match(path + "/x") != nullptr, entry.directory && !entry.user_space);
  }
}

TEST(DumpProperty, UnsupportedTextRoundTripsAndIsNoRule) {
  std::mt19937 random(8);
  for (int round = 0; round < 2000; ++round) {
    DumpEntry entry{"/a", false, random() % 2 == 0, ""};
    for (unsigned i = random() % 20; i > 0; --i) entry.policy += static_cast<char>(random());
    if (parse_policy(entry.policy)) continue;
    const std::string line = format_dump_entry(entry);
    const auto entries = read_dump(line);
    ASSERT_EQ(entries.size(), 1U) << line;
    ASSERT_EQ(entries[0].policy, entry.policy) << line;
    ASSERT_EQ(entries[0].user_space, entry.user_space);
    RuleSet set;
    ASSERT_TRUE(set.add(line, "dump"));
    ASSERT_EQ(set.size(), 0U);
  }
}

}  // namespace
}  // namespace fpolicy
