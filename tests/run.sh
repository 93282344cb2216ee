#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh SUITE TEST... - run test programs (cmocka or scripts) and close with one plain line.
#
# A test program passes with exit 0, is skipped with exit 77, else fails; cmocka programs are
# counted by their own cases.  Output of a failing program is shown, of others kept in a log.
set -u
suite=$1
shift
passed=0 failed=0 skipped=0
logs=${CHECK_LOGS:-build/logs}/$suite
mkdir -p "$logs"
for test in "$@"; do
	name=$(basename "$test" .sh)
	log=$logs/$name.log
	started=$(date +%s%N)
	# The totals and the make are ours, not of a test that runs such scripts itself.
	# shellcheck disable=SC2086
	env -u CHECK_TOTALS -u MAKEFLAGS -u MFLAGS CMOCKA_MESSAGE_OUTPUT=STDOUT timeout -k 10 "${CHECK_TIMEOUT:-600}" ${RUN_UNDER:-} "$test" >"$log" 2>&1 </dev/null
	rc=$?
	ms=$((($(date +%s%N) - started) / 1000000))
	ok=$(grep -c '^\[       OK \]' "$log")
	bad=$(grep -c '^\[  FAILED  \] .*[^:]$' "$log")
	skip=$(grep -c '^\[  SKIPPED \] ' "$log")
	if [ $rc -eq 77 ]; then
		skipped=$((skipped + 1))
		printf 'SKIP  %s: %s\n' "$name" "$(tail -n 1 "$log")"
	elif [ $rc -eq 0 ]; then
		[ "$ok" -gt 0 ] || ok=1
		passed=$((passed + ok))
		skipped=$((skipped + skip))
		printf 'ok    %s (%d) %d ms\n' "$name" "$ok" "$ms"
	else
		passed=$((passed + ok))
		failed=$((failed + 1))
		printf 'FAIL  %s: exit %d after %d ms\n' "$name" "$rc" "$ms"
		tail -n 60 "$log" | sed 's/^/      /'
	fi
done
[ -z "${CHECK_TOTALS:-}" ] || echo "$passed $failed $skipped" >>"$CHECK_TOTALS"
printf '%s: %d passed, %d failed, %d skipped\n' "$suite" "$passed" "$failed" "$skipped"
[ $failed -eq 0 ]
