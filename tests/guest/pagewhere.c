// Tells on which NUMA nodes pages lie. Tests compare fpolicy with it, so it shares no code with fpolicy
// and goes another way: not move_pages(2), but the page frame numbers in /proc/PID/pagemap and the
// memory blocks under /sys/devices/system/node. --self-check compares the two ways.
//
// Needs root: to others the kernel shows no page frame numbers, and mincore(2) calls every page of
// files that they cannot write resident.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { MAX_NODES = 1024 };

// Documentation/admin-guide/mm/pagemap.rst
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_FRAME ((1ULL << 55) - 1)
#define KPF_ANON (1ULL << 12)  // not the zero page, which pagemap shows like one
#define KPF_HUGE (1ULL << 17)
#define KPF_THP (1ULL << 22)  // on new kernels large folios of the page cache, too
#define KPF_ZERO_PAGE (1ULL << 24)

static size_t page_size;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char* format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "pagewhere: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  exit(2);
}

static void* allocate(size_t count, size_t size) {
  void* memory = calloc(count, size);
  if (memory == NULL) die("out of memory");
  return memory;
}

// ---- frame number to node

static uint64_t block_frames;  // page frames of one memory block
static int16_t* block_node;    // -1: no such block
static size_t block_count;

static void load_topology(void) {
  FILE* file = fopen("/sys/devices/system/memory/block_size_bytes", "r");
  uint64_t bytes;
  if (file == NULL || fscanf(file, "%" SCNx64, &bytes) != 1) {
    die("/sys/devices/system/memory/block_size_bytes: cannot be read");
  }
  fclose(file);
  block_frames = bytes / page_size;
  glob_t found;
  if (glob("/sys/devices/system/node/node*/memory[0-9]*", 0, NULL, &found) != 0) {
    die("/sys/devices/system/node: tells no memory blocks");
  }
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < found.gl_pathc; i++) {
      int node;
      size_t block;
      if (sscanf(found.gl_pathv[i], "/sys/devices/system/node/node%d/memory%zu", &node, &block) != 2)
        continue;
      if (pass == 0) {
        if (block >= block_count) block_count = block + 1;
      } else if (block_node[block] >= 0 && block_node[block] != node) {
        die("memory block %zu belongs to nodes %d and %d: cannot tell them apart", block, block_node[block],
            node);
      } else {
        block_node[block] = (int16_t)node;
      }
    }
    if (pass == 0) {
      block_node = allocate(block_count, sizeof *block_node);
      for (size_t i = 0; i < block_count; i++) block_node[i] = -1;
    }
  }
  globfree(&found);
}

static int node_of_frame(uint64_t frame) {
  uint64_t block = frame / block_frames;
  if (frame == 0) die("the kernel hides page frame numbers: run as root");
  if (block >= block_count || block_node[block] < 0) die("page frame %" PRIu64 " lies on no node", frame);
  return block_node[block];
}

// ---- counting

struct count {
  size_t pages[MAX_NODES];
};

static void count_page(struct count* count, int node) {
  if (node < 0 || node >= MAX_NODES) die("node %d: too large", node);
  count->pages[node]++;
}

// Returns whether there was any.
static bool print_separated(const struct count* count, const char* separator) {
  const char* before = "";
  for (int node = 0; node < MAX_NODES; node++) {
    if (count->pages[node] == 0) continue;
    printf("%s%d:%zu", before, node, count->pages[node]);
    before = separator;
  }
  return *before != '\0';
}

static void print_count(const struct count* count) {
  print_separated(count, " ");
}

static int open_pagemap(const char* pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/pagemap", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("%s: %s", path, strerror(errno));
  return fd;
}

static size_t read_pagemap(int fd, uintptr_t address, uint64_t* entries, size_t count) {
  ssize_t n = pread(fd, entries, count * sizeof *entries, (off_t)(address / page_size * sizeof *entries));
  if (n < 0) die("pagemap: %s", strerror(errno));
  return (size_t)n / sizeof *entries;
}

// ---- files

static sigjmp_buf no_page;

static void on_sigbus(int number) {
  (void)number;
  siglongjmp(no_page, 1);
}

// Maps the page into this process, if it is there. The file may be shortened meanwhile.
static bool touch(const volatile char* at) {
  if (sigsetjmp(no_page, 1) != 0) return false;
  (void)*at;
  return true;
}

