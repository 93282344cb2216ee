/* SPDX-License-Identifier: Apache-2.0 */
/* vm_config.c - the machine as a whole; its drives and cards are read in files of their own. */
#include "vmotion/vm_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "datastores/ds_path.h"
#include "vmotion/vm_config_private.h"

/* ---- name, processors, memory ---- */

/* Without a displayName it is called as its file. */
static void read_name(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;
	size_t parent_len;
	const char *last = ds_path_last(config->home_path, &parent_len);

	if (vm_read_text(reader, "displayName", config->name, sizeof(config->name)))
		return;
	snprintf(config->name, sizeof(config->name), "%.*s",
		 (int)(strlen(last) - (ds_path_has_suffix(last, ".vmx") ? 4 : 0)), last);
}

static void read_cpus(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;

	config->cpu_count = vm_read_number(reader, "numvcpus", 1, VM_CPUS_MAX, 1);
	config->cores_per_socket =
		vm_read_number(reader, "cpuid.coresPerSocket", 1, VM_CPUS_MAX, 1);
	if (config->cpu_count % config->cores_per_socket)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'numvcpus' (%u) is no multiple of 'cpuid.coresPerSocket' (%u)",
				config->cpu_count, config->cores_per_socket);
}

static void read_memory(struct vm_reader *reader)
{
	uint32_t mib = vm_read_number(reader, "memSize", 4, VM_MEMORY_MAX_MIB, 0);

	if (mib == 0 && !vmx_has(reader->vmx, "memSize"))
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'memSize' is missing: the machine's memory in MiB");
	reader->config->memory_mib = mib;
}

/* "all", "0,2-3" */
static bool affinity_parse(const char *text, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (;;) {
		unsigned long from, to;
		char *end;

		while (isspace((unsigned char)*text))
			text++;
		if (!isdigit((unsigned char)*text))
			return false;
		from = to = strtoul(text, &end, 10);
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				return false;
			to = strtoul(end + 1, &end, 10);
		}
		if (from > to || to >= CPU_SETSIZE)
			return false;
		for (unsigned long cpu = from; cpu <= to; cpu++)
			CPU_SET(cpu, set);
		if (*end == '\0')
			return true;
		if (*end != ',')
			return false;
		text = end + 1;
	}
}

static void read_affinity(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;
	char text[1024];

	if (!vm_read_text(reader, "sched.cpu.affinity", text, sizeof(text)) ||
	    strcasecmp(text, "all") == 0)
		return;
	config->has_affinity = affinity_parse(text, &config->affinity);
	if (!config->has_affinity)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'sched.cpu.affinity' must be 'all' or processors like 0,2-3, not "
				"'%.80s'", text);
}

/* ---- identity ---- */

/* VMware's way, "56 4d 1b 2c 3d 4e 5f 60-71 82 ...", or the usual one. */
static bool uuid_parse_vmware(const char *text, struct uuid *out)
{
	unsigned count = 0;

	if (uuid_parse(text, out) == 0)
		return true;
	while (count < UUID_BYTES) {
		unsigned byte;

		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
		    sscanf(text, "%2x", &byte) != 1)
			return false;
		out->bytes[count++] = (uint8_t)byte;
		text += 2;
		text += *text == ' ' || *text == '-';
	}
	return *text == '\0';
}

static void read_uuid(struct vm_reader *reader)
{
	char text[64];

	if (!vm_read_text(reader, "uuid.bios", text, sizeof(text)) ||
	    uuid_parse_vmware(text, &reader->config->uuid))
		return;
	memset(&reader->config->uuid, 0, sizeof(reader->config->uuid));
	vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
			"'uuid.bios' must be 16 bytes in hexadecimal, not '%s'", text);
}

static void read_firmware(struct vm_reader *reader)
{
	char text[32];

	if (!vm_read_text(reader, "firmware", text, sizeof(text)) || strcasecmp(text, "bios") == 0)
		return;
	reader->config->firmware = VM_FIRMWARE_EFI;
	if (strcasecmp(text, "efi") != 0)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'firmware' must be bios or efi, not '%s'", text);
	if (vm_read_flag(reader, "uefi.secureBoot.enabled", false))
		vm_findings_add(reader->findings, false, ERR_VM_IGNORED,
				"secure boot is asked for and not offered: the machine starts "
				"without");
}

