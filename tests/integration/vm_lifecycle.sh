#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vm_lifecycle.sh - a Linux guest from a VMX file: register, start, work on its disks; the daemon is
# killed and adopts it; suspend and resume; ACPI; a QEMU that dies, with and without a daemon.
#
# The guest's kernel is booted directly (blkmirror.kernel): its init and ledger are tests/guest's.
. "$(dirname "$0")/../lib/daemon.sh"
. tests/guest/guest.sh
command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is not installed"; exit 77; }
rc=0
guest_build >/dev/null || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ] || exit 1

qemu_pid=
vm_cleanup() {
	[ -z "$qemu_pid" ] || kill -9 "$qemu_pid" 2>/dev/null
	cleanup
}
trap vm_cleanup EXIT
b() { timeout 120 "$bin/blkmirror" "$@"; }
code() {
	local want=$1 got
	shift
	b "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	check "$*: exit $got, not $want: $(cat "$dir/err")" [ $got = "$want" ]
}
shape() { check "shape of $1: $(head -c 600 "$dir/out")" jq -e "$2" "$dir/out" >/dev/null; }
vm_field() { b --json vm show "$1" | jq -r "$2"; }
# say VM REGEX SECONDS: wait for a line of its serial port after the mark, by inotify
serial() { echo "$dir/state/vms/$1/serial.log"; }
lines() { tr -d '\r' <"$(serial "$1")" 2>/dev/null | wc -l; }
wait_serial() {
	local vm=$1 regex=$2 seconds=$3 from=${4:-1} line
	line=$(timeout "$seconds" tail -n "+$from" -F "$(serial "$vm")" 2>/dev/null |
		grep -m 1 -aE "$regex") || true
	[ -n "$line" ] || { echo "no line '$regex' of $vm in $seconds s"; tail -5 "$(serial "$vm")"; }
	check "$vm says '$regex'" [ -n "$line" ]
}
# Events are followed, not polled: the state that is waited for.
wait_state() {
	local vm=$1 state=$2 seconds=$3
	timeout "$seconds" bash -c '
		while [ "$('"$bin"'/blkmirror --json vm show '"$vm"' | jq -r .state)" != '"$state"' ]; do
			timeout 2 '"$bin"'/blkmirror --json events --follow 2>/dev/null | grep -m 1 vm_state >/dev/null
		done'
	check "$vm gets $state" [ "$(vm_field "$vm" .state)" = "$state" ]
}
# A process of an earlier daemon's waits for init to reap it, which may take its time.
is_gone() { ! grep -qsE '^State:\s+[^Z]' "/proc/$1/status"; }

# QEMU runs as somebody else: it must get to its sockets.
chmod 711 "$dir"
mkdir "$dir/a" "$dir/b"
cat >"$dir/daemon.conf" <<END
[vm]
accel = $(guest_accel)
kernel_roots = $GUEST_OUT
[networks]
VM Network = user
END
start() { start_daemon --config "$dir/daemon.conf"; }

run=$RANDOM
work="for e in /dev/input/event*; do (head -c 24 \$e >/dev/null; echo BUTTON; sync; poweroff -f) & done;"
work+=" head -c 4194304 /dev/urandom >/tmp/r; dd if=/tmp/r of=/dev/sda bs=1M 2>/dev/null; sync; cmp -n 4194304 /tmp/r /dev/sda && echo PVSCSI SOUND;"
work+=" ledger --run $run --rate 200 /dev/vda; echo LEDGER ENDED; sleep 100000"
append="console=ttyS0 quiet loglevel=4 panic=-1 bm_modules=virtio_pci,virtio_blk,vmw_pvscsi,sd_mod,button,evdev bm_run=|22${work//|/|7C}|22"
mkdir "$dir/a/web01"
sed 's/$/\r/' >"$dir/a/web01/web01.vmx" <<END
.encoding = "UTF-8"
config.version = "8"
  virtualHW.version="19"
# kept as it is
displayName = "Web 01 (Köln)"
guestOS = "debian11-64"
memSize = "192"
numvcpus = "2"
unknown.key = "of |22somebody|22 else"
scsi0.present = "TRUE"
scsi0.virtualDev = "virtio"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web01.vmdk"
scsi1.present = "TRUE"
scsi1.virtualDev = "pvscsi"
scsi1:0.present = "TRUE"
scsi1:0.fileName = "[b] web01/data.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
vcpu.hotadd = "TRUE"
blkmirror.kernel = "$GUEST_OUT/vmlinuz"
blkmirror.initrd = "$GUEST_OUT/initrd-base.cpio"
blkmirror.append = "$append"
END
cp "$dir/a/web01/web01.vmx" "$dir/before.vmx"

start
code 0 datastore add a "dir://$dir/a"
code 0 datastore add b "dir://$dir/b"
code 0 disk create a:web01/web01.vmdk --size 96MiB
code 0 disk create b:web01/data.vmdk --size 16MiB

