/* SPDX-License-Identifier: Apache-2.0 */
/* test_vm_config.c - what a VMX means: the golden files, each bad value with its id, what is made once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmotion/vm_config.h"

static struct vmx *parse(const char *text, size_t len)
{
	struct vmx *vmx = NULL;
	struct err err = { 0 };

	if (vmx_parse(text, len, "t.vmx", &vmx, &err))
		fail_msg("%s", err.cause);
	return vmx;
}

static int read_text(const char *text, struct vm_config **config, struct vm_findings *findings)
{
	struct vmx *vmx = parse(text, strlen(text));
	int rc;

	memset(findings, 0, sizeof(*findings));
	*config = NULL;
	rc = vm_config_read(vmx, "ds", "web01/web01.vmx", config, findings);
	vmx_free(vmx);
	return rc;
}

static struct vmx *golden(const char *name)
{
	char path[256], *bytes = malloc(VMX_TEXT_MAX_BYTES);
	struct vmx *vmx;
	FILE *file;
	size_t len;

	snprintf(path, sizeof(path), "tests/golden/vmx/%s", name);
	file = fopen(path, "rb");
	assert_non_null(bytes);
	assert_non_null(file);
	len = fread(bytes, 1, VMX_TEXT_MAX_BYTES, file);
	fclose(file);
	vmx = parse(bytes, len);
	free(bytes);
	return vmx;
}

static struct vm_config *golden_config(const char *name, struct vm_findings *findings)
{
	struct vmx *vmx = golden(name);
	struct vm_config *config = NULL;

	memset(findings, 0, sizeof(*findings));
	if (vm_config_read(vmx, "ds", "vm/vm.vmx", &config, findings))
		fail_msg("%s: %s", name, vm_findings_first_error(findings)->cause);
	vmx_free(vmx);
	return config;
}

static bool warns(const struct vm_findings *findings, enum err_id id)
{
	for (uint32_t i = 0; i < findings->count; i++)
		if (!findings->items[i].refuses && findings->items[i].err.id == id)
			return true;
	return false;
}

/* ---- golden files ---- */

static void test_esxi(void **state)
{
	struct vm_findings findings;
	struct vm_config *config = golden_config("esxi-linux.vmx", &findings);

	(void)state;
	assert_string_equal(config->name, "web01 (B\xc3\xbcro \"K\xc3\xb6ln\")");
	assert_int_equal(config->memory_mib, 8192);
	assert_int_equal(config->cpu_count, 4);
	assert_int_equal(config->cores_per_socket, 2);
	assert_int_equal(config->firmware, VM_FIRMWARE_BIOS);
	assert_int_equal(config->uuid.bytes[0], 0x42);
	assert_int_equal(config->uuid.bytes[15], 0x91);
	assert_false(config->has_affinity);
	assert_true(config->usb);
	assert_int_equal(config->scsi[0], VM_SCSI_PVSCSI);
	assert_int_equal(config->drive_count, 3);
	assert_string_equal(config->drives[0].name, "scsi0:0");
	assert_string_equal(config->drives[0].datastore, "ds");
	assert_string_equal(config->drives[0].path, "vm/web01.vmdk");
	assert_string_equal(config->drives[1].datastore, "nas");
	assert_string_equal(config->drives[1].path, "web01/web01_1.vmdk");
	assert_int_equal(config->drives[2].media, VM_MEDIA_CDROM);
	assert_false(config->drives[2].has_file); /* not connected at start */
	assert_int_equal(config->nic_count, 1);
	assert_int_equal(config->nics[0].model, VM_NIC_VMXNET3);
	assert_string_equal(config->nics[0].network, "VM Network");
	assert_memory_equal(config->nics[0].mac, "\x00\x50\x56\x8a\x1b\x2c", 6);
	assert_int_equal(findings.count, 0);
	free(config);
}

