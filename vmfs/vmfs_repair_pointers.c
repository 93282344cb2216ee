/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_repair_pointers.c - every pointer names something, and something of its own.
 *
 * Three ways to walk a descriptor's pointers, in the order of the descriptors' numbers, so that
 * who comes first is the same in all of them:
 *   JUDGE  a resource file: whatever is wrong is too much
 *   CLAIM  what names nothing becomes a hole; what is claimed already is noted
 *   COPY   what is claimed already is copied
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_repair_private.h"

enum way { JUDGE, CLAIM, COPY };

struct walk {
	struct repair *repair;
	struct vmfs_node *node;
	enum way way;
	bool shares;                    /* CLAIM: something is another's */
	bool changed;
	uint64_t blocks, tbz, tables;
};

/* ---- one word ---- */

static struct vmfs_res *res_of(struct vmfs *fs, const struct vmfs_addr *addr)
{
	switch (addr->type) {
	case VMFS_ADDR_FB:
		return &fs->res[VMFS_RES_FBB];
	case VMFS_ADDR_SB:
		return &fs->res[VMFS_RES_SBC];
	case VMFS_ADDR_PB:
		return &fs->res[VMFS_RES_PBC];
	case VMFS_ADDR_PB2:
		return &fs->res[VMFS_RES_PB2];
	default:
		return NULL;
	}
}

/* NULL: the word names no item. */
static struct vmfs_res *item_of(struct vmfs *fs, uint64_t word, struct vmfs_addr *addr,
				uint64_t *index_out)
{
	struct vmfs_res *res;

	vmfs_addr_decode(&fs->addr, word, addr);
	res = res_of(fs, addr);
	if (!res || !res->node || (addr->type != VMFS_ADDR_FB && addr->item >= res->header.per_cluster))
		return NULL;
	*index_out = addr->type == VMFS_ADDR_FB ?
			     addr->block : (uint64_t)addr->cluster * res->header.per_cluster + addr->item;
	return *index_out < res->item_count ? res : NULL;
}

static bool is_table(const struct vmfs_addr *addr)
{
	return addr->type == VMFS_ADDR_PB || addr->type == VMFS_ADDR_PB2;
}

static bool fits(const struct walk *walk, const struct vmfs_addr *addr, bool table)
{
	if (table)
		return is_table(addr);
	return addr->type == (walk->node->fd.zla == VMFS_ZLA_SB ? VMFS_ADDR_SB : VMFS_ADDR_FB);
}

static int make_hole(struct walk *walk, uint64_t *word, const char *why)
{
	if (walk->way == JUDGE)
		return vmfs_damaged(walk->repair->fs, "system file %#x: pointer %#llx: %s; that "
				    "cannot be repaired", walk->node->address,
				    (unsigned long long)*word, why);
	repair_mended(walk->repair, "descriptor %#x: pointer %#llx is a hole now: %s",
		      walk->node->address, (unsigned long long)*word, why);
	*word = 0;
	walk->changed = true;
	return 0;
}

static int copy_bytes(struct vmfs *fs, uint64_t from, uint64_t to, size_t len)
{
	CLEANUP_FREE uint8_t *bytes = malloc(len);
	int rc = bytes ? vmfs_volume_read(fs, from, bytes, len) : -ENOMEM;

	return rc ? rc : vmfs_volume_write(fs, to, bytes, len);
}

static int place_of(struct vmfs *fs, struct vmfs_res *res, const struct vmfs_addr *addr,
		    uint64_t *place_out, size_t *len_out)
{
	uint64_t room;

	if (addr->type == VMFS_ADDR_FB) {
		*len_out = (size_t)fs->info.file_block_bytes;
		*place_out = addr->block * *len_out;
		return vmfs_lv_holds(&fs->lv, *place_out, *len_out) ? 0 :
			vmfs_damaged(fs, "block %llu is outside", (unsigned long long)addr->block);
	}
	*len_out = res->header.item_bytes;
	return vmfs_res_locate(res, addr->cluster, addr->item, place_out, &room);
}