# ---- register ----
code 1 vm register a:web01/none.vmx
printf 'memSize = "64"\nscsi0:0.present\n' >"$dir/a/bad.vmx"
code 1 vm register a:bad.vmx
check "a bad line is named" grep -q 'line 2' "$dir/err"
printf 'memSize = "64MB"\n' >"$dir/a/bad.vmx"
code 1 vm register a:bad.vmx
check "a bad value is named" grep -q "BM-1703" "$dir/err"
code 0 --json vm register a:web01/web01.vmx
shape "vm register" '.id == "vm1" and .name == "Web 01 (Köln)" and .state == "off" and .vmx == "a:web01/web01.vmx" and (.warnings | map(.id) == ["BM-1705"])'
code 1 vm register a:web01/web01.vmx
check "twice" grep -q BM-1721 "$dir/err"
code 0 --json vm list
shape "vm list" '.vms | length == 1'
code 1 vm show vm9
check "unknown" grep -q BM-1720 "$dir/err"
code 1 vm resume vm1
code 1 vm suspend vm1
code 1 vm console vm1

# ---- start ----
code 0 --json vm start 'Web 01 (Köln)'
shape "vm start" '.state == "running" and (.pid > 0) and (.disks | length == 2)'
qemu_pid=$(jq .pid "$dir/out")
code 1 vm start vm1
check "running already" grep -q BM-1716 "$dir/err"
code 1 disk detach vm1-scsi0-0
check "a machine's disk" grep -q BM-1722 "$dir/err"
code 1 disk delete a:web01/web01.vmdk
code 1 disk relocate vm1-scsi0-0 --to b
check "not without its VMX" grep -q BM-1722 "$dir/err"
code 1 vm unregister vm1
code 0 --json vm show vm1
shape "vm show" '.config | .memory_mib == 192 and .cpus == 2 and (.machine | startswith("pc-i440fx-")) and (.drives | map(.controller) == ["virtio", "pvscsi"]) and (.networks[0].mac | startswith("00:0c:29:"))'
status=/proc/$qemu_pid/status
if [ "$(id -u)" = 0 ]; then
	check "QEMU is not root" grep -qE '^Uid:\s+[1-9]' "$status"
fi
check "QEMU is in a sandbox" grep -qE '^Seccomp:\s+2' "$status"
check "QEMU gets no rights" grep -qE '^NoNewPrivs:\s+1' "$status"
check "a session of its own" [ "$(cut -d' ' -f6 "/proc/$qemu_pid/stat")" = "$qemu_pid" ]
check "its memory is a shared memfd" grep -q 'rw-s.*memfd:' "/proc/$qemu_pid/maps"
# Three lines were added, at the end; all others are as they were.
head -c "$(stat -c %s "$dir/before.vmx")" "$dir/a/web01/web01.vmx" | cmp - "$dir/before.vmx"
check "the VMX keeps its bytes" [ $? = 0 ]
check "and gets three lines" [ "$(tail -c "+$(($(stat -c %s "$dir/before.vmx") + 1))" "$dir/a/web01/web01.vmx" | grep -cP '\r$')" = 3 ]
wait_serial vm1 'PVSCSI SOUND' 90
wait_serial vm1 'LEDGER READY' 30
wait_serial vm1 'LEDGER t=2 ' 30

# ---- the daemon is killed, and adopts it ----
stop_daemon KILL
start
code 0 --json vm show vm1
shape "adopted" ".state == \"running\" and .pid == $qemu_pid"
code 0 --json disk list
shape "its disks are back" '[.disks[] | select(.state == "attached") | .id] == ["vm1-scsi0-0", "vm1-scsi1-0"]'
at=$(lines vm1)
wait_serial vm1 'LEDGER t=' 60 "$((at + 1))"
wait_serial vm1 'LEDGER t=' 60 "$((at + 3))"
stop_daemon
check "an orderly stop leaves it" kill -0 "$qemu_pid"
start
check "adopted again" [ "$(vm_field vm1 .state)" = running ]
wait_serial vm1 'LEDGER t=' 60 "$(($(lines vm1) + 1))"

# ---- suspend and resume ----
code 0 vm suspend vm1
code 0 --json vm show vm1
shape "suspended" '.state == "suspended" and .pid == null and (.disks | length == 2)'
check "QEMU has ended" is_gone "$qemu_pid"
check "the image is there" [ -s "$dir/a/web01/web01.blkmirror-vmss" ]
check "the VMX names it" grep -q '^blkmirror.suspend.fileName = "web01.blkmirror-vmss"' "$dir/a/web01/web01.vmx"
code 1 vm stop vm1
check "memory is not thrown away lightly" grep -q -- --force "$dir/err"
code 1 disk detach vm1-scsi0-0
stop_daemon KILL
start
check "still suspended" [ "$(vm_field vm1 .state)" = suspended ]
at=$(lines vm1)
code 0 --json vm resume vm1
shape "resumed" '.state == "running"'
qemu_pid=$(jq .pid "$dir/out")
check "the VMX names no image" [ "$(grep -c suspend "$dir/a/web01/web01.vmx")" = 0 ]
check "the image is gone" [ ! -e "$dir/a/web01/web01.blkmirror-vmss" ]
wait_serial vm1 'LEDGER t=' 60 "$((at + 1))"
check "the guest was booted once" [ "$(grep -ac '^GUEST UP' "$(serial vm1)")" = 1 ]

