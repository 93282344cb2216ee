/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_nbd.c - an NBD export as a datastore with one raw disk, called "disk".
 *
 * The server is asked when the datastore is opened (so that a wrong URL is found then), at
 * every stat while the disk is not open, and at every open: it must outlive a client
 * (qemu-nbd --persistent).  The link of an open is the device's, so a lost connection ends
 * the device (blk_nbd.h); opening again makes a new one.
 *
 * No identity can be kept with the disk, and NBD has no locks: one writer or many readers
 * is promised only within this daemon, and said so (lock scheme "none").
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/blkdev/blk_nbd.h"
#include "datastores/datastore_private.h"

#define NBD_DISK_NAME "disk"
#define NBD_CONNECT_NS (10 * NS_PER_S)

/* Private parts are the worker's: calls come one at a time. */
struct ds_nbd {
	struct datastore ds;
	unsigned reader_count;
	bool has_writer;
	struct ds_disk_info open_info;  /* while anybody has it open: stat need not connect */
};

struct nbd_disk {
	struct ds_disk disk;
	struct blk_nbd_link *link;      /* NULL: the device has taken it */
};

static const struct ds_disk_ops nbd_disk_ops;

static struct ds_nbd *ds_nbd_of(struct datastore *ds)
{
	return container_of(ds, struct ds_nbd, ds);
}

static int check_link(const struct blk_nbd_link *link, struct err *err)
{
	uint64_t size_bytes = blk_nbd_link_size_bytes(link);

	if (size_bytes % 512 == 0 && size_bytes >= DS_DISK_SIZE_MIN &&
	    size_bytes <= DS_DISK_SIZE_MAX)
		return 0;
	return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
		       "the NBD export has %llu bytes, which is no size for a disk",
		       (unsigned long long)size_bytes);
}

static int connect_link(const char *url, bool read_only, struct blk_nbd_link **out,
			struct err *err)
{
	struct blk_nbd_link *link;
	int rc = blk_nbd_connect(url, read_only, NBD_CONNECT_NS, &link, err);

	if (rc)
		return rc;
	rc = check_link(link, err);
	if (rc) {
		blk_nbd_link_free(link);
		return rc;
	}
	*out = link;
	return 0;
}

static void fill_info(const struct blk_nbd_link *link, bool read_only, struct ds_disk_info *out)
{
	uint64_t size_bytes = blk_nbd_link_size_bytes(link);

	*out = (struct ds_disk_info){
		.size_bytes = size_bytes,
		.allocated_bytes = size_bytes,
		.provision = PROVISION_THICK,   /* a promise of nothing: space is the server's */
		.format = DISK_FORMAT_REMOTE,
		.sector_bytes = 512,
		.reads_zero = false,            /* R11: nothing is known of what was there */
		.read_only = read_only || blk_nbd_link_read_only(link),
		.has_identity = false,
	};
}

/* ---- the datastore ---- */

static int nbd_open(const struct ds_url *url, const struct ds_config *config,
		    struct datastore **out, struct err *err)
{
	struct ds_nbd *nbd = calloc(1, sizeof(*nbd));
	struct blk_nbd_link *link;
	int rc;

	(void)url;
	if (!nbd)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = connect_link(config->url, true, &link, err);
	if (rc) {
		free(nbd);
		return rc;
	}
	blk_nbd_link_free(link);
	nbd->ds.ops = &ds_nbd_ops;
	*out = &nbd->ds;
	return 0;
}

static void nbd_close(struct datastore *ds)
{
	free(ds_nbd_of(ds));
}

/* Unknown: all zero. */
static int nbd_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	(void)ds;
	(void)err;
	*out = (struct ds_space){ 0 };
	return 0;
}

static int nbd_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
			 struct err *err)
{
	struct ds_nbd *nbd = ds_nbd_of(ds);
	struct blk_nbd_link *link;
	int rc;

	if (strcmp(path, NBD_DISK_NAME) != 0)
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT,
			       "the datastore %s has one disk, '%s'", ds->name, NBD_DISK_NAME);
	if (nbd->has_writer || nbd->reader_count) {
		*out = nbd->open_info;
		return 0;
	}
	rc = connect_link(ds->text_url, true, &link, err);
	datastore_set_state(ds, rc ? DS_DOWN : DS_UP);
	if (rc)
		return rc;
	fill_info(link, false, out);
	/* Opened read-only, the link cannot tell whether the export takes writes. */
	out->read_only = false;
	blk_nbd_link_free(link);
	return 0;
}

