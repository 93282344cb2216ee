/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_iscsi.c - an iSCSI target as a datastore: each logical unit is a raw disk, "lun1", "lun2" ...
 *
 * One writer across hosts is a persistent reservation with a beating key (iscsi_lock.h); a unit
 * that knows none is used all the same, and said so in the log.  Readers take no lock: a unit is
 * open for many readers or one writer within this daemon only.
 *
 * Marks (R-J4): a unit has no room beside its blocks, and what lies in its blocks is the guest's,
 * so no identity is kept with the disk.  Which move a unit belongs to stands in the record
 * of the move, on this host; against others the reservation, which outlasts the daemon, stands in
 * its place until the record has been judged: their opens are refused while it beats.
 *
 * The worker keeps one session for questions (list, stat); a device has sessions of its own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datastores/blk_iscsi.h"
#include "datastores/datastore_private.h"
#include "datastores/iscsi_lock.h"

#define CONNECT_NS (10 * NS_PER_S)
#define QUESTION_NS (5 * NS_PER_S)
#define SESSIONS 2u
#define OPEN_DISKS_MAX 64u

/* What is known of a unit that is open, or whose holder is watched. */
struct known_unit {
	bool used;
	uint32_t lun;
	unsigned readers;
	bool has_writer;
	struct iscsi_key_watch watch;   /* of the other host that has it */
};

/* Private parts are the worker's: calls come one at a time. */
struct ds_iscsi {
	struct datastore ds;
	struct iscsi_place place;       /* .lun: of the call */
	struct iscsi_link *link;        /* NULL: to be made */
	struct known_unit units[OPEN_DISKS_MAX];
};

struct iscsi_disk {
	struct ds_disk disk;
	uint32_t lun;
	bool is_writer;
	struct iscsi_lock *lock;        /* NULL: a reader, or none can be had */
	struct blk_iscsi_links *links;  /* NULL: the device has taken them */
};

static const struct ds_disk_ops iscsi_disk_ops;

static struct ds_iscsi *ds_iscsi_of(struct datastore *ds)
{
	return container_of(ds, struct ds_iscsi, ds);
}

/* ---- names ---- */

static int lun_of(const struct datastore *ds, const char *path, uint32_t *lun, struct err *err)
{
	uint32_t value = 0;
	const char *digit = path + 3;

	if (strncmp(path, "lun", 3) != 0 || !*digit || (digit[0] == '0' && digit[1]))
		goto unknown;
	for (; *digit; digit++) {
		if (*digit < '0' || *digit > '9')
			goto unknown;
		value = value * 10 + (uint32_t)(*digit - '0');
		if (value > ISCSI_LUN_MAX)
			goto unknown;
	}
	*lun = value;
	return 0;

unknown:
	return err_set(err, ERR_ISCSI_NO_LUN, -ENOENT,
		       "'%.80s' is no disk of %s: they are called lun0, lun1 ...", path, ds->name);
}

/* ---- the session for questions ---- */

static int question_link(struct ds_iscsi *iscsi, struct err *err)
{
	int rc;

	if (iscsi->link)
		return 0;
	rc = iscsi_place_connect(&iscsi->place, 0, CONNECT_NS, &iscsi->link, err);
	if (rc)
		iscsi->link = NULL;
	return rc;
}

static void question_failed(struct ds_iscsi *iscsi)
{
	iscsi_link_free(iscsi->link);
	iscsi->link = NULL;
}

/* Called again with a new session where the old one has ended unnoticed. */
static int ask(struct ds_iscsi *iscsi, int (*question)(struct ds_iscsi *iscsi, void *out,
						       struct err *err),
	       void *out, struct err *err)
{
	bool was_there = iscsi->link != NULL;
	int rc = question_link(iscsi, err);

	rc = rc ? rc : question(iscsi, out, err);
	if (rc && err->id == ERR_ISCSI_CONNECT && was_there) {
		question_failed(iscsi);
		err_clear(err);
		rc = question_link(iscsi, err);
		rc = rc ? rc : question(iscsi, out, err);
	}
	if (rc && err->id == ERR_ISCSI_CONNECT)
		question_failed(iscsi);
	return rc;
}

