// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/survey.h"

#include "fake_job.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace fpolicy::job {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t page_size = FakeMachine::page_size;
constexpr std::uint64_t base = 0x7f0000000000;

using Part = std::tuple<std::uint32_t, std::uint64_t, std::uint32_t, std::uint32_t, unsigned, unsigned>;
/// Process, page from `base`, pages, folio, source, target.
std::vector<Part> runs_of(const MoveRuns& moves) {
  std::vector<Part> runs;
  for (const MoveRun& run : moves)
    runs.emplace_back(run.process, (run.address - base) / page_size, run.pages, run.folio, run.source,
                      run.target);
  return runs;
}

using Stay = std::tuple<std::uint32_t, std::uint64_t, std::uint64_t>;
std::vector<Stay> stays_of(const std::vector<StayRun>& stays) {
  std::vector<Stay> runs;
  for (const StayRun& run : stays) runs.emplace_back(run.group, run.first, run.count);
  return runs;
}

class SurveyTest : public testing::Test {
 protected:
  std::vector<Part> survey(const SurveyOptions& options = {}) {
    const auto moves = job.survey(pairing, options);
    EXPECT_TRUE(moves) << moves.error().message;
    return moves ? runs_of(*moves) : std::vector<Part>{};
  }
  FakeJob job;
  NodePairing pairing{NodeSet{0, 1}, NodeSet{2, 3}};
};

TEST_F(SurveyTest, NothingIsNothing) {
  job.add_process();
  EXPECT_THAT(survey(), IsEmpty());
}

TEST_F(SurveyTest, AnonymousPagesKeepTheirLayout) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 4), 4, group);
  job.map(process, base + 4 * page_size, job.machine.add(1, 3), 3, group);
  job.map(process, base + 7 * page_size, job.machine.add(3, 2), 2, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 4, 1, 0, 2), Part(0, 4, 3, 1, 1, 3)));
  const MigrateGroup& found = job.groups[group];
  EXPECT_THAT(found.before, ElementsAre(4, 3, 0, 2));
  EXPECT_THAT(found.after, ElementsAre(0, 0, 4, 5));
  EXPECT_EQ(found.counts.moved, 7U);
  EXPECT_EQ(found.counts.stayed, 2U);
  EXPECT_EQ(job.mappings[0].resident, 4U);
  EXPECT_EQ(job.mappings[0].moves, 4U);
  EXPECT_EQ(job.mappings[2].resident, 2U);
  EXPECT_EQ(job.mappings[2].moves, 0U);
}

TEST_F(SurveyTest, SparseRangesAreJoinedOnlyWhereAddressesMeet) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  const auto first = job.machine.add(0, 6);
  job.add_mapping(process, base, 1U << 20U, group);
  // Frames side by side at addresses that are not.
  job.raw[process]->map(base, first, 3);
  job.raw[process]->map(base + 1000 * page_size, first + 3, 3);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 3, 1, 0, 2), Part(0, 1000, 3, 1, 0, 2)));
  EXPECT_EQ(job.raw[process]->entries_read, 6U) << "what is not there is not read";
}

TEST_F(SurveyTest, SmallMappingsCloseToEachOtherAreReadTogether) {
  const auto group = job.add_group();
  const auto other = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.map(process, base + 2 * page_size, job.machine.add(2, 3), 3, other);
  job.map(process, base + 20 * page_size, job.machine.add(0, 1), 1, group);
  job.map(process, base + 1000 * page_size, job.machine.add(0, 2), 2, group);
  // What is in no mapping may have come since they were listed: it is looked at by nobody.
  job.raw[process]->map(base + 10 * page_size, job.machine.add(0, 1), 1);
  EXPECT_THAT(survey(),
              ElementsAre(Part(0, 0, 2, 1, 0, 2), Part(0, 20, 1, 1, 0, 2), Part(0, 1000, 2, 1, 0, 2)));
  EXPECT_EQ(job.raw[process]->reads, 2U);
  EXPECT_EQ(job.raw[process]->entries_read, 23U);
  EXPECT_EQ(job.groups[other].counts.stayed, 3U);
}

