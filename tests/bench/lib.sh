# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# lib.sh - where the benchmarks keep their disks: made, checked for space, and cleaned up.
#
# disk       a directory on the machine's own disk, $BENCH_DIR (default build/bench-store)
# throttled  a store that does not wander: yardstick.sh
# shellcheck source=tests/bench/yardstick.sh
. tests/bench/yardstick.sh

store_dir=

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

store_open_disk()
{
	local base=${BENCH_DIR:-build/bench-store} free need

	mkdir -p "$base"
	free=$(df --output=avail -B1 "$base" | tail -1)
	need=$(store_need_bytes)
	say "store: disk, $base: $((free >> 20)) MiB free, $((need >> 20)) MiB needed"
	((free >= need)) || skip "not enough room in $base: set BENCH_DIR or a smaller BENCH_SIZE"
	store_dir=$(mktemp -d "$(realpath "$base")/run-XXXXXX")
	export BENCH_SOURCE_DIR=$store_dir BENCH_TARGET_DIR=$store_dir
}

# False, and why on stderr, when there can be none.
store_open_throttled()
{
	local lacks

	lacks=$(yardstick_lacks "$(store_need_bytes)")
	if [ -n "$lacks" ]; then
		say "store: no throttled one: $lacks"
		return 1
	fi
	if ! yardstick_open $((BENCH_SIZE_BYTES + BENCH_SIZE_BYTES / 16 + (512 << 20))); then
		yardstick_close
		say "store: no throttled one: it could not be set up"
		return 1
	fi
	say "store: throttled, $BENCH_THROTTLE_MB MB/s, $BENCH_THROTTLE_IOPS requests a second"
}

store_close()
{
	yardstick_close
	[ -z "$store_dir" ] || rm -rf "$store_dir"
	store_dir=
}

# Random bytes: no store and no server can leave anything out.
store_fill_source()
{
	say "source: $((BENCH_SIZE_BYTES >> 20)) MiB of random data"
	dd if=/dev/urandom of="$BENCH_SOURCE_DIR/source.raw" bs=4M iflag=fullblock oflag=direct \
		count=$((BENCH_SIZE_BYTES >> 22)) status=none
}
