// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_status.h"
#include "temporary_directory.h"

#include <fpolicy/mounted.h>
#include <fpolicy/store.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>

namespace fpolicy {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

/// The real directory for temporary files, seen through an invented mount table: the same mount id, with
/// whatever type and source a test wants.
/// Does the database refuse this file, since two mounted filesystems have the id of its own?
bool is_ambiguous(Identifier& identifier, const FileRef& file) {
  bool ambiguous = false;
  EXPECT_TRUE(identifier.identify(file, &ambiguous));
  return ambiguous;
}

class InventedMounts : public testing::Test {
 protected:
  void SetUp() override {
    FileRef file;
    file.name = files.path().c_str();
    const auto found = sys::file_status(file);
    ASSERT_TRUE(found);
    status = *found;
  }

  FileRef at(const std::string& name) const {
    FileRef file;
    file.name = name.c_str();
    file.path = name;
    return file;
  }

  /// A line for the mount that holds the files, as if their directory were its mount point.
  [[nodiscard]] std::string line(const std::string& type, const std::string& source,
                                 const std::string& inner = "/", const std::string& options = "rw") const {
    return fmt::format("{} 1 {}:{} {} {} rw - {} {} {}\n", status.stx_mnt_id, status.stx_dev_major,
                       status.stx_dev_minor, inner, files.path(), type, source, options);
  }
  Identifier with(const std::string& mountinfo) {
    root.write("proc/self/mountinfo", mountinfo);
    root.write("proc/sys/kernel/random/boot_id", "b00t\n");
    return Identifier(root.path());
  }

  TemporaryDirectory files;
  TemporaryDirectory root;
  struct statx status{};
};

TEST_F(InventedMounts, ASourceThatIsNoDeviceIsTheId) {
  const std::string name = files.write("f", "");
  auto identifier = with(line("nfs4", "server:/export"));
  const auto identity = identifier.identify(at(name));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->filesystem, "source:nfs4:server:/export");
  EXPECT_THAT(identity->key, StartsWith("h"));
}

TEST_F(InventedMounts, FuseIsKeyedByThePathInside) {
  const std::string name = files.write("dir/f", "");
  auto identifier = with(line("fuse.sshfs", "u@h:/x", "/sub"));
  const auto identity = identifier.identify(at(name));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->filesystem, "source:fuse.sshfs:u@h:/x");
  EXPECT_EQ(identity->key, "p/sub/dir/f");
  const Fd fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  FileRef by_descriptor;
  by_descriptor.fd = fd.get();
  EXPECT_EQ(*identifier.identify(by_descriptor), *identity);
  const auto opened = identifier.open(*identity, "");
  ASSERT_TRUE(opened) << opened.error().message;
  // A file that took its place is another.
  ASSERT_EQ(::unlink(name.c_str()), 0);
  EXPECT_EQ(identifier.open(*identity, name).error().code, ESTALE);
  EXPECT_EQ(identifier.identify(by_descriptor).error().code, ESTALE) << "deleted: no path leads to it";
}

/// As for a service to which systemd gave a mount namespace of its own: what is opened elsewhere comes
/// through mounts that its own table lacks.
class MachinesMounts : public InventedMounts {
 protected:
  /// `own`: the namespace that the service lives in.
  Identifier in_namespace(const std::string& own) {
    root.write("proc/1/mountinfo", line("fuse.sshfs", "u@h:/x", "/sub"));
    std::filesystem::create_directories(root / "proc/1/ns");
    std::filesystem::create_directories(root / "proc/self/ns");
    std::filesystem::create_symlink("mnt:[1]", root / "proc/1/ns/mnt");
    std::filesystem::create_symlink(own, root / "proc/self/ns/mnt");
    std::filesystem::create_symlink("/", root / "proc/1/root");
    // The copy of the same mount, of which the kernel says another number.
    return with(fmt::format("{} 1 {}:{} /sub {}/copy rw - fuse.sshfs u@h:/other rw\n",
                            status.stx_mnt_id + 100'000, status.stx_dev_major, status.stx_dev_minor,
                            files.path()));
  }
};

