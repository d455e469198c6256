#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Tags stay with their files, and with nothing else.

policy_of() { queryfpolicy --json "$1" | jq -r '.files[0].policy // "none"'; }
source_of() { queryfpolicy --json "$1" | jq -r '.files[0].source'; }

case_vfat_survives_remount() {
  make_file /mnt/vfat/t/data 1 0
  setfpolicy bind:1 /mnt/vfat/t/data
  equal database "$(source_of /mnt/vfat/t/data)" "source"
  local device
  device=$(findmnt -n -o SOURCE /mnt/vfat)
  umount /mnt/vfat
  mount "$device" /mnt/vfat
  equal bind:1 "$(policy_of /mnt/vfat/t/data)" "policy after remount"
}

case_ext4_survives_rename_link_remount() {
  make_file /mnt/ext4/t/data 1 0
  setfpolicy bind:1 /mnt/ext4/t/data
  mv /mnt/ext4/t/data /mnt/ext4/t/renamed
  ln /mnt/ext4/t/renamed /mnt/ext4/t/linked
  equal bind:1 "$(policy_of /mnt/ext4/t/renamed)" "renamed"
  equal bind:1 "$(policy_of /mnt/ext4/t/linked)" "hard link"
  local device
  device=$(findmnt -n -o SOURCE /mnt/ext4)
  umount /mnt/ext4
  mount "$device" /mnt/ext4
  equal bind:1 "$(policy_of /mnt/ext4/t/renamed)" "after remount"
}

# The next file gets the deleted one's inode number. It must not get its tag.
inode_reuse() {
  local dir=$1 inode seen=0
  mkdir -p "$dir/t"
  for _ in 1 2 3 4 5; do
    : >"$dir/t/victim"
    setfpolicy bind:1 "$dir/t/victim"
    inode=$(stat -c %i "$dir/t/victim")
    rm "$dir/t/victim"
    : >"$dir/t/victim"
    [ "$inode" != "$(stat -c %i "$dir/t/victim")" ] || seen=$((seen + 1))
    equal none "$(policy_of "$dir/t/victim")" "policy of the recreated file"
    rm "$dir/t/victim"
  done
  echo "note: $dir: inode number reused $seen times of 5"
}
case_inode_reuse_ext4() { inode_reuse /mnt/ext4; }
case_inode_reuse_vfat() { inode_reuse /mnt/vfat; }
case_inode_reuse_tmpfs() { inode_reuse /tmp; }

case_read_only_remount_falls_back() {
  make_file /mnt/xfs/t/data 1 0
  mount -o remount,ro /mnt/xfs
  local status=0
  setfpolicy bind:1 /mnt/xfs/t/data || status=$?
  equal database "$(source_of /mnt/xfs/t/data)" "source"
  mount -o remount,rw /mnt/xfs
  equal 0 "$status" "exit status"
  equal bind:1 "$(policy_of /mnt/xfs/t/data)" "policy"
  # Tagged anew with xattrs at hand: there is one tag, not two.
  setfpolicy bind:2 /mnt/xfs/t/data
  equal "bind:2 $(system_source)" "$(policy_of /mnt/xfs/t/data) $(source_of /mnt/xfs/t/data)" "after tagging anew"
}

case_unsupported_is_left_alone() {
  [ "$(system_source)" = system-xattr ] || skip "this kernel does not protect security.*; the case runs without the BPF LSM"
  make_file /mnt/ext4/t/data 4 0
  setfattr -n security.fpolicy -v "2 bind:1" /mnt/ext4/t/data
  start_policyd
  equal unsupported "$(queryfpolicy --json /mnt/ext4/t/data | jq -r '.files[0].state')" "state of a version"
  expect_status 1 setfpolicy bind:2 /mnt/ext4/t/data
  equal "2 bind:1" "$(getfattr -n security.fpolicy --only-values /mnt/ext4/t/data 2>/dev/null)" "bytes"
  setfattr -n security.fpolicy -v "1 bind:1,colour=red" /mnt/ext4/t/data
  equal unsupported "$(queryfpolicy --json /mnt/ext4/t/data | jq -r '.files[0].state')" "state of an item"
  expect_status 1 queryfpolicy --check /mnt/ext4/t/data
  policyctl apply /mnt/ext4/t/data || true
  all_on 0 /mnt/ext4/t/data 1024
  setfpolicy --force bind:2 /mnt/ext4/t/data
  within 1 "forced" all_on 2 /mnt/ext4/t/data 1024
}