TEST_F(SurveyTest, WithoutScanEachWordIsReadInPieces) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.raw[process]->scans = false;
  const auto first = job.machine.add(0, 2);
  job.add_mapping(process, base, 200'000, group);
  job.raw[process]->map(base + 65'535 * page_size, first, 2);  // across the pieces
  EXPECT_THAT(survey(), ElementsAre(Part(0, 65'535, 2, 1, 0, 2)));
  EXPECT_EQ(job.raw[process]->entries_read, 200'000U);
  EXPECT_LE(job.raw[process]->longest_read, 65'536U);
}

TEST_F(SurveyTest, FilePagesOfSeveralProcessesAreCountedAndMovedOnce) {
  const auto group = job.add_file(MigrateDecision::follow);
  const auto file = job.machine.add(0, 10, true);
  for (int i = 0; i < 3; ++i) job.map(job.add_process(), base, file, 10, group);
  // Another view of a part of it, at another offset.
  job.map(1, base + 100 * page_size, file + 4, 2, group, 4);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 10, 1, 0, 2)));
  EXPECT_THAT(job.groups[group].before, ElementsAre(10));
  EXPECT_THAT(trimmed(job.groups[group].after), ElementsAre(0, 0, 10));
  EXPECT_EQ(job.groups[group].counts.moved, 10U);
  EXPECT_EQ(job.mappings[0].moves, 10U) << "they stand with the first";
  EXPECT_EQ(job.mappings[1].moves, 0U);
  EXPECT_EQ(job.mappings[1].resident, 10U);
}

TEST_F(SurveyTest, UntaggedPagesFollowUnlessOutsidersMapThem) {
  const auto group = job.add_file(MigrateDecision::exclusive);
  const auto file = job.machine.add(0, 300, true);
  for (int i = 0; i < 2; ++i) job.map(job.add_process(), base, file, 300, group);
  job.machine.map_outside(file + 100, 50);
  // The job maps these five times, an outsider once: the count is not a yes or no.
  job.map(0, base + 1000 * page_size, file + 200, 3, group, 200);
  job.machine.map_outside(file + 200, 1);
  EXPECT_THAT(survey(),
              ElementsAre(Part(0, 0, 100, 1, 0, 2), Part(0, 150, 50, 1, 0, 2), Part(0, 201, 99, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.moved, 249U);
  EXPECT_EQ(job.groups[group].counts.stayed, 51U);
  EXPECT_THAT(job.groups[group].after, ElementsAre(51, 0, 249));
}

TEST_F(SurveyTest, AnUntaggedPageThatOneMappingHasAndNobodyElseFollows) {
  const auto group = job.add_file(MigrateDecision::exclusive);
  const auto file = job.machine.add(1, 8, true);
  job.map(job.add_process(), base, file, 8, group);
  job.machine.map_outside(file + 3, 1, 7);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 3, 1, 1, 3), Part(0, 4, 4, 1, 1, 3)));
  EXPECT_EQ(job.groups[group].counts.stayed, 1U);
}

TEST_F(SurveyTest, SharedFilesOfTwoGroupsAreKeptApart) {
  const auto one = job.add_file(MigrateDecision::follow);
  const auto two = job.add_file(MigrateDecision::stay);
  const auto first = job.machine.add(0, 4, true);
  const auto second = job.machine.add(0, 4, true);
  for (int i = 0; i < 2; ++i) {
    const auto process = job.add_process();
    // Page by page in turn, so that what was looked at last is always another.
    for (unsigned page = 0; page < 4; ++page) {
      job.map(process, base + 2UL * page * page_size, first + page, 1, one, page);
      job.map(process, base + (2 * page + 1) * page_size, second + page, 1, two, page);
    }
  }
  survey();
  EXPECT_EQ(job.groups[one].counts.moved, 4U);
  EXPECT_EQ(job.groups[two].counts.moved, 0U);
  EXPECT_EQ(job.groups[two].counts.stayed, 4U);
}

TEST_F(SurveyTest, BlocksOfAFileMeetWithoutGap) {
  const auto group = job.add_file(MigrateDecision::follow);
  const auto file = job.machine.add(0, 1200, true);
  for (int i = 0; i < 2; ++i) job.map(job.add_process(), base, file, 1200, group, 500);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 1200, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.moved, 1200U);
}

TEST_F(SurveyTest, PrivatePagesSharedByForkAreCountedOnce) {
  const auto group = job.add_group();
  const auto pages = job.machine.add(0, 20);
  for (int i = 0; i < 3; ++i) job.map(job.add_process(), base, pages, 20, group);
  const auto own = job.machine.add(1, 5);
  job.map(2, base + 50 * page_size, own, 5, group);
  EXPECT_THAT(survey(), testing::UnorderedElementsAre(Part(0, 0, 20, 1, 0, 2), Part(2, 50, 5, 1, 1, 3)));
  EXPECT_THAT(job.groups[group].before, ElementsAre(20, 5));
  EXPECT_EQ(job.groups[group].counts.moved, 25U);
}

TEST_F(SurveyTest, PrivateCopiesOfAFileFollowThoughItsPagesStay) {
  const auto group = job.add_file(MigrateDecision::stay);
  const auto process = job.add_process();
  const auto file = job.machine.add(0, 4, true);
  const auto copies = job.machine.add(0, 2);
  job.add_mapping(process, base, 6, group);
  job.raw[process]->map(base, file, 2);
  job.raw[process]->map(base + 2 * page_size, copies, 2);
  job.raw[process]->map(base + 4 * page_size, file + 2, 2);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 2, 2, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.stayed, 4U);
  EXPECT_EQ(job.groups[group].counts.moved, 2U);
}

