// SPDX-License-Identifier: LGPL-2.1-or-later
// Against programs that are no sentinel: the real one needs root and a cgroup filesystem
// (tests/guest/cases/guard.sh).
#include "sentinel.h"

#include "../store/temporary_directory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

namespace fpolicy::policyd {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class SentinelTest : public testing::Test {
 protected:
  std::string script(const std::string& text) {
    const std::string path = directory.write("sentinel", "#!/bin/sh\n" + text + "\n");
    ::chmod(path.c_str(), 0700);
    return path;
  }
  /// Until `holds`, for ten seconds.
  template <class Predicate>
  static bool soon(Predicate holds) {
    for (int i = 0; i < 1000 && !holds(); ++i) std::this_thread::sleep_for(10ms);
    return holds();
  }
  TemporaryDirectory directory;
  Fd cgroups{::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)};
};

TEST_F(SentinelTest, AProgramThatIsNotThereIsTold) {
  Sentinel sentinel("/nonexistent/fpolicy-sentinel", cgroups.get(), [](const SentinelMessage&) {});
  ASSERT_TRUE(sentinel.start());
  EXPECT_TRUE(soon([&] { return sentinel.state().restarts > 0; }));
  EXPECT_FALSE(sentinel.state().watching);
  EXPECT_THAT(sentinel.state().reason, HasSubstr("/nonexistent/fpolicy-sentinel: No such file"));
}

TEST_F(SentinelTest, OneThatEndsIsStartedAgain) {
  const std::string log = directory / "log";
  Sentinel sentinel(script("echo x >> " + log), cgroups.get(), [](const SentinelMessage&) {});
  ASSERT_TRUE(sentinel.start());
  EXPECT_TRUE(soon([&] { return sentinel.state().restarts >= 3; }));
  EXPECT_FALSE(sentinel.state().watching);
  EXPECT_THAT(sentinel.state().reason, HasSubstr("has ended"));
  sentinel.stop();
  EXPECT_GE(std::filesystem::file_size(log), 6U);
}

TEST_F(SentinelTest, GetsItsDescriptorsAndNoOthers) {
  const std::string log = directory / "log";
  const std::string script_text =
      "ls /proc/self/fd | tr '\\n' ' ' > " + log + ".new && mv " + log + ".new " + log + "; exec sleep 1000";
  Sentinel sentinel(script(script_text), cgroups.get(), [](const SentinelMessage&) {});
  ASSERT_TRUE(sentinel.start());
  ASSERT_TRUE(soon([&] { return std::filesystem::exists(log); }));
  std::string text(200, '\0');
  const Fd file(::open(log.c_str(), O_RDONLY | O_CLOEXEC));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(file.get(), text.data(), text.size()), 0)));
  // 7: ls has its directory open.
  EXPECT_EQ(text, "0 1 2 3 4 5 6 7 ");
  const pid_t pid = sentinel.state().pid;
  ASSERT_GT(pid, 0);
  sentinel.stop();
  EXPECT_NE(::kill(pid, 0), 0) << "it ends with stop()";
}

TEST_F(SentinelTest, AMessageThatMakesNoSenseEndsIt) {
  // Half a header.
  Sentinel sentinel(script("printf xxxx >&3; exec sleep 1000"), cgroups.get(),
                    [](const SentinelMessage&) { ADD_FAILURE() << "it was believed"; });
  ASSERT_TRUE(sentinel.start());
  EXPECT_TRUE(soon([&] { return sentinel.state().restarts > 0; }));
  sentinel.answer(1);
}

}  // namespace
}  // namespace fpolicy::policyd