static int ask_unit(struct ds_iscsi *iscsi, void *out, struct err *err)
{
	return iscsi_link_probe(iscsi->link, iscsi->place.lun, QUESTION_NS, out, err);
}

struct luns {
	uint32_t luns[ISCSI_LUNS_MAX];
	size_t count;
};

static int ask_luns(struct ds_iscsi *iscsi, void *out, struct err *err)
{
	struct luns *luns = out;

	return iscsi_link_luns(iscsi->link, QUESTION_NS, luns->luns, &luns->count, err);
}

static void told_state(struct ds_iscsi *iscsi, int rc, const struct err *err)
{
	if (!rc)
		datastore_set_state(&iscsi->ds, DS_UP);
	else if (err->id == ERR_ISCSI_CONNECT || err->id == ERR_ISCSI_LOGIN ||
		 err->id == ERR_ISCSI_NO_TARGET)
		datastore_set_state(&iscsi->ds, DS_DOWN);
}

/* ---- the datastore ---- */

static int iscsi_open(const struct ds_url *url, const struct ds_config *config,
		      struct datastore **out, struct err *err)
{
	struct ds_iscsi *iscsi = calloc(1, sizeof(*iscsi));
	struct luns luns;
	int rc;

	if (!iscsi)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(iscsi->place.host, sizeof(iscsi->place.host), "%s", url->host);
	snprintf(iscsi->place.iqn, sizeof(iscsi->place.iqn), "%s", url->iqn);
	iscsi->place.port = url->port;
	memcpy(iscsi->place.host_uuid, config->host_uuid, sizeof(iscsi->place.host_uuid));
	if (config->secret_file &&
	    (size_t)snprintf(iscsi->place.secret_file, sizeof(iscsi->place.secret_file), "%s",
			     config->secret_file) >= sizeof(iscsi->place.secret_file)) {
		rc = err_set(err, ERR_DS_SECRET_FILE, -ENAMETOOLONG,
			     "the secret file's path is too long");
		goto free_iscsi;
	}
	rc = question_link(iscsi, err);
	rc = rc ? rc : ask_luns(iscsi, &luns, err);
	if (rc)
		goto free_iscsi;
	iscsi->ds.ops = &ds_iscsi_ops;
	*out = &iscsi->ds;
	return 0;

free_iscsi:
	iscsi_link_free(iscsi->link);
	free(iscsi);
	return rc;
}

static void iscsi_close(struct datastore *ds)
{
	struct ds_iscsi *iscsi = ds_iscsi_of(ds);

	iscsi_link_free(iscsi->link);
	free(iscsi);
}

/* The target's room is its own affair: all zero. */
static int iscsi_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	(void)ds;
	(void)err;
	*out = (struct ds_space){ 0 };
	return 0;
}

static int check_unit(const struct datastore *ds, const struct iscsi_unit *unit, struct err *err)
{
	if (unit->size_bytes % 512 == 0 && unit->size_bytes >= DS_DISK_SIZE_MIN &&
	    unit->size_bytes <= DS_DISK_SIZE_MAX)
		return 0;
	return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
		       "lun%u of %s has %llu bytes, which is no size for a disk", unit->lun,
		       ds->name, (unsigned long long)unit->size_bytes);
}

static void fill_info(const struct iscsi_unit *unit, bool read_only, struct ds_disk_info *out)
{
	*out = (struct ds_disk_info){
		.size_bytes = unit->size_bytes,
		.allocated_bytes = unit->size_bytes,
		.provision = unit->is_thin ? PROVISION_THIN : PROVISION_THICK,
		.format = DISK_FORMAT_REMOTE,
		.sector_bytes = unit->block_bytes,
		.reads_zero = false,            /* R11: nothing is known of what was there */
		.read_only = read_only || unit->is_write_protected,
		.has_identity = false,
	};
}

static int stat_unit(struct ds_iscsi *iscsi, uint32_t lun, struct iscsi_unit *unit,
		     struct err *err)
{
	int rc;

	iscsi->place.lun = lun;
	rc = ask(iscsi, ask_unit, unit, err);
	told_state(iscsi, rc, err);
	return rc;
}

