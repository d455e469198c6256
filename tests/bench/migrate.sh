#!/bin/bash
# migratejob against migratepages on the same job, in a guest with four nodes of 1 GiB (see scripts/bench). Medians of 5,
# alternating.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
leave_pages_alone
scratch=/tmp/bench
dir=${1:-/mnt/ext4}/bench
cg=/sys/fs/cgroup/bench
mkdir -p $scratch "$dir" $cg
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
ours() {
  migratejob --pid "$job" --from 0 --to 1 --json >$scratch/report
  cat $scratch/report >>$scratch/reports
}
theirs() { migratepages "$job" 0 1; }

# line WHAT MILLISECONDS OTHER_MILLISECONDS
line() { awk -v what="$1" -v a="$2" -v b="$3" 'BEGIN {
  printf "%-58s %9.2f ms %9.2f ms   ratio %5.2f   (reach -)\n", "  " what, a, b, a / b }'; }
# told FILTER REPORTS: the median
told() { jq -s -r "map($1)[]" "$scratch/$2" | median; }

# against MIB WHAT REACH: migratejob against migratepages, the whole and what the kernel does of it. Both must have moved
# all of the job's own memory.
against() {
  local pages=$(($1 * 256))
  : >$scratch/reports
  compare "$2" "$3" ours theirs back back
  line "its own moving alone : migratepages" "$(told '.moving_seconds * 1000' reports)" \
    "$(awk '{ print $1 / 100 }' $scratch/theirs | median)"
  moved_all $pages
  back
  ours
  moved_all $pages
}
moved_all() {
  [ "$(pagewhere --anon "$job" | tr ' ' '\n' | sed -n 's/^1://p')" -ge "$1" ] || {
    echo "bench: not all has moved: $(pagewhere --anon "$job")" >&2
    exit 1
  }
}

echo "migratejob, then migratepages; $(nproc) processors, Linux $(uname -r)"
started job "${on_0[@]}" worker --processes 1 --anon 512 --pause 100000
job=$started
against 512 "512 MiB of anonymous small pages" 0.85

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
awk -v ratio="$(told '.frozen_seconds / .moving_seconds' plain)" 'BEGIN {
  printf "%-58s %27s   ratio %5.2f   (reach 1.2)\n", "  frozen : moving", "", ratio }'
line "frozen, with --pre-copy : without" "$(told '.frozen_seconds * 1000' quiet)" "$(told '.frozen_seconds * 1000' plain)"
stop

libraries=()
for i in 1 2 3 4 5 6 7 8; do
  libraries+=("$dir/lib$i.so")
  "${on_0[@]}" dd if=/dev/urandom of="$dir/lib$i.so" bs=1M count=32 status=none
done
sync
for ((i = 0; i < 50; i++)); do started other$i "${on_0[@]}" mapper --exec "${libraries[@]}"; done
mapped=()
for library in "${libraries[@]}"; do mapped+=(--library "$library"); done
started job "${on_0[@]}" worker --processes 1 --anon 256 --pause 100000 "${mapped[@]}"
job=$started
against 256 "256 MiB, and 256 MiB of libraries shared with 50 others" 0.6
stop

# 50 processes with the mappings that any small program has, 23 or so.
# shellcheck disable=SC2016 # the inner shell's
in_bench='echo $$ >/sys/fs/cgroup/bench/cgroup.procs; exec "$@"'
for ((i = 0; i < 50; i++)); do started small$i bash -c "$in_bench" bench mapper --anon 1; done
vmas=$(for pid in "${pids[@]}"; do cat "/proc/$pid/maps"; done | wc -l)
cpu_ms() { # COMMAND...: user and system time
  local TIMEFORMAT='%3U %3S'
  { time "$@" >/dev/null 2>&1; } 2>&1 | awk '{ print 1000 * ($1 + $2) }'
}
plan() { migratejob --cgroup bench --from 0 --to 1 --dry-run --json; }
: >$scratch/plan
: >$scratch/start
plan >/dev/null
for ((i = 0; i < rounds; i++)); do
  cpu_ms plan >>$scratch/plan
  cpu_ms migratejob --version >>$scratch/start
done
awk -v call="$(plan_bench bench 0 1 "$rounds" | median)" -v all="$(median <$scratch/plan)" \
  -v start="$(median <$scratch/start)" -v vmas="$vmas" 'BEGIN {
  printf "%-58s %9.2f ms %27s (reach 50)\n", "plan of " vmas " mappings of 50 processes, CPU time", call, ""
  printf "%-58s %9.2f ms\n", "  migratejob --dry-run --json, which also prints them all", all
  printf "%-58s %9.2f ms\n", "  of which starting the program (--version)", start }'
stop
