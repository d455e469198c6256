#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck disable=SC2034 # the tests read what is assigned here
# What the tests of the commands in shell share. They need root; $work is a directory of theirs, $mounted what is mounted
# there, the last first; a case is a function case_NAME.

[ "$(id -u)" -eq 0 ] || {
  echo "SKIPPED: system tags need root"
  exit 77
}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/fpolicy-$(basename "$0" .sh).XXXXXX")
mounted=()
clean() {
  local at
  for at in "${mounted[@]}"; do umount "$at" 2>/dev/null; done
  rm -rf "$work"
}
trap clean EXIT
chmod 755 "$work"
failed=0 name='' out='' err='' status=0

fail() {
  echo "FAILED: $name: $*"
  failed=$((failed + 1))
}
# run STATUS COMMAND...: its output in $out, its messages in $err.
run() {
  local expected=$1
  shift
  out=$("$@" 2>"$work/err")
  status=$?
  err=$(<"$work/err")
  [ "$status" -eq "$expected" ] || fail "exit $status in place of $expected: $* ($err)"
}
equal() { [ "$1" = "$2" ] || fail "${3:-values}: expected '$1', got '$2'"; }
holds() { [[ $1 == *"$2"* ]] || fail "'$2' is not in: $1"; }
lacks() { [[ $1 != *"$2"* ]] || fail "'$2' is in: $1"; }

# run_cases [CASE...]: all without names, each after `prepare`. The test's last command: exit status 1 if one
# has failed.
prepare() { :; }
run_cases() {
  local before cases=("$@")
  [ $# -gt 0 ] || mapfile -t cases < <(declare -F | awk '$3 ~ /^case_/ { print $3 }')
  for name in "${cases[@]}"; do
    prepare
    before=$failed
    $name
    [ "$failed" -ne "$before" ] || echo "ok: $name"
    cd / || exit 1
  done
  echo "$failed failures"
  [ "$failed" -eq 0 ]
}
