# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# guest.sh - boot and talk to test guests; sourced by tests and by the demo.
#
#   guest_build                        make the guest; 77 where no kernel can be had
#   guest_start DIR COMMAND [ARG...]   boot a guest that runs COMMAND; ARGs go to QEMU
#   guest_nbd_disk SOCKET EXPORT       print the ARGs for a disk, one per line (the guest's /dev/vda)
#   guest_vhost_disk SOCKET [QUEUES [NAME]]  the same, over vhost-user; NAME for a second disk
#   guest_wait DIR REGEX SECONDS       wait for a line on its channel, print it; 1: it ended, 2: too late
#   guest_say DIR TEXT                 send it a line
#   guest_join DIR SECONDS             wait until it has powered itself off
#   guest_kill_all                     kill those that still run (for EXIT traps)
#
# DIR is the guest's own directory: console.log (kernel, init), channel.log (COMMAND's output),
# qemu.log, qmp.sock.  COMMAND must not hold double quotes.  Every wait is for an event and has
# a limit.  BLKMIRROR_GUEST_ACCEL=kvm|tcg overrides the probe.

GUEST_OUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/guest
declare -A GUEST_PID=() GUEST_LOG_PID=() GUEST_IN_FD=()

guest_build()
{
	"$(dirname "${BASH_SOURCE[0]}")/build.sh"
}

# Sleep at most $2 seconds for process $1, a child of this shell.  0: it ended, its status is
# in guest_status.
guest_await()
{
	local pid=$1 seconds=$2 limit_pid ended
	sleep "$seconds" &
	limit_pid=$!
	guest_status=0
	wait -n -p ended "$pid" "$limit_pid" || guest_status=$?
	if [ "${ended:-}" = "$limit_pid" ]; then
		return 1
	fi
	kill "$limit_pid" 2>/dev/null || true
	wait "$limit_pid" 2>/dev/null || true
}

# ---- choosing the accelerator ----

# /dev/kvm may exist and still not run a 64-bit Linux: only a boot tells.  The answer is kept
# for as long as the kernel below and QEMU stay the same.
guest_accel()
{
	local key kept=$GUEST_OUT/accel probe pid
	if [ -n "${BLKMIRROR_GUEST_ACCEL:-}" ]; then
		printf '%s\n' "$BLKMIRROR_GUEST_ACCEL"
		return
	fi
	if [ ! -w /dev/kvm ]; then
		echo tcg
		return
	fi
	key="$(uname -r) $(qemu-system-x86_64 --version | head -n 1) $(cat "$GUEST_OUT/version")"
	if [ "$(head -n 1 "$kept" 2>/dev/null)" != "$key" ]; then
		probe=tcg
		qemu-system-x86_64 -accel kvm -m 256 -nodefaults -display none -no-reboot \
			-kernel "$GUEST_OUT/vmlinuz" -initrd "$GUEST_OUT/initrd-base.cpio" \
			-append 'console=ttyS0 quiet panic=-1 bm_run=true' \
			-serial "file:$kept.console" </dev/null >/dev/null 2>&1 &
		pid=$!
		if guest_await "$pid" 8; then
			! grep -q '^GUEST EXIT 0' "$kept.console" || probe=kvm
		else
			kill -9 "$pid"
			wait "$pid" 2>/dev/null || true
		fi
		printf '%s\n%s\n' "$key" "$probe" >"$kept.$$" && mv "$kept.$$" "$kept"
	fi
	tail -n 1 "$kept"
}

# ---- a guest's life ----

guest_nbd_disk()
{
	printf '%s\n' -blockdev \
		"driver=nbd,node-name=disk0,server.type=unix,server.path=$1,export=$2,reconnect-delay=60,cache.direct=on,discard=unmap,detect-zeroes=off" \
		-device virtio-blk-pci,drive=disk0,id=vdisk0,write-cache=on
}

