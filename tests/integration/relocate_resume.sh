#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# relocate_resume.sh - a relocation goes on where it was after kill -9, stop and start.
#
# The real daemon, copies slowed down by --bandwidth, a guest that writes all the time and
# remembers what was acknowledged.
. "$(dirname "$0")/../lib/daemon.sh"
for need in qemu-img qemu-io nbdcopy python3; do
	command -v $need >/dev/null || { echo "no $need"; exit 77; }
done
python3 -c 'import json' || { echo "no python3"; exit 77; }
export B_BIN=$bin
mkdir "$dir"/{a,b}
b() { "$bin/blkmirror" "$@"; }
task() { b --json task show "$1"; }
field() { task "$1" | jq -r "$2"; }
size=192

writer_pid=
stop_writer() {
	[ -z "$writer_pid" ] && return 0
	kill -TERM "$writer_pid" 2>/dev/null
	wait "$writer_pid"
	writer_status=$?
	writer_pid=
}
late_pid=
trap '[ -z "$writer_pid" ] || kill -9 "$writer_pid" 2>/dev/null
[ -z "$late_pid" ] || kill -9 "$late_pid" 2>/dev/null; cleanup' EXIT

# A guest: 4 KiB writes at random places of the first 64 MiB, one at a time, over the raw
# protocol; it connects again for ever, and sends again what was not acknowledged.
cat >"$dir/writer.py" <<'PY'
import os, random, signal, socket, struct, sys, time
path, name, image = sys.argv[1:4]
stop = False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
def exactly(s, n):
    data = b''
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(path)
    exactly(s, 18)
    s.sendall(struct.pack('>I', 3))
    s.sendall(b'IHAVEOPT' + struct.pack('>II', 1, len(name)) + name.encode())
    exactly(s, 10)
    return s
rng = random.Random(7)
blocks = 64 << 8
known = {}
s = None
errors = writes = losses = 0
while not stop:
    block = rng.randrange(blocks)
    data = struct.pack('>QQ', writes, block) * 256
    while not stop:
        try:
            if s is None:
                s = connect()
            s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, writes, block * 4096, 4096) + data)
            magic, error, handle = struct.unpack('>IIQ', exactly(s, 16))
            errors += error != 0
            known[block] = data
            writes += 1
            break
        except (OSError, ConnectionError):
            losses += 1
            known[block] = None     # either is right until it is sent again
            if s is not None:
                s.close()
            s = None
            time.sleep(0.02)
    time.sleep(0.0005)
if s is not None:
    s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 2, 0, 0, 0))
    s.close()
with open(image, 'wb') as out:
    for block, data in sorted(known.items()):
        if data is not None:
            out.write(struct.pack('>Q', block) + data)
print(f'{writes} writes, {losses} times no connection, {errors} errors')
sys.exit(errors != 0)
PY
cat >"$dir/compare.py" <<'PY'
import struct, sys
bad = n = 0
with open(sys.argv[1], 'rb') as ledger, open(sys.argv[2], 'rb') as image:
    while True:
        head = ledger.read(8)
        if not head:
            break
        data = ledger.read(4096)
        image.seek(struct.unpack('>Q', head)[0] * 4096)
        bad += image.read(4096) != data
        n += 1
print(f'{n} blocks compared, {bad} differ')
sys.exit(bad != 0 or n == 0)
PY
# A server that takes its time: SOCKET, the real one, and seconds before the first byte of each client.
cat >"$dir/late.py" <<'PY'
import os, socket, sys, threading, time
path, real, late = sys.argv[1], sys.argv[2], float(sys.argv[3])
def pump(a, b):
    try:
        while True:
            data = a.recv(1 << 20)
            if not data:
                break
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(client):
    time.sleep(late)
    server = socket.socket(socket.AF_UNIX)
    server.connect(real)
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
PY
start_writer() { # ID
	python3 "$dir/writer.py" "$(b --json disk list | jq -r ".disks[] | select(.id == \"$1\").socket")" \
		"$1" "$dir/ledger" >"$dir/writer.out" 2>&1 &
	writer_pid=$!
}

