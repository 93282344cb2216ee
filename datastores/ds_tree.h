/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_tree.h - inside the kinds that keep disks as files in folders: dir:// and nfs://.
 *
 *   ds_tree_list.c     listing
 *   ds_tree_place.c    where a disk's files are and what is noted about it
 *   ds_tree_disk.c     stat, open, device, mark, resize
 *   ds_tree_create.c   create, delete, unlock
 *   ds_dir.c           dir://: the host's own file systems (beneath.h)
 *   ds_nfs*.c          nfs://: an export
 *
 * What a disk is made of and in which order it comes and goes is the same for all of them; how
 * a file is opened, locked, written and made durable is the kind's, in struct tree_ops.
 *
 * All [worker] but what says otherwise.
 */
#ifndef BM_DS_TREE_H
#define BM_DS_TREE_H

#include "blkmirror/blkdev/nfs_session.h"
#include "datastores/datastore_private.h"
#include "datastores/disk_lock.h"
#include "datastores/disk_record.h"
#include "datastores/ds_path.h"
#include "datastores/vmdk.h"

struct ds_tree {
	struct datastore ds;
	const struct tree_ops *files;
};

static inline struct ds_tree *ds_tree_of(struct datastore *ds)
{
	return container_of(ds, struct ds_tree, ds);
}

/* An open folder or file, by whichever the kind has: close it with files->close(). */
struct tree_node {
	int fd;                         /* dir; -1: none */
	struct nfs_handle handle;       /* nfs; len 0: none */
};

#define TREE_NODE_NONE ((struct tree_node){ .fd = -1 })

static inline bool tree_node_is_open(const struct tree_node *node)
{
	return node->fd >= 0 || node->handle.len;
}

enum tree_kind { TREE_FILE, TREE_DIR, TREE_LINK, TREE_OTHER };

struct tree_stat {
	enum tree_kind kind;
	uint64_t size_bytes, allocated_bytes;
	int64_t modified_s;             /* seconds since 1970 */
};

/* The kind's lock of one disk, where it is more than the open file itself. */
struct tree_lock;

/* For wait_ms: as disk_lock_take_soon(), for what has just been closed. */
#define TREE_WAIT_SOON UINT32_MAX

struct tree_claim {
	const struct tree_node *dir;
	const char *data_name;          /* of the disk; its lock goes by this name */
	const struct tree_node *file;   /* the disk's data, or what will be */
	enum disk_lock_mode mode;
	unsigned wait_ms;
	const char *path;               /* for messages */
};

struct tree_disk;

/* Each: 0 or -errno, put into words by fail(), where it has no err of its own. */
struct tree_ops {
	/* Fill *err for what happened to `name`.  Returns rc. */
	int (*fail)(struct err *err, int rc, const char *what, const char *name);

	/* ---- below the root; paths have passed ds_path_check() ---- */

	/* As beneath_plain_path(). */
	int (*plain_path)(struct ds_tree *tree, const char *path, char *plain, struct err *err);
	int (*open_dir)(struct ds_tree *tree, const char *path, struct tree_node *out,
			struct err *err);
	/* As beneath_make_parents() and beneath_remove_parents(). */
	int (*make_parents)(struct ds_tree *tree, const char *path, unsigned *made,
			    struct err *err);
	void (*remove_parents)(struct ds_tree *tree, const char *path, unsigned made);

	/* ---- names in an open folder ---- */

