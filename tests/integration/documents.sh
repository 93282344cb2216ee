#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# documents.sh - what the documents say about the code is still so: the page of errors, the stages
# of the tour, files that are named, rules that are guarded, links, make targets.
# shellcheck disable=SC2016  # Markdown's backticks
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
report()
{
	if [ -s "$work/bad" ]; then
		printf 'FAIL: %s\n' "$1"
		sed 's/^/  /' "$work/bad"
		bad=1
	else
		printf '[       OK ] %s\n' "$1"
	fi
}
documents=(README.md CONTRIBUTING.md docs/*.md)

tools/errors-doc.sh >"$work/errors" || echo "the script fails" >>"$work/errors"
diff docs/ERRORS.md "$work/errors" >"$work/bad"
report "docs/ERRORS.md is the catalogue ('make errors-doc' makes it)"

# Every row of the catalogue is on the page, whatever the script thinks of it.
grep -oE 'ERR_ROW\((ERR_[A-Z_]+), *[0-9]+' blkmirror/base/err_ids.h |
	sed -E 's/ERR_ROW\((.*), *([0-9]+)/BM-\2 | `\1`/' |
	while read -r row; do
		grep -qF "| $row |" docs/ERRORS.md || echo "$row"
	done >"$work/bad"
report "no error is missing on the page"

: >"$work/bad"
tools/tour.sh >"$work/tour" || grep 'no comment' "$work/tour" >"$work/bad"
report "each stage of the tour is tagged in the code"

# Files that are named as `name.c`; a star stands for anything.
find . -path ./build -prune -o -path ./.git -prune -o -type f -printf '%P\n' >"$work/files"
grep -ohE '`[A-Za-z0-9_./*-]+\.(c|h|sh|mk|mut)`' "${documents[@]}" | tr -d '`' | sort -u |
	while read -r name; do
		pattern=${name//./\\.}
		pattern=${pattern//\*/[^/]*}
		# The recipes name files that do not exist: with a word in capitals, or a number N.
		[[ $name =~ [A-Z]|rN- ]] || grep -qE "(^|/)$pattern$" "$work/files" || echo "$name"
	done >"$work/bad"
report "files that the documents name exist"

grep -ohE '\]\([^)#]+\)' README.md CONTRIBUTING.md | tr -d '])(' | while read -r link; do
	[ -e "$link" ] || echo "$link"
done >"$work/bad"
grep -ohE '\]\([^)#]+\)' docs/*.md | tr -d '])(' | while read -r link; do
	[ -e "docs/$link" ] || echo "docs/$link"
done >>"$work/bad"
report "links lead somewhere"

sed -n 's/^# rule: //p' tests/mutations/*.mut | sort -u | while read -r rule; do
	case $rule in
	R*) grep -q "^| $rule |" docs/ARCHITECTURE.md || echo "$rule" ;;
	*' '*) tr '\n' ' ' <docs/ARCHITECTURE.md | grep -qF "$rule" || echo "$rule" ;;
	*) grep -qE "\b$rule\b" docs/ARCHITECTURE.md || echo "$rule" ;;
	esac
done >"$work/bad"
report "each rule with a mutation stands in docs/ARCHITECTURE.md"

# R1 to R13, R-J1 to R-J7: each has at least one, and a row of the table says so.
for rule in R{1..13} R-J{1..7}; do
	grep -qx "# rule: $rule" tests/mutations/*.mut || echo "no mutation breaks $rule"
	grep -q "^| $rule |" docs/ARCHITECTURE.md || echo "docs/ARCHITECTURE.md lacks $rule"
done >"$work/bad"
report "each rule has a mutation that breaks it"

# A row's `r4-*` must find at least one mutation.
grep -oE '`[a-z]+[0-9]+-\*`' docs/ARCHITECTURE.md | tr -d '`' | sort -u | while read -r pattern; do
	compgen -G "tests/mutations/$pattern.mut" >/dev/null || echo "$pattern"
done >"$work/bad"
report "the mutations that it names exist"

sed -nE 's/^\.PHONY: //p' Makefile ./*/*.mk | tr ' ' '\n' | sort -u >"$work/targets"
grep -ohE '(^    |`)make [a-z][a-z-]+' "${documents[@]}" | sed 's/.*make //' | sort -u |
	comm -13 "$work/targets" - >"$work/bad"
report "make targets that the documents name exist"

make --no-print-directory help >"$work/help"
grep -hE '^[a-z-]+:.*##' Makefile ./*/*.mk | sed 's/:.*//' | while read -r target; do
	grep -qE "^  $target " "$work/help" || echo "$target"
done >"$work/bad"
report "'make help' lists each target that explains itself"
exit $bad
