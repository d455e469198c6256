// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/address_spaces.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <memory>
#include <vector>

namespace fpolicy::job {
namespace {

int idle(void* /*unused*/) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (true) ::pause();
}

/// A process that does nothing, with a copy of this one's memory, or with this one's.
class Idler {
 public:
  explicit Idler(bool shares_memory)
      : stack_(std::make_unique<std::array<std::byte, 65536>>()),
        pid_(::clone(idle, stack_->end(), (shares_memory ? CLONE_VM : 0) | SIGCHLD, nullptr)) {}
  Idler(const Idler&) = delete;
  Idler& operator=(const Idler&) = delete;
  ~Idler() { end(); }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  std::unique_ptr<std::array<std::byte, 65536>> stack_;
  pid_t pid_;
};

/// All look alike, as after fork().
std::vector<Vma> layout() {
  Vma vma;
  vma.start = 0x1000;
  vma.end = 0x2000;
  return {vma};
}

TEST(AddressSpaces, TellsThoseWithOneMemory) {
  std::vector<std::unique_ptr<Idler>> idlers;
  for (int i = 0; i < 20; ++i) idlers.push_back(std::make_unique<Idler>(false));
  for (int i = 0; i < 3; ++i) idlers.push_back(std::make_unique<Idler>(true));
  for (const auto& idler : idlers) ASSERT_GT(idler->pid(), 0);
  for (int round = 0; round < 20; ++round) {
    std::ranges::rotate(idlers, idlers.begin() + 7);
    AddressSpaces spaces;
    const auto taken = std::ranges::count_if(
        idlers, [&](const auto& idler) { return spaces.insert(idler->pid(), layout()); });
    // The three share the memory of this process, and so have one.
    ASSERT_EQ(taken, 21);
    ASSERT_FALSE(spaces.insert(::getpid(), layout()));
    for (const auto& idler : idlers) ASSERT_FALSE(spaces.insert(idler->pid(), layout()));
  }
}

TEST(AddressSpaces, AreNotComparedWhereTheyDoNotLookAlike) {
  AddressSpaces spaces;
  EXPECT_TRUE(spaces.insert(::getpid(), layout()));
  auto other = layout();
  other.back().end += 0x1000;
  EXPECT_TRUE(spaces.insert(::getpid(), other));
  EXPECT_FALSE(spaces.insert(::getpid(), other));
}

TEST(AddressSpaces, GoOnWhenProcessesHaveEnded) {
  std::vector<std::unique_ptr<Idler>> idlers;
  for (int i = 0; i < 16; ++i) idlers.push_back(std::make_unique<Idler>(false));
  AddressSpaces spaces;
  for (const auto& idler : idlers) ASSERT_TRUE(spaces.insert(idler->pid(), layout()));
  const pid_t ended = idlers[3]->pid();
  for (std::size_t i = 0; i < idlers.size(); i += 2) idlers[i]->end();
  idlers[3]->end();
  EXPECT_TRUE(spaces.insert(ended, layout()));
  EXPECT_TRUE(spaces.insert(ended, layout()));
  const Idler twin(true);
  EXPECT_TRUE(spaces.insert(::getpid(), layout()));
  EXPECT_FALSE(spaces.insert(twin.pid(), layout()));
  for (std::size_t i = 5; i < idlers.size(); i += 2) EXPECT_FALSE(spaces.insert(idlers[i]->pid(), layout()));
}

}  // namespace
}  // namespace fpolicy::job
