#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# restart_guests.sh - a Linux guest works on its disk while the daemon is killed and started again.
#
# The kills come faster than the pauses of QEMU's NBD client grow (0, 1, 3, 7 ... s), so that
# without sockets that outlive the daemon they would add up.  The guest must see no error, and at
# the end find everything that was acknowledged; so must the host in the image alone.
#
# Knobs: RESTART_KILLS (5), RESTART_JUDGE=1 fails when the guest's longest stall is more than
# 0.3 s longer than the longest outage (printed always: a busy machine has stalls of its own),
# RESTART_SIGNAL (KILL): TERM stops in order instead; RESTART_HOLDER (auto): none shows what it
# would be like.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in qemu-system-x86_64 nbdcopy; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
# shellcheck source=tests/guest/guest.sh
. tests/guest/guest.sh
rc=0
guest_build || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ]
# shellcheck source=tests/lib/daemon.sh
. tests/lib/daemon.sh
set -e
end_daemon=$(declare -f cleanup)
eval "${end_daemon/cleanup/cleanup_daemon}"
cleanup()
{
	set +e          # nothing here may end it early
	guest_kill_all
	cleanup_daemon
}

kills=${RESTART_KILLS:-5}
signal=${RESTART_SIGNAL:-KILL}
run=$RANDOM

now_ms()
{
	echo $((${EPOCHREALTIME//[!0-9]/} / 1000))
}

# Not waited for: that is the guest's part.
launch()
{
	"$bin/blkmirrord" --state-dir "$dir/state" --run-dir "$dir/run" \
		--socket-holder "${RESTART_HOLDER:-auto}" >>"$dir/log" 2>&1 &
	daemon_pid=$!
}

# The N-th line that a disk is served, within a minute.
wait_served()
{
	local lines
	lines=$(timeout 60 tail -n +1 -f "$dir/log" | grep -m "$1" 'd1 is served') || true
	[ "$(wc -l <<<"$lines")" -eq "$1" ] && [ -n "$lines" ] ||
		{ echo "d1 was not served a ${1}th time"; tail -n 20 "$dir/log"; exit 1; }
}

start_daemon --socket-holder "${RESTART_HOLDER:-auto}"
mkdir "$dir/a"
"$bin/blkmirror" datastore add a "dir://$dir/a" >/dev/null
"$bin/blkmirror" disk create a:vm.img --size 256MiB >/dev/null
"$bin/blkmirror" disk attach a:vm.img --id d1 >"$dir/attached"
uri=$(cut -f2 "$dir/attached")
build/guest/ledger --fill --run "$run" --filled 32M | nbdcopy --flush - "$uri"
mapfile -t disk < <(guest_nbd_disk "$dir/run/disks/d1.sock" d1)
guest_start "$dir/vm" "ledger --run $run --filled 32M --rate 300 /dev/vda" "${disk[@]}"
guest_wait "$dir/vm" '^LEDGER READY' 120
guest_wait "$dir/vm" '^LEDGER t=2 ' 60 >/dev/null
guest_say "$dir/vm" 'phase before'
guest_wait "$dir/vm" '^LEDGER PHASE name=before' 60

longest_ms=0
for ((i = 1; i <= kills; i++)); do
	killed_ms=$(now_ms)
	kill -"$signal" "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || true
	# The outage: from 0.1 s to 1.9 s.
	sleep "$((i % 10 * 2 / 10)).$(((i % 10 * 2 + 1) % 10))"
	launch
	outage_ms=$(($(now_ms) - killed_ms))
	[ $outage_ms -le $longest_ms ] || longest_ms=$outage_ms
	wait_served "$i"
	# Between the kills, less than the pauses that they would have made.
	sleep "0.$((i % 5 + 3))"
done
guest_say "$dir/vm" 'phase kills'
phase=$(guest_wait "$dir/vm" '^LEDGER PHASE name=kills' 60)
echo "$phase"
# Two more seconds of work, as the guest counts them.
second=$(grep -oE '^LEDGER t=[0-9]+' "$dir/vm/channel.log" | tail -n 1)
guest_wait "$dir/vm" "^LEDGER t=$((${second#*=} + 3)) " 60 >/dev/null
guest_say "$dir/vm" 'phase after'
after=$(guest_wait "$dir/vm" '^LEDGER PHASE name=after' 60)
echo "$after"
guest_say "$dir/vm" stop
final=$(guest_wait "$dir/vm" '^LEDGER FINAL' 180)
echo "$final"
guest_join "$dir/vm" 60
"$bin/blkmirror" disk detach d1 >/dev/null
stop_daemon

[[ $final == 'LEDGER FINAL ok '*' errors=0 '* ]]
! grep -q ' iops=0 ' <<<"$after"
build/guest/ledger --verify --run "$run" --expect "${final##*digest=}" "$dir/a/vm.img"
stall_ms=$(sed -E 's/.*longest_gap_ms=([0-9]+).*/\1/' <<<"$phase")
slowest_ms=$(sed -nE 's/.*d1 is served, ([0-9]+) ms.*/\1/p' "$dir/log" | sort -n | tail -n 1)
echo "restart: $kills x SIG$signal, 0 guest errors; longest outage $longest_ms ms, longest guest" \
	"stall $stall_ms ms ($((stall_ms - longest_ms)) ms more), slowest start $slowest_ms ms"
if [ -n "${RESTART_JUDGE:-}" ]; then
	[ "$stall_ms" -le $((longest_ms + 300)) ]
fi
