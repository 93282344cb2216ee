/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beneath.h - files below a root that is held open, and never one outside it.
 *
 * Every walk goes through openat2() with RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS from the
 * root's descriptor: the kernel refuses '..', absolute links and links that leave, at the
 * moment of use, so there is no gap between a check and the use.  What changes a folder
 * (create, rename, unlink) opens the folder that way and then works on one plain name in
 * it, without following a link there.
 *
 * Links that stay inside are followed, and a path through them is turned into the plain
 * one (beneath_plain_path()): one disk has one name, hence one sidecar and one descriptor.
 *
 * All calls block [worker].  Paths have passed ds_path_check().
 */
#ifndef BM_BENEATH_H
#define BM_BENEATH_H

#include <stdbool.h>
#include <sys/stat.h>

#include "blkmirror/base/err.h"

/* -ENOSYS, ERR_NOT_SUPPORTED: the kernel has no openat2() (older than 5.6). */
MUST_CHECK int beneath_probe(int root_fd, struct err *err);

/* A descriptor (gives), or -errno: -EXDEV for what would leave, -ELOOP, -ENOENT ... */
MUST_CHECK int beneath_open(int root_fd, const char *path, int flags, mode_t mode);

/*
 * The same, failing in words: ERR_DS_PATH_ESCAPE, ERR_DISK_UNKNOWN (no such file),
 * ERR_DS_PERMISSION, ERR_DS_READ_ONLY, ERR_DS_NO_SPACE, ERR_DS_IO.
 */
MUST_CHECK int beneath_open_err(int root_fd, const char *path, int flags, struct err *err);

/* What went wrong with `path`, as those words.  Returns rc. */
int beneath_fail(struct err *err, int rc, const char *what, const char *path);

/*
 * The folder that holds the last part of path ("" and "x" are held by the root): a
 * descriptor (gives) good for *at() calls, or -errno with *err.
 */
MUST_CHECK int beneath_open_parent(int root_fd, const char *path, struct err *err);

/*
 * The path without links: of the whole, where the last part is a link inside the root, and
 * of the folders on the way.  plain: DS_PATH_BYTES.  What does not exist yet is no fault as
 * long as its folder does.  ERR_DS_PATH_ESCAPE, ERR_DISK_UNKNOWN.
 */
MUST_CHECK int beneath_plain_path(int root_fd, const char *path, char *plain, struct err *err);

/*
 * Make the folders above the last part of path, each durable.  *made: how many are new (also
 * on failure, where they are removed again).
 */
MUST_CHECK int beneath_make_parents(int root_fd, const char *path, unsigned *made, struct err *err);

/* Remove the `made` deepest folders above path's last part, as far as they are empty. */
void beneath_remove_parents(int root_fd, const char *path, unsigned made);

/* ---- in an open folder; names are single parts ---- */

/* Read a small file whole.  Its length, -EFBIG when longer than capacity, -ELOOP for a link,
 * -EINVAL for what is no plain file. */
MUST_CHECK ssize_t dir_read_small(int dir_fd, const char *name, char *bytes, size_t capacity);

/*
 * Put bytes into the file `name`, atomically and durably: after a crash at any point it holds
 * the old or the new bytes.  Needs the lock of the disk it describes: the temporary
 * file has one name.  With must_be_new, -EEXIST where the name is taken.
 */
MUST_CHECK int dir_write_small(int dir_fd, const char *name, const char *bytes, size_t len,
			       bool must_be_new);

/* Rename that never replaces: -EEXIST. */
MUST_CHECK int dir_rename_new(int dir_fd, const char *from, const char *to);

/* ".NAME.blkmirror-tmp"; tmp: DS_FILE_NAME_BYTES. */
void dir_tmp_name(const char *name, char *tmp);

/* Is `name` in the folder still the file behind fd? */
bool dir_names_fd(int dir_fd, const char *name, int fd);

bool dir_has(int dir_fd, const char *name);

#endif
