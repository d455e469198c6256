#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Whoever moves a job: pages that must stay do not leave, in any sample that another program takes meanwhile.

# A long run has more of everything:
#   FPOLICY_MOVES=100 FPOLICY_LIBRARY_MIB=64 FPOLICY_KILLS=200 FPOLICY_CGROUPS=3000

# shellcheck source=tests/guest/cases/place.sh
. "$(dirname "${BASH_SOURCE[0]}")/place.sh" # fill_node, release_nodes, free_kib

library_mib=${FPOLICY_LIBRARY_MIB:-16}
# moves EACH DEFAULT: numbers of the rounds with EACH moves that it takes, or DEFAULT rounds.
moves() { seq "$((FPOLICY_MOVES > 0 ? (FPOLICY_MOVES + $1 - 1) / $1 : $2))"; }
: "${FPOLICY_MOVES:=0}"

# guarded [LINE...]: policyd with these lines in [guard]. An emulated machine needs longer for everything, to hold pages as well.
guarded() {
  local setting=$'deadline_ms = 1000\nhold_seconds = 60'
  [ $# -eq 0 ] || setting=$1
  printf '[guard]\n%s\n' "$setting" >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  within 2 "guard is on" guard_is_on
}

# never_astray: no page was elsewhere than on node 0 at any time, and all are there now.
never_astray() {
  count_samples 0
  in_time
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

slipped() { policyctl --json status | jq .counters.pages_slipped; }
nothing_slipped() { equal 0 "$(slipped)" "slipped pages"; }

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
  some_slipped || fail "nothing slipped"
}

case_moves_by_echo() {
  guarded
  prepare "$library_mib"
  sample $lib
  there_and_back "$(moves 2 6 | wc -l)" 2
  never_astray
  tell_guard
  nothing_slipped
}

case_writer_who_keeps_the_file_open() {
  guarded "deadline_ms = 1000
hold_seconds = 120"
  prepare "$library_mib"
  sample $lib
  exec 9>$cg/t-job/cpuset.mems
  for _ in $(moves 2 3); do
    echo 2 >&9
    echo 0 >&9
  done
  exec 9>&-
  never_astray
  within 2 "nothing is held" no_pages_held
  nothing_slipped
}

case_pages_are_held_for_a_while() {
  guarded "deadline_ms = 1000
hold_seconds = 8"
  prepare 1
  exec 9>$cg/t-job/cpuset.mems
  for _ in 1 2 3 4 5 6; do
    # Whoever goes on writing goes on moving.
    sleep 2
    echo 0 >&9
  done
  in_time
  equal "1048576 0" "$(guard_value held_bytes) $(guard_value counters.expired)" "bytes held, and holds that expired"
  within 8 "let go" no_pages_held
  equal 1 "$(guard_value counters.expired)" "holds that expired"
  exec 9>&-
}
no_pages_held() { [ "$(guard_value held_bytes)" -eq 0 ]; }

case_write_that_takes_longer() {
  guarded $'deadline_ms = 1000\nhold_seconds = 1'
  prepare 4
  map_in_job t-job --anon 240 $lib
  sample $lib
  local began=${EPOCHREALTIME/./}
  echo 2 >$cg/t-job/cpuset.mems
  local took=$(((${EPOCHREALTIME/./} - began) / 1000))
  echo "note: wrote for $took ms"
  never_astray
  within 2 "nothing is held" no_pages_held
  nothing_slipped
  [ $took -gt 1500 ] || skip "the write took only $took ms"
}

case_two_writers_at_once() {
  guarded
  prepare "$library_mib"
  make_job t-other 0
  local first=$job_pid other
  map_in_job t-other --anon 8 $lib
  other=$job_pid
  job_pid=$first
  sample $lib
  for _ in $(moves 4 3); do
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
  prepare "$library_mib"
  make_job t-there 2
  sample $lib
  for _ in $(moves 2 3); do
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
  prepare "$library_mib"
  mkdir $cg/t-job/a $cg/t-job/b
  echo threaded >$cg/t-job/a/cgroup.type
  echo threaded >$cg/t-job/b/cgroup.type
  echo +cpuset >$cg/t-job/cgroup.subtree_control
  echo 0-3 >$cg/t-job/cpuset.mems
  echo 0 >$cg/t-job/a/cpuset.mems
  echo 2 >$cg/t-job/b/cpuset.mems
  sample $lib
  for _ in $(moves 2 3); do
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
  # One who is not yet asleep when he is looked at counts as a writer: here, where processors take turns, some do.
  [ "$(($(guard_value counters.asked) - asked))" -le 30 ] || fail "$(guard_value counters)"
  [ "$(guard_value counters.readers)" -ge 70 ] || fail "$(guard_value counters.readers) readers"
  # What only can be written is as ever.
  mkdir $cg/t-kill
  echo 1 >$cg/t-kill/cgroup.kill
  rmdir $cg/t-kill
  cat $cg/cgroup.controllers $cg/t-job/cgroup.events $cg/t-job/cpuset.mems.effective >/dev/null
}

# opens FILE: opens it for writing, writes nothing; prints how long it waited, in ms.
opens() {
  local began=${EPOCHREALTIME/./}
  : >>"$1"
  echo $(((${EPOCHREALTIME/./} - began) / 1000))
}

case_policyd_stopped() {
  # Nobody waits longer than the deadline for a policyd that does not run; then nobody waits for it at all.
  guarded "deadline_ms = 50"
  prepare 8
  local waited
  kill -STOP $policyd_pid
  for waited in $(for _ in $(seq 12); do opens $cg/t-job/cpuset.mems; done); do
    echo "note: waited $waited ms"
    [ "$waited" -lt 3000 ] || fail "a writer waited for $waited ms"
  done
  kill -CONT $policyd_pid
  [ "$(guard_value counters.late)" -ge 1 ] || fail "nobody was let go"
  [ "$(guard_value counters.passed)" -ge 8 ] || fail "every one waited: $(guard_value counters)"
  within 2 "asked again" is_asked
}
is_asked() {
  local before
  before=$(guard_value counters.answered)
  opens $cg/t-job/cpuset.mems
  [ "$(guard_value counters.answered)" -gt "$before" ]
}

case_policyd_killed_while_somebody_waits() {
  local kills=${FPOLICY_KILLS:-6} writer
  guarded
  prepare 8
  for i in $(seq "$kills"); do
    if [ "$i" -gt 1 ]; then
      start_policyd --config /tmp/policyd.toml
      within 2 "guard is on" guard_is_on
    fi
    # Every other time it does not get to the question at all.
    [ $((i % 2)) -eq 0 ] || kill -STOP $policyd_pid
    opens $cg/t-job/cpuset.mems >/tmp/waited &
    writer=$!
    sleep 0.0$((RANDOM % 10))
    kill -KILL $policyd_pid
    within 1 "the writer goes on" not_running $writer
    wait $policyd_pid || true
    within 1 "the sentinel ends" sentinel_gone
  done
  opens $cg/t-job/cpuset.mems >/dev/null
}
not_running() { ! kill -0 "$1" 2>/dev/null; }
sentinel_gone() { ! pgrep -x fpolicy-sentine >/dev/null; }

case_sentinel_killed() {
  guarded "deadline_ms = 50"
  prepare 8
  local sentinel
  for signal in KILL STOP; do
    sentinel=$(guard_value sentinel)
    kill -$signal "$sentinel"
    echo "note: waited $(opens $cg/t-job/cpuset.mems) ms"
    within 2 "another sentinel" another_sentinel "$sentinel"
  done
  grep -q "the sentinel has stopped working" /tmp/policyd.log
  [ "$(guard_value restarts)" -eq 2 ] || fail "restarts: $(guard_value restarts)"
}
another_sentinel() { guard_is_on && [ "$(guard_value sentinel)" != "$1" ] && ! kill -0 "$1" 2>/dev/null; }

case_busy_processors() {
  # Real-time programs on every processor leave policyd nothing; the sentinel comes before them.
  guarded "deadline_ms = 50"
  prepare 8
  local processor hogs=()
  for processor in 0 1 2 3; do
    taskset -c $processor chrt -f 50 sh -c 'while :; do :; done' &
    hogs+=($!)
  done
  # shellcheck disable=SC2016 # the inner shell expands it
  chrt -f 60 bash -c 'for _ in 1 2 3 4 5 6; do
    began=${EPOCHREALTIME/./}
    : >>"$1"
    echo $(((${EPOCHREALTIME/./} - began) / 1000))
  done' writer $cg/t-job/cpuset.mems >/tmp/waited
  kill "${hogs[@]}"
  echo "note: waited $(paste -sd ' ' /tmp/waited) ms"
  equal 6 "$(awk '$1 < 3000' /tmp/waited | wc -l)" "opens that did not wait for long"
  tell_guard
}

case_ends_with_policyd() {
  guarded
  stop_policyd
  within 1 "the sentinel ends" sentinel_gone
  make_job t-job 0
  opens $cg/t-job/cpuset.mems >/dev/null
}

case_switched_by_reload() {
  guarded
  printf '[guard]\nenabled = false\n' >/tmp/policyd.toml
  policyctl reload
  equal "false switched off" "$(guard_value on) $(guard_value reason)" "the guard"
  within 1 "the sentinel ends" sentinel_gone
  : >/tmp/policyd.toml
  policyctl reload
  within 2 "guard is on" guard_is_on
  equal 50000 "$(guard_value deadline_usec)" "the deadline"
}

case_sentinel_stands_apart() {
  guarded
  local sentinel
  sentinel=$(guard_value sentinel)
  equal "0::/" "$(grep '^0:' /proc/$sentinel/cgroup)" "its cgroup"
  equal "-1000 0" "$(cat /proc/$sentinel/oom_score_adj /proc/$policyd_pid/oom_score_adj | xargs)" "oom_score_adj, its and policyd's"
  equal "true true" "$(guard_value realtime) $(guard_value locked)" "real time, and locked"
  equal "SCHED_FIFO" "$(chrt -p $sentinel | sed -n 's/.*policy: //p')" "its scheduling"
  # The group of questions is its own alone: should it end, everybody goes on.
  equal 1 "$(fanotify_groups $sentinel)" "groups that it has open"
  equal 1 "$(fanotify_groups $policyd_pid)" "groups that policyd has open: its watch of moves"
  echo "note: $(grep VmLck /proc/$sentinel/status)"
  policyctl metrics >/tmp/metrics
  grep -qx "fpolicy_guard_on 1" /tmp/metrics
  grep -qx 'fpolicy_guard_total{kind="late"} 0' /tmp/metrics
  grep -qx "fpolicy_guard_wait_seconds_count $(jq -n 'input.guard.delays | add' <(policyctl --json status))" /tmp/metrics
}

fanotify_groups() { find /proc/$1/fd -lname '*fanotify*' | wc -l; }

case_many_cgroups() {
  guarded "deadline_ms = 50"
  prepare 1
  local count=${FPOLICY_CGROUPS:-60} sleeper
  sleep 1000 &
  sleeper=$!
  many_cgroups 10 $sleeper
  local descriptors sentinel
  sentinel=$(guard_value sentinel)
  within 2 "nothing is held" no_pages_held
  descriptors=$(count_descriptors $policyd_pid $sentinel)
  many_cgroups "$count" $sleeper
  within 2 "nothing is held" no_pages_held
  [ "$(guard_value restarts)" -eq 0 ] || skip "the sentinel stood still"
  equal "$sentinel" "$(guard_value sentinel)" "the sentinel"
  # Some are open for a moment: whoever asks, a file that is looked at.
  local now
  now=$(count_descriptors $policyd_pid $sentinel)
  [ "$now" -lt $((descriptors + count / 10)) ] || fail "descriptors: $descriptors before, $now after $count cgroups"
  tell_guard
  kill $sleeper
}
count_descriptors() { find /proc/$1/fd /proc/$2/fd -mindepth 1 2>/dev/null | wc -l; }
many_cgroups() { # COUNT PID, 1,000 a minute
  local longest opens seconds
  read -r longest opens seconds <<<"$(churn $cg "$1" 1000 "$2")"
  echo "note: $1 cgroups in $seconds s; the longest of $opens opens took $longest ms"
  [ "${longest%.*}" -lt 3000 ] || fail "a writer waited for $longest ms"
}

case_more_than_the_budget() {
  guarded "deadline_ms = 1000
max_bytes = 8388608"
  prepare 32
  echo 2 >$cg/t-job/cpuset.mems
  [[ $(guard_value last_refusal) == *guard.max_bytes* ]] || fail "$(guard_value last_refusal)"
  within 2 "told" some_slipped
  within 2 "repaired" all_on 0 $lib $pages
  [ "$(guard_value most_held_bytes)" -le 25165824 ] || fail "$(guard_value most_held_bytes) bytes were held"
}
some_slipped() { [ "$(slipped)" -gt 0 ]; }

case_other_cgroups_are_left_alone() {
  guarded 'deadline_ms = 1000
cgroups = ["/t-other"]'
  prepare 8
  make_job t-other 0
  local holds
  holds=$(guard_value counters.holds)
  echo 2 >$cg/t-job/cpuset.mems
  equal "$holds" "$(guard_value counters.holds)" "moves for which pages were held"
  echo "$job_pid" >$cg/t-other/cgroup.procs
  [ "$(guard_value counters.holds)" -gt "$holds" ] || fail "nothing was held"
}

case_file_changes_meanwhile() {
  guarded
  prepare 16
  # Replaced: whoever maps the old one keeps it, at home.
  cp $lib $lib.new
  mv $lib.new $lib
  there_and_back 1 2
  in_time
  equal "0:4096" "$(pagewhere --pid "$job_pid" --map "lib.so (deleted)")" "pages of the old file"
  rm $lib
  there_and_back 1 2
  in_time
  equal "0:4096" "$(pagewhere --pid "$job_pid" --map "lib.so (deleted)")" "pages of the deleted file"
  nothing_slipped
  # Shortened while its pages are held: they are given back when the writer is done.
  make_file /mnt/ext4/t/other.so 16 0
  setfpolicy bind:0 /mnt/ext4/t/other.so
  map_in_job t-job /mnt/ext4/t/other.so
  within 2 "the guard knows" mapped_files 2
  exec 9>$cg/t-job/cpuset.mems
  truncate -s 4M /mnt/ext4/t/other.so
  echo 2 >&9
  exec 9>&-
  in_time
  all_on 0 /mnt/ext4/t/other.so 1024
  within 2 "nothing is held" no_pages_held
}

case_memory_is_short() {
  # The target has room for little more than the job, and on the library's own node a hog takes what can be taken.
  guarded
  prepare 16
  make_file /mnt/ext4/t/other 64 0
  sync
  fill_node 2 112
  sample $lib
  local hog again most
  again=$(pages_read_again)
  # No swap: what it cannot have is not given to it, or it is ended.
  on_node 0 mapper --anon $(($(free_kib 0) / 1024 + 24)) >/tmp/hog 2>&1 &
  hog=$!
  there_and_back 3 2
  kill $hog 2>/dev/null || true
  wait $hog 2>/dev/null || true
  count_samples 0
  in_time
  # What is reclaimed between a look and its being held is read in again, wherever there is room, and repaired. The kernel
  # counts such pages; all others were where they belong. A move that nobody guards takes all of them along, not a sixteenth.
  again=$(($(pages_read_again) - again))
  most=$(tr ' :' '\n ' </tmp/samples.whole | awk '$1 != 0 && $2 > most { most = $2 } END { print most + 0 }')
  echo "note: at most $most pages were elsewhere, and $(slipped) repaired; $again were read in again"
  [ "$again" -lt $((pages / 16)) ] || again=$((pages / 16))
  if [ "$most" -gt "$again" ] || [ "$(slipped)" -gt "$again" ]; then
    fail "samples: $(sort /tmp/samples.whole | uniq -c | sort -rn | head -n 5)"
  fi
  within 2 "nothing is held" no_pages_held
  release_nodes
}

# File pages of the whole machine that had been reclaimed.
pages_read_again() { awk '$1 == "workingset_refault_file" { print $2 }' /proc/vmstat; }
case_filesystem_goes_meanwhile() {
  guarded
  local type dir source before
  for type in xfs btrfs tmpfs; do
    dir=/mnt/$type source=none
    if [ $type = tmpfs ]; then
      dir=/tmp/t/tmpfs
      mkdir -p $dir
      mount -t tmpfs none $dir
    else
      source=$(findmnt -n -o SOURCE $dir)
    fi
    prepare 8 $dir/t
    # A round after the moves before may have met the file while it was made.
    before=$(slipped)
    sample $lib
    echo 2 >$cg/t-job/cpuset.mems
    mount -o remount,ro $dir
    echo 0 >$cg/t-job/cpuset.mems
    there_and_back 1 2
    never_astray
    equal "$before" "$(slipped)" "slipped pages"
    # Unmounted while its pages are held: nobody is in the way but those who map it.
    exec 9>$cg/t-job/cpuset.mems
    pages_are_held || fail "nothing is held"
    ! umount $dir 2>/dev/null || fail "$type was unmounted under a job"
    pkill -x mapper
    within 2 "$type is unmounted" umount $dir
    pages_are_held || fail "it was policyd's doing that pages were given back"
    echo 2 >&9
    exec 9>&-
    within 2 "nothing is held" no_pages_held
    # Unmounted under those who map it: policyd knows it no more, and moves go on.
    mount -t $type $source $dir
    prepare 8 $dir/t
    umount -l $dir
    there_and_back 2 2
    within 2 "nothing is held" no_pages_held
    pkill -x mapper
    [ $type = tmpfs ] || within 2 "$type is mounted again" mount -t $type $source $dir
  done
}
pages_are_held() { [ "$(guard_value held_bytes)" -gt 0 ]; }

# filesystem NAME FILE: pages of a library there do not leave.
on_filesystem() {
  lib=$2
  local pages
  pages=$(($(stat -c %s $lib) / 4096))
  cache_on $lib 0
  all_on 0 $lib $pages
  setfpolicy bind:0 $lib
  make_job t-job 0
  map_in_job t-job --anon 8 $lib
  within 2 "the guard knows" mapped_files 1
  echo 2 >$cg/t-job/cpuset.mems
  anonymous_on 2
  in_time
  equal "0:$pages" "$(nodes $lib)" "pages on $1"
  nothing_slipped
  kill "$job_pid"
  wait "$job_pid" || true
  setfpolicy -x $lib
}

case_filesystems() {
  guarded
  local name
  for name in xfs btrfs vfat; do
    mkdir -p /mnt/$name/t
    dd if=/dev/zero of=/mnt/$name/t/lib.so bs=1M count=4 status=none
    on_filesystem $name /mnt/$name/t/lib.so
  done
  on_filesystem squashfs /mnt/squashfs/data-16M
  mkdir -p /tmp/t/tmpfs /tmp/t/lower /tmp/t/upper /tmp/t/work /tmp/t/overlay
  mount -t tmpfs none /tmp/t/tmpfs
  on_node 0 dd if=/dev/zero of=/tmp/t/tmpfs/lib.so bs=1M count=4 status=none
  on_filesystem tmpfs /tmp/t/tmpfs/lib.so
  umount /tmp/t/tmpfs
  mkdir -p /mnt/ext4/t/upper /mnt/ext4/t/work /mnt/ext4/t/lower
  mount -t overlay -o lowerdir=/mnt/ext4/t/lower,upperdir=/mnt/ext4/t/upper,workdir=/mnt/ext4/t/work none /tmp/t/overlay
  dd if=/dev/zero of=/tmp/t/overlay/lib.so bs=1M count=4 status=none
  on_filesystem overlay /tmp/t/overlay/lib.so
  umount /tmp/t/overlay
}
