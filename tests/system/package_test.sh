#!/usr/bin/env bash
# The Debian package on a clean Debian 12: it installs, its programs run, and it purges without a trace.
#   package_test.sh BUILD_DIR
# Ends with 77, and the reason, where it cannot run.
set -euo pipefail
build=$1
skip() {
  echo "SKIPPED: $*"
  exit 77
}
[ "$(id -u)" -eq 0 ] || skip "a chroot needs root"
grep -q -- -fsanitize= "$build/build.ninja" && skip "the package is built without sanitizers"

(cd "$build" && cpack -G DEB >cpack.log) || {
  cat "$build/cpack.log"
  exit 1
}
deb=$(echo "$build"/fpolicy_*.deb)
mapfile -t depends < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/^ *//; s/ .*//' | grep .)

# A clean system with what the package depends on.
base=$("$(dirname "$0")/../debian-root" "${depends[@]}" 2>&1) || skip "${base#SKIPPED: }"
root=$(mktemp -d /var/tmp/fpolicy-package.XXXXXX)
trap 'rm -rf --one-file-system "$root"' EXIT
tar -C "$root" -xf "$base"

# As in a container: its root is a mount point.
# shellcheck disable=SC2016 # The inner shell expands it.
in_root() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive unshare --mount sh -c \
    'mount --bind "$0" "$0" && exec chroot "$0" "$@"' "$root" "$@"
}
# dpkg's and apt's own notes and logs, what ldconfig makes, and what useradd and userdel leave of the accounts before are not
# the package's.
trace() {
  (cd "$root" && find . -xdev ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' \
    ! -name 'ld.so.cache*' ! -path './etc/passwd-' ! -path './etc/group-' ! -path './etc/shadow-' ! -path './etc/gshadow-' \
    -printf '%p %m %u %l\n' | LC_ALL=C sort)
}

# Accounts are as before, too.
accounts() {
  (cd "$root/etc" && cat passwd group shadow gshadow)
}

trace >"$build/package-before.txt"
accounts >"$build/package-accounts-before.txt"
cp "$deb" "$root/tmp/fpolicy.deb"
in_root dpkg -i /tmp/fpolicy.deb
for program in setfpolicy getfpolicy queryfpolicy migratejob policyctl policyd; do
  in_root $program --version
  in_root $program --help >/dev/null
done
files=$(dpkg-deb -c "$deb")
for page in man1/setfpolicy.1 man1/getfpolicy.1 man1/queryfpolicy.1 man1/migratejob.1 man1/policyctl.1 \
  man8/policyd.8 man7/fpolicy.7 man3/fpolicy.3; do
  # minbase leaves documentation out only by configuration; the package must hold it.
  [[ $files == *"usr/share/man/$page"* ]] || {
    echo "no $page in the package"
    exit 1
  }
done
# Whom the service runs as.
[[ $(in_root getent passwd fpolicy) == fpolicy:*:/usr/sbin/nologin ]] || {
  echo "no user for policyd: $(in_root getent passwd fpolicy)"
  exit 1
}
in_root test -f /usr/lib/sysusers.d/fpolicy.conf
in_root test -d /etc/fpolicy/rules.d
in_root test -f /etc/fpolicy/policyd.toml
in_root test -f /lib/systemd/system/policyd.service -o -f /usr/lib/systemd/system/policyd.service
# It is used before it goes: a tag and its database.
in_root sh -c 'mount -t proc proc /proc && mount -t sysfs sysfs /sys && : >/root/file && setfpolicy bind:0 /root/file && getfpolicy /root/file && rm /root/file'
# As systemd leaves it, and as an earlier version's policyd did: what is there is root's or policyd's, and is read by both.
# shellcheck disable=SC2016 # The inner shell expands it.
in_root sh -c 'set -e
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mkdir -p /root/plain
  mount -t ramfs ramfs /root/plain
  : >/root/plain/file
  setfpolicy bind:0 /root/plain/file
  for owner in fpolicy root; do
    chown fpolicy /var/lib/fpolicy
    chown $owner /var/lib/fpolicy/fpolicy.db
    setfpolicy bind:0 /root/plain/file
    policyctl check
  done
  for what in "nobody /var/lib/fpolicy/fpolicy.db" "root /var/lib/fpolicy"; do
    chown fpolicy /var/lib/fpolicy/fpolicy.db
    chown $what
    ! setfpolicy bind:0 /root/plain/file || exit 1
    chown fpolicy /var/lib/fpolicy /var/lib/fpolicy/fpolicy.db
  done
  umount /root/plain
  rmdir /root/plain'
in_root dpkg --purge fpolicy
rm "$root/tmp/fpolicy.deb"
trace >"$build/package-after.txt"
diff "$build/package-before.txt" "$build/package-after.txt"
accounts | diff "$build/package-accounts-before.txt" -
echo "installed, ran and purged without a trace"
