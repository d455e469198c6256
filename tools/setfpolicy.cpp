// SPDX-License-Identifier: LGPL-2.1-or-later
// setfpolicy: tags files and directories with placement policies.
#include "common/catalogue.h"
#include "common/command.h"
#include "common/elf_libs.h"
#include "common/policyd.h"
#include "common/stores.h"
#include "common/text.h"

#include <fpolicy/carry_over.h>
#include <fpolicy/policy.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/topology.h>
#include <fpolicy/tree.h>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

/// Longest dump that is read, in bytes: some 40 million lines.
constexpr std::size_t longest_dump = 4ULL << 30U;

struct Options {
  Locations locations;
  LinkOptions links;
  bool recursive = false;
  bool system = false;
  bool user = false;
  bool remove = false;
  bool from_rules = false;
  bool from_catalogue = false;
  bool libraries = false;
  bool dry_run = false;
  bool force = false;
  bool verbose = false;
  bool prune = false;
  bool test = false;  ///< as dry_run, but only faults are told
  std::string restore;
  std::string reference;
};

std::string_view space_name(Space space) {
  return space == Space::system ? "system" : "user";
}

/// What is to be done to one file: a policy to set, or nothing to remove its tag.
struct Wish {
  Space space = Space::system;
  std::optional<Policy> policy;
};

class SetFpolicy {
 public:
  SetFpolicy(Command& command, Options options)
      : command_(command),
        options_(std::move(options)),
        requests_(options_.locations.socket),
        notice_(options_.locations.socket) {
    wish_.space = options_.user || (!options_.system && !as_root_) ? Space::user : Space::system;
    privileged_ = uses_database(options_.locations);
  }

  Status open() {
    // Where nothing was ever tagged, an upgrade makes no database.
    const bool is_nothing_to_carry =
        options_.from_catalogue && ::access(options_.locations.database.c_str(), F_OK) != 0;
    auto stores = Stores::open(options_.locations, options_.dry_run || is_nothing_to_carry
                                                       ? Database::Access::read_only
                                                       : Database::Access::read_write);
    if (!stores) return tl::unexpected(stores.error());
    stores_ = *std::move(stores);
    if (options_.from_rules) {
      auto rules = load_rules(options_.locations.rules);
      if (!rules) return tl::unexpected(rules.error());
      rules_ = *std::move(rules);
      // Asked from several threads.
      return learn_topology();
    }
    return {};
  }

  /// The policy of the command line, or of --reference. Nothing is done where this machine cannot meet it.
  Status wish_for(const Policy& policy) {
    if (const Status met = check_nodes(policy); !met) return met;
    wish_.policy = policy;
    if (policy.pin && wish_.space == Space::user) command_.note("pin does not count in a user tag");
    return {};
  }

  Status wish_reference() {
    const auto file = open_target(options_.reference, options_.links.follow_named());
    if (!file) return with_context(escape_text(options_.reference), file.error());
    const auto tag =
        stores_->store().get(FileRef{file->fd.get(), nullptr, file->path, file->device}, wish_.space);
    if (!tag) return with_context(escape_text(options_.reference), tag.error());
    if (!*tag) {
      return fail(ENODATA,
                  fmt::format("{}: has no {} tag", escape_text(options_.reference), space_name(wish_.space)));
    }
    if (!(*tag)->policy) {
      return fail(ENOTSUP, fmt::format("{}: its tag is not understood: {}", escape_text(options_.reference),
                                       escape_text((*tag)->text)));
    }
    return wish_for(*(*tag)->policy);
  }

  void run() {
    if (command_.json()) std::fputs("{\"files\":[", stdout);
    if (!options_.restore.empty()) {
      restore();
    } else if (options_.from_catalogue) {
      from_catalogue();
    } else {
      command_.for_each_name([&](const std::string& name) { named(name); });
    }
    if (command_.json()) std::fputs("]}\n", stdout);
    if (const Status flushed = stores_->store().flush(); !flushed) command_.error(flushed.error().message);
    // Tags are stored: whether policyd hears of them now or finds them when it starts is no failure.
    if (const Status told = notice_.finish(); !told && options_.verbose) command_.note(told.error().message);
  }

