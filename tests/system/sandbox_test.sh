#!/bin/bash
# How exposed policyd.service is, by systemd's own count: 2.5 at most. What is left is what policyd does: docs/decisions/010
# has the count.
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
out=$(systemd-analyze security --offline=yes --no-pager --threshold=25 "$unit" 2>&1)
status=$?
if [ $status -ne 0 ] || grep -qE 'Unknown|Failed to parse|ignoring' <<<"$out" || ! grep -q '^→ Overall exposure' <<<"$out"; then
  echo "FAILED: exit $status"
  grep -vE '^✓' <<<"$out"
  exit 1
fi
grep '^→' <<<"$out"
# Any of these would take away the product, though the figure would be better for it: files in /home and /tmp are placed as
# others are, libraries get tags, cgroups are frozen and their moves answered, ids are read from disks, and capabilities in a user
# namespace of one's own are none.
for setting in ProtectSystem ReadOnlyPaths InaccessiblePaths ReadWritePaths TemporaryFileSystem PrivateTmp ProtectHome PrivateDevices \
  ProtectControlGroups ProcSubset PrivateUsers PrivateIPC RestrictRealtime RootDirectory DynamicUser 'MountFlags=private'; do
  if grep -E "^$setting" "$unit"; then
    echo "FAILED: $setting takes away what policyd is for"
    exit 1
  fi
done
# What policyd may do beside its user's rights is named twice, and is the same.
bounds=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit")
if [ -z "$bounds" ] || [ "$bounds" != "$(sed -n 's/^AmbientCapabilities=//p' "$unit")" ]; then
  echo "FAILED: CapabilityBoundingSet= and AmbientCapabilities= differ"
  exit 1
fi
