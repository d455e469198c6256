// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/escape.h"
#include "policy/glob.h"
#include "policy/grammar.h"
#include "policy/lines.h"

#include <fpolicy/rules.h>

namespace fpolicy {
namespace {

constexpr std::string_view user_word = "#user ";
constexpr std::string_view unsupported_word = "#unsupported ";

}  // namespace

std::string format_dump_entry(const DumpEntry& entry) {
  std::string line;
  if (entry.user_space) {
    line = user_word;
  } else if (!parse_policy_text(entry.policy)) {
    line = unsupported_word;
  }
  line += escape_path(entry.path);
  if (entry.directory && !line.ends_with('/')) line += '/';
  return line.append("\t").append(escape_text(entry.policy)).append("\n");
}

Status parse_dump(std::string_view text, const std::string& name,
                  const std::function<void(DumpEntry, unsigned line)>& each) {
  return for_each_line(
      text, name, [&](std::string_view line, unsigned number) -> tl::expected<void, SyntaxError> {
        const auto error = [](std::size_t at, std::string message) {
          return tl::unexpected<SyntaxError>(SyntaxError{at + 1, std::move(message)});
        };
        DumpEntry entry;
        std::size_t at = 0;
        for (const std::string_view word : {user_word, unsupported_word}) {
          // A comment of people may start with the same word; an entry goes on with a path.
          if (line.starts_with(word) && line.substr(word.size()).starts_with('/')) {
            entry.user_space = word == user_word;
            at = word.size();
          }
        }
        if (at == 0 && line.front() == '#') return {};
        const auto fields = split_fields(line.substr(at), "a policy");
        if (!fields) return error(fields.error().column - 1 + at, fields.error().message);
        const auto pattern = parse_pattern(fields->first);
        if (!pattern) return error(pattern.error().column - 1 + at, pattern.error().message);
        for (const PatternComponent& component : pattern->components) {
          if (component.kind != PatternComponent::Kind::literal) {
            return error(static_cast<std::size_t>(component.text.data() - line.data()),
                         "expected a path: pattern characters in a name are written with a backslash");
          }
          entry.path.append("/").append(component.literal);
        }
        if (pattern->components.empty()) entry.path = "/";
        entry.directory = pattern->below;
        for (std::size_t i = 0; i < fields->second.size();) {
          if (fields->second[i] != '\\') {
            entry.policy += fields->second[i++];
            continue;
          }
          const std::size_t start = i;
          const auto byte = take_escape(fields->second, i);
          if (!byte) return error(at + fields->second_at + start, byte.error());
          entry.policy += *byte;
        }
        // A line that serves as a rule is one whole; text that is not understood stands in comments.
        if (line.front() != '#') {
          if (const auto policy = parse_policy_text(entry.policy); !policy) {
            return error(fields->second_at + policy.error().column - 1, policy.error().message);
          }
        }
        each(std::move(entry), number);
        return {};
      });
}

}  // namespace fpolicy
