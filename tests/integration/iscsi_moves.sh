#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# iscsi_moves.sh - disks move to and from LUNs of a real target, under fio with verify.
#
# dir -> lun1 -> nbd (qcow2) -> lun2 -> dir; then tgtd is killed and started again while a LUN is
# the target, and while it is the source.  What is wrong with a target is told by --check, two
# daemons do not share a LUN, and no secret is seen anywhere.
set -u
move_tool=${B:-build}/tests/integration/move_tool
skip() { echo "skipped: $1"; exit 77; }
[ -x "$move_tool" ] || skip "no $move_tool: make tests-build"
for need in qemu-img qemu-nbd fio; do command -v $need >/dev/null || skip "no $need"; done
# shellcheck source=tests/lib/daemon.sh
. "$(dirname "$0")/../lib/daemon.sh"
# shellcheck source=tests/lib/tgt.sh
. "$(dirname "$0")/../lib/tgt.sh"
tgt_needs

tool_pid=
fio_pid=
nbd_pid=
other_pid=
# shellcheck disable=SC2329
end_all() {
	for pid in $fio_pid $tool_pid $nbd_pid $other_pid; do
		kill -9 "$pid" 2>/dev/null
	done
	tgt_kill
	cleanup
}
trap end_all EXIT
fail() {
	echo "FAIL: $*"
	for file in out log tool.log other.log fio.log body tgtd.log; do
		[ ! -s "$dir/$file" ] || tail -n 25 "$dir/$file" | sed "s/^/  $file: /"
	done
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }

# ---- the stores ----

iqn=iqn.2026-11.net.example:moves
mkdir "$dir/store" "$dir/tool-state" "$dir/tool-run"
truncate -s 64M "$dir/lun1.img" "$dir/lun2.img"
truncate -s 16M "$dir/small.img"
good=s3cretOfTheHost wrong=s3cretOfNobody
serve() {
	tgt_start || fail "tgtd does not start"
	tgt_target 1 $iqn && tgt_lun 1 1 "$dir/lun1.img" thin_provisioning=1 &&
		tgt_lun 1 2 "$dir/lun2.img" && tgt_lun 1 3 "$dir/small.img" || fail "new LUNs"
}
serve
url=iscsi://127.0.0.1:$tgt_port/$iqn
qemu-img create -q -f qcow2 "$dir/n.qcow2" 64M || fail "qemu-img create"
qemu-nbd --fork --persistent --shared 4 --pid-file "$dir/nbd.pid" -k "$dir/nbd.sock" -x vm \
	-f qcow2 "$dir/n.qcow2" || fail "qemu-nbd"
nbd_pid=$(cat "$dir/nbd.pid")

# ---- talking to the tool ----

mkfifo "$dir/in"
: >"$dir/out"
"$move_tool" "$dir/tool-state" "$dir/tool-run" "a=dir://$dir/store" "s=$url" \
	"n=nbd+unix:///vm?socket=$dir/nbd.sock" <"$dir/in" >>"$dir/out" 2>>"$dir/tool.log" &
tool_pid=$!
exec 3>"$dir/in"
tell() { echo "$*" >&3; }
expect() { # PATTERN
	local end=$((SECONDS + 90))
	until line=$(grep -m 1 -E "^$1" "$dir/out"); do
		[ $SECONDS -lt $end ] && kill -0 "$tool_pid" 2>/dev/null || fail "no '$1' came"
		! grep -qE '^(error|failed)' "$dir/out" || fail "instead of '$1'"
		sleep 0.05
	done
}
forget() { : >"$dir/out"; }
fio_start() { # LOOPS
	fio --name=guest --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --size=64m --iodepth=8 \
		--loops="$1" --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 \
		--verify_state_save=0 --output="$dir/fio.log" >/dev/null 2>&1 &
	fio_pid=$!
}
fio_end() {
	wait "$fio_pid" || fail "fio failed"
	fio_pid=
}
same() { # FILE FORMAT
	qemu-img compare -q -f raw -F "$2" "$uri" "$1" || fail "$1 differs from the disk"
}

# ---- there and back ----

truncate -s 64M "$dir/store/d.img"
tell attach a:d.img d
expect "attached d"
uri=$(echo "$line" | cut -d' ' -f3)
move() { # PLACE
	fio_start 2
	forget
	tell move d "$1" hold
	expect held
	tell complete
	expect completed
	fio_end
}
move s:lun1
same "$dir/lun1.img" raw
pass "dir -> iSCSI under fio, identical"
move n:disk
fio_start 1
fio_end
pass "iSCSI -> nbd (qcow2) under fio"
move s:lun2
same "$dir/lun2.img" raw
pass "nbd (qcow2) -> iSCSI under fio, identical"
move a:e.img
same "$dir/store/e.img" raw
pass "iSCSI -> dir under fio, identical"

