#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nbd_datastore.sh - a qcow2 image behind qemu-nbd as a datastore with one disk.
set -u
tool=${BUILD:-build}/tests/integration/ds_tool
for program in qemu-img qemu-nbd; do
	command -v "$program" >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
done
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }

dir=$(mktemp -d)
nbd=
# shellcheck disable=SC2329
clean_up() {
	[ -z "$nbd" ] || kill "$nbd" 2>/dev/null
	rm -rf "$dir"
}
trap clean_up EXIT
fail() {
	echo "FAIL: $*"
	[ -s "$dir/err" ] && sed 's/^/  /' "$dir/err"
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
url="nbd+unix:///vm?socket=$dir/nbd.sock"
ds() { timeout 60 "$tool" "$url" "$@" 2>"$dir/err"; }
refused() { # ID VERB ...
	local id=$1
	shift
	ds "$@" && fail "not refused: $*"
	grep -q "^$id " "$dir/err" || fail "not $id: $*"
}
serve() { # OPTIONS...
	rm -f "$dir/nbd.sock" "$dir/nbd.pid"
	qemu-nbd --fork --persistent --pid-file "$dir/nbd.pid" -k "$dir/nbd.sock" -x vm "$@" 2>"$dir/err" ||
		fail "qemu-nbd"
	nbd=$(cat "$dir/nbd.pid")
}
stop() {
	kill "$nbd"
	tail --pid="$nbd" -f /dev/null
	nbd=
}

refused BM-2200 stat disk
pass "no server: said so when the datastore is opened"

qemu-img create -q -f qcow2 "$dir/q.qcow2" 64M || fail "qemu-img create"
serve -f qcow2 "$dir/q.qcow2"
ds stat disk >"$dir/stat" || fail "stat"
grep -q '^size=67108864 .* identity=0$' "$dir/stat" || fail "$(cat "$dir/stat")"
ds open disk rw || fail "open"
ds open disk ro || fail "open read-only"
pass "a qcow2 image behind qemu-nbd is a disk"

refused BM-1200 open other rw
refused BM-1108 open ../disk rw
refused BM-1013 create disk 67108864 thin
refused BM-1013 delete disk
refused BM-1013 resize disk 134217728
refused BM-1211 resize disk 33554432
pass "what its server does is not done here"
stop

serve -f qcow2 -r "$dir/q.qcow2"
refused BM-2202 open disk rw
ds open disk ro || fail "open a read-only export"
stop
pass "a read-only export is no writer's disk"

truncate -s 512K "$dir/small.img"
serve -f raw "$dir/small.img"
refused BM-1204 stat disk
stop
pass "an export that is too small is refused"
