/* SPDX-License-Identifier: Apache-2.0 */
/* qemu_check.c - networks and their map, and what this host lacks for a machine. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "vmotion/qemu_args.h"

_Static_assert(IF_NAMESIZE == sizeof(((struct qemu_network *)NULL)->bridge), "interface names");

const struct qemu_network *qemu_network_find(const struct qemu_host *host, const char *name)
{
	for (uint32_t i = 0; i < host->network_count; i++)
		if (strcmp(host->networks[i].name, name) == 0)
			return &host->networks[i];
	return NULL;
}

int qemu_network_parse(const char *name, const char *text, struct qemu_network *out,
		       struct err *err)
{
	struct qemu_network network = { .kind = QEMU_NETWORK_NONE };
	const char *bridge = strncmp(text, "bridge:", 7) == 0 ? text + 7 : NULL;

	if (name[0] == '\0' || strlen(name) >= sizeof(network.name))
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "a network's name must have 1 to %zu bytes",
			       sizeof(network.name) - 1);
	snprintf(network.name, sizeof(network.name), "%s", name);
	if (bridge && bridge[0] && strlen(bridge) < sizeof(network.bridge) &&
	    !strpbrk(bridge, "/ \t")) {
		network.kind = QEMU_NETWORK_BRIDGE;
		snprintf(network.bridge, sizeof(network.bridge), "%s", bridge);
	} else if (strcmp(text, "user") == 0) {
		network.kind = QEMU_NETWORK_USER;
	} else if (strcmp(text, "none") != 0) {
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "the network '%s' must be bridge:INTERFACE, user or none, not '%s'",
			       name, text);
	}
	*out = network;
	return 0;
}

/* ---- checks ---- */

static void check_networks(const struct vm_config *config, const struct qemu_host *host,
			   struct vm_findings *findings)
{
	for (uint32_t i = 0; i < config->nic_count; i++) {
		const struct vm_nic *nic = &config->nics[i];

		if (nic->connected && !qemu_network_find(host, nic->network))
			vm_findings_add(findings, true, ERR_VM_NETWORK,
					"ethernet%u: this host has no network '%s'", nic->number,
					nic->network);
	}
}

static void check_machine(const struct vm_config *config, const struct qemu_host *host,
			  struct vm_findings *findings)
{
	if (!config->machine[0])
		return;
	for (const char *const *machine = host->machines; *machine; machine++)
		if (strcmp(*machine, config->machine) == 0)
			return;
	vm_findings_add(findings, true, ERR_VM_HARDWARE,
			"this host's QEMU has no machine of the type '%s'", config->machine);
}

static bool is_below(const char *path, const char *const *roots)
{
	for (; roots && *roots; roots++) {
		size_t len = strlen(*roots);

		if (strncmp(path, *roots, len) == 0 && path[len] == '/')
			return true;
	}
	return false;
}

/* By name only; where the file really lies is judged again when it is opened. */
static void check_kernel(const char *key, const char *path, const struct qemu_host *host,
			 struct vm_findings *findings)
{
	if (path[0] && (!is_below(path, host->kernel_roots) || strstr(path, "/../")))
		vm_findings_add(findings, true, ERR_VM_KERNEL,
				"'%s': '%.160s' does not lie below one of this host's kernel_roots",
				key, path);
}

void qemu_check(const struct vm_config *config, const struct qemu_host *host,
		struct vm_findings *findings)
{
	check_networks(config, host, findings);
	check_machine(config, host, findings);
	check_kernel("blkmirror.kernel", config->kernel, host, findings);
	check_kernel("blkmirror.initrd", config->initrd, host, findings);
	if (config->firmware == VM_FIRMWARE_EFI && !host->efi_code)
		vm_findings_add(findings, true, ERR_VM_FIRMWARE,
				"the machine wants EFI, and this host has no firmware for it");
}
