// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/memory.h"

#include <fpolicy/page_hold.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>

namespace fpolicy {
namespace {

// Slots of a pipe, each for a page; the kernel takes powers of two. Its limit for those without privilege is
// 256.
constexpr std::array<int, 4> pipe_pages = {65536, 4096, 256, 16};

/// Holds those of the pages from `offset` on that are resident.
Status hold_pages(PageHold& hold, int fd, std::uint64_t offset, std::uint64_t page,
                  std::span<const unsigned char> resident, std::uint64_t& held) {
  for (std::size_t first = 0; first < resident.size();) {
    std::size_t end = first;
    while (end < resident.size() && (resident[end] & 1U) != 0) ++end;
    if (end > first) {
      const auto taken = hold.hold(fd, offset + first * page, (end - first) * page);
      if (!taken) return tl::unexpected(taken.error());
      held += *taken;
    }
    first = end + 1;
  }
  return {};
}

}  // namespace

Status PageHold::add_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("pipe", "");
  pipes_.push_back({Fd(ends[0]), Fd(ends[1])});
  const auto page = static_cast<int>(::sysconf(_SC_PAGESIZE));
  for (const int pages : pipe_pages) {
    if (::fcntl(ends[1], F_SETPIPE_SZ, pages * page) >= 0) break;
  }
  full_ = false;
  return {};
}

Result<std::uint64_t> PageHold::hold(int fd, std::uint64_t offset, std::uint64_t length) {
  std::uint64_t held = 0;
  bool fresh = false;
  while (held < length) {
    if (full_) {
      if (auto added = add_pipe(); !added) return tl::unexpected(added.error());
      fresh = true;
    }
    auto position = static_cast<loff_t>(offset + held);
    constexpr std::uint64_t most = 1U << 30U;
    const ssize_t count = ::splice(fd, &position, pipes_.back().write.get(), nullptr,
                                   std::min(length - held, most), SPLICE_F_NONBLOCK);
    if (count > 0) {
      held += static_cast<std::uint64_t>(count);
      fresh = false;
      continue;
    }
    if (count == 0) break;  // the end of the file
    if (errno == EINTR) continue;
    // An empty pipe that takes nothing would never.
    if (errno != EAGAIN || fresh) return fail_errno("splice", "");
    full_ = true;
  }
  return held;
}

Result<std::uint64_t> PageHold::hold_resident(int fd, const std::function<bool(std::uint64_t held)>& go_on) {
  constexpr std::uint64_t window = 16U << 20U;
  // What it has open stays open: holding is a matter of milliseconds.
  thread_local const std::unique_ptr<sys::Memory> memory = sys::open_memory();
  const auto shape = memory->shape(fd);
  if (!shape) return tl::unexpected(shape.error());
  if (shape->hugetlb) return fail(ENOTSUP, "hugetlbfs gives no references on its pages");
  const auto may_ask = sys::may_ask_residency(fd);
  if (!may_ask) return tl::unexpected(may_ask.error());
  if (!*may_ask) return fail(EPERM, "which of its pages are resident may not be asked");
  // A page that is reclaimed a moment after it was seen resident is read in again, on whatever node this
  // thread runs: at least without its neighbours, and with few others that are reclaimed meanwhile.
  constexpr std::uint64_t pages_at_a_time = 64;
  (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  const std::uint64_t page = shape->page_size;
  std::vector<unsigned char> resident(pages_at_a_time);
  std::uint64_t held = 0;
  std::uint64_t offset = 0;
  while ((offset = memory->next_resident(fd, *shape, offset, window, true)) < shape->bytes && go_on(held)) {
    offset -= offset % page;
    const std::uint64_t length = std::min(window, shape->bytes - offset);
    const std::uint64_t pages = (length + page - 1) / page;
    const auto address = memory->map(fd, offset, pages * page, *shape);
    if (!address) return tl::unexpected(address.error());
    Status done;
    for (std::uint64_t first = 0; first < pages && done; first += pages_at_a_time) {
      if (first > 0 && !go_on(held)) break;
      const auto look = std::span(resident).first(std::min(pages_at_a_time, pages - first));
      if (const int error = memory->residency(*address + first * page, look); error != 0)
        done = fail_errno("mincore", "", error);
      else
        done = hold_pages(*this, fd, offset + first * page, page, look, held);
    }
    memory->unmap(*address, pages * page);
    if (!done) return tl::unexpected(done.error());
    offset += pages * page;
  }
  return held;
}

}  // namespace fpolicy
