// SPDX-License-Identifier: LGPL-2.1-or-later
#include "policy/lines.h"

#include "policy/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace fpolicy {
namespace {

constexpr std::size_t max_line = 64U << 10U;  // four bytes for each of PATH_MAX, and room

tl::unexpected<SyntaxError> error_at(std::size_t at, std::string message) {
  return tl::unexpected<SyntaxError>(SyntaxError{at + 1, std::move(message)});
}

tl::expected<void, SyntaxError> check_line(std::string_view line) {
  if (line.size() > max_line) return error_at(max_line, fmt::format("expected at most {} bytes", max_line));
  if (const std::size_t at = line.find('\0'); at != std::string_view::npos) {
    return error_at(at, "expected text, found a NUL byte");
  }
  if (const std::size_t at = line.find('\r'); at != std::string_view::npos) {
    return error_at(at, "expected no carriage return: lines end in LF, and in a name it is written \\015");
  }
  return {};
}

}  // namespace

Status for_each_line(
    std::string_view text, const std::string& file,
    const std::function<tl::expected<void, SyntaxError>(std::string_view line, unsigned number)>& each) {
  for (unsigned number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    auto done = check_line(line);
    if (done && line.find_first_not_of(" \t") != std::string_view::npos) done = each(line, number);
    if (!done) {
      return fail(EINVAL,
                  fmt::format("{}:{}:{}: {}", file, number, done.error().column, done.error().message));
    }
  }
  return {};
}

tl::expected<Fields, SyntaxError> split_fields(std::string_view line, std::string_view what) {
  const std::size_t tab = line.find('\t');
  if (tab == std::string_view::npos) {
    const std::size_t space = line.find(' ');
    return error_at(space == std::string_view::npos ? line.size() : space,
                    fmt::format("expected a tab and {} behind the pattern", what) +
                        (space == std::string_view::npos ? "" : ", found a space only"));
  }
  const std::size_t second = std::min(line.find_first_not_of('\t', tab), line.size());
  return Fields{line.substr(0, tab), line.substr(second), second};
}

}  // namespace fpolicy
