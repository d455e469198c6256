#!/bin/bash
# shellcheck disable=SC2154,SC2034,SC2016,SC2046,SC2086 # lib.sh and migrate.sh share variables; jq expands itself; no word has spaces
# policyd moves jobs for whoever may ask. Where pages lie is told by pagewhere, what the job thinks of it by worker.

# shellcheck source=tests/guest/cases/migrate.sh
. "$(dirname "${BASH_SOURCE[0]}")/migrate.sh" # worker_in, layout, move, not_held...

# user_worker_in NAME ARGUMENTS...: as worker_in, a job of `user`.
user_worker_in() {
  local name=$1
  shift
  rm -f /tmp/job.out /tmp/table
  answers=0 steps=0 # of computes_on
  install -o user -m 644 /dev/null /tmp/table
  in_job "$name" setpriv --reuid=user --regid=user --clear-groups -- worker --table /tmp/table "$@"
  within 20 "worker in $name" grep -q ready /tmp/job.out
}

# asked FROM TO OPTION...: a move of seconds in the background, the client's pid in $mover.
asked() {
  env --default-signal=INT policyctl migrate --from "$1" --to "$2" --max-mbps "${mbps:-8}" --json "${@:3}" >/tmp/report.json \
    2>/tmp/mover.err &
  mover=$!
  within 10 "the job is held" is_held || {
    cat /tmp/mover.err /tmp/report.json >&2
    return 1
  }
}
is_held() { ! not_held; }
# some_on NODE: private pages of the job's first process
some_on() { [[ " $(pagewhere --anon "$job_pid")" == *" $1:"* ]]; }

last_event() { policyctl events --json | jq -c 'select(.kind == "migrate")' | tail -n 1; }

case_root_moves_a_job() {
  # All that migratejob's own cases look at: the plan, the report, every page.
  # shellcheck disable=SC2317 # called by move
  migratejob() { policyctl migrate "$@"; }
  start_policyd
  standard_job 0-1
  move 0-1 1-2 --set-cpuset
  layout_of_own 1-2
  equal "/t-job $(jq .moved_pages /tmp/report.json)" "$(last_event | jq -r '"\(.cgroup) \(.moved_pages)"')" "the event"
  # For people, too.
  expect_status 0 policyctl migrate --cgroup t-job --from 1-2 --to 1-2 -n
  [[ $out == *"$data/no.dat"*migrate=no* ]] || fail "the plan: $out"
}

case_processes_are_moved() {
  start_policyd
  worker_alone --nodes 0-1 --anon 4
  expect_status 0 policyctl migrate --pid "$job_pid" --tree --from 0-1 --to 2-3 --verify --json
  equal '4 0' "$(jq -r '"\(.processes) \(.misplaced_pages)"' <<<"$out")" "processes, misplaced pages"
  layout 2-3
  not_held || fail "a process is stopped"
  computes_on
}

case_users_own_job() {
  start_policyd
  cache_over $data/own.so 0
  cache_over $data/outside.so 0 4M
  setfpolicy migrate=yes $data/outside.so
  map_outside 0 $data/outside.so
  make_job t-job 0-2
  user_worker_in t-job --processes 2 --nodes 0 --anon 4 --library $data/own.so:64 --library $data/outside.so:64
  computes_on
  expect_status 0 as_user user policyctl migrate --cgroup t-job --from 0 --to 2 --json --verify
  cp /tmp/out /tmp/report.json
  layout 2
  computes_on
  # What others map too stays, also within the job, and whatever the policy says: no user may move it.
  all_on 0 $data/outside.so 1024
  equal 0 "$(group $data/outside.so | jq '.pages_by_node_after["2"] - 128')" "pages of outside.so on node 2 but for copies"
  totals_agree pages_by_node_after
  equal "/t-job $(jq .moved_pages /tmp/report.json)" "$(last_event | jq -r '"\(.cgroup) \(.moved_pages)"')" "the event"
  [[ $(last_event | jq -r .message) == *"user $(id -u user)"* ]] || fail "the event does not name the user: $(last_event)"
  # By its processes.
  expect_status 0 as_user user policyctl migrate --pid "$job_pid" --tree --from 2 --to 1
  layout 1
  not_held || fail "the job is held"
  computes_on
  # Only where the cpuset lets them.
  expect_status 1 as_user user policyctl migrate --cgroup t-job --from 1 --to 3
  layout 1
  expect_status 1 as_user user policyctl migrate --cgroup t-job --from 1 --to 3 --set-cpuset
  [[ $err == *root* ]] || fail "the message does not say who may: $err"
  expect_status 1 as_user user policyctl migrate --cgroup t-job --from 1 --to 2 --set-cpuset
  equal 0-2 "$(cat $cg/t-job/cpuset.mems)" "cpuset.mems"
  layout 1
}

