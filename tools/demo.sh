#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh - move the disk of a running guest to another datastore and prove that nothing was lost.
#
# A Linux guest works on a disk at a set rate and keeps a ledger of every acknowledged write.  The
# disk moves from datastore ds1 to ds2 under it.  Then three judges that do not know each other:
#   1. the guest reads its whole disk and holds every block against its ledger;
#   2. the host checks the image alone: each block says what it is, and together they must give
#      the digest that the guest saw;
#   3. the powered-off disk moves back, keeping its source, and qemu-img compares the two.
# Exit 0 and the word VERIFIED only if all three agree.
#
# Knobs: DEMO_SIZE (4GiB)  DEMO_FILL (1GiB)  DEMO_RATE (500 requests/s)  DEMO_DIR (build/demo)
#        DEMO_BASELINE (8 s)  DEMO_AFTER (5 s)  BLKMIRRORD, BLKMIRROR (build/bin/...)
# Everything is kept in DEMO_DIR when it fails; after success only the logs are.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/guest/guest.sh
. tests/guest/guest.sh

size=${DEMO_SIZE:-4GiB}
fill=${DEMO_FILL:-1GiB}
rate=${DEMO_RATE:-500}
baseline_s=${DEMO_BASELINE:-8}
after_s=${DEMO_AFTER:-5}
dir=${DEMO_DIR:-build/demo}
daemon=${BLKMIRRORD:-build/bin/blkmirrord}
cli=${BLKMIRROR:-build/bin/blkmirror}
ledger=build/guest/ledger
disk=web01/web01.vmdk
run=$$
failures=()
daemon_pid=
finished=0

# ---- telling ----

if [ -t 1 ]; then
	bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
	bold='' dim='' red='' green='' plain=''
fi

step()
{
	printf '%s==>%s %s\n' "$bold" "$plain" "$1"
}

note()
{
	printf '    %s%s%s\n' "$dim" "$1" "$plain"
}

die()
{
	printf '%sdemo: %s%s\n' "$red" "$1" "$plain" >&2
	[ -z "${2:-}" ] || printf '      %s\n' "$2" >&2
	exit 1
}

# A judge that says no: the others are heard all the same.
failed()
{
	failures+=("$1")
	printf '%s    %s%s\n' "$red" "$1" "$plain" >&2
}

cleanup()
{
	local status=$?
	guest_kill_all
	if [ -n "$daemon_pid" ] && kill "$daemon_pid" 2>/dev/null; then
		guest_await "$daemon_pid" 30 || kill -9 "$daemon_pid" 2>/dev/null || true
	fi
	if [ $finished -eq 0 ]; then
		[ $status -ne 0 ] || status=1
		printf '%sFAILED%s  what is left, and the logs: %s\n' "$red" "$plain" "$dir" >&2
	fi
	# A run that proved itself leaves its logs and takes its gigabytes away.
	[ $status -ne 0 ] || rm -rf "$dir/ds1" "$dir/ds2" "$dir/state"
	[ ! -d "${run_dir:-}" ] || rm -rf "$run_dir"
	exit "$status"
}

# ---- talking to the daemon ----

bm()
{
	"$cli" --socket "$run_dir/api.sock" "$@"
}

# An answer as JSON; with an error's own sentence where there is none.
bm_json()
{
	local answer
	if ! answer=$(bm --json "$@"); then
		die "'blkmirror $*' failed: $(jq -r '.error | "\(.id): \(.cause)"' <<<"$answer" \
			2>/dev/null || printf '%s' "$answer")" \
			"$(jq -r '.error.remedy // empty' <<<"$answer" 2>/dev/null)"
	fi
	printf '%s\n' "$answer"
}

# The daemon says READY=1 to NOTIFY_SOCKET when it serves, as it would to systemd.  Given the
# daemon's pid, this prints READY, ENDED or LATE.
notify_listener='
import os, select, socket, sys, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(sys.argv[1])
print("BOUND", flush=True)
try:
    daemon = os.pidfd_open(int(sys.stdin.readline()))
except ProcessLookupError:
    sys.exit(print("ENDED", flush=True))
deadline = time.monotonic() + 30
while True:
    ready = select.select([notify, daemon], [], [], max(0, deadline - time.monotonic()))[0]
    if notify in ready and b"READY=1" in notify.recv(4096).splitlines():
        sys.exit(print("READY", flush=True))
    if daemon in ready or not ready:
        sys.exit(print("ENDED" if ready else "LATE", flush=True))
'

