/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_fsck_tree.c - names, from the root down, and the descriptors that they name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmfs/vmfs_fsck_private.h"

/* A folder that is still to be looked into. */
struct visit {
	uint32_t address, parent;
};

struct queue {
	struct visit *visits;           /* as many as there are descriptors: each is visited once */
	uint64_t count, done;
};

bool fsck_index_of(const struct vmfs *fs, uint32_t address, uint64_t *out)
{
	const struct vmfs_res *fdc = &fs->res[VMFS_RES_FDC];
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, address, &addr);
	if (addr.type != VMFS_ADDR_FD || addr.item >= fdc->header.per_cluster)
		return false;
	*out = (uint64_t)addr.cluster * fdc->header.per_cluster + addr.item;
	return *out < fdc->item_count;
}

uint32_t fsck_address_of(const struct vmfs *fs, uint64_t index)
{
	uint32_t per_cluster = fs->res[VMFS_RES_FDC].header.per_cluster;

	return vmfs_fd_address((uint32_t)(index / per_cluster), (uint32_t)(index % per_cluster));
}

const char *fsck_system_name(const struct vmfs *fs, uint64_t index)
{
	static const char *const names[] = {
		[VMFS_FD_ROOT] = ".", [VMFS_FD_FBB] = ".fbb.sf", [VMFS_FD_FDC] = ".fdc.sf",
		[VMFS_FD_PBC] = ".pbc.sf", [VMFS_FD_SBC] = ".sbc.sf", [VMFS_FD_VH] = ".vh.sf",
		[VMFS_FD_PB2] = ".pb2.sf", [VMFS_FD_SDD] = ".sdd.sf",
	};

	/* VMFS3 has fewer of them, and which is not known well. */
	return fs->geometry->version == 5 && index < ARRAY_COUNT(names) ? names[index] : NULL;
}

bool fsck_name_fits(const struct vmfs *fs, bool in_root, const char *name, uint64_t index)
{
	const char *own = fsck_system_name(fs, index);

	if (own)
		return in_root && strcmp(name, own) == 0;
	for (uint64_t i = 0; in_root && (own = fsck_system_name(fs, i)); i++)
		if (strcmp(name, own) == 0)
			return false;
	return true;
}

static void enqueue(struct fsck *fsck, struct queue *queue, uint64_t index, uint32_t address,
		    uint32_t parent)
{
	fsck->fds[index].visited = true;
	queue->visits[queue->count++] = (struct visit){ address, parent };
}

/* ---- entries ---- */

static void see_dot(struct fsck *fsck, const struct visit *visit, const struct vmfs_entry *entry,
		    uint32_t expected)
{
	if (entry->address != expected)
		fsck_found(fsck, VMFS_FOUND_DOTS, "folder %#x: '%s' names %#x, not %#x", visit->address,
			   entry->name, entry->address, expected);
}

static void see_entry(struct fsck *fsck, struct queue *queue, const struct visit *visit,
		      const struct vmfs_entry *entry)
{
	struct fsck_fd *fd;
	uint64_t index;

	if (strcmp(entry->name, ".") == 0) {
		see_dot(fsck, visit, entry, visit->address);
		return;
	}
	if (strcmp(entry->name, "..") == 0) {
		see_dot(fsck, visit, entry, visit->parent);
		return;
	}
	if (!fsck_index_of(fsck->fs, entry->address, &index) || !fsck->fds[index].type ||
	    fsck->fds[index].generation != entry->generation) {
		fsck_found(fsck, VMFS_FOUND_DANGLING, "folder %#x: '%.100s' names %#x, which is no file",
			   visit->address, entry->name, entry->address);
		return;
	}
	if (!fsck_name_fits(fsck->fs, visit->address == vmfs_fd_address(0, VMFS_FD_ROOT), entry->name,
			    index))
		fsck_found(fsck, VMFS_FOUND_ENTRY,
			   "folder %#x: '%.100s' names %#x: a system file under a name not its own",
			   visit->address, entry->name, entry->address);
	fd = &fsck->fds[index];
	if (fd->type != entry->type)
		fsck_found(fsck, VMFS_FOUND_ENTRY, "folder %#x: '%.100s' is of type %u, not %u",
			   visit->address, entry->name, fd->type, entry->type);
	fd->names++;
	if (!fd->is_dir)
		return;
	if (fd->visited)
		fsck_found(fsck, VMFS_FOUND_ENTRY, "folder %#x: '%.100s' has another name elsewhere",
			   visit->address, entry->name);
	else
		enqueue(fsck, queue, index, entry->address, visit->address);
}