/* An item of its own with the same contents. */
static int make_copy(struct walk *walk, uint64_t *word)
{
	struct vmfs *fs = walk->repair->fs;
	struct vmfs_addr old, fresh = { 0 };
	uint64_t index, from, to;
	uint32_t count;
	size_t len;
	struct vmfs_res *res = item_of(fs, *word, &old, &index);
	int rc = vmfs_res_take(res, 1, &fresh, &count, NULL);

	if (rc == -ENOSPC) {
		err_clear(&fs->err);
		return make_hole(walk, word, "it is another's, and there is no room for a copy");
	}
	if (!rc)
		rc = place_of(fs, res, &old, &from, &len);
	if (!rc)
		rc = place_of(fs, res, &fresh, &to, &len);
	if (!rc && !old.tbz)
		rc = copy_bytes(fs, from, to, len);
	if (rc)
		return rc;
	repair_mended(walk->repair, "descriptor %#x: %#llx is another's too: copied",
		      walk->node->address, (unsigned long long)*word);
	fresh.tbz = old.tbz;
	*word = vmfs_addr_encode(&fs->addr, &fresh);
	walk->changed = true;
	item_of(fs, *word, &fresh, &index);
	fsck_set(walk->repair->marks[res->kind], index);
	return 0;
}

/* Afterwards *word is 0, or an item of this descriptor's; *follow_out false: not to be followed. */
static int see_word(struct walk *walk, uint64_t *word, bool table, bool *follow_out)
{
	struct vmfs_addr addr;
	uint64_t index;
	struct vmfs_res *res = item_of(walk->repair->fs, *word, &addr, &index);

	*follow_out = false;
	if (!res || !fits(walk, &addr, table))
		return make_hole(walk, word, "it names nothing of its kind");
	if (!fsck_bit(walk->repair->marks[res->kind], index)) {
		fsck_set(walk->repair->marks[res->kind], index);
		*follow_out = true;
		return 0;
	}
	if (walk->way == JUDGE)
		return make_hole(walk, word, "it is another's too");
	if (walk->way == CLAIM) {
		walk->shares = true;
		return 0;
	}
	*follow_out = true;
	return make_copy(walk, word);
}

/* ---- tables ---- */

static int see_leaf_word(struct walk *walk, uint64_t *word)
{
	struct vmfs_addr addr;
	bool follow;
	int rc = see_word(walk, word, false, &follow);

	if (rc || !*word)
		return rc;
	vmfs_addr_decode(&walk->repair->fs->addr, *word, &addr);
	walk->blocks++;
	walk->tbz += addr.type == VMFS_ADDR_FB && addr.tbz;
	return 0;
}

static int see_table(struct walk *walk, uint64_t *word, unsigned depth);

static int see_words(struct walk *walk, uint8_t *table, unsigned depth, bool *changed_out)
{
	struct vmfs *fs = walk->repair->fs;
	int rc = 0;

	*changed_out = false;
	for (uint32_t i = 0; i < VMFS_WINDOW_WORDS && !rc; i++) {
		uint64_t word = vmfs_table_word(fs, table, i), before = word;

		if (!word)
			continue;
		rc = depth == 1 ? see_leaf_word(walk, &word) : see_table(walk, &word, depth - 1);
		if (word != before) {
			vmfs_table_set_word(fs, table, i, word);
			*changed_out = true;
		}
	}
	return rc;
}

static int see_table(struct walk *walk, uint64_t *word, unsigned depth)
{
	struct vmfs *fs = walk->repair->fs;
	uint8_t table[VMFS_WINDOW_WORDS * 4], *cached;
	bool follow, changed;
	uint64_t place;
	int rc = see_word(walk, word, true, &follow);

	if (rc || !*word || !follow)
		return rc;
	rc = vmfs_table_get(walk->node, *word, &cached, &place);
	if (rc == -EUCLEAN) {
		err_clear(&fs->err);
		return make_hole(walk, word, "it is no pointer block");
	}
	if (rc)
		return rc;
	walk->tables++;
	memcpy(table, cached, sizeof(table));
	rc = see_words(walk, table, depth, &changed);
	if (rc || !changed)
		return rc;
	vmfs_table_forget(fs, place);
	return vmfs_volume_write(fs, place, table, sizeof(table));
}

static int walk_node(struct walk *walk)
{
	struct vmfs_node *node = walk->node;
	unsigned depth = vmfs_map_depth(node->fd.zla);
	int rc = 0;

	if (node->fd.type == VMFS_TYPE_RDM || node->fd.zla == VMFS_ZLA_RESIDENT)
		return 0;
	for (uint32_t i = 0; i < node->fs->geometry->pointer_count && !rc; i++) {
		uint64_t word = vmfs_node_pointer(node, i), before = word;

		if (!word)
			continue;
		rc = depth == 0 ? see_leaf_word(walk, &word) : see_table(walk, &word, depth);
		if (word != before)
			vmfs_node_set_pointer(node, i, word);
	}
	return rc;
}

