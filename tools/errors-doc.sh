#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# errors-doc.sh - docs/ERRORS.md, from the catalogue in blkmirror/base/err_ids.h, to stdout.
set -eu
cd "$(dirname "$0")/.."
catalogue=blkmirror/base/err_ids.h

cat <<'HEAD'
# Errors

Every refusal and failure that you can meet has an id that never changes, a cause (written where it
happened, with names and numbers) and a remedy. Below are the remedies as the catalogue has them; the
program often gives a more exact one. `status` is the HTTP status of the API's answer.

This page is made by `make errors-doc` from `blkmirror/base/err_ids.h`; a test compares the two.
HEAD

# The ranges are the header's own words: "10xx usage and general      11xx datastores ...".
awk '
function close_text(text)
{
	gsub(/\\"/, "\"", text)
	gsub(/[|]/, "\\|", text)
	return text
}

/^ \*   ?[0-9][0-9]xx / {
	line = $0
	while (match(line, /[0-9][0-9]xx /)) {
		range = substr(line, RSTART, 2)
		line = substr(line, RSTART + 5)
		title = line
		sub(/   *.*/, "", title)
		sub(/ *$/, "", title)
		titles[range] = title
	}
}

/^[ \t]*ERR_ROW\(/ {
	symbol = $0
	sub(/^[ \t]*ERR_ROW\(/, "", symbol)
	sub(/,.*/, "", symbol)
	split($0, part, ",")
	number = part[2] + 0
	status = part[3] + 0
	remedy = $0
	sub(/^[^"]*"/, "", remedy)
	sub(/"\)[ \t]*\\?[ \t]*$/, "", remedy)
	range = substr(number "", 1, 2)
	if (range != last) {
		if (titles[range] == "") {
			print "no title for the range " range "xx" >"/dev/stderr"
			exit 1
		}
		printf "\n## %sxx: %s\n\n| id | name | status | remedy |\n|---|---|---|---|\n", range, titles[range]
		last = range
	}
	printf "| BM-%d | `%s` | %d | %s |\n", number, symbol, status, close_text(remedy)
	rows++
}

END { if (!rows) exit 1 }' "$catalogue"
