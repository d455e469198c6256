// A job for tests of moving: processes with memory of every kind, first touched over a list of nodes, that
// compute on it and tell whether all they find there is right. Shares no code with fpolicy.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void usage(FILE* out) {
  fputs(
      "Usage: worker [OPTION...]\n"
      "Some processes fill memory with numbers, print \"ready\", and compute until SIGTERM (exit 0): each "
      "step adds 1 to\n"
      "the first word of the next page that is the process' own.\n"
      "SIGUSR1 to the first process: all check their memory, words and results, and it prints \"ok STEPS "
      "CHURNED\", or\n"
      "\"wrong ...\" with the reason on stderr.\n"
      "  --processes N       so many (default 4), children of the first; they end with it\n"
      "  --nodes LIST        memory is touched in equal parts, the k-th on the k-th of these nodes (default "
      "0)\n"
      "  --table FILE        a line for each part of each region, to be read by pagewhere --ranges:\n"
      "                      PID FROM-TO PROCESS KIND PART; what is shared stands with the first process "
      "only\n"
      " of each process' own:\n"
      "  --anon MIB          anonymous memory in small pages\n"
      "  --heap MIB          the same, in the heap\n"
      "  --thp MIB           in transparent huge pages\n"
      "  --hugetlb MIB       in pages of the pool\n"
      "  --library FILE[:N]  mapped privately; N pages are written, so that the process has copies of them\n"
      " shared by all:\n"
      "  --map FILE          mapped shared, and read\n"
      "  --segment FILE      mapped shared and filled: of tmpfs, hugetlbfs\n"
      "  --sysv MIB, --memfd MIB, --shared-anonymous MIB\n"
      " then:\n"
      "  --lock              lock all of it\n"
      "  --policy MODE:LIST  a memory policy for each process from here on: bind, or static (bind, with "
      "static nodes)\n"
      "  --pause MICROSECONDS  between steps (default 20000; 0: none)\n"
      "  --churn N           N threads in each process map, write and unmap memory as fast as they can\n"
      "  --spawn             each step forks a child, which writes some memory, and exits or executes "
      "another program\n",
      out);
}

enum { MAX_NODES = 64, MAX_REGIONS = 32, MAX_PROCESSES = 256, HUGE_PAGE = 2 << 20, WORD = sizeof(uint64_t) };

struct region {
  char kind[64];
  char* at;
  size_t size;
  size_t page;
  size_t counted;  // of its pages, those whose first word counts steps
  uint64_t sum;    // of all other words
};

static struct region regions[MAX_REGIONS];
static size_t region_count;
static unsigned nodes[MAX_NODES] = {0};
static size_t node_count = 1;
static unsigned process;  // the first is 0
static int table = -1;
static size_t page_size;
static uint64_t steps;
static atomic_ulong churned, churned_wrong;

__attribute__((noreturn)) static void die(const char* what) {
  fprintf(stderr, "worker: %s: %s\n", what, strerror(errno));
  exit(2);
}

static size_t number(const char* text) {
  char* end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value > SIZE_MAX >> 21) {
    fprintf(stderr, "worker: %s: not a number\n", text);
    exit(2);
  }
  return value;
}

// "0-1,3"
static size_t parse_nodes(const char* text, unsigned* list) {
  size_t count = 0;
  while (*text != '\0') {
    char* end;
    unsigned long first = strtoul(text, &end, 10), last = first;
    if (end != text && *end == '-') last = strtoul(end + 1, &end, 10);
    if (end == text || (*end != ',' && *end != '\0') || last >= MAX_NODES ||
        count + last - first >= MAX_NODES) {
      fprintf(stderr, "worker: %s: not a list of nodes\n", text);
      exit(2);
    }
    for (; first <= last; first++) list[count++] = (unsigned)first;
    text = *end == ',' ? end + 1 : end;
  }
  return count;
}

// ---- memory

static void set_policy(int mode, const unsigned* list, size_t count) {
  unsigned long mask = 0;
  for (size_t i = 0; i < count; i++) mask |= 1UL << list[i];
  if (syscall(SYS_set_mempolicy, mode, count > 0 ? &mask : NULL, count > 0 ? 8 * sizeof mask + 1 : 0) != 0) {
    die("set_mempolicy");
  }
}

