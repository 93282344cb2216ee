#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# relocate_basic.sh - move disks between local folders under real NBD clients.
#
# qemu-img judges the images, fio (libnbd) writes and verifies while a disk moves, qemu-io reads
# through the export.  A kill -9 in the middle of a move is recovered by the next process.
set -eu
tool=${B:-build}/tests/integration/move_tool
skip() { echo "skipped: $1"; exit 77; }
[ -x "$tool" ] || skip "no $tool: make tests-build"
for need in qemu-img qemu-io fio; do command -v $need >/dev/null || skip "no $need"; done

work=$(mktemp -d)
tool_pid=
fio_pid=
cleanup() {
	[ -z "$fio_pid" ] || kill -9 "$fio_pid" 2>/dev/null || true
	[ -z "$tool_pid" ] || kill -9 "$tool_pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work"/{one,two,state,run}

# ---- talking to the tool ----

start_tool() {
	rm -f "$work/in"
	mkfifo "$work/in"
	: >"$work/out"
	"$tool" "$work/state" "$work/run" "one=dir://$work/one" "two=dir://$work/two" \
		<"$work/in" >>"$work/out" 2>>"$work/log" &
	tool_pid=$!
	exec 3>"$work/in"
}
tell() { echo "$*" >&3; }
# expect PATTERN: the line that begins with it, within 60 s
expect() {
	local line
	line=$(timeout 60 tail -n +1 -f --pid="$tool_pid" "$work/out" 2>/dev/null |
		grep -m 1 -E "^$1" || true)
	[ -n "$line" ] || { echo "no '$1' came:"; cat "$work/out" "$work/log"; exit 1; }
	echo "$line"
}
forget() { : >"$work/out"; }
stop_tool() {
	tell quit
	exec 3>&-
	wait "$tool_pid"
	tool_pid=
}

fio_job() { # URI SECONDS
	fio --name=guest --ioengine=nbd --uri="$1" --rw=randwrite --bs=4k --size=64m --iodepth=8 \
		--time_based=0 --loops="$2" --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--randrepeat=1 --verify_state_save=0 --output="$work/fio.log" >/dev/null 2>&1
}

# ---- 1: a disk made by qemu-img moves under fio ----

qemu-img create -q -f vmdk -o subformat=monolithicFlat "$work/one/a.vmdk" 64M
start_tool
tell attach one:a.vmdk a
uri=$(expect "attached a" | cut -d' ' -f3)
fio_job "$uri" 3 &
fio_pid=$!
tell move a two:vm/a.vmdk hold
expect "held" >/dev/null
tell complete
expect "completed" | grep -q "verified=1" || { echo "not verified"; cat "$work/out"; exit 1; }
wait "$fio_pid" || { echo "fio failed"; cat "$work/fio.log"; exit 1; }
fio_pid=
[ ! -e "$work/one/a.vmdk" ] || { echo "the source is still there"; exit 1; }
[ ! -e "$work/one/a-flat.vmdk" ] || { echo "the source's data are still there"; exit 1; }
[ -z "$(ls "$work/state/moves")" ] || { echo "a record was left"; exit 1; }
echo "ok 1: moved under fio"

# ---- 2: there and back by copy, equal to the byte ----

qemu-io -f raw -c "write -q -P 0x5a 1M 3M" -c "write -q -z 8M 4M" -c flush "$uri"
qemu-img convert -f raw -O raw "$uri" "$work/before.raw"
forget
tell move a one:b.img
expect "completed" >/dev/null
qemu-img compare -q -f raw -F raw "$uri" "$work/before.raw" || { echo "export differs"; exit 1; }
stop_tool
qemu-img compare -q -f raw -F raw "$work/one/b.img" "$work/before.raw" ||
	{ echo "image differs"; exit 1; }
[ ! -e "$work/two/vm" ] || { echo "the folder of the old copy was left"; exit 1; }
echo "ok 2: identical after a move to a raw file"

# ---- 3: kill -9 while in sync; the source is authoritative and whole ----

start_tool
tell attach one:b.img b
uri=$(expect "attached b" | cut -d' ' -f3)
forget
tell move b two:c.vmdk hold
expect "held" >/dev/null
qemu-io -f raw -c "write -q -P 0x77 16M 1M" -c flush "$uri"
qemu-img convert -f raw -O raw "$uri" "$work/killed.raw"
kill -9 "$tool_pid"
wait "$tool_pid" 2>/dev/null || true
exec 3>&-
[ -e "$work/two/c.vmdk" ] || { echo "there should be a target now"; exit 1; }
start_tool
tell attach one:b.img b
expect "error BM-1214" >/dev/null       # marked: nobody opens it without the record
forget
tell recover
expect "recovered, waiting 0" >/dev/null
[ ! -e "$work/two/c.vmdk" ] || { echo "the unfinished target was left"; exit 1; }
forget
tell attach one:b.img b
uri=$(expect "attached b" | cut -d' ' -f3)
qemu-img compare -q -f raw -F raw "$uri" "$work/killed.raw" || { echo "data lost"; exit 1; }
echo "ok 3: recovered after kill -9"

# ---- 4: cancel; then the same target again ----

forget
tell move b two:c.vmdk hold
expect "held" >/dev/null
tell cancel
expect "cancelled" >/dev/null
[ ! -e "$work/two/c.vmdk" ] || { echo "the cancelled target was left"; exit 1; }
forget
tell move b two:c.vmdk
expect "completed" >/dev/null
stop_tool
qemu-img compare -q "$work/two/c.vmdk" "$work/killed.raw" || { echo "image differs"; exit 1; }
qemu-img info "$work/two/c.vmdk" | grep -q "file format: vmdk" || { echo "no vmdk"; exit 1; }
echo "ok 4: cancelled and moved again"
