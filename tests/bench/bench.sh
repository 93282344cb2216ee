#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bench.sh [list | NAME...] - measure side by side with peers; docs/PERFORMANCE.md explains.
#
# BENCH_STORE  disk | throttled | both (both); throttled has no export and no stun
# BENCH_SIZE   of the copied disk (4G; quick: 512M)   BENCH_THROTTLED_SIZE  there (1G; quick: 512M)
# BENCH_RUNS   of each side (5; quick: 2)             BENCH_STUN_RUNS  switch-overs (200; quick: 20)
# QUICK        1: a try in about three minutes        BENCH_OUT        build/bench.json
# BENCH_THROTTLE_MB, BENCH_THROTTLE_IOPS              what the throttled store gives (400, 40000)
# BENCH_BASELINE  another build's bench_move, to be the peer: before and after in one run
# BENCH_DIR    where the disks go (build/bench-store)
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/bench/lib.sh
. tests/bench/lib.sh

names=(copy export guest-fixed guest-closed stun)
failed=()

size_bytes()
{
	local bytes

	bytes=$(($(numfmt --from=iec "$1") & ~((4 << 20) - 1)))
	((bytes >= 64 << 20)) || { say "bench: a size is at least 64M"; exit 2; }
	echo "$bytes"
}

settings()
{
	local size=4G throttled_size=1G runs=5

	BENCH_QUICK=${BENCH_QUICK:-${QUICK:-0}}
	if [ "$BENCH_QUICK" = 1 ]; then
		size=512M throttled_size=512M runs=2
	fi
	disk_bytes=$(size_bytes "${BENCH_SIZE:-$size}")
	throttled_bytes=$(size_bytes "${BENCH_THROTTLED_SIZE:-${BENCH_SIZE:-$throttled_size}}")
	BENCH_RUNS=${BENCH_RUNS:-$runs}
	BENCH_STORE=${BENCH_STORE:-both}
	BENCH_THROTTLE_MB=${BENCH_THROTTLE_MB:-400}
	BENCH_THROTTLE_IOPS=${BENCH_THROTTLE_IOPS:-40000}
	BENCH_OUT=${BENCH_OUT:-build/bench.json}
	export BENCH_RUNS BENCH_QUICK
	case $BENCH_STORE in
	disk | throttled | both) ;;
	*) say "bench: BENCH_STORE is disk, throttled or both, not '$BENCH_STORE'"; exit 2 ;;
	esac
}

need_names()
{
	local name

	for name; do
		[[ " ${names[*]} " == *" $name "* ]] && continue
		say "bench: no benchmark '$name'; there are: ${names[*]}"
		exit 2
	done
}

need_programs()
{
	local program

	for program in fio qemu-storage-daemon python3 build/tests/bench/bench_move \
		build/tests/bench/bench_guest; do
		command -v "$program" >/dev/null || skip "no $program here: 'make deps' installs it"
	done
}

run_one()
{
	say "$1:"
	case $1 in
	copy | export | stun) python3 "tests/bench/$1.py" ;;
	guest-fixed | guest-closed) python3 tests/bench/guest.py "${1#guest-}" ;;
	esac
}

run_on_disk()
{
	local name

	export BENCH_SIZE_BYTES=$disk_bytes BENCH_PREFIX=
	store_open_disk
	store_fill_source
	for name; do
		run_one "$name" || failed+=("$name")
	done
	store_close
}

# Its queue is served in slices of milliseconds: no store to measure tails or an export on.
run_on_throttled()
{
	local name

	export BENCH_SIZE_BYTES=$throttled_bytes BENCH_PREFIX=throttled/
	store_open_throttled || return 1
	store_fill_source
	for name; do
		case $name in
		export | stun) ;;
		*) run_one "$name" || failed+=("throttled/$name") ;;
		esac
	done
	store_close
}

finish()
{
	rm -f "${BENCH_RESULTS:-}"
	store_close
}

if [ "${1:-}" = list ]; then
	printf '%s\n' "${names[@]}"
	exit 0
fi
[ $# -gt 0 ] || set -- "${names[@]}"
need_names "$@"
settings
need_programs
BENCH_RESULTS=$(mktemp)
export BENCH_RESULTS
trap finish EXIT
trap 'exit 130' INT TERM
say "machine: $(nproc) CPUs, load $(cut -d' ' -f1-3 /proc/loadavg), Linux $(uname -r)," \
	"$(qemu-storage-daemon --version | head -1)"
if [ "$BENCH_STORE" != disk ]; then
	run_on_throttled "$@" || [ "$BENCH_STORE" = both ] || BENCH_STORE=disk
fi
[ "$BENCH_STORE" = throttled ] || run_on_disk "$@"
python3 tests/bench/report.py "$BENCH_RESULTS" "$BENCH_OUT"
[ ${#failed[@]} = 0 ] || { say "bench: failed: ${failed[*]}"; exit 1; }
