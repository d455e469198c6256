// SPDX-License-Identifier: LGPL-2.1-or-later
// Result<T>: a value, or an error that carries errno, the operation and its object.
#pragma once

#include <fpolicy/export.h>

#include <tl/expected.hpp>

#include <cerrno>
#include <string>
#include <string_view>

namespace fpolicy {

struct Error {
  /// errno of the call that failed; EINVAL for text that does not parse.
  int code = 0;
  /// Whole and ready to print behind "tool: ": "setxattr /srv/x: Read-only file system".
  std::string message;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

/// An error with a message of its own.
FPOLICY_API tl::unexpected<Error> fail(int code, std::string message);

/// "OPERATION OBJECT: strerror(code)". `code` is read from errno before anything else can change it.
FPOLICY_API tl::unexpected<Error> fail_errno(std::string_view operation, std::string_view object,
                                             int code = errno);

/// The same error with "CONTEXT: " before its message.
FPOLICY_API tl::unexpected<Error> with_context(std::string_view context, const Error& error);

/// strerror without its shared buffer.
FPOLICY_API std::string errno_text(int code);

}  // namespace fpolicy
