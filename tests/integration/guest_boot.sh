#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The test guest boots, works on an NBD disk, finds its disk as it left it, and so does the host.
# Then a block is changed behind the host's check: it must notice.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/guest/guest.sh
. tests/guest/guest.sh

for program in qemu-system-x86_64 qemu-nbd; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
rc=0
guest_build || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ]

work=$(mktemp -d)
nbd_pid=
cleanup()
{
	guest_kill_all
	[ -z "$nbd_pid" ] || kill "$nbd_pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
run=$RANDOM

# The first 32 MiB are there before the guest boots, the rest is a hole.
build/guest/ledger --fill --run "$run" --filled 32M >"$work/disk.raw"
truncate -s 256M "$work/disk.raw"
# --fork returns when the socket listens.
qemu-nbd --fork --pid-file="$work/nbd.pid" -f raw -k "$work/nbd.sock" -x disk -t -e 4 \
	--discard=unmap --cache=none "$work/disk.raw"
nbd_pid=$(cat "$work/nbd.pid")

mapfile -t disk < <(guest_nbd_disk "$work/nbd.sock" disk)
guest_start "$work/vm" "ledger --run $run --filled 32M --rate 300 /dev/vda" "${disk[@]}"
guest_wait "$work/vm" '^LEDGER READY' 90
guest_wait "$work/vm" '^LEDGER t=2 ' 30
guest_say "$work/vm" 'phase first'
guest_wait "$work/vm" '^LEDGER PHASE name=first' 30
guest_wait "$work/vm" '^LEDGER t=5 ' 30
guest_say "$work/vm" stop
final=$(guest_wait "$work/vm" '^LEDGER FINAL' 120)
echo "$final"
guest_join "$work/vm" 60
kill "$nbd_pid"
nbd_pid=

[[ $final == 'LEDGER FINAL ok '*' errors=0 '* ]]
digest=${final##*digest=}
[ "$(sed -E 's/.*writes=([0-9]+).*/\1/' <<<"$final")" -gt 0 ]
build/guest/ledger --verify --run "$run" --expect "$digest" "$work/disk.raw"

# A guest that had noticed nothing, and a host that would not either, prove nothing.
printf 'x' | dd of="$work/disk.raw" bs=1 seek=$((5 * 4096 + 1000)) conv=notrunc status=none
if build/guest/ledger --verify --run "$run" --expect "$digest" "$work/disk.raw"; then
	echo "a changed byte was not noticed"
	exit 1
fi
echo "guest: $(grep -c '^LEDGER t=' "$work/vm/channel.log" 2>/dev/null) seconds, all found again"
