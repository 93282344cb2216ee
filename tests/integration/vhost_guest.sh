#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vhost_guest.sh - a Linux guest in QEMU on our vhost-user-blk export.
#
# It works on its disk and keeps a ledger of every acknowledged request, while the disk is
# relocated under it, the daemon is killed and started again, at rest and in the middle of a
# move, and its memory is saved by a live migration.  What we wrote into that memory meanwhile is
# in the stream only if it was marked (R-E4): a second QEMU loads it, and the pages that the
# disk wrote last are compared.  At the end guest and host read the disk, and a discard from
# inside gives the space back.
set -eu
cd "$(dirname "$0")/../.."
for program in qemu-system-x86_64 python3; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
# shellcheck source=tests/guest/guest.sh
. tests/guest/guest.sh
# shellcheck source=tests/lib/daemon.sh
. tests/lib/daemon.sh
set -e
cleanup_daemon=$(declare -f cleanup)
eval "daemon_${cleanup_daemon}"
cleanup_both() {
	local status=$?
	set +e
	guest_kill_all
	daemon_cleanup
	exit "$status"
}
trap cleanup_both EXIT

rc=0
guest_build || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ]
run=$RANDOM
mkdir "$dir/a" "$dir/b"

fail() { echo "FAILED: $1"; tail -n 30 "$dir/log"; exit 1; }
bm() { "$bin/blkmirror" "$@"; }

