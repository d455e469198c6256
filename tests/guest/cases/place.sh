#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# A tag brings a file's pages home while policyd runs.

places_on() {
  local dir=$1 file=$1/t/data
  make_file "$file" 16 0
  map_outside 0 "$file"
  start_policyd
  setfpolicy bind:1 "$file"
  within 1 "$dir: all pages home" all_on 1 "$file" 4096
  equal bind:1 "$(getfpolicy --json "$file" | jq -r '.files[0].effective.policy')" "$dir: effective policy"
}

case_ext4() { places_on /mnt/ext4; }
case_xfs() { places_on /mnt/xfs; }
case_btrfs() { places_on /mnt/btrfs; }
case_vfat() {
  places_on /mnt/vfat
  equal database "$(queryfpolicy --json /mnt/vfat/t/data | jq -r '.files[0].source')" "source"
}
case_tmpfs() {
  mkdir -p /tmp/t
  on_node 0 dd if=/dev/zero of=/tmp/t/data bs=1M count=16 status=none
  # Written on node 0, so its pages are there.
  start_policyd
  setfpolicy bind:1 /tmp/t/data
  within 1 "tmpfs: all pages home" all_on 1 /tmp/t/data 4096
}
case_squashfs() {
  local file
  file=$(find /mnt/squashfs -type f -size +1M | head -n 1)
  cache_on "$file" 0
  local pages
  pages=$((($(stat -c %s "$file") + 4095) / 4096))
  start_policyd
  setfpolicy bind:1 "$file"
  within 1 "squashfs: all pages home" all_on 1 "$file" "$pages"
  equal database "$(queryfpolicy --json "$file" | jq -r '.files[0].source')" "source"
  setfpolicy -x "$file"
}

case_hugetlbfs() {
  mkdir -p /tmp/t/huge
  echo 8 >/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
  echo 8 >/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
  mount -t hugetlbfs -o pagesize=2M none /tmp/t/huge
  truncate -s 16M /tmp/t/huge/data
  # Pages 0 and 2 of eight; the rest stay holes, before and after.
  on_node 0 fallocate -o 0 -l 2M /tmp/t/huge/data
  on_node 0 fallocate -o 4M -l 2M /tmp/t/huge/data
  start_policyd
  setfpolicy bind:1 /tmp/t/huge/data
  within 1 "huge pages home" home_huge
  equal $((2 * 4096)) "$(stat -c %b /tmp/t/huge/data)" "allocated blocks of 512 bytes"
  kill -TERM "$policyd_pid" && wait "$policyd_pid"
  umount /tmp/t/huge
  echo 0 >/proc/sys/vm/nr_hugepages
}
home_huge() {
  equal '{"1":2}' "$(queryfpolicy --json /tmp/t/huge/data | jq -c '.files[0].pages_by_node')" "huge pages by node"
}

case_interleave() {
  make_file /mnt/ext4/t/data 64 0
  start_policyd
  setfpolicy interleave:0-3 /mnt/ext4/t/data
  within 2 "page i on node i mod 4" interleaved /mnt/ext4/t/data 16384
}
# interleaved PATH PAGES: every page is resident, and page i on node i mod 4.
interleaved() {
  equal "$2 0" "$(pagewhere --each "$1" | awk '$2 != $1 % 4 { bad++ } END { print NR, bad + 0 }')" "pages, misplaced"
}
case_interleave_weighted() {
  make_file /mnt/ext4/t/data 64 1
  start_policyd
  setfpolicy interleave:0@3,2 /mnt/ext4/t/data
  within 2 "three quarters on 0" equal_nodes "0:12288 2:4096" /mnt/ext4/t/data
  # Which page is where, and not only how many.
  equal 0 "$(pagewhere --each /mnt/ext4/t/data | awk '($1 % 4 == 3 ? 2 : 0) != $2 { bad++ } END { print bad + 0 }')" \
    "pages off their slot"
}
equal_nodes() { equal "$1" "$(nodes "$2")" "pages by node"; }

