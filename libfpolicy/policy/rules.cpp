// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/escape.h"
#include "policy/glob.h"
#include "policy/grammar.h"
#include "policy/hash_index.h"
#include "policy/lines.h"
#include "policy/text.h"

#include <fpolicy/rules.h>

#include <fmt/format.h>

#include <deque>
#include <unordered_map>
#include <utility>

namespace fpolicy {
namespace {

constexpr std::size_t max_rules = 1'000'000;
constexpr std::string_view alias_word = "alias ";

/// A rule by its place in the set, from 1; 0 is none. A greater number wins.
using RuleNumber = std::uint32_t;
using NodeNumber = std::uint32_t;

/// The tree of components. Every pattern ends at one node.
struct TrieNode {
  RuleNumber last = 0;  ///< of all rules at this node and under it: nothing to look for if it has been beaten
  RuleNumber exact = 0;               ///< the path that ends here
  RuleNumber below = 0;               ///< this path and all below: "/"
  RuleNumber beneath = 0;             ///< all below, but not this path: "/**"
  NodeNumber any_depth = 0;           ///< the child for a "**" component, 0 is none
  std::uint32_t any_depth_index = 0;  ///< of that child among its kind
  std::unique_ptr<GlobIndex> globs;   ///< children by glob
  std::unique_ptr<GlobIndex> tails;   ///< rules whose next component reaches across slashes
};

enum class EdgeKind : std::uint8_t { literal, glob, tail };

/// What leads from a node to the next.
struct Edge {
  NodeNumber parent = 0;
  EdgeKind kind = EdgeKind::literal;
  std::uint32_t value = 0;  ///< literal and glob: the child node. tail: the position in the node's index
  std::string text;
};

class Edges {
 public:
  [[nodiscard]] const Edge* find(NodeNumber parent, EdgeKind kind, std::string_view text) const {
    const auto found = position(hash(parent, kind, text), parent, kind, text);
    return found ? &edges_[*found] : nullptr;
  }
  /// That edge, and whether it is new. Valid until the next call.
  std::pair<Edge*, bool> take(NodeNumber parent, EdgeKind kind, std::string_view text) {
    const std::uint32_t hashed = hash(parent, kind, text);
    if (const auto found = position(hashed, parent, kind, text)) return {&edges_[*found], false};
    index_.insert(hashed, static_cast<std::uint32_t>(edges_.size()));
    edges_.push_back({parent, kind, 0, std::string(text)});
    return {&edges_.back(), true};
  }

 private:
  static std::uint32_t hash(NodeNumber parent, EdgeKind kind, std::string_view text) {
    return HashIndex::hash(text, std::uint64_t{parent} * 4 + static_cast<std::uint64_t>(kind));
  }
  [[nodiscard]] std::optional<std::uint32_t> position(std::uint32_t hashed, NodeNumber parent, EdgeKind kind,
                                                      std::string_view text) const {
    return index_.find(hashed, [&](std::uint32_t at) {
      const Edge& edge = edges_[at];
      return edge.parent == parent && edge.kind == kind && edge.text == text;
    });
  }

  std::vector<Edge> edges_;
  HashIndex index_;
};

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

tl::unexpected<SyntaxError> shifted(std::size_t by, SyntaxError error) {
  error.column += by;
  return tl::unexpected<SyntaxError>(std::move(error));
}

}  // namespace

struct RuleSet::Impl {
  std::vector<TrieNode> nodes = std::vector<TrieNode>(1);
  Edges edges;
  std::uint32_t any_depth_nodes = 0;
  std::deque<RuleLine> rules;
  std::unordered_map<std::string, std::string, TextHash, std::equal_to<>> aliases;

