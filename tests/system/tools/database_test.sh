#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The database when commands are killed, and on filesystems that are full or read-only. Tags are kept in it since the
# files are on squashfs, which has no xattrs to write.
#   database_test.sh TOOLS_DIR [CASE...]     needs root and loop devices
# FPOLICY_TEST_KILLS: how often setfpolicy is killed.
set -uo pipefail

PATH=$1:$PATH
shift
kills=${FPOLICY_TEST_KILLS:-100}
# shellcheck source=tests/system/tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
set_() { setfpolicy --database "$state/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }
# set_and_kill SECONDS ARGUMENT...: of the program itself, not of a shell around it.
set_and_kill() {
  local after=$1 pid
  shift
  setfpolicy --database "$state/db" --rules "$work/rules" --socket "$work/no-socket" "$@" 2>"$work/err" &
  pid=$!
  sleep "$after"
  kill -9 $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ $? -ne 137 ] || killed=$((killed + 1))
}
get_() { getfpolicy --database "$state/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }
# tagged POLICY: how many files have this tag.
tagged() { get_ -R "$tree" | grep -c $'\t'"$1\$"; }
whole() {
  run 0 policyctl check --database "$state/db"
  holds "$out" 'no fault'
}
mount_at() {
  local at=$1
  shift
  mkdir -p "$at"
  mount "$@" "$at" || return
  mounted=("$at" "${mounted[@]}")
}

tree=$work/tree files=10000
mkdir "$work/files"
(cd "$work/files" && mkdir {0..9} && for i in {0..9}; do seq -f "$i/%g" 1000 | xargs touch; done)
if ! mksquashfs "$work/files" "$work/image" -quiet -noappend -no-progress >"$work/log" 2>&1 ||
  ! mount_at "$tree" -t squashfs -o loop,ro "$work/image" 2>>"$work/log"; then
  echo "SKIPPED: no squashfs can be mounted here: $(<"$work/log")"
  exit 77
fi

# killed_in TREE FILES KILLS
killed_in() {
  local tree=$1 files=$2 kills=$3 state=$work/$name-$2 policies=(bind:0 migrate=no) i delay began whole_run killed=0
  run 0 set_ -R "${policies[1]}" "$tree"
  began=${EPOCHREALTIME/./}
  run 0 set_ -R "${policies[0]}" "$tree"
  whole_run=$((${EPOCHREALTIME/./} - began))
  for ((i = 1; i <= kills; i++)); do
    # Each time a little later, so that all of a run is met; each time another policy, so that there is work to do.
    delay=$((whole_run * i / kills))
    set_and_kill "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))" -R "${policies[i % 2]}" "$tree"
    whole
    # Nobody is without a tag, and no tag is anything but the one before or the one after.
    if ((i % 5 == 0)); then
      equal "$files" "$(tagged "\(bind:0\|migrate=no\)")" "tags after $i kills"
    fi
  done
  [ $killed -gt $((kills / 4)) ] || fail "only $killed of $kills were met while they ran"
  run 0 set_ -R "${policies[0]}" "$tree"
  equal "$files" "$(tagged "${policies[0]}")" "tags after the run that was let be"
  equal "" "$(find "$state" -name '*.new-*')" "left behind"
}
case_killed_at_any_moment() {
  killed_in "$tree/0" 1000 "$kills"
  # More than one batch.
  killed_in "$tree" $files $((kills / 10))
}

case_killed_while_there_is_no_database() {
  local state i killed=0
  for ((i = 0; i < kills / 4; i++)); do
    state=$work/$name-$i
    set_and_kill "0.0$((i % 4))$((i / 4 % 10))" bind:0 "$tree/0/1"
    [ ! -e "$state/db" ] || whole
    run 0 set_ bind:0 "$tree/0/1"
    whole
    run 0 get_ "$tree/0/1"
    holds "$out" bind:0
    rm -r "$state"
  done
  [ $killed -gt 0 ] || fail "none was met while it ran"
}

# The filesystem of the database is full amid ten thousand tags; grown by "$@", the same command goes on.
full() {
  run 1 set_ -R bind:0 "$tree"
  holds "$err" "setfpolicy: "
  holds "$err" "records were not changed: database $state/db: database or disk is full"
  # A later, smaller batch may have found room.
  [ "$(tagged bind:0)" -lt $files ] || fail "all tags are there, and setfpolicy has said that they are not"
  whole
  "$@" || fail "no room was made"
  run 0 set_ -R bind:0 "$tree"
  equal $files "$(tagged bind:0)" "tags once there is room"
  whole
}
case_tmpfs_is_full() {
  local state=$work/$name
  mount_at "$state" -t tmpfs -o size=1m,mode=700 tmpfs || return
  full mount -o remount,size=64m "$state"
}
case_ext4_is_full() {
  local state=$work/$name
  truncate -s 40M "$work/ext4"
  # Blocks smaller than a page: what SQLite maps is not allocated by the page.
  if ! mkfs.ext4 -q -m 0 -b 1024 "$work/ext4" || ! mount_at "$state" -o loop "$work/ext4"; then
    echo "SKIPPED: $name: no ext4 can be mounted here"
    return
  fi
  # All but 1 MiB is taken.
  fallocate -l $(($(stat -f -c '%a * %S' "$state") - 1048576)) "$state/filler" || fail "no filler"
  full rm "$state/filler"
  # And not a block more.
  rm -f "$state"/db-*
  dd if=/dev/zero of="$state/filler" bs=1k status=none 2>/dev/null
  run 1 get_ "$tree/0/1"
  holds "$err" "getfpolicy: database $state/db: "
  run 1 set_ migrate=no "$tree/0/1"
  holds "$err" "setfpolicy: database $state/db: "
  rm "$state/filler"
  whole
}

case_no_room_at_all() {
  local state=$work/$name
  mount_at "$state" -t tmpfs -o size=256k,mode=700 tmpfs || return
  run 0 set_ bind:0 "$tree/0/1"
  rm -f "$state"/db-*
  dd if=/dev/zero of="$state/filler" bs=4k status=none 2>/dev/null
  # Even reading needs shared memory there.
  run 1 get_ "$tree/0/1"
  holds "$err" "getfpolicy: database $state/db: disk I/O error: No space left on device"
  run 1 set_ bind:0 "$tree/0/2"
  holds "$err" "setfpolicy: database $state/db: "
  holds "$err" "No space left on device"
  rm "$state/filler"
  run 0 set_ bind:0 "$tree/0/2"
  equal 2 "$(tagged bind:0)" tags
}

case_read_only() {
  local state=$work/$name
  mount_at "$state" -t tmpfs -o size=8m,mode=700 tmpfs || return
  run 0 set_ bind:0 "$tree/0/1"
  mount -o remount,ro "$state"
  run 1 set_ migrate=no "$tree/0/1"
  equal "setfpolicy: database $state/db: Read-only file system" "$err" message
  run 0 get_ "$tree/0/1"
  holds "$out" bind:0
  whole
  run 0 policyctl backup --database "$state/db" "$work/of-read-only"
  run 1 policyctl backup --database "$state/db" "$state/copy"
  holds "$err" 'Read-only file system'
  mount -o remount,rw "$state"
  # What is in a log that cannot be read is not left out in silence.
  printf x >"$state/db-wal"
  rm -f "$state/db-shm"
  mount -o remount,ro "$state"
  run 1 get_ "$tree/0/1"
  holds "$err" "its log $state/db-wal cannot be read on a read-only filesystem"
}

case_backup_while_others_write() {
  local state=$work/$name pid i
  run 0 set_ -R bind:0 "$tree"
  (for _ in 1 2 3; do set_ -R migrate=no "$tree" && set_ -R bind:0 "$tree"; done) &
  pid=$!
  for ((i = 0; i < 10; i++)); do
    run 0 policyctl backup --force --database "$state/db" "$work/copy"
    run 0 policyctl check --json --database "$work/copy"
    holds "$out" "\"records\":$files,\"faults\":[]"
  done
  wait $pid
  equal 600 "$(stat -c %a "$work/copy")" mode
  # Back to the copy.
  run 0 set_ -R -x "$tree"
  equal 0 "$(get_ -R "$tree" | grep -c .)" "tags"
  rm -f "$state"/db*
  install -m 600 "$work/copy" "$state/db"
  equal $files "$(get_ -R "$tree" | grep -c $'\t')" "tags of the copy"
}

case_care_says_what_is_wrong() {
  local state=$work/$name
  run 1 policyctl check --database "$state/db"
  equal "policyctl: open $state/db: No such file or directory" "$err" message
  run 1 policyctl backup --database "$state/db" "$work/none"
  run 0 set_ bind:0 "$tree/0/1"
  run 0 policyctl check --json --database "$state/db"
  equal "{\"database\":\"$state/db\",\"schema\":2,\"filesystems\":1,\"records\":1,\"faults\":[]}" "$out" JSON
  run 0 policyctl backup --json --database "$state/db" "$work/one"
  equal "{\"database\":\"$state/db\",\"backup\":\"$work/one\",\"schema\":2,\"records\":1}" "$out" JSON
  run 1 policyctl backup --database "$state/db" "$work/one"
  equal "policyctl: create $work/one: File exists (--force replaces it)" "$err" message
  run 1 policyctl backup --force --database "$state/db" "$work"
  holds "$err" "policyctl: create $work: "
  # Its policy, in the table and in no index.
  LC_ALL=C sed -i 's/bind:0/frob:0/g' "$state/db"
  run 1 policyctl check --database "$state/db"
  [[ $err == "policyctl: $state/db: record of $tree/0/1: its policy: "* ]] || fail "message: $err"
  run 1 policyctl check --json --database "$state/db"
  holds "$out" '"faults":["record of '
  head -c 100000 /dev/urandom >"$state/db"
  run 1 policyctl check --database "$state/db"
  equal "policyctl: database $state/db: damaged, or no SQLite database" "$err" message
  run 1 set_ bind:0 "$tree/0/1"
  equal "setfpolicy: database $state/db: damaged, or no SQLite database" "$err" message
  if setpriv --reuid=65534 --clear-groups policyctl --version >/dev/null 2>&1; then
    run 1 setpriv --reuid=65534 --clear-groups policyctl check
    equal "policyctl: only root may read /var/lib/fpolicy/fpolicy.db" "$err" message
    run 1 setpriv --reuid=65534 --clear-groups policyctl backup "$work/two"
  fi
}

run_cases "$@"
