// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_status.h"
#include "sys/guarded_path.h"
#include "sys/open_path.h"

#include <fpolicy/carry_over.h>

#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <utility>

namespace fpolicy {
namespace {

using Entries = std::array<std::optional<TagRecord>, 2>;  // by space

tl::unexpected<Error> not_carried(const std::string& path, int code, std::string_view why) {
  return fail(code, fmt::format("{}: its tag was not carried over: {}", path, why));
}

/// The latest entry of each space under a path.
Status latest_at(RecordStore& records, const std::string& path, Entries& latest) {
  return records.for_each(path, [&](const TagRecord& record) {
    // In the order of paths: longer ones follow.
    if (record.path != path) return false;
    auto& entry = latest.at(record.space == Space::system ? 0 : 1);
    if (!entry || entry->changed_ns <= record.changed_ns) entry = record;
    return true;
  });
}

bool is_empty(const Entries& entries) {
  return !entries[0] && !entries[1];
}

}  // namespace

CarryOver::CarryOver(RecordStore* records, PolicyStore* store, Identifier* identifier,
                     Administrator administrator)
    : records_(records), store_(store), identifier_(identifier), administrator_(std::move(administrator)) {}

Result<std::optional<CarriedTags>> CarryOver::carry(const std::string& path, const CarryOptions& options) {
  Entries entries;
  if (const auto read = latest_at(*records_, path, entries); !read) return tl::unexpected(read.error());
  for (auto& entry : entries) {
    const bool covers_nothing = entry && entry->space == Space::user && entry->directory;
    if (entry && (entry->uid != administrator_.uid || covers_nothing)) entry.reset();
  }
  if (is_empty(entries)) return std::nullopt;

  auto held = hold(path);
  if (!held) return tl::unexpected(held.error());
  if (!*held) return std::nullopt;
  const FileRef file{.fd = (*held)->get(), .name = nullptr, .path = path};
  const auto status = sys::file_status(file);
  if (!status) return tl::unexpected(status.error());
  bool ambiguous = false;
  const auto now = identifier_->identify(file, *status, &ambiguous);
  if (!now) return not_carried(path, now.error().code, now.error().message);
  for (auto& entry : entries)
    if (entry && is_file_of(entry->identity, *now)) entry.reset();
  if (is_empty(entries)) return std::nullopt;
  // Whatever has the path now: somebody has thought of what has a tag of its own.
  const auto tags = store_->get(file);
  if (!tags) return tl::unexpected(tags.error());
  if (tags->system || tags->user) {
    // Or it was carried over by somebody who was killed before its entry was written.
    if (!options.dry_run && !ambiguous)
      if (const auto entered = store_->reconcile(file); !entered) return tl::unexpected(entered.error());
    // The system tag goes first: whoever carried it over may have been killed before the other's turn.
    if (tags->user || !entries[1]) return std::nullopt;
    entries[0].reset();
  }

  if (const auto guarded = check_place(path, *status); !guarded) return tl::unexpected(guarded.error());
  if (ambiguous) return not_carried(path, ENOTUNIQ, "two mounted filesystems have the id " + now->filesystem);
  CarriedTags carried;
  carried.directory = S_ISDIR(status->stx_mode);
  for (const auto& entry : entries) {
    if (!entry) continue;
    if (const auto checked = check_entry(*status, path, *entry, *now, options); !checked)
      return tl::unexpected(checked.error());
    auto policy = set(file, *entry, options);
    if (!policy) return tl::unexpected(policy.error());
    if (!options.dry_run) forget(*entry, *now);
    carried.tags.push_back({entry->space, *std::move(policy)});
  }
  carried.fd = *std::move(*held);
  return carried;
}

/// The file at the path, O_PATH; nothing where there is none.
Result<std::optional<Fd>> CarryOver::hold(const std::string& path) {
  auto held = sys::open_real_path(path);
  if (held) return std::optional<Fd>(*std::move(held));
  const int code = held.error().code;
  if (code == ENOENT || code == ENOTDIR) return std::nullopt;
  if (code == ELOOP) return not_carried(path, EPERM, "a symbolic link is on the way");
  return not_carried(path, code, held.error().message);
}

/// Can the administrator alone have put this file there?
Status CarryOver::check_place(const std::string& path, const struct statx& status) const {
  const auto guarded = sys::open_guarded_path(path, administrator_.uid, administrator_.top);
  if (!guarded) return not_carried(path, guarded.error().code, guarded.error().message);
  const auto same = sys::file_status(FileRef{.fd = guarded->get(), .name = nullptr, .path = path});
  if (!same) return tl::unexpected(same.error());
  if (same->stx_ino != status.stx_ino || sys::device_of(*same) != sys::device_of(status))
    return not_carried(path, EAGAIN, "it was replaced in this moment");
  return {};
}

Status CarryOver::check_entry(const struct statx& status, const std::string& path, const TagRecord& entry,
                              const FileIdentity& now, const CarryOptions& options) {
  const bool is_directory = S_ISDIR(status.stx_mode);
  if (is_directory != entry.directory)
    return not_carried(path, is_directory ? EISDIR : ENOTDIR,
                       is_directory ? "it is a directory now" : "it is no directory any more");
  if (entry.identity.filesystem != now.filesystem && !options.other_filesystem)
    return not_carried(path, EXDEV,
                       "it is on another filesystem than the file that was tagged; --force carries it over");
  if (entry.space == Space::user && (status.stx_mode & (S_IWGRP | S_IWOTH)) != 0)
    return not_carried(path, EPERM, "it is a user tag, and others than its owner may write the file");
  return {};
}

Result<Policy> CarryOver::set(const FileRef& file, const TagRecord& entry, const CarryOptions& options) {
  auto policy = parse_policy(entry.policy);
  if (!policy)
    return not_carried(entry.path, ENOTSUP, "this version does not understand it: " + policy.error().message);
  SetOptions how;
  how.dry_run = options.dry_run;
  how.uid = entry.uid;
  if (const auto outcome = store_->set(file, entry.space, *policy, how); !outcome)
    return tl::unexpected(outcome.error());
  return policy;
}

/// The entry of a file that is gone for good goes with finish(). If the file has another name now, it keeps
/// its entry.
void CarryOver::forget(const TagRecord& entry, const FileIdentity& now) {
  // Where keys are paths the new entry takes the old one's place.
  if (entry.identity.key == now.key && entry.identity.filesystem == now.filesystem) return;
  const auto old = identifier_->open(entry.identity, entry.path);
  if (old || old.error().code != ESTALE) return;
  // A job may still map the file, and the record be all its tag. A server's word alone proves nothing.
  const bool stays = identifier_->in_use_without_name(entry.identity)
                         ? entry.carrier == Carrier::database
                         : identifier_->examine(entry.identity, entry.path).fate != Fate::gone;
  if (stays) return;
  // The path is the new file's.
  gone_.push_back(entry);
  gone_.back().path.clear();
}

Status CarryOver::finish() {
  const auto gone = std::exchange(gone_, {});
  if (auto done = store_->flush(); !done) return done;
  if (gone.empty()) return {};
  return records_->erase(gone);
}

Result<Fd> open_administrators_directory(const std::string& path, const Administrator& administrator) {
  // As a name in it, so that the directory is asked as those above it are.
  return sys::open_guarded_path(path + "/.", administrator.uid, administrator.top);
}

}  // namespace fpolicy
