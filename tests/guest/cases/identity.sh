#!/bin/bash
# shellcheck disable=SC2154,SC2016 # lib.sh assigns what is read here; jq expands itself
# What becomes of tags, on each filesystem and for each thing that happens to files. Each file gets a system tag and a
# user tag. A case prints rows
#   CELL filesystem|operation|holder|result
# holder: what holds the system tag + what holds the user tag. result, of both where they differ:
#   kept            the file has its tag
#   kept, record stale  it has, in its xattr; but what the catalogue says of it is out of date
#   stale           it has lost its tag, and queryfpolicy --all says so
#   not inherited   another file is there now; it has no tag, and the old file's is told as stale
# What must be so follows from what holds the tag: an xattr goes with the inode, a record goes with the file handle
# (key=handle) or with the path (key=path).

system_tag=bind:1
user_tag=bind:2
where=/tmp/t/mounted
image=/tmp/t/image

# begin NAME KEY [BIRTHS]: what the rows are about. BIRTHS: no where the filesystem tells no birth time.
begin() {
  filesystem=$1 key=$2 births=${3:-yes}
  holders=() failures=()
  modprobe loop
  mkdir -p $where
}

# No case ends at the first wrong cell: the others are wanted, too.
finish() {
  [ ${#failures[@]} -eq 0 ] || fail "$(printf '%s\n' "${failures[@]}")"
}

# cell OPERATION EXPECTED ACTUAL
cell() {
  echo "CELL $filesystem|$1|${holders[0]} + ${holders[1]}|$3"
  [ "$2" = "$3" ] || failures+=("$filesystem: $1: expected '$2', found '$3'")
}

# pair A B: one word where both are the same.
pair() { if [ "$1" = "$2" ]; then echo "$1"; else echo "$1 + $2"; fi; }

# both WITH_XATTR WITH_RECORD: what is expected, by what holds the tags.
both() {
  local result=() holder
  for holder in "${holders[@]}"; do
    if [ "$holder" = database ]; then result+=("$2"); else result+=("$1"); fi
  done
  pair "${result[@]}"
}

# with_old_record RESULT: where the catalogue cannot know the file any more.
with_old_record() { if [ "$1" = kept ]; then echo "kept, record stale"; else echo "$1"; fi; }

# by_key WITH_HANDLE WITH_PATH: what is expected of a record, by what it goes by.
by_key() { if [ "$key" = handle ]; then echo "$1"; else echo "$2"; fi; }

tag() {
  setfpolicy --system $system_tag "$@"
  setfpolicy --user $user_tag "$@"
}

# look FILE...: asks once for all of them, and for what is stale.
look() {
  # Files that are missing are none of the tags'.
  getfpolicy --json "$@" | jq -r '.files[] | .path as $path | {system, user} | to_entries[] | select(.value != null)
    | "\($path)|\(.key)|\(.value.policy)|\(.value.carrier)"' >/tmp/tags
  queryfpolicy --all --json | jq -r '.files[] | "\(.path)|\(.state)"' >/tmp/catalogue
}

# tag_of FILE SPACE: of the last look, "POLICY|HOLDER".
tag_of() { awk -F'|' -v path="$1" -v space="$2" '$1 == path && $2 == space { print $3 "|" $4 }' /tmp/tags; }

is_stale() { grep -qxF "$1|stale" /tmp/catalogue; }

# fate FILE [TAGGED_AS]: what became of the tags of a file that was tagged under the name TAGGED_AS.
fate() {
  local old=${2:-$1} space found result=()
  for space in system user; do
    found=$(tag_of "$1" $space)
    case $space:${found%|*} in
      "system:$system_tag" | "user:$user_tag") result+=(kept) ;;
      *:) if is_stale "$old"; then result+=(stale); else result+=(lost); fi ;;
      *) result+=("wrong tag $found") ;;
    esac
  done
  if [ "${result[*]}" = "kept kept" ] && is_stale "$old"; then
    echo "kept, record stale"
  else
    pair "${result[@]}"
  fi
}