// hugetlbfs: mincore tells of this process' page table only, and touching a hole would fill it. With
// userfaultfd on missing pages the touch is refused with SIGBUS instead.
static int guard_holes(void* address, size_t size) {
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_HUGETLBFS};
  struct uffdio_register range = {.range = {.start = (uintptr_t)address, .len = size},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &range) < 0) {
    die("userfaultfd: %s", strerror(errno));
  }
  return fd;
}

// What move_pages(2) says where `index` + i lies; returns how many differ.
static size_t self_check(char* map, size_t index, const int* nodes, size_t count) {
  void** pages = allocate(count, sizeof *pages);
  int* status = allocate(count, sizeof *status);
  size_t used = 0, wrong = 0;
  for (size_t i = 0; i < count; i++) {
    if (nodes[i] >= 0) pages[used++] = map + i * page_size;
  }
  if (used > 0 && syscall(SYS_move_pages, 0, used, pages, NULL, status, 0) != 0) {
    die("move_pages: %s", strerror(errno));
  }
  for (size_t i = 0; i < used; i++) {
    size_t page = (size_t)((char*)pages[i] - map) / page_size;
    if (status[i] == nodes[page]) continue;
    fprintf(stderr, "pagewhere: page %zu: node %d by its frame, %d by move_pages\n", index + page,
            nodes[page], status[i]);
    wrong++;
  }
  free(pages);
  free(status);
  return wrong;
}

enum mode { SUM, EACH, SELF_CHECK };

// Returns how many pages failed the self-check, or -1 for a file that cannot be looked at.
static long look_at_file(const char* path, enum mode mode, bool with_name) {
  // Without O_NOATIME the look would change the file.
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);
  if (fd < 0 && errno == EPERM) fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  struct statfs fs;
  if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0) {
    fprintf(stderr, "pagewhere: %s: %s\n", path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
  }
  if (!S_ISREG(st.st_mode)) {
    fprintf(stderr, "pagewhere: %s: not a regular file\n", path);
    close(fd);
    return -1;
  }
  bool hugetlb = fs.f_type == HUGETLBFS_MAGIC;
  if (hugetlb) {  // userfaultfd wants mappings that could be made writable
    close(fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) die("%s: %s", path, strerror(errno));
  }
  size_t step = hugetlb ? (size_t)fs.f_bsize : page_size;
  const size_t window = 256UL << 20 > step ? 256UL << 20 : step;
  int pagemap = open_pagemap("self");
  unsigned char* resident = allocate(window / page_size, 1);
  unsigned char* still = allocate(window / page_size, 1);
  uint64_t* entries = allocate(window / page_size, sizeof *entries);
  int* nodes = allocate(window / page_size, sizeof *nodes);
  struct count count = {{0}};
  size_t wrong = 0, seen = 0;
  for (off_t offset = 0; offset < st.st_size; offset += (off_t)window) {
    size_t size = st.st_size - offset < (off_t)window ? (size_t)(st.st_size - offset) : window;
    size = (size + step - 1) / step * step;
    size_t pages = size / page_size;
    char* map = mmap(NULL, size, PROT_READ, MAP_SHARED | (hugetlb ? MAP_NORESERVE : 0), fd, offset);
    if (map == MAP_FAILED) die("%s: mmap: %s", path, strerror(errno));
    int holes = -1;
    if (hugetlb) {
      holes = guard_holes(map, size);
      memset(resident, 1, pages);
    } else {
      // No read-ahead, should a page go between the two calls.
      madvise(map, size, MADV_RANDOM);
      if (mincore(map, size, resident) < 0) die("%s: mincore: %s", path, strerror(errno));
    }
    bool any = false;
    for (size_t i = 0; i < pages; i += step / page_size) {
      if (!(resident[i] & 1)) continue;
      if (touch(map + i * page_size)) any = true;
    }
    for (size_t i = 0; i < pages; i++) nodes[i] = -1;
    size_t have = any ? read_pagemap(pagemap, (uintptr_t)map, entries, pages) : 0;
    // The kernel in search of memory takes pages off page tables before it sees that it cannot have them:
    // those are in the page cache still, and touched again.
    for (int round = 0; round < 100 && !hugetlb && have > 0; round++) {
      bool again = false;
      if (mincore(map, size, still) < 0) die("%s: mincore: %s", path, strerror(errno));
      for (size_t i = 0; i < have; i++) {
        if (!(resident[i] & still[i] & 1) || (entries[i] & PAGEMAP_PRESENT)) continue;
        if (touch(map + i * page_size)) again = true;
      }
      if (!again) break;
      have = read_pagemap(pagemap, (uintptr_t)map, entries, pages);
    }
    for (size_t i = 0; i < have; i++) {
      // Faults map the neighbours that are in the page cache too; without one, mincore's answer stands.
      if (!(resident[i] & 1) || !(entries[i] & PAGEMAP_PRESENT)) continue;
      nodes[i] = node_of_frame(entries[i] & PAGEMAP_FRAME);
      count_page(&count, nodes[i]);
      seen++;
      if (mode == EACH) printf("%zu %d\n", (size_t)offset / page_size + i, nodes[i]);
    }
    if (mode == SELF_CHECK) wrong += self_check(map, (size_t)offset / page_size, nodes, pages);
    if (holes >= 0) close(holes);
    munmap(map, size);
  }
  if (mode == SUM) {
    if (with_name) printf("%s: ", path);
    print_count(&count);
    printf("\n");
  } else if (mode == SELF_CHECK) {
    printf("%s: %zu pages, %zu differ\n", path, seen, wrong);
  }
  free(resident);
  free(still);
  free(entries);
  free(nodes);
  close(pagemap);
  close(fd);
  return (long)wrong;
}

