#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tour.sh - four paths through the code, in order, as FILE:LINE to follow with a finger.
#
# A stage is a comment that begins with its tag: "W6: settle", "S3, S4: drain, settle".
# A stage that nobody's comment names any more ends the tour with exit 1: when code moves, its tag
# moves along.
set -u
cd "$(dirname "$0")/.." || exit 1

tags=$(grep -rnE '/\* (---- )?[WCSP][1-9](, [WCSP][1-9])*: ' --include='*.[ch]' blkmirror datastores vmotion |
	sed -E 's#^([^:]*):([0-9]+):[[:space:]]*/\* (---- )?([WCSP0-9, ]+): (.*[^ -])[ -]*\*/.*#\4\t\1:\2\t\5#' | LC_ALL=C sort -t$'\t' -k2,2)
missing=0

# path TITLE LETTER COUNT
path()
{
	local stage lines
	printf '\n%s\n\n' "$1"
	for stage in $(seq -f "$2%g" "$3"); do
		lines=$(grep -E "^([^	]*, )?$stage[,	]" <<<"$tags")
		if [ -z "$lines" ]; then
			printf '  %s  no comment names this stage\n' "$stage"
			missing=1
			continue
		fi
		awk -F'\t' -v stage="$stage" '{ printf "  %s  %-42s %s\n", stage, $2, $3 }' <<<"$lines"
	done
}

path "One guest write" W 7
path "One copied run" C 7
path "The switch-over" S 7
path "One page of memory" P 6
printf '\nThe words behind it: docs/ARCHITECTURE.md\n'
exit $missing
