#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vm_relocate.sh - a machine is relocated under its guest: VMX and two disks, one over vhost-user, one
# pvscsi over NBD, to datastores of their own.
#
# The guest writes by turns to the two disks, each write after the other's answer.  The old copies
# that a move keeps must end with two numbers that follow each other: all disks switch in
# one instant.  Running, suspended, off, and with a daemon that is killed in the middle of it; in
# the end the guest reads back what it wrote.
. "$(dirname "$0")/../lib/daemon.sh"
. tests/guest/guest.sh
command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is not installed"; exit 77; }
rc=0
guest_build >/dev/null || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ] || exit 1

vm_cleanup() {
	local pid
	for pid in $(cat "$dir"/qemu.pids 2>/dev/null); do
		! grep -qs "$dir" "/proc/$pid/cmdline" || kill -9 "$pid" 2>/dev/null
	done
	cleanup
}
trap vm_cleanup EXIT
b() { timeout 180 "$bin/blkmirror" "$@"; }
code() {
	local want=$1 got
	shift
	b "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	check "$*: exit $got, not $want: $(cat "$dir/err")" [ $got = "$want" ]
}
shape() { check "shape of $1: $(head -c 900 "$dir/out")" jq -e "$2" "$dir/out" >/dev/null; }
refused() {
	code "$1" "${@:3}"
	check "${*:3}: $2" grep -q "$2" "$dir/err" "$dir/out"
}
vm_field() { b --json vm show vm1 | jq -r "$1"; }
serial=$dir/state/vms/vm1/serial.log
lines() { tr -d '\r' <"$serial" 2>/dev/null | wc -l; }
wait_serial() {
	local regex=$1 seconds=$2 from=${3:-1} line
	line=$(timeout "$seconds" tail -n "+$from" -F "$serial" 2>/dev/null | grep -m 1 -aE "$regex") || true
	[ -n "$line" ] || { echo "no line '$regex' in $seconds s"; tail -5 "$serial"; tail -20 "$dir/log"; }
	check "the guest says '$regex'" [ -n "$line" ]
}
# It does something now.
works() { wait_serial '^ALT n=' 60 "$(($(lines) + 2))"; }
remember_qemu() { vm_field '.pid // empty' >>"$dir/qemu.pids"; }
last() { build/guest/alternate --last "$1"; }

chmod 711 "$dir"
mkdir "$dir/a" "$dir/b" "$dir/c"
cat >"$dir/daemon.conf" <<END
[vm]
accel = $(guest_accel)
kernel_roots = $GUEST_OUT
END
# Two I/O threads: the disks must stay on one over a restart, or they cannot switch together.
start() { start_daemon --config "$dir/daemon.conf" --io-threads 2; }
work="for e in /dev/input/event*; do (head -c 24 \$e >/dev/null; sync; poweroff -f) & done; alternate /dev/vda /dev/sda; echo ALT ENDED; sleep 100000"
append="console=ttyS0 quiet loglevel=4 panic=-1 bm_modules=virtio_pci,virtio_blk,vmw_pvscsi,sd_mod,button,evdev bm_run=|22${work//|/|7C}|22"
mkdir "$dir/a/web01"
sed 's/$/\r/' >"$dir/a/web01/web01.vmx" <<END
.encoding = "UTF-8"
displayName = "web01"
  memSize =  "192"
# kept as it is
unknown.key = "of |22somebody|22 else"
scsi0.present = "TRUE"
scsi0.virtualDev = "virtio"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
scsi1.present = "TRUE"
scsi1.virtualDev = "pvscsi"
scsi1:0.present = "TRUE"
scsi1:0.fileName   =   "[a] web01/data.vmdk"
blkmirror.kernel = "$GUEST_OUT/vmlinuz"
blkmirror.initrd = "$GUEST_OUT/initrd-base.cpio"
blkmirror.append = "$append"
END
echo notes >"$dir/a/web01/notes.txt"
head -c 70000 /dev/urandom >"$dir/a/web01/web01.nvram"
head -c 9437184 /dev/zero >"$dir/a/web01/large.log"
echo secret >"$dir/outside"
ln -s "$dir/outside" "$dir/a/web01/link.txt"
cp -a "$dir/a/web01" "$dir/before"

