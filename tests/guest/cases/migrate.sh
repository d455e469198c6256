#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2046,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word has spaces
# shellcheck disable=SC2119,SC2120 # the cases that source this one use more of it
# migratejob moves a job by its files' policies. Where pages lie is told by pagewhere, what the job thinks of it by worker.

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
  # All of libc, too: which of its pages the job alone maps changes with every program that comes and goes.
  map_outside "${1%%[-,]*}" --exec $data/outside.so $data/yes.dat \
    $(awk '$6 ~ "/(libc|ld-linux)[^/]*$" && !seen[$6]++ { print $6 }' /proc/self/maps)
  outsider=$(<"/proc/$outside_pid/task/$outside_pid/children") # the shell's that waits for it
  outsider=${outsider% }
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

same_place() { diff "$1" "$2" >&2 || fail "$3"; }

# ---- moving

# tell [REPORT]: what a report (by default what expect_status has left) says, in the array told: "moved_pages", "PATH decision",
# "KIND moved_pages", counts by node as "0:1,2:3". Once for all: each start of a program takes its time here. "foretold" is
# what a plan and its run must have in common; where the kernel puts pages that it is forced to take along is not among it.
declare -A told=()
tell() {
  local line
  told=()
  while IFS= read -r line; do told[${line%%=*}]=${line#*=}; done < <(jq -r '
    def nodes: to_entries | map(select(.value > 0)) | sort_by(.key | tonumber) | map("\(.key):\(.value)") | join(",");
    def facts: to_entries[] | if .value | type == "object" then .value |= nodes else . end |
      select(.value | type != "array") | "\(.key)=\(.value)";
    def unforced: if .forced_pages > 0 then del(.pages_by_node_after) else . end;
    facts, "notes=\(.notes | join("; "))",
    "foretold=\(del(.dry_run, .mappings, .notes, .plan_seconds, .moving_seconds, .frozen_seconds, .quiet_pages,
      .gbytes_per_second, .misplaced_pages) | unforced | .groups |= (map(unforced) | sort_by(.kind, .path)) | tojson)",
    "sum=\([.groups[].moved_pages] | add)",
    "times=\(.frozen_seconds > 0 and .moving_seconds > 0)",
    "planned=\([.mappings[]? | select(.resident_pages == 2048) | .moved_pages] | add)",
    (.groups[] | (if .path == "" then .kind else .path end) as $name | "\($name) \(facts)")' "${1:-/tmp/out}")
  [ ${#told[@]} -gt 20 ] || fail "no report: $(cat "${1:-/tmp/out}")"
}

# group FILE: its part of the report of the last move.
group() { jq -c --arg path "$1" '.groups[] | select(.path == $path)' /tmp/report.json; }

# The report's pages by node are the locator's: everything that the job maps, each page once.
totals_agree() {
  [ ${#told[@]} -gt 0 ] || tell /tmp/report.json
  equal "$(pagewhere --job $(processes) | awk '{
      n = split($1 "," $2, list, ",")
      for (i = 1; i <= n; i++) if (split(list[i], pair, ":") == 2) count[pair[1]] += pair[2]
    }
    END { for (node = 0; node < 8; node++) if (node in count) { printf "%s%d:%d", sep, node, count[node]; sep = "," } }')" \
    "${told[$1]}" "$1"
}

# move FROM TO [OPTION...]: the standard job, foretold, done, and every page looked at.
move() {
  local from=$1 to=$2 stay='^(file|cache):(private|outside|no)[.]|^cow:no[.]' forced=0 foretold name
  shift 2
  look >/tmp/before
  pagewhere --maps "$outsider" | grep -v yes.dat >/tmp/outside.before
  [[ " $* " != *" --set-cpuset "* ]] || forced=$(outside_of "$to" </tmp/before)

  expect_status 0 migratejob --cgroup t-job --from "$from" --to "$to" --json --dry-run "$@"
  tell
  totals_agree pages_by_node
  equal "$forced" "${told[forced_pages]}" "forced pages, in the plan"
  foretold=${told[foretold]}
  cp /tmp/err /tmp/plan.err

  expect_status 0 migratejob --cgroup t-job --from "$from" --to "$to" --verify --json "$@"
  not_held || fail "the job is not running"
  cp /tmp/out /tmp/report.json
  look >/tmp/after
  tell
  totals_agree pages_by_node_after
  [[ " $* " != *" --set-cpuset "* ]] || equal "$to" "$(<$cg/t-job/cpuset.mems)" "cpuset.mems"

  # COW pages of a migrate=no mapping whose node is taken away: none is missing, all are where the job may have them.
  equal "$forced" "${told[forced_pages]}" "forced pages, in the report"
  if [ "$forced" -gt 0 ]; then
    for name in plan.err err; do
      grep -q "no.dat: $forced pages.*forced by cpuset" /tmp/$name || fail "forced pages, in $name: $(cat /tmp/$name)"
    done
    equal "256 0" "$(outside_of "" </tmp/after) $(outside_of "$to" </tmp/after)" "COW pages of no.dat, those off the cpuset"
    sed -i '/^cow:no/d' /tmp/before /tmp/after
  fi
  predict "$from" "$to" "$stay" </tmp/before >/tmp/expected
  same_place /tmp/expected /tmp/after "pages are not where the decisions put them"
  pagewhere --maps "$outsider" | grep -v yes.dat >/tmp/outside.after
  same_place /tmp/outside.before /tmp/outside.after "the outsider's pages have moved"
  computes_on

  [ "$foretold" = "${told[foretold]}" ] ||
    same_place <(jq . <<<"$foretold") <(jq . <<<"${told[foretold]}") "the plan foretold otherwise"
  for name in busy failed vanished misplaced; do equal 0 "${told[${name}_pages]}" "$name pages"; done
  equal 4 "${told[processes]}" "processes"
  equal "${told[moved_pages]} $((told[moved_pages] * 4096)) true" "${told[sum]} ${told[moved_bytes]} ${told[times]}" \
    "moved pages of all groups, bytes, whether times are told"
  equal "follow default exclusive exclusive" "${told[$data/yes.dat decision]} ${told[$data/yes.dat policy]} \
${told[$data/own.so decision]} ${told[$data/outside.so decision]}" "decisions"
  equal "stay migrate=no true $(system_source)" "${told[$data/no.dat decision]} ${told[$data/no.dat policy]} \
${told[$data/no.dat private_stays]} ${told[$data/no.dat source]}" "no.dat"
  equal "stay migrate=private false" "${told[$data/private.so decision]} ${told[$data/private.so policy]} \
${told[$data/private.so private_stays]}" "private.so"
  for name in yes.dat own.so outside.so; do
    equal "$(awk -v kind="cache:$name" '$1 == kind { print $5 }' /tmp/after)" "${told[$data/$name pages_by_node_after]}" "$name"
  done
}
# outside_of NODES <LOOK: COW pages of no.dat that lie elsewhere.
outside_of() {
  awk -v nodes=" $(expand "$1") " '$1 ~ /^cow:no/ {
    n = split($4, list, ",")
    for (i = 1; i <= n; i++) { split(list[i], pair, ":"); if (index(nodes, " " pair[1] " ") == 0) pages += pair[2] }
  }
  END { print pages + 0 }'
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

# released: not_held, within a second.
released() {
  local i
  for ((i = 0; i < 50 * patience; i++)); do
    ! not_held || return 0
    nap 0.02
  done
  return 1
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
    grep -qx "anon $part 1024 ${list[part]}:1024 - -" /tmp/after || fail "part $part of the first-touch memory"
    grep -qx "thp $part 2048 ${list[part]}:2048 - ${list[part]}:2048" /tmp/after || fail "part $part of the huge pages"
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
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --thp 4
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
  tell
  look >/tmp/after
  predict 0-1 2-3 '^segment:(shared|stays)$' </tmp/before >/tmp/expected
  same_place /tmp/expected /tmp/after "pages are not where the decisions put them"
  equal 2 "$(awk '$1 == "segment:own" && $5 == 2 + $2 ":256"' /tmp/after | wc -l)" "parts of the segment in place"
  computes_on
  totals_agree pages_by_node_after
  equal "stay true" "${told[/tmp/t/stays decision]} ${told[/tmp/t/stays private_stays]}" "the tagged segment"
  equal exclusive "${told[$data/deleted (deleted) decision]}" "the deleted file"
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
  tell
  all_on 3 $data/second.dat 512
  equal "512 0" "$(pagewhere --each $data/turns.dat | awk '$2 != 2 + $1 % 2 { bad++ } END { print NR, bad + 0 }')" \
    "pages of turns.dat, those off their slot"
  all_on 0 $data/home.dat 512
  all_on 0 $data/home.so 512
  all_on 0 $data/rule.dat 512
  layout 2-3 # the copies that the processes made of home.so, too
  equal "placement placement stay stay stay" "$(for name in second.dat turns.dat home.dat home.so rule.dat; do
    echo "${told[$data/$name decision]}"
  done | paste -sd ' ')" "decisions"
  equal rule "${told[$data/rule.dat source]}" "source"
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
  tell
  equal 1 "${told[processes]}" "processes"
  equal "0:768,2:256 1:768,3:256" "$(located anon 0) $(located anon 1)" "one process' quarter is moved"
  all_on 0 $data/own.so 512
  # Its tree: all go, one of them stopped, which it stays.
  kill -STOP "$stopped"
  expect_status 0 migratejob --pid "$job_pid" --tree --from 0-1 --to 2-3 --json --verify
  tell
  equal "4 0" "${told[processes]} ${told[misplaced_pages]}" "processes, misplaced pages"
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
  # One by one: who was killed leaves his cgroup when he has ended.
  local group
  for group in a b c; do within 5 "$group is empty" rmdir $cg/t-tree/$group; done
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
  tell
  [[ ${told[notes]} == *polic*bind:1* ]] || fail "no note names the policy: ${told[notes]}"
  kill "$job_pid"
  wait "$job_pid"
  # A cpuset that is set rebinds policies.
  echo 0-1 >$cg/t-job/cpuset.mems
  worker_in t-job --processes 2 --nodes 0-1 --anon 2 --policy bind:1
  expect_status 0 migratejob --cgroup t-job --from 0-1 --to 2-3 --set-cpuset --json
  layout 2-3
  equal bind:3 "$(policy_of)" "the worker's policy"
  tell
  [[ ${told[notes]} != *polic* ]] || fail "a policy is complained of that has been rebound: ${told[notes]}"
  kill "$job_pid"
  wait "$job_pid"
  # Static nodes are never translated.
  echo 0 >$cg/t-job/cpuset.mems
  worker_in t-job --processes 1 --anon 2 --policy static:0
  equal bind=static:0 "$(policy_of)" "the worker's policy"
  expect_status 0 migratejob --cgroup t-job --from 0 --to 2 --set-cpuset --json
  layout 2
  # What names no node that is allowed means all that are, for the time being.
  equal bind=static:2 "$(policy_of)" "the worker's policy"
  computes_on
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
  tell
  if [ "${told[quiet_pages]}" -eq 0 ] || [ "${told[quiet_pages]}" -gt "${told[moved_pages]}" ]; then
    fail "quiet pages: ${told[quiet_pages]} of ${told[moved_pages]}"
  fi
  # 16 MiB and a little at 16 MB/s.
  began=${EPOCHREALTIME/./}
  expect_status 0 migratejob --cgroup t-job --from 2 --to 3 --max-mbps 16
  took=$((${EPOCHREALTIME/./} - began))
  [ $took -gt 800000 ] || fail "took only $took us at 16 MB/s"
  layout 3
  # The plan of each mapping.
  expect_status 0 migratejob --cgroup t-job --from 3 --to 0 -n --json
  tell
  equal 4096 "${told[planned]}" "pages of the memory in the plan of its mappings"
  # Nothing left to do is no fault.
  expect_status 0 migratejob --cgroup t-job --from 0 --to 1 --json
  tell
  equal 0 "${told[anonymous moved_pages]}" "moved pages"
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
