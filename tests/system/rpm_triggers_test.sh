#!/usr/bin/env bash
# The file triggers that a distribution's spec file includes: rpm makes a package of them, and the package has them.
#   rpm_triggers_test.sh SOURCE_DIR
# Ends with 77, and the reason, where it cannot run.
set -euo pipefail
source=$1
command -v rpmbuild >/dev/null || {
  echo "SKIPPED: rpm is not installed"
  exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/fpolicy.spec" <<EOF
Name: fpolicy
Version: 1
Release: 1
Summary: test
License: LGPL-2.1-or-later
BuildArch: noarch
%description
test
%files
%include $source/packaging/rpm/filetriggers.inc
EOF
rpmspec --parse "$work/fpolicy.spec" >/dev/null
rpmbuild --quiet --define "_topdir $work" -bb "$work/fpolicy.spec"
triggers=$(rpm --dbpath "$work/db" -qp --filetriggers "$work"/RPMS/noarch/fpolicy-1-1.noarch.rpm)
echo "$triggers"
[[ $triggers == *'transfiletriggerin'*' /usr'* ]]
[[ $triggers == *'setfpolicy --from-catalogue || :'* ]]
# The script as rpm keeps it fails no transaction, whatever becomes of the command.
rpm --dbpath "$work/db" -qp --qf '%{TRANSFILETRIGGERSCRIPTS}' "$work"/RPMS/noarch/fpolicy-1-1.noarch.rpm >"$work/script"
PATH=/usr/bin:/bin sh -n "$work/script"