/* It becomes an argument of QEMU: plain, and of the kind that QEMU's own have. */
static void read_machine(struct vm_reader *reader)
{
	char *machine = reader->config->machine;

	if (!vm_read_text(reader, "blkmirror.machine", machine, VM_MACHINE_BYTES))
		return;
	for (const char *c = machine; *c; c++) {
		if (isalnum((unsigned char)*c) || strchr("-._", *c))
			continue;
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'blkmirror.machine' must be one of QEMU's, like pc-i440fx-7.2");
		machine[0] = '\0';
		return;
	}
}

static void read_direct_boot(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;

	vm_read_text(reader, "blkmirror.kernel", config->kernel, sizeof(config->kernel));
	vm_read_text(reader, "blkmirror.initrd", config->initrd, sizeof(config->initrd));
	vm_read_text(reader, "blkmirror.append", config->append, sizeof(config->append));
	if (!config->kernel[0] && (config->initrd[0] || config->append[0]))
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'blkmirror.initrd' and 'blkmirror.append' need 'blkmirror.kernel'");
	if ((config->kernel[0] && config->kernel[0] != '/') ||
	    (config->initrd[0] && config->initrd[0] != '/'))
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'blkmirror.kernel' and 'blkmirror.initrd' must be absolute paths");
}

static void read_suspended(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;
	char text[DS_PATH_BYTES], datastore[DS_NAME_BYTES];
	struct err err = { 0 };

	if (vm_read_text(reader, "checkpoint.vmState", text, sizeof(text)))
		vm_findings_add(reader->findings, true, ERR_VM_FOREIGN_SUSPEND,
				"VMware has suspended it into '%.120s', which only VMware can read",
				text);
	if (!vm_read_text(reader, "blkmirror.suspend.fileName", text, sizeof(text)))
		return;
	if (vm_file_parse(text, config->home_datastore, config->home_path, datastore,
			  config->suspend_path, &err))
		vm_findings_take(reader->findings, true, &err);
	else if (strcmp(datastore, config->home_datastore) != 0)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'blkmirror.suspend.fileName' must lie in the machine's folder");
}

/* ---- what is not used, and matters ---- */

struct note {
	const char *key;
	const char *harmless;           /* this value says nothing */
	bool refuses;
	enum err_id id;
	const char *text;
};

// clang-format off
static const struct note notes[] = {
	{ "encryption.keySafe", NULL, true, ERR_VM_HARDWARE, "the machine is encrypted" },
	{ "vtpm.present", "FALSE", true, ERR_VM_HARDWARE, "a virtual TPM is not offered" },
	{ "sched.cpu.min", "0", false, ERR_VM_IGNORED, "a reservation of processor time is not made" },
	{ "sched.cpu.max", "unlimited", false, ERR_VM_IGNORED, "processor time is not limited" },
	{ "sched.mem.max", "unlimited", false, ERR_VM_IGNORED, "memory is not limited" },
	{ "vcpu.hotadd", "FALSE", false, ERR_VM_IGNORED, "processors cannot be added to the running machine" },
	{ "mem.hotadd", "FALSE", false, ERR_VM_IGNORED, "memory cannot be added to the running machine" },
	{ "parallel0.present", "FALSE", false, ERR_VM_IGNORED, "a parallel port is not offered" },
	{ "serial1.present", "FALSE", false, ERR_VM_IGNORED, "only the first serial port is offered" },
	{ "sound.present", "FALSE", false, ERR_VM_IGNORED, "a sound card is not offered" },
	{ "vhv.enable", "FALSE", false, ERR_VM_IGNORED, "virtualisation inside the machine is not offered" },
	{ "usb.autoConnect.device0", NULL, false, ERR_VM_IGNORED, "the host's USB devices are not given to the machine" },
	{ "workingDir", ".", false, ERR_VM_IGNORED, "the machine works in its own folder" },
};
// clang-format on

