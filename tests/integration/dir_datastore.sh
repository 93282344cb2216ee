#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# dir_datastore.sh - qemu reads what a dir:// datastore writes; its locks and ours exclude each other.
set -u
tool=${BUILD:-build}/tests/integration/ds_tool
for program in qemu-img qemu-io qemu-nbd; do
	command -v "$program" >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
done
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }

dir=$(mktemp -d)
pids=()
# shellcheck disable=SC2329
clean_up() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null
	done
	rm -rf "$dir"
}
trap clean_up EXIT
fail() {
	echo "FAIL: $*"
	[ -s "$dir/err" ] && sed 's/^/  /' "$dir/err"
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
mkdir "$dir/ds"
url=dir://$dir/ds
ds() { timeout 60 "$tool" "$url" "$@" 2>"$dir/err"; }
refused() { # ID VERB ...: our refusal with that id
	local id=$1
	shift
	ds "$@" && fail "not refused: $*"
	grep -q "^$id " "$dir/err" || fail "not $id: $*"
}
# Our lock in the background, until release; a FIFO tells when it is held.
hold() { # PATH rw|ro
	rm -f "$dir/in" "$dir/out"
	mkfifo "$dir/in" "$dir/out"
	"$tool" "$url" hold "$1" "$2" <"$dir/in" >"$dir/out" &
	held=$!
	pids+=("$held")
	exec 8>"$dir/in" 9<"$dir/out"
	read -r -t 30 line <&9
	[ "$line" = held ] || fail "cannot hold $1"
}
release() {
	exec 8>&- 9<&-
	wait "$held" || fail "the holder failed"
}
format_of() { case $1 in *.vmdk) echo vmdk ;; *) echo raw ;; esac }

mib=1048576
for provision in thin thick eager; do
	ds create "vm/$provision.vmdk" $((24 * mib)) "$provision" || fail "create $provision"
	ds create "vm/$provision.img" $((24 * mib)) "$provision" || fail "create $provision raw"
	qemu-img info --output=json "$dir/ds/vm/$provision.vmdk" >"$dir/info" 2>"$dir/err" ||
		fail "qemu-img info $provision"
	grep -q '"virtual-size": 25165824' "$dir/info" || fail "size of $provision: $(cat "$dir/info")"
	grep -q '"format": "vmdk"' "$dir/info" || fail "format of $provision"
	qemu-img compare -f vmdk -F raw "$dir/ds/vm/$provision.vmdk" "$dir/ds/vm/$provision.img" \
		>/dev/null 2>"$dir/err" || fail "compare $provision"
	qemu-img check -f vmdk "$dir/ds/vm/$provision.vmdk" >"$dir/err" 2>&1 || fail "check $provision"
done
pass "qemu-img opens what we create"

qemu-io -f vmdk -c 'write -P 0x5a 4M 1M' "$dir/ds/vm/thin.vmdk" >/dev/null 2>"$dir/err" || fail "qemu-io write"
ds open vm/thin.vmdk rw || fail "open thin"
ds resize vm/thin.vmdk $((32 * mib)) || fail "resize thin"
qemu-io -r -f raw -c 'read -P 0x5a 4M 1M' "$dir/ds/vm/thin-flat.vmdk" >"$dir/io" 2>&1 || fail "read flat"
qemu-io -r -f vmdk -c 'read -P 0x5a 4M 1M' -c 'read -P 0 24M 8M' "$dir/ds/vm/thin.vmdk" >>"$dir/io" 2>&1 ||
	fail "read grown vmdk"
grep -q failed "$dir/io" && fail "pattern: $(cat "$dir/io")"
ds stat vm/thin.vmdk >"$dir/stat" || fail "stat"
grep -q "^size=33554432 .*provision=thin generation=1 role=live" "$dir/stat" || fail "$(cat "$dir/stat")"
pass "qemu and we agree on data and size, also after our rewrites"

qemu-img create -q -f vmdk -o subformat=monolithicFlat "$dir/ds/qf.vmdk" 16M || fail "qemu-img create"
ds open qf.vmdk rw || fail "open a disk of qemu-img"
qemu-img info "$dir/ds/qf.vmdk" >/dev/null 2>"$dir/err" || fail "qemu-img info after our mark"
grep -q '^ddb.blkmirror.uuid' "$dir/ds/qf.vmdk" || fail "no identity was given"
qemu-img create -q -f vmdk "$dir/ds/qs.vmdk" 16M
refused BM-1205 open qs.vmdk rw
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentFlat "$dir/ds/q2.vmdk" 5G
refused BM-1205 open q2.vmdk rw
qemu-img create -q -f qcow2 "$dir/ds/q.img" 16M
refused BM-1205 open q.img rw
pass "flat descriptors of qemu-img are disks, its containers are not"

