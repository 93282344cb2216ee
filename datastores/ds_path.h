/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_path.h - the one edge where a path inside a datastore is judged.
 *
 * A path that passes here is relative, '/'-separated, free of '.', '..', empty parts,
 * control characters and broken UTF-8, so one file has one name and every name can be
 * printed.  It says nothing about links: the store resolves beneath its root (beneath.h).
 *
 * Pure functions; any thread.
 */
#ifndef BM_DS_PATH_H
#define BM_DS_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "blkmirror/base/err.h"

/*
 * A part is shorter than the 255 bytes that file systems take, because companions of a
 * disk add to its name: '-flat.vmdk', '.blkmirror', and a leading '.' with '.blkmirror-tmp'.
 */
#define DS_PATH_PART_BYTES_MAX 215
#define DS_PATH_DEPTH_MAX 32
/* With the longest companion's additions. */
#define DS_FILE_NAME_BYTES 256

#define DS_TMP_SUFFIX ".blkmirror-tmp"

/* 0, or -EINVAL with ERR_DS_PATH_ESCAPE.  The empty path (the root) is allowed with root_ok. */
MUST_CHECK int ds_path_check(const char *path, bool root_ok, struct err *err);

/* Can this one directory entry be named in a path?  Ours ('.x.blkmirror-tmp') cannot. */
bool ds_path_part_is_valid(const char *part);

/* The last part of a checked path, in it.  *parent_len: bytes before its '/', 0 at the root. */
const char *ds_path_last(const char *path, size_t *parent_len);

/* Does text end in suffix, whatever its case, with something before it? */
bool ds_path_has_suffix(const char *text, const char *suffix);

/* No control characters, valid UTF-8 (shortest form, no surrogates). */
bool ds_text_is_clean(const char *text, size_t len);

#endif
