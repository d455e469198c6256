// SPDX-License-Identifier: LGPL-2.1-or-later
// getfpolicy: stored and effective policies and their source, in the format of rules.
#include "common/catalogue.h"
#include "common/command.h"
#include "common/resolution.h"
#include "common/stores.h"
#include "common/text.h"

#include <fpolicy/resolver.h>
#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/tree.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fpolicy::tools {
namespace {

struct Options {
  Locations locations;
  LinkOptions links;
  bool recursive = false;
  bool all = false;
  bool effective = false;
  bool explain = false;
};

/// One source that was asked, in the order of precedence.
struct Candidate {
  std::string what;    ///< "system tag", "directory /usr/lib"
  std::string policy;  ///< empty: nothing there
  std::string where;
  std::string verdict;
};

std::string_view carrier_name(const Tag& tag, Space space) {
  if (tag.carrier == Carrier::database) return "database";
  return space == Space::system ? "security.fpolicy" : "user.fpolicy";
}

std::string effective_text(const Effective& effective) {
  std::string text = effective.source == Source::none ? "none"
                     : effective.unsupported          ? "unsupported: " + escape_text(effective.text)
                     : effective.policy               ? format_policy(*effective.policy)
                                                      : "none";
  if (effective.source == Source::none) return text;
  text += fmt::format(" ({}", to_string(effective.source));
  if (!effective.origin.empty()) text += " " + escape_text(effective.origin);
  return text + ")";
}

Json tag_json(const std::optional<Tag>& tag, Space space) {
  if (!tag) return nullptr;
  Json json = {{"policy", tag->text}, {"carrier", carrier_name(*tag, space)}};
  if (!tag->policy) json["unsupported"] = true;
  return json;
}

Json effective_json(const Effective& effective) {
  Json json;
  json["policy"] = effective.unsupported ? Json(effective.text)
                   : effective.policy    ? Json(format_policy(*effective.policy))
                                         : Json(nullptr);
  json["source"] = to_string(effective.source);
  put_path(json, "origin", effective.origin);
  if (effective.unsupported) json["unsupported"] = true;
  return json;
}

class GetFpolicy {
 public:
  GetFpolicy(Command& command, Options options) : command_(command), options_(std::move(options)) {}

  Status open() {
    auto stores = Stores::open(options_.locations, Database::Access::read_only);
    if (!stores) return tl::unexpected(stores.error());
    stores_ = *std::move(stores);
    auto resolution = Resolution::open(options_.locations, stores_->store());
    if (!resolution) return tl::unexpected(resolution.error());
    resolution_ = *std::move(resolution);
    return {};
  }

  void run() {
    if (command_.json()) std::fputs("{\"files\":[", stdout);
    if (options_.all) {
      catalogue();
    } else {
      command_.for_each_name([&](const std::string& name) { named(name); });
    }
    if (command_.json()) std::fputs("]}\n", stdout);
  }

 private:
  void named(const std::string& name) {
    auto file = open_target(name, options_.links.follow_named());
    if (!file) return command_.error(name, file.error());
    if (options_.recursive) return tree(*std::move(file));
    const FileRef ref{file->fd.get(), nullptr, file->path, file->device};
    std::string output;
    show(ref, name, S_ISDIR(file->mode), true, output);
    command_.print(output);
  }

  void tree(NamedFile root) {
    const TreeVisitor visitor{
        .visit =
            [&](const TreeEntry& entry, std::string& output) {
              visited_.fetch_add(1, std::memory_order_relaxed);
              show(entry.file, entry.file.path, entry.directory, false, output);
            },
        .emit =
            [&](std::string_view output) {
              command_.print(output);
              command_.progress([&] { return fmt::format("{} files", visited_.load()); });
              return std::ferror(stdout) == 0;
            },
        .error = [&](std::string_view path, const Error& error) { command_.error(path, error); }};
    walk_tree(std::move(root), options_.links.tree(), visitor);
  }

  /// Every tag of the machine, by path: a directory stands before what is below it.
  void catalogue() {
    std::vector<std::pair<std::string, std::string>> found;
    std::uint64_t stale = 0;
    std::uint64_t seen = 0;
    const Status read =
        for_each_record(*stores_, options_.locations, [&](const TagRecord& record, bool first) {
          ++seen;
          command_.progress([&] { return fmt::format("{} records", seen); });
          catalogued(record, first, found, stale);
        });
    if (!read) command_.error("--all: " + read.error().message);
    std::sort(found.begin(), found.end());
    for (const auto& [path, output] : found) command_.print(output);
    if (stale != 0) {
      command_.note(fmt::format("{} stale {} left out (queryfpolicy --all lists them)", stale,
                                stale == 1 ? "record" : "records"));
    }
  }

