// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/read_file.h"

#include <fpolicy/fd.h>
#include <fpolicy/topology.h>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>
#include <string_view>

namespace fpolicy {
namespace {

// A sysfs attribute is one page; node lists and distances of 1,024 nodes fit.
constexpr std::size_t attribute_limit = 65536;

Result<NodeSet> read_node_list(int nodes, const std::string& name) {
  const auto text = sys::read_file(nodes, name, attribute_limit);
  if (!text) return tl::unexpected(text.error());
  auto set = NodeSet::parse(*text);
  if (!set) return with_context("/sys/devices/system/node/" + name, set.error());
  return set;
}

/// "10 21 21\n": one number for each online node in ascending order.
Result<std::vector<unsigned>> read_distances(int nodes, unsigned node, const std::vector<unsigned>& online) {
  const std::string name = "node" + std::to_string(node) + "/distance";
  const auto text = sys::read_file(nodes, name, attribute_limit);
  if (!text) return tl::unexpected(text.error());
  std::vector<unsigned> row(online.empty() ? 0 : online.back() + 1, 0);
  const char* at = text->data();
  const char* const end = at + text->size();
  for (const unsigned other : online) {
    while (at != end && *at == ' ') ++at;
    const auto [rest, error] = std::from_chars(at, end, row[other]);
    if (error != std::errc{})
      return fail(EINVAL, "/sys/devices/system/node/" + name + ": expected " + std::to_string(online.size()) +
                              " numbers, one for each online node");
    at = rest;
  }
  return row;
}

/// The memory blocks that nodeN/ links to, in units of block_pages.
Result<std::vector<std::uint64_t>> list_blocks(int nodes, unsigned node) {
  const std::string name = "node" + std::to_string(node);
  Fd fd(::openat(nodes, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno("open", "/sys/devices/system/node/" + name);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(fd.get()), ::closedir);
  if (!directory) return fail_errno("read", "/sys/devices/system/node/" + name);
  (void)fd.release();  // closedir closes it
  std::vector<std::uint64_t> blocks;
  while (const dirent* entry = ::readdir(directory.get())) {
    std::string_view block = entry->d_name;
    if (!block.starts_with("memory")) continue;
    block.remove_prefix(6);
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(block.data(), block.data() + block.size(), number);
    if (error == std::errc{} && end == block.data() + block.size()) blocks.push_back(number);
  }
  return blocks;
}

/// Which frames lie on which node. Nothing is no error: a kernel without memory hotplug lists no blocks.
std::vector<PfnRange> read_frames(int nodes, const std::vector<unsigned>& online) {
  const auto text = sys::read_file(nodes, "../memory/block_size_bytes", attribute_limit);
  if (!text) return {};
  std::uint64_t block_bytes = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), block_bytes, 16);
  const auto page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (error != std::errc{} || page_bytes == 0 || block_bytes < page_bytes) return {};
  const std::uint64_t block_pages = block_bytes / page_bytes;

  std::vector<PfnRange> blocks;
  for (const unsigned node : online) {
    const auto numbers = list_blocks(nodes, node);
    if (!numbers) return {};
    for (const std::uint64_t number : *numbers) {
      if (number >= std::numeric_limits<std::uint64_t>::max() / block_pages - 1) return {};
      blocks.push_back({number * block_pages, (number + 1) * block_pages, node});
    }
  }
  std::ranges::sort(blocks, {}, &PfnRange::first);
  std::vector<PfnRange> frames;
  for (std::size_t i = 0; i < blocks.size();) {
    std::size_t same = i + 1;
    while (same < blocks.size() && blocks[same].first == blocks[i].first) ++same;
    if (same == i + 1) {
      if (!frames.empty() && frames.back().end == blocks[i].first && frames.back().node == blocks[i].node)
        frames.back().end = blocks[i].end;
      else
        frames.push_back(blocks[i]);
    }
    i = same;
  }
  return frames;
}

}  // namespace

Result<Topology> Topology::read(const std::string& sysfs_root) {
  const std::string path = (sysfs_root == "/" ? "" : sysfs_root) + "/sys/devices/system/node";
  const Fd nodes(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!nodes && errno == ENOENT)
    return fail(ENOENT, "open " + path + ": " + errno_text(ENOENT) + " (the kernel knows no NUMA)");
  if (!nodes) return fail_errno("open", path);

  Topology topology;
  auto memory = read_node_list(nodes.get(), "has_memory");
  if (!memory) return tl::unexpected(memory.error());
  topology.memory = *memory;
  auto cpu = read_node_list(nodes.get(), "has_cpu");
  if (!cpu) return tl::unexpected(cpu.error());
  topology.cpu = *cpu;
  const auto online_set = read_node_list(nodes.get(), "online");
  if (!online_set) return tl::unexpected(online_set.error());
  const std::vector<unsigned> online = online_set->members();

  topology.distance.resize(online.empty() ? 0 : online.back() + 1);
  for (const unsigned node : online) {
    auto row = read_distances(nodes.get(), node, online);
    if (!row) return tl::unexpected(row.error());
    topology.distance[node] = std::move(*row);
  }
  for (auto& row : topology.distance) row.resize(topology.distance.size(), 0);
  topology.frames = read_frames(nodes.get(), online);
  return topology;
}

}  // namespace fpolicy