TEST_F(MachinesMounts, AreThoseThatCallersFilesWereOpenedThrough) {
  const std::string name = files.write("dir/f", "");
  auto identifier = in_namespace("mnt:[2]");
  EXPECT_EQ(identifier.identify(at(name)).error().code, ENODEV) << "not in this mount namespace";
  identifier.include_machines_mounts();
  const auto identity = identifier.identify(at(name));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->key, "p/sub/dir/f");
  EXPECT_EQ(identity->filesystem, "source:fuse.sshfs:u@h:/x");
  const auto opened = identifier.open(*identity, "");
  EXPECT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(identifier.examine(*identity, name).fate, Fate::live);
  ASSERT_EQ(::unlink(name.c_str()), 0);
  EXPECT_EQ(identifier.examine(*identity, name).fate, Fate::gone);
  auto mounted = MountedDevices::open(root.path());
  ASSERT_TRUE(mounted);
  const Fd fd(::open(files.path().c_str(), O_PATH | O_CLOEXEC));
  EXPECT_EQ(mounted->contains_file(fd.get()), false) << "a user's FUSE server, wherever it is mounted";
}

TEST_F(MachinesMounts, AreLookedAtOnlyFromAnotherNamespace) {
  const std::string name = files.write("dir/f", "");
  auto identifier = in_namespace("mnt:[1]");
  identifier.include_machines_mounts();
  EXPECT_EQ(identifier.identify(at(name)).error().code, ENODEV);
}

TEST_F(MachinesMounts, CountForCallersFiles) {
  const auto identifier = in_namespace("mnt:[2]");
  root.write("proc/1/mountinfo", line("ext4", "/dev/sda1"));
  const Fd fd(::open(files.path().c_str(), O_PATH | O_CLOEXEC));
  const auto mounted = MountedDevices::open(root.path());
  ASSERT_TRUE(mounted);
  EXPECT_EQ(mounted->contains_file(fd.get()), true);
  root.write("proc/1/mountinfo", "");
  const auto without = MountedDevices::open(root.path());
  ASSERT_TRUE(without);
  EXPECT_EQ(without->contains_file(fd.get()), false);
}

TEST_F(InventedMounts, FatsBirthTimesDoNotDependOnTheTimeZone) {
  const std::string name = files.write("f", "");
  auto identifier = with(line("vfat", "/nowhere"));
  const auto in_fat = identifier.identify(at(name));
  ASSERT_TRUE(in_fat) << in_fat.error().message;
  identifier = with(line("fuse.x", "/nowhere"));
  const auto in_fuse = identifier.identify(at(name));
  ASSERT_TRUE(in_fuse) << in_fuse.error().message;
  if (in_fuse->birth_ns == 0) GTEST_SKIP() << "no birth times here";
  EXPECT_EQ(in_fat->key, "p/f");
  EXPECT_EQ(in_fat->birth_ns, in_fuse->birth_ns % 900'000'000'000 + 1);
}

TEST_F(InventedMounts, OverlaysAreToldApartByTheirLayers) {
  const std::string name = files.write("f", "");
  auto identifier = with(line("overlay", "overlay", "/", "rw,lowerdir=/a:/b,upperdir=/u,workdir=/w"));
  const auto identity = identifier.identify(at(name));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->filesystem, "source:overlay:overlay:lowerdir=/a:/b:upperdir=/u");
  EXPECT_EQ(identity->key, "p/f");
}

TEST_F(InventedMounts, MemoryFilesystemsAreOfThisBoot) {
  const std::string name = files.write("f", "");
  auto huge = with(line("hugetlbfs", "hugetlbfs"));
  const auto identity = huge.identify(at(name));
  ASSERT_TRUE(identity) << identity.error().message;
  EXPECT_EQ(identity->filesystem,
            fmt::format("boot:b00t:hugetlbfs:{}:{}", status.stx_dev_major, status.stx_dev_minor));
  EXPECT_THAT(identity->key, StartsWith("i"));
  auto tmpfs = with(line("tmpfs", "tmpfs"));
  EXPECT_THAT(tmpfs.identify(at(name))->filesystem, StartsWith("boot:b00t:tmpfs:"));
}

TEST_F(InventedMounts, KernelFilesystemsHaveNoIdentity) {
  auto identifier = with(line("cgroup2", "cgroup2"));
  const auto identity = identifier.identify(at(files.write("f", "")));
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ENOTSUP);
}

