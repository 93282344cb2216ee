#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nfs_moves.sh - disks move to and from an export under a guest's load; the server dies meanwhile.
#
#   dir -> nfs -> nbd (qcow2 by qemu-nbd) -> nfs -> dir under fio with verify, then qemu-img compare
#   the server is killed and started again: as target, as the guest's own disk, as source of a move
#   two daemons: the second is refused; after a lease it takes over a frozen one, which writes no more
#   what cannot work is told by --check, each with its own id
set -u
# shellcheck source=tests/lib/nfs_server.sh
. "$(dirname "$0")/../lib/nfs_server.sh"
for tool in qemu-img qemu-nbd qemu-io fio jq; do
	command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
nfs_own_space "$0" "$@"
. "$(dirname "$0")/../lib/daemon.sh"

nbd_pid=
other_pid=
fio_pid=
end_all() {
	local pid
	for pid in $nbd_pid $other_pid $fio_pid; do
		kill -9 "$pid" 2>/dev/null
	done
	[ -z "$daemon_pid" ] || kill -CONT "$daemon_pid" 2>/dev/null
	[ -z "$nfs_pid" ] || kill -CONT "$nfs_pid" 2>/dev/null
	cleanup
	nfs_clean_up
}
trap end_all EXIT

bm() { "$bin/blkmirror" "$@"; }
url="nfs://$nfs_host$nfs_export?nfsport=$nfs_port&mountport=$mount_port"
state_of_datastore() { bm --json datastore list | jq -r ".datastores[] | select(.name == \"$1\") | .state"; }
datastore_is_not_up() { [ "$(state_of_datastore n)" != up ]; }
datastore_is_up() { [ "$(state_of_datastore n)" = up ]; }
await() { # SECONDS CONDITION...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}
task_state() { bm --json task show "$1" | jq -r .state; }
is_task() { [ "$(task_state "$1")" = "$2" ]; }
has_ended() { case $(task_state "$1") in completed | failed | cancelled) ;; *) return 1 ;; esac; }
has_copied() { [ "$(bm --json task show "$1" | jq '[.disks[].copied_bytes] | add')" -gt "$2" ]; }

# A guest that verifies what it wrote; ends with 0 when all is there.
guest_start() { # URI FIO-OPTION...
	local uri=$1
	shift
	rm -f "$dir/fio.rc"
	(cd "$dir" && timeout 300 fio --name=guest --ioengine=nbd --uri="$uri" --rw=randwrite \
		--bs=4k-64k --size=128m --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--verify_backlog=256 --fsync=64 "$@" >"$dir/fio.log" 2>&1
		echo $? >"$dir/fio.rc") &
	fio_pid=$!
}
guest_ends_well() { # WHAT
	wait $fio_pid
	fio_pid=
	check "$1: the guest finds what it wrote, without an error" test "$(cat "$dir/fio.rc")" = 0
	[ "$(cat "$dir/fio.rc")" = 0 ] || tail -n 20 "$dir/fio.log"
}

start_nfs
mkdir "$dir/a"
start_daemon
bm datastore add a "dir://$dir/a" >/dev/null
check "an export is a datastore" bm datastore add n "$url"
check "it is up" test "$(state_of_datastore n)" = up
qemu-img create -q -f qcow2 "$dir/q.qcow2" 128M
qemu-nbd --persistent --shared=4 -f qcow2 --discard=unmap -k "$dir/q.sock" -x disk "$dir/q.qcow2" &
nbd_pid=$!
await 10 test -S "$dir/q.sock"
bm datastore add q "nbd+unix:///disk?socket=$dir/q.sock" >/dev/null

# ---- all pairs, under fio ----
bm disk create a:web/web.vmdk --size 128MiB >/dev/null
uri=$(bm --json disk attach a:web/web.vmdk --id web | jq -r .uri)
guest_start "$uri" --io_size=600m --rate=30m
for to in n:web/web.vmdk q:disk n:back/web.vmdk a:back/web.vmdk n:last/web.vmdk; do
	bm --json disk relocate web --to $to >"$dir/task"
	check "move to $to under fio: $(jq -c "[.state, .error, .degraded]" "$dir/task")" \
		test "$(jq -r .state "$dir/task")" = completed
	check "its copy is verified" test "$(jq -r '.disks[0].verified' "$dir/task")" = true
done
guest_ends_well "moves to and fro"
bm disk detach web >/dev/null
cp --sparse=always "$nfs_export/last/web-flat.vmdk" "$dir/before.raw"
bm --json disk relocate n:last/web.vmdk --to a:home/web.vmdk >"$dir/task"
check "a disk at rest moves from the export" test "$(jq -r .state "$dir/task")" = completed
check "identical" qemu-img compare -q -f raw -F raw "$dir/before.raw" "$dir/a/home/web-flat.vmdk"
bm --json disk relocate a:home/web.vmdk --to n:rest/web.vmdk >"$dir/task"
check "and to it" test "$(jq -r .state "$dir/task")" = completed
check "identical" qemu-img compare -q -f raw -F raw "$dir/before.raw" "$nfs_export/rest/web-flat.vmdk"

