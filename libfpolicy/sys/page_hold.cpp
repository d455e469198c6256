// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/page_hold.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace fpolicy {
namespace {

// Slots of a pipe, each for a page; the kernel takes powers of two. Its limit for those without privilege is
// 256.
constexpr std::array<int, 4> pipe_pages = {65536, 4096, 256, 16};

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

}  // namespace fpolicy