  tl::expected<void, SyntaxError> add_line(std::string_view line, const std::string& file, unsigned number);
  tl::expected<void, SyntaxError> add_alias(std::string_view line);
  tl::expected<void, SyntaxError> insert(const Pattern& pattern, RuleNumber rule);
  NodeNumber new_node();
  /// What an alias makes of the path; nothing where there is none for it.
  [[nodiscard]] std::optional<std::string> aliased(std::string_view path) const;
};

tl::expected<void, SyntaxError> RuleSet::Impl::add_line(std::string_view line, const std::string& file,
                                                        unsigned number) {
  if (line.front() == '#') return {};
  if (line.starts_with(alias_word)) return add_alias(line);
  if (rules.size() == max_rules) {
    return tl::unexpected<SyntaxError>(SyntaxError{1, fmt::format("expected at most {} rules", max_rules)});
  }
  const std::string_view pattern_text = line.substr(0, line.find('\t'));
  const auto pattern = parse_pattern(pattern_text);
  if (!pattern) return tl::unexpected<SyntaxError>(pattern.error());
  const auto fields = split_fields(line, "a policy");
  if (!fields) return tl::unexpected<SyntaxError>(fields.error());

  RuleLine rule{std::string(fields->first), std::nullopt, file, number};
  if (fields->second != "none") {
    auto policy = parse_policy_text(fields->second);
    if (!policy) return shifted(fields->second_at, std::move(policy.error()));
    rule.policy = std::move(*policy);
  }
  auto inserted = insert(*pattern, static_cast<RuleNumber>(rules.size() + 1));
  if (!inserted) return inserted;
  rules.push_back(std::move(rule));
  return {};
}

tl::expected<void, SyntaxError> RuleSet::Impl::add_alias(std::string_view line) {
  const auto fields = split_fields(line, "the path that the alias stands for");
  if (!fields) return tl::unexpected<SyntaxError>(fields.error());
  std::string paths[2];
  const std::string_view texts[2] = {fields->first.substr(alias_word.size()), fields->second};
  const std::size_t at[2] = {alias_word.size(), fields->second_at};
  for (std::size_t i = 0; i < 2; ++i) {
    const auto pattern = parse_pattern(texts[i]);
    if (!pattern) return shifted(at[i], pattern.error());
    if (pattern->below && (i == 0 || !pattern->components.empty())) {
      return tl::unexpected<SyntaxError>(
          SyntaxError{at[i] + texts[i].size(), "expected a path that does not end in \"/\""});
    }
    for (const PatternComponent& component : pattern->components) {
      if (component.kind != PatternComponent::Kind::literal) {
        const auto offset = static_cast<std::size_t>(component.text.data() - line.data());
        return tl::unexpected<SyntaxError>(
            SyntaxError{offset + 1, "expected a path: an alias takes no pattern characters"});
      }
      paths[i].append("/").append(component.literal);
    }
  }
  aliases.insert_or_assign(std::move(paths[0]), std::move(paths[1]));
  return {};
}

NodeNumber RuleSet::Impl::new_node() {
  nodes.emplace_back();
  return static_cast<NodeNumber>(nodes.size() - 1);
}

tl::expected<void, SyntaxError> RuleSet::Impl::insert(const Pattern& pattern, RuleNumber rule) {
  const auto offset_of = [&](const PatternComponent& component) {
    return static_cast<std::size_t>(component.text.data() - pattern.text.data());
  };
  const auto too_long = [&](const PatternComponent& component) {
    return tl::unexpected<SyntaxError>(SyntaxError{
        offset_of(component) + 1,
        fmt::format("expected at most {} bytes and pattern characters from here on", Glob::max_tokens)});
  };
  NodeNumber at = 0;
  nodes[at].last = rule;
  for (std::size_t i = 0; i < pattern.components.size(); ++i) {
    const PatternComponent& component = pattern.components[i];
    const bool is_last = i + 1 == pattern.components.size();
    NodeNumber child = 0;
    switch (component.kind) {
      case PatternComponent::Kind::literal: {
        const auto [edge, is_new] = edges.take(at, EdgeKind::literal, component.literal);
        if (is_new) edge->value = new_node();
        child = edge->value;
        break;
      }
      case PatternComponent::Kind::glob: {
        const auto [edge, is_new] = edges.take(at, EdgeKind::glob, component.text);
        if (is_new) {
          Glob glob = Glob::component(pattern, i);
          if (!glob.fits()) return too_long(component);
          edge->value = new_node();
          if (!nodes[at].globs) nodes[at].globs = std::make_unique<GlobIndex>();
          nodes[at].globs->add(std::move(glob), edge->value);
        }
        child = edge->value;
        break;
      }
      case PatternComponent::Kind::globstar:
        if (is_last) {
          nodes[at].beneath = rule;
          return {};
        }
        if (nodes[at].any_depth == 0) {
          child = new_node();
          nodes[at].any_depth = child;
          nodes[at].any_depth_index = any_depth_nodes++;
        }
        child = nodes[at].any_depth;
        break;
      case PatternComponent::Kind::crossing: {
        const std::string_view text = pattern.text.substr(offset_of(component));
        const auto [edge, is_new] = edges.take(at, EdgeKind::tail, text);
        if (!nodes[at].tails) nodes[at].tails = std::make_unique<GlobIndex>();
        if (is_new) {
          Glob glob = Glob::tail(pattern, i);
          if (!glob.fits()) return too_long(component);
          edge->value = nodes[at].tails->add(std::move(glob), rule);
        } else {
          nodes[at].tails->set_value(edge->value, rule);
        }
        return {};
      }
    }
    at = child;
    nodes[at].last = rule;
  }
  (pattern.below ? nodes[at].below : nodes[at].exact) = rule;
  return {};
}

std::optional<std::string> RuleSet::Impl::aliased(std::string_view path) const {
  for (std::size_t end = path.size(); end != 0 && end != std::string_view::npos;
       end = path.rfind('/', end - 1)) {
    const auto found = aliases.find(path.substr(0, end));
    if (found != aliases.end()) return found->second + std::string(path.substr(end));
  }
  return std::nullopt;
}

RuleSet::RuleSet() : impl_(std::make_unique<Impl>()) {}
RuleSet::~RuleSet() = default;
RuleSet::RuleSet(RuleSet&&) noexcept = default;
RuleSet& RuleSet::operator=(RuleSet&&) noexcept = default;

Status RuleSet::add(std::string_view text, const std::string& file) {
  return for_each_line(text, file, [&](std::string_view line, unsigned number) {
    return impl_->add_line(line, file, number);
  });
}

// Component by component, all nodes that the path so far leads to are followed at once. A node has one
// parent, and one for "**" stays once it has been reached, so no node is looked at twice for one component.
RuleMatch RuleSet::match(std::string_view path) const {
  const Impl& set = *impl_;
  if (set.rules.empty() || !path.starts_with('/')) return nullptr;
  while (path.ends_with('/')) path.remove_suffix(1);
  std::optional<std::string> other;
  if (!set.aliases.empty()) other = set.aliased(path);
  if (other) path = *other;

  RuleNumber best = 0;
  const auto take = [&](RuleNumber rule) { best = std::max(best, rule); };
  std::vector<NodeNumber> now{0};
  std::vector<NodeNumber> next;
  std::vector<NodeNumber> staying;
  std::vector<bool> reached(set.any_depth_nodes);
  for (;;) {
    // What follows the nodes in `now`: "/NAME/..." or nothing.
    const bool more = !path.empty();
    const std::string_view rest = more ? path.substr(1) : path;
    const std::string_view name = rest.substr(0, rest.find('/'));
    for (std::size_t i = 0; i < now.size(); ++i) {
      const NodeNumber number = now[i];
      const TrieNode& node = set.nodes[number];
      if (node.last <= best) continue;
      take(node.below);
      if (node.any_depth != 0 && !reached[node.any_depth_index]) {
        reached[node.any_depth_index] = true;
        staying.push_back(node.any_depth);
        now.push_back(node.any_depth);
      }
      if (!more) {
        take(node.exact);
        continue;
      }
      take(node.beneath);
      if (node.tails) {
        node.tails->for_matches(rest, [&](RuleNumber rule) { return rule > best; }, take);
      }
      const Edge* const child = set.edges.find(number, EdgeKind::literal, name);
      if (child != nullptr) next.push_back(child->value);
      if (node.globs) {
        node.globs->for_matches(
            name, [&](NodeNumber glob_child) { return set.nodes[glob_child].last > best; },
            [&](NodeNumber glob_child) { next.push_back(glob_child); });
      }
    }
    if (!more) break;
    path.remove_prefix(1 + name.size());
    next.insert(next.end(), staying.begin(), staying.end());
    now.swap(next);
    next.clear();
    if (now.empty()) break;
  }
  return best == 0 ? nullptr : &set.rules[best - 1];
}

std::size_t RuleSet::size() const {
  return impl_->rules.size();
}

}  // namespace fpolicy
