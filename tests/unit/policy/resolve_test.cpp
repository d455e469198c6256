// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/resolver.h>

#include <gtest/gtest.h>

namespace fpolicy {
namespace {

Tag tag(const std::string& text, Carrier carrier = Carrier::xattr) {
  Tag result;
  result.carrier = carrier;
  result.text = text;
  if (auto policy = parse_policy(text)) result.policy = *policy;
  return result;
}

class Resolve : public testing::Test {
 protected:
  void SetUp() override {
    rule_.policy = *parse_policy("bind:5");
    rule_.file = "/etc/fpolicy/rules.d/10.rules";
    rule_.line = 12;
    candidates_.system = tag("bind:1");
    candidates_.user = tag("bind:2,pin");
    candidates_.user_trusted = true;
    candidates_.directory = tag("bind:3");
    candidates_.directory_path = "/srv";
    candidates_.rule = &rule_;
  }

  RuleLine rule_;
  Candidates candidates_;
};

TEST_F(Resolve, TheFirstThatAnswersWins) {
  Effective effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::system_xattr);
  EXPECT_EQ(format_policy(*effective.policy), "bind:1");
  EXPECT_EQ(effective.origin, "security.fpolicy");
  EXPECT_FALSE(effective.from_user);

  candidates_.system.reset();
  effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::user_xattr);
  EXPECT_EQ(format_policy(*effective.policy), "bind:2") << "a user cannot pin";
  EXPECT_EQ(effective.text, "bind:2,pin");
  EXPECT_EQ(effective.origin, "user.fpolicy");
  EXPECT_TRUE(effective.from_user);
  EXPECT_FALSE(effective.user_ignored);

  candidates_.user.reset();
  effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::directory);
  EXPECT_EQ(effective.origin, "/srv");
  EXPECT_EQ(format_policy(*effective.policy), "bind:3");

  candidates_.directory.reset();
  effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::rule);
  EXPECT_EQ(effective.origin, "/etc/fpolicy/rules.d/10.rules:12");
  EXPECT_EQ(effective.text, "bind:5");

  candidates_.rule = nullptr;
  effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::none);
  EXPECT_FALSE(effective.policy);
}

TEST_F(Resolve, AnUntrustedUserTagIsPassedOverAndTold) {
  candidates_.system.reset();
  candidates_.user_trusted = false;
  const Effective effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::directory);
  EXPECT_TRUE(effective.user_ignored);
  EXPECT_FALSE(effective.from_user);

  candidates_.user = tag("shiny");
  EXPECT_FALSE(resolve(candidates_).unsupported) << "whoever may not speak cannot veto";
  candidates_.user.reset();
  EXPECT_FALSE(resolve(candidates_).user_ignored);
  candidates_.user_denied = true;
  EXPECT_TRUE(resolve(candidates_).user_ignored);
}

TEST_F(Resolve, AnUnsupportedTagDecidesAndIsNotApplied) {
  candidates_.system = tag("2 shiny");
  Effective effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::system_xattr);
  EXPECT_TRUE(effective.unsupported);
  EXPECT_FALSE(effective.policy);
  EXPECT_EQ(effective.text, "2 shiny");

  candidates_.system.reset();
  candidates_.user = tag("shiny");
  effective = resolve(candidates_);
  EXPECT_TRUE(effective.unsupported);
  EXPECT_EQ(effective.source, Source::user_xattr);

  candidates_.user.reset();
  candidates_.directory = tag("shiny");
  effective = resolve(candidates_);
  EXPECT_TRUE(effective.unsupported);
  EXPECT_EQ(effective.source, Source::directory);
}

TEST_F(Resolve, DatabaseTagsSaySo) {
  candidates_.system = tag("bind:1", Carrier::database);
  EXPECT_EQ(resolve(candidates_).source, Source::database);
  EXPECT_EQ(resolve(candidates_).origin, "database");
  candidates_.system.reset();
  candidates_.user = tag("bind:1,pin", Carrier::database);
  const Effective effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::database);
  EXPECT_TRUE(effective.from_user);
  EXPECT_FALSE(effective.policy->pin);
}

TEST_F(Resolve, TheRuleNoneMeansLeaveAlone) {
  candidates_ = {};
  rule_.policy.reset();
  candidates_.rule = &rule_;
  const Effective effective = resolve(candidates_);
  EXPECT_EQ(effective.source, Source::rule);
  EXPECT_FALSE(effective.policy);
  EXPECT_FALSE(effective.unsupported);
  EXPECT_EQ(effective.text, "none");
}

TEST(Trust, OwnerAndWriters) {
  EXPECT_TRUE(trusts_user_tag(0100644, 0, 1000));
  EXPECT_TRUE(trusts_user_tag(0100755, 1000, 1000));
  EXPECT_FALSE(trusts_user_tag(0100644, 1001, 1000)) << "somebody else's file";
  EXPECT_FALSE(trusts_user_tag(0100644, 1000, 0)) << "a user's file mapped by root";
  EXPECT_FALSE(trusts_user_tag(0100664, 1000, 1000)) << "the group may write";
  EXPECT_FALSE(trusts_user_tag(0100646, 1000, 1000)) << "others may write";
  EXPECT_FALSE(trusts_user_tag(0100666, 0, 1000));
}

TEST(Source, NamesAreThoseOfTheJson) {
  EXPECT_EQ(to_string(Source::none), "none");
  EXPECT_EQ(to_string(Source::system_xattr), "system-xattr");
  EXPECT_EQ(to_string(Source::user_xattr), "user-xattr");
  EXPECT_EQ(to_string(Source::database), "database");
  EXPECT_EQ(to_string(Source::directory), "directory");
  EXPECT_EQ(to_string(Source::rule), "rule");
}

}  // namespace
}  // namespace fpolicy
