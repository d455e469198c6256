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
  [ "$(readlink /proc/1/ns/mnt)" != "$(readlink /proc/$pid/ns/mnt)" ] || fail "it lives in the machine's mount namespace"
  for pid in $pid "$(guard_value sentinel)"; do
    equal "$(id -u fpolicy)" "$(awk '$1 == "Uid:" { print $2 }' /proc/$pid/status)" "who $(cat /proc/$pid/comm) is"
    # CAP_DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL, SYS_PTRACE, SYS_ADMIN, SYS_NICE
    equal 0000000000a8002e "$(awk '$1 == "CapEff:" { print $2 }' /proc/$pid/status)" "capabilities"
    equal 0000000000a8002e "$(awk '$1 == "CapBnd:" { print $2 }' /proc/$pid/status)" "their bounds"
  done
  equal "true true" "$(guard_value realtime) $(guard_value locked)" "the sentinel is real-time and locked"
  equal "0::/" "$(cat /proc/"$(guard_value sentinel)"/cgroup)" "the sentinel's cgroup"
  equal "$(system_source)" "$(setfpolicy bind:0 $libc && getfpolicy --json $libc | jq -r ".files[0].effective.source")" "the tag is in"
  equal "600 fpolicy" "$(stat -c "%a %U" /var/lib/fpolicy/fpolicy.db)" "mode and owner of the database"
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

