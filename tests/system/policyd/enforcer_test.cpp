// SPDX-License-Identifier: LGPL-2.1-or-later
#include "enforcer.h"

#include "config.h"
#include "event_log.h"
#include "work_queue.h"

#include <fpolicy/rules.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace fpolicy::policyd {
namespace {

/// The database, which counts how often it is asked for what was tagged below a directory.
class CountingRecords final : public RecordStore {
 public:
  explicit CountingRecords(RecordStore* records) : records_(records) {}

  Result<std::optional<TagRecord>> find(const FileRef& file, Space space) override {
    return records_->find(file, space);
  }
  Result<bool> carries_tags(const FileRef& file) override { return records_->carries_tags(file); }
  [[nodiscard]] bool writable() const override { return records_->writable(); }
  Status put(std::span<const TagRecord> records) override { return records_->put(records); }
  Status erase(std::span<const TagRecord> records) override { return records_->erase(records); }
  Status correct(std::span<const RecordCorrection> corrections) override {
    return records_->correct(corrections);
  }
  Status for_each(std::string_view prefix, const std::function<bool(const TagRecord&)>& each) override {
    if (prefix.starts_with(counted)) ++asked;
    return records_->for_each(prefix, each);
  }
  Result<std::uint64_t> data_version() override { return records_->data_version(); }

  std::string counted;
  std::size_t asked = 0;

 private:
  RecordStore* records_;
};

class EnforcerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    // A tag is carried over where root alone puts files.
    directory = "/var/lib/enforcer-test-XXXXXX";
    ASSERT_NE(::mkdtemp(directory.data()), nullptr);
    ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
    auto opened = Database::open(directory + "/state/db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(opened) << opened.error().message;
    database = std::move(*opened);
    records = std::make_unique<CountingRecords>(database.get());
    records->counted = directory + "/lib/";
    store = std::make_unique<PolicyStore>(records.get(), &identifier);
    resolver = std::make_unique<Resolver>(store.get(), std::make_shared<const RuleSet>());
    topology.memory = {0};
    topology.cpu = {0};
    auto opened_mounts = MountedDevices::open();
    ASSERT_TRUE(opened_mounts) << opened_mounts.error().message;
    mounts = std::make_unique<MountedDevices>(std::move(*opened_mounts));
  }
  void TearDown() override {
    for (const pid_t job : jobs) {
      ::kill(job, SIGKILL);
      ::waitpid(job, nullptr, 0);
    }
    enforcer.reset();
    if (!directory.empty()) std::filesystem::remove_all(directory);
  }
  void start() {
    enforcer = std::make_unique<Enforcer>(Enforcer::Parts{.records = records.get(),
                                                          .store = store.get(),
                                                          .identifier = &identifier,
                                                          .resolver = resolver.get(),
                                                          .topology = &topology,
                                                          .cgroups = cgroups ? &*cgroups : nullptr,
                                                          .events = &events,
                                                          .counters = &counters,
                                                          .queue = &queue,
                                                          .mounts = mounts.get()},
                                          Config());
  }
  /// Until nothing is due any more.
  void work() {
    while (const auto due = queue.pop_urgent(static_cast<Priority>(4))) due->run();
  }
  [[nodiscard]] std::string library(unsigned number) const {
    return directory + "/lib/" + std::to_string(number) + ".so";
  }
  void make_library(const std::string& path) const {
    std::filesystem::create_directories(directory + "/lib");
    std::ofstream(path) << std::string(4096, 'x');
  }
  /// A cgroup with these processes, as files of a tree of this test.
  void make_cgroup(const std::string& name, const std::vector<pid_t>& pids) {
    const std::string root = directory + "/root";
    std::filesystem::create_directories(root + "/proc/self");
    std::filesystem::create_directories(root + "/cgroup/" + name);
    std::ofstream(root + "/proc/self/mountinfo") << "1 1 0:1 / /cgroup rw - cgroup2 cgroup2 rw\n";
    std::ofstream procs(root + "/cgroup/" + name + "/cgroup.procs");
    for (const pid_t pid : pids) procs << pid << "\n";
    auto tree = CgroupTree::open(root);
    ASSERT_TRUE(tree) << tree.error().message;
    if (!cgroups) cgroups = std::move(*tree);
  }
  /// Cgroups of whose moves it was told, in order.
  [[nodiscard]] std::vector<std::string> moved_cgroups() const {
    std::vector<std::string> moved;
    for (const Event& event : events.since(0))
      if (event.kind == EventKind::move) moved.push_back(event.cgroup.value_or(""));
    return moved;
  }
  /// A process of this user that maps these files.
  void start_job(uid_t uid, const std::vector<std::string>& paths) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const Fd told(ends[0]);
    Fd tells(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (const std::string& path : paths) {
        const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file.get(), 0) == MAP_FAILED) ::_exit(1);
      }
      if (::setgid(uid) != 0 || ::setuid(uid) != 0 || ::write(tells.get(), "r", 1) != 1) ::_exit(1);
      ::pause();
    }
    jobs.push_back(child);
    tells.reset();
    char ready = 0;
    ASSERT_EQ(::read(told.get(), &ready, 1), 1);
  }
  void tag(const std::string& path, std::string_view policy) {
    const Fd held(::open(path.c_str(), O_PATH | O_CLOEXEC));
    FileRef file;
    file.fd = held.get();
    file.path = path;
    ASSERT_TRUE(store->set(file, Space::system, *parse_policy(policy)));
    ASSERT_TRUE(store->flush());
  }

  std::string directory;
  Identifier identifier;
  std::unique_ptr<Database> database;
  std::unique_ptr<CountingRecords> records;
  std::unique_ptr<PolicyStore> store;
  std::unique_ptr<Resolver> resolver;
  Topology topology;
  EventLog events{100, [] {}};
  Counters counters;
  WorkQueue queue{100};
  std::unique_ptr<MountedDevices> mounts;
  std::optional<CgroupTree> cgroups;
  std::unique_ptr<Enforcer> enforcer;
  std::vector<pid_t> jobs;
};

