#!/bin/bash
# The guard, in a guest with four nodes: what it adds to an open, what a guarded move costs against one that is repaired
# afterwards and one that nobody looks after, and what a monitoring agent costs. Medians of 5.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
leave_pages_alone
scratch=/tmp/bench
dir=/mnt/ext4/bench
cg=/sys/fs/cgroup
mkdir -p $scratch $dir /var/lib/fpolicy /run/fpolicy
trap stop EXIT

# policyd_with LINES: in [guard]; waits until it is as it should be.
policyd_with() {
  printf '[guard]\n%s\n' "$1" >/tmp/policyd.toml
  policyd --config /tmp/policyd.toml 2>$scratch/policyd.log &
  policyd_pid=$!
  local expected=true
  [[ $1 != *"enabled = false"* ]] || expected=false
  until [ "$(policyctl --json status 2>/dev/null | jq -r .guard.on)" = $expected ]; do sleep 0.1; done
}
end_policyd() {
  kill $policyd_pid
  wait $policyd_pid || true
}
guard() { policyctl --json status | jq -r ".guard.$1"; }

# job MIB: a library of so many MIB at home on node 0, mapped by an outsider and by a job with 16 MiB of its own.
job() {
  dd if=/dev/zero of=$dir/lib.so bs=1M count="$1" status=none
  sync $dir/lib.so
  dd if=$dir/lib.so iflag=nocache count=0 status=none
  "${on_0[@]}" cat $dir/lib.so >/dev/null
  "${on_0[@]}" mapper $dir/lib.so >$scratch/outside 2>&1 &
  pids+=($!)
  mkdir -p $cg/bench
  echo 0 >$cg/bench/cpuset.mems
  bash -c 'echo $$ >"$1/cgroup.procs"; exec mapper --anon 16 "$2"' job $cg/bench $dir/lib.so >$scratch/job 2>&1 &
  pids+=($!)
  until grep -q ready $scratch/outside && grep -q ready $scratch/job; do sleep 0.1; done
}
home() {
  echo 0 >$cg/bench/cpuset.mems
  until [ "$(pagewhere $dir/lib.so)" = "0:$1" ]; do policyctl apply $dir/lib.so >/dev/null || true; done
}
there() { echo 2 >$cg/bench/cpuset.mems; }

# moves MIB: the median of the move, until the write returns, and until all pages of the library are at home.
moves() {
  local pages=$(($1 * 256)) i began
  : >$scratch/written
  : >$scratch/repaired
  for ((i = 0; i < rounds; i++)); do
    began=${EPOCHREALTIME/./}
    there
    echo $(((${EPOCHREALTIME/./} - began) / 10)) >>$scratch/written
    if [ "$2" = repaired ]; then
      until [ "$(pagewhere $dir/lib.so)" = "0:$pages" ]; do :; done
    fi
    echo $(((${EPOCHREALTIME/./} - began) / 10)) >>$scratch/repaired
    home $pages
  done
  echo "$(median <$scratch/written) $(median <$scratch/repaired)"
}

echo "an open of cpuset.mems for writing, nothing to hold (median and longest, us; reach: 1000 more)"
mkdir -p $cg/bench
printf '  %-40s %s\n' "without policyd" "$(open_times w 300 0 $cg/bench/cpuset.mems)"
policyd_with ""
printf '  %-40s %s\n' "guarded" "$(open_times w 300 0 $cg/bench/cpuset.mems)"
printf '  %-40s %s\n' "for reading" "$(open_times r 300 0 $cg/bench/cpuset.mems)"
printf '  %-40s %s\n' "another file, for writing" "$(open_times w 300 0 $cg/bench/cgroup.max.depth)"

echo "1,000 reads a second of cpuset.mems and cgroup.procs, for 10 s"
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
sentinel=$(guard sentinel)
before=$(($(ticks $policyd_pid) + $(ticks "$sentinel")))
printf '  %-40s %s\n' "an open takes (us)" "$(open_times r 10000 1000 $cg/bench/cpuset.mems $cg/bench/cgroup.procs)"
after=$(($(ticks $policyd_pid) + $(ticks "$sentinel")))
awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN {
  printf "  %-40s %.1f %% of a processor\n", "policyd and sentinel", t * 100 / hz / 10 }'
end_policyd

for mib in 16 256; do
  echo "a job with 16 MiB of its own and a library of $mib MIB that stays (ms: the write, and until the library is at home)"
  job $mib
  policyd_with "enabled = false"
  setfpolicy -x $dir/lib.so
  ignored=$(moves $mib ignored)
  setfpolicy bind:0 $dir/lib.so
  repaired=$(moves $mib repaired)
  end_policyd
  policyd_with "deadline_ms = 1000"
  until [ "$(guard mapped_files)" = 1 ]; do sleep 0.1; done
  guarded=$(moves $mib guarded)
  slipped=$(policyctl --json status | jq .counters.pages_slipped)
  holds=$(policyctl metrics | awk '/^fpolicy_guard_wait_seconds_bucket/ { if ($2 > last) printf "%s:%d ", $1, $2 - last; last = $2 }' |
    sed 's/fpolicy_guard_wait_seconds_bucket{le=//g; s/"//g; s/}//g')
  end_policyd
  for line in "nobody looks after it:$ignored" "repaired afterwards:$repaired" "guarded:$guarded"; do
    awk -v what="${line%:*}" -v both="${line##*:}" -v base="${ignored% *}" 'BEGIN { split(both, v, " ")
      printf "  %-40s %9.1f %9.1f   ratio %5.2f %5.2f\n", what, v[1] / 100, v[2] / 100, v[1] / base, v[2] / base }'
  done
  echo "  pages that left with the guard: $slipped; waits (s): $holds"
  stop
done
