#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mutate.sh [--quick | NAME...] - break each rule on purpose and see a suite notice.
#
# Without names all mutations; --quick: of each rule one, the first by name.
#
# A mutation is a file tests/mutations/NAME.mut:
#     # rule: R1          which rule it breaks
#     # file: PATH        what it changes
#     # by: PROGRAM ARGS  what must fail; default: tests/sim/sim_mover 400
#     sed commands        (-E), which must change the file and leave it compiling
# Each runs on a copy of the tree.  A mutation that nothing notices is a failure of the tests.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/blkmirror-mutate.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$top" || exit 1
if [ $# -eq 0 ]; then
	set -- tests/mutations/*.mut
elif [ "$1" = --quick ]; then
	mapfile -t first <<<"$(grep -m1 -H '^# rule: ' tests/mutations/*.mut | sort -t: -k3 -k1,1 |
		awk -F': ' '!seen[$2]++ { sub(/:.*/, ""); print }')"
	set -- "${first[@]}"
else
	set -- "${@/#/tests/mutations/}"
	set -- "${@/%/.mut}"
fi
make -s build/libblkmirror.a build/libtest.a >/dev/null || exit 1
mkdir -p "$work/build"
cp -a Makefile packaging blkmirror datastores vmfs vmotion tests "$work/" 2>/dev/null
[ -d tools ] && cp -a tools "$work/"
cp -a build/obj "$work/build/"
caught=0 missed=0
for mutation in "$@"; do
	name=$(basename "$mutation" .mut)
	rule=$(sed -n 's/^# rule: //p' "$mutation")
	file=$(sed -n 's/^# file: //p' "$mutation")
	by=$(sed -n 's/^# by: //p' "$mutation")
	by=${by:-tests/sim/sim_mover 400}
	if [[ $by$file == *$'\n'* ]]; then
		echo "STALE  $rule $name: names more than one file or program"
		missed=$((missed + 1))
		continue
	fi
	cp -p "$file" "$work/original"
	sed -E -f "$mutation" "$file" >"$work/$file"
	if cmp -s "$file" "$work/$file"; then
		echo "STALE  $rule $name: changes nothing in $file"
		missed=$((missed + 1))
		continue
	fi
	# Warnings are allowed: what a mutation cuts off may leave something unused.
	if ! make -s -C "$work" "build/${by%% *}" DEVELOPER= >"$work/log" 2>&1; then
		echo "STALE  $rule $name: does not compile"
		tail -n 5 "$work/log" | sed 's/^/       /'
		missed=$((missed + 1))
	elif (cd "$work" && timeout -k 5 300 build/$by) >"$work/log" 2>&1 </dev/null; then
		echo "MISSED $rule $name: nothing noticed"
		missed=$((missed + 1))
	else
		echo "caught $rule $name: $(grep -m1 -E 'CHECK failed|FAILED|ERROR|holds write' "$work/log" | cut -c1-110)"
		caught=$((caught + 1))
	fi
	cp -p "$work/original" "$work/$file"
	touch "$work/$file"
done
[ -z "${CHECK_TOTALS:-}" ] || echo "$caught $missed 0" >>"$CHECK_TOTALS"
echo "mutations: $caught passed, $missed failed, 0 skipped"
[ $missed -eq 0 ]
