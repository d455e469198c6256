// SPDX-License-Identifier: LGPL-2.1-or-later
// Enforcement of a cached file against one mbind(MPOL_MF_MOVE_ALL) over the same pages, alternating, in one
// run.
//   enforce_bench FILE [MIB] [ROUNDS]      needs root and at least two nodes with memory; FILE is created
#include <fpolicy/fd.h>
#include <fpolicy/placement.h>
#include <fpolicy/topology.h>

#include <fcntl.h>
#include <numaif.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "enforce_bench: %s\n", what.c_str());
  std::exit(1);
}

void bind_thread_to(unsigned node) {
  const unsigned long mask = 1UL << node;
  if (set_mempolicy(MPOL_BIND, &mask, sizeof mask * 8) != 0) die("set_mempolicy failed");
}

/// All of the file's pages in the cache, on `node`.
void cache_on(int fd, std::size_t bytes, unsigned node) {
  std::vector<char> buffer(1U << 20U);
  if (fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
    die("cannot drop the file's pages");
  bind_thread_to(node);
  for (std::size_t done = 0; done < bytes; done += buffer.size()) {
    if (pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(done)) <= 0) die("read failed");
  }
  if (set_mempolicy(MPOL_DEFAULT, nullptr, 0) != 0) die("set_mempolicy failed");
}

double milliseconds(const std::function<void()>& work) {
  const auto began = Clock::now();
  work();
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Maps and populates the file, and moves it by one mbind. Returns the time of the mbind alone.
double mbind_to(int fd, std::size_t bytes, unsigned node) {
  void* map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED || madvise(map, bytes, MADV_POPULATE_READ) != 0) die("cannot map the file");
  const unsigned long mask = 1UL << node;
  const double took = milliseconds([&] {
    if (mbind(map, bytes, MPOL_BIND, &mask, sizeof mask * 8, MPOL_MF_MOVE_ALL) != 0) die("mbind failed");
  });
  munmap(map, bytes);
  return took;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) die("usage: enforce_bench FILE [MIB] [ROUNDS]");
  const std::size_t bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 256) << 20U;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  const auto topology = fpolicy::Topology::read();
  if (!topology || topology->memory.size() < 2) die("needs two nodes with memory");
  const unsigned from = topology->memory.members()[0];
  const unsigned to = topology->memory.members()[1];
  const fpolicy::Target target{fpolicy::Mode::bind, fpolicy::NodeSet{to}, {}};

  const fpolicy::Fd file(open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  std::vector<char> block(1U << 20U);
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i * 31);
  for (std::size_t done = 0; done < bytes; done += block.size()) {
    if (write(file.get(), block.data(), block.size()) < 0) die("write failed");
  }

  std::vector<double> enforce;
  std::vector<double> audit;
  std::vector<double> mbind_alone;
  std::vector<double> mbind_all;
  for (int i = 0; i < rounds; ++i) {
    cache_on(file.get(), bytes, from);
    enforce.push_back(milliseconds([&] {
      const auto report = fpolicy::enforce_file(file.get(), target, *topology);
      if (!report) die(report.error().message);
      if (report->moved_pages != bytes / 4096) die("enforce_file left pages: " + report->reason);
    }));
    audit.push_back(milliseconds([&] {
      const auto report = fpolicy::audit_file(file.get(), target, *topology);
      if (!report || report->misplaced_pages != 0) die("the audit finds misplaced pages");
    }));
    cache_on(file.get(), bytes, from);
    mbind_all.push_back(milliseconds([&] { mbind_alone.push_back(mbind_to(file.get(), bytes, to)); }));
  }
  unlink(argv[1]);
  std::printf(
      "%zu MiB: enforce_file %.1f ms; audit when all are home %.1f ms; map, populate and mbind %.1f ms; "
      "mbind alone %.1f ms\n",
      bytes >> 20U, median(enforce), median(audit), median(mbind_all), median(mbind_alone));
  std::printf("enforce_file : map, populate and mbind   ratio %.2f\n", median(enforce) / median(mbind_all));
  std::printf("enforce_file : mbind alone               ratio %.2f   (reach 1.0)\n",
              median(enforce) / median(mbind_alone));
  return 0;
}
