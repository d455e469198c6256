// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/decide.h"

#include <gmock/gmock.h>

#include <map>
#include <string>
#include <vector>

namespace fpolicy::job {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// --- NodePairing

TEST(NodePairing, DisjointSetsKeepTheLayout) {
  const NodePairing pairing({0, 1}, {2, 3});
  EXPECT_EQ(pairing.target(0), 2U);
  EXPECT_EQ(pairing.target(1), 3U);
  EXPECT_EQ(pairing.target(2), 2U) << "nothing leaves a node that is not in from";
  EXPECT_EQ(pairing.target(7), 7U);
  EXPECT_THAT(pairing.order(), ElementsAre(0, 1));
  EXPECT_FALSE(pairing.ring());
}

TEST(NodePairing, OverlapIsLeftBeforeItIsFilled) {
  const NodePairing pairing({0, 1}, {1, 2});
  EXPECT_EQ(pairing.target(0), 1U);
  EXPECT_EQ(pairing.target(1), 2U);
  EXPECT_THAT(pairing.order(), ElementsAre(1, 0));
  EXPECT_FALSE(pairing.ring());
}

TEST(NodePairing, ShrinkingTakesTurns) {
  const NodePairing one({0, 1, 2, 3}, {2});
  for (const unsigned node : {0U, 1U, 3U}) EXPECT_EQ(one.target(node), 2U);
  EXPECT_EQ(one.target(2), 2U);
  EXPECT_THAT(one.order(), ElementsAre(0, 1, 3));
  const NodePairing two({0, 1, 2, 3}, {5, 7});
  EXPECT_EQ(two.target(0), 5U);
  EXPECT_EQ(two.target(1), 7U);
  EXPECT_EQ(two.target(2), 5U);
  EXPECT_EQ(two.target(3), 7U);
}

TEST(NodePairing, GrowingUsesTheFirstOnly) {
  const NodePairing pairing({1}, {0, 1, 2, 3});
  EXPECT_EQ(pairing.target(1), 0U);
  EXPECT_EQ(pairing.target(2), 2U);
  EXPECT_THAT(pairing.order(), ElementsAre(1));
  const NodePairing stays({0}, {0, 1, 2, 3});
  EXPECT_THAT(stays.order(), IsEmpty());
}

TEST(NodePairing, TheSameSetMovesNothing) {
  const NodePairing pairing({0, 2, 3}, {0, 2, 3});
  EXPECT_THAT(pairing.order(), IsEmpty());
  EXPECT_FALSE(pairing.ring());
  EXPECT_EQ(pairing.target(NodeSet{0, 1, 3}), (NodeSet{0, 1, 3}));
}

TEST(NodePairing, ARingIsTold) {
  // 1 -> 0, 2 -> 1, 0 stays out: no ring. With sorted sets of equal size targets never cross: a ring takes a
  // set that shrinks.
  const NodePairing pairing({0, 1, 2}, {1, 0});  // sets are sorted: 0 -> 0, 1 -> 1, 2 -> 0
  EXPECT_FALSE(pairing.ring());
  // 0 -> 1, 1 -> 3, 3 -> 1 ...: F = 0,1,3, T = 1,3.
  const NodePairing ring({0, 1, 3}, {1, 3});
  EXPECT_EQ(ring.target(0), 1U);
  EXPECT_EQ(ring.target(1), 3U);
  EXPECT_EQ(ring.target(3), 1U);
  EXPECT_TRUE(ring.ring());
  EXPECT_THAT(ring.order(), testing::UnorderedElementsAre(0, 1, 3));
}

TEST(NodePairing, DoneNodesStay) {
  const NodePairing pairing({0, 1, 2}, {1, 2, 3}, {2});
  EXPECT_EQ(pairing.target(2), 2U) << "what lies there has just arrived or belongs there";
  EXPECT_EQ(pairing.target(1), 2U);
  EXPECT_EQ(pairing.target(0), 1U);
  EXPECT_THAT(pairing.order(), ElementsAre(1, 0));
}

TEST(NodePairing, TargetOfASet) {
  const NodePairing pairing({0, 1}, {1, 2});
  EXPECT_EQ(pairing.target(NodeSet{0, 1}), (NodeSet{1, 2}));
  EXPECT_EQ(pairing.target(NodeSet{0, 3}), (NodeSet{1, 3}));
  EXPECT_EQ(pairing.target(NodeSet{}), NodeSet{});
}

TEST(NodePairing, NoPageMovesTwiceForAnySets) {
  constexpr unsigned nodes = 5;
  unsigned rings = 0;
  for (unsigned f = 1; f < 1U << nodes; ++f) {
    for (unsigned t = 1; t < 1U << nodes; ++t) {
      NodeSet from;
      NodeSet to;
      for (unsigned node = 0; node < nodes; ++node) {
        if ((f >> node & 1U) != 0) from.insert(node);
        if ((t >> node & 1U) != 0) to.insert(node);
      }
      const NodePairing pairing(from, to);
      SCOPED_TRACE(from.format() + " to " + to.format());
      const auto sources = from.members();
      const auto targets = to.members();
      for (std::size_t i = 0; i < sources.size(); ++i)
        ASSERT_EQ(pairing.target(sources[i]), targets[i % targets.size()]);
      // Each node that pages leave, once.
      NodeSet leave;
      for (const unsigned node : sources)
        if (pairing.target(node) != node) leave.insert(node);
      NodeSet ordered;
      for (const unsigned node : pairing.order()) {
        ASSERT_FALSE(ordered.contains(node));
        ordered.insert(node);
      }
      ASSERT_EQ(ordered, leave);
      // A page on each node, moved node by node.
      std::vector<unsigned> where(nodes);
      std::vector<unsigned> times(nodes);
      for (unsigned page = 0; page < nodes; ++page) where[page] = page;
      for (const unsigned node : pairing.order()) {
        for (unsigned page = 0; page < nodes; ++page) {
          if (where[page] != node) continue;
          where[page] = pairing.target(node);
          ++times[page];
        }
      }
      bool twice = false;
      for (unsigned page = 0; page < nodes; ++page) {
        twice |= times[page] > 1;
        if (!pairing.ring()) {
          ASSERT_EQ(where[page], pairing.target(page));
        }
      }
      ASSERT_EQ(twice, pairing.ring());
      rings += pairing.ring() ? 1 : 0;
      // A run that is cut short after any number of nodes, and the one that finishes it.
      if (pairing.ring()) continue;
      NodeSet done;
      for (std::size_t cut = 0; cut <= pairing.order().size(); ++cut) {
        const NodePairing rest(from, to, done);
        ASSERT_EQ(rest.order(), (std::vector<unsigned>(pairing.order().begin() + static_cast<long>(cut),
                                                       pairing.order().end())));
        if (cut < pairing.order().size()) done.insert(pairing.order()[cut]);
      }
    }
  }
  EXPECT_GT(rings, 0U);
}

// --- classify

struct Line {
  const char* text;
  MappingKind kind;
};

TEST(Classify, EveryKindOfLine) {
  for (const auto& [text, kind] : {
           Line{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0", MappingKind::anonymous},
           Line{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0    [anon:arena]", MappingKind::anonymous},
           Line{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0    [heap]", MappingKind::heap},
           Line{"7f0000000000-7f0000001000 rw-p 00000000 00:00 0    [stack]", MappingKind::stack},
           Line{"7f0000000000-7f0000001000 r--p 00000000 00:00 0    [vvar]", MappingKind::special},
           Line{"7f0000000000-7f0000001000 r-xp 00000000 00:00 0    [vdso]", MappingKind::special},
           Line{"7f0000000000-7f0000001000 r--p 00000000 00:00 0    [vvar_vclock]", MappingKind::special},
           Line{"ffffffffff600000-ffffffffff601000 --xp 0 00:00 0  [vsyscall]", MappingKind::special},
           Line{"7f0000000000-7f0000001000 r--p 00000000 00:00 0    [uprobes]", MappingKind::special},
           Line{"7f0000000000-7f0000001000 r--p 00001000 fe:00 17   /usr/lib/libc.so.6", MappingKind::file},
           Line{"7f0000000000-7f0000001000 r--p 00001000 fe:00 17   /a (deleted)", MappingKind::file},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:17 9    /dev/shm/a", MappingKind::file},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:05 17   /dev/zero", MappingKind::file},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:01 32   /SYSV00000000 (deleted)",
                MappingKind::shm},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:01 32   /dev/zero (deleted)", MappingKind::shm},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:01 32   [anon_shmem:x]", MappingKind::shm},
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:01 32   /memfd:x (deleted)", MappingKind::shm},
           Line{"7f0000000000-7f0000001000 rw-p 00000000 00:0f 32   /anon_hugepage (deleted)",
                MappingKind::shm},
           // A file may have a name like these; without inode it is none.
           Line{"7f0000000000-7f0000001000 r--p 00001000 fe:00 17   /x/[heap]", MappingKind::file},
           Line{"7f0000000000-7f0000001000 r--p 00001000 fe:00 17   /home/SYSV", MappingKind::file},
           // The number of a System V segment is its id, and the first has 0.
           Line{"7f0000000000-7f0000001000 rw-s 00000000 00:01 0    /SYSV00000000 (deleted)",
                MappingKind::shm},
       }) {
    const auto vmas = parse_vmas(text + std::string("\n"));
    ASSERT_TRUE(vmas) << vmas.error().message;
    EXPECT_EQ(to_string(classify(vmas->front())), to_string(kind)) << text;
  }
}

TEST(Words, AllDifferent) {
  std::map<std::string_view, int> words;
  for (const auto kind : {MappingKind::anonymous, MappingKind::heap, MappingKind::stack, MappingKind::file,
                          MappingKind::shm, MappingKind::special})
    ++words[to_string(kind)];
  EXPECT_EQ(words.size(), 6U);
  words.clear();
  for (const auto decision : {MigrateDecision::follow, MigrateDecision::exclusive, MigrateDecision::placement,
                              MigrateDecision::stay, MigrateDecision::skip})
    ++words[to_string(decision)];
  EXPECT_EQ(words.size(), 5U);
  EXPECT_FALSE(words.contains("?"));
}

// --- rule_for, and what it makes of pages

Topology four_nodes() {
  Topology topology;
  topology.memory = {0, 1, 2, 3};
  topology.cpu = {0, 1, 2};
  return topology;
}

MappedFile with_policy(const std::string& text) {
  auto policy = parse_policy(text);
  EXPECT_TRUE(policy) << text;
  MappedFile file;
  file.policy.emplace();
  file.policy->source = Source::system_xattr;
  file.policy->policy = *policy;
  file.policy->text = text;
  return file;
}

class MigrateRules : public testing::Test {
 protected:
  Rule rule(const std::string& text) { return rule_for(with_policy(text), topology, to); }
  /// Of the page that lies on `node`, mapped by the job alone.
  [[nodiscard]] unsigned file_page(const Rule& rule, std::uint64_t index, unsigned node,
                                   bool exclusive = true) const {
    return target_of_file_page(rule, pairing, index, node, exclusive);
  }
  [[nodiscard]] unsigned private_page(const Rule& rule, unsigned node) const {
    return target_of_private_page(rule, pairing, node);
  }

