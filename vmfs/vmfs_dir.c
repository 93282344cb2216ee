/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_dir.c - names and paths, for all versions. */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

/* ---- the window ---- */

void vmfs_dir_forget(struct vmfs *fs)
{
	fs->window->dir = NULL;
}

int vmfs_dir_read(struct vmfs_node *dir, uint64_t offset, uint8_t *bytes, size_t len)
{
	struct vmfs_dir_window *window = dir->fs->window;
	int rc;

	CHECK(len <= VMFS_DIR_WINDOW_BYTES);
	CHECK(range_fits(offset, len, dir->fd.length));
	if (window->dir != dir || offset < window->start ||
	    !range_fits(offset - window->start, len, window->len)) {
		window->dir = NULL;
		window->start = round_down(offset, VMFS_SECTOR_BYTES);
		window->len = MIN(VMFS_DIR_WINDOW_BYTES, dir->fd.length - window->start);
		if (!range_fits(offset - window->start, len, window->len))
			return vmfs_file_read(dir, offset, bytes, len);
		rc = vmfs_file_read(dir, window->start, window->bytes, (size_t)window->len);
		if (rc)
			return rc;
		window->dir = dir;
	}
	memcpy(bytes, window->bytes + (offset - window->start), len);
	return 0;
}

/* ---- entries ---- */

int vmfs_dir_judge_entry(struct vmfs_node *dir, const struct vmfs_entry *entry)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&dir->fs->addr, entry->address, &addr);
	if (entry->name[0] == '\0' || strchr(entry->name, '/'))
		return vmfs_damaged(dir->fs, "folder %#x has an entry whose name is none",
				    dir->address);
	if (addr.type != VMFS_ADDR_FD || addr.other)
		return vmfs_damaged(dir->fs, "folder %#x: '%.100s' names %#x, no descriptor",
				    dir->address, entry->name, entry->address);
	return 0;
}

int vmfs_dir_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out)
{
	if (!vmfs_node_is_dir(dir))
		return -ENOTDIR;
	if (dir->fs->geometry->version == 6)
		return vmfs_dir6_next(dir, cursor, out);
	return vmfs_dir5_next(dir, cursor, out);
}

int vmfs_dir_find(struct vmfs_node *dir, const char *name, struct vmfs_entry *out)
{
	uint64_t cursor = 0;
	int rc;

	do {
		rc = vmfs_dir_next(dir, &cursor, out);
	} while (rc == 0 && strcmp(out->name, name) != 0);
	return rc == -ENODATA ? -ENOENT : rc;
}

int vmfs_dir_lookup(struct vmfs_node *dir, const char *name, struct vmfs_node **out)
{
	struct vmfs_entry entry;
	struct vmfs_node *node;
	int rc = vmfs_dir_find(dir, name, &entry);

	if (!rc)
		rc = vmfs_node_find(dir->fs, entry.address, &node);
	if (rc)
		return rc;
	if (node->fd.generation != entry.generation) {
		rc = vmfs_damaged(dir->fs, "'%.100s' is generation %u of descriptor %#x, which is at %u",
				  name, entry.generation, entry.address, node->fd.generation);
		(void)vmfs_node_drop(node);     /* it has its name still: writes nothing */
		return rc;
	}
	*out = node;
	return 0;
}

int vmfs_lookup(struct vmfs_node *dir, const char *name, struct vmfs_node **out, struct err *err)
{
	vmfs_begin(dir->fs);
	return vmfs_answer(dir->fs, vmfs_dir_lookup(dir, name, out), err);
}

int vmfs_readdir(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out, struct err *err)
{
	int rc;

	vmfs_begin(dir->fs);
	rc = vmfs_dir_next(dir, cursor, out);
	return rc == -ENODATA ? rc : vmfs_answer(dir->fs, rc, err);
}

/* ---- paths ---- */

/* The next part of the path; its length 0 at the end. */
static const char *next_part(const char **path, size_t *len)
{
	const char *part = *path + strspn(*path, "/");

	*len = strcspn(part, "/");
	*path = part + *len;
	return part;
}

static int walk_to(struct vmfs *fs, const char *path, const char *end, struct vmfs_node **out)
{
	struct vmfs_node *node = vmfs_node_ref(fs->root), *next;
	char name[VMFS_DIRENT6_NAME_BYTES];
	const char *part;
	size_t len;
	int rc;

	while ((part = next_part(&path, &len)), len > 0 && part < end) {
		if (len >= sizeof(name)) {
			rc = -ENAMETOOLONG;
			goto drop;
		}
		memcpy(name, part, len);
		name[len] = '\0';
		rc = vmfs_node_is_dir(node) ? vmfs_dir_lookup(node, name, &next) : -ENOTDIR;
		if (rc == -ENOENT)
			vmfs_fail(fs, ERR_VMFS_NO_ENTRY, rc, "there is no '%.150s' there", name);
		if (rc)
			goto drop;
		(void)vmfs_node_drop(node);     /* an ancestor: it keeps its name */
		node = next;
	}
	*out = node;
	return 0;

drop:
	(void)vmfs_node_drop(node);
	return rc;
}

int vmfs_walk(struct vmfs *fs, const char *path, struct vmfs_node **out, struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, walk_to(fs, path, path + strlen(path), out), err);
}

static int walk_parent(struct vmfs *fs, const char *path, struct vmfs_node **dir_out,
		       char name[VMFS_NAME_MAX + 1])
{
	const char *at = path, *last = NULL, *part;
	size_t last_len = 0, len;
	int rc;

	while ((part = next_part(&at, &len)), len > 0) {
		last = part;
		last_len = len;
	}
	if (!last)
		return vmfs_fail(fs, ERR_VMFS_NAME, -EINVAL, "that is the root");
	if (last_len > VMFS_NAME_MAX)
		return -ENAMETOOLONG;
	rc = walk_to(fs, path, last, dir_out);
	if (rc)
		return rc;
	memcpy(name, last, last_len);
	name[last_len] = '\0';
	return 0;
}

int vmfs_walk_parent(struct vmfs *fs, const char *path, struct vmfs_node **dir_out,
		     char name[VMFS_NAME_MAX + 1], struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, walk_parent(fs, path, dir_out, name), err);
}
