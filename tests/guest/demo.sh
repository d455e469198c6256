#!/bin/bash
# The story that scripts/demo tells, inside a guest with four NUMA nodes. Every line that starts with "$" is a command
# that is really run, and what follows is what it really printed.
set -euo pipefail

bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
[ "${FPOLICY_DEMO_COLOUR:-}" = yes ] || bold='' dim='' plain=''
say() { printf '\n%s%s%s\n' "$dim" "$*" "$plain"; }
run() {
  printf '%s$ %s%s\n' "$bold" "$*" "$plain"
  eval "$*"
}
wait_for_mapper() { until grep -q ready "$1" 2>/dev/null; do sleep 0.05; done; }

lib=/srv/lib/libsolver.so
mkdir -p /srv/lib
dd if=/dev/urandom of=$lib bs=1M count=32 status=none
sync $lib
dd if=$lib iflag=nocache count=0 status=none

say "A machine with four NUMA nodes, Linux $(uname -r). Two jobs, alpha and beta, run on node 0."
cd /sys/fs/cgroup
for job in alpha beta; do
  mkdir $job
  echo 0 >$job/cpuset.mems
  echo 0 >$job/cpuset.cpus
done
bash -c 'echo $$ >/sys/fs/cgroup/alpha/cgroup.procs; exec mapper "$0" >/tmp/alpha.out' $lib &
wait_for_mapper /tmp/alpha.out
bash -c 'echo $$ >/sys/fs/cgroup/beta/cgroup.procs; exec mapper --anon 64 "$0" >/tmp/beta.out' $lib &
beta=$!
wait_for_mapper /tmp/beta.out

say "Both map the same library of 32 MiB: 8192 pages. The kernel keeps one copy, on node 0, near both."
run queryfpolicy $lib

say "1. Without fpolicy. The administrator moves beta to node 2. alpha does not move."
run "echo 2 > beta/cpuset.mems"
run queryfpolicy $lib
say "The kernel took every page that beta maps along, the shared library too. alpha now reads it from a remote node."

say "2. With fpolicy. Start the daemon, and say once where the library belongs."
policyd 2>/tmp/policyd.log &
until policyctl status >/dev/null 2>&1; do sleep 0.05; done
run setfpolicy bind:0 $lib
until queryfpolicy --check $lib >/dev/null 2>&1; do sleep 0.05; done
run queryfpolicy $lib
say "policyd has brought it home at once. The tag is in the file's own extended attribute; it survives reboots:"
run getfpolicy $lib

say "3. beta comes back to node 0, and is moved again, to node 3."
run "echo 0 > beta/cpuset.mems"
run "echo 3 > beta/cpuset.mems"
until queryfpolicy --check $lib >/dev/null 2>&1; do sleep 0.05; done
run queryfpolicy $lib
say "The library is where its tag says. beta's own memory went with beta, as it should:"
run "pagewhere --anon $beta   # node:pages"

say "4. What policyd did, and the audit that a cron job would run: exit status 0, nothing is misplaced."
run "policyctl events | tail -n 4"
run "queryfpolicy --all --check; echo exit status \$?"
