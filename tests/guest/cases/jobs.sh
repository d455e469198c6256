#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Jobs move; files with a policy do not go astray.

# prepare NAME: tagged (bind:0) and untagged libraries, both mapped by an outsider on node 0 and by the job NAME.
prepare() {
  make_file /mnt/ext4/t/tagged.so 8 0
  make_file /mnt/ext4/t/untagged.so 8 0
  setfpolicy bind:0 /mnt/ext4/t/tagged.so
  map_outside 0 /mnt/ext4/t/tagged.so /mnt/ext4/t/untagged.so
  make_job "$1" 0
  map_in_job "$1" --anon 32 /mnt/ext4/t/tagged.so /mnt/ext4/t/untagged.so
}

enforced() {
  within 2 "no misplaced page in the tagged library" all_on 0 /mnt/ext4/t/tagged.so 2048
  # The job's own memory followed it...
  equal 8192 "$(pagewhere --anon "$job_pid" | tr ' ' '\n' | sed -n "s/^$1://p" | awk '{ print ($1 >= 8192) ? 8192 : $1 }')" \
    "anonymous pages on node $1"
  # ...and so did the library that no policy names, which is the kernel's doing: policyd touches nothing without a policy.
  all_on "$1" /mnt/ext4/t/untagged.so 2048
}

case_cpuset_move() {
  start_policyd
  prepare t-job
  echo 2 >$cg/t-job/cpuset.mems
  enforced 2
}

case_without_policyd_the_library_leaves() {
  # What the other cases prevent does happen here; else they would prove nothing.
  prepare t-job
  echo 2 >$cg/t-job/cpuset.mems
  all_on 2 /mnt/ext4/t/tagged.so 2048
}

case_attach() {
  start_policyd
  prepare t-job
  make_job t-there 2
  # A while for policyd to see the new cgroup is not needed, and not given.
  echo "$job_pid" >$cg/t-there/cgroup.procs
  enforced 2
}

case_attach_to_a_new_cgroup() {
  start_policyd
  prepare t-job
  bash -c 'mkdir "$1"; echo 3 >"$1/cpuset.mems"; echo "$2" >"$1/cgroup.procs"' new $cg/t-new "$job_pid"
  enforced 3
}

case_subtree() {
  start_policyd
  make_job t-tree 0
  echo +cpuset >$cg/t-tree/cgroup.subtree_control
  mkdir $cg/t-tree/a $cg/t-tree/b
  make_file /mnt/ext4/t/tagged.so 8 0
  setfpolicy bind:0 /mnt/ext4/t/tagged.so
  map_in_job t-tree/a /mnt/ext4/t/tagged.so
  echo 3 >$cg/t-tree/cpuset.mems
  within 2 "subtree" all_on 0 /mnt/ext4/t/tagged.so 2048
  kill "$job_pid"
  wait "$job_pid" || true
  rmdir $cg/t-tree/a $cg/t-tree/b
}

case_relative_follows() {
  start_policyd
  make_file /mnt/ext4/t/data 8 0
  setfpolicy bind:+1 /mnt/ext4/t/data
  make_job t-job 0-1
  map_in_job t-job /mnt/ext4/t/data
  echo 2-3 >$cg/t-job/cpuset.mems
  # The second of the job's nodes.
  within 2 "relative placement" all_on 3 /mnt/ext4/t/data 2048
}

case_relative_tag_of_a_file_already_mapped() {
  start_policyd
  make_file /mnt/ext4/t/data 8 0
  make_job t-job 2-3
  map_in_job t-job /mnt/ext4/t/data
  setfpolicy bind:+1 /mnt/ext4/t/data
  within 2 "second node of the job that maps it" all_on 3 /mnt/ext4/t/data 2048
}

case_migrate_no_without_placement_stays() {
  start_policyd
  make_file /mnt/ext4/t/data 8 1
  make_job t-job 0-1
  map_in_job t-job /mnt/ext4/t/data
  setfpolicy migrate=no /mnt/ext4/t/data
  within 2 "policyd knows where it lies" looked_at_once
  echo 2 >$cg/t-job/cpuset.mems
  within 2 "returned" all_on 1 /mnt/ext4/t/data 2048
}
looked_at_once() { policyctl status --json | jq -e '.counters.files_enforced == 1'; }

case_directory_tag() {
  mkdir -p /mnt/ext4/t/lib/deep
  make_file /mnt/ext4/t/lib/deep/a.so 4 0
  make_file /mnt/ext4/t/lib/own.so 4 0
  start_policyd
  setfpolicy bind:1 /mnt/ext4/t/lib
  within 2 "below the directory" all_on 1 /mnt/ext4/t/lib/deep/a.so 1024
  equal directory "$(queryfpolicy --json /mnt/ext4/t/lib/deep/a.so | jq -r '.files[0].source')" "source"
  # A file's own tag wins.
  setfpolicy bind:2 /mnt/ext4/t/lib/own.so
  within 2 "own tag" all_on 2 /mnt/ext4/t/lib/own.so 1024
  # Replaced as a package upgrade does it: a new file renamed over the old one.
  make_file /mnt/ext4/t/lib/deep/a.so.dpkg-new 4 0
  mv /mnt/ext4/t/lib/deep/a.so.dpkg-new /mnt/ext4/t/lib/deep/a.so
  equal directory "$(queryfpolicy --json /mnt/ext4/t/lib/deep/a.so | jq -r '.files[0].source')" "source after replacement"
  make_job t-job 0
  map_in_job t-job /mnt/ext4/t/lib/deep/a.so
  echo 3 >$cg/t-job/cpuset.mems
  within 2 "the replaced file" all_on 1 /mnt/ext4/t/lib/deep/a.so 1024
}

case_rules() {
  make_file /mnt/ext4/t/opt/app/lib/x.so 4 0
  start_policyd
  printf '/mnt/ext4/t/opt/**\tbind:3\n/mnt/ext4/t/opt/**.so\tbind:1\n' >/etc/fpolicy/rules.d/50-opt.rules
  make_job t-job 0
  map_in_job t-job /mnt/ext4/t/opt/app/lib/x.so
  within 2 "rules read on change" rule_decides
  echo 2 >$cg/t-job/cpuset.mems
  within 2 "by rule" all_on 1 /mnt/ext4/t/opt/app/lib/x.so 1024
  getfpolicy --explain /mnt/ext4/t/opt/app/lib/x.so | grep -q '/etc/fpolicy/rules.d/50-opt.rules:2'
  # A bad file is reported, and the old rules stay in force.
  printf '/mnt/ext4/t/opt/**\tbond:3\n' >/etc/fpolicy/rules.d/60-bad.rules
  within 2 "bad rules reported" bad_rules_reported
  echo 3 >$cg/t-job/cpuset.mems
  within 2 "by the old rules" all_on 1 /mnt/ext4/t/opt/app/lib/x.so 1024
}
rule_decides() { equal 2 "$(policyctl status --json | jq .rules)" "rules"; }
bad_rules_reported() { policyctl events --json | grep -q '60-bad.rules:1:'; }

case_multithreaded_and_two_writers() {
  start_policyd
  prepare t-job
  (for _ in $(seq 10); do echo 1 >$cg/t-job/cpuset.mems; done) &
  local writer=$!
  for _ in $(seq 10); do echo 2 >$cg/t-job/cpuset.mems; done
  wait "$writer"
  within 2 "after twenty moves" all_on 0 /mnt/ext4/t/tagged.so 2048
}