# qmp SOCKET COMMAND [ARGUMENTS] - one command; prints what it returns.
qmp() {
	python3 - "$@" <<'PYTHON'
import json, socket, sys
qmp = socket.socket(socket.AF_UNIX)
qmp.settimeout(30)
qmp.connect(sys.argv[1])
lines = qmp.makefile("rw")
lines.readline()
for command in ({"execute": "qmp_capabilities"},
                {"execute": sys.argv[2], "arguments": json.loads((sys.argv[3:] or ["{}"])[0])}):
    lines.write(json.dumps(command) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "error" in answer:
            sys.exit(f"{sys.argv[2]}: {answer['error']['desc']}")
        if "return" in answer:
            break
print(json.dumps(answer["return"]))
PYTHON
}

# Where a guest's memory can be read, as its QEMU has it.
memory_of() {
	local fd
	for fd in "/proc/${GUEST_PID[$1]}/fd"/*; do
		[[ $(readlink "$fd") != /memfd:memory-backend-memfd* ]] || { echo "$fd"; return; }
	done
	return 1
}

# The guest's figures since the last call; no request of it may have failed.
phase() {
	guest_say "$vm" "phase $1"
	line=$(guest_wait "$vm" "^LEDGER PHASE name=$1 " 60) || fail "the guest does not answer"
	echo "$line"
	[[ $line == *' errors=0 '* ]] || fail "the guest saw errors"
	[[ $line != *' iops=0 '* ]] || fail "the guest did nothing in $1"
}

# Until the guest has done something again, at most 60 s.
works_again() {
	local before after
	before=$(grep -c '^LEDGER t=' "$vm/channel.log" || true)
	for _ in $(seq 60); do
		guest_wait "$vm" "^LEDGER t=[0-9]+ iops=[1-9]" 1 >/dev/null 2>&1 || true
		after=$(tail -n +$((before + 1)) <(grep '^LEDGER t=' "$vm/channel.log") |
			grep -c ' iops=[1-9]' || true)
		[ "$after" -eq 0 ] || return 0
		sleep 1
	done
	guest_show "$vm"
	fail "the guest does not go on"
}

kill_daemon() {
	kill -9 "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || true
	daemon_pid=
}

# ---- a guest on two queues ----

start_daemon
bm datastore add a "dir://$dir/a" >/dev/null
bm datastore add b "dir://$dir/b" >/dev/null
bm disk create a:vm/vm.vmdk --size 256MiB --provision thin >/dev/null
answer=$(bm --json disk attach a:vm/vm.vmdk --export vhost-user)
[ "$(jq -r '"\(.id) \(.export) \(.uri)"' <<<"$answer")" = "d1 vhost-user " ] || fail "attach: $answer"
socket=$(jq -r .socket <<<"$answer")
[ "$(bm disk attach a:vm/vm.vmdk 2>&1 >/dev/null | grep -c BM-1207)" = 1 ] || fail "attached twice"
mapfile -t disk < <(guest_vhost_disk "$socket" 2)
vm=$dir/vm1
# A second disk, each of whose pages says again and again which it is, is read all the time, into
# memory that nobody but the disk writes.  Slowly: each reader begins with fresh pages, and the
# zeroing of these is seen without us.
python3 -c '
for page in range(32768): print(f"{page:015d}\n" * 256, end="")' >"$dir/pattern"
for name in pattern stand-in; do bm disk import "$dir/pattern" "a:$name/$name.img" >/dev/null; done
bm disk create a:idle/idle.vmdk --size 256MiB >/dev/null
sockets=()
for name in pattern/pattern.img idle/idle.vmdk stand-in/stand-in.img; do
	sockets+=("$(bm --json disk attach "a:$name" --export vhost-user | jq -r .socket)")
done
mapfile -t -O ${#disk[@]} disk < <(guest_vhost_disk "${sockets[0]}" 1 pattern)
readers="for i in 1 2 3 4; do while dd if=/dev/vdb of=/dev/null bs=16k iflag=direct; do :; done & done"
# They end before the guest powers off, which breaks its devices under whoever still reads.
command="($readers) 2>/dev/null; ledger --run $run --rate 400 /dev/vda; killall dd; read word; \
blkdiscard /dev/vda; echo DISCARDED \$?"
export GUEST_CPUS=2
guest_start "$vm" "$command" "${disk[@]}"
guest_wait "$vm" '^LEDGER READY' 90
guest_wait "$vm" '^LEDGER t=3 ' 30 >/dev/null
phase first

# What QEMU and the guest's driver agreed on with us.
path=$(qmp "$vm/qmp.sock" x-query-virtio | jq -r '[.[].path | select(contains("vdisk0"))][0]')
status=$(qmp "$vm/qmp.sock" x-query-virtio-status "{\"path\": \"$path\"}")
agreed=$(jq -r '.["guest-features"] | (.transports + .["dev-features"])[]' <<<"$status")
for feature in VIRTIO_RING_F_EVENT_IDX VIRTIO_RING_F_INDIRECT_DESC VIRTIO_F_VERSION_1 \
	VIRTIO_BLK_F_MQ VIRTIO_BLK_F_FLUSH VIRTIO_BLK_F_DISCARD VIRTIO_BLK_F_WRITE_ZEROES \
	VIRTIO_BLK_F_SEG_MAX VIRTIO_BLK_F_TOPOLOGY; do
	grep -q "^$feature" <<<"$agreed" || fail "$feature was not negotiated: $agreed"
done
agreed=$(jq -r '.["vhost-dev"]["protocol-features"].protocols[]' <<<"$status")
for feature in MQ LOG_SHMFD REPLY_ACK CONFIG INFLIGHT_SHMFD CONFIGURE_MEM_SLOTS; do
	grep -q "^VHOST_USER_PROTOCOL_F_$feature" <<<"$agreed" || fail "no $feature: $agreed"
done
echo "ok 1: boots, works, and has what we offer"

# ---- relocated under it ----

bm disk relocate d1 --to b >/dev/null || fail "the relocation failed"
[ ! -e "$dir/a/vm/vm.vmdk" ] || fail "the source is still there"
phase moved
echo "ok 2: relocated under it"

# ---- killed at rest, stopped in order, killed in the middle of a move ----

for round in 1 2 3; do
	[ "$round" -ne 3 ] || bm disk relocate d1 --to a --hold --no-wait >/dev/null
	[ "$round" -ne 3 ] || sleep 1
	if [ "$round" -eq 2 ]; then
		stop_daemon
		[ "$stop_status" -eq 0 ] || fail "the daemon ended with $stop_status"
	else
		kill_daemon
	fi
	start_daemon
	works_again
	phase "again$round"
done
# The move that was killed goes on; it has shown what it was for.
move=$(bm --json task list | jq -r '.tasks[0].id // empty')
[ -n "$move" ] || fail "the move did not outlast its daemon"
bm task cancel "$move" >/dev/null || fail "the move is not cancelled"
bm task wait "$move" >/dev/null || [ $? -eq 6 ] || fail "the move does not end"
works_again
phase cancelled
grep -q 'carried out again' "$dir/log" || echo "note: no request was in flight at any kill"
echo "ok 3: killed twice and stopped once, and the guest saw no error"

# ---- its memory, saved while it works ----

qmp "$vm/qmp.sock" migrate "{\"uri\": \"exec:cat >$dir/stream\"}" >/dev/null ||
	fail "QEMU does not migrate"
state=active
for _ in $(seq 600); do
	state=$(qmp "$vm/qmp.sock" query-migrate | jq -r .status)
	[ "$state" != completed ] || break
	[ "$state" != failed ] || break
	sleep 0.1
done
[ "$state" = completed ] || fail "the migration is $state"
# Loaded by a QEMU that never runs it, so its disks may be any of the same kind.
mapfile -t disk < <(guest_vhost_disk "${sockets[1]}" 2; guest_vhost_disk "${sockets[2]}" 1 pattern)
guest_start "$dir/vm2" "$command" "${disk[@]}" -S -incoming "exec:cat $dir/stream"
state=inmigrate
for _ in $(seq 600); do
	[ ! -S "$dir/vm2/qmp.sock" ] ||
		state=$(qmp "$dir/vm2/qmp.sock" query-status | jq -r .status)
	[ "$state" = inmigrate ] || break
	sleep 0.1
done
[ "$state" = paused ] || fail "the second QEMU is $state"
# Not all pages: QEMU before 9.0 loses some of what an emulated CPU writes.
python3 - "$(memory_of "$vm")" "$(memory_of "$dir/vm2")" <<'PYTHON' || fail "pages were not marked"
import sys
found = differ = 0
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "rb") as target:
    while page := source.read(4096):
        other = target.read(4096)
        if page[:15].isdigit() and page == page[:16] * 256:
            found += 1
            differ += page != other
print(f"{found} pages that the disk wrote last, {differ} of them differ")
sys.exit(differ > 0 or found < 12)
PYTHON
qmp "$dir/vm2/qmp.sock" quit >/dev/null || true
guest_join "$dir/vm2" 30
rm "$dir/stream"
qmp "$vm/qmp.sock" cont >/dev/null
works_again
phase saved
echo "ok 4: saved under load with all that we wrote, and goes on"

# ---- was anything lost? ----

guest_say "$vm" stop
final=$(guest_wait "$vm" '^LEDGER FINAL' 120) || fail "the guest does not finish"
echo "$final"
[[ $final == 'LEDGER FINAL ok '*' errors=0 '* ]] || fail "the guest does not find what it wrote"
image=$(find "$dir/a" "$dir/b" -name 'vm-flat.vmdk')
[ "$(wc -l <<<"$image")" = 1 ] || fail "more than one image: $image"
build/guest/ledger --verify --run "$run" --expect "${final##*digest=}" "$image" ||
	fail "the host does not find what the guest wrote"
full=$(du -k "$image" | cut -f1)
guest_say "$vm" go
guest_wait "$vm" '^DISCARDED 0' 60 || fail "the guest cannot discard"
empty=$(du -k "$image" | cut -f1)
[ "$empty" -lt $((full / 10 + 1)) ] || fail "$full KiB before the discard, $empty KiB after"
guest_join "$vm" 60
! grep -hE 'I/O error|Buffer I/O' "$dir"/vm*/console.log || fail "the guest's kernel saw errors"
for id in d1 d2 d3 d4; do bm disk detach $id >/dev/null || fail "detach $id"; done
! grep -n 'CHECK failed\|Sanitizer\|runtime error' "$dir/log" || fail "the daemon complained"
echo "ok 5: nothing was lost, and $((full - empty)) KiB came back by a discard"
