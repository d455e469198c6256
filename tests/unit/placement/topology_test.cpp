// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/zoneinfo.h"

#include <fpolicy/topology.h>

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace fpolicy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// An invented machine's sysfs.
class TopologyRead : public ::testing::Test {
 protected:
  TopologyRead() {
    std::string name = ::testing::TempDir() + "fpolicy-topology-XXXXXX";
    root_ = ::mkdtemp(name.data());
    put("node/has_memory", "0,5\n");
    put("node/has_cpu", "0,2\n");
    put("node/online", "0,2,5\n");
    put("node/node0/distance", "10 21 31\n");
    put("node/node2/distance", "21 10 17\n");
    put("node/node5/distance", "31 17 10\n");
    put("memory/block_size_bytes", "8000000\n");
    for (const char* block : {"node0/memory0", "node0/memory1", "node0/memory3", "node5/memory3",
                              "node5/memory4", "node0/memory_failure", "node0/memory5x"})
      std::filesystem::create_directories(root_ + "/sys/devices/system/node/" + block);
  }
  ~TopologyRead() override { std::filesystem::remove_all(root_); }
  TopologyRead(const TopologyRead&) = delete;
  TopologyRead& operator=(const TopologyRead&) = delete;

  void put(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + "/sys/devices/system/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void remove(const std::string& path) const {
    std::filesystem::remove_all(root_ + "/sys/devices/system/" + path);
  }
  void expect_refused(int code, const std::string& why) const {
    const auto topology = Topology::read(root_);
    ASSERT_FALSE(topology);
    EXPECT_EQ(topology.error().code, code);
    EXPECT_THAT(topology.error().message, HasSubstr(why));
  }

 private:
  std::string root_;

 protected:
  [[nodiscard]] const std::string& root() const { return root_; }
};

