#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2046,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word has spaces
# migratejob when something goes wrong: no room, no right, killed, interrupted, a job that changes meanwhile.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/guest/cases/migrate.sh
. "$here/migrate.sh" # worker_in, look and what else tells of a job
# shellcheck source=tests/guest/cases/place.sh
. "$here/place.sh" # fill_node

# on NODE LIST: the count of NODE in "0:512,1:512", or 0.
on() { tr ',' '\n' <<<"$2" | awk -F : -v node="$1" '$1 == node { n = $2 } END { print n + 0 }'; }

case_cpuset_that_does_not_allow_it() {
  make_job t-job 0-1
  worker_in t-job --processes 1 --nodes 0-1 --anon 2
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2-3
  [[ $err == *--set-cpuset* ]] || fail "the message does not tell of --set-cpuset: $err"
  layout 0-1
  not_held || fail "the job is held"
}

# fill_up NODE KEEP_MIB: the pool takes what it did not get at once, being scattered.
fill_up() {
  local pool=/sys/devices/system/node/node$1/hugepages/hugepages-2048kB/nr_hugepages i more
  for ((i = 0; i < 5; i++)); do
    more=$((($(free_kib "$1") / 1024 - $2) / 2))
    [ $more -gt 2 ] || return 0
    echo 1 >/proc/sys/vm/compact_memory
    echo $(($(<"$pool") + more)) >"$pool"
  done
  echo "node $1: $(free_kib "$1") KiB free"
}

case_target_too_small() {
  make_job t-job 0-3
  worker_in t-job --nodes 0-1 --anon 10
  fill_node 2 24
  fill_up 2 24
  look >/tmp/before
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2
  [[ $err =~ node\ 2 && $err =~ [0-9]\ ?[KMG]i?B ]] || fail "the message names neither node nor what is missing: $err"
  look >/tmp/after
  same_place /tmp/before /tmp/after "pages have moved"
  not_held || fail "the job is held"
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2 --partial --json
  not_held || fail "the job is held"
  tell
  [ "${told[failed_pages]}" -gt 0 ] || fail "no page has failed: $(look)"
  look | tee /tmp/after | awk -v moved="${told[anonymous moved_pages]}" '
    { n = split($4, list, ","); for (i = 1; i <= n; i++) { split(list[i], p, ":"); pages += p[2]; there[p[1]] += p[2] } }
    END {
      # libc has a few pages of the kind, too.
      if (pages != 10240 || moved - there[2] < 0 || moved - there[2] > 100) { print pages, moved, there[2]; exit 1 }
    }' || fail "pages are missing, or not where they are told to be: $(cat /tmp/after)"
  computes_on
  release_nodes
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 2
  layout 2
  computes_on
}

case_killed_in_a_cgroup() {
  cache_over $data/private.so 0-1
  setfpolicy migrate=private $data/private.so
  make_job t-job 0-1
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --thp 4 --library $data/private.so:64
  pagewhere $data/private.so >/tmp/library.before
  killed_at_random_moments 60 --cgroup t-job --set-cpuset
  equal 2-3 "$(cat $cg/t-job/cpuset.mems)" "cpuset.mems"
  same_place /tmp/library.before <(pagewhere $data/private.so) "the library has moved"
}
case_killed_and_finished() {
  # Overlapping sets: node 1 is left and arrived at. A second run must tell the pages that have arrived from those that
  # have yet to leave.
  local i pid frozen halfway=0
  make_job t-job 0-1
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --thp 4
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset --json
  tell
  frozen=$(awk -v seconds="${told[frozen_seconds]}" 'BEGIN { print int(seconds * 1000000) }')
  for ((i = 1; i <= 12 && halfway < 4; i++)); do
    expect_status 0 migratejob --cgroup t-job --from 1-2 --to 0-1 --set-cpuset
    migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset >/tmp/out 2>/tmp/err &
    pid=$!
    while not_held && kill -0 $pid 2>/dev/null; do nap 0.005; done
    nap_microseconds $((frozen * ((i - 1) % 6) / 6))
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    released || fail "run $i: frozen"
    # Killed when all was done, it must not be asked again: that would be another move.
    layout 1-2 2>/dev/null && continue
    layout 0-1 2>/dev/null || halfway=$((halfway + 1))
    expect_status 0 migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset
    layout 1-2
  done
  echo "note: $halfway of $((i - 1)) were killed halfway"
  [ $halfway -gt 0 ] || fail "none was killed halfway"
  computes_on
}