// An enforcement that is interrupted for more urgent work holds a window of its file mapped. That work must
// not take policyd for the job, and so place a relative policy among policyd's own nodes.
TEST_F(EnforcerTest, PolicydsOwnMappingIsNobodysJob) {
  // Every test process may use node 0 alone of these, and "+1" is then a node that its job has not.
  topology.memory = {0, 1023};
  start();
  const std::string path = directory + "/file";
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  std::array<char, 4096> page{};
  ASSERT_EQ(::write(fd.get(), page.data(), page.size()), 4096);
  void* window = ::mmap(nullptr, page.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(window, MAP_FAILED);
  tag(path, "bind:+1");

  std::vector<Applied> done;
  enforcer->apply_paths(
      {path}, [&](const Applied& applied) { done.push_back(applied); },
      [](const std::string& where, const Error& error) { ADD_FAILURE() << where << error.message; });
  ASSERT_EQ(done.size(), 1U);
  EXPECT_NE(done[0].state, FileState::unsatisfiable) << done[0].reason;
  ::munmap(window, page.size());
}

// Whether somebody's tag has to be carried over is asked of each file once, whoever maps it and in whichever
// round it is met.
TEST_F(EnforcerTest, TheCatalogueIsAskedOnceForAFile) {
  constexpr unsigned files = 20;
  std::vector<std::string> paths;
  for (unsigned i = 0; i < files; ++i) {
    paths.push_back(library(i));
    make_library(paths.back());
  }
  // Half of them are covered by a rule.
  auto rules = std::make_shared<RuleSet>();
  ASSERT_TRUE(rules->add(directory + "/lib/1*\tmigrate=no\n", "a.rules"));
  resolver->set_rules(std::move(rules));
  start();
  for (uid_t uid = 1000; uid < 1010; ++uid) start_job(uid, paths);
  for (int round = 0; round < 3; ++round) {
    enforcer->schedule_all_jobs();
    work();
    EXPECT_EQ(records->asked, files) << "round " << round;
  }
}

// A user's jobs map more files than can be looked at in any job's time. Whoever moves meanwhile, and whoever
// sets a tag, does not wait for them.
TEST_F(EnforcerTest, JobsThatMapManyFilesLetOthersGoFirst) {
  constexpr unsigned files = 20'000;
  const std::string own = directory + "/own.so";
  const std::string tagged = directory + "/tagged.so";
  for (const std::string& path : {own, tagged}) {
    std::ofstream(path) << std::string(4096, 'x');
    tag(path, "migrate=no");
  }
  // Addresses are given out from above: what is mapped first is met last.
  std::vector<std::string> paths{own};
  std::filesystem::create_directory(directory + "/lib");
  for (unsigned i = 0; i < files; ++i) {
    paths.push_back(library(i));
    const Fd file(::open(paths.back().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(::ftruncate(file.get(), 4096), 0);
  }
  start_job(1000, paths);
  start_job(1001, {own});
  make_cgroup("crowd", {jobs[0]});
  make_cgroup("crowd2", {jobs[0]});
  make_cgroup("other", {jobs[1]});
  start();
  for (const char* cgroup : {"crowd", "crowd2", "other"})
    enforcer->schedule_move({.kind = CgroupChange::Kind::mems, .cgroup = cgroup});
  std::vector<Fd> changed;
  changed.emplace_back(::open(tagged.c_str(), O_PATH | O_CLOEXEC));
  std::vector<std::string> moved_by_then{"it is never done"};
  enforcer->schedule_changed_files(std::move(changed), {}, [&] { moved_by_then = moved_cgroups(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until they are due
  work();
  EXPECT_THAT(moved_by_then, testing::ElementsAre("/other"));
  EXPECT_THAT(moved_cgroups(), testing::ElementsAre("/other", "/crowd", "/crowd2"));
}

TEST_F(EnforcerTest, ATagThatIsSetInBetweenIsCarriedOver) {
  const std::string path = library(1);
  make_library(path);
  start();
  start_job(1000, {path});
  enforcer->schedule_all_jobs();
  work();
  ASSERT_EQ(counters.tags_carried, 0U);
  // The same file comes back to its path when that has been tagged.
  std::filesystem::rename(path, path + ".old");
  make_library(path);
  tag(path, "bind:0");
  enforcer->schedule_changed_paths({path});
  work();
  std::filesystem::rename(path + ".old", path);
  enforcer->schedule_all_jobs();
  work();
  EXPECT_EQ(counters.tags_carried, 1U);
  // And a new one, which nobody has tagged.
  make_library(path + ".new");
  std::filesystem::rename(path + ".new", path);
  start_job(1001, {path});
  enforcer->schedule_all_jobs();
  work();
  EXPECT_EQ(counters.tags_carried, 2U);
}

}  // namespace
}  // namespace fpolicy::policyd
