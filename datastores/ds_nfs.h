/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_nfs.h - inside the nfs:// kind: an export, version 3.
 *
 *   ds_nfs.c         the datastore: mount, space, state; disks' locks and devices
 *   ds_nfs_files.c   names and files, for ds_tree.h
 *   nfs_keeper.h     locks and their renewal
 *
 * Links are not followed: the server would resolve them by its own tree, not by ours.
 */
#ifndef BM_DS_NFS_H
#define BM_DS_NFS_H

#include "datastores/ds_tree.h"
#include "datastores/nfs_keeper.h"

struct ds_nfs {
	struct ds_tree tree;
	struct nfs_session *session;    /* the worker's */
	struct nfs_keeper *keeper;
	unsigned connections;           /* of a disk's device */
	/* What the datastore's state is made of; each is told by its own thread. */
	atomic_bool answers;            /* the worker's session */
	atomic_bool renews;             /* the keeper */
	atomic_uint waiting;            /* devices without a connection */
	atomic_bool is_open;            /* the datastore has a name to log by */
};

static inline struct ds_nfs *ds_nfs_of(struct ds_tree *tree)
{
	return container_of(tree, struct ds_nfs, tree);
}

/* After calls of the worker's session: does the server answer?  Returns rc. */
int ds_nfs_note(struct ds_nfs *nfs, int rc);

/* ---- ds_nfs_files.c; the comments are struct tree_ops' ---- */

int nfs_files_plain_path(struct ds_tree *tree, const char *path, char *plain, struct err *err);
int nfs_files_open_dir(struct ds_tree *tree, const char *path, struct tree_node *out,
		       struct err *err);
int nfs_files_make_parents(struct ds_tree *tree, const char *path, unsigned *made,
			   struct err *err);
void nfs_files_remove_parents(struct ds_tree *tree, const char *path, unsigned made);
ssize_t nfs_files_read_small(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			     char *bytes, size_t capacity);
int nfs_files_write_small(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			  const char *bytes, size_t len, bool must_be_new);
int nfs_files_rename_new(struct ds_tree *tree, const struct tree_node *dir, const char *from,
			 const char *to);
int nfs_files_stat(struct ds_tree *tree, const struct tree_node *dir, const char *name,
		   struct tree_stat *out);
int nfs_files_remove(struct ds_tree *tree, const struct tree_node *dir, const char *name);
int nfs_files_sync_dir(struct ds_tree *tree, const struct tree_node *dir);
int nfs_files_list(struct ds_tree *tree, const struct tree_node *dir,
		   int (*each)(const char *name, const struct tree_stat *known, void *user),
		   void *user);
bool nfs_files_may_write(struct ds_tree *tree, const struct tree_node *dir, const char *name);
int nfs_files_open_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			bool writes, bool for_io, struct tree_node *out);
int nfs_files_create_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			  struct tree_node *out);
void nfs_files_close(struct ds_tree *tree, struct tree_node *node);
int nfs_files_stat_file(struct ds_tree *tree, const struct tree_node *file,
			struct tree_stat *out);
ssize_t nfs_files_read_file(struct ds_tree *tree, const struct tree_node *file, void *bytes,
			    size_t len_bytes, uint64_t offset_bytes);
bool nfs_files_is_named(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			const struct tree_node *file);
int nfs_files_grow(struct ds_tree *tree, const struct tree_node *file, uint64_t old_bytes,
		   uint64_t new_bytes, enum provision provision, const char *path,
		   struct err *err);
bool nfs_files_is_unwritten(struct ds_tree *tree, const struct tree_node *file);
uint32_t nfs_files_sector_bytes(struct ds_tree *tree, const struct tree_node *file,
				uint64_t size_bytes);

#endif