start
for ds in a b c; do code 0 datastore add $ds "dir://$dir/$ds"; done
code 0 disk create a:web01/web01.vmdk --size 64MiB
code 0 disk create a:web01/data.vmdk --size 48MiB
code 0 --json vm register a:web01/web01.vmx
code 0 vm start web01
remember_qemu
wait_serial '^ALT READY' 90
works
code 0 --json disk list
shape "vhost-user and NBD" '[.disks[] | {(.id): .export}] | add == {"vm1-scsi0-0": "vhost-user", "vm1-scsi1-0": "nbd"}'

# ---- the check ----
code 0 --json vm relocate web01 --to b --disk scsi1:0=c --check
shape "check" '.ok and .estimate.bytes > 0'
refused 2 BM-1001 vm relocate web01
refused 1 BM-1003 vm relocate web01 --disk scsi9:0=b
refused 1 BM-1003 vm relocate web01 --disk what
refused 1 BM-1100 vm relocate web01 --to nowhere
refused 1 BM-1300 vm relocate web01 --to a
mkdir "$dir/c/web01"
echo 'displayName = "another"' >"$dir/c/web01/web01.vmx"
refused 1 BM-1201 vm relocate web01 --to c
code 3 --json vm relocate web01 --to c --check
shape "refused by the check" '.ok == false and .errors[0].id == "BM-1201"'
rm -r "$dir/c/web01"
check "nothing has changed" [ -z "$(ls "$dir/b" "$dir/c" | grep -v :)" ]

