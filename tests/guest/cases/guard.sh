#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Whoever moves a job: pages that must stay do not leave, in any sample that another program takes meanwhile.

guard_value() { policyctl --json status | jq -r ".guard.$1"; }
guard_is_on() { [ "$(guard_value on)" = true ]; }
mapped_files() { [ "$(guard_value mapped_files)" -ge "$1" ]; }
# guarded [LINE...]: policyd with these lines in [guard]. An emulated machine needs longer for everything, to hold pages as well.
guarded() {
  local setting="deadline_ms = 1000"
  [ $# -eq 0 ] || setting=$1
  printf '[guard]\n%s\n' "$setting" >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  within 2 "guard is on" guard_is_on
}

# sample FILE: where its pages are, again and again, from another node.
sample() {
  rm -f /tmp/samples
  on_node 0 pagewhere --repeat "$1" >/tmp/samples 2>/tmp/samples.err &
  sample_pid=$!
  within 2 "first sample" test -s /tmp/samples
}

# count_samples NODE: $taken, and in how many of them a page was elsewhere ($astray). A page that the kernel tries to move
# is nowhere for a moment.
count_samples() {
  kill $sample_pid
  wait $sample_pid || true
  # The last may have been cut off.
  head -n -1 /tmp/samples >/tmp/samples.whole
  taken=$(wc -l </tmp/samples.whole)
  astray=$(grep -Evc "^($1:[0-9]+)?\$" /tmp/samples.whole) || true
  echo "note: $taken samples, pages astray in $astray"
  [ "$taken" -gt 5 ] || fail "too few samples: $taken"
}

# never_astray: no page was elsewhere than on node 0 at any time, and all are there now.
never_astray() {
  count_samples 0
  [ "$astray" -eq 0 ] || fail "samples: $(sort /tmp/samples.whole | uniq -c | sort -rn | head -n 5)"
  all_on 0 $lib $pages
}

# prepare MIB [DIRECTORY]: a library at home on node 0, mapped by an outsider and by a job there.
prepare() {
  lib=${2:-/mnt/ext4/t}/lib.so
  pages=$(($1 * 256))
  make_file "$lib" "$1" 0
  setfpolicy bind:0 "$lib"
  map_outside 0 "$lib"
  make_job t-job 0
  map_in_job t-job --anon 8 "$lib"
  within 2 "the guard knows" mapped_files 1
}

anonymous_on() {
  local there
  there=$(pagewhere --anon "$job_pid" | tr ' ' '\n' | sed -n "s/^$1://p")
  [ "${there:-0}" -ge 2048 ] || fail "anonymous pages: $(pagewhere --anon "$job_pid")"
}

# there_and_back TIMES NODE
there_and_back() {
  local i
  for i in $(seq "$1"); do
    echo "$2" >$cg/t-job/cpuset.mems
    [ "$i" -gt 1 ] || anonymous_on "$2"
    echo 0 >$cg/t-job/cpuset.mems
  done
}

tell_guard() {
  policyctl --json status | jq -c '.guard | del(.delays)' | sed 's/^/note: /'
  policyctl --json status | jq -c '.guard.delays' | sed 's/^/note: /'
}

nothing_slipped() {
  equal 0 "$(policyctl --json status | jq .counters.pages_slipped)" "slipped pages"
}

case_without_the_guard_they_leave() {
  # What the other cases prevent does happen here; else they would prove nothing.
  printf '[guard]\nenabled = false\n' >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  equal "false switched off" "$(guard_value on) $(guard_value reason)" "the guard"
  make_file /mnt/ext4/t/lib.so 16 0
  setfpolicy bind:0 /mnt/ext4/t/lib.so
  map_outside 0 /mnt/ext4/t/lib.so
  make_job t-job 0
  map_in_job t-job --anon 8 /mnt/ext4/t/lib.so
  sample /mnt/ext4/t/lib.so
  there_and_back 2 2
  count_samples 0
  [ "$astray" -gt 0 ] || fail "no page has left"
  within 2 "repaired" all_on 0 /mnt/ext4/t/lib.so 4096
  [ "$(policyctl --json status | jq .counters.pages_slipped)" -gt 0 ] || fail "nothing slipped"
}

case_moves_by_echo() {
  guarded
  prepare 16
  sample $lib
  there_and_back 6 2
  never_astray
  tell_guard
  nothing_slipped
}

case_writer_who_keeps_the_file_open() {
  guarded
  prepare 16
  sample $lib
  exec 9>$cg/t-job/cpuset.mems
  for _ in 1 2 3; do
    echo 2 >&9
    echo 0 >&9
  done
  [ "$(guard_value held_bytes)" -eq 16777216 ] || fail "$(guard_value held_bytes) bytes are held"
  exec 9>&-
  never_astray
  within 2 "nothing is held" no_pages_held
  nothing_slipped
}
no_pages_held() { [ "$(guard_value held_bytes)" -eq 0 ]; }

case_two_writers_at_once() {
  guarded
  prepare 16
  make_job t-other 0
  local first=$job_pid other
  map_in_job t-other --anon 8 $lib
  other=$job_pid
  job_pid=$first
  sample $lib
  for _ in 1 2 3; do
    echo 2 >$cg/t-job/cpuset.mems &
    first=$!
    echo 3 >$cg/t-other/cpuset.mems
    wait $first
    echo 0 >$cg/t-other/cpuset.mems &
    first=$!
    echo 0 >$cg/t-job/cpuset.mems
    wait $first
  done
  never_astray
  nothing_slipped
  kill $other
}

case_attach() {
  guarded
  prepare 16
  make_job t-there 2
  sample $lib
  for _ in 1 2 3; do
    echo "$job_pid" >$cg/t-there/cgroup.procs
    anonymous_on 2
    echo "$job_pid" >$cg/t-job/cgroup.procs
  done
  # Into a cgroup that was made a moment before.
  bash -c 'mkdir "$1"; echo 3 >"$1/cpuset.mems"; echo "$2" >"$1/cgroup.procs"' new $cg/t-new "$job_pid"
  anonymous_on 3
  never_astray
  tell_guard
  nothing_slipped
}

case_attach_of_a_thread() {
  guarded
  prepare 16
  mkdir $cg/t-job/a $cg/t-job/b
  echo threaded >$cg/t-job/a/cgroup.type
  echo threaded >$cg/t-job/b/cgroup.type
  echo +cpuset >$cg/t-job/cgroup.subtree_control
  echo 0-3 >$cg/t-job/cpuset.mems
  echo 0 >$cg/t-job/a/cpuset.mems
  echo 2 >$cg/t-job/b/cpuset.mems
  sample $lib
  for _ in 1 2 3; do
    echo "$job_pid" >$cg/t-job/a/cgroup.threads
    echo "$job_pid" >$cg/t-job/b/cgroup.threads
  done
  never_astray
  nothing_slipped
  kill "$job_pid"
  wait "$job_pid" || true
  rmdir $cg/t-job/a $cg/t-job/b
}

case_readers_are_not_kept() {
  guarded
  prepare 8
  local asked
  asked=$(guard_value counters.asked)
  for _ in $(seq 50); do
    cat $cg/t-job/cpuset.mems $cg/t-job/cgroup.procs >/dev/null
  done
  equal "$asked" "$(guard_value counters.asked)" "questions to policyd"
  [ "$(guard_value counters.readers)" -ge 100 ] || fail "$(guard_value counters.readers) readers"
  # What only can be written is as ever.
  mkdir $cg/t-kill
  echo 1 >$cg/t-kill/cgroup.kill
  rmdir $cg/t-kill
  cat $cg/cgroup.controllers $cg/t-job/cgroup.events $cg/t-job/cpuset.mems.effective >/dev/null
}
