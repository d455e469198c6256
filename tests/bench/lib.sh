#!/bin/bash
# shellcheck disable=SC2154 # the caller sets $scratch
# What the benchmark scripts share: medians, and ratios against what a user would use instead.

rounds=${FPOLICY_ROUNDS:-5}

# time_once COMMAND: milliseconds, its output thrown away. A command that fails ends the benchmark.
time_once() {
  local began=${EPOCHREALTIME/./}
  "$@" >/dev/null || {
    echo "bench: '$*' failed" >&2
    exit 1
  }
  echo $(((${EPOCHREALTIME/./} - began) / 10))
}

# median of the numbers on stdin
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# compare WHAT REACH OURS THEIRS [PREPARE_OURS PREPARE_THEIRS]: names of functions; rounds alternate so that noise of the
# machine falls on both. Prints a line; REACH is the ratio to reach, or - for none.
compare() {
  local what=$1 reach=$2 ours=$3 theirs=$4 prepare_ours=${5:-:} prepare_theirs=${6:-:} i
  : >"$scratch/ours"
  : >"$scratch/theirs"
  $prepare_ours
  time_once "$ours" >/dev/null
  $prepare_theirs
  time_once "$theirs" >/dev/null
  for ((i = 0; i < rounds; i++)); do
    $prepare_ours
    time_once "$ours" >>"$scratch/ours"
    $prepare_theirs
    time_once "$theirs" >>"$scratch/theirs"
  done
  awk -v ours="$(median <"$scratch/ours")" -v theirs="$(median <"$scratch/theirs")" -v what="$what" -v reach="$reach" 'BEGIN {
    printf "%-58s %9.2f ms %9.2f ms   ratio %5.2f   (reach %s)\n", what, ours / 100, theirs / 100, ours / theirs, reach }'
}

# What the benchmarks in guests start in the background, for stop.
pids=()
stop() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  [ ${#pids[@]} -eq 0 ] || wait "${pids[@]}" || true
  pids=()
}

# No function: a job's pid would be a shell's.
# shellcheck disable=SC2034 # what the benchmarks use
on_0=(numactl --cpunodebind=0 --membind=0 --)

# What runs again would be moved by the kernel meanwhile.
leave_pages_alone() {
  [ ! -e /proc/sys/kernel/numa_balancing ] || echo 0 >/proc/sys/kernel/numa_balancing
}
