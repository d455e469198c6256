#!/bin/bash
# The commands as a shell meets them, on this machine's filesystem, without policyd.
#   commands_test.sh TOOLS_DIR SOURCE_DIR [CASE...]     needs root
# shellcheck disable=SC2016 # jq and bash -c expand themselves
set -uo pipefail

tools=$1
source=$2
shift 2
PATH=$tools:$PATH
# shellcheck source=tests/system/tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
xattr() { getfattr -h -n "${2:-security.fpolicy}" --only-values -- "$1" 2>/dev/null; }
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"; }
# Every command against a database, rules and a socket of this test alone.
set_() { setfpolicy --database "$work/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }
get_() { getfpolicy --database "$work/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }
query_() { queryfpolicy --database "$work/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }
migrate_() { migratejob --database "$work/db" --rules "$work/rules" --socket "$work/no-socket" "$@"; }

case_wrong_usage_exits_2() {
  local words nobody=4194304 # no process can have this number
  for words in setfpolicy 'setfpolicy bind:0' 'setfpolicy bind:x f' 'setfpolicy --frob bind:0 f' \
    'setfpolicy -x --from-rules f' 'setfpolicy --system --user bind:0 f' 'setfpolicy --restore d f' \
    'setfpolicy bind:0,migrate=yes f' getfpolicy 'getfpolicy -H -L f' queryfpolicy 'queryfpolicy --pid x' \
    'queryfpolicy -o nonsense f' 'queryfpolicy --json --graph f' migratejob 'migratejob --from 0 --to 0' \
    "migratejob --pid $nobody --from 0" "migratejob --pid $nobody --to 0" \
    "migratejob --cgroup c --pid $nobody --from 0 --to 0" 'migratejob --cgroup / --from 0 --to 0' \
    'migratejob --pid x --from 0 --to 0' 'migratejob --pid 0 --from 0 --to 0' 'migratejob --pid 1,,2 --from 0 --to 0' \
    "migratejob --pid $nobody --from x --to 0" "migratejob --pid $nobody --from 0 --to 1-" \
    "migratejob --pid $nobody --from 0 --to 0 extra" "migratejob --pid $nobody --from 0 --to 0 --set-cpuset" \
    "migratejob --pid $nobody --from 0 --to 0 --cpus 0" 'migratejob --cgroup c --from 0 --to 0 --cpus 0' \
    "migratejob --pid $nobody --from 0 --to 0 --no-freeze --pre-copy" \
    "migratejob --pid $nobody --from 0 --to 0 --threads 0" "migratejob --pid $nobody --from 0 --to 0 --max-mbps 0" \
    policyctl 'policyctl frob' 'policyctl status extra' 'policyctl metrics extra' 'policyctl pins extra' 'policyctl pins -o nonsense' \
    'policyctl migrate' "policyctl migrate --pid $nobody --from 0" \
    'policyctl migrate --from 0 --to 0' "policyctl migrate --pid $nobody --from 0 --to 0 --cpus 0" \
    'policyctl migrate --cgroup / --from 0 --to 0' 'policyctl check extra' 'policyctl backup' 'policyctl backup a b'; do
    # shellcheck disable=SC2086 # split on purpose
    run 2 $words
    equal "" "$out" "output of $words"
    [[ $err == "${words%% *}: "*"Try '${words%% *} --help'"* ]] || fail "message of $words: $err"
  done
  run 2 setfpolicy bind:0,migrate=yes f
  holds "$err" 'bind:+0'
  holds "$err" 'migrate=private'
  run 2 migratejob --pid $nobody --from '' --to 0
  holds "$err" '--from'
  run 2 migratejob --pid $nobody --from 0 --to ''
  holds "$err" '--to'
  run 2 migratejob --pid '' --from 0 --to 0
  run 2 migratejob --cgroup '' --from 0 --to 0
}

case_help_version_and_pages() {
  local tool option page help
  for tool in setfpolicy getfpolicy queryfpolicy migratejob policyctl; do
    run 0 $tool --version
    [[ $out =~ ^$tool\ \(fpolicy\)\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "version: $out"
    run 0 $tool --help
    help=$out
    if [ $tool = policyctl ]; then
      for option in status jobs pins events apply migrate reload check backup; do
        run 0 policyctl $option --help
        help+=$'\n'$out
      done
    fi
    page=$(MANWIDTH=500 man -E UTF-8 -l "$source/man/$tool.1" 2>/dev/null | col -b)
    for option in $(grep -oE '^  -[^ ]+' <<<"$help" | tr ',' '\n' | sort -u); do
      [[ $page =~ (^|[[:space:],])$option([[:space:],=]|$) ]] || fail "$tool.1 does not know $option"
    done
  done
  for page in "$source"/man/*.[13578]; do
    run 0 man --warnings -E UTF-8 -l "$page"
    equal "" "$err" "warnings of man for $page"
  done
}

case_completion_knows_every_option() {
  local tool option
  if [ ! -r /usr/share/bash-completion/bash_completion ]; then
    echo "SKIPPED: $name: bash-completion is not installed"
    return
  fi
  for tool in setfpolicy getfpolicy queryfpolicy migratejob policyctl; do
    run 0 bash -c '. /usr/share/bash-completion/bash_completion; . "$1/tools/completion/fpolicy.bash"
      COMP_WORDS=("$2" --) COMP_CWORD=1 COMP_LINE="$2 --" COMP_POINT=${#COMP_LINE}
      _fpolicy "$2" -- "$2" 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' - "$source" $tool
    for option in $($tool --help | grep -oE '^  [^ ]+' | grep -oE -- '--[a-z-]+' | sort -u); do
      grep -qxF -- "$option" <<<"${out//=/}" || fail "$tool: completion does not offer $option"
    done
  done
}

case_tags_and_reads_back() {
  local before
  touch file
  run 0 set_ bind:0 file
  equal "" "$out$err" "output"
  equal "1 bind:0" "$(xattr file)" "xattr"
  run 0 get_ file
  equal "$PWD/file"$'\t'"bind:0"$'\n'"# effective: bind:0 (system-xattr security.fpolicy)" "$out"
  before=$(stat -c %z file)
  run 0 set_ bind:0 file
  equal "$before" "$(stat -c %z file)" "ctime after setting the same"
  run 0 set_ -x file
  equal "" "$(xattr file)" "xattr"
  run 0 set_ -x file
  run 0 get_ file
  equal "# $PWD/file: no tag"$'\n'"# effective: none" "$out"
}

case_one_bad_file_among_a_thousand() {
  mkdir many
  seq -f 'many/%g' 999 | xargs touch
  { seq -f 'many/%g' 500; echo many/missing; seq -f 'many/%g' 501 999; } | tr '\n' '\0' >names
  run 1 set_ -0 bind:0 <names
  equal "setfpolicy: many/missing: No such file or directory" "$err" "messages"
  equal 999 "$(get_ -R many | grep -c $'\tbind:0$')" "tagged files"
}

case_any_name() {
  local odd count=0
  mkdir odd
  cd odd || return
  mkdir 'di r'
  for odd in plain ' lead' '#hash' 'back\slash' $'tab\there' $'new\nline' $'latin\xe9' 'glob*?[x]' 'trail ' '[a,b]' ++ -R \
    '{}' $'\e[31m' $'\x01[a,b]' "$(printf '%0255d' 0)" ü; do
    : >"./$odd"
    count=$((count + 1))
    run 0 set_ bind:0 -- "$odd"
    equal "1 bind:0" "$(xattr "./$odd")" "xattr of $odd"
    # What a terminal shows is one line without control bytes.
    run 0 get_ -- "$odd"
    equal 2 "$(wc -l <<<"$out")" "lines for $odd"
    [[ $out != *$'\e'* ]] || fail "control bytes on the terminal"
  done
  run 0 set_ interleave:all 'di r'
  run 0 set_ --user migrate=no plain
  get_ -R . >../dump
  equal $((count + 2)) "$(wc -l <../dump)" "lines of the dump"
  run 0 set_ -R -x .
  run 0 set_ -R -x --user .
  equal "" "$(get_ -R .)" "tags after removal"
  run 0 set_ --restore ../dump
  get_ -R . >../dump2
  cmp ../dump ../dump2 || fail "the dump does not restore"
  run 0 set_ -R -x .
  run 0 set_ --restore - <../dump
  get_ -R . | cmp - ../dump || fail "standard input does not restore"
  # As JSON: every name comes back.
  run 0 get_ -R --json .
  equal $((count + 1)) "$(jq '.files | length' <<<"$out")" "files in JSON"
  equal "$PWD"'/latin\351' "$(jq -r '.files[].path_escaped | values' <<<"$out")" "escaped path"
  # The dump as rules means the same, and rules become tags.
  mkdir "$work/rules"
  cp ../dump "$work/rules/10.rules"
  run 0 set_ -R -x .
  run 0 query_ --json $'new\nline'
  equal "bind:0 rule" "$(jq -r '.files[0] | "\(.policy) \(.source)"' <<<"$out")" "as rules"
  run 0 set_ --from-rules -R .
  equal "1 bind:0" "$(xattr $'new\nline')" "from rules"
}

case_dumps_are_read_whole_or_not_at_all() {
  touch a b
  printf '%s\tbind:0\n%s no tab\n' "$PWD/a" "$PWD/b" >dump
  run 1 set_ --restore dump
  [[ $err == 'setfpolicy: dump:2:'* ]] || fail "message: $err"
  equal "" "$(xattr a)" "tag from a dump that does not parse"
  printf '%s\t%s\n' "$PWD/a" bind:0 "$PWD/b" bind:0,colour=red >dump
  run 1 set_ --restore dump
  [[ $err == "setfpolicy: dump:2:$((${#PWD} + 11)): expected a placement"* ]] || fail "message: $err"
  equal "" "$(xattr a)" "tag from a dump with a policy that is none"
  printf '%s\t%s\n' "$PWD/a" bind:0 "$PWD/b" bind:0,migrate=no | head -c -12 >dump
  run 1 set_ --restore dump
  equal "setfpolicy: dump: its last line has no end: the dump was cut off" "$err" "message"
  equal "" "$(xattr a)" "tag from a dump that was cut off"
  printf '%s\t%s\n' "$PWD/a" bind:0 "$PWD/none" bind:0 "#unsupported $PWD/a" colour=red "$PWD/b" bind:0 "$PWD/b/" bind:0 >dump
  run 1 set_ --restore dump
  equal 3 "$(wc -l <<<"$err")" "lines on stderr"
  holds "$err" "dump:2: $PWD/none: No such file or directory"
  holds "$err" "dump:3: $PWD/a: column 1"
  holds "$err" "dump:5: $PWD/b: is no directory"
  equal "1 bind:0 1 bind:0" "$(xattr a) $(xattr b)" "the rest"
  # A link where a file was dumped is another file.
  rm b
  ln -s a b
  printf '%s\tmigrate=no\n' "$PWD/b" >dump
  run 1 set_ --restore dump
  equal "1 bind:0" "$(xattr a)" "behind the link"
}

# Tags on a filesystem of each kind: xattrs of both spaces, and a record in the database.
case_a_dump_of_the_whole_machine() {
  local mounted=() point
  mkdir -p tree/dir tmpfs ramfs
  touch tree/dir/a tree/dir/b $'tree/new\nline '
  if mount -t tmpfs tmpfs tmpfs 2>/dev/null; then mounted+=(tmpfs); fi
  if mount -t ramfs ramfs ramfs 2>/dev/null; then mounted+=(ramfs); fi
  touch {tmpfs,ramfs}/file
  run 0 set_ bind:0 tree/dir tree/dir/b tmpfs/file ramfs/file
  run 0 set_ --user migrate=no tree/dir/b $'tree/new\nline ' ramfs/file
  run 0 set_ interleave:all ramfs
  setfattr -n security.fpolicy -v '7 shiny' tree/dir/a
  run 0 set_ --force bind:0 tree/dir/a
  setfattr -n security.fpolicy -v '7 shiny' tree/dir/a
  run 0 get_ --all
  echo "$out" >dump
  equal "" "$err" "messages"
  equal "$PWD/ramfs/	interleave:all
$PWD/ramfs/file	bind:0
#user $PWD/ramfs/file	migrate=no
$PWD/tmpfs/file	bind:0
$PWD/tree/dir/	bind:0
#unsupported $PWD/tree/dir/a	7 shiny
$PWD/tree/dir/b	bind:0
#user $PWD/tree/dir/b	migrate=no
#user $PWD/tree/new\\nline\\040	migrate=no" "$out" "dump"
  run 0 get_ --all --json
  equal 7 "$(jq '.files | length' <<<"$out")" "files in JSON"

  # On a store that has been emptied: but for what is not understood, all is as it was.
  run 0 set_ -R -x --force tree tmpfs ramfs
  run 0 set_ -R -x --user --force tree tmpfs ramfs
  rm "$work"/db*
  run 1 set_ --restore dump
  equal 1 "$(wc -l <<<"$err")" "lines on stderr"
  holds "$err" "dump:6: $PWD/tree/dir/a: column 1"
  run 0 get_ --all
  equal "$(grep -v '^#unsupported' dump)" "$out" "dump after the restore"
  equal "1 migrate=no" "$(xattr tree/dir/b user.fpolicy)" "user tag"
  equal "1 bind:0" "$(xattr tree/dir)" "directory's tag"
  # What is there already is no fault, understood or not.
  setfattr -n security.fpolicy -v '7 shiny' tree/dir/a
  run 0 set_ --restore dump
  equal "" "$out$err" "output"
  run 0 set_ --restore dump --test
  run 0 set_ --restore dump -n
  equal "" "$out$err" "output of -n"

  # A file that was moved is dumped where it is; one that is gone is counted.
  mv tree/dir tree/moved
  rm tree/moved/a ramfs/file
  run 0 get_ --all
  holds "$out" "$PWD/tree/moved/b	bind:0"
  [[ $out != *ramfs/file* ]] || fail "a file that is gone is in the dump"
  equal "getfpolicy: 2 stale records left out (queryfpolicy --all lists them)" "$err" "messages"
  for point in "${mounted[@]}"; do umount "$point"; done
  if [ ${#mounted[@]} -ne 2 ]; then
    echo "SKIPPED: $name: the part on memory filesystems, which cannot be mounted here"
    return
  fi
  run 1 get_ --all
  holds "$err" "getfpolicy: $PWD/tmpfs/file: its filesystem is not mounted; left out"
}

case_restore_prune_and_test() {
  mkdir dir
  touch a b c dir/d
  run 0 set_ bind:0 a dir
  get_ --all >dump
  run 0 set_ migrate=no a b dir/d
  run 0 set_ --user migrate=no a c
  run 0 get_ --all
  cp <(echo "$out") before
  # --test tells faults only, -n what would change.
  run 0 set_ --restore dump --prune --test
  equal "" "$out$err" "output of --test"
  run 0 set_ --restore dump --prune -n
  equal "$PWD/a	bind:0
# $PWD/a: would be removed
# $PWD/b: would be removed
# $PWD/c: would be removed
# $PWD/dir/d: would be removed" "$out" "output of -n"
  get_ --all | cmp - before || fail "-n or --test changed something"
  run 0 set_ --restore dump --prune
  get_ --all | cmp - dump || fail "other tags than the dump's are left"
  equal "" "$(xattr a user.fpolicy)$(xattr b)$(xattr c user.fpolicy)" "pruned"

  # What the dump has and could not be set is not removed, either.
  run 0 set_ migrate=no c
  printf '%s\tbind:900\n%s\tbind:0\n%s/\tbind:0\n' "$PWD/a" "$PWD/missing" "$PWD/dir" >lacking
  run 1 set_ --restore lacking --test
  equal 2 "$(wc -l <<<"$err")" "lines on stderr"
  holds "$err" "setfpolicy: lacking:1: $PWD/a: bind:900: this machine has no node 900"
  holds "$err" "setfpolicy: lacking:2: $PWD/missing: No such file or directory"
  equal "1 migrate=no" "$(xattr c)" "after --test"
  run 1 set_ --restore lacking --prune
  equal "1 bind:0 " "$(xattr a) $(xattr c)" "tags"
  run 1 set_ --restore lacking --force
  equal "1 bind:900" "$(xattr a)" "with --force"
  equal 1 "$(wc -l <<<"$err")" "lines on stderr"

  # An empty dump may be one that could not be written.
  : >empty
  run 1 set_ --restore empty --prune
  equal "setfpolicy: empty: holds no tag; --force removes every tag of this machine all the same" "$err" "message"
  printf 'not a dump\n' >wrong
  run 1 set_ --restore wrong --prune --force
  equal "1 bind:900" "$(xattr a)" "after a dump that does not parse"
  run 0 set_ --restore empty --prune --force
  run 0 get_ --all
  equal "" "$out$err" "what is left"
  for words in 'setfpolicy --prune bind:0 a' 'setfpolicy --test -x a' 'getfpolicy --all a' 'getfpolicy --all -R' \
    'getfpolicy --all -0'; do
    # shellcheck disable=SC2086 # split on purpose
    run 2 $words
  done
  equal "" "$(xattr a)" "after wrong usage"
}

case_from_catalogue() {
  # Only root may write the directories on the way.
  local home words
  home=$(mktemp -d /root/fpolicy-commands.XXXXXX)
  # replace FILE...: as package managers do.
  replace() {
    local file
    for file; do
      echo new >"$file.new"
      mv "$file.new" "$file"
    done
  }
  run 0 setfpolicy --database "$work/none" --from-catalogue
  equal "" "$out$err" "without a database"
  [ ! -e "$work/none" ] || fail "a database was made"
  mkdir -p "$home/lib/below" "$home/other"
  touch "$home/lib/a" "$home/lib/below/b" "$home/other/c" shared
  run 0 set_ bind:0 "$home/lib/a" "$home/lib/below/b" "$home/other/c" shared
  run 0 set_ migrate=no "$home/lib"
  run 0 set_ --from-catalogue -v
  equal "" "$out$err" "nothing was replaced"
  replace "$home/lib/a" "$home/lib/below/b" "$home/other/c"
  run 0 set_ --from-catalogue -n
  equal "$home/lib/a	bind:0
$home/lib/below/b	bind:0
$home/other/c	bind:0" "$out" "-n"
  equal "" "$(xattr "$home/lib/a")" "after -n"
  # Named ones, below named directories, from standard input.
  run 0 set_ --from-catalogue "$home/lib/a"
  equal "1 bind:0 " "$(xattr "$home/lib/a") $(xattr "$home/other/c")" "one was named"
  run 0 set_ --from-catalogue -v "$home/lib"
  equal "$home/lib/below/b	bind:0" "$out" "a directory was named"
  run 0 set_ --from-catalogue --json -0 < <(printf '%s\0' "$home/other")
  equal "$home/other/c system bind:0 true" "$(jq -r '.files[] | "\(.path) \(.space) \(.policy) \(.changed)"' <<<"$out")" "JSON"
  equal "1 bind:0" "$(xattr "$home/other/c")" "-0"
  run 0 get_ --all
  equal 5 "$(wc -l <<<"$out")" "the catalogue: no entry is stale: $err"
  equal "" "$err" "messages"
  # A directory that was removed and made again, with what is in it.
  rm -r "${home:?}/lib"
  mkdir "$home/lib"
  touch "$home/lib/a"
  run 0 set_ --from-catalogue "$home"
  equal "1 migrate=no 1 bind:0" "$(xattr "$home/lib") $(xattr "$home/lib/a")" "made again"

  # Not where others may have put the file; the rest is done.
  replace shared "$home/lib/a"
  run 1 set_ --from-catalogue
  equal "1 bind:0" "$(xattr "$home/lib/a")" "the rest"
  equal "" "$(xattr shared)" "in a directory for all"
  equal 1 "$(wc -l <<<"$err")" "lines on stderr"
  holds "$err" "setfpolicy: $PWD/shared: its tag was not carried over: others than its owner may put files into "
  # What was removed stays removed; --prune counts as removing.
  run 0 set_ -x "$home/lib/a" shared
  replace "$home/lib/a"
  run 0 set_ --from-catalogue
  equal "" "$(xattr "$home/lib/a")" "removed"
  rm "$home/other/c"
  : >empty
  run 0 set_ --restore empty --prune --force
  touch "$home/other/c"
  run 0 set_ --from-catalogue
  equal "" "$(xattr "$home/other/c")" "pruned"

  run 1 set_ --from-catalogue "$home/missing"
  equal "setfpolicy: $home/missing: No such file or directory" "$err"
  for words in '-R' '--libs' '--user' '--system' '-x' '--from-rules' '--prune'; do
    run 2 set_ --from-catalogue "$words" "$home"
  done
  run 1 as_nobody setfpolicy --from-catalogue
  equal "setfpolicy: --from-catalogue needs the catalogue, which root reads" "$err" "without privilege"
  rm -rf "$home"
}

case_links() {
  mkdir real other
  touch real/file other/outside
  ln -s real/file to-file
  ln -s ../other real/to-directory
  run 1 set_ -P bind:0 to-file
  holds "$err" 'setfpolicy: to-file: is a symbolic link'
  run 0 set_ bind:0 to-file
  equal "1 bind:0" "$(xattr real/file)" "followed"
  equal "$PWD/real/file" "$(query_ --all --json | jq -r '.files[].path')" "catalogue"
  run 0 set_ -R migrate=no real
  equal "" "$(xattr other/outside)" "not followed"
  run 0 set_ -R -L migrate=no real
  equal "1 migrate=no" "$(xattr other/outside)" "followed with -L"
  ln -s . real/loop
  run 1 set_ -R -L migrate=no real
  holds "$err" 'loop: leads back to a directory above it'
}

case_special_files() {
  mkfifo fifo
  mknod device c 1 3
  run 1 set_ bind:0 fifo device /proc/self/status
  equal 3 "$(wc -l <<<"$err")" "lines on stderr"
  holds "$err" 'fifo: is neither a regular file nor a directory'
  holds "$err" '/proc/self/status: its filesystem has no page-cache pages to place'
  # Opening the FIFO would wait for ever.
  run 0 timeout 20 setfpolicy --database "$work/db" -R bind:0 .
  run 0 timeout 20 queryfpolicy --database "$work/db" --rules "$work/rules" -R .
}

case_vanishing_entries() {
  local pid i
  mkdir churn
  while [ -d churn ]; do
    mkdir -p churn/{1,2,3}/deep && touch churn/{1,2,3}/deep/{a,b,c}
    rm -rf churn/[123]
  done 2>/dev/null &
  pid=$!
  for ((i = 0; i < 20; i++)); do
    run 0 get_ -R -e .
    run 0 set_ -R bind:0 churn
    run 0 query_ -R churn
  done
  kill $pid
  wait $pid 2>/dev/null
}

case_dry_run_changes_nothing() {
  touch a b
  run 0 set_ bind:0 a
  run 0 setfpolicy --database "$work/db2" -n bind:0 a b
  equal "$PWD/b"$'\t'"bind:0" "$out"
  equal "" "$(xattr b)" "xattr"
  [ ! -e "$work/db2" ] || fail "a database was made"
  run 0 setfpolicy --database "$work/db2" -n --json bind:0 a b
  equal "false true" "$(jq -r '[.files[].changed] | join(" ")' <<<"$out")" "JSON"
  run 0 setfpolicy --database "$work/db2" -n -x a b
  equal "# $PWD/a: would be removed" "$out"
}

case_nodes_this_machine_lacks() {
  touch a
  run 1 set_ bind:900-901 a
  holds "$err" 'bind:900-901: this machine has no node 900-901'
  equal "" "$(xattr a)" "xattr"
  run 0 set_ --force bind:900 a
  run 1 query_ --check a
  equal unsatisfiable "$(query_ --json a | jq -r '.files[0].state')" "state"
  # What is relative to a job is for the job to meet.
  run 0 set_ bind:+900 a
}

case_unsupported_is_not_overwritten() {
  touch a b c
  setfattr -n security.fpolicy -v '2 bind:0' a
  run 1 set_ bind:0 a
  run 1 set_ -x a
  equal "2 bind:0" "$(xattr a)" "xattr"
  run 0 get_ a
  holds "$out" 'effective: unsupported: 2 bind:0'
  run 1 query_ --check a
  run 1 set_ --reference a b
  run 0 set_ --force bind:0 a
  run 0 set_ --reference a b
  equal "1 bind:0" "$(xattr b)" "from the reference"
  run 1 set_ --reference c b
  holds "$err" 'c: has no system tag'
}

case_directories_and_explain() {
  mkdir -p lib/deep
  touch lib/deep/a
  run 0 set_ bind:0 lib
  run 0 set_ --user --force bind:5 lib/deep/a
  chmod 666 lib/deep/a
  run 0 get_ --explain lib/deep/a
  holds "$out" "# effective: bind:0 (directory $PWD/lib)"
  holds "$out" 'user tag: bind:5 in user.fpolicy: not trusted'
  chmod 644 lib/deep/a
  run 0 get_ --explain lib/deep/a
  holds "$out" '# effective: bind:5 (user-xattr user.fpolicy)'
  holds "$out" "directory $PWD/lib: bind:0 in security.fpolicy: a source above decides"
  mkdir "$work/rules"
  printf '# none\n%s/lib/\tinterleave:all\n' "$PWD" >"$work/rules/50.rules"
  run 0 get_ --explain --json lib/deep/a
  equal "$work/rules/50.rules:2" "$(jq -r '.files[0].candidates[-1].where' <<<"$out")" "rule"
  printf 'no rule\n' >"$work/rules/60.rules"
  run 1 get_ lib
  holds "$err" '60.rules:1:'
  run 1 set_ --user bind:0 lib
  holds "$err" 'covers nothing below it'
}

case_audit() {
  head -c 1M /dev/urandom >data
  run 0 query_ data
  equal "FILE POLICY SOURCE RESIDENT" "$(head -1 <<<"$out" | awk '{ print $1, $2, $3, $4 }')" "headings"
  run 0 set_ bind:0 data
  run 0 query_ --json data
  equal "system-xattr 256 0 ok" \
    "$(jq -r '.files[0] | "\(.source) \(.resident_pages) \(.misplaced_pages) \(.state)"' <<<"$out")"
  equal 256 "$(jq '[.files[0].pages_by_node[]] | add' <<<"$out")" "pages by node"
  run 0 query_ -o state,file --noheadings --raw data
  equal "ok $PWD/data" "$out"
  run 0 query_ --graph data
  holds "$out" '100%'
  mkdir below
  head -c 1M /dev/urandom >below/1
  head -c 1M /dev/urandom >below/2
  run 0 query_ --json below
  equal "$PWD/below/ 512" "$(jq -r '.files[] | "\(.path) \(.resident_pages)"' <<<"$out")" "sum"
  run 0 query_ --json -R below
  equal 2 "$(jq '.files | length' <<<"$out")" "rows"
  run 0 query_ --json --pid $$
  equal true "$(jq --arg path "$(readlink -f /bin/bash)" '[.files[] | select(.path == $path and .resident_pages > 0)] | length == 1' \
    <<<"$out")" "this shell's program is listed once"
  run 1 query_ --job no/such/cgroup
  rm data
  run 1 query_ --all --check
  holds "$err" "$PWD/data: stale"
}

case_libraries() {
  local library
  cp /bin/ls program
  run 0 set_ -n --libs bind:0 program
  for library in $(ldd program | grep -o '/[^ ]*'); do
    holds "$out" "$(readlink -f "$library")"$'\t'bind:0
  done
  printf '#!/bin/sh\n' >script
  run 1 set_ -n --libs bind:0 script
  holds "$err" 'script: is not an ELF program'
}

case_output_that_cannot_be_written() {
  touch a
  run 0 set_ bind:0 a
  get_ -R . 2>"$work/err" >/dev/full
  equal 1 $? "exit status"
  holds "$(<"$work/err")" 'write error: No space left on device'
}

case_policyd_is_not_running() {
  local words
  for words in status jobs pins events reload apply 'migrate --pid 1 --from 0 --to 0'; do
    # shellcheck disable=SC2086 # split on purpose
    run 1 policyctl --socket "$work/no-socket" $words
    equal "policyctl: policyd is not running ($work/no-socket: No such file or directory)" "$err" "$words"
  done
}

# Of a machine that may have one node: pages "move" to where they are. tests/guest has the nodes.
can_migrate() {
  head -c 8 /proc/kpageflags >/dev/null 2>&1 || {
    echo "SKIPPED: $name: page frames are not shown to this root"
    return 1
  }
  node=$(grep -oE '^[0-9]+' /sys/devices/system/node/has_memory || echo 0)
}

case_migratejob_processes() {
  local node pid there gone
  can_migrate || return
  sleep 1000 &
  pid=$!
  # A number that was a process' a moment ago.
  sleep 0 &
  gone=$!
  wait $gone
  there=(--from "$node" --to "$node")
  run 0 migrate_ --pid $pid "${there[@]}" --dry-run
  equal "KIND FILE POLICY DECISION" "$(head -1 <<<"$out" | awk '{ print $1, $2, $3, $4 }')" "headings"
  holds "$out" '1 processes: 0.0 MiB would move'
  run 0 migrate_ --pid $pid,$gone "${there[@]}" --verify --json
  equal "1 0 0" "$(jq -r '"\(.processes) \(.moved_pages) \(.misplaced_pages)"' <<<"$out")" "processes, moved, misplaced pages"
  equal true "$(jq --arg path "$(readlink -f /bin/sleep)" 'any(.groups[]; .path == $path and .decision == "exclusive")' <<<"$out")" \
    "what it runs is among the files"
  holds "$(</proc/$pid/status)" $'State:\tS'
  run 1 migrate_ --pid $gone "${there[@]}"
  equal "migratejob: none of these processes exists" "$err" "message"
  run 1 migrate_ --pid $pid --from "$node" --to "$node,900"
  equal "migratejob: node 900 does not exist here or has no memory" "$err" "message"
  run 1 migrate_ --pid $pid --from 900 --to "$node"
  equal "migratejob: node 900 does not exist here or has no memory" "$err" "message"
  run 1 bash -c 'exec migratejob --pid $$ "$@"' - "${there[@]}"
  holds "$err" 'the caller is one of these processes'
  run 1 bash -c 'migratejob --tree --pid $$ "$@"; exit $?' - "${there[@]}"
  holds "$err" 'the caller is one of these processes'
  # What somebody else has stopped stays so.
  kill -STOP $pid
  run 0 migrate_ --pid $pid "${there[@]}"
  holds "$(</proc/$pid/status)" $'State:\tT'
  run 0 migrate_ --pid $pid "${there[@]}" --no-freeze --json
  equal 0 "$(jq .frozen_seconds <<<"$out")" "frozen time"
  kill -9 $pid
  wait $pid 2>/dev/null
}

case_migratejob_cgroup() {
  local node tree cgroup pid
  can_migrate || return
  tree=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  cgroup=fpolicy-commands-$$
  if [ -z "$tree" ]; then
    run 2 migrate_ --cgroup $cgroup --from "$node" --to "$node"
    holds "$err" 'cgroup2: not mounted'
    echo "SKIPPED: $name: no cgroup2 is mounted"
    return
  fi
  run 1 migrate_ --cgroup $cgroup --from "$node" --to "$node"
  equal "migratejob: open $tree/$cgroup: No such file or directory" "$err" "message"
  run 1 migrate_ --cgroup "$tree/$cgroup" --from "$node" --to "$node" --dry-run
  holds "$err" 'No such file or directory'
  if ! mkdir "$tree/$cgroup" 2>/dev/null; then
    echo "SKIPPED: $name: no cgroup can be made here"
    return
  fi
  sleep 1000 &
  pid=$!
  if ! echo $pid 2>/dev/null >"$tree/$cgroup/cgroup.procs"; then
    echo "SKIPPED: $name: no process can enter a cgroup here"
  else
    run 0 migrate_ --cgroup $cgroup --from "$node" --to "$node" --json
    equal "1 true" "$(jq -r '"\(.processes) \(.frozen_seconds > 0)"' <<<"$out")" "processes, frozen"
    equal 0 "$(<"$tree/$cgroup/cgroup.freeze")" "cgroup.freeze"
    if [ ! -e "$tree/$cgroup/cpuset.mems" ]; then
      run 1 migrate_ --cgroup $cgroup --from "$node" --to "$node" --set-cpuset
      holds "$err" 'its parent does not give it the cpuset controller'
    fi
    # A paused job stays paused.
    echo 1 >"$tree/$cgroup/cgroup.freeze"
    run 0 migrate_ --cgroup "/$cgroup/" --from "$node" --to "$node"
    equal 1 "$(<"$tree/$cgroup/cgroup.freeze")" "cgroup.freeze of a paused job"
    echo 0 >"$tree/$cgroup/cgroup.freeze"
    run 1 bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec migratejob "$@"' - "$tree/$cgroup" \
      --cgroup $cgroup --from "$node" --to "$node"
    holds "$err" 'the caller is in this cgroup'
  fi
  kill -9 $pid
  wait $pid 2>/dev/null
  rmdir "$tree/$cgroup" || fail "the cgroup is left"
}

case_ordinary_user() {
  if ! as_nobody "$tools/setfpolicy" --version >/dev/null 2>&1; then
    echo "SKIPPED: $name: others may not run $tools/setfpolicy"
    return
  fi
  chmod 777 .
  touch theirs
  as_nobody touch mine
  run 0 as_nobody setfpolicy bind:0 mine
  equal "1 bind:0" "$(xattr mine user.fpolicy)" "user tag"
  run 1 as_nobody setfpolicy bind:0 theirs
  [[ $err == 'setfpolicy: theirs: '* ]] || fail "message: $err"
  run 1 as_nobody setfpolicy --system bind:0 mine
  holds "$err" CAP_SYS_ADMIN
  run 0 set_ migrate=no theirs
  chmod 600 theirs
  run 0 as_nobody getfpolicy theirs
  holds "$out" "theirs"$'\t'"migrate=no"
  run 0 as_nobody queryfpolicy --json theirs
  equal null "$(jq '.files[0].resident_pages' <<<"$out")" "pages of another's file"
  run 0 as_nobody queryfpolicy --json mine
  equal "user-xattr 0" "$(jq -r '.files[0] | "\(.source) \(.resident_pages)"' <<<"$out")" "own file"
  run 0 as_nobody bash -c 'queryfpolicy --json --pid $$; exit $?'
  equal true "$(jq --arg path "$(readlink -f /bin/bash)" '[.files[] | select(.path == $path)] | length == 1' <<<"$out")" \
    "what the user's own process maps"
  run 1 as_nobody queryfpolicy --pid 1
  equal 1 "$(wc -l <<<"$err")" "lines about another's process"
  run 1 as_nobody migratejob --pid $$ --from 0 --to 0 --dry-run
  holds "$err" 'ermi'
  # The catalogue is root's and policyd's.
  run 1 as_nobody getfpolicy --socket "$work/no-socket" --all
  equal "getfpolicy: --all: policyd is not running ($work/no-socket: No such file or directory)" "$err" "--all"
  printf '#user %s/mine\tprefer:0\n%s/mine\tbind:0\n' "$PWD" "$PWD" >dump
  run 1 as_nobody setfpolicy --restore dump --prune
  equal "setfpolicy: --prune needs the catalogue, which root reads" "$err" "--prune"
  equal "1 bind:0" "$(xattr mine user.fpolicy)" "after --prune"
  run 1 as_nobody setfpolicy --restore dump
  equal "setfpolicy: dump:2: $PWD/mine: a system tag needs privilege (CAP_SYS_ADMIN)" "$err" "messages"
  equal "1 prefer:0" "$(xattr mine user.fpolicy)" "restored user tag"
  run 0 as_nobody setfpolicy bind:0 mine
  mkdir closed
  chmod 700 closed
  run 1 as_nobody setfpolicy -R bind:0 .
  holds "$err" "setfpolicy: $PWD/closed: open: Permission denied"
  holds "$err" "setfpolicy: $PWD/theirs: "
}

prepare() {
  rm -rf "$work"/db* "$work/rules"
  mkdir "$work/$name"
  cd "$work/$name" || exit 1
}
run_cases "$@"
