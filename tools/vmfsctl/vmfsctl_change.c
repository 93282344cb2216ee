/* SPDX-License-Identifier: Apache-2.0 */
/* vmfsctl_change.c - the verbs that change files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/units.h"
#include "tools/vmfsctl/vmfsctl.h"

#define COPY_BYTES ((size_t)4 << 20)
#define DEPTH_MAX 64u

/* A volume open for writing, and the folder and name that words[word] says. */
struct place {
	struct ctl_volume volume;
	struct vmfs_node *dir;
	char name[VMFS_NAME_MAX + 1];
};

static int release(struct place *place, int code)
{
	struct err err = { 0 };

	if (vmfs_node_put(place->dir, &err) && code == CTL_DONE)
		code = ctl_error(&err);
	return ctl_release(&place->volume, code);
}

static int open_place(const struct ctl_args *args, unsigned word, struct place *out)
{
	struct err err = { 0 };
	int code;

	*out = (struct place){ 0 };
	code = ctl_open(args, false, &out->volume);
	if (code)
		return code;
	if (vmfs_walk_parent(out->volume.fs, args->words[word], &out->dir, out->name, &err))
		return ctl_release(&out->volume, ctl_error(&err));
	return CTL_DONE;
}

/* ---- put ---- */

static int local_error(const char *what, const char *path, int rc)
{
	struct err err = { 0 };

	err_set(&err, ERR_LOCAL_FILE, rc, "cannot %s '%.150s': %s", what, path, err_strerror(rc));
	return ctl_error(&err);
}

/* Data runs of the input only: its holes stay holes. */
static int copy_data(int fd, const char *path, off_t from, off_t end, struct vmfs_node *node,
		     uint8_t *buffer)
{
	struct err err = { 0 };

	while (from < end) {
		ssize_t got = pread(fd, buffer, (size_t)MIN((uint64_t)(end - from), COPY_BYTES), from);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return local_error("read", path, -errno);
		if (got == 0)
			return local_error("read", path, -EIO);
		if (vmfs_write(node, (uint64_t)from, buffer, (size_t)got, &err))
			return ctl_error(&err);
		from += got;
	}
	return CTL_DONE;
}

static int copy_in(int fd, const char *path, off_t size, struct vmfs_node *node)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	struct err err = { 0 };
	int code = CTL_DONE;
	off_t at = 0;

	if (!buffer)
		return local_error("read", path, -ENOMEM);
	while (at < size && code == CTL_DONE) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			data = at;      /* a file that cannot tell: all of it */
		hole = lseek(fd, data, SEEK_HOLE);
		at = hole < 0 ? size : MIN(hole, size);
		code = copy_data(fd, path, data, at, node, buffer);
	}
	free(buffer);
	if (code == CTL_DONE && vmfs_truncate(node, (uint64_t)size, &err))
		code = ctl_error(&err);
	return code;
}

static int put_file(struct place *place, int fd, const char *path, const struct stat *st)
{
	const struct vmfs_attributes attributes = { .mode = st->st_mode & 0777 };
	struct vmfs_node *node;
	struct err err = { 0 };
	int code;

	if (vmfs_create(place->dir, place->name, &attributes, &node, &err))
		return ctl_error(&err);
	code = copy_in(fd, path, st->st_size, node);
	if (vmfs_node_put(node, &err))
		code = ctl_error(&err);
	/* Half a file is none. */
	if (code != CTL_DONE && vmfs_unlink(place->dir, place->name, &err))
		ctl_error(&err);
	return code;
}

static int verb_put(const struct ctl_args *args)
{
	int fd = open(args->words[1], O_RDONLY | O_CLOEXEC), code;
	struct place place;
	struct stat st;

	if (fd < 0)
		return local_error("open", args->words[1], -errno);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return local_error("copy", args->words[1], -EINVAL);
	}
	code = open_place(args, 2, &place);
	if (code == CTL_DONE)
		code = release(&place, put_file(&place, fd, args->words[1], &st));
	close(fd);
	return code;
}

/* ---- mkdir, symlink ---- */

static int verb_mkdir(const struct ctl_args *args)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct place place;
	struct err err = { 0 };
	int code = open_place(args, 1, &place);

	if (code)
		return code;
	if (vmfs_mkdir(place.dir, place.name, &attributes, &err))
		code = ctl_error(&err);
	return release(&place, code);
}

static int verb_symlink(const struct ctl_args *args)
{
	struct place place;
	struct err err = { 0 };
	int code = open_place(args, 2, &place);

	if (code)
		return code;
	if (vmfs_symlink(place.dir, place.name, args->words[1], &err))
		code = ctl_error(&err);
	return release(&place, code);
}

/* ---- rm ---- */

static int remove_tree(struct vmfs_node *dir, const char *name, bool recursive, unsigned depth);

