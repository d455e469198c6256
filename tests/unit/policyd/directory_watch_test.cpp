// SPDX-License-Identifier: LGPL-2.1-or-later
#include "directory_watch.h"

#include "../store/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace fpolicy::policyd {
namespace {

TEST(DirectoryWatchTest, TellsWhatAppearsWhereTheAdministratorAlonePutsFiles) {
  const TemporaryDirectory directory;
  ::umask(022);
  DirectoryWatch watch({::geteuid(), directory.path()});
  const std::string file = directory.write("lib/file", "old");
  watch.watch_directory_of(file);
  watch.watch_directory_of(directory / "lib/other");
  EXPECT_EQ(watch.size(), 1U);
  EXPECT_THAT(watch.read().paths, testing::IsEmpty());

  const std::string fresh = directory.write("fresh", "new");
  std::filesystem::rename(fresh, file);
  EXPECT_THAT(watch.read().paths, testing::ElementsAre(file));
  directory.write("lib/a name", "");
  EXPECT_THAT(watch.read().paths, testing::ElementsAre(directory / "lib/a name"));
  std::filesystem::remove(file);
  EXPECT_THAT(watch.read().paths, testing::IsEmpty());

  const std::string shared = directory.write("shared/file", "");
  ASSERT_EQ(::chmod((directory / "shared").c_str(), 01777), 0);
  watch.watch_directory_of(shared);
  EXPECT_EQ(watch.size(), 1U);

  std::filesystem::remove_all(directory / "lib");
  watch.read();
  EXPECT_EQ(watch.size(), 0U);
  directory.write("lib/file", "again");
  watch.watch_directory_of(file);
  EXPECT_EQ(watch.size(), 1U);
  EXPECT_FALSE(watch.is_full());
}

}  // namespace
}  // namespace fpolicy::policyd