  void catalogued(const TagRecord& record, bool first,
                  std::vector<std::pair<std::string, std::string>>& found, std::uint64_t& stale) {
    const auto file = open_record(stores_->identifier(), record);
    if (!file) {
      const int code = file.error().code;
      if (code == ESTALE || code == ENOENT) {
        ++stale;
      } else if (code == ENODEV) {
        command_.error(record.path, Error{code, "its filesystem is not mounted; left out"});
      } else {
        command_.error(record.path, file.error());
      }
      return;
    }
    const FileRef ref{file->fd.get(), nullptr, file->path, file->device};
    const auto tag = stores_->store().get(ref, record.space);
    // Told once, where all of the file is shown.
    if (tag && !*tag) ++stale;
    if (!first) return;
    if (file->path.empty()) {
      command_.error(record.path, Error{ENOENT,
                                        "is no longer there, and the catalogue knows no other path "
                                        "of the file (tagging it again enters it); left out"});
      return;
    }
    std::string output;
    show(ref, file->path, S_ISDIR(file->mode), false, output);
    if (!output.empty()) found.emplace_back(file->path, std::move(output));
  }

  /// Appends what is to be said of one file. Called from several threads.
  void show(const FileRef& file, std::string_view name, bool directory, bool named, std::string& output) {
    const auto tags = stores_->store().get(file);
    if (!tags) {
      // Gone between being listed and being asked.
      if (named || tags.error().code != ENOENT) command_.error(name, file.path, tags.error());
      return;
    }
    const bool with_effective = named || options_.effective || options_.explain;
    if (!tags->system && !tags->user && !with_effective) return;

    std::optional<Effective> effective;
    if (with_effective) {
      auto resolved = resolution_.resolver->resolve(file, file.path, *tags);
      if (!resolved) return command_.error(name, file.path, resolved.error());
      effective = *std::move(resolved);
    }
    std::vector<Candidate> candidates;
    if (options_.explain) candidates = explain(file, *tags);

    if (command_.json()) {
      Json json;
      put_path(json, "path", file.path);
      json["directory"] = directory;
      json["system"] = tag_json(tags->system, Space::system);
      json["user"] = tag_json(tags->user, Space::user);
      if (tags->user_denied) json["user_denied"] = true;
      if (effective) json["effective"] = effective_json(*effective);
      if (options_.explain) json["candidates"] = candidates_json(candidates);
      output.append(",\n").append(to_text(json));
      return;
    }
    if (tags->system) output += entry(file, directory, *tags->system, Space::system);
    if (tags->user) output += entry(file, directory, *tags->user, Space::user);
    if (!tags->system && !tags->user) {
      output += fmt::format("# {}: no tag\n", escape_path(file.path));
    }
    if (effective) output += fmt::format("# effective: {}\n", effective_text(*effective));
    for (const Candidate& candidate : candidates) {
      output += fmt::format("#   {}: {}{}{}\n", escape_text(candidate.what),
                            candidate.policy.empty() ? "nothing" : escape_text(candidate.policy),
                            candidate.where.empty() ? "" : " in " + escape_text(candidate.where),
                            candidate.verdict.empty() ? "" : ": " + candidate.verdict);
    }
  }

  static std::string entry(const FileRef& file, bool directory, const Tag& tag, Space space) {
    std::string text = format_dump_entry(DumpEntry{.path = std::string(file.path),
                                                   .directory = directory,
                                                   .user_space = space == Space::user,
                                                   .policy = tag.text});
    if (!text.ends_with('\n')) text += '\n';
    return text;
  }

