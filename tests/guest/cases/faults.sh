#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# Disks that fail and commands that are killed: no tag that was reported as set is lost, none is taken for removed, and
# nothing is done to a file as if it had none.

# shellcheck source=tests/guest/cases/identity.sh
. "$(dirname "${BASH_SOURCE[0]}")/identity.sh" # $where, $image

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
  local tree=$1 kills=${FPOLICY_KILLS:-6} count=300 policies=(bind:0 migrate=no) i began took whole_run delay pid status killed=0
  database=/var/lib/fpolicy/fpolicy.db
  make_many "$tree/0" $count
  make_many "$tree/untouched" 3
  setfpolicy -R "${policies[0]}" "$tree/0"
  # The shorter of two: one may have been held up.
  whole_run=600000000
  for i in 1 0; do
    began=${EPOCHREALTIME/./}
    setfpolicy -R "${policies[i]}" "$tree/0"
    took=$((${EPOCHREALTIME/./} - began))
    [ $took -ge $whole_run ] || whole_run=$took
  done
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
  [ $killed -gt 0 ] || fail "none of $kills was met while it ran"
  # The run that is let be says of every file what it is, and so does the catalogue.
  setfpolicy -R bind:0 "$tree/0"
  equal $count "$(tagged "$tree/0" bind:0)" "tags in the end"
  equal $count "$(sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE policy = 'bind:0'")" "records in the end"
  equal $count "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "all records"
}
case_setfpolicy_killed_on_vfat() { killed_in /mnt/vfat/t; }
case_setfpolicy_killed_on_ext4() { killed_in /mnt/ext4/t; }

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
  # A few buffers are held by a list of each processor's, which drop_caches does not touch.
  blockdev --flushbufs /dev/mapper/t-disk
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

