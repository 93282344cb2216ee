/* SPDX-License-Identifier: Apache-2.0 */
/* qemu_drives.c - controllers, and what is served to them. */
#include <stdio.h>
#include <string.h>

#include "vmotion/disk.h"
#include "vmotion/qemu_args_private.h"

#define SLOT_SCSI 0x10          /* two slots per controller: a virtio disk is a function */
#define SLOT_SATA 0x18
#define SLOT_NVME 0x1c
#define FUNCTIONS 8
#define BOOT_DISK 1
#define BOOT_CDROM 100
#define VHOST_QUEUES_MAX 4u

struct drives {
	struct qemu_words *words;
	const struct vm_config *config;
	const struct qemu_host *host;
	const struct qemu_run *run;
};

/* Ids of QEMU's have no ':'. */
static char *drive_id(const struct vm_drive *drive, char id[16])
{
	char *colon;

	memcpy(id, drive->name, sizeof(drive->name));
	colon = strchr(id, ':');
	if (colon)
		*colon = '-';
	return id;
}

static int boot_index(const struct drives *drives, uint32_t index)
{
	return (drives->config->drives[index].media == VM_MEDIA_CDROM ? BOOT_CDROM : BOOT_DISK) +
	       (int)index;
}

/* The node "disk-ID", served over NBD. */
static void add_node(const struct drives *drives, const struct vm_drive *drive,
		     const struct qemu_place *place)
{
	char id[16], path[2 * DISK_SOCKET_BYTES], name[2 * DISK_ID_BYTES];

	qemu_word(drives->words, "-blockdev");
	qemu_word(drives->words,
		  "driver=nbd,node-name=disk-%s,server.type=unix,server.path=%s,export=%s,"
		  "reconnect-delay=%u,cache.direct=on,discard=unmap,detect-zeroes=off%s",
		  drive_id(drive, id), qemu_escape(place->socket_path, path, sizeof(path)),
		  qemu_escape(place->export_name, name, sizeof(name)), drives->host->reconnect_s,
		  drive->media == VM_MEDIA_CDROM ? ",read-only=on" : "");
}

/* ---- virtio: one PCI function per disk ---- */

/* Disks before it on the same controller: functions are filled from 0, as PCI wants it. */
static unsigned virtio_rank(const struct vm_config *config, uint32_t index)
{
	unsigned rank = 0;

	for (uint32_t i = 0; i < index; i++)
		rank += config->drives[i].bus == VM_BUS_SCSI &&
			config->drives[i].controller == config->drives[index].controller;
	return rank;
}

static void add_virtio(const struct drives *drives, uint32_t index)
{
	const struct vm_drive *drive = &drives->config->drives[index];
	const struct qemu_place *place = &drives->run->places[index];
	unsigned rank = virtio_rank(drives->config, index);
	char id[16], where[96], path[2 * DISK_SOCKET_BYTES];

	drive_id(drive, id);
	snprintf(where, sizeof(where), "id=%s,addr=0x%x.0x%x,multifunction=%s,bootindex=%d", id,
		 SLOT_SCSI + 2u * drive->controller + rank / FUNCTIONS, rank % FUNCTIONS,
		 rank % FUNCTIONS ? "off" : "on", boot_index(drives, index));
	if (place->vhost_user) {
		qemu_word(drives->words, "-chardev");
		qemu_word(drives->words, "socket,id=chr-%s,path=%s,reconnect=1", id,
			  qemu_escape(place->socket_path, path, sizeof(path)));
		qemu_word(drives->words, "-device");
		qemu_word(drives->words, "vhost-user-blk-pci,chardev=chr-%s,num-queues=%u,%s", id,
			  MIN(drives->config->cpu_count, VHOST_QUEUES_MAX), where);
		return;
	}
	add_node(drives, drive, place);
	qemu_word(drives->words, "-device");
	qemu_word(drives->words, "virtio-blk-pci,drive=disk-%s,write-cache=on,%s", id, where);
}

/* ---- drives on a bus of their controller ---- */

static const char *unit_device(const struct vm_drive *drive)
{
	switch (drive->bus) {
	case VM_BUS_SCSI:
		return drive->media == VM_MEDIA_CDROM ? "scsi-cd" : "scsi-hd";
	case VM_BUS_FLOPPY:
		return "floppy";
	case VM_BUS_NVME:
		return "nvme-ns";
	default:
		return drive->media == VM_MEDIA_CDROM ? "ide-cd" : "ide-hd";
	}
}