TEST_F(InventedMounts, AFilesystemThatIsNotMountedHereIsRefused) {
  auto identifier = with("1 1 0:77 / /elsewhere rw - nfs s:/ rw\n");
  const auto identity = identifier.identify(at(files.write("f", "")));
  ASSERT_FALSE(identity);
  EXPECT_EQ(identity.error().code, ENODEV);
  EXPECT_THAT(identity.error().message, HasSubstr("not mounted in this mount namespace"));
  EXPECT_EQ(identifier.open({"source:nfs:other:/", "hxxxxxxxx", 0}, "/nonexistent").error().code, ENODEV);
}

TEST_F(InventedMounts, TwoFilesystemsOfOneIdAreAmbiguous) {
  const std::string name = files.write("f", "");
  const auto other = [](const std::string& type, const std::string& source) {
    return fmt::format("999999 1 0:9999 / /other rw - {} {} rw\n", type, source);
  };
  auto identifier = with(line("fuse.x", "same") + other("fuse.x", "same"));
  EXPECT_TRUE(is_ambiguous(identifier, at(name)));
  identifier = with(line("fuse.x", "same") + other("fuse.x", "different"));
  EXPECT_FALSE(is_ambiguous(identifier, at(name)));
  identifier = with(line("fuse.x", "same") + other("fuse.y", "same"));
  EXPECT_FALSE(is_ambiguous(identifier, at(name)));
  // A bind mount is the same filesystem; an NFS export mounted twice is the server's one.
  identifier = with(line("fuse.x", "same") + fmt::format("999999 1 {}:{} /sub /other rw - fuse.x same rw\n",
                                                         status.stx_dev_major, status.stx_dev_minor));
  EXPECT_FALSE(is_ambiguous(identifier, at(name)));
  identifier = with(line("nfs4", "s:/") + other("nfs4", "s:/"));
  EXPECT_FALSE(is_ambiguous(identifier, at(name)));
}

TEST_F(InventedMounts, AMountTableThatDoesNotParseIsAnError) {
  auto identifier = with("garbage\n");
  EXPECT_EQ(identifier.identify(at(files.write("f", ""))).error().code, EINVAL);
}

TEST(Identifier, HandlesTellAFileFromTheNextWithItsInode) {
  const TemporaryDirectory directory;
  Identifier identifier;
  FileRef file;
  const std::string name = directory.write("f", "");
  file.name = name.c_str();
  const auto first = identifier.identify(file);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(*identifier.identify(file), *first);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(::unlink(name.c_str()), 0);
    directory.write("f", "");
    EXPECT_NE(*identifier.identify(file), *first);
  }
}

TEST(Identifier, ChangesOfTheFileDoNotChangeItsIdentity) {
  const TemporaryDirectory directory;
  Identifier identifier;
  const std::string name = directory.write("f", "");
  FileRef file;
  file.name = name.c_str();
  const auto first = *identifier.identify(file);
  directory.write("f", "more");
  ASSERT_EQ(::chmod(name.c_str(), 0700), 0);
  const std::string other = directory / "g";
  ASSERT_EQ(::rename(name.c_str(), other.c_str()), 0);
  file.name = other.c_str();
  EXPECT_EQ(*identifier.identify(file), first);
}

TEST(Identifier, ASymbolicLinkIsNotFollowed) {
  const TemporaryDirectory directory;
  Identifier identifier;
  const std::string name = directory.write("f", "");
  const std::string link = directory / "link";
  ASSERT_EQ(::symlink(name.c_str(), link.c_str()), 0);
  FileRef file;
  file.name = name.c_str();
  const auto target = *identifier.identify(file);
  file.name = link.c_str();
  const auto of_link = identifier.identify(file);
  ASSERT_TRUE(of_link) << of_link.error().message;
  EXPECT_NE(*of_link, target);
}

TEST(Identifier, OpensWhatIsStillAtItsPathWithoutPrivilege) {
  const TemporaryDirectory directory;
  Identifier identifier;
  const std::string name = directory.write("f", "hello");
  FileRef file;
  file.name = name.c_str();
  const auto identity = *identifier.identify(file);
  const auto opened = identifier.open(identity, name);
  ASSERT_TRUE(opened) << opened.error().message;
  char buffer[8];
  EXPECT_EQ(::read(opened->get(), buffer, sizeof buffer), 5);
}

}  // namespace
}  // namespace fpolicy
