/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_dir.h - inside the dir:// kind: a folder of the host's own file systems.
 *
 *   ds_dir.c         the datastore: open, space, listing
 *   ds_dir_place.c   where a disk's files are and what is noted about it
 *   ds_dir_disk.c    stat, open, device, mark, resize
 *   ds_dir_create.c  create, delete, unlock
 *   ds_dir_file.c    a machine's other files
 *
 * All [worker] but what says otherwise.  Every walk is beneath the root (beneath.h).
 */
#ifndef BM_DS_DIR_H
#define BM_DS_DIR_H

#include "datastores/datastore_private.h"
#include "datastores/disk_record.h"
#include "datastores/ds_path.h"
#include "datastores/vmdk.h"

struct ds_dir {
	struct datastore ds;
	int root_fd;
	bool said_no_direct;            /* the worker's */
};

static inline struct ds_dir *ds_dir_of(struct datastore *ds)
{
	return container_of(ds, struct ds_dir, ds);
}

/*
 * A disk's place: its folder, held open, and the names of its two files in it.
 *
 *            meta (who it is)      data
 *   VMDK     x.vmdk                as the descriptor says; x-flat.vmdk when we make it
 *   raw      x.img.blkmirror       x.img
 *
 * Invariant D1: the meta file is written only under the writer's lock on the data file.
 * Invariant D2: it is there before the data and goes after them, so that what a crash leaves
 *               half made or half deleted still says who it is.
 */
struct dir_place {
	int dir_fd;                     /* -1: none */
	char path[DS_PATH_BYTES];       /* without links */
	char meta_name[DS_FILE_NAME_BYTES];
	char data_name[DS_FILE_NAME_BYTES];
	enum disk_format format;
	bool has_meta;                  /* raw: a sidecar was there */
	struct disk_record record;
	struct vmdk *vmdk;              /* VMDK, once read; owned */
};

/*
 * Find it: names only, nothing is read.  Release in any case.  ERR_DS_PATH_ESCAPE,
 * ERR_DISK_UNKNOWN (no such folder), ERR_DISK_BAD_FORMAT for the name of a disk's data file.
 */
MUST_CHECK int dir_place_find(struct ds_dir *dir, const char *path, struct dir_place *place,
			      struct err *err);
void dir_place_release(struct dir_place *place);

/* Read the meta file; may be repeated.  A raw disk without one is not assigned. */
MUST_CHECK int dir_place_read(struct dir_place *place, struct err *err);

/* Write the meta file, atomically and durably (D1). */
MUST_CHECK int dir_place_write(struct dir_place *place, const struct disk_record *record,
			       struct err *err);

/* Open the data file: a plain file, no link.  flags: O_RDONLY or O_RDWR, O_DIRECT is tried. */
MUST_CHECK int dir_place_open_data(const struct dir_place *place, int flags, struct err *err);

/*
 * After the lock: are these still the disk's files?  Reads the meta file again.
 * ERR_DISK_UNKNOWN when the disk was deleted or replaced while we came.
 */
MUST_CHECK int dir_place_recheck(struct dir_place *place, int data_fd, struct err *err);

/* x.vmdk's data file as we name it; false when the name would be too long. */
bool dir_flat_name(const char *descriptor, char *flat);

/* One of the companions of a descriptor (x-flat.vmdk, x-ctk.vmdk ...) that is no disk itself? */
bool dir_is_companion(const char *name);

int dir_disk_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
		    struct err *err);
int dir_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		  struct err *err);
int dir_disk_open(struct datastore *ds, const char *path, unsigned flags,
		  const char *move_journal_id, struct ds_disk **out, struct err *err);
int dir_disk_delete(struct datastore *ds, const char *path, const struct disk_identity *expected,
		    struct err *err);
int dir_disk_unlock(struct datastore *ds, const char *path, struct err *err);

/* ds_dir_file.c */
int dir_file_read(struct datastore *ds, const char *path, char *bytes, size_t capacity,
		  size_t *len, struct err *err);
int dir_file_write(struct datastore *ds, const char *path, const char *bytes, size_t len,
		   bool must_be_new, struct err *err);
int dir_file_delete(struct datastore *ds, const char *path, struct err *err);
int dir_file_descriptor(struct datastore *ds, const char *path, bool create, int *fd,
			struct err *err);

#endif
