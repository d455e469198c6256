// SPDX-License-Identifier: LGPL-2.1-or-later
// Every allocation of a call of the C API fails once, alone and with all that follow. Then the call says so
// or has succeeded, the tag is the one from before or the one from after, and the next call works. A program
// of its own: it has an operator new of its own. (SQLite allocates otherwise: store/fault_test.cpp.)
#include "store/temporary_directory.h"

#include <fpolicy/fpolicy.h>
#include <fpolicy/store.h>

#include <gtest/gtest.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

/// Allocations until one fails; 0: none does. Of all threads: a call may have helpers.
std::atomic<long> until_failure{0};
std::atomic<bool> lasts{false};
std::atomic<bool> failed{false};

bool fails() {
  if (failed && lasts) return true;
  if (until_failure <= 0 || --until_failure != 0) return false;
  failed = true;
  return true;
}

void* allocate(std::size_t size, std::size_t alignment) {
  if (fails()) return nullptr;
  // aligned_alloc wants a multiple of the alignment.
  const std::size_t whole = (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, whole);
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

constexpr std::size_t usual = alignof(std::max_align_t);

}  // namespace

// Those for arrays and those that do not throw call these, or stand below.
void* operator new(std::size_t size) {
  return allocate_or_throw(size, usual);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
  return allocate(size, usual);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t& /*tag*/) noexcept {
  std::free(memory);
}

namespace fpolicy {
namespace {

void arm(long nth, bool lasting) {
  failed = false;
  lasts = lasting;
  until_failure = nth;
}
/// Has one failed?
bool disarm() {
  until_failure = 0;
  lasts = false;
  return failed.exchange(false);
}

constexpr const char* none = "";
constexpr const char* one = "bind:0";
constexpr const char* other = "interleave:0,migrate=no";

using Handle = std::unique_ptr<fpolicy_handle, decltype(&fpolicy_close)>;

/// `lasting`: all that follow fail as well.
class Allocations : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    file = directory.write("file", "some text\n");
    std::filesystem::create_directory(directory / "rules.d");
    ASSERT_EQ(call_open(handle_), 0) << text();
    // What is opened at the first need, and kept, is open from here on.
    put(one);
    put(none);
  }

  int call_open(Handle& handle) {
    const std::string database = directory / "db/fpolicy.db";
    const std::string rules = directory / "rules.d";
    const std::string socket = directory / "no-policyd";
    fpolicy_open_options options{};
    fpolicy_open_options_init(&options, sizeof options);
    options.flags = FPOLICY_OPEN_WRITE;
    options.database = database.c_str();
    options.rules = rules.c_str();
    options.socket = socket.c_str();
    fpolicy_handle* opened = nullptr;
    const int result =
        under_fault([&] { return fpolicy_open(&options, &opened, message.data(), message.size()); });
    EXPECT_EQ(opened == nullptr, result < 0);
    handle.reset(opened);
    return result;
  }

  /// What a call does while an allocation fails, if one is to.
  int under_fault(const std::function<int()>& call) {
    if (next_ != 0) arm(std::exchange(next_, 0), GetParam());
    const int result = call();
    happened_ = disarm() || happened_;
    return result;
  }

  int set(const char* policy) {
    return under_fault([&] {
      return fpolicy_set(handle_.get(), -1, file.c_str(), space, policy, 0, message.data(), message.size());
    });
  }
  int remove() {
    return under_fault([&] {
      return fpolicy_remove(handle_.get(), -1, file.c_str(), space, 0, message.data(), message.size());
    });
  }
  /// The tag, "" where there is none.
  std::string get() {
    fpolicy_tag* tag = nullptr;
    const int result = under_fault([&] {
      return fpolicy_get(handle_.get(), -1, file.c_str(), space, 0, &tag, message.data(), message.size());
    });
    got = result;
    EXPECT_EQ(tag == nullptr, result < 0);
    const std::unique_ptr<fpolicy_tag, decltype(&fpolicy_tag_free)> owned(tag, fpolicy_tag_free);
    carrier = tag == nullptr ? "" : tag->carrier;
    return tag == nullptr ? none : tag->policy;
  }
  void put(const std::string& policy) {
    if (policy.empty()) {
      ASSERT_GE(remove(), 0) << text();
    } else {
      ASSERT_GE(set(policy.c_str()), 0) << text();
    }
    ASSERT_EQ(get(), policy);
  }
  /// What the catalogue says of the file, as another program reads it.
  std::string entry() {
    Identifier identifier;
    const auto database =
        Database::open(directory / "db/fpolicy.db", Database::Access::read_only, &identifier);
    if (!database) return database.error().message;
    FileRef ref;
    ref.name = file.c_str();
    const auto found = (*database)->find(ref, space == FPOLICY_SYSTEM ? Space::system : Space::user);
    if (!found) return found.error().message;
    return *found ? (*found)->policy : none;
  }

