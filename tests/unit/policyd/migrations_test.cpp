// SPDX-License-Identifier: LGPL-2.1-or-later
// Migrate: hostile parameters, what users may ask, replies that fit, and threads that end.
#include "migrations.h"

#include <fpolicy/migrate_json.h>
#include <fpolicy/varlink.h>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <thread>

namespace fpolicy::policyd {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

const json least{{"cgroup", "batch/job"}, {"from", "0"}, {"to", "1"}};

json with(const json& changes) {
  json parameters = least;
  parameters.update(changes);
  return parameters;
}

TEST(MigrateParameters, Defaults) {
  const auto request = parse_migrate(least);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->job.cgroup, "batch/job");
  EXPECT_EQ(request->options.from, NodeSet{0});
  EXPECT_TRUE(request->options.freeze);
  EXPECT_FALSE(request->options.dry_run || request->options.set_cpuset || request->options.verify);
  EXPECT_FALSE(request->options.owner);
}

TEST(MigrateParameters, All) {
  const auto request = parse_migrate({{"cgroup", "/a\\tb"},
                                      {"pids", nullptr},
                                      {"tree", false},
                                      {"from", "0-1"},
                                      {"to", "2,3"},
                                      {"dry_run", true},
                                      {"set_cpuset", true},
                                      {"cpus", "0-3,8"},
                                      {"freeze", true},
                                      {"partial", true},
                                      {"pre_copy", true},
                                      {"verify", true},
                                      {"threads", 3},
                                      {"max_bytes_per_second", 1U << 20U}});
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->job.cgroup, "a\tb");
  EXPECT_EQ(request->options.to, (NodeSet{2, 3}));
  EXPECT_EQ(request->options.cpus, "0-3,8");
  EXPECT_EQ(request->options.threads, 3U);
  EXPECT_EQ(request->options.bytes_per_second, 1U << 20U);
  const auto tree = parse_migrate({{"pids", {7, 9}}, {"tree", true}, {"from", "0"}, {"to", "1"}});
  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(tree->job.pids, (std::vector<pid_t>{7, 9}));
  EXPECT_TRUE(tree->job.descendants);
}

