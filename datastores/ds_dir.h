/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_dir.h - what the rooms of dir:// share.
 *
 *   ds_dir.c         the root, and the file operations of ds_tree.h on it
 *   ds_dir_file.c    a machine's other files
 *
 * All [worker] but what says otherwise.  Every walk is beneath the root (beneath.h).
 */
#ifndef BM_DS_DIR_H
#define BM_DS_DIR_H

#include "datastores/datastore_private.h"

/* Its open root; borrowed.  Any thread. */
int ds_dir_root(struct datastore *ds);

/* ds_dir_file.c */
int dir_file_read(struct datastore *ds, const char *path, char *bytes, size_t capacity,
		  size_t *len, struct err *err);
int dir_file_write(struct datastore *ds, const char *path, const char *bytes, size_t len,
		   bool must_be_new, struct err *err);
int dir_file_delete(struct datastore *ds, const char *path, struct err *err);
int dir_file_descriptor(struct datastore *ds, const char *path, bool create, int *fd,
			struct err *err);

#endif
