// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/elf_libs.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

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

/// A program that needs so many libraries, each to be looked for in so many directories.
std::string program_that_needs(unsigned libraries, unsigned directories) {
  std::string strings(1, '\0');
  std::vector<Elf64_Dyn> entries;
  for (unsigned i = 0; i < libraries; ++i) {
    entries.push_back({.d_tag = DT_NEEDED, .d_un = {.d_val = strings.size()}});
    strings.append("lib" + std::to_string(i) + ".so").push_back('\0');
  }
  entries.push_back({.d_tag = DT_RUNPATH, .d_un = {.d_val = strings.size()}});
  for (unsigned i = 0; i < directories; ++i) strings.append("/n:");
  strings.push_back('\0');
  Elf64_Ehdr header{};
  std::array<Elf64_Phdr, 2> segments{};
  const std::size_t at = sizeof header + sizeof segments;
  const std::size_t strings_at = at + (entries.size() + 3) * sizeof(Elf64_Dyn);
  entries.push_back({.d_tag = DT_STRTAB, .d_un = {.d_val = strings_at}});
  entries.push_back({.d_tag = DT_STRSZ, .d_un = {.d_val = strings.size()}});
  entries.push_back({.d_tag = DT_NULL, .d_un = {.d_val = 0}});
  const std::size_t size = strings_at + strings.size();
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = segments.size();
  segments[0] = {.p_type = PT_LOAD,
                 .p_flags = PF_R,
                 .p_offset = 0,
                 .p_vaddr = 0,
                 .p_paddr = 0,
                 .p_filesz = size,
                 .p_memsz = size,
                 .p_align = 1};
  segments[1] = segments[0];
  segments[1].p_type = PT_DYNAMIC;
  segments[1].p_offset = segments[1].p_vaddr = at;
  segments[1].p_filesz = segments[1].p_memsz = entries.size() * sizeof(Elf64_Dyn);
  std::string bytes;
  const auto append = [&bytes](const void* data, std::size_t length) {
    bytes.append(static_cast<const char*>(data), length);
  };
  append(&header, sizeof header);
  append(segments.data(), sizeof segments);
  append(entries.data(), entries.size() * sizeof(Elf64_Dyn));
  return bytes + strings;
}

TEST_F(ElfLibsTest, WhatWouldBeLookedForWithoutEndIsRefused) {
  std::ofstream(root_ + "/few", std::ios::binary) << program_that_needs(3, 4);
  const auto few = elf_libraries(root_ + "/few", root_);
  ASSERT_TRUE(few) << few.error().message;
  EXPECT_EQ(few->missing.size(), 3U);
  std::ofstream(root_ + "/many", std::ios::binary) << program_that_needs(300, 1300);
  const auto many = elf_libraries(root_ + "/many", root_);
  ASSERT_FALSE(many);
  EXPECT_EQ(many.error().code, E2BIG);
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