free_kib() { sed -n 's/^Node [0-9]* MemFree: *\([0-9]*\) kB/\1/p' "/sys/devices/system/node/node$1/meminfo"; }
# fill_node NODE KEEP_MIB: a pool of huge pages takes the node's memory, until about KEEP_MIB are free. Nothing has to be
# written for that, and nothing can be reclaimed.
fill_node() {
  local pool=/sys/devices/system/node/node$1/hugepages/hugepages-2048kB/nr_hugepages
  sync
  # What others are about to give back is not in pieces large enough at once.
  for _ in 1 2 3 4 5; do
    echo 3 >/proc/sys/vm/drop_caches
    echo 1 >/proc/sys/vm/compact_memory
    echo $(($(<"$pool") + ($(free_kib "$1") / 1024 - $2) / 2)) >"$pool"
    [ $(($(free_kib "$1") / 1024)) -gt $(($2 + 8)) ] || break
    sleep 0.2
  done
  echo "node $1: $(free_kib "$1") KiB free"
}
release_nodes() { echo 0 >/proc/sys/vm/nr_hugepages; }

# What the kernel has taken from its page cache, of all files, since it started.
pages_reclaimed() { awk '/^pgsteal_(kswapd|direct|khugepaged) / { sum += $2 } END { print sum }' /proc/vmstat; }

case_prefer_spills() {
  local reclaimed resident
  # Some 48 MiB of them are below the kernel's high watermark, and so no room to it or to policyd, until it reclaims some
  # of its own caches: more than fits in any case.
  fill_node 1 80
  make_file /mnt/ext4/t/data 128 0
  reclaimed=$(pages_reclaimed)
  start_policyd
  setfpolicy prefer:1 /mnt/ext4/t/data
  # No promise of a time here: memory is short. ok it is from the start: nothing has to be on a node without room.
  within 5 "policyd has placed what fits" some_preferred /mnt/ext4/t/data
  within 5 "policyd has looked at it" settled_prefer /mnt/ext4/t/data || {
    # Room is what lies above the high watermark, and that is moved by the kernel.
    sed -n '/^Node 1, zone    DMA32/,/^Node 1, zone   Normal/p' /proc/zoneinfo | grep -E 'free|boost|high|managed|count' >&2
    nodes /mnt/ext4/t/data >&2
    fail "not settled"
  }
  # On a node so full the kernel may reclaim what has just come there; policyd itself loses none.
  resident=$(queryfpolicy --json /mnt/ext4/t/data | jq '.files[0].resident_pages')
  reclaimed=$(($(pages_reclaimed) - reclaimed))
  [ $((32768 - resident)) -le "$reclaimed" ] || fail "$resident pages are resident, and the kernel took only $reclaimed"
  [ "$(pages_on 1 /mnt/ext4/t/data)" -lt 32768 ] || fail "the node was not full: $(nodes /mnt/ext4/t/data)"
}
some_preferred() { [ "$(pages_on 1 "$1")" -gt 1000 ]; }
settled_prefer() { equal ok "$(queryfpolicy --json "$1" | jq -r '.files[0].state')" "state"; }

case_bind_full() {
  fill_node 1 24
  make_file /mnt/ext4/t/data 64 0
  start_policyd
  setfpolicy bind:1 /mnt/ext4/t/data
  within 5 "misplaced, with a reason" misplaced_with_reason /mnt/ext4/t/data
  expect_status 1 queryfpolicy --check /mnt/ext4/t/data
  # Memory comes free: policyd tries again by itself.
  release_nodes
  within 10 "retried" none_but_on 1 /mnt/ext4/t/data
  # The kernel may have dropped a few pages while memory was short; far from all.
  [ "$(pages_on 1 /mnt/ext4/t/data)" -gt 12000 ] || fail "pages: $(nodes /mnt/ext4/t/data)"
}
# none_but_on NODE PATH: every page that is in memory is there.
none_but_on() { [[ $(nodes "$2") =~ ^"$1":[0-9]+$ ]]; }
misplaced_with_reason() {
  queryfpolicy --json "$1" | jq -e '.files[0] | .state == "misplaced" and (.reason | length > 0)'
}

