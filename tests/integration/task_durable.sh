#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# task_durable.sh - who has been told of a task finds it again, however soon the daemon is killed.
#
# Another program locks the daemon's database: until it lets go nothing can be made durable.
. "$(dirname "$0")/../lib/daemon.sh"
command -v python3 >/dev/null && python3 -c 'import sqlite3' || { echo "no python3 with sqlite3"; exit 77; }
mkdir "$dir"/{a,b}
b() { timeout 30 "$bin/blkmirror" "$@"; }

locker_pid=
trap '[ -z "$locker_pid" ] || kill -9 "$locker_pid" 2>/dev/null; cleanup' EXIT
lock_database() {
	rm -f "$dir/locked"
	python3 - "$dir/state/tasks.db" "$dir/locked" <<'PY' &
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute('BEGIN IMMEDIATE')
open(sys.argv[2], 'w').close()
time.sleep(60)
PY
	locker_pid=$!
	for _ in $(seq 200); do
		[ -e "$dir/locked" ] && return
		sleep 0.05
	done
	check "the database is locked" false
}
unlock_database() {
	kill -9 "$locker_pid"
	wait "$locker_pid" 2>/dev/null
	locker_pid=
}
relocate() { b --json disk relocate a:vm/vm.vmdk --to b:vm/vm.vmdk --hold --no-wait; }

start_daemon
b datastore add a "dir://$dir/a" >/dev/null
b datastore add b "dir://$dir/b" >/dev/null
b disk create a:vm/vm.vmdk --size 16MiB >/dev/null

# ---- killed before it is durable: nobody has been told ----

lock_database
relocate >"$dir/told" 2>&1 &
asked_pid=$!
# Time for the check and the answer; less than the daemon waits for its database.
sleep 1
check "not answered yet" [ ! -s "$dir/told" ]
check "and not begun" [ -z "$(ls "$dir/state/moves" 2>/dev/null)" ]
stop_daemon KILL
wait "$asked_pid"
asked_status=$?
check "the client is not told of a task" [ "$asked_status" != 0 ]
check "nor of its id" [ "$(grep -c '"t[0-9]' "$dir/told")" = 0 ]
unlock_database
start_daemon
check "there is none" [ "$(b --json task list | jq '.tasks | length')" = 0 ]

# ---- it cannot be made durable: told as a failure ----

lock_database
relocate >"$dir/told" 2>&1
told_status=$?
check "a failure" [ "$told_status" != 0 ]
check "with its reason" grep -q 'BM-1603\|locked' "$dir/told"
unlock_database

# ---- killed right after the answer: it is there ----

id=$(relocate | jq -r .id)
stop_daemon KILL
check "has an id" [ -n "$id" ]
start_daemon
check "is known" [ "$(b --json task show "$id" | jq -r .id)" = "$id" ]
for _ in $(seq 200); do
	[ "$(b --json task show "$id" | jq -r .state)" = held ] && break
	sleep 0.05
done
check "and goes on" [ "$(b --json task show "$id" | jq -r .state)" = held ]

# ---- a verb waits for its effect while the daemon stops: its task is the next daemon's then ----

# Both are there when the daemon looks again, and it may see either first: so a few times.
cat >"$dir/verb.py" <<'PY'
import os, signal, socket, sys, time
path, pid, task = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(path)
s.sendall(f'POST /v1/tasks/{task}/pause HTTP/1.1\r\nHost: x\r\n'.encode())
time.sleep(0.2)
os.kill(pid, signal.SIGSTOP)
s.sendall(b'Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}')
os.kill(pid, signal.SIGTERM)
os.kill(pid, signal.SIGCONT)
answer = b''
while b'\r\n' not in answer:
    part = s.recv(65536)
    if not part:
        break
    answer += part
print(answer.split(b'\r\n')[0].decode())
PY
state_is() { [ "$(b --json task show "$id" | jq -r .state)" = "$1" ]; }
until_state() {
	for _ in $(seq 200); do
		state_is "$1" && return
		sleep 0.05
	done
	return 1
}
for round in 1 2 3 4; do
	answer=$(timeout 60 python3 "$dir/verb.py" "$sock" "$daemon_pid" "$id")
	wait "$daemon_pid"
	stop_status=$?
	daemon_pid=
	check "the stop is in order, $round" [ "$stop_status" = 0 ]
	check "answered, $round: $answer" grep -q '^HTTP/1.1 \(200\|503\)' <<<"$answer"
	start_daemon
	sleep 0.3
	state_is paused && b task resume "$id" >/dev/null
	check "holds again, $round" until_state held
done
b task cancel "$id" >/dev/null
stop_daemon
check "stops" [ "$stop_status" = 0 ]
finish
