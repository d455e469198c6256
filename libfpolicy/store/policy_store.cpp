// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_handle.h"
#include "sys/file_status.h"
#include "sys/sync_file.h"
#include "sys/xattr_calls.h"

#include <fpolicy/privilege.h>
#include <fpolicy/store.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <new>
#include <utility>

namespace fpolicy {
namespace {

using sys::object_of;

// A batch is one transaction, and one sync of the disk. The last one is written when the walk has ended, by
// one thread.
constexpr std::size_t batch_size = 4096;
// Records that may wait while one thread writes: some 10 MiB.
constexpr std::size_t most_waiting = 12 * batch_size;

// Whoever it was: the kernel's overflow uid.
constexpr std::uint32_t nobody = 65534;

std::string_view to_string(Space space) {
  return space == Space::system ? "system" : "user";
}

/// What a filesystem answers that cannot hold the xattr.
bool cannot_hold(int code) {
  return code == EOPNOTSUPP || code == EROFS || code == ENOSPC || code == EDQUOT;
}

/// The tag in an xattr's bytes.
Tag parse_tag(std::string_view value) {
  Tag tag;
  tag.carrier = Carrier::xattr;
  if (auto policy = parse_xattr_value(value)) {
    tag.policy = std::move(*policy);
    tag.text = format_policy(*tag.policy);
  } else {
    tag.text = value;
  }
  return tag;
}

Tag parse_tag(const TagRecord& record) {
  Tag tag;
  tag.carrier = Carrier::database;
  tag.text = record.policy;
  if (auto policy = parse_policy(record.policy)) tag.policy = std::move(*policy);
  return tag;
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

tl::unexpected<Error> unsupported_error(const FileRef& file, Space space, const Tag& tag) {
  // The text is somebody else's: nothing that a terminal would act on.
  std::string shown;
  for (const unsigned char c : tag.text)
    shown += c >= 0x20 && c < 0x7f ? std::string(1, static_cast<char>(c)) : fmt::format("\\{:03o}", c);
  return fail(
      ENOTSUP,
      fmt::format("{}: has a {} tag that this version does not understand ({}); --force overwrites it",
                  object_of(file), to_string(space), shown));
}

/// Why the kernel would not change an xattr, with what is needed.
tl::unexpected<Error> change_error(const FileRef& file, Space space, const struct statx& status, int code) {
  std::string_view reason;
  if (code == EPERM && (status.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)) != 0)
    reason = "the file is immutable or append-only (lsattr)";
  else if ((code == EPERM || code == EACCES) && space == Space::system)
    reason = "system tags need CAP_SYS_ADMIN (root)";
  else if (code == EACCES)
    reason = "user tags need write permission on the file";
  else if (code == EPERM)
    reason = "user tags in a sticky directory need its owner (man 7 xattr)";
  if (reason.empty())
    return fail_errno(fmt::format("set {} tag of", to_string(space)), object_of(file), code);
  return fail(code, fmt::format("{}: {}: {}", object_of(file), errno_text(code), reason));
}

struct Written {
  std::string text;   ///< canonical
  std::string value;  ///< of the xattr
};

/// What is written for a policy, once it is known to be a valid one. Of a thread's last policy it is
/// remembered: a walk sets the same for file after file.
const Result<Written>& written(const Policy& policy) {
  thread_local Policy last;
  thread_local Result<Written> answer = fail(EINVAL, "");
  if (answer && last == policy) return answer;
  // Both or, when memory is short, neither: moving takes none.
  Policy copy = policy;
  Result<Written> fresh;
  if (const auto valid = validate_policy(policy); !valid)
    fresh = tl::unexpected(valid.error());
  else
    fresh = Written{format_policy(policy), format_xattr_value(policy)};
  answer = std::move(fresh);
  last = std::move(copy);
  return answer;
}

}  // namespace

struct PolicyStore::Impl {
  /// Changes of one kind that follow one another.
  struct Run {
    enum class Kind : std::uint8_t { put, erase, correct };
    Kind kind = Kind::put;
    std::vector<TagRecord> records;
    std::vector<RecordCorrection> corrections;  ///< in place of records

