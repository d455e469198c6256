// SPDX-License-Identifier: LGPL-2.1-or-later
// Tags on real filesystems in images: each is made, mounted, unmounted and mounted again. Needs root and loop
// devices.
#include <fpolicy/store.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace fpolicy {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
namespace fs = std::filesystem;

/// An empty file.
void create(const std::string& path) {
  const std::ofstream file(path);
}

/// Runs a program without a shell; its output goes to `log`.
bool run(const std::vector<std::string>& words, const std::string& log) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(fd, 1);
    ::dup2(fd, 2);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Does the database refuse this file, since two mounted filesystems have the id of its own?
bool is_ambiguous(Identifier& identifier, const FileRef& file) {
  bool ambiguous = false;
  EXPECT_TRUE(identifier.identify(file, &ambiguous));
  return ambiguous;
}

constexpr const char* zero_uuid = "-U00000000-0000-0000-0000-000000000000";

class Filesystems : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string pattern = (fs::temp_directory_path() / "fpolicy-system-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    auto opened = Database::open(directory + "/state/fpolicy.db", Database::Access::read_write, &identifier);
    ASSERT_TRUE(opened) << opened.error().message;
    database = std::move(*opened);
    store.emplace(database.get(), &identifier);
  }
  void TearDown() override {
    while (!mounted.empty()) unmount(mounted.back());
    std::error_code ignored;
    if (!directory.empty()) fs::remove_all(directory, ignored);
  }

  [[nodiscard]] std::string log() const {
    std::ifstream stream(directory + "/log");
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  /// An empty filesystem of that type in an image file; false where it cannot be made.
  bool make(const std::string& type, const std::string& image) {
    if (type == "squashfs" || type == "erofs") {
      fs::create_directories(directory + "/tree");
      std::ofstream(directory + "/tree/file") << "x";
      std::ofstream(directory + "/tree/other") << "y";
      if (type == "squashfs")
        return run({"mksquashfs", directory + "/tree", image, "-quiet", "-noappend"}, directory + "/log");
      return run({"mkfs.erofs", zero_uuid, image, directory + "/tree"}, directory + "/log");
    }
    create(image);
    fs::resize_file(image, std::uintmax_t{type == "vfat" ? 64U : 320U} << 20U);
    return run({"mkfs." + type, image}, directory + "/log");
  }
  bool mount(const std::vector<std::string>& words, const std::string& point) {
    fs::create_directories(point);
    std::vector<std::string> all{"mount"};
    all.insert(all.end(), words.begin(), words.end());
    all.push_back(point);
    if (!run(all, directory + "/log")) return false;
    mounted.push_back(point);
    return true;
  }
  void unmount(const std::string& point) {
    EXPECT_EQ(::umount(point.c_str()), 0) << point;
    std::erase(mounted, point);
  }
  static FileRef at(const std::string& name) {
    FileRef file;
    file.name = name.c_str();
    file.path = name;
    return file;
  }
  void set(const std::string& name, Space space, const std::string& text) {
    const auto outcome = store->set(at(name), space, *parse_policy(text));
    ASSERT_TRUE(outcome) << outcome.error().message;
    const auto done = store->flush();
    ASSERT_TRUE(done) << done.error().message;
  }
  std::string text(const std::string& name, Space space = Space::system) {
    const auto tag = store->get(at(name), space);
    if (!tag) return tag.error().message;
    return *tag ? (*tag)->text : "none";
  }

  std::string directory;
  std::vector<std::string> mounted;
  Identifier identifier;
  std::unique_ptr<Database> database;
  std::optional<PolicyStore> store;
};

struct Kind {
  const char* type;
  Carrier carrier;
  const char* id;
};

class EachFilesystem : public Filesystems, public testing::WithParamInterface<Kind> {};