# until SECONDS COMMAND...: it becomes true
until_true() {
	local end=$((SECONDS + $1))
	shift
	while ! "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
copied_at_least() { [ "$(field "$1" '.disks[0].copied_bytes // 0')" -ge "$2" ]; }
copied_more() { [ "$(field "$1" '.disks[0] | .copied_bytes + .zero_bytes // 0')" -gt 0 ]; }
is_state() { [ "$(field "$1" .state)" = "$2" ]; }
is_degraded() { [ "$(field "$1" '.degraded.id // ""')" = "$2" ]; }

# resumed_right TASK: known clean > 0, and no more was copied than was dirty, or written since
resumed_event() { b --json events | jq -c ".events[] | select(.event == \"task_resumed\" and .data.id == \"$1\") | .data" | tail -1; }
told_resumed() { [ -n "$(resumed_event "$1")" ]; }
resumed_right() { # TASK
	local event resumed dirty active copied mirrored
	event=$(resumed_event "$1")
	resumed=$(jq .resumed_bytes <<<"$event") dirty=$(jq .dirty_bytes <<<"$event")
	active=$(jq .active_bytes <<<"$event")
	copied=$(field "$1" '.disks[0] | .copied_bytes + .zero_bytes + .hole_bytes - .recopied_bytes')
	echo "  $1: resumed $resumed, dirty $dirty, active $active, copied since $copied"
	[ "$resumed" -gt 0 ] && [ "$(field "$1" '.disks[0].resumed_bytes')" = "$resumed" ] &&
		[ "$copied" -le $((dirty + active)) ] && [ $((resumed + dirty + active)) -eq $((size << 20)) ]
}
# same ID-OF-DISK IMAGE: what the guest wrote is there
same() {
	local uri
	uri=$(b --json disk list | jq -r ".disks[] | select(.id == \"$1\").uri")
	rm -f "$dir/out.raw"
	nbdcopy "$uri" "$dir/out.raw" && python3 "$dir/compare.py" "$dir/ledger" "$dir/out.raw"
}

start_daemon
b datastore add a "dir://$dir/a" >/dev/null
b datastore add b "dir://$dir/b" >/dev/null
b disk create a:vm/vm.vmdk --size ${size}MiB >/dev/null
b disk attach a:vm/vm.vmdk --id d1 >/dev/null
uri=$(b --json disk list | jq -r '.disks[0].uri')
qemu-io -f raw -c "write -q -P 0x11 0 64M" -c "write -q -P 0x22 64M 96M" -c flush "$uri"

# ---- 1: kill -9 in mid-copy, twice, under a guest that writes ----

start_writer d1
id=$(b --json disk relocate d1 --to b:vm/vm.vmdk --bandwidth 24MiB/s --no-wait | jq -r .id)
check "copies" until_true 30 copied_at_least "$id" $((40 << 20))
# A checkpoint every 5 s makes it durable: wait for one.
sleep 5.2
stop_daemon KILL
start_daemon
check "goes on by itself" until_true 20 told_resumed "$id"
check "the same task runs" is_state "$id" running
check "no more than dirty and active" resumed_right "$id"
check "one record, one journal" [ "$(ls "$dir/state/moves" | wc -l)" = 2 ]
stop_daemon KILL
start_daemon
check "goes on again" until_true 20 told_resumed "$id"
b task set "$id" --bandwidth none >/dev/null
check "completes" until_true 60 is_state "$id" completed
check "verified" [ "$(field "$id" '.disks[0].verified')" = true ]
stop_writer
check "the guest saw no error" [ "$writer_status" = 0 ]
cat "$dir/writer.out"
check "every acknowledged write is there" same d1
check "nothing is left of the move" [ -z "$(ls "$dir/state/moves")" ]
check "the source is gone" [ ! -e "$dir/a/vm" ]
b disk detach d1 >/dev/null
b --json disk list >/dev/null
check "a qemu image" qemu-img check -q -f vmdk "$dir/b/vm/vm.vmdk"

# ---- 2: stop and start; a cold disk; nobody writes ----

qemu-img convert -O raw "$dir/b/vm/vm.vmdk" "$dir/before.raw"
id=$(b --json disk relocate b:vm/vm.vmdk --to a:cold/cold.vmdk --bandwidth 24MiB/s --no-wait | jq -r .id)
check "copies cold" until_true 30 copied_at_least "$id" $((24 << 20))
stop_daemon
check "an orderly stop" [ "$stop_status" = 0 ]
check "leaves the move standing" [ "$(ls "$dir/state/moves" | wc -l)" = 2 ]
start_daemon
check "the cold move goes on" until_true 20 told_resumed "$id"
check "after a stop: nothing active" [ "$(resumed_event "$id" | jq .active_bytes)" = 0 ]
check "what was copied is known" resumed_right "$id"
# Paused stays paused, over a stop and a kill.
b task pause "$id" >/dev/null
check "paused" until_true 10 is_state "$id" paused
stop_daemon
start_daemon
check "is paused still" is_state "$id" paused
stop_daemon KILL
start_daemon
check "and after a kill" until_true 10 is_state "$id" paused
b task set "$id" --bandwidth none >/dev/null
b task resume "$id" >/dev/null
check "completes cold" until_true 60 is_state "$id" completed
check "identical" qemu-img compare -q "$dir/a/cold/cold.vmdk" "$dir/before.raw"
check "nothing is left of the cold move" [ -z "$(ls "$dir/state/moves")" ]

# ---- 3: the target's datastore is away ----

b disk attach a:cold/cold.vmdk --id d1 >/dev/null
start_writer d1
id=$(b --json disk relocate d1 --to b:back/back.vmdk --bandwidth 24MiB/s --no-wait | jq -r .id)
check "copies" until_true 30 copied_at_least "$id" $((24 << 20))
sleep 5.2
stop_daemon KILL
mv "$dir/b" "$dir/b.away"
start_daemon
check "paused without its target" until_true 20 is_state "$id" paused
check "with the reason" is_degraded "$id" BM-1104
check "the remedy says how" [ "$(field "$id" '.degraded.remedy' | grep -c 'task resume')" = 1 ]
check "served meanwhile" [ "$(b --json disk list | jq -r '.disks[0].state')" = attached ]
qemu-io -f raw -c "write -q -P 0x33 100M 1M" -c flush "$(b --json disk list | jq -r '.disks[0].uri')"
mv "$dir/b.away" "$dir/b"
b task set "$id" --bandwidth none >/dev/null
b task resume "$id" >/dev/null
check "says that it resumes" [ $? = 0 ]
check "completes" until_true 60 is_state "$id" completed
check "verified" [ "$(field "$id" '.disks[0].verified')" = true ]
check "did not start over" [ "$(field "$id" '.disks[0].resumed_bytes')" -gt 0 ]
stop_writer
check "the guest saw no error" [ "$writer_status" = 0 ]
check "every acknowledged write is there" same d1
qemu-io -r -f raw -c "read -q -P 0x33 100M 1M" "$(b --json disk list | jq -r '.disks[0].uri')" >"$dir/qio" 2>&1
check "what was written meanwhile too" [ ! -s "$dir/qio" ]

# ---- 4: the journal is destroyed: rolled back, and the guest is served ----

id=$(b --json disk relocate d1 --to a:again/again.vmdk --bandwidth 24MiB/s --no-wait | jq -r .id)
check "copies" until_true 30 copied_at_least "$id" $((16 << 20))
stop_daemon KILL
dd if=/dev/urandom of="$(echo "$dir"/state/moves/*.0)" bs=4096 count=2 conv=notrunc status=none
start_daemon
check "not gone on with" until_true 20 is_state "$id" failed
check "for its journal" [ "$(field "$id" .error.id)" = BM-1600 ]
check "served from its source" [ "$(b --json disk list | jq -r '.disks[0] | .state + .disk')" = "attachedb:back/back.vmdk" ]
check "the target is gone" [ ! -e "$dir/a/again" ]
check "nothing is left" [ -z "$(ls "$dir/state/moves")" ]
check "nothing waits" [ "$(b --json recover list | jq -c .recover)" = "[]" ]
check "every acknowledged write is there" same d1

# ---- 5: held, then complete; cancel after a restart; queued ones wait their turn ----

id=$(b --json disk relocate d1 --to a:held/held.vmdk --hold --no-wait | jq -r .id)
check "holds" until_true 30 is_state "$id" held
stop_daemon KILL
start_daemon
check "holds again" until_true 30 is_state "$id" held
b task cancel "$id" >/dev/null
check "cancelled" until_true 20 is_state "$id" cancelled
check "its target is gone" [ ! -e "$dir/a/held" ]
id=$(b --json disk relocate d1 --to a:held/held.vmdk --hold --no-wait | jq -r .id)
check "holds" until_true 30 is_state "$id" held
stop_daemon
start_daemon
check "holds after a stop" until_true 30 is_state "$id" held
b task complete "$id" >/dev/null
check "completes" until_true 30 is_state "$id" completed
check "every acknowledged write is there" same d1
check "nothing is left at the end" [ -z "$(ls "$dir/state/moves")" ]

# ---- 6: the source's datastore is away: nothing is touched; it goes on when that is back ----

id=$(b --json disk relocate d1 --to b:six/six.vmdk --bandwidth 24MiB/s --no-wait | jq -r .id)
check "copies" until_true 30 copied_at_least "$id" $((16 << 20))
stop_daemon
mv "$dir/a" "$dir/a.away"
start_daemon
check "paused without its source" until_true 20 is_state "$id" paused
check "with the reason" [ -n "$(field "$id" '.degraded.id // ""')" ]
check "listed as what it is" [ "$(b --json recover list | jq -r '.recover[0] | "\(.resumable) \(.task)"')" = "true $id" ]
check "its target is not touched" [ -e "$dir/b/six/six.vmdk" ]
mv "$dir/a.away" "$dir/a"
b task resume "$id" >/dev/null
check "goes on" until_true 20 told_resumed "$id"
b task set "$id" --bandwidth none >/dev/null
check "completes" until_true 60 is_state "$id" completed
check "its guest is served again" [ "$(b --json disk list | jq -r '.disks[0] | .state + .disk')" = attachedb:six/six.vmdk ]
check "every acknowledged write is there" same d1

# ---- 7: a target without marks: after a kill only on the operator's word (R2) ----

if command -v qemu-nbd >/dev/null; then
	truncate -s ${size}M "$dir/lun.raw"
	qemu-nbd -f raw -t -e 8 -x lun -k "$dir/lun.sock" --fork --pid-file="$dir/nbd.pid" "$dir/lun.raw"
	b datastore add lun "nbd+unix:///lun?socket=$dir/lun.sock" >/dev/null
	id=$(b --json disk relocate d1 --to lun:disk --bandwidth 12MiB/s --keep-source --no-wait | jq -r .id)
	check "copies to the export" until_true 30 copied_at_least "$id" $((16 << 20))
	stop_daemon
	start_daemon
	check "after a stop it goes on by itself" until_true 20 told_resumed "$id"
	check "running" until_true 10 is_state "$id" running
	# Its datastore opens later than the source's: that is waited for, without a word.
	stop_daemon
	mv "$dir/lun.sock" "$dir/real.sock"
	python3 "$dir/late.py" "$dir/lun.sock" "$dir/real.sock" 3 &
	late_pid=$!
	until_true 10 test -S "$dir/lun.sock"
	start_daemon
	check "served before its target is there" until_true 10 told_resumed "$id"
	check "goes on when its target is there" until_true 20 copied_more "$id"
	check "running, without a word" is_state "$id" running
	stop_daemon
	kill "$late_pid"
	wait "$late_pid"
	late_pid=
	mv "$dir/real.sock" "$dir/lun.sock"
	start_daemon
	check "goes on" until_true 20 told_resumed "$id"
	check "running again" until_true 10 is_state "$id" running
	stop_daemon KILL
	start_daemon
	check "after a kill it waits for a word" until_true 20 is_state "$id" paused
	check "with the reason" is_degraded "$id" BM-1311
	b task set "$id" --bandwidth none >/dev/null
	b task resume "$id" >/dev/null
	check "completes" until_true 60 is_state "$id" completed
	check "every acknowledged write is there" same d1
	b disk detach d1 >/dev/null
	b datastore remove lun >/dev/null
	kill "$(cat "$dir/nbd.pid")"
else
	b disk detach d1 >/dev/null
fi
stop_daemon
check "stops" [ "$stop_status" = 0 ]
finish
