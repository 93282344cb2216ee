#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# format-check.sh CLANG_FORMAT FILE... - the files that clang-format would change, and by how much.
# Advice, not law: a table or a sentence that reads better by hand stays as it is.
set -u
clang_format=$1
shift
differ=0
for file in "$@"; do
	lines=$("$clang_format" --style=file "$file" | diff "$file" - | grep -c '^[<>]')
	[ "$lines" -eq 0 ] && continue
	printf '%5d lines  %s\n' "$lines" "$file"
	differ=$((differ + 1))
done
printf 'format-check: %d of %d files differ\n' $differ $#