static int remove_inside(struct vmfs_node *dir, unsigned depth)
{
	struct vmfs_entry entry;
	struct err err = { 0 };
	uint64_t cursor = 0;
	int rc;

	/* Removing moves the last entry to the removed one's place: look there again. */
	for (;;) {
		uint64_t before = cursor;

		rc = vmfs_readdir(dir, &cursor, &entry, &err);
		if (rc)
			break;
		if (strcmp(entry.name, ".") == 0 || strcmp(entry.name, "..") == 0)
			continue;
		if (remove_tree(dir, entry.name, true, depth))
			return CTL_FAILED;
		cursor = before;
	}
	return rc == -ENODATA ? CTL_DONE : ctl_error(&err);
}

static int remove_tree(struct vmfs_node *dir, const char *name, bool recursive, unsigned depth)
{
	struct vmfs_node *node;
	struct vmfs_stat stat;
	struct err err = { 0 };
	int code = CTL_DONE;

	if (vmfs_lookup(dir, name, &node, &err))
		return ctl_error(&err);
	vmfs_node_stat(node, &stat);
	if (stat.is_directory && recursive) {
		if (depth == DEPTH_MAX) {
			err_set(&err, ERR_VMFS_LIMIT, -ELOOP, "folders more than %u deep", DEPTH_MAX);
			code = ctl_error(&err);
		} else {
			code = remove_inside(node, depth + 1);
		}
	}
	if (vmfs_node_put(node, &err))
		code = ctl_error(&err);
	if (code)
		return code;
	if (stat.is_directory ? vmfs_rmdir(dir, name, &err) : vmfs_unlink(dir, name, &err))
		return ctl_error(&err);
	return CTL_DONE;
}

static int verb_rm(const struct ctl_args *args)
{
	struct place place;
	int code = open_place(args, 1, &place);

	return code ? code :
		      release(&place, remove_tree(place.dir, place.name, args->recursive, 0));
}

/* ---- mv, truncate ---- */

/* Into a folder that exists, under its old name; else to the new name itself. */
static int find_target(const struct ctl_args *args, struct place *place, struct vmfs_node **dir_out,
		       char name[VMFS_NAME_MAX + 1], struct err *err)
{
	struct vmfs_stat stat;
	int rc = vmfs_walk(place->volume.fs, args->words[2], dir_out, err);

	if (rc == 0) {
		vmfs_node_stat(*dir_out, &stat);
		if (stat.is_directory) {
			strcpy(name, place->name);
			return 0;
		}
		rc = vmfs_node_put(*dir_out, err);
		*dir_out = NULL;
		if (rc)
			return rc;
	} else if (rc != -ENOENT) {
		return rc;
	}
	return vmfs_walk_parent(place->volume.fs, args->words[2], dir_out, name, err);
}

static int verb_mv(const struct ctl_args *args)
{
	char name[VMFS_NAME_MAX + 1];
	struct vmfs_node *dir = NULL;
	struct place place;
	struct err err = { 0 };
	int code = open_place(args, 1, &place);

	if (code)
		return code;
	if (find_target(args, &place, &dir, name, &err) ||
	    vmfs_rename(place.dir, place.name, dir, name, &err))
		code = ctl_error(&err);
	if (vmfs_node_put(dir, &err))
		code = ctl_error(&err);
	return release(&place, code);
}

static int verb_truncate(const struct ctl_args *args)
{
	struct vmfs_node *node;
	struct place place;
	struct err err = { 0 };
	uint64_t size;
	int code;

	if (strcmp(args->words[2], "0") == 0)
		size = 0;
	else if (units_parse_size(args->words[2], &size, &err))
		return ctl_error(&err);
	code = open_place(args, 1, &place);
	if (code)
		return code;
	if (vmfs_lookup(place.dir, place.name, &node, &err))
		return release(&place, ctl_error(&err));
	if (vmfs_truncate(node, size, &err))
		code = ctl_error(&err);
	if (vmfs_node_put(node, &err))
		code = ctl_error(&err);
	return release(&place, code);
}

const struct ctl_verb ctl_change_verbs[] = {
	{ "put", "VOLUME FILE PATH", "", "copy a file in, holes stay holes", 3, 3, verb_put },
	{ "mkdir", "VOLUME PATH", "", "make a folder", 2, 2, verb_mkdir },
	{ "symlink", "VOLUME TARGET PATH", "", "make a symbolic link", 3, 3, verb_symlink },
	{ "rm", "VOLUME PATH", "[-r]", "remove a file or an empty folder; -r: all in it", 2, 2,
	  verb_rm },
	{ "mv", "VOLUME PATH NEW-PATH", "", "rename, or move into a folder", 3, 3, verb_mv },
	{ "truncate", "VOLUME PATH SIZE", "", "cut a file, or let it grow by a hole", 3, 3,
	  verb_truncate },
	{ 0 },
};