case_killed_with_processes() {
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --thp 4
  killed_at_random_moments 40 --pid "$job_pid" --tree
}
# killed_at_random_moments COUNT OPTION...: of moves from 0-1 to 2-3 and back; the last move, to 2-3, is not.
killed_at_random_moments() {
  local count=$1 i pairs=("0-1 2-3" "2-3 0-1") pid status began took delay killed=0 held=0
  shift
  began=${EPOCHREALTIME/./}
  expect_status 0 migratejob --from 0-1 --to 2-3 "$@"
  took=$((${EPOCHREALTIME/./} - began))
  for ((i = 1; i <= count; i++)); do
    set_pair ${pairs[i % 2]}
    migratejob --from "$from" --to "$to" "$@" >/tmp/out 2>/tmp/err &
    pid=$!
    delay=$(((RANDOM * 32768 + RANDOM) % took))
    nap_microseconds $delay
    kill -9 "$pid" 2>/dev/null || true
    not_held || held=$((held + 1))
    status=0
    wait "$pid" || status=$?
    # How long a run takes varies with what else the host does: the moments keep close to most of one.
    if [ $status -eq 137 ]; then
      killed=$((killed + 1)) took=$((took + took / 50))
    else
      took=$(((took + delay) / 2))
    fi
    [ $status -eq 137 ] || [ $status -eq 0 ] || fail "run $i ended with $status: $(cat /tmp/err)"
    released || fail "run $i, killed after $delay us of $took: frozen or stopped"
    [[ $(<$cg/t-job/cpuset.mems) =~ ^(0-1|2-3|0-3)$ ]] || fail "run $i: cpuset.mems is $(<$cg/t-job/cpuset.mems)"
  done
  echo "note: of $count runs of about $((took / 1000)) ms $killed were killed, $held of them with the job held"
  if [ $killed -lt $((count / 2)) ] || [ $held -eq 0 ]; then fail "too few were killed in the middle"; fi
  within 2 "no process of migratejob is left" none_left
  expect_status 0 migratejob --from 0-1 --to 2-3 --verify "$@"
  layout 2-3
  computes_on
}
set_pair() { from=$1 to=$2; }
none_left() { ! pgrep -x migratejob; }
# slowly FROM TO OPTION...: a move of seconds in the background, its pid in $mover. Background jobs of scripts ignore SIGINT.
slowly() {
  env --default-signal=INT migratejob --cgroup t-job --from "$1" --to "$2" --max-mbps 5 --json "${@:3}" >/tmp/report.json \
    2>/tmp/mover.err &
  mover=$!
  within 10 "the job is frozen" grep -q 'frozen 1' $cg/t-job/cgroup.events
}

case_interrupted() {
  local status=0
  make_job t-job 0
  worker_in t-job --processes 2 --anon 16
  computes_on
  slowly 0 2 --set-cpuset
  # One at a time.
  expect_status 1 migratejob --cgroup t-job --from 0 --to 3 --set-cpuset
  [ -n "$err" ] || fail "no message about the other migratejob"
  nap 1
  kill -INT "$mover"
  wait "$mover" || status=$?
  equal 1 $status "exit status after SIGINT: $(cat /tmp/mover.err)"
  not_held || fail "the job is held"
  tell /tmp/report.json
  if [ "${told[moved_pages]}" -eq 0 ] || [ "${told[moved_pages]}" -ge 8192 ]; then fail "moved: ${told[moved_pages]} pages"; fi
  [ -s /tmp/mover.err ] || fail "nothing was said about the interruption"
  totals_agree pages_by_node_after
  computes_on
  expect_status 0 migratejob --cgroup t-job --from 0 --to 2 --set-cpuset
  layout 2
  computes_on
}

case_job_and_cgroup_go_meanwhile() {
  local status=0
  make_job t-job 0-3
  worker_in t-job --processes 2 --anon 16
  slowly 0 2
  kill -9 $(processes)
  within 5 "the cgroup can be removed" rmdir $cg/t-job
  wait "$mover" || status=$?
  [ $status -le 1 ] || fail "exit status $status: $(cat /tmp/mover.err)"
  [ $status -eq 0 ] || [ -s /tmp/mover.err ] || fail "status 1 without a message"
  tell /tmp/report.json
  echo "note: status $status, ${told[moved_pages]} pages moved, ${told[vanished_pages]} vanished"
  none_left || fail "migratejob is left"
}