# One second is the shortest that QEMU waits before it comes back.
guest_vhost_disk()
{
	local name=${3:-vdisk0}
	printf '%s\n' -chardev "socket,id=$name-socket,path=$1,reconnect=1" \
		-device "vhost-user-blk-pci,chardev=$name-socket,num-queues=${2:-1},id=$name"
}

guest_start()
{
	local dir=$1 command=$2 memory=${GUEST_MEMORY:-256M} accel fd
	shift 2
	mkdir -p "$dir"
	accel=$(guest_accel)
	[ "$accel" != tcg ] || accel=tcg,thread=multi
	rm -f "$dir/channel.in" "$dir/channel.out"
	mkfifo "$dir/channel.in" "$dir/channel.out"
	# Open for both, so that a line can be sent before QEMU listens.
	exec {fd}<>"$dir/channel.in"
	# It ends when QEMU has, and then the log is complete.
	cat "$dir/channel.out" >"$dir/channel.log" {fd}>&- &
	GUEST_LOG_PID[$dir]=$!
	qemu-system-x86_64 -name "$(basename "$dir")" -accel "$accel" -machine pc,memory-backend=ram \
		-object "memory-backend-memfd,id=ram,size=$memory,share=on" -m "$memory" \
		-smp "${GUEST_CPUS:-1}" -nodefaults -display none -no-reboot \
		-kernel "$GUEST_OUT/vmlinuz" -initrd "$GUEST_OUT/initrd-base.cpio" \
		-append "console=ttyS0 quiet loglevel=4 panic=-1 bm_channel=ttyS1 bm_run=\"$command\"" \
		-chardev "file,id=console,path=$dir/console.log" -serial chardev:console \
		-chardev "pipe,id=channel,path=$dir/channel" -serial chardev:channel \
		-qmp "unix:$dir/qmp.sock,server=on,wait=off" "$@" \
		</dev/null >"$dir/qemu.log" 2>&1 {fd}>&- &
	GUEST_PID[$dir]=$!
	GUEST_IN_FD[$dir]=$fd
}

# tail follows by inotify and ends with the log; grep ends at the line, and tail with it.
guest_wait()
{
	local dir=$1 regex=$2 seconds=$3 line
	line=$(timeout "$seconds" tail -n +1 -f --pid="${GUEST_LOG_PID[$dir]}" "$dir/channel.log" \
		2>/dev/null | grep -m 1 -E "$regex") || true
	if [ -n "$line" ]; then
		printf '%s\n' "$line"
		return 0
	fi
	echo "guest: no line '$regex' within $seconds s" >&2
	guest_show "$dir" >&2
	kill -0 "${GUEST_PID[$dir]}" 2>/dev/null && return 2
	return 1
}

guest_show()
{
	local log
	for log in qemu.log console.log channel.log; do
		echo "---- $1/$log"
		tail -n 15 "$1/$log" 2>/dev/null
	done
}

guest_say()
{
	printf '%s\n' "$2" >&"${GUEST_IN_FD[$1]}"
}

guest_join()
{
	local dir=$1 fd=${GUEST_IN_FD[$1]}
	if ! guest_await "${GUEST_PID[$dir]}" "$2"; then
		echo "guest: it did not power off within $2 s" >&2
		guest_show "$dir" >&2
		return 2
	fi
	wait "${GUEST_LOG_PID[$dir]}" || true
	exec {fd}>&-
	unset "GUEST_PID[$dir]" "GUEST_LOG_PID[$dir]" "GUEST_IN_FD[$dir]"
	[ "$guest_status" -eq 0 ] || echo "guest: QEMU ended with $guest_status" >&2
	return "$guest_status"
}

guest_kill_all()
{
	local dir
	for dir in "${!GUEST_PID[@]}"; do
		# Traps run under set -e too: nothing here may end them early.
		kill -9 "${GUEST_PID[$dir]}" "${GUEST_LOG_PID[$dir]}" 2>/dev/null || true
		wait "${GUEST_PID[$dir]}" "${GUEST_LOG_PID[$dir]}" 2>/dev/null || true
	done
	GUEST_PID=() GUEST_LOG_PID=()
}
