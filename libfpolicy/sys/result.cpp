// SPDX-License-Identifier: LGPL-2.1-or-later
#include <fpolicy/result.h>

#include <cstring>

namespace fpolicy {

std::string errno_text(int code) {
  // strerrordesc_np (glibc 2.32) is thread-safe and returns NULL for an unknown number.
  const char* text = strerrordesc_np(code);
  return text != nullptr ? text : "error " + std::to_string(code);
}

tl::unexpected<Error> fail(int code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

tl::unexpected<Error> fail_errno(std::string_view operation, std::string_view object, int code) {
  std::string message(operation);
  if (!object.empty()) message.append(" ").append(object);
  message.append(": ").append(errno_text(code));
  return fail(code, std::move(message));
}

tl::unexpected<Error> with_context(std::string_view context, const Error& error) {
  return fail(error.code, std::string(context).append(": ").append(error.message));
}

}  // namespace fpolicy
