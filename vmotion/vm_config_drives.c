/* SPDX-License-Identifier: Apache-2.0 */
/* vm_config_drives.c - controllers, disks, CD-ROM and floppy drives of a VMX. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vmotion/vm_config_private.h"

#define KEY_BYTES 64

/* What VMware's controllers take, and what QEMU's in their place do. */
static const struct bus {
	const char *prefix;
	enum vm_bus bus;
	uint8_t controllers, units;
	uint8_t units_here;
} buses[] = {
	{ "scsi", VM_BUS_SCSI, VM_SCSI_CONTROLLERS, 16, 16 },
	{ "sata", VM_BUS_SATA, 4, 30, 6 },
	{ "ide", VM_BUS_IDE, 2, 2, 2 },
	{ "nvme", VM_BUS_NVME, 4, 15, 15 },
};

static const struct scsi_name {
	const char *name;
	enum vm_scsi_model model;
	uint8_t units;                  /* targets that QEMU's controller has */
} scsi_names[] = {
	{ "pvscsi", VM_SCSI_PVSCSI, 16 },
	{ "lsilogic", VM_SCSI_LSILOGIC, 7 },
	{ "lsisas1068", VM_SCSI_LSISAS, 8 },
	{ "virtio", VM_SCSI_VIRTIO, 16 },
	{ "lsi53c895a", VM_SCSI_LSI53C895A, 7 },
	{ "megasas", VM_SCSI_MEGASAS, 16 },
};

const char *vm_scsi_model_name(enum vm_scsi_model model)
{
	for (size_t i = 0; i < ARRAY_COUNT(scsi_names); i++)
		if (scsi_names[i].model == model)
			return scsi_names[i].name;
	return "none";
}

/* ---- one drive ---- */

static bool starts_with(const char *text, const char *start)
{
	return strncasecmp(text, start, strlen(start)) == 0;
}

/* The kind of drive, by X.deviceType; false: refused. */
static bool read_media(struct vm_reader *reader, const char *name, enum vm_media *media,
		       bool *is_image)
{
	char key[KEY_BYTES], type[64];

	*media = VM_MEDIA_DISK;
	*is_image = true;
	snprintf(key, sizeof(key), "%s.deviceType", name);
	if (!vm_read_text(reader, key, type, sizeof(type)))
		return true;
	if (strcasecmp(type, "disk") == 0 || strcasecmp(type, "scsi-hardDisk") == 0 ||
	    strcasecmp(type, "ata-hardDisk") == 0 || strcasecmp(type, "plainDisk") == 0)
		return true;
	*media = VM_MEDIA_CDROM;
	*is_image = strcasecmp(type, "cdrom-image") == 0;
	if (*is_image || strcasecmp(type, "cdrom-raw") == 0 ||
	    strcasecmp(type, "atapi-cdrom") == 0)
		return true;
	vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
			"%s: a device of type '%s' belongs to some host and cannot be had here",
			name, type);
	return false;
}

static void check_mode(struct vm_reader *reader, const char *name)
{
	char key[KEY_BYTES], mode[64];

	snprintf(key, sizeof(key), "%s.mode", name);
	if (vm_read_text(reader, key, mode, sizeof(mode)) && strcasecmp(mode, "persistent") != 0 &&
	    strcasecmp(mode, "independent-persistent") != 0)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"%s: a disk in mode '%s' would lose or keep back what is written",
				name, mode);
	snprintf(key, sizeof(key), "%s.redo", name);
	if (vm_read_text(reader, key, mode, sizeof(mode)))
		vm_findings_add(reader->findings, true, ERR_DISK_CHAIN,
				"%s: it has a redo log, '%s'", name, mode);
}

/* Where the drive's file is; false: refused. */
static bool read_file(struct vm_reader *reader, struct vm_drive *drive)
{
	char key[KEY_BYTES], text[DS_PATH_BYTES];
	struct err err = { 0 };

	snprintf(key, sizeof(key), "%s.fileName", drive->name);
	if (!vm_read_text(reader, key, text, sizeof(text)) ||
	    strcasecmp(text, "auto detect") == 0) {
		if (drive->media != VM_MEDIA_DISK)
			return true; /* an empty drive */
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"%s: a disk needs '%s'", drive->name, key);
		return false;
	}
	if (vm_file_parse(text, reader->config->home_datastore, reader->config->home_path,
			  drive->datastore, drive->path, &err)) {
		vm_findings_add(reader->findings, true, err.id, "%s: %.200s", drive->name,
				err.cause);
		return false;
	}
	drive->has_file = true;
	return true;
}

