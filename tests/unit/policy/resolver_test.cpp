// SPDX-License-Identifier: LGPL-2.1-or-later
#include "../store/temporary_directory.h"
#include "sys/xattr_calls.h"

#include <fpolicy/resolver.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

namespace fpolicy {
namespace {

/// The kernel's calls, with system tags in a user xattr beside, so that anyone can run this; counted.
class UserXattrs final : public sys::XattrCalls {
 public:
  static constexpr const char* system_name = "user.fpolicy-system";
  std::atomic<unsigned> gets{0};
  std::atomic<int> user_error{0};

  ssize_t get(const FileRef& file, const char* name, char* value, std::size_t size) override {
    ++gets;
    const bool system = std::string_view(name).starts_with("security.");
    if (!system && user_error != 0) return -user_error;
    return kernel_.get(file, system ? system_name : name, value, size);
  }
  ssize_t list(const FileRef& file, char* names, std::size_t size) override {
    return kernel_.list(file, names, size);
  }
  int set(const FileRef& file, const char* name, std::string_view value, bool only_new) override {
    return kernel_.set(file, name, value, only_new);
  }
  int remove(const FileRef& file, const char* name) override { return kernel_.remove(file, name); }

 private:
  sys::KernelXattrCalls kernel_;
};

class ResolverTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::canonical(directory_.path()).string();
    std::filesystem::create_directories(root_ + "/a/b/c");
    file_ = write("a/b/c/file");
    if (::setxattr(file_.c_str(), "user.fpolicy-test", "x", 1, 0) != 0) {
      GTEST_SKIP() << "the directory for temporary files has no user xattrs";
    }
    RuleSet rules;
    ASSERT_TRUE(rules.add(root_ + "/a/\tbind:9\n", "test.rules"));
    rules_ = std::make_shared<const RuleSet>(std::move(rules));
    resolver_ = std::make_unique<Resolver>(&store_, rules_);
  }

  std::string write(const std::string& name) {
    const std::string path = root_ + "/" + name;
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    EXPECT_TRUE(fd);
    EXPECT_EQ(::fchmod(fd.get(), 0644), 0);
    return path;
  }

  static void set_xattr(const std::string& path, const char* name, const std::string& value) {
    ASSERT_EQ(::setxattr(path.c_str(), name, value.data(), value.size(), 0), 0) << path;
  }
  void tag(const std::string& name, const std::string& policy) const {
    set_xattr(root_ + "/" + name, UserXattrs::system_name, "1 " + policy);
  }

  Effective resolve(const std::string& path, std::optional<uid_t> job_uid = std::nullopt) {
    FileRef file;
    file.name = path.c_str();
    file.path = path;
    auto effective = resolver_->resolve(file, path, job_uid);
    EXPECT_TRUE(effective) << effective.error().message;
    return effective ? *effective : Effective{};
  }

  TemporaryDirectory directory_;
  std::string root_;
  std::string file_;
  UserXattrs xattrs_;
  Identifier identifier_;
  PolicyStore store_{nullptr, &identifier_, &xattrs_};
  std::shared_ptr<const RuleSet> rules_;
  std::unique_ptr<Resolver> resolver_;
};

TEST_F(ResolverTest, SourcesInTheirOrder) {
  EXPECT_EQ(resolve(file_).source, Source::rule);
  tag("a", "bind:1");
  resolver_->invalidate();
  Effective effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::directory);
  EXPECT_EQ(effective.origin, root_ + "/a");
  tag("a/b", "bind:2");
  resolver_->invalidate();
  effective = resolve(file_);
  EXPECT_EQ(effective.origin, root_ + "/a/b") << "the nearest";
  EXPECT_EQ(effective.text, "bind:2");
  set_xattr(file_, "user.fpolicy", "1 bind:3,pin");
  effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::user_xattr);
  EXPECT_FALSE(effective.policy->pin);
  tag("a/b/c/file", "bind:4");
  effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::system_xattr);
  EXPECT_EQ(effective.text, "bind:4");
}

TEST_F(ResolverTest, ADirectorysOwnTagComesBeforeItsAncestors) {
  tag("a", "bind:1");
  tag("a/b", "bind:2");
  EXPECT_EQ(resolve(root_ + "/a/b").source, Source::system_xattr);
  EXPECT_EQ(resolve(root_ + "/a/b").text, "bind:2");
  EXPECT_EQ(resolve(root_ + "/a/b/c").origin, root_ + "/a/b");
  EXPECT_EQ(resolve(root_ + "/a").text, "bind:1");
}

TEST_F(ResolverTest, UserTagsOfDirectoriesAndOfUntrustedFilesDoNotCount) {
  set_xattr(root_ + "/a/b/c", "user.fpolicy", "1 bind:1");
  EXPECT_EQ(resolve(file_).source, Source::rule);

  set_xattr(file_, "user.fpolicy", "1 bind:2");
  ASSERT_EQ(::chmod(file_.c_str(), 0664), 0);
  Effective effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::rule);
  EXPECT_TRUE(effective.user_ignored);
  ASSERT_EQ(::chmod(file_.c_str(), 0644), 0);
  EXPECT_EQ(resolve(file_).source, Source::user_xattr) << "the owner is meant";
  EXPECT_EQ(resolve(file_, ::geteuid()).source, Source::user_xattr);
  // What root owns counts for all, what others own only for them.
  EXPECT_EQ(resolve(file_, ::geteuid() + 1).source, ::geteuid() == 0 ? Source::user_xattr : Source::rule);

  resolver_->set_user_tags(false);
  EXPECT_EQ(resolve(file_).source, Source::rule);
  resolver_->set_user_tags(true);
  xattrs_.user_error = EACCES;
  effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::rule);
  EXPECT_TRUE(effective.user_ignored) << "there may be one";
}