# policyd opens files of cgroups, too: if the sentinel took it for somebody else it would wait for itself. (Other cases are skipped
# where policyd is late, and would not tell.)
case_policyd_is_not_asked_about_itself() {
  started
  guarded_at_home
  a_job 0
  systemctl set-property --runtime t-job AllowedMemoryNodes=2
  within 2 "anonymous memory on 2" anonymous_on 2
  echo "note: $(guard_value counters)"
  [ "$(guard_value counters.own)" -gt 0 ] || fail "the sentinel does not know policyd"
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

# all_there FILE NODE PAGES: a file's pages, as soon as policyd has seen to it.
all_there() { within 5 "$1 on $2" all_on "$2" "$1" "$3"; }

# What the unit may not take away: files are placed wherever they are, whoever maps them.
case_home_and_tmp() {
  started "enabled = false"
  local dir
  for dir in /home/user /tmp /root /var/tmp; do
    make_file $dir/t-file 1 0
    setfpolicy bind:2 $dir/t-file
    all_there $dir/t-file 2 256
    rm $dir/t-file
  done
  make_file /home/user/t-mine 1 0
  chown user:user /home/user/t-mine
  chmod 600 /home/user/t-mine
  chmod 700 /home/user
  as_user user setfpolicy bind:3 /home/user/t-mine
  all_there /home/user/t-mine 3 256
  # Another user's process, which policyd sees in spite of ProtectProc=.
  systemd-run --quiet --unit=t-mapper -p User=user -p StandardOutput=file:/tmp/job.out /usr/local/bin/mapper /home/user/t-mine
  within 5 "the mapper is ready" grep -q ready /tmp/job.out
  policyctl apply
  within 5 "its job is seen" eval 'policyctl --json jobs | jq -e ".jobs[] | select(.cgroup | endswith(\"t-mapper.service\")) | .tagged_files >= 1"'
  systemctl stop t-mapper
  rm /home/user/t-mine
}

# What has no xattrs, nobody may write, and says its id on its block device only.
case_squashfs() {
  started "enabled = false"
  cat /mnt/squashfs/data-1M >/dev/null
  setfpolicy bind:2 /mnt/squashfs/data-1M
  equal database "$(queryfpolicy --json /mnt/squashfs/data-1M | jq -r '.files[0].source')" "the tag is in"
  all_there /mnt/squashfs/data-1M 2 256
  setfpolicy -x /mnt/squashfs/data-1M
}

# A user's tag that policyd has to keep, on a filesystem that is mounted after its start and names files by their paths.
case_vfat() {
  started "enabled = false"
  local device
  device=$(awk '$2 == "/mnt/vfat" { print $1 }' /proc/mounts)
  umount /mnt/vfat
  mkdir -p /tmp/t/vfat
  mount -o uid=1000,gid=1000 "$device" /tmp/t/vfat
  make_file /tmp/t/vfat/mine 1 0
  as_user user setfpolicy bind:2 /tmp/t/vfat/mine
  equal "bind:2 database" "$(as_user user queryfpolicy --json /tmp/t/vfat/mine | jq -r '.files[0] | .policy + " " + .source')" "the tag"
  equal "bind:2 database" "$(queryfpolicy --json /tmp/t/vfat/mine | jq -r '.files[0] | .policy + " " + .source')" "what root sees"
  all_there /tmp/t/vfat/mine 2 256
  equal /tmp/t/vfat/mine "$(listed_for user /tmp)" "the user's list"
  umount /tmp/t/vfat || fail "the filesystem is held"
  mount "$device" /mnt/vfat
}

# Mounted and unmounted while policyd runs, again and again, under two device numbers, and where its namespace gets no copy.
case_mounts() {
  started "enabled = false"
  mkdir -p /tmp/t/m /tmp/t/private
  truncate -s 64M /tmp/t/image
  mkfs.ext4 -q /tmp/t/image
  local loop
  for loop in /dev/loop1 /dev/loop2; do
    losetup $loop /tmp/t/image
    mount $loop /tmp/t/m
    if [ $loop = /dev/loop1 ]; then
      make_file /tmp/t/m/file 1 0
      setfpolicy bind:2 /tmp/t/m/file
    else
      cache_on /tmp/t/m/file 0
      policyctl apply /tmp/t/m/file
    fi
    all_there /tmp/t/m/file 2 256
    equal bind:2 "$(queryfpolicy --json /tmp/t/m/file | jq -r '.files[0].policy')" "policy on $loop"
    umount /tmp/t/m || fail "$loop is held"
    # Nobody keeps the device, either.
    losetup -d $loop
    within 2 "$loop is free" eval "! losetup $loop"
  done
  mount -t tmpfs tmpfs /tmp/t/private
  mount --make-private /tmp/t/private
  mkdir /tmp/t/private/below
  mount -t tmpfs tmpfs /tmp/t/private/below
  dd if=/dev/zero of=/tmp/t/private/below/mine bs=1M count=1 status=none
  chown user:user /tmp/t/private/below/mine
  as_user user setfpolicy bind:2 /tmp/t/private/below/mine
  all_there /tmp/t/private/below/mine 2 256
  umount /tmp/t/private/below || fail "what is mounted privately is held"
  umount /tmp/t/private
}

# A package replaces a library: policyd writes the tag to the new file.
case_replaced_library() {
  started "enabled = false"
  mkdir -p /usr/lib/t-solver
  cp $libc /usr/lib/t-solver/library
  setfpolicy bind:2 /usr/lib/t-solver/library
  policyctl apply /usr/lib/t-solver/library
  cp $libc /usr/lib/t-solver/new
  mv /usr/lib/t-solver/new /usr/lib/t-solver/library
  within 5 "the tag is carried over" eval '[ "$(getfpolicy --json /usr/lib/t-solver/library | jq -r ".files[0].system.policy")" = bind:2 ]'
  equal 1 "$(policyctl --json status | jq .counters.tags_carried)" "tags carried"
  rm -r /usr/lib/t-solver
}

# listed_for USER DIRECTORY: what policyd tells him of the catalogue. getfpolicy leaves out, and says so, where the filesystem's id is
# on a disk that he may not read.
listed_for() {
  as_user "$1" getfpolicy --all >/tmp/listed 2>&1 || true
  grep -o "$2/[^[:space:]:]*" /tmp/listed | sort | paste -sd' '
}

# The catalogue as users see it: what they reach themselves.
case_users_see_what_they_reach() {
  started "enabled = false"
  mkdir -p /mnt/ext4/t/open /mnt/ext4/t/closed/deep /mnt/ext4/t/group
  : >/mnt/ext4/t/open/file
  : >/mnt/ext4/t/closed/deep/file
  : >/mnt/ext4/t/group/file
  chmod 700 /mnt/ext4/t/closed
  chgrp user /mnt/ext4/t/group
  chmod 750 /mnt/ext4/t/group
  setfpolicy bind:2 /mnt/ext4/t/open/file /mnt/ext4/t/closed/deep/file /mnt/ext4/t/group/file
  equal "/mnt/ext4/t/group/file /mnt/ext4/t/open/file" "$(listed_for user /mnt)" "the user's list"
  equal "/mnt/ext4/t/open/file" "$(listed_for other /mnt)" "the other's list"
  equal 3 "$(getfpolicy --all | grep -c '^/mnt/')" "root's list"
}

# Root and policyd share the database, whoever makes it; an earlier version's was root's.
case_database_of_both() {
  systemctl stop policyd
  rm -rf /var/lib/fpolicy
  make_file /mnt/vfat/t/file 1 0
  setfpolicy bind:2 /mnt/vfat/t/file
  equal "root root" "$(stat -c %U /var/lib/fpolicy /var/lib/fpolicy/fpolicy.db | paste -sd' ')" "whose it is"
  started "enabled = false"
  within 5 "policyd applies it" all_on 2 /mnt/vfat/t/file 256
  equal "fpolicy fpolicy" "$(stat -c %U /var/lib/fpolicy /var/lib/fpolicy/fpolicy.db | paste -sd' ')" "whose it is now"
  setfpolicy bind:3 /mnt/vfat/t/file
  within 5 "what root sets" all_on 3 /mnt/vfat/t/file 256
  systemctl stop policyd
  setfpolicy bind:1 /mnt/vfat/t/file
  equal bind:1 "$(getfpolicy --json /mnt/vfat/t/file | jq -r '.files[0].system.policy')" "with policyd stopped"
  policyctl check
  # The directory is policyd's, the database is made by root.
  rm -f /var/lib/fpolicy/fpolicy.db*
  setfpolicy bind:2 /mnt/vfat/t/file
  equal "fpolicy root" "$(stat -c %U /var/lib/fpolicy /var/lib/fpolicy/fpolicy.db | paste -sd' ')" "whose it is"
  started "enabled = false"
  within 5 "policyd applies it" all_on 2 /mnt/vfat/t/file 256
  : >/mnt/ext4/t-mine
  chown user:user /mnt/ext4/t-mine
  as_user user setfpolicy bind:3 /mnt/ext4/t-mine
  within 5 "policyd writes" eval 'queryfpolicy --all --json | jq -e ".files[] | select(.path == \"/mnt/ext4/t-mine\")"'
  rm /mnt/ext4/t-mine
  policyctl check
  # Made by policyd.
  systemctl stop policyd
  rm -f /var/lib/fpolicy/fpolicy.db*
  started "enabled = false"
  setfpolicy bind:3 /mnt/vfat/t/file
  within 5 "policyd applies it" all_on 3 /mnt/vfat/t/file 256
  # A database that somebody else may have written is nobody's.
  systemctl stop policyd
  chown user /var/lib/fpolicy/fpolicy.db
  expect_status 1 setfpolicy bind:2 /mnt/vfat/t/file
  [[ $err == *"others may write it"* ]] || fail "message: $err"
  ! systemctl start policyd || fail "policyd reads what a user has written"
  systemctl reset-failed policyd
  chown fpolicy /var/lib/fpolicy/fpolicy.db
  setfpolicy bind:2 /mnt/vfat/t/file
  # Of no other directory the owner is believed.
  install -d -o user /home/user/t-state
  install -o user -m 600 /var/lib/fpolicy/fpolicy.db /home/user/t-state/fpolicy.db
  expect_status 1 setfpolicy --database /home/user/t-state/fpolicy.db bind:2 /mnt/vfat/t/file
  [[ $err == *"others may write it"* ]] || fail "message: $err"
  rm -r /home/user/t-state
}

# policyd moves a job for its user: freezes, stops, moves, and lets go.
case_migrate() {
  started "enabled = false"
  a_job 0-2
  policyctl migrate --cgroup system.slice/t-job.service --from 0 --to 2
  within 5 "anonymous memory on 2" anonymous_on 2
  policyctl migrate --pid $job_pid --from 2 --to 1
  within 5 "anonymous memory on 1" anonymous_on 1
  equal 0 "$(cat /sys/fs/cgroup/system.slice/t-job.service/cgroup.freeze)" "frozen"
  [[ "$(awk '$1 == "State:" { print $2 }' /proc/$job_pid/status)" == [SR] ]] || fail "the job is stopped"
}