  /// Fails the first allocation of `call`, then the second, and so on, until it has no more. `before` each.
  void at_every_allocation(const std::function<void()>& before, const std::function<int()>& call,
                           const std::function<void(int result)>& check) {
    const std::size_t fds = descriptors();
    long nth = 1;
    for (happened_ = true; happened_ && !HasFailure(); ++nth) {
      SCOPED_TRACE("allocation " + std::to_string(nth));
      before();
      next_ = nth;
      happened_ = false;
      const int result = call();
      if (result < 0) {
        EXPECT_TRUE(happened_) << text();
        EXPECT_EQ(result, -ENOMEM) << text();
        EXPECT_NE(text(), "");
      }
      check(result);
    }
    // SQLite closes some of another connection's later.
    EXPECT_LE(descriptors(), fds + 4);
    // Else nothing was tried.
    EXPECT_GT(nth, 4);
    RecordProperty("allocations", static_cast<int>(nth));
  }
  /// The same of a call that changes the tag from one policy to another.
  void change(const std::string& from, const std::string& to) {
    SCOPED_TRACE("from '" + from + "' to '" + to + "'");
    const auto call = [&] { return to.empty() ? remove() : set(to.c_str()); };
    at_every_allocation([&] { put(from); }, call,
                        [&](int result) {
                          const std::string now = get();
                          EXPECT_TRUE(now == to || (result < 0 && now == from)) << now << ": " << text();
                          const std::string said = entry();
                          EXPECT_TRUE(said == to || (result < 0 && said == from))
                              << "the catalogue: " << said;
                          // Back and again, and all is as if nothing had happened.
                          put(from);
                          EXPECT_GE(call(), 0) << text();
                          EXPECT_EQ(get(), to);
                          EXPECT_EQ(entry(), to) << "the catalogue";
                        });
  }
  void change_all() {
    change(none, one);
    change(one, other);
    change(other, none);
  }
  /// Leaves no room in the file for another xattr. False where that is not to be had.
  bool fill_xattrs() {
    const std::string value(4096, 'x');
    int number = 0;
    for (std::size_t size = value.size(); size > 0; size /= 2)
      while (::setxattr(file.c_str(), ("user.fill" + std::to_string(number)).c_str(), value.data(), size,
                        0) == 0)
        if (++number > 1000) return false;
    put(one);
    return carrier == "database";
  }