static void test_others(void **state)
{
	struct vm_findings findings;
	struct vm_config *config = golden_config("workstation-windows.vmx", &findings);

	(void)state;
	assert_int_equal(config->firmware, VM_FIRMWARE_EFI);
	assert_int_equal(config->drives[1].bus, VM_BUS_NVME);
	assert_int_equal(config->drives[0].media, VM_MEDIA_CDROM);
	assert_string_equal(config->nics[0].network, "nat");
	assert_true(warns(&findings, ERR_VM_NO_MIGRATE));
	assert_true(warns(&findings, ERR_VM_IGNORED)); /* secure boot */
	free(config);

	config = golden_config("workstation-odd.vmx", &findings);
	assert_string_equal(config->name, "old");
	assert_int_equal(config->memory_mib, 512);
	assert_int_equal(config->scsi[0], VM_SCSI_LSILOGIC);
	assert_int_equal(config->nics[0].model, VM_NIC_PCNET);
	assert_true(warns(&findings, ERR_VM_GUEST_DRIVER));
	assert_int_equal(config->drive_count, 3); /* disk, CD-ROM, floppy */
	free(config);

	config = golden_config("esxi-crlf-bom.vmx", &findings);
	assert_string_equal(config->drives[0].datastore, "san-1");
	assert_string_equal(config->drives[0].path, "db-02/db-02.vmdk");
	assert_int_equal(config->drives[1].bus, VM_BUS_IDE);
	assert_true(config->has_affinity);
	assert_int_equal(CPU_COUNT(&config->affinity), 3);
	assert_true(CPU_ISSET(3, &config->affinity));
	assert_false(config->nics[1].connected);
	assert_true(warns(&findings, ERR_VM_HARDWARE)); /* buslogic, without drives */
	free(config);
}

/* ---- bad values ---- */

#define OK "memSize = \"64\"\n"

