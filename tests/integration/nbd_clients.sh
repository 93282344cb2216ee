#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nbd_clients.sh - the NBD export against the clients of others: libnbd's, QEMU's, fio's.
set -u
build=${BUILD:-build}
serve=$build/tests/integration/nbd_serve

for tool in nbdinfo nbdcopy qemu-img qemu-io fio cmp; do
	command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
[ -x "$serve" ] || { echo "skipped: $serve is not built (make tests-build)"; exit 77; }

dir=$(mktemp -d)
server=
# shellcheck disable=SC2329
clean_up() {
	if [ -n "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	rm -rf "$dir"
}
trap clean_up EXIT

fail() {
	echo "FAIL: $*"
	[ -f "$dir/out" ] && tail -n 20 "$dir/out"
	exit 1
}

# run NAME COMMAND... - bounded in time; output kept for fail().
run() {
	local name=$1
	shift
	timeout 120 "$@" >"$dir/out" 2>&1 || fail "$name: exit $?"
	printf '[       OK ] %s\n' "$name"
}

# has NAME TEXT - the last command's output says so.
has() {
	grep -qE "$2" "$dir/out" || fail "$1: no '$2' in its output"
}

size=$((96 << 20))
socket=$dir/s
uri="nbd+unix:///mem?socket=$socket"
mkfifo "$dir/ready"
"$serve" "$socket" $size >"$dir/ready" 2>"$dir/server.log" &
server=$!
timeout 20 head -n 1 "$dir/ready" | grep -q ready || fail "the server did not start: $(cat "$dir/server.log")"

# A source with data, zeroes and holes.
head -c $((8 << 20)) /dev/urandom >"$dir/in"
head -c $((4 << 20)) /dev/zero >>"$dir/in"
truncate -s $((64 << 20)) "$dir/in"
head -c $((8 << 20)) /dev/urandom >>"$dir/in"
truncate -s $size "$dir/in"

run nbdinfo nbdinfo "$uri"
has nbdinfo "export-size: $size"
has nbdinfo 'can_multi_conn: true'
has nbdinfo 'can_df: true'
has nbdinfo 'can_fua: true'
has nbdinfo 'can_fast_zero: false'
has nbdinfo 'block_size_minimum: 512'
run nbdinfo-list nbdinfo --list "nbd+unix:///?socket=$socket"
has nbdinfo-list 'export="mem"'
run nbdinfo-map-empty nbdinfo --map "$uri"
has nbdinfo-map-empty "^ *0 +$size +3 "
run nbdcopy-in nbdcopy --flush "$dir/in" "$uri"
run nbdcopy-out nbdcopy "$uri" "$dir/copy"
cmp "$dir/in" "$dir/copy" || fail "nbdcopy: what came back differs"
run nbdcopy-one-connection nbdcopy --connections=1 --requests=1 "$uri" "$dir/copy1"
cmp "$dir/in" "$dir/copy1" || fail "nbdcopy with one connection: what came back differs"
run nbdinfo-map nbdinfo --map "$uri"
has nbdinfo-map '^ *0 +8388608 +0 +data'
has nbdinfo-map 'hole,zero'

run qemu-img-info qemu-img info "$uri"
has qemu-img-info "virtual size: 96 MiB"
run qemu-img-compare qemu-img compare -f raw -F raw "$dir/in" "$uri"
run qemu-img-convert-out qemu-img convert -f raw -O qcow2 "$uri" "$dir/copy.qcow2"
run qemu-img-compare-qcow2 qemu-img compare -f qcow2 -F raw "$dir/copy.qcow2" "$uri"
run qemu-img-convert-in qemu-img convert -n -f qcow2 -O raw "$dir/copy.qcow2" "$uri"
run qemu-img-compare-again qemu-img compare -f raw -F raw "$dir/in" "$uri"
run qemu-io qemu-io -f raw \
	-c 'write -P 0x11 0 1M' -c 'write -f -P 0x22 512 512' -c 'flush' \
	-c 'read -P 0x11 0 512' -c 'read -P 0x22 512 512' -c 'read -P 0x11 1024 1023k' \
	-c 'write -z 64k 64k' -c 'read -P 0 64k 64k' -c 'write -z -u 128k 64k' -c 'read -P 0 128k 64k' \
	-c 'discard 256k 256k' -c 'read -P 0 256k 256k' -c 'read -P 0x11 512k 512k' \
	-c 'aio_write -P 0x33 1M 1M' -c 'aio_write -P 0x44 2M 1M' -c 'aio_flush' \
	-c 'read -P 0x33 1M 1M' -c 'read -P 0x44 2M 1M' -c 'write -P 0x55 32M 40M' -c 'read -P 0x55 32M 40M' "$uri"
grep -qE 'Pattern verification failed|error' "$dir/out" && fail "qemu-io: $(grep -E 'failed|error' "$dir/out" | head -3)"
qemu-io -f raw -c 'write 96M 512' "$uri" >"$dir/out" 2>&1 && fail "qemu-io could write past the end"

fio_job() {
	run "fio-$1" fio --name="$1" --ioengine=nbd --uri="$uri" --size=64m --verify=crc32c --verify_fatal=1 \
		--randrepeat=0 --verify_state_save=0 --aux-path="$dir" "${@:2}"
}
fio_job verify-4k --rw=randwrite --bs=4k --iodepth=64 --io_size=16m
fio_job verify-mixed --rw=randwrite --bsrange=512-256k --bs_unaligned=0 --blockalign=512 --iodepth=16 --io_size=64m
fio_job verify-1m --rw=write --bs=1m --iodepth=8

kill -TERM $server
wait $server
rc=$?
server=
[ $rc -eq 0 ] || fail "the server ended with $rc: $(cat "$dir/server.log")"
[ ! -s "$dir/server.log" ] || fail "the server complained: $(cat "$dir/server.log")"
echo "[       OK ] server-closes"
