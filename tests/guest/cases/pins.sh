#!/bin/bash
# shellcheck disable=SC2154,SC2034,SC2016 # lib.sh shares variables; jq expands itself
# Pinned files: their pages are neither moved nor reclaimed by anybody.

# shellcheck source=tests/guest/cases/place.sh
. "$(dirname "${BASH_SOURCE[0]}")/place.sh" # fill_node, release_nodes, free_kib, drop_caches...

held() { policyctl --json pins | jq -r --arg path "$1" '.pins[] | select(.path == $path) | .held_bytes'; }
reason() { policyctl --json pins | jq -r --arg path "$1" '.pins[] | select(.path == $path) | .reason'; }
# holds PATH PAGES
holds() { equal $(($2 * 4096)) "$(held "$1")" "bytes held of $1"; }
no_pins() { equal '{"pins":[]} 0' "$(policyctl --json pins | jq -c .) $(policyctl --json status | jq .pinned_bytes)" "pins, bytes"; }
# It takes a process to have them moved: one maps the file where the pages are, and is moved itself.
pushed_about() { # NODE PATH
  local to mover
  make_job t-pushed "$1"
  map_in_job t-pushed "$2"
  mover=$job_pid
  for to in 2 3; do
    [ "$to" = "$1" ] || migratepages "$mover" "$1" $to
  done
  [ "$1" = 3 ] || echo 3 >"$cg/t-pushed/cpuset.mems"
  echo 0 >"$cg/t-pushed/cpuset.mems"
  kill "$mover"
  wait "$mover" 2>/dev/null || true
}

pinned_on() { # FILESYSTEM
  local file=/mnt/$1/t/data other=/mnt/$1/t/other
  make_file "$file" 8 0
  make_file "$other" 8 1
  start_policyd
  setfpolicy bind:1,pin "$file"
  within 2 "pinned" holds "$file" 2048
  all_on 1 "$file" 2048
  pushed_about 1 "$file"
  pushed_about 1 "$other"
  sync
  echo 3 >/proc/sys/vm/drop_caches
  all_on 1 "$file" 2048
  equal "" "$(nodes "$other")" "pages of a file that is not pinned"
  # Let go, they are like any other's.
  setfpolicy -x "$file"
  within 2 "no pin is left" no_pins
  sync
  echo 3 >/proc/sys/vm/drop_caches
  equal "" "$(nodes "$file")" "pages of a file whose tag has gone"
}
case_ext4() { pinned_on ext4; }
case_xfs() { pinned_on xfs; }
case_btrfs() { pinned_on btrfs; }
case_vfat() { pinned_on vfat; }

case_squashfs() {
  local file=/mnt/squashfs/data-16M
  cache_on $file 0
  start_policyd
  setfpolicy bind:1,pin $file
  within 2 "pinned" holds $file 4096
  pushed_about 1 $file
  echo 3 >/proc/sys/vm/drop_caches
  all_on 1 $file 4096
}

case_tmpfs() {
  mkdir -p /tmp/t
  on_node 0 dd if=/dev/urandom of=/tmp/t/data bs=1M count=8 status=none
  start_policyd
  setfpolicy bind:1,pin /tmp/t/data
  within 2 "pinned" holds /tmp/t/data 2048
  pushed_about 1 /tmp/t/data
  all_on 1 /tmp/t/data 2048
}

case_hugetlbfs_is_told() {
  mkdir -p /tmp/t/huge
  mount -t hugetlbfs none /tmp/t/huge
  echo 8 >/proc/sys/vm/nr_hugepages
  truncate -s 4M /tmp/t/huge/data
  python3 -c 'import mmap
f = open("/tmp/t/huge/data", "r+b"); m = mmap.mmap(f.fileno(), 0); m[0] = 1; m[2 << 20] = 1'
  start_policyd
  setfpolicy bind:1,pin /tmp/t/huge/data
  within 2 "told" gives_no_references
  stop_policyd
  umount /tmp/t/huge
}
gives_no_references() { [[ $(reason /tmp/t/huge/data) == *"no references"* ]]; }