  static std::size_t descriptors() {
    const std::filesystem::directory_iterator fds("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(fds), end(fds)));
  }
  [[nodiscard]] std::string text() const { return message.data(); }

  const TemporaryDirectory directory;
  const unsigned space = ::geteuid() == 0 ? FPOLICY_SYSTEM : FPOLICY_USER;
  std::string file;
  std::array<char, 512> message{};
  Handle handle_{nullptr, fpolicy_close};
  int got = 0;          ///< of the last get()
  std::string carrier;  ///< the same

 private:
  long next_ = 0;  ///< which allocation of the next call is to fail; 0: none
  bool happened_ = false;
};

INSTANTIATE_TEST_SUITE_P(AtEveryCall, Allocations, testing::Bool(),
                         [](const auto& tried) { return tried.param ? "AndAllThatFollow" : "Once"; });

TEST_P(Allocations, Open) {
  Handle opened(nullptr, fpolicy_close);
  at_every_allocation([&] { std::filesystem::remove_all(directory / "db"); },
                      [&] { return call_open(opened); },
                      [&](int /*result*/) {
                        opened.reset();
                        EXPECT_EQ(call_open(opened), 0) << text();
                        opened.reset();
                      });
}

TEST_P(Allocations, RefreshLeavesTheHandleAsItWas) {
  put(one);
  at_every_allocation(
      [] {},
      [&] {
        return under_fault([&] { return fpolicy_refresh(handle_.get(), message.data(), message.size()); });
      },
      [&](int /*result*/) {
        EXPECT_EQ(get(), one) << text();
        put(other);
        put(one);
      });
}

TEST_P(Allocations, ATagInAnXattr) {
  put(one);
  if (carrier != "xattr") GTEST_SKIP() << "no xattrs in " << directory.path();
  change_all();
}

TEST_P(Allocations, ATagInTheDatabase) {
  if (!fill_xattrs()) GTEST_SKIP() << "no end of xattrs in " << directory.path();
  change_all();
}

// What a set that failed has left to be written is lost with the handle at worst; closing it does not end the
// program.
TEST_P(Allocations, Close) {
  for (const auto& [from, to] : {std::pair(none, one), std::pair(one, other), std::pair(other, none)}) {
    long nth = 1;
    for (bool happened = true; happened && !HasFailure(); ++nth) {
      put(from);
      arm(nth, GetParam());
      const int result = *to == '\0' ? fpolicy_remove(handle_.get(), -1, file.c_str(), space, 0, nullptr, 0)
                                     : fpolicy_set(handle_.get(), -1, file.c_str(), space, to, 0, nullptr, 0);
      happened = disarm();
      EXPECT_TRUE(result == -ENOMEM || result >= 0) << result;
      arm(1, true);
      handle_.reset();
      disarm();
      ASSERT_EQ(call_open(handle_), 0) << text();
      const std::string now = get();
      EXPECT_TRUE(now == to || (result < 0 && now == from)) << now;
    }
  }
}

TEST_P(Allocations, Get) {
  put(one);
  std::string policy;
  const auto call = [&] {
    policy = get();
    return got;
  };
  at_every_allocation([] {}, call,
                      [&](int result) {
                        EXPECT_EQ(policy, result < 0 ? none : one);
                        EXPECT_EQ(get(), one) << text();
                      });
}

TEST_P(Allocations, Resolve) {
  // Neither an own tag nor one of a directory: all the way down to the rules.
  put(none);
  directory.write("rules.d/10.rules", directory.path() + "/**\tbind:0\n");
  ASSERT_EQ(fpolicy_refresh(handle_.get(), message.data(), message.size()), 0) << text();
  std::string policy;
  const auto call = [&] {
    fpolicy_effective* effective = nullptr;
    const int result = under_fault([&] {
      return fpolicy_resolve(handle_.get(), -1, file.c_str(), nullptr, 0, &effective, message.data(),
                             message.size());
    });
    EXPECT_EQ(effective == nullptr, result < 0);
    policy = effective == nullptr ? none : std::string(effective->source) + " " + effective->policy;
    fpolicy_effective_free(effective);
    return result;
  };
  // What was remembered of the directories is forgotten before each.
  at_every_allocation(
      [&] { ASSERT_EQ(fpolicy_refresh(handle_.get(), message.data(), message.size()), 0) << text(); }, call,
      [&](int result) {
        EXPECT_EQ(policy, result < 0 ? none : "rule bind:0");
        EXPECT_EQ(call(), 0) << text();
        EXPECT_EQ(policy, "rule bind:0");
      });
}

TEST_P(Allocations, Audit) {
  // Enough for helpers, who have nobody to tell.
  directory.write("file", std::string(33U << 20U, 'x'));
  put("bind:0");
  std::uint64_t resident = 0;
  const auto call = [&] {
    fpolicy_audit_result* audit = nullptr;
    const int result = under_fault([&] {
      return fpolicy_audit(handle_.get(), -1, file.c_str(), nullptr, 0, &audit, message.data(),
                           message.size());
    });
    EXPECT_EQ(audit == nullptr, result < 0);
    resident = audit == nullptr ? 0 : audit->resident_pages;
    fpolicy_audit_free(audit);
    return result;
  };
  ASSERT_EQ(call(), 0) << text();
  ASSERT_EQ(resident, (33U << 20U) / 4096U);
  at_every_allocation([] {}, call,
                      [&](int /*result*/) {
                        EXPECT_EQ(call(), 0) << text();
                        EXPECT_EQ(resident, (33U << 20U) / 4096U);
                      });
}

}  // namespace
}  // namespace fpolicy