case_a_tag_that_cannot_be_read() {
  [ "$(system_source)" = system-xattr ] || skip "this kernel does not protect security.*; guest-6.1-xattrs has it"
  # In inodes of this size there is no room for attributes: they are in a block of their own, which is read when the inode
  # has long been.
  make_disk ext4 64M mke2fs -q -F -t ext4 -b 4096 -I 128
  make_file $where/lib.so 4 0
  setfpolicy migrate=no $where/lib.so
  remount_disk
  # The guard would hold the pages.
  printf '[guard]\nenabled = false\n' >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  make_job t-job 0
  map_in_job t-job $where/lib.so
  policyctl apply >/dev/null
  all_on 0 $where/lib.so 1024
  break_disk
  # The first time the kernel only finds out that nobody has needed the block since.
  for _ in 1 2 3 4 5; do
    getfattr -n security.fpolicy $where/lib.so >/dev/null 2>&1 || break
    echo 3 >/proc/sys/vm/drop_caches
  done
  expect_status 1 getfattr -n security.fpolicy $where/lib.so
  failed_to

  expect_status 1 getfpolicy $where/lib.so
  failed_to
  equal "" "$out" "what getfpolicy prints"
  expect_status 1 queryfpolicy --json $where/lib.so
  failed_to
  equal "null null" "$(jq -r '.files[0] | "\(.policy) \(.state)"' <<<"$out")" "policy and state"
  expect_status 1 queryfpolicy --check $where/lib.so
  failed_to
  expect_status 1 setfpolicy bind:2 $where/lib.so
  failed_to
  expect_status 1 setfpolicy -x $where/lib.so
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
  # Amid more than the filesystem has in memory as long as it is mounted: btrfs reads both ends of its tree then, where the
  # first files are and the last.
  make_many $where/before 1000
  mkdir $where/{a,b}
  touch $where/a/{stays,goes} $where/b/{stays,renamed}
  setfpolicy bind:1 $where/a/{stays,goes} $where/b/{stays,renamed}
  rm $where/a/goes
  mv $where/b/renamed $where/a/new
  make_many $where/behind 1000
  remount_disk
  break_disk
  expect_status 1 policyctl gc
  echo "note: $1: $err"
  equal "" "$out" "what gc has collected"
  records_stand "after gc"
  expect_status 1 queryfpolicy --repair --all
  records_stand "after --repair"
  # policyd finds nothing gone, either, and does not carry a tag over to what it cannot see.
  start_policyd
  policyctl apply >/dev/null || true
  records_stand "after policyd"
  stop_policyd
  mend_disk
  remount_disk
  policyctl gc >/tmp/out
  grep -q "a/goes" /tmp/out || fail "gc: $(cat /tmp/out)"
  equal 3 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records of the files that are there"
  equal bind:1 "$(queryfpolicy --json $where/a/new | jq -r '.files[0].policy')" "the file that was renamed"
}
records_stand() { equal 4 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records $1"; }
case_nothing_is_collected_from_a_broken_ext4() { nothing_is_collected ext4 64M mke2fs -q -F -t ext4; }
case_nothing_is_collected_from_a_broken_xfs() { nothing_is_collected xfs 300M mkfs.xfs -q -f; }
case_nothing_is_collected_from_a_broken_btrfs() { nothing_is_collected btrfs 128M mkfs.btrfs -q -f; }

case_a_users_quota_is_used_up() {
  database=/var/lib/fpolicy/fpolicy.db
  local count=300 xattrs
  make_disk xfs 300M mkfs.xfs -q -f -i size=512
  umount $where
  mount -o noatime,uquota /dev/mapper/t-disk $where
  make_many $where/t $count
  # An inode of 512 bytes that has no room left: its next attribute takes a block.
  find $where/t -type f -print0 | xargs -0 setfattr -n user.first -v "$(printf '%0240d' 0)"
  find $where/t -type f -print0 | xargs -0 setfattr -n user.second -v "$(printf '%013d' 0)"
  chown -R user $where/t
  chmod 755 $where
  xfs_quota -x -c 'limit bhard=400k user' $where
  # Alone, a user has what fits, and is told of the rest.
  expect_status 1 as_user user setfpolicy -R bind:1 $where/t
  grep -q 'Disk quota exceeded' <<<"$err" || fail "message: $err"
  xattrs=$(has_xattrs)
  echo "note: the quota is enough for $xattrs of $count tags"
  if [ "$xattrs" -eq 0 ] || [ "$xattrs" -eq $count ]; then fail "$xattrs tags"; fi
  equal $((count - xattrs)) "$(grep -c 'Disk quota exceeded' <<<"$err")" "files of which was told"
  equal "$xattrs" "$(tagged $where/t bind:1)" "tags"
  # policyd keeps what does not; the same command goes on.
  start_policyd
  expect_status 0 as_user user setfpolicy -R bind:1 $where/t
  equal $count "$(tagged $where/t bind:1)" "tags with policyd"
  equal "$xattrs" "$(has_xattrs)" "of which are xattrs"
  expect_status 0 as_user user setfpolicy -R migrate=no $where/t
  equal $count "$(tagged $where/t migrate=no)" "tags that were changed"
  # When there is room they go where they belong.
  xfs_quota -x -c 'limit bhard=0 user' $where
  queryfpolicy --repair -R $where/t >/dev/null
  equal $count "$(has_xattrs)" "xattrs in the end"
  equal $count "$(tagged $where/t migrate=no)" "tags in the end"
  equal 0 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE carrier = 1")" "tags that the database carries"
  whole
}
# How many files have one; getfattr fails where one has none.
has_xattrs() { getfattr -R -n user.fpolicy --absolute-names $where/t 2>/dev/null | grep -c '^user.fpolicy=' || true; }

case_a_servers_word_is_no_proof() {
  # The file was removed where the server is: its handle is stale. So it would be while the server has another disk, or
  # exports another directory, and the tag must be there when the right one is back.
  database=/var/lib/fpolicy/fpolicy.db
  modprobe loop
  mkdir -p $where /tmp/t
  base ext4 32M mke2fs -q -F -t ext4
  serve
  mount -t nfs -o vers=4.2,noac 127.0.0.1:/ $where
  touch $where/{stays,goes}
  # NFS carries no security.*: the database has these.
  setfpolicy bind:1 $where/{stays,goes}
  equal 2 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE carrier = 1")" "records"
  cp /tmp/t/base/goes /tmp/t/base/other
  rm /tmp/t/base/goes
  echo 3 >/proc/sys/vm/drop_caches
  expect_status 0 queryfpolicy --stale
  grep -q "$where/goes" <<<"$out" || fail "--stale: $out"
  expect_status 0 policyctl gc
  equal "" "$out" "what gc has collected"
  equal 2 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag")" "records after gc"
  # Another file at its path is another file.
  mv /tmp/t/base/other /tmp/t/base/goes
  expect_status 0 getfpolicy $where/goes
  grep -q bind:1 <<<"$out" && fail "the new file has the tag: $out"
  start_policyd
  policyctl apply >/dev/null || true
  stop_policyd
  equal 2 "$(sqlite3 -readonly $database "SELECT count(*) FROM tag WHERE policy = 'bind:1'")" "records after policyd"
  expect_status 0 getfpolicy $where/stays
  grep -q bind:1 <<<"$out" || fail "the file that stays: $out"
  whole
}

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
