/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_names.c - giving names to files and taking them away (VMFS5). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define TREE_DEPTH_MAX 1024u
#define FRESH_LOCK_STAMP 1u

/* ---- judging ---- */

static int judge_name(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > VMFS_NAME_MAX || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return -ENAMETOOLONG;
	return 0;
}

static int judge_dir_change(struct vmfs_node *dir, const char *name)
{
	int rc = vmfs_may_write(dir->fs);

	if (rc)
		return rc;
	if (!vmfs_node_is_dir(dir))
		return -ENOTDIR;
	if (dir->fd.type == VMFS_TYPE_SYSTEM)
		return vmfs_fail(dir->fs, ERR_VMFS_KIND, -EPERM, "it is the file system's own folder");
	if (dir->unlinked)
		return -ENOENT;
	return judge_name(name);
}

static int judge_free_name(struct vmfs_node *dir, const char *name)
{
	struct vmfs_entry entry;
	int rc = judge_dir_change(dir, name);

	if (rc)
		return rc;
	rc = vmfs_dir_find(dir, name, &entry);
	if (rc == -ENOENT)
		return 0;
	return rc ? rc : vmfs_fail(dir->fs, ERR_VMFS_EXISTS, -EEXIST, "'%.150s' exists", name);
}

int vmfs_dir_is_empty(struct vmfs_node *dir)
{
	struct vmfs_entry entry;
	uint64_t cursor = 0;
	int rc;

	while ((rc = vmfs_dir_next(dir, &cursor, &entry)) == 0)
		if (strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0)
			return -ENOTEMPTY;
	return rc == -ENODATA ? 0 : rc;
}

/* ---- new descriptors ---- */

/*
 * A descriptor that was used before keeps its lock block (the token counts on); one that
 * never was gets a new one.
 */
static int prepare_lock(struct vmfs_node *node)
{
	struct vmfs *fs = node->fs;
	struct vmfs_lock lock;
	int rc = vmfs_volume_read(fs, node->volume_offset, node->raw, fs->geometry->fd_bytes);

	if (rc)
		return rc;
	vmfs_lock_decode(node->raw, &lock);
	if (lock.type == VMFS_LOCK_FD && lock.volume_offset == node->volume_offset) {
		if (lock.mode != VMFS_LOCK_MODE_FREE)
			return vmfs_fail(fs, ERR_VMFS_IN_USE, -EBUSY,
					 "free descriptor %#x is locked by a host", node->address);
	} else {
		memset(node->raw, 0, fs->geometry->lock_bytes);
		lock = (struct vmfs_lock){
			.type = VMFS_LOCK_FD,
			.volume_offset = node->volume_offset,
			.token = 1,
			.mtime = FRESH_LOCK_STAMP,
		};
		vmfs_lock_encode(&lock, node->raw);
	}
	memset(node->raw + fs->geometry->lock_bytes, 0,
	       fs->geometry->fd_bytes - fs->geometry->lock_bytes);
	return 0;
}

static void fill_fd(struct vmfs_node *node, enum vmfs_fd_type type, uint32_t generation,
		    const struct vmfs_attributes *attributes)
{
	uint32_t now_s = vmfs_now_s(node->fs);

	/* An empty file as ESXi makes it; the first write decides about its pointers. */
	node->fd = (struct vmfs_fd){
		.address = node->address,
		.generation = generation,
		.link_count = type == VMFS_TYPE_DIR ? 2 : 1,
		.type = type,
		.block_bytes = node->fs->info.sub_block_bytes,
		.mtime = now_s,
		.ctime = now_s,
		.atime = now_s,
		.uid = attributes->uid,
		.gid = attributes->gid,
		.mode = attributes->mode & 07777,
		.zla = VMFS_ZLA_RESIDENT,
		.affinity_fd = node->address,
		.tbz_shift = (uint8_t)__builtin_ctzll(node->fs->info.file_block_bytes),
		.block_shift = (uint8_t)__builtin_ctz(node->fs->info.sub_block_bytes),
	};
}

/* Takes a descriptor; nothing is written of it yet.  Gives a node with one reference. */
static int new_node(struct vmfs *fs, enum vmfs_fd_type type,
		    const struct vmfs_attributes *attributes, struct vmfs_node **out)
{
	struct vmfs_res *fdc = &fs->res[VMFS_RES_FDC];
	struct vmfs_node *node = calloc(1, sizeof(*node));
	struct vmfs_addr addr = { 0 };
	uint32_t count, generation = 0;
	uint64_t room;
	int rc;

	if (!node)
		return -ENOMEM;
	rc = vmfs_res_take(fdc, 1, &addr, &count, &generation);
	if (rc)
		goto free_node;
	node->fs = fs;
	node->address = vmfs_fd_address(addr.cluster, addr.item);
	node->rank = 4;
	node->refs = 1;
	rc = vmfs_res_locate(fdc, addr.cluster, addr.item, &node->volume_offset, &room);
	if (!rc)
		rc = prepare_lock(node);
	if (rc)
		goto give_fd;
	fill_fd(node, type, generation, attributes);
	list_prepend(&fs->nodes, &node->link);
	*out = node;
	return 0;

give_fd:
	if (!fs->failed)
		(void)vmfs_give_fd(fs, node->address);
free_node:
	free(node);
	return rc;
}

