/* SPDX-License-Identifier: Apache-2.0 */
/* test_qemu_args.c - a VMX's hardware as QEMU's words: whole lines for each kind, and what a host lacks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmotion/qemu_args.h"

static const char *const machines[] = { "pc-i440fx-7.2", "pc-i440fx-6.2", NULL };
static const char *const roots[] = { "/srv/kernels", NULL };
static const struct qemu_network networks[] = {
	{ .name = "VM Network", .kind = QEMU_NETWORK_BRIDGE, .bridge = "br0" },
	{ .name = "nat", .kind = QEMU_NETWORK_USER },
	{ .name = "dark", .kind = QEMU_NETWORK_NONE },
};
static const struct qemu_host host = {
	.binary = "/usr/bin/qemu-system-x86_64",
	.accel = "tcg",
	.machine = "pc-i440fx-7.2",
	.machines = machines,
	.sandbox = true,
	.kernel_roots = roots,
	.networks = networks,
	.network_count = ARRAY_COUNT(networks),
	.reconnect_s = 300,
};

#define BASE "memSize = \"64\"\nuuid.bios = \"00112233-4455-6677-8899-aabbccddeeff\"\n" \
	     "displayName = \"a,b\"\n"

struct made {
	struct vm_config *config;
	struct qemu_args args;
};

static struct vm_config *config_of(const char *text)
{
	struct vm_findings findings = { 0 };
	struct vm_config *config = NULL;
	struct vmx *vmx = NULL;

	assert_int_equal(vmx_parse(text, strlen(text), "t.vmx", &vmx, NULL), 0);
	if (vm_config_read(vmx, "ds", "vm/vm.vmx", &config, &findings))
		fail_msg("%s", vm_findings_first_error(&findings)->cause);
	vmx_free(vmx);
	return config;
}

static void make(struct made *made, const char *text, const struct qemu_host *on, bool vhost,
		 bool incoming)
{
	struct qemu_place places[VM_DRIVES_MAX] = { 0 };
	struct qemu_run run = { .id = "vm1", .places = places, .incoming = incoming,
				.fds = { .qmp = 10, .serial = 11, .serial_log = 12, .kernel = 13,
					 .initrd = 14, .efi_vars = 15, .taps = { 20, 21, 22 } } };

	made->config = config_of(text);
	for (uint32_t i = 0; i < made->config->drive_count; i++)
		if (made->config->drives[i].has_file)
			places[i] = (struct qemu_place){ .socket_path = "/run/a,b.sock",
							 .export_name = "d", .vhost_user = vhost };
	assert_int_equal(qemu_args_make(made->config, on, &run, &made->args, NULL), 0);
}

static void release(struct made *made)
{
	qemu_args_release(&made->args);
	free(made->config);
}

static char *joined(const struct qemu_args *args)
{
	char *text = calloc(1, 1 << 16);

	assert_non_null(text);
	for (uint32_t i = 0; i < args->count; i++) {
		strcat(text, i ? " " : "");
		strcat(text, args->words[i]);
	}
	assert_null(args->words[args->count]);
	return text;
}

#define NBD(id, more)                                                                             \
	"-blockdev driver=nbd,node-name=disk-" id ",server.type=unix,server.path=/run/a,,b.sock," \
	"export=d,reconnect-delay=300,cache.direct=on,discard=unmap,detect-zeroes=off" more

static void test_whole_line(void **state)
{
	struct made made;
	char *text;

	(void)state;
	make(&made, BASE "svga.present = \"FALSE\"\n", &host, false, false);
	text = joined(&made.args);
	assert_string_equal(text,
		"/usr/bin/qemu-system-x86_64 -name guest=a,,b,process=bm-vm1,debug-threads=on "
		"-uuid 00112233-4455-6677-8899-aabbccddeeff "
		"-machine pc-i440fx-7.2,memory-backend=ram -accel tcg,thread=multi -cpu max "
		"-smp 1,sockets=1,cores=1,threads=1 "
		"-object memory-backend-memfd,id=ram,size=64M,share=on -m 64M "
		"-rtc base=utc,driftfix=slew "
		"-no-user-config -nodefaults -display none -no-shutdown -S -msg timestamp=on "
		"-boot menu=off,strict=on "
		"-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "
		"-chardev socket,id=qmp,fd=10,server=on,wait=off -mon chardev=qmp,mode=control "
		"-add-fd fd=12,set=1 -chardev socket,id=serial0,fd=11,server=on,wait=off,"
		"logfile=/dev/fdset/1,logappend=on -serial chardev:serial0");
	free(text);
	release(&made);
}

#define DRIVE(name) name ".present = \"TRUE\"\n" name ".fileName = \"" name ".vmdk\"\n"
#define SCSI(model) "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"" model "\"\n"

static void test_parts(void **state)
{
	static const struct {
		const char *text;
		bool vhost;
		const char *has;
	} rows[] = {
		{ SCSI("pvscsi") "scsi0:3.present = \"1\"\nscsi0:3.fileName = \"x\"\n", false,
		  "-device pvscsi,id=scsi0,addr=0x10 " NBD("scsi0-3", "")
		  " -device scsi-hd,id=scsi0-3,bus=scsi0.0,scsi-id=3,lun=0,drive=disk-scsi0-3,"
		  "write-cache=on,bootindex=1" },
		{ SCSI("lsilogic") "scsi0:0.present = \"1\"\nscsi0:0.fileName = \"x\"\n", false,
		  "-device lsi53c895a,id=scsi0,addr=0x10 " },
		{ SCSI("lsisas1068") "scsi0:0.present = \"1\"\nscsi0:0.fileName = \"x\"\n", false,
		  "-device mptsas1068,id=scsi0,addr=0x10 " },
		{ SCSI("megasas") "scsi0:0.present = \"1\"\nscsi0:0.fileName = \"x\"\n", false,
		  "-device megasas,id=scsi0,addr=0x10 " },
		{ SCSI("virtio") "scsi0:2.present = \"1\"\nscsi0:2.fileName = \"x\"\n", false,
		  NBD("scsi0-2", "") " -device virtio-blk-pci,drive=disk-scsi0-2,write-cache=on,"
		  "id=scsi0-2,addr=0x10.0x0,multifunction=on,bootindex=1" },
		{ SCSI("virtio") "numvcpus = \"2\"\nscsi0:0.present = \"1\"\n"
		  "scsi0:0.fileName = \"x\"\nscsi0:9.present = \"1\"\nscsi0:9.fileName = \"y\"\n",
		  true,
		  "-chardev socket,id=chr-scsi0-9,path=/run/a,,b.sock,reconnect=1 "
		  "-device vhost-user-blk-pci,chardev=chr-scsi0-9,num-queues=2,id=scsi0-9,"
		  "addr=0x10.0x1,multifunction=off,bootindex=2" },
		{ "sata0.present = \"1\"\n" DRIVE("sata0:1"), false,
		  "-device ich9-ahci,id=sata0,addr=0x18 " NBD("sata0-1", "")
		  " -device ide-hd,id=sata0-1,bus=sata0.1,drive=disk-sata0-1,write-cache=on,"
		  "bootindex=1" },
		{ DRIVE("ide1:1"), false,
		  "-device ide-hd,id=ide1-1,bus=ide.1,unit=1,drive=disk-ide1-1," },
		{ DRIVE("ide0:0") "ide0:0.deviceType = \"cdrom-image\"\n", false,
		  NBD("ide0-0", ",read-only=on") " -device ide-cd,id=ide0-0,bus=ide.0,unit=0,"
		  "drive=disk-ide0-0,bootindex=100" },
		{ "ide0:0.present = \"1\"\nide0:0.deviceType = \"atapi-cdrom\"\n", false,
		  "-device ide-cd,id=ide0-0,bus=ide.0,unit=0,bootindex=100" },
		{ "nvme0.present = \"1\"\n" DRIVE("nvme0:2"), false,
		  "-device nvme,id=nvme0,serial=blkmirror-vm1-0,addr=0x1c " NBD("nvme0-2", "")
		  " -device nvme-ns,id=nvme0-2,bus=nvme0,nsid=3,drive=disk-nvme0-2" },
		{ "floppy0.present = \"1\"\nfloppy0.fileType = \"file\"\n"
		  "floppy0.fileName = \"f.img\"\n", false,
		  "-device floppy,id=floppy0,unit=0,drive=disk-floppy0" }, /* no bootindex */
		{ "usb.present = \"1\"\n", false,
		  "-device qemu-xhci,id=usb,addr=0x3 -device usb-tablet,id=tablet,bus=usb.0" },
		{ "", false, "-device VGA,id=svga,addr=0x2" },
		{ "numvcpus = \"8\"\ncpuid.coresPerSocket = \"4\"\n", false,
		  "-smp 8,sockets=2,cores=4,threads=1" },
		{ "guestOS = \"windows9-64\"\n", false, "-rtc base=localtime," },
		{ "blkmirror.machine = \"pc-i440fx-6.2\"\n", false,
		  "-machine pc-i440fx-6.2,memory-backend=ram" },
		{ "blkmirror.kernel = \"/srv/kernels/k\"\nblkmirror.initrd = \"/srv/kernels/i\"\n"
		  "blkmirror.append = \"a=b, c\"\n", false,
		  "-kernel /proc/self/fd/13 -initrd /proc/self/fd/14 -append a=b, c" },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"VM Network\"\n"
		  "ethernet0.generatedAddress = \"00:50:56:01:02:03\"\n"
		  "ethernet0.virtualDev = \"vmxnet3\"\n", false,
		  "-netdev tap,id=net0,fd=20,vhost=off -device vmxnet3,id=ethernet0,"
		  "mac=00:50:56:01:02:03,addr=0x4,bootindex=200,netdev=net0" },
		{ "ethernet2.present = \"1\"\nethernet2.networkName = \"nat\"\n"
		  "ethernet2.generatedAddress = \"00:50:56:01:02:03\"\n", false,
		  "-netdev user,id=net2 -device e1000,id=ethernet2,mac=00:50:56:01:02:03,"
		  "addr=0x6,bootindex=202,netdev=net2" },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"dark\"\n"
		  "ethernet0.generatedAddress = \"00:50:56:01:02:03\"\n"
		  "ethernet0.virtualDev = \"vlance\"\n", false,
		  "-device pcnet,id=ethernet0,mac=00:50:56:01:02:03,addr=0x4,bootindex=200" },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"nat\"\n"
		  "ethernet0.startConnected = \"FALSE\"\nethernet0.virtualDev = \"virtio\"\n", false,
		  "-device virtio-net-pci,id=ethernet0," },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		char source[2048];
		struct made made;
		char *text;

		snprintf(source, sizeof(source), "%s%s", BASE, rows[i].text);
		make(&made, source, &host, rows[i].vhost, false);
		text = joined(&made.args);
		if (!strstr(text, rows[i].has))
			fail_msg("%s\nhas no\n%s", text, rows[i].has);
		if (strstr(rows[i].text, "startConnected = \"FALSE\"") ||
		    strstr(rows[i].text, "dark"))
			assert_null(strstr(text, "netdev"));
		free(text);
		release(&made);
	}
}