    [[nodiscard]] std::size_t size() const { return records.size() + corrections.size(); }
  };
  struct Listed {
    bool system = false;
    bool user = false;
  };
  /// What is known of a file that is about to be tagged.
  struct Subject {
    std::optional<struct statx> status;
    /// Of a walk's file, where its handle suffices; then there may be no status.
    std::optional<FileIdentity> identity;
    bool ambiguous = false;
  };
  /// What one xattr holds.
  struct Value {
    std::optional<Tag> tag;
    int code = 0;  ///< errno where it could not be read: ENODATA, EOPNOTSUPP
  };

  RecordStore* records;
  Identifier* identifier;
  /// Who acts: root, also where policyd has a user of its own.
  const uid_t caller = administers_machine() ? 0 : ::geteuid();
  sys::KernelXattrCalls kernel;
  sys::XattrCalls* xattrs;

  std::mutex write_mutex;  ///< held while a batch is written, so that batches keep their order
  std::mutex queue_mutex;
  std::vector<Run> queue;   ///< the last word on a file stands: in the order in which they were said
  std::size_t waiting = 0;  ///< in all runs
  std::optional<Error> failure;

  Impl(RecordStore* record_store, Identifier* file_identifier, sys::XattrCalls* calls)
      : records(record_store), identifier(file_identifier), xattrs(calls != nullptr ? calls : &kernel) {}

  [[nodiscard]] bool can_record() const { return records != nullptr && records->writable(); }
  Result<Value> read(const FileRef& file, Space space);
  Listed listed(const FileRef& file);
  Result<std::optional<Tag>> tag_of(const FileRef& file, Space space);
  Result<std::optional<Tag>> carried_tag(const FileRef& file, Space space);
  Result<std::optional<TagRecord>> carried(const FileRef& file, Space space);
  Result<TagRecord> make_record(const FileRef& file, const struct statx& status, Space space,
                                const SetOptions& options);
  Result<TagRecord> make_record(const FileRef& file, Subject subject, Space space, const SetOptions& options);
  Result<SetOutcome> set_in_database(const FileRef& file, const struct statx& status, Space space,
                                     const std::string& text, const Value& value, int why,
                                     const SetOptions& options);
  Status enter(const FileRef& file, Subject subject, Space space, const std::string& text, bool erase,
               const SetOptions& options);
  Result<bool> move_to_xattr(const FileRef& file, const struct statx& status, const TagRecord& known,
                             bool dry_run);
  Result<bool> apply(const FileRef& file, const struct statx& status, Reconciled& found,
                     const std::optional<TagRecord>& known, const ReconcileOptions& options);
  Status enter_written(const FileRef& file, Subject subject, Space space, const std::string& text,
                       const SetOptions& options);
  Run& run_of(Run::Kind kind);
  void push(Run::Kind kind, TagRecord record);
  void push(RecordCorrection correction);
  void write_if_due(std::size_t now_waiting);
  void write_batch();
  Status write_run(const Run& run);
  void remember(const Status& done);
};

Result<PolicyStore::Impl::Value> PolicyStore::Impl::read(const FileRef& file, Space space) {
  std::array<char, sys::max_xattr_value> buffer;  // NOLINT: not worth clearing for each file of a tree
  const ssize_t size = xattrs->get(file, sys::xattr_name(space), buffer.data(), buffer.size());
  Value value;
  if (size >= 0) {
    value.tag = parse_tag(std::string_view(buffer.data(), static_cast<std::size_t>(size)));
    return value;
  }
  value.code = static_cast<int>(-size);
  if (value.code == ENODATA || value.code == EOPNOTSUPP) return value;
  if (value.code == ERANGE || value.code == E2BIG) {
    value.tag.emplace();  // no policy: unsupported
    value.tag->text = "longer than 255 bytes";
    return value;
  }
  // user.* of a file that one may not read.
  return fail_errno(fmt::format("read {} tag of", to_string(space)), object_of(file), value.code);
}

/// Which of our xattrs the file may have: one call in place of two for the many files without a tag. They are
/// still got by name; where a filesystem does not list (FUSE may only get), both are asked for.
PolicyStore::Impl::Listed PolicyStore::Impl::listed(const FileRef& file) {
  // Room for a label, an ACL and a few more; else each is asked for.
  std::array<char, 512> names;  // NOLINT: not worth clearing for each file of a tree
  const ssize_t size = xattrs->list(file, names.data(), names.size());
  if (size < 0) return {.system = true, .user = true};
  Listed found;
  std::string_view rest(names.data(), static_cast<std::size_t>(size));
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find('\0'));
    found.system = found.system || name == sys::xattr_name(Space::system);
    found.user = found.user || name == sys::xattr_name(Space::user);
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
  }
  return found;
}