/* Two drives cannot share a disk: both would write. */
static bool is_taken(struct vm_reader *reader, const struct vm_drive *drive)
{
	const struct vm_config *config = reader->config;

	for (uint32_t i = 0; i < config->drive_count && drive->has_file; i++) {
		const struct vm_drive *other = &config->drives[i];

		if (!other->has_file || strcmp(other->datastore, drive->datastore) != 0 ||
		    strcmp(other->path, drive->path) != 0 ||
		    (other->media == VM_MEDIA_CDROM && drive->media == VM_MEDIA_CDROM))
			continue;
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"%s and %s have the same file", other->name, drive->name);
		return true;
	}
	return false;
}

static void drive_add(struct vm_reader *reader, const struct vm_drive *drive)
{
	struct vm_config *config = reader->config;

	if (is_taken(reader, drive))
		return;
	if (config->drive_count == VM_DRIVES_MAX) {
		vm_findings_add(reader->findings, true, ERR_VMX_LIMIT,
				"the machine has more than %d drives", VM_DRIVES_MAX);
		return;
	}
	config->drives[config->drive_count++] = *drive;
}

/* A drive of the host, or an image that is not to be there at first: the drive stays empty. */
static bool stays_empty(struct vm_reader *reader, const struct vm_drive *drive, bool is_image)
{
	char key[KEY_BYTES];
	bool connected;

	snprintf(key, sizeof(key), "%s.startConnected", drive->name);
	connected = vm_read_flag(reader, key, true);
	if (drive->media == VM_MEDIA_DISK)
		return false;
	if (connected && !is_image)
		vm_findings_add(reader->findings, false, ERR_VM_IGNORED,
				"%s: the host's own drive is not given to the machine: it is empty",
				drive->name);
	return !connected || !is_image;
}

static void read_drive(struct vm_reader *reader, const struct bus *bus, uint8_t controller,
		       uint8_t unit)
{
	struct vm_drive drive = { .bus = bus->bus, .controller = controller, .unit = unit };
	char key[KEY_BYTES];
	bool is_image;

	snprintf(drive.name, sizeof(drive.name), "%s%u:%u", bus->prefix, controller, unit);
	snprintf(key, sizeof(key), "%s.present", drive.name);
	if (!vm_read_flag(reader, key, false) ||
	    !read_media(reader, drive.name, &drive.media, &is_image))
		return;
	if (drive.media == VM_MEDIA_DISK)
		check_mode(reader, drive.name);
	if (drive.media == VM_MEDIA_CDROM && bus->bus == VM_BUS_NVME) {
		vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
				"%s: a CD-ROM drive cannot be NVMe", drive.name);
		return;
	}
	if (stays_empty(reader, &drive, is_image) || read_file(reader, &drive))
		drive_add(reader, &drive);
}

/* ---- controllers ---- */

static uint8_t scsi_units(enum vm_scsi_model model)
{
	for (size_t i = 0; i < ARRAY_COUNT(scsi_names); i++)
		if (scsi_names[i].model == model)
			return scsi_names[i].units;
	return 0;
}

/* VMware's own when none is named: lsilogic. */
static void read_scsi_model(struct vm_reader *reader, uint8_t number)
{
	char key[KEY_BYTES], name[64] = "lsilogic";

	snprintf(key, sizeof(key), "scsi%u.sharedBus", number);
	if (vm_read_text(reader, key, name, sizeof(name)) && strcasecmp(name, "none") != 0)
		vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
				"scsi%u: a bus that machines share ('%s') is not offered", number,
				name);
	snprintf(name, sizeof(name), "lsilogic");
	snprintf(key, sizeof(key), "scsi%u.virtualDev", number);
	vm_read_text(reader, key, name, sizeof(name));
	for (size_t i = 0; i < ARRAY_COUNT(scsi_names); i++)
		if (strcasecmp(scsi_names[i].name, name) == 0)
			reader->config->scsi[number] = scsi_names[i].model;
	if (reader->config->scsi[number] != VM_SCSI_NONE)
		return;
	if (strcasecmp(name, "buslogic") == 0)
		vm_findings_add(reader->findings, false, ERR_VM_HARDWARE,
				"scsi%u: QEMU has no buslogic controller", number);
	else
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'%s' is no controller that is known: '%s'", key, name);
}

static bool any_drive_on(const struct vm_config *config, enum vm_bus bus, uint8_t controller)
{
	for (uint32_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].bus == bus && config->drives[i].controller == controller)
			return true;
	return false;
}

