#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-layers.sh [DIR] - who includes whom: the rooms of docs/ARCHITECTURE.md, enforced.
#
# Every #include of ours is written in quotes and from the top folder, leads to a room that the
# includer's room may know, and a *_private.h is included from its own folder only.  tests/ may
# include everything; nothing includes tests/.  DIR: another tree, for the test of this check.
set -u
cd "${1:-$(dirname "$0")/..}" || exit 1

below='blkmirror/blkdev blkmirror/base'
mirror='blkmirror/mirror blkmirror/journal blkmirror/export'
# Room: what it may include beside itself.  The program folders of tools/ know tools/common only.
rooms="
blkmirror/base:
blkmirror/blkdev: blkmirror/base
blkmirror/mirror: blkmirror/journal $below
blkmirror/journal: $below
blkmirror/export: $below
vmfs: $below
datastores: vmfs $mirror $below
vmotion: datastores vmfs $mirror $below
tools/common: vmotion datastores vmfs $mirror $below
tools/*: tools/common vmotion datastores vmfs $mirror $below
tests: *
"

found=$(mktemp)
trap 'rm -f "$found"' EXIT
# C sources only: what a comment or a script says about includes is no include.
find blkmirror datastores vmfs vmotion tools tests -name '*.[ch]' -print0 2>/dev/null | sort -z |
	xargs -0r grep -HnE '^[[:space:]]*#[[:space:]]*include' >"$found"

awk -v rooms="$rooms" '
function room_of(path)
{
	if (path ~ /^tests\//)
		return "tests"
	if (path ~ /^(blkmirror|tools)\/[^\/]+\//)
		return two_parts(path)
	sub(/\/.*/, "", path)
	return path
}

function two_parts(path,    part)
{
	split(path, part, "/")
	return part[1] "/" part[2]
}

function dir_of(path)
{
	sub(/\/[^\/]*$/, "", path)
	return path
}

function rule_of(room)
{
	if (room in may)
		return room
	return room ~ /^tools\// ? "tools/*" : ""
}

function exists(path,    line, rc)
{
	rc = (getline line < path)
	close(path)
	return rc >= 0
}

function bad(what)
{
	printf "%s:%s: %s\n", file, number, what
	count++
}

function judge(included, quoted,    from, to, rule)
{
	from = room_of(file)
	if (!quoted) {
		if (included ~ /^(blkmirror|datastores|vmfs|vmotion|tools|tests)\//)
			bad("<" included ">: our own headers stand in quotes")
		return
	}
	# The test guest is built by itself and knows nothing but its own folder.
	if (from == "tests" && included !~ /\// && exists(dir_of(file) "/" included))
		return
	if (!exists(included)) {
		bad("\"" included "\" is no file, seen from the top folder")
		return
	}
	to = room_of(included)
	rule = rule_of(from)
	if (rule == "") {
		bad("the room " from "/ is not known: give it its place in tests/check-layers.sh")
		return
	}
	if (to != from && may[rule] !~ /[*]/ && index(" " may[rule] " ", " " to " ") == 0)
		bad(from "/ may not include " to "/ (" included ")")
	if (included ~ /_private\.h$/ && from != "tests" && dir_of(included) != dir_of(file))
		bad(included " is private to " dir_of(included) "/")
}

BEGIN {
	lines = split(rooms, line, "\n")
	for (i = 1; i <= lines; i++) {
		at = index(line[i], ":")
		if (at)
			may[substr(line[i], 1, at - 1)] = substr(line[i], at + 1)
	}
}

{
	split($0, part, ":")
	file = part[1]
	number = part[2]
	text = substr($0, length(file) + length(number) + 3)
	seen++
	if (match(text, /"[^"]+"/))
		judge(substr(text, RSTART + 1, RLENGTH - 2), 1)
	else if (match(text, /<[^>]+>/))
		judge(substr(text, RSTART + 1, RLENGTH - 2), 0)
	else
		bad("an #include that names no file")
}

END {
	if (!seen) {
		print "no source was found"
		exit 1
	}
	exit count > 0
}' "$found"
failed=$?
[ $failed -eq 0 ] || failed=1
[ -z "${CHECK_TOTALS:-}" ] || echo "$((1 - failed)) $failed 0" >>"$CHECK_TOTALS"
echo "layers: $((1 - failed)) passed, $failed failed, 0 skipped"
exit $failed
