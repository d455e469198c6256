// SPDX-License-Identifier: LGPL-2.1-or-later
// The shared libraries that an executable loads, found as ld.so(8) of glibc finds them, without running it.
#pragma once

#include <fpolicy/result.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy::tools {

/// One name of the loader's cache.
struct CachedLibrary {
  std::string soname;
  std::string path;
  std::int32_t flags = 0;   ///< type and ABI of the library (glibc: sysdeps/generic/ldconfig.h)
  std::uint64_t hwcap = 0;  ///< not 0: for some processors only
};

/// Parses /etc/ld.so.cache in glibc's new format ("glibc-ld.so.cache1.1"), in the file's order. Error: EINVAL
/// where it is damaged or in another format.
Result<std::vector<CachedLibrary>> parse_ld_cache(std::string_view bytes);

struct ElfLibraries {
  std::vector<std::string>
      paths;  ///< the interpreter, then libraries in the order of loading (breadth first)
  std::vector<std::string> missing;  ///< needed, found nowhere: "libx.so.1 (needed by /usr/bin/y)"
};

/// `root`: where /etc/ld.so.cache and the default directories are; "" on a live system. LD_LIBRARY_PATH and
/// LD_PRELOAD are the user's, not the executable's, and are not looked at. Error: ENOEXEC for what is no
/// dynamic ELF file, E2BIG for one whose libraries would have to be looked for in more places than any real
/// one's. One that needs nothing gives no paths.
Result<ElfLibraries> elf_libraries(const std::string& path, const std::string& root = "");

}  // namespace fpolicy::tools
