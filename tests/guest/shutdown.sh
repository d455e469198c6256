#!/bin/bash
# In a guest with systemd (run --systemd): the machine is shut down while policyd guards a job. Nothing waits for ever, and
# policyd ends as a service does. The guest ends with it: what counts is what this program finds when it is told to end.
set -eEuo pipefail
here=$(cd "$(dirname "$0")" && pwd)
trap 'echo "failed: line $LINENO: $BASH_COMMAND" >&2' ERR
# shellcheck source=tests/guest/lib.sh
. "$here/lib.sh"
trap - EXIT

library=$(readlink -f "$(ldd /usr/bin/systemctl | sed -n 's/.*libc\.so\.6 => \([^ ]*\) .*/\1/p')")

# With the guard, whatever the last case has left.
: >/etc/fpolicy/policyd.toml
systemctl start policyd
within 2 "guard is on" guard_is_on
# This service ends after policyd, and sees how that went.
mkdir -p /run/systemd/system/policyd.service.d
printf '[Unit]\nAfter=guest.service\n' >/run/systemd/system/policyd.service.d/order.conf
systemctl daemon-reload
setfpolicy bind:0 "$library"
systemd-run --quiet --unit=t-job -p AllowedMemoryNodes=2 /usr/local/bin/mapper --anon 8 "$library"
within 2 "the guard knows" mapped_files 1

began=
ended() {
  local status=0
  echo "note: told to end after $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
  ! pgrep -lx policyd || status=1
  ! pgrep -lx fpolicy-sentine || status=1
  journalctl -q -o cat -u policyd | grep -q 'policyd.service: Deactivated successfully' || status=1
  [ $status -eq 0 ] || journalctl -u policyd
  exit $status
}
trap ended TERM
began=${EPOCHREALTIME/./}
systemctl poweroff
# Nothing else is to be done; bash runs the trap when sleep has ended.
while true; do sleep 0.2; done
