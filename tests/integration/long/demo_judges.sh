#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The demo's judges, judged: the whole of tools/demo.sh with a real guest, but with qemu-nbd and a
# mover of our own in place of the daemon.  A mover that stops the server, moves the file and goes
# on is honest: VERIFIED.  One that forgets what was written while it copied must be found out,
# and so must one that damages the copy after the guest has looked.
set -euo pipefail
cd "$(dirname "$0")/../../.."

for program in qemu-system-x86_64 qemu-nbd qemu-img nbdcopy jq python3; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
rc=0
tests/guest/build.sh || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ]

work=$(mktemp -d)
cleanup()
{
	local pid
	for pid in "$work"/*/nbd.pid; do
		[ ! -e "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT

cat >"$work/daemon" <<'DAEMON'
#!/usr/bin/env bash
python3 -c 'import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])'
exec sleep infinity
DAEMON

cat >"$work/cli" <<'CLI'
#!/usr/bin/env bash
set -euo pipefail
cd "$MOVER_DIR"
shift 2 # --socket PATH
[ "$1" != --json ] || shift
flat() { sed 's/\.vmdk$/-flat.vmdk/' <<<"$(cat "$1")/web01/web01.vmdk"; }
serve()
{
	qemu-nbd --fork --pid-file="$PWD/nbd.pid" -f raw -k "$PWD/nbd.sock" -x d1 -t -e 4 \
		--discard=unmap --cache=none "$(flat "$1")"
}
unserve()
{
	local pid
	pid=$(cat nbd.pid)
	kill "$pid"
	tail --pid="$pid" -s 0.05 -f /dev/null
	rm -f nbd.pid
}
task()
{
	echo '{"id":"t1","type":"relocate","created":"2026-01-01T00:00:00Z","state":"completed",
		"error":null,"degraded":null,"disks":[{"verified":true,"authoritative":"target",
		"copied_bytes":67108864}],"switchover":{"stun_us":1000}}'
}
case "$1 $2" in
"datastore add") echo "${4#dir://}" >"$3" && echo '{}' ;;
"disk create")
	mkdir "$(cat ds1)/web01"
	qemu-img create -q -f vmdk -o subformat=monolithicFlat "$(cat ds1)/web01/web01.vmdk" "${5%iB}"
	echo '{}'
	;;
"disk attach")
	serve ds1
	echo "{\"id\":\"d1\",\"uri\":\"nbd+unix:///d1?socket=$PWD/nbd.sock\",\"socket\":\"$PWD/nbd.sock\"}"
	;;
"disk relocate")
	if [ "$3" = d1 ]; then
		cp -r --sparse=always "$(cat ds1)/web01" "$(cat ds2)/web01"
		sleep 1 # the guest writes meanwhile; its client comes back 3 s after the switch
		unserve
		[ "$MOVER" = stale ] || cp --sparse=always "$(flat ds1)" "$(flat ds2)"
		rm -r "$(cat ds1)/web01"
		serve ds2
	else
		cp -r --sparse=always "$(cat ds2)/web01" "$(cat ds1)/web01"
		[ "$MOVER" != damaging ] ||
			printf X | dd of="$(flat ds1)" bs=1 seek=12345 conv=notrunc status=none
		task
	fi
	;;
"disk detach") unserve && echo '{}' ;;
"task list") echo "{\"tasks\":[$(task)]}" ;;
"task show") task ;;
*) echo '{"error":{"id":"BM-0","cause":"unknown command"}}' && exit 2 ;;
esac
CLI
chmod +x "$work/daemon" "$work/cli"

demo()
{
	mkdir "$work/$1"
	MOVER=$1 MOVER_DIR=$work/$1 BLKMIRRORD=$work/daemon BLKMIRROR=$work/cli \
		DEMO_DIR=$work/$1/demo DEMO_SIZE=256MiB DEMO_FILL=64MiB DEMO_RATE=300 \
		DEMO_BASELINE=2 DEMO_AFTER=5 tools/demo.sh >"$work/log" 2>&1
}

echo "-- an honest mover"
demo honest || { cat "$work/log"; exit 1; }
cat "$work/log"
grep -q '^VERIFIED ' "$work/log"

expect_caught()
{
	echo "-- a $1 mover"
	if demo "$1"; then
		cat "$work/log"
		echo "not caught"
		exit 1
	fi
	grep -E "$2" "$work/log" || { cat "$work/log"; exit 1; }
	if grep -q '^VERIFIED' "$work/log" || ! grep -q '^FAILED ' "$work/log"; then
		cat "$work/log"
		exit 1
	fi
}

expect_caught stale 'the guest does not find what was acknowledged'
grep -q '^LEDGER MISMATCH ' "$work/stale/demo/vm/channel.log"
expect_caught damaging 'qemu-img compare: Content mismatch|Images are not identical'
grep -q 'the image on ds1 is not what the guest saw' "$work/log"