TEST_F(SurveyTest, MigrateNoLeavesPrivateCopies) {
  Rule rule;
  rule.decision = MigrateDecision::stay;
  rule.private_stays = true;
  const auto group = job.add_group(MappingKind::file, rule, true);
  const auto copies = job.machine.add(0, 2);
  job.map(job.add_process(), base, copies, 2, group);
  EXPECT_THAT(survey(), IsEmpty());
  EXPECT_EQ(job.groups[group].counts.stayed, 2U);
}

TEST_F(SurveyTest, ZeroPagesAndDeviceMemoryAreSkipped) {
  const auto group = job.add_group();
  const auto zero = job.machine.add(0, 1);
  job.machine.pages[zero].special = job.machine.pages[zero].zero = true;
  const auto device = job.machine.add(0, 3);
  for (int i = 0; i < 3; ++i) job.machine.pages[device + static_cast<unsigned>(i)].special = true;
  const auto own = job.machine.add(0, 1);
  for (int i = 0; i < 2; ++i) {
    const auto process = job.add_process();
    for (unsigned page = 0; page < 5; ++page) job.map(process, base + page * page_size, zero, 1, group);
    job.map(process, base + 5 * page_size, device, 3, group);
    job.map(process, base + 8 * page_size, own, 1, group);
  }
  EXPECT_THAT(survey(), ElementsAre(Part(0, 8, 1, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.skipped, 4U);
  EXPECT_THAT(trimmed(job.groups[group].before), ElementsAre(1));
}

TEST_F(SurveyTest, AHugeZeroPageIsSkipped) {
  // /proc/PID/pagemap calls it a file's page, for it is not anonymous.
  const auto group = job.add_group();
  const auto zero = job.machine.add_folios(0, 1, 512, true);
  for (unsigned i = 0; i < 512; ++i) job.machine.pages[zero + i].zero = true;
  job.machine.map_outside(zero, 512, 5);
  const auto process = job.add_process();
  job.map(process, base, zero, 512, group);
  job.map(process, base + 1024 * page_size, zero, 512, group);
  EXPECT_THAT(survey(), IsEmpty());
  EXPECT_EQ(job.groups[group].counts.moved, 0U);
  EXPECT_GT(job.groups[group].counts.skipped, 0U);
}

TEST_F(SurveyTest, SpecialMappingsAreNotLookedAt) {
  const auto group = job.add_group(MappingKind::special);
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  EXPECT_THAT(survey(), IsEmpty());
  EXPECT_EQ(job.raw[process]->entries_read, 0U);
}

TEST_F(SurveyTest, DirectAccessSkipsFilePagesAndMovesCopies) {
  const auto group = job.add_file(MigrateDecision::skip);
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 3, true), 3, group);
  job.map(process, base + 3 * page_size, job.machine.add(0, 2), 2, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 3, 2, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.skipped, 3U);
}

// --- folios

TEST_F(SurveyTest, HugePagesMoveWhole) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add_folios(0, 3, 512), 3UL * 512, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 1536, 512, 0, 2)));
  EXPECT_LE(job.machine.flags_read, 6U) << "a word for each huge page is enough";
}

TEST_F(SurveyTest, SmallPagesSideBySideAreNoHugePage) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  const auto pages = job.machine.add(0, 2000);
  job.map(process, base, pages, 2000, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 2000, 1, 0, 2)));
}