static void test_host_and_resume(void **state)
{
	struct qemu_host kvm = host;
	struct made made;
	char *text;

	(void)state;
	kvm.accel = "kvm";
	kvm.cpu = "host,-arch-capabilities";
	kvm.sandbox = false;
	kvm.efi_code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
	make(&made, BASE "firmware = \"efi\"\n", &kvm, false, true);
	text = joined(&made.args);
	assert_non_null(strstr(text, "-accel kvm -cpu host,-arch-capabilities "));
	assert_non_null(strstr(text, " -incoming defer "));
	assert_non_null(strstr(text, " -S ")); /* C1: it must not run when the stream ends */
	assert_null(strstr(text, "-sandbox"));
	assert_non_null(strstr(text, ",pflash0=efi-code,pflash1=efi-vars "));
	assert_non_null(strstr(text, "read-only=on,filename=/usr/share/OVMF/OVMF_CODE_4M.fd "
				     "-add-fd fd=15,set=2 -blockdev driver=file,node-name=efi-vars,"));
	free(text);
	release(&made);
}

/* Two functions of one slot, then the next slot; nothing twice at one address. */
static void test_virtio_addresses(void **state)
{
	char source[8192] = BASE SCSI("virtio"), *text;
	unsigned units[] = { 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12 };
	struct made made;

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(units); i++)
		sprintf(source + strlen(source), "scsi0:%u.present = \"1\"\n"
			"scsi0:%u.fileName = \"%u.vmdk\"\n", units[i], units[i], units[i]);
	make(&made, source, &host, false, false);
	text = joined(&made.args);
	for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
		char want[64], *found;

		snprintf(want, sizeof(want), "id=scsi0-%u,addr=0x%zx.0x%zx,multifunction=%s,",
			 units[i], 0x10 + i / 8, i % 8, i % 8 ? "off" : "on");
		found = strstr(text, want);
		if (!found)
			fail_msg("no %s in %s", want, text);
	}
	free(text);
	release(&made);
}

