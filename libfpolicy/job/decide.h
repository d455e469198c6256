// SPDX-License-Identifier: LGPL-2.1-or-later
// Decide: what becomes of each mapping's pages when a job moves. Pure.
#pragma once

#include <fpolicy/migrate.h>
#include <fpolicy/process.h>
#include <fpolicy/resolver.h>
#include <fpolicy/topology.h>

#include <cstdint>
#include <optional>
#include <string>

namespace fpolicy::job {

/// A System V segment's inode number is its id, and the first of all has 0: its name tells.
bool is_of_file(const Vma& vma);

/// What a mapping is of, as far as its line in /proc/PID/maps tells: `file` may yet prove to be a device.
MappingKind classify(const Vma& vma);

/// A mapped file as its inode shows it.
struct MappedFile {
  enum class Nature : std::uint8_t {
    regular,
    device,  ///< no regular file, or one of a filesystem that shows the kernel's insides: no pages of its own
    direct_access  ///< DAX: its pages are where its device is
  };
  Nature nature = Nature::regular;
  /// Nothing where none could be asked.
  std::optional<Effective> policy;
};

/// What becomes of the pages of a group of mappings.
struct Rule {
  MigrateDecision decision = MigrateDecision::follow;  ///< of the file's pages
  bool private_stays = false;                          ///< private copies stay as well
  Target target;                                       ///< of MigrateDecision::placement
  std::string reason;
};

/// For memory of no file.
Rule rule_for(MappingKind kind);
/// `to`: relative placements are evaluated within.
Rule rule_for(const MappedFile& file, const Topology& topology, const NodeSet& to);

/// Where a page on `node` goes; `node` itself where it stays. `index`: of the page in its file, used by
/// MigrateDecision::placement. `exclusive`: nobody outside the job maps it.
unsigned target_of_file_page(const Rule& rule, const NodePairing& pairing, std::uint64_t index, unsigned node,
                             bool exclusive);
unsigned target_of_private_page(const Rule& rule, const NodePairing& pairing, unsigned node);

/// What is too little for what arrives: "node 2 lacks 12 MiB: …". Empty where all fits. `arriving`,
/// `leaving`: pages by node; `room`: pages by node that can be taken there.
std::string lacking_room(const std::vector<std::uint64_t>& arriving,
                         const std::vector<std::uint64_t>& leaving, const std::vector<std::uint64_t>& room,
                         std::uint64_t page_size);

}  // namespace fpolicy::job