TEST(MigrateParameters, WhatIsWrongIsNamed) {
  const std::pair<json, const char*> wrong[] = {
      {json::object(), "cgroup"},
      {with({{"pids", {1}}}), "pids"},
      {with({{"cgroup", ""}}), "cgroup"},
      {with({{"cgroup", "/"}}), "cgroup"},
      {with({{"cgroup", 7}}), "cgroup"},
      {with({{"cgroup", "a\\"}}), "cgroup"},
      {with({{"cgroup", std::string(5000, 'x')}}), "cgroup"},
      {with({{"cgroup", nullptr}, {"pids", json::array()}}), "cgroup"},
      {with({{"cgroup", nullptr}, {"pids", {0}}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", {-1}}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", {1.0}}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", {1ULL << 31U}}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", {"1"}}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", 1}}), "pids"},
      {with({{"cgroup", nullptr}, {"pids", std::vector<int>(65537, 1)}}), "pids"},
      {with({{"tree", true}}), "tree"},
      {with({{"tree", 1}}), "tree"},
      {with({{"from", ""}}), "from"},
      {with({{"from", nullptr}}), "from"},
      {with({{"from", "1024"}}), "from"},
      {with({{"from", 0}}), "from"},
      {with({{"to", "0-"}}), "to"},
      {with({{"to", std::string(65537, '0')}}), "to"},
      {with({{"dry_run", "yes"}}), "dry_run"},
      {with({{"cgroup", nullptr}, {"pids", {1}}, {"set_cpuset", true}}), "set_cpuset"},
      {with({{"cpus", "0"}}), "cpus"},
      {with({{"set_cpuset", true}, {"cpus", "0\n1"}}), "cpus"},
      {with({{"set_cpuset", true}, {"cpus", {0}}}), "cpus"},
      {with({{"pre_copy", true}, {"freeze", false}}), "pre_copy"},
      {with({{"threads", 1025}}), "threads"},
      {with({{"threads", -1}}), "threads"},
      {with({{"threads", 1.5}}), "threads"},
      {with({{"max_bytes_per_second", 1ULL << 51U}}), "max_bytes_per_second"},
      {with({{"frob", 1}}), "frob"},
  };
  for (const auto& [parameters, name] : wrong) {
    const auto request = parse_migrate(parameters);
    ASSERT_FALSE(request) << name << " " << parameters.dump().substr(0, 200);
    EXPECT_EQ(request.error().code, EINVAL);
    EXPECT_EQ(request.error().message, name) << parameters.dump().substr(0, 200);
  }
}

TEST(MigrateRights, RootAsksWhatItLikes) {
  auto request = parse_migrate(with({{"set_cpuset", true}, {"threads", 8}, {"max_bytes_per_second", 1}}));
  ASSERT_TRUE(request);
  EXPECT_TRUE(confine(*request, 0));
  EXPECT_FALSE(request->options.owner || request->options.own_pages_only);
  EXPECT_EQ(request->options.threads, 8U);
}

TEST(MigrateRights, UsersAreConfined) {
  auto request = parse_migrate(with({{"threads", 8}}));
  ASSERT_TRUE(request);
  ASSERT_TRUE(confine(*request, 1000));
  EXPECT_EQ(request->options.owner, 1000U);
  EXPECT_TRUE(request->options.own_pages_only);
  EXPECT_EQ(request->options.threads, 1U);
  EXPECT_GT(request->options.max_processes, 0U);
  EXPECT_GT(request->options.max_mappings, 0U);
  for (const json& changes : {json{{"set_cpuset", true}}, json{{"set_cpuset", true}, {"cpus", "0"}},
                              json{{"max_bytes_per_second", 1}}}) {
    auto more = parse_migrate(with(changes));
    ASSERT_TRUE(more) << changes;
    const auto refused = confine(*more, 1000);
    ASSERT_FALSE(refused) << changes;
    EXPECT_EQ(refused.error().code, EPERM);
  }
}

TEST(MigrateReply, WhatIsTooLongIsLeftOutAndTold) {
  MigrateOptions options;
  options.dry_run = true;
  MigrateReport report;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    MigrateGroup group;
    group.kind = MappingKind::file;
    group.path = "/" + std::string(4000, '\xff');
    group.before = {i};
    report.groups.push_back(std::move(group));
  }
  report.mappings.resize(200'000);
  report.notes.assign(5000, std::string(5000, 'n'));
  const json reply = report_reply(std::move(report), options);
  EXPECT_LT(reply.dump().size(), varlink::max_message);
  const auto back = report_from_json(reply.at("report"));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(back->mappings.empty());
  ASSERT_FALSE(back->groups.empty());
  EXPECT_EQ(back->groups[0].before[0], 1999U) << "those with the most pages are told";
  EXPECT_NE(back->notes.back().find("left out"), std::string::npos);
}

TEST(MigrateReply, WhatFitsIsWhole) {
  MigrateOptions options;
  options.dry_run = true;
  MigrateReport report;
  report.groups.resize(3);
  report.mappings.resize(1000);
  const auto back = report_from_json(report_reply(report, options).at("report"));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->groups.size(), 3U);
  EXPECT_EQ(back->mappings.size(), 1000U);
  EXPECT_TRUE(back->notes.empty());
}

/// Runs until it is told to stop.
std::function<void()> until_stopped(const std::atomic<bool>& stopping) {
  while (!stopping) std::this_thread::sleep_for(1ms);
  return [] {};
}

TEST(MigrationThreads, AFewAtATimeAndStopEndsThem) {
  Migrations migrations;
  EXPECT_TRUE(migrations.start(1000, until_stopped));
  const auto second = migrations.start(1000, until_stopped);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EAGAIN);
  EXPECT_TRUE(migrations.start(1001, until_stopped));
  EXPECT_FALSE(migrations.start(1002, until_stopped));
  // Users do not take root's places, nor root theirs.
  for (std::size_t i = 0; i < Migrations::most_of_root; ++i) EXPECT_TRUE(migrations.start(0, until_stopped));
  EXPECT_FALSE(migrations.start(0, until_stopped));
  EXPECT_TRUE(migrations.stop(10s));
}

TEST(MigrationThreads, WhoIsToldMayAskAnew) {
  Migrations migrations;
  for (int i = 0; i < 200; ++i) {
    std::promise<void> told;
    const auto started = migrations.start(1000, [&told](const std::atomic<bool>&) -> std::function<void()> {
      return [&told] { told.set_value(); };
    });
    ASSERT_TRUE(started) << started.error().message;
    told.get_future().wait();
  }
}

TEST(MigrationThreads, OneThatHangsIsToldOf) {
  Migrations migrations;
  std::promise<void> let_go;
  ASSERT_TRUE(migrations.start(
      0, [until = let_go.get_future().share()](const std::atomic<bool>&) -> std::function<void()> {
        until.wait();
        return [] {};
      }));
  EXPECT_FALSE(migrations.stop(20ms));
  let_go.set_value();
  EXPECT_TRUE(migrations.stop(10s));
}

}  // namespace
}  // namespace fpolicy::policyd
