// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/repair.h"

#include "common/catalogue.h"

#include <fpolicy/rules.h>
#include <fpolicy/tree.h>

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

namespace fpolicy::tools {
namespace {

/// In JSON; and for people.
struct CorrectionName {
  const char* word;
  const char* text;
};

CorrectionName name_of(Correction correction) {
  switch (correction) {
    case Correction::entered:
      return {"entered", "entered in the catalogue"};
    case Correction::corrected:
      return {"corrected", "catalogue corrected"};
    case Correction::entry_removed:
      return {"entry-removed", "entry removed: the attribute is gone"};
    case Correction::moved_to_xattr:
      return {"moved-to-xattr", "moved from the database to the attribute"};
    case Correction::moved_to_database:
      break;
  }
  return {"moved-to-database", "moved to the database: the attribute cannot be read"};
}

}  // namespace

std::vector<Column<Repaired>> repair_columns() {
  return {
      {.name = "FILE",
       .help = "absolute path",
       .text = [](const Repaired& row) { return escape_text(row.path); },
       .json = [](const Repaired& row, Json& json) { put_path(json, "path", row.path); }},
      {.name = "TAG",
       .help = "system or user",
       .text = [](const Repaired& row) { return row.what.space == Space::system ? "system" : "user"; },
       .json = [](const Repaired& row,
                  Json& json) { json["tag"] = row.what.space == Space::system ? "system" : "user"; }},
      {.name = "POLICY",
       .help = "the tag's policy; of what was removed, its last",
       .text = [](const Repaired& row) { return escape_text(row.what.policy); },
       .json = [](const Repaired& row, Json& json) { put_path(json, "policy", row.what.policy); }},
      {.name = "DONE",
       .help = "what was done",
       .text =
           [](const Repaired& row) {
             std::string text = name_of(row.what.correction).text;
             if (!row.what.before.empty()) text += ", which said " + escape_text(row.what.before);
             return text;
           },
       .json =
           [](const Repaired& row, Json& json) {
             json["done"] = name_of(row.what.correction).word;
             if (!row.what.before.empty()) put_path(json, "before", row.what.before);
           }},
  };
}

Status Repair::open() {
  // Of what an attribute says policyd would have to be told, and it corrects that by itself.
  if (!uses_database(options_.locations))
    return fail(EPERM, fmt::format("only root may repair {}", options_.locations.database));
  auto stores = Stores::open(options_.locations,
                             options_.dry_run ? Database::Access::read_only : Database::Access::read_write);
  if (!stores) return tl::unexpected(stores.error());
  stores_ = *std::move(stores);
  return {};
}

void Repair::run() {
  command_.for_each_name([&](const std::string& name) { named(name); });
  if (options_.all) {
    // Committed first: what was repaired by name is not seen again.
    if (const auto done = stores_->store().flush(); !done) command_.error(done.error().message);
    const auto read = for_each_record(*stores_, options_.locations, [&](const TagRecord& record, bool first) {
      if (first) catalogued(record);
    });
    if (!read) command_.error("--all: " + read.error().message);
  }
  if (const auto done = stores_->store().flush(); !done) command_.error(done.error().message);
  std::stable_sort(rows_.begin(), rows_.end(),
                   [](const Repaired& a, const Repaired& b) { return a.path < b.path; });
}

void Repair::named(const std::string& name) {
  auto file = open_target(name, options_.links.follow_named());
  if (!file) return command_.error(name, file.error());
  if (!S_ISDIR(file->mode) || !options_.recursive)
    return one(FileRef{file->fd.get(), nullptr, file->path, file->device});
  const TreeVisitor visitor{
      .visit = [&](const TreeEntry& entry, std::string&) { one(entry.file); },
      .emit =
          [&](std::string_view) {
            const std::scoped_lock lock(mutex_);
            command_.progress([&] { return fmt::format("{} tags repaired", rows_.size()); });
            return true;
          },
      .error = [&](std::string_view path, const Error& error) { command_.error(path, error); }};
  walk_tree(*std::move(file), options_.links.tree(), visitor);
}

void Repair::catalogued(const TagRecord& record) {
  const Finding finding = stores_->identifier().examine(record.identity, record.path);
  // Stale ones are policyctl gc's; nothing can be done where nothing is mounted.
  if (finding.fate == Fate::stale || finding.fate == Fate::gone || finding.code == ENODEV) return;
  if (finding.fate == Fate::unknown) return command_.error(record.path, Error{finding.code, finding.reason});
  const auto file = open_record(stores_->identifier(), record);
  if (!file) {
    if (file.error().code != ESTALE && file.error().code != ENOENT) command_.error(record.path, file.error());
    return;
  }
  one(FileRef{file->fd.get(), nullptr, file->path.empty() ? record.path : file->path, file->device});
}

void Repair::one(const FileRef& file) {
  const auto done = stores_->store().reconcile(file, {.move = true, .dry_run = options_.dry_run});
  if (!done) {
    // Deleted since the walk met it.
    if (done.error().code != ENOENT) command_.error(file.path, done.error());
    return;
  }
  const std::scoped_lock lock(mutex_);
  for (const Reconciled& what : *done) rows_.push_back({std::string(file.path), what});
}

}  // namespace fpolicy::tools
