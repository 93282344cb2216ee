/* SPDX-License-Identifier: Apache-2.0 */
/* qemu_args.c - the machine and its cards; drives are in qemu_drives.c, checks in qemu_check.c. */
#include "vmotion/qemu_args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vmotion/qemu_args_private.h"

#define SLOT_VGA 0x02
#define SLOT_USB 0x03
#define SLOT_NIC 0x04
#define BOOT_NIC 200

/* ---- words ---- */

static void word_take(struct qemu_words *words, char *word)
{
	struct qemu_args *args = words->args;

	if (word && args->count < QEMU_ARGS_MAX) {
		args->words[args->count++] = word;
		args->words[args->count] = NULL;
		return;
	}
	if (!words->rc)
		words->rc = word ? -E2BIG : -ENOMEM;
	free(word);
}

void qemu_word(struct qemu_words *words, const char *format, ...)
{
	char *word = NULL;
	va_list list;

	va_start(list, format);
	if (vasprintf(&word, format, list) < 0)
		word = NULL;
	va_end(list);
	word_take(words, word);
}

char *qemu_escape(const char *text, char *out, size_t out_bytes)
{
	size_t len = 0;

	for (; *text && len + 2 < out_bytes; text++) {
		out[len++] = *text;
		if (*text == ',')
			out[len++] = ',';
	}
	CHECK(*text == '\0');   /* the caller's room is twice the text's bound */
	out[len] = '\0';
	return out;
}

#define words_add qemu_word

/* ---- the machine ---- */

static void add_identity(struct qemu_words *words, const struct vm_config *config,
			 const struct qemu_run *run)
{
	char name[2 * VM_NAME_BYTES + 2], uuid[UUID_TEXT_BYTES];

	words_add(words, "-name");
	words_add(words, "guest=%s,process=bm-%s,debug-threads=on",
		  qemu_escape(config->name, name, sizeof(name)), run->id);
	words_add(words, "-uuid");
	words_add(words, "%s", uuid_format(&config->uuid, uuid));
}

static void add_board(struct qemu_words *words, const struct vm_config *config,
		      const struct qemu_host *host)
{
	bool kvm = strcmp(host->accel, "kvm") == 0;

	words_add(words, "-machine");
	words_add(words, "%s,memory-backend=ram%s",
		  config->machine[0] ? config->machine : host->machine,
		  config->firmware == VM_FIRMWARE_EFI ? ",pflash0=efi-code,pflash1=efi-vars" : "");
	words_add(words, "-accel");
	words_add(words, kvm ? "kvm" : "tcg,thread=multi");
	words_add(words, "-cpu");
	words_add(words, "%s", host->cpu ? host->cpu : kvm ? "host" : "max");
	words_add(words, "-smp");
	words_add(words, "%u,sockets=%u,cores=%u,threads=1", config->cpu_count,
		  config->cpu_count / config->cores_per_socket, config->cores_per_socket);
	words_add(words, "-object");
	words_add(words, "memory-backend-memfd,id=ram,size=%uM,share=on", config->memory_mib);
	words_add(words, "-m");
	words_add(words, "%uM", config->memory_mib);
	words_add(words, "-rtc");
	words_add(words, "base=%s,driftfix=slew",
		  strncasecmp(config->guest_os, "win", 3) == 0 ? "localtime" : "utc");
}

/* No file of the user's, no window, no port, nothing that was not asked for; it waits for 'cont'. */
static void add_manners(struct qemu_words *words, const struct qemu_host *host,
			const struct qemu_run *run)
{
	static const char *const always[] = { "-no-user-config", "-nodefaults", "-display", "none",
					      "-no-shutdown", "-S", "-msg", "timestamp=on" };

	for (size_t i = 0; i < ARRAY_COUNT(always); i++)
		words_add(words, "%s", always[i]);
	words_add(words, "-boot");
	words_add(words, "menu=off,strict=on");
	if (host->sandbox) {
		words_add(words, "-sandbox");
		words_add(words, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
				 "resourcecontrol=deny");
	}
	if (run->incoming) {
		words_add(words, "-incoming");
		words_add(words, "defer");
	}
}

static void add_firmware(struct qemu_words *words, const struct vm_config *config,
			 const struct qemu_host *host, const struct qemu_run *run)
{
	char path[2 * DS_PATH_BYTES];

	if (config->firmware != VM_FIRMWARE_EFI)
		return;
	words_add(words, "-blockdev");
	words_add(words, "driver=file,node-name=efi-code,read-only=on,filename=%s",
		  qemu_escape(host->efi_code, path, sizeof(path)));
	words_add(words, "-add-fd");
	words_add(words, "fd=%d,set=2", run->fds.efi_vars);
	words_add(words, "-blockdev");
	words_add(words, "driver=file,node-name=efi-vars,locking=off,filename=/dev/fdset/2");
}

