#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# memory_engine.sh - the memory of a running QEMU, tracked and copied from outside.
#
# A Linux guest with two processors and two blocks of RAM writes to its memory all the time.  Our
# tool attaches to its QEMU, copies in rounds, the guest is stopped, a last round is sent: not one
# page may differ.  The guest goes on, and QEMU's descriptors and mappings are as they were.  The
# same once by hashes, and with a boot sector under KVM where that runs.
set -eu
cd "$(dirname "$0")/../.."
build=$PWD/${BUILD:-build}
tool=$build/tests/integration/mem_tool
for program in qemu-system-x86_64 python3; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
# shellcheck source=tests/guest/guest.sh
. tests/guest/guest.sh
dir=$(mktemp -d)
tool_pid='' kvm_pid=''
cleanup() {
	local status=$?
	set +e
	# Ours by their ids; the tool first, so that it lets go of QEMU.
	[ -z "$tool_pid" ] || { kill "$tool_pid" && wait "$tool_pid"; } 2>/dev/null
	[ -z "$kvm_pid" ] || kill -9 "$kvm_pid" 2>/dev/null
	guest_kill_all
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
fail() {
	echo "FAILED: $1"
	tail -n 40 "$dir"/tool.log "$dir"/vm/qemu.log 2>/dev/null
	exit 1
}
ok() { printf '[       OK ] %s\n' "$1"; }

# qmp SOCKET COMMAND [ARGUMENTS] - one command; prints what it returns.
qmp() {
	timeout 60 python3 - "$@" <<'PYTHON'
import json, socket, sys
qmp = socket.socket(socket.AF_UNIX)
qmp.settimeout(30)
qmp.connect(sys.argv[1])
lines = qmp.makefile("rw")
lines.readline()
for command in ({"execute": "qmp_capabilities"},
                {"execute": sys.argv[2], "arguments": json.loads((sys.argv[3:] or ["{}"])[0])}):
    lines.write(json.dumps(command) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "error" in answer:
            sys.exit(f"{sys.argv[2]}: {answer['error']['desc']}")
        if "return" in answer:
            break
print(json.dumps(answer["return"]))
PYTHON
}

ram_bytes() {
	qmp "$1" query-memory-size-summary |
		python3 -c 'import json, sys; s = json.load(sys.stdin); print(s["base-memory"] + s.get("plugged-memory", 0))'
}

# What of a process can be seen from outside.  Sockets of QMP come and go with our own questions.
portrait() {
	# shellcheck disable=SC2012
	ls -l "/proc/$1/fd" | sed -E 's/.* ([0-9]+ -> )/\1/' | grep -v socket: | sort -n
	grep -E 'rw-s|\[vdso\]' "/proc/$1/maps"
	grep -E '^(TracerPid|SigBlk)' "/proc/$1/status"
}
# No mapping is write-protected for us any more.
untracked() { ! grep -qE '^VmFlags:.* uw( |$)' "/proc/$1/smaps"; }

# tool_start PID RAM [TRACKER [CODEC]]; tool_say ORDER prints the answer.
tool_start() {
	coproc TOOL { timeout 300 "$tool" "$@" 2>&1 | tee -a "$dir/tool.log"; }
	tool_pid=$TOOL_PID
	exec {tool_in}>&"${TOOL[1]}" {tool_out}<&"${TOOL[0]}"
	read -r -t 60 line <&"$tool_out" || fail "the tool says nothing"
	echo "$line"
	[[ $line == attached* ]] || fail "cannot attach"
}
tool_say() {
	echo "$1" >&"$tool_in"
	read -r -t 120 line <&"$tool_out" || fail "no answer to $1"
	echo "$line"
}
tool_end() {
	tool_say end
	exec {tool_in}>&- {tool_out}<&-
	wait "$tool_pid" || fail "the tool fails"
	tool_pid=''
}

# move PID QMP ROUNDS [TRACKER [CODEC]] - one copy of a running guest, to its proof.
move() {
	local pid=$1 qmp=$2 rounds=$3
	shift 3
	portrait "$pid" >"$dir/before"
	tool_start "$pid" "$(ram_bytes "$qmp")" "$@"
	for ((i = 0; i < rounds; i++)); do
		tool_say round
		[[ $line == round* ]] || fail "a round fails: $line"
	done
	qmp "$qmp" stop >/dev/null
	tool_say round
	tool_say check
	[[ $line == "differs 0 "* ]] || fail "the copy differs: $line"
	read -r _ _ _ source target <<<"$line"
	[ "$target" -le "$source" ] || fail "the copy takes more memory: $line"
	tool_say quiet
	[ "$line" = quiet ] || fail "the stopped guest writes: $line"
	qmp "$qmp" cont >/dev/null
	# It runs again while it is still tracked.
	tool_say round
	tool_end
	untracked "$pid" || fail "QEMU's memory is still protected"
	portrait "$pid" >"$dir/after"
	diff "$dir/before" "$dir/after" || fail "QEMU is not as it was"
}

# ---- Linux under TCG ----

rc=0
guest_build || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ]
vm=$dir/vm
BLKMIRROR_GUEST_ACCEL=tcg GUEST_CPUS=2 GUEST_MEMORY=256M guest_start "$vm" \
	'cd /tmp; (i=0; while :; do dd if=/dev/urandom of=b$((i%7)) bs=64k count=8 2>/dev/null; i=$((i+1)); done) & i=0; while :; do seq 1 3000 >a$((i%5)); i=$((i+1)); echo TICK $i; done' \
	-m slots=2,maxmem=1G -object memory-backend-memfd,id=extra,size=128M,share=on \
	-device pc-dimm,memdev=extra
pid=${GUEST_PID[$vm]}
guest_wait "$vm" '^TICK 5' 120 >/dev/null

rc=0
out=$(timeout 30 "$tool" "$pid" 0 kernel </dev/null) || rc=$?
echo "$out" | head -n 1
if [[ $out == "error BM-1852"* || $out == "error BM-1851"* ]]; then
	echo "the kernel, or a sandbox, does not let us track a QEMU here"
	exit 77
fi
[ $rc -eq 0 ] || fail "cannot attach"
[[ $out == *"blocks=2 "* ]] || fail "not two blocks"

for codec in auto zstd lz4; do
	move "$pid" "$vm/qmp.sock" 4 kernel $codec
	ticks=$(grep -c TICK "$vm/channel.log")
	guest_wait "$vm" "^TICK $((ticks + 3))" 60 >/dev/null
	ok "a Linux guest is copied exactly and goes on (kernel, $codec)"
done
move "$pid" "$vm/qmp.sock" 2 hash none
ticks=$(grep -c TICK "$vm/channel.log")
guest_wait "$vm" "^TICK $((ticks + 3))" 60 >/dev/null
ok "a Linux guest is copied exactly and goes on (hash, none)"

# Wrong expectations are refused, and nothing has happened to QEMU.
out=$(timeout 30 "$tool" "$pid" 4096 kernel </dev/null) && fail "attached with a wrong size"
[[ $out == "error BM-1853"* ]] || fail "another refusal: $out"
untracked "$pid" || fail "a refusal left something"

# A killed tool leaves a guest that runs and a QEMU that is not tracked.
tool_start "$pid" 0 kernel
tool_say round
kill -9 "$(pgrep -P "$(pgrep -P "$tool_pid" -x timeout)" -x mem_tool)"
exec {tool_in}>&- {tool_out}<&-
wait "$tool_pid" || true
tool_pid=''
ticks=$(grep -c TICK "$vm/channel.log")
guest_wait "$vm" "^TICK $((ticks + 3))" 60 >/dev/null
untracked "$pid" || fail "a killed tool left QEMU protected"
ok "a killed tool leaves nothing"

# ---- a boot sector under KVM: writes of real virtual processors ----

# Says K on a port, then adds 1 to a word of every 512 bytes between 128 and 576 KiB, for ever.
{
	printf '\xb0\x4b\xe6\xe9\xb0\x0a\xe6\xe9'
	printf '\xb8\x00\x20\x8e\xc0\x31\xff\x26\x83\x05\x01\x81\xc7\x00\x02\x75\xf6\x05\x00\x10\x3d\x00\x90\x72\xea\xeb\xe5'
	head -c 475 /dev/zero
	printf '\x55\xaa'
} >"$dir/boot"
mkfifo "$dir/said.in" "$dir/said.out"
# It goes to the background when its sockets are there.
if ! qemu-system-x86_64 -accel kvm -cpu qemu64 -machine pc,memory-backend=ram -m 64 -nodefaults \
	-display none -object memory-backend-memfd,id=ram,size=64M,share=on \
	-drive "if=ide,format=raw,file=$dir/boot,snapshot=on" \
	-chardev "pipe,id=said,path=$dir/said" -device isa-debugcon,iobase=0xe9,chardev=said \
	-qmp "unix:$dir/kvm.sock,server=on,wait=off" -daemonize -pidfile "$dir/kvm.pid" \
	</dev/null >"$dir/kvm.log" 2>&1; then
	echo "no KVM here: $(tail -n 1 "$dir/kvm.log")"
else
	kvm_pid=$(cat "$dir/kvm.pid")
	word=''
	read -r -t 60 word <"$dir/said.out" || true
	[ "$word" = K ] || fail "the boot sector does not run"
	move "$kvm_pid" "$dir/kvm.sock" 5 kernel auto
	# 112 pages are written all the time; how often it ran between two rounds is the host's affair.
	written=$(tail -n 12 "$dir/tool.log" | grep -cE '^round [2-7] dirty=(11[2-9]|1[2-9][0-9]) ') || true
	[ "$written" -ge 1 ] || fail "its writes were not seen"
	ok "a guest under KVM is copied exactly"
fi
echo "memory engine: every copy was exact"