TEST_F(TopologyRead, NodesDistancesAndFrames) {
  const auto topology = Topology::read(root());
  ASSERT_TRUE(topology) << topology.error().message;
  EXPECT_EQ(topology->memory, (NodeSet{0, 5}));
  EXPECT_EQ(topology->cpu, (NodeSet{0, 2}));
  EXPECT_EQ(topology->cpuless(), NodeSet{5});
  ASSERT_EQ(topology->distance.size(), 6U);
  EXPECT_THAT(topology->distance[0], ElementsAre(10, 0, 21, 0, 0, 31));
  EXPECT_THAT(topology->distance[1], ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_EQ(topology->distance[5][2], 17U);
  // Blocks 0 and 1 are one range; block 3 belongs to two nodes and so to none.
  const std::uint64_t block = 0x8000000 / static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  ASSERT_EQ(topology->frames.size(), 2U);
  EXPECT_EQ(topology->frames[0].first, 0U);
  EXPECT_EQ(topology->frames[0].end, 2 * block);
  EXPECT_EQ(topology->frames[0].node, 0U);
  EXPECT_EQ(topology->frames[1].first, 4 * block);
  EXPECT_EQ(topology->frames[1].end, 5 * block);
  EXPECT_EQ(topology->frames[1].node, 5U);
}

TEST_F(TopologyRead, NoNumaIsSaid) {
  remove("node");
  expect_refused(ENOENT, "the kernel knows no NUMA");
}

TEST_F(TopologyRead, AKernelThatListsNoBlocksHasNoFrames) {
  remove("memory");
  const auto topology = Topology::read(root());
  ASSERT_TRUE(topology);
  EXPECT_TRUE(topology->frames.empty());
}

TEST_F(TopologyRead, HostileTextIsRefused) {
  put("node/has_memory", "0,9999\n");
  expect_refused(EINVAL, "has_memory");
  put("node/has_memory", "0,5\n");
  put("node/node2/distance", "21 10\n");
  expect_refused(EINVAL, "node2/distance: expected 3 numbers");
  put("node/node2/distance", "21 x 17\n");
  expect_refused(EINVAL, "node2/distance");
  put("node/node2/distance", std::string(100000, '1'));
  expect_refused(EFBIG, "node2/distance");
}

TEST_F(TopologyRead, HostileBlocksGiveNoFrames) {
  std::filesystem::create_directories(root() + "/sys/devices/system/node/node0/memory18446744073709551615");
  const auto topology = Topology::read(root());
  ASSERT_TRUE(topology);
  EXPECT_TRUE(topology->frames.empty());
  put("memory/block_size_bytes", "0\n");
  EXPECT_TRUE(Topology::read(root())->frames.empty());
}

TEST_F(TopologyRead, RoomForHugePages) {
  for (const char* node : {"node/node0", "node/node5"}) {
    put(std::string(node) + "/hugepages/hugepages-2048kB/free_hugepages", "7\n");
    put(std::string(node) + "/hugepages/hugepages-2048kB/nr_hugepages", "9\n");
  }
  const auto room = sys::read_huge_room(2U << 20U, root());
  ASSERT_TRUE(room) << room.error().message;
  ASSERT_EQ(room->size(), 6U);
  EXPECT_EQ((*room)[5].free, 7U);
  EXPECT_EQ((*room)[5].managed, 9U);
  EXPECT_GT((*room)[0].reclaimable, 1U << 30U);
  EXPECT_EQ((*room)[1].reclaimable, 0U);
  put("node/node5/hugepages/hugepages-2048kB/free_hugepages", "many\n");
  EXPECT_FALSE(sys::read_huge_room(2U << 20U, root()));
  EXPECT_FALSE(sys::read_huge_room(1U << 30U, root()));
}

TEST(Zoneinfo, CountsWhatMovablePagesMayTake) {
  const auto room = sys::parse_room(
      "Node 0, zone      DMA\n"
      "  per-node stats\n"
      "      nr_inactive_anon 2140\n"
      "      nr_inactive_file 20000\n"
      "      nr_active_file 30000\n"
      "  pages free     3840\n"
      "        boost    0\n"
      "        min      21\n"
      "        low      26\n"
      "        high     31\n"
      "        spanned  4095\n"
      "        managed  3840\n"
      "        protection: (0, 2938, 15983, 15983, 15983)\n"
      "      nr_free_pages 3840\n"
      "Node 0, zone   Normal\n"
      "  pages free     81469\n"
      "        min      8321\n"
      "        high     12481\n"
      "        managed  753664\n"
      "        protection: (0, 0, 0, 0, 0)\n"
      "  pagesets\n"
      "    cpu: 0\n"
      "              count:    11128\n"
      "              high:     39301\n"
      "Node 2, zone  Movable\n"
      "  pages free     10\n"
      "        high     32\n"
      "        managed  100\n"
      "        protection: (0, 0, 0, 0, 0)\n");
  ASSERT_TRUE(room) << room.error().message;
  ASSERT_EQ(room->size(), 3U);
  EXPECT_EQ((*room)[0].free, 81469U - 12481U);  // of zone DMA nothing: it is kept for others
  EXPECT_EQ((*room)[0].managed, 3840U + 753664U);
  EXPECT_EQ((*room)[0].reclaimable, 50000U - (31U + 12481U));
  EXPECT_EQ((*room)[1].managed, 0U);
  EXPECT_EQ((*room)[2].free, 0U);
}

TEST(Zoneinfo, HostileTextIsRefusedWithItsLine) {
  for (const char* text :
       {"\nNode x, zone DMA\n", "\nNode 1024, zone DMA\n", "\nNode 99999999999999999999,\n"}) {
    const auto room = sys::parse_room(text);
    ASSERT_FALSE(room);
    EXPECT_THAT(room.error().message, HasSubstr("zoneinfo:2"));
  }
  EXPECT_FALSE(sys::parse_room("Node 0, zone DMA\n  pages free many\n"));
  EXPECT_FALSE(sys::parse_room("Node 0, zone DMA\n  protection: (0, 1\n"));
  EXPECT_TRUE(sys::parse_room("")->empty());
  EXPECT_TRUE(sys::parse_room("pages free 3\nprotection: ()")->empty());
}

TEST(Zoneinfo, TheRunningKernelsParses) {
  const auto room = sys::read_room();
  ASSERT_TRUE(room) << room.error().message;
  EXPECT_GT(std::ranges::max(*room, {}, &sys::NodeRoom::managed).managed, 1000U);
}

}  // namespace
}  // namespace fpolicy
