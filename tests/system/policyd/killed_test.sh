#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# policyd killed at any moment while it writes the database: tags that it keeps for a user (on squashfs, which takes no
# xattrs), entries that it corrects after setfattr, and tags that it carries over to files that were replaced.
#   killed_test.sh BUILD_DIR [CASE...]     needs root and loop devices
# FPOLICY_KILLS: how often.
set -uo pipefail

PATH=$1/tools:$1/policyd:$PATH
shift
kills=${FPOLICY_KILLS:-20}
# Where root alone may put files: tags are carried over nowhere else.
TMPDIR=/var/lib
# shellcheck source=tests/system/tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"

users=$work/users own=$work/own database=$work/state/fpolicy.db socket=$work/socket files=60 user=1000
as_user() { setpriv --reuid=$user --regid=$user --clear-groups -- "$@"; }
if ! as_user "$(command -v setfpolicy)" --version >/dev/null 2>&1; then
  echo "SKIPPED: another user cannot run $(command -v setfpolicy)"
  exit 77
fi
mkdir -p "$work"/image.d/{tagged,untouched} "$own"/{changed,replaced,untouched} "$users" "$work/rules"
for directory in "$work"/image.d/{tagged,untouched} "$own"/{changed,replaced,untouched}; do
  (cd "$directory" && seq -f 'f%g' $files | xargs touch)
done
# Nobody on this machine is kept waiting for the sake of a test.
printf '[guard]\nenabled = false\n[rules]\ndirectory = "%s"\n' "$work/rules" >"$work/policyd.toml"
if ! mksquashfs "$work/image.d" "$work/image" -quiet -noappend -no-progress -force-uid $user >"$work/log" 2>&1 ||
  ! mount -t squashfs -o loop,ro "$work/image" "$users" 2>>"$work/log"; then
  echo "SKIPPED: no squashfs can be mounted here: $(<"$work/log")"
  exit 77
fi
mounted=("$users")
if ! setfattr -n security.fpolicy -v '1 bind:0' "$own/changed/f1" 2>"$work/log"; then
  echo "SKIPPED: $own: no security attributes: $(<"$work/log")"
  exit 77
fi

set_() { setfpolicy --database "$database" --rules "$work/rules" --socket "$socket" "$@"; }
get_() { getfpolicy --database "$database" --rules "$work/rules" --socket "$work/no-socket" -R "$@"; }
ask_() { policyctl --socket "$socket" "$@"; }
records() { sqlite3 -readonly "$database" "SELECT count(*) FROM tag WHERE CAST(path AS TEXT) GLOB '$1' AND $2"; }
tagged() { get_ "$1" | grep -c $'\t'"$2\$"; }

