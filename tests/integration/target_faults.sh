#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# target_faults.sh - real targets that become full, freeze or fail while a guest writes.
#
# The guest is fio, through the export.  Each time: it sees no error; the task says what is wrong
# and what to do, and goes on afterwards without starting over; the copies are identical.
#   full     the target's ext4 (a loop mount of our own) has no block left in the middle of a copy
#   frozen   the same with 'fsfreeze -f': once it heals by itself, once the operator pauses; the
#            API answers meanwhile, and a second task is cancelled
#   EIO      the fault wrapper fails the target's writes (move_tool)
#
# TARGET_FAULTS_LONG=1: the default deadline, 10 s of freezing, 40 s until it pauses by itself,
# and the guest's longest wait is judged: no more than the deadline and half a second.
set -u
move_tool=${B:-build}/tests/integration/move_tool
long=${TARGET_FAULTS_LONG:-}
skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "loop mounts and fsfreeze want root"
for need in fsfreeze losetup mkfs.ext4 fio qemu-img; do
	command -v $need >/dev/null || skip "no $need"
done
[ -x "$move_tool" ] || skip "no $move_tool: make tests-build"
. "$(dirname "$0")/../lib/daemon.sh"

mount_point=$dir/b
frozen=
mounted=
guest_pid=
tool_pid=
thaw() {
	[ -z "$frozen" ] || fsfreeze -u "$mount_point"
	frozen=
}
# First of all thaw: what hangs there can end only then.
end_all() {
	thaw
	[ -z "$guest_pid" ] || kill -9 "$guest_pid" 2>/dev/null
	if [ -n "$tool_pid" ]; then
		kill -9 "$tool_pid" 2>/dev/null
		wait "$tool_pid" 2>/dev/null
	fi
	if [ -n "$daemon_pid" ]; then
		kill -9 "$daemon_pid" 2>/dev/null
		wait "$daemon_pid" 2>/dev/null
		daemon_pid=
	fi
	# A killed process's last requests may still be in the kernel.
	for _ in $(seq 50); do
		[ -n "$mounted" ] || break
		umount "$mount_point" 2>/dev/null && mounted=
		[ -z "$mounted" ] || sleep 0.1
	done
	cleanup
}
trap end_all EXIT
freeze() {
	frozen=1
	fsfreeze -f "$mount_point"
}

mkdir "$dir/a" "$mount_point"
truncate -s 320M "$dir/b.ext4"
mkfs.ext4 -q -m 0 "$dir/b.ext4" || skip "mkfs.ext4 fails here"
mount -o loop "$dir/b.ext4" "$mount_point" 2>"$dir/err" || skip "no loop mounts here: $(cat "$dir/err")"
mounted=1
freeze 2>"$dir/err" || { frozen=; skip "no fsfreeze here: $(cat "$dir/err")"; }
thaw

b() { timeout 120 "$bin/blkmirror" "$@"; }
# await SECONDS COMMAND...: until it is true
await() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
task_is() { # ID JQ-CONDITION
	b --json task show "$1" >"$dir/task" 2>/dev/null && jq -e "$2" "$dir/task" >/dev/null
}
# shellcheck disable=SC2329
task_copied() { task_is "$1" ".disks[0].copied_bytes >= $2"; }
task_figure() { jq -r "$1" "$dir/task"; }
fatal() { # on stderr: not lost where the output is taken
	{
		echo "FAILED: $*"
		[ ! -s "$dir/task" ] || head -c 1500 "$dir/task"
		tail -n 20 "$dir/log"
	} >&2
	exit 1
}

# ---- the guest ----

guest_start() { # URI
	fio --name=guest --ioengine=nbd --uri="$1" --rw=randwrite --bs=4k --size=16m --iodepth=4 \
		--rate_iops=400 --time_based --runtime=600 --output-format=json \
		--output="$dir/fio.out" >/dev/null 2>&1 &
	guest_pid=$!
}
# guest_stop DEADLINE-MS: no error, and how long it waited
guest_stop() {
	local longest_ms errors
	kill -INT "$guest_pid"
	wait "$guest_pid" 2>/dev/null
	guest_pid=
	sed -n '/^{/,$p' "$dir/fio.out" >"$dir/fio.json"        # it says first what signal ended it
	errors=$(jq '[.jobs[] | .error + .total_err] | add' "$dir/fio.json") || errors=none
	longest_ms=$(jq '[.jobs[] | .write.lat_ns.max] | max / 1e6 | floor' "$dir/fio.json") || longest_ms=none
	check "the guest saw $errors errors" [ "$errors" = 0 ]
	check "the guest wrote" jq -e '.jobs[0].write.total_ios > 100' "$dir/fio.json" >/dev/null
	echo "  the guest's longest write: $longest_ms ms (deadline $1 ms)"
	[ -z "$long" ] || check "it waited $longest_ms ms" [ "$longest_ms" -le $(($1 + 500)) ]
}

