#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# A user's job that maps all that the kernel allows: the others do not notice.

# A moment's memory beside what policyd has anyway, in KiB: what it remembers of files is bounded, and so are the mappings of
# one process (vm.max_map_count), 32 bytes each.
most_of_crowd=$((32 * 1024))

# FPOLICY_CROWD: files of each of its two processes. 50000 in a long run; an emulated machine needs minutes for a look at them.
: "${FPOLICY_CROWD:=8000}"
# patient SECONDS: what may take that long with the crowd that there is by default.
patient() { echo $(($1 * (FPOLICY_CROWD < 8000 ? 8000 : FPOLICY_CROWD) / 8000)); }

# crowd ARGUMENTS...: mapper as the user in the job t-crowd; ready.
crowd() {
  rm -f /tmp/job.out
  in_job t-crowd setpriv --reuid=user --regid=user --clear-groups mapper "$@"
  within "$(patient 30)" "mapper $1 $2" grep -q ready /tmp/job.out
}

resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' /proc/$policyd_pid/status; }
peak() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$policyd_pid/status; }
cpu() { awk '{ print ($14 + $15) * 10 }' /proc/$policyd_pid/stat; }
idle() { policyctl --json status | jq -e '.queued_files == 0'; }

# begin: a library that stays, mapped by an outsider and by the crowd, and another job with one of its own.
begin() {
  printf '[guard]\ndeadline_ms = 1000\nhold_seconds = 60\n' >/tmp/policyd.toml
  start_policyd --config /tmp/policyd.toml
  within 2 "guard is on" guard_is_on
  make_file /mnt/ext4/t/shared.so 4 0
  make_file /mnt/ext4/t/own.so 4 0
  setfpolicy bind:0 /mnt/ext4/t/shared.so /mnt/ext4/t/own.so
  map_outside 0 /mnt/ext4/t/shared.so
  make_job t-other 0
  map_in_job t-other /mnt/ext4/t/own.so
  make_job t-crowd 0
  # In memory, where files are made fast.
  mkdir -p /tmp/t/crowd/a /tmp/t/crowd/b
  chown -R user:user /tmp/t/crowd
  crowd --shared /mnt/ext4/t/shared.so
  within 2 "the guard knows" mapped_files 2
}

# move_both: the crowd's job, and at once the other one.
move_both() {
  local before after began
  before=$(resident)
  began=$(cpu)
  for node in 2 3 1; do
    local opened=${EPOCHREALTIME/./}
    echo $node >$cg/t-crowd/cpuset.mems
    echo "note: the crowd's write took $(((${EPOCHREALTIME/./} - opened) / 1000)) ms"
    echo $node >$cg/t-other/cpuset.mems
    within 2 "the other job's library" all_on 0 /mnt/ext4/t/own.so 1024
    setfpolicy bind:$node /mnt/ext4/t/own.so
    within 1 "a tag that is set meanwhile" all_on $node /mnt/ext4/t/own.so 1024
    setfpolicy bind:0 /mnt/ext4/t/own.so
    within 1 "and set again" all_on 0 /mnt/ext4/t/own.so 1024
    within 2 "the library that the crowd maps too" all_on 0 /mnt/ext4/t/shared.so 1024
  done
  within "$(patient 60)" "policyd is through" idle
  after=$(peak)
  echo "note: policyd: resident $before KiB before, $after KiB at most, $(resident) KiB after; $(($(cpu) - began)) ms of CPU"
  [ "$after" -le $((before + most_of_crowd)) ] || fail "resident: $before KiB before, $after KiB at most"
  echo "note: guard: $(guard_value counters), $(guard_value longest_usec) us at most"
  # That a machine stands still now and then is no fault of policyd's; that it is late for each of these moves is.
  [ "$(guard_value counters.late)" -lt 3 ] || fail "the guard was late: $(guard_value counters)"
}

case_mappings() {
  begin
  as_user user truncate -s 4096 /tmp/t/crowd/x
  # Side by side with the library that stays: as many mappings of it as of the user's own file.
  crowd --pieces 60000 /tmp/t/crowd/x /mnt/ext4/t/shared.so
  move_both
}

case_files() {
  begin
  crowd --no-touch --many "$FPOLICY_CROWD" /tmp/t/crowd/a
  crowd --no-touch --many "$FPOLICY_CROWD" /tmp/t/crowd/b
  move_both
}
