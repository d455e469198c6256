// SPDX-License-Identifier: LGPL-2.1-or-later
#include "journal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace fpolicy::policyd {

void log_line(Level level, std::string_view text) {
  static const bool is_journal = ::secure_getenv("JOURNAL_STREAM") != nullptr;
  std::string line = is_journal ? fmt::format("<{}>", static_cast<int>(level)) : "policyd: ";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\{:03o}", byte);
    } else {
      line += c;
    }
  }
  line += '\n';
  // One write: lines of threads do not mix. A log that cannot be written must not stop the work.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

}  // namespace fpolicy::policyd
