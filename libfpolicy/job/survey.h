// SPDX-License-Identifier: LGPL-2.1-or-later
// Observe: which pages a job maps, each once, and where each goes.
#pragma once

#include "job/decide.h"
#include "sys/mapped_vector.h"
#include "sys/process_pages.h"

#include <fpolicy/migrate.h>
#include <fpolicy/topology.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace fpolicy::job {

/// Pages side by side in one process that go the same way.
struct MoveRun {
  std::uint64_t address = 0;
  std::uint32_t process = 0;  ///< as given to Survey::add()
  std::uint32_t group = 0;
  std::uint32_t pages = 0;
  std::uint32_t folio = 1;  ///< they are folios of so many pages
  std::uint16_t source = 0;
  std::uint16_t target = 0;
};
using MoveRuns = sys::MappedVector<MoveRun>;

/// Pages of a file that stay on a node which the job's cpuset loses: to be held while the kernel takes it
/// away.
struct StayRun {
  std::uint32_t group = 0;
  std::uint64_t first = 0;  ///< page index in the file
  std::uint64_t count = 0;
};

struct GroupRule {
  Rule rule;
  bool holdable = false;  ///< references on its pages can be taken (a regular file, but not of hugetlbfs)
};

struct SurveyOptions {
  NodeSet leaving;  ///< nodes that --set-cpuset takes away
  NodeSet not_to;   ///< nothing goes there (yet)
  bool own_pages_only = false;
};

/// One mapping of a process. `mapping`: index in the report's mappings, where they are wanted.
struct Mapped {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  std::uint32_t group = 0;
  std::uint32_t mapping = 0;
};

/// Looks at each page of a job once. Memory: a word for each page that is looked at at a time; 32 bytes for
/// each run of pages that go the same way; 40 bytes for each page that is mapped more than once or is
/// interleaved, in blocks of 512 neighbours for those of files.
class Survey {
 public:
  /// `groups` and `mappings` get their counts: of moved pages those that are to be moved. All outlive it;
  /// mappings may be null.
  Survey(sys::PageFrames& frames, const Topology& topology, const NodePairing& pairing,
         std::span<const GroupRule> rules, std::span<MigrateGroup> groups,
         std::vector<MigrateMapping>* mappings, const SurveyOptions& options);
  ~Survey();

  /// One process after the other. Error: page frames that are not shown.
  Status add(std::uint32_t process, sys::ProcessPages& pages, std::span<const Mapped> mapped);
  /// Decides for what several map. Call once, at the end.
  Status finish();

  [[nodiscard]] MoveRuns& moves() { return moves_; }
  /// Sorted, without overlap.
  [[nodiscard]] const std::vector<StayRun>& stays() const { return stays_; }

 private:
  /// A page that more than one mapping may have.
  struct Shared {
    std::uint64_t address = 0;
    std::uint64_t frame = 0;
    std::uint32_t process = 0;
    std::uint32_t count = 0;  ///< of the job's mappings
    std::uint32_t mapping = 0;
    std::uint32_t group = 0;
    std::uint16_t node = 0;
  };
  static constexpr std::uint64_t block_pages = 512;
  using Block = std::array<Shared, block_pages>;
  using Blocks = std::unordered_map<std::uint64_t, std::unique_ptr<Block>>;
  /// Pages side by side in memory and in a process, until their folios are known.
  struct Pending {
    std::uint64_t address = 0;
    std::uint64_t frame = 0;
    std::uint64_t pages = 0;
    std::uint64_t index = 0;  ///< in the file
    std::uint32_t process = 0;
    std::uint32_t group = 0;
    std::uint32_t mapping = 0;
    std::uint16_t source = 0;
    std::uint16_t target = 0;
    bool of_file = false;
  };
  /// A large folio of which the job maps a part or all.
  struct Folio {
    std::uint64_t head = 0;  ///< frame
    std::uint64_t end = 0;
    std::vector<std::size_t> pages;  ///< those that the job maps: which of the pages that were asked for
  };

  void add_range(std::uint32_t process, sys::ProcessPages& pages, const Mapped& mapped, std::uint64_t start,
                 std::uint64_t end);
  /// Mappings close to each other, and forgets them.
  void add_small(std::uint32_t process, sys::ProcessPages& pages, std::vector<const Mapped*>& small);
  /// Of pages from `start` on.
  void add_entries(std::uint32_t process, sys::ProcessPages& pages, const Mapped& mapped, std::uint64_t start,
                   std::span<const sys::PageEntry> entries);
  void add_page(std::uint32_t process, const Mapped& mapped, std::uint64_t address, sys::PageEntry entry,
                unsigned node);
  int node_of(std::uint64_t frame, std::uint64_t address, sys::ProcessPages& pages);
  Shared& shared_file_page(std::uint32_t group, std::uint64_t index);
  Status finish_files();
  Status finish_private();
  /// Which of them nobody outside the job maps.
  Result<std::vector<bool>> exclusive(std::span<const Shared* const> pages);
  /// Which of them, in the order of their frames: `all`, or those that may have to move.
  [[nodiscard]] std::vector<std::size_t> by_frame(std::span<const Shared* const> pages, bool all) const;
  /// The large folios among them.
  Result<std::vector<Folio>> folios(std::span<const Shared* const> pages);
  int find_folio(std::uint64_t frame, std::uint64_t& head, std::uint64_t& end);
  /// Nobody outside the job maps any of its pages.
  Result<bool> is_alone(const Folio& folio, std::span<const Shared* const> pages);
  [[nodiscard]] bool needs_to_be_alone(std::uint32_t group) const;
  void enter(const Shared& page, unsigned target, std::uint64_t index, bool of_file);
  void stay(std::uint32_t group, std::uint64_t index);
  void account(std::uint32_t group, std::uint32_t mapping, unsigned node, unsigned target);
  void move(const Pending& page);
  void flush();
  void flush_file(std::uint64_t pages);
  /// Of the pending run, whose flags are in words_.
  [[nodiscard]] std::uint64_t end_of_folio(std::uint64_t first, std::uint64_t pages) const;
  /// Takes pages of the pending run out of the account again, to be decided at the end.
  void defer(std::uint64_t offset, std::uint64_t pages);
  void append(std::uint64_t offset, std::uint64_t pages, std::uint64_t folio);
  void sort_stays();

  sys::PageFrames& frames_;
  const Topology& topology_;
  const NodePairing& pairing_;
  std::span<const GroupRule> rules_;
  std::span<MigrateGroup> groups_;
  std::vector<MigrateMapping>* mappings_;
  const SurveyOptions options_;
  const std::uint64_t page_size_;
  const std::uint32_t smallest_private_folio_;
  std::vector<sys::PageEntry> entries_;
  PfnRange last_range_;
  std::vector<Blocks> files_;  ///< by group
  std::uint32_t last_group_ = 0;
  std::uint64_t last_block_ = 0;
  Block* last_ = nullptr;
  std::unordered_map<std::uint64_t, Shared> private_;  ///< by frame
  Pending pending_;
  std::vector<std::uint64_t> words_;
  MoveRuns moves_;
  std::vector<StayRun> stays_;
  bool finishing_ = false;
  int error_ = 0;
};

}  // namespace fpolicy::job
