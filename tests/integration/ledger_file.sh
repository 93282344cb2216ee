#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The ledger on a plain file: an honest disk passes; one that damages a block, forgets an
# acknowledged write, or shows one block in another's place is caught, each by its block number.
set -euo pipefail
cd "$(dirname "$0")/../.."
rc=0
tests/guest/build.sh ledger || rc=$?
[ $rc -eq 0 ] || exit $rc
ledger=$PWD/build/guest/ledger

# O_DIRECT is what the guest uses; tmpfs lacks it.
work=$(mktemp -d -p build)
pid=
cleanup()
{
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
disk=$work/disk
fail()
{
	echo "$1" >&2
	tail -n 20 "$work/log" >&2
	exit 1
}

start()
{
	rm -f "$disk" "$work/in"
	truncate -s 8M "$disk"
	mkfifo "$work/in"
	"$ledger" --run 3 --rate 0 --threads 2 "$@" "$disk" <"$work/in" >"$work/log" &
	pid=$!
	exec 5>"$work/in"
	await '^LEDGER READY'
}

# Wait for one more line that matches than there have been.
declare -A seen=()
await()
{
	local count=$((${seen[$1]:-0} + 1))
	timeout 60 tail -n +1 -f --pid="$pid" "$work/log" | grep -m "$count" -E "$1" >"$work/got" ||
		true
	[ "$(wc -l <"$work/got")" -eq "$count" ] || fail "no line '$1'"
	seen[$1]=$count
}

say()
{
	echo "$1" >&5
}

# Stop it and expect this exit code.
finish()
{
	local rc=0
	say stop
	exec 5>&-
	wait "$pid" || rc=$?
	pid=
	seen=()
	[ $rc -eq "$1" ] || fail "exit $rc instead of $1"
}

block()
{
	dd if="$1" bs=4096 skip="$2" count=1 iflag=fullblock status=none
}

put_block()
{
	dd of="$disk" bs=4096 seek="$1" conv=notrunc oflag=direct iflag=fullblock status=none
}

sequence_of()
{
	od -A n -t u8 -j $(($2 * 4096 + 8)) -N 8 "$1" | tr -d ' '
}

# A block that holds a write, from number $1 on.
written_from()
{
	local lba=$1
	while [ "$(sequence_of "$disk" "$lba")" -eq 0 ]; do
		lba=$((lba + 1))
	done
	echo "$lba"
}

echo "-- an honest disk"
start
await '^LEDGER t='
finish 0
grep -q '^LEDGER FINAL ok ' "$work/log" || fail "no FINAL ok"
digest=$(sed -n 's/^LEDGER FINAL .*digest=//p' "$work/log")
"$ledger" --verify --run 3 --expect "$digest" "$disk"

echo "-- a damaged byte"
start
await '^LEDGER t='
say hold
await '^LEDGER HELD'
lba=$(written_from 100)
block "$disk" "$lba" | { head -c 2000; printf X; tail -c +2; } | put_block "$lba"
finish 1
grep -q "^LEDGER MISMATCH when=final lba=$lba .*found=garbage" "$work/log" || fail "not caught"
[ "$(grep -c MISMATCH "$work/log")" -eq 1 ] || fail "more than that one block"

echo "-- an acknowledged write forgotten: the older content is back"
start
await '^LEDGER t='
say hold
await '^LEDGER HELD'
cp "$disk" "$work/older"
say go
await '^LEDGER t='
say hold
await '^LEDGER HELD'
lba=$(written_from 700)
while [ "$(sequence_of "$disk" "$lba")" -eq "$(sequence_of "$work/older" "$lba")" ] ||
	[ "$(sequence_of "$work/older" "$lba")" -eq 0 ]; do
	lba=$(written_from $((lba + 1)))
done
old=$(sequence_of "$work/older" "$lba")
new=$(sequence_of "$disk" "$lba")
block "$disk" "$lba" >"$work/newer"
block "$work/older" "$lba" | put_block "$lba"
finish 1
grep -q "lba=$lba expected=$new found=sound sequence=$old " "$work/log" || fail "not caught"

echo "-- the digest alone tells it too: every block is sound, one is another"
digest=$(sed -n 's/^LEDGER FINAL .*digest=//p' "$work/log")
"$ledger" --verify --run 3 --expect "$digest" "$disk"
put_block "$lba" <"$work/newer"
! "$ledger" --verify --run 3 --expect "$digest" "$disk" || fail "not caught by the digest"

echo "-- a block in another's place, and a write lost to zeroes"
start
await '^LEDGER t='
say hold
await '^LEDGER HELD'
lba=$(written_from 300)
gone=$(written_from 900)
block "$disk" "$lba" | put_block $((lba + 1))
head -c 4096 /dev/zero | put_block "$gone"
finish 1
grep -q "lba=$((lba + 1)) .*found=misplaced .*of_lba=$lba" "$work/log" || fail "not caught"
grep -q "lba=$gone .*found=zero" "$work/log" || fail "zeroes not caught"

echo "-- while it works: a read notices as well"
start --reads 90
await '^LEDGER t='
head -c 4194304 /dev/urandom | dd of="$disk" bs=1M conv=notrunc oflag=direct iflag=fullblock status=none
await '^LEDGER MISMATCH when=read .*found=garbage'
finish 1

echo "all caught"