# A process takes all memory of the node that can be had: what is not pinned there goes.
case_memory_is_short() {
  local free hog
  make_file /mnt/ext4/t/pinned 32 1
  start_policyd
  setfpolicy bind:1,pin /mnt/ext4/t/pinned
  within 2 "pinned" holds /mnt/ext4/t/pinned 8192
  # What earlier cases have left in the cache would go first.
  sync
  echo 1 >/proc/sys/vm/drop_caches
  fill_node 1 96
  make_file /mnt/ext4/t/other 64 1
  sync
  free=$(($(free_kib 1) / 1024))
  # No swap: what it cannot have is not given to it, or it is ended.
  on_node 1 mapper --anon $((free + 32)) >/tmp/hog 2>&1 &
  hog=$!
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    all_on 1 /mnt/ext4/t/pinned 8192
    ! grep -q ready /tmp/hog || break
    kill -0 $hog 2>/dev/null || break
    sleep 1
  done
  all_on 1 /mnt/ext4/t/pinned 8192
  echo "note: of the other file $(pages_on 1 /mnt/ext4/t/other) pages are left"
  [ "$(pages_on 1 /mnt/ext4/t/other)" -lt 15000 ] || fail "nothing was reclaimed: the hog was too small"
  kill $hog 2>/dev/null || true
  wait $hog 2>/dev/null || true
  release_nodes
}

case_stays_where_it_is() {
  make_file /mnt/ext4/t/data 8 2
  start_policyd
  setfpolicy pin /mnt/ext4/t/data
  within 2 "pinned" holds /mnt/ext4/t/data 2048
  pushed_about 2 /mnt/ext4/t/data
  all_on 2 /mnt/ext4/t/data 2048
  # Another policy: brought there, and held again.
  setfpolicy bind:1,pin /mnt/ext4/t/data
  within 2 "on the other node" all_on 1 /mnt/ext4/t/data 2048
  within 2 "pinned" holds /mnt/ext4/t/data 2048
  pushed_about 1 /mnt/ext4/t/data
  all_on 1 /mnt/ext4/t/data 2048
  expect_status 0 queryfpolicy --check /mnt/ext4/t/data
}

case_pages_that_come_later() {
  make_file /mnt/ext4/t/data 4 1
  start_policyd
  setfpolicy bind:1,pin /mnt/ext4/t/data
  within 2 "pinned" holds /mnt/ext4/t/data 1024
  # It grows.
  on_node 0 dd if=/dev/urandom of=/mnt/ext4/t/data bs=1M count=4 seek=4 conv=notrunc status=none
  sync /mnt/ext4/t/data
  within 5 "pinned, too" holds /mnt/ext4/t/data 2048
  all_on 1 /mnt/ext4/t/data 2048
  # It shrinks, and is written anew.
  truncate -s 1M /mnt/ext4/t/data
  within 5 "less is held" holds /mnt/ext4/t/data 256
  on_node 0 dd if=/dev/urandom of=/mnt/ext4/t/data bs=1M count=2 status=none
  sync /mnt/ext4/t/data
  within 5 "the new pages" holds /mnt/ext4/t/data 512
  pushed_about 1 /mnt/ext4/t/data
  sync
  echo 3 >/proc/sys/vm/drop_caches
  all_on 1 /mnt/ext4/t/data 512
  # It goes.
  rm /mnt/ext4/t/data
  within 5 "nothing is held" no_pins
}