static int by_hash(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

struct scan {
	uint64_t *hashes;               /* of the names: two alike are one name twice */
	uint64_t names;
	bool dot, dotdot;
};

static int scan_entries(struct fsck *fsck, struct queue *queue, const struct visit *visit,
			struct vmfs_node *dir, struct scan *scan)
{
	uint64_t records = dir->fd.length / VMFS_DIRENT5_BYTES, cursor = 0;
	struct vmfs_entry entry;

	for (;;) {
		uint64_t before = cursor;
		int rc = vmfs_dir_next(dir, &cursor, &entry);

		if (rc == -ENODATA)
			break;
		if (rc) {
			rc = fsck_take(fsck, VMFS_FOUND_ENTRY, rc);
			if (rc || cursor == before)
				return rc;      /* not to be read on */
			continue;
		}
		if (scan->names < records)
			scan->hashes[scan->names++] = vmfs_dir6_hash(entry.name, strlen(entry.name));
		scan->dot |= strcmp(entry.name, ".") == 0;
		scan->dotdot |= strcmp(entry.name, "..") == 0;
		see_entry(fsck, queue, visit, &entry);
	}
	if (scan->names < records)
		fsck_found(fsck, VMFS_FOUND_ENTRY, "folder %#x has %llu void records", visit->address,
			   (unsigned long long)(records - scan->names));
	return 0;
}

static int see_dir(struct fsck *fsck, struct queue *queue, const struct visit *visit)
{
	struct vmfs_node *dir;
	struct scan scan = { 0 };
	int rc = vmfs_node_find(fsck->fs, visit->address, &dir);

	if (rc)
		return fsck_take(fsck, VMFS_FOUND_DESCRIPTOR, rc);
	if (dir->fd.length > VMFS_DIR_BYTES_MAX) {
		fsck_found(fsck, VMFS_FOUND_ENTRY, "folder %#x is %llu bytes long", visit->address,
			   (unsigned long long)dir->fd.length);
		return vmfs_node_drop(dir);
	}
	scan.hashes = calloc(dir->fd.length / VMFS_DIRENT5_BYTES + 1, sizeof(uint64_t));
	if (!scan.hashes) {
		(void)vmfs_node_drop(dir);      /* the check changes nothing: it keeps its name */
		return -ENOMEM;
	}
	rc = scan_entries(fsck, queue, visit, dir, &scan);
	qsort(scan.hashes, scan.names, sizeof(scan.hashes[0]), by_hash);
	for (uint64_t i = 1; i < scan.names; i++)
		if (scan.hashes[i] == scan.hashes[i - 1])
			fsck_found(fsck, VMFS_FOUND_ENTRY, "folder %#x has a name twice", visit->address);
	if (!rc && (!scan.dot || !scan.dotdot))
		fsck_found(fsck, VMFS_FOUND_DOTS, "folder %#x has no '%s'", visit->address,
			   scan.dot ? ".." : ".");
	free(scan.hashes);
	(void)vmfs_node_drop(dir);
	return rc;
}

int fsck_tree(struct fsck *fsck)
{
	uint32_t root = vmfs_fd_address(0, VMFS_FD_ROOT);
	struct queue queue = { 0 };
	int rc = 0;

	queue.visits = calloc(fsck->fs->res[VMFS_RES_FDC].item_count + 1, sizeof(queue.visits[0]));
	if (!queue.visits)
		return -ENOMEM;
	if (fsck->fds[0].type) {
		fsck->fds[0].names++;
		enqueue(fsck, &queue, 0, root, root);
	}
	while (queue.done < queue.count && !rc)
		rc = see_dir(fsck, &queue, &queue.visits[queue.done++]);
	/* Each folder inside another adds a link to that one. */
	for (uint64_t i = 1; i < queue.count; i++) {
		uint64_t parent;

		if (fsck_index_of(fsck->fs, queue.visits[i].parent, &parent))
			fsck->fds[parent].names++;
	}
	free(queue.visits);
	return rc;
}

/* ---- link counts ---- */

int fsck_links(struct fsck *fsck)
{
	const struct vmfs_res *fdc = &fsck->fs->res[VMFS_RES_FDC];

	for (uint64_t i = 0; i < fdc->item_count; i++) {
		const struct fsck_fd *fd = &fsck->fds[i];
		uint32_t address = fsck_address_of(fsck->fs, i);
		/* A folder: its own name, its ".", and a ".." in each folder inside. */
		uint32_t expected = fd->names + (fd->is_dir ? 1 : 0);

		if (!fd->type)
			continue;
		if (fd->names == 0 || (fd->is_dir && !fd->visited)) {
			fsck_found(fsck, VMFS_FOUND_ORPHAN, "descriptor %#x has no name", address);
			continue;
		}
		if (fd->link_count != expected)
			fsck_found(fsck, VMFS_FOUND_LINKS, "descriptor %#x counts %u links, and has %u",
				   address, fd->link_count, expected);
		fsck->result.folders += fd->is_dir;
		fsck->result.links += fd->type == VMFS_TYPE_SYMLINK;
		fsck->result.files += !fd->is_dir && fd->type != VMFS_TYPE_SYMLINK;
	}
	return 0;
}