/* A new node that did not come to be: everything it took goes back. */
static void discard_new(struct vmfs_node *node)
{
	node->fd.link_count = 0;
	/* On the disk it may have a link count already, but no name: fsck's business if this
	 * fails; the caller has a failure to tell already. */
	if (!node->fs->failed && vmfs_node_store(node) == 0)
		node->unlinked = true;
	(void)vmfs_node_drop(node);
}

/* The whole descriptor, lock block included. */
static int store_new(struct vmfs_node *node)
{
	struct vmfs *fs = node->fs;
	int rc;

	vmfs_fd_encode(&node->fd, node->raw + fs->geometry->lock_bytes);
	rc = vmfs_volume_write(fs, node->volume_offset, node->raw, fs->geometry->fd_bytes);
	if (!rc)
		memcpy(node->stored, node->raw, sizeof(node->stored));
	return rc;
}

static int add_name(struct vmfs_node *dir, const char *name, const struct vmfs_node *node)
{
	struct vmfs_entry entry = {
		.type = (enum vmfs_fd_type)node->fd.type,
		.address = node->address,
		.generation = node->fd.generation,
	};

	strcpy(entry.name, name);
	return vmfs_dir5_append(dir, &entry);
}

/* ---- create, mkdir, symlink ---- */

static int fill_dir(struct vmfs_node *node, struct vmfs_node *parent)
{
	struct vmfs_entry dot = { .type = VMFS_TYPE_DIR, .address = node->address,
				  .generation = node->fd.generation, .name = "." };
	struct vmfs_entry dotdot = { .type = VMFS_TYPE_DIR, .address = parent->address,
				     .generation = parent->fd.generation, .name = ".." };
	int rc = vmfs_dir5_append(node, &dot);

	return rc ? rc : vmfs_dir5_append(node, &dotdot);
}

static int make(struct vmfs_node *dir, const char *name, struct vmfs_node *node,
		const char *target)
{
	int rc = store_new(node);

	if (!rc && node->fd.type == VMFS_TYPE_DIR)
		rc = fill_dir(node, dir);
	if (!rc && target)
		rc = vmfs_file_write(node, 0, (const uint8_t *)target, strlen(target));
	if (!rc && node->fd.type == VMFS_TYPE_DIR)
		dir->fd.link_count++;
	if (!rc) {
		rc = add_name(dir, name, node);
		if (rc && node->fd.type == VMFS_TYPE_DIR)
			dir->fd.link_count--;
	}
	return rc;
}

static int create_step(struct vmfs_node *dir, const char *name, enum vmfs_fd_type type,
		       const struct vmfs_attributes *attributes, const char *target,
		       struct vmfs_node **out)
{
	struct vmfs_node *node;
	int rc = judge_free_name(dir, name);

	if (!rc)
		rc = new_node(dir->fs, type, attributes, &node);
	if (rc)
		return rc;
	rc = make(dir, name, node, target);
	if (rc) {
		discard_new(node);
		return rc;
	}
	*out = node;
	return 0;
}

static int create(struct vmfs_node *dir, const char *name, enum vmfs_fd_type type,
		  const struct vmfs_attributes *attributes, const char *target,
		  struct vmfs_node **out)
{
	int rc;

	vmfs_txn_begin(dir->fs);
	rc = create_step(dir, name, type, attributes, target, out);
	if (rc)
		return vmfs_txn_end(dir->fs, rc);
	rc = vmfs_txn_end(dir->fs, 0);
	if (rc)
		(void)vmfs_node_drop(*out);     /* the volume has failed: nothing more is written */
	return rc;
}

int vmfs_create(struct vmfs_node *dir, const char *name, const struct vmfs_attributes *attributes,
		struct vmfs_node **out, struct err *err)
{
	struct vmfs_node *node;
	int rc;

	vmfs_begin(dir->fs);
	rc = create(dir, name, VMFS_TYPE_FILE, attributes, NULL, &node);
	if (!rc && out)
		*out = node;
	else if (!rc)
		rc = vmfs_node_drop(node);
	return vmfs_answer(dir->fs, rc, err);
}