case_one_bad_file_among_a_thousand() {
  mkdir -p /mnt/ext4/t/many
  seq -f "/mnt/ext4/t/many/%g" 999 | xargs touch
  # The bad one in the middle of the list.
  { seq -f "/mnt/ext4/t/many/%g" 500; echo /mnt/ext4/t/many/missing; seq -f "/mnt/ext4/t/many/%g" 501 999; } |
    tr '\n' '\0' >/tmp/names
  expect_status 1 setfpolicy -0 bind:1 </tmp/names
  equal 1 "$(wc -l </tmp/err)" "lines on stderr"
  grep -q '^setfpolicy: /mnt/ext4/t/many/missing: ' /tmp/err
  equal 999 "$(getfpolicy -R /mnt/ext4/t/many | grep -c "$(printf '\tbind:1$')")" "tagged files"
}

case_dump_restores_and_serves_as_rules() {
  mkdir -p "/mnt/ext4/t/odd/di r"
  local name
  for name in plain ' lead' '#hash' 'back\slash' $'tab\there' $'new\nline' $'latin\xe9' 'glob*?[x]' 'trail '; do
    : >"/mnt/ext4/t/odd/$name"
    setfpolicy bind:1 "/mnt/ext4/t/odd/$name"
  done
  setfpolicy interleave:all "/mnt/ext4/t/odd/di r"
  getfpolicy -R /mnt/ext4/t/odd >/tmp/dump
  setfpolicy -R -x /mnt/ext4/t/odd
  setfpolicy -x "/mnt/ext4/t/odd/di r"
  equal 0 "$(getfpolicy -R /mnt/ext4/t/odd | grep -vc '^#' || true)" "tags after removal"
  setfpolicy --restore /tmp/dump
  getfpolicy -R /mnt/ext4/t/odd >/tmp/dump2
  cmp /tmp/dump /tmp/dump2
  setfpolicy -R -x /mnt/ext4/t/odd
  setfpolicy -x "/mnt/ext4/t/odd/di r"
  cp /tmp/dump /etc/fpolicy/rules.d/10-dump.rules
  equal "bind:1 rule" "$(policy_of $'/mnt/ext4/t/odd/new\nline') $(source_of $'/mnt/ext4/t/odd/new\nline')" "as rules"
  : >"/mnt/ext4/t/odd/di r/below"
  equal "interleave:all rule" "$(policy_of "/mnt/ext4/t/odd/di r/below") $(source_of "/mnt/ext4/t/odd/di r/below")" "below"
}

case_catalogue_lists_everything() {
  make_file /mnt/ext4/t/data 1 0
  make_file /mnt/vfat/t/data 1 0
  setfpolicy bind:1 /mnt/ext4/t/data /mnt/vfat/t/data
  equal "/mnt/ext4/t/data /mnt/vfat/t/data" \
    "$(queryfpolicy --all --json | jq -r '[.files[].path] | sort | join(" ")')" "catalogue"
  rm /mnt/ext4/t/data
  equal stale "$(queryfpolicy --all --json | jq -r '.files[] | select(.path == "/mnt/ext4/t/data") | .state')" "deleted"
}

case_libs() {
  cp /bin/ls /mnt/ext4/t.ls
  setfpolicy -n --libs bind:1 /mnt/ext4/t.ls >/tmp/out
  # What the loader itself says, without the virtual object.
  local library
  ldd /mnt/ext4/t.ls | grep -o '/[^ ]*' | while read -r library; do
    grep -qF "$(readlink -f "$library")" /tmp/out || fail "$library is not in: $(cat /tmp/out)"
  done
  rm /mnt/ext4/t.ls
}