/* ---- what a host lacks ---- */

static void test_checks(void **state)
{
	static const struct {
		const char *text;
		enum err_id id;         /* ERR_NONE: nothing is found */
	} rows[] = {
		{ "", ERR_NONE },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"Prod\"\n", ERR_VM_NETWORK },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"dark\"\n", ERR_NONE },
		{ "ethernet0.present = \"1\"\nethernet0.networkName = \"Prod\"\n"
		  "ethernet0.startConnected = \"FALSE\"\n", ERR_NONE },
		{ "firmware = \"efi\"\n", ERR_VM_FIRMWARE },
		{ "blkmirror.machine = \"pc-i440fx-9.9\"\n", ERR_VM_HARDWARE },
		{ "blkmirror.machine = \"pc-i440fx-6.2\"\n", ERR_NONE },
		{ "blkmirror.kernel = \"/srv/kernels/k\"\n", ERR_NONE },
		{ "blkmirror.kernel = \"/srv/kernelsx/k\"\n", ERR_VM_KERNEL },
		{ "blkmirror.kernel = \"/srv/kernels/../k\"\n", ERR_VM_KERNEL },
		{ "blkmirror.kernel = \"/etc/shadow\"\n", ERR_VM_KERNEL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct vm_findings findings = { 0 };
		struct vm_config *config;
		char source[1024];

		snprintf(source, sizeof(source), "%s%s", BASE, rows[i].text);
		config = config_of(source);
		qemu_check(config, &host, &findings);
		if (findings.error_count != (rows[i].id != ERR_NONE) ||
		    (findings.count && findings.items[0].err.id != rows[i].id))
			fail_msg("%s: %u errors", rows[i].text, findings.error_count);
		free(config);
	}
}

static void test_networks(void **state)
{
	struct qemu_network network;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(qemu_network_parse("VM Network", "bridge:br0", &network, &err), 0);
	assert_string_equal(network.bridge, "br0");
	assert_int_equal(qemu_network_parse("n", "user", &network, &err), 0);
	assert_int_equal(network.kind, QEMU_NETWORK_USER);
	assert_int_equal(qemu_network_parse("n", "none", &network, &err), 0);
	assert_int_equal(qemu_network_parse("n", "bridge:", &network, &err), -EINVAL);
	assert_int_equal(qemu_network_parse("n", "bridge:averyverylongname", &network, &err),
			 -EINVAL);
	assert_int_equal(qemu_network_parse("n", "bridge:a/b", &network, &err), -EINVAL);
	assert_int_equal(qemu_network_parse("n", "tap", &network, &err), -EINVAL);
	assert_int_equal(qemu_network_parse("", "user", &network, &err), -EINVAL);
	assert_int_equal(err.id, ERR_BAD_CONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_line),    cmocka_unit_test(test_parts),
		cmocka_unit_test(test_host_and_resume), cmocka_unit_test(test_virtio_addresses),
		cmocka_unit_test(test_checks),	      cmocka_unit_test(test_networks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
