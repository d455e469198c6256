#!/bin/bash
# migratejob against migratepages on the same job, in a guest with four nodes of 1 GiB (see scripts/bench). Medians of 5,
# alternating.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
# What runs again would be moved by the kernel meanwhile.
[ ! -e /proc/sys/kernel/numa_balancing ] || echo 0 >/proc/sys/kernel/numa_balancing
scratch=/tmp/bench
dir=${1:-/mnt/ext4}/bench
cg=/sys/fs/cgroup/bench
mkdir -p $scratch "$dir" $cg
pids=()
stop() {
  [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null || true
  wait
  pids=()
}
trap stop EXIT

# started LOG COMMAND...: in the background, until it says that it is ready. $started is its pid.
started() {
  local log=$scratch/$1
  shift
  "$@" >"$log" 2>&1 &
  started=$!
  pids+=("$started")
  until grep -q ready "$log"; do sleep 0.1; done
}

back() { migratepages "$job" 1 0; }
ours() { migratejob --pid "$job" --from 0 --to 1; }
theirs() { migratepages "$job" 0 1; }
on_0() { numactl --cpunodebind=0 --membind=0 -- "$@"; }

echo "migratejob, then migratepages; $(nproc) processors, Linux $(uname -r)"
started job on_0 worker --processes 1 --anon 512 --pause 100000
job=$started
compare "512 MiB of anonymous small pages" 0.85 ours theirs back back

# From the reports of some runs: 512 MiB of a job in a cgroup, most of which is quiet.
echo "$job" >$cg/cgroup.procs
runs() { # REPORT OPTION...
  local report=$1 i
  : >"$scratch/$report"
  for ((i = 0; i < rounds; i++)); do
    back
    migratejob --cgroup bench --from 0 --to 1 --json "${@:2}" >>"$scratch/$report"
  done
}
runs plain
runs quiet --pre-copy
jq -s -r 'map(.frozen_seconds / .moving_seconds)[]' $scratch/plain | median | awk '{
  printf "%-58s                             ratio %5.2f   (reach 1.2)\n", "  frozen : moving", $1 }'
frozen_ms() { jq -s -r 'map(.frozen_seconds * 1000)[]' "$scratch/$1" | median; }
awk -v quiet="$(frozen_ms quiet)" -v plain="$(frozen_ms plain)" 'BEGIN {
  printf "%-58s %9.2f ms %9.2f ms   ratio %5.2f   (reach -)\n", "  frozen, with --pre-copy : without", quiet, plain, quiet / plain }'
stop

libraries=()
for i in 1 2 3 4 5 6 7 8; do
  libraries+=("$dir/lib$i.so")
  on_0 dd if=/dev/urandom of="$dir/lib$i.so" bs=1M count=32 status=none
done
sync
for ((i = 0; i < 50; i++)); do started other$i on_0 mapper --exec "${libraries[@]}"; done
mapped=()
for library in "${libraries[@]}"; do mapped+=(--library "$library"); done
started job on_0 worker --processes 1 --anon 256 --pause 100000 "${mapped[@]}"
job=$started
compare "256 MiB, and 256 MiB of libraries shared with 50 others" 0.6 ours theirs back back
stop

# 50 processes, each with mappings of files beside the usual ones.
small=()
for i in 1 2 3 4 5 6; do
  small+=("$dir/small$i")
  dd if=/dev/urandom of="$dir/small$i" bs=64K count=1 status=none
done
# shellcheck disable=SC2016 # the inner shell's
in_bench='echo $$ >/sys/fs/cgroup/bench/cgroup.procs; exec "$@"'
for ((i = 0; i < 50; i++)); do started small$i bash -c "$in_bench" bench mapper --anon 1 --exec "${small[@]}"; done
vmas=$(for pid in "${pids[@]}"; do cat "/proc/$pid/maps"; done | wc -l)
cpu_ms() { # COMMAND...: user and system time
  local TIMEFORMAT='%3U %3S'
  { time "$@" >/dev/null 2>&1; } 2>&1 | awk '{ print 1000 * ($1 + $2) }'
}
plan() { migratejob --cgroup bench --from 0 --to 1 -n; }
: >$scratch/plan
: >$scratch/start
plan >/dev/null
for ((i = 0; i < rounds; i++)); do
  cpu_ms plan >>$scratch/plan
  cpu_ms migratejob --version >>$scratch/start
done
awk -v all="$(median <$scratch/plan)" -v start="$(median <$scratch/start)" -v vmas="$vmas" 'BEGIN {
  printf "%-58s %9.2f ms                              (reach 50)\n", "plan of " vmas " mappings of 50 processes, CPU time", all
  printf "%-58s %9.2f ms\n", "  of which starting the program (--version)", start }'
stop
