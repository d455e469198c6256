#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Tags whose files change carriers, and records whose files are gone (docs/decisions/009): before, who looks, after.
#   carriers_test.sh TOOLS_DIR [CASE...]     needs root and loop devices
# FPOLICY_TEST_KILLS: how often queryfpolicy --repair is killed.
set -uo pipefail

PATH=$1:$PATH
shift
kills=${FPOLICY_TEST_KILLS:-12}
# shellcheck source=tests/system/tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
places() { "$@" --database "$work/$name.db" --socket "$work/no-socket"; }
set_() { places setfpolicy --rules "$work/rules" "$@"; }
get_() { places getfpolicy --rules "$work/rules" "$@"; }
query() { places queryfpolicy --rules "$work/rules" "$@"; }
gc() { policyctl gc --database "$work/$name.db" "$@"; }
xattr() { getfattr -h --absolute-names --only-values -n security.fpolicy "$1" 2>/dev/null; }
# carrier FILE: what getfpolicy says that the tag is in.
carrier() { query --raw --noheadings -o SOURCE "$1"; }
mount_at() {
  local at=$1
  shift
  mkdir -p "$at"
  mount "$@" "$at" || return
  mounted=("$at" "${mounted[@]}")
}
unmount() { umount "$1" || fail "umount $1"; }
# image TYPE: an empty filesystem, mounted at $at.
image() {
  at=$work/$name
  truncate -s 64M "$at.image"
  if ! "mkfs.$1" "$at.image" >"$work/log" 2>&1 || ! mount_at "$at" -o loop "$at.image" 2>>"$work/log"; then
    echo "SKIPPED: $name: no $1 can be mounted here: $(tail -n 1 "$work/log")"
    return 1
  fi
}

case_a_filesystem_gains_xattrs() {
  local at
  image ext4 || return
  touch "$at/file"
  mkdir "$at/directory"
  mount -o remount,ro "$at"
  run 0 set_ bind:0 "$at/file" "$at/directory"
  equal database "$(carrier "$at/file")" "before"
  run 0 query --repair "$at/file"
  equal '' "$out" "still read-only"
  mount -o remount,rw "$at"
  run 0 query --repair -n -R "$at"
  holds "$out" "moved from the database to the attribute"
  equal '' "$(xattr "$at/file")" "after -n"
  equal database "$(carrier "$at/file")" "after -n"
  run 0 query --repair -R --json "$at"
  holds "$out" "\"path\":\"$at/file\",\"tag\":\"system\",\"policy\":\"bind:0\",\"done\":\"moved-to-xattr\""
  holds "$out" "\"path\":\"$at/directory\""
  equal '1 bind:0' "$(xattr "$at/file")" after
  equal system-xattr "$(carrier "$at/file")" after
  run 0 query --repair -R "$at"
  equal '' "$out" "the second time"
}

case_attributes_changed_behind_our_back() {
  local at
  image ext4 || return
  touch "$at/"{changed,removed,set}
  run 0 set_ bind:0 "$at/changed" "$at/removed"
  setfattr -n security.fpolicy -v '1 migrate=no' "$at/changed"
  setfattr -n security.fpolicy -v '1 bind:0' "$at/set"
  setfattr -x security.fpolicy "$at/removed"
  run 0 query --stale
  holds "$out" "the file has lost this tag"
  lacks "$out" "$at/changed"
  run 1 query --stale --check
  holds "$err" "$at/removed: stale"
  # The catalogue leads to two of them; the third was never entered.
  run 0 query --repair --all
  holds "$out" "catalogue corrected, which said bind:0"
  holds "$out" "entry removed: the attribute is gone"
  lacks "$out" "$at/set"
  run 0 query --repair "$at/set"
  holds "$out" "entered in the catalogue"
  run 0 query --stale
  equal '' "$out" "after"
}

case_killed_while_it_moves() {
  local at i delay began whole_run=0 pid killed=0 files=60
  image ext4 || return
  (cd "$at" && seq -f 'f%g' $files | xargs touch)
  for ((i = 0; i <= kills; i++)); do
    mount -o remount,rw "$at"
    (cd "$at" && for f in f*; do setfattr -x security.fpolicy "$f" 2>/dev/null; done)
    mount -o remount,ro "$at"
    run 0 set_ -R bind:0 "$at"
    mount -o remount,rw "$at"
    began=${EPOCHREALTIME/./}
    queryfpolicy --database "$work/$name.db" --rules "$work/rules" --repair -R "$at" >/dev/null 2>&1 &
    pid=$!
    if ((i > 0)); then
      # Each time a little later, so that all of a run is met.
      delay=$((whole_run * i / kills))
      sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
      kill -9 $pid 2>/dev/null
    fi
    wait $pid 2>/dev/null
    [ $? -ne 137 ] || killed=$((killed + 1))
    ((i > 0)) || whole_run=$((${EPOCHREALTIME/./} - began))
    equal $files "$(get_ -R "$at" | grep -c $'\tbind:0$')" "tags after kill $i"
    run 0 query --repair -R "$at"
    equal $files "$(getfattr -R -h --absolute-names -n security.fpolicy "$at" 2>/dev/null | grep -c '"1 bind:0"')" \
      "attributes after kill $i"
    run 0 query --repair -R "$at"
    equal '' "$out" "the time after"
    run 0 policyctl check --database "$work/$name.db"
  done
  [ $killed -gt 0 ] || fail "none was met while it ran"
}