TEST_P(EachFilesystem, ATagSurvivesMountingElsewhere) {
  const auto& [type, carrier, id] = GetParam();
  const std::string image = directory + "/image";
  if (!make(type, image)) GTEST_SKIP() << "cannot make " << type << ": " << log();
  const std::string first = directory + "/first";
  const std::string second = directory + "/second";
  if (!mount({"-o", "loop", image}, first)) GTEST_SKIP() << "cannot mount " << type << ": " << log();
  const bool read_only = type == std::string_view("squashfs") || type == std::string_view("erofs");
  const std::string file = first + "/file";
  if (!read_only) {
    create(file);
    create(first + "/other");
  }
  set(file, Space::system, "bind:1");
  EXPECT_EQ((*store->get(at(file), Space::system))->carrier, carrier);
  EXPECT_EQ(text(file), "bind:1");
  EXPECT_EQ(text(first + "/other"), "none");
  const auto record = database->find(at(file), Space::system);
  ASSERT_TRUE(record && *record);
  EXPECT_EQ((*record)->carrier, carrier);
  EXPECT_THAT((*record)->identity.filesystem, StartsWith(id));
  EXPECT_FALSE(is_ambiguous(identifier, at(file)));
  unmount(first);
  EXPECT_EQ(identifier.open((*record)->identity, file).error().code, ENODEV);
  // Something else takes the loop device that the image had.
  const std::string between = directory + "/between";
  ASSERT_TRUE(make("ext4", directory + "/other-image")) << log();
  ASSERT_TRUE(mount({"-o", "loop", directory + "/other-image"}, between)) << log();
  ASSERT_TRUE(mount({"-o", "loop", image}, second)) << log();
  EXPECT_EQ(text(second + "/file"), "bind:1");
  EXPECT_EQ(text(second + "/other"), "none");
  const auto again = identifier.identify(at(second + "/file"));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, (*record)->identity);
  // The catalogue finds it where it is now.
  const auto opened = identifier.open((*record)->identity, file);
  ASSERT_TRUE(opened) << opened.error().message;
  struct stat there{};
  struct stat here{};
  ASSERT_EQ(::fstat(opened->get(), &there), 0);
  ASSERT_EQ(::stat((second + "/file").c_str(), &here), 0);
  EXPECT_EQ(there.st_ino, here.st_ino);
  EXPECT_EQ(there.st_dev, here.st_dev);
  // Through a bind mount of a directory it is the same file.
  const std::string bind = directory + "/bind";
  ASSERT_TRUE(mount({"--bind", second}, bind)) << log();
  EXPECT_EQ(text(bind + "/file"), "bind:1");
  EXPECT_FALSE(is_ambiguous(identifier, at(bind + "/file")));
  if (read_only) return;
  EXPECT_EQ(*store->remove(at(second + "/file"), Space::system), SetOutcome::changed);
  ASSERT_TRUE(store->flush());
  EXPECT_EQ(text(second + "/file"), "none");
  // A file in the place of a tagged one.
  set(second + "/file", Space::system, "bind:2");
  ASSERT_EQ(::unlink((second + "/file").c_str()), 0);
  ::usleep(20'000);  // FAT keeps birth times in steps of 10 ms
  create(second + "/file");
  EXPECT_EQ(text(second + "/file"), "none");
  const auto gone = identifier.open((*record)->identity, second + "/file");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ESTALE) << gone.error().message;
}

INSTANTIATE_TEST_SUITE_P(Types, EachFilesystem,
                         testing::Values(Kind{"ext4", Carrier::xattr, "uuid:"},
                                         Kind{"xfs", Carrier::xattr, "uuid:"},
                                         Kind{"btrfs", Carrier::xattr, "btrfs:"},
                                         Kind{"vfat", Carrier::database, "uuid:"},
                                         Kind{"squashfs", Carrier::database, "squashfs:"},
                                         Kind{"erofs", Carrier::database, "erofs:"}),
                         [](const auto& kind) { return std::string(kind.param.type); });