 private:
  void named(const std::string& name) {
    auto file = open_target(name, options_.links.follow_named());
    if (!file) return command_.error(name, file.error());
    if (options_.libraries && S_ISREG(file->mode)) libraries(name, file->path);
    if (options_.recursive && S_ISDIR(file->mode)) return tree(*std::move(file));
    one(*file, name, wish_, S_ISDIR(file->mode));
  }

  /// The files that have the paths of the catalogue now: all, or those that are named and those below named
  /// directories.
  void from_catalogue() {
    if (!privileged_) return command_.error("--from-catalogue needs the catalogue, which root reads");
    CarryOver carry_over(stores_->records(), &stores_->store(), &stores_->identifier());
    if (command_.names().empty() && !command_.null()) carry_below(carry_over, "");
    command_.for_each_name([&](const std::string& name) {
      const auto file = open_named(name, options_.links.follow_named());
      if (!file) return command_.error(name, file.error());
      carry(carry_over, file->path);
      if (S_ISDIR(file->mode)) carry_below(carry_over, file->path == "/" ? "/" : file->path + "/");
    });
    if (const Status done = carry_over.finish(); !done) command_.error(done.error().message);
  }

  void carry_below(CarryOver& carry_over, const std::string& prefix) {
    std::string last;
    const Status read = stores_->records()->for_each(prefix, [&](const TagRecord& record) {
      // The records of one path stand together.
      if (record.path != last) carry(carry_over, last = record.path);
      return true;
    });
    if (!read) command_.error("the catalogue: " + read.error().message);
  }

  void carry(CarryOver& carry_over, const std::string& path) {
    command_.progress(
        [&] { return fmt::format("{} paths, {} carried over", carry_looked_, carry_changed_); });
    ++carry_looked_;
    CarryOptions how;
    how.dry_run = options_.dry_run;
    how.other_filesystem = options_.force;
    const auto carried = carry_over.carry(path, how);
    if (!carried) return command_.error(path, carried.error());
    if (!*carried) return;
    ++carry_changed_;
    const CarriedTags& tags = **carried;
    const FileRef ref{tags.fd.get(), nullptr, path};
    std::string output;
    for (const auto& tag : tags.tags) tell(ref, tag.space, &tag.policy, tags.directory, true, output);
    command_.print(output);
    if (!options_.dry_run) notice_.add(path, tags.fd.get());
  }

  /// One file that is held; policyd is told of it alone.
  void one(const NamedFile& file, std::string_view name, const Wish& wish, bool directory) {
    const FileRef ref{file.fd.get(), nullptr, file.path, file.device};
    std::string output;
    if (apply(ref, name, wish, directory, false, output)) notice_.add(file.path, file.fd.get());
    command_.print(output);
  }

  void tree(NamedFile root) {
    std::atomic<std::uint64_t> visited = 0;
    std::atomic<std::uint64_t> changed = 0;
    // Sent once the tags are there; the walk takes the descriptor with it.
    auto again = open_named(root.path, false);
    const TreeVisitor visitor{
        .visit =
            [&](const TreeEntry& entry, std::string& output) {
              visited.fetch_add(1, std::memory_order_relaxed);
              // -R means each file; to clear a tree, directories must lose their tags, too.
              if (entry.directory && wish_.policy) return;
              if (entry.directory && options_.from_rules) return;
              if (!apply(entry.file, entry.file.path, wish_, entry.directory, true, output, entry.mount))
                return;
              ++changed;
              if (!as_root_) tell_of(entry.file);
            },
        .emit =
            [&](std::string_view output) {
              command_.print(output);
              command_.progress(
                  [&] { return fmt::format("{} files, {} changed", visited.load(), changed.load()); });
              return true;
            },
        .error = [&](std::string_view path, const Error& error) { command_.error(path, error); }};
    TreeOptions options = options_.links.tree();
    // One more than processors: a thread that commits a batch waits for the disk.
    options.threads = std::thread::hardware_concurrency() + 1;
    walk_tree(std::move(root), options, visitor);
    // From root one word about the directory means all below it.
    if (changed != 0 && again && as_root_) notice_.add(again->path, again->fd.get());
  }

  /// From others policyd takes open files only.
  void tell_of(const FileRef& file) {
    auto held = file.fd >= 0 ? Result<NamedFile>(NamedFile{}) : open_named(file.name, false);
    if (!held) return;
    const std::scoped_lock lock(notice_mutex_);
    notice_.add(file.path, file.fd >= 0 ? file.fd : held->fd.get());
  }