TEST_F(ResolverTest, UnsupportedTagsDecide) {
  tag("a", "bind:1");
  set_xattr(root_ + "/a/b", UserXattrs::system_name, "2 shiny");
  Effective effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::directory);
  EXPECT_TRUE(effective.unsupported);
  EXPECT_FALSE(effective.policy);
  set_xattr(file_, UserXattrs::system_name, "1 bind:1,shiny");
  effective = resolve(file_);
  EXPECT_EQ(effective.source, Source::system_xattr);
  EXPECT_TRUE(effective.unsupported);
}

TEST_F(ResolverTest, DirectoriesAreReadOnce) {
  tag("a", "bind:1");
  const std::string other = write("a/b/c/other");
  resolve(file_);
  const unsigned before = xattrs_.gets;
  EXPECT_EQ(resolve(other).origin, root_ + "/a");
  EXPECT_EQ(xattrs_.gets - before, 2U) << "the file's own two tags";
  tag("a/b/c", "bind:2");
  EXPECT_EQ(resolve(other).origin, root_ + "/a") << "remembered";
  resolver_->invalidate();
  EXPECT_EQ(resolve(other).origin, root_ + "/a/b/c");
}

TEST_F(ResolverTest, TagsThatHaveBeenReadAreNotReadAgain) {
  resolve(file_);
  FileRef file;
  file.name = file_.c_str();
  file.path = file_;
  const auto tags = store_.get(file);
  ASSERT_TRUE(tags);
  const unsigned before = xattrs_.gets;
  const auto effective = resolver_->resolve(file, file_, *tags);
  ASSERT_TRUE(effective);
  EXPECT_EQ(effective->source, Source::rule);
  EXPECT_EQ(xattrs_.gets, before);
}

TEST_F(ResolverTest, WithoutAPathOnlyOwnTagsCount) {
  tag("a", "bind:1");
  FileRef file;
  const Fd fd(::open(file_.c_str(), O_PATH | O_CLOEXEC));
  file.fd = fd.get();
  EXPECT_EQ(resolver_->resolve(file, "")->source, Source::none);
  tag("a/b/c/file", "bind:4");
  EXPECT_EQ(resolver_->resolve(file, "")->source, Source::system_xattr);
}

TEST_F(ResolverTest, APathThatNoLongerExistsHasNoDirectoryTags) {
  const Fd fd(::open(file_.c_str(), O_PATH | O_CLOEXEC));
  FileRef file;
  file.fd = fd.get();
  const auto effective = resolver_->resolve(file, root_ + "/gone/away/file");
  ASSERT_TRUE(effective) << effective.error().message;
  EXPECT_EQ(effective->source, Source::none);
}

// Between the kernel's telling a file's path and the look at its directories, who owns one of them can put a
// link in its place.
TEST_F(ResolverTest, ALinkOnThePathLendsNoTag) {
  std::filesystem::create_directories(root_ + "/tagged/b");
  tag("tagged", "bind:1");
  tag("tagged/b", "bind:2,pin");
  std::filesystem::rename(root_ + "/a", root_ + "/moved");
  std::filesystem::create_directory_symlink("tagged", root_ + "/a");
  const std::string moved = root_ + "/moved/b/c/file";
  FileRef file;
  file.name = moved.c_str();
  const auto effective = resolver_->resolve(file, root_ + "/a/b/file");
  ASSERT_TRUE(effective) << effective.error().message;
  EXPECT_EQ(effective->source, Source::rule) << effective->origin;
}

TEST_F(ResolverTest, RulesAreSwappedWhole) {
  EXPECT_EQ(resolve(file_).text, "bind:9");
  RuleSet rules;
  ASSERT_TRUE(rules.add(root_ + "/a/**\tnone\n", "new.rules"));
  resolver_->set_rules(std::make_shared<const RuleSet>(std::move(rules)));
  const Effective effective = resolve(file_);
  EXPECT_EQ(effective.text, "none");
  EXPECT_EQ(effective.origin, "new.rules:1");
  resolver_->set_rules(nullptr);
  EXPECT_EQ(resolve(file_).source, Source::none);
}

TEST_F(ResolverTest, DirectoriesNestedDeeperThanPathMax) {
  const std::string name(200, 'd');
  std::string path = root_ + "/a";
  Fd at(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (int depth = 0; depth < 50; ++depth) {
    ASSERT_TRUE(at);
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0755), 0);
    at = Fd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    path += "/" + name;
    if (depth == 40) {
      ASSERT_EQ(::fsetxattr(at.get(), UserXattrs::system_name, "1 bind:1", 8, 0), 0);
    }
  }
  FileRef file;
  file.fd = at.get();
  const auto effective = resolver_->resolve(file, path);
  ASSERT_TRUE(effective) << effective.error().message;
  EXPECT_EQ(effective->source, Source::directory);
  EXPECT_EQ(effective->origin.size(), (root_ + "/a").size() + std::size_t{41} * 201);
}

TEST_F(ResolverTest, ServesThreadsWhileOthersInvalidate) {
  tag("a/b", "bind:2");
  std::atomic<unsigned> wrong{0};
  const auto work = [&] {
    for (int i = 0; i < 500; ++i) {
      if (resolve(file_).text != "bind:2") ++wrong;
      if (i % 50 == 0) resolver_->invalidate();
      if (i % 70 == 0) resolver_->set_rules(rules_);
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace fpolicy
