// SPDX-License-Identifier: LGPL-2.1-or-later
// The report over the wire: what comes back is what was sent, and nothing that comes is trusted.
#include <fpolicy/json_text.h>
#include <fpolicy/migrate_json.h>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fpolicy {
namespace {

using nlohmann::json;

MigrateReport full_report() {
  MigrateReport report;
  MigrateGroup file;
  file.kind = MappingKind::file;
  file.path = "/srv/\xff odd\n\\name* (deleted)";
  file.policy = "migrate=private";
  file.source = Source::system_xattr;
  file.decision = MigrateDecision::stay;
  file.private_stays = true;
  file.reason = "migrate=private";
  file.mappings = 12;
  file.counts = {.moved = 1, .stayed = 2, .busy = 3, .failed = 4, .skipped = 5, .vanished = 6, .forced = 7};
  file.before = {5, 0, 9};
  file.after = {0, 0, 0, 14};
  MigrateGroup heap;
  heap.kind = MappingKind::heap;
  heap.reason = "private";
  heap.before = {1};
  heap.after = {0, 1};
  report.groups = {file, heap};
  report.mappings = {{.pid = 7,
                      .start = 0x7fff'0000'1000,
                      .end = 0xffff'ffff'ffff'f000,
                      .permissions = "rw-p",
                      .group = 1,
                      .resident = 3,
                      .moves = 2}};
  report.processes = 4;
  report.counts = file.counts;
  report.before = {6, 0, 9};
  report.after = {0, 1, 0, 14};
  report.moved_bytes = 1ULL << 40U;
  report.plan_seconds = 0.25;
  report.moving_seconds = 1.5;
  report.frozen_seconds = 1.75;
  report.quiet_pages = 100;
  report.misplaced = 3;
  report.cpuset_before = "0-1";
  report.cpuset_after = "2-3";
  report.stopped = true;
  report.failure = "write cpuset.mems: No space left on device";
  report.notes = {"one", "two\n"};
  return report;
}

MigrateOptions all_options() {
  MigrateOptions options;
  options.from = {0, 1};
  options.to = {2, 3};
  options.dry_run = true;
  options.set_cpuset = true;
  return options;
}

/// As it travels.
json wire(const MigrateReport& report, const MigrateOptions& options) {
  return json::parse(to_text(report_json(report, options)));
}

TEST(MigrateJson, RoundTrip) {
  const MigrateReport sent = full_report();
  const json first = wire(sent, all_options());
  const auto back = report_from_json(first);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(wire(*back, all_options()), first);
  EXPECT_EQ(back->groups[0].path, sent.groups[0].path) << "in its own bytes";
  EXPECT_EQ(back->groups[0].source, Source::system_xattr);
  EXPECT_EQ(back->groups[0].decision, MigrateDecision::stay);
  EXPECT_EQ(back->groups[0].after, (std::vector<std::uint64_t>{0, 0, 0, 14}));
  EXPECT_EQ(back->groups[1].policy, "");
  EXPECT_EQ(back->mappings[0].end, 0xffff'ffff'ffff'f000);
  EXPECT_EQ(back->misplaced, 3U);
}

TEST(MigrateJson, WhatWasNotAskedForIsNotThere) {
  const auto back = report_from_json(wire(MigrateReport{}, MigrateOptions{}));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_FALSE(back->misplaced);
  EXPECT_EQ(back->cpuset_after, "");
  EXPECT_TRUE(back->mappings.empty());
}

TEST(MigrateJson, Progress) {
  for (const auto phase : {MigrateProgress::Phase::plan, MigrateProgress::Phase::verify}) {
    const auto back =
        progress_from_json(json(progress_json({.phase = phase, .done_pages = 3, .all_pages = 9})));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->phase, phase);
    EXPECT_EQ(back->all_pages, 9U);
  }
  EXPECT_FALSE(progress_from_json({{"phase", "frob"}, {"done_pages", 1}, {"all_pages", 1}}));
  EXPECT_FALSE(progress_from_json(json::array()));
}

/// Every value of the report, each in turn, replaced by what it must not be.
void spoil(json& whole, json& at, const std::string& name) {
  for (const json& bad : {json(-1), json("\xff"), json(1e300), json(json::array({1})), json(nullptr)}) {
    // Some values are right in some places.
    const json good = std::exchange(at, bad);
    const auto read = report_from_json(whole);
    if (!read) {
      EXPECT_EQ(read.error().code, EPROTO) << name;
    }
    at = good;
  }
  if (!at.is_structured()) return;
  for (auto& [key, value] : at.items()) spoil(whole, value, name + "." + key);
}

TEST(MigrateJson, NothingThatComesIsTrusted) {
  json whole = wire(full_report(), all_options());
  spoil(whole, whole, "");
  const auto refused = [&whole](const char* pointer, const json& value) {
    json bad = whole;
    bad[json::json_pointer(pointer)] = value;
    const auto read = report_from_json(bad);
    EXPECT_FALSE(read) << pointer << " " << value;
  };
  refused("/processes", -1);
  refused("/processes", 1.5);
  refused("/moved_pages", "1");
  refused("/plan_seconds", -0.5);
  refused("/groups", 7);
  refused("/groups/0/kind", "frob");
  refused("/groups/0/decision", 1);
  refused("/groups/0/path_escaped", "\\q");
  refused("/groups/0/pages_by_node", {{"1024", 1}});
  refused("/groups/0/pages_by_node", {{"99999999999999999999", 1}});
  refused("/groups/0/pages_by_node", {{"-1", 1}});
  refused("/groups/0/pages_by_node", {{"0", -1}});
  refused("/mappings/0/group", 2);
  refused("/mappings/0/pid", 1ULL << 32U);
  refused("/mappings/0/start", "xyz");
  refused("/mappings/0/start", "11112222333344445");
  refused("/notes/1", 3);
  for (const char* name : {"stopped", "moved_bytes", "groups", "notes", "pages_by_node"}) {
    json less = whole;
    less.erase(name);
    EXPECT_FALSE(report_from_json(less)) << name;
  }
}

}  // namespace
}  // namespace fpolicy
