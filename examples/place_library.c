/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a batch system may do before it starts jobs: says where a library belongs, asks which policy holds for
 * it, and looks where its pages are. C11, or C++.
 *
 *     cc place_library.c -o place_library $(pkg-config --cflags --libs fpolicy)
 *     ./place_library bind:0 /usr/lib/libsolver.so
 *
 * As root the tag is the system's; as anybody else it is that of the file's owner. */
#define _POSIX_C_SOURCE 200809L /* getopt */

#include <fpolicy/fpolicy.h>

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static const char usage[] = "Usage: place_library [-d DATABASE] [-r RULES] [-s SOCKET] POLICY FILE\n";

/* Says what went wrong, as the library told it. */
static int failed(const char* message) {
  fprintf(stderr, "place_library: %s\n", message);
  return 1;
}

static void print_audit(const struct fpolicy_audit_result* audit) {
  size_t node;
  printf("%s: %s", audit->path, audit->state);
  if (audit->reason[0] != '\0') printf(" (%s)", audit->reason);
  printf("\n");
  if (!audit->pages_told) return;
  printf("  %" PRIu64 " of %" PRIu64 " pages resident, %" PRIu64 " misplaced\n", audit->resident_pages,
         audit->file_pages, audit->misplaced_pages);
  for (node = 0; node < audit->node_count; ++node) {
    if (audit->pages_by_node[node] != 0) {
      printf("  node %zu: %" PRIu64 " pages\n", node, audit->pages_by_node[node]);
    }
  }
}

static int place(struct fpolicy_handle* handle, const char* policy, const char* file) {
  char message[512];
  struct fpolicy_effective* effective = NULL;
  struct fpolicy_audit_result* audit = NULL;
  const unsigned space = geteuid() == 0 ? FPOLICY_SYSTEM : FPOLICY_USER;

  const int changed = fpolicy_set(handle, -1, file, space, policy, 0, message, sizeof message);
  if (changed < 0) return failed(message);
  if (message[0] != '\0') fprintf(stderr, "place_library: note: %s\n", message);

  /* A tag of the system's goes before an owner's: what holds need not be what was set. */
  if (fpolicy_resolve(handle, -1, file, NULL, 0, &effective, message, sizeof message) < 0) {
    return failed(message);
  }
  printf("%s: %s, from %s, %s\n", effective->path,
         effective->policy != NULL ? effective->policy : "no policy", effective->source,
         changed ? "set now" : "set before");
  fpolicy_effective_free(effective);

  if (fpolicy_audit(handle, -1, file, NULL, 0, &audit, message, sizeof message) < 0) return failed(message);
  print_audit(audit);
  fpolicy_audit_free(audit);
  return 0;
}

int main(int argc, char** argv) {
  char message[512];
  struct fpolicy_open_options options;
  struct fpolicy_handle* handle = NULL;
  int option;
  int status;

  fpolicy_open_options_init(&options, sizeof options);
  options.flags = FPOLICY_OPEN_WRITE;
  while ((option = getopt(argc, argv, "d:r:s:")) != -1) {
    if (option == 'd') {
      options.database = optarg;
    } else if (option == 'r') {
      options.rules = optarg;
    } else if (option == 's') {
      options.socket = optarg;
    } else {
      fputs(usage, stderr);
      return 2;
    }
  }
  if (argc - optind != 2) {
    fputs(usage, stderr);
    return 2;
  }
  if (fpolicy_open(&options, &handle, message, sizeof message) < 0) return failed(message);
  status = place(handle, argv[optind], argv[optind + 1]);
  fpolicy_close(handle);
  return status;
}
