/* SPDX-License-Identifier: Apache-2.0 */
/* vm_config_nics.c - the network cards of a VMX. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vmotion/vm_config_private.h"

#define KEY_BYTES 64

static void read_model(struct vm_reader *reader, struct vm_nic *nic)
{
	static const struct {
		const char *name;
		enum vm_nic_model model;
	} models[] = {
		{ "e1000", VM_NIC_E1000 },   { "e1000e", VM_NIC_E1000E },
		{ "vmxnet3", VM_NIC_VMXNET3 }, { "vlance", VM_NIC_PCNET },
		{ "flexible", VM_NIC_PCNET },  { "virtio", VM_NIC_VIRTIO },
	};
	char key[KEY_BYTES], name[64] = "e1000";

	snprintf(key, sizeof(key), "ethernet%u.virtualDev", nic->number);
	vm_read_text(reader, key, name, sizeof(name));
	for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
		if (strcasecmp(models[i].name, name) == 0) {
			nic->model = models[i].model;
			return;
		}
	}
	vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
			"ethernet%u: QEMU has no card '%s'", nic->number, name);
}

static bool mac_parse(const char *text, uint8_t mac[6])
{
	unsigned part[6];
	char after;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &part[0], &part[1], &part[2], &part[3],
		   &part[4], &part[5], &after) != 6 ||
	    strlen(text) != 17)
		return false;
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)part[i];
	return (mac[0] & 1) == 0;
}

/* Static ones stand in .address, others in .generatedAddress. */
static void read_mac(struct vm_reader *reader, struct vm_nic *nic)
{
	char key[KEY_BYTES], type[32] = "generated", text[64];

	snprintf(key, sizeof(key), "ethernet%u.addressType", nic->number);
	vm_read_text(reader, key, type, sizeof(type));
	snprintf(key, sizeof(key), "ethernet%u.%s", nic->number,
		 strcasecmp(type, "static") == 0 ? "address" : "generatedAddress");
	if (!vm_read_text(reader, key, text, sizeof(text))) {
		if (strcasecmp(type, "static") == 0)
			vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
					"'%s' is missing, and the address is static", key);
		return;
	}
	nic->has_mac = mac_parse(text, nic->mac);
	if (!nic->has_mac)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'%s' must be a machine's address like 00:50:56:00:00:01, not '%s'",
				key, text);
}

static void read_nic(struct vm_reader *reader, uint8_t number)
{
	struct vm_nic nic = { .number = number };
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "ethernet%u.present", number);
	if (!vm_read_flag(reader, key, false))
		return;
	read_model(reader, &nic);
	read_mac(reader, &nic);
	snprintf(key, sizeof(key), "ethernet%u.startConnected", number);
	nic.connected = vm_read_flag(reader, key, true);
	/* Workstation names no network but a kind of one, which may stand in the map as well. */
	snprintf(nic.network, sizeof(nic.network), "bridged");
	snprintf(key, sizeof(key), "ethernet%u.connectionType", number);
	vm_read_text(reader, key, nic.network, sizeof(nic.network));
	snprintf(key, sizeof(key), "ethernet%u.networkName", number);
	vm_read_text(reader, key, nic.network, sizeof(nic.network));
	reader->config->nics[reader->config->nic_count++] = nic;
}

void vm_read_nics(struct vm_reader *reader)
{
	struct vm_config *config = reader->config;

	for (uint8_t number = 0; number < VM_NICS_MAX; number++)
		read_nic(reader, number);
	for (uint32_t i = 0; i < config->nic_count; i++)
		for (uint32_t j = 0; j < i; j++)
			if (config->nics[i].has_mac && config->nics[j].has_mac &&
			    memcmp(config->nics[i].mac, config->nics[j].mac, 6) == 0)
				vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
						"ethernet%u and ethernet%u have the same address",
						config->nics[j].number, config->nics[i].number);
}
