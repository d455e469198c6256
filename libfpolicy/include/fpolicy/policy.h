// SPDX-License-Identifier: LGPL-2.1-or-later
// The policy language: what is wanted of a file's pages. Pure: no I/O.
//
//   policy    = item *( "," item )
//   item      = placement / "migrate=" ( "yes" / "private" / "no" ) / "pin"
//   placement = "default" / mode ":" nodes
//   mode      = "bind" / "prefer" / "interleave"
//   nodes     = "all" / "cpu" / "cpuless" / [ "+" ] range *( "," range )
//   range     = node [ "-" node ] [ "@" weight ]          ; weights: interleave only
#pragma once

#include <fpolicy/export.h>
#include <fpolicy/node_set.h>
#include <fpolicy/result.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy {

enum class Mode : std::uint8_t { none, bind, prefer, interleave };

/// How a placement names its nodes: by number, or by a word that is evaluated at use.
enum class NodeWord : std::uint8_t { list, all, cpu, cpuless };

/// Which pages of a mapping follow a job that moves.
enum class Migrate : std::uint8_t {
  yes,           ///< all pages
  only_private,  ///< private pages; file pages stay ("private")
  no,            ///< nothing of the mapping
};

struct WeightedNode {
  unsigned node = 0;
  unsigned weight = 1;
  friend bool operator==(const WeightedNode&, const WeightedNode&) = default;
};

struct FPOLICY_API Policy {
  Mode mode = Mode::none;
  NodeWord word = NodeWord::list;
  /// Node numbers count within the nodes that the job may use, as numactl's "+".
  bool relative = false;
  /// With NodeWord::list: ascending, each node once. Weights are 1 to 255; not 1 with interleave only.
  std::vector<WeightedNode> nodes;
  /// What holds, whether written or by default.
  Migrate migrate = Migrate::yes;
  bool pin = false;

  [[nodiscard]] bool has_placement() const { return mode != Mode::none; }
  /// A placement whose nodes do not depend on the job.
  [[nodiscard]] bool has_absolute_placement() const { return has_placement() && !relative; }

  friend bool operator==(const Policy&, const Policy&) = default;
};

/// Longest policy text that is stored or read, in bytes: an xattr value is at most 255 with "1 " before it.
inline constexpr std::size_t max_policy_text = 253;

/// Parses a whole policy. Error: EINVAL, "column N: expected ..." (bytes, from 1). Items may stand in any
/// order. A node that is named twice is merged for bind and prefer and refused for interleave, where it could
/// mean twice the share. Contradictions (an absolute placement with migrate=yes) are refused with the ways
/// out.
FPOLICY_API Result<Policy> parse_policy(std::string_view text);

/// Canonical text: items in the grammar's order, sets merged and sorted, defaults left out; "default" for a
/// policy that wants nothing. parse_policy(format_policy(p)) == p.
FPOLICY_API std::string format_policy(const Policy& policy);

/// Checks a policy that was put together by hand: nodes ascending, weights in range, no contradiction,
/// canonical text within max_policy_text. What parse_policy gives is always valid. Error: EINVAL.
FPOLICY_API Status validate_policy(const Policy& policy);

/// What migrate is when a policy does not say: only_private with an absolute placement, yes otherwise.
FPOLICY_API Migrate default_migrate(const Policy& policy);

FPOLICY_API std::string_view to_string(Mode mode);
FPOLICY_API std::string_view to_string(Migrate migrate);

/// The value of an xattr: "1 bind:1,migrate=no".
FPOLICY_API std::string format_xattr_value(const Policy& policy);

/// Parses an xattr's bytes. An unknown version or item, and anything else that is not understood whole, is an
/// error with code ENOTSUP: the tag is then unsupported, never applied in part.
FPOLICY_API Result<Policy> parse_xattr_value(std::string_view bytes);

}  // namespace fpolicy
