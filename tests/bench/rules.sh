#!/bin/bash
# What rules say of each file of a tree, beside setfiles, which does the same with SELinux' file contexts: the same
# rules in both languages, both change nothing. Medians of 5, alternating.
#   rules.sh BIN_DIR [DIRECTORY]     needs root; DIRECTORY is the tree (default /usr)
# shellcheck disable=SC2317 # compare calls what is defined here
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/lib.sh
. "$here/lib.sh"
bin=$1
tree=$(realpath "${2:-/usr}")
scratch=$(mktemp -d /var/tmp/fpolicy-bench.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/rules"
# Outside of /usr/sbin in the path of an ordinary root shell, too.
PATH=$PATH:/usr/sbin

# make_rules COUNT: directories, files and patterns; the first three are of the tree, the others of products that
# are not there.
make_rules() {
  local i
  {
    printf '%s/lib/**.so\tbind:0\n%s/bin/\tbind:0\n%s/share/doc/*/\tbind:0\n' "$tree" "$tree" "$tree"
    for ((i = 3; i < $1; i++)); do
      case $((i % 3)) in
      0) printf '%s/lib/product%d/\tbind:0\n' "$tree" $i ;;
      1) printf '%s/lib/libproduct%d.so\tbind:0\n' "$tree" $i ;;
      2) printf '%s/share/product%d/*.dat\tbind:0\n' "$tree" $i ;;
      esac
    done
  } >"$scratch/rules/bench.rules"
  # PATTERN as the regular expression that means the same.
  sed -E 's/\t.*//; s/\./\\./g; s/\*\*/.@/g; s/\*/[^\/]*/g; s/@/*/g; s/\/$/(\/.*)?/; s/$/\tsystem_u:object_r:usr_t:s0/' \
    "$scratch/rules/bench.rules" >"$scratch/contexts"
}
ours() { "$bin/setfpolicy" --database "$scratch/fpolicy.db" --rules "$scratch/rules" -n --from-rules -R "$tree"; }
theirs() { setfiles -n "$scratch/contexts" "$tree"; }

echo "rules over $(find "$tree" | wc -l) files of $tree, $(nproc) processors, Linux $(uname -r); ours, then theirs"
for count in 20 200; do
  make_rules $count
  compare "setfpolicy -n --from-rules -R : setfiles -n, $count rules" 0.5 ours theirs
done
