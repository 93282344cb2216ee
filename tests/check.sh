#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check.sh PART... - build everything, make each PART, and close with the sum of them all:
# the last line is 'N passed, N failed, N skipped', and nothing else is on it.
#
# Parts go on after one that fails.  A part that fails without saying how often (it does not
# build, say) counts as one failure.  Called by 'make check'; MAKE is the make to use.
set -u
make=${MAKE:-make}
outer=${CHECK_TOTALS:-}
totals=$(mktemp "${TMPDIR:-/tmp}/blkmirror-check.XXXXXX")
trap 'rm -f "$totals"' EXIT
trap 'exit 130' INT TERM
times=()

sum()
{
	awk '{ p += $1; f += $2; s += $3 } END { printf "%d %d %d\n", p, f, s }' "$totals"
}

# part NAME COMMAND...
part()
{
	local name=$1 started=$SECONDS before after rc=0
	shift
	printf '\n==> %s\n' "$name"
	before=$(sum)
	CHECK_TOTALS=$totals "$@" </dev/null || rc=$?
	after=$(sum)
	if [ $rc -ne 0 ] && [ "$(cut -d' ' -f2 <<<"$before")" -eq "$(cut -d' ' -f2 <<<"$after")" ]; then
		echo "FAIL  $name: exit $rc"
		echo '0 1 0' >>"$totals"
	fi
	times+=("$(printf '%6d s  %s' $((SECONDS - started)) "$name")")
	return $rc
}

# Who called with -j has a say; else one job for each processor.
case ${MAKEFLAGS:-} in
*-j*|*jobserver*) jobs= ;;
*) jobs=-j$(nproc) ;;
esac

# shellcheck disable=SC2086
if part build $make --no-print-directory $jobs all tests-build; then
	for name in "$@"; do
		# shellcheck disable=SC2086
		part "$name" $make --no-print-directory "$name" || true
	done
fi

printf '\n'
printf '%s\n' "${times[@]}"
read -r passed failed skipped <<<"$(sum)"
[ -z "$outer" ] || echo "$passed $failed $skipped" >>"$outer"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