static void test_refusals(void **state)
{
	static const struct {
		const char *text;
		enum err_id id;
		const char *says;
	} rows[] = {
		{ "", ERR_VMX_BAD_VALUE, "memSize" },
		{ "memSize = \"64MB\"", ERR_VMX_BAD_VALUE, "64MB" },
		{ "memSize = \"-4\"", ERR_VMX_BAD_VALUE, "-4" },
		{ "memSize = \"3\"", ERR_VMX_BAD_VALUE, "from 4" },
		{ "memSize = \"99999999999999999999\"", ERR_VMX_BAD_VALUE, "memSize" },
		{ "memSize = \"64\"\nMEMSIZE = \"64\"", ERR_VMX_DUPLICATE, "memSize" },
		{ OK "displayName = \"a|0Ab\"", ERR_VMX_BAD_VALUE, "one line" },
		{ OK "displayName = \"\xff\"", ERR_VMX_BAD_VALUE, "UTF-8" },
		{ OK "numvcpus = \"0\"", ERR_VMX_BAD_VALUE, "numvcpus" },
		{ OK "numvcpus = \"3\"\ncpuid.coresPerSocket = \"2\"", ERR_VMX_BAD_VALUE,
		  "multiple" },
		{ OK "sched.cpu.affinity = \"3-1\"", ERR_VMX_BAD_VALUE, "affinity" },
		{ OK "sched.cpu.affinity = \"99999\"", ERR_VMX_BAD_VALUE, "affinity" },
		{ OK "sched.cpu.affinity = \"0,\"", ERR_VMX_BAD_VALUE, "affinity" },
		{ OK "firmware = \"uefi\"", ERR_VMX_BAD_VALUE, "firmware" },
		{ OK "uuid.bios = \"56 4d\"", ERR_VMX_BAD_VALUE, "uuid.bios" },
		{ OK "usb.present = \"perhaps\"", ERR_VMX_BAD_VALUE, "TRUE or FALSE" },
		{ OK "blkmirror.machine = \"pc,accel=kvm\"", ERR_VMX_BAD_VALUE, "machine" },
		{ OK "blkmirror.kernel = \"vmlinuz\"", ERR_VMX_BAD_VALUE, "absolute" },
		{ OK "blkmirror.append = \"quiet\"", ERR_VMX_BAD_VALUE, "blkmirror.kernel" },
		{ OK "blkmirror.suspend.fileName = \"../x\"", ERR_DS_PATH_ESCAPE, ".." },
		{ OK "blkmirror.suspend.fileName = \"[b] x\"", ERR_VMX_BAD_VALUE, "folder" },
		{ OK "checkpoint.vmState = \"x.vmss\"", ERR_VM_FOREIGN_SUSPEND, "x.vmss" },
		{ OK "encryption.keySafe = \"x\"", ERR_VM_HARDWARE, "encrypted" },
		{ OK "pciPassthru3.present = \"TRUE\"", ERR_VM_HARDWARE, "pciPassthru3" },
		{ OK "scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"", ERR_VM_HARDWARE,
		  "not present" },
		{ OK "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"buslogic\"\n"
		  "scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"", ERR_VM_HARDWARE,
		  "cannot be had" },
		{ OK "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"adaptec\"",
		  ERR_VMX_BAD_VALUE, "adaptec" },
		{ OK "scsi0.present = \"TRUE\"\nscsi0.sharedBus = \"physical\"", ERR_VM_HARDWARE,
		  "share" },
		{ OK "ide0:0.present = \"TRUE\"", ERR_VMX_BAD_VALUE, "fileName" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"../b/a.vmdk\"",
		  ERR_DS_PATH_ESCAPE, "ide0:0" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"b/../../a.vmdk\"",
		  ERR_DS_PATH_ESCAPE, ".." },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"/etc/passwd\"",
		  ERR_VMX_BAD_VALUE, "some host" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"C:\\x.vmdk\"",
		  ERR_VMX_BAD_VALUE, "some host" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"[a b] x.vmdk\"",
		  ERR_VMX_BAD_VALUE, "datastore" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"[a] ../x.vmdk\"",
		  ERR_DS_PATH_ESCAPE, ".." },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"[a\"", ERR_VMX_BAD_VALUE,
		  "']'" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"/vmfs/volumes/a\"",
		  ERR_VMX_BAD_VALUE, "no file" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n"
		  "ide0:1.present = \"TRUE\"\nide0:1.fileName = \"[ds] web01/a.vmdk\"",
		  ERR_VMX_BAD_VALUE, "same file" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n"
		  "ide0:0.mode = \"independent-nonpersistent\"", ERR_VMX_BAD_VALUE, "lose" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n"
		  "ide0:0.redo = \"a.redo\"", ERR_DISK_CHAIN, "redo" },
		{ OK "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a\"\n"
		  "ide0:0.deviceType = \"rawDisk\"", ERR_VM_HARDWARE, "rawDisk" },
		{ OK "sata0.present = \"TRUE\"\nsata0:6.present = \"TRUE\"\n"
		  "sata0:6.fileName = \"a.vmdk\"", ERR_VM_HARDWARE, "6 drives" },
		{ OK "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\n"
		  "scsi0:8.present = \"TRUE\"\nscsi0:8.fileName = \"a.vmdk\"", ERR_VM_HARDWARE,
		  "7 drives" },
		{ OK "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n"
		  "scsi0:7.present = \"TRUE\"\nscsi0:7.fileName = \"a.vmdk\"", ERR_VMX_BAD_VALUE,
		  "own number" },
		{ OK "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet\"",
		  ERR_VM_HARDWARE, "vmxnet" },
		{ OK "ethernet0.present = \"TRUE\"\nethernet0.addressType = \"static\"",
		  ERR_VMX_BAD_VALUE, "missing" },
		{ OK "ethernet0.present = \"TRUE\"\nethernet0.generatedAddress = \"00:11\"",
		  ERR_VMX_BAD_VALUE, "00:11" },
		{ OK "ethernet0.present = \"TRUE\"\n"
		  "ethernet0.generatedAddress = \"01:11:22:33:44:55\"", ERR_VMX_BAD_VALUE,
		  "01:11" },
		{ OK "ethernet0.present = \"1\"\nethernet0.generatedAddress = \"00:11:22:33:44:55\"\n"
		  "ethernet1.present = \"1\"\nethernet1.generatedAddress = \"00:11:22:33:44:55\"",
		  ERR_VMX_BAD_VALUE, "same address" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct vm_findings findings;
		struct vm_config *config;
		const struct err *first;

		if (read_text(rows[i].text, &config, &findings) != -EINVAL)
			fail_msg("taken: %s", rows[i].text);
		assert_null(config);
		first = vm_findings_first_error(&findings);
		assert_non_null(first);
		if (first->id != rows[i].id || !strstr(first->cause, rows[i].says))
			fail_msg("%s\n-> %s: %s", rows[i].text, err_name(first->id), first->cause);
		assert_true(first->remedy[0] != '\0');
	}
}

static void test_all_faults_at_once(void **state)
{
	struct vm_findings findings;
	struct vm_config *config;

	(void)state;
	assert_int_equal(read_text("numvcpus = \"x\"\nfirmware = \"y\"\nusb.present = \"z\"\n",
				   &config, &findings), -EINVAL);
	assert_int_equal(findings.error_count, 4); /* and no memSize */
	assert_int_equal(findings.count, 4);
}

