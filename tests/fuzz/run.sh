#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh WORK FUZZER... - run each fuzzer for FUZZ_SECONDS (default 10) and close with one plain line.
#
# Seeds are read from tests/fuzz/corpus/NAME; what a fuzzer finds itself is kept in WORK/corpus/NAME,
# an input that breaks something in WORK/artifacts.  Without a fuzzer (no clang) all are skipped.
set -u
work=$1
shift
seconds=${FUZZ_SECONDS:-10}
passed=0 failed=0 skipped=0
mkdir -p "$work/artifacts" "$work/logs"
for fuzzer in "$@"; do
	name=$(basename "$fuzzer")
	log=$work/logs/$name.log
	seeds=tests/fuzz/corpus/$name
	if [ ! -x "$fuzzer" ]; then
		skipped=$((skipped + 1))
		printf 'SKIP  %s: it was not built: clang with libFuzzer is missing\n' "$name"
		continue
	fi
	mkdir -p "$work/corpus/$name"
	[ -d "$seeds" ] || seeds=
	# shellcheck disable=SC2086
	if timeout -k 10 $((seconds + 120)) "$fuzzer" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
		-print_final_stats=1 -artifact_prefix="$work/artifacts/$name-" "$work/corpus/$name" $seeds \
		>"$log" 2>&1 </dev/null; then
		passed=$((passed + 1))
		printf 'ok    %s (%s inputs)\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s: see %s\n' "$name" "$log"
		tail -n 60 "$log" | sed 's/^/      /'
	fi
done
[ -z "${CHECK_TOTALS:-}" ] || echo "$passed $failed $skipped" >>"$CHECK_TOTALS"
printf 'fuzz: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ $failed -eq 0 ]
