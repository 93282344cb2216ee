#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vmfs_tools.sh - Debian's vmfs-tools as the judge of volumes that vmfsctl makes and changes.
#
# After each step: the five counters of fsck.vmfs are 0 (its exit code says nothing), our own check
# finds nothing; at the end debugvmfs and vmfs-fuse give every file back.  What fsck.vmfs is
# known to misjudge (blocks to be zeroed, data in the descriptor, double indirect) is left out.
set -u
cd "$(dirname "$0")/../.." || exit 1
ctl=$PWD/${BUILD:-build}/bin/vmfsctl
for tool in fsck.vmfs debugvmfs; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
work=$(mktemp -d)
mounted=
clean_up()
{
	[ -z "$mounted" ] || fusermount -u "$work/mnt" 2>/dev/null || umount "$work/mnt" 2>/dev/null
	rm -rf "$work"
}
trap clean_up EXIT
bad=0
check()
{
	if "${@:2}" >"$work/out" 2>&1; then
		printf '[       OK ] %s\n' "$1"
	else
		printf 'FAIL: %s\n' "$1"
		tail -n 20 "$work/out" | sed 's/^/  /'
		bad=1
	fi
}
ctl() { timeout 120 "$ctl" "$@"; }

judged() # DEVICE...
{
	local out extents=() zeroes
	out=$(timeout 120 fsck.vmfs "$@" 2>&1)
	zeroes=$(grep -cE '^(Unallocated blocks|Lost blocks|Undefined inodes|Orphaned inodes|Directory errors) *: 0$' <<<"$out")
	[ "$zeroes" -eq 5 ] || { echo "$out"; return 1; }
	for device in "${@:2}"; do
		extents+=(--extent "$device")
	done
	ctl fsck "${extents[@]}" "$1"
}

same_as_debugvmfs() # DEVICE PATH FILE
{
	timeout 120 debugvmfs "$1" cat "/$2" 2>/dev/null | cmp - "$3" &&
		ctl cat "$1" "$2" | cmp - "$3"
}

# ---- volumes of several sizes ----

for size in 290MiB 4GiB 100GiB; do
	check "mkfs $size" ctl mkfs --label "size $size" --size $size "$work/v-$size"
	check "mkfs $size: judged" judged "$work/v-$size"
done
check "blkid names it" grep -q 'TYPE="VMFS_volume_member"' <(blkid -p "$work/v-4GiB")
dd if="$work/v-4GiB" of="$work/lv" bs=1M skip=17 count=3 status=none
check "blkid names the file system and its label" grep -q 'LABEL="size 4GiB".* TYPE="VMFS"' <(blkid -p "$work/lv")
check "an existing volume is not overwritten" test "$(ctl mkfs "$work/v-4GiB" 2>&1 | sed -n 2p)" = BM-1908
check "--force overwrites it" ctl mkfs --force "$work/v-4GiB"
check "mkfs --force: judged" judged "$work/v-4GiB"
rm -f "$work"/v-100GiB "$work"/v-4GiB "$work/lv"

check "two devices" ctl mkfs --size 300MiB "$work/a" "$work/b"
head -c 280M /dev/urandom >"$work/wide"
check "a file over both" ctl put --extent "$work/b" "$work/a" "$work/wide" wide
check "two devices: judged" judged "$work/a" "$work/b"
check "two devices: debugvmfs reads it" cmp "$work/wide" \
	<(timeout 120 debugvmfs "$work/b" "$work/a" cat /wide 2>/dev/null)
rm -f "$work/a" "$work/b" "$work/wide"

# ---- files of every kind that the tools understand, and churn ----

volume=$work/v-290MiB
mkdir "$work/files"
cd "$work/files" || exit 1
head -c 1 /dev/urandom >one
head -c 8192 /dev/urandom >sub-block
head -c 8193 /dev/urandom >block
head -c 5000000 /dev/urandom >blocks
truncate -s 3G sparse
printf end | dd of=sparse bs=1M seek=2500 conv=notrunc status=none
printf begin | dd of=sparse conv=notrunc status=none
: >empty
for file in *; do
	check "put $file" ctl put "$volume" "$file" "$file"