// ---- processes

enum kind { ALL_PAGES, ANONYMOUS };

static int open_flags(void) {
  int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("/proc/kpageflags: %s", strerror(errno));
  return fd;
}

static uint64_t flags_of_frame(int flags, uint64_t frame) {
  uint64_t flag = 0;
  if (frame == 0) die("the kernel hides page frame numbers: run as root");
  if (pread(flags, &flag, sizeof flag, (off_t)(frame * sizeof flag)) != sizeof flag) {
    die("/proc/kpageflags: %s", strerror(errno));
  }
  return flag;
}

static void count_range(int pagemap, int flags, uintptr_t start, uintptr_t end, enum kind kind,
                        struct count* count) {
  enum { CHUNK = 8192 };
  static uint64_t entries[CHUNK];
  while (start < end) {
    size_t pages = (end - start) / page_size;
    pages = read_pagemap(pagemap, start, entries, pages < CHUNK ? pages : CHUNK);
    if (pages == 0) return;
    for (size_t i = 0; i < pages; i++) {
      if (!(entries[i] & PAGEMAP_PRESENT)) continue;
      uint64_t frame = entries[i] & PAGEMAP_FRAME;
      if (kind == ANONYMOUS && !(flags_of_frame(flags, frame) & KPF_ANON)) continue;
      count_page(count, node_of_frame(frame));
    }
    start += pages * page_size;
  }
}

