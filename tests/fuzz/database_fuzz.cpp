// SPDX-License-Identifier: LGPL-2.1-or-later
// Input: changes to the bytes of a good database, each an offset (16 bits, big-endian) and a byte; or, after
// 0xff, the whole file. Whatever the file holds, it is refused, or read and written without end or fault.
#include "check.h"
#include "scratch.h"

#include <fpolicy/store.h>

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <iterator>
#include <set>

using namespace fpolicy;

namespace {

constexpr std::array mischief{EUCLEAN, EINVAL, ENOTSUP, EIO, EROFS, ENOSPC, ENOMEM, EBUSY, EACCES};

TagRecord record(unsigned number) {
  TagRecord made;
  made.identity = {number % 3 == 0 ? "uuid:a" : "boot:b", fmt::format("h{}", number), 42};
  made.space = number % 2 == 0 ? Space::system : Space::user;
  made.carrier = number % 5 == 0 ? Carrier::database : Carrier::xattr;
  made.policy = number % 4 == 0 ? "interleave:0-3,migrate=no" : "bind:1";
  made.path = fmt::format("/srv/{}", number);
  made.changed_ns = number;
  return made;
}

void check_error(const Error& error, const std::string& path) {
  FUZZ_CHECK(error.message.find(path) != std::string::npos);
  bool known = false;
  for (const int code : mischief) known = known || error.code == code;
  if (!known) std::fprintf(stderr, "%d: %s\n", error.code, error.message.c_str());
  FUZZ_CHECK(known);
}

template <class T>
void check(const Result<T>& result, const std::string& path) {
  if (!result) check_error(result.error(), path);
}

void use(Database& database, const std::string& path) {
  for (const unsigned number : {0U, 1U, 30U, 99U}) {
    const TagRecord one = record(number);
    const auto found = database.find_identity(one.identity, one.space);
    check(found, path);
    if (found && *found) FUZZ_CHECK((*found)->path.find('\0') == std::string::npos);
  }
  for (const char* prefix : {"", "/srv/2"}) {
    // As many as the file can hold, and a few more.
    std::size_t rows = 0;
    const auto listed = database.for_each(prefix, [&](const TagRecord& each) {
      FUZZ_CHECK(each.path.starts_with(prefix));
      FUZZ_CHECK(++rows < 100'000);
      return true;
    });
    check(listed, path);
  }
  FileRef file;
  file.name = "/";
  check(database.carries_tags(file), path);
  check(database.data_version(), path);
  if (!database.writable()) return;
  const std::array some{record(1), record(200)};
  check(database.put(some), path);
  check(database.erase(some), path);
}

std::string good_database(const Scratch& scratch) {
  const std::string path = scratch.path("db");
  Identifier identifier;
  {
    auto database = Database::open(path, Database::Access::read_write, &identifier);
    FUZZ_CHECK(database);
    std::vector<TagRecord> records;
    for (unsigned i = 0; i < 60; ++i) records.push_back(record(i));
    FUZZ_CHECK((*database)->put(records));
  }
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Scratch scratch;
  static const std::string good = good_database(scratch);
  static Identifier identifier;
  FUZZ_CHECK(good.size() > 4096 && good.size() <= 65536);
  const std::string_view input = fuzz_text(data, size);
  std::string bytes = good;
  if (input.starts_with('\xff')) {
    bytes = input.substr(1);
  } else {
    for (std::size_t i = 0; i + 3 <= input.size(); i += 3) {
      const std::size_t at =
          (static_cast<std::size_t>(data[i]) << 8U | static_cast<std::size_t>(data[i + 1])) % good.size();
      bytes[at] = input[i + 2];
    }
  }
  const std::string path = scratch.path("db");
  for (const auto access : {Database::Access::read_only, Database::Access::read_write}) {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
      std::error_code ignored;
      std::filesystem::remove(path + suffix, ignored);
    }
    scratch.write("db", bytes);
    const auto database = Database::open(path, access, &identifier);
    if (database)
      use(**database, path);
    else
      check_error(database.error(), path);
  }
  return 0;
}