  void libraries(const std::string& name, const std::string& path) {
    const auto found = elf_libraries(path);
    if (!found) return command_.error(name, found.error());
    for (const std::string& missing : found->missing) {
      command_.error(name, Error{ENOENT, "library not found: " + escape_text(missing)});
    }
    for (const std::string& library : found->paths) {
      const auto file = open_target(library, true);
      if (!file) {
        command_.error(library, file.error());
      } else if (libraries_.insert({file->device, file->inode}).second) {
        one(*file, library, wish_, false);
      }
    }
  }

  /// One line of a dump.
  struct DumpLine {
    DumpEntry entry;
    unsigned line = 0;
    Result<Policy> policy;  ///< an error: unsupported
  };

  void restore() {
    const bool from_stdin = options_.restore == "-";
    const std::string name = from_stdin ? "standard input" : escape_text(options_.restore);
    std::string text;
    if (const Status read = read_dump(from_stdin, text); !read) return command_.error(name, read.error());
    // What is left of a policy may be another one.
    if (!text.empty() && !text.ends_with('\n')) {
      return command_.error(name + ": its last line has no end: the dump was cut off");
    }
    std::vector<DumpLine> lines;
    const Status parsed = parse_dump(text, name, [&](DumpEntry entry, unsigned line) {
      auto policy = parse_policy(entry.policy);
      lines.push_back({std::move(entry), line, std::move(policy)});
    });
    // A dump is understood whole or not begun.
    if (!parsed) return command_.error(parsed.error().message);
    if (options_.prune) {
      if (!privileged_) return command_.error("--prune needs the catalogue, which root reads");
      if (lines.empty() && !options_.force) {
        return command_.error(name +
                              ": holds no tag; --force removes every tag of this machine all the same");
      }
    }
    std::uint64_t done = 0;
    for (const DumpLine& line : lines) {
      restore(line, fmt::format("{}:{}: {}", name, line.line, escape_text(line.entry.path)));
      command_.progress([&] { return fmt::format("{} of {} entries", ++done, lines.size()); });
    }
    if (options_.prune) prune();
  }

  void restore(const DumpLine& line, const std::string& where) {
    const DumpEntry& entry = line.entry;
    const Space space = entry.user_space ? Space::user : Space::system;
    // The path is a real one, so a link there is another file than the one that was dumped.
    const auto file = open_target(entry.path, false);
    if (!file) {
      if (options_.prune) unreached_.insert({entry.path, space});
      return command_.error(where + ": " + file.error().message);
    }
    if (S_ISDIR(file->mode) != entry.directory) {
      return command_.error(where + (entry.directory ? ": is no directory" : ": is a directory"));
    }
    const FileRef ref{file->fd.get(), nullptr, file->path, file->device};
    if (options_.prune) keep(ref, space, where);
    if (!line.policy) {
      // What a newer version has set stays as it is.
      const auto tag = stores_->store().get(ref, space);
      if (tag && *tag && !(*tag)->policy && (*tag)->text == entry.policy) return;
      return command_.error(where + ": " + line.policy.error().message);
    }
    if (const Status met = check_nodes(*line.policy); !met) {
      return command_.error(where + ": " + met.error().message);
    }
    if (space == Space::system && wish_.space == Space::user && !options_.system) {
      return command_.error(where + ": a system tag needs privilege (CAP_SYS_ADMIN)");
    }
    one(*file, entry.path, Wish{space, *line.policy}, entry.directory);
  }

  /// The dump has this tag: --prune leaves it alone, also where it could not be set.
  void keep(const FileRef& file, Space space, const std::string& where) {
    const auto identity = stores_->identifier().identify(file);
    if (identity) {
      kept_.insert({identity->filesystem, identity->key, space});
      return;
    }
    // Without an identity it is not in the catalogue.
    if (identity.error().code == ENODEV || identity.error().code == ENOTSUP) return;
    command_.error(where + ": " + identity.error().message);
    unreached_.insert({std::string(file.path), space});
  }

  /// Removes every tag of the catalogue's files that the dump does not have.
  void prune() {
    const Status read =
        for_each_record(*stores_, options_.locations, [&](const TagRecord& record, bool first) {
          if (first) prune(record);
          command_.progress([] { return "removing what the dump does not have"; });
        });
    if (!read) command_.error("--prune: " + read.error().message);
  }

