// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_status.h"
#include "sys/open_path.h"

#include <fpolicy/resolver.h>

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

namespace fpolicy {
namespace {

/// About 5 MiB of paths. A walk goes down one directory after the other, so forgetting all of them costs it a
/// few reads again.
constexpr std::size_t max_directories = 32768;

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// The system tag that covers a directory, and the directory that has it.
struct Covering {
  Tag tag;
  std::string path;
};

/// "/a/b" of "/a/b/c", "/" of "/a"; empty for "/" and for what is not absolute.
std::string_view parent_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || path.size() == 1) return {};
  return path.substr(0, slash == 0 ? 1 : slash);
}

}  // namespace

struct Resolver::Impl {
  using Remembered = std::shared_ptr<const Covering>;  // null: nothing covers the directory

  Impl(PolicyStore* policy_store, std::shared_ptr<const RuleSet> rule_set)
      : store(policy_store), rules(std::move(rule_set)) {}

  Result<Remembered> covering(std::string_view directory);
  [[nodiscard]] Result<std::optional<Tag>> own_tag(std::string_view directory) const;
  [[nodiscard]] std::shared_ptr<const RuleSet> current_rules() const {
    const std::shared_lock lock(mutex);
    return rules;
  }

  PolicyStore* store;
  std::atomic<bool> user_tags{true};
  mutable std::shared_mutex mutex;
  std::shared_ptr<const RuleSet> rules;
  std::unordered_map<std::string, Remembered, TextHash, std::equal_to<>> directories;
  std::uint64_t generation = 0;  ///< of `directories`
};

Result<std::optional<Tag>> Resolver::Impl::own_tag(std::string_view directory) const {
  // The path was a real one. If there is a link on it by now, its owner would lend a directory's tag to his
  // files.
  const auto opened = sys::open_real_path(directory);
  if (!opened) return tl::unexpected<Error>(opened.error());
  FileRef file;
  file.fd = opened->get();
  file.path = directory;
  return store->get(file, Space::system);
}

// Climbs until a directory is known or has a tag, and remembers the answer for every directory on the way.
Result<Resolver::Impl::Remembered> Resolver::Impl::covering(std::string_view directory) {
  std::vector<std::string_view> unknown;
  Remembered answer;
  std::uint64_t seen_generation = 0;
  {
    const std::shared_lock lock(mutex);
    seen_generation = generation;
    for (; !directory.empty(); directory = parent_of(directory)) {
      if (const auto found = directories.find(directory); found != directories.end()) {
        if (unknown.empty()) return found->second;
        answer = found->second;
        break;
      }
      unknown.push_back(directory);
    }
  }
  for (std::size_t i = 0; i < unknown.size(); ++i) {
    auto tag = own_tag(unknown[i]);
    // A directory that has been renamed, removed or replaced by a link meanwhile covers nothing.
    if (!tag && tag.error().code != ENOENT && tag.error().code != ENOTDIR && tag.error().code != ELOOP) {
      return tl::unexpected<Error>(std::move(tag.error()));
    }
    if (tag && *tag) {
      answer = std::make_shared<const Covering>(Covering{std::move(**tag), std::string(unknown[i])});
      unknown.resize(i + 1);
    }
  }
  const std::unique_lock lock(mutex);
  if (generation != seen_generation) return answer;
  if (directories.size() + unknown.size() > max_directories) directories.clear();
  for (const std::string_view path : unknown) directories.insert_or_assign(std::string(path), answer);
  return answer;
}

Resolver::Resolver(PolicyStore* store, std::shared_ptr<const RuleSet> rules)
    : impl_(std::make_unique<Impl>(store, std::move(rules))) {}
Resolver::~Resolver() = default;

Result<Effective> Resolver::resolve(const FileRef& file, std::string_view path,
                                    std::optional<uid_t> job_uid) {
  Tags tags;
  auto system = impl_->store->get(file, Space::system);
  if (!system) return tl::unexpected<Error>(std::move(system.error()));
  tags.system = std::move(*system);
  if (!tags.system && impl_->user_tags) {
    auto user = impl_->store->get(file, Space::user);
    if (user) {
      tags.user = std::move(*user);
    } else if (user.error().code == EACCES) {
      tags.user_denied = true;
    } else {
      return tl::unexpected<Error>(std::move(user.error()));
    }
  }
  return resolve(file, path, std::move(tags), job_uid);
}

Result<Effective> Resolver::resolve(const FileRef& file, std::string_view path, Tags tags,
                                    std::optional<uid_t> job_uid) {
  Candidates candidates;
  candidates.system = std::move(tags.system);
  if (candidates.system) return fpolicy::resolve(candidates);
  candidates.user = std::move(tags.user);
  candidates.user_denied = tags.user_denied;
  if (candidates.user && impl_->user_tags) {
    const auto status = sys::file_status(file);
    if (!status) return tl::unexpected<Error>(status.error());
    candidates.user_trusted =
        trusts_user_tag(status->stx_mode, status->stx_uid, job_uid.value_or(status->stx_uid));
    if (candidates.user_trusted) return fpolicy::resolve(candidates);
  }
  std::shared_ptr<const RuleSet> rules;  // holds what candidates.rule points to
  if (path.starts_with('/')) {
    const auto covering = impl_->covering(parent_of(path));
    if (!covering) return tl::unexpected<Error>(covering.error());
    if (*covering) {
      candidates.directory = (*covering)->tag;
      candidates.directory_path = (*covering)->path;
    } else {
      rules = impl_->current_rules();
      if (rules) candidates.rule = rules->match(path);
    }
  }
  return fpolicy::resolve(candidates);
}

void Resolver::set_rules(std::shared_ptr<const RuleSet> rules) {
  const std::unique_lock lock(impl_->mutex);
  impl_->rules.swap(rules);
}

void Resolver::invalidate() {
  const std::unique_lock lock(impl_->mutex);
  impl_->directories.clear();
  ++impl_->generation;
}

void Resolver::set_user_tags(bool honoured) {
  impl_->user_tags = honoured;
}

}  // namespace fpolicy