int vmfs_mkdir(struct vmfs_node *dir, const char *name, const struct vmfs_attributes *attributes,
	       struct err *err)
{
	struct vmfs_node *node;
	int rc;

	vmfs_begin(dir->fs);
	rc = create(dir, name, VMFS_TYPE_DIR, attributes, NULL, &node);
	if (!rc)
		rc = vmfs_node_drop(node);
	return vmfs_answer(dir->fs, rc, err);
}

int vmfs_symlink(struct vmfs_node *dir, const char *name, const char *target, struct err *err)
{
	const struct vmfs_attributes attributes = { .mode = 0777 };
	struct vmfs_node *node;
	int rc;

	vmfs_begin(dir->fs);
	if (target[0] == '\0' || strlen(target) >= VMFS_LINK_MAX)
		rc = -ENAMETOOLONG;
	else
		rc = create(dir, name, VMFS_TYPE_SYMLINK, &attributes, target, &node);
	if (!rc)
		rc = vmfs_node_drop(node);
	return vmfs_answer(dir->fs, rc, err);
}

/* ---- unlink, rmdir ---- */

static int judge_removal(struct vmfs_node *node, bool want_dir)
{
	if (node->fd.type == VMFS_TYPE_SYSTEM)
		return vmfs_fail(node->fs, ERR_VMFS_KIND, -EPERM, "it is the file system's own file");
	if (!want_dir)
		return vmfs_node_is_dir(node) ? -EISDIR : 0;
	if (!vmfs_node_is_dir(node))
		return -ENOTDIR;
	return vmfs_dir_is_empty(node);
}

/* A name is gone: say so in the descriptor; after the last it is freed when it is closed. */
static int lose_name(struct vmfs_node *node)
{
	int rc;

	node->fd.link_count = vmfs_node_is_dir(node) ? 0 : node->fd.link_count - 1;
	node->fd.ctime = vmfs_now_s(node->fs);
	rc = vmfs_node_store(node);
	if (!rc && node->fd.link_count == 0)
		rc = vmfs_orphan_add(node->fs, node->address);
	if (!rc)
		node->unlinked = node->fd.link_count == 0;
	return rc;
}

static int remove_name(struct vmfs_node *dir, const char *name, bool want_dir)
{
	struct vmfs_node *node;
	struct vmfs_entry entry;
	int rc = judge_dir_change(dir, name), last;

	if (!rc)
		rc = vmfs_dir_lookup(dir, name, &node);
	if (rc)
		return rc;
	rc = judge_removal(node, want_dir);
	if (!rc)
		rc = vmfs_dir_find(dir, name, &entry);
	vmfs_txn_begin(dir->fs);
	if (!rc) {
		if (want_dir)
			dir->fd.link_count--;
		rc = vmfs_dir5_remove(dir, &entry);
		if (rc && want_dir)
			dir->fd.link_count++;
	}
	if (!rc)
		rc = lose_name(node);
	rc = vmfs_txn_end(dir->fs, rc);
	last = vmfs_node_drop(node);
	return rc ? rc : last;
}

int vmfs_unlink(struct vmfs_node *dir, const char *name, struct err *err)
{
	vmfs_begin(dir->fs);
	return vmfs_answer(dir->fs, remove_name(dir, name, false), err);
}

int vmfs_rmdir(struct vmfs_node *dir, const char *name, struct err *err)
{
	vmfs_begin(dir->fs);
	return vmfs_answer(dir->fs, remove_name(dir, name, true), err);
}

/* ---- rename ---- */

/* Is `dir` inside `tree`, or the same?  Then a move would cut the tree off. */
static int judge_no_cycle(struct vmfs_node *tree, struct vmfs_node *dir)
{
	struct vmfs_node *at = vmfs_node_ref(dir), *up;
	int rc = 0;

	for (unsigned depth = 0; at != tree->fs->root; depth++) {
		if (at == tree) {
			rc = vmfs_fail(tree->fs, ERR_VMFS_KIND, -EINVAL,
				       "a folder cannot be moved into itself");
			break;
		}
		if (depth == TREE_DEPTH_MAX) {
			rc = vmfs_damaged(tree->fs, "folder %#x does not lead up to the root",
					  dir->address);
			break;
		}
		rc = vmfs_dir_lookup(at, "..", &up);
		if (rc)
			break;
		(void)vmfs_node_drop(at);       /* it keeps its name */
		at = up;
	}
	(void)vmfs_node_drop(at);
	return rc;
}

static int point_up(struct vmfs_node *dir, struct vmfs_node *parent)
{
	struct vmfs_entry dotdot;
	int rc = vmfs_dir_find(dir, "..", &dotdot);

	return rc ? rc : vmfs_dir5_point(dir, &dotdot, parent->address, parent->fd.generation);
}