  void prune(const TagRecord& record) {
    const auto file = open_record(stores_->identifier(), record);
    if (!file) {
      const int code = file.error().code;
      if (unreached_.contains({record.path, record.space})) return;
      // The file is gone, and its tag with it; nor shall another file at its path get it.
      if (code == ESTALE || code == ENOENT) return forget(record);
      return command_.error(
          record.path, code == ENODEV ? Error{code, "its filesystem is not mounted: its tag was not removed"}
                                      : file.error());
    }
    const std::string& path = file->path.empty() ? record.path : file->path;
    const FileRef ref{file->fd.get(), nullptr, path, file->device};
    const auto tags = stores_->store().get(ref);
    if (!tags) return command_.error(path, tags.error());
    for (const Space space : {Space::system, Space::user}) {
      if (!(space == Space::system ? tags->system : tags->user)) continue;
      if (kept_.contains({record.identity.filesystem, record.identity.key, space})) continue;
      if (unreached_.contains({path, space}) || unreached_.contains({record.path, space})) continue;
      std::string output;
      if (apply(ref, path, Wish{space, std::nullopt}, S_ISDIR(file->mode), false, output)) {
        notice_.add(path, file->fd.get());
      }
      command_.print(output);
    }
  }

  void forget(const TagRecord& record) {
    if (options_.dry_run) return;
    std::array<TagRecord, 2> both{record, record};
    both[0].space = Space::system;
    both[1].space = Space::user;
    if (const Status done = stores_->records()->erase(both); !done)
      command_.error("--prune: " + done.error().message);
  }