# Thin stays thin: 64 MiB with 4 MiB of data in it.
truncate -s 64M "$dir/store/thin.img"
dd if=/dev/urandom of="$dir/store/thin.img" bs=1M count=4 conv=notrunc status=none
forget
tell attach a:thin.img t
expect "attached t"
thin_uri=$(echo "$line" | cut -d' ' -f3)
forget
tell move t s:lun1
expect completed
qemu-img compare -q -f raw -F raw "$thin_uri" "$dir/lun1.img" || fail "lun1.img differs"
[ "$(stat -c %b "$dir/lun1.img")" -le $((8 << 11)) ] || fail "a thin LUN was filled: $(stat -c %b "$dir/lun1.img")"
pass "a thin disk stays thin on a thin LUN"
forget
tell detach t
expect detached

# ---- the target's server is killed ----

forget
tell move d s:lun2 hold 30000000
expect "moving d"
fio_start 3
sleep 1
tgt_kill
sleep 1
serve
expect held
tell complete
expect completed
fio_end
grep -q 'connected again' "$dir/tool.log" || fail "the kill was not noticed"
same "$dir/lun2.img" raw
pass "tgtd killed as the target: the guest notices nothing, the move goes on by itself"

forget
tell move d a:f.img hold 30000000
expect "moving d"
fio_start 3
sleep 1
tgt_kill
sleep 1
serve
expect held
tell complete
expect completed
fio_end
same "$dir/store/f.img" raw
pass "tgtd killed as the source: the guest waits and loses nothing"
tell quit
exec 3>&-
wait "$tool_pid" || fail "the tool"
tool_pid=

# ---- what --check tells ----

tgt_target 2 $iqn-chap && tgt_lun 2 1 "$dir/lun1.img" &&
	tgt_adm --op new --mode account --user host --password $good &&
	tgt_adm --op bind --mode account --tid 2 --user host || fail "CHAP"
(umask 077
	printf 'user=host\npassword=%s\n' $good >"$dir/good"
	printf 'user=host\npassword=%s\n' $wrong >"$dir/wrong")
start_daemon
seen=$dir/seen
: >"$seen"
b() { timeout 60 "$bin/blkmirror" --json "$@" 2>&1 | tee -a "$seen" >"$dir/answer"; return "${PIPESTATUS[0]}"; }
refused() { # ID COMMAND...
	local id=$1
	shift
	b "$@" && fail "not refused: $*: $(cat "$dir/answer")"
	grep -q "\"$id\"" "$dir/answer" || fail "not $id: $*: $(cat "$dir/answer")"
}
refused BM-2101 datastore add c "$url-chap" --secret-file "$dir/wrong"
refused BM-2102 datastore add c "iscsi://127.0.0.1:$tgt_port/iqn.2026-11.net.example:none"
b datastore add c "$url-chap" --secret-file "$dir/good" || fail "CHAP: $(cat "$dir/answer")"
b datastore add s "$url" || fail "add"
b datastore add a "dir://$dir/store" || fail "add"
b datastore files s || fail "files"
grep -q '"lun3"' "$dir/answer" || fail "the LUNs are not listed"
b disk attach a:f.img --id d1 || fail "attach"
refused BM-2103 disk relocate d1 --to s:lun9 --check
refused BM-1301 disk relocate d1 --to s:lun3 --check
b disk relocate d1 --to s:lun2 --check || fail "check: $(cat "$dir/answer")"
b disk relocate d1 --to c:lun1 || fail "a move over CHAP: $(cat "$dir/answer")"
pass "wrong CHAP, unknown target and LUN, LUN too small: each its own id"

# ---- two daemons ----

"$bin/blkmirrord" --state-dir "$dir/other" --run-dir "$dir/other-run" >>"$dir/other.log" 2>&1 &
other_pid=$!
end=$((SECONDS + 20))
until [ -S "$dir/other-run/api.sock" ]; do
	[ $SECONDS -lt $end ] || fail "the second daemon does not start"
	sleep 0.05
done
other() { BLKMIRROR_SOCKET=$dir/other-run/api.sock b "$@"; }
other datastore add s "$url" || fail "add"
b disk attach s:lun2 --id d2 || fail "attach: $(cat "$dir/answer")"
other disk attach s:lun2 --id x && fail "two daemons have the LUN"
grep -q '"BM-1202"' "$dir/answer" || fail "not in use: $(cat "$dir/answer")"
grep -qE 'in use by host [0-9a-f]{8}' "$dir/answer" || fail "the holder is not named"
b disk detach d2 || fail "detach"
other disk attach s:lun2 --id x || fail "attach after the other let go: $(cat "$dir/answer")"
other disk detach x || fail "detach"
pass "R-F2: a second daemon's attach is refused, naming the holder"

# ---- secrets ----

for path in datastores disks tasks; do
	api GET /v1/$path
	cat "$dir/body" >>"$seen"
done
curl -s --unix-socket "$sock" http://x/metrics >>"$seen"
ps -ef >>"$seen"
tr '\0' '\n' <"/proc/$daemon_pid/environ" >>"$seen"
for secret in $good $wrong; do
	! grep -q "$secret" "$seen" "$dir/log" || fail "a secret is seen: $(grep -l "$secret" "$seen" "$dir/log")"
	! grep -rqa "$secret" "$dir/state" || fail "a secret is in the state directory"
done
pass "no secret in answers, log, process list, metrics or state"
kill "$other_pid"
wait "$other_pid"
other_pid=
stop_daemon
[ "$stop_status" = 0 ] || fail "the daemon ended with $stop_status"
checks=1
finish
