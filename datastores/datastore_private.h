/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datastore_private.h - what a kind of datastore implements.
 *
 * datastore.c judges names, paths, sizes, flags and identities once, then calls the kind; a
 * kind may rely on that (each callback says on what).  Everything here runs on the store's
 * worker, one call at a time, but make_dev (I/O loop) and close (loop, after the worker).
 *
 * To add a kind: a struct datastore_ops in ds_KIND.c, a row in datastore.c's table.
 */
#ifndef BM_DATASTORE_PRIVATE_H
#define BM_DATASTORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "datastores/datastore.h"
#include "datastores/ds_url.h"

/* How long DS_OPEN_WAIT_LOCK waits (R-J7). */
#define DS_LOCK_WAIT_MS 30000u

struct ds_disk_ops {
	int (*make_dev)(struct ds_disk *disk, struct loop *io_loop, bool as_target,
			struct blk_dev **out, struct err *err);
	/* NULL: the kind keeps no identity.  identity has passed disk_identity_check(). */
	int (*mark)(struct ds_disk *disk, const struct disk_identity *identity, struct err *err);
	/* NULL: not supported.  size_bytes is a valid size, larger than disk->size_bytes. */
	int (*resize)(struct ds_disk *disk, uint64_t size_bytes, struct err *err);
	int (*allocated)(struct ds_disk *disk, uint64_t *out, struct err *err);
	/* Unlocks and frees. */
	void (*close)(struct ds_disk *disk);
};

/* Embedded first in a kind's own struct. */
struct ds_disk {
	const struct ds_disk_ops *ops;
	struct datastore *ds;
	char path[DS_PATH_BYTES];
	struct ds_disk_info info;       /* as at open: read by any thread, so never changed */
	uint64_t size_bytes;            /* the worker's: now */
	bool has_dev;                   /* the I/O loop's */
};

struct datastore_ops {
	const char *kind;
	const char *lock_scheme;
	bool has_identity;
	/* *out (gives) with ops alone set; url stays in place as long as it lives. */
	int (*open)(const struct ds_url *url, const struct ds_config *config,
		    struct datastore **out, struct err *err);
	void (*close)(struct datastore *ds);
	/* capacity and free */
	int (*space)(struct datastore *ds, struct ds_space *out, struct err *err);
	/* NULL: as datastore_probe() for a kind that cannot tell */
	int (*probe)(struct datastore *ds, struct err *err);
	/* dir has passed ds_path_check(); need not be sorted */
	int (*list)(struct datastore *ds, const char *dir, struct ds_file_list *out,
		    struct err *err);
	/* NULL: not supported.  path, size and identity are judged, provision is not SAME. */
	int (*disk_create)(struct datastore *ds, const char *path,
			   const struct ds_create_spec *spec, struct err *err);
	int (*disk_stat)(struct datastore *ds, const char *path, struct ds_disk_info *out,
			 struct err *err);
	/* Locks first, then judges the identity (disk_identity_may_open()) under the lock. */
	int (*disk_open)(struct datastore *ds, const char *path, unsigned flags,
			 const char *move_journal_id, struct ds_disk **out, struct err *err);
	/* NULL: not supported. */
	int (*disk_delete)(struct datastore *ds, const char *path,
			   const struct disk_identity *expected, struct err *err);
	int (*disk_unlock)(struct datastore *ds, const char *path, struct err *err);
	/* NULL, all of them: it holds disks only.  paths are judged. */
	int (*file_read)(struct datastore *ds, const char *path, char *bytes, size_t capacity,
			 size_t *len, struct err *err);
	int (*file_write)(struct datastore *ds, const char *path, const char *bytes, size_t len,
			  bool must_be_new, struct err *err);
	int (*file_delete)(struct datastore *ds, const char *path, struct err *err);
	/* NULL: another process cannot reach its files. */
	int (*file_descriptor)(struct datastore *ds, const char *path, bool create, int *fd,
			       struct err *err);
};

/* Embedded first in a kind's own struct. */
struct datastore {
	const struct datastore_ops *ops;
	struct worker *worker;
	char name[DS_NAME_BYTES];
	char text_url[DS_URL_BYTES];
	uint8_t host_uuid[16];
	struct ds_url *url;             /* owned */
	unsigned lock_wait_ms;          /* DS_LOCK_WAIT_MS but in tests */
	atomic_int state;               /* enum ds_state */
	struct ds_news *news;           /* of the state, to the loop */
	atomic_uint open_disks;
	pthread_mutex_t reserve_lock;   /* guards reserved_bytes; never held over a call that blocks */
	uint64_t reserved_bytes;
};

/* For kinds: fills what every disk has; path is copied. */
void ds_disk_init(struct ds_disk *disk, const struct ds_disk_ops *ops, struct datastore *ds,
		  const char *path);

/* For kinds, where they learn it: from a call that reached the store, or did not.  Logs changes. */
void datastore_set_state(struct datastore *ds, enum ds_state state);

/*
 * Append to a list that holds at most DS_LIST_MAX; beyond it only `truncated` is set, and
 * NULL is returned with *full.  NULL without *full: out of memory.
 */
struct ds_file *ds_file_list_add(struct ds_file_list *list, bool *full);

extern const struct datastore_ops ds_dir_ops;
extern const struct datastore_ops ds_nbd_ops;
extern const struct datastore_ops ds_iscsi_ops;
extern const struct datastore_ops ds_nfs_ops;

#endif