TEST_F(SurveyTest, AHugePageAmongSmallOnes) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  const auto before = job.machine.add(0, 512);
  const auto huge = job.machine.add_folios(0, 1, 512);
  const auto after = job.machine.add(0, 512);
  job.map(process, base, before, 512, group);
  job.map(process, base + 512 * page_size, huge, 512, group);
  job.map(process, base + 1024 * page_size, after, 512, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 512, 1, 0, 2), Part(0, 512, 512, 512, 0, 2),
                                    Part(0, 1024, 512, 1, 0, 2)));
}

TEST_F(SurveyTest, ARunThatBeginsInTheMiddleOfAHugePage) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  const auto huge = job.machine.add_folios(0, 2, 512);
  // The first 100 pages are not mapped (any more).
  job.map(process, base, huge + 100, 924, group);
  const auto runs = survey();
  std::uint64_t pages = 0;
  for (const Part& run : runs) pages += std::get<2>(run);
  EXPECT_EQ(pages, 924U);
  EXPECT_EQ(runs.back(), Part(0, 412, 512, 512, 0, 2));
}

TEST_F(SurveyTest, FoliosOfOtherSizesWhereTheyAreSwitchedOn) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.machine.smallest_folio = 4;
  const auto small = job.machine.add(0, 8);
  const auto four = job.machine.add_folios(0, 3, 4);
  const auto sixteen = job.machine.add_folios(0, 2, 16);
  job.map(process, base, small, 8, group);
  job.map(process, base + 8 * page_size, four, 12, group);
  job.map(process, base + 20 * page_size, sixteen, 32, group);
  EXPECT_THAT(survey(),
              ElementsAre(Part(0, 0, 8, 1, 0, 2), Part(0, 8, 12, 4, 0, 2), Part(0, 20, 32, 16, 0, 2)));
}

TEST_F(SurveyTest, FoliosThatTheRunShowsInPart) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.machine.smallest_folio = 4;
  const auto folios = job.machine.add_folios(0, 3, 8);
  job.map(process, base, folios + 5, 15, group);  // 3, 8, 4 pages
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 3, 3, 0, 2), Part(0, 3, 8, 8, 0, 2), Part(0, 11, 4, 4, 0, 2)));
}

TEST_F(SurveyTest, AFilesFoliosAreFoundWhateverTheirSize) {
  const auto group = job.add_file(MigrateDecision::follow);
  const auto process = job.add_process();
  const auto folios = job.machine.add_folios(1, 2, 2, true);
  const auto large = job.machine.add_folios(1, 1, 64, true);
  job.map(process, base, folios, 4, group);
  job.map(process, base + 4 * page_size, large, 64, group, 4);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 4, 2, 1, 3), Part(0, 4, 64, 64, 1, 3)));
}

TEST_F(SurveyTest, FlagsThatCannotBeReadMakeSmallPages) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  const auto file = job.add_file(MigrateDecision::follow);
  job.map(process, base, job.machine.add_folios(0, 1, 512), 512, group);
  job.map(process, base + 512 * page_size, job.machine.add_folios(0, 1, 4, true), 4, file);
  job.machine.flags_error = EIO;
  // finish() reads the flags of private pages that may be shared; there are none.
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 512, 1, 0, 2), Part(0, 512, 4, 1, 0, 2)));
}

TEST_F(SurveyTest, AHugePageOfOneGibibyte) {
  constexpr std::size_t pages = 262'144;
  const auto group = job.add_group();
  const auto file = job.add_file(MigrateDecision::follow);
  const auto process = job.add_process();
  job.map(process, base, job.machine.add_folios(0, 1, pages), pages, group);
  job.map(process, base + pages * page_size, job.machine.add_folios(1, 1, pages, true), pages, file);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, pages, pages, 0, 2), Part(0, pages, pages, pages, 1, 3)));
}

// --- placement

TEST_F(SurveyTest, InterleaveGoesByTheFilesIndex) {
  Rule rule;
  rule.decision = MigrateDecision::placement;
  rule.target = {Mode::interleave, {2, 3}, {2, 3}};
  const auto group = job.add_group(MappingKind::file, rule, true);
  job.map(job.add_process(), base, job.machine.add(0, 4, true), 4, group, 7);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 1, 1, 0, 3), Part(0, 1, 1, 1, 0, 2), Part(0, 2, 1, 1, 0, 3),
                                    Part(0, 3, 1, 1, 0, 2)));
}

