// SPDX-License-Identifier: LGPL-2.1-or-later
// The public calls on real files of this machine, whatever its nodes and its user.
#include "placement/run.h"
#include "sys/memory.h"

#include <fpolicy/fd.h>
#include <fpolicy/placement.h>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <numeric>
#include <string>
#include <thread>

namespace fpolicy {
namespace {

using ::testing::HasSubstr;

const std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));

class FilePlacement : public ::testing::Test {
 protected:
  FilePlacement() {
    std::string name = ::testing::TempDir() + "fpolicy-placement-XXXXXX";
    file_ = Fd(::mkostemp(name.data(), O_CLOEXEC));
    ::unlink(name.c_str());
    auto topology = Topology::read();
    if (topology) topology_ = *topology;
  }
  void SetUp() override {
    ASSERT_TRUE(file_);
    if (topology_.memory.empty()) GTEST_SKIP() << "the kernel knows no NUMA";
  }
  void write_pages(std::uint64_t first, std::uint64_t count) const {
    const std::string data(page, 'x');
    for (std::uint64_t i = first; i < first + count; ++i)
      ASSERT_EQ(::pwrite(file_.get(), data.data(), page, static_cast<off_t>(i * page)),
                static_cast<ssize_t>(page));
  }
  void resize(std::uint64_t bytes) const {
    ASSERT_EQ(::ftruncate(file_.get(), static_cast<off_t>(bytes)), 0) << errno_text(errno);
  }
  [[nodiscard]] int fd() const { return file_.get(); }
  [[nodiscard]] const Topology& topology() const { return topology_; }

 private:
  Fd file_;
  Topology topology_;
};

std::uint64_t sum(const std::vector<std::uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

TEST_F(FilePlacement, CountsWhatWasWritten) {
  write_pages(0, 300);
  write_pages(1000, 1);
  PlacementOptions options;
  std::vector<PageRun> runs;
  options.runs = &runs;
  const auto report = audit_file(fd(), {}, topology(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->residency.page_size, page);
  EXPECT_EQ(report->residency.resident_pages, 301U);
  EXPECT_EQ(sum(report->residency.pages_by_node), 301U);
  EXPECT_EQ(report->misplaced_pages, 0U);
  ASSERT_FALSE(runs.empty());
  EXPECT_EQ(runs.back().first, 1000U);
}

TEST_F(FilePlacement, BothWaysOfLocatingAgree) {
  write_pages(0, 3000);
  const auto memory = sys::open_memory();
  if (!memory->sees_frames()) GTEST_SKIP() << "page frame numbers are shown with CAP_SYS_ADMIN only";
  Topology without_frames = topology();
  ASSERT_FALSE(without_frames.frames.empty());
  without_frames.frames.clear();
  const auto by_frame = audit_file(fd(), {}, topology());
  const auto by_question = audit_file(fd(), {}, without_frames);
  ASSERT_TRUE(by_frame && by_question);
  EXPECT_EQ(by_frame->residency.unknown_pages, 0U);
  EXPECT_EQ(by_frame->residency.pages_by_node, by_question->residency.pages_by_node);
}

TEST_F(FilePlacement, AnEmptyFile) {
  const auto report = enforce_file(fd(), {Mode::bind, topology().memory, {}}, topology());
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->residency.resident_pages, 0U);
}

TEST_F(FilePlacement, TheLastPageMayBePartOfOne) {
  ASSERT_EQ(::pwrite(fd(), "x", 1, 0), 1);
  EXPECT_EQ(audit_file(fd(), {}, topology())->residency.resident_pages, 1U);
}

TEST_F(FilePlacement, ASparseFileOfATebibyteCostsWhatIsResident) {
  resize(std::uint64_t{1} << 40U);
  write_pages((std::uint64_t{700} << 30U) / page, 2);
  std::array<rusage, 2> usage{};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, usage.data()), 0);
  const auto report = audit_file(fd(), {}, topology());
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &usage[1]), 0);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->residency.resident_pages, 2U);
  // Looking at each of its 2^28 pages takes 13 s of processor time.
  EXPECT_LT(usage[1].ru_stime.tv_sec - usage[0].ru_stime.tv_sec, 8);
  // Nothing was read in.
  EXPECT_EQ(audit_file(fd(), {}, topology())->residency.resident_pages, 2U);
}

TEST_F(FilePlacement, TmpfsIsSearchedByItsData) {
  const Fd memory(::memfd_create("fpolicy", MFD_CLOEXEC));
  ASSERT_TRUE(memory);
  ASSERT_EQ(::ftruncate(memory.get(), off_t{1} << 42U), 0);
  ASSERT_EQ(::pwrite(memory.get(), "x", 1, off_t{1} << 41U), 1);
  ASSERT_EQ(::lseek(memory.get(), 17, SEEK_SET), 17);
  const auto report = audit_file(memory.get(), {}, topology());
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->residency.resident_pages, 1U);
  EXPECT_EQ(::lseek(memory.get(), 0, SEEK_CUR), 17);
  struct stat status{};
  ASSERT_EQ(::fstat(memory.get(), &status), 0);
  EXPECT_EQ(status.st_blocks, static_cast<blkcnt_t>(page / 512));
}

TEST_F(FilePlacement, ATruncatingWriterDoesNotKillIt) {
  std::atomic<bool> stop{false};
  const std::jthread writer([&] {
    while (!stop) {
      write_pages(0, 400);
      resize(100 * page);
      resize(400 * page);
      resize(0);
    }
  });
  PlacementOptions options;
  options.threads = 2;
  for (int i = 0; i < 300; ++i) {
    const auto report = enforce_file(fd(), {Mode::bind, topology().memory, {}}, topology(), options);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_LE(report->residency.resident_pages, 400U);
  }
  stop = true;
}

TEST_F(FilePlacement, WhatHasNoPagesIsRefused) {
  const Fd directory(::open("/", O_RDONLY | O_CLOEXEC));
  auto report = audit_file(directory.get(), {}, topology());
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().code, ::testing::AnyOf(EINVAL, EPERM));
  EXPECT_FALSE(audit_file(-1, {}, topology()));
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const Fd reader(pipe[0]);
  const Fd writer(pipe[1]);
  report = audit_file(reader.get(), {}, topology());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, EINVAL);
  EXPECT_THAT(report.error().message, HasSubstr("not a regular file"));
}

TEST_F(FilePlacement, FilesOfOthersAreNotLookedAt) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may ask about every file";
  const Fd others(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(others);
  const auto may = may_observe(others.get());
  ASSERT_TRUE(may);
  EXPECT_FALSE(*may);
  const auto report = audit_file(others.get(), {}, topology());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, EPERM);
}

TEST_F(FilePlacement, OnesOwnFilesAre) {
  const auto may = may_observe(fd());
  ASSERT_TRUE(may);
  EXPECT_TRUE(*may);
  EXPECT_FALSE(may_observe(-1));
}

}  // namespace
}  // namespace fpolicy