static struct region* add_region(const char* kind, const char* name, char* at, size_t size, size_t page) {
  if (region_count == MAX_REGIONS) {
    errno = E2BIG;
    die(kind);
  }
  if (at == MAP_FAILED) die(kind);
  struct region* region = &regions[region_count++];
  const char* slash = strrchr(name, '/');
  snprintf(region->kind, sizeof region->kind, "%s%s", kind, slash != NULL ? slash + 1 : name);
  region->at = at;
  region->size = size;
  region->page = page;
  return region;
}

static void tell(const char* kind, const char* from, const char* to, size_t part) {
  if (table >= 0 && from < to) {
    dprintf(table, "%d %" PRIxPTR "-%" PRIxPTR " %u %s %zu\n", (int)getpid(), (uintptr_t)from, (uintptr_t)to,
            process, kind, part);
  }
}

// Each part on its node. The words differ from page to page, and between processes.
static void fill(struct region* region) {
  size_t pages = region->size / region->page;
  uint64_t word = (uint64_t)process << 48 | (uint64_t)region_count << 40;
  for (size_t part = 0; part < node_count; part++) {
    char* from = region->at + pages * part / node_count * region->page;
    char* to = region->at + pages * (part + 1) / node_count * region->page;
    set_policy(MPOL_BIND, &nodes[part], 1);
    for (uint64_t* at = (uint64_t*)from; at < (uint64_t*)to; at++) *at = word += 0x9e3779b97f4a7c15;
    tell(region->kind, from, to, part);
  }
  set_policy(MPOL_DEFAULT, NULL, 0);
}

static uint64_t sum(const struct region* region) {
  uint64_t sum = 0;
  for (size_t page = 0; page * region->page < region->size; page++) {
    const uint64_t* at = (const uint64_t*)(region->at + page * region->page);
    const uint64_t* end = at + region->page / WORD;
    for (at += page < region->counted; at < end; at++) sum = (sum ^ *at) * 0x100000001b3;
  }
  return sum;
}

static void add_own(const char* kind, char* at, size_t size, size_t page) {
  struct region* region = add_region(kind, "", at, size, page);
  fill(region);
  region->counted = size / page;
  for (size_t i = 0; i < region->counted; i++) *(uint64_t*)(at + i * page) = 0;
}

static void add_segment(const char* kind, const char* name, char* at, size_t size, size_t page) {
  fill(add_region(kind, name, at, size, page));
}

static char* map_memory(size_t size, int flags, int advice) {
  char* at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at != MAP_FAILED && advice != 0 && madvise(at, size, advice) < 0) die("madvise");
  return at;
}

static void add_anonymous(size_t size) {
  add_own("anon", map_memory(size, MAP_PRIVATE | MAP_ANONYMOUS, MADV_NOHUGEPAGE), size, page_size);
}

static void add_heap(size_t size) {
  char* at = sbrk(0);
  size_t hole = -(uintptr_t)at % page_size;
  if (sbrk((intptr_t)(hole + size)) == (void*)-1) die("heap");
  at += hole;
  if (madvise(at, size, MADV_NOHUGEPAGE) < 0) die("madvise");
  add_own("heap", at, size, page_size);
}

static void add_thp(size_t size) {
  // Unmapped again around what is aligned: no small pages come with it.
  char* all = map_memory(size + HUGE_PAGE, MAP_PRIVATE | MAP_ANONYMOUS, 0);
  if (all == MAP_FAILED) die("thp");
  size_t before = -(uintptr_t)all % HUGE_PAGE;
  if (before > 0) munmap(all, before);
  munmap(all + before + size, HUGE_PAGE - before);
  if (madvise(all + before, size, MADV_HUGEPAGE) < 0) die("madvise");
  add_own("thp", all + before, size, HUGE_PAGE);
}

static int open_file(const char* path, int flags, size_t* size) {
  int fd = open(path, flags | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) die(path);
  *size = (size_t)st.st_size / page_size * page_size;
  return fd;
}

static void read_pages(const struct region* region) {
  for (size_t i = 0; i < region->size; i += page_size) (void)*(volatile char*)(region->at + i);
}

static void add_file(const char* path) {
  size_t size;
  int fd = open_file(path, O_RDONLY, &size);
  struct region* region =
      add_region("file:", path, mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0), size, page_size);
  read_pages(region);
  tell(region->kind, region->at, region->at + size, 0);
  close(fd);
}

