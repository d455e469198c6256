#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# What an ordinary user may do, and what not.

case_own_file() {
  start_policyd
  make_file /mnt/ext4/t/mine 4 0
  chown user:user /mnt/ext4/t/mine
  as_user user setfpolicy bind:1 /mnt/ext4/t/mine
  equal "1 bind:1" "$(getfattr -n user.fpolicy --only-values /mnt/ext4/t/mine 2>/dev/null)" "the user's tag"
  within 1 "the user's file" all_on 1 /mnt/ext4/t/mine 1024
  within 1 "in the catalogue" in_catalogue /mnt/ext4/t/mine
  equal user-xattr "$(as_user user queryfpolicy --json /mnt/ext4/t/mine | jq -r '.files[0].source')" "source"
}

in_catalogue() { queryfpolicy --all --json | jq -e --arg path "$1" '.files[] | select(.path == $path)'; }

case_another_users_file() {
  make_file /mnt/ext4/t/theirs 1 0
  chown other:other /mnt/ext4/t/theirs
  chmod 644 /mnt/ext4/t/theirs
  expect_status 1 as_user user setfpolicy bind:1 /mnt/ext4/t/theirs
  [[ $err == "setfpolicy: /mnt/ext4/t/theirs: "* ]] || fail "message: $err"
  expect_status 1 as_user user setfpolicy --system bind:1 /mnt/ext4/t/theirs
  [[ $err == *root* || $err == *CAP_SYS_ADMIN* || $err == *privilege* ]] || fail "says not what is needed: $err"
  equal "" "$(getfattr -d -m - /mnt/ext4/t/theirs 2>/dev/null)" "xattrs"
}

case_forged_system_tag_does_not_count() {
  start_policyd
  make_file /mnt/ext4/t/lib.so 4 0
  make_file /mnt/ext4/t/tagged.so 4 0
  setfpolicy bind:0 /mnt/ext4/t/tagged.so
  # The kernel refuses, or (6.1 with the BPF LSM) it does not, and then nobody may believe the attribute.
  as_user user setfattr -n security.fpolicy -v "1 bind:1" /mnt/ext4/t/lib.so 2>/dev/null || true
  as_user user setfattr -n security.fpolicy -v "1 bind:1" /mnt/ext4/t/tagged.so 2>/dev/null || true
  echo "note: the kernel $([ "$(system_source)" = database ] && echo lets users write || echo protects) security.fpolicy"
  policyctl apply /mnt/ext4/t/lib.so /mnt/ext4/t/tagged.so
  all_on 0 /mnt/ext4/t/lib.so 1024
  all_on 0 /mnt/ext4/t/tagged.so 1024
  equal "none bind:0" "$(queryfpolicy --json /mnt/ext4/t/lib.so /mnt/ext4/t/tagged.so |
    jq -r '[.files[] | .policy // "none"] | join(" ")')" "policies"
  as_user user setfattr -x security.fpolicy /mnt/ext4/t/tagged.so 2>/dev/null || true
  equal bind:0 "$(getfpolicy --json /mnt/ext4/t/tagged.so | jq -r '.files[0].system.policy')" "after an attempt to remove it"
}

case_what_a_user_may_see() {
  start_policyd
  make_file /mnt/ext4/t/open 1 0
  make_file /mnt/ext4/t/closed 1 0
  chmod 600 /mnt/ext4/t/closed
  setfpolicy bind:1 /mnt/ext4/t/open /mnt/ext4/t/closed
  within 1 home all_on 1 /mnt/ext4/t/closed 256
  as_user user getfpolicy /mnt/ext4/t/open /mnt/ext4/t/closed >/tmp/out
  equal 2 "$(grep -c "$(printf '\tbind:1$')" /tmp/out)" "system tags are visible to every auditor"
  # Residency of a file that the user neither owns nor may write is not told, and it is not claimed to be zero.
  as_user user queryfpolicy --json /mnt/ext4/t/open >/tmp/out
  jq -e '.files[0] | .policy == "bind:1" and .resident_pages == null' /tmp/out
}

case_user_tag_of_a_shared_file_is_not_trusted() {
  start_policyd
  make_file /mnt/ext4/t/shared 4 0
  chown user:user /mnt/ext4/t/shared
  chmod 666 /mnt/ext4/t/shared
  as_user user setfpolicy bind:1 /mnt/ext4/t/shared
  sleep 1
  all_on 0 /mnt/ext4/t/shared 1024
  getfpolicy --explain /mnt/ext4/t/shared | grep -qi 'trust'
}

