#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-long.sh SIM_PROGRAM... - the campaigns, in MINUTES (30) together:
#
#   mutations   all, once
#   scripts     tests/integration/long/*.sh, once each, those whose '# minutes: N' still fit
#   simulation  fresh seeds, three fifths of the time that is left; a failure prints its seed
#   fuzzing     the rest, shared among the fuzzers
#
# The last line is 'N passed, N failed, N skipped'.
set -u
make=${MAKE:-make}
end=$((SECONDS + ${MINUTES:-30} * 60))
outer=${CHECK_TOTALS:-}
totals=$(mktemp "${TMPDIR:-/tmp}/blkmirror-long.XXXXXX")
trap 'rm -f "$totals"' EXIT
trap 'exit 130' INT TERM
export CHECK_TOTALS=$totals

left()
{
	local seconds=$((end - SECONDS))
	echo $((seconds > 0 ? seconds : 0))
}

# Seeds nobody has tried before, as far as the clock can tell; each batch says where it began.
simulate()
{
	local until=$((SECONDS + $1)) first
	first=$(date +%s%N)
	while :; do             # once at least
		SEEDS=${LONG_SEEDS:-2000} FIRST_SEED=$first CHECK_TIMEOUT=3600 tests/run-sim.sh "${@:2}" || return
		first=$((first + ${LONG_SEEDS:-2000}))
		[ $SECONDS -lt $until ] || return 0
	done
}

fuzz()
{
	local fuzzers
	fuzzers=$(find tests/fuzz -name 'fuzz_*.c' | wc -l)
	[ "$fuzzers" -gt 0 ] || return 0
	# Building them takes its own time; a second each is the least.
	"$make" --no-print-directory check-fuzz FUZZ_SECONDS=$(($(left) / fuzzers + 1))
}

rc=0
printf '==> mutations\n'
"$make" --no-print-directory check-mutations </dev/null || rc=1

printf '\n==> long scripts\n'
for script in tests/integration/long/*.sh; do
	[ -e "$script" ] || continue
	minutes=$(sed -n 's/^# minutes: //p' "$script")
	if [ "$(left)" -lt $((minutes * 60)) ]; then
		printf 'SKIP  %s: it wants %d minutes\n' "$(basename "$script" .sh)" "$minutes"
		echo '0 0 1' >>"$totals"
		continue
	fi
	CHECK_TIMEOUT=$(left) CHECK_LOGS=${BUILD:-build}/logs tests/run.sh long "$script" || rc=1
done

printf '\n==> simulation, fresh seeds\n'
simulate $(($(left) * 3 / 5)) "$@" || rc=1

printf '\n==> fuzzing\n'
fuzz </dev/null || rc=1

read -r passed failed skipped <<<"$(awk '{ p += $1; f += $2; s += $3 }
	END { printf "%d %d %d\n", p, f, s }' "$totals")"
[ "$failed" -gt 0 ] || [ $rc -eq 0 ] || failed=1
[ -z "$outer" ] || echo "$passed $failed $skipped" >>"$outer"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
