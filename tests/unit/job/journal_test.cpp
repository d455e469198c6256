// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/journal.h"

#include "../store/temporary_directory.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace fpolicy::sys {
namespace {

const std::string task = "0-2 1-3";

class JournalTest : public testing::Test {
 protected:
  /// The nodes that a run for `task` finds emptied. It ends without finishing.
  NodeSet found(const std::string& of, bool* resumed = nullptr) {
    auto journal = Journal::open("x", directory.path());
    EXPECT_TRUE(journal) << journal.error().message;
    const NodeSet nodes = journal->begin(of);
    if (resumed != nullptr) *resumed = journal->is_resumed();
    return nodes;
  }
  [[nodiscard]] std::string text() const {
    std::ifstream file(directory / "migrate-x");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  TemporaryDirectory directory;
};

TEST_F(JournalTest, TheFirstRunResumesNothing) {
  bool resumed = true;
  EXPECT_TRUE(found(task, &resumed).empty());
  EXPECT_FALSE(resumed);
}

TEST_F(JournalTest, TheDirectoryIsMade) {
  const auto journal = Journal::open("x", directory / "made");
  ASSERT_TRUE(journal) << journal.error().message;
  EXPECT_TRUE(std::filesystem::exists(directory / "made/migrate-x"));
  EXPECT_FALSE(Journal::open("x", directory / "not/made"));
}

TEST_F(JournalTest, ARunThatWasCutShortIsResumed) {
  {
    auto journal = Journal::open("x", directory.path());
    ASSERT_TRUE(journal);
    journal->begin(task);
    journal->done(2);
  }
  bool resumed = false;
  EXPECT_EQ(found(task, &resumed), (NodeSet{2}));
  EXPECT_TRUE(resumed);
  {
    auto journal = Journal::open("x", directory.path());
    ASSERT_TRUE(journal);
    EXPECT_EQ(journal->begin(task), (NodeSet{2})) << "by the second as well, though it did nothing";
    journal->done(1);
    journal->done(0);
  }
  EXPECT_EQ(found(task), (NodeSet{0, 1, 2}));
}

TEST_F(JournalTest, OneThatWasCutShortBeforeAnyNodeIsResumedToo) {
  found(task);
  bool resumed = false;
  EXPECT_TRUE(found(task, &resumed).empty());
  EXPECT_TRUE(resumed);
}

TEST_F(JournalTest, AnotherTaskBeginsAnew) {
  {
    auto journal = Journal::open("x", directory.path());
    ASSERT_TRUE(journal);
    journal->begin(task);
    journal->done(2);
  }
  for (const char* other : {"0-2 1-2", "0-2 1-3,5", "0-2", "0-2 1"}) {
    bool resumed = true;
    EXPECT_TRUE(found(other, &resumed).empty());
    EXPECT_FALSE(resumed) << other;
  }
  bool resumed = true;
  EXPECT_TRUE(found(task, &resumed).empty()) << "it was forgotten";
  EXPECT_FALSE(resumed);
}

TEST_F(JournalTest, FinishedIsForgotten) {
  {
    auto journal = Journal::open("x", directory.path());
    ASSERT_TRUE(journal);
    journal->begin(task);
    journal->done(2);
    journal->finish();
    EXPECT_FALSE(std::filesystem::exists(directory / "migrate-x"));
  }
  bool resumed = true;
  EXPECT_TRUE(found(task, &resumed).empty());
  EXPECT_FALSE(resumed);
}

TEST_F(JournalTest, GarbageIsNoRun) {
  using namespace std::string_literals;
  for (const std::string& garbage : {""s, "\n"s, "0-2 1-3"s, "0-2 1-3\n"s, "0-2 1-3\n2"s, "0-2 1-3\nx\n"s,
                                     "0-2 1-3\n2-\n"s, "0-2 1-3\n9999\n"s, "\0\0\0\0"s, "0-2 1-3\0\n2\n"s,
                                     std::string(100'000, '0'), "0-2 1-3\n"s + std::string(50'000, '1')}) {
    directory.write("migrate-x", garbage);
    bool resumed = true;
    EXPECT_TRUE(found(task, &resumed).empty());
    EXPECT_FALSE(resumed) << garbage.substr(0, 40);
    EXPECT_EQ(text(), "0-2 1-3\n\nend\n") << "nothing of it is left";
  }
}

TEST_F(JournalTest, WhatShrinksLeavesNothingBehind) {
  directory.write("migrate-x", "0-2 1-3\n0,2,4,6,8,10\nend\n");
  {
    auto journal = Journal::open("x", directory.path());
    ASSERT_TRUE(journal);
    journal->begin(task);
    for (const unsigned node : {1U, 3U, 5U, 7U, 9U}) journal->done(node);
  }
  EXPECT_EQ(text(), "0-2 1-3\n0-10\nend\n");
}

TEST_F(JournalTest, OneRunAtATime) {
  auto first = Journal::open("x", directory.path());
  ASSERT_TRUE(first);
  const auto second = Journal::open("x", directory.path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, EBUSY);
  EXPECT_TRUE(Journal::open("y", directory.path())) << "another job";
  // The file is gone, the lock on it is held: a third one has a file of its own.
  first->finish();
  EXPECT_TRUE(Journal::open("x", directory.path()));
}

}  // namespace
}  // namespace fpolicy::sys
