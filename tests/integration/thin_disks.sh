#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# thin_disks.sh - thin stays thin, the work follows the data, and the daemon stays small.
#
#   100 GiB thin disk with 1 GiB of data: the target's space is within 1 % of the source's, holes
#   are counted as holes, qemu-img compare says identical
#   1 TiB thin disk, attached and moving: the daemon's resident memory peaks at 96 MiB or less
. "$(dirname "$0")/../lib/daemon.sh"
command -v qemu-img >/dev/null || { echo "qemu-img is not installed"; exit 77; }
free_kib=$(df --output=avail "$dir" | tail -n 1)
[ "$free_kib" -gt $((8 * 1024 * 1024)) ] || { echo "needs 8 GiB free below $dir"; exit 77; }

bm() { "$bin/blkmirror" "$@"; }
allocated() { du -B1 "$1" | cut -f1; }

# sprinkle FILE MIB SIZE_MIB - that many pieces of 1 MiB, anywhere on the disk.
sprinkle() {
	python3 - "$@" <<-'P'
	import os, random, sys
	fd = os.open(sys.argv[1], os.O_RDWR)
	random.seed(7)
	for place in random.sample(range(int(sys.argv[3])), int(sys.argv[2])):
	    os.pwrite(fd, random.randbytes(1 << 20), place << 20)
	os.fsync(fd)
	P
}

within_percent() { # WANTED SEEN PERCENT
	[ $(($2 * 100)) -ge $(($1 * (100 - $3))) ] && [ $(($2 * 100)) -le $(($1 * (100 + $3))) ]
}

mkdir "$dir/a" "$dir/b"
start_daemon
bm datastore add a "dir://$dir/a" >/dev/null
bm datastore add b "dir://$dir/b" >/dev/null

bm disk create a:thin/thin.vmdk --size 100GiB --provision thin >/dev/null
sprinkle "$dir/a/thin/thin-flat.vmdk" 1024 $((100 * 1024))
bm --json disk relocate a:thin/thin.vmdk --to b --keep-source >"$dir/task"
check "the move completes" test "$(jq -r .state "$dir/task")" = completed
check "it is verified" test "$(jq -r '.disks[0].verified' "$dir/task")" = true
was=$(allocated "$dir/a/thin/thin-flat.vmdk") is=$(allocated "$dir/b/thin/thin-flat.vmdk")
check "space within 1 %: $was, $is" within_percent "$was" "$is" 1
copied=$(jq '.disks[0].copied_bytes' "$dir/task") holes=$(jq '.disks[0].hole_bytes' "$dir/task")
check "what is read follows the data: $copied" test "$copied" -le $((1200 << 20))
check "holes are not read: $holes" test "$holes" -ge $((98 << 30))
check "identical" qemu-img compare -q -f raw -F raw "$dir/a/thin/thin-flat.vmdk" \
	"$dir/b/thin/thin-flat.vmdk"
rm -r "$dir/a/thin" "$dir/b/thin"

bm disk create a:big/big.vmdk --size 1TiB --provision thin >/dev/null
sprinkle "$dir/a/big/big-flat.vmdk" 1024 $((1024 * 1024))
bm disk attach a:big/big.vmdk --id big >/dev/null
bm --json disk relocate big --to b >"$dir/task"
check "1 TiB moves while attached" test "$(jq -r .state "$dir/task")" = completed
peak_kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$daemon_pid/status")
echo "peak resident memory: $peak_kib KiB"
if [ -z "${SANITIZED:-}" ]; then
	check "at most 96 MiB: $peak_kib KiB" test "$peak_kib" -le $((96 * 1024))
fi
check "its old file is gone" test ! -e "$dir/a/big/big-flat.vmdk"
bm disk detach big >/dev/null
finish
