#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run-sim.sh PROGRAM... - run each simulation over SEEDS seeds, or only SEED.  Every seed is a case.
set -u
passed=0 failed=0
for program in "$@"; do
	name=$(basename "$program")
	if [ -n "${SEED:-}" ]; then
		count=1 first=$SEED
	else
		count=${SEEDS:-300} first=${FIRST_SEED:-1}
	fi
	echo "$name: seeds $first to $((first + count - 1))"
	# shellcheck disable=SC2086
	if timeout -k 10 "${CHECK_TIMEOUT:-1800}" ${RUN_UNDER:-} "$program" "$count" "$first" </dev/null; then
		passed=$((passed + count))
	else
		failed=$((failed + 1))
		echo "FAIL  $name"
	fi
done
[ -z "${CHECK_TOTALS:-}" ] || echo "$passed $failed 0" >>"$CHECK_TOTALS"
echo "sim: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