static int iscsi_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
			   struct err *err)
{
	struct iscsi_unit unit;
	uint32_t lun;
	int rc = lun_of(ds, path, &lun, err);

	rc = rc ? rc : stat_unit(ds_iscsi_of(ds), lun, &unit, err);
	rc = rc ? rc : check_unit(ds, &unit, err);
	if (!rc)
		fill_info(&unit, false, out);
	return rc;
}

/* A unit that is no disk, or gone since, is left out; a target that is away ends it all. */
static int list_unit(struct ds_iscsi *iscsi, uint32_t lun, struct ds_file_list *out,
		     struct err *err)
{
	struct iscsi_unit unit;
	struct ds_file *file;
	bool full;
	int rc = stat_unit(iscsi, lun, &unit, err);

	if (rc && err->id != ERR_ISCSI_CONNECT) {
		err_clear(err);
		return 0;
	}
	if (rc)
		return rc;
	file = ds_file_list_add(out, &full);
	if (!file)
		return full ? 0 : err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(file->name, sizeof(file->name), "lun%u", lun);
	file->kind = DS_FILE_DISK;
	file->size_bytes = unit.size_bytes;
	file->allocated_bytes = unit.size_bytes;
	return 0;
}

static int iscsi_list(struct datastore *ds, const char *dir, struct ds_file_list *out,
		      struct err *err)
{
	struct ds_iscsi *iscsi = ds_iscsi_of(ds);
	struct luns luns;
	int rc;

	if (dir[0])
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT, "the datastore %s has no folders",
			       ds->name);
	rc = ask(iscsi, ask_luns, &luns, err);
	told_state(iscsi, rc, err);
	for (size_t i = 0; !rc && i < luns.count; i++)
		rc = list_unit(iscsi, luns.luns[i], out, err);
	return rc;
}

/* ---- opening ---- */

static struct known_unit *unit_find(struct ds_iscsi *iscsi, uint32_t lun)
{
	struct known_unit *spare = NULL, *idle = NULL;

	for (size_t i = 0; i < OPEN_DISKS_MAX; i++) {
		struct known_unit *unit = &iscsi->units[i];

		if (unit->used && unit->lun == lun)
			return unit;
		if (!unit->used)
			spare = unit;
		else if (!unit->readers && !unit->has_writer)
			idle = unit;
	}
	spare = spare ? spare : idle;
	if (spare)
		*spare = (struct known_unit){ .used = true, .lun = lun };
	return spare;
}

static int unit_claim(struct ds_iscsi *iscsi, uint32_t lun, bool read_only,
		      struct known_unit **out, struct err *err)
{
	struct known_unit *unit = unit_find(iscsi, lun);

	if (!unit)
		return err_set(err, ERR_NOT_SUPPORTED, -EMFILE,
			       "%s has %u disks open, more are not supported", iscsi->ds.name,
			       OPEN_DISKS_MAX);
	if (unit->has_writer || (!read_only && unit->readers))
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "lun%u of %s is in use by this daemon", lun, iscsi->ds.name);
	*out = unit;
	return 0;
}

static int open_writer(struct iscsi_disk *disk, struct ds_iscsi *iscsi, struct known_unit *known,
		       struct err *err)
{
	struct iscsi_unit unit;
	int rc = stat_unit(iscsi, disk->lun, &unit, err);

	if (!rc && unit.is_write_protected)
		rc = err_set(err, ERR_ISCSI_READ_ONLY, -EROFS, "lun%u of %s is write-protected",
			     disk->lun, iscsi->ds.name);
	rc = rc ? rc : check_unit(&iscsi->ds, &unit, err);
	return rc ? rc : iscsi_lock_take(&iscsi->place, &lease_times_default, &known->watch,
					 &disk->lock, err);
}

