#!/bin/bash
# How exposed policyd.service is, by systemd's own count: 4.0 at most. Most of what is left is the price of running as
# root and in the machine's own mount namespace: docs/decisions/010 has the count.
#   sandbox_test.sh BUILD_DIR
set -uo pipefail

unit=$1/policyd/policyd.service
# --offline came with systemd 250.
version=$(systemd-analyze --version 2>/dev/null | awk 'NR == 1 { print $2 }')
[ "${version:-0}" -ge 250 ] || {
  echo "SKIPPED: no systemd-analyze of systemd 250 or newer"
  exit 77
}
# Settings that are misspelled count for nothing, and are told on stderr.
out=$(systemd-analyze security --offline=yes --no-pager --threshold=40 "$unit" 2>&1)
status=$?
if [ $status -ne 0 ] || grep -qE 'Unknown|Failed to parse|ignoring' <<<"$out" || ! grep -q '^→ Overall exposure' <<<"$out"; then
  echo "FAILED: exit $status"
  grep -vE '^✓' <<<"$out"
  exit 1
fi
grep '^→' <<<"$out"
# Any of these would take tags of files that callers send: they were opened in the machine's mount namespace.
for setting in ProtectSystem PrivateTmp ProtectHome PrivateDevices ProtectKernelModules ProtectKernelLogs ProtectControlGroups \
  ProtectKernelTunables ProtectProc ProcSubset PrivateUsers PrivateIPC 'PrivateMounts=yes'; do
  if grep -E "^$setting" "$unit"; then
    echo "FAILED: $setting gives the service a mount namespace of its own"
    exit 1
  fi
done
