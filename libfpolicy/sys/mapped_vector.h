// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

namespace fpolicy::sys {

/// Memory straight from the kernel, and straight back: a daemon that moved a large file once does not keep
/// the megabytes that this took, as malloc would (its threshold for mmap grows with use; mallopt(3)).
template <class T>
struct MappedAllocator {
  using value_type = T;
  MappedAllocator() = default;
  template <class U>
  explicit(false) MappedAllocator(const MappedAllocator<U>& /*other*/) noexcept {}

  [[nodiscard]] T* allocate(std::size_t count) {
    void* const address =
        ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    return static_cast<T*>(address);
  }
  void deallocate(T* address, std::size_t count) noexcept {
    ::munmap(static_cast<void*>(address), count * sizeof(T));
  }

  friend bool operator==(const MappedAllocator& /*a*/, const MappedAllocator& /*b*/) { return true; }
};

template <class T>
using MappedVector = std::vector<T, MappedAllocator<T>>;

}  // namespace fpolicy::sys
