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
#include <map>
#include <unordered_map>
#include <utility>

namespace fpolicy {
namespace {

constexpr std::size_t max_rules = 1'000'000;
constexpr std::string_view alias_word = "alias ";

/// A rule by its place in the set, from 1; 0 is none. A greater number wins.
using RuleNumber = std::uint32_t;
using NodeNumber = std::uint32_t;

/// The length of a name, as one of 64 bits.
std::uint64_t length_bit(std::string_view name) {
  return std::uint64_t{1} << (name.size() % 64);
}

/// The tree of components. Every pattern ends at one node. One line of the processor's cache, so that of
/// many rules each step costs one access to memory, and another where the name is longer than 15 bytes.
struct alignas(64) TrieNode {
  std::string name;                ///< the literal component that leads here
  std::uint64_t name_lengths = 0;  ///< of its children's: most of other names need no look-up
  NodeNumber parent = 0;           ///< where `name` leads from
  RuleNumber last = 0;  ///< of all rules at this node and under it: nothing to look for if it has been beaten
  RuleNumber exact = 0;        ///< the path that ends here
  RuleNumber below = 0;        ///< this path and all below: "/"
  RuleNumber beneath = 0;      ///< all below, but not this path: "/**"
  std::uint32_t patterns = 0;  ///< the place of its Patterns, from 1; 0 is none
};

/// What leads on from a node other than by a literal.
struct Patterns {
  GlobIndex globs;                    ///< child nodes
  GlobIndex tails;                    ///< rules whose next component reaches across slashes
  NodeNumber any_depth = 0;           ///< the child for a "**" component, 0 is none
  std::uint32_t any_depth_index = 0;  ///< of that child among its kind
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
  HashIndex children;  ///< nodes by parent and name
  std::vector<Patterns> patterns;
  std::uint32_t any_depth_nodes = 0;
  /// What is in an index already, by node and text: the child node, or the position of a tail.
  std::map<std::pair<NodeNumber, std::string>, std::uint32_t> indexed;
  std::deque<RuleLine> rules;
  std::unordered_map<std::string, std::string, TextHash, std::equal_to<>> aliases;

  tl::expected<void, SyntaxError> add_line(std::string_view line, const std::string& file, unsigned number);
  tl::expected<void, SyntaxError> add_alias(std::string_view line);
  tl::expected<void, SyntaxError> insert(const Pattern& pattern, RuleNumber rule);
  NodeNumber new_node();
  [[nodiscard]] std::optional<NodeNumber> find_child(NodeNumber parent, std::string_view name) const {
    if ((nodes[parent].name_lengths & length_bit(name)) == 0) return std::nullopt;
    return children.find(HashIndex::hash(name, parent), [&](NodeNumber number) {
      return nodes[number].parent == parent && nodes[number].name == name;
    });
  }
  NodeNumber take_child(NodeNumber parent, const std::string& name);
  Patterns& take_patterns(NodeNumber node);
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

/// That child, made where it is not there.
NodeNumber RuleSet::Impl::take_child(NodeNumber parent, const std::string& name) {
  if (const auto found = find_child(parent, name)) return *found;
  const NodeNumber child = new_node();
  nodes[child].parent = parent;
  nodes[child].name = name;
  nodes[parent].name_lengths |= length_bit(name);
  children.insert(HashIndex::hash(name, parent), child);
  return child;
}

/// Those of the node, made where there are none yet.
Patterns& RuleSet::Impl::take_patterns(NodeNumber node) {
  if (nodes[node].patterns == 0) {
    patterns.emplace_back();
    nodes[node].patterns = static_cast<std::uint32_t>(patterns.size());
  }
  return patterns[nodes[node].patterns - 1];
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
      case PatternComponent::Kind::literal:
        child = take_child(at, component.literal);
        break;
      case PatternComponent::Kind::glob: {
        const auto [known, is_new] = indexed.try_emplace({at, std::string(component.text)}, 0);
        if (is_new) {
          Glob glob = Glob::component(pattern, i);
          if (!glob.fits()) return too_long(component);
          known->second = new_node();
          take_patterns(at).globs.add(std::move(glob), known->second);
        }
        child = known->second;
        break;
      }
      case PatternComponent::Kind::globstar: {
        if (is_last) {
          nodes[at].beneath = rule;
          return {};
        }
        Patterns& own = take_patterns(at);
        if (own.any_depth == 0) {
          own.any_depth = new_node();
          own.any_depth_index = any_depth_nodes++;
        }
        child = own.any_depth;
        break;
      }
      case PatternComponent::Kind::crossing: {
        const std::string_view text = pattern.text.substr(offset_of(component));
        const auto [known, is_new] = indexed.try_emplace({at, std::string(text)}, 0);
        GlobIndex& index = take_patterns(at).tails;
        if (is_new) {
          Glob glob = Glob::tail(pattern, i);
          if (!glob.fits()) return too_long(component);
          known->second = index.add(std::move(glob), rule);
        } else {
          index.set_value(known->second, rule);
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
      if (more) take(node.beneath);
      // Most often this node's own rule is the last of it.
      if (node.last <= best) continue;
      const Patterns* const patterns = node.patterns != 0 ? &set.patterns[node.patterns - 1] : nullptr;
      if (patterns != nullptr && patterns->any_depth != 0 && !reached[patterns->any_depth_index]) {
        reached[patterns->any_depth_index] = true;
        staying.push_back(patterns->any_depth);
        now.push_back(patterns->any_depth);
      }
      if (!more) {
        take(node.exact);
        continue;
      }
      if (const auto child = set.find_child(number, name)) next.push_back(*child);
      if (patterns == nullptr) continue;
      patterns->tails.for_matches(rest, [&](RuleNumber rule) { return rule > best; }, take);
      patterns->globs.for_matches(
          name, [&](NodeNumber child) { return set.nodes[child].last > best; },
          [&](NodeNumber child) { next.push_back(child); });
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
