// SPDX-License-Identifier: LGPL-2.1-or-later
// The audit of one file: its policy, where its resident pages are, and what is wrong with that.
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/node_set.h>
#include <fpolicy/placement.h>
#include <fpolicy/resolver.h>
#include <fpolicy/topology.h>
#include <fpolicy/tree.h>

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

/// unknown: the pages are not told to this caller, or cannot be read.
enum class State : std::uint8_t { ok, misplaced, unset, unsupported, unsatisfiable, stale, unknown };

/// As in JSON; unknown is "unknown" in tables and null there.
FPOLICY_API std::string_view to_string(State state);

struct FPOLICY_API AuditedFile {
  std::string path;
  std::optional<std::string> policy;  ///< the text that is stored where it is not understood
  std::string source = "none";
  std::string origin;
  /// Nothing where they are not told.
  std::optional<Residency> residency;
  std::uint64_t misplaced = 0;  ///< pages
  State state = State::unset;
  std::string reason;
  std::uint64_t files = 1;    ///< more than one: the sum over a directory
  std::vector<PageRun> runs;  ///< where pages lie, if asked for
  std::uint64_t pages = 0;    ///< of the whole file, resident or not
};

struct FPOLICY_API AuditJob {
  NodeSet allowed;              ///< the nodes that the job may use
  std::optional<uid_t> user;    ///< whose job; the file's owner if none is meant
  bool confines_users = false;  ///< user tags place within `allowed` only
};

class FPOLICY_API Auditor {
 public:
  Auditor(Resolver& resolver, const Topology& topology, bool with_runs, unsigned threads)
      : resolver_(resolver), topology_(topology), with_runs_(with_runs), threads_(threads) {}

  /// Never fails: what goes wrong is the state unknown, with its reason. `file.path`: as in
  /// Resolver::resolve; `shown`: what the row calls the file. Thread-safe.
  [[nodiscard]] AuditedFile audit(const NamedFile& file, const std::string& shown, const AuditJob& job) const;

 private:
  void count(const NamedFile& file, const Target& target, AuditedFile& row) const;

  Resolver& resolver_;
  const Topology& topology_;
  bool with_runs_;
  unsigned threads_;
};

}  // namespace fpolicy
