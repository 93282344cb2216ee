# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# lib.sh - where the benchmarks keep their disks: made, checked for space, and cleaned up.
#
# disk       a directory on the machine's own disk, $BENCH_DIR (default build/bench-store)
# throttled  two ext4 file systems on loop devices on tmpfs, each held to $BENCH_THROTTLE_MB
#            MB/s by cgroup v1: a yardstick that does not wander.  Root only.

store_dir=
store_loops=()
store_mounts=()
store_cgroup=
store_old_cgroup=

say()
{
	printf '%s\n' "$*" >&2
}

skip()
{
	say "bench: $*"
	exit 77
}

# A copy needs the source and one target; the stun test four small disks.
store_need_bytes()
{
	echo $((2 * BENCH_SIZE_BYTES + BENCH_SIZE_BYTES / 8 + (1 << 30)))
}

store_check_space()
{
	local dir=$1 need=$2 free

	free=$(df --output=avail -B1 "$dir" | tail -1)
	say "store: $BENCH_STORE, $dir: $((free >> 20)) MiB free, $((need >> 20)) MiB needed"
	((free >= need)) || skip "not enough room in $dir: set BENCH_DIR or a smaller BENCH_SIZE"
}

store_open_disk()
{
	local base=${BENCH_DIR:-build/bench-store}

	mkdir -p "$base"
	store_check_space "$base" "$(store_need_bytes)"
	store_dir=$(mktemp -d "$(realpath "$base")/run-XXXXXX")
	export BENCH_SOURCE_DIR=$store_dir BENCH_TARGET_DIR=$store_dir
}

# A loop device on tmpfs with ext4 on it; its mount point is $store_dir/NAME.
store_loop_mount()
{
	local image=$store_dir/$1.img mount=$store_dir/$1 loop

	# Its memory now, not while the first copy is timed.
	fallocate -l $((BENCH_SIZE_BYTES + BENCH_SIZE_BYTES / 16 + (512 << 20))) "$image"
	loop=$(losetup --find --show "$image")
	store_loops+=("$loop")
	mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$loop"
	mkdir "$mount"
	mount "$loop" "$mount"
	store_mounts+=("$mount")
}

store_throttle()
{
	local numbers limit=$((BENCH_THROTTLE_MB * 1000000)) loop kind

	store_cgroup=/sys/fs/cgroup/blkio/blkmirror-bench-$$
	store_old_cgroup=/sys/fs/cgroup/blkio$(sed -n 's/^[0-9]*:blkio://p' /proc/self/cgroup)
	mkdir "$store_cgroup"
	for loop in "${store_loops[@]}"; do
		numbers=$(lsblk -dno MAJ:MIN "$loop" | tr -d ' ')
		for kind in read write; do
			echo "$numbers $limit" >"$store_cgroup/blkio.throttle.${kind}_bps_device"
		done
	done
	echo $$ >"$store_cgroup/cgroup.procs"
}

store_open_throttled()
{
	[ "$(id -u)" = 0 ] || skip "BENCH_STORE=throttled needs root"
	[ -w /sys/fs/cgroup/blkio/cgroup.procs ] || skip "BENCH_STORE=throttled needs cgroup v1 blkio"
	store_check_space /dev/shm "$(store_need_bytes)"
	store_dir=$(mktemp -d /dev/shm/bm-bench-XXXXXX)
	store_loop_mount source
	store_loop_mount target
	store_throttle
	export BENCH_SOURCE_DIR=$store_dir/source BENCH_TARGET_DIR=$store_dir/target
}

store_close()
{
	local mount loop

	if [ -n "$store_cgroup" ]; then
		echo $$ >"$store_old_cgroup/cgroup.procs"
		rmdir "$store_cgroup" || say "bench: left behind: $store_cgroup"
	fi
	for mount in "${store_mounts[@]}"; do
		umount "$mount"
	done
	for loop in "${store_loops[@]}"; do
		losetup -d "$loop"
	done
	[ -z "$store_dir" ] || rm -rf "$store_dir"
}

store_open()
{
	case $BENCH_STORE in
	disk) store_open_disk ;;
	throttled) store_open_throttled ;;
	*) say "bench: BENCH_STORE is 'disk' or 'throttled', not '$BENCH_STORE'"; exit 2 ;;
	esac
}

# Random bytes: no store and no server can leave anything out.
store_fill_source()
{
	say "source: $((BENCH_SIZE_BYTES >> 20)) MiB of random data"
	dd if=/dev/urandom of="$BENCH_SOURCE_DIR/source.raw" bs=4M iflag=fullblock oflag=direct \
		count=$((BENCH_SIZE_BYTES >> 22)) status=none
}