case_no_such_node() {
  make_file /mnt/ext4/t/data 1 0
  expect_status 1 setfpolicy bind:7 /mnt/ext4/t/data
  [[ $err == *7* ]] || fail "the message names no node: $err"
  equal "" "$(getfattr -n security.fpolicy --only-values /mnt/ext4/t/data 2>/dev/null)" "tag"
  setfpolicy --force bind:7 /mnt/ext4/t/data
  equal unsatisfiable "$(queryfpolicy --json /mnt/ext4/t/data | jq -r '.files[0].state')" "state"
}

case_drop_and_read_again() {
  make_file /mnt/ext4/t/data 16 0
  start_policyd
  setfpolicy bind:1 /mnt/ext4/t/data
  within 1 "home" all_on 1 /mnt/ext4/t/data 4096
  expect_status 0 queryfpolicy --check /mnt/ext4/t/data
  cache_on /mnt/ext4/t/data 3
  all_on 3 /mnt/ext4/t/data 4096
  expect_status 1 queryfpolicy --check /mnt/ext4/t/data
  [[ $err == */mnt/ext4/t/data* && $err == *4096* ]] || fail "neither file nor count in: $err"
  policyctl apply /mnt/ext4/t/data
  all_on 1 /mnt/ext4/t/data 4096
  expect_status 0 queryfpolicy --check /mnt/ext4/t/data
}

case_audit_agrees_page_for_page() {
  local file before after audit
  for dir in ext4 xfs btrfs vfat; do
    file=/mnt/$dir/t/data
    make_file "$file" 24 0
    # A part elsewhere, a part not resident at all.
    dd if="$file" iflag=nocache count=0 status=none
    on_node 2 dd if="$file" of=/dev/null bs=1M count=5 status=none
    on_node 3 dd if="$file" of=/dev/null bs=1M skip=12 count=7 status=none
    # The kernel reads ahead also after dd has ended: compared is an audit during which nothing changed.
    for _ in $(seq 20); do
      before=$(nodes "$file")
      audit=$(queryfpolicy --json "$file" | jq -c '.files[0]')
      after=$(nodes "$file")
      [ "$before" != "$after" ] || break
      sleep 0.1
    done
    equal "$before" "$after" "$dir: pages by node before and after the audit"
    equal "$after" "$(jq -r '.pages_by_node | to_entries | sort_by(.key) |
      map(select(.value > 0) | "\(.key):\(.value)") | join(" ")' <<<"$audit")" "$dir: pages by node"
    equal "$(pagewhere --each "$file" | wc -l)" "$(jq .resident_pages <<<"$audit")" "$dir: resident pages"
    equal unset "$(jq -r .state <<<"$audit")" "$dir: state"
  done
}

case_sparse_tebibyte() {
  mkdir -p /mnt/xfs/t
  truncate -s 1T /mnt/xfs/t/sparse
  on_node 0 dd if=/dev/zero of=/mnt/xfs/t/sparse bs=1M seek=700000 count=4 conv=notrunc status=none
  sync /mnt/xfs/t/sparse
  start_policyd
  setfpolicy bind:2 /mnt/xfs/t/sparse
  within 20 "1 TiB sparse file" sparse_home
}
sparse_home() {
  equal '{"2":1024}' "$(queryfpolicy --json /mnt/xfs/t/sparse | jq -c '.files[0].pages_by_node')" "pages by node"
}

case_empty_and_truncated() {
  mkdir -p /mnt/ext4/t
  : >/mnt/ext4/t/empty
  make_file /mnt/ext4/t/shrinks 24 0
  start_policyd
  setfpolicy bind:1 /mnt/ext4/t/empty
  # Truncated, grown and deleted while pages move: policyd lives on.
  (for _ in $(seq 30); do
    truncate -s 1M /mnt/ext4/t/shrinks
    truncate -s 24M /mnt/ext4/t/shrinks
    cat /mnt/ext4/t/shrinks >/dev/null 2>&1 || break
  done) &
  local changer=$!
  for i in 1 2 3 1 2 3 1 2 3 1; do
    setfpolicy "bind:$i" /mnt/ext4/t/shrinks
    sleep 0.1
  done
  rm /mnt/ext4/t/shrinks
  wait "$changer"
  kill -0 "$policyd_pid"
  policyctl status >/dev/null
}