static void unit_address(const struct vm_drive *drive, char out[64])
{
	switch (drive->bus) {
	case VM_BUS_SCSI:
		snprintf(out, 64, "bus=scsi%u.0,scsi-id=%u,lun=0", drive->controller, drive->unit);
		break;
	case VM_BUS_SATA:
		snprintf(out, 64, "bus=sata%u.%u", drive->controller, drive->unit);
		break;
	case VM_BUS_IDE:
		snprintf(out, 64, "bus=ide.%u,unit=%u", drive->controller, drive->unit);
		break;
	case VM_BUS_NVME:
		snprintf(out, 64, "bus=nvme%u,nsid=%u", drive->controller, drive->unit + 1u);
		break;
	case VM_BUS_FLOPPY:
		snprintf(out, 64, "unit=%u", drive->unit);
		break;
	}
}

static void add_unit(const struct drives *drives, uint32_t index)
{
	const struct vm_drive *drive = &drives->config->drives[index];
	bool served = drives->run->places[index].socket_path != NULL;
	bool cached = drive->media == VM_MEDIA_DISK && drive->bus != VM_BUS_NVME;
	char id[16], address[64], node[64] = "", boot[32] = "";

	drive_id(drive, id);
	unit_address(drive, address);
	if (served) {
		add_node(drives, drive, &drives->run->places[index]);
		snprintf(node, sizeof(node), ",drive=disk-%s%s", id,
			 cached ? ",write-cache=on" : "");
	}
	/* NVMe and floppies are booted from by their controllers, which come last. */
	if (drive->bus != VM_BUS_NVME && drive->bus != VM_BUS_FLOPPY && (served || drive->media == VM_MEDIA_CDROM))
		snprintf(boot, sizeof(boot), ",bootindex=%d", boot_index(drives, index));
	qemu_word(drives->words, "-device");
	qemu_word(drives->words, "%s,id=%s,%s%s%s", unit_device(drive), id, address, node, boot);
}

/* ---- controllers ---- */

static const char *scsi_device(enum vm_scsi_model model)
{
	switch (model) {
	case VM_SCSI_PVSCSI:
		return "pvscsi";
	case VM_SCSI_LSISAS:
		return "mptsas1068";
	case VM_SCSI_MEGASAS:
		return "megasas";
	case VM_SCSI_LSILOGIC: /* warned: vm_config_drives.c */
	case VM_SCSI_LSI53C895A:
		return "lsi53c895a";
	case VM_SCSI_NONE:
	case VM_SCSI_VIRTIO:
		break;
	}
	return NULL;
}

static bool has_drives(const struct vm_config *config, enum vm_bus bus, unsigned number)
{
	for (uint32_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].bus == bus && config->drives[i].controller == number)
			return true;
	return false;
}

static void add_controllers(const struct drives *drives)
{
	for (unsigned i = 0; i < VM_SCSI_CONTROLLERS; i++) {
		const char *device = scsi_device(drives->config->scsi[i]);

		if (!device)
			continue;
		qemu_word(drives->words, "-device");
		qemu_word(drives->words, "%s,id=scsi%u,addr=0x%x", device, i, SLOT_SCSI + 2 * i);
	}
	for (unsigned i = 0; i < 4; i++) {
		if (has_drives(drives->config, VM_BUS_SATA, i)) {
			qemu_word(drives->words, "-device");
			qemu_word(drives->words, "ich9-ahci,id=sata%u,addr=0x%x", i, SLOT_SATA + i);
		}
		if (has_drives(drives->config, VM_BUS_NVME, i)) {
			qemu_word(drives->words, "-device");
			qemu_word(drives->words, "nvme,id=nvme%u,serial=blkmirror-%s-%u,addr=0x%x", i,
				  drives->run->id, i, SLOT_NVME + i);
		}
	}
}

void qemu_add_drives(struct qemu_words *words, const struct vm_config *config,
		     const struct qemu_host *host, const struct qemu_run *run)
{
	struct drives drives = { words, config, host, run };

	add_controllers(&drives);
	for (uint32_t i = 0; i < config->drive_count; i++) {
		const struct vm_drive *drive = &config->drives[i];

		if (drive->bus == VM_BUS_SCSI && config->scsi[drive->controller] == VM_SCSI_VIRTIO)
			add_virtio(&drives, i);
		else
			add_unit(&drives, i);
	}
}