static void add_library(char* path) {
  size_t size, copies = 0;
  char* colon = strrchr(path, ':');
  if (colon != NULL) {
    *colon = '\0';
    copies = number(colon + 1);
  }
  int fd = open_file(path, O_RDONLY, &size);
  if (copies > size / page_size) copies = size / page_size;
  int protection = PROT_READ | (copies > 0 ? PROT_WRITE : PROT_EXEC);
  struct region* region =
      add_region("file:", path, mmap(NULL, size, protection, MAP_PRIVATE, fd, 0), size, page_size);
  close(fd);
  char cow[sizeof region->kind];
  snprintf(cow, sizeof cow, "cow%s", region->kind + 4);
  region->counted = copies;
  for (size_t part = 0; part < node_count && copies > 0; part++) {
    size_t from = copies * part / node_count, to = copies * (part + 1) / node_count;
    set_policy(MPOL_BIND, &nodes[part], 1);
    for (size_t i = from; i < to; i++) *(volatile uint64_t*)(region->at + i * page_size) = 0;
    tell(cow, region->at + from * page_size, region->at + to * page_size, part);
  }
  set_policy(MPOL_DEFAULT, NULL, 0);
  read_pages(region);
  tell(region->kind, region->at + copies * page_size, region->at + size, 0);
}

static void add_filled_file(const char* path) {
  size_t size;
  int fd = open_file(path, O_RDWR, &size);
  struct stat st;
  if (fstat(fd, &st) < 0) die(path);
  size_t page = st.st_blksize == HUGE_PAGE ? HUGE_PAGE : page_size;
  add_segment("segment:", path, mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), size, page);
  close(fd);
}

static void add_sysv(size_t size) {
  int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
  void* at = id < 0 ? (void*)-1 : shmat(id, NULL, 0);
  if (at == (void*)-1) die("sysv");
  shmctl(id, IPC_RMID, NULL);  // it goes with the last process
  add_segment("sysv", "", at, size, page_size);
}

static void add_memfd(size_t size) {
  int fd = memfd_create("worker", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)size) < 0) die("memfd");
  add_segment("memfd", "", mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), size, page_size);
  close(fd);
}

// ---- work

static size_t own_pages(void) {
  size_t total = 0;
  for (size_t r = 0; r < region_count; r++) total += regions[r].counted;
  return total;
}

static void step(size_t total) {
  size_t page = total > 0 ? steps % total : 0;
  for (size_t r = 0; r < region_count; r++) {
    if (page < regions[r].counted) {
      ++*(volatile uint64_t*)(regions[r].at + page * regions[r].page);
      break;
    }
    page -= regions[r].counted;
  }
  steps++;
}

// How many regions are not as they should be.
static uint64_t check(size_t total) {
  uint64_t wrong = atomic_load(&churned_wrong);
  if (wrong > 0)
    fprintf(stderr, "worker: process %u: churned memory: %" PRIu64 " blocks are wrong\n", process, wrong);
  size_t page = 0;
  for (size_t r = 0; r < region_count; r++) {
    size_t bad = 0;
    for (size_t i = 0; i < regions[r].counted; i++, page++) {
      uint64_t expected = steps / total + (page < steps % total);
      if (*(volatile uint64_t*)(regions[r].at + i * regions[r].page) != expected) bad++;
    }
    bool changed = sum(&regions[r]) != regions[r].sum;
    if (bad == 0 && !changed) continue;
    wrong++;
    fprintf(stderr, "worker: process %u: %s: %zu results are wrong, other words %s\n", process,
            regions[r].kind, bad, changed ? "have changed" : "are right");
  }
  return wrong;
}