start_policyd() {
  policyd --config "$work/policyd.toml" --state-dir "$work/state" --socket "$socket" 2>"$work/policyd.log" &
  policyd_pid=$!
}
# until_there: answers, or has ended.
until_there() {
  local i
  for ((i = 0; i < 3000; i++)); do
    ask_ status >/dev/null 2>&1 && return
    kill -0 "$policyd_pid" 2>/dev/null || return
    sleep 0.02
  done
}
# What the user has been told is in $work/told, a file a line.
users_work() {
  until_there
  as_user setfpolicy -v --rules "$work/rules" --socket "$socket" -R "$1" "$users/tagged" 2>"$work/users.err" |
    sed 's/^#user //; s/\t.*//; s/^# \(.*\): unchanged$/\1/' >"$work/told"
}
# Attributes changed and files replaced, as others do it, who do not ask policyd.
others_work() {
  setfattr -n security.fpolicy -v "1 $1" "$own"/changed/*
  mkdir "$work/new"
  (cd "$work/new" && seq -f 'f%g' $files | xargs touch)
  mv -f "$work"/new/* "$own/replaced"
  rmdir "$work/new"
}

# as_left POLICY BEFORE: what must hold of whatever policyd has left.
as_left() {
  run 0 policyctl check --database "$database"
  holds "$out" 'no fault'
  equal $files "$(tagged "$users/tagged" "\($1\|$2\)")" "the user's tags"
  # What he was told is so, whatever became of the rest.
  get_ "$users/tagged" | sed -n "s/^#user \(.*\)\t$1\$/\1/p" | sort >"$work/found"
  equal '' "$(sort "$work/told" | comm -23 - "$work/found")" "told to be set, and lost"
  equal $files "$(tagged "$own/changed" "$1")" "attributes that policyd has only looked at"
  equal 0 "$(get_ "$own/replaced" | grep -vc $'\tprefer:0$')" "other tags than the one to be carried over"
  equal 0 "$(get_ "$users/untouched" "$own/untouched" | grep -c .)" "tags that nobody has set"
  equal 0 "$(records '*/untouched/*' true)" "records of tags that nobody has set"
  equal 0 "$(records '*' "policy NOT IN ('$1', '$2', 'prefer:0')")" "records of policies that nobody has set"
}

# The next one finishes what was begun.
finished() {
  start_policyd
  until_there
  users_work "$1"
  equal '' "$(<"$work/users.err")" "what the user is told by the next policyd"
  run 0 ask_ apply
  equal $files "$(tagged "$users/tagged" "$1")" "the user's tags in the end"
  equal $files "$(records "$users/tagged/*" "policy = '$1' AND space = 1 AND uid = $user")" "the user's records"
  equal $files "$(tagged "$own/replaced" prefer:0)" "tags that were carried over"
  equal $files "$(records "$own/changed/*" "policy = '$1' AND space = 0")" "entries that were corrected"
  kill -TERM $policyd_pid
  wait $policyd_pid
  equal 0 $? "exit status of the next policyd"
  # Entries of files that were replaced, where it was killed before it took them out.
  run 0 policyctl gc --database "$database"
  equal $files "$(records "$own/replaced/*" "policy = 'prefer:0' AND space = 0")" "entries of those"
  # One whose path was released names a file that is gone, and is the next gc's where something still has that open.
  equal $((3 * files)) "$(records '?*' true)" "records of files with a path"
}

case_killed_while_it_writes() {
  local i policy before began whole_run delay killed=0 jobs told=0 policies=(bind:0 migrate=no)
  run 0 set_ -R bind:0 "$own/changed"
  run 0 set_ -R prefer:0 "$own/replaced"
  began=${EPOCHREALTIME/./}
  finished bind:0
  whole_run=$((${EPOCHREALTIME/./} - began))
  for ((i = 1; i <= kills; i++)); do
    policy=${policies[i % 2]} before=${policies[(i + 1) % 2]}
    delay=$(((RANDOM * 32768 + RANDOM) % whole_run))
    # Found at start, or while it runs.
    ((i % 3 == 0)) || others_work "$policy"
    start_policyd
    users_work "$policy" &
    jobs=$!
    if ((i % 3 == 0)); then
      others_work "$policy" &
      jobs+=" $!"
    fi
    sleep "$(printf '%d.%06d' $((delay / 1000000)) $((delay % 1000000)))"
    kill -9 $policyd_pid && killed=$((killed + 1))
    wait $policyd_pid 2>/dev/null
    # shellcheck disable=SC2086 # pids
    wait $jobs
    told=$((told + $(wc -l <"$work/told")))
    [ -e "$database" ] || fail "no database"
    as_left "$policy" "$before"
    finished "$policy"
    [ "$failed" -eq 0 ] || {
      fail "at kill $i, $delay us after the start; policyd said: $(<"$work/policyd.log")"
      return
    }
  done
  equal "$kills" $killed "kills"
  echo "note: a run took $((whole_run / 1000)) ms; $told of $((kills * files)) tags were told to be set before the kills"
  # Else it was killed before it did anything, or when all was done.
  if [ $told -eq 0 ] || [ $told -eq $((kills * files)) ]; then fail "the kills met no user's work"; fi
}

run_cases "$@"
