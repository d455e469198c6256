#!/usr/bin/env bash
# The example as its readers build it, against what is installed: by pkg-config and by CMake, as C and as C++.
#   example_test.sh BUILD_DIR SOURCE_DIR
# Ends with 77, and the reason, where it cannot run.
set -euo pipefail
build=$1
source=$2
skip() {
  echo "SKIPPED: $*"
  exit 77
}
fail() {
  echo "example_test: $*" >&2
  exit 1
}
grep -q -- -fsanitize= "$build/build.ninja" && skip "programs of others are built without sanitizers"

work=$(mktemp -d "${TMPDIR:-/tmp}/fpolicy-example.XXXXXX")
policyd=
cleanup() {
  if [ -n "$policyd" ]; then
    kill -KILL "$policyd" || true
    # It holds files there until it is gone.
    wait "$policyd" 2>/dev/null || true
  fi
  if mountpoint -q "$work/ramfs"; then umount "$work/ramfs"; fi
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
tree=$work/tree
DESTDIR=$tree cmake --install "$build" >"$work/install.log"
example=$(find "$tree" -path '*/doc/fpolicy/examples/place_library.c')
[ -n "$example" ] || fail "the example is not installed"
cmp "$example" "$source/examples/place_library.c"
pc=$(find "$tree" -name fpolicy.pc)
libraries=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_SYSROOT_DIR=$tree PKG_CONFIG_LIBDIR=${pc%/*}

read -ra flags < <(pkg-config --cflags --libs fpolicy)
warnings=(-Wall -Wextra -Wpedantic -Werror)
cc -std=c11 "${warnings[@]}" "$example" -o "$work/pkg-config-c" "${flags[@]}"
c++ -std=c++11 "${warnings[@]}" -x c++ "$example" -x none -o "$work/pkg-config-c++" "${flags[@]}"

cmake -S "${example%/*}" -B "$work/cmake" -DCMAKE_PREFIX_PATH="${libraries%/lib*}" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_C_FLAGS="${warnings[*]}" -DCMAKE_CXX_FLAGS="${warnings[*]}" >"$work/cmake.log"
cmake --build "$work/cmake" >>"$work/cmake.log" || {
  cat "$work/cmake.log"
  exit 1
}

export LD_LIBRARY_PATH=$libraries
mkdir "$work/rules.d"
places=(-d "$work/db/fpolicy.db" -r "$work/rules.d" -s "$work/no-policyd")
for program in "$work/pkg-config-c" "$work/pkg-config-c++" "$work/cmake/place_library" "$work/cmake/place_library_cpp"; do
  name=${program##*/}
  [[ $(ldd "$program") == *"libfpolicy.so.0 => $libraries/"* ]] || fail "$name: runs with another library"
  head -c 20000 /dev/urandom >"$work/libsolver.so"
  output=$("$program" "${places[@]}" bind:0 "$work/libsolver.so") || fail "$name: ended with $?"
  [[ $output == *"bind:0, from "*", set now"* ]] || fail "$name: not set: $output"
  [[ $output == *"libsolver.so: ok"*" of 5 pages resident, 0 misplaced"* ]] || fail "$name: no audit: $output"
  output=$("$program" "${places[@]}" bind:0 "$work/libsolver.so")
  [[ $output == *", set before"* ]] || fail "$name: set twice: $output"

  # What goes wrong is told, and by the exit status.
  status=0
  output=$("$program" "${places[@]}" bind:0 "$work/absent" 2>&1) || status=$?
  [[ $status == 1 && $output == *"$work/absent: No such file"* ]] || fail "$name: absent file: $status: $output"
  status=0
  output=$("$program" "${places[@]}" bind: "$work/libsolver.so" 2>&1) || status=$?
  [[ $status == 1 && $output == *column* ]] || fail "$name: wrong policy: $status: $output"
  status=0
  "$program" "${places[@]}" bind:0 2>/dev/null || status=$?
  [ $status = 2 ] || fail "$name: wrong usage: $status"
  rm "$work/libsolver.so"
done

# A user's program on a filesystem without xattrs: policyd keeps the tag and tells of it.
by_policyd() {
  local output i as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
  local program=("${as_nobody[@]}" "$work/pkg-config-c" -r "$work/rules.d" -s "$work/socket")
  chmod 755 "$work"
  head -c 20000 /dev/urandom >"$work/ramfs/libsolver.so"
  chown 65534:65534 "$work/ramfs/libsolver.so"
  output=$("${program[@]}" bind:0 "$work/ramfs/libsolver.so" 2>&1) && fail "without policyd: $output"
  [[ $output == *"policyd is not running"* ]] || fail "without policyd: $output"
  printf '[guard]\nenabled = false\n[rules]\ndirectory = "%s"\n' "$work/rules.d" >"$work/policyd.toml"
  "$tree/usr/sbin/policyd" --config "$work/policyd.toml" --state-dir "$work/state" --socket "$work/socket" \
    2>"$work/policyd.log" &
  policyd=$!
  for ((i = 0; i < 2000; i++)); do
    [ ! -S "$work/socket" ] || break
    sleep 0.01
  done
  output=$("${program[@]}" bind:0 "$work/ramfs/libsolver.so" 2>&1) || fail "policyd: $output $(cat "$work/policyd.log")"
  [[ $output == *"bind:0, from database, set now"*"libsolver.so: ok"* ]] || fail "policyd: $output"
  output=$("${program[@]}" bind:0 "$work/ramfs/libsolver.so" 2>&1) || fail "policyd: $output"
  [[ $output == *"from database, set before"* ]] || fail "policyd: $output"
}
mkdir "$work/ramfs"
if mount -t ramfs -o mode=755 ramfs "$work/ramfs" 2>/dev/null; then
  by_policyd
else
  echo "SKIPPED: tags that policyd keeps for users: a filesystem without xattrs needs root"
fi
echo "built by pkg-config and CMake, as C and C++, and ran"