case_user_tag_of_another_user_in_the_job() {
  start_policyd
  make_file /mnt/ext4/t/theirs 4 2
  chown other:other /mnt/ext4/t/theirs
  make_job t-job 1-3
  in_job t-job setpriv --reuid=user --regid=user --clear-groups mapper /mnt/ext4/t/theirs
  within 5 "mapper" grep -q ready /tmp/job.out
  setfattr -n user.fpolicy -v "1 bind:1" /mnt/ext4/t/theirs
  local before
  before=$(moves)
  echo 1-2 >$cg/t-job/cpuset.mems
  within 2 "policyd has heard of it" has_moved $((before + 1))
  sleep 1
  all_on 2 /mnt/ext4/t/theirs 1024
  # It is whose file it is that counts.
  chown user:user /mnt/ext4/t/theirs
  echo 1-3 >$cg/t-job/cpuset.mems
  within 2 "the job's own user's tag" all_on 1 /mnt/ext4/t/theirs 1024
}
moves() { policyctl --json status | jq .counters.moves; }
has_moved() { [ "$(moves)" -ge "$1" ]; }

# Whose files are the user's in another mount, by root's will, is their owner there, and no more.
case_forged_tag_in_an_idmapped_mount() {
  start_policyd
  make_file /mnt/ext4/t/base/file 4 0
  mkdir -p /tmp/t/shifted
  idmapped /mnt/ext4/t/base /tmp/t/shifted 1000 || skip "no idmapped mounts here"
  equal 1000 "$(stat -c %u /tmp/t/shifted/file)" "owner through the idmapped mount"
  as_user user setfattr -n security.fpolicy -v "1 bind:1,pin" /tmp/t/shifted/file 2>/dev/null || true
  expect_status 1 as_user user setfpolicy --system bind:1 /tmp/t/shifted/file
  expect_status 1 as_user other setfpolicy bind:1 /tmp/t/shifted/file
  policyctl apply /mnt/ext4/t/base/file /tmp/t/shifted/file
  all_on 0 /mnt/ext4/t/base/file 1024
  equal 0 "$(policyctl --json pins | jq '.pins | length')" "pins"
  equal null "$(queryfpolicy --json /mnt/ext4/t/base/file | jq -c '.files[0].policy')" "policy"
  umount /tmp/t/shifted
}

case_user_tag_stays_in_the_jobs_cpuset() {
  start_policyd
  make_file /mnt/ext4/t/mine 4 2
  chown user:user /mnt/ext4/t/mine
  make_job t-job 2-3
  in_job t-job setpriv --reuid=user --regid=user --clear-groups mapper /mnt/ext4/t/mine
  within 5 "mapper" grep -q ready /tmp/job.out
  # Node 1 is not the job's: nothing may move there on a user's word.
  setfattr -n user.fpolicy -v "1 bind:1" /mnt/ext4/t/mine
  echo 3 >$cg/t-job/cpuset.mems
  sleep 1
  equal 0 "$(pages_on 1 /mnt/ext4/t/mine)" "pages on node 1"
}

case_user_tag_on_vfat_through_policyd() {
  # vfat gives every file to one owner, chosen at mount.
  local device
  device=$(findmnt -n -o SOURCE /mnt/vfat)
  umount /mnt/vfat
  mount -o uid=user,gid=user "$device" /mnt/vfat
  mkdir -p /mnt/vfat/t
  dd if=/dev/zero of=/mnt/vfat/t/data bs=1M count=4 status=none
  sync /mnt/vfat/t/data # what is being written cannot be moved meanwhile
  expect_status 1 as_user user setfpolicy bind:1 /mnt/vfat/t/data
  [[ $err == *policyd* ]] || fail "does not say that policyd is needed: $err"
  start_policyd
  as_user user setfpolicy bind:1 /mnt/vfat/t/data
  within 1 "on vfat" all_on 1 /mnt/vfat/t/data 1024
  equal bind:1 "$(as_user user getfpolicy --json /mnt/vfat/t/data | jq -r '.files[0].user.policy')" "as the user sees it"
  expect_status 1 as_user other setfpolicy bind:2 /mnt/vfat/t/data
  expect_status 1 as_user other setfpolicy --user -x /mnt/vfat/t/data
  equal bind:1 "$(as_user user getfpolicy --json /mnt/vfat/t/data | jq -r '.files[0].user.policy')" "after others have tried"
  as_user user setfpolicy -v -x /mnt/vfat/t/data >/tmp/out
  equal "# /mnt/vfat/t/data: removed" "$(cat /tmp/out)" "what was done"
  equal null "$(as_user user getfpolicy --json /mnt/vfat/t/data | jq -r '.files[0].user')" "after its owner has removed it"
  as_user user setfpolicy -v -x /mnt/vfat/t/data >/tmp/out
  equal "# /mnt/vfat/t/data: unchanged" "$(cat /tmp/out)" "where there is none"
  umount /mnt/vfat
  mount "$device" /mnt/vfat
}

case_socket_is_no_way_around() {
  start_policyd
  make_file /mnt/ext4/t/theirs 4 0
  chmod 600 /mnt/ext4/t/theirs
  expect_status 1 as_user user policyctl apply /mnt/ext4/t/theirs
  expect_status 1 as_user user policyctl reload
  all_on 0 /mnt/ext4/t/theirs 1024
}
