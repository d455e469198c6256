// SPDX-License-Identifier: LGPL-2.1-or-later
// A process that tags files is killed at any moment: what flush() has reported is there, and the store is
// whole.
#include "faulty_xattrs.h"
#include "store/sqlite.h"
#include "temporary_directory.h"

#include <fpolicy/store.h>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <random>
#include <thread>

namespace fpolicy {
namespace {

constexpr unsigned files_in_all = 64;

std::string text_of(unsigned number) {
  return "bind:" + std::to_string(number % 1000);
}

/// Tags file after file, three to a batch, through the database, and reports each batch once it is flushed.
[[noreturn]] void tag_until_killed(const TemporaryDirectory& directory, const std::string& path,
                                   unsigned number, int report) {
  Identifier identifier;
  FaultyXattrs xattrs;
  xattrs.get_error = EOPNOTSUPP;
  xattrs.set_error = EOPNOTSUPP;
  auto database = Database::open(path, Database::Access::read_write, &identifier);
  if (!database) ::_exit(3);
  PolicyStore store(database->get(), &identifier, &xattrs);
  for (;; number += 3) {
    for (unsigned i = number; i < number + 3; ++i) {
      const std::string name = directory / std::to_string(i % files_in_all);
      FileRef file;
      file.name = name.c_str();
      file.path = name;
      if (!store.set(file, Space::user, *parse_policy(text_of(i)))) ::_exit(4);
    }
    if (!store.flush()) ::_exit(5);
    const unsigned done = number + 3;
    if (::write(report, &done, sizeof done) != sizeof done) ::_exit(6);
  }
}

TEST(Crash, WhatWasFlushedSurvivesKillAtAnyMoment) {
  const TemporaryDirectory directory;
  const std::string path = directory / "state/fpolicy.db";
  for (unsigned i = 0; i < files_in_all; ++i) directory.write(std::to_string(i), "");
  std::mt19937 random(7);
  unsigned flushed = 0;  // changes 0 to flushed - 1 are reported as lasting
  for (int round = 0; round < 25; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const Fd report(ends[0]);
    Fd write_end(ends[1]);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) tag_until_killed(directory, path, flushed, write_end.get());
    write_end.reset();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60'000));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "ended by itself with " << WEXITSTATUS(status);
    unsigned done = 0;
    while (::read(report.get(), &done, sizeof done) == sizeof done) flushed = done;

    Identifier identifier;
    FaultyXattrs xattrs;
    xattrs.get_error = EOPNOTSUPP;
    auto database = Database::open(path, Database::Access::read_write, &identifier);
    ASSERT_TRUE(database) << database.error().message;
    PolicyStore store(database->get(), &identifier, &xattrs);
    for (unsigned i = flushed < files_in_all ? 0 : flushed - files_in_all; i < flushed; ++i) {
      const std::string name = directory / std::to_string(i % files_in_all);
      FileRef file;
      file.name = name.c_str();
      const auto tag = store.get(file, Space::user);
      ASSERT_TRUE(tag) << tag.error().message;
      ASSERT_TRUE(*tag) << "round " << round << ", change " << i << " of " << flushed;
      // A batch that was written, but whose report was not: one round of files later.
      EXPECT_TRUE((*tag)->text == text_of(i) || (*tag)->text == text_of(i + files_in_all)) << (*tag)->text;
    }
    auto connection = store::Connection::open(path, store::Connection::Access::read_only);
    ASSERT_TRUE(connection) << connection.error().message;
    auto check = connection->prepare("PRAGMA integrity_check");
    ASSERT_TRUE(check && *check->step());
    EXPECT_EQ(check->bytes(0), "ok");
  }
  EXPECT_GT(flushed, 0U) << "no child came as far as its first batch";
}

}  // namespace
}  // namespace fpolicy