static int nbd_list(struct datastore *ds, const char *dir, struct ds_file_list *out,
		    struct err *err)
{
	struct ds_disk_info info;
	struct ds_file *file;
	bool full;
	int rc;

	if (dir[0])
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT, "the datastore %s has no folders",
			       ds->name);
	rc = nbd_disk_stat(ds, NBD_DISK_NAME, &info, err);
	if (rc)
		return rc;
	file = ds_file_list_add(out, &full);
	if (!file)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	strcpy(file->name, NBD_DISK_NAME);
	file->kind = DS_FILE_DISK;
	file->size_bytes = info.size_bytes;
	file->allocated_bytes = info.allocated_bytes;
	return 0;
}

static int nbd_disk_unlock(struct datastore *ds, const char *path, struct err *err)
{
	(void)path;
	return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
		       "the datastore %s has no locks: NBD has none", ds->name);
}

/* ---- the disk ---- */

static int nbd_claim(struct ds_nbd *nbd, bool read_only, struct err *err)
{
	if (nbd->has_writer || (!read_only && nbd->reader_count))
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "the disk of %s is in use by this daemon", nbd->ds.name);
	return 0;
}

static int nbd_disk_open(struct datastore *ds, const char *path, unsigned flags,
			 const char *move_journal_id, struct ds_disk **out, struct err *err)
{
	struct ds_nbd *nbd = ds_nbd_of(ds);
	bool read_only = flags & DS_OPEN_READ_ONLY;
	struct nbd_disk *disk;
	int rc;

	(void)move_journal_id;
	if (strcmp(path, NBD_DISK_NAME) != 0)
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT,
			       "the datastore %s has one disk, '%s'", ds->name, NBD_DISK_NAME);
	rc = nbd_claim(nbd, read_only, err);
	if (rc)
		return rc;
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = connect_link(ds->text_url, read_only, &disk->link, err);
	if (rc) {
		free(disk);
		return rc;
	}
	ds_disk_init(&disk->disk, &nbd_disk_ops, ds, path);
	fill_info(disk->link, read_only, &disk->disk.info);
	nbd->open_info = disk->disk.info;
	nbd->has_writer = !read_only;
	nbd->reader_count += read_only;
	*out = &disk->disk;
	return 0;
}

static int nbd_disk_make_dev(struct ds_disk *base, struct loop *io_loop, bool as_target,
			     struct blk_dev **out, struct err *err)
{
	struct nbd_disk *disk = container_of(base, struct nbd_disk, disk);
	/* name NULL: the URI.  A socket never blocks its submitter (R5), so as_target is the same. */
	struct blk_nbd_options options = { .read_only = base->info.read_only };
	int rc = blk_nbd_new(io_loop, disk->link, &options, out, err);

	(void)as_target;
	if (!rc)
		disk->link = NULL;
	return rc;
}

static int nbd_disk_allocated(struct ds_disk *base, uint64_t *out, struct err *err)
{
	(void)err;
	*out = base->info.size_bytes;
	return 0;
}

static void nbd_disk_close(struct ds_disk *base)
{
	struct nbd_disk *disk = container_of(base, struct nbd_disk, disk);
	struct ds_nbd *nbd = ds_nbd_of(base->ds);

	/* By the claim's kind: an export that turned out to be read-only was claimed as asked. */
	if (nbd->has_writer)
		nbd->has_writer = false;
	else
		nbd->reader_count--;
	blk_nbd_link_free(disk->link);
	free(disk);
}

static const struct ds_disk_ops nbd_disk_ops = {
	.make_dev = nbd_disk_make_dev,
	.allocated = nbd_disk_allocated,
	.close = nbd_disk_close,
};

const struct datastore_ops ds_nbd_ops = {
	.kind = "nbd",
	.lock_scheme = "none",
	.has_identity = false,
	.open = nbd_open,
	.close = nbd_close,
	.space = nbd_space,
	.list = nbd_list,
	.disk_stat = nbd_disk_stat,
	.disk_open = nbd_disk_open,
	.disk_unlock = nbd_disk_unlock,
};
