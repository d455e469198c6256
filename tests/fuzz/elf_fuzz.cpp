// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: an ELF file, which stands as a program and as a library that it may need; and the loader's cache.
#include "check.h"
#include "common/elf_libs.h"
#include "scratch.h"

#include <set>

using namespace fpolicy;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Scratch scratch;
  static const bool made = std::filesystem::create_directories(scratch.path("lib")) &&
                           std::filesystem::create_directories(scratch.path("etc"));
  FUZZ_CHECK(made);
  const std::string_view bytes = fuzz_text(data, size);

  const auto cache = tools::parse_ld_cache(bytes);
  if (cache) {
    for (const tools::CachedLibrary& library : *cache)
      FUZZ_CHECK(!library.soname.empty() && library.path.starts_with('/'));
    scratch.write("etc/ld.so.cache", bytes);
  } else {
    FUZZ_CHECK(cache.error().code == EINVAL);
    std::filesystem::remove(scratch.path("etc/ld.so.cache"));
  }

  scratch.write("program", bytes);
  scratch.write("lib/libself.so", bytes);
  const auto found = tools::elf_libraries(scratch.path("program"), scratch.path(""));
  if (!found) {
    FUZZ_CHECK(found.error().code == ENOEXEC || found.error().code == E2BIG);
    return 0;
  }
  std::set<std::string> once;
  for (const std::string& path : found->paths) FUZZ_CHECK(path.starts_with('/') && once.insert(path).second);
  for (const std::string& missing : found->missing) FUZZ_CHECK(!missing.empty());
  return 0;
}
