// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/resolver.h>

#include <sys/stat.h>

namespace fpolicy {
namespace {

Effective of_tag(const Tag& tag, Source source, std::string origin) {
  Effective effective;
  effective.source = source;
  effective.policy = tag.policy;
  effective.unsupported = !tag.policy;
  effective.text = tag.text;
  effective.origin = std::move(origin);
  return effective;
}

Effective of_own_tag(const Tag& tag, Source xattr_source, std::string xattr_name) {
  return tag.carrier == Carrier::database ? of_tag(tag, Source::database, "database")
                                          : of_tag(tag, xattr_source, std::move(xattr_name));
}

Effective decide(const Candidates& candidates) {
  if (candidates.system) return of_own_tag(*candidates.system, Source::system_xattr, "security.fpolicy");
  if (candidates.user && candidates.user_trusted) {
    Effective effective = of_own_tag(*candidates.user, Source::user_xattr, "user.fpolicy");
    effective.from_user = true;
    if (effective.policy) effective.policy->pin = false;
    return effective;
  }
  if (candidates.directory)
    return of_tag(*candidates.directory, Source::directory, candidates.directory_path);
  Effective effective;
  if (candidates.rule != nullptr) {
    effective.source = Source::rule;
    effective.policy = candidates.rule->policy;
    effective.text = effective.policy ? format_policy(*effective.policy) : "none";
    effective.origin = candidates.rule->file + ":" + std::to_string(candidates.rule->line);
  }
  return effective;
}

}  // namespace

std::string_view to_string(Source source) {
  switch (source) {
    case Source::none:
      return "none";
    case Source::system_xattr:
      return "system-xattr";
    case Source::user_xattr:
      return "user-xattr";
    case Source::database:
      return "database";
    case Source::directory:
      return "directory";
    case Source::rule:
      return "rule";
  }
  return {};
}

Effective resolve(const Candidates& candidates) {
  Effective effective = decide(candidates);
  effective.user_ignored =
      !candidates.system && (candidates.user_denied || (candidates.user && !candidates.user_trusted));
  return effective;
}

// The group bits of a file with an ACL hold the ACL's mask (acl(5)), so they tell of every named writer, too.
bool trusts_user_tag(mode_t mode, uid_t owner, uid_t job_uid) {
  return (owner == 0 || owner == job_uid) && (mode & (S_IWGRP | S_IWOTH)) == 0;
}

}  // namespace fpolicy
