// SPDX-License-Identifier: LGPL-2.1-or-later
// Sums of audits, and how they are drawn.
#pragma once

#include <fpolicy/audit.h>

#include <cstdint>
#include <string>

namespace fpolicy::tools {

/// Adds a file's numbers to a directory's; the worst state of any file is the directory's.
void add_to_sum(AuditedFile& sum, const AuditedFile& file);

/// A strip of `width` cells over the whole file: the node that most resident pages of a cell are on, in
/// digits and letters; "." where none is resident.
std::string page_map(const AuditedFile& file, std::size_t width);

/// A bar of `width` cells at most, in eighths of a cell.
std::string bar(std::uint64_t part, std::uint64_t whole, std::size_t width);

}  // namespace fpolicy::tools