for disk in vm/eager.vmdk vm/eager.img; do
	format=$(format_of "$disk")
	hold "$disk" rw
	qemu-io -f "$format" -c 'write 0 4k' "$dir/ds/$disk" >"$dir/err" 2>&1 && fail "qemu wrote to a held disk"
	grep -qi lock "$dir/err" || fail "qemu-io failed otherwise"
	# A raw reader of qemu-io lets others write, so only the format driver's lock can refuse.
	[ "$format" = raw ] || ! qemu-io -r -f "$format" -c 'read 0 4k' "$dir/ds/$disk" >"$dir/err" 2>&1 ||
		fail "qemu read a held disk"
	qemu-io -U -r -f "$format" -c 'read 0 4k' "$dir/ds/$disk" >/dev/null 2>"$dir/err" || fail "-U is kept out"
	refused BM-1202 open "$disk" rw
	grep -q "ds_tool (process $held)" "$dir/err" || fail "the holder is not named"
	release
	qemu-io -f "$format" -c 'write 0 4k' "$dir/ds/$disk" >/dev/null 2>"$dir/err" || fail "still locked"
done
pass "our writer keeps qemu out"

hold vm/eager.img ro
qemu-io -f raw -c 'write 0 4k' "$dir/ds/vm/eager.img" >"$dir/err" 2>&1 && fail "qemu wrote under a reader"
qemu-io -r -f raw -c 'read 0 4k' "$dir/ds/vm/eager.img" >/dev/null 2>"$dir/err" || fail "two readers"
ds open vm/eager.img ro || fail "two readers of ours"
refused BM-1202 open vm/eager.img rw
release
pass "our readers keep qemu's writers out, not its readers"

for disk in vm/thick.vmdk vm/thick.img; do
	rm -f "$dir/nbd.sock" "$dir/nbd.pid"
	qemu-nbd --fork --persistent --pid-file "$dir/nbd.pid" -k "$dir/nbd.sock" \
		-f "$(format_of "$disk")" "$dir/ds/$disk" 2>"$dir/err" || fail "qemu-nbd"
	nbd=$(cat "$dir/nbd.pid")
	pids+=("$nbd")
	refused BM-1202 open "$disk" rw
	grep -q "qemu-nbd (process $nbd)" "$dir/err" || fail "the holder is not named"
	refused BM-1202 open "$disk" ro
	refused BM-1202 delete "$disk"
	# R-J7: whoever waits gets the disk when the other is gone.
	timeout 60 "$tool" "$url" wait "$disk" 2>"$dir/err" &
	waiter=$!
	pids+=("$waiter")
	kill "$nbd"
	wait "$waiter" || fail "waiting for the lock"
done
pass "qemu's lock keeps us out, and we say who it is"

# A full store: a small tmpfs in a mount namespace of its own.
if unshare -m true 2>/dev/null; then
	mkdir "$dir/small"
	unshare -m bash -s "$tool" "$dir/small" >"$dir/err" 2>&1 <<'SMALL' || fail "a full store"
	set -u
	tool=$1 dir=$2
	mount -t tmpfs -o size=8m tmpfs "$dir" || exit 1
	before=$(df --output=used "$dir" | tail -1)
	for provision in thick eager; do
		for name in a/b/x.vmdk a/b/x.img; do
			timeout 60 "$tool" "dir://$dir" create "$name" 25165824 "$provision" 2>"$dir/../small.err" &&
				{ echo "created on a full store"; exit 1; }
			grep "^BM-1106 " "$dir/../small.err" || { cat "$dir/../small.err"; exit 1; }
			[ -z "$(ls -A "$dir")" ] || { echo "left behind:"; ls -RA "$dir"; exit 1; }
		done
	done
	[ "$(df --output=used "$dir" | tail -1)" = "$before" ] || { echo "space is lost"; exit 1; }
	"$tool" "dir://$dir" create x.vmdk 2097152 thick || exit 1
	"$tool" "dir://$dir" resize x.vmdk 25165824 && { echo "grown on a full store"; exit 1; }
	"$tool" "dir://$dir" stat x.vmdk | grep -q '^size=2097152 ' || { echo "growth was not undone"; exit 1; }
	# Read-only from now on.
	mount -o remount,ro "$dir" || exit 1
	"$tool" "dir://$dir" stat x.vmdk 2>"$dir/../small.err" && { echo "a read-only store opens"; exit 1; }
	grep -q "^BM-1107 " "$dir/../small.err" || { cat "$dir/../small.err"; exit 1; }
SMALL
	pass "a full store refuses whole, and takes everything back"
else
	echo "[  SKIPPED ] a full store: no right to mount"
fi

for disk in thin thick eager; do
	ds delete "vm/$disk.vmdk" || fail "delete"
	ds delete "vm/$disk.img" || fail "delete"
done
[ -e "$dir/ds/vm" ] && fail "left behind: $(ls -a "$dir/ds/vm")"
pass "deleted disks leave nothing"