TEST_F(Filesystems, AReadOnlyMountIsCarriedByTheDatabase) {
  const std::string image = directory + "/image";
  ASSERT_TRUE(make("ext4", image)) << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount: " << log();
  create(point + "/file");
  create(point + "/tagged");
  set(point + "/tagged", Space::system, "bind:1");
  ASSERT_TRUE(run({"mount", "-o", "remount,ro", point}, directory + "/log")) << log();
  set(point + "/file", Space::system, "bind:2");
  EXPECT_EQ((*store->get(at(point + "/file"), Space::system))->carrier, Carrier::database);
  // Its xattr cannot be changed, and wins over any record.
  const auto refused = store->set(at(point + "/tagged"), Space::system, *parse_policy("bind:3"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EROFS);
  EXPECT_EQ(text(point + "/tagged"), "bind:1");
  ASSERT_TRUE(run({"mount", "-o", "remount,rw", point}, directory + "/log")) << log();
  EXPECT_EQ(text(point + "/file"), "bind:2");
  set(point + "/file", Space::system, "bind:2");
  EXPECT_EQ((*store->get(at(point + "/file"), Space::system))->carrier, Carrier::xattr);
}

TEST_F(Filesystems, AFullFilesystemIsCarriedByTheDatabase) {
  const std::string image = directory + "/image";
  // Inodes of 128 bytes have no room for xattrs: each takes a block.
  create(image);
  fs::resize_file(image, std::uintmax_t{16} << 20U);
  ASSERT_TRUE(run({"mkfs.ext4", "-q", "-I", "128", "-m", "0", "-b", "4096", image}, directory + "/log"))
      << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount: " << log();
  create(point + "/file");
  std::ofstream big(point + "/big", std::ios::binary);
  const std::string block(4096, 'x');
  while (big.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
  }
  big.close();
  set(point + "/file", Space::system, "bind:1");
  EXPECT_EQ((*store->get(at(point + "/file"), Space::system))->carrier, Carrier::database);
}

TEST_F(Filesystems, CopiesOfAnImageAreToldByTheirIdAndRefused) {
  const std::string image = directory + "/image";
  ASSERT_TRUE(make("ext4", image)) << log();
  const std::string one = directory + "/one";
  const std::string two = directory + "/two";
  if (!mount({"-o", "loop", image}, one)) GTEST_SKIP() << "cannot mount: " << log();
  create(one + "/file");
  unmount(one);
  fs::copy_file(image, image + ".copy");
  ASSERT_TRUE(mount({"-o", "loop", image}, one)) << log();
  EXPECT_FALSE(is_ambiguous(identifier, at(one + "/file")));
  ASSERT_TRUE(mount({"-o", "loop,ro", image + ".copy"}, two)) << log();
  EXPECT_TRUE(is_ambiguous(identifier, at(one + "/file")));
  // What an xattr holds is set, and flush tells that the catalogue lacks it.
  EXPECT_TRUE(store->set(at(one + "/file"), Space::system, *parse_policy("bind:1")));
  const auto done = store->flush();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ENOTUNIQ);
  EXPECT_THAT(done.error().message, HasSubstr("two mounted filesystems have the id uuid:"));
  EXPECT_EQ(text(one + "/file"), "bind:1");
  // What only the database could hold is refused.
  const auto refused = store->set(at(two + "/file"), Space::system, *parse_policy("bind:1"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ENOTUNIQ);
  EXPECT_EQ(text(two + "/file"), "none");
  unmount(two);
  EXPECT_FALSE(is_ambiguous(identifier, at(one + "/file")));
}

TEST_F(Filesystems, ANewTmpfsHasNoTagsOfAnOldOne) {
  const std::string point = directory + "/point";
  ASSERT_TRUE(mount({"-t", "tmpfs", "tmpfs"}, point)) << log();
  create(point + "/file");
  const auto before = identifier.filesystem(at(point + "/file"));
  ASSERT_TRUE(before) << before.error().message;
  set(point + "/file", Space::system, "bind:1");
  unmount(point);
  ASSERT_TRUE(mount({"-t", "tmpfs", "tmpfs"}, point)) << log();
  create(point + "/file");
  EXPECT_NE(*identifier.filesystem(at(point + "/file")), *before);
  EXPECT_EQ(text(point + "/file"), "none");
}

TEST_F(Filesystems, ABtrfsSnapshotsFileIsAnother) {
  const std::string image = directory + "/image";
  if (!make("btrfs", image)) GTEST_SKIP() << "cannot make btrfs: " << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount btrfs: " << log();
  ASSERT_TRUE(run({"btrfs", "subvolume", "create", point + "/sub"}, directory + "/log")) << log();
  create(point + "/sub/file");
  ASSERT_TRUE(run({"btrfs", "subvolume", "snapshot", point + "/sub", point + "/snap"}, directory + "/log"))
      << log();
  const auto original = identifier.identify(at(point + "/sub/file"));
  const auto snapshot = identifier.identify(at(point + "/snap/file"));
  ASSERT_TRUE(original && snapshot);
  EXPECT_EQ(original->filesystem, snapshot->filesystem);
  EXPECT_NE(original->key, snapshot->key);
  EXPECT_FALSE(is_ambiguous(identifier, at(point + "/sub/file")));
}

TEST_F(Filesystems, AnOverlaysFilesAreKeyedByPath) {
  const std::string base = directory + "/overlay";
  for (const char* name : {"lower", "upper", "work"}) fs::create_directories(base + "/" + name);
  create(base + "/lower/file");
  const std::string point = directory + "/point";
  const std::string options = fmt::format("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", base);
  if (!mount({"-t", "overlay", "overlay", "-o", options}, point)) GTEST_SKIP() << "cannot mount: " << log();
  const auto before = identifier.identify(at(point + "/file"));
  ASSERT_TRUE(before) << before.error().message;
  EXPECT_EQ(before->key, "p/file");
  set(point + "/file", Space::system, "bind:1");
  unmount(point);
  ASSERT_TRUE(mount({"-t", "overlay", "overlay", "-o", options}, point)) << log();
  EXPECT_EQ(identifier.identify(at(point + "/file"))->filesystem, before->filesystem);
  EXPECT_EQ(text(point + "/file"), "bind:1");
}

TEST_F(Filesystems, AnotherImageWithoutIdInTheSamePlaceHasNoTags) {
  const std::string image = directory + "/image";
  if (!make("erofs", image)) GTEST_SKIP() << "cannot make erofs: " << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount erofs: " << log();
  set(point + "/file", Space::system, "bind:1");
  EXPECT_EQ(text(point + "/file"), "bind:1");
  const auto before = identifier.identify(at(point + "/file"));
  unmount(point);
  fs::remove(image);
  std::ofstream(directory + "/tree/third") << "z";
  ASSERT_TRUE(run({"mkfs.erofs", zero_uuid, image, directory + "/tree"}, directory + "/log")) << log();
  ASSERT_TRUE(mount({"-o", "loop", image}, point)) << log();
  EXPECT_EQ(text(point + "/file"), "none");
  EXPECT_NE(identifier.identify(at(point + "/file"))->filesystem, before->filesystem);
}

TEST_F(Filesystems, AFileThatIsCopiedUpAsItIsTaggedIsInTheCatalogueAsItIsThen) {
  const std::string base = directory + "/overlay";
  for (const char* name : {"lower", "upper", "work"}) fs::create_directories(base + "/" + name);
  create(base + "/lower/file");
  create(base + "/lower/linked");
  fs::create_hard_link(base + "/lower/linked", base + "/lower/linked-too");
  ::usleep(20'000);  // for another birth time
  const std::string point = directory + "/point";
  const std::string options = fmt::format("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", base);
  if (!mount({"-t", "overlay", "overlay", "-o", options}, point)) GTEST_SKIP() << "cannot mount: " << log();
  for (const std::string& name : {point + "/file", point + "/linked"}) {
    set(name, Space::system, "bind:1");
    if ((*store->get(at(name), Space::system))->carrier != Carrier::xattr)
      GTEST_SKIP() << "the layers hold no system tags here";
    EXPECT_TRUE(fs::exists(base + "/upper" + name.substr(point.size())));
    const auto record = database->find(at(name), Space::system);
    ASSERT_TRUE(record) << record.error().message;
    EXPECT_TRUE(*record) << name << " is stale";
  }
  EXPECT_EQ(text(point + "/linked-too"), "none");
}

TEST_F(Filesystems, AFileHiddenBelowAMountIsOpenedByItsHandle) {
  const std::string image = directory + "/image";
  ASSERT_TRUE(make("ext4", image)) << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount: " << log();
  fs::create_directories(point + "/dir");
  create(point + "/dir/file");
  const auto identity = identifier.identify(at(point + "/dir/file"));
  ASSERT_TRUE(identity);
  ASSERT_TRUE(mount({"-t", "tmpfs", "tmpfs"}, point + "/dir")) << log();
  create(point + "/dir/file");
  const auto opened = identifier.open(*identity, point + "/dir/file");
  ASSERT_TRUE(opened) << opened.error().message;
  FileRef file;
  file.fd = opened->get();
  EXPECT_EQ(*identifier.identify(file), *identity);
}

TEST_F(Filesystems, AnImmutableFileIsNamedAsSuch) {
  const std::string image = directory + "/image";
  ASSERT_TRUE(make("ext4", image)) << log();
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount: " << log();
  create(point + "/file");
  ASSERT_TRUE(run({"chattr", "+i", point + "/file"}, directory + "/log")) << log();
  const auto refused = store->set(at(point + "/file"), Space::system, *parse_policy("bind:1"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EPERM);
  EXPECT_THAT(refused.error().message, HasSubstr("immutable"));
  ASSERT_TRUE(run({"chattr", "-i", point + "/file"}, directory + "/log")) << log();
}

TEST_F(Filesystems, WithoutPrivilegeSystemTagsAreReadNotWritten) {
  const std::string image = directory + "/image";
  ASSERT_TRUE(make("ext4", image)) << log();
  ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
  const std::string point = directory + "/point";
  if (!mount({"-o", "loop", image}, point)) GTEST_SKIP() << "cannot mount: " << log();
  const std::string theirs = point + "/theirs";
  create(theirs);
  ASSERT_EQ(::chmod(theirs.c_str(), 0600), 0);
  set(theirs, Space::system, "bind:1");
  set(theirs, Space::user, "bind:3");
  const std::string own = point + "/own";
  create(own);
  ASSERT_EQ(::chown(own.c_str(), 65534, 65534), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(1);
    Identifier mine;
    PolicyStore plain(nullptr, &mine);
    const auto tags = plain.get(at(theirs));
    if (!tags || !tags->system || tags->system->text != "bind:1" || !tags->user_denied) ::_exit(2);
    const auto system = plain.set(at(own), Space::system, *parse_policy("bind:1"));
    if (system || system.error().message.find("CAP_SYS_ADMIN") == std::string::npos) ::_exit(3);
    if (!plain.set(at(own), Space::user, *parse_policy("bind:2"))) ::_exit(4);
    const auto denied = plain.set(at(theirs), Space::user, *parse_policy("bind:2"));
    if (denied || denied.error().code != EACCES) ::_exit(5);
    if (Database::open(directory + "/state/fpolicy.db", Database::Access::read_only, &mine)) ::_exit(6);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(text(own, Space::user), "bind:2");
  // The daemon enters in the catalogue what the owner has set.
  ASSERT_TRUE(store->reconcile(at(own)));
  ASSERT_TRUE(store->flush());
  const auto record = database->find(at(own), Space::user);
  ASSERT_TRUE(record && *record);
  EXPECT_EQ((*record)->uid, 65534U);
}

}  // namespace
}  // namespace fpolicy