/// The live record that is the tag.
Result<std::optional<TagRecord>> PolicyStore::Impl::carried(const FileRef& file, Space space) {
  if (records == nullptr) return std::nullopt;
  const auto carries = records->carries_tags(file);
  if (!carries) return tl::unexpected(carries.error());
  if (!*carries) return std::nullopt;
  auto record = records->find(file, space);
  if (record && *record && (*record)->carrier != Carrier::database) return std::nullopt;
  return record;
}

Result<std::optional<Tag>> PolicyStore::Impl::tag_of(const FileRef& file, Space space) {
  auto value = read(file, space);
  if (!value) return tl::unexpected(value.error());
  if (value->tag) return std::move(value->tag);
  return carried_tag(file, space);
}

Result<std::optional<Tag>> PolicyStore::Impl::carried_tag(const FileRef& file, Space space) {
  const auto record = carried(file, space);
  if (!record) return tl::unexpected(record.error());
  if (!*record) return std::nullopt;
  return parse_tag(**record);
}

Result<TagRecord> PolicyStore::Impl::make_record(const FileRef& file, const struct statx& status, Space space,
                                                 const SetOptions& options) {
  bool ambiguous = false;
  auto identity = identifier->identify(file, status, &ambiguous);
  if (!identity || identity->filesystem.starts_with("source:overlay:")) {
    // Writing an xattr copies a lower file up: the copy was born later, and has an inode number of its own if
    // the file has several names.
    const auto copied = sys::file_status(file);
    if (!copied) return tl::unexpected(copied.error());
    identity = identifier->identify(file, *copied, &ambiguous);
    if (!identity) return tl::unexpected(identity.error());
  }
  return make_record(file, {.status = status, .identity = std::move(*identity), .ambiguous = ambiguous},
                     space, options);
}

Result<TagRecord> PolicyStore::Impl::make_record(const FileRef& file, Subject subject, Space space,
                                                 const SetOptions& options) {
  if (!subject.identity) return make_record(file, *subject.status, space, options);
  if (subject.ambiguous)
    return fail(
        ENOTUNIQ,
        fmt::format("{}: two mounted filesystems have the id {}: the database cannot tell their files apart",
                    object_of(file), subject.identity->filesystem));
  TagRecord record;
  record.identity = std::move(*subject.identity);
  record.space = space;
  record.path = file.path;
  record.directory = subject.status && S_ISDIR(subject.status->stx_mode);
  record.uid = options.uid.value_or(caller);
  record.changed_ns = now_ns();
  return record;
}

/// Queues the catalogue entry of a tag that an xattr holds, or its removal.
Status PolicyStore::Impl::enter(const FileRef& file, Subject subject, Space space, const std::string& text,
                                bool erase, const SetOptions& options) {
  if (!can_record()) return {};
  auto record = make_record(file, std::move(subject), space, options);
  // Unlinked since its xattr was written: there is no file to enter.
  if (!record && record.error().code == ENOENT) return {};
  if (!record) return with_context("the catalogue was not changed", record.error());
  record->carrier = Carrier::xattr;
  record->policy = text;
  push(erase ? Run::Kind::erase : Run::Kind::put, std::move(*record));
  return {};
}