  Status read_dump(bool from_stdin, std::string& text) const {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
        from_stdin ? ::stdin : std::fopen(options_.restore.c_str(), "re"), std::fclose);
    if (!file) return fail_errno("open", "");
    std::vector<char> buffer(1U << 20U);
    while (std::feof(file.get()) == 0 && std::ferror(file.get()) == 0) {
      text.append(buffer.data(), std::fread(buffer.data(), 1, buffer.size(), file.get()));
      if (text.size() > longest_dump) return fail(EFBIG, "is longer than 4 GiB");
    }
    if (std::ferror(file.get()) != 0) return fail_errno("read", "");
    return {};
  }

  /// Sets or removes one tag. True where something changed. Called from several threads.
  bool apply(const FileRef& file, std::string_view name, const Wish& wish, bool directory, bool may_vanish,
             std::string& output, int mount = 0) {
    const Policy* policy = wish.policy ? &*wish.policy : nullptr;
    RuleMatch rule;
    if (options_.from_rules) {
      rule = rules_->match(file.path);
      if (rule == nullptr || !rule->policy) return false;
      if (const Status met = check_nodes(*rule->policy); !met) {
        command_.error(
            name, file.path,
            Error{met.error().code, fmt::format("{}:{}: {}", rule->file, rule->line, met.error().message)});
        return false;
      }
      policy = &*rule->policy;
    }
    // A dump is restored as it is.
    if (directory && policy && wish.space == Space::user && options_.restore.empty()) {
      command_.error(name, file.path,
                     Error{EINVAL,
                           "a user tag on a directory covers nothing below it (-R tags each file; "
                           "system tags of directories do cover)"});
      return false;
    }
    SetOptions how;
    how.force = options_.force;
    how.dry_run = options_.dry_run;
    auto outcome = policy != nullptr ? stores_->store().set_listed(file, mount, wish.space, *policy, how)
                                     : stores_->store().remove(file, wish.space, how);
    if (!outcome && !privileged_ && wish.space == Space::user && no_room_for_xattr(outcome.error().code)) {
      outcome = ask_policyd(file, wish.space, policy, outcome.error());
    }
    if (!outcome) {
      // Gone between being listed and being tagged.
      if (!may_vanish || outcome.error().code != ENOENT) command_.error(name, file.path, outcome.error());
      return false;
    }
    const bool changed = *outcome == SetOutcome::changed;
    tell(file, wish.space, policy, directory, changed, output);
    return changed && !options_.dry_run;
  }

  /// What was done to one tag, where somebody wants to know.
  void tell(const FileRef& file, Space space, const Policy* policy, bool directory, bool changed,
            std::string& output) const {
    if (command_.json()) {
      Json json;
      put_path(json, "path", file.path);
      json["space"] = space_name(space);
      json["policy"] = policy != nullptr ? Json(format_policy(*policy)) : Json(nullptr);
      json["changed"] = changed;
      output.append(",\n").append(to_text(json));
    } else if (options_.verbose || (options_.dry_run && !options_.test)) {
      output += describe(file, space, policy, directory, changed);
    }
  }

  /// A line of a dump where a tag is set; a comment where one goes or stays.
  std::string describe(const FileRef& file, Space space, const Policy* policy, bool directory,
                       bool changed) const {
    if (!changed && !options_.verbose) return {};
    if (changed && policy != nullptr) {
      std::string line = format_dump_entry(DumpEntry{.path = std::string(file.path),
                                                     .directory = directory,
                                                     .user_space = space == Space::user,
                                                     .policy = format_policy(*policy)});
      if (!line.ends_with('\n')) line += '\n';
      return line;
    }
    return fmt::format("# {}: {}\n", escape_path(file.path),
                       !changed           ? "unchanged"
                       : options_.dry_run ? "would be removed"
                                          : "removed");
  }

  static bool no_room_for_xattr(int code) {
    return code == EOPNOTSUPP || code == EROFS || code == ENOSPC || code == EDQUOT;
  }

  /// The database is root's; policyd enters the tag of a file's owner.
  Result<SetOutcome> ask_policyd(const FileRef& file, Space space, const Policy* policy, const Error& why) {
    // Nothing can be said of what policyd would do but that it would be asked.
    if (options_.dry_run) return SetOutcome::changed;
    auto held = file.fd >= 0 ? Result<NamedFile>(NamedFile{}) : open_named(file.name, false);
    if (!held) return tl::unexpected(held.error());
    const int fd = file.fd >= 0 ? file.fd : held->fd.get();
    auto outcome = requests_.request(
        fd, file.path, space, policy != nullptr ? std::optional(*policy) : std::nullopt, options_.force);
    if (!outcome && (outcome.error().code == ENOENT || outcome.error().code == ECONNREFUSED)) {
      return fail(why.code, fmt::format("{}; then policyd keeps tags of users, but {}", why.message,
                                        outcome.error().message));
    }
    return outcome;
  }

  Status learn_topology() {
    if (topology_ || options_.force) return {};
    auto topology = Topology::read();
    if (!topology)
      return with_context("cannot tell this machine's nodes (--force goes on)", topology.error());
    topology_ = *std::move(topology);
    return {};
  }

  /// Does this machine have the nodes that an absolute placement names?
  Status check_nodes(const Policy& policy) {
    if (options_.force || !policy.has_absolute_placement()) return {};
    if (const Status learned = learn_topology(); !learned) return learned;
    const std::string text = format_policy(policy);
    if (policy.word == NodeWord::cpuless && topology_->cpuless().empty()) {
      return fail(ENODEV, text + ": this machine has no memory-only node; --force sets it all the same");
    }
    NodeSet missing;
    for (const WeightedNode& node : policy.nodes) {
      if (!topology_->memory.contains(node.node)) missing.insert(node.node);
    }
    if (missing.empty()) return {};
    return fail(ENODEV,
                fmt::format("{}: this machine has no node {} (nodes with memory: {}); --force sets it all "
                            "the same",
                            text, missing.format(), topology_->memory.format()));
  }

  Command& command_;
  Options options_;
  Wish wish_;
  const bool as_root_ = geteuid() == 0;
  bool privileged_ = false;  ///< writes the database itself
  std::unique_ptr<Stores> stores_;
  std::shared_ptr<const RuleSet> rules_;
  std::optional<Topology> topology_;
  TagRequests requests_;
  ChangeNotice notice_;
  std::mutex notice_mutex_;  ///< while a walk's threads add to it
  std::set<std::pair<dev_t, ino_t>> libraries_;
  /// With --from-catalogue.
  std::uint64_t carry_looked_ = 0;
  std::uint64_t carry_changed_ = 0;
  /// With --prune: what the dump has, by filesystem and key, and by path what could not be opened.
  std::set<std::tuple<std::string, std::string, Space>> kept_;
  std::set<std::pair<std::string, Space>> unreached_;
};

