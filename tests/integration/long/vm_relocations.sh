#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# minutes: 8
#
# vm_relocations.sh - a Linux guest with ext4 on vhost-user-blk and a second disk on pvscsi is
# relocated ROUNDS times (20) to and fro under load; every third time the daemon is killed while it
# moves.  No error is seen inside, what was written is there, and the file system is clean.
. "$(dirname "$0")/../../lib/daemon.sh"
. tests/guest/guest.sh
for tool in qemu-system-x86_64 mkfs.ext4 e2fsck; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
rc=0
guest_build >/dev/null || rc=$?
[ $rc -ne 77 ] || { echo "no kernel for the test guest can be had here"; exit 77; }
[ $rc -eq 0 ] || exit 1
pid=
vm_cleanup() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
	cleanup
}
trap vm_cleanup EXIT
b() { timeout 180 "$bin/blkmirror" "$@"; }
chmod 711 "$dir"
mkdir -p "$dir/a/g" "$dir/b" "$dir/c"
printf '[vm]\naccel = %s\nkernel_roots = %s\n' "$(guest_accel)" "$GUEST_OUT" >"$dir/conf"
start() { start_daemon --config "$dir/conf"; }
serial=$dir/state/vms/vm1/serial.log
wait_serial() {
	timeout "$2" tail -n "+${3:-1}" -F "$serial" 2>/dev/null | grep -m 1 -aqE "$1"
	check "the guest says '$1'" [ $? = 0 ]
}
works() { wait_serial '^ALT n=' 60 "$(($(wc -l <"$serial") + 2))"; }

# On the file system: half of the alternating writer's work, and copies that are compared.
work="mkdir /m; mount -t ext4 /dev/vda /m && echo MOUNTED; dd if=/dev/zero of=/m/alt bs=1M count=16 2>/dev/null; sync;"
work+=" (while [ ! -e /tmp/end ]; do for i in 1 2 3 4; do cp /bin/busybox /m/f\$i; done; sync; for i in 1 2 3 4; do cmp /bin/busybox /m/f\$i || echo IOERROR differs; done; done; echo COPIES END) &"
work+=" alternate /m/alt /dev/sda; touch /tmp/end; wait; umount /m && echo UNMOUNTED; dmesg | grep -iE 'error|abort|reset' | grep -v -i acpi; echo ALL DONE; sleep 100000"
append="console=ttyS0 quiet loglevel=4 panic=-1 bm_modules=virtio_pci,virtio_blk,vmw_pvscsi,sd_mod bm_run=|22${work//|/|7C}|22"
cat >"$dir/a/g/g.vmx" <<END
displayName = "g"
memSize = "192"
numvcpus = "2"
scsi0.present = "TRUE"
scsi0.virtualDev = "virtio"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "g.img"
scsi1.present = "TRUE"
scsi1.virtualDev = "pvscsi"
scsi1:0.present = "TRUE"
scsi1:0.fileName = "g2.vmdk"
blkmirror.kernel = "$GUEST_OUT/vmlinuz"
blkmirror.initrd = "$GUEST_OUT/initrd-base.cpio"
blkmirror.append = "$append"
END
truncate -s 128M "$dir/fs"
mkfs.ext4 -q -F "$dir/fs"
start
for ds in a b c; do b datastore add $ds "dir://$dir/$ds" >/dev/null; done
b disk import "$dir/fs" a:g/g.img >/dev/null
b disk create a:g/g2.vmdk --size 32MiB >/dev/null
b vm register a:g/g.vmx >/dev/null
b vm start vm1 >/dev/null
pid=$(b --json vm show vm1 | jq -r '.pid // empty')
check "it runs" [ -n "$pid" ]
wait_serial MOUNTED 90
wait_serial 'ALT READY' 60
rounds=${ROUNDS:-20}
places=("--to b --disk scsi1:0=c" "--to a" "--to c --config-to b" "--to a")
for round in $(seq "$rounds"); do
	# shellcheck disable=SC2086 # words are meant
	task=$(b --json vm relocate vm1 ${places[$(((round - 1) % 4))]} --no-wait | jq -r .id)
	if [ $((round % 3)) = 0 ]; then
		sleep "0.$(printf %03d $((RANDOM % 900)))"
		stop_daemon KILL
		start
	fi
	b task wait "$task" >/dev/null
	state=$(b --json task show "$task" | jq -c '[.state, .error]')
	check "round $round, ${places[$(((round - 1) % 4))]}: $state" [ "$state" = '["completed",null]' ]
	works
done
at=$(wc -l <"$serial")
{ echo stop; sleep 3; } | timeout 20 "$bin/blkmirror" vm console vm1 >/dev/null 2>&1
wait_serial 'ALL DONE' 120 "$at"
check "what was written was there" grep -qaE '^ALT FINAL ok .* errors=0 wrong=0' "$serial"
check "the file system is unmounted" grep -qa '^UNMOUNTED' "$serial"
check "no error inside: $(grep -aE 'I/O error|IOERROR|EXT4-fs error' "$serial" | head -3)" \
	[ "$(grep -acE 'I/O error|IOERROR|EXT4-fs error' "$serial")" = 0 ]
check "it was booted once" [ "$(grep -ac '^GUEST UP' "$serial")" = 1 ]
b vm stop vm1 --force >/dev/null
pid=
image=$(find "$dir/a" "$dir/b" "$dir/c" -name g.img)
check "one image: $image" [ "$(wc -l <<<"$image")" = 1 ]
e2fsck -fn "$image" >"$dir/fsck" 2>&1; fsck=$?
check "the file system is clean: $(tail -3 "$dir/fsck")" [ $fsck = 0 ]
finish