TEST_F(SurveyTest, AnInterleavedFolioGoesWholeByItsFirstPage) {
  Rule rule;
  rule.decision = MigrateDecision::placement;
  rule.target = {Mode::interleave, {2, 3}, {2, 2, 2, 2, 3, 3, 3}};
  const auto group = job.add_group(MappingKind::file, rule, true);
  const auto process = job.add_process();
  const auto folios = job.machine.add_folios(0, 3, 4, true);
  // The file's pages 4 to 15, of which 5 to 14 are mapped; page 8 goes to node 2, 4 and 12 to node 3.
  job.map(process, base, folios + 1, 10, group, 5);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 3, 3, 0, 3), Part(0, 3, 4, 4, 0, 2), Part(0, 7, 3, 3, 0, 3)));
  EXPECT_EQ(job.mappings[0].moves, 10U);
}

// --- folios that others map in part

TEST_F(SurveyTest, AFolioThatOutsidersMapElsewhereStays) {
  const auto group = job.add_file(MigrateDecision::exclusive);
  const auto process = job.add_process();
  const auto folios = job.machine.add_folios(0, 4, 16, true);
  job.map(process, base, folios, 10, group);                            // the outsider has pages 12, 13
  job.map(process, base + 16 * page_size, folios + 16, 16, group, 16);  // nobody else
  job.map(process, base + 35 * page_size, folios + 35, 3, group, 35);   // in part, nobody else
  job.map(process, base + 50 * page_size, folios + 50, 14, group, 50);  // the outsider has pages 48, 49
  job.machine.map_outside(folios + 12, 2);
  job.machine.map_outside(folios + 48, 2);
  EXPECT_THAT(survey(), testing::UnorderedElementsAre(Part(0, 16, 16, 16, 0, 2), Part(0, 35, 3, 3, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.moved, 19U);
  EXPECT_EQ(job.groups[group].counts.stayed, 24U);
  EXPECT_THAT(job.groups[group].before, ElementsAre(43));
  EXPECT_EQ(job.mappings[0].moves, 0U);
  EXPECT_EQ(job.mappings[0].resident, 10U);
  EXPECT_EQ(job.mappings[2].moves, 3U);
}

TEST_F(SurveyTest, AFolioThatTheJobsProcessesMapInPartsFollows) {
  const auto group = job.add_file(MigrateDecision::exclusive);
  const auto folios = job.machine.add_folios(0, 1, 1024, true);
  job.map(job.add_process(), base, folios + 600, 300, group, 600);
  job.map(job.add_process(), base, folios + 700, 324, group, 700);
  const auto runs = survey();
  EXPECT_EQ(job.groups[group].counts.moved, 424U);
  EXPECT_THAT(runs, ElementsAre(Part(0, 0, 300, 300, 0, 2), Part(1, 200, 124, 124, 0, 2)));
  // And not once an outsider has the folio's first page, 600 pages before.
  job.groups[group].counts = {};
  job.machine.map_outside(folios, 1);
  EXPECT_THAT(survey(), IsEmpty());
  EXPECT_EQ(job.groups[group].counts.stayed, 424U);
}

TEST_F(SurveyTest, OwnPagesOnlyCountsFoliosToo) {
  const auto group = job.add_file(MigrateDecision::follow);
  const auto folios = job.machine.add_folios(0, 2, 8, true);
  job.map(job.add_process(), base, folios + 1, 14, group, 1);
  job.machine.map_outside(folios, 1);
  EXPECT_THAT(survey({.leaving = {}, .not_to = {}, .own_pages_only = true}),
              ElementsAre(Part(0, 7, 7, 7, 0, 2)));
}

// --- what the cpuset loses

TEST_F(SurveyTest, WhatStaysOnALeavingNodeIsToBeHeld) {
  const auto stays = job.add_file(MigrateDecision::stay);
  const auto shared = job.add_file(MigrateDecision::exclusive);
  const auto process = job.add_process();
  const auto other = job.add_process();
  const auto one = job.machine.add(0, 10, true);
  const auto two = job.machine.add(1, 10, true);
  job.machine.map_outside(two, 10);
  // The second process sees it first at its end, and the first one alone at its beginning.
  job.map(process, base, one + 4, 6, stays, 4);
  job.map(process, base + 100 * page_size, two, 10, shared, 500);
  job.map(other, base, one, 6, stays);
  const auto home = job.machine.add(2, 3, true);
  job.map(other, base + 200 * page_size, home, 3, stays, 1000);
  survey({.leaving = {0, 1}, .not_to = {}, .own_pages_only = false});
  EXPECT_THAT(stays_of(job.stays), ElementsAre(Stay(stays, 0, 10), Stay(shared, 500, 10)))
      << "sorted and joined; what lies on a node that stays needs nothing";
  EXPECT_EQ(job.groups[stays].counts.forced, 0U);
  EXPECT_EQ(job.groups[stays].counts.stayed, 13U);
}

TEST_F(SurveyTest, WhatCannotBeHeldIsForced) {
  Rule no;
  no.decision = MigrateDecision::stay;
  no.private_stays = true;
  const auto group = job.add_group(MappingKind::file, no, true);
  const auto hugetlb = job.add_group(MappingKind::file, no, false);
  const auto process = job.add_process();
  const auto other = job.add_process();
  const auto copies = job.machine.add(0, 3);
  const auto forked = job.machine.add(1, 2);
  job.map(process, base, copies, 3, group);
  job.map(process, base + 10 * page_size, forked, 2, group, 10);
  job.map(other, base + 10 * page_size, forked, 2, group, 10);
  job.map(process, base + 1024 * page_size, job.machine.add_folios(0, 1, 512, true), 512, hugetlb);
  const auto elsewhere = job.machine.add(3, 2);
  job.map(process, base + 20 * page_size, elsewhere, 2, group, 20);
  survey({.leaving = {0, 1}, .not_to = {}, .own_pages_only = false});
  EXPECT_THAT(job.stays, IsEmpty());
  EXPECT_EQ(job.groups[group].counts.forced, 5U);
  EXPECT_EQ(job.groups[group].counts.stayed, 7U);
  EXPECT_EQ(job.groups[hugetlb].counts.forced, 512U);
}

TEST_F(SurveyTest, WhatMovesIsNotHeld) {
  const auto file = job.add_file(MigrateDecision::follow);
  job.map(job.add_process(), base, job.machine.add(0, 10, true), 10, file);
  survey({.leaving = {0, 1}, .not_to = {}, .own_pages_only = false});
  EXPECT_THAT(job.stays, IsEmpty());
  EXPECT_EQ(job.groups[file].counts.forced, 0U);
}

TEST_F(SurveyTest, NothingGoesWhereItMayNotYet) {
  pairing = NodePairing({0, 1}, {1, 2});
  const auto group = job.add_group();
  const auto file = job.add_file(MigrateDecision::follow);
  const auto process = job.add_process();
  const auto other = job.add_process();
  job.map(process, base, job.machine.add(0, 5), 5, group);
  job.map(process, base + 5 * page_size, job.machine.add(1, 5), 5, group);
  for (unsigned node = 0; node < 2; ++node) {
    const auto pages = job.machine.add(node, 3, true);
    job.map(process, base + (10 + 3UL * node) * page_size, pages, 3, file, 3UL * node);
    job.map(other, base + (10 + 3UL * node) * page_size, pages, 3, file, 3UL * node);
  }
  EXPECT_THAT(survey({.leaving = {}, .not_to = {0, 1}, .own_pages_only = false}),
              testing::UnorderedElementsAre(Part(0, 5, 5, 1, 1, 2), Part(0, 13, 3, 1, 1, 2)));
  EXPECT_EQ(job.groups[group].counts.stayed, 5U);
  EXPECT_EQ(job.groups[file].counts.stayed, 3U);
}

// --- on the word of others

TEST_F(SurveyTest, OwnPagesOnlyWhateverThePolicySays) {
  const auto group = job.add_group();
  const auto file = job.add_file(MigrateDecision::follow);
  const auto process = job.add_process();
  const auto other = job.add_process();
  const auto forked = job.machine.add(0, 4);  // by a process that has left the job
  job.map(process, base, forked, 4, group);
  job.machine.map_outside(forked, 2);
  const auto pages = job.machine.add(0, 6, true);
  for (const auto each : {process, other}) job.map(each, base + 10 * page_size, pages, 6, file);
  job.machine.map_outside(pages + 3, 3);
  // What two processes of the job map, the kernel moves only for those who may move what others map.
  EXPECT_THAT(survey({.leaving = {}, .not_to = {}, .own_pages_only = true}),
              ElementsAre(Part(0, 2, 2, 1, 0, 2)));
  EXPECT_EQ(job.groups[group].counts.stayed, 2U);
  EXPECT_EQ(job.groups[file].counts.stayed, 6U);
}

TEST_F(SurveyTest, OwnPagesOnlyArePlacedThoughThePairingLeavesThem) {
  Rule rule;
  rule.decision = MigrateDecision::placement;
  rule.target = {Mode::interleave, {2, 3}, {2, 3}};
  const auto group = job.add_group(MappingKind::file, rule, true);
  const auto pages = job.machine.add(2, 4, true);
  job.map(job.add_process(), base, pages, 4, group);
  job.machine.map_outside(pages + 3, 1);
  EXPECT_THAT(survey({.leaving = {}, .not_to = {}, .own_pages_only = true}),
              ElementsAre(Part(0, 1, 1, 1, 2, 3)));
}

// --- faults

TEST_F(SurveyTest, FramesInNoMemoryBlockAreAskedFor) {
  // Node 1's block is another node's as well, and left out.
  std::erase_if(job.topology.frames, [](const PfnRange& range) { return range.node == 1; });
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.map(process, base + 2 * page_size, job.machine.add(1, 3), 3, group);
  job.map(process, base + 5 * page_size, job.machine.add(0, 2), 2, group);
  EXPECT_THAT(survey(), ElementsAre(Part(0, 0, 2, 1, 0, 2), Part(0, 2, 3, 1, 1, 3), Part(0, 5, 2, 1, 0, 2)));
  EXPECT_EQ(job.raw[process]->locates, 3U);
  EXPECT_THAT(job.groups[group].before, ElementsAre(4, 3));
}

TEST_F(SurveyTest, FramesThatNobodyKnowsAreSkipped) {
  job.topology.frames.clear();
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.raw[process]->gone = true;
  EXPECT_THAT(survey(), IsEmpty());
  EXPECT_EQ(job.groups[group].counts.skipped, 2U);
}

TEST_F(SurveyTest, AProcessThatEndsMeanwhileIsNoFault) {
  const auto group = job.add_group();
  for (int i = 0; i < 3; ++i) {
    const auto process = job.add_process();
    job.map(process, base, job.machine.add(0, 2), 2, group);
    job.map(process, base + 8 * page_size, job.machine.add(0, 2), 2, group);
  }
  job.add_mapping(0, base + 4096 * page_size, 2048, group);
  job.raw[0]->die();
  job.raw[0]->present_error = ESRCH;
  job.raw[1]->entries_error = ESRCH;
  EXPECT_THAT(survey(), ElementsAre(Part(2, 0, 2, 1, 0, 2), Part(2, 8, 2, 1, 0, 2)));
}

TEST_F(SurveyTest, AProcessWithoutPagesAnyMoreIsNoFault) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.raw[process]->die();
  job.raw[process]->scans = false;
  EXPECT_THAT(survey(), IsEmpty());
}

TEST_F(SurveyTest, HiddenFrameNumbersAreAFault) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.raw[process]->frames_hidden = true;
  const auto moves = job.survey(pairing);
  ASSERT_FALSE(moves);
  EXPECT_EQ(moves.error().code, EPERM);
}