case_budget() {
  printf '[pin]\nmax_bytes = 16777216\n' >/tmp/policyd.toml
  make_file /mnt/ext4/t/first 8 1
  make_file /mnt/ext4/t/second 12 1
  start_policyd --config /tmp/policyd.toml
  setfpolicy bind:1,pin /mnt/ext4/t/first
  within 2 "pinned" holds /mnt/ext4/t/first 2048
  setfpolicy bind:1,pin /mnt/ext4/t/second
  within 2 "refused" refused /mnt/ext4/t/second
  echo "note: $(reason /mnt/ext4/t/second)"
  grep -q '/mnt/ext4/t/second: not pinned: ' /tmp/policyd.log || fail "not in the log: $(cat /tmp/policyd.log)"
  holds /mnt/ext4/t/second 0
  # In place it is.
  expect_status 0 queryfpolicy --check /mnt/ext4/t/second
  equal '1 8388608 16777216' "$(policyctl --json status | jq -r '"\(.pinned_files) \(.pinned_bytes) \(.pin_max_bytes)"')" "status"
  # Room comes.
  setfpolicy -x /mnt/ext4/t/first
  within 2 "the second is pinned" holds /mnt/ext4/t/second 3072
  # Less is allowed, then more.
  printf '[pin]\nmax_bytes = 4194304\n' >/tmp/policyd.toml
  policyctl reload
  within 2 "too much now" refused /mnt/ext4/t/second
  holds /mnt/ext4/t/second 0
  printf '[pin]\nmax_bytes = 33554432\n' >/tmp/policyd.toml
  policyctl reload
  within 2 "pinned again" holds /mnt/ext4/t/second 3072
}
refused() { [[ $(reason "$1") == *"do not fit"* ]]; }

case_users_pin_nothing() {
  make_file /mnt/ext4/t/data 4 1
  chown user /mnt/ext4/t/data
  start_policyd
  expect_status 0 as_user user setfpolicy bind:1,pin /mnt/ext4/t/data
  [[ $err == *pin* ]] || fail "the user is not told: $err"
  map_outside 1 /mnt/ext4/t/data
  policyctl apply /mnt/ext4/t/data
  no_pins
  expect_status 1 as_user user policyctl pins
}

case_unmounted() {
  local device
  device=$(findmnt -n -o SOURCE /mnt/vfat)
  make_file /mnt/vfat/t/data 4 1
  start_policyd
  setfpolicy bind:1,pin /mnt/vfat/t/data
  within 2 "pinned" holds /mnt/vfat/t/data 1024
  umount /mnt/vfat
  within 5 "nothing is held" no_pins
  mount "$device" /mnt/vfat
  on_node 0 cat /mnt/vfat/t/data >/dev/null
  policyctl apply /mnt/vfat/t/data
  holds /mnt/vfat/t/data 1024
  all_on 1 /mnt/vfat/t/data 1024
}

case_policyd_killed() {
  make_file /mnt/ext4/t/data 8 1
  start_policyd
  setfpolicy bind:1,pin /mnt/ext4/t/data
  within 2 "pinned" holds /mnt/ext4/t/data 2048
  kill -9 "$policyd_pid"
  wait "$policyd_pid" 2>/dev/null || true
  sync
  echo 3 >/proc/sys/vm/drop_caches
  equal "" "$(nodes /mnt/ext4/t/data)" "pages that nobody holds any more"
  # Pinned again by the next.
  cache_on /mnt/ext4/t/data 0
  start_policyd
  within 5 "pinned again" holds /mnt/ext4/t/data 2048
  all_on 1 /mnt/ext4/t/data 2048
}

case_idle_with_pins() {
  local before after
  make_file /mnt/ext4/t/data 8 1
  start_policyd
  setfpolicy bind:1,pin /mnt/ext4/t/data
  within 2 "pinned" holds /mnt/ext4/t/data 2048
  sleep 5
  before=$(cat /proc/"$policyd_pid"/task/*/status | awk '/^voluntary/ { sum += $2 } END { print sum }')
  sleep 10
  after=$(cat /proc/"$policyd_pid"/task/*/status | awk '/^voluntary/ { sum += $2 } END { print sum }')
  equal "$before" "$after" "times that policyd's threads went to sleep, 10 s later"
}
