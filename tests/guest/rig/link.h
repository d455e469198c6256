// The link between guest and host: frames over one virtio-serial port, in both directions. One ordered
// stream, rather than a port each for stdout, stderr and status, because the guest must know that the
// host has taken everything before it powers off: what still sits in a port's queue then is lost.
//
// A frame is its type (1 byte), the payload's length (4 bytes, little endian) and the payload.
#ifndef FPOLICY_TESTS_GUEST_LINK_H
#define FPOLICY_TESTS_GUEST_LINK_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define LINK_PORT "org.fpolicy.guest"

enum {
  LINK_HEADER = 5,
  LINK_MAX_PAYLOAD = 64 * 1024,
};

enum link_type {
  LINK_STDOUT = 'o',
  LINK_STDERR = 'e',
  LINK_STARTED = 's',  // the guest is ready; the command's output follows
  LINK_STATUS = 'x',   // 1 byte: the command's exit status; the guest then waits for LINK_ACK
  LINK_FAILURE = 'f',  // text: why the guest could not run the command; as LINK_STATUS, the last frame
  LINK_STDIN = 'i',    // to the guest; an empty one is end of file
  LINK_ACK = 'a',      // to the guest: everything was written, power off
};

static inline int write_all(int fd, const void* data, size_t size) {
  const char* at = data;
  while (size > 0) {
    ssize_t done = write(fd, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return -1;
    at += done;
    size -= (size_t)done;
  }
  return 0;
}

// `frame` has room for LINK_HEADER bytes before the payload, so that a frame is one write.
static inline int link_send(int fd, enum link_type type, char* frame, size_t size) {
  frame[0] = (char)type;
  for (int i = 0; i < 4; i++) frame[1 + i] = (char)(size >> (8 * i));
  return write_all(fd, frame, LINK_HEADER + size);
}

static inline size_t link_size(const char* frame) {
  size_t size = 0;
  for (int i = 0; i < 4; i++) size |= (size_t)(unsigned char)frame[1 + i] << (8 * i);
  return size;
}

#endif