# heir FILE: another file than the one that was tagged, at the same path.
heir() {
  local space result=()
  for space in system user; do
    if [ -n "$(tag_of "$1" $space)" ]; then
      result+=(inherited)
    elif is_stale "$1"; then
      result+=("not inherited")
    else
      result+=("not inherited, not told as stale")
    fi
  done
  pair "${result[@]}"
}

# expect_holders SYSTEM USER FILE: the cell of the first operation.
expect_holders() {
  look "$3"
  local space found
  for space in system user; do
    found=$(tag_of "$3" $space)
    holders+=("${found#*|}")
  done
  [ "$1 $2" = "${holders[*]}" ] || failures+=("$filesystem: expected $1 and $2 as holders, found ${holders[*]}")
  cell tag kept "$(fate "$3")"
}

# What holds system tags where the filesystem can hold security.*
security() { if [ "$(system_source)" = database ]; then echo database; else echo security.fpolicy; fi; }

# attempt COMMAND...: nothing if it did, else "refused: " and the kernel's reason.
attempt() {
  local said
  if said=$("$@" 2>&1); then return 0; fi
  # mount goes on about dmesg.
  said=${said%%$'\n'*}
  said=${said##*: }
  echo "refused: ${said%.}"
}

# attach IMAGE LOOP_DEVICE DIRECTORY [MOUNT_ARGUMENT...]: it ends with the mount.
attach() {
  local from=$1 device=/dev/loop$2 to=$3
  shift 3
  losetup "$device" "$from"
  local status=0
  mount "$@" "$device" "$to" || status=$?
  losetup -d "$device"
  return $status
}

make_files() {
  mkdir -p "$1"
  for name in renamed linked recreated replaced stays; do echo $name >"$1/$name"; done
}

# recreate FILE: deleted and made again, until it has the same inode number.
recreate() {
  local inode try
  for try in 1 2 3 4 5; do
    inode=$(stat -c %i "$1")
    rm "$1"
    echo another >"$1"
    [ "$inode" != "$(stat -c %i "$1")" ] || break
    # Tagged anew, so that the next one has something to inherit.
    [ "$try" = 5 ] || tag "$1"
  done
  if [ "$inode" = "$(stat -c %i "$1")" ]; then
    echo "note: $filesystem: inode number reused at try $try"
  else
    echo "note: $filesystem: inode number not reused"
  fi
}

# all_operations DIRECTORY SYSTEM_HOLDER USER_HOLDER: what happens to files while the filesystem stays mounted.
all_operations() {
  local dir=$1 link
  make_files "$dir"
  tag "$dir"/{renamed,linked,recreated,replaced,stays}
  expect_holders "$2" "$3" "$dir/stays"
  mv "$dir/renamed" "$dir/renamed.new"
  link=$(attempt ln "$dir/linked" "$dir/linked.too")
  recreate "$dir/recreated"
  echo another >"$dir/replaced.new"
  mv "$dir/replaced.new" "$dir/replaced"
  tell_operations "$dir" "$link" cell
}

# tell_operations DIRECTORY LINK TELLER
tell_operations() {
  local dir=$1 link=$2 teller=$3 files renamed heir
  files=("$dir"/{renamed.new,linked,recreated,replaced,stays})
  [ -n "$link" ] || files+=("$dir/linked.too")
  look "${files[@]}"
  renamed=$(both kept "$(by_key kept stale)")
  [ "$key" = handle ] || renamed=$(with_old_record "$renamed")
  $teller rename "$renamed" "$(fate "$dir/renamed.new" "$dir/renamed")"
  if [ -n "$link" ]; then
    $teller "hard link" "$link" "$link"
    $teller "first name" kept "$(fate "$dir/linked")" >/dev/null
  else
    $teller "hard link" "$(both kept "$(by_key kept "kept under the first name")")" "$(linked "$dir/linked")"
  fi
  heir=$(both "not inherited" "$([ "$births" = yes ] && echo "not inherited" || echo inherited)")
  # Of a file whose system tag is found, the catalogue's list tells no more.
  [ "$heir" != "inherited + not inherited" ] || heir+=", not told as stale"
  $teller "delete and recreate" "$heir" "$(heir "$dir/recreated")"
  $teller "rename over it" "$heir" "$(heir "$dir/replaced")"
}

# linked FILE: of a file that has the name FILE.too as well.
linked() {
  local space first second result=()
  for space in system user; do
    first=$(tag_of "$1" $space) second=$(tag_of "$1.too" $space)
    if [ -n "$first" ] && [ -z "$second" ]; then
      result+=("kept under the first name")
    elif [ "$first" != "$second" ]; then
      result+=("wrong tag $second")
    elif [ -n "$first" ]; then
      result+=(kept)
    elif is_stale "$1"; then
      result+=(stale)
    else
      result+=(lost)
    fi
  done
  pair "${result[@]}"
}

# The cells that were told before must be the same afterwards.
again() { [ "$2" = "$3" ] || failures+=("$filesystem: after mounting again: $1: expected '$2', found '$3'"); }

# on_image TYPE SIZE SYSTEM_HOLDER USER_HOLDER MKFS...: a writable filesystem in an image.
on_image() {
  local type=$1 size=$2 system=$3 user=$4 link=
  shift 4
  truncate -s "$size" $image
  "$@" $image >/tmp/mkfs 2>&1 || fail "$*: $(cat /tmp/mkfs)"
  attach $image 0 $where -t "$type"
  all_operations $where/t "$system" "$user"
  [ -e $where/t/linked.too ] || link=refused
  umount $where
  cp --sparse=always $image $image.saved

  attach $image 1 $where -t "$type"
  tell_operations $where/t "$link" again
  cell "mount on another device" kept "$(fate $where/t/stays)"
  rm $where/t/stays
  umount $where
  mv $image.saved $image
  attach $image 2 $where -t "$type"
  look $where/t/stays
  cell "restore from a copy of the image" kept "$(fate $where/t/stays)"
}

# copy FILE: of a file that may have come to a tag as a copy.
copy() {
  local space result=()
  for space in system user; do
    if [ -n "$(tag_of "$1" $space)" ]; then result+=(kept); else result+=("not inherited"); fi
  done
  pair "${result[@]}"
}

# base TYPE SIZE MKFS...: a filesystem at /tmp/t/base, for what is mounted upon others.
base() {
  local type=$1 size=$2
  shift 2
  truncate -s "$size" /tmp/t/base-image
  "$@" /tmp/t/base-image >/tmp/mkfs 2>&1 || fail "$*: $(cat /tmp/mkfs)"
  mkdir -p /tmp/t/base
  attach /tmp/t/base-image 5 /tmp/t/base -t "$type"
}

base_on_another_device() {
  # FUSE's process lets go of it a moment after its own filesystem has gone.
  within 5 "unmounted" umount /tmp/t/base
  attach /tmp/t/base-image "$1" /tmp/t/base
}

case_ext4() {
  begin ext4 handle
  on_image ext4 16M "$(security)" user.fpolicy mke2fs -q -F -t ext4
  finish
}

case_xfs() {
  begin xfs handle
  on_image xfs 300M "$(security)" user.fpolicy mkfs.xfs -q -f
  finish
}

case_btrfs() {
  begin btrfs handle
  on_image btrfs 128M "$(security)" user.fpolicy mkfs.btrfs -q -f
  # A subvolume has a device number of its own.
  btrfs subvolume create $where/volume >/dev/null
  echo stays >$where/volume/stays
  tag $where/volume/stays
  btrfs subvolume snapshot $where/volume $where/snapshot >/dev/null
  look $where/{volume,snapshot}/stays
  cell "tag in a subvolume" kept "$(fate $where/volume/stays)"
  # An xattr is copied with its file. A record is the original's.
  cell "its copy in a snapshot" "$(both kept "not inherited")" "$(copy $where/snapshot/stays)"
  umount $where
  attach $image 3 $where -t btrfs
  look $where/volume/stays
  cell "subvolume mounted on another device" kept "$(fate $where/volume/stays)"
  btrfs subvolume delete -C $where/volume >/dev/null
  btrfs subvolume snapshot $where/snapshot $where/volume >/dev/null
  look $where/volume/stays
  cell "restore from a snapshot" "$(with_old_record "$(both kept stale)")" "$(fate $where/volume/stays)"
  finish
}

case_vfat() {
  begin vfat path
  on_image vfat 16M database database mkfs.vfat
  finish
}

case_exfat() {
  begin exfat path
  on_image exfat 16M database database mkfs.exfat
  finish
}

case_tmpfs() {
  begin tmpfs handle
  local user=user.fpolicy
  # tmpfs takes user.* since Linux 6.6.
  mount -t tmpfs tmpfs $where
  : >$where/probe
  setfattr -n user.probe -v x $where/probe 2>/dev/null || user=database
  all_operations $where/t "$(security)" $user
  umount $where
  mount -t tmpfs tmpfs $where
  make_files $where/t
  look $where/t/*
  equal "" "$(cat /tmp/tags)" "tags on another tmpfs"
  cell "mount on another device" "gone with the filesystem" "gone with the filesystem"
  finish
}

overlay() {
  mount -t overlay overlay -o lowerdir=/tmp/t/base/lower,upperdir=/tmp/t/base/upper,workdir=/tmp/t/base/work $where
}

case_overlayfs() {
  begin overlayfs path
  base ext4 32M mke2fs -q -F -t ext4
  mkdir -p /tmp/t/base/{lower,upper,work}
  for name in below copied tagged-below many; do echo $name >/tmp/t/base/lower/$name; done
  ln /tmp/t/base/lower/many /tmp/t/base/lower/many.too
  tag /tmp/t/base/lower/tagged-below
  overlay
  all_operations $where/t "$(security)" user.fpolicy
  # The tag of the layer's own file: an xattr is seen through, a record is for the file of the other filesystem.
  look $where/tagged-below
  cell "tag of the file in the lower layer" "$(both kept "not inherited")" "$(copy $where/tagged-below)"
  # Setting an xattr copies the file up, with another birth time: a record of before is out of date.
  setfpolicy --system $system_tag $where/copied
  look $where/copied
  equal $system_tag "$(tag_of $where/copied system | cut -d'|' -f1)" "tag of a file in the lower layer"
  ! is_stale $where/copied || failures+=("a file that was copied up as it was tagged is told as stale")
  echo more >>$where/copied
  setfpolicy --user $user_tag $where/copied
  look $where/copied
  cell "copy-up after tagging" "$(both kept stale)" "$(fate $where/copied)"
  tag $where/many
  look $where/many $where/many.too
  # Where the user tag is an xattr it copies the file up, away from its other name and from the record of its system tag.
  cell "hard link in the lower layer" "$(both "kept under the first name" stale)" "$(linked $where/many)"
  umount $where
  cp -a /tmp/t/base/upper /tmp/t/base/saved
  base_on_another_device 6
  overlay
  tell_operations $where/t "" again
  cell "mount on another device" kept "$(fate $where/t/stays)"
  umount $where
  rm -r /tmp/t/base/upper
  mv /tmp/t/base/saved /tmp/t/base/upper
  overlay
  look $where/t/stays
  cell "restore from a copy of the upper layer" "$(with_old_record "$(both kept stale)")" "$(fate $where/t/stays)"
  finish
}

# read_only TYPE MAKE: a filesystem that is made as a whole; MAKE DIRECTORY makes it.
read_only() {
  local type=$1 make=$2 refused="refused: Read-only file system"
  base ext4 16M mke2fs -q -F -t ext4
  make_files /tmp/t/base/t
  tag /tmp/t/base/t/linked
  $make /tmp/t/base
  attach $image 0 $where -t "$type"
  tag $where/t/stays
  expect_holders database database $where/t/stays
  cell rename "$refused" "$(attempt mv $where/t/renamed $where/t/renamed.new)"
  cell "hard link" "$refused" "$(attempt ln $where/t/stays $where/t/stays.too)"
  cell "delete and recreate" "$refused" "$(attempt rm $where/t/recreated)"
  cell "rename over it" "$refused" "$(attempt mv $where/t/renamed $where/t/replaced)"
  # What had its tag in an xattr when the image was made has it there.
  look $where/t/linked
  holders=("$(security)" user.fpolicy)
  cell "image made from tagged files" "$(both kept "not inherited")" "$(copy $where/t/linked)"
  holders=(database database)
  umount $where
  cp $image $image.saved
  attach $image 1 $where -t "$type"
  look $where/t/stays
  cell "mount on another device" kept "$(fate $where/t/stays)"
  umount $where
  # Another image in its place, with as many files in the same order.
  echo other >/tmp/t/base/t/stays
  rm $image
  $make /tmp/t/base
  attach $image 1 $where -t "$type"
  look $where/t/stays
  cell "another image at the same path" "not inherited" "$(copy $where/t/stays)"
  umount $where
  rm $image
  mv $image.saved $image
  attach $image 2 $where -t "$type"
  look $where/t/stays
  cell "restore from a copy of the image" kept "$(fate $where/t/stays)"
}

make_squashfs() { mksquashfs "$1" $image -quiet -no-progress -noappend >/dev/null; }

case_squashfs() {
  begin squashfs handle
  read_only squashfs make_squashfs
  finish
}

# As those who want the same image from the same files make it: with an id that tells nothing.
make_erofs() { mkfs.erofs -U 00000000-0000-0000-0000-000000000000 -T 1700000000 $image "$1" >/dev/null; }

case_erofs() {
  begin erofs handle
  read_only erofs make_erofs
  finish
}

# fuse NAME OPTION...: bindfs over ext4.
fuse() {
  local name=$1
  shift
  # Neither handles nor birth times: a record is the path's, whatever file is there.
  begin "$name" path no
  modprobe fuse
  base ext4 16M mke2fs -q -F -t ext4
  mkdir /tmp/t/base/below
  bindfs "$@" /tmp/t/base/below $where
}

remount_fuse() {
  umount $where
  base_on_another_device 6
  bindfs "$@" /tmp/t/base/below $where
  tell_operations $where/t "" again
  cell "mount on another device" kept "$(fate $where/t/stays)"
}

case_fuse() {
  fuse "FUSE (bindfs)"
  all_operations $where/t "$(security)" user.fpolicy
  remount_fuse
  finish
}

case_fuse_without_xattrs() {
  fuse "FUSE (bindfs --xattr-none)" --xattr-none
  all_operations $where/t database database
  remount_fuse --xattr-none
  finish
}

# bind_mount NAME KEY TYPE SYSTEM_HOLDER USER_HOLDER MKFS...: a directory is mounted a second time.
bind_mount() {
  begin "$1" "$2"
  local type=$3 system=$4 user=$5 link=
  shift 5
  base "$type" 16M "$@"
  mkdir /tmp/t/base/below
  mount --bind /tmp/t/base/below $where
  all_operations $where/t "$system" "$user"
  [ -e $where/t/linked.too ] || link="refused: Operation not permitted"
  # The same files at their other paths.
  look /tmp/t/base/below/t/stays
  cell "tag seen at the other path" kept "$(fate /tmp/t/base/below/t/stays)"
  umount $where
  base_on_another_device 6
  mount --bind /tmp/t/base/below $where
  tell_operations $where/t "$link" again
  cell "mount on another device" kept "$(fate $where/t/stays)"
  finish
}

case_bind_ext4() { bind_mount "bind mount (ext4)" handle ext4 "$(security)" user.fpolicy mke2fs -q -F -t ext4; }
case_bind_vfat() { bind_mount "bind mount (vfat)" path vfat database database mkfs.vfat; }

# idmapped_mount NAME KEY TYPE SYSTEM_HOLDER USER_HOLDER MKFS...: the owners of a directory's files are others there.
idmapped_mount() {
  begin "$1" "$2"
  local type=$3 system=$4 user=$5 link=
  shift 5
  base "$type" 16M "$@"
  mkdir /tmp/t/base/below
  idmapped /tmp/t/base/below $where 1000
  # Root is nobody there and may create nothing: the files are made below, and tagged through the mount.
  make_files /tmp/t/base/below/t
  equal 1000 "$(stat -c %u $where/t/stays)" "owner through the idmapped mount"
  tag $where/t/{renamed,linked,recreated,replaced,stays}
  expect_holders "$system" "$user" $where/t/stays
  as_user user mv $where/t/renamed $where/t/renamed.new
  link=$(attempt as_user user ln $where/t/linked $where/t/linked.too)
  as_user user sh -c 'cd "$1" && rm recreated && echo another >recreated && echo another >replaced.new &&
    mv replaced.new replaced' sh $where/t
  tell_operations $where/t "$link" cell
  look /tmp/t/base/below/t/stays
  cell "tag seen at the other path" kept "$(fate /tmp/t/base/below/t/stays $where/t/stays)"
  umount $where
  base_on_another_device 6
  idmapped /tmp/t/base/below $where 1000
  tell_operations $where/t "$link" again
  cell "mount on another device" kept "$(fate $where/t/stays)"
  finish
}

case_idmapped_ext4() { idmapped_mount "idmapped mount (ext4)" handle ext4 "$(security)" user.fpolicy mke2fs -q -F -t ext4; }
case_idmapped_vfat() { idmapped_mount "idmapped mount (vfat)" path vfat database database mkfs.vfat; }

# NFS over loopback: nfsd serves /tmp/t/base. clean_up ends it.
serve() {
  mkdir -p /run/rpcbind /var/lib/nfs
  grep -q '^_rpc:' /etc/passwd || echo '_rpc:x:101:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
  pgrep -x rpcbind >/dev/null || rpcbind
  modprobe nfsd
  mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
  exportfs -i -o rw,no_root_squash,no_subtree_check,fsid=0,insecure 127.0.0.1:/tmp/t/base
  pgrep -x rpc.mountd >/dev/null || rpc.mountd
  rpc.nfsd --grace-time 10 --lease-time 10 1
  # Nobody was here before who could ask for his locks back.
  echo Y >/proc/fs/nfsd/v4_end_grace || true
}

# nfs NAME OPTIONS SOURCE USER_HOLDER
nfs() {
  begin "$1" handle
  local options=$2 source=$3 user=$4
  base ext4 32M mke2fs -q -F -t ext4
  echo stays >/tmp/t/base/on-server
  tag /tmp/t/base/on-server
  serve
  mount -t nfs -o "$options" "$source" $where
  all_operations $where/t database "$user"
  look $where/on-server
  # Of attributes NFS carries user.* alone, and that since 4.2.
  cell "tag set on the server" "not inherited$([ "$user" = database ] || echo ' + kept')" "$(copy $where/on-server)"
  umount $where
  stop_nfs
  umount /tmp/t/base
  cp --sparse=always /tmp/t/base-image /tmp/t/base-image.saved
  attach /tmp/t/base-image 6 /tmp/t/base
  serve
  mount -t nfs -o "$options" "$source" $where
  tell_operations $where/t "" again
  cell "mount, the server's filesystem on another device" kept "$(fate $where/t/stays)"
  rm $where/t/stays
  umount $where
  stop_nfs
  umount /tmp/t/base
  mv /tmp/t/base-image.saved /tmp/t/base-image
  attach /tmp/t/base-image 5 /tmp/t/base
  serve
  mount -t nfs -o "$options" "$source" $where
  look $where/t/stays
  cell "restore from a copy of the server's image" kept "$(fate $where/t/stays)"
  finish
}

case_nfs42() { nfs NFSv4.2 vers=4.2 127.0.0.1:/ user.fpolicy; }
case_nfs3() { nfs NFSv3 vers=3,nolock 127.0.0.1:/tmp/t/base database; }

# Without an id: known by the file that the loop device stands for.
mkfs_without_uuid() {
  mke2fs -q -F -t ext4 -O ^metadata_csum_seed "$1" && tune2fs -U clear "$1"
}

case_zero_uuid() {
  begin "ext4 (UUID of zeros)" handle
  on_image ext4 16M "$(security)" user.fpolicy mkfs_without_uuid
  finish
}

# clones TYPE KEY SIZE SYSTEM_HOLDER USER_HOLDER MOUNT_OPTIONS MKFS...: an image and its copy at the same time.
clones() {
  local type=$1 size=$3 system=$4 user=$5 options=$6 refused
  begin "$type (two clones)" "$2"
  shift 6
  truncate -s "$size" $image
  "$@" $image >/tmp/mkfs 2>&1 || fail "$*: $(cat /tmp/mkfs)"
  attach $image 0 $where -t "$type"
  make_files $where/t
  tag $where/t/stays
  expect_holders "$system" "$user" $where/t/stays
  umount $where
  cp --sparse=always $image $image.clone
  mkdir /tmp/t/clone
  attach $image 0 $where -t "$type"
  refused=$(attempt attach $image.clone 1 /tmp/t/clone -t "$type" -o "$options")
  if [ -n "$refused" ]; then
    # Linux before 6.7 takes a second btrfs with the same id for the same one.
    equal "btrfs refused: File exists" "$type $refused" "mount both"
    local operation
    for operation in "the original's tag, both mounted" "the copy's tag, both mounted" "tag one, both mounted" "the other, then"; do
      cell "$operation" "$refused" "$refused"
    done
    finish
    return
  fi
  look $where/t/stays /tmp/t/clone/t/stays
  cell "the original's tag, both mounted" kept "$(fate $where/t/stays)"
  cell "the copy's tag, both mounted" kept "$(fate /tmp/t/clone/t/stays $where/t/stays)"
  if [ "$type" = btrfs ]; then
    # The second one is given an id of its own (Linux 6.7).
    tag $where/t/linked
  else
    # Nobody can tell them apart: the database takes nothing more, and says why.
    expect_status 1 setfpolicy --system $system_tag $where/t/linked
    [[ $err = *"two mounted filesystems have the id"* ]] || failures+=("$filesystem: says '$err'")
    expect_status 1 setfpolicy --user $user_tag $where/t/linked
  fi
  look $where/t/linked /tmp/t/clone/t/linked
  cell "tag one, both mounted" "$(both kept refused)" "$(copy $where/t/linked | sed 's/not inherited/refused/g')"
  cell "the other, then" "not inherited" "$(copy /tmp/t/clone/t/linked)"
  finish
}

case_clones_ext4() { clones ext4 handle 16M "$(security)" user.fpolicy rw mke2fs -q -F -t ext4; }
case_clones_xfs() { clones xfs handle 300M "$(security)" user.fpolicy nouuid mkfs.xfs -q -f; }
case_clones_btrfs() { clones btrfs handle 128M "$(security)" user.fpolicy rw mkfs.btrfs -q -f; }
case_clones_vfat() { clones vfat path 16M database database rw mkfs.vfat; }