/// What does not go together in the command line; empty where all does.
std::string_view wrong_combination(const Options& options, bool names_files) {
  if (options.restore.empty() && (options.prune || options.test)) {
    return "--prune and --test go with --restore";
  }
  const bool selects = options.recursive || options.libraries;
  if (options.from_catalogue) {
    if (!selects && !options.system && !options.user) return {};
    return "--from-catalogue takes tags as they were set: no -R, --libs, --system or --user";
  }
  if (options.restore.empty()) return names_files ? "" : "no file named";
  if (!names_files && !selects) return {};
  return "--restore takes the files from the dump: no names, -0, -R or --libs";
}

int run(Command& command, Options options) {
  const int forms = (options.remove ? 1 : 0) + (options.from_rules ? 1 : 0) +
                    (options.from_catalogue ? 1 : 0) + (options.restore.empty() ? 0 : 1) +
                    (options.reference.empty() ? 0 : 1);
  if (forms > 1) {
    return command.usage_error("only one of -x, --restore, --from-rules, --from-catalogue and --reference");
  }
  std::vector<std::string>& names = command.names();
  std::optional<Policy> policy;
  if (forms == 0) {
    if (names.empty()) return command.usage_error("no policy given");
    const auto parsed = parse_policy(names.front());
    if (!parsed) {
      return command.usage_error(
          fmt::format("policy '{}': {}", escape_text(names.front()), parsed.error().message));
    }
    policy = *parsed;
    names.erase(names.begin());
  }
  if (const std::string_view wrong = wrong_combination(options, !names.empty() || command.null());
      !wrong.empty()) {
    return command.usage_error(std::string(wrong));
  }
  options.dry_run = options.dry_run || options.test;

  const bool from_reference = !options.reference.empty();
  SetFpolicy tool(command, std::move(options));
  Status ready = tool.open();
  if (ready && policy) ready = tool.wish_for(*policy);
  if (ready && from_reference) ready = tool.wish_reference();
  if (ready) {
    tool.run();
  } else {
    command.error(ready.error().message);
  }
  return command.finish();
}

}  // namespace
}  // namespace fpolicy::tools

int main(int argc, char** argv) {
  using namespace fpolicy::tools;
  Command command("setfpolicy", "Tag files and directories with placement policies.",
                  {"[OPTION...] POLICY FILE...", "[OPTION...] -x FILE...", "[OPTION...] --from-rules FILE...",
                   "[OPTION...] --from-catalogue [FILE...]", "[OPTION...] --reference FILE FILE...",
                   "[OPTION...] --restore DUMP"});
  Options options;
  CLI::App& app = command.app();
  app.add_flag("-R,--recursive", options.recursive,
               "Each regular file below directories, not the directories");
  auto* system =
      app.add_flag("--system", options.system, "System tags, which only root sets (root's default)");
  app.add_flag("--user", options.user, "User tags, which owners set (others' default)")->excludes(system);
  app.add_flag("-x,--remove", options.remove, "Remove tags; with -R those of directories, too");
  add_text(app, "--restore", options.restore, "DUMP",
           "Set what a dump of getfpolicy says ('-': standard input)");
  app.add_flag("--prune", options.prune,
               "With --restore, also remove every tag of this machine that the dump does not have");
  app.add_flag("--test", options.test, "With --restore, only tell what would fail, and change nothing");
  app.add_flag("--from-rules", options.from_rules, "Store as tags what the rules say for each file");
  app.add_flag("--from-catalogue", options.from_catalogue,
               "Give files that have replaced tagged ones the tags that root had set there");
  add_text(app, "--reference", options.reference, "FILE", "Set the policy of this file's tag");
  app.add_flag("--libs", options.libraries, "Also the shared libraries that executables load");
  app.add_flag("-n,--dry-run", options.dry_run, "Show what would change, change nothing");
  app.add_flag(
      "--force", options.force,
      "Accept nodes this machine lacks; overwrite tags not understood; with --from-catalogue, accept other "
      "filesystems");
  app.add_flag("-v,--verbose", options.verbose, "Show what is done, and what policyd could not be told");
  options.links.add_to(app);
  command.add_null();
  command.add_json();
  options.locations.add_to(app, true);
  command.add_names("ARGUMENT", "The policy, then files and directories");
  if (const auto status = command.parse(argc, argv)) return *status;
  return run(command, std::move(options));
}
