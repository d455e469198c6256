#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Disks that fail or have no room, servers that forget, and commands that are killed: no tag that was reported as set is
# lost, none is taken for removed, and nothing is done to a file as if it had none.

# shellcheck source=tests/guest/cases/identity.sh
. "$(dirname "${BASH_SOURCE[0]}")/identity.sh" # attach, base, serve, $where

# make_many DIRECTORY FILES: files without content.
make_many() {
  mkdir -p "$1"
  (cd "$1" && seq -f 'f%g' "$2" | xargs touch)
}

# tagged DIRECTORY POLICY: how many files have this tag.
tagged() { getfpolicy --database "$database" -R "$1" | grep -c "$(printf '\t')$2\$" || true; }
whole() {
  expect_status 0 policyctl check --database "$database"
  [[ $out == *"no fault"* ]] || fail "check: $out"
}

# ---- killed

# killed_in DIRECTORY: setfpolicy -R, at any moment.
killed_in() {
  local tree=$1 kills=${FPOLICY_KILLS:-6} count=300 policies=(bind:0 migrate=no) i began whole_run delay pid status killed=0
  database=/var/lib/fpolicy/fpolicy.db
  make_many "$tree/0" $count
  make_many "$tree/untouched" 3
  setfpolicy -R "${policies[1]}" "$tree/0"
  began=${EPOCHREALTIME/./}
  setfpolicy -R "${policies[0]}" "$tree/0"
  whole_run=$((${EPOCHREALTIME/./} - began))
  for ((i = 1; i <= kills; i++)); do
    delay=$(((RANDOM * 32768 + RANDOM) % whole_run))
    setfpolicy -R "${policies[i % 2]}" "$tree/0" &
    pid=$!
    sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
    kill -9 $pid 2>/dev/null || true
    status=0
    wait $pid || status=$?
    [ $status -ne 137 ] || killed=$((killed + 1))
    whole
    # Nobody is without a tag, and no tag is anything but the one before or the one after.
    equal $count "$(tagged "$tree/0" "\(bind:0\|migrate=no\)")" "tags after kill $i, $delay us"
    equal 0 "$(tagged "$tree/untouched" '.*')" "tags that nobody has set"
  done
  echo "note: $killed of $kills were met while they ran; a run took $((whole_run / 1000)) ms"
  [ $killed -gt $((kills / 4)) ] || fail "only $killed of $kills were met while they ran"
  # The run that is let be says of every file what it is, and so does the catalogue.
  setfpolicy -R bind:0 "$tree/0"
  equal $count "$(tagged "$tree/0" bind:0)" "tags in the end"
  equal $count "$(sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE policy = 'bind:0'")" "records in the end"
  equal $count "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "all records"
}
case_setfpolicy_killed_on_vfat() { killed_in /mnt/vfat/t; }
case_setfpolicy_killed_on_ext4() { killed_in /mnt/ext4/t; }

# ---- no room

# quota_is_reached MESSAGE COMMAND_WITH_QUOTA... -- MAKE_ROOM...: amid ten thousand tags; then the same command goes on.
quota_is_reached() {
  local message=$1 limited=() tree=/tmp/t/many early
  shift
  while [ "$1" != -- ]; do
    limited+=("$1")
    shift
  done
  shift
  # On a filesystem that takes no attributes.
  make_many /tmp/t/files/early 1000
  make_many /tmp/t/files/late 9000
  mksquashfs /tmp/t/files /tmp/t/files.image -quiet -no-progress -noappend >/dev/null
  mkdir $tree
  attach /tmp/t/files.image 1 $tree -t squashfs
  # What was reported as set.
  "${limited[@]}" setfpolicy --database "$database" -R bind:2 $tree/early
  expect_status 1 "${limited[@]}" setfpolicy --database "$database" -R bind:1 $tree
  echo "note: $err"
  [[ $err == "setfpolicy: "*" records were not changed: database $database: $message" ]] || fail "message: $err"
  [ "$(tagged $tree bind:1)" -lt 10000 ] || fail "all tags are there, and setfpolicy has said that they are not"
  equal 1000 "$(tagged $tree/early 'bind:[12]')" "tags that were there before"
  early=$(tagged $tree 'bind:[12]')
  equal "$early" "$(tagged $tree '.*')" "tags that nobody has set"
  whole
  expect_status 1 "${limited[@]}" setfpolicy --database "$database" -R bind:1 $tree
  [ "$(tagged $tree 'bind:[12]')" -ge "$early" ] || fail "tags were lost in the second run"
  "$@"
  "${limited[@]}" setfpolicy --database "$database" -R bind:1 $tree
  equal 10000 "$(tagged $tree bind:1)" "tags once there is room"
  whole
}

