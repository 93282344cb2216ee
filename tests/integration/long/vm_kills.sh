#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# minutes: 3
#
# vm_kills.sh - the daemon is killed at any moment of suspend and resume, ROUNDS times (12): the guest
# is booted once, goes on where it was, and no image outlives its resume.
. "$(dirname "$0")/../../lib/daemon.sh"
. tests/guest/guest.sh
command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is not installed"; exit 77; }
rc=0
guest_build >/dev/null || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ] || exit 1
pid=
vm_cleanup() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
	cleanup
}
trap vm_cleanup EXIT
b() { timeout 60 "$bin/blkmirror" "$@"; }
state() { b --json vm show vm1 | jq -r .state; }
chmod 711 "$dir"
mkdir "$dir/a"
printf '[vm]\naccel = %s\nkernel_roots = %s\n' "$(guest_accel)" "$GUEST_OUT" >"$dir/conf"
start() { start_daemon --config "$dir/conf"; }
# Settled: no state that something is still to come of.  Events are followed, not polled.
settle() {
	local now
	for _ in $(seq 30); do
		now=$(state)
		case $now in running | suspended | off) echo "$now"; return ;; esac
		timeout 2 "$bin/blkmirror" --json events --follow 2>/dev/null | grep -m 1 vm_state >/dev/null
	done
	echo "$now"
}
start
b datastore add a "dir://$dir/a" >/dev/null
b vm create g --datastore a --memory 160MiB --disk 32MiB --kernel "$GUEST_OUT/vmlinuz" --initrd "$GUEST_OUT/initrd-base.cpio" \
	--append 'console=ttyS0 quiet panic=-1 bm_run="ledger --run 7 --rate 100 /dev/vda"' >/dev/null
b vm start vm1 >/dev/null
serial=$dir/state/vms/vm1/serial.log
timeout 60 tail -n +1 -F "$serial" 2>/dev/null | grep -m 1 -a 'LEDGER READY' >/dev/null
check "the guest works" grep -qa 'LEDGER READY' "$serial"
rounds=${ROUNDS:-12}
seen=
for round in $(seq "$rounds"); do
	verb=suspend
	[ "$(state)" = running ] || verb=resume
	b vm $verb vm1 >/dev/null 2>&1 &
	asked=$!
	sleep "0.$(printf %03d $((RANDOM % 700)))"
	stop_daemon KILL
	wait $asked
	start
	now=$(settle)
	seen+=" $verb:$now"
	check "round $round, $verb: $now" [ "$now" = running -o "$now" = suspended ]
	pid=$(b --json vm show vm1 | jq -r '.pid // empty')
	named=$(grep -c '^blkmirror.suspend' "$dir/a/g/g.vmx")
	[ "$now" = running ] && want=0 || want=1
	check "round $round, $verb: $now, and the VMX names $named images" [ "$named" = $want ]
done
echo "rounds:$seen"
[ "$(state)" = running ] || b vm resume vm1 >/dev/null
pid=$(b --json vm show vm1 | jq -r '.pid // empty')
at=$(wc -l <"$serial")
line=$(timeout 60 tail -n "+$((at + 1))" -F "$serial" 2>/dev/null | grep -m 1 -a 'LEDGER t=')
check "the guest goes on" [ -n "$line" ]
{ echo stop; sleep 3; } | timeout 20 "$bin/blkmirror" vm console vm1 >/dev/null 2>&1
timeout 60 tail -n "+$((at + 1))" -F "$serial" 2>/dev/null | grep -m 1 -a 'LEDGER FINAL' >/dev/null
check "no write was lost" grep -qa 'LEDGER FINAL ok .* errors=0 ' "$serial"
check "it was booted once" [ "$(grep -ac '^GUEST UP' "$serial")" = 1 ]
finish
