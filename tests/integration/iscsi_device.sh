#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# iscsi_device.sh - a LUN of a real target as a device: what it does, and what a kill of the target
# does to it, as a guest's disk and as a move's target.  The test-and-set under VMFS's locks.
set -u
B=${BUILD:-${B:-build}}/tests/integration
tool=$B/iscsi_dev
# shellcheck source=tests/lib/tgt.sh
. "$(dirname "$0")/../lib/tgt.sh"
tgt_needs
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }

dir=$(mktemp -d)
work=
istgt_pid=
# shellcheck disable=SC2329
clean_up() {
	[ -z "$work" ] || kill "$work" 2>/dev/null
	[ -z "$istgt_pid" ] || { kill -9 "$istgt_pid"; wait "$istgt_pid"; } 2>/dev/null
	tgt_kill
	rm -rf "$dir"
}
trap clean_up EXIT
trap '' PIPE     # a tool that has ended is told by its exit
fail() {
	echo "FAIL: $*"
	for file in out err out2 err2 tgtd.log istgt.log; do
		[ ! -s "$dir/$file" ] || tail -n 20 "$dir/$file" | sed "s/^/  $file: /"
	done
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
iqn=iqn.2026-11.net.example:dev
url() { echo "iscsi://127.0.0.1:$tgt_port/$iqn"; }
dev() { timeout 90 "$tool" "$(url)" "$@" >"$dir/out" 2>"$dir/err"; }
truncate -s 64M "$dir/thin.img" "$dir/thick.img"
serve() {
	tgt_start || fail "tgtd does not start"
	tgt_target 1 $iqn && tgt_lun 1 1 "$dir/thin.img" thin_provisioning=1 &&
		tgt_lun 1 2 "$dir/thick.img" || fail "new LUNs"
}
await() { # FILE PATTERN
	local end=$((SECONDS + 60))
	until grep -q "$2" "$dir/$1" 2>/dev/null; do
		[ $SECONDS -lt $end ] || fail "no '$2' in $1"
		sleep 0.05
	done
}

serve
dev 1 check || fail "a thin LUN"
grep -qx extents=told "$dir/out" || fail "a thin LUN tells its holes"
[ "$(stat -c %b "$dir/thin.img")" -lt $((48 << 11)) ] || fail "zeroes take space"
dev 2 check || fail "a thick LUN"
grep -qx extents=data "$dir/out" || fail "R11: a thick LUN tells holes"
pass "reads, writes, pieces, zeroes, holes, flush"

LOCK=1 dev 1 check || fail "with a reservation"
tgt_adm --op show --mode target | grep -q . || fail "show"
LOCK=1 HOST=2 dev 1 check || fail "the lock was not given back"
pass "R-F2: with a reservation, and given back"

# storm VERB LOCK: kill -9 of the target twice, in the middle of writes
storm() {
	mkfifo "$dir/in"
	LOCK=$2 timeout 90 "$tool" "$(url)" 1 "$1" 50 <"$dir/in" >"$dir/out" 2>"$dir/err" &
	work=$!
	exec 5>"$dir/in"
	await out running
	for _ in 1 2; do
		tgt_kill
		sleep 0.5
		serve
		sleep 1
	done
	echo go >&5
	exec 5>&-
	wait $work || fail "$1 over a kill of the target"
	work=
	rm "$dir/in"
	grep -q 'connected again' "$dir/err" || fail "the kill was not noticed"
	! grep -q 'was not given back' "$dir/err" || fail "the lock was not given back"
}
unset LOCK
storm source ""
grep -q 'known=128 writes_failed=0 flushes_failed=0' "$dir/out" || fail "a guest's disk lost something"
pass "R3: a guest's writes wait for the target and lose nothing"
storm target ""
grep -q 'flushes_failed=[1-9]' "$dir/out" || fail "R9: no flush told the loss"
pass "R2, R9: a target's writes fail only after the barrier, and the next flush tells"

# With the lock: the target has forgotten the reservation; nobody else has it.
storm source 1
grep -q 'writes_failed=0 flushes_failed=0' "$dir/out" || fail "a locked disk lost something"
pass "R-F3: a target that forgets its reservations is locked anew"

# ---- two hosts ----

mkfifo "$dir/in"
LOCK=1 timeout 90 "$tool" "$(url)" 1 source 10 <"$dir/in" >"$dir/out2" 2>"$dir/err2" &
work=$!
exec 5>"$dir/in"
await out2 running
LOCK=1 HOST=2 dev 1 check && fail "two hosts write"
grep -q '^BM-1202 .* in use by host 01000000' "$dir/err" || fail "the holder is not named"
HOST=2 dev 1 source 3 </dev/null && fail "a stranger writes without a lock"
echo go >&5
exec 5>&-
wait $work || fail "the holder was disturbed"
work=
rm "$dir/in"
pass "R-F2: a second host is refused, by name, and the target refuses its writes"

# A host that is frozen: its lock is had after a lease, and it writes nothing when it thaws.
mkfifo "$dir/in"
LOCK=1 timeout 120 "$tool" "$(url)" 1 source 10 <"$dir/in" >"$dir/out2" 2>"$dir/err2" &
work=$!
exec 5>"$dir/in"
await out2 running
frozen=$(pgrep -P $work)
kill -STOP "$frozen"
began=$SECONDS
LOCK=wait HOST=2 dev 1 source 20 </dev/null || fail "a frozen host's lock cannot be had"
took=$((SECONDS - began))
grep -q waiting "$dir/out" || fail "it was taken at once"
[ $took -ge 20 ] || fail "it was taken after $took s, within its lease"
grep -q 'has not been heard of for a whole lease' "$dir/err" || fail "the take-over is not told"
sum=$(sha256sum <"$dir/thin.img")
kill -CONT "$frozen"
echo go >&5
exec 5>&-
wait $work && fail "a host that was fenced goes on"
work=
grep -q 'the lock is lost' "$dir/err2" || fail "it was not told"
[ "$sum" = "$(sha256sum <"$dir/thin.img")" ] || fail "a fenced host wrote"
rm "$dir/in"
pass "R-F1, R-F2, R-F3: a frozen host loses its lock after a lease, and writes nothing when it thaws"

# ---- test-and-set: three at once ----

count() { # TIMES
	local pids='' pid
	dev 2 zero || fail "zero"
	for n in 1 2 3; do
		HOST=$n timeout 90 "$tool" "$(url)" 2 count "$1" >"$dir/count$n" 2>"$dir/err$n" &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || fail "count: $(cat "$dir"/err[123])"
	done
	[ "$(sort -n "$dir"/count[123] | tail -1)" = $((3 * $1)) ] || fail "counts were lost: $(cat "$dir"/count[123])"
}
count 40
pass "test-and-set by RESERVE: three hosts lose no count"
tgt_kill

command -v istgt >/dev/null || PATH=$PATH:/usr/sbin
if command -v istgt >/dev/null; then
	truncate -s 64M "$dir/istgt.img"
	: >"$dir/auth.conf"
	chmod 600 "$dir/auth.conf"
	cat >"$dir/istgt.conf" <<-CONF
	[Global]
	  NodeBase "iqn.2026-11.net.example"
	  PidFile $dir/istgt.pid
	  AuthFile $dir/auth.conf
	  MediaDirectory $dir
	  Timeout 30
	  NopInInterval 20
	  DiscoveryAuthMethod None
	[UnitControl]
	  AuthMethod None
	  Portal UC1 127.0.0.1:$((tgt_port + 1))
	  Netmask 127.0.0.1
	[PortalGroup1]
	  Portal DA1 127.0.0.1:$tgt_port
	[InitiatorGroup1]
	  InitiatorName "ALL"
	  Netmask 127.0.0.1
	[LogicalUnit1]
	  TargetName dev
	  Mapping PortalGroup1 InitiatorGroup1
	  AuthMethod None
	  UnitType Disk
	  LUN0 Storage $dir/istgt.img Auto
	CONF
	istgt -D -c "$dir/istgt.conf" >"$dir/istgt.log" 2>&1 &
	istgt_pid=$!
	end=$((SECONDS + 10))
	until (exec 9<>"/dev/tcp/127.0.0.1/$tgt_port") 2>/dev/null; do
		[ $SECONDS -lt $end ] && kill -0 "$istgt_pid" 2>/dev/null || fail "istgt does not start"
		sleep 0.1
	done
	dev 0 zero || fail "zero"
	pids=
	for n in 1 2 3; do
		HOST=$n timeout 90 "$tool" "$(url)" 0 count 40 >"$dir/count$n" 2>"$dir/err$n" &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || fail "count: $(cat "$dir"/err[123])"
	done
	[ "$(sort -n "$dir"/count[123] | tail -1)" = 120 ] || fail "counts were lost: $(cat "$dir"/count[123])"
	pass "COMPARE AND WRITE: three hosts lose no count"
fi