# Root's quota binds whoever has no CAP_SYS_RESOURCE.
case_quota_of_ext4() {
  mkdir -p $where
  truncate -s 64M $image
  mke2fs -q -F -t ext4 -O quota -E quotatype=usrquota $image
  modprobe loop
  attach $image 0 $where -t ext4 -o usrquota
  setquota -u root 0 1000 0 0 $where
  database=$where/state/fpolicy.db
  quota_is_reached "disk I/O error: Disk quota exceeded" setpriv --bounding-set -sys_resource -- \
    -- setquota -u root 0 0 0 0 $where
}

# A project's quota binds root, too; it looks like a full disk.
case_quota_of_xfs() {
  mkdir -p $where
  truncate -s 300M $image
  mkfs.xfs -q -f $image
  modprobe loop
  attach $image 0 $where -t xfs -o prjquota
  mkdir -m 700 $where/state
  xfs_quota -x -c "project -s -p $where/state 42" $where >/dev/null
  xfs_quota -x -c 'limit -p bhard=1000k 42' $where
  database=$where/state/fpolicy.db
  quota_is_reached "database or disk is full" -- xfs_quota -x -c 'limit -p bhard=0 42' $where
}

# ---- disks that fail

export DM_DISABLE_UDEV=1 # nobody but dmsetup makes device nodes here

# make_disk TYPE SIZE MKFS...: a filesystem at $where, on a disk that break_disk breaks.
make_disk() {
  local type=$1
  truncate_disk "$2"
  shift 2
  "$@" /dev/mapper/t-disk >/tmp/mkfs 2>&1 || fail "$*: $(cat /tmp/mkfs)"
  mkdir -p $where
  mount -t "$type" -o noatime /dev/mapper/t-disk $where
}
truncate_disk() {
  mkdir -p /tmp/t
  modprobe -a loop dm-mod
  truncate -s "$1" $image
  sectors=$(($(stat -c %s $image) / 512))
  losetup /dev/loop0 $image
  dmsetup create t-disk --table "0 $sectors linear /dev/loop0 0"
}
# disk_is TARGET: what becomes of its reads and writes from now on.
disk_is() {
  dmsetup suspend --noflush --nolockfs t-disk
  dmsetup load t-disk --table "0 $sectors $1"
  dmsetup resume t-disk
}
# Nothing of it can be read or written, and what was read before is forgotten, but for what is in use.
break_disk() {
  sync
  disk_is error
  echo 3 >/proc/sys/vm/drop_caches
}
mend_disk() { disk_is "linear /dev/loop0 0"; }
# What was written lately a filesystem keeps in memory, whatever drop_caches says; and what failed it does not try again.
remount_disk() {
  umount $where
  mount -o noatime /dev/mapper/t-disk $where
}
failed_to() { grep -q 'Input/output error' <<<"$err" || fail "message: $err"; }

# What holds the tag is the file's own disk, whatever the kernel thinks of security.*
space_of_xattrs() { if [ "$(system_source)" = database ]; then echo --user; else echo --system; fi; }

case_a_tag_that_cannot_be_read() {
  local space
  space=$(space_of_xattrs)
  # In inodes of this size there is no room for attributes: they are in a block of their own, which is read when the inode
  # has long been.
  make_disk ext4 64M mke2fs -q -F -t ext4 -b 4096 -I 128
  make_file $where/lib.so 4 0
  setfpolicy $space migrate=no $where/lib.so
  remount_disk
  # The guard would hold the pages.
  printf '[guard]\nenabled = false\n' >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  make_job t-job 0
  map_in_job t-job $where/lib.so
  policyctl apply >/dev/null
  all_on 0 $where/lib.so 1024
  break_disk
  expect_status 1 getfattr -n "$([ $space = --user ] && echo user || echo security).fpolicy" $where/lib.so
  failed_to

  expect_status 1 getfpolicy $where/lib.so
  failed_to
  equal "" "$out" "what getfpolicy prints"
  expect_status 1 queryfpolicy --json $where/lib.so
  failed_to
  equal "null null" "$(jq -r '.files[0] | "\(.policy) \(.state)"' <<<"$out")" "policy and state"
  expect_status 1 queryfpolicy --check $where/lib.so
  failed_to
  expect_status 1 setfpolicy $space bind:2 $where/lib.so
  failed_to
  expect_status 1 setfpolicy $space -x $where/lib.so
  failed_to
  # policyd cannot tell whether it stays, and does nothing; but it does not take it for a file without a tag.
  policyctl apply >/dev/null || true
  policyctl apply $where/lib.so >/dev/null || true
  policyctl events --json | jq -e 'select(.kind == "error" and (.message | test("lib.so.*Input/output error")))' >/dev/null ||
    fail "events: $(policyctl events)"
  echo 2 >$cg/t-job/cpuset.mems
  all_on 2 $where/lib.so 1024
  expect_status 1 queryfpolicy --all
  failed_to
  mend_disk
  expect_status 0 getfpolicy $where/lib.so
  grep -q migrate=no <<<"$out" || fail "the tag: $out"
  policyctl apply >/dev/null
  within 2 "home, which was not forgotten" all_on 0 $where/lib.so 1024
}