  /// Every source in the order of precedence, and why it decides or not.
  std::vector<Candidate> explain(const FileRef& file, const Tags& tags) {
    std::vector<Candidate> all;
    bool decided = false;
    const auto add = [&](std::string what, std::string policy, std::string where, std::string lost) {
      Candidate candidate{std::move(what), std::move(policy), std::move(where), std::move(lost)};
      if (!candidate.policy.empty() && candidate.verdict.empty()) {
        candidate.verdict = decided ? "a source above decides" : "decides";
        decided = true;
      }
      all.push_back(std::move(candidate));
    };
    const auto add_tag = [&](std::string what, const std::optional<Tag>& tag, Space space, std::string lost) {
      if (!tag) return add(std::move(what), "", "", "");
      add(std::move(what), tag->policy ? tag->text : tag->text + " (unsupported)",
          std::string(carrier_name(*tag, space)), std::move(lost));
    };
    add_tag("system tag", tags.system, Space::system, "");
    std::string distrust;
    if (tags.user) distrust = why_not_trusted(file);
    if (tags.user_denied) {
      add("user tag", "", "", "not told: reading it needs read permission on the file");
    } else {
      add_tag("user tag", tags.user, Space::user, distrust);
    }

    std::string_view path = file.path;
    while (path.size() > 1) {
      const auto slash = path.find_last_of('/');
      path = path.substr(0, slash == 0 ? 1 : slash);
      const auto directory = open_named(std::string(path), false);
      if (!directory) continue;
      const auto tag =
          stores_->store().get(FileRef{directory->fd.get(), nullptr, path, directory->device}, Space::system);
      if (!tag) {
        add("directory " + std::string(path), "", "", tag.error().message);
      } else if (*tag) {
        add_tag("directory " + std::string(path), *tag, Space::system, "");
      }
    }
    if (const RuleMatch rule = resolution_.rules->match(file.path); rule != nullptr) {
      add("rule", rule->policy ? format_policy(*rule->policy) : "none (leave alone)",
          fmt::format("{}:{}", rule->file, rule->line), "");
    } else {
      add("rule", "", "", "no rule matches");
    }
    return all;
  }

  static std::string why_not_trusted(const FileRef& file) {
    struct stat status = {};
    if (fstatat(file.fd >= 0 ? file.fd : AT_FDCWD, file.fd >= 0 ? "" : file.name, &status,
                file.fd >= 0 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW) != 0) {
      return "not trusted: " + errno_text(errno);
    }
    if (trusts_user_tag(status.st_mode, status.st_uid, status.st_uid)) return {};
    return "not trusted: others than its owner may write the file";
  }

  static Json candidates_json(const std::vector<Candidate>& candidates) {
    Json list = Json::array();
    for (const Candidate& candidate : candidates) {
      Json json;
      put_path(json, "source", candidate.what);
      json["policy"] = candidate.policy.empty() ? Json(nullptr) : Json(candidate.policy);
      if (!candidate.where.empty()) put_path(json, "where", candidate.where);
      if (!candidate.verdict.empty()) json["verdict"] = candidate.verdict;
      list.push_back(std::move(json));
    }
    return list;
  }

  Command& command_;
  Options options_;
  std::unique_ptr<Stores> stores_;
  Resolution resolution_;
  std::atomic<std::uint64_t> visited_ = 0;
};

}  // namespace
}  // namespace fpolicy::tools

int main(int argc, char** argv) {
  using namespace fpolicy::tools;
  Command command("getfpolicy", "Show the placement policies of files, and where they come from.",
                  {"[OPTION...] FILE...", "[OPTION...] -R DIRECTORY...", "[OPTION...] --all",
                   "[OPTION...] -0 [FILE...]"});
  Options options;
  CLI::App& app = command.app();
  app.add_flag("-R,--recursive", options.recursive, "All below directories: what has a tag of its own");
  app.add_flag("-a,--all", options.all, "Every tag of this machine, from the catalogue: no tree is walked");
  app.add_flag("-e,--effective", options.effective, "With -R, every file, with its effective policy");
  app.add_flag("--explain", options.explain, "Show every source that was asked, and which one decides");
  options.links.add_to(app);
  command.add_null();
  command.add_json();
  options.locations.add_to(app, true);
  command.add_names("FILE", "Files and directories");
  if (const auto status = command.parse(argc, argv)) return *status;
  if (options.all) {
    if (!command.names().empty() || command.null() || options.recursive) {
      return command.usage_error("--all takes the files from the catalogue: no names, -0 or -R");
    }
  } else if (command.names().empty() && !command.null()) {
    return command.usage_error("no file named");
  }

  GetFpolicy tool(command, std::move(options));
  if (const auto opened = tool.open(); !opened) {
    command.error(opened.error().message);
    return command.finish();
  }
  tool.run();
  return command.finish();
}
