// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sys/file_handle.h"

#include "sys/file_status.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdint>
#include <cstring>

namespace fpolicy::sys {
namespace {

constexpr std::size_t type_size = 4;

/// A struct file_handle with room for the largest handle (man 2 name_to_handle_at: MAX_HANDLE_SZ).
struct HandleBuffer {
  alignas(struct file_handle) std::array<char, sizeof(struct file_handle) + MAX_HANDLE_SZ> bytes{};
  struct file_handle* handle() { return reinterpret_cast<struct file_handle*>(bytes.data()); }
};

}  // namespace

Result<std::optional<std::string>> file_handle(const FileRef& file, int* mount_id) {
  HandleBuffer buffer;
  struct file_handle* handle = buffer.handle();
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  const int result = file.fd >= 0 ? ::name_to_handle_at(file.fd, "", handle, &mount, AT_EMPTY_PATH)
                                  : ::name_to_handle_at(AT_FDCWD, file.name, handle, &mount, 0);
  if (result != 0) {
    if (errno == EOPNOTSUPP || errno == EOVERFLOW) return std::nullopt;
    return fail_errno("name_to_handle_at", object_of(file));
  }
  if (mount_id != nullptr) *mount_id = mount;
  std::string text(type_size, '\0');
  const auto type = static_cast<std::uint32_t>(handle->handle_type);
  for (std::size_t i = 0; i < type_size; ++i) text[i] = static_cast<char>(type >> (8 * i));
  // f_handle is a flexible array member right behind the fixed ones.
  text.append(buffer.bytes.data() + sizeof(struct file_handle), handle->handle_bytes);
  return text;
}

Result<Fd> open_file_handle(int mount, std::string_view handle, std::string_view object) {
  if (handle.size() < type_size || handle.size() - type_size > MAX_HANDLE_SZ)
    return fail_errno("open_by_handle_at", object, EINVAL);
  HandleBuffer buffer;
  std::uint32_t type = 0;
  for (std::size_t i = 0; i < type_size; ++i)
    type |= static_cast<std::uint32_t>(static_cast<unsigned char>(handle[i])) << (8 * i);
  handle.remove_prefix(type_size);
  buffer.handle()->handle_type = static_cast<int>(type);
  buffer.handle()->handle_bytes = static_cast<unsigned>(handle.size());
  std::memcpy(buffer.bytes.data() + sizeof(struct file_handle), handle.data(), handle.size());
  Fd fd(::open_by_handle_at(mount, buffer.handle(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno("open_by_handle_at", object);
  return fd;
}

Result<std::string> path_of(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::array<char, PATH_MAX> buffer{};
  const ssize_t length = ::readlink(link.c_str(), buffer.data(), buffer.size());
  if (length < 0) return fail_errno("readlink", link);
  if (static_cast<std::size_t>(length) == buffer.size()) return fail_errno("readlink", link, ENAMETOOLONG);
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

Result<Fd> open_path(const char* name, std::string_view object) {
  Fd fd(::open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open", object);
  return fd;
}

Result<Fd> reopen_for_reading(int path_fd, std::string_view object) {
  FileRef file;
  file.fd = path_fd;
  file.path = object;
  const auto status = file_status(file);
  if (!status) return tl::unexpected(status.error());
  // Opening a device or FIFO can do things: never.
  if (!S_ISREG(status->stx_mode) && !S_ISDIR(status->stx_mode)) return fail_errno("open", object, EINVAL);
  const std::string link = "/proc/self/fd/" + std::to_string(path_fd);
  Fd fd(::open(link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno("open", object);
  return fd;
}

}  // namespace fpolicy::sys