TEST_F(SurveyTest, WhatCannotBeReadIsAFault) {
  const auto group = job.add_group();
  const auto process = job.add_process();
  job.map(process, base, job.machine.add(0, 2), 2, group);
  job.raw[process]->entries_error = EIO;
  EXPECT_EQ(job.survey(pairing).error().code, EIO);
  job.raw[process]->entries_error = 0;
  job.add_mapping(process, base + 4096 * page_size, 2048, group);
  job.raw[process]->present_error = EIO;
  EXPECT_EQ(job.survey(pairing).error().code, EIO);
}

TEST_F(SurveyTest, CountsThatCannotBeReadAreAFaultWhereTheyMatter) {
  const auto file = job.add_file(MigrateDecision::exclusive);
  const auto group = job.add_group();
  const auto pages = job.machine.add(0, 4, true);
  for (int i = 0; i < 2; ++i) job.map(job.add_process(), base, pages, 4, file);
  job.machine.mapped_error = EACCES;
  EXPECT_EQ(job.survey(pairing).error().code, EACCES);
  job.machine.mapped_error = 0;
  const auto forked = job.machine.add(0, 4);
  for (int i = 0; i < 2; ++i) job.map(static_cast<std::uint32_t>(i), base + 8 * page_size, forked, 4, group);
  job.machine.flags_error = EIO;
  EXPECT_EQ(job.survey(pairing).error().code, EIO);
}

