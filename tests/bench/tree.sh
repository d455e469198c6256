#!/bin/bash
# Tagging and reading a tree of 100,000 files, and the audit of a cached file of 1 GiB. Medians of 5, alternating.
#   tree.sh BIN_DIR [DIRECTORY]     needs root; DIRECTORY is on the filesystem to measure (default /var/tmp)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
bin=$1
scratch=$(mktemp -d "${2:-/var/tmp}/fpolicy-bench.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
files=${FPOLICY_FILES:-100000}
database=(--database "$scratch/fpolicy.db")

for ((d = 0; d < files / 100; d++)); do
  mkdir -p "$tree/$((d / 10))/$d"
  (cd "$tree/$((d / 10))/$d" && seq 100 | xargs touch)
done
sync
echo "tree of $files files, $(nproc) processors, $(findmnt -n -o FSTYPE -T "$scratch"), Linux $(uname -r); ours, then theirs"

# The catalogue holds nothing of the tree, but is there: policyd makes it when it starts.
untag() {
  find "$tree" -type f -print0 | xargs -0 -P "$(nproc)" setfattr -x security.fpolicy 2>/dev/null || true
  rm -f "$scratch"/fpolicy.db*
  "$bin/setfpolicy" "${database[@]}" bind:0 "$scratch"
  "$bin/setfpolicy" "${database[@]}" -x "$scratch"
}
untag_other() { find "$tree" -type f -print0 | xargs -0 -P "$(nproc)" setfattr -x security.other 2>/dev/null || true; }
untag_acl() { setfacl -R -b "$tree"; }

set_ours() { "$bin/setfpolicy" "${database[@]}" -R bind:0 "$tree"; }
set_attr() { find "$tree" -type f -print0 | xargs -0 setfattr -n security.other -v "1 bind:0"; }
set_acl() { setfacl -R -m u:1000:r "$tree"; }
get_ours() { "$bin/getfpolicy" "${database[@]}" -R "$tree"; }
get_attr() { getfattr -R -h -n security.fpolicy --absolute-names "$tree" 2>/dev/null || true; }
get_all() { getfattr -R -h -d -m security.fpolicy --absolute-names "$tree"; }
get_acl() { getfacl -R -p "$tree"; }
get_cap() { getcap -r "$tree"; }

compare "setfpolicy -R, catalogue included : xargs setfattr" 1.0 set_ours set_attr untag untag_other
compare "setfpolicy -R : setfacl -R" - set_ours set_acl untag untag_acl
compare "setfpolicy -R, nothing to change : xargs setfattr" - set_ours set_attr
compare "getfpolicy -R, all tagged : getfattr -R -h -n" - get_ours get_attr
compare "getfpolicy -R, all tagged : getfacl -R" - get_ours get_acl
untag
compare "getfpolicy -R, none tagged : getfattr -R -h -n" 0.4 get_ours get_attr
compare "getfpolicy -R, none tagged : getfattr -R -h -d -m" - get_ours get_all
compare "getfpolicy -R, none tagged : getcap -r" 0.6 get_ours get_cap

big=$scratch/big
head -c 1G /dev/urandom >"$big"
sync "$big"
audit_ours() { "$bin/queryfpolicy" "${database[@]}" "$big"; }
audit_fincore() { fincore "$big"; }
audit_vmtouch() { vmtouch "$big"; }
echo "audit of a cached file of 1 GiB; fincore and vmtouch tell no nodes"
# What was written is cached page by page here, what was read in large folios: a fault maps those in one go.
cat "$big" >/dev/null
compare "queryfpolicy : fincore, after writing" 3 audit_ours audit_fincore
compare "queryfpolicy : vmtouch, after writing" - audit_ours audit_vmtouch
dd if="$big" iflag=nocache count=0 status=none
cat "$big" >/dev/null
compare "queryfpolicy : fincore, after reading" 3 audit_ours audit_fincore
compare "queryfpolicy : vmtouch, after reading" - audit_ours audit_vmtouch
