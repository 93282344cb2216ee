#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vm_args.sh - QEMU takes the words made of every golden VMX, and of one for each controller and card.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in qemu-system-x86_64 qemu-nbd; do
	command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
work=$(mktemp -d)
nbd_pid=
cleanup()
{
	[ -z "$nbd_pid" ] || kill "$nbd_pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
truncate -s 1440K "$work/disk.raw"
qemu-nbd --fork --pid-file="$work/pid" -f raw -k "$work/sock" -x disk -t -e 64 --shared=64 "$work/disk.raw"
nbd_pid=$(cat "$work/pid")
base='memSize = "64"
uuid.bios = "00112233-4455-6677-8899-aabbccddeeff"'
for model in pvscsi lsilogic lsisas1068 virtio megasas; do
	printf '%s\nscsi0.present = "1"\nscsi0.virtualDev = "%s"\nscsi0:0.present = "1"\nscsi0:0.fileName = "a.vmdk"\nscsi0:3.present = "1"\nscsi0:3.fileName = "b.vmdk"\n' \
		"$base" $model >"$work/scsi-$model.vmx"
done
printf '%s\nscsi0.present = "1"\nscsi0.virtualDev = "pvscsi"\nscsi0:1.present = "1"\nscsi0:1.deviceType = "cdrom-image"\nscsi0:1.fileName = "a.iso"\nsata0.present = "1"\nsata0:0.present = "1"\nsata0:0.fileName = "a.vmdk"\nsata0:1.present = "1"\nsata0:1.deviceType = "cdrom-image"\nsata0:1.fileName = "b.iso"\nide0:0.present = "1"\nide0:0.fileName = "b.vmdk"\nide1:1.present = "1"\nide1:1.deviceType = "atapi-cdrom"\nnvme0.present = "1"\nnvme0:0.present = "1"\nnvme0:0.fileName = "c.vmdk"\nnvme0:1.present = "1"\nnvme0:1.fileName = "d.vmdk"\nfloppy0.present = "1"\nfloppy0.fileType = "file"\nfloppy0.fileName = "f.img"\nfloppy1.present = "1"\nusb.present = "1"\n' \
	"$base" >"$work/buses.vmx"
{
	echo "$base"
	n=0
	for card in e1000 e1000e vmxnet3 vlance virtio; do
		printf 'ethernet%d.present = "1"\nethernet%d.virtualDev = "%s"\nethernet%d.generatedAddress = "00:0c:29:00:00:0%d"\nethernet%d.startConnected = "FALSE"\n' \
			$n $n $card $n $n $n
		n=$((n + 1))
	done
} >"$work/cards.vmx"
machine=$(qemu-system-x86_64 -machine help | sed -nE 's/^pc .*alias of ([^)]*)\).*/\1/p')
timeout 300 "${B:-build}/tests/integration/vm_args_tool" /usr/bin/qemu-system-x86_64 "$machine" "$work/sock" disk \
	tests/golden/vmx/*.vmx "$work"/*.vmx
