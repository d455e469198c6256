// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/elf_libs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>

namespace fpolicy::tools {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string output_of(const std::string& command) {
  std::string text;
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe.get()) != nullptr) text += buffer;
  return text;
}

std::string contents(const std::string& path) {
  const std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Real paths of what the loader itself says, by running it.
std::set<std::string> by_ldd(const std::string& path) {
  std::set<std::string> paths;
  std::istringstream lines(output_of("ldd '" + path + "'"));
  for (std::string line; std::getline(lines, line);) {
    const auto slash = line.find('/');
    if (slash == std::string::npos) continue;
    paths.insert(fs::canonical(line.substr(slash, line.find(' ', slash) - slash)).string());
  }
  return paths;
}

class ElfLibsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "fpolicy-elf-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = fs::canonical(pattern).string();
  }
  void TearDown() override { fs::remove_all(root_); }

  /// Runs the compiler in the directory; a test without one cannot be built either.
  void build(const std::string& commands) const {
    ASSERT_EQ(std::system(("cd '" + root_ + "' && " + commands).c_str()), 0) << commands;
  }

  std::string root_;
};

TEST_F(ElfLibsTest, AgreesWithTheLoaderOnInstalledPrograms) {
  for (const char* path : {"/bin/bash", "/bin/ls", "/usr/bin/ssh", "/usr/bin/python3", "/usr/bin/git",
                           "/usr/bin/cmake", "/bin/systemctl", "/usr/bin/ld"}) {
    if (!fs::exists(path)) continue;
    const auto found = elf_libraries(path);
    ASSERT_TRUE(found) << path << ": " << found.error().message;
    EXPECT_THAT(found->missing, IsEmpty()) << path;
    EXPECT_EQ(std::set<std::string>(found->paths.begin(), found->paths.end()), by_ldd(path)) << path;
  }
}

TEST_F(ElfLibsTest, RunpathCountsForTheObjectAloneAndRpathForWhatItLoads) {
  build(
      "mkdir a b && echo 'int deep(void) { return 1; }' > deep.c && cc -shared -o b/libdeep.so deep.c &&"
      "echo 'int deep(void); int top(void) { return deep(); }' > top.c && cc -shared -o a/libtop.so top.c "
      "-Lb -ldeep &&"
      "echo 'int top(void); int main(void) { return top(); }' > main.c &&"
      "cc -o with-rpath main.c -La -ltop "
      "-Wl,--disable-new-dtags,-rpath,'$ORIGIN/a:${ORIGIN}/b',-rpath-link,b &&"
      "cc -o with-runpath main.c -La -ltop "
      "-Wl,--enable-new-dtags,-rpath,'$ORIGIN/a:$ORIGIN/b',-rpath-link,b");
  const auto rpath = elf_libraries(root_ + "/with-rpath");
  ASSERT_TRUE(rpath) << rpath.error().message;
  EXPECT_THAT(rpath->missing, IsEmpty());
  EXPECT_THAT(rpath->paths, Contains(root_ + "/a/libtop.so"));
  EXPECT_THAT(rpath->paths, Contains(root_ + "/b/libdeep.so"));
  // The loader does not find libdeep either: the program's DT_RUNPATH is not libtop's.
  const auto runpath = elf_libraries(root_ + "/with-runpath");
  ASSERT_TRUE(runpath) << runpath.error().message;
  EXPECT_THAT(runpath->paths, Contains(root_ + "/a/libtop.so"));
  EXPECT_THAT(runpath->missing, ElementsAre("libdeep.so (needed by " + root_ + "/a/libtop.so)"));
  EXPECT_THAT(output_of("ldd '" + root_ + "/with-runpath'"), HasSubstr("libdeep.so => not found"));
}