# identical ID PATH: held, the guest has ended; then the switch-over, and both copies compared
finish_and_compare() {
	b task complete "$1" >/dev/null || fatal "cannot complete $1"
	await 60 task_is "$1" '.state == "completed"' || fatal "$1 is not completed"
	check "identical: $2" qemu-img compare -q -f raw -F raw "$dir/a/$2" "$mount_point/$2"
}
# not_anew FIGURES-BEFORE: what was copied counts on; beyond it only what was dirty, and what the
# guest wrote meanwhile (its 16 MiB, a few times over)
not_anew() {
	local copied dirty now
	read -r copied dirty <<<"$1"
	now=$(task_figure '.disks[0].copied_bytes')
	echo "  copied $((copied >> 20)) MiB before, $((now >> 20)) MiB in all"
	check "something had been copied" [ "$copied" -gt $((8 << 20)) ]
	check "it went on from there: $copied + $dirty, now $now" \
		[ "$now" -ge "$copied" -a "$now" -le $((copied + dirty + (64 << 20))) ]
}
new_disk() { # ID
	b disk import "$dir/raw" "a:$1.img" >/dev/null || fatal "cannot import"
	b --json disk attach "a:$1.img" --id "$1" >"$dir/out" || fatal "cannot attach"
	jq -r .uri "$dir/out"
}
relocate() { # ID OPTIONS...: prints the task's id
	b --json disk relocate "$1" --to b --hold --keep-source --provision thin --no-wait \
		"${@:2}" >"$dir/out" || fatal "cannot relocate: $(cat "$dir/out")"
	jq -r .id "$dir/out"
}
say_so() { # ID-OF-ERROR
	check "state $(task_figure .state), $(task_figure '.degraded.id'), not $1" \
		[ "$(task_figure '.degraded.id')" = "$1" ]
	check "a cause and a remedy" \
		jq -e '.degraded | (.cause | length > 0) and (.remedy | length > 0)' "$dir/task" >/dev/null
}

head -c 96M /dev/urandom >"$dir/raw"
start_daemon
b datastore add a "dir://$dir/a" >/dev/null || fatal "datastore a"
b datastore add b "dir://$mount_point" >/dev/null || fatal "datastore b"
b datastore set a --budget 64 >/dev/null
b datastore set b --budget 64 >/dev/null

# ---- full ----

echo "full:"
uri=$(new_disk full) || exit 1
guest_start "$uri"
task=$(relocate full --bandwidth 24MiB/s) || exit 1
await 60 task_copied "$task" $((24 << 20)) || fatal "no copy"
dd if=/dev/zero of="$mount_point/ballast" bs=1M status=none 2>/dev/null
await 30 task_is "$task" '.state == "paused"' || fatal "not paused"
say_so BM-1320
before=$(task_figure '"\(.disks[0].copied_bytes) \(.disks[0].dirty_bytes)"')
free_is_known() { b --json datastore show b | jq -e '.free_bytes < 4194304' >/dev/null; }
check "the datastore's space is told" await 5 free_is_known
# Resumed too early: paused again, for the same reason.
b task resume "$task" >/dev/null
paused_again() { task_is "$task" '.state == "paused" and .degraded.id == "BM-1320"'; }
sleep 0.5
check "still full: paused again" await 10 paused_again
rm "$mount_point/ballast"
b task resume "$task" >/dev/null || fatal "cannot resume"
await 60 task_is "$task" '.state == "held"' || fatal "not held"
not_anew "$before"
guest_stop 3000
finish_and_compare "$task" full.img
b disk detach full >/dev/null
rm -f "$mount_point"/full.img*

# ---- frozen ----

deadline_ms=1000 span=5
timeout_option=(--target-timeout 1s)
if [ -n "$long" ]; then
	deadline_ms=3000 span=10
	timeout_option=()
fi
echo "frozen:"
uri=$(new_disk ice) || exit 1
new_disk cold >/dev/null || exit 1
guest_start "$uri"
task=$(relocate ice --bandwidth 16MiB/s "${timeout_option[@]}") || exit 1
second=$(relocate cold --bandwidth 1MiB/s "${timeout_option[@]}") || exit 1
await 60 task_copied "$task" $((32 << 20)) || fatal "no copy"

