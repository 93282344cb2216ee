#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vmfs_samples.sh - partition images that real ESXi hosts wrote: listed and read as they should be,
# as Debian's vmfs-tools read them, and not changed by a byte.
#
# The images are not part of the project: VMFS_SAMPLES names the folder that holds
# vmfs5.bin.gz and vmfs6.bin.gz (default: ../shared/samples beside the checkout).
set -u
cd "$(dirname "$0")/../.." || exit 1
ctl=${BUILD:-build}/bin/vmfsctl
samples=${VMFS_SAMPLES:-../shared/samples}
[ -r "$samples/vmfs5.bin.gz" ] && [ -r "$samples/vmfs6.bin.gz" ] ||
	{ echo "no images of real volumes in $samples (VMFS_SAMPLES)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
check()
{
	if "${@:2}" >"$work/out" 2>&1; then
		printf '[       OK ] %s\n' "$1"
	else
		printf 'FAIL: %s\n' "$1"
		sed 's/^/  /' "$work/out"
		bad=1
	fi
}
same() { [ "$1" = "$2" ] || { printf 'wanted: %s\n   got: %s\n' "$2" "$1"; false; }; }
names() { timeout 60 "$ctl" ls "$work/$1" "${2:-/}" | tr '\n' ' '; }
sum() { timeout 60 "$ctl" cat "$work/$1" "$2" | sha256sum; }
refused() { local out rc=0; out=$("$@" 2>&1) || rc=$?; [ $rc -eq 1 ] || { echo "$out"; false; }; }

for v in 5 6; do
	gzip -dc "$samples/vmfs$v.bin.gz" | dd of="$work/$v" conv=sparse bs=64k status=none
	sha256sum "$work/$v" >"$work/$v.sum"
done
content=$(printf 'content\n' | sha256sum)
letters=$( (head -c 8192 /dev/zero | tr '\0' a; echo) | sha256sum)
for v in 5 6; do
	check "VMFS$v: the folder" same "$(names $v directory | tr ' ' '\n' | sort | xargs)" \
		"file1 file2 file3 file4 file5 symlink"
	for file in 1 2 3; do
		check "VMFS$v: file$file is empty" same "$(sum $v directory/file$file)" \
			"$(sha256sum </dev/null)"
	done
	check "VMFS$v: file4, in its descriptor" same "$(sum $v directory/file4)" "$content"
	check "VMFS$v: file5" same "$(sum $v directory/file5)" "$letters"
	check "VMFS$v: the link" grep -q ' symlink -> file4$' <("$ctl" ls -l "$work/$v" directory)
	check "VMFS$v: get" timeout 60 "$ctl" get "$work/$v" directory/file5 "$work/got$v"
	check "VMFS$v: what was got" same "$(sha256sum <"$work/got$v")" "$letters"
	check "VMFS$v: df" timeout 60 "$ctl" df "$work/$v"
	check "VMFS$v: writing is refused" refused timeout 60 "$ctl" mkdir "$work/$v" new
done
check "VMFS5: label" grep -q '^label  *VMFS5 Test$' <("$ctl" info "$work/5")
check "VMFS6: label" grep -q '^label  *VMFS6 Test$' <("$ctl" info "$work/6")
check "VMFS5: the host that has it mounted" grep -q '^slot 984 .*10\.199\.5\.140' <("$ctl" locks "$work/5")
check "VMFS6: nobody has it mounted" grep -qx 'no host uses the volume' <("$ctl" locks "$work/6")
check "VMFS5: the check finds nothing" timeout 60 "$ctl" fsck "$work/5"
if command -v debugvmfs >/dev/null; then
	for file in .fbb.sf .fdc.sf .pbc.sf .sbc.sf .vh.sf .pb2.sf directory/file1 directory/file4 \
		directory/file5; do
		check "VMFS5: $file as debugvmfs reads it" same "$(sum 5 "$file")" \
			"$(timeout 60 debugvmfs "$work/5" cat "/$file" 2>/dev/null | sha256sum)"
	done
	theirs=$(timeout 60 debugvmfs "$work/5" ls -l / 2>/dev/null | awk '$NF !~ /^\.\.?$/ { print $NF, $5 }')
	ours=$(timeout 60 "$ctl" ls -l "$work/5" / | awk '{ print $NF, $5 }')
	check "VMFS5: names and lengths as debugvmfs lists them" same "$ours" "$theirs"
fi
if command -v debugvmfs6 >/dev/null; then
	for file in .fbb.sf .fdc.sf .pb2.sf .sbc.sf .jbc.sf directory/file4 directory/file5; do
		# It prints a line of its own first.
		check "VMFS6: $file as debugvmfs6 reads it" same "$(sum 6 "$file")" \
			"$(timeout 60 debugvmfs6 "$work/6" cat "/$file" 2>/dev/null | tail -n +2 | sha256sum)"
	done
fi
for v in 5 6; do
	check "VMFS$v: not a byte was changed" sha256sum --status -c "$work/$v.sum"
done
exit $bad
