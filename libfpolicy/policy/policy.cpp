// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/grammar.h"
#include "policy/text.h"

#include <fpolicy/policy.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

namespace fpolicy {
namespace {

constexpr unsigned max_weight = 255;
constexpr std::string_view xattr_version = "1 ";

constexpr std::array<std::pair<std::string_view, Mode>, 3> modes{
    {{"bind", Mode::bind}, {"prefer", Mode::prefer}, {"interleave", Mode::interleave}}};
constexpr std::array<std::pair<std::string_view, NodeWord>, 3> node_words{
    {{"all", NodeWord::all}, {"cpu", NodeWord::cpu}, {"cpuless", NodeWord::cpuless}}};
constexpr std::array<std::pair<std::string_view, Migrate>, 3> migrate_words{
    {{"yes", Migrate::yes}, {"private", Migrate::only_private}, {"no", Migrate::no}}};

template <class T, std::size_t N>
std::optional<T> lookup(const std::array<std::pair<std::string_view, T>, N>& table, std::string_view word) {
  for (const auto& [name, value] : table) {
    if (name == word) return value;
  }
  return std::nullopt;
}

template <class T, std::size_t N>
std::string_view name_of(const std::array<std::pair<std::string_view, T>, N>& table, T wanted) {
  for (const auto& [name, value] : table) {
    if (value == wanted) return name;
  }
  return {};
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool has_upper_case(std::string_view word) {
  return std::any_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

std::string format_nodes(const Policy& policy) {
  if (policy.word != NodeWord::list) return std::string(name_of(node_words, policy.word));
  std::string text;
  for (auto first = policy.nodes.begin(); first != policy.nodes.end();) {
    auto last = first;
    while (last + 1 != policy.nodes.end() && last[1].node == last->node + 1 &&
           last[1].weight == first->weight) {
      ++last;
    }
    text += text.empty() ? (policy.relative ? "+" : "") : ",";
    text += std::to_string(first->node);
    if (last != first) text.append("-").append(std::to_string(last->node));
    if (first->weight != 1) text.append("@").append(std::to_string(first->weight));
    first = last + 1;
  }
  return text;
}

std::string format_placement(const Policy& policy) {
  return std::string(name_of(modes, policy.mode)).append(":").append(format_nodes(policy));
}

std::string contradiction(const Policy& policy) {
  std::string relative = "such as " + std::string(name_of(modes, policy.mode)) + ":+0";
  if (policy.word == NodeWord::list) {
    Policy twin = policy;
    twin.relative = true;
    relative = format_placement(twin);
  }
  return fmt::format(
      "migrate=yes contradicts {}, which keeps the file's pages on these nodes when the job moves: write "
      "nodes that follow the job ({}), or migrate=private",
      format_placement(policy), relative);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  tl::expected<Policy, SyntaxError> run() {
    if (text_.empty()) {
      expected(0, "expected a policy, such as bind:1 or migrate=private; the text is empty");
    } else if (text_.size() > max_policy_text) {
      expected(max_policy_text,
               fmt::format("expected the end: a policy has at most {} bytes, this one {} (write neighbouring "
                           "nodes as a range)",
                           max_policy_text, text_.size()));
    } else {
      items();
    }
    if (error_) return tl::unexpected<SyntaxError>(std::move(*error_));
    return std::move(policy_);
  }

 private:
  // Each of these returns false when it has set error_.

  bool items() {
    for (;;) {
      if (!item()) return false;
      if (at_ == text_.size()) break;
      if (text_[at_] != ',') {
        return expected(at_, "expected \",\" or the end of the policy" + found_at(text_, at_));
      }
      ++at_;
    }
    const Migrate by_default = default_migrate(policy_);
    policy_.migrate = migrate_.value_or(by_default);
    if (policy_.migrate == Migrate::yes && policy_.has_absolute_placement()) {
      return expected(migrate_at_, contradiction(policy_));
    }
    return true;
  }

  bool item() {
    const std::size_t start = at_;
    const std::string_view word = take_word();
    if (word == "pin") {
      if (policy_.pin) return expected(start, "expected pin only once");
      policy_.pin = true;
      return true;
    }
    if (word == "migrate") return migrate(start);
    const std::optional<Mode> mode = lookup(modes, word);
    if (!mode && word != "default") return expected_item(start, word);
    if (placement_seen_) {
      return expected(start, "expected one placement only; the policy has another before this one");
    }
    placement_seen_ = true;
    if (!mode) return true;
    policy_.mode = *mode;
    if (at_ == text_.size() || text_[at_] != ':') {
      return expected(at_, fmt::format("expected \":\" and nodes after {}", word) + found_at(text_, at_));
    }
    ++at_;
    return nodes();
  }

  bool expected_item(std::size_t start, std::string_view word) {
    if (start == text_.size()) return expected(start, "expected another item after the comma");
    std::string message = "expected a placement (bind:, prefer:, interleave:, default), migrate= or pin";
    message += word.empty() ? found_at(text_, start) : ", found " + quoted(word);
    if (has_upper_case(word)) {
      message += " (policies are written in lower case)";
    } else if (lookup(node_words, word) || (word.empty() && is_digit(text_[start]))) {
      message += " (nodes stand behind a mode and a colon, as in bind:0-1)";
    }
    return expected(start, std::move(message));
  }

  bool migrate(std::size_t start) {
    if (migrate_) return expected(start, "expected migrate= only once");
    if (at_ == text_.size() || text_[at_] != '=') {
      return expected(at_, "expected \"=\" and yes, private or no after migrate" + found_at(text_, at_));
    }
    const std::size_t value_at = ++at_;
    const std::string_view word = take_word();
    migrate_ = lookup(migrate_words, word);
    migrate_at_ = start;
    if (!migrate_) {
      return expected(value_at, "expected yes, private or no after migrate=" +
                                    (word.empty() ? found_at(text_, value_at) : ", found " + quoted(word)));
    }
    return true;
  }

  bool nodes() {
    if (at_ < text_.size() && is_letter(text_[at_])) {
      const std::size_t start = at_;
      const std::string_view word = take_word();
      const std::optional<NodeWord> known = lookup(node_words, word);
      if (!known) {
        return expected(start,
                        "expected nodes: numbers such as 0-3, or all, cpu, cpuless; found " + quoted(word));
      }
      policy_.word = *known;
      if (at_ + 1 < text_.size() && text_[at_] == ',' && is_digit(text_[at_ + 1])) {
        return expected(at_ + 1, fmt::format("expected no node number beside the word {}", word));
      }
      return true;
    }
    if (at_ < text_.size() && text_[at_] == '+') {
      policy_.relative = true;
      ++at_;
    }
    // Weight by node, 0 for nodes that are not in the set: sorts, and finds what is named twice.
    std::array<std::uint8_t, NodeSet::max_nodes> weights{};
    for (;;) {
      if (!range(weights)) return false;
      // A digit after a comma continues the set; every item starts with a letter.
      if (at_ + 1 >= text_.size() || text_[at_] != ',') break;
      if (text_[at_ + 1] == '+') {
        return expected(at_ + 1,
                        "expected a node number or an item; \"+\" stands once, before the first node");
      }
      if (!is_digit(text_[at_ + 1])) break;
      ++at_;
    }
    for (unsigned node = 0; node < NodeSet::max_nodes; ++node) {
      if (weights[node] != 0) policy_.nodes.push_back({node, weights[node]});
    }
    return true;
  }

  bool range(std::array<std::uint8_t, NodeSet::max_nodes>& weights) {
    const std::size_t start = at_;
    unsigned first = 0;
    if (!node(first)) return false;
    unsigned last = first;
    if (at_ < text_.size() && text_[at_] == '-') {
      ++at_;
      if (!node(last)) return false;
      if (last < first) {
        return expected(start, fmt::format("expected a range that ascends: {}-{}", last, first));
      }
    }
    unsigned weight = 1;
    if (at_ < text_.size() && text_[at_] == '@' && !take_weight(weight)) return false;
    for (unsigned node = first; node <= last; ++node) {
      // For bind and prefer the second mention says nothing new. With interleave it could mean twice the
      // share, or the same share said twice, so it is not guessed.
      if (weights[node] != 0 && policy_.mode == Mode::interleave) {
        return expected(start, fmt::format("expected each node once, found node {} again (a greater share is "
                                           "written as a weight: {}@2)",
                                           node, node));
      }
      weights[node] = static_cast<std::uint8_t>(weight);
    }
    return true;
  }

  bool node(unsigned& out) {
    const std::size_t start = at_;
    const std::optional<unsigned> number = take_number(text_, at_);
    if (!number) {
      return expected(start, (start > 0 && (text_[start - 1] == '-' || text_[start - 1] == '+')
                                  ? std::string("expected a node number")
                                  : "expected nodes: numbers such as 0-3, or all, cpu, cpuless") +
                                 found_at(text_, start));
    }
    if (*number >= NodeSet::max_nodes) {
      return expected(start, fmt::format("expected a node from 0 to {}, found {}", NodeSet::max_nodes - 1,
                                         text_.substr(start, at_ - start)));
    }
    out = *number;
    return true;
  }

  bool take_weight(unsigned& weight) {
    if (policy_.mode != Mode::interleave) {
      return expected(at_, fmt::format("expected no weight: weights belong to interleave, not to {}",
                                       name_of(modes, policy_.mode)));
    }
    const std::size_t start = ++at_;
    const std::optional<unsigned> number = take_number(text_, at_);
    if (!number || *number == 0 || *number > max_weight) {
      return expected(start, fmt::format("expected a weight from 1 to {}", max_weight) +
                                 (number ? ", found " + std::string(text_.substr(start, at_ - start))
                                         : found_at(text_, start)));
    }
    weight = *number;
    return true;
  }

  std::string_view take_word() {
    const std::size_t start = at_;
    while (at_ < text_.size() && is_letter(text_[at_])) ++at_;
    return text_.substr(start, at_ - start);
  }

  bool expected(std::size_t at, std::string message) {
    error_ = SyntaxError{at + 1, std::move(message)};
    return false;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  Policy policy_;
  bool placement_seen_ = false;
  std::optional<Migrate> migrate_;
  std::size_t migrate_at_ = 0;
  std::optional<SyntaxError> error_;
};

}  // namespace

tl::expected<Policy, SyntaxError> parse_policy_text(std::string_view text) {
  return Parser(text).run();
}

Result<Policy> parse_policy(std::string_view text) {
  auto policy = parse_policy_text(text);
  if (!policy)
    return fail(EINVAL, fmt::format("column {}: {}", policy.error().column, policy.error().message));
  return std::move(*policy);
}

std::string format_policy(const Policy& policy) {
  std::string text;
  if (policy.has_placement()) text = format_placement(policy);
  const auto add = [&](std::string_view item) {
    if (!text.empty()) text += ',';
    text += item;
  };
  if (policy.migrate != default_migrate(policy)) {
    add(std::string("migrate=").append(to_string(policy.migrate)));
  }
  if (policy.pin) add("pin");
  return text.empty() ? "default" : text;
}

Status validate_policy(const Policy& policy) {
  const std::string text = format_policy(policy);
  const Result<Policy> again = parse_policy(text);
  if (!again) return with_context("policy " + quoted(text), again.error());
  if (*again != policy) return fail(EINVAL, "policy " + quoted(text) + ": not in its canonical form");
  return {};
}

Migrate default_migrate(const Policy& policy) {
  return policy.has_absolute_placement() ? Migrate::only_private : Migrate::yes;
}

std::string_view to_string(Mode mode) {
  return mode == Mode::none ? "default" : name_of(modes, mode);
}

std::string_view to_string(Migrate migrate) {
  return name_of(migrate_words, migrate);
}

std::string format_xattr_value(const Policy& policy) {
  return std::string(xattr_version).append(format_policy(policy));
}

Result<Policy> parse_xattr_value(std::string_view bytes) {
  if (bytes.substr(0, xattr_version.size()) != xattr_version) {
    return fail(ENOTSUP, "expected version \"1\" and a space, found " + quoted(bytes));
  }
  Result<Policy> policy = parse_policy(bytes.substr(xattr_version.size()));
  if (!policy) return fail(ENOTSUP, std::move(policy.error().message));
  return policy;
}

}  // namespace fpolicy
