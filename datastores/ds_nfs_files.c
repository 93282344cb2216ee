/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_nfs_files.c - names and files of an export for ds_tree.h.
 *
 * What changes a folder is durable when the server has answered: that is the protocol's promise,
 * so there is nothing to sync.  A call whose answer was lost may have been carried out: the
 * caller is told of an error and finds out by looking again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/base/uuid.h"
#include "datastores/beneath.h"
#include "datastores/ds_nfs.h"
#include "datastores/provision.h"

static struct tree_node node_of(const struct nfs_handle *handle)
{
	return (struct tree_node){ .fd = -1, .handle = *handle };
}

static void stat_take(struct tree_stat *out, const struct nfs_attributes *attributes)
{
	*out = (struct tree_stat){
		.kind = attributes->kind == NFS_FILE   ? TREE_FILE
			: attributes->kind == NFS_DIR  ? TREE_DIR
			: attributes->kind == NFS_LINK ? TREE_LINK
						       : TREE_OTHER,
		.size_bytes = attributes->size_bytes,
		.allocated_bytes = attributes->used_bytes,
		.modified_s = attributes->modified_s,
	};
}

/* ---- paths ---- */

/* One step down, over folders alone: -ELOOP for a link, -ENOTDIR. */
static int step(struct ds_nfs *nfs, struct nfs_handle *at, const char *name)
{
	struct nfs_attributes attributes;
	struct nfs_handle next;
	int rc = nfs_session_lookup(nfs->session, at, name, &next);

	rc = rc ? rc : nfs_session_attributes(nfs->session, &next, &attributes);
	if (!rc && attributes.kind == NFS_LINK)
		rc = -ELOOP;
	if (!rc && attributes.kind != NFS_DIR)
		rc = -ENOTDIR;
	if (!rc)
		*at = next;
	return ds_nfs_note(nfs, rc);
}

/* The folder of the first len characters of path. */
static int walk(struct ds_nfs *nfs, const char *path, size_t len, struct nfs_handle *out)
{
	char name[DS_PATH_PART_BYTES_MAX + 1];
	size_t at = 0;
	int rc = 0;

	*out = *nfs_session_root(nfs->session);
	while (at < len && !rc) {
		size_t part = strcspn(path + at, "/");

		CHECK(part < sizeof(name));     /* ds_path_check() */
		memcpy(name, path + at, part);
		name[part] = 0;
		rc = step(nfs, out, name);
		at += part + 1;
	}
	return rc;
}

static int path_fail(struct err *err, int rc, const char *path)
{
	if (rc == -ELOOP)
		return err_set(err, ERR_DS_PATH_ESCAPE, rc,
			       "'%.160s' leads over a symbolic link, which is not followed on NFS",
			       path);
	return nfs_fail(err, rc, "open", path);
}

int nfs_files_open_dir(struct ds_tree *tree, const char *path, struct tree_node *out,
		       struct err *err)
{
	struct nfs_handle dir;
	int rc = walk(ds_nfs_of(tree), path, strlen(path), &dir);

	*out = TREE_NODE_NONE;
	if (rc)
		return path_fail(err, rc, path);
	*out = node_of(&dir);
	return 0;
}

/* Without links every path is plain. */
int nfs_files_plain_path(struct ds_tree *tree, const char *path, char *plain, struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_attributes attributes;
	struct nfs_handle dir, file;
	size_t parent_len;
	const char *last = ds_path_last(path, &parent_len);
	int rc = walk(nfs, path, parent_len, &dir);

	if (!rc) {
		rc = nfs_session_lookup(nfs->session, &dir, last, &file);
		rc = rc ? rc : nfs_session_attributes(nfs->session, &file, &attributes);
		if (!rc && attributes.kind == NFS_LINK)
			rc = -ELOOP;
		if (rc == -ENOENT)
			rc = 0;         /* not yet there */
		ds_nfs_note(nfs, rc);
	}
	if (rc)
		return path_fail(err, rc, path);
	snprintf(plain, DS_PATH_BYTES, "%s", path);
	return 0;
}

