// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/audit.h>
#include <fpolicy/policy.h>

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

namespace fpolicy {
namespace {

std::string pages_on(const std::vector<std::uint64_t>& by_node, const NodeSet& wanted) {
  std::string text;
  for (unsigned node = 0; node < by_node.size(); ++node) {
    if (by_node[node] == 0 || wanted.contains(node)) continue;
    text += fmt::format("{}{} on node {}", text.empty() ? "" : ", ", by_node[node], node);
  }
  return text;
}

}  // namespace

std::string_view to_string(State state) {
  switch (state) {
    case State::ok:
      return "ok";
    case State::misplaced:
      return "misplaced";
    case State::unset:
      return "unset";
    case State::unsupported:
      return "unsupported";
    case State::unsatisfiable:
      return "unsatisfiable";
    case State::stale:
      return "stale";
    case State::unknown:
      break;
  }
  return "unknown";
}

AuditedFile Auditor::audit(const NamedFile& file, const std::string& shown, const AuditJob& job) const {
  AuditedFile row;
  row.path = shown;
  const FileRef ref{file.fd.get(), nullptr, file.path, file.device};
  const auto effective = resolver_.resolve(ref, file.path, job.user);
  Target target;
  if (!effective) {
    row.state = State::unknown;
    row.reason = effective.error().message;
  } else {
    row.source = to_string(effective->source);
    row.origin = effective->origin;
    if (effective->unsupported) {
      row.policy = effective->text;
      row.state = State::unsupported;
      row.reason = "this version does not understand the tag";
    } else if (effective->policy) {
      row.policy = format_policy(*effective->policy);
      row.state = State::ok;
      auto evaluated = evaluate_placement(*effective->policy, topology_, job.allowed);
      if (evaluated && effective->from_user && job.confines_users && evaluated->mode != Mode::none) {
        evaluated->nodes = evaluated->nodes & job.allowed;
        std::erase_if(evaluated->slots, [&](unsigned node) { return !job.allowed.contains(node); });
        if (evaluated->nodes.empty()) {
          evaluated =
              fail(ENODEV, "a user tag places within the job's nodes " + job.allowed.format() + " only");
        }
      }
      if (evaluated) {
        target = *std::move(evaluated);
      } else {
        row.state = State::unsatisfiable;
        row.reason = evaluated.error().message;
      }
    }
  }
  if (S_ISREG(file.mode)) count(file, target, row);
  return row;
}

void Auditor::count(const NamedFile& file, const Target& target, AuditedFile& row) const {
  const auto not_told = [&](const std::string& why) {
    if (row.state == State::ok && target.mode != Mode::none) row.state = State::unknown;
    if (row.reason.empty()) row.reason = why;
  };
  const auto fd = reopen(file);
  if (!fd) return not_told("pages not told: " + errno_text(fd.error().code));
  const auto told = may_observe(fd->get());
  if (!told) return not_told(told.error().message);
  if (!*told) return not_told("pages not told: neither the owner nor allowed to write the file");
  PlacementOptions options;
  options.threads = threads_;
  if (with_runs_) options.runs = &row.runs;
  const auto report = audit_file(fd->get(), target, topology_, options);
  if (!report) return not_told(report.error().message);
  row.residency = report->residency;
  row.misplaced = report->misplaced_pages;
  struct stat status = {};
  if (fstat(fd->get(), &status) == 0 && row.residency->page_size != 0) {
    const auto size = static_cast<std::uint64_t>(status.st_size);
    row.pages = size / row.residency->page_size + (size % row.residency->page_size != 0 ? 1 : 0);
  }
  if (row.state != State::ok) return;
  row.reason = report->reason;
  if (row.misplaced == 0) return;
  row.state = State::misplaced;
  if (row.reason.empty()) row.reason = pages_on(row.residency->pages_by_node, target.nodes);
  if (row.reason.empty()) row.reason = "pages are on other nodes of the set than their index says";
}

}  // namespace fpolicy
