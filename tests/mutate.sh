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
# As many run beside each other as there are processors (MUTATE_JOBS), in a tree each.
set -u
cd "$(dirname "$0")/.." || exit 1

# ---- a worker: its share, one after the other; the last line is 'CAUGHT MISSED' ----

work=

clean_up()
{
	rm -rf "$work"
}

make_tree()
{
	work=$(mktemp -d "${TMPDIR:-/tmp}/blkmirror-mutate.XXXXXX") || exit 1
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	mkdir -p "$work/build"
	cp -a Makefile packaging blkmirror datastores vmfs vmotion tests tools "$work/" &&
		cp -a build/obj "$work/build/" || exit 1
}

# field NAME FILE: what a mutation says of itself
field()
{
	sed -n "s/^# $1: //p" "$2" 2>/dev/null
}

# Says what became of it; true: it was noticed.
mutate()
{
	local mutation=$1 name rule file by
	name=$(basename "$mutation" .mut)
	rule=$(field rule "$mutation")
	file=$(field file "$mutation")
	by=$(field by "$mutation")
	by=${by:-tests/sim/sim_mover 400}
	if [ ! -f "$mutation" ]; then
		echo "STALE  $name: there is no such mutation"
		return 1
	fi
	if [[ $by$file == *$'\n'* ]]; then
		echo "STALE  $rule $name: names more than one file or program"
		return 1
	fi
	sed -E -f "$mutation" "$file" >"$work/$file"
	if cmp -s "$file" "$work/$file"; then
		echo "STALE  $rule $name: changes nothing in $file"
		return 1
	fi
	# Warnings are allowed: what a mutation cuts off may leave something unused.
	if ! make -s -C "$work" "build/${by%% *}" DEVELOPER= >"$work/log" 2>&1; then
		echo "STALE  $rule $name: does not compile"
		tail -n 5 "$work/log" | sed 's/^/       /'
		return 1
	fi
	# shellcheck disable=SC2086 # BY is a program and its arguments
	if (cd "$work" && exec timeout -k 5 300 build/$by) >"$work/log" 2>&1 </dev/null; then
		echo "MISSED $rule $name: nothing noticed"
		return 1
	fi
	echo "caught $rule $name: $(grep -m1 -E 'CHECK failed|FAILED|ERROR|holds write' "$work/log" | cut -c1-110)"
}

worker()
{
	local caught=0 missed=0 mutation file
	make_tree
	for mutation; do
		if mutate "$mutation"; then
			caught=$((caught + 1))
		else
			missed=$((missed + 1))
		fi
		file=$(field file "$mutation")
		[ ! -f "$file" ] || { cp -p "$file" "$work/$file" && touch "$work/$file"; }
	done
	echo "$caught $missed" >"$sums/$BASHPID"
}

# ---- all of them ----

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
sums=$(mktemp -d "${TMPDIR:-/tmp}/blkmirror-sums.XXXXXX") || exit 1
trap 'rm -rf "$sums"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 130' INT TERM
jobs_max=${MUTATE_JOBS:-$(nproc)}
for ((share = 0; share < jobs_max && share < $#; share++)); do
	mine=()
	for ((i = share + 1; i <= $#; i += jobs_max)); do
		mine+=("${!i}")
	done
	(worker "${mine[@]}") &
done
wait
caught=$(cat "$sums"/* | awk '{ sum += $1 } END { print sum + 0 }')
# What a worker that died did not get to was not noticed either.
missed=$(($# - caught))
[ -z "${CHECK_TOTALS:-}" ] || echo "$caught $missed 0" >>"$CHECK_TOTALS"
echo "mutations: $caught passed, $missed failed, 0 skipped"
[ "$missed" -eq 0 ]