int nfs_files_make_parents(struct ds_tree *tree, const char *path, unsigned *made,
			   struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_handle dir = *nfs_session_root(nfs->session);

	*made = 0;
	for (const char *at = path, *slash; (slash = strchr(at, '/')); at = slash + 1) {
		char name[DS_PATH_PART_BYTES_MAX + 1], folder[DS_PATH_BYTES];
		int rc;

		snprintf(name, sizeof(name), "%.*s", (int)(slash - at), at);
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
		rc = nfs_session_make_dir(nfs->session, &dir, name);
		if (!rc)
			++*made;
		else if (rc == -EEXIST)
			rc = 0;
		rc = rc ? ds_nfs_note(nfs, rc) : step(nfs, &dir, name);
		if (rc) {
			nfs_files_remove_parents(tree, folder, *made);
			return rc == -ELOOP ? path_fail(err, rc, folder)
					    : nfs_fail(err, rc, "make the folder", folder);
		}
	}
	return 0;
}

void nfs_files_remove_parents(struct ds_tree *tree, const char *path, unsigned made)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	char folder[DS_PATH_BYTES];
	size_t len;

	snprintf(folder, sizeof(folder), "%s", path);
	for (; made; made--) {
		struct nfs_handle above;
		size_t above_len;
		const char *name;

		ds_path_last(folder, &len);
		if (len == 0)
			return;
		folder[len] = 0;
		name = ds_path_last(folder, &above_len);
		/* Not empty, or somebody else's by now: it stays. */
		if (walk(nfs, folder, above_len, &above) ||
		    nfs_session_remove_dir(nfs->session, &above, name))
			return;
	}
}

/* ---- names ---- */

static int find(struct ds_nfs *nfs, const struct tree_node *dir, const char *name,
		struct nfs_handle *file, struct nfs_attributes *attributes)
{
	int rc = nfs_session_lookup(nfs->session, &dir->handle, name, file);

	rc = rc ? rc : nfs_session_attributes(nfs->session, file, attributes);
	return ds_nfs_note(nfs, rc);
}

int nfs_files_stat(struct ds_tree *tree, const struct tree_node *dir, const char *name,
		   struct tree_stat *out)
{
	struct nfs_attributes attributes;
	struct nfs_handle file;
	int rc = find(ds_nfs_of(tree), dir, name, &file, &attributes);

	if (!rc)
		stat_take(out, &attributes);
	return rc;
}

ssize_t nfs_files_read_small(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			     char *bytes, size_t capacity)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_attributes attributes;
	struct nfs_handle file;
	int rc = find(nfs, dir, name, &file, &attributes);
	int64_t len;

	if (rc)
		return rc;
	if (attributes.kind != NFS_FILE)
		return attributes.kind == NFS_LINK ? -ELOOP : -EINVAL;
	if (attributes.size_bytes > capacity)
		return -EFBIG;
	len = nfs_session_read(nfs->session, &file, 0, bytes, (uint32_t)capacity);
	ds_nfs_note(nfs, len < 0 ? (int)len : 0);
	return (ssize_t)len;
}

int nfs_files_remove(struct ds_tree *tree, const struct tree_node *dir, const char *name)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);

	return ds_nfs_note(nfs, nfs_session_remove(nfs->session, &dir->handle, name));
}

/* The protocol's rename replaces; a second name does not. */
int nfs_files_rename_new(struct ds_tree *tree, const struct tree_node *dir, const char *from,
			 const char *to)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_handle file;
	int rc = nfs_session_lookup(nfs->session, &dir->handle, from, &file);

	rc = rc ? rc : nfs_session_link_name(nfs->session, &file, &dir->handle, to);
	rc = rc ? rc : nfs_session_remove(nfs->session, &dir->handle, from);
	return ds_nfs_note(nfs, rc);
}

