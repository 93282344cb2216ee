#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# restart_locks.sh - a daemon that is killed with requests in the kernel, and the next one (R-J7).
#
# The disk lies on a loop device that cgroup v1 throttles to some 100 KiB/s, so a killed daemon
# stays in the kernel until its writes are done, and so do its locks.  A daemon that is started
# meanwhile waits, serves when the last write has landed, and its clients have waited in the
# backlog.  Needs root, loop devices, a blkio cgroup; skipped without.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ "$(id -u)" = 0 ] || { echo "only root can make a slow device"; exit 77; }
for tool in losetup mkfs.ext4 qemu-io python3; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
# shellcheck source=tests/lib/daemon.sh
. tests/lib/daemon.sh
end_daemon=$(declare -f cleanup)
eval "${end_daemon/cleanup/cleanup_daemon}"
loop='' group='' mounted='' client=''
cleanup()
{
	[ -z "$group" ] || echo "$device 0" >"$group/blkio.throttle.write_bps_device"
	[ -z "$client" ] || kill -9 "$client" 2>/dev/null
	[ -z "$daemon_pid" ] || { kill -9 "$daemon_pid"; wait "$daemon_pid"; } 2>/dev/null
	daemon_pid=
	[ -z "$mounted" ] || umount "$dir/slow"
	[ -z "$loop" ] || losetup -d "$loop"
	cleanup_daemon
	# The sockets' holder was in it too, and ends with the directory.
	for _ in $(seq 100); do
		[ -z "$group" ] || rmdir "$group" 2>/dev/null && break
		sleep 0.05
	done
}
skip()
{
	echo "$1"
	exit 77
}

# ---- a slow store ----

blkio=$(awk '$3 == "cgroup" && $4 ~ /(^|,)blkio(,|$)/ { print $2; exit }' /proc/mounts)
[ -n "$blkio" ] || skip "there is no cgroup v1 blkio here"
truncate -s 128M "$dir/image"
loop=$(losetup --find --show --direct-io=on "$dir/image" 2>/dev/null) || { loop=; skip "no loop device can be had"; }
mkdir "$dir/slow"
mkfs.ext4 -q -F "$loop" && mount -t ext4 "$loop" "$dir/slow" 2>/dev/null || skip "cannot mount an ext4"
mounted=1
device=$(lsblk -ndo MAJ:MIN "$loop" | tr -d ' ')
mkdir "$blkio/blkmirror-$$" 2>/dev/null || skip "no cgroup can be made"
group=$blkio/blkmirror-$$
[ -w "$group/blkio.throttle.write_bps_device" ] || skip "this kernel throttles no device"

# throttle BYTES-PER-SECOND: 0 is none
throttle()
{
	echo "$device $1" >"$group/blkio.throttle.write_bps_device"
}

launch()
{
	(echo "$BASHPID" >"$group/cgroup.procs" && exec "$bin/blkmirrord" --state-dir "$dir/state" \
		--run-dir "$dir/run" "$@" >>"$dir/log" 2>&1) &
	daemon_pid=$!
}

# Is a process gone from the kernel?  Its first thread is a zombie while others still wait for I/O.
is_gone()
{
	! [ -e "/proc/$1" ] || [ -z "$(grep -sL '^State:.Z' "/proc/$1"/task/*/status)" ]
}

wait_log()
{
	timeout 60 grep -q -m 1 -- "$1" <(tail -n +1 -f "$dir/log" --pid=$$)
}

start_daemon
kill -9 "$daemon_pid"
wait "$daemon_pid" 2>/dev/null
: >"$dir/log"
launch
wait_log 'is ready'
"$bin/blkmirror" datastore add s "dir://$dir/slow" >/dev/null
"$bin/blkmirror" disk create s:d.img --size 32MiB --provision eager >/dev/null
"$bin/blkmirror" disk attach s:d.img --id d1 >/dev/null
uri="nbd+unix:///d1?socket=$dir/run/disks/d1.sock"
sync "$dir/slow/d.img"

# ---- killed with a write in the kernel ----

throttle 262144
writes=()
for i in $(seq 0 7); do
	writes+=(-c "aio_write -q -P 0x5a ${i}M 256k")
done
qemu-io -f raw --cache none "${writes[@]}" -c aio_flush "$uri" >"$dir/client" 2>&1 &
client=$!
# All go to the kernel at once and leave it one a second: after the first, the others are there.
first_has_landed()
{
	dd if="$dir/slow/d.img" bs=4096 count=1 iflag=direct status=none |
		cmp -s - <(head -c 4096 /dev/zero | tr '\0' Z)
}
for _ in $(seq 500); do
	first_has_landed && break
	sleep 0.02
done
check "the first write has landed" first_has_landed
old=$daemon_pid
kill -9 "$old"
check "the killed daemon is still in the kernel" eval "! is_gone $old"
: >"$dir/log"
launch
check "the next one waits for it" wait_log 'waiting up to'
check "and serves nothing meanwhile" eval '! grep -q "is served" "$dir/log"'
check "though it is asked to before the last write has landed" eval "! is_gone $old"
timeout 60 qemu-io -f raw -c 'read -q -P 0x5a 7M 4k' "$uri" >"$dir/reader" 2>&1 &
reader=$!
check "it serves" wait_log 'd1 is served'
check "when the last one is gone" is_gone "$old"
wait $reader
check "the client that came too early is answered" [ $? -eq 0 ]
throttle 0
kill -9 $client 2>/dev/null
wait $client 2>/dev/null
client=
wait "$old" 2>/dev/null
api GET /v1/disks
check "no disk has an error" eval \
	'jq -e ".disks[0] | .state == \"attached\" and .error == null" "$dir/body" >/dev/null'

# ---- another program has the disk ----

stop_daemon
python3 - "$dir/slow/d.img" <<'EOF_PYTHON' &
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
F_OFD_SETLK = 37
lock = struct.pack("hhqqhxxxx", fcntl.F_WRLCK, os.SEEK_SET, 201, 1, 0)
fcntl.fcntl(fd, F_OFD_SETLK, lock)
time.sleep(2)
EOF_PYTHON
other=$!
for _ in $(seq 100); do
	grep -q OFDLCK "/proc/$other/fdinfo/3" 2>/dev/null && break
	sleep 0.02
done
: >"$dir/log"
launch
check "it is said" wait_log 'd1 waits: '
check "who has it is named" grep -q "process $other" "$dir/log"
check "it is waited for" wait_log 'd1 is served'
wait $other
wait_log 'is ready'
stop_daemon
finish
