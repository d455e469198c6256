#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# policyd as an administrator meets it.

case_killed_fifty_times() {
  make_file /mnt/ext4/t/tagged.so 16 0
  make_job t-job 0
  map_in_job t-job --anon 8 /mnt/ext4/t/tagged.so
  local i to
  for i in $(seq 50); do
    mkdir -p /var/lib/fpolicy /run/fpolicy
    policyd 2>/tmp/policyd.log &
    policyd_pid=$!
    to=$((i % 3 + 1))
    setfpolicy "bind:$to" /mnt/ext4/t/tagged.so
    echo $(((i + 1) % 4)) >$cg/t-job/cpuset.mems
    # A random moment of the work of some tens of milliseconds.
    sleep "0.$(printf '%03d' $((RANDOM % 100)))"
    kill -9 "$policyd_pid"
    wait "$policyd_pid" 2>/dev/null || true
    # The job is neither stopped nor frozen.
    [[ $(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$job_pid/status") == [RS] ]] || fail "the job is stopped"
    equal 0 "$(sed -n 's/^frozen //p' $cg/t-job/cgroup.events)" "frozen"
    # policyd and setfpolicy have opened the store each time.
    [ $((i % 10)) -eq 0 ] || continue
    equal ok "$(sqlite3 /var/lib/fpolicy/fpolicy.db 'pragma integrity_check')" "database"
    [[ $(getfpolicy -R /mnt/ext4/t/tagged.so) == *$'\t'"bind:$to" ]] || fail "the tag: $(getfpolicy /mnt/ext4/t/tagged.so)"
  done
  start_policyd
  within 2 "the next start finishes the work" all_on "$to" /mnt/ext4/t/tagged.so 4096
}

case_second_policyd_ends_with_2() {
  start_policyd
  expect_status 2 timeout 20 policyd
  [[ $err == *policyd* ]] || fail "message: $err"
  policyctl status >/dev/null
}

case_stops_cleanly() {
  start_policyd
  stop_policyd
  [ ! -S /run/fpolicy/policyd.sock ] || fail "the socket is left behind"
  expect_status 1 policyctl status
  [[ $err == *policyd* ]] || fail "message: $err"
}

# many_cgroups OUTER INNER: OUTER cgroups with INNER in each, made by few processes. Without controllers, which would cost
# the kernel a grace period for each: policyd watches all cgroups alike.
many_cgroups() {
  mkdir "$cg/t-many"
  awk -v root="$cg/t-many" -v outer="$1" -v inner="$2" 'BEGIN {
    for (i = 1; i <= outer; i++) { print root "/" i; for (j = 1; j <= inner; j++) print root "/" i "/" j }
  }' | xargs mkdir
}
remove_many_cgroups() { find "$cg/t-many" -mindepth 1 -depth -type d -print0 | xargs -0 rmdir; }

case_idle_wakes_for_nothing() {
  many_cgroups 1000 0
  start_policyd
  make_file /mnt/ext4/t/data 4 0
  setfpolicy bind:1 /mnt/ext4/t/data
  within 1 home all_on 1 /mnt/ext4/t/data 1024
  sleep 5
  local before after
  before=$(switches)
  sleep "${FPOLICY_IDLE_SECONDS:-20}"
  after=$(switches)
  echo "note: $((after - before)) wake-ups in ${FPOLICY_IDLE_SECONDS:-20} s, $(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$policyd_pid/status") resident with 1,000 cgroups"
  equal 0 $((after - before)) "wake-ups"
  [ "$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$policyd_pid/status")" -lt 12288 ] || fail "12 MiB or more resident"
  remove_many_cgroups
}
# All threads' voluntary context switches.
switches() { cat "/proc/$policyd_pid"/task/*/status | sed -n 's/^voluntary_ctxt_switches:\t//p' | awk '{ n += $1 } END { print n }'; }

case_ten_thousand_cgroups() {
  many_cgroups 100 99
  make_file /mnt/ext4/t/tagged.so 8 0
  setfpolicy bind:0 /mnt/ext4/t/tagged.so
  start_policyd
  echo "note: $(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$policyd_pid/status") resident with 10,000 cgroups"
  # The job is deep in the tree; the cgroup that moves is its own.
  echo +cpuset >$cg/t-many/cgroup.subtree_control
  echo +cpuset >$cg/t-many/57/cgroup.subtree_control
  echo 0-3 >$cg/t-many/cpuset.mems
  map_in_job t-many/57/42 /mnt/ext4/t/tagged.so
  echo 0 >$cg/t-many/57/42/cpuset.mems
  echo 3 >$cg/t-many/57/42/cpuset.mems
  within 2 "one of 10,000" all_on 0 /mnt/ext4/t/tagged.so 2048
  kill "$job_pid"
  wait "$job_pid" || true
  remove_many_cgroups
}

case_bad_configuration_ends_with_2() {
  printf '[enforcement]\nbandwith_mib = 5\n' >/tmp/t.toml
  expect_status 2 policyd --config /tmp/t.toml
  [[ $err == *"/tmp/t.toml:2"* ]] || fail "no file:line in: $err"
}

case_needs_privilege() {
  expect_status 2 as_user user policyd
  [[ $err == *root* || $err == *privilege* ]] || fail "message: $err"
}
