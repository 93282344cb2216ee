# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# yardstick.sh - a store that does not wander: two ext4 file systems on loop devices on tmpfs,
# each held to BENCH_THROTTLE_MB MB/s and BENCH_THROTTLE_IOPS requests a second, reads and
# writes apart, by cgroup v1's blkio.throttle.  Root only.  This shell and all that it starts
# are in the cgroup until yardstick_close, which undoes whatever part of it was made.

yardstick_loops=()
yardstick_mounts=()
yardstick_cgroup=
yardstick_old_cgroup=
yardstick_dir=

# yardstick_lacks BYTES: why it cannot be made here; nothing: it can.
yardstick_lacks()
{
	local need=$1 free

	if [ "$(id -u)" != 0 ]; then
		echo "it takes root"
	elif [ ! -w /sys/fs/cgroup/blkio/cgroup.procs ]; then
		echo "there is no cgroup v1 blkio at /sys/fs/cgroup/blkio"
	elif ! command -v losetup mkfs.ext4 >/dev/null; then
		echo "losetup or mkfs.ext4 is missing"
	elif ! losetup --find >/dev/null 2>&1; then
		echo "there is no loop device to be had"
	else
		free=$(df --output=avail -B1 /dev/shm | tail -1)
		((free >= need)) ||
			echo "/dev/shm has $((free >> 20)) MiB of the $((need >> 20)) MiB needed"
	fi
}

# yardstick_mount NAME BYTES
yardstick_mount()
{
	local image=$yardstick_dir/$1.img mount=$yardstick_dir/$1 loop

	# Its memory now, not while the first copy is timed.
	fallocate -l "$2" "$image" || return 1
	loop=$(losetup --find --show "$image") || return 1
	yardstick_loops+=("$loop")
	mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$loop" || return 1
	mkdir "$mount" || return 1
	mount "$loop" "$mount" || return 1
	yardstick_mounts+=("$mount")
}

yardstick_throttle()
{
	local numbers loop kind

	yardstick_old_cgroup=/sys/fs/cgroup/blkio$(sed -n 's/^[0-9]*:blkio://p' /proc/self/cgroup)
	mkdir "/sys/fs/cgroup/blkio/blkmirror-bench-$$" || return 1
	yardstick_cgroup=/sys/fs/cgroup/blkio/blkmirror-bench-$$
	for loop in "${yardstick_loops[@]}"; do
		numbers=$(lsblk -dno MAJ:MIN "$loop" | tr -d ' ')
		for kind in read write; do
			echo "$numbers $((BENCH_THROTTLE_MB * 1000000))" \
				>"$yardstick_cgroup/blkio.throttle.${kind}_bps_device" || return 1
			echo "$numbers $BENCH_THROTTLE_IOPS" \
				>"$yardstick_cgroup/blkio.throttle.${kind}_iops_device" || return 1
		done
	done
	echo $$ >"$yardstick_cgroup/cgroup.procs"
}

# yardstick_open BYTES: of each of the two file systems.  Sets BENCH_SOURCE_DIR, BENCH_TARGET_DIR.
yardstick_open()
{
	yardstick_dir=$(mktemp -d /dev/shm/bm-bench-XXXXXX) || return 1
	yardstick_mount source "$1" || return 1
	yardstick_mount target "$1" || return 1
	yardstick_throttle || return 1
	export BENCH_SOURCE_DIR=$yardstick_dir/source BENCH_TARGET_DIR=$yardstick_dir/target
}

yardstick_close()
{
	local mount loop

	if [ -n "$yardstick_cgroup" ]; then
		echo $$ >"$yardstick_old_cgroup/cgroup.procs"
		rmdir "$yardstick_cgroup" || say "bench: left behind: $yardstick_cgroup"
	fi
	for mount in "${yardstick_mounts[@]}"; do
		umount "$mount" || say "bench: left behind: $mount"
	done
	for loop in "${yardstick_loops[@]}"; do
		losetup -d "$loop" || say "bench: left behind: $loop"
	done
	[ -z "$yardstick_dir" ] || rm -rf --one-file-system "$yardstick_dir"
	yardstick_loops=() yardstick_mounts=() yardstick_cgroup='' yardstick_dir=''
}