// The next line of /proc/PID/maps that is not of the kernel's own memory: false at the end.
static bool next_mapping(FILE* maps, char** line, size_t* room, uintptr_t* start, uintptr_t* end,
                         const char** name) {
  while (getline(line, room, maps) > 0) {
    int name_at = 0;
    (*line)[strcspn(*line, "\n")] = '\0';
    if (sscanf(*line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", start, end, &name_at) < 2) continue;
    *name = name_at > 0 ? *line + name_at : "";
    if (strcmp(*name, "[vsyscall]") != 0 && strncmp(*name, "[vvar", 5) != 0) return true;
  }
  return false;
}

static FILE* open_maps(const char* pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/maps", pid);
  FILE* maps = fopen(path, "re");
  if (maps == NULL) die("%s: %s", path, strerror(errno));
  return maps;
}

// `each`: a line for every mapping. `only`: the mapping's name ends so.
static void look_at_process(const char* pid, enum kind kind, bool each, const char* only, uintptr_t from,
                            uintptr_t to) {
  FILE* maps = open_maps(pid);
  int pagemap = open_pagemap(pid);
  int flags = open_flags();
  struct count total = {{0}};
  char* line = NULL;
  size_t room = 0;
  uintptr_t start, end;
  const char* name;
  while (next_mapping(maps, &line, &room, &start, &end, &name)) {
    size_t length = strlen(name), ending = only != NULL ? strlen(only) : 0;
    if (only != NULL && (length < ending || strcmp(name + length - ending, only) != 0)) continue;
    if (start < from) start = from;
    if (end > to) end = to;
    if (start >= end) continue;
    struct count one = {{0}};
    count_range(pagemap, flags, start, end, kind, each ? &one : &total);
    if (each) {
      printf("%" PRIxPTR "-%" PRIxPTR " ", start, end);
      print_count(&one);
      printf(" %s\n", name);
    }
  }
  if (!each) {
    print_count(&total);
    printf("\n");
  }
  free(line);
  fclose(maps);
  close(pagemap);
  close(flags);
}

// ---- many ranges, many processes

struct kinds {
  struct count anonymous, other, huge;  // huge: of the pool, and transparent ones that are anonymous
};

static void count_kinds(int flags, uint64_t frame, struct kinds* kinds) {
  uint64_t flag = flags_of_frame(flags, frame);
  int node = node_of_frame(frame);
  if (flag & KPF_ZERO_PAGE) return;
  count_page(flag & KPF_ANON ? &kinds->anonymous : &kinds->other, node);
  if (flag & KPF_HUGE || (flag & KPF_ANON && flag & KPF_THP)) count_page(&kinds->huge, node);
}

static void print_kinds(const struct kinds* kinds) {
  const struct count* counts[] = {&kinds->anonymous, &kinds->other, &kinds->huge};
  for (size_t i = 0; i < 3; i++) {
    if (i > 0) printf(" ");
    if (!print_separated(counts[i], ",")) printf("-");
  }
  printf("\n");
}

struct frames {
  uint64_t* at;
  size_t count, room;
};

static void collect_frames(int pagemap, uintptr_t start, uintptr_t end, struct frames* frames) {
  enum { CHUNK = 8192 };
  static uint64_t entries[CHUNK];
  while (start < end) {
    size_t pages = (end - start) / page_size;
    pages = read_pagemap(pagemap, start, entries, pages < CHUNK ? pages : CHUNK);
    if (pages == 0) return;
    if (frames->count + pages > frames->room) {
      frames->room = 2 * (frames->count + pages);
      frames->at = realloc(frames->at, frames->room * sizeof *frames->at);
      if (frames->at == NULL) die("out of memory");
    }
    for (size_t i = 0; i < pages; i++) {
      if (entries[i] & PAGEMAP_PRESENT) frames->at[frames->count++] = entries[i] & PAGEMAP_FRAME;
    }
    start += pages * page_size;
  }
}

static void look_at_ranges(void) {
  int flags = open_flags(), pagemap = -1;
  char last[16] = "", *line = NULL;
  size_t room = 0;
  struct frames frames = {NULL, 0, 0};
  while (getline(&line, &room, stdin) > 0) {
    char pid[sizeof last];
    uintptr_t start, end;
    int name_at = 0;
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%15s %" SCNxPTR "-%" SCNxPTR " %n", pid, &start, &end, &name_at) < 3) {
      die("%s: not a line such as 123 7f0000000000-7f0000010000 name", line);
    }
    if (strcmp(pid, last) != 0) {
      if (pagemap >= 0) close(pagemap);
      pagemap = open_pagemap(pid);
      strcpy(last, pid);
    }
    struct kinds kinds = {0};
    frames.count = 0;
    collect_frames(pagemap, start, end, &frames);
    for (size_t i = 0; i < frames.count; i++) count_kinds(flags, frames.at[i], &kinds);
    printf("%s %zu ", name_at > 0 ? line + name_at : "", (size_t)(end - start) / page_size);
    print_kinds(&kinds);
  }
  if (pagemap >= 0) close(pagemap);
  close(flags);
  free(frames.at);
  free(line);
}

static int compare_frames(const void* a, const void* b) {
  uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}

static void look_at_job(char** pids, size_t count) {
  struct frames frames = {NULL, 0, 0};
  char* line = NULL;
  size_t room = 0;
  for (size_t i = 0; i < count; i++) {
    FILE* maps = open_maps(pids[i]);
    int pagemap = open_pagemap(pids[i]);
    uintptr_t start, end;
    const char* name;
    while (next_mapping(maps, &line, &room, &start, &end, &name)) {
      if (strcmp(name, "[vdso]") != 0) collect_frames(pagemap, start, end, &frames);
    }
    fclose(maps);
    close(pagemap);
  }
  qsort(frames.at, frames.count, sizeof *frames.at, compare_frames);
  int flags = open_flags();
  struct kinds kinds = {0};
  for (size_t i = 0; i < frames.count; i++) {
    if (i == 0 || frames.at[i] != frames.at[i - 1]) count_kinds(flags, frames.at[i], &kinds);
  }
  print_kinds(&kinds);
  close(flags);
  free(frames.at);
  free(line);
}

static void usage(FILE* out) {
  fputs(
      "Usage: pagewhere [-H] FILE...          resident pages by node, a line a file: NODE:COUNT ...\n"
      "       pagewhere --each FILE           a line a resident page: INDEX NODE\n"
      "       pagewhere --repeat FILE         the first again and again, until a signal ends it\n"
      "       pagewhere --anon PID            a process' anonymous pages (with what it copied from\n"
      "                                       private file mappings) by node\n"
      "       pagewhere --pid PID [FROM-TO]   all pages that a process maps (in a range of addresses)\n"
      "       pagewhere --pid PID --map NAME  those of the mappings whose name ends in NAME\n"
      "       pagewhere --maps PID            the same, a line a mapping\n"
      "       pagewhere --ranges              for each line PID FROM-TO NAME of the input: NAME PAGES\n"
      "                                       ANONYMOUS OTHER HUGE; PAGES is the range's size, the others "
      "are\n"
      "                                       NODE:COUNT,... or -\n"
      "       pagewhere --job PID...          ANONYMOUS OTHER HUGE of all that these processes map, pages\n"
      "                                       mapped more than once counted once\n"
      "       pagewhere --self-check FILE...  compare with move_pages(2); exit 1 if they differ\n"
      "A file without resident pages gives an empty line. -H puts the file's name and \": \" first.\n"
      "Works for files on disk filesystems, tmpfs and hugetlbfs (pages counted in 4 KiB). Needs root.\n",
      out);
}

int main(int argc, char** argv) {
  enum {
    OPTION_EACH = 256,
    OPTION_ANON,
    OPTION_PID,
    OPTION_MAP,
    OPTION_MAPS,
    OPTION_RANGES,
    OPTION_JOB,
    OPTION_SELF_CHECK,
    OPTION_REPEAT,
    OPTION_HELP
  };
  static const struct option options[] = {{"each", no_argument, NULL, OPTION_EACH},
                                          {"anon", required_argument, NULL, OPTION_ANON},
                                          {"pid", required_argument, NULL, OPTION_PID},
                                          {"map", required_argument, NULL, OPTION_MAP},
                                          {"maps", required_argument, NULL, OPTION_MAPS},
                                          {"ranges", no_argument, NULL, OPTION_RANGES},
                                          {"job", no_argument, NULL, OPTION_JOB},
                                          {"self-check", no_argument, NULL, OPTION_SELF_CHECK},
                                          {"help", no_argument, NULL, OPTION_HELP},
                                          {"repeat", no_argument, NULL, OPTION_REPEAT},
                                          {NULL, 0, NULL, 0}};
  enum mode mode = SUM;
  enum kind kind = ALL_PAGES;
  bool with_name = false, each = false, ranges = false, job = false, repeat = false;
  const char *pid = NULL, *only = NULL;
  for (int option; (option = getopt_long(argc, argv, "H", options, NULL)) != -1;) {
    switch (option) {
      case 'H':
        with_name = true;
        break;
      case OPTION_EACH:
        mode = EACH;
        break;
      case OPTION_SELF_CHECK:
        mode = SELF_CHECK;
        break;
      case OPTION_ANON:
        pid = optarg;
        kind = ANONYMOUS;
        break;
      case OPTION_PID:
        pid = optarg;
        break;
      case OPTION_MAP:
        only = optarg;
        break;
      case OPTION_MAPS:
        pid = optarg;
        each = true;
        break;
      case OPTION_RANGES:
        ranges = true;
        break;
      case OPTION_REPEAT:
        repeat = true;
        break;
      case OPTION_JOB:
        job = true;
        break;
      case OPTION_HELP:
        usage(stdout);
        return 0;
      default:
        usage(stderr);
        return 2;
    }
  }
  page_size = (size_t)sysconf(_SC_PAGESIZE);
  load_topology();
  if (ranges) {
    look_at_ranges();
    return 0;
  }
  if (job && optind < argc) {
    look_at_job(argv + optind, (size_t)(argc - optind));
    return 0;
  }
  if (pid != NULL) {
    uintptr_t from = 0, to = UINTPTR_MAX;
    if (optind < argc && sscanf(argv[optind], "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) {
      die("%s: not a range of addresses such as 7f0000000000-7f0000010000", argv[optind]);
    }
    look_at_process(pid, kind, each, only, from, to);
    return 0;
  }
  if (optind == argc || (mode == EACH && argc - optind != 1)) {
    usage(stderr);
    return 2;
  }
  struct sigaction action = {.sa_handler = on_sigbus};
  sigaction(SIGBUS, &action, NULL);
  while (repeat) {
    if (look_at_file(argv[optind], SUM, false) != 0) return 1;
    fflush(stdout);
    usleep(20000);  // others want to run, too
  }
  int status = 0;
  for (int i = optind; i < argc; i++) {
    if (look_at_file(argv[i], mode, with_name) != 0) status = 1;
  }
  return status;
}
