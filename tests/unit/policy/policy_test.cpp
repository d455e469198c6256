// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/policy.h>

#include <gtest/gtest.h>

#include <random>

namespace fpolicy {
namespace {

std::string canonical(std::string_view text) {
  const auto policy = parse_policy(text);
  return policy ? format_policy(*policy) : "error: " + policy.error().message;
}

TEST(Policy, CanonicalForm) {
  const std::pair<const char*, const char*> cases[] = {
      {"bind:1", "bind:1"},
      {"bind:1,migrate=private", "bind:1"},
      {"bind:1,migrate=no", "bind:1,migrate=no"},
      {"migrate=no,bind:1", "bind:1,migrate=no"},
      {"pin,migrate=no,bind:1", "bind:1,migrate=no,pin"},
      {"bind:3,1,2,0", "bind:0-3"},
      {"bind:0-2,1-3", "bind:0-3"},
      {"prefer:2,2,2", "prefer:2"},
      {"bind:007", "bind:7"},
      {"bind:1023", "bind:1023"},
      {"prefer:cpuless", "prefer:cpuless"},
      {"interleave:all,migrate=no", "interleave:all,migrate=no"},
      {"interleave:0@3,2", "interleave:0@3,2"},
      {"interleave:2,0@3", "interleave:0@3,2"},
      {"interleave:0@3,1@3,2@3,3", "interleave:0-2@3,3"},
      {"interleave:0-1@1,2", "interleave:0-2"},
      {"bind:+0", "bind:+0"},
      {"bind:+0,migrate=yes", "bind:+0"},
      {"bind:+1,0,migrate=private", "bind:+0-1,migrate=private"},
      {"interleave:+0@2,1", "interleave:+0@2,1"},
      {"default", "default"},
      {"default,migrate=yes", "default"},
      {"migrate=yes", "default"},
      {"default,migrate=no", "migrate=no"},
      {"migrate=private", "migrate=private"},
      {"default,pin", "pin"},
      {"pin,migrate=private", "migrate=private,pin"},
  };
  for (const auto& [text, wanted] : cases) EXPECT_EQ(canonical(text), wanted) << text;
}

TEST(Policy, WhatIsLeftOutHolds) {
  EXPECT_EQ(parse_policy("bind:1")->migrate, Migrate::only_private);
  EXPECT_EQ(parse_policy("prefer:cpuless")->migrate, Migrate::only_private);
  EXPECT_EQ(parse_policy("bind:+1")->migrate, Migrate::yes);
  EXPECT_EQ(parse_policy("pin")->migrate, Migrate::yes);
  EXPECT_EQ(parse_policy("default"), Policy{});
}

TEST(Policy, ErrorsTellColumnAndWhatWasExpected) {
  const std::string items = "expected a placement (bind:, prefer:, interleave:, default), migrate= or pin";
  const std::string nodes = "expected nodes: numbers such as 0-3, or all, cpu, cpuless";
  const std::pair<std::string, std::string> cases[] = {
      {"", "column 1: expected a policy, such as bind:1 or migrate=private; the text is empty"},
      {"local:1", "column 1: " + items + ", found \"local\""},
      {"Bind:1", "column 1: " + items + ", found \"Bind\" (policies are written in lower case)"},
      {"1", "column 1: " + items + ", found \"1\" (nodes stand behind a mode and a colon, as in bind:0-1)"},
      {"all",
       "column 1: " + items + ", found \"all\" (nodes stand behind a mode and a colon, as in bind:0-1)"},
      {" bind:1", "column 1: " + items + ", found a space"},
      {"bind", "column 5: expected \":\" and nodes after bind, found the end"},
      {"bind=1", "column 5: expected \":\" and nodes after bind, found \"=\""},
      {"bind:", "column 6: " + nodes + ", found the end"},
      {"bind:,pin", "column 6: " + nodes + ", found \",\""},
      {"bind: 1", "column 6: " + nodes + ", found a space"},
      {"bind:ALL", "column 6: " + nodes + "; found \"ALL\""},
      {"bind:-1", "column 6: " + nodes + ", found \"-\""},
      {"bind:+all", "column 7: expected a node number, found \"a\""},
      {"bind:++1", "column 7: expected a node number, found \"+\""},
      {"bind:0,+1", "column 8: expected a node number or an item; \"+\" stands once, before the first node"},
      {"bind:all,0", "column 10: expected no node number beside the word all"},
      {"bind:1024", "column 6: expected a node from 0 to 1023, found 1024"},
      {"bind:0-1024", "column 8: expected a node from 0 to 1023, found 1024"},
      {"bind:4294967296", "column 6: expected a node from 0 to 1023, found 4294967296"},
      {"bind:3-1", "column 6: expected a range that ascends: 1-3"},
      {"bind:3-", "column 8: expected a node number, found the end"},
      {"bind:1@2", "column 7: expected no weight: weights belong to interleave, not to bind"},
      {"prefer:1@2", "column 9: expected no weight: weights belong to interleave, not to prefer"},
      {"interleave:1@0", "column 14: expected a weight from 1 to 255, found 0"},
      {"interleave:1@256", "column 14: expected a weight from 1 to 255, found 256"},
      {"interleave:1@", "column 14: expected a weight from 1 to 255, found the end"},
      {"interleave:0-2,1@3",
       "column 16: expected each node once, found node 1 again (a greater share is written as a weight: "
       "1@2)"},
      {"interleave:5,5",
       "column 14: expected each node once, found node 5 again (a greater share is written as a weight: "
       "5@2)"},
      {"bind:1,", "column 8: expected another item after the comma"},
      {"bind:1,,pin", "column 8: " + items + ", found \",\""},
      {"bind:1;pin", "column 7: expected \",\" or the end of the policy, found \";\""},
      {"bind:1 ", "column 7: expected \",\" or the end of the policy, found a space"},
      {"bind:1\n", "column 7: expected \",\" or the end of the policy, found \"\\012\""},
      {"bind:1,prefer:2", "column 8: expected one placement only; the policy has another before this one"},
      {"default,bind:1", "column 9: expected one placement only; the policy has another before this one"},
      {"pin,pin", "column 5: expected pin only once"},
      {"pin:1", "column 4: expected \",\" or the end of the policy, found \":\""},
      {"migrate=no,migrate=no", "column 12: expected migrate= only once"},
      {"migrate", "column 8: expected \"=\" and yes, private or no after migrate, found the end"},
      {"migrate=", "column 9: expected yes, private or no after migrate=, found the end"},
      {"migrate=none", "column 9: expected yes, private or no after migrate=, found \"none\""},
  };
  for (const auto& [text, message] : cases) {
    const auto policy = parse_policy(text);
    ASSERT_FALSE(policy) << text;
    EXPECT_EQ(policy.error().code, EINVAL);
    EXPECT_EQ(policy.error().message, message) << text;
  }
}

TEST(Policy, ContradictionNamesBothWaysOut) {
  EXPECT_EQ(
      parse_policy("bind:3,1,migrate=yes").error().message,
      "column 10: migrate=yes contradicts bind:1,3, which keeps the file's pages on these nodes when the "
      "job moves: write nodes that follow the job (bind:+1,3), or migrate=private");
  EXPECT_EQ(
      parse_policy("migrate=yes,prefer:cpuless").error().message,
      "column 1: migrate=yes contradicts prefer:cpuless, which keeps the file's pages on these nodes when "
      "the job moves: write nodes that follow the job (such as prefer:+0), or migrate=private");
}

TEST(Policy, TextOverTheBoundIsRefused) {
  std::string text = "interleave:0";
  for (unsigned node = 2; text.size() <= max_policy_text; node += 2) text += "," + std::to_string(node);
  const auto policy = parse_policy(text);
  ASSERT_FALSE(policy);
  EXPECT_EQ(policy.error().message.rfind("column 254: expected the end: a policy has at most 253 bytes", 0),
            0U)
      << policy.error().message;
}

TEST(Policy, ValidateRefusesWhatNoTextGives) {
  Policy policy;
  policy.mode = Mode::bind;
  EXPECT_FALSE(validate_policy(policy)) << "no nodes";
  policy.migrate = Migrate::only_private;
  for (unsigned node = 0; node < NodeSet::max_nodes; node += 2) policy.nodes.push_back({node, 1});
  EXPECT_FALSE(validate_policy(policy)) << "canonical text too long";
  policy.nodes = {{3, 1}, {1, 1}};
  EXPECT_FALSE(validate_policy(policy)) << "not ascending";
  policy.nodes = {{1, 2}};
  EXPECT_FALSE(validate_policy(policy)) << "a weight without interleave";
  policy.nodes = {{1, 1}};
  EXPECT_TRUE(validate_policy(policy));
  policy.migrate = Migrate::yes;
  EXPECT_FALSE(validate_policy(policy)) << "contradiction";
  policy.word = NodeWord::all;
  policy.migrate = Migrate::only_private;
  EXPECT_FALSE(validate_policy(policy)) << "a word and a list";
}

TEST(XattrValue, RoundTrip) {
  const Policy policy = *parse_policy("bind:1,migrate=no");
  EXPECT_EQ(format_xattr_value(policy), "1 bind:1,migrate=no");
  EXPECT_EQ(*parse_xattr_value("1 bind:1,migrate=no"), policy);
}

TEST(XattrValue, EverythingElseIsUnsupported) {
  using namespace std::string_view_literals;
  for (const std::string_view bytes :
       {""sv, "1"sv, "1 "sv, "bind:1"sv, "2 bind:1"sv, "11 bind:1"sv, "1  bind:1"sv, "1 bind:1\n"sv,
        "1 bind:1\0"sv, "1 bind:1,shiny"sv, "1 bind:1,migrate=yes"sv, "\xff\xfe"sv, " 1 bind:1"sv}) {
    const auto policy = parse_xattr_value(bytes);
    ASSERT_FALSE(policy) << bytes;
    EXPECT_EQ(policy.error().code, ENOTSUP) << bytes;
    EXPECT_FALSE(policy.error().message.empty());
  }
}

TEST(XattrValue, LongestPolicyFitsTheBoundOfTheValue) {
  std::string text = "bind:1";
  for (unsigned node = 3; text.size() + 4 <= max_policy_text; node += 2) text += "," + std::to_string(node);
  const auto policy = parse_policy(text);
  ASSERT_TRUE(policy);
  EXPECT_LE(format_xattr_value(*policy).size(), 255U);
  EXPECT_FALSE(parse_xattr_value("1 " + std::string(254, '0')));
}

/// Any policy that the language can say.
Policy random_policy(std::mt19937& random) {
  Policy policy;
  policy.mode = static_cast<Mode>(random() % 4);
  if (policy.has_placement()) {
    policy.word = static_cast<NodeWord>(random() % 4);
    if (policy.word == NodeWord::list) {
      policy.relative = random() % 3 == 0;
      const unsigned bound = random() % 2 == 0 ? 8 : NodeSet::max_nodes;
      NodeSet set;
      for (unsigned i = 1 + random() % 12; i > 0; --i) set.insert(random() % bound);
      for (const unsigned node : set.members()) {
        const unsigned weight = policy.mode == Mode::interleave && random() % 2 == 0 ? 1 + random() % 255 : 1;
        policy.nodes.push_back({node, weight});
      }
    }
  }
  policy.pin = random() % 4 == 0;
  policy.migrate = default_migrate(policy);
  if (random() % 2 == 0) policy.migrate = random() % 2 == 0 ? Migrate::no : Migrate::only_private;
  return policy;
}

TEST(PolicyProperty, ParseOfFormatIsTheSame) {
  std::mt19937 random(2);
  for (int round = 0; round < 5000; ++round) {
    const Policy policy = random_policy(random);
    const std::string text = format_policy(policy);
    const auto again = parse_policy(text);
    ASSERT_TRUE(again) << text << ": " << again.error().message;
    ASSERT_EQ(*again, policy) << text;
    ASSERT_EQ(format_policy(*again), text);
    ASSERT_TRUE(validate_policy(policy));
    ASSERT_EQ(*parse_xattr_value(format_xattr_value(policy)), policy);
  }
}

TEST(PolicyProperty, DamagedTextParsesOnlyToWhatRoundTrips) {
  std::mt19937 random(3);
  const std::string letters = "abdefgilnprtuvy:,=+-@0123456789 \nB\xff";
  unsigned parsed = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string text = format_policy(random_policy(random));
    for (unsigned i = random() % 3; i > 0 && !text.empty(); --i) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text.erase(at, 1);
          break;
        case 1:
          text.insert(at, 1, letters[random() % letters.size()]);
          break;
        default:
          text[at] = letters[random() % letters.size()];
      }
    }
    const auto policy = parse_policy(text);
    if (!policy) {
      ASSERT_EQ(policy.error().message.rfind("column ", 0), 0U) << policy.error().message;
      continue;
    }
    ++parsed;
    const std::string again = format_policy(*policy);
    ASSERT_LE(again.size(), std::max(text.size(), std::string_view("default").size())) << text;
    ASSERT_EQ(*parse_policy(again), *policy) << text;
    ASSERT_TRUE(validate_policy(*policy)) << text;
  }
  EXPECT_GT(parsed, 2000U);
}

TEST(PolicyProperty, RandomBytesNeverCrash) {
  std::mt19937 random(4);
  for (int round = 0; round < 10000; ++round) {
    std::string bytes(random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_FALSE(parse_policy(bytes));
    EXPECT_FALSE(parse_xattr_value(bytes));
    const auto set = NodeSet::parse(bytes);
    if (set) {
      ASSERT_EQ(*NodeSet::parse(set->format()), *set);
    }
  }
}

}  // namespace
}  // namespace fpolicy
