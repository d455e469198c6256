#!/usr/bin/env bash
# Tags outlive upgrades of Debian packages: dpkg itself, with our package and one that has a library and data, on a clean
# Debian 12; with tags in extended attributes, and in the database.
#   upgrade_test.sh BUILD_DIR
# Ends with 77, and the reason, where it cannot run.
set -euo pipefail
build=$1
skip() {
  echo "SKIPPED: $*"
  exit 77
}
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
[ "$(id -u)" -eq 0 ] || skip "a chroot needs root"
grep -q -- -fsanitize= "$build/build.ninja" && skip "the package is built without sanitizers"

(cd "$build" && cpack -G DEB >cpack.log) || {
  cat "$build/cpack.log"
  exit 1
}
deb=$(echo "$build"/fpolicy_*.deb)
mapfile -t depends < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/^ *//; s/ .*//' | grep .)
base=$("$(dirname "$0")/../debian-root" "${depends[@]}" 2>&1) || skip "${base#SKIPPED: }"
root=$(mktemp -d /var/tmp/fpolicy-upgrade.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT
tar -C "$root" -xf "$base"
: >"$root/probe"
setfattr -n security.fpolicy -v "1 bind:0" "$root/probe" 2>/dev/null || skip "/var/tmp has no extended attributes"

# make_package VERSION: a library, a configuration file whose text is the version's, data that never changes, and some
# below /opt/plain.
make_package() {
  local tree=$root/tmp/tree
  rm -rf "$tree"
  mkdir -p "$tree/DEBIAN" "$tree/usr/lib/solver" "$tree/etc/solver" "$tree/usr/share/solver" "$tree/opt/plain"
  cp --remove-destination "$(readlink -f "$root/lib/x86_64-linux-gnu/libc.so.6")" "$tree/usr/lib/solver/libsolver.so.1"
  printf '%s' "$1" >>"$tree/usr/lib/solver/libsolver.so.1"
  echo "version $1" >"$tree/etc/solver/tables"
  echo "data" >"$tree/usr/share/solver/data"
  echo "version $1" >"$tree/opt/plain/data"
  echo "version $1" >"$tree/usr/share/solver/untagged"
  echo /etc/solver/tables >"$tree/DEBIAN/conffiles"
  cat >"$tree/DEBIAN/control" <<EOF
Package: solver
Version: $1
Architecture: amd64
Maintainer: nobody <nobody@fpolicy.invalid>
Description: a library for a test
EOF
  chmod -R u=rwX,go=rX "$tree"
  dpkg-deb --root-owner-group -b "$tree" "$root/tmp/solver_$1.deb" >/dev/null
}
for version in 1 2; do make_package "$version"; done
rm -rf "$root/tmp/tree"
cp "$deb" "$root/tmp/fpolicy.deb"

cat >"$root/tmp/story" <<'EOF'
set -eu
library=/usr/lib/solver/libsolver.so.1
tables=/etc/solver/tables
data=/usr/share/solver/data
plain=/opt/plain/data
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# expect FILE POLICY SOURCE: what holds for it, and that an upgrade has replaced it.
expect() {
  found=$(queryfpolicy --json "$1")
  case $found in
  *'"policy":"'"$2"'"'*'"source":"'"$3"'"'*) ;;
  *) fail "$1: $2 from $3 expected, found $found" ;;
  esac
}
all() {
  expect $library bind:0 "$source"
  expect $tables migrate=no "$source"
  expect $data interleave:0 "$source"
  expect $plain bind:0 database
  [ "$(getfpolicy --all | grep -c '^/')" = 4 ] || fail "the catalogue: $(getfpolicy --all)"
}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# A filesystem without extended attributes: its tags are in the database.
mkdir -p /opt/plain
mount -t ramfs ramfs /opt/plain
dpkg -i /tmp/fpolicy.deb /tmp/solver_1.deb >/dev/null
# No tag was ever set: the trigger leaves no database behind.
[ ! -e /var/lib/fpolicy/fpolicy.db ] || fail "a database without any tag"
setfpolicy bind:0 $library $plain
setfpolicy migrate=no $tables
setfpolicy interleave:0 $data
source=system-xattr
queryfpolicy --json $library | grep -q '"source":"system-xattr"' || source=database
all

inode=$(stat -c %i $library $tables $data)
dpkg -i /tmp/solver_2.deb
[ "$(stat -c %i $library $tables $data)" != "$inode" ] || fail "dpkg has replaced nothing"
grep -q 'version 2' $tables $plain
all
# The same bytes once more.
dpkg -i /tmp/solver_2.deb
all
# Removed, and installed again. The configuration file stays with a removed package; here it goes, too.
dpkg --purge solver
[ ! -e $library ] || fail "$library is still there"
dpkg -i /tmp/solver_1.deb
all

# What was removed stays removed, what was never tagged untagged.
setfpolicy -x $data
dpkg -i /tmp/solver_2.deb
queryfpolicy --json $data | grep -q '"source":"none"' || fail "$data is tagged again"
queryfpolicy --json /usr/share/solver/untagged | grep -q '"source":"none"' || fail "an untagged file is tagged"
setfpolicy interleave:0 $data

# Where others may put files nothing is carried over; the upgrade succeeds and says why.
chmod 1777 /usr/share/solver
dpkg -i /tmp/solver_1.deb 2>/tmp/messages
grep -q "setfpolicy: $data: its tag was not carried over: others than its owner may put files into /usr/share/solver" \
  /tmp/messages || fail "messages: $(cat /tmp/messages)"
queryfpolicy --json $data | grep -q '"source":"none"' || fail "$data was tagged"
chmod 755 /usr/share/solver

# A database that is damaged fails no upgrade.
cp /var/lib/fpolicy/fpolicy.db /tmp/whole
echo damage >/var/lib/fpolicy/fpolicy.db
rm -f /var/lib/fpolicy/fpolicy.db-wal /var/lib/fpolicy/fpolicy.db-shm
dpkg -i /tmp/solver_2.deb 2>/tmp/messages
grep -q '^setfpolicy: database ' /tmp/messages || fail "messages: $(cat /tmp/messages)"
cp /tmp/whole /var/lib/fpolicy/fpolicy.db
setfpolicy --from-catalogue
all

dpkg --purge solver >/dev/null
dpkg --purge fpolicy
! grep -q fpolicy /var/lib/dpkg/triggers/File || fail "its triggers are left"
[ ! -e /var/lib/fpolicy ] && [ ! -e /etc/fpolicy ] || fail "files are left"
umount /opt/plain /sys /proc
EOF
# As in a container: its root is a mount point.
# shellcheck disable=SC2016 # The inner shell expands it.
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive unshare --mount sh -c \
  'mount --bind "$0" "$0" && exec chroot "$0" "$@"' "$root" sh /tmp/story || fail "see above"
echo "tags have outlived upgrades"