static void read_notes(struct vm_reader *reader)
{
	char value[VMX_VALUE_BYTES];

	for (size_t i = 0; i < ARRAY_COUNT(notes); i++) {
		const struct note *note = &notes[i];

		/* A value that cannot be read is no fault of a key that is not used. */
		if (vmx_get(reader->vmx, note->key, value, sizeof(value), NULL) || !value[0] ||
		    (note->harmless && strcasecmp(value, note->harmless) == 0))
			continue;
		vm_findings_add(reader->findings, note->refuses, note->id, "'%s': %s", note->key,
				note->text);
	}
	for (unsigned number = 0; number < 16; number++) {
		char key[64];

		snprintf(key, sizeof(key), "pciPassthru%u.present", number);
		if (vm_read_flag(reader, key, false))
			vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
					"'%s': a device of a host cannot be given to the machine",
					key);
	}
}

/* ---- all of it ---- */

static void read_all(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;

	read_name(reader);
	read_uuid(reader);
	read_cpus(reader);
	read_memory(reader);
	read_affinity(reader);
	read_firmware(reader);
	vm_read_text(reader, "guestOS", config->guest_os, sizeof(config->guest_os));
	read_machine(reader);
	config->usb = vm_read_flag(reader, "usb.present", false);
	config->usb |= vm_read_flag(reader, "ehci.present", false);
	config->usb |= vm_read_flag(reader, "usb_xhci.present", false);
	config->display = vm_read_flag(reader, "svga.present", true);
	vm_read_drives(reader);
	vm_read_nics(reader);
	read_direct_boot(reader);
	read_suspended(reader);
	read_notes(reader);
}

int vm_config_read(const struct vmx *vmx, const char *datastore, const char *path,
		   struct vm_config **out, struct vm_findings *findings)
{
	struct vm_config *config = calloc(1, sizeof(*config));
	struct vm_reader reader = { vmx, config, findings };

	if (!config) {
		vm_findings_add(findings, true, ERR_NO_MEMORY, "out of memory");
		return -ENOMEM;
	}
	snprintf(config->home_datastore, sizeof(config->home_datastore), "%s", datastore);
	snprintf(config->home_path, sizeof(config->home_path), "%s", path);
	read_all(&reader);
	if (findings->error_count) {
		free(config);
		return -EINVAL;
	}
	*out = config;
	return 0;
}

/* ---- what is made once and then stays ---- */

static int complete_uuid(struct vm_config *config, struct vmx *vmx, bool *changed, struct err *err)
{
	char text[64], *at = text;
	struct uuid uuid = uuid_random();
	int rc;

	if (!uuid_is_null(&config->uuid))
		return 0;
	for (int i = 0; i < UUID_BYTES; i++)
		at += sprintf(at, "%s%02x", i == 0 ? "" : i == 8 ? "-" : " ", uuid.bytes[i]);
	rc = vmx_set(vmx, "uuid.bios", text, err);
	if (rc)
		return rc;
	config->uuid = uuid;
	*changed = true;
	return 0;
}

/* In VMware's range for generated ones, 00:0c:29. */
static int complete_mac(struct vm_nic *nic, struct vmx *vmx, bool *changed, struct err *err)
{
	struct uuid chance = uuid_random();
	uint8_t mac[6] = { 0x00, 0x0c, 0x29, chance.bytes[0], chance.bytes[1], chance.bytes[2] };
	char key[64], text[32];
	int rc;

	if (nic->has_mac)
		return 0;
	snprintf(key, sizeof(key), "ethernet%u.generatedAddress", nic->number);
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	rc = vmx_set(vmx, key, text, err);
	if (rc)
		return rc;
	memcpy(nic->mac, mac, sizeof(nic->mac));
	nic->has_mac = true;
	*changed = true;
	return 0;
}

int vm_config_complete(struct vm_config *config, struct vmx *vmx, const char *machine,
		       bool *changed, struct err *err)
{
	int rc = complete_uuid(config, vmx, changed, err);

	for (uint32_t i = 0; !rc && i < config->nic_count; i++)
		rc = complete_mac(&config->nics[i], vmx, changed, err);
	if (rc || config->machine[0])
		return rc;
	rc = vmx_set(vmx, "blkmirror.machine", machine, err);
	if (rc)
		return rc;
	snprintf(config->machine, sizeof(config->machine), "%s", machine);
	*changed = true;
	return 0;
}