	/* As dir_read_small(), dir_write_small(), dir_rename_new(). */
	ssize_t (*read_small)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			      char *bytes, size_t capacity);
	int (*write_small)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			   const char *bytes, size_t len, bool must_be_new);
	int (*rename_new)(struct ds_tree *tree, const struct tree_node *dir, const char *from,
			  const char *to);
	/* The entry itself, no link followed. */
	int (*stat)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
		    struct tree_stat *out);
	int (*remove)(struct ds_tree *tree, const struct tree_node *dir, const char *name);
	/* What was renamed and removed there is durable. */
	int (*sync_dir)(struct ds_tree *tree, const struct tree_node *dir);
	/*
	 * Calls each() for every name, until it returns non-zero, which is returned then; known:
	 * what the name is, or NULL where that is not to be had with the name.
	 */
	int (*list)(struct ds_tree *tree, const struct tree_node *dir,
		    int (*each)(const char *name, const struct tree_stat *known, void *user),
		    void *user);
	/* What a link `name` in `folder` leads to, inside the root; NULL: never followed. */
	int (*stat_link)(struct ds_tree *tree, const char *folder, const char *name,
			 struct tree_stat *out);
	bool (*may_write)(struct ds_tree *tree, const struct tree_node *dir, const char *name);

	/* ---- files ---- */

	/* A plain file, no link: -EISDIR, -EINVAL.  for_io: as the device wants it. */
	int (*open_file)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			 bool writes, bool for_io, struct tree_node *out);
	/* A new one, empty, for writing: -EEXIST. */
	int (*create_file)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			   struct tree_node *out);
	/* Harmless on what is not open. */
	void (*close)(struct ds_tree *tree, struct tree_node *node);
	int (*stat_file)(struct ds_tree *tree, const struct tree_node *file,
			 struct tree_stat *out);
	/* bytes: aligned to 4096, as are offset and length. */
	ssize_t (*read_file)(struct ds_tree *tree, const struct tree_node *file, void *bytes,
			     size_t len_bytes, uint64_t offset_bytes);
	/* Is `name` in the folder still this file? */
	bool (*is_named)(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			 const struct tree_node *file);
	/* As provision_grow(). */
	int (*grow)(struct ds_tree *tree, const struct tree_node *file, uint64_t old_bytes,
		    uint64_t new_bytes, enum provision provision, const char *path,
		    struct err *err);
	/* R11: does the store say that nothing was ever written to it? */
	bool (*is_unwritten)(struct ds_tree *tree, const struct tree_node *file);
	/* The smallest I/O on a file of that size. */
	uint32_t (*sector_bytes)(struct ds_tree *tree, const struct tree_node *file,
				 uint64_t size_bytes);

	/* ---- disks ---- */

	/* *out may be NULL: the lock is the open file's.  ERR_DISK_IN_USE with -EAGAIN. */
	int (*lock)(struct ds_tree *tree, const struct tree_claim *claim, struct tree_lock **out,
		    struct err *err);
	/* gone: the disk was deleted, nothing is to be left of its lock.  NULL is harmless. */
	void (*unlock)(struct ds_tree *tree, struct tree_lock *lock, bool gone);
	/* Before something is changed under it: is it still held?  NULL: as long as it is there. */
	int (*confirm)(struct tree_lock *lock, const char *path, struct err *err);
	/* What make_dev() needs that may block; or NULL.  info is filled. */
	int (*prepare_io)(struct tree_disk *disk, struct err *err);
	void (*release_io)(struct tree_disk *disk);
	/* [the I/O loop] */
	int (*make_dev)(struct tree_disk *disk, struct loop *io_loop, bool as_target,
			struct blk_dev **out, struct err *err);
	/* The operator's word about the lock of a disk that is there. */
	int (*break_lock)(struct ds_tree *tree, const struct tree_claim *claim, struct err *err);
};

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
struct tree_place {
	struct ds_tree *tree;
	struct tree_node dir;
	char path[DS_PATH_BYTES];       /* without links */
	char meta_name[DS_FILE_NAME_BYTES];
	char data_name[DS_FILE_NAME_BYTES];
	enum disk_format format;
	bool has_meta;                  /* raw: a sidecar was there */
	struct disk_record record;
	struct vmdk *vmdk;              /* VMDK, once read; owned */
};

struct tree_disk {
	struct ds_disk disk;
	/*
	 * dir: the description that is locked and does the I/O; the device has a dup of it, so
	 * the lock lasts until both are closed and the kernel has ended the last request (R-J7).
	 */
	struct tree_node file;
	struct tree_lock *lock;
	struct tree_place place;
	void *io;                       /* prepare_io()'s */
};

/*
 * Find it: names only, nothing is read.  Release in any case.  ERR_DS_PATH_ESCAPE,
 * ERR_DISK_UNKNOWN (no such folder), ERR_DISK_BAD_FORMAT for the name of a disk's data file.
 */
MUST_CHECK int tree_place_find(struct ds_tree *tree, const char *path, struct tree_place *place,
			       struct err *err);
void tree_place_release(struct tree_place *place);

/* Read the meta file; may be repeated.  A raw disk without one is not assigned. */
MUST_CHECK int tree_place_read(struct tree_place *place, struct err *err);

/* Write the meta file, atomically and durably (D1). */
MUST_CHECK int tree_place_write(struct tree_place *place, const struct disk_record *record,
				struct err *err);

/* Open the data file: a plain file, no link.  *out is none on failure. */
MUST_CHECK int tree_place_open_data(const struct tree_place *place, bool writes, bool for_io,
				    struct tree_node *out, struct err *err);

/* Take the disk's lock: files->lock() for this place. */
MUST_CHECK int tree_place_lock(const struct tree_place *place, const struct tree_node *file,
			       enum disk_lock_mode mode, unsigned wait_ms, struct tree_lock **out,
			       struct err *err);
static inline void tree_unlock(struct ds_tree *tree, struct tree_lock *lock, bool gone)
{
	if (lock)
		tree->files->unlock(tree, lock, gone);
}

MUST_CHECK static inline int tree_confirm(struct ds_tree *tree, struct tree_lock *lock,
					  const char *path, struct err *err)
{
	return lock && tree->files->confirm ? tree->files->confirm(lock, path, err) : 0;
}

/*
 * After the lock: are these still the disk's files?  Reads the meta file again.
 * ERR_DISK_UNKNOWN when the disk was deleted or replaced while we came.
 */
MUST_CHECK int tree_place_recheck(struct tree_place *place, const struct tree_node *file,
				  struct err *err);

static inline bool tree_place_has(const struct tree_place *place, const char *name)
{
	struct tree_stat st;

	return place->tree->files->stat(place->tree, &place->dir, name, &st) == 0;
}

/* x.vmdk's data file as we name it; false when the name would be too long. */
bool tree_flat_name(const char *descriptor, char *flat);

/* One of the companions of a descriptor (x-flat.vmdk, x-ctk.vmdk ...) that is no disk itself? */
bool tree_is_companion(const char *name);

/* For a kind's struct datastore_ops. */
int tree_list(struct datastore *ds, const char *folder, struct ds_file_list *out, struct err *err);
int tree_disk_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
		     struct err *err);
int tree_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		   struct err *err);
int tree_disk_open(struct datastore *ds, const char *path, unsigned flags,
		   const char *move_journal_id, struct ds_disk **out, struct err *err);
int tree_disk_delete(struct datastore *ds, const char *path, const struct disk_identity *expected,
		     struct err *err);
int tree_disk_unlock(struct datastore *ds, const char *path, struct err *err);

#endif