# ---- the server dies: the guest's own disk ----
uri=$(bm --json disk attach n:rest/web.vmdk --id web | jq -r .uri)
guest_start "$uri" --io_size=200m --rate=20m
for _ in 1 2; do
	sleep 2
	kill_nfs
	await 20 datastore_is_not_up
	seen=$(state_of_datastore n)
	check "the loss is seen" test "$seen" != up
	sleep 2
	start_nfs
done
guest_ends_well "server killed under a guest"
check "the datastore is up again" await 30 datastore_is_up

# ---- as source of a move ----
guest_start "$uri" --io_size=200m --rate=20m
task=$(bm --json disk relocate web --to a:moved/web.vmdk --bandwidth 16MiB/s --no-wait | jq -r .id)
check "the copy is under way" await 30 has_copied "$task" $((16 << 20))
kill_nfs
sleep 3
start_nfs
check "the move from a server that died ends" await 200 has_ended "$task"
check "and well: $(bm --json task show "$task" | jq -c '[.state, .error]')" is_task "$task" completed
guest_ends_well "server killed as source"

# ---- as target ----
guest_start "$uri" --io_size=200m --rate=10m
task=$(bm --json disk relocate web --to n:again/web.vmdk --bandwidth 16MiB/s --no-wait | jq -r .id)
check "the copy is under way" await 30 has_copied "$task" $((16 << 20))
kill_nfs
sleep 6
start_nfs
check "the move to a server that died ends by itself" await 200 has_ended "$task"
check "and well: $(bm --json task show "$task" | jq -c '[.state, .error]')" is_task "$task" completed
guest_ends_well "server killed as target"

# ---- two daemons ----
check "web is on the export" test -e "$nfs_export/again/web.vmdk"
"$bin/blkmirrord" --state-dir "$dir/state2" --run-dir "$dir/run2" >>"$dir/log2" 2>&1 &
other_pid=$!
await 15 test -S "$dir/run2/api.sock"
bm2() { BLKMIRROR_SOCKET=$dir/run2/api.sock "$bin/blkmirror" "$@"; }
bm2 datastore add n "$url" >/dev/null
bm2 disk attach n:again/web.vmdk --id web 2>"$dir/err"
check "a second daemon is refused" grep -q 'BM-1202' "$dir/err"
check "and told who has it" grep -q "locked by the host '$(hostname)'" "$dir/err"
qemu-io -f raw -c 'write -P 0x11 0 1M' -c flush "$uri" >/dev/null
kill -STOP "$daemon_pid"
takes_over() { bm2 --json disk attach n:again/web.vmdk --id web >"$dir/took" 2>"$dir/err"; }
begun=$SECONDS
check "after a lease it is given the disk of a frozen one" await 60 takes_over
check "not before ($((SECONDS - begun)) s)" test $((SECONDS - begun)) -ge 17
uri2=$(jq -r .uri "$dir/took")
qemu-io -f raw -c 'write -P 0x22 0 1M' -c flush "$uri2" >/dev/null
# The frozen one's guest has a write under way when it thaws.
timeout 30 qemu-io -f raw -c 'write -P 0x33 0 1M' -c flush "$uri" >"$dir/late" 2>&1 &
late_pid=$!
sleep 1
kill -CONT "$daemon_pid"
wait $late_pid
check "the thawed one's write fails" grep -qi 'error' "$dir/late"
check "and has not landed" qemu-io -f raw -c 'read -P 0x22 0 1M' "$uri2"
check "it says why" grep -q 'is lost' "$dir/log"
bm2 disk detach web >/dev/null
kill "$other_pid"
wait "$other_pid"
other_pid=
bm disk detach web >/dev/null 2>&1

# ---- what --check tells ----
bm disk create a:c/c.vmdk --size 64MiB >/dev/null
told() { # ID RELOCATE-OPTION...
	local id=$1
	shift
	bm --json disk relocate a:c/c.vmdk --to n:c/c.vmdk --check "$@" >"$dir/check" 2>&1
	grep -q "$id" "$dir/check"
}
check "--check warns that a lease is no fence" told BM-2005
kill_nfs
start_nfs "Access_Type = RO; Squash = No_Root_Squash;"
check "--check finds a read-only export" told BM-1107
kill_nfs
chmod 755 "$nfs_export"
start_nfs "Access_Type = RW; Squash = All_Squash; Anonymous_Uid = 65534; Anonymous_Gid = 65534;"
check "--check finds an export that is not ours to write" told BM-1111
kill_nfs
start_nfs
bm disk delete a:c/c.vmdk >/dev/null
bm disk create a:c/c.vmdk --size 8TiB >/dev/null
check "--check finds a server without the room" await 15 told BM-1106 --provision thick
bm datastore add none "nfs://$nfs_host$nfs_export-none?nfsport=$nfs_port&mountport=$mount_port" \
	2>"$dir/err"
check "no such export" grep -q BM-2001 "$dir/err"
finish
