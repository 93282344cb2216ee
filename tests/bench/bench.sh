#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bench.sh [list | NAME...] - measure side by side with peers; docs/PERFORMANCE.md explains.
#
# BENCH_SIZE   of the copied disk (4G; quick: 512M)   BENCH_RUNS       of each side (5; quick: 2)
# BENCH_QUICK  1: a try in about two minutes          BENCH_STUN_RUNS  switch-overs (60; quick: 10)
# BENCH_STORE  disk | throttled                       BENCH_THROTTLE_MB  of the latter (400)
# BENCH_BASELINE  another build's bench_move, to be the peer: before and after in one run
# BENCH_DIR    where the disks go                     BENCH_OUT        build/bench.json
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/bench/lib.sh
. tests/bench/lib.sh

names=(copy export guest-fixed guest-closed stun)

settings()
{
	local size=4G runs=5

	if [ "${BENCH_QUICK:-0}" = 1 ]; then
		size=512M
		runs=2
	fi
	BENCH_SIZE_BYTES=$(numfmt --from=iec "${BENCH_SIZE:-$size}")
	BENCH_SIZE_BYTES=$((BENCH_SIZE_BYTES & ~((4 << 20) - 1)))
	((BENCH_SIZE_BYTES >= 64 << 20)) || { say "bench: BENCH_SIZE is at least 64M"; exit 2; }
	BENCH_RUNS=${BENCH_RUNS:-$runs}
	BENCH_STORE=${BENCH_STORE:-disk}
	BENCH_THROTTLE_MB=${BENCH_THROTTLE_MB:-400}
	BENCH_OUT=${BENCH_OUT:-build/bench.json}
	export BENCH_SIZE_BYTES BENCH_RUNS
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
	*) say "bench: no benchmark '$1'; there are: ${names[*]}"; return 2 ;;
	esac
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
settings
need_programs
BENCH_RESULTS=$(mktemp)
export BENCH_RESULTS
trap finish EXIT
trap 'exit 130' INT TERM
store_open
say "machine: $(nproc) CPUs, load $(cut -d' ' -f1-3 /proc/loadavg), Linux $(uname -r)," \
	"$(qemu-storage-daemon --version | head -1)"
store_fill_source
failed=()
for name; do
	run_one "$name" || failed+=("$name")
done
python3 tests/bench/report.py "$BENCH_RESULTS" "$BENCH_OUT"
[ ${#failed[@]} = 0 ] || { say "bench: failed: ${failed[*]}"; exit 1; }
