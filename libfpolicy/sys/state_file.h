// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fpolicy/result.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace fpolicy::sys {

/// Makes the directory of a file, if it is missing (0700, one level).
Status make_directory_of(const std::string& path);

/// The size of a regular file in bytes; nothing where there is nothing at all. Error: EPERM where somebody
/// other than its owner may write it, or its owner is neither root nor the caller, nor, in the directory of
/// the default database, the user to whom root has given that directory.
Result<std::optional<std::uint64_t>> private_file_size(const std::string& path);

/// Creates an empty file that only its owner may read; it must not exist.
Status create_private_file(const std::string& path);

/// Gives a finished file its name, unless there is one of that name already, and makes both lasting.
/// `temporary` is gone afterwards in any case.
Status publish_file(const std::string& temporary, const std::string& path);

/// The same, but a file of that name is an error (EEXIST), or with `replace` gives way.
Status publish_file_as(const std::string& temporary, const std::string& path, bool replace);

/// Can nobody write this file, since its filesystem is mounted read-only?
bool on_read_only_filesystem(const std::string& path);

/// Makes the pages of a shared file mapping present and writable now. False where writing to them would be
/// SIGBUS: the disk is full. A mapping that is not writable is left alone.
bool populate_writable(void* memory, std::size_t size);

/// Do both names lead to one file?
bool same_file(const std::string& one, const std::string& other);

}  // namespace fpolicy::sys