static void check_scsi(struct vm_reader *reader, uint8_t number, bool present)
{
	const struct vm_config *config = reader->config;

	if (!any_drive_on(config, VM_BUS_SCSI, number))
		return;
	if (!present || config->scsi[number] == VM_SCSI_NONE)
		vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
				"scsi%u: there are drives on it, and it %s", number,
				present ? "cannot be had in QEMU" : "is not present");
}

static void check_unit(struct vm_reader *reader, const struct vm_drive *drive)
{
	const struct vm_config *config = reader->config;
	uint8_t units = drive->bus == VM_BUS_SCSI ? scsi_units(config->scsi[drive->controller])
			: drive->bus == VM_BUS_SATA ? buses[1].units_here
						    : 16;

	if (units && drive->unit >= units)
		vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
				"%s: QEMU's controller in its place takes %u drives only",
				drive->name, units);
	if (drive->bus == VM_BUS_SCSI && config->scsi[drive->controller] == VM_SCSI_VIRTIO &&
	    drive->media == VM_MEDIA_CDROM)
		vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
				"%s: a CD-ROM drive cannot be a virtio disk", drive->name);
	if (drive->bus == VM_BUS_SCSI && drive->unit == 7)
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"%s: 7 is the controller's own number", drive->name);
}

static void read_bus(struct vm_reader *reader, const struct bus *bus)
{
	for (uint8_t controller = 0; controller < bus->controllers; controller++) {
		char key[KEY_BYTES];
		bool present = bus->bus == VM_BUS_IDE;

		if (!present) {
			snprintf(key, sizeof(key), "%s%u.present", bus->prefix, controller);
			present = vm_read_flag(reader, key, false);
		}
		if (present && bus->bus == VM_BUS_SCSI)
			read_scsi_model(reader, controller);
		for (uint8_t unit = 0; unit < bus->units; unit++)
			read_drive(reader, bus, controller, unit);
		if (bus->bus == VM_BUS_SCSI)
			check_scsi(reader, controller, present);
		else if (!present && any_drive_on(reader->config, bus->bus, controller))
			vm_findings_add(reader->findings, true, ERR_VM_HARDWARE,
					"%s%u: there are drives on it, and it is not present",
					bus->prefix, controller);
	}
}

/* ---- floppies ---- */

static void read_floppy(struct vm_reader *reader, uint8_t unit)
{
	struct vm_drive drive = { .bus = VM_BUS_FLOPPY, .unit = unit, .media = VM_MEDIA_FLOPPY };
	char key[KEY_BYTES], type[32] = "device";
	bool is_image;

	snprintf(drive.name, sizeof(drive.name), "floppy%u", unit);
	snprintf(key, sizeof(key), "%s.present", drive.name);
	if (!vm_read_flag(reader, key, false))
		return;
	snprintf(key, sizeof(key), "%s.fileType", drive.name);
	vm_read_text(reader, key, type, sizeof(type));
	is_image = starts_with(type, "file");
	if (stays_empty(reader, &drive, is_image) || read_file(reader, &drive))
		drive_add(reader, &drive);
}

/* What will work, though not as on ESX. */
static void warn_drives(struct vm_reader *reader)
{
	const struct vm_config *config = reader->config;
	bool nvme = false;

	for (uint8_t i = 0; i < VM_SCSI_CONTROLLERS; i++)
		if (config->scsi[i] == VM_SCSI_LSILOGIC && any_drive_on(config, VM_BUS_SCSI, i))
			vm_findings_add(reader->findings, false, ERR_VM_GUEST_DRIVER,
					"scsi%u: QEMU has no LSI Logic 53C1030; a 53C895A stands in "
					"its place, and the guest needs a driver for that", i);
	for (uint32_t i = 0; i < config->drive_count; i++)
		nvme |= config->drives[i].bus == VM_BUS_NVME;
	if (nvme)
		vm_findings_add(reader->findings, false, ERR_VM_NO_MIGRATE,
				"QEMU cannot save the state of an NVMe controller: the machine "
				"cannot be suspended or migrated");
}

void vm_read_drives(struct vm_reader *reader)
{
	for (size_t i = 0; i < ARRAY_COUNT(buses); i++)
		read_bus(reader, &buses[i]);
	for (uint8_t unit = 0; unit < 2; unit++)
		read_floppy(reader, unit);
	for (uint32_t i = 0; i < reader->config->drive_count; i++)
		check_unit(reader, &reader->config->drives[i]);
	warn_drives(reader);
}