done
check "mkdir" ctl mkdir "$volume" folder
check "symlink" ctl symlink "$volume" ../one folder/link
check "put into it" ctl put "$volume" blocks folder/blocks
check "judged" judged "$volume"
check "mv within" ctl mv "$volume" block renamed
check "mv into the folder" ctl mv "$volume" one folder
check "mv over a file" ctl mv "$volume" sub-block folder/blocks
check "a folder cannot move into itself" test "$(ctl mv "$volume" folder folder/x 2>&1 | sed -n 2p)" = BM-1909
check "judged after moves" judged "$volume"
check "truncate" ctl truncate "$volume" blocks 2MiB
truncate -s 2M blocks
check "and let it grow" ctl truncate "$volume" blocks 3MiB
truncate -s 3M blocks
check "judged after truncates" judged "$volume"
for i in $(seq 60); do
	ctl put "$volume" block "folder/a name that is somewhat longer $i" || echo "put $i"
done >"$work/puts" 2>&1
check "60 files" test ! -s "$work/puts"
check "judged after 60 files" judged "$volume"
for i in $(seq 1 3 60); do
	ctl rm "$volume" "folder/a name that is somewhat longer $i" || echo "rm $i"
done >"$work/puts" 2>&1
check "20 removed" test ! -s "$work/puts"
check "judged after 20 removals" judged "$volume"

check "debugvmfs: renamed" same_as_debugvmfs "$volume" renamed block
check "debugvmfs: folder/one" same_as_debugvmfs "$volume" folder/one one
check "debugvmfs: folder/blocks" same_as_debugvmfs "$volume" folder/blocks sub-block
check "debugvmfs: blocks" same_as_debugvmfs "$volume" blocks blocks
check "debugvmfs: sparse" same_as_debugvmfs "$volume" sparse sparse
check "debugvmfs: empty" same_as_debugvmfs "$volume" empty empty
check "get keeps holes" ctl get "$volume" sparse "$work/sparse"
check "what was got" cmp sparse "$work/sparse"
check "it takes no space" test "$(du -k "$work/sparse" | cut -f1)" -lt 4096

mkdir "$work/mnt"
if [ -c /dev/fuse ] && timeout 60 vmfs-fuse "$volume" "$work/mnt" 2>/dev/null; then
	mounted=1
	check "vmfs-fuse: every file" cmp blocks "$work/mnt/blocks"
	check "vmfs-fuse: the long names" test "$(find "$work/mnt/folder" -name 'a name*' | wc -l)" -eq 40
	for file in "$work/mnt/folder/a name"*; do
		cmp "$file" block || echo "$file"
	done >"$work/differ" 2>&1
	check "vmfs-fuse: each of them" test ! -s "$work/differ"
	check "vmfs-fuse: the link" test "$(readlink "$work/mnt/folder/link")" = ../one
	umount "$work/mnt" && mounted=
else
	echo "vmfs-fuse cannot mount here"
fi

# ---- thousands of files, changed at random ----

churn=$OLDPWD/${BUILD:-build}/tests/integration/vmfs_churn
mkdir "$work/tree"
check "a volume for the churn" ctl mkfs --size 4GiB "$work/churned"
check "5000 random changes" timeout 200 "$churn" "$work/churned" "${CHURN_SEED:-7}" 5000 "$work/tree"
check "thousands of files: judged" judged "$work/churned"
if [ -c /dev/fuse ] && timeout 60 vmfs-fuse "$work/churned" "$work/mnt" 2>/dev/null; then
	mounted=1
	check "vmfs-fuse has each of them, byte for byte" timeout 200 diff -r --exclude='.*.sf' \
		"$work/tree" "$work/mnt"
	echo "$(find "$work/tree" -type f | wc -l) files"
	umount "$work/mnt" && mounted=
fi
rm -rf "$work/churned" "$work/tree"

check "rm -r" ctl rm -r "$volume" folder
for file in renamed blocks sparse empty; do
	check "rm $file" ctl rm "$volume" $file
done
check "judged when empty" judged "$volume"
free() { ctl df "$volume" | sed -n 's/^bytes .*, \([0-9]*\) free/\1/p'; }
check "a new volume of that size" ctl mkfs --size 290MiB "$work/fresh"
check "all the space is back" test "$(free)" = "$(volume=$work/fresh; free)"
exit $bad