/// The same for an xattr that was just written. A record that has carried the tag lets go of it only when the
/// xattr is on the disk.
Status PolicyStore::Impl::enter_written(const FileRef& file, Subject subject, Space space,
                                        const std::string& text, const SetOptions& options) {
  if (!can_record()) return {};
  const auto record = carried(file, space);
  if (!record) return tl::unexpected(record.error());
  if (*record)
    if (auto done = sys::sync_file(file); !done) return done;
  return enter(file, std::move(subject), space, text, false, options);
}

/// Keeps the first error for flush().
void PolicyStore::Impl::remember(const Status& done) {
  if (done) return;
  const std::lock_guard lock(queue_mutex);
  if (!failure) failure = done.error();
}

/// The run that a change of this kind is added to. With queue_mutex held.
PolicyStore::Impl::Run& PolicyStore::Impl::run_of(Run::Kind kind) {
  if (queue.empty() || queue.back().kind != kind) queue.emplace_back().kind = kind;
  return queue.back();
}

void PolicyStore::Impl::push(Run::Kind kind, TagRecord record) {
  std::size_t now_waiting = 0;
  {
    const std::lock_guard lock(queue_mutex);
    run_of(kind).records.push_back(std::move(record));
    now_waiting = ++waiting;
  }
  write_if_due(now_waiting);
}

void PolicyStore::Impl::push(RecordCorrection correction) {
  std::size_t now_waiting = 0;
  {
    const std::lock_guard lock(queue_mutex);
    run_of(Run::Kind::correct).corrections.push_back(std::move(correction));
    now_waiting = ++waiting;
  }
  write_if_due(now_waiting);
}

void PolicyStore::Impl::write_if_due(std::size_t now_waiting) {
  if (now_waiting < batch_size) return;
  // While one thread writes, the others go on.
  std::unique_lock writing(write_mutex, std::defer_lock);
  if (now_waiting < most_waiting)
    static_cast<void>(writing.try_lock());
  else
    writing.lock();
  if (writing) write_batch();
}

/// With write_mutex held. What an exception interrupts is dropped: a tag that the database carries is then as
/// it was, and never changes later behind the back of a caller who was told that it did not.
void PolicyStore::Impl::write_batch() {
  std::vector<Run> batch;
  {
    const std::lock_guard lock(queue_mutex);
    batch.swap(queue);
    waiting = 0;
  }
  for (const Run& run : batch)
    if (const auto done = write_run(run); !done)
      remember(with_context(fmt::format("{} records were not changed", run.size()), done.error()));
}

/// In one transaction.
Status PolicyStore::Impl::write_run(const Run& run) {
  switch (run.kind) {
    case Run::Kind::put:
      return records->put(run.records);
    case Run::Kind::erase:
      return records->erase(run.records);
    case Run::Kind::correct:
      break;
  }
  return records->correct(run.corrections);
}

PolicyStore::PolicyStore(RecordStore* records, Identifier* identifier, sys::XattrCalls* xattrs)
    : impl_(std::make_unique<Impl>(records, identifier, xattrs)) {}

PolicyStore::~PolicyStore() {
  try {
    static_cast<void>(flush());
  } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch)
    // Whoever wants to know flushes before.
  }
}

Result<std::optional<Tag>> PolicyStore::get(const FileRef& file, Space space) {
  return impl_->tag_of(file, space);
}

Result<Tags> PolicyStore::get(const FileRef& file) {
  Tags tags;
  const auto listed = impl_->listed(file);
  auto system = listed.system ? impl_->tag_of(file, Space::system) : impl_->carried_tag(file, Space::system);
  if (!system) return tl::unexpected(system.error());
  tags.system = std::move(*system);
  auto user = listed.user ? impl_->tag_of(file, Space::user) : impl_->carried_tag(file, Space::user);
  if (user)
    tags.user = std::move(*user);
  else if (user.error().code == EACCES)
    tags.user_denied = true;
  else
    return tl::unexpected(user.error());
  return tags;
}

