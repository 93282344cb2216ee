#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# move_clients.sh - disks move under real clients, between directories and an NBD server's qcow2.
#
#   fio writes and verifies through the export while its disk moves to and fro
#   dir -> nbd (qcow2 by qemu-nbd) -> dir: qemu-img compare says identical, thin stays thin
#   the export of a moved disk still answers nbdinfo, nbdcopy, qemu-io and qemu-img
. "$(dirname "$0")/../lib/daemon.sh"
for tool in qemu-img qemu-nbd qemu-io nbdinfo nbdcopy fio python3; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
bm() { "$bin/blkmirror" "$@"; }
state_of() { jq -r .state "$1"; }

nbd_pid=
stop_nbd() {
	[ -z "$nbd_pid" ] || kill "$nbd_pid" 2>/dev/null
	[ -z "$nbd_pid" ] || wait "$nbd_pid" 2>/dev/null
	nbd_pid=
}
trap 'stop_nbd; cleanup' EXIT

mkdir "$dir/a" "$dir/b"
start_daemon
bm datastore add a "dir://$dir/a" >/dev/null
bm datastore add b "dir://$dir/b" >/dev/null
bm disk create a:web/web.vmdk --size 256MiB >/dev/null
uri=$(bm --json disk attach a:web/web.vmdk --id web | jq -r .uri)

# ---- under fio ----
(cd "$dir" && fio --name=guest --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k-64k --size=256m \
	--io_size=400m --rate=40m --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 \
	--verify_backlog=256 --fsync=64 >"$dir/fio.log" 2>&1; echo $? >"$dir/fio.rc") &
fio_pid=$!
for to in b a b a; do
	bm --json disk relocate web --to $to >"$dir/task"
	check "move to $to under fio: $(jq -c "[.state, .error, .degraded]" "$dir/task")" \
		test "$(state_of "$dir/task")" = completed
	check "its copy is verified" test "$(jq -r '.disks[0].verified' "$dir/task")" = true
done
wait $fio_pid
check "fio finds what it wrote" test "$(cat "$dir/fio.rc")" = 0
[ "$(cat "$dir/fio.rc")" = 0 ] || tail -n 20 "$dir/fio.log"

# ---- the export of a moved disk ----
check "nbdinfo" nbdinfo --size "$uri"
check "nbdcopy" nbdcopy "$uri" "$dir/copy.raw"
check "the same bytes" cmp -s "$dir/copy.raw" "$dir/a/web/web-flat.vmdk"
check "qemu-io" qemu-io -f raw -c 'write -P 0x5a 1M 64k' -c 'read -P 0x5a 1M 64k' -c flush "$uri"
check "qemu-img info" qemu-img info "$uri"
bm disk detach web >/dev/null
cp --sparse=always "$dir/a/web/web-flat.vmdk" "$dir/before.raw"

# ---- dir -> qcow2 behind qemu-nbd -> dir ----
qemu-img create -q -f qcow2 "$dir/q.qcow2" 256M
qemu-nbd --persistent --shared=4 -f qcow2 --discard=unmap -k "$dir/q.sock" -x disk "$dir/q.qcow2" &
nbd_pid=$!
for _ in $(seq 100); do
	[ ! -S "$dir/q.sock" ] || break
	sleep 0.05
done
bm datastore add q "nbd+unix:///disk?socket=$dir/q.sock" >/dev/null
bm --json disk relocate a:web/web.vmdk --to q:disk >"$dir/task"
check "move to qcow2 by NBD" test "$(state_of "$dir/task")" = completed
check "the source is gone" test ! -e "$dir/a/web/web-flat.vmdk"
bm --json disk relocate q:disk --to b:back/back.vmdk >"$dir/task"
check "and back" test "$(state_of "$dir/task")" = completed
check "identical after both" qemu-img compare -q -f raw -F raw "$dir/before.raw" \
	"$dir/b/back/back-flat.vmdk"
stop_nbd
finish