static void* churn(void* argument) {
  enum { HELD = 16, MOST = 64 };
  struct {
    char* at;
    size_t pages;
  } held[HELD] = {{NULL, 0}};
  unsigned random = (unsigned)(uintptr_t)argument + process * 1000;
  for (;;) {
    size_t i = (size_t)rand_r(&random) % HELD;
    bool right = true;
    for (size_t page = 0; page < held[i].pages; page++) {
      uintptr_t* at = (uintptr_t*)(held[i].at + page * page_size);
      right = right && *at == (uintptr_t)at;
    }
    if (!right) atomic_fetch_add(&churned_wrong, 1);
    if (held[i].pages > 0) munmap(held[i].at, held[i].pages * page_size);
    held[i].pages = 1 + (size_t)rand_r(&random) % MOST;
    held[i].at = map_memory(held[i].pages * page_size, MAP_PRIVATE | MAP_ANONYMOUS, 0);
    if (held[i].at == MAP_FAILED) die("churn");
    for (size_t page = 0; page < held[i].pages; page++) {
      uintptr_t* at = (uintptr_t*)(held[i].at + page * page_size);
      *at = (uintptr_t)at;
    }
    atomic_fetch_add(&churned, 1);
  }
  return NULL;
}

// The parent waits, and so finds its own pages unshared again when it writes them.
static void spawn(void) {
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    char* at = map_memory(64 * page_size, MAP_PRIVATE | MAP_ANONYMOUS, 0);
    if (at != MAP_FAILED) memset(at, 1, 64 * page_size);
    if (steps % 2 == 0) execl("/bin/true", "true", (char*)NULL);
    _exit(0);
  }
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

// ---- processes

struct answer {
  uint64_t steps, churned, wrong;
};

static void put(int fd, const struct answer* answer) {
  if (write(fd, answer, sizeof *answer) != sizeof *answer) die("pipe");
}

static struct answer get(int fd) {
  struct answer answer;
  ssize_t got;
  while ((got = read(fd, &answer, sizeof answer)) < 0 && errno == EINTR) continue;
  if (got != sizeof answer) {
    fprintf(stderr, "worker: a process is gone\n");
    exit(2);
  }
  return answer;
}

enum {
  PROCESSES = 256,
  NODES,
  TABLE,
  ANON,
  HEAP,
  THP,
  HUGETLB,
  LIBRARY,
  MAP,
  SEGMENT,
  SYSV,
  MEMFD,
  SHARED_ANONYMOUS,
  LOCK,
  POLICY,
  PAUSE,
  CHURN,
  SPAWN,
  HELP
};