start_daemon()
{
	local line='' from to
	coproc NOTIFY { exec python3 -c "$notify_listener" "$run_dir/notify"; }
	from=${NOTIFY[0]} to=${NOTIFY[1]}
	read -r line <&"$from" || true
	[ "$line" = BOUND ] || die "cannot listen on $run_dir/notify"
	NOTIFY_SOCKET=$run_dir/notify "$daemon" --state-dir "$PWD/$dir/state" --run-dir "$run_dir" \
		</dev/null >"$dir/blkmirrord.log" 2>&1 {from}<&- {to}>&- &
	daemon_pid=$!
	echo "$daemon_pid" >&"$to"
	read -r line <&"$from" || true
	[ "$line" = READY ] || die "blkmirrord did not become ready (${line:-no answer}): its last words are
      $(tail -n 1 "$dir/blkmirrord.log")" "its log: $dir/blkmirrord.log"
}

# ---- the stages ----

bytes_of()
{
	numfmt --from=auto "${1%B}"
}

prepare()
{
	local program needed available
	for program in qemu-system-x86_64 qemu-img nbdcopy jq python3; do
		command -v "$program" >/dev/null || die "$program is missing" "run 'make deps'"
	done
	[ -x "$daemon" ] || die "$daemon is missing" "run 'make'"
	[ -x "$cli" ] || die "$cli is missing" "run 'make'"
	guest_build || die "there is no test guest"
	rm -rf "$dir"
	mkdir -p "$dir"/{ds1,ds2,state}
	# Two copies at the end, what the guest writes meanwhile, and air.
	needed=$(($(bytes_of "$fill") * 3 + (2 << 30)))
	available=$(df --output=avail -B 1 "$dir" | tail -n 1)
	[ "$available" -ge "$needed" ] ||
		die "$dir has $(numfmt --to=iec-i "$available")B free, the demo wants $(numfmt \
			--to=iec-i "$needed")B" "set DEMO_DIR to another place, or DEMO_FILL to less"
	# A UNIX socket's path is at most 107 bytes long: not below the build folder.
	run_dir=$(mktemp -d "${TMPDIR:-/tmp}/blkmirror-demo.XXXXXX")
}