int nfs_files_write_small(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			  const char *bytes, size_t len, bool must_be_new)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	char tmp[DS_FILE_NAME_BYTES];
	struct tree_node file;
	int rc;

	dir_tmp_name(name, tmp);
	/* A stray one of an interrupted update: never complete, never anybody's. */
	rc = nfs_files_remove(tree, dir, tmp);
	if (rc && rc != -ENOENT)
		return rc;
	rc = nfs_files_create_file(tree, dir, tmp, &file);
	if (rc)
		return rc;
	rc = nfs_session_write_stable(nfs->session, &file.handle, 0, bytes, (uint32_t)len);
	if (!rc && must_be_new)
		rc = nfs_files_rename_new(tree, dir, tmp, name);
	else if (!rc)
		rc = nfs_session_rename(nfs->session, &dir->handle, tmp, &dir->handle, name);
	ds_nfs_note(nfs, rc);
	if (rc)
		(void)nfs_files_remove(tree, dir, tmp);
	return rc;
}

int nfs_files_sync_dir(struct ds_tree *tree, const struct tree_node *dir)
{
	(void)tree;
	(void)dir;
	return 0;
}

bool nfs_files_may_write(struct ds_tree *tree, const struct tree_node *dir, const char *name)
{
	(void)tree;
	(void)dir;
	(void)name;
	return true;    /* the server says when it is tried */
}

/* ---- listing ---- */

struct gathered_name {
	struct tree_stat stat;
	bool known;
	char name[256];
};

struct gathering {
	struct gathered_name *names;
	uint32_t count;
};

static int gather(const char *name, const struct nfs_attributes *attributes, void *user)
{
	struct gathering *gathering = user;
	struct gathered_name *gathered;

	/* One more than a listing shows, so that it says that it is cut. */
	if (gathering->count > DS_LIST_MAX)
		return 1;
	if ((gathering->count & (gathering->count - 1)) == 0) {
		size_t capacity = gathering->count ? (size_t)gathering->count * 2 : 1;
		struct gathered_name *names = reallocarray(gathering->names, capacity,
							   sizeof(*names));

		if (!names)
			return -ENOMEM;
		gathering->names = names;
	}
	gathered = &gathering->names[gathering->count++];
	snprintf(gathered->name, sizeof(gathered->name), "%s", name);
	/* Too long for a name of ours: cut, it is another's; the empty name is refused later. */
	if (strlen(name) >= sizeof(gathered->name))
		gathered->name[0] = 0;
	gathered->known = attributes->known;
	stat_take(&gathered->stat, attributes);
	return 0;
}

/* First all names, then each: who looks at one may ask the server about it. */
int nfs_files_list(struct ds_tree *tree, const struct tree_node *dir,
		   int (*each)(const char *name, const struct tree_stat *known, void *user),
		   void *user)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct gathering gathering = { 0 };
	int rc = nfs_session_list(nfs->session, &dir->handle, gather, &gathering);

	rc = ds_nfs_note(nfs, MIN(rc, 0));
	for (uint32_t i = 0; i < gathering.count && !rc; i++) {
		const struct gathered_name *gathered = &gathering.names[i];

		rc = each(gathered->name, gathered->known ? &gathered->stat : NULL, user);
	}
	free(gathering.names);
	return rc;
}

/* ---- files ---- */

int nfs_files_open_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			bool writes, bool for_io, struct tree_node *out)
{
	struct nfs_attributes attributes;
	struct nfs_handle file;
	int rc = find(ds_nfs_of(tree), dir, name, &file, &attributes);

	(void)writes;
	(void)for_io;
	*out = TREE_NODE_NONE;
	if (rc)
		return rc;
	if (attributes.kind != NFS_FILE)
		return attributes.kind == NFS_DIR    ? -EISDIR
		       : attributes.kind == NFS_LINK ? -ELOOP
						     : -EINVAL;
	*out = node_of(&file);
	return 0;
}

int nfs_files_create_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			  struct tree_node *out)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct uuid random = uuid_random();
	struct nfs_handle file;
	uint64_t cookie;
	int rc;

	*out = TREE_NODE_NONE;
	memcpy(&cookie, random.bytes, sizeof(cookie));
	rc = nfs_session_create_exclusive(nfs->session, &dir->handle, name, cookie, &file);
	if (!rc)
		*out = node_of(&file);
	return ds_nfs_note(nfs, rc);
}

void nfs_files_close(struct ds_tree *tree, struct tree_node *node)
{
	(void)tree;
	*node = TREE_NODE_NONE;
}

