/* SPDX-License-Identifier: LGPL-2.1-or-later
 * What policyd and its sentinel say to each other. C and C++.
 *
 * The sentinel alone reads the questions of the fanotify group and answers them. policyd is asked about those
 * that may matter, over a socket that keeps messages whole, and answers with the number of the question. */
#pragma once

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* The descriptors that the sentinel is started with. */
enum {
  sentinel_socket_fd = 3,
  sentinel_shared_fd = 4, /* a memfd of struct SentinelShared */
  sentinel_caller_fd = 5, /* pidfd of policyd */
  sentinel_cgroups_fd = 6 /* the cgroup2 mount, open as a directory */
};

enum SentinelKind {
  /* From the sentinel. */
  sentinel_hello =
      1, /* its fanotify descriptor comes beside it; nothing is watched before `armed` is answered */
  sentinel_watching, /* the mark stands */
  sentinel_ask,      /* somebody opens this file for writing, and waits */
  sentinel_written,  /* this file was written */
  sentinel_closed,   /* somebody who had this file open for writing has closed it */
  sentinel_fault,    /* it cannot start: `path` says why; it ends */
  /* From policyd. */
  sentinel_armed,
  sentinel_answer /* the one with this number may go on */
};

struct SentinelMessage {
  uint32_t kind;
  uint32_t number;
  uint64_t inode;    /* of the file */
  uint64_t asked_ns; /* CLOCK_MONOTONIC, of sentinel_ask */
  int32_t thread;    /* that opens it, of sentinel_ask */
  /* The file as the opener's mount shows it, with a 0 at its end; only what is used of it is sent. */
  char path[PATH_MAX];
};

enum {
  sentinel_delay_buckets = 24,
  sentinel_default_deadline_us = 50000,
  /* Questions that policyd has at one time: more are let go. */
  sentinel_most_questions = 256
};

/* Written by the sentinel, but for the first two, with atomic operations of no order: they are counters. */
struct SentinelShared {
  uint32_t deadline_us;     /* written by policyd */
  uint32_t nothing_to_hold; /* written by policyd: 1: it need not be asked */
  uint32_t waiting;         /* questions that policyd has now */
  uint64_t progress;        /* rounds of the sentinel's loop */
  uint64_t questions;       /* opens that it was asked about */
  uint64_t ignored;         /* of files that do not matter: the next opens of these are not asked about */
  uint64_t readers;         /* of files that matter, for reading */
  uint64_t own;             /* by policyd itself */
  uint64_t idle;            /* let go without asking: no file stays */
  uint64_t asked;           /* policyd was asked */
  uint64_t answered;        /* of these, in time */
  uint64_t late;            /* of these, not answered within the deadline */
  uint64_t passed;          /* let go without asking policyd, which was late before */
  uint64_t overflow;        /* let go without asking policyd, which had too many to answer */
  uint64_t unreadable;      /* the file was gone before the question was read */
  uint64_t longest_us;      /* of all that were asked */
  uint64_t realtime;        /* 1: it runs before all that is not */
  uint64_t locked;          /* 1: its memory is locked */
  /* Bucket i: opens that waited less than 2^i microseconds for policyd, and not less than half of that. */
  uint64_t delays[sentinel_delay_buckets];
};