make_disk()
{
	local answer
	bm_json datastore add ds1 "dir://$(realpath "$dir/ds1")" >/dev/null
	bm_json datastore add ds2 "dir://$(realpath "$dir/ds2")" >/dev/null
	bm_json disk create "ds1:$disk" --size "$size" --provision thin >/dev/null
	answer=$(bm_json disk attach "ds1:$disk" --export nbd)
	disk_id=$(jq -er .id <<<"$answer")
	disk_uri=$(jq -er .uri <<<"$answer")
	disk_socket=$(jq -er .socket <<<"$answer")
	disk_export=${disk_uri#nbd+unix:///}
	disk_export=${disk_export%%\?*}
	note "$disk_uri"
	"$ledger" --fill --run "$run" --filled "${fill%iB}" | nbdcopy --flush - "$disk_uri"
}

start_guest()
{
	local -a args
	mapfile -t args < <(guest_nbd_disk "$disk_socket" "$disk_export")
	guest_start "$dir/vm" "ledger --run $run --filled ${fill%iB} --rate $rate /dev/vda" "${args[@]}"
	guest_wait "$dir/vm" '^LEDGER READY' 120 >/dev/null
}

# The stretch that ends now gets its name and its figures.  The wait is long: a store that others
# use as well may stand still for a minute (a journal commit behind gigabytes of their data), which
# shows as a stall in the table and is no reason to give up.
phase()
{
	guest_say "$dir/vm" "phase $1"
	guest_wait "$dir/vm" "^LEDGER PHASE name=$1 " 300 >"$dir/phase.$1" ||
		die "the guest has not answered for 5 minutes" "its logs: $dir/vm"
}

now_us()
{
	printf '%s\n' "${EPOCHREALTIME//[!0-9]/}"
}

relocate_live()
{
	local started status=0
	started=$(now_us)
	bm disk relocate "$disk_id" --to ds2 || status=$?
	took_us=$(($(now_us) - started))
	[ $status -eq 0 ] || failed "the relocation ended with exit code $status"
	task_id=$(bm_json task list --all |
		jq -r '[.tasks[] | select(.type == "relocate")] | max_by(.created) | .id // empty')
	[ -n "$task_id" ] || die "the daemon does not know the relocation" "$dir/blkmirrord.log"
	bm_json task show "$task_id" >"$dir/task.json"
}

# Judge 0: what the daemon itself says.
judge_task()
{
	jq -e '.state == "completed" and .error == null and .degraded == null' \
		"$dir/task.json" >/dev/null ||
		failed "the task: $(jq -c '{state, degraded, error}' "$dir/task.json")"
	jq -e 'all(.disks[]; .verified == true and .authoritative == "target")' \
		"$dir/task.json" >/dev/null ||
		failed "the target is not verified and authoritative"
	[ ! -e "$dir/ds1/${disk%.vmdk}-flat.vmdk" ] ||
		failed "the source is still there after a verified relocation"
}

# Judge 1: the guest.
judge_guest()
{
	local final
	! grep -q ' iops=0 ' "$dir/phase.after" || failed "the guest did nothing after the move"
	guest_say "$dir/vm" stop
	final=$(guest_wait "$dir/vm" '^LEDGER FINAL' 600) || die "the guest did not finish its reading"
	note "guest: ${final#LEDGER FINAL }"
	[[ $final == 'LEDGER FINAL ok '*' errors=0 '* ]] ||
		failed "the guest does not find what was acknowledged: $dir/vm/channel.log"
	digest=${final##*digest=}
	guest_join "$dir/vm" 60 || failed "the guest did not power off in order"
}

# Judge 2: the host, from the image alone.
judge_image()
{
	local image=$dir/$1/${disk%.vmdk}-flat.vmdk verdict
	if verdict=$("$ledger" --verify --run "$run" --expect "$digest" "$image" \
		2>&1 | tee "$dir/verify.$1.log" | tail -n 1); then
		note "host, $1: ${verdict#LEDGER VERIFY }"
	else
		failed "the image on $1 is not what the guest saw: ${verdict#LEDGER } ($dir/verify.$1.log)"
	fi
}

# Judge 3: qemu-img, over two copies at rest.
judge_compare()
{
	bm_json disk relocate "ds2:$disk" --to ds1 --keep-source >"$dir/task-back.json"
	if qemu-img compare -f vmdk -F vmdk "$dir/ds2/$disk" "$dir/ds1/$disk" >"$dir/compare.log" 2>&1
	then
		note "qemu-img: $(tail -n 1 "$dir/compare.log")"
	else
		failed "qemu-img compare: $(tail -n 1 "$dir/compare.log")"
	fi
	judge_image ds1
}

# ---- the summary ----

human()
{
	numfmt --to=iec-i --suffix=B --format=%.1f "$1"
}

task_value()
{
	jq -r "$1 // 0" "$dir/task.json"
}

task_sum()
{
	task_value "[.disks[].$1 // 0] | add"
}

phase_row()
{
	local -A v=()
	local word
	# shellcheck disable=SC2013
	for word in $(cat "$dir/phase.$1"); do
		[[ $word != *=* ]] || v[${word%%=*}]=${word#*=}
	done
	printf '  %-8s %8s %9s %9s %9s %14s %14s\n' "$1" "${v[iops]}" "${v[p50_us]}" "${v[p99_us]}" \
		"${v[max_us]}" "${v[longest_gap_ms]}" "${v[cpu_gap_ms]}"
}

summary()
{
	local copied name
	copied=$(task_sum copied_bytes)
	printf '\n%s  %-8s %8s %9s %9s %9s %14s %14s%s\n' "$bold" guest IOPS 'p50 us' 'p99 us' \
		'max us' 'disk stall ms' 'vCPU stall ms' "$plain"
	for name in before during after; do
		phase_row "$name"
	done
	printf '\n%s  relocation %s%s\n' "$bold" "$task_id" "$plain"
	printf '  %-18s %s\n' \
		copied "$(human "$copied")" \
		zero "$(human "$(task_sum zero_bytes)")" \
		holes "$(human "$(task_sum hole_bytes)")" \
		mirrored "$(human "$(task_sum mirrored_bytes)") in $(task_sum mirrored_writes) writes" \
		're-copied' "$(human "$(task_sum recopied_bytes)")" \
		took "$((took_us / 1000)) ms, $(human $((copied * 1000000 / took_us)))/s, verification included" \
		stun "$(task_value .switchover.stun_us) us"
}

main()
{
	prepare
	trap cleanup EXIT
	trap 'exit 130' INT TERM
	step "Starting blkmirrord"
	start_daemon
	step "A disk of $size on ds1, $fill of it written"
	make_disk
	step "Booting a Linux guest on it; it works at $rate requests a second for $baseline_s s"
	start_guest
	sleep "$baseline_s"
	phase before
	step "Relocating the disk to ds2 under the guest"
	relocate_live
	phase during
	step "The guest goes on on ds2 for $after_s s"
	sleep "$after_s"
	phase after
	step "Was anything lost?"
	judge_task
	judge_guest
	bm_json disk detach "$disk_id" >/dev/null
	if [ ${#failures[@]} -eq 0 ]; then
		judge_image ds2
		judge_compare
	fi
	summary
	[ ${#failures[@]} -eq 0 ] || die "${#failures[@]} of the checks failed, the first: ${failures[0]}"
	finished=1
	printf '\n%sVERIFIED%s  guest, host and qemu-img agree; logs in %s\n' "$green" "$plain" "$dir"
}

main "$@"