case_users_are_refused_what_is_not_theirs() {
  start_policyd
  make_job t-job 0-3
  user_worker_in t-job --processes 2 --anon 2
  expect_status 1 as_user other policyctl migrate --cgroup t-job --from 0 --to 1
  [[ $err == *"user $(id -u other)"* ]] || fail "message: $err"
  expect_status 1 as_user other policyctl migrate --cgroup t-job --from 0 --to 1 --dry-run
  expect_status 1 as_user other policyctl migrate --pid "$job_pid" --from 0 --to 1
  expect_status 1 as_user other policyctl migrate --pid 1 --from 0 --to 1
  layout 0
  # Nobody moves, nor freezes, a cgroup in which one process is another's.
  bash -c 'echo $$ >"$1/cgroup.procs"; exec sleep 600' in_job $cg/t-job &
  local roots=$!
  within 5 "root's process is there" grep -qx $roots $cg/t-job/cgroup.procs
  expect_status 1 as_user user policyctl migrate --cgroup t-job --from 0 --to 1
  [[ $err == *$roots* ]] || fail "the message does not name the process: $err"
  layout 0
  not_held || fail "the job is held"
  kill $roots
  # A program that its user may not look into, with all ids the user's.
  cp "$(command -v mapper)" /tmp/unreadable
  chmod 711 /tmp/unreadable
  # setpriv itself keeps root's capabilities until it executes a program.
  as_user user bash -c 'exec /tmp/unreadable --anon 1' >/tmp/unreadable.out 2>&1 &
  within 5 "it runs" grep -q ready /tmp/unreadable.out
  local unreadable
  unreadable=$(pgrep -x unreadable)
  grep -q "^Uid:[^0-9]*$(id -u user)[^0-9]*$(id -u user)[^0-9]*$(id -u user)[^0-9]" /proc/$unreadable/status
  expect_status 1 as_user user policyctl migrate --pid $unreadable --from 0 --to 1
  [[ $err == *$unreadable* ]] || fail "the message does not name the process: $err"
  kill $unreadable
  # policyd and what it lives in.
  expect_status 1 policyctl migrate --pid "$policyd_pid" --from 0 --to 1
  computes_on
}

case_one_move_of_a_user_at_a_time() {
  start_policyd
  make_job t-job 0-3
  user_worker_in t-job --processes 2 --anon 16
  setpriv --reuid=user --regid=user --clear-groups -- env --default-signal=INT policyctl migrate --cgroup t-job --from 0 \
    --to 2 --max-mbps 8 >/tmp/out 2>/tmp/mover.err &
  mover=$!
  within 10 "the job is frozen" grep -q 'frozen 1' $cg/t-job/cgroup.events
  # One job at a time.
  expect_status 1 as_user user policyctl migrate --cgroup t-job --from 0 --to 1
  [ -n "$err" ] || fail "no message about the other move"
  kill -INT "$mover"
  wait "$mover" || true
  within 2 "the caller has gone: the job goes on" not_held
  computes_on
}

case_caller_who_hangs_up() {
  start_policyd
  make_job t-job 0
  worker_in t-job --processes 2 --anon 16
  asked 0 2 --cgroup t-job --set-cpuset
  within 5 "pages have moved" some_on 2
  kill -INT "$mover"
  local status=0
  wait "$mover" || status=$?
  [ $status -ne 0 ] || fail "an interrupted client ended with 0"
  within 2 "the job goes on" not_held
  within 2 "the event" stopped_is_told
  last_event | jq -e '.moved_pages > 0 and .moved_pages < 8192' >/dev/null || fail "$(last_event)"
  computes_on
  expect_status 0 policyctl migrate --cgroup t-job --from 0 --to 2 --set-cpuset
  layout 2
  computes_on
}
stopped_is_told() { [[ $(last_event) == *stopped* ]]; }

case_policyd_killed() {
  local i status option from to pair
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 24
  for pair in "0-1 2-3 --cgroup t-job" "2-3 0-1 --pid $job_pid --tree"; do
    read -r from to option <<<"$pair"
    for ((i = 1; i <= 4; i++)); do
      start_policyd
      asked "$from" "$to" $option
      nap_microseconds $((RANDOM * 10))
      kill -9 "$policyd_pid"
      released || fail "$option, run $i: frozen or stopped"
      status=0
      wait "$mover" || status=$?
      equal 1 $status "exit status of the client: $(cat /tmp/mover.err)"
      [ -s /tmp/mover.err ] || fail "the client says nothing"
      wait "$policyd_pid" || true
    done
    # Asked to end, it does so cleanly.
    start_policyd
    asked "$from" "$to" $option
    stop_policyd || fail "$option: policyd ended with $?: $(cat /tmp/policyd.log)"
    not_held || fail "$option: held after policyd has stopped"
    wait "$mover" || true
    start_policyd
    expect_status 0 policyctl migrate --from "$from" --to "$to" $option
    layout "$to"
    stop_policyd
  done
  computes_on
}

case_enforcement_goes_on() {
  start_policyd
  make_job t-job 0-3
  worker_in t-job --processes 2 --anon 16
  make_file /mnt/ext4/t/data 4 0
  make_job t-other 0
  make_file /mnt/ext4/t/tagged.so 4 0
  setfpolicy bind:0 /mnt/ext4/t/tagged.so
  local worker=$job_pid
  map_in_job t-other /mnt/ext4/t/tagged.so
  job_pid=$worker
  local mbps=1 # two minutes
  asked 0 2 --cgroup t-job
  setfpolicy bind:1 /mnt/ext4/t/data
  within 2 "a changed tag" all_on 1 /mnt/ext4/t/data 1024
  echo 3 >$cg/t-other/cpuset.mems
  within 2 "a moved job's library" all_on 0 /mnt/ext4/t/tagged.so 1024
  policyctl status >/dev/null
  # Another move beside it.
  within 5 "another move beside it" policyctl migrate --cgroup t-other --from 3 --to 1 --set-cpuset
  equal 1 "$(cat $cg/t-other/cpuset.mems)" "t-other's nodes"
  kill -0 "$mover" || fail "the slow move was over before: $(cat /tmp/mover.err)"
  is_held || fail "the slow move was over before: $(cat /tmp/mover.err)"
  kill -INT "$mover"
  wait "$mover" || true
  within 2 "the job goes on" not_held
  kill -0 "$worker" || fail "the job has ended"
}