namespace {

/// Regular files and directories carry tags; nothing else is even opened.
Result<struct statx> status_to_tag(const FileRef& file) {
  auto status = sys::file_status(file);
  if (!status) return status;
  if (S_ISREG(status->stx_mode) || S_ISDIR(status->stx_mode)) return status;
  const char* what = S_ISLNK(status->stx_mode)    ? "a symbolic link"
                     : S_ISFIFO(status->stx_mode) ? "a FIFO"
                     : S_ISSOCK(status->stx_mode) ? "a socket"
                                                  : "a device";
  return fail(EINVAL,
              fmt::format("{}: is {}; only regular files and directories carry tags", object_of(file), what));
}

}  // namespace

Result<SetOutcome> PolicyStore::set(const FileRef& file, Space space, const Policy& policy,
                                    const SetOptions& options) {
  return set_listed(file, 0, space, policy, options);
}

Result<SetOutcome> PolicyStore::set_listed(const FileRef& file, int mount, Space space, const Policy& policy,
                                           const SetOptions& options) {
  const auto& valid = written(policy);
  if (!valid) return with_context(object_of(file), valid.error());
  Impl::Subject subject;
  if (impl_->can_record() && !options.dry_run)
    if (auto listed = impl_->identifier->identify_listed(file, mount, &subject.ambiguous))
      subject.identity = std::move(*listed);
  const auto ask = [&]() -> Status {
    const auto status = status_to_tag(file);
    if (!status) return tl::unexpected(status.error());
    subject.status = *status;
    return {};
  };
  // Of a file that was listed and that has a handle the type is known.
  if (!subject.identity)
    if (const auto asked = ask(); !asked) return tl::unexpected(asked.error());
  const auto& [text, value] = *valid;
  // Most files have no tag yet: one call then, in place of two. Of any error the long way below tells.
  if (!options.dry_run && impl_->xattrs->set(file, sys::xattr_name(space), value, true) == 0) {
    impl_->remember(impl_->enter_written(file, std::move(subject), space, text, options));
    return SetOutcome::changed;
  }
  const auto old = impl_->read(file, space);
  if (!old) return tl::unexpected(old.error());
  if (old->tag) {
    if (!old->tag->policy && !options.force) return unsupported_error(file, space, *old->tag);
    if (old->tag->policy == policy) {
      if (!options.dry_run)
        impl_->remember(impl_->enter(file, std::move(subject), space, text, false, options));
      return SetOutcome::unchanged;
    }
  }
  if (!subject.status)
    if (const auto asked = ask(); !asked) return tl::unexpected(asked.error());
  const struct statx& status = *subject.status;
  if (old->code == EOPNOTSUPP)
    return impl_->set_in_database(file, status, space, text, *old, EOPNOTSUPP, options);
  if (options.dry_run) {
    if (!old->tag)
      if (const auto record = impl_->carried(file, space); record && *record && (*record)->policy == text)
        return SetOutcome::unchanged;
    return SetOutcome::changed;
  }
  const int code = -impl_->xattrs->set(file, sys::xattr_name(space), value, false);
  if (cannot_hold(code)) return impl_->set_in_database(file, status, space, text, *old, code, options);
  if (code != 0) return change_error(file, space, status, code);
  // This also turns a record that carried the tag into the xattr's catalogue entry. The xattr is the
  // authority and is written by now: flush() tells of a failure.
  impl_->remember(impl_->enter_written(file, std::move(subject), space, text, options));
  return SetOutcome::changed;
}