TEST_F(ElfLibsTest, OriginIsWhereTheProgramReallyIs) {
  build(
      "mkdir lib bin && echo 'int f(void) { return 1; }' > f.c && cc -shared -o lib/libf.so f.c &&"
      "echo 'int f(void); int main(void) { return f(); }' > main.c &&"
      "cc -o bin/main main.c -Llib -lf -Wl,-rpath,'$ORIGIN/../lib' && mkdir links && ln -s ../bin/main "
      "links/main");
  const auto found = elf_libraries(root_ + "/links/main");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_THAT(found->missing, IsEmpty());
  EXPECT_THAT(found->paths, Contains(root_ + "/lib/libf.so"));
}

TEST_F(ElfLibsTest, StaticProgramsNeedNothing) {
  build("echo 'int main(void) { return 0; }' > main.c && cc -static -o main main.c");
  const auto found = elf_libraries(root_ + "/main");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_THAT(found->paths, IsEmpty());
}

TEST_F(ElfLibsTest, WhatIsNoElfIsRefused) {
  std::ofstream(root_ + "/script") << "#!/bin/sh\n";
  EXPECT_EQ(elf_libraries(root_ + "/script").error().code, ENOEXEC);
  EXPECT_EQ(elf_libraries(root_).error().code, ENOEXEC);
  EXPECT_EQ(elf_libraries("/dev/null").error().code, ENOEXEC);
  EXPECT_EQ(elf_libraries(root_ + "/missing").error().code, ENOENT);
}

TEST_F(ElfLibsTest, DamagedFilesAreSurvived) {
  const std::string whole = contents("/bin/ls");
  ASSERT_GT(whole.size(), 1000U);
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = whole;
    if (round % 4 == 0) bytes.resize(random() % bytes.size());
    // Headers and the dynamic section, where numbers lead elsewhere.
    for (int i = 0; i < 8; ++i) {
      const std::size_t at = round % 2 == 0 ? random() % 1024 : random() % whole.size();
      if (at < bytes.size()) bytes[at] = static_cast<char>(random());
    }
    std::ofstream(root_ + "/damaged", std::ios::binary) << bytes;
    const auto found = elf_libraries(root_ + "/damaged");
    if (!found) ++refused;
  }
  EXPECT_GT(refused, 50);
}

TEST_F(ElfLibsTest, CacheOfThisMachineIsReadWhole) {
  const std::string bytes = contents("/etc/ld.so.cache");
  if (bytes.empty()) GTEST_SKIP() << "no /etc/ld.so.cache here";
  const auto cache = parse_ld_cache(bytes);
  ASSERT_TRUE(cache) << cache.error().message;
  // "N libs found in cache", then a line each.
  const std::string listed = output_of("/sbin/ldconfig -p");
  EXPECT_EQ(cache->size(), std::stoul(listed));
  for (const CachedLibrary& library : *cache) EXPECT_THAT(listed, HasSubstr(" => " + library.path + "\n"));
}

TEST_F(ElfLibsTest, DamagedCacheIsRefusedOrReadButNeverBeyondItsEnd) {
  const std::string whole = contents("/etc/ld.so.cache");
  if (whole.empty()) GTEST_SKIP() << "no /etc/ld.so.cache here";
  EXPECT_EQ(parse_ld_cache("").error().code, EINVAL);
  EXPECT_EQ(parse_ld_cache(whole.substr(0, 30)).error().code, EINVAL);
  EXPECT_EQ(parse_ld_cache(whole.substr(0, 60)).error().code, EINVAL);
  std::string many = whole;
  many.replace(20, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(parse_ld_cache(many).error().code, EINVAL);
  std::string far = whole;
  far.replace(48 + 8, 4, "\xff\xff\xff\xff");
  EXPECT_THAT(parse_ld_cache(far).error().message, HasSubstr("entry 0 is damaged"));
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    // A copy of exact size, so that a sanitizer sees every step beyond.
    const std::size_t size = random() % (whole.size() + 1);
    const std::unique_ptr<char[]> bytes(new char[size]);
    std::memcpy(bytes.get(), whole.data(), size);
    if (size > 200) bytes[random() % 200] = static_cast<char>(random());
    const auto cache = parse_ld_cache({bytes.get(), size});
    EXPECT_TRUE(!cache || cache->size() * 24 <= size);
  }
}

}  // namespace
}  // namespace fpolicy::tools