# ---- the console, and what the guest's work came to ----
at=$(lines vm1)
{ echo stop; sleep 2; } | timeout 20 "$bin/blkmirror" vm console vm1 >"$dir/console" 2>&1 &
console=$!
wait_serial vm1 'LEDGER FINAL' 90 "$((at + 1))"
check "no write was lost, none failed" grep -aq 'LEDGER FINAL ok .* errors=0 ' "$(serial vm1)"
check "no I/O error" [ "$(grep -acE 'I/O error|IOERROR|MISMATCH' "$(serial vm1)")" = 0 ]
wait_serial vm1 'LEDGER ENDED' 30
kill $console 2>/dev/null
wait $console 2>/dev/null
check "the console showed it" grep -aq 'LEDGER' "$dir/console"

# ---- stop by ACPI ----
code 0 --json vm stop vm1 --timeout 60s
shape "stopped" '.state == "off" and .error == null and .disks == []'
check "the guest did it itself" grep -aq BUTTON "$(serial vm1)"
check "QEMU has ended" is_gone "$qemu_pid"
code 0 --json disk list
shape "detached" '.disks == []'
code 1 vm stop vm1

# ---- QEMU dies under it ----
at=$(lines vm1)
code 0 --json vm start vm1
qemu_pid=$(jq .pid "$dir/out")
wait_serial vm1 'LEDGER READY' 90 "$((at + 1))"
kill -9 "$qemu_pid"
wait_state vm1 off 20
code 0 --json vm show vm1
shape "why it died" '.error.id == "BM-1717" and (.error.cause | test("signal 9"))'

# ---- both die ----
code 0 --json vm start vm1
qemu_pid=$(jq .pid "$dir/out")
stop_daemon KILL
kill -9 "$qemu_pid"
start
wait_state vm1 off 20
code 0 --json vm show vm1
shape "it died meanwhile" '.error.id == "BM-1717" and (.error.cause | test("no daemon ran|signal 9"))'

# ---- hard stop, throwing an image away ----
code 0 --json vm start vm1
qemu_pid=$(jq .pid "$dir/out")
code 0 --json vm stop vm1 --force
shape "stopped hard" '.state == "off" and .error == null'
check "QEMU has ended" is_gone "$qemu_pid"
code 0 --json vm start vm1
qemu_pid=$(jq .pid "$dir/out")
code 0 vm suspend vm1
code 0 --json vm stop vm1 --force
shape "its memory is thrown away" '.state == "off" and .disks == []'
check "the image is gone" [ ! -e "$dir/a/web01/web01.blkmirror-vmss" ]

# ---- what cannot be started ----
sed 's/^blkmirror.machine.*/blkmirror.machine = "pc-i440fx-99.9"\r/' -i "$dir/a/web01/web01.vmx"
code 1 vm start vm1
check "unknown machine type" grep -q BM-1704 "$dir/err"
code 0 --json vm show vm1
shape "shown with what is wrong" '.errors | map(.id) == ["BM-1704"]'
sed '/^blkmirror.machine/d; s/^blkmirror.kernel.*/blkmirror.kernel = "\/etc\/passwd"\r/' -i "$dir/a/web01/web01.vmx"
code 1 vm start vm1
check "a kernel from elsewhere" grep -q BM-1714 "$dir/err"
check "nothing stays attached" [ "$(b --json disk list | jq '.disks | length')" = 0 ]
code 0 vm unregister vm1
code 0 --json vm list
shape "none left" '.vms == []'

# ---- create; a guest that powers itself off ----
code 2 vm create tiny --memory 64MiB
code 0 --json vm create tiny --datastore a --memory 192MiB --disk 8MiB,4MiB --network 'VM Network' \
	--kernel "$GUEST_OUT/vmlinuz" --initrd "$GUEST_OUT/initrd-base.cpio" \
	--append "console=ttyS0 quiet panic=-1 bm_run=true"
shape "vm create" '.id == "vm2" and .name == "tiny" and .vmx == "a:tiny/tiny.vmx" and .warnings == []'
check "its disks are there" [ -e "$dir/a/tiny/tiny_1.vmdk" ]
code 1 vm create tiny --datastore a --memory 64MiB --disk 8MiB
check "never over files" [ -s "$dir/a/tiny/tiny.vmx" ]
code 0 vm start tiny
wait_state tiny off 90
code 0 --json vm show tiny
shape "off, and nothing is wrong" '.error == null'
check "it ran" grep -aq 'GUEST EXIT 0' "$(serial vm2)"
qemu_pid=
stop_daemon
check "orderly stop" [ "$stop_status" = 0 ]
finish