case_deleted_files_of_ext4() {
  local at
  image ext4 || return
  touch "$at/"{live,deleted,replaced,renamed,open}
  run 0 set_ bind:0 "$at/"{live,deleted,replaced,renamed,open}
  exec 9<"$at/open"
  rm "$at/"{deleted,replaced,open}
  touch "$at/replaced"
  mv "$at/renamed" "$at/elsewhere"
  run 0 query --stale --raw --noheadings -o FILE,STATE,REASON
  holds "$out" "$at/deleted stale deleted"
  holds "$out" "$at/replaced stale deleted"
  holds "$out" "$at/open stale deleted"
  lacks "$out" "$at/live"
  lacks "$out" "$at/renamed"
  exec 9<&-
  unmount "$at"
  run 0 gc
  equal '' "$out" "while it is not mounted"
}

case_gc_of_ext4() {
  local at
  image ext4 || return
  touch "$at/"{live,deleted,replaced,renamed,open}
  run 0 set_ bind:0 "$at/"{live,deleted,replaced,renamed,open}
  exec 9<"$at/open"
  rm "$at/"{deleted,replaced,open}
  touch "$at/replaced"
  mv "$at/renamed" "$at/elsewhere"
  run 0 gc -n
  holds "$out" "$at/deleted"
  holds "$out" "another file is at its path"
  run 0 gc --json
  holds "$out" "\"path\":\"$at/deleted\",\"tag\":\"system\",\"policy\":\"bind:0\",\"reason\":\"deleted\""
  holds "$out" '"dry_run":false,"kept":1'
  lacks "$out" "$at/open"
  lacks "$out" "$at/live"
  lacks "$out" "$at/renamed"
  run 0 gc
  equal '' "$out" "the second time"
  exec 9<&-
  run 0 gc
  holds "$out" "$at/open"
  # Moved to another place it is still in the catalogue.
  run 0 query --all --raw --noheadings -o FILE,STATE
  holds "$out" "$at/live ok"
  holds "$out" "$at/elsewhere ok"
}

case_gc_of_vfat() {
  local at
  image vfat || return
  touch "$at/"{live,deleted,replaced}
  mkdir "$at/hidden"
  touch "$at/hidden/file"
  run 0 set_ bind:0 "$at/"{live,deleted,replaced} "$at/hidden/file"
  rm "$at/"{deleted,replaced}
  sleep 0.1 # FAT keeps birth times in steps of 10 ms
  touch "$at/replaced"
  unmount "$at"
  run 0 gc
  equal '' "$out" "while it is not mounted"
  mount -o loop "$at.image" "$at" || fail "mount"
  # What lies below another mount cannot be looked at.
  mount_at "$at/hidden" -t tmpfs tmpfs
  run 1 gc
  holds "$err" "$at/hidden/file: another filesystem is mounted over it"
  holds "$out" "its path does not exist any more"
  holds "$out" "another file is at its path"
  lacks "$out" "$at/live"
  unmount "$at/hidden"
  run 0 gc
  equal '' "$out" "the second time"
  equal database "$(carrier "$at/live")" "live"
  equal database "$(carrier "$at/hidden/file")" "hidden"
}

case_two_filesystems_with_one_id() {
  local at
  image ext4 || return
  touch "$at/file"
  run 0 set_ bind:0 "$at/file"
  unmount "$at"
  cp "$at.image" "$at.copy"
  mount -o loop "$at.image" "$at" || fail "mount"
  mount_at "$at-copy" -o loop,ro "$at.copy" || return
  rm "$at/file"
  run 1 gc
  holds "$err" "two mounted filesystems have the id"
  unmount "$at-copy"
  run 0 gc
  holds "$out" "$at/file"
}

case_overlay_copies_up() {
  local at=$work/$name
  mkdir -p "$at-base"
  # The root may itself be an overlay, which can be no upper layer.
  mount_at "$at-base" -t tmpfs tmpfs
  mkdir "$at-base/"{lower,upper,work}
  touch "$at-base/lower/"{file,carried}
  if ! mount_at "$at" -t overlay overlay \
    -o "lowerdir=$at-base/lower,upperdir=$at-base/upper,workdir=$at-base/work" 2>"$work/log"; then
    echo "SKIPPED: $name: no overlay can be mounted here: $(<"$work/log")"
    return
  fi
  # Setting the attribute copies the file up.
  run 0 set_ bind:0 "$at/file"
  run 0 query --stale
  equal '' "$out" "after setting"
  mount -o remount,ro "$at"
  run 0 set_ bind:0 "$at/carried"
  equal database "$(carrier "$at/carried")" "read-only"
  mount -o remount,rw "$at"
  echo text >>"$at/carried"
  # It may be the tagged file.
  run 0 query --stale
  holds "$out" "or it was copied up"
  run 0 gc
  equal '' "$out" "collected"
  rm "$at/carried"
  run 0 gc
  holds "$out" "its path does not exist any more"
}

case_what_lived_in_memory() {
  local at=$work/$name
  mount_at "$at" -t tmpfs tmpfs
  touch "$at/file"
  run 0 set_ bind:0 "$at/file"
  unmount "$at"
  run 0 gc
  equal '' "$out" "another namespace may have it mounted"
}

case_bad_use() {
  run 2 query --repair
  run 2 query -n --all
  run 2 query --repair --check --all
  run 2 query --repair -o nothing --all
  run 2 gc -o nothing
  run 2 gc file
  run 1 gc
  holds "$err" "No such file or directory"
  run 1 query --repair "$work/not-there"
  holds "$err" "$work/not-there: No such file or directory"
  if setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
    run 1 setpriv --reuid 65534 --regid 65534 --clear-groups "$(command -v queryfpolicy)" --repair --all
    holds "$err" "only root may repair"
    run 1 setpriv --reuid 65534 --regid 65534 --clear-groups "$(command -v policyctl)" gc
    holds "$err" "only root may read"
  fi
}

run_cases "$@"