freeze
await $((deadline_ms / 1000 + 3)) task_is "$task" '.degraded.id == "BM-1308"' || fatal "not noticed"
say_so BM-1308
check "it goes on by itself later" [ "$(task_figure .state)" = running ]
sleep 1
thaw
check "healed" await 20 task_is "$task" '.degraded == null'
check "without a word of the operator" [ "$(task_figure .state)" = running ]

freeze
frozen_at=$SECONDS
await $((deadline_ms / 1000 + 3)) task_is "$task" '.degraded.id == "BM-1308"' || fatal "not noticed"
check "'task show' answers" timeout 2 "$bin/blkmirror" task show "$task" >/dev/null
check "'disk list' answers" timeout 2 "$bin/blkmirror" disk list >/dev/null
check "'task cancel' of the other answers" timeout 3 "$bin/blkmirror" task cancel "$second" >/dev/null
check "'task pause' answers" timeout 3 "$bin/blkmirror" task pause "$task" >/dev/null
check "paused at once" await 2 task_is "$task" '.state == "paused"'
say_so BM-1308
before=$(task_figure '"\(.disks[0].copied_bytes) \(.disks[0].dirty_bytes)"')
while [ $((SECONDS - frozen_at)) -lt $span ]; do
	sleep 0.2
	check "'task show' answers" timeout 2 "$bin/blkmirror" task show "$task" >/dev/null
done
thaw
check "the other is cancelled" await 20 task_is "$second" '.state == "cancelled"'
task_is "$task" 'true'
check "a pause is not lifted by itself" [ "$(task_figure .state)" = paused ]
b task resume "$task" >/dev/null || fatal "cannot resume"

if [ -n "$long" ]; then
	check "going on" await 20 task_is "$task" '.degraded == null'
	freeze
	await 60 task_is "$task" '.state == "paused"' || fatal "does not pause by itself"
	say_so BM-1308
	# Resumed while it is still frozen: degraded, and no guest waits for it again.
	b task resume "$task" >/dev/null || fatal "cannot resume"
	sleep 5
	thaw
fi
await 120 task_is "$task" '.state == "held" and .degraded == null' || fatal "not held"
not_anew "$before"
guest_stop $deadline_ms
finish_and_compare "$task" ice.img
stop_daemon
check "the daemon ended" [ "$stop_status" = 0 ]

# ---- EIO ----

echo "EIO:"
mkdir "$dir/state2" "$dir/run2"
cp --sparse=always "$dir/raw" "$dir/a/eio.img"
mkfifo "$dir/in"
: >"$dir/tool"
MOVE_TOOL_FAULTS=1 "$move_tool" "$dir/state2" "$dir/run2" "a=dir://$dir/a" "b=dir://$mount_point" \
	<"$dir/in" >>"$dir/tool" 2>>"$dir/log" &
tool_pid=$!
exec 3>"$dir/in"
tell() { echo "$*" >&3; }
# shellcheck disable=SC2329
said() { grep -qE "^$1" "$dir/tool"; }
expect() { # PATTERN: said within 60 s
	await 60 said "$1" || fatal "no '$1': $(cat "$dir/tool")"
	grep -E "^$1" "$dir/tool" | tail -n 1
}
forget() { : >"$dir/tool"; }
ask_status() {
	forget
	tell status
	expect status
}
# shellcheck disable=SC2329
tool_copied() { [ "$(ask_status | cut -d' ' -f3)" -ge "$1" ]; }
tell attach a:eio.img eio
uri=$(expect "attached eio" | cut -d' ' -f3)
guest_start "$uri"
tell move eio b:eio.img keep $((32 << 20))
expect "moving eio" >/dev/null
await 60 tool_copied $((24 << 20)) || fatal "no copy"
forget
tell fault 5
expect paused >/dev/null
line=$(ask_status)
check "it says so: $line" grep -qE '^status paused [0-9]+ [0-9]+ BM-1304 .+ \| .+' <<<"$line"
read -r _ _ copied dirty _ <<<"$line"
tell fault 0
forget
tell resume
expect held >/dev/null
now=$(ask_status | cut -d' ' -f3)
echo "  copied $((copied >> 20)) MiB before, $((now >> 20)) MiB in all"
check "it went on from there" [ "$now" -ge "$copied" -a "$now" -le $((copied + dirty + (64 << 20))) ]
guest_stop 3000
tell complete
expect completed >/dev/null
tell quit
exec 3>&-
wait "$tool_pid"
check "the tool ended" [ $? = 0 ]
tool_pid=
check "identical: eio.img" qemu-img compare -q -f raw -F raw "$dir/a/eio.img" "$mount_point/eio.img"
finish