/* ---- descriptors ---- */

/* Their pointers are not looked at with the others': they are judged, or known. */
static bool is_resource_file(uint64_t index)
{
	return index == VMFS_FD_VH || index == VMFS_FD_FBB || index == VMFS_FD_FDC || index == VMFS_FD_PBC ||
	       index == VMFS_FD_SBC || index == VMFS_FD_PB2;
}

static void count_blocks(struct walk *walk)
{
	struct vmfs_fd *fd = &walk->node->fd;

	if (fd->block_count == walk->blocks && fd->tbz_count == (uint32_t)walk->tbz)
		return;
	repair_mended(walk->repair, "descriptor %#x: counts %llu blocks now, not %llu",
		      walk->node->address, (unsigned long long)walk->blocks,
		      (unsigned long long)fd->block_count);
	fd->block_count = walk->blocks;
	fd->new_since_epoch = (uint32_t)walk->blocks;
	fd->tbz_count = (uint32_t)walk->tbz;
	fd->tbz_count_high = (uint32_t)(walk->tbz >> 32);
	fd->pointer_block_count = (uint32_t)walk->tables;
	walk->changed = true;
}

static int finish(struct walk *walk)
{
	/* Behind a pointer block of another's nothing was counted: when it is copied. */
	if (!walk->shares && walk->node->fd.type != VMFS_TYPE_RDM &&
	    walk->node->fd.zla != VMFS_ZLA_RESIDENT)
		count_blocks(walk);
	return walk->changed ? vmfs_node_store(walk->node) : 0;
}

int repair_pointers(struct repair *repair, struct vmfs_node *node, uint64_t index)
{
	struct walk walk = { .repair = repair, .node = node, .way = CLAIM };
	int rc;

	if (is_resource_file(index))
		return 0;       /* judged, and claimed, before all others */
	rc = walk_node(&walk);
	if (walk.shares)
		fsck_set(repair->shares, index);
	return rc ? rc : finish(&walk);
}

static int judge_file(struct repair *repair, const struct vmfs_res *res, struct walk *walk)
{
	struct vmfs_node *node = res->node;
	int rc;

	*walk = (struct walk){ .repair = repair, .node = node, .way = JUDGE };
	rc = walk_node(walk);

	for (uint64_t at = 0; at < node->fd.length && !rc;) {
		struct vmfs_run run;

		rc = vmfs_map_find(node, at, node->fd.length - at, &run);
		if (!rc && run.kind != VMFS_RUN_DATA)
			rc = vmfs_damaged(repair->fs, "%s has a hole; that cannot be repaired",
					  vmfs_res_name(res->kind));
		at += run.len_bytes;
	}
	return rc;
}

static int no_repair(struct repair *repair, const struct vmfs_res *res, const char *what)
{
	return vmfs_damaged(repair->fs, "%s: %s; that cannot be repaired", vmfs_res_name(res->kind),
			    what);
}

/* Nothing of the file may lie across the blocks that hold it. */
static int judge_places(struct repair *repair, struct vmfs_res *res)
{
	uint64_t block = repair->fs->info.file_block_bytes, at;
	uint32_t header_bytes = repair->fs->geometry->cluster_header_bytes;
	uint32_t item_bytes = res->header.item_bytes;

	for (uint32_t i = 0; i < res->cluster_count; i++) {
		at = vmfs_res_header_offset(res, i);
		if (!range_fits(at, header_bytes, res->node->fd.length) ||
		    at % block + header_bytes > block)
			return no_repair(repair, res, "a cluster lies across its blocks");
	}
	for (uint64_t i = 0; i < res->item_count && item_bytes; i++) {
		int rc = vmfs_res_item_offset(res, (uint32_t)(i / res->header.per_cluster),
					      (uint32_t)(i % res->header.per_cluster), &at);

		if (rc)
			return rc;
		if (at % block + item_bytes > block)
			return no_repair(repair, res, "an item lies across its blocks");
	}
	return 0;
}

static bool lock_fits(const struct vmfs_res *res, const uint8_t *bytes, uint64_t place)
{
	struct vmfs_lock lock;

	vmfs_lock_decode(bytes, &lock);
	return lock.type == vmfs_res_lock_type(res->kind) && lock.volume_offset == place;
}