  Topology topology = four_nodes();
  NodeSet to{2, 3};
  NodePairing pairing{NodeSet{0, 1}, NodeSet{2, 3}};
};

TEST_F(MigrateRules, MemoryOfNoFileFollows) {
  for (const auto kind : {MappingKind::anonymous, MappingKind::heap, MappingKind::stack}) {
    const Rule rule = rule_for(kind);
    EXPECT_EQ(rule.decision, MigrateDecision::follow);
    EXPECT_FALSE(rule.private_stays);
    EXPECT_EQ(private_page(rule, 1), 3U);
    EXPECT_EQ(private_page(rule, 2), 2U);
  }
}

TEST_F(MigrateRules, TheKernelsOwnIsSkipped) {
  const Rule rule = rule_for(MappingKind::special);
  EXPECT_EQ(rule.decision, MigrateDecision::skip);
  EXPECT_TRUE(rule.private_stays);
  EXPECT_EQ(file_page(rule, 0, 0), 0U);
  EXPECT_EQ(private_page(rule, 0), 0U);
}

TEST_F(MigrateRules, YesFollowsWhoeverMapsIt) {
  const Rule rule = this->rule("default");
  EXPECT_EQ(rule.decision, MigrateDecision::follow);
  EXPECT_EQ(rule.reason, "migrate=yes");
  EXPECT_EQ(file_page(rule, 0, 1, false), 3U);
  EXPECT_EQ(private_page(rule, 0), 2U);
}

TEST_F(MigrateRules, PrivateLeavesFilePages) {
  const Rule rule = this->rule("migrate=private");
  EXPECT_EQ(rule.decision, MigrateDecision::stay);
  EXPECT_FALSE(rule.private_stays);
  EXPECT_EQ(rule.reason, "migrate=private");
  EXPECT_EQ(file_page(rule, 0, 0), 0U);
  EXPECT_EQ(private_page(rule, 0), 2U);
}

TEST_F(MigrateRules, PinnedFilesStayAndTheirPrivateCopiesFollow) {
  for (const char* text : {"pin", "bind:+0,pin", "interleave:+0-1,pin"}) {
    const Rule rule = this->rule(text);
    EXPECT_EQ(rule.decision, MigrateDecision::stay) << text;
    EXPECT_EQ(rule.reason, "pinned") << text;
    EXPECT_EQ(file_page(rule, 0, 1), 1U) << text;
    EXPECT_EQ(private_page(rule, 1), 3U) << text;
  }
  EXPECT_EQ(rule("migrate=no,pin").reason, "migrate=no");
}

TEST_F(MigrateRules, NoLeavesEverything) {
  for (const char* text : {"migrate=no", "bind:1,migrate=no", "bind:+0,migrate=no"}) {
    const Rule rule = this->rule(text);
    EXPECT_EQ(rule.decision, MigrateDecision::stay) << text;
    EXPECT_TRUE(rule.private_stays);
    EXPECT_EQ(rule.reason, "migrate=no");
    EXPECT_EQ(file_page(rule, 0, 0), 0U);
    EXPECT_EQ(private_page(rule, 0), 0U);
  }
}

TEST_F(MigrateRules, AnAbsolutePlacementStays) {
  for (const char* text : {"bind:1", "prefer:0", "interleave:0-1", "bind:all", "prefer:cpuless"}) {
    const Rule rule = this->rule(text);
    EXPECT_EQ(rule.decision, MigrateDecision::stay) << text;
    EXPECT_FALSE(rule.private_stays);
    EXPECT_EQ(rule.reason, "it has a place of its own");
    EXPECT_EQ(file_page(rule, 0, 0), 0U);
    EXPECT_EQ(private_page(rule, 1), 3U);
  }
}

TEST_F(MigrateRules, ARelativeBindIsEvaluatedWithinTo) {
  const Rule rule = this->rule("bind:+1");
  ASSERT_EQ(rule.decision, MigrateDecision::placement);
  EXPECT_EQ(rule.target.nodes, (NodeSet{3}));
  EXPECT_EQ(rule.reason, "placed within nodes 2-3");
  for (unsigned node = 0; node < 4; ++node) EXPECT_EQ(file_page(rule, node, node, false), 3U);
  EXPECT_EQ(private_page(rule, 0), 2U) << "private copies follow the pairing";
}

TEST_F(MigrateRules, ARelativePreferKeepsTheLayoutWhereItCan) {
  const Rule rule = this->rule("prefer:+0-1");
  ASSERT_EQ(rule.decision, MigrateDecision::placement);
  EXPECT_EQ(file_page(rule, 0, 0), 2U);
  EXPECT_EQ(file_page(rule, 0, 1), 3U);
  EXPECT_EQ(file_page(rule, 0, 2), 2U) << "where it belongs already";
  EXPECT_EQ(file_page(rule, 0, 3), 3U);
}

TEST_F(MigrateRules, WhereAPlacementAllowsItAPageStays) {
  // Node 1 is left by what follows the job, and is one of those that it goes to.
  const NodePairing overlap({0, 1}, {1, 2});
  const Rule rule = rule_for(with_policy("bind:+0-1"), topology, {1, 2});
  EXPECT_EQ(target_of_file_page(rule, overlap, 0, 1, true), 1U);
  EXPECT_EQ(target_of_file_page(rule, overlap, 0, 0, true), 1U);
  EXPECT_EQ(target_of_private_page(rule, overlap, 1), 2U);
}

TEST_F(MigrateRules, ARelativeInterleaveGoesByIndex) {
  const Rule rule = this->rule("interleave:+0@2,1");
  ASSERT_EQ(rule.decision, MigrateDecision::placement);
  std::vector<unsigned> nodes;
  for (std::uint64_t index = 0; index < 6; ++index) nodes.push_back(file_page(rule, index, 1, false));
  EXPECT_THAT(nodes, ElementsAre(2, 2, 3, 2, 2, 3));
  EXPECT_EQ(file_page(rule, 2, 3), 3U);
}

TEST_F(MigrateRules, APlacementOfPagesThePairingDoesNotTouch) {
  // Page on a node outside from and outside the placement: some node of the placement.
  topology.memory.insert(4);
  const Rule rule = this->rule("bind:+0-1");
  EXPECT_THAT(file_page(rule, 0, 4), testing::AnyOf(2U, 3U));
}

TEST_F(MigrateRules, ARelativePlacementThatCannotBeStays) {
  const Rule rule = this->rule("bind:+2");
  EXPECT_EQ(rule.decision, MigrateDecision::stay);
  EXPECT_FALSE(rule.private_stays);
  EXPECT_THAT(rule.reason, HasSubstr("bind:+2"));
  EXPECT_THAT(rule.reason, HasSubstr("beyond"));
  EXPECT_EQ(file_page(rule, 0, 0), 0U);
}

TEST_F(MigrateRules, ARelativePlacementWithPrivate) {
  const Rule rule = this->rule("bind:+0,migrate=private");
  EXPECT_EQ(rule.decision, MigrateDecision::stay);
  EXPECT_FALSE(rule.private_stays);
  EXPECT_EQ(rule.reason, "migrate=private");
}

TEST_F(MigrateRules, WithoutPolicyWhatIsTheJobsAloneFollows) {
  const MappedFile untagged;
  MappedFile none = untagged;  // a rule that says none
  none.policy.emplace();
  none.policy->source = Source::rule;
  MappedFile unsupported = none;
  unsupported.policy->unsupported = true;
  for (const MappedFile& file : {untagged, none, unsupported}) {
    const Rule rule = rule_for(file, topology, to);
    EXPECT_EQ(rule.decision, MigrateDecision::exclusive);
    EXPECT_FALSE(rule.private_stays);
    EXPECT_EQ(file_page(rule, 0, 1, true), 3U);
    EXPECT_EQ(file_page(rule, 0, 1, false), 1U);
    EXPECT_EQ(private_page(rule, 1), 3U);
  }
  EXPECT_EQ(rule_for(none, topology, to).reason, "no policy");
  EXPECT_EQ(rule_for(unsupported, topology, to).reason, "its policy is not understood");
}

TEST_F(MigrateRules, ADeviceIsSkippedWhateverItsPolicy) {
  MappedFile file = with_policy("migrate=yes");
  file.nature = MappedFile::Nature::device;
  const Rule rule = rule_for(file, topology, to);
  EXPECT_EQ(rule.decision, MigrateDecision::skip);
  EXPECT_TRUE(rule.private_stays);
  EXPECT_EQ(file_page(rule, 0, 0), 0U);
}

TEST_F(MigrateRules, DirectAccessIsSkippedButForPrivateCopies) {
  MappedFile file = with_policy("migrate=yes");
  file.nature = MappedFile::Nature::direct_access;
  const Rule rule = rule_for(file, topology, to);
  EXPECT_EQ(rule.decision, MigrateDecision::skip);
  EXPECT_FALSE(rule.private_stays);
  EXPECT_EQ(file_page(rule, 0, 0), 0U);
  EXPECT_EQ(private_page(rule, 0), 2U);
}

// --- room

TEST(LackingRoom, WhatFitsIsNotTold) {
  EXPECT_EQ(lacking_room({}, {}, {}, 4096), "");
  EXPECT_EQ(lacking_room({0, 0, 1000}, {500}, {0, 0, 1000}, 4096), "");
  EXPECT_EQ(lacking_room({0, 1000}, {0, 600}, {0, 400}, 4096), "") << "what leaves makes room";
}

TEST(LackingRoom, EachNodeThatIsTooSmall) {
  EXPECT_EQ(lacking_room({0, 1000}, {0, 600}, {0, 399}, 4096),
            "node 1 has room for 3 MiB of the 4 MiB that would come");
  EXPECT_EQ(lacking_room({512, 0, 1024}, {}, {0, 0, 256}, 4096),
            "node 0 has room for 0 MiB of the 2 MiB that would come; "
            "node 2 has room for 1 MiB of the 4 MiB that would come");
  EXPECT_EQ(lacking_room({0, 0, 16}, {}, {}, 65536), "node 2 has room for 0 MiB of the 1 MiB that would come")
      << "a node that the list does not reach has none";
}

}  // namespace
}  // namespace fpolicy::job
