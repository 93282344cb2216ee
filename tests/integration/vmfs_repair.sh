#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vmfs_repair.sh - 'vmfsctl fsck --repair' on damaged volumes, Debian's fsck.vmfs as the judge.
set -u
cd "$(dirname "$0")/../.." || exit 1
ctl=$PWD/${BUILD:-build}/bin/vmfsctl
command -v fsck.vmfs >/dev/null || { echo "fsck.vmfs is not installed"; exit 77; }
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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
exits() { local rc=0; ctl "${@:2}" || rc=$?; [ $rc -eq "$1" ] || { echo "exit $rc"; false; }; }

judged()
{
	local out
	out=$(timeout 120 fsck.vmfs "$1" 2>&1)
	[ "$(grep -cE '^(Unallocated blocks|Lost blocks|Undefined inodes|Orphaned inodes|Directory errors) *: 0$' <<<"$out")" -eq 5 ] ||
		{ echo "$out"; return 1; }
}

base=$work/base
check "a volume" ctl mkfs --size 300MiB "$base"
head -c 3000000 /dev/urandom >"$work/blocks"
head -c 5000 /dev/urandom >"$work/small"
check "its files" eval 'ctl mkdir "$base" dir && ctl put "$base" "$work/blocks" blocks &&
	ctl put "$base" "$work/small" dir/small && ctl put "$base" "$work/blocks" dir/other &&
	ctl mkdir "$base" dir/inner && ctl symlink "$base" small dir/link'
check "it is sound" exits 0 fsck --repair "$base"

# Descriptors in the order of creation: 8 dir, 9 blocks, 10 dir/small, 11 dir/other, 12 dir/inner.
damage() # NAME: python on f, FS, fd(n), u32(at, value)
{
	cp --sparse=always "$base" "$work/v"
	python3 - "$work/v" <<-P
		import sys, struct
		f = open(sys.argv[1], 'r+b')
		FS = 0x1100000
		def fd(n): return FS + 0x420000 + n * 0x800
		def get(at, n): f.seek(at); return f.read(n)
		def put(at, b): f.seek(at); f.write(b)
		def u32(at): return struct.unpack('<I', get(at, 4))[0]
		$(cat)
		f.close()
		P
	[ $? -eq 0 ] || { echo "FAIL: the damage was not done"; bad=1; }
}
mended() # WHAT: found, repaired, found no more, judged
{
	check "$1: found" exits 3 fsck "$work/v"
	check "$1: repaired" exits 0 fsck --repair "$work/v"
	check "$1: nothing is found in the second run" test "$(ctl fsck --repair "$work/v" | grep -c mended)" = 0
	check "$1: judged" judged "$work/v"
}

damage <<<'put(fd(11) + 0x400, get(fd(9) + 0x400, 4))'
mended "a block in two files"
check "the first has it" cmp <(ctl cat "$work/v" blocks) "$work/blocks"

damage <<<'at = FS + 0x610210 + 2; put(at, bytes([get(at, 1)[0] ^ 0xff]))'
mended "blocks in use and free"
check "nothing was lost" cmp <(ctl cat "$work/v" dir/other) "$work/blocks"

damage <<<'at = FS + 0x610210 + 20; put(at, bytes(3))'
mended "lost blocks"

damage <<<'put(fd(9), b"\xaa" * 0x800)'
mended "a destroyed descriptor"
check "the others are there" cmp <(ctl cat "$work/v" dir/other) "$work/blocks"

damage <<<'put(fd(8), b"\xaa" * 0x800)'
mended "a destroyed folder"
check "what was in it is found" test "$(ctl ls "$work/v" lost+found | wc -l)" -ge 3

damage <<<'put(fd(9) + 0x208, struct.pack("<I", 7)); put(fd(8) + 0x208, struct.pack("<I", 1))'
mended "wrong link counts"

damage <<<'put(FS + 0x500000 + 9 * 140 + 8, struct.pack("<I", 4711))'
mended "a dangling entry and a folder without a name"

damage <<<'put(FS + 0x300000 + 3 * 512, struct.pack("<IQQQ", 0xABCDEF02, 0x300000 + 3 * 512, 1, 5) + b"h" * 16)'
check "a heartbeat that stands still: refused" exits 1 mkdir "$work/v" x
check "a heartbeat that stands still: freed" exits 0 fsck --repair "$work/v"
check "a heartbeat that stands still: was the only thing" exits 0 mkdir "$work/v" x
exit $bad