static int iscsi_disk_open(struct datastore *ds, const char *path, unsigned flags,
			   const char *move_journal_id, struct ds_disk **out, struct err *err)
{
	struct ds_iscsi *iscsi = ds_iscsi_of(ds);
	bool read_only = flags & DS_OPEN_READ_ONLY;
	struct known_unit *known = NULL;
	struct iscsi_disk *disk;
	uint32_t lun;
	int rc = lun_of(ds, path, &lun, err);

	(void)move_journal_id;
	rc = rc ? rc : unit_claim(iscsi, lun, read_only, &known, err);
	if (rc)
		return rc;
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	disk->lun = lun;
	disk->is_writer = !read_only;
	iscsi->place.lun = lun;
	if (!read_only)
		rc = open_writer(disk, iscsi, known, err);
	rc = rc ? rc : blk_iscsi_connect(&iscsi->place, disk->lock, read_only, SESSIONS,
					 &disk->links, err);
	rc = rc ? rc : check_unit(ds, blk_iscsi_links_unit(disk->links), err);
	if (rc) {
		blk_iscsi_links_free(disk->links);
		iscsi_lock_release(disk->lock);
		free(disk);
		return rc;
	}
	ds_disk_init(&disk->disk, &iscsi_disk_ops, ds, path);
	fill_info(blk_iscsi_links_unit(disk->links), read_only, &disk->disk.info);
	known->has_writer = !read_only;
	known->readers += read_only;
	*out = &disk->disk;
	return 0;
}

static int iscsi_disk_unlock(struct datastore *ds, const char *path, struct err *err)
{
	struct ds_iscsi *iscsi = ds_iscsi_of(ds);
	bool broken;
	int rc = lun_of(ds, path, &iscsi->place.lun, err);

	return rc ? rc : iscsi_lock_break(&iscsi->place, &broken, err);
}

/* ---- the disk ---- */

static struct iscsi_disk *iscsi_disk_of(struct ds_disk *disk)
{
	return container_of(disk, struct iscsi_disk, disk);
}

/* On the device's loop; the state is any thread's. */
static void dev_changed(void *user, enum blk_iscsi_state state)
{
	static const enum ds_state states[] = {
		[BLK_ISCSI_UP] = DS_UP,
		[BLK_ISCSI_RECONNECTING] = DS_RECONNECTING,
		[BLK_ISCSI_DOWN] = DS_DOWN,
	};

	datastore_set_state(user, states[state]);
}

static int iscsi_disk_make_dev(struct ds_disk *base, struct loop *io_loop, bool as_target,
			       struct blk_dev **out, struct err *err)
{
	struct iscsi_disk *disk = iscsi_disk_of(base);
	char name[DS_NAME_BYTES + 16];
	const struct blk_iscsi_options options = {
		.as_target = as_target,
		.name = name,
		.changed = dev_changed,
		.user = base->ds,
	};
	int rc;

	snprintf(name, sizeof(name), "%s:lun%u", base->ds->name, disk->lun);
	rc = blk_iscsi_new(io_loop, disk->links, &options, out, err);
	if (!rc)
		disk->links = NULL;
	return rc;
}

static int iscsi_disk_allocated(struct ds_disk *base, uint64_t *out, struct err *err)
{
	(void)err;
	*out = base->info.size_bytes;
	return 0;
}

static void iscsi_disk_close(struct ds_disk *base)
{
	struct iscsi_disk *disk = iscsi_disk_of(base);
	struct known_unit *known = unit_find(ds_iscsi_of(base->ds), disk->lun);

	CHECK(known);
	if (disk->is_writer)
		known->has_writer = false;
	else
		known->readers--;
	blk_iscsi_links_free(disk->links);
	iscsi_lock_release(disk->lock);
	free(disk);
}

static const struct ds_disk_ops iscsi_disk_ops = {
	.make_dev = iscsi_disk_make_dev,
	.allocated = iscsi_disk_allocated,
	.close = iscsi_disk_close,
};

const struct datastore_ops ds_iscsi_ops = {
	.kind = "iscsi",
	.lock_scheme = "reservation",
	.has_identity = false,
	.open = iscsi_open,
	.close = iscsi_close,
	.space = iscsi_space,
	.list = iscsi_list,
	.disk_stat = iscsi_disk_stat,
	.disk_open = iscsi_disk_open,
	.disk_unlock = iscsi_disk_unlock,
};