int nfs_files_stat_file(struct ds_tree *tree, const struct tree_node *file,
			struct tree_stat *out)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_attributes attributes;
	int rc = nfs_session_attributes(nfs->session, &file->handle, &attributes);

	if (!rc)
		stat_take(out, &attributes);
	return ds_nfs_note(nfs, rc);
}

ssize_t nfs_files_read_file(struct ds_tree *tree, const struct tree_node *file, void *bytes,
			    size_t len_bytes, uint64_t offset_bytes)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	int64_t len = nfs_session_read(nfs->session, &file->handle, offset_bytes, bytes,
				       (uint32_t)len_bytes);

	ds_nfs_note(nfs, len < 0 ? (int)len : 0);
	return (ssize_t)len;
}

/* Different handles may lead to one file; a file that is gone has none. */
bool nfs_files_is_named(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			const struct tree_node *file)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	struct nfs_attributes held, named;
	struct nfs_handle other;

	return nfs_session_attributes(nfs->session, &file->handle, &held) == 0 &&
	       find(nfs, dir, name, &other, &named) == 0 && held.file_id == named.file_id;
}

bool nfs_files_is_unwritten(struct ds_tree *tree, const struct tree_node *file)
{
	struct tree_stat st = { .allocated_bytes = UINT64_MAX };

	return nfs_files_stat_file(tree, file, &st) == 0 && st.allocated_bytes == 0;
}

uint32_t nfs_files_sector_bytes(struct ds_tree *tree, const struct tree_node *file,
				uint64_t size_bytes)
{
	(void)tree;
	(void)file;
	(void)size_bytes;
	return 512;
}

/* ---- space ---- */

static int write_zeroes(struct ds_nfs *nfs, const struct nfs_handle *file, uint64_t from,
			uint64_t to)
{
	uint32_t most_bytes = nfs_session_limits(nfs->session)->write_bytes;
	CLEANUP_FREE uint8_t *zeroes = calloc(1, most_bytes);
	int rc = 0;

	if (!zeroes)
		return -ENOMEM;
	while (from < to && !rc) {
		uint32_t len = (uint32_t)MIN(to - from, (uint64_t)most_bytes);

		rc = nfs_session_write_stable(nfs->session, file, from, zeroes, len);
		from += len;
	}
	return rc;
}

/* Version 3 can allocate by writing only, so thick is eager here; room is asked for first. */
static int fill(struct ds_nfs *nfs, const struct nfs_handle *file, uint64_t from, uint64_t to)
{
	struct nfs_space space;
	int rc = nfs_session_space(nfs->session, &space);

	if (!rc && to - from > space.free_bytes)
		rc = -ENOSPC;
	return rc ? rc : write_zeroes(nfs, file, from, to);
}

int nfs_files_grow(struct ds_tree *tree, const struct tree_node *file, uint64_t old_bytes,
		   uint64_t new_bytes, enum provision provision, const char *path,
		   struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	int rc = 0;

	CHECK(provision != PROVISION_SAME && new_bytes >= old_bytes);
	if (new_bytes > nfs_session_limits(nfs->session)->file_bytes)
		return err_set(err, ERR_DISK_BAD_SIZE, -EFBIG,
			       "the server takes no file of the size of '%.120s'", path);
	if (provision != PROVISION_THIN)
		rc = fill(nfs, &file->handle, old_bytes, new_bytes);
	rc = rc ? rc : nfs_session_set_size(nfs->session, &file->handle, new_bytes);
	if (!rc)
		return ds_nfs_note(nfs, 0);
	ds_nfs_note(nfs, rc);
	if (rc == -ENOSPC || rc == -EDQUOT)
		err_set(err, ERR_DS_NO_SPACE, rc = -ENOSPC,
			"there is no room for %" PRIu64 " more bytes of '%.120s'",
			new_bytes - old_bytes, path);
	else
		nfs_fail(err, rc, "allocate", path);
	if (nfs_session_set_size(nfs->session, &file->handle, old_bytes))
		log_error("datastore", "'%s': cannot undo a failed growth", path);
	return rc;
}
