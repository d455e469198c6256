// SPDX-License-Identifier: LGPL-2.1-or-later
#include "enforcer.h"

#include "config.h"
#include "event_log.h"
#include "work_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

namespace fpolicy::policyd {
namespace {

// An enforcement that is interrupted for more urgent work holds a window of its file mapped. That work must
// not take policyd for the job, and so place a relative policy among policyd's own nodes.
TEST(EnforcerTest, PolicydsOwnMappingIsNobodysJob) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  std::string directory = "/var/tmp/enforcer-test-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  Identifier identifier;
  auto database = Database::open(directory + "/state/db", Database::Access::read_write, &identifier);
  ASSERT_TRUE(database) << database.error().message;
  PolicyStore store(database->get(), &identifier);
  Resolver resolver(&store, std::make_shared<const RuleSet>());
  // Every test process may use node 0 alone of these, and "+1" is then a node that its job has not.
  Topology topology;
  topology.memory = {0, 1023};
  topology.cpu = {0};
  EventLog events(10, [] {});
  Counters counters;
  WorkQueue queue(10);
  auto mounts = MountedDevices::open();
  ASSERT_TRUE(mounts) << mounts.error().message;
  Enforcer enforcer({.records = database->get(),
                     .store = &store,
                     .identifier = &identifier,
                     .resolver = &resolver,
                     .topology = &topology,
                     .cgroups = nullptr,
                     .events = &events,
                     .counters = &counters,
                     .queue = &queue,
                     .mounts = &*mounts},
                    Config());

  const std::string path = directory + "/file";
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  std::array<char, 4096> page{};
  ASSERT_EQ(::write(fd.get(), page.data(), page.size()), 4096);
  void* window = ::mmap(nullptr, page.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(window, MAP_FAILED);
  FileRef file;
  file.fd = fd.get();
  file.path = path;
  ASSERT_TRUE(store.set(file, Space::system, *parse_policy("bind:+1")));
  ASSERT_TRUE(store.flush());

  std::vector<Applied> done;
  enforcer.apply_paths(
      {path}, [&](const Applied& applied) { done.push_back(applied); },
      [](const std::string& where, const Error& error) { ADD_FAILURE() << where << error.message; });
  ASSERT_EQ(done.size(), 1U);
  EXPECT_NE(done[0].state, FileState::unsatisfiable) << done[0].reason;
  ::munmap(window, page.size());
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace fpolicy::policyd