# ---- running: VMX to b, one disk to b, the other to c; the sources are kept ----
code 0 --json vm relocate web01 --to b --disk scsi1:0=c --keep-source
shape "relocated" '.state == "completed" and .subject == "web01" and ([.disks[] | .disk] == ["scsi0:0", "scsi1:0"]) and ([.disks[].verified] | all) and .error == null'
works
one=$(last "$dir/a/web01/web01-flat.vmdk") other=$(last "$dir/a/web01/data-flat.vmdk")
difference=$((one - other))
check "one instant: $one and $other were last" [ ${difference#-} = 1 ]
check "and the guest went on" [ "$(last "$dir/b/web01/web01-flat.vmdk")" -gt "$one" ]
check "the VMX is registered there" [ "$(vm_field .vmx)" = b:web01/web01.vmx ]
check "it names the other disk's place" grep -q '^scsi1:0.fileName   =   "\[c\] web01/data.vmdk"' "$dir/b/web01/web01.vmx"
check "and the rest stays as it was" cmp -s <(grep -a -v fileName "$dir/before/web01.vmx") \
	<(grep -a -vE 'fileName|^blkmirror.machine|^uuid.bios' "$dir/b/web01/web01.vmx")
check "small files go along" cmp -s "$dir/before/web01.nvram" "$dir/b/web01/web01.nvram"
check "large ones do not" [ ! -e "$dir/b/web01/large.log" ]
check "nor links" [ ! -e "$dir/b/web01/link.txt" ] && [ ! -L "$dir/b/web01/link.txt" ]
check "the old VMX was kept" [ -e "$dir/a/web01/web01.vmx" ]
rm -r "$dir/a/web01"

# ---- back, the old files go ----
code 0 --json vm relocate web01 --to a
shape "back" '.state == "completed"'
works
check "nothing is left at b and c: $(ls "$dir/b" "$dir/c")" [ -z "$(ls "$dir/b" "$dir/c" | grep -v :)" ]
check "the files are at a" cmp -s "$dir/before/notes.txt" "$dir/a/web01/notes.txt"
check "VMX at a" [ "$(vm_field .vmx)" = a:web01/web01.vmx ]

# ---- killed at rest: the next move finds both disks on one thread ----
stop_daemon KILL
start
works

# ---- what is refused while it moves; then the daemon is killed in the middle ----
code 0 --json vm relocate web01 --to b --config-to c --hold --no-wait
task=$(jq -r .id "$dir/out")
b task wait "$task" >/dev/null
check "held: $(b --json task show "$task" | jq -r .state)" [ "$(b --json task show "$task" | jq -r .state)" = held ]
refused 1 BM-1723 vm relocate web01 --to c
refused 1 BM-1722 disk relocate vm1-scsi0-0 --to c
refused 1 BM-1722 disk detach vm1-scsi0-0
refused 1 BM-12 disk delete a:web01/web01.vmdk
refused 1 BM-12 disk resize a:web01/web01.vmdk --size 128MiB
refused 1 BM-1716 vm unregister web01
stop_daemon KILL
start
works
check "still held" [ "$(b --json task show "$task" | jq -r .state)" != failed ]
stop_daemon
check "an orderly stop leaves it, too" [ "$stop_status" = 0 ]
start
works
b task wait "$task" --timeout 60s >/dev/null
code 0 task complete "$task"
b task wait "$task" >/dev/null
code 0 --json task show "$task"
shape "completed under the third daemon" '.state == "completed" and ([.disks[].disk] == ["scsi0:0", "scsi1:0"])'
works
check "VMX at c" [ "$(vm_field .vmx)" = c:web01/web01.vmx ]
check "disks at b" [ -e "$dir/b/web01/web01.vmdk" ] && [ -e "$dir/b/web01/data.vmdk" ]
check "nothing is left at a: $(ls -R "$dir/a")" [ -z "$(ls "$dir/a")" ]

# ---- killed while it copies, unheld: it goes on by itself ----
code 0 --json vm relocate web01 --to a --bandwidth 24MiB/s --no-wait
task=$(jq -r .id "$dir/out")
sleep 1
stop_daemon KILL
start
b task wait "$task" >/dev/null
check "it went on: $(b --json task show "$task" | jq -c '[.state, .error]')" [ "$(b --json task show "$task" | jq -r .state)" = completed ]
works
check "VMX at a again" [ "$(vm_field .vmx)" = a:web01/web01.vmx ]

# ---- suspended ----
code 0 vm suspend web01
at=$(lines)
code 0 --json vm relocate web01 --to b --disk scsi1:0=c
shape "suspended" '.state == "completed"'
check "the memory went along" [ -s "$dir/b/web01/web01.blkmirror-vmss" ]
check "nothing is left at a: $(ls -R "$dir/a")" [ -z "$(ls "$dir/a")" ]
code 0 --json vm resume web01
shape "resumed" '.state == "running"'
remember_qemu
wait_serial '^ALT n=' 60 "$((at + 2))"
check "the guest was booted once" [ "$(grep -ac '^GUEST UP' "$serial")" = 1 ]

# ---- stopped by its guest's owner while it moves ----
code 0 --json vm relocate web01 --to a --hold --no-wait
task=$(jq -r .id "$dir/out")
b task wait "$task" >/dev/null
at=$(lines)
{ echo stop; sleep 2; } | timeout 20 "$bin/blkmirror" vm console web01 >/dev/null 2>&1 &
console=$!
wait_serial '^ALT FINAL' 60 "$((at + 1))"
check "what was written was there" grep -aq '^ALT FINAL ok .* errors=0 wrong=0' "$serial"
check "no I/O error was seen" [ "$(grep -acE 'I/O error|IOERROR' "$serial")" = 0 ]
kill $console 2>/dev/null
wait $console 2>/dev/null
code 0 vm stop web01 --timeout 60s
refused 1 BM-1723 vm start web01
code 0 task complete "$task"
b task wait "$task" >/dev/null
check "moved all the same" [ "$(b --json task show "$task" | jq -r .state)" = completed ]
check "and let go of" [ "$(b --json disk list | jq '.disks | length')" = 0 ]

# ---- off; and only the VMX ----
code 0 --json vm relocate web01 --to b
shape "off" '.state == "completed"'
code 0 --json vm relocate web01 --config-to c
shape "only the VMX" '.state == "completed" and .disks == []'
check "VMX at c" [ "$(vm_field .vmx)" = c:web01/web01.vmx ]
check "it names its disks" [ "$(grep -ac '"\[b\] web01/' "$dir/c/web01/web01.vmx")" = 2 ]
at=$(lines)
code 0 vm start web01
remember_qemu
wait_serial '^ALT READY' 90 "$((at + 1))"
# A cancelled move leaves all as it was.
code 0 --json vm relocate web01 --to a --hold --no-wait
task=$(jq -r .id "$dir/out")
b task wait "$task" >/dev/null
code 0 task cancel "$task"
b task wait "$task" >/dev/null
works
check "VMX still at c" [ "$(vm_field .vmx)" = c:web01/web01.vmx ]
check "nothing at a: $(ls -R "$dir/a")" [ -z "$(ls "$dir/a")" ]
code 0 vm stop web01 --force
code 0 vm unregister web01
stop_daemon
check "orderly stop" [ "$stop_status" = 0 ]
finish