case_thread_pool_that_runs_on() {
  local left status=0
  make_job t-job 0-3
  worker_in t-job --processes 1 --anon 16 --churn 4 --policy bind:0
  timeout 120 migratejob --cgroup t-job --from 0 --to 1 --no-freeze --json >/tmp/report.json 2>/tmp/err || status=$?
  [ $status -le 1 ] || fail "exit status $status: $(cat /tmp/err)"
  # Every page that is left is told; and status 0 says there was none.
  left=$(on 0 "$(located anon)")
  tell /tmp/report.json
  echo "note: status $status; ${told[moved_pages]} pages moved, ${told[busy_pages]} busy, ${told[failed_pages]} failed, \
${told[vanished_pages]} vanished; of 4096 that stay mapped $left left"
  [ "$left" -le $((told[busy_pages] + told[failed_pages])) ] || fail "left: $left; $(cat /tmp/report.json)"
  [ $status -eq 1 ] || equal 0 $((told[busy_pages] + told[failed_pages])) "pages left, with status 0"
  [[ ${told[frozen_seconds]} =~ ^0(\.0)?$ ]] || fail "frozen for ${told[frozen_seconds]} s"
  equal 4096 $((left + $(on 1 "$(located anon)"))) "pages of the memory that stays mapped"
  computes_on
  # Frozen, it is moved like any other.
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 --verify --json
  tell
  equal 0 "${told[misplaced_pages]}" "misplaced pages"
  layout 1
  computes_on
}

case_children_come_and_go() {
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 4 --spawn --pause 0
  local status=0 option
  for option in --no-freeze --pre-copy; do
    status=0
    timeout 120 migratejob --cgroup t-job --from 0-1 --to 2-3 $option --json >/tmp/report.json 2>/tmp/err || status=$?
    [ $status -le 1 ] || fail "exit status $status: $(cat /tmp/err)"
    tell /tmp/report.json
    [ "${told[moved_pages]}" -ge 2048 ] || fail "moved: $(cat /tmp/report.json)"
    [ $status -eq 1 ] || nearly_layout 2-3
    computes_on
    echo "note: $option: status $status; ${told[moved_pages]} pages moved, ${told[busy_pages]} busy, ${told[vanished_pages]} vanished"
    expect_status 0 migratejob --cgroup t-job --from 2-3 --to 0-1
    nearly_layout 0-1
    computes_on
  done
}
# Who writes to a page that is just being moved, and was shared with a child before, gets a copy of his own, where he runs.
nearly_layout() {
  local wrong
  wrong=$(look | awk -v nodes="$(expand "$1")" '
    BEGIN { split(nodes, node, " ") }
    $1 == "anon" {
      n = split($4, list, ",")
      for (i = 1; i <= n; i++) {
        split(list[i], pair, ":")
        pages += pair[2]
        if (pair[1] != node[$2 + 1]) stray += pair[2]
      }
    }
    END { if (pages != 2048 || stray > 64) print pages " pages, of which " stray + 0 " lie elsewhere" }')
  [ -z "$wrong" ] || fail "not laid out over $1: $wrong"
}

case_refusals() {
  make_job t-job 0-3
  worker_in t-job --processes 1 --anon 2
  expect_status 1 migratejob --cgroup t-nowhere --from 0 --to 1
  [[ $err == *t-nowhere* ]] || fail "the message does not name the cgroup: $err"
  expect_status 1 migratejob --pid 999999 --from 0 --to 1
  [[ $err == *process* ]] || fail "the message tells of no process: $err"
  expect_status 1 as_user user migratejob --cgroup t-job --from 0 --to 1
  [ -n "$err" ] || fail "no message without privilege"
  expect_status 1 as_user user migratejob --pid "$job_pid" --from 0 --to 1
  [ -n "$err" ] || fail "no message without privilege"
  # A node that is not there.
  if migratejob --cgroup t-job --from 0 --to 7 2>/tmp/err; then fail "moved to node 7"; fi
  grep -q 7 /tmp/err || fail "the message does not name the node: $(cat /tmp/err)"
  local usage
  while read -r usage; do
    expect_status 2 migratejob $usage
    [ -n "$err" ] || fail "no message: $usage"
  done <<END

--cgroup t-job
--cgroup t-job --from 0
--from 0 --to 1
--cgroup t-job --pid $job_pid --from 0 --to 1
--pid x --from 0 --to 1
--cgroup t-job --from x --to 1
--cgroup t-job --from 0 --to
--pid $job_pid --from 0 --to 1 --set-cpuset
--cgroup t-job --from 0 --to 1 --cpus 1
--cgroup t-job --from 0 --to 1 --threads x
--cgroup t-job --from 0 --to 1 --max-mbps -1
END
  layout 0
  not_held || fail "the job is held"
  computes_on
}
