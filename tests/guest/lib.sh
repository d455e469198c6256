#!/bin/bash
# shellcheck disable=SC2034 # what the cases use
# What the guest's cases share. Sourced by suite, in the guest, with errexit on.
# Page locations come from pagewhere, which shares no code with fpolicy.

cg=/sys/fs/cgroup
# Emulated machines on busy hosts are slow, and at times stand still: waiting this many times as long as promised, and at
# least a minute, is still no hang. What a wait took is printed, and compared with the promise by whoever reads it.
patience=${FPOLICY_PATIENCE:-10}

# What policyd says of itself when a case has failed.
tell_state() {
  pgrep -x policyd >/dev/null || return 0
  echo "state: uptime $(cut -d' ' -f1 /proc/uptime) s"
  timeout 20 policyctl status 2>&1 | sed 's/^/status: /'
  timeout 20 policyctl events 2>&1 | tail -n 25 | sed 's/^/event: /'
  if [ -d /run/systemd/system ]; then
    journalctl -q -o cat -n 20 -u policyd | sed 's/^/log: /'
  else
    tail -n 20 /tmp/policyd.log | sed 's/^/log: /'
  fi
}

# end_case STATUS
end_case() {
  # Whatever it cannot tell, what the case leaves has to go.
  [ "$1" -eq 0 ] || [ "$1" -eq 77 ] || tell_state || true
  clean_up
}

clean_up() {
  local pids
  pids=$(jobs -p)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
  [ ! -d /run/systemd/system ] || systemctl stop policyd 't-*'
  pkill -9 -x policyd 2>/dev/null || true
  pkill -9 -x mapper 2>/dev/null || true
  pkill -9 -x pagewhere 2>/dev/null || true
  pkill -9 -x bindfs 2>/dev/null || true
  local group
  for group in "$cg"/t-*; do
    [ -d "$group" ] || continue
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      find "$group" -depth -type d -delete 2>/dev/null && break
      sleep 0.1
    done
  done
  rm -rf /var/lib/fpolicy /run/fpolicy
  find /etc/fpolicy/rules.d -mindepth 1 -delete 2>/dev/null || true
  for dir in ext4 xfs btrfs vfat; do
    mountpoint -q /mnt/$dir && rm -rf /mnt/$dir/t
  done
  ! mountpoint -q /proc/fs/nfsd || stop_nfs
  awk '$2 ~ "^/tmp/t/" { print $2 }' /proc/mounts | tac | xargs -r umount || true
  [ ! -e /dev/mapper/t-disk ] || { dmsetup remove t-disk && losetup -d /dev/loop0; } || true
  rm -rf /tmp/t
  echo 0 >/proc/sys/vm/nr_hugepages
  return 0
}

# Ends an NFS server, which holds what it exports. Its clients, all of them here, go first: without it they would wait for ever.
stop_nfs() {
  awk '$3 == "nfs" || $3 == "nfs4" { print $2 }' /proc/mounts | tac | xargs -r umount -f || true
  rpc.nfsd 0 || true
  exportfs -au || true
  exportfs -f || true
  pkill -x rpc.mountd || true
}

# What carries system tags here: Linux 6.1 with the BPF LSM lets everybody write security.*, so there it is the database.
system_source() {
  local file=/tmp/source-probe source=system-xattr
  : >$file
  if as_user user setfattr -n security.fpolicy-probe -v x $file 2>/dev/null; then source=database; fi
  rm $file
  echo $source
}

skip() {
  echo "$*"
  exit 77
}

fail() {
  echo "$*" >&2
  return 1
}

# equal EXPECTED ACTUAL WHAT
equal() {
  [ "$1" = "$2" ] || fail "$3: expected '$1', found '$2'"
}

# expect_status STATUS COMMAND...: output is left in $out and $err.
expect_status() {
  local expected=$1 status=0
  shift
  "$@" >/tmp/out 2>/tmp/err || status=$?
  out=$(cat /tmp/out) err=$(cat /tmp/err)
  [ "$status" -eq "$expected" ] || fail "'$*' ended with $status instead of $expected: $out $err"
}

# within SECONDS WHAT COMMAND...: until COMMAND succeeds.
within() {
  local seconds=$1 what=$2 began=${EPOCHREALTIME/./} now
  local longest=$((seconds * patience > 60 ? seconds * patience : 60)) pause=100
  shift 2
  until "$@" >/dev/null 2>&1; do
    now=${EPOCHREALTIME/./}
    if [ $((now - began)) -gt $((longest * 1000000)) ]; then
      "$@" && break
      fail "$what: not within $longest s"
      return 1
    fi
    # Looking takes time from what is waited for: seldom, if it takes long.
    [ $((now - began)) -lt 5000000 ] || [ $pause -ge 800 ] || pause=$((pause + 50))
    sleep "0.$pause"
  done
  now=${EPOCHREALTIME/./}
  echo "note: $what: $(((now - began) / 1000)) ms (promised: $seconds s)"
}