# nothing_is_collected TYPE SIZE MKFS...
nothing_is_collected() {
  database=/var/lib/fpolicy/fpolicy.db
  make_disk "$@"
  # More than btrfs has in memory as long as it is mounted.
  make_many $where/others 500
  mkdir $where/{a,b}
  touch $where/a/{stays,goes} $where/b/{stays,renamed}
  setfpolicy bind:1 $where/a/{stays,goes} $where/b/{stays,renamed}
  rm $where/a/goes
  mv $where/b/renamed $where/a/new
  remount_disk
  break_disk
  expect_status 1 policyctl gc
  echo "note: $1: $err"
  equal "" "$out" "what gc has collected"
  equal 4 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records"
  expect_status 1 queryfpolicy --repair --all
  equal 4 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records after --repair"
  # policyd finds nothing gone, either, and does not carry a tag over to what it cannot see.
  start_policyd
  policyctl apply >/dev/null || true
  equal 4 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records after policyd"
  stop_policyd
  mend_disk
  remount_disk
  policyctl gc >/tmp/out
  grep -q "a/goes" /tmp/out || fail "gc: $(cat /tmp/out)"
  equal 3 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records of the files that are there"
  equal bind:1 "$(queryfpolicy --json $where/a/new | jq -r '.files[0].policy')" "the file that was renamed"
}
case_nothing_is_collected_from_a_broken_ext4() { nothing_is_collected ext4 64M mke2fs -q -F -t ext4; }
case_nothing_is_collected_from_a_broken_xfs() { nothing_is_collected xfs 300M mkfs.xfs -q -f; }
case_nothing_is_collected_from_a_broken_btrfs() { nothing_is_collected btrfs 128M mkfs.btrfs -q -f; }

case_a_database_that_cannot_be_read() {
  make_disk ext4 64M mke2fs -q -F -t ext4
  database=$where/state/fpolicy.db
  make_file /mnt/vfat/t/data 4 0
  make_file /mnt/vfat/t/other 4 0
  setfpolicy --database $database bind:0 /mnt/vfat/t/data
  remount_disk
  break_disk
  for command in "getfpolicy /mnt/vfat/t/data" "queryfpolicy /mnt/vfat/t/data" "queryfpolicy --check /mnt/vfat/t/data" \
    "queryfpolicy --all" "queryfpolicy --stale" "setfpolicy bind:1 /mnt/vfat/t/data" "setfpolicy -x /mnt/vfat/t/data" \
    "policyctl gc" "policyctl check" "policyctl backup /tmp/t/copy"; do
    expect_status 1 $command --database $database
    failed_to
    ! grep -qE 'unset|none' <<<"$out" || fail "$command: $out"
  done
  expect_status 1 policyd --state-dir $where/state
  failed_to
  mend_disk
  remount_disk
  whole
  equal 1 "$(tagged /mnt/vfat/t bind:0)" "tags"
}

