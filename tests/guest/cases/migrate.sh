#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2046,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word has spaces
# migratejob moves a job by its files' policies. Where pages lie is told by pagewhere, what the job thinks of it by worker.

# shellcheck source=tests/guest/cases/place.sh
. "$(dirname "${BASH_SOURCE[0]}")/place.sh" # fill_node

# The kernel's own balancing moves pages to where their process happens to run: with a job that is running again, what is
# found after a move would depend on how soon one looks.
[ ! -e /proc/sys/kernel/numa_balancing ] || echo 0 >/proc/sys/kernel/numa_balancing

data=/mnt/ext4/t
exec {never}<> <(:) # to wait on without a process: nothing ever comes
nap() { read -rt "$1" -u "$never" || true; }
nap_microseconds() { nap "$(($1 / 1000000)).$(printf '%06d' $(($1 % 1000000)))"; }

# expand LIST: "0-1,3" as words.
expand() {
  local part node list=()
  for part in ${1//,/ }; do
    for ((node = ${part%-*}; node <= ${part#*-}; node++)); do list+=("$node"); done
  done
  echo "${list[*]}"
}

# ---- a job

# worker_in NAME ARGUMENTS...: worker in the job, ready; its first process in $job_pid.
worker_in() {
  local name=$1
  shift
  rm -f /tmp/job.out
  answers=0 steps=0
  in_job "$name" worker --table /tmp/table "$@"
  within 20 "worker in $name" grep -q ready /tmp/job.out
}

# worker_alone ARGUMENTS...: the same in no cgroup of its own.
worker_alone() {
  rm -f /tmp/job.out
  answers=0 steps=0
  worker --table /tmp/table "$@" >/tmp/job.out 2>&1 &
  job_pid=$!
  within 20 "worker" grep -q ready /tmp/job.out
}

# The worker has worked since the last question, and finds in its memory what it put there.
computes_on() {
  local word now churned
  answers=$((answers + 1))
  kill -USR1 "$job_pid"
  within 20 "the worker's answer" answered >/dev/null
  read -r word now churned < <(grep -E '^(ok|wrong) ' /tmp/job.out | tail -n 1)
  [ "$word" = ok ] || fail "the worker says: $(cat /tmp/job.out)"
  [ "$now" -gt "$steps" ] || fail "the worker stands still at $now steps"
  steps=$now
  echo "worker: $now steps, $churned blocks churned"
}
answered() { [ "$(grep -cE '^(ok|wrong) ' /tmp/job.out)" -ge "$answers" ]; }

# cache_over PATH NODES: a file of random bytes, its pages in about equal parts over the nodes. (Read-ahead overlaps.)
cache_over() {
  local list kib i
  read -ra list <<<"$(expand "$2")"
  mkdir -p "$(dirname "$1")"
  [ -e "$1" ] || head -c "${3:-2M}" /dev/urandom >"$1"
  sync "$1"
  dd if="$1" iflag=nocache count=0 status=none
  kib=$(($(stat -c %s "$1") / 1024 / ${#list[@]}))
  for i in "${!list[@]}"; do
    on_node "${list[i]}" dd if="$1" of=/dev/null bs=${kib}K skip="$i" count=1 status=none
  done
}

# standard_job NODES: t-job, of four processes, with memory of many kinds over the nodes; an outsider maps two of its files.
standard_job() {
  local name nodes
  read -ra nodes <<<"$(expand "$1")"
  for name in private.so outside.so own.so yes.dat no.dat; do cache_over $data/$name "$1"; done
  setfpolicy migrate=private $data/private.so
  setfpolicy migrate=yes $data/yes.dat
  setfpolicy migrate=no $data/no.dat
  mkdir -p /tmp/t
  truncate -s 2M /tmp/t/segment
  # Huge pages are wanted on every node, by the job and by its move.
  echo 1 >/proc/sys/vm/compact_memory
  map_outside "${1%%[-,]*}" --exec $data/outside.so $data/yes.dat
  make_job t-job "$1"
  worker_in t-job --nodes "$1" --anon 2 --heap 1 --thp $((2 * ${#nodes[@]})) --library $data/private.so:64 --library $data/no.dat:64 \
    --library $data/outside.so --library $data/own.so --map $data/yes.dat --segment /tmp/t/segment
  computes_on # so that it has been everywhere it goes, and maps no new page later
  layout "$1"
}

processes() { cat $cg/t-job/cgroup.procs; }

# ---- where everything is

# merge: adds up the same kind and part of several processes. Lines: PROCESS KIND PART PAGES ANONYMOUS OTHER HUGE
merge() {
  awk '{
    key = $2 " " $3
    pages[key] += $4
    for (column = 5; column <= 7; column++) {
      n = split($column, list, ",")
      for (i = 1; i <= n; i++) if (split(list[i], pair, ":") == 2) count[key, column, pair[1]] += pair[2]
    }
  }
  END {
    for (key in pages) {
      line = key " " pages[key]
      for (column = 5; column <= 7; column++) {
        text = ""
        for (node = 0; node < 8; node++)
          if ((key, column, node) in count) text = text (text == "" ? "" : ",") node ":" count[key, column, node]
        line = line " " (text == "" ? "-" : text)
      }
      print line
    }
  }' | LC_ALL=C sort
}

# look: a line for each part of the worker's memory, over all its processes, and for the page cache of each file, where
# nodes are as NODE:COUNT,...: KIND PART PAGES ANONYMOUS OTHER HUGE
look() {
  {
    pagewhere --ranges </tmp/table
    [ -z "$(ls $data 2>/dev/null)" ] || pagewhere -H $data/* | awk '{
      text = $2
      for (i = 3; i <= NF; i++) text = text "," $i
      sub(".*/", "", $1); sub(":$", "", $1)
      print "x cache:" $1, 0, 0, "-", text == "" ? "-" : text, "-"
    }'
  } | merge
}

# predict FROM TO STAY <LOOK: what look will tell after a move; STAY is an expression for kinds of memory that stay.
predict() {
  awk -v from="$(expand "$1")" -v to="$(expand "$2")" -v stay="$3" '
  BEGIN {
    n = split(from, f, " "); m = split(to, t, " ")
    for (i = 1; i <= n; i++) target[f[i]] = t[(i - 1) % m + 1]
  }
  {
    line = "x " $1 " " $2 " " $3
    for (column = 4; column <= 6; column++) {
      text = ""
      k = split($column, list, ",")
      for (i = 1; i <= k; i++) {
        if (split(list[i], pair, ":") != 2) continue
        node = $1 !~ stay && pair[1] in target ? target[pair[1]] : pair[1]
        text = text (text == "" ? "" : ",") node ":" pair[2]
      }
      line = line " " (text == "" ? "-" : text)
    }
    print line
  }' | merge
}

# layout NODES: the k-th part of all that the worker touched is on the k-th of NODES, every page of it.
layout() {
  local wrong
  wrong=$(look | awk -v nodes="$(expand "$1")" '
    BEGIN { n = split(nodes, node, " ") }
    $1 !~ /^(file|cache):/ {
      wanted = node[$2 % n + 1] ":" $3
      if (($1 ~ /^(anon|heap|thp|hugetlb|cow)/ ? $4 : $5) != wanted) print
      else if ($1 ~ /^(thp|hugetlb)/ && $6 != wanted) print
      found = 1
    }
    END { if (!found) print "no memory at all" }')
  [ -z "$wrong" ] || fail "not laid out over $1: $wrong"
}

# located KIND [PART]: ANONYMOUS or OTHER of the kind: "0:512,1:512"
located() { look | awk -v kind="$1" -v part="${2:-0}" '$1 == kind && $2 == part { print $4 == "-" ? $5 : $4 }'; }

# on NODE LIST: the count of NODE in "0:512,1:512", or 0.
on() { tr ',' '\n' <<<"$2" | awk -F : -v node="$1" '$1 == node { n = $2 } END { print n + 0 }'; }

same_place() { diff "$1" "$2" >&2 || fail "$3"; }

# ---- moving

# group FILE: that of the file in the last report.
group() { jq -c --arg path "$1" '.groups[] | select(.path == $path)' /tmp/report.json; }

# by_node FILTER: an object of counts as "0:1,2:3".
by_node() {
  jq -r "$1"' | to_entries | map(select(.value > 0)) | sort_by(.key | tonumber) | map("\(.key):\(.value)") | join(",")' \
    "${2:-/tmp/report.json}"
}

# The report's pages by node are the locator's: everything that the job maps, each page once.
totals_agree() {
  equal "$(pagewhere --job $(processes) | awk '{
      n = split($1 "," $2, list, ",")
      for (i = 1; i <= n; i++) if (split(list[i], pair, ":") == 2) count[pair[1]] += pair[2]
    }
    END { for (node = 0; node < 8; node++) if (node in count) { printf "%s%d:%d", sep, node, count[node]; sep = "," } }')" \
    "$(by_node ".$1")" "$1"
}

# What a plan foretells. Where the kernel puts pages that it is forced to take along is not among it.
foretold='del(.dry_run, .mappings, .notes, .plan_seconds, .moving_seconds, .frozen_seconds, .quiet_pages,
  .gbytes_per_second, .misplaced_pages) |
  if .forced_pages > 0 then del(.pages_by_node_after) else . end |
  .groups |= (map(if .forced_pages > 0 then del(.pages_by_node_after) else . end) | sort_by(.kind, .path))'

# move FROM TO [OPTION...]: the standard job, foretold, done, and every page looked at.
move() {
  local from=$1 to=$2 stay='^(file|cache):(private|outside|no)[.]|^cow:no[.]' cow forced=0 moved name
  shift 2
  computes_on
  look >/tmp/before
  pagewhere --maps "$outside_pid" | grep -v yes.dat >/tmp/outside.before
  cow=$(awk '$1 ~ /^cow:no/ { split($4, list, ","); for (i in list) print list[i] }' /tmp/before)

  expect_status 0 migratejob --cgroup t-job --from "$from" --to "$to" --json --dry-run "$@"
  cp /tmp/out /tmp/plan.json
  cp /tmp/err /tmp/plan.err
  cp /tmp/out /tmp/report.json
  totals_agree pages_by_node
  look >/tmp/after
  same_place /tmp/before /tmp/after "a dry run has moved pages"

  expect_status 0 migratejob --cgroup t-job --from "$from" --to "$to" --verify --json "$@"
  cp /tmp/out /tmp/report.json
  cp /tmp/err /tmp/report.err
  not_held || fail "the job is not running"
  look >/tmp/after

  # COW pages of a migrate=no mapping whose node is taken away: none is missing, all are where the job may have them.
  if [[ " $* " == *" --set-cpuset "* ]]; then
    forced=$(awk -F : -v to=" $(expand "$to") " 'index(to, " " $1 " ") == 0 { n += $2 } END { print n + 0 }' <<<"$cow")
    equal "$to" "$(cat $cg/t-job/cpuset.mems)" "cpuset.mems"
  fi
  equal "$forced" "$(jq .forced_pages /tmp/plan.json)" "forced pages, in the plan"
  equal "$forced" "$(jq .forced_pages /tmp/report.json)" "forced pages, in the report"
  if [ "$forced" -gt 0 ]; then
    equal "256 0" "$(awk -v to=" $(expand "$to") " '$1 ~ /^cow:no/ {
        n = split($4, list, ",")
        for (i = 1; i <= n; i++) { split(list[i], p, ":"); pages += p[2]; if (index(to, " " p[1] " ") == 0) out += p[2] }
      }
      END { print pages, out + 0 }' /tmp/after)" "COW pages of no.dat, those outside the cpuset"
    for name in plan report; do
      grep -q "no.dat: $forced pages.*forced by cpuset" /tmp/$name.err || fail "not said in the $name: $(cat /tmp/$name.err)"
    done
    sed -i '/^cow:no/d' /tmp/before /tmp/after
  fi
  predict "$from" "$to" "$stay" </tmp/before >/tmp/expected
  same_place /tmp/expected /tmp/after "pages are not where the decisions put them"
  pagewhere --maps "$outside_pid" | grep -v yes.dat >/tmp/outside.after
  same_place /tmp/outside.before /tmp/outside.after "the outsider's pages have moved"
  computes_on

  same_place <(jq -S "$foretold" /tmp/plan.json) <(jq -S "$foretold" /tmp/report.json) "the plan foretold otherwise"
  totals_agree pages_by_node_after
  equal '4 0 0 0 0' "$(jq -r '"\(.processes) \(.busy_pages) \(.failed_pages) \(.vanished_pages) \(.misplaced_pages)"' \
    /tmp/report.json)" "processes; busy, failed, vanished and misplaced pages"
  moved=$(jq .moved_pages /tmp/report.json)
  equal "$moved" "$(jq '[.groups[].moved_pages] | add' /tmp/report.json)" "moved pages of all groups"
  equal "$((moved * 4096))" "$(jq .moved_bytes /tmp/report.json)" "bytes of $moved pages"
  jq -e '.frozen_seconds > 0 and .moving_seconds > 0' /tmp/report.json >/dev/null || fail "no time was told"
  equal 'follow migrate=yes' "$(group $data/yes.dat | jq -r '"\(.decision) \(.policy)"')" "yes.dat"
  equal 'stay migrate=no true' "$(group $data/no.dat | jq -r '"\(.decision) \(.policy) \(.private_stays)"')" "no.dat"
  equal 'stay migrate=private false' "$(group $data/private.so | jq -r '"\(.decision) \(.policy) \(.private_stays)"')" \
    "private.so"
  equal 'exclusive none 4 0' "$(group $data/outside.so | jq -r '"\(.decision) \(.source) \(.mappings) \(.moved_pages)"')" \
    "outside.so"
  equal exclusive "$(group $data/own.so | jq -r .decision)" "own.so"
  equal "$(system_source)" "$(group $data/no.dat | jq -r .source)" "source of no.dat's policy"
  for name in yes.dat own.so outside.so; do
    equal "$(nodes $data/$name | tr ' ' ',')" "$(group $data/$name | by_node .pages_by_node_after -)" "$name in the report"
  done
}

# not_held: no process of the job is frozen or stopped.
not_held() {
  local pid line
  if [ -d $cg/t-job ]; then
    [ "$(<$cg/t-job/cgroup.freeze)" = 0 ] || return 1
    [[ $(<$cg/t-job/cgroup.events) == *"frozen 0"* ]] || return 1
  fi
  for pid in "$job_pid" $(</proc/$job_pid/task/$job_pid/children); do
    while read -r line; do
      [[ $line != State:* ]] || break
    done <"/proc/$pid/status"
    [[ $line == State:*[RSD]\ * ]] || return 1
  done
}

# there_and_back FROM TO: a move there with --set-cpuset, and one back after the cpuset has been widened by hand.
there_and_back() {
  local from=$1 to=$2
  standard_job "$from"
  move "$from" "$to" --set-cpuset
  layout_of_own "$to"
  echo 0-3 >$cg/t-job/cpuset.mems
  move "$to" "$from"
  equal 0-3 "$(cat $cg/t-job/cpuset.mems)" "cpuset.mems, not to be set"
}
# Said once more, in the simplest way: the k-th part is on the k-th node.
layout_of_own() {
  local part list
  read -ra list <<<"$(expand "$1")"
  for part in 0 1; do
    equal "${list[part % ${#list[@]}]}:1024" "$(located anon $part)" "part $part of the first-touch memory"
    equal "${list[part % ${#list[@]}]}:2048" "$(located thp $part)" "part $part of the huge pages"
  done
}

case_disjoint() { there_and_back 0-1 2-3; }
case_overlapping() { there_and_back 0-1 1-2; }
case_overlapping_downwards_large_folios() {
  data=/mnt/xfs/t # whose page cache is of large folios from 6.12 on
  there_and_back 2-3 1-2
}
case_shrinking_and_growing() {
  standard_job 0-3
  move 0-3 1 --set-cpuset
  move 1 0-3 --set-cpuset # all from 1 to 0
  equal 0:512 "$(located anon 3)" "the last part of the first-touch memory"
  move 0-3 3
  move 3 0-3
}

case_memory_only_node() {
  [ -z "$(</sys/devices/system/node/node3/cpulist)" ] || skip "node 3 has a processor"
  make_job t-job 0-1
  worker_in t-job --processes 2 --nodes 0-1 --anon 4 --thp 4
  # A paused job goes to the slow memory, and stays paused.
  kill -STOP "$job_pid"
  migratejob --cgroup t-job --from 0-1 --to 3 --set-cpuset
  layout 3
  grep -q '^State:.T' /proc/$job_pid/status || fail "the job has been continued"
  migratejob --cgroup t-job --from 3 --to 0-1 --set-cpuset
  kill -CONT "$job_pid"
  layout 0
  computes_on
}

case_memory_without_a_name() {
  # Each kind of memory that has no name, or has lost it; none is mapped outside, none has a policy.
  mkdir -p /tmp/t
  truncate -s 2M /tmp/t/own /tmp/t/shared /tmp/t/stays
  cache_over $data/deleted 0-1
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --lock --segment /tmp/t/own --segment /tmp/t/shared \
    --segment /tmp/t/stays --sysv 2 --memfd 2 --shared-anonymous 2 --map $data/deleted
  setfpolicy migrate=no /tmp/t/stays
  map_outside 0 /tmp/t/shared
  rm $data/deleted
  computes_on
  look >/tmp/before
  expect_status 0 migratejob --cgroup $cg/t-job --from 0-1 --to 3,2 --json
  cp /tmp/out /tmp/report.json
  look >/tmp/after
  predict 0-1 2-3 '^segment:(shared|stays)$' </tmp/before >/tmp/expected
  same_place /tmp/expected /tmp/after "pages are not where the decisions put them"
  equal 2 "$(awk '$1 == "segment:own" && $5 == 2 + $2 ":256"' /tmp/after | wc -l)" "parts of the segment in place"
  computes_on
  totals_agree pages_by_node_after
  equal "stay true" "$(group /tmp/t/stays | jq -r '"\(.decision) \(.private_stays)"')" "the tagged segment"
  [[ $(jq -r '.groups[].path' /tmp/report.json) == *"$data/deleted (deleted)"* ]] || fail "the deleted file is not named"
}

case_hugetlb() {
  local node
  for node in 0 1 2; do echo 12 >/sys/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages; done
  truncate -s 8M /dev/hugepages/t
  make_job t-job 0-2
  worker_in t-job --processes 2 --nodes 0-1 --hugetlb 8 --segment /dev/hugepages/t
  layout 0-1
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 1-2 --json
  layout 1-2
  computes_on
  kill -9 "$job_pid"
  rm /dev/hugepages/t
}

case_placements() {
  # relative: the second of the job's nodes; its nodes in turn. Absolute: stays, wherever it is.
  local name
  for name in second.dat turns.dat home.dat home.so rule.dat; do cache_over $data/$name 0; done
  setfpolicy bind:+1 $data/second.dat
  setfpolicy interleave:+0-1 $data/turns.dat
  setfpolicy bind:0 $data/home.dat
  setfpolicy bind:1 $data/home.so
  mkdir -p /tmp/t/rules
  printf '%s/rule*\tmigrate=no\n' $data >/tmp/t/rules/10.rules
  make_job t-job 0-1
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --map $data/second.dat --map $data/turns.dat --map $data/home.dat \
    --library $data/home.so:64 --map $data/rule.dat
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 2-3 --set-cpuset --rules /tmp/t/rules --json --verify
  cp /tmp/out /tmp/report.json
  all_on 3 $data/second.dat 512
  equal "512 0" "$(pagewhere --each $data/turns.dat | awk '$2 != 2 + $1 % 2 { bad++ } END { print NR, bad + 0 }')" \
    "pages of turns.dat, those off their slot"
  all_on 0 $data/home.dat 512
  all_on 0 $data/home.so 512
  all_on 0 $data/rule.dat 512
  layout 2-3 # the copies that the processes made of home.so, too
  equal "placement placement stay stay stay" "$(for name in second.dat turns.dat home.dat home.so rule.dat; do
    group $data/$name | jq -r .decision
  done | paste -sd ' ')" "decisions"
  equal rule "$(group $data/rule.dat | jq -r .source)" "source"
  computes_on
}

case_processes() {
  local children stopped
  cache_over $data/own.so 0
  worker_alone --nodes 0-1 --anon 2 --thp 4 --library $data/own.so:64
  read -ra children <<<"$(</proc/$job_pid/task/$job_pid/children)"
  stopped=${children[1]}
  # The first alone: what the others map stays.
  computes_on
  expect_status 0 migratejob --pid "$job_pid" --from 0-1 --to 2-3 --json
  equal '1' "$(jq .processes <<<"$out")" "processes"
  equal "0:768,2:256 1:768,3:256" "$(located anon 0) $(located anon 1)" "one process' quarter is moved"
  all_on 0 $data/own.so 512
  # Its tree: all go, one of them stopped, which it stays.
  kill -STOP "$stopped"
  expect_status 0 migratejob --pid "$job_pid" --tree --from 0-1 --to 2-3 --json --verify
  equal '4 0' "$(jq -r '"\(.processes) \(.misplaced_pages)"' <<<"$out")" "processes, misplaced pages"
  layout 2-3
  equal 2:1792 "$(located file:own.so)" "the library that only they map"
  [[ $(<"/proc/$stopped/status") == *State:?T* ]] || fail "the process that was stopped has been continued"
  kill -CONT "$stopped"
  within 1 "no other is stopped" not_held
  computes_on
  # One by one. Stopped ones are counted in none but the kernel's books: the others are continued again.
  expect_status 0 migratejob --pid "$job_pid,$(IFS=, && echo "${children[*]}")" --from 2-3 --to 0-1
  layout 0-1
  not_held || fail "a process is stopped"
  computes_on
}

case_children_of_the_cgroup() {
  make_job t-tree 0-1
  echo +cpuset >$cg/t-tree/cgroup.subtree_control
  make_job t-tree/a 0
  make_job t-tree/b 1
  mkdir $cg/t-tree/c # as its parent
  worker_in t-tree/a --processes 2 --nodes 0 --anon 4
  map_in_job t-tree/b --anon 8
  local b=$job_pid
  expect_status 0 migratejob --cgroup t-tree --from 0-1 --to 2-3 --set-cpuset --cpus 2-3
  equal 2-3,2,3,,2-3 "$(cd $cg/t-tree && cat cpuset.mems a/cpuset.mems b/cpuset.mems c/cpuset.mems cpuset.cpus |
    paste -sd ,)" "cpuset.mems of the tree, of a, b and c; cpus"
  layout 2
  [[ $(pagewhere --anon "$b") =~ ^3:[0-9]+$ ]] || fail "b's memory: $(pagewhere --anon "$b")"
  kill -9 $(cat $cg/t-tree/a/cgroup.procs $cg/t-tree/b/cgroup.procs)
  within 5 "its cgroups are empty" rmdir $cg/t-tree/a $cg/t-tree/b $cg/t-tree/c
}

# As the kernel tells it of the first process' memory.
policy_of() {
  awk 'NR == FNR { if ($3 == 0 && $4 == "anon" && $5 == 0) { split($2, range, "-"); start = range[1] } next }
    $1 == start { print $2 }' /tmp/table /proc/$job_pid/numa_maps
}
case_memory_policies() {
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --policy bind:1
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 2-3 --json
  layout 2-3
  equal bind:1 "$(policy_of)" "the worker's policy"
  jq -r '.notes[]' <<<"$out" | grep -q "polic.*bind:1" || fail "no note names the policy: $out"
  kill "$job_pid"
  wait "$job_pid"
  # A cpuset that is set rebinds policies.
  echo 0-1 >$cg/t-job/cpuset.mems
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --policy bind:1
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 2-3 --set-cpuset --json
  layout 2-3
  equal bind:3 "$(policy_of)" "the worker's policy"
  jq -r '.notes[]' <<<"$out" | grep -q polic && fail "a policy is complained of that has been rebound: $out"
  kill "$job_pid"
  wait "$job_pid"
  # Static nodes stay what they are in any cpuset.
  echo 0 >$cg/t-job/cpuset.mems
  worker_in t-job --processes 1 --anon 2 --policy static:0
  equal bind=static:0 "$(policy_of)" "the worker's policy"
  expect_status 0 migratejob --cgroup t-job --from 0 --to 2 --set-cpuset --json
  layout 2
  jq -r '.notes[]' <<<"$out" | grep -qi 'polic' || fail "no note names the policy: $out"
  computes_on
}

case_cpuset_that_does_not_allow_it() {
  make_job t-job 0-1
  worker_in t-job --processes 1 --nodes 0-1 --anon 2
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2-3
  [[ $err == *--set-cpuset* ]] || fail "the message does not tell of --set-cpuset: $err"
  layout 0-1
  not_held || fail "the job is held"
}

case_target_too_small() {
  make_job t-job 0-3
  worker_in t-job --nodes 0-1 --anon 10
  fill_node 2 24
  look >/tmp/before
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2
  [[ $err =~ node\ 2 && $err =~ [0-9]\ ?[KMG]i?B ]] || fail "the message names neither node nor what is missing: $err"
  look >/tmp/after
  same_place /tmp/before /tmp/after "pages have moved"
  not_held || fail "the job is held"
  expect_status 1 migratejob --cgroup t-job --from 0-1 --to 2 --partial --json
  not_held || fail "the job is held"
  cp /tmp/out /tmp/report.json
  jq -e '.failed_pages > 0' /tmp/report.json >/dev/null || fail "no page has failed: $(look)"
  totals_agree pages_by_node_after
  look | awk '{ n = split($4, list, ","); for (i = 1; i <= n; i++) { split(list[i], p, ":"); pages += p[2] } }
    END { exit pages != 10240 }' || fail "pages are missing: $(look)"
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
  worker_in t-job --processes 2 --nodes 0-1 --anon 4 --thp 4 --library $data/private.so:64
  pagewhere $data/private.so >/tmp/library.before
  killed_at_random_moments 60 --cgroup t-job --set-cpuset
  equal 2-3 "$(cat $cg/t-job/cpuset.mems)" "cpuset.mems"
  same_place /tmp/library.before <(pagewhere $data/private.so) "the library has moved"
}
case_killed_and_finished() {
  # Overlapping sets: node 1 is left and arrived at. A second run must tell the pages that have arrived from those that
  # have yet to leave.
  local i pid took began halfway=0
  make_job t-job 0-1
  worker_in t-job --processes 2 --nodes 0-1 --anon 4 --thp 4
  began=${EPOCHREALTIME/./}
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset
  took=$((${EPOCHREALTIME/./} - began))
  for ((i = 1; i <= 6; i++)); do
    expect_status 0 migratejob --cgroup t-job --from 1-2 --to 0-1 --set-cpuset
    migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset >/tmp/out 2>/tmp/err &
    pid=$!
    nap_microseconds $((took * (i + 2) / 10))
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    released || fail "run $i: frozen"
    # Killed when all was done, it must not be asked again: that would be another move.
    layout 1-2 2>/dev/null && continue
    layout 0-1 2>/dev/null || halfway=$((halfway + 1))
    expect_status 0 migratejob --cgroup t-job --from 0-1 --to 1-2 --set-cpuset
    layout 1-2
  done
  echo "note: $halfway of 6 were killed halfway"
  computes_on
}
case_killed_with_processes() {
  make_job t-job 0-3
  worker_in t-job --processes 2 --nodes 0-1 --anon 4 --thp 4
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
    [ $status -ne 137 ] || killed=$((killed + 1))
    [ $status -eq 137 ] || [ $status -eq 0 ] || fail "run $i ended with $status: $(cat /tmp/err)"
    released || fail "run $i, killed after $delay us of $took: frozen or stopped"
    [[ $(<$cg/t-job/cpuset.mems) =~ ^(0-1|2-3|0-3)$ ]] || fail "run $i: cpuset.mems is $(<$cg/t-job/cpuset.mems)"
  done
  echo "note: of $count runs of $((took / 1000)) ms $killed were killed, $held of them with the job held"
  if [ $killed -lt $((count / 2)) ] || [ $held -eq 0 ]; then fail "too few were killed in the middle"; fi
  within 2 "no process of migratejob is left" none_left
  expect_status 0 migratejob --from 0-1 --to 2-3 --verify "$@"
  layout 2-3
  computes_on
}
set_pair() { from=$1 to=$2; }
none_left() { ! pgrep -x migratejob; }
# Within a second. The job's steps go on, too: it is asked in the end.
released() {
  local i
  for ((i = 0; i < 50 * patience; i++)); do
    ! not_held || return 0
    nap 0.02
  done
  return 1
}

# slowly FROM TO OPTION...: a move of seconds in the background, its pid in $mover. Background jobs of scripts ignore SIGINT.
slowly() {
  env --default-signal=INT migratejob --cgroup t-job --from "$1" --to "$2" --max-mbps 8 --json "${@:3}" >/tmp/report.json \
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
  jq -e '.moved_pages > 0 and .moved_pages < 8192' /tmp/report.json >/dev/null || fail "$(cat /tmp/report.json /tmp/mover.err)"
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
  jq -e .vanished_pages /tmp/report.json >/dev/null || fail "no report: $(cat /tmp/mover.err)"
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
  echo "note: status $status, $(jq -c '[.moved_pages, .busy_pages, .failed_pages, .vanished_pages]' /tmp/report.json) pages \
moved, busy, failed, vanished; $left of 4096 that stay mapped left"
  [ "$left" -le "$(jq '.busy_pages + .failed_pages' /tmp/report.json)" ] || fail "left: $left; $(cat /tmp/report.json)"
  [ $status -eq 1 ] || equal 0 "$(jq '.busy_pages + .failed_pages' /tmp/report.json)" "pages left, with status 0"
  equal 0 "$(jq '.frozen_seconds * 1000 | floor' /tmp/report.json)" "frozen time"
  equal 4096 $((left + $(on 1 "$(located anon)"))) "pages of the memory that stays mapped"
  computes_on
  # Frozen, it is moved like any other.
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 --verify --json
  equal 0 "$(jq .misplaced_pages <<<"$out")" "misplaced pages"
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
    jq -e '.moved_pages >= 2048' /tmp/report.json >/dev/null || fail "moved: $(cat /tmp/report.json)"
    [ $status -eq 1 ] || layout 2-3
    computes_on
    echo "note: $option: status $status, $(jq -c '[.moved_pages, .busy_pages, .vanished_pages]' /tmp/report.json)"
    expect_status 0 migratejob --cgroup t-job --from 2-3 --to 0-1
    layout 0-1
    computes_on
  done
}

case_options() {
  local began took
  cache_over $data/lib.so 0
  setfpolicy migrate=private $data/lib.so
  make_job t-job 0-3
  worker_in t-job --processes 2 --anon 8 --library $data/lib.so
  # For people.
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 -n
  [[ $out == *"$data/lib.so"* && $out == *migrate=private* && $out == *stay* ]] || fail "the plan: $out"
  layout 0
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 --threads 2
  [[ $out == *"GB/s"* ]] || fail "the report: $out"
  layout 1
  # Quiet first.
  expect_status 0 migratejob --cgroup t-job --from 1 --to 2 --pre-copy --json
  layout 2
  jq -e '.quiet_pages > 0 and .quiet_pages <= .moved_pages' <<<"$out" >/dev/null || fail "quiet pages: $out"
  # 16 MiB and a little at 16 MB/s.
  began=${EPOCHREALTIME/./}
  expect_status 0 migratejob --cgroup t-job --from 2 --to 3 --max-mbps 16
  took=$((${EPOCHREALTIME/./} - began))
  [ $took -gt 800000 ] || fail "took only $took us at 16 MB/s"
  layout 3
  # The plan of each mapping.
  expect_status 0 migratejob --cgroup t-job --from 3 --to 0 -n --json
  equal 4096 "$(jq '[.mappings[] | select(.resident_pages == 2048) | .moved_pages] | add' <<<"$out")" "planned pages"
  equal 512 "$(jq --arg path $data/lib.so '. as $all | [.mappings[] | select($all.groups[.group].path == $path) |
    .resident_pages] | max' <<<"$out")" "resident pages of the library"
  # Nothing left to do is no fault.
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 --json
  equal 0 "$(jq '[.groups[] | select(.kind == "anonymous") | .moved_pages] | add' <<<"$out")" "moved pages"
  computes_on
}

case_beside_policyd() {
  cache_over $data/home.so 0
  cache_over $data/private.so 0
  make_job t-job 0
  worker_in t-job --processes 2 --anon 4 --library $data/home.so --library $data/private.so:64
  start_policyd
  setfpolicy bind:0 $data/home.so
  setfpolicy migrate=private $data/private.so
  local to
  for to in 2 3; do
    expect_status 0 migratejob --cgroup t-job --from "$(cat $cg/t-job/cpuset.mems)" --to $to --set-cpuset
    layout $to
    all_on 0 $data/home.so 512
    all_on 0 $data/private.so 512
    computes_on
  done
  kill -0 "$policyd_pid"
  policyctl status >/dev/null
}

case_refusals() {
  make_job t-job 0-3
  worker_in t-job --processes 1 --anon 2
  expect_status 1 migratejob --cgroup t-nowhere --from 0 --to 1
  [[ $err == *t-nowhere* ]] || fail "the message does not name the cgroup: $err"
  expect_status 1 migratejob --pid 999999 --from 0 --to 1
  [[ $err == *999999* ]] || fail "the message does not name the process: $err"
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