/* The new name stands for `node` from here on, whatever it stood for before. */
static int put_name(struct vmfs_node *dir, const char *name, struct vmfs_node *node,
		    struct vmfs_node *replaced)
{
	struct vmfs_entry entry;
	int rc;

	if (!replaced)
		return add_name(dir, name, node);
	rc = vmfs_dir_find(dir, name, &entry);
	if (rc)
		return rc;
	if (replaced->fd.type == node->fd.type)
		return vmfs_dir5_point(dir, &entry, node->address, node->fd.generation);
	rc = add_name(dir, name, node);
	return rc ? rc : vmfs_dir5_remove(dir, &entry);
}

static int judge_replacement(struct vmfs_node *node, struct vmfs_node *replaced)
{
	bool dir = vmfs_node_is_dir(node);

	if (node->fd.type == VMFS_TYPE_SYSTEM)
		return vmfs_fail(node->fs, ERR_VMFS_KIND, -EPERM, "it is the file system's own file");
	return replaced ? judge_removal(replaced, dir) : 0;
}

struct move {
	struct vmfs_node *from, *to, *node, *replaced;
	const char *from_name, *to_name;
};

static int move_names(struct move *move)
{
	bool dir = vmfs_node_is_dir(move->node), across = move->from != move->to;
	struct vmfs_entry old;
	int rc;

	if (dir && across && !move->replaced)
		move->to->fd.link_count++;      /* out with its length */
	rc = put_name(move->to, move->to_name, move->node, move->replaced);
	if (rc && dir && across && !move->replaced)
		move->to->fd.link_count--;
	if (!rc && dir && across)
		rc = point_up(move->node, move->to);
	if (!rc)
		rc = vmfs_dir_find(move->from, move->from_name, &old);
	if (rc)
		return rc;
	if (dir && (across || move->replaced))
		move->from->fd.link_count--;
	rc = vmfs_dir5_remove(move->from, &old);
	if (!rc && move->replaced)
		rc = lose_name(move->replaced);
	return rc;
}

static int rename_nodes(struct move *move)
{
	int rc = judge_replacement(move->node, move->replaced);

	if (!rc && vmfs_node_is_dir(move->node))
		rc = judge_no_cycle(move->node, move->to);
	if (rc || move->node == move->replaced)
		return rc;
	vmfs_txn_begin(move->node->fs);
	return vmfs_txn_end(move->node->fs, move_names(move));
}

static int rename_entry(struct move *move)
{
	int rc = judge_dir_change(move->from, move->from_name), last = 0;

	if (!rc)
		rc = judge_dir_change(move->to, move->to_name);
	if (!rc)
		rc = vmfs_dir_lookup(move->from, move->from_name, &move->node);
	if (rc)
		return rc;
	rc = vmfs_dir_lookup(move->to, move->to_name, &move->replaced);
	if (rc == -ENOENT)
		rc = 0;
	if (!rc)
		rc = rename_nodes(move);
	if (move->replaced)
		last = vmfs_node_drop(move->replaced);
	rc = rc ? rc : last;
	last = vmfs_node_drop(move->node);
	return rc ? rc : last;
}

int vmfs_rename(struct vmfs_node *from_dir, const char *from_name, struct vmfs_node *to_dir,
		const char *to_name, struct err *err)
{
	struct move move = { .from = from_dir, .to = to_dir, .from_name = from_name,
			     .to_name = to_name };

	CHECK(from_dir->fs == to_dir->fs);
	vmfs_begin(from_dir->fs);
	return vmfs_answer(from_dir->fs, rename_entry(&move), err);
}

/* ---- attributes ---- */

int vmfs_set_attributes(struct vmfs_node *node, const struct vmfs_attributes *attributes,
			struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = vmfs_may_write(node->fs);
	if (!rc) {
		/* Type bits stay: some files carry them. */
		node->fd.mode = (node->fd.mode & ~07777u) | (attributes->mode & 07777);
		node->fd.uid = attributes->uid;
		node->fd.gid = attributes->gid;
		node->fd.ctime = vmfs_now_s(node->fs);
		vmfs_txn_begin(node->fs);
		rc = vmfs_txn_end(node->fs, vmfs_node_store(node));
	}
	return vmfs_answer(node->fs, rc, err);
}

int vmfs_set_times(struct vmfs_node *node, uint32_t atime, uint32_t mtime, struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = vmfs_may_write(node->fs);
	if (!rc) {
		node->fd.atime = atime;
		node->fd.mtime = mtime;
		vmfs_txn_begin(node->fs);
		rc = vmfs_txn_end(node->fs, vmfs_node_store(node));
	}
	return vmfs_answer(node->fs, rc, err);
}