# policyd has the database open when its disk takes no more writes.
case_a_database_that_fails_under_policyd() {
  local file found users=/tmp/t/users
  make_disk ext4 64M mke2fs -q -F -t ext4
  database=$where/state/fpolicy.db
  # Files of a user, on a filesystem that takes no attributes.
  mkdir -p $users
  truncate -s 32M /tmp/t/users-image
  mkfs.vfat /tmp/t/users-image >/dev/null
  attach /tmp/t/users-image 1 $users -t vfat -o uid=1000,gid=1000
  for file in before root users; do make_file $users/$file 1 0; done
  start_policyd --state-dir $where/state
  expect_status 0 as_user user setfpolicy bind:1 $users/before
  within 2 "placed" all_on 1 $users/before 256
  sync
  disk_is "flakey /dev/loop0 0 0 3600 1 error_writes"
  expect_status 1 as_user user setfpolicy bind:2 $users/users
  echo "note: user: $err"
  [[ $err == "setfpolicy: "*"database $database: disk I/O error"* ]] || fail "message: $err"
  expect_status 1 setfpolicy --database $database bind:2 $users/root
  echo "note: root: $err"
  [[ $err == "setfpolicy: "*"database $database: "* ]] || fail "message: $err"
  # What it knew it may still know; but the file has not lost its tag.
  cache_on $users/before 3
  policyctl apply >/dev/null || true
  found=$(nodes $users/before)
  [ "$found" = 1:256 ] || [ "$found" = 3:256 ] || fail "pages: $found"
  stop_policyd
  mend_disk
  remount_disk
  whole
  equal 1 "$(tagged $users bind:1)" "the tag that was reported as set"
  start_policyd --state-dir $where/state
  expect_status 0 as_user user setfpolicy bind:2 $users/users
  expect_status 0 setfpolicy --database $database bind:2 $users/root
  equal 2 "$(tagged $users bind:2)" "tags once it can be written"
}

# ---- servers that forget

# Removed on the server, or by another of its clients, while this one has the file in use.
server_forgets() {
  # Where root alone may put files: tags are carried over nowhere else.
  local options=$1 source=$2 where=/root/mounted
  mkdir -p $where
  database=/var/lib/fpolicy/fpolicy.db
  records() { sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE CAST(path AS TEXT) LIKE '%$1'"; }
  mkdir -p /tmp/t
  modprobe loop
  base ext4 32M mke2fs -q -F -t ext4
  mkdir -p /tmp/t/base/t/below
  for file in mapped closed renamed below/file; do make_file /tmp/t/base/t/$file 1 0; done
  serve
  mount -t nfs -o "$options" "$source" $where
  setfpolicy --system bind:1 $where/t/{mapped,closed,renamed,below/file}
  start_policyd
  make_job t-job 0-3
  map_in_job t-job $where/t/mapped
  cd $where/t/below || return
  ls -l $where/t >/dev/null
  rm -r /tmp/t/base/t/{mapped,closed,below}
  mv /tmp/t/base/t/renamed /tmp/t/base/t/elsewhere
  # What the client remembers of the server's names.
  echo 2 >/proc/sys/vm/drop_caches

  expect_status 1 getfpolicy $where/t/closed
  [[ $err == "getfpolicy: $where/t/closed: "*"No such file or directory" || $err == *"Stale file handle" ]] || fail "message: $err"
  for command in "getfpolicy file" "queryfpolicy file" "setfpolicy --system bind:2 file"; do
    expect_status 1 $command
    echo "note: $command: $err"
    [[ $err == *"Stale file handle"* || $err == *"No such file or directory"* ]] || fail "$command: $err"
    ! grep -q unset <<<"$out" || fail "$command: $out"
  done
  cd /
  # Nobody but the server knows whether it will know them again.
  policyctl apply >/tmp/out 2>&1 || echo "note: apply: $(cat /tmp/out)"
  expect_status 0 policyctl gc
  equal "" "$out" "what gc has collected"
  queryfpolicy --stale >/tmp/out || true
  echo "note: $(grep -c . /tmp/out) lines of stale records"
  grep "$where/t/closed" /tmp/out | grep -q "its server does not know it (ESTALE)" || fail "stale: $(cat /tmp/out)"
  # The mapped one has gone as well; its record stands.
  equal 4 "$(records '')" "records"
  queryfpolicy --repair --all >/dev/null 2>&1 || true
  equal 4 "$(records '')" "records after --repair"
  # The one that was renamed is known by its handle.
  equal bind:1 "$(getfpolicy --json $where/t/elsewhere | jq -r '.files[0].system.policy')" "the renamed file"
  # Another file at the path: it gets the tag (decision 008), and the old record is not taken for proof of anything.
  echo another >/tmp/t/base/t/closed
  ls -l $where/t >/dev/null
  expect_status 0 setfpolicy --from-catalogue $where/t
  equal bind:1 "$(getfpolicy --json $where/t/closed | jq -r '.files[0].system.policy')" "the file that took its place"
  equal 5 "$(records '')" "records after the tag was carried over"
  kill "$job_pid"
  wait "$job_pid" || true
  stop_policyd
}
case_nfs42_server_forgets() { server_forgets vers=4.2,actimeo=0 127.0.0.1:/; }
case_nfs3_server_forgets() { server_forgets vers=3,nolock,actimeo=0 127.0.0.1:/tmp/t/base; }