# replace FILE MIB NODE: as package managers do; what was written is cached on NODE.
replace() {
  make_file "$1.dpkg-new" "$2" "$3"
  mv "$1.dpkg-new" "$1"
}
carried() { [ "$(policyctl --json status | jq .counters.tags_carried)" -ge "$1" ]; }

# A guarded place: what is below /mnt/ext4/t is root's alone.
case_replaced_file_is_tagged_and_placed() {
  umask 022
  make_file /mnt/ext4/t/library.so 4 0
  setfpolicy bind:1 /mnt/ext4/t/library.so
  make_job t-job 0-3
  start_policyd
  map_in_job t-job /mnt/ext4/t/library.so
  within 2 "placed" all_on 1 /mnt/ext4/t/library.so 1024
  replace /mnt/ext4/t/library.so 4 0
  within 2 "the new file is placed" all_on 1 /mnt/ext4/t/library.so 1024
  equal "bind:1 $(system_source)" "$(policy_of /mnt/ext4/t/library.so) $(source_of /mnt/ext4/t/library.so)" "policy"
  within 2 "counted" carried 1
  policyctl events --json | jq -e 'select(.kind == "carry" and .path == "/mnt/ext4/t/library.so" and .policy == "bind:1")' >/dev/null ||
    fail "events: $(policyctl events)"
  # What the job maps is the old one: its pages stay where they were.
  grep -q '/mnt/ext4/t/library.so (deleted)' "/proc/$job_pid/maps" || fail "the job maps no deleted file"
  # Another job maps the new one, and moves: the tag holds.
  kill "$job_pid"
  wait "$job_pid" || true
  map_in_job t-job /mnt/ext4/t/library.so
  echo 2 >$cg/t-job/cpuset.mems
  within 2 "home after a move" all_on 1 /mnt/ext4/t/library.so 1024
}

case_replaced_file_without_policyd() {
  umask 022
  make_file /mnt/ext4/t/library.so 4 0
  make_file /mnt/vfat/t/library.so 4 0
  setfpolicy bind:1 /mnt/ext4/t/library.so /mnt/vfat/t/library.so
  make_job t-job 0-3
  map_in_job t-job /mnt/ext4/t/library.so
  replace /mnt/ext4/t/library.so 4 0
  replace /mnt/vfat/t/library.so 4 0
  equal none "$(policy_of /mnt/ext4/t/library.so)" "policy of the new file"
  # As the package's trigger does.
  setfpolicy --from-catalogue -- /mnt
  equal bind:1 "$(policy_of /mnt/ext4/t/library.so)" "policy"
  equal bind:1 "$(policy_of /mnt/vfat/t/library.so)" "policy on vfat"
  equal 0 "$(queryfpolicy --all --json | jq '[.files[] | select(.state == "stale" and .path != "")] | length')" "stale records"
  all_on 0 /mnt/ext4/t/library.so 1024
  start_policyd
  within 2 "placed at start" all_on 1 /mnt/ext4/t/library.so 1024
  # Replaced while policyd does not run, and nobody calls setfpolicy.
  stop_policyd
  replace /mnt/ext4/t/library.so 4 0
  start_policyd
  within 2 "carried over and placed at start" all_on 1 /mnt/ext4/t/library.so 1024
}

case_replaced_file_of_a_user_gets_nothing() {
  umask 022
  mkdir -p /mnt/ext4/t/shared
  chmod 1777 /mnt/ext4/t/shared
  make_file /mnt/ext4/t/shared/data 4 0
  setfpolicy bind:1 /mnt/ext4/t/shared/data
  start_policyd
  within 2 "placed" all_on 1 /mnt/ext4/t/shared/data 1024
  rm /mnt/ext4/t/shared/data
  as_user user dd if=/dev/zero of=/mnt/ext4/t/shared/data bs=1M count=4 status=none
  expect_status 1 setfpolicy --from-catalogue
  [[ $err == *"setfpolicy: /mnt/ext4/t/shared/data: its tag was not carried over: "* ]] || fail "message: $err"
  equal none "$(policy_of /mnt/ext4/t/shared/data)" "policy"
}