static void add_direct_boot(struct qemu_words *words, const struct vm_config *config,
			    const struct qemu_run *run)
{
	if (!config->kernel[0])
		return;
	words_add(words, "-kernel");
	words_add(words, "/proc/self/fd/%d", run->fds.kernel);
	if (config->initrd[0]) {
		words_add(words, "-initrd");
		words_add(words, "/proc/self/fd/%d", run->fds.initrd);
	}
	if (config->append[0]) {
		words_add(words, "-append");
		words_add(words, "%s", config->append);
	}
}

static void add_channels(struct qemu_words *words, const struct qemu_run *run)
{
	words_add(words, "-chardev");
	words_add(words, "socket,id=qmp,fd=%d,server=on,wait=off", run->fds.qmp);
	words_add(words, "-mon");
	words_add(words, "chardev=qmp,mode=control");
	words_add(words, "-add-fd");
	words_add(words, "fd=%d,set=1", run->fds.serial_log);
	words_add(words, "-chardev");
	words_add(words, "socket,id=serial0,fd=%d,server=on,wait=off,logfile=/dev/fdset/1,"
			 "logappend=on", run->fds.serial);
	words_add(words, "-serial");
	words_add(words, "chardev:serial0");
}

/* ---- cards ---- */

static const char *nic_device(enum vm_nic_model model)
{
	static const char *const names[] = {
		[VM_NIC_E1000] = "e1000",     [VM_NIC_E1000E] = "e1000e",
		[VM_NIC_VMXNET3] = "vmxnet3", [VM_NIC_PCNET] = "pcnet",
		[VM_NIC_VIRTIO] = "virtio-net-pci",
	};

	return names[model];
}

/* Without a network behind it the card is there and its cable is not. */
static void add_nic(struct qemu_words *words, const struct vm_nic *nic,
		    const struct qemu_host *host, int tap_fd)
{
	const struct qemu_network *network = qemu_network_find(host, nic->network);
	bool wired = nic->connected && network && network->kind != QEMU_NETWORK_NONE;
	char netdev[32] = "";

	if (wired) {
		words_add(words, "-netdev");
		if (network->kind == QEMU_NETWORK_BRIDGE)
			words_add(words, "tap,id=net%u,fd=%d,vhost=off", nic->number, tap_fd);
		else
			words_add(words, "user,id=net%u", nic->number);
		snprintf(netdev, sizeof(netdev), ",netdev=net%u", nic->number);
	}
	words_add(words, "-device");
	words_add(words, "%s,id=ethernet%u,mac=%02x:%02x:%02x:%02x:%02x:%02x,addr=0x%x,"
			 "bootindex=%u%s",
		  nic_device(nic->model), nic->number, nic->mac[0], nic->mac[1], nic->mac[2],
		  nic->mac[3], nic->mac[4], nic->mac[5], SLOT_NIC + nic->number,
		  BOOT_NIC + nic->number, netdev);
}

static void add_cards(struct qemu_words *words, const struct vm_config *config,
		      const struct qemu_host *host, const struct qemu_run *run)
{
	if (config->display) {
		words_add(words, "-device");
		words_add(words, "VGA,id=svga,addr=0x%x", SLOT_VGA);
	}
	if (config->usb) {
		words_add(words, "-device");
		words_add(words, "qemu-xhci,id=usb,addr=0x%x", SLOT_USB);
		words_add(words, "-device");
		words_add(words, "usb-tablet,id=tablet,bus=usb.0");
	}
	for (uint32_t i = 0; i < config->nic_count; i++)
		add_nic(words, &config->nics[i], host, run->fds.taps[i]);
}

/* ---- all of it ---- */

int qemu_args_make(const struct vm_config *config, const struct qemu_host *host,
		   const struct qemu_run *run, struct qemu_args *out, struct err *err)
{
	struct qemu_words words = { .args = out };

	*out = (struct qemu_args){ 0 };
	words_add(&words, "%s", host->binary);
	add_identity(&words, config, run);
	add_board(&words, config, host);
	add_manners(&words, host, run);
	add_firmware(&words, config, host, run);
	add_direct_boot(&words, config, run);
	add_channels(&words, run);
	add_cards(&words, config, host, run);
	qemu_add_drives(&words, config, host, run);
	if (words.rc == -E2BIG)
		return err_set(err, ERR_VMX_LIMIT, -E2BIG,
			       "the machine has more devices than QEMU's command line takes");
	return words.rc ? err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory") : 0;
}

void qemu_args_release(struct qemu_args *args)
{
	for (uint32_t i = 0; i < args->count; i++)
		free(args->words[i]);
	*args = (struct qemu_args){ 0 };
}