Result<SetOutcome> PolicyStore::Impl::set_in_database(const FileRef& file, const struct statx& status,
                                                      Space space, const std::string& text,
                                                      const Value& value, int why,
                                                      const SetOptions& options) {
  if (space == Space::system && caller != 0)
    return fail(EPERM, fmt::format("{}: system tags need CAP_SYS_ADMIN (root)", object_of(file)));
  if (records == nullptr || !(records->writable() || options.dry_run))
    return fail(
        why, fmt::format("{}: the filesystem cannot hold the {} tag ({}), and without privilege only policyd "
                         "can record it: it must be running",
                         object_of(file), to_string(space), errno_text(why)));
  auto record = make_record(file, status, space, options);
  if (!record) return tl::unexpected(record.error());
  record->carrier = Carrier::database;
  record->policy = text;
  const auto old = carried(file, space);
  if (!old) return tl::unexpected(old.error());
  if (!value.tag && *old) {
    const Tag tag = parse_tag(**old);
    if (!tag.policy && !options.force) return unsupported_error(file, space, tag);
    if ((*old)->policy == text) return SetOutcome::unchanged;
  }
  if (options.dry_run) return SetOutcome::changed;
  if (!value.tag) {
    push(Run::Kind::put, std::move(*record));
    return SetOutcome::changed;
  }
  // The file has an xattr, which wins over a record and must go. The record is committed first: a crash in
  // between leaves the old tag, never none.
  if (auto done = records->put(std::span(&*record, 1)); !done) return tl::unexpected(done.error());
  if (const int code = -xattrs->remove(file, sys::xattr_name(space)); code != 0 && code != ENODATA) {
    // Back to what holds: the xattr.
    record->carrier = Carrier::xattr;
    record->policy = value.tag->text;
    if (auto done = records->put(std::span(&*record, 1)); !done) return tl::unexpected(done.error());
    return fail(why, fmt::format("{}: its {} tag cannot be changed: {}", object_of(file), to_string(space),
                                 errno_text(code)));
  }
  return SetOutcome::changed;
}

Result<SetOutcome> PolicyStore::remove(const FileRef& file, Space space, const SetOptions& options) {
  const auto status = status_to_tag(file);
  if (!status) return tl::unexpected(status.error());
  const auto old = impl_->read(file, space);
  if (!old) return tl::unexpected(old.error());
  if (old->tag && !old->tag->policy && !options.force) return unsupported_error(file, space, *old->tag);
  const auto record = impl_->carried(file, space);
  if (!record) return tl::unexpected(record.error());
  if (*record && !old->tag && !parse_tag(**record).policy && !options.force)
    return unsupported_error(file, space, parse_tag(**record));
  const auto outcome = old->tag || *record ? SetOutcome::changed : SetOutcome::unchanged;
  if (options.dry_run) return outcome;
  if (*record && !impl_->can_record())
    return fail(EROFS, fmt::format("{}: its {} tag is in the database, which only root and policyd write",
                                   object_of(file), to_string(space)));
  if (*record && space == Space::system && impl_->caller != 0)
    return fail(EPERM, fmt::format("{}: system tags need CAP_SYS_ADMIN (root)", object_of(file)));
  if (old->tag)
    if (const int code = -impl_->xattrs->remove(file, sys::xattr_name(space)); code != 0 && code != ENODATA)
      return change_error(file, space, *status, code);
  // What is not there may still have an entry that is out of date.
  const auto entered =
      impl_->enter(file, {.status = *status, .identity = {}, .ambiguous = false}, space, {}, true, options);
  if (outcome == SetOutcome::changed) impl_->remember(entered);
  return outcome;
}

namespace {

/// What the rule says of one tag: docs/decisions/009. `readable`: the filesystem answers for this xattr, be
/// it that there is none. `known`: the live record.
std::optional<Correction> correction_of(const std::optional<Tag>& xattr, bool readable,
                                        const std::optional<TagRecord>& known, bool move) {
  const bool carries = known && known->carrier == Carrier::database;
  if (xattr) {
    if (!known) return Correction::entered;
    if (carries || known->policy != xattr->text) return Correction::corrected;
    return std::nullopt;
  }
  if (!known) return std::nullopt;
  if (readable) {
    if (!carries) return Correction::entry_removed;
    if (move) return Correction::moved_to_xattr;
    return std::nullopt;
  }
  // Where xattrs cannot be read (now), the entry of one that was set before stands, until somebody says that
  // it shall be the tag.
  if (!carries && move) return Correction::moved_to_database;
  return std::nullopt;
}

}  // namespace