# as_service COMMAND...: as policyd.service runs it, where no systemd does: with a user of its own, his capabilities, and a copy
# of this mount namespace. (The cases with systemd have the unit itself.)
as_service() {
  local unit=/lib/systemd/system/policyd.service capabilities
  capabilities=$(sed -n 's/^AmbientCapabilities=//p' $unit | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
  echo -1000 >/proc/self/oom_score_adj
  exec unshare --mount --propagation slave -- sh -c 'mount -t proc -o hidepid=invisible proc /proc && exec "$@"' sh \
    setpriv --reuid=990 --regid=990 --clear-groups --bounding-set="-all,$capabilities" --inh-caps="-all,$capabilities" \
    --ambient-caps="-all,$capabilities" --no-new-privs -- "$@"
}

start_policyd() {
  mkdir -p /var/lib/fpolicy /run/fpolicy
  if [ -n "${FPOLICY_AS_SERVICE-}" ]; then
    mount --make-rshared /
    chown 990:990 /var/lib/fpolicy /run/fpolicy
    as_service policyd "$@" 2>/tmp/policyd.log &
  else
    policyd "$@" 2>/tmp/policyd.log &
  fi
  policyd_pid=$!
  within 5 "policyd answers" policyctl status || {
    cat /tmp/policyd.log >&2
    return 1
  }
  [ -z "${FPOLICY_AS_SERVICE-}" ] || equal 990 "$(awk '$1 == "Uid:" { print $2 }' /proc/$policyd_pid/status)" "whom policyd runs as"
}

stop_policyd() {
  kill -TERM "$policyd_pid"
  wait "$policyd_pid"
}

# on_node NODE COMMAND...: run and allocate there.
on_node() {
  local node=$1
  shift
  numactl --cpunodebind="$node" --membind="$node" -- "$@"
}

# make_file PATH MIB NODE: a file, its page cache on NODE.
make_file() {
  mkdir -p "$(dirname "$1")"
  dd if=/dev/zero of="$1" bs=1M count="$2" status=none
  cache_on "$1" "$3"
}

# cache_on PATH NODE: drop the file's clean pages and read it again from NODE.
cache_on() {
  # squashfs knows no sync, and has nothing to write.
  sync "$1" 2>/dev/null || true
  dd if="$1" iflag=nocache count=0 status=none
  on_node "$2" cat "$1" >/dev/null
}

# nodes PATH: "0:12 1:3"
nodes() { pagewhere "$1"; }

# all_on NODE PATH PAGES
all_on() { equal "$1:$3" "$(nodes "$2")" "pages of $2 by node"; }

# pages_on NODE PATH: how many.
pages_on() {
  local count
  count=$(nodes "$2" | tr ' ' '\n' | sed -n "s/^$1://p")
  echo "${count:-0}"
}

# make_job NAME MEMS: a cgroup for a job.
make_job() {
  mkdir -p "$cg/$1"
  echo "$2" >"$cg/$1/cpuset.mems"
}

# in_job NAME COMMAND...: start COMMAND in the cgroup, in the background; its pid in $job_pid.
in_job() {
  local group=$cg/$1
  shift
  bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' in_job "$group" "$@" >/tmp/job.out 2>&1 &
  job_pid=$!
}

# map_in_job NAME ARGUMENTS...: mapper in the job, ready; its pid in $job_pid.
map_in_job() {
  local name=$1
  shift
  rm -f /tmp/job.out
  in_job "$name" mapper "$@"
  within 5 "mapper in $name" grep -q ready /tmp/job.out
}

# map_outside NODE ARGUMENTS...: mapper outside every job, running on NODE.
map_outside() {
  local node=$1
  shift
  rm -f /tmp/outside.out
  on_node "$node" mapper "$@" >/tmp/outside.out 2>&1 &
  outside_pid=$!
  within 5 "mapper outside" grep -q ready /tmp/outside.out
}

as_user() {
  local name=$1
  shift
  setpriv --reuid="$name" --regid="$name" --clear-groups -- "$@"
}

# What policyd says of its guard.
guard_value() { policyctl --json status | jq -r ".guard.$1"; }
guard_is_on() { [ "$(guard_value on)" = true ]; }
mapped_files() { [ "$(guard_value mapped_files)" -ge "$1" ]; }

# sample FILE: where its pages are, again and again, from another node.
sample() {
  rm -f /tmp/samples
  # No function: the pid would be a shell's.
  numactl --cpunodebind=0 --membind=0 -- pagewhere --repeat "$1" >/tmp/samples 2>/tmp/samples.err &
  sample_pid=$!
  within 2 "first sample" test -s /tmp/samples
}

# count_samples NODE: $taken, and in how many of them a page was elsewhere ($astray). A page that the kernel tries to move
# is nowhere for a moment.
count_samples() {
  kill "$sample_pid"
  wait "$sample_pid" || true
  # The last may have been cut off.
  head -n -1 /tmp/samples >/tmp/samples.whole
  taken=$(wc -l </tmp/samples.whole)
  astray=$(grep -Evc "^($1:[0-9]+)?\$" /tmp/samples.whole) || true
  echo "note: $taken samples, pages astray in $astray"
  [ "$taken" -gt 5 ] || fail "too few samples: $taken"
}

# in_time: an emulated machine may stand still for longer than any deadline. Then writers are let go, as they should be, and
# nothing is proved about what was held. Where it happens every other time it is policyd that is slow. The same where the
# sentinel got no processor for so long that policyd replaced it.
in_time() {
  local late
  late=$(guard_value 'counters | .late + .passed')
  [ $((late * 2)) -lt "$(guard_value 'counters | .asked + .passed + 1')" ] || fail "late for most questions: $(guard_value counters)"
  [ "$late" -eq 0 ] || skip "policyd was late for $late questions"
  [ "$(guard_value restarts)" -eq 0 ] || skip "the sentinel stood still"
  [[ $(guard_value 'last_refusal // ""') != *"no time was left" ]] || skip "not all was held in time"
}
