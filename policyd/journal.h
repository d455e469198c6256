// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string_view>

namespace fpolicy::policyd {

enum class Level { error = 3, warning = 4, notice = 5, info = 6 };  // syslog(3)

/// One line on stderr: for people "policyd: TEXT"; where stderr is the journal, with the level that it reads
/// (sd-daemon(3)). Control characters are escaped, so that a file's name cannot forge a line.
void log_line(Level level, std::string_view text);

}  // namespace fpolicy::policyd
