#!/bin/bash
# shellcheck disable=SC2154,SC2016,SC2086 # lib.sh assigns what is read here; jq and awk expand themselves; no word here has spaces
# A Debian with systemd, of which policyd is a service and whose process 1 is a writer of cgroup files (run --systemd).

[ -d /run/systemd/system ] || skip "systemd does not run here"

# Process 1 may be slow where everything is; systemctl would not wait for as long as within does.
export SYSTEMD_BUS_TIMEOUT=300

libc=$(ldd /usr/bin/systemctl | sed -n 's/.*libc\.so\.6 => \([^ ]*\) .*/\1/p')
libc=$(readlink -f "$libc")

# started [LINE...]: policyd as the service that it is, with these lines in [guard].
started() {
  [ $# -gt 0 ] || set -- "deadline_ms = 1000" "hold_seconds = 60"
  systemctl stop policyd
  printf '%s\n' "[guard]" "$@" >/etc/fpolicy/policyd.toml
  systemctl start policyd
  [ "$1" = "enabled = false" ] || within 2 "guard is on" guard_is_on
}

# libc_at_home: libc stays on node 0, and is there.
libc_at_home() {
  setfpolicy bind:0 $libc
  within 5 "libc is at home" all_at_home
}
all_at_home() { [ "$(elsewhere)" -eq 0 ]; }
guarded_at_home() {
  libc_at_home
  within 2 "the guard knows" mapped_files 1
}

# elsewhere: pages of libc that are not on node 0.
elsewhere() { nodes $libc | tr ' ' '\n' | awk -F: '$1 != 0 { n += $2 } END { print n + 0 }'; }

# never_left: in no sample was a page of libc elsewhere.
never_left() {
  count_samples 0
  echo "note: $(policyctl --json status | jq -c '.guard | {longest_usec, counters}')"
  in_time
  [ "$astray" -eq 0 ] || fail "samples: $(sort /tmp/samples.whole | uniq -c | sort -rn | head -n 5)"
  equal 0 "$(elsewhere)" "pages of libc that are elsewhere"
}

# a_job NODES: a service that maps libc and has 8 MiB of its own.
a_job() {
  systemd-run --quiet --unit=t-job -p AllowedMemoryNodes=$1 -p StandardOutput=file:/tmp/job.out /usr/local/bin/mapper --anon 8 $libc
  within 5 "the job is ready" grep -q ready /tmp/job.out
  job_pid=$(systemctl show --value -p MainPID t-job)
}
anonymous_on() { [ "$(pagewhere --anon "$job_pid" | tr ' ' '\n' | sed -n "s/^$1://p")" -ge 2048 ]; }

case_without_the_guard_libc_leaves() {
  started "enabled = false"
  libc_at_home
  systemctl stop policyd
  systemd-run --quiet --wait -p AllowedMemoryNodes=3 /bin/true
  # What a service takes along is what it has mapped when it is moved, which may be nothing.
  echo "note: libc after a service was started on node 3: $(nodes $libc)"
  a_job 0
  systemctl set-property --runtime t-job AllowedMemoryNodes=3
  echo "note: libc after a job was moved from 0 to 3: $(nodes $libc)"
  [ "$(elsewhere)" -gt 0 ] || fail "none has left"
}

case_service() {
  started
  equal enabled "$(systemctl is-enabled policyd)" "policyd is"
  equal "" "$(systemctl list-units --failed --plain --no-legend)" "failed units"
  # What the unit promises, as the kernel has it.
  local pid
  pid=$(systemctl show --value -p MainPID policyd)
  grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/$pid/status || fail "new privileges"
  grep -q '^Seccomp:[[:space:]]*2$' /proc/$pid/status || fail "no filter of system calls"
  equal "$(readlink /proc/1/ns/mnt)" "$(readlink /proc/$pid/ns/mnt)" "mount namespace"
  equal "true true" "$(guard_value realtime) $(guard_value locked)" "the sentinel is real-time and locked"
  equal "0::/" "$(cat /proc/"$(guard_value sentinel)"/cgroup)" "the sentinel's cgroup"
  equal "$(system_source)" "$(setfpolicy bind:0 $libc && getfpolicy --json $libc | jq -r ".files[0].effective.source")" "the tag is in"
  equal 600 "$(stat -c %a /var/lib/fpolicy/fpolicy.db)" "mode of the database"
  systemctl reload policyd
  within 2 "it has reloaded" eval 'journalctl -u policyd --since=-60s | grep -qi reload'
  systemctl stop policyd
  equal inactive "$(systemctl is-active policyd || true)" "policyd is"
  equal success "$(systemctl show --value -p Result policyd)" "how it ended"
  pgrep -x fpolicy-sentine && fail "the sentinel is still there"
  [ ! -e /run/fpolicy ] || fail "/run/fpolicy is still there"
}

case_set_property() {
  started
  guarded_at_home
  a_job 0
  sample $libc
  local i node nodes=(2 0 3 0)
  for ((i = 0; i < 10; i++)); do
    node=${nodes[i % 4]}
    systemctl set-property --runtime t-job AllowedMemoryNodes=$node
    within 2 "anonymous memory on $node" anonymous_on $node
  done
  never_left
  equal 0 "$(policyctl --json status | jq .counters.pages_slipped)" "slipped pages"
}

case_service_starts() {
  started
  guarded_at_home
  sample $libc
  local i
  for ((i = 0; i < 10; i++)); do
    systemd-run --quiet --wait -p AllowedMemoryNodes=$((2 + (i + 1) % 2)) /bin/true
  done
  never_left
}

case_container() {
  started
  guarded_at_home
  mkdir -p /tmp/t/bundle/rootfs/bin
  cp /usr/bin/busybox /tmp/t/bundle/rootfs/bin
  cd /tmp/t/bundle || exit
  runc spec
  jq '.process.terminal = false | .process.args = ["/bin/busybox", "true"] | .linux.resources.cpu.mems = "3"
    | .linux.cgroupsPath = "/t-container"' config.json >new
  mv new config.json
  sample $libc
  for _ in $(seq 10); do runc run t-container; done
  never_left
}

case_reexec_and_restart() {
  started
  guarded_at_home
  a_job 0
  sample $libc
  systemctl daemon-reexec
  systemctl daemon-reload
  systemctl set-property --runtime t-job AllowedMemoryNodes=2
  within 2 "anonymous memory on 2" anonymous_on 2
  systemctl restart policyd
  within 2 "guard is on" guard_is_on
  within 2 "the guard knows" mapped_files 1
  systemctl set-property --runtime t-job AllowedMemoryNodes=0
  within 2 "anonymous memory on 0" anonymous_on 0
  never_left
}

# How long a service takes to start and end, with process 1 as the writer.
start_service() {
  local began=${EPOCHREALTIME/./}
  timeout 60 systemd-run --quiet --wait -p AllowedMemoryNodes=2 /bin/true
  echo "note: $1: a service ran for $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
}

case_policyd_hangs() {
  started "deadline_ms = 50"
  guarded_at_home
  start_service "policyd is well"
  systemctl kill --kill-whom=main -s STOP policyd
  for _ in 1 2 3; do start_service "policyd is stopped"; done
  systemctl kill --kill-whom=main -s CONT policyd
  within 2 "policyd answers" policyctl status
  # Frozen with all that is in its cgroup; the sentinel is not.
  systemctl freeze policyd
  for _ in 1 2 3; do start_service "policyd is frozen"; done
  systemctl thaw policyd
  within 2 "policyd answers" policyctl status
  [ "$(guard_value 'counters | .late + .passed')" -gt 0 ] || fail "nobody was let go"
  # Stopped while it hangs: systemd kills it.
  systemctl kill --kill-whom=main -s STOP policyd
  systemctl stop policyd
  start_service "policyd has been stopped"
  equal "" "$(pgrep -x fpolicy-sentine || true)" "sentinels"
}

case_policyd_killed() {
  started
  guarded_at_home
  for _ in 1 2 3; do
    systemctl kill -s KILL policyd
    start_service "policyd is killed"
    within 10 "guard is on" guard_is_on
    systemctl reset-failed policyd
  done
  within 2 "the guard knows" mapped_files 1
}

case_sentinel_killed() {
  started
  guarded_at_home
  kill -9 "$(guard_value sentinel)"
  start_service "the sentinel is killed"
  within 10 "another sentinel" guard_is_on
  equal 1 "$(guard_value restarts)" "sentinels that ended"
}