Result<bool> PolicyStore::Impl::move_to_xattr(const FileRef& file, const struct statx& status,
                                              const TagRecord& known, bool dry_run) {
  const auto policy = parse_policy(known.policy);
  // Not understood: it stays as it is, where it is.
  if (!policy) return false;
  if (dry_run) return !sys::is_read_only(file);
  // Never over an xattr that somebody has set meanwhile: it is the authority, and met the next time.
  const int code = -xattrs->set(file, sys::xattr_name(known.space), format_xattr_value(*policy), true);
  if (cannot_hold(code) || code == EEXIST) return false;
  if (code != 0) return change_error(file, known.space, status, code);
  if (auto done = sys::sync_file(file); !done) return tl::unexpected(done.error());
  return true;
}

Result<bool> PolicyStore::Impl::apply(const FileRef& file, const struct statx& status, Reconciled& found,
                                      const std::optional<TagRecord>& known,
                                      const ReconcileOptions& options) {
  const bool moves =
      found.correction == Correction::moved_to_xattr || found.correction == Correction::moved_to_database;
  if (moves && found.space == Space::system && caller != 0)
    return fail(EPERM, fmt::format("{}: system tags need CAP_SYS_ADMIN (root)", object_of(file)));
  if (found.correction == Correction::moved_to_database && !parse_policy(known->policy)) return false;
  if (found.correction == Correction::moved_to_xattr) {
    auto moved = move_to_xattr(file, status, *known, options.dry_run);
    if (!moved || !*moved) return moved;
  }
  if (options.dry_run) return true;
  // A record is about to let go of its tag: the xattr, whoever wrote it, must be on the disk.
  if (found.correction == Correction::corrected && known && known->carrier == Carrier::database)
    if (auto done = sys::sync_file(file); !done) return tl::unexpected(done.error());
  // Who set it is not known: a user tag the owner, but not root where the mode (with an ACL its mask) lets
  // others write the file.
  const bool is_anybodys = status.stx_uid == 0 && (status.stx_mode & (S_IWGRP | S_IWOTH)) != 0;
  SetOptions by;
  if (known && known->policy == found.policy)
    by.uid = known->uid;
  else if (found.space == Space::system)
    by.uid = 0;
  else
    by.uid = is_anybodys ? nobody : status.stx_uid;
  auto record = make_record(file, status, found.space, by);
  if (!record) return tl::unexpected(record.error());
  record->carrier = found.correction == Correction::moved_to_database ? Carrier::database : Carrier::xattr;
  record->policy = found.policy;
  push({.record = std::move(*record),
        .erase = found.correction == Correction::entry_removed,
        .before = known});
  return true;
}

Result<std::vector<Reconciled>> PolicyStore::reconcile(const FileRef& file, const ReconcileOptions& options) {
  std::vector<Reconciled> all;
  if (impl_->records == nullptr || !(impl_->can_record() || options.dry_run)) return all;
  const auto status = status_to_tag(file);
  if (!status) return tl::unexpected(status.error());
  for (const Space space : {Space::system, Space::user}) {
    // The record first: whoever changes the xattr afterwards changes the record later still, and a record
    // that has changed is not corrected.
    const auto known = impl_->records->find(file, space);
    if (!known) return tl::unexpected(known.error());
    const auto value = impl_->read(file, space);
    if (!value) return tl::unexpected(value.error());
    const auto correction = correction_of(value->tag, value->code != EOPNOTSUPP, *known, options.move);
    if (!correction) continue;
    Reconciled found;
    found.space = space;
    found.correction = *correction;
    found.policy = value->tag ? value->tag->text : (*known)->policy;
    if (*known && (*known)->policy != found.policy) found.before = (*known)->policy;
    const auto applied = impl_->apply(file, *status, found, *known, options);
    if (!applied) return tl::unexpected(applied.error());
    if (*applied) all.push_back(std::move(found));
  }
  return all;
}

Status PolicyStore::flush() {
  {
    const std::lock_guard lock(impl_->write_mutex);
    impl_->write_batch();
  }
  const std::lock_guard lock(impl_->queue_mutex);
  if (!impl_->failure) return {};
  return tl::unexpected(*std::exchange(impl_->failure, std::nullopt));
}

}  // namespace fpolicy