/* More faults than the list holds: still refused. */
static void test_findings_are_bounded(void **state)
{
	struct vm_findings *findings = calloc(1, sizeof(*findings));

	(void)state;
	assert_non_null(findings);
	for (unsigned i = 0; i < VM_FINDINGS_MAX; i++)
		vm_findings_add(findings, false, ERR_VM_IGNORED, "w%u", i);
	vm_findings_add(findings, true, ERR_VMX_BAD_VALUE, "the last straw");
	assert_int_equal(findings->count, VM_FINDINGS_MAX);
	assert_int_equal(findings->error_count, 1);
	free(findings);
}

static void test_defaults(void **state)
{
	struct vm_findings findings;
	struct vm_config *config;

	(void)state;
	assert_int_equal(read_text(OK, &config, &findings), 0);
	assert_string_equal(config->name, "web01");
	assert_int_equal(config->cpu_count, 1);
	assert_int_equal(config->drive_count, 0);
	assert_true(config->display);
	assert_true(uuid_is_null(&config->uuid));
	free(config);
}

static void test_warnings(void **state)
{
	struct vm_findings findings;
	struct vm_config *config;

	(void)state;
	assert_int_equal(read_text(OK "vcpu.hotadd = \"TRUE\"\nserial1.present = \"TRUE\"\n"
				   "sched.cpu.min = \"500\"\nide1:0.present = \"TRUE\"\n"
				   "ide1:0.deviceType = \"atapi-cdrom\"\n",
				   &config, &findings), 0);
	assert_int_equal(findings.error_count, 0);
	assert_int_equal(findings.count, 4);
	free(config);
}

/* ---- made once ---- */

static void test_complete(void **state)
{
	struct vmx *vmx = parse(OK "ethernet0.present = \"TRUE\"\n", strlen(OK) + 27);
	struct vm_findings findings = { 0 };
	struct vm_config *config, *again;
	bool changed = false;

	(void)state;
	assert_int_equal(vm_config_read(vmx, "ds", "a/a.vmx", &config, &findings), 0);
	assert_int_equal(vm_config_complete(config, vmx, "pc-i440fx-7.2", &changed, NULL), 0);
	assert_true(changed);
	assert_int_equal(vm_config_read(vmx, "ds", "a/a.vmx", &again, &findings), 0);
	assert_string_equal(again->machine, "pc-i440fx-7.2");
	assert_true(uuid_equal(&again->uuid, &config->uuid));
	assert_false(uuid_is_null(&again->uuid));
	assert_true(again->nics[0].has_mac);
	assert_memory_equal(again->nics[0].mac, config->nics[0].mac, 6);
	changed = false;
	assert_int_equal(vm_config_complete(again, vmx, "pc-i440fx-9.9", &changed, NULL), 0);
	assert_false(changed);
	assert_string_equal(again->machine, "pc-i440fx-7.2"); /* pinned */
	free(config);
	free(again);
	vmx_free(vmx);
}

static void test_file_names(void **state)
{
	char ds[DS_NAME_BYTES], path[DS_PATH_BYTES], text[DS_NAME_BYTES + DS_PATH_BYTES + 4];

	(void)state;
	assert_int_equal(vm_file_parse("./a b.vmdk", "d", "top.vmx", ds, path, NULL), 0);
	assert_string_equal(path, "a b.vmdk");
	vm_file_format("d", "f/a.vmdk", "d", "f/f.vmx", text);
	assert_string_equal(text, "a.vmdk");
	vm_file_format("d", "f/g/a.vmdk", "d", "f/f.vmx", text);
	assert_string_equal(text, "[d] f/g/a.vmdk");
	vm_file_format("e", "f/a.vmdk", "d", "f/f.vmx", text);
	assert_string_equal(text, "[e] f/a.vmdk");
	assert_int_equal(vm_file_parse(text, "d", "f/f.vmx", ds, path, NULL), 0);
	assert_string_equal(ds, "e");
	assert_string_equal(path, "f/a.vmdk");
	vm_file_format("d", "ff/a.vmdk", "d", "f/f.vmx", text);
	assert_string_equal(text, "[d] ff/a.vmdk");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_esxi),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_all_faults_at_once),
		cmocka_unit_test(test_findings_are_bounded),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_complete),
		cmocka_unit_test(test_file_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