int main(int argc, char** argv) {
  static const struct option options[] = {{"processes", required_argument, NULL, PROCESSES},
                                          {"nodes", required_argument, NULL, NODES},
                                          {"table", required_argument, NULL, TABLE},
                                          {"anon", required_argument, NULL, ANON},
                                          {"heap", required_argument, NULL, HEAP},
                                          {"thp", required_argument, NULL, THP},
                                          {"hugetlb", required_argument, NULL, HUGETLB},
                                          {"library", required_argument, NULL, LIBRARY},
                                          {"map", required_argument, NULL, MAP},
                                          {"segment", required_argument, NULL, SEGMENT},
                                          {"sysv", required_argument, NULL, SYSV},
                                          {"memfd", required_argument, NULL, MEMFD},
                                          {"shared-anonymous", required_argument, NULL, SHARED_ANONYMOUS},
                                          {"lock", no_argument, NULL, LOCK},
                                          {"policy", required_argument, NULL, POLICY},
                                          {"pause", required_argument, NULL, PAUSE},
                                          {"churn", required_argument, NULL, CHURN},
                                          {"spawn", no_argument, NULL, SPAWN},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
  page_size = (size_t)sysconf(_SC_PAGESIZE);
  struct {
    int option;
    char* argument;
  } wanted[MAX_REGIONS];
  size_t wanted_count = 0, processes = 4, pause = 20000, threads = 0;
  bool lock = false, spawns = false;
  int policy = MPOL_DEFAULT;
  unsigned policy_nodes[MAX_NODES];
  size_t policy_count = 0;
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case PROCESSES:
        processes = number(optarg);
        break;
      case NODES:
        node_count = parse_nodes(optarg, nodes);
        break;
      case TABLE:
        // Emptied, and then every line is one write at its end.
        table = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
        if (table < 0) die(optarg);
        break;
      case LOCK:
        lock = true;
        break;
      case POLICY:
        if (strncmp(optarg, "bind:", 5) == 0) {
          policy = MPOL_BIND;
        } else if (strncmp(optarg, "static:", 7) == 0) {
          policy = MPOL_BIND | MPOL_F_STATIC_NODES;
        } else {
          usage(stderr);
          return 2;
        }
        policy_count = parse_nodes(strchr(optarg, ':') + 1, policy_nodes);
        break;
      case PAUSE:
        pause = number(optarg);
        break;
      case CHURN:
        threads = number(optarg);
        break;
      case SPAWN:
        spawns = true;
        break;
      case HELP:
        usage(stdout);
        return 0;
      case '?':
        usage(stderr);
        return 2;
      default:
        if (wanted_count == MAX_REGIONS) {
          errno = E2BIG;
          die("regions");
        }
        wanted[wanted_count].option = option;
        wanted[wanted_count++].argument = optarg;
    }
  }
  if (optind < argc || processes == 0 || processes > MAX_PROCESSES || node_count == 0) {
    usage(stderr);
    return 2;
  }

  // From here on, so that no signal is lost between "ready" and the wait for it. Threads inherit it.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  sigprocmask(SIG_BLOCK, &signals, NULL);

  // What is shared is made by the first process, and inherited by the others.
  for (size_t i = 0; i < wanted_count; i++) {
    char* argument = wanted[i].argument;
    switch (wanted[i].option) {
      case SEGMENT:
        add_filled_file(argument);
        break;
      case SYSV:
        add_sysv(number(argument) << 20);
        break;
      case MEMFD:
        add_memfd(number(argument) << 20);
        break;
      case SHARED_ANONYMOUS:
        add_segment("shared", "", map_memory(number(argument) << 20, MAP_SHARED | MAP_ANONYMOUS, 0),
                    number(argument) << 20, page_size);
        break;
      default:
        break;
    }
  }

  int answers[MAX_PROCESSES] = {-1}, answer_to = -1;
  pid_t children[MAX_PROCESSES] = {0};
  for (unsigned i = 1; i < processes; i++) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) die("pipe");
    children[i] = fork();
    if (children[i] < 0) die("fork");
    if (children[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      process = i;
      answer_to = ends[1];
      close(ends[0]);
      break;
    }
    answers[i] = ends[0];
    close(ends[1]);
  }

  for (size_t i = 0; i < wanted_count; i++) {
    char* argument = wanted[i].argument;
    switch (wanted[i].option) {
      case ANON:
        add_anonymous(number(argument) << 20);
        break;
      case HEAP:
        add_heap(number(argument) << 20);
        break;
      case THP:
        add_thp(number(argument) << 20);
        break;
      case HUGETLB:
        add_own("hugetlb", map_memory(number(argument) << 20, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, 0),
                number(argument) << 20, HUGE_PAGE);
        break;
      case LIBRARY:
        add_library(argument);
        break;
      case MAP:
        add_file(argument);
        break;
      default:
        break;
    }
  }
  for (size_t r = 0; r < region_count; r++) regions[r].sum = sum(&regions[r]);
  if (lock && mlockall(MCL_CURRENT) < 0) die("mlockall");
  if (policy != MPOL_DEFAULT) set_policy(policy, policy_nodes, policy_count);
  for (size_t i = 0; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, churn, (void*)(uintptr_t)(i + 1)) != 0) die("thread");
  }
  if (process == 0) {
    for (unsigned i = 1; i < processes; i++) get(answers[i]);
    printf("ready\n");
    fflush(stdout);
  } else {
    put(answer_to, &(struct answer){0});
  }

  size_t total = own_pages();
  struct timespec wait = {.tv_sec = (time_t)(pause / 1000000), .tv_nsec = (long)(pause % 1000000) * 1000};
  for (;;) {
    step(total);
    if (spawns) spawn();
    int signal = sigtimedwait(&signals, NULL, &wait);
    if (signal == SIGTERM) return 0;
    if (signal != SIGUSR1) continue;  // or time has passed, or it was stopped meanwhile
    if (process > 0) {
      put(answer_to, &(struct answer){steps, atomic_load(&churned), check(total)});
      continue;
    }
    for (unsigned i = 1; i < processes; i++) kill(children[i], SIGUSR1);
    struct answer all = {steps, atomic_load(&churned), check(total)};
    for (unsigned i = 1; i < processes; i++) {
      struct answer one = get(answers[i]);
      all.steps += one.steps;
      all.churned += one.churned;
      all.wrong += one.wrong;
    }
    printf("%s %" PRIu64 " %" PRIu64 "\n", all.wrong == 0 ? "ok" : "wrong", all.steps, all.churned);
    fflush(stdout);
  }
}