/* Is there one more cluster than the header tells?  Then the header is wrong. */
static int judge_end(struct repair *repair, struct vmfs_res *res)
{
	uint64_t at = vmfs_res_header_offset(res, res->cluster_count);
	uint8_t bytes[VMFS_LOCK_BYTES];
	struct vmfs_run run;
	int rc;

	if (res->kind == VMFS_RES_FBB && res->item_count != repair->fs->file_block_count)
		return no_repair(repair, res, "it does not tell of each block of the volume");
	if (!range_fits(at, sizeof(bytes), res->node->fd.length))
		return 0;
	rc = vmfs_map_find(res->node, at, sizeof(bytes), &run);
	if (!rc)
		rc = vmfs_file_read(res->node, at, bytes, sizeof(bytes));
	if (!rc && lock_fits(res, bytes, run.volume_offset_bytes))
		rc = no_repair(repair, res, "it holds more clusters than its header tells");
	return rc;
}

/*
 * A header with a wrong number in it would make sound clusters look damaged, and blocks in use
 * look like none: what follows would do harm.
 */
static int judge_clusters(struct repair *repair, struct vmfs_res *res)
{
	uint32_t bad = 0;

	if (res->cluster_count == 0)
		return no_repair(repair, res, "its header tells of no clusters");
	for (uint32_t i = 0; i < res->cluster_count; i++) {
		struct vmfs_cluster cluster = { 0 };
		int rc = vmfs_cluster_read(res, i, &cluster);

		if (rc && rc != -EUCLEAN)
			return rc;
		bad += rc != 0;
		err_clear(&repair->fs->err);
		if (rc && i == res->cluster_count - 1 &&
		    lock_fits(res, cluster.raw, cluster.volume_offset) &&
		    cluster.fields.number == i)
			return no_repair(repair, res, "its header and its last cluster disagree");
	}
	if (bad * UINT64_C(2) > res->cluster_count)
		return no_repair(repair, res, "most of its clusters are none");
	return judge_end(repair, res);
}

/* Nothing is written before all of them were judged. */
int repair_system(struct repair *repair)
{
	struct walk walks[VMFS_RES_COUNT] = { 0 };
	int rc = 0;

	for (unsigned i = 0; i < VMFS_RES_COUNT && !rc; i++) {
		struct vmfs_res *res = &repair->fs->res[i];

		if (!res->node)
			continue;
		rc = judge_file(repair, res, &walks[i]);
		if (!rc)
			rc = judge_places(repair, res);
		if (!rc)
			rc = judge_clusters(repair, res);
	}
	for (uint64_t block = 0; block < repair_header_blocks(repair->fs) && !rc; block++) {
		if (fsck_bit(repair->marks[VMFS_RES_FBB], block))
			rc = vmfs_damaged(repair->fs, "a system file is in block %llu, which is .vh.sf's; "
					  "that cannot be repaired", (unsigned long long)block);
		fsck_set(repair->marks[VMFS_RES_FBB], block);
	}
	for (unsigned i = 0; i < VMFS_RES_COUNT && !rc; i++)
		if (walks[i].node)
			rc = finish(&walks[i]);
	return rc;
}

static int copy_shared(struct repair *repair, uint64_t index)
{
	struct walk walk = { .repair = repair, .way = COPY };
	int rc = vmfs_node_find(repair->fs, fsck_address_of(repair->fs, index), &walk.node);

	if (rc)
		return rc;
	rc = walk_node(&walk);
	if (!rc)
		rc = finish(&walk);
	repair_drop(walk.node);
	return rc;
}

/* From the start, in the same order: so who was first before is first again. */
int repair_shared(struct repair *repair)
{
	struct vmfs *fs = repair->fs;
	uint64_t descriptors = fs->res[VMFS_RES_FDC].item_count;
	bool any = false;
	int rc = 0;

	for (uint64_t i = 0; i < descriptors; i++)
		any |= fsck_bit(repair->shares, i);
	if (!any)
		return 0;
	for (unsigned kind = 0; kind < VMFS_RES_COUNT; kind++)
		if (kind != VMFS_RES_FDC)
			memset(repair->marks[kind], 0, fs->res[kind].item_count / 8 + 1);
	rc = repair_system(repair);
	for (uint64_t i = 0; i < descriptors && !rc; i++)
		if (repair->fds[i].type && !is_resource_file(i))
			rc = copy_shared(repair, i);
	return rc;
}