// --- any job

TEST(SurveyProperty, EachPageIsCountedOnceAndGoesWhereItsRuleSays) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto any = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
    FakeJob job;
    job.machine.smallest_folio = any(2) != 0 ? 512 : 4;
    const NodePairing pairing({0, 1}, any(2) != 0 ? NodeSet{2, 3} : NodeSet{1, 2});
    struct Object {
      std::uint32_t group;
      FakeMachine::Number first;
      std::size_t pages;
      bool file;
    };
    std::vector<Object> objects;
    for (unsigned i = 0; i < 6; ++i) {
      const bool file = any(3) != 0;
      constexpr std::array decisions = {MigrateDecision::follow, MigrateDecision::exclusive,
                                        MigrateDecision::stay};
      const auto group = file ? job.add_file(decisions.at(any(3))) : job.add_group();
      const FakeMachine::Number first = job.machine.pages.size();
      for (unsigned part = 0; part < 1 + any(4); ++part) {
        if (any(3) == 0)
          job.machine.add_folios(any(4), 1 + any(3), 4U << any(2), file);
        else
          job.machine.add(any(4), 1 + any(700), file);
      }
      objects.push_back({group, first, job.machine.pages.size() - first, file});
    }
    for (unsigned i = 0; i < 4; ++i) {
      const auto process = job.add_process();
      for (std::size_t k = 0; k < objects.size(); ++k) {
        const Object& object = objects[k];
        if (any(3) == 0) continue;
        const std::size_t skip = any(static_cast<unsigned>(object.pages));
        const std::size_t count = 1 + any(static_cast<unsigned>(object.pages - skip));
        job.map(process, base + (k << 30U), object.first + skip, count, object.group, skip);
      }
    }
    for (const Object& object : objects) {
      if (any(2) == 0) continue;
      job.machine.map_outside(object.first, object.pages / (1 + any(2)));
    }
    const auto before = job.whereabouts();
    const auto moves = job.survey(pairing);
    ASSERT_TRUE(moves) << moves.error().message;
    std::map<FakeMachine::Number, unsigned> targets;
    for (const MoveRun& run : *moves) {
      ASSERT_EQ(run.pages % run.folio, 0U);
      for (std::uint32_t i = 0; i < run.pages; ++i) {
        const auto entry = job.raw[run.process]->table.find(run.address / page_size + i);
        ASSERT_NE(entry, job.raw[run.process]->table.end());
        const FakeMachine::Page& page = job.machine.pages[entry->second];
        ASSERT_EQ(page.node, run.source);
        ASSERT_TRUE(targets.emplace(entry->second, run.target).second) << "moved twice";
        // A folio does not reach into another.
        if (i % run.folio != 0) {
          ASSERT_EQ(page.head, job.machine.pages[entry->second - 1].head);
        }
      }
    }
    std::vector<std::uint32_t> times(job.machine.pages.size());
    for (const FakeProcess* process : job.raw)
      for (const auto& [address, page] : process->table) ++times[page];
    // What the kernel moves is folios: one that outsiders map in any part stays.
    std::set<FakeMachine::Number> outside;
    for (FakeMachine::Number i = 0; i < times.size(); ++i)
      if (job.machine.pages[i].mapped > times[i]) outside.insert(job.machine.pages[i].head);
    for (const Object& object : objects) {
      const Rule& rule = job.rules[object.group].rule;
      for (std::size_t i = object.first; i < object.first + object.pages; ++i) {
        const FakeMachine::Page& page = job.machine.pages[i];
        const auto target = targets.find(i);
        unsigned wanted = page.node;
        if (times[i] > 0) {
          wanted = object.file ? target_of_file_page(rule, pairing, i - object.first, page.node,
                                                     !outside.contains(page.head))
                               : target_of_private_page(rule, pairing, page.node);
        }
        ASSERT_EQ(target == targets.end() ? page.node : target->second, wanted) << i - object.first;
      }
    }
    for (std::size_t group = 0; group < job.groups.size(); ++group) {
      const MigrateGroup& found = job.groups[group];
      ASSERT_EQ(trimmed(found.before), trimmed(before[group]));
      std::uint64_t all = 0;
      for (const std::uint64_t pages : found.before) all += pages;
      ASSERT_EQ(found.counts.moved + found.counts.stayed, all);
      std::uint64_t later = 0;
      for (const std::uint64_t pages : found.after) later += pages;
      ASSERT_EQ(later, all);
    }
  }
}

}  // namespace
}  // namespace fpolicy::job
