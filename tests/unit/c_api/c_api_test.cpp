// SPDX-License-Identifier: LGPL-2.1-or-later
// Runs what c_api.c, compiled as C11, does with the C API.
#include "c_api/c_api.h"

#include "store/temporary_directory.h"

#include <gtest/gtest.h>

#include <array>

namespace {

constexpr const char* where = "the line in c_api.c";

TEST(CApi, ErrorsAreNegativeErrnoAndAMessage) {
  EXPECT_EQ(c_api_errors(), 0) << where;
}

TEST(CApi, StructsOfOtherVersions) {
  EXPECT_EQ(c_api_versions(), 0) << where;
}

TEST(CApi, AHandleIsOpenedRefreshedAndClosed) {
  const fpolicy::TemporaryDirectory directory;
  EXPECT_EQ(c_api_open(directory.path().c_str()), 0) << where;
}

TEST(CApi, TagsAreSetReadAndRemoved) {
  const fpolicy::TemporaryDirectory directory;
  EXPECT_EQ(c_api_tags(directory.path().c_str()), 0) << where;
}

TEST(CApi, WhatIsWrongWithTagsAndFiles) {
  const fpolicy::TemporaryDirectory directory;
  EXPECT_EQ(c_api_tag_errors(directory.path().c_str()), 0) << where;
}

TEST(CApi, PoliciesAreResolvedAndPagesCounted) {
  const fpolicy::TemporaryDirectory directory;
  EXPECT_EQ(c_api_results(directory.path().c_str()), 0) << where;
}

TEST(CApi, WhatIsWrongWithJobsAndResults) {
  const fpolicy::TemporaryDirectory directory;
  EXPECT_EQ(c_api_results_errors(directory.path().c_str()), 0) << where;
}

TEST(CApi, AChildProcess) {
  int status = 0;
  std::array<char, 512> message{};
  EXPECT_EQ(c_api_child(&status, message.data(), message.size()), 0) << where;
  if (status != 0) GTEST_SKIP() << "not to be had here: " << message.data();
}

}  // namespace
