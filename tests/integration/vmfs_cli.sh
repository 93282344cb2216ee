#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vmfs_cli.sh - vmfsctl's command line: help, exit codes, errors, and its manual page.
set -u
cd "$(dirname "$0")/../.." || exit 1
ctl=${BUILD:-build}/bin/vmfsctl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
code() # WANTED WORDS...
{
	local rc=0
	timeout 60 "$ctl" "${@:2}" >"$work/out" 2>"$work/err" || rc=$?
	if [ $rc -eq "$1" ]; then
		printf '[       OK ] exit %s: %s\n' "$1" "${*:2}"
	else
		printf 'FAIL: exit %s, not %s: %s\n' $rc "$1" "${*:2}"
		cat "$work/out" "$work/err"
		bad=1
	fi
}
says() # TEXT: the last command's error
{
	grep -qF "$1" "$work/err" && return
	printf "FAIL: no '%s' in:\n" "$1"
	cat "$work/err"
	bad=1
}

code 2
code 0 --help
code 0 --version
code 2 nonsense /x
code 2 ls
code 2 ls --nonsense /x
code 2 cat /x y z
code 2 mkfs --label
code 1 info /nowhere
says BM-1904
code 1 mkfs --version 6 --size 300MiB "$work/v"
says BM-1902
code 1 mkfs --size 200MiB "$work/v"
says BM-1913
rm -f "$work/v"
code 1 mkfs --size 300MiB --files 5 "$work/v"
says BM-1914
rm -f "$work/v"
code 0 mkfs --size 300MiB --label 'a label' --files 100 "$work/v"
code 1 mkfs --size 300MiB "$work/v"
code 0 fsck "$work/v"
code 0 info "vmfs://$work/v"
code 1 info "vmfs://$work/v?nonsense=1"
says BM-1102
code 1 ls "$work/v" nowhere
says BM-1907
code 1 mkdir "$work/v" /
says BM-1912
code 0 mkdir "$work/v" folder
code 1 mkdir "$work/v" folder
says BM-1908
code 1 cat "$work/v" folder
says BM-1909
code 0 put "$work/v" Makefile folder/Makefile
code 1 rm "$work/v" folder
says BM-1910
code 1 rm "$work/v" .fbb.sf
says BM-1909
code 1 get "$work/v" folder/Makefile Makefile
says BM-1018
# One bit of the bitmap: a block is lost, and only looked at.
python3 - "$work/v" <<-'P'
	import sys
	f = open(sys.argv[1], 'r+b')
	f.seek(0x1100000 + 0x610000 + 0x210 + 20)
	byte = f.read(1)[0]
	f.seek(-1, 1)
	f.write(bytes([byte & 0x7f]))
	P
code 3 fsck "$work/v"
grep -q '^lost  *1$' "$work/out" || { echo "FAIL: the lost block is not told"; cat "$work/out"; bad=1; }
dd if=/dev/zero of="$work/v" bs=512 seek=2048 count=1 conv=notrunc status=none
code 1 info "$work/v"
says BM-1900

# Each verb has help, and stands in the manual page with each of its options.
"$ctl" --help | sed -nE 's/^  ([a-z]+) .*/\1/p' >"$work/verbs"
[ "$(wc -l <"$work/verbs")" -ge 15 ] || { echo "FAIL: verbs are missing"; bad=1; }
while read -r verb; do
	"$ctl" "$verb" --help >"$work/help" </dev/null || { echo "FAIL: no help for $verb"; bad=1; }
	grep -q "^\.It Cm $verb\b" man/vmfsctl.8 || { echo "FAIL: no $verb in its page"; bad=1; }
	for option in $(grep -oE -- '--[a-z]+|\[-[a-z]\]' "$work/help" | tr -d '[]'); do
		grep -qE "Fl (\\\\-)?${option##*-}\b" man/vmfsctl.8 ||
			{ echo "FAIL: no $option in its page"; bad=1; }
	done
done <"$work/verbs"
exit $bad
