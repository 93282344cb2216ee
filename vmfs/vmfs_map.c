/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_map.c - from a place in a file to a place in the volume.
 *
 *     descriptor            pointer block (.pbc.sf)         data
 *     +---------+           +-------+
 *     | ptr 0   |---------->| ptr 0 |---------------------> file block
 *     | ptr 1   | (hole)    | ptr 1 | (0: hole)
 *     | ...     |           | ...   |---------------------> file block, "to be zeroed"
 *     +---------+           +-------+
 *
 * VMFS_ZLA_FB and VMFS_ZLA_SB have no pointer blocks, VMFS_ZLA_DOUBLE has two levels.  Which
 * resource file holds a pointer block is told by the address's own type: .pbc.sf and .pb2.sf
 * in VMFS5, sub-blocks in VMFS6.  (Double indirect as real ESXi writes it was never seen [?]:
 * we follow whatever types the pointers have.)
 *
 * Resource files are files themselves and mapped the same way.  The recursion ends because a
 * node of rank r is mapped through files of rank below r only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define LARGE_BLOCK_BYTES (UINT64_C(512) << 20)

uint64_t vmfs_words_per_table(const struct vmfs *fs)
{
	return fs->geometry->pointer_block_bytes / fs->geometry->pointer_bytes;
}

unsigned vmfs_map_depth(uint32_t zla)
{
	switch (zla) {
	case VMFS_ZLA_PB:
	case VMFS_ZLA_PB2:
		return 1;
	case VMFS_ZLA_DOUBLE:
		return 2;
	default:
		return 0;
	}
}

uint64_t vmfs_map_reach(const struct vmfs *fs, uint32_t zla)
{
	uint64_t top = fs->geometry->pointer_count, per = vmfs_words_per_table(fs);

	switch (zla) {
	case VMFS_ZLA_FB:
	case VMFS_ZLA_SB:
		return top;
	case VMFS_ZLA_PB:
	case VMFS_ZLA_PB2:
		return top * per;
	case VMFS_ZLA_DOUBLE:
		return top * per * per;
	case VMFS_ZLA_RESIDENT:
		return 1;
	default:
		return 0;
	}
}

/* ---- pointer blocks ---- */

static int table_resource(struct vmfs_node *node, const struct vmfs_addr *addr, uint64_t word,
			  struct vmfs_res **out)
{
	struct vmfs *fs = node->fs;
	struct vmfs_res *res = NULL;

	if (addr->type == VMFS_ADDR_PB)
		res = &fs->res[VMFS_RES_PBC];
	else if (addr->type == VMFS_ADDR_PB2)
		res = &fs->res[VMFS_RES_PB2];
	else if (addr->type == VMFS_ADDR_SB && fs->addr.wide)
		res = &fs->res[VMFS_RES_SBC];
	if (!res || !res->node)
		return vmfs_damaged(fs, "descriptor %#x: %#llx is no pointer block", node->address,
				    (unsigned long long)word);
	if (res->node->rank >= node->rank)
		return vmfs_damaged(fs, "descriptor %#x is mapped through itself", node->address);
	*out = res;
	return 0;
}

/* The least recently used slot. */
static struct vmfs_table *table_slot(struct vmfs *fs)
{
	struct vmfs_table *oldest = &fs->tables[0];

	for (unsigned i = 1; i < VMFS_TABLE_CACHE; i++)
		if (fs->tables[i].stamp < oldest->stamp)
			oldest = &fs->tables[i];
	return oldest;
}

static int table_read(struct vmfs *fs, uint64_t offset, uint8_t **bytes_out)
{
	struct vmfs_table *table;
	int rc;

	for (unsigned i = 0; i < VMFS_TABLE_CACHE; i++) {
		table = &fs->tables[i];
		if (table->volume_offset == offset && table->bytes) {
			table->stamp = ++fs->table_stamp;
			*bytes_out = table->bytes;
			return 0;
		}
	}
	table = table_slot(fs);
	if (!table->bytes)
		table->bytes = malloc(fs->geometry->pointer_block_bytes);
	if (!table->bytes)
		return -ENOMEM;
	table->volume_offset = 0;
	rc = vmfs_volume_read(fs, offset, table->bytes, fs->geometry->pointer_block_bytes);
	if (rc)
		return rc;
	table->volume_offset = offset;
	table->stamp = ++fs->table_stamp;
	*bytes_out = table->bytes;
	return 0;
}

void vmfs_table_forget(struct vmfs *fs, uint64_t volume_offset)
{
	for (unsigned i = 0; i < VMFS_TABLE_CACHE; i++)
		if (fs->tables[i].volume_offset == volume_offset) {
			fs->tables[i].volume_offset = 0;
			fs->tables[i].stamp = 0;
		}
}

void vmfs_table_forget_all(struct vmfs *fs)
{
	for (unsigned i = 0; i < VMFS_TABLE_CACHE; i++) {
		fs->tables[i].volume_offset = 0;
		fs->tables[i].stamp = 0;
	}
}

int vmfs_table_get(struct vmfs_node *node, uint64_t word, uint8_t **bytes_out,
		   uint64_t *offset_out)
{
	struct vmfs *fs = node->fs;
	struct vmfs_res *res = NULL;
	struct vmfs_addr addr;
	uint64_t offset, room;
	int rc;

	vmfs_addr_decode(&fs->addr, word, &addr);
	rc = table_resource(node, &addr, word, &res);
	if (!rc)
		rc = vmfs_res_locate(res, addr.cluster, addr.item, &offset, &room);
	if (rc)
		return rc;
	if (room < fs->geometry->pointer_block_bytes)
		return vmfs_damaged(fs, "pointer block %#llx spans blocks", (unsigned long long)word);
	*offset_out = offset;
	return table_read(fs, offset, bytes_out);
}

/* ---- data blocks ---- */

static int bad_pointer(struct vmfs_node *node, uint64_t word)
{
	return vmfs_damaged(node->fs, "descriptor %#x points at %#llx, which is no block of its kind",
			    node->address, (unsigned long long)word);
}

static int place_of_file_block(struct vmfs_node *node, const struct vmfs_addr *addr, uint64_t word,
			       uint64_t *offset_out, uint64_t *len_out)
{
	struct vmfs *fs = node->fs;

	/* In VMFS6 the item field is wider than the 512 blocks that there are. */
	if (addr->block >= fs->file_block_count ||
	    (fs->addr.wide && word >> 51 >= VMFS_SMALL_PER_LARGE))
		return bad_pointer(node, word);
	*offset_out = addr->block * fs->info.file_block_bytes;
	*len_out = fs->info.file_block_bytes;
	return 0;
}

/* Each file block inside a large block repeats the large block's address. */
static int place_in_large_block(struct vmfs_node *node, const struct vmfs_addr *addr,
				uint64_t word, uint64_t block, uint64_t *offset_out,
				uint64_t *len_out)
{
	struct vmfs *fs = node->fs;
	uint64_t inside = block * fs->info.file_block_bytes % LARGE_BLOCK_BYTES;

	if (addr->block >= div_round_up(fs->lv.size_bytes, LARGE_BLOCK_BYTES))
		return bad_pointer(node, word);
	*offset_out = addr->block * LARGE_BLOCK_BYTES + inside;
	*len_out = fs->info.file_block_bytes;
	return vmfs_lv_holds(&fs->lv, *offset_out, *len_out) ? 0 : bad_pointer(node, word);
}

int vmfs_map_place(struct vmfs_node *node, uint64_t word, uint64_t block, uint64_t *offset_out,
		   uint64_t *len_out)
{
	struct vmfs *fs = node->fs;
	struct vmfs_res *sbc = &fs->res[VMFS_RES_SBC];
	bool sub_blocks = node->fd.zla == VMFS_ZLA_SB;
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	if (addr.type == VMFS_ADDR_FB && !sub_blocks)
		return place_of_file_block(node, &addr, word, offset_out, len_out);
	if (addr.type == VMFS_ADDR_LFB && fs->addr.wide && !sub_blocks)
		return place_in_large_block(node, &addr, word, block, offset_out, len_out);
	if (addr.type == VMFS_ADDR_SB && sub_blocks && sbc->node && sbc->node->rank < node->rank)
		return vmfs_res_locate(sbc, addr.cluster, addr.item, offset_out, len_out);
	return bad_pointer(node, word);
}

/* ---- the words for a block ---- */

static void leaf_hole(struct vmfs_leaf *leaf, uint64_t block, uint64_t span)
{
	*leaf = (struct vmfs_leaf){ .count = span - block % span };
}

int vmfs_map_leaf(struct vmfs_node *node, uint64_t block, struct vmfs_leaf *out)
{
	struct vmfs *fs = node->fs;
	uint64_t per = vmfs_words_per_table(fs), place, word;
	unsigned depth = vmfs_map_depth(node->fd.zla);
	uint8_t *table;
	int rc;

	if (block >= vmfs_map_reach(fs, node->fd.zla))
		return vmfs_damaged(fs, "descriptor %#x has no pointer for block %llu", node->address,
				    (unsigned long long)block);
	if (depth == 0) {
		*out = (struct vmfs_leaf){
			.table = node->raw + fs->geometry->pointer_offset,
			.index = block,
			.count = fs->geometry->pointer_count,
		};
		return 0;
	}
	if (depth == 2) {
		word = vmfs_node_pointer(node, (uint32_t)(block / (per * per)));
		if (word == 0) {
			leaf_hole(out, block, per * per);
			return 0;
		}
		rc = vmfs_table_get(node, word, &table, &place);
		if (rc)
			return rc;
		word = vmfs_table_word(fs, table, block / per % per);
	} else {
		word = vmfs_node_pointer(node, (uint32_t)(block / per));
	}
	if (word == 0) {
		leaf_hole(out, block, per);
		return 0;
	}
	rc = vmfs_table_get(node, word, &table, &place);
	if (!rc)
		*out = (struct vmfs_leaf){ .table = table, .index = block % per, .count = per };
	return rc;
}

/* ---- runs ---- */

/* What one word says: kind, and for a block its place. */
static int word_run(struct vmfs_node *node, uint64_t word, uint64_t block, struct vmfs_run *out)
{
	struct vmfs_addr addr;
	uint64_t room;
	int rc;

	*out = (struct vmfs_run){ .kind = VMFS_RUN_HOLE, .len_bytes = node->fd.block_bytes };
	if (word == 0)
		return 0;
	rc = vmfs_map_place(node, word, block, &out->volume_offset_bytes, &room);
	if (rc)
		return rc;
	vmfs_addr_decode(&node->fs->addr, word, &addr);
	out->kind = addr.tbz ? VMFS_RUN_ZERO : VMFS_RUN_DATA;
	/* A sub-block of VMFS3 may span two blocks of .sbc.sf. */
	out->len_bytes = MIN(room, node->fd.block_bytes);
	return 0;
}

static bool goes_on(const struct vmfs_run *run, const struct vmfs_run *next)
{
	return run->kind == next->kind &&
	       (run->kind == VMFS_RUN_HOLE ||
		run->volume_offset_bytes + run->len_bytes == next->volume_offset_bytes);
}

/* As many words of one table as go on where the run ends, up to `wanted` bytes. */
static int extend(struct vmfs_node *node, const struct vmfs_leaf *leaf, uint64_t block,
		  uint64_t wanted, struct vmfs_run *run)
{
	uint64_t block_bytes = node->fd.block_bytes;

	for (uint64_t i = leaf->index + 1; i < leaf->count && run->len_bytes < wanted &&
					   run->len_bytes % block_bytes == 0; i++) {
		struct vmfs_run next;
		int rc = word_run(node, vmfs_table_word(node->fs, leaf->table, i),
				  block + i - leaf->index, &next);

		if (rc)
			return rc;
		if (!goes_on(run, &next))
			break;
		run->len_bytes += next.len_bytes;
	}
	return 0;
}

static int sub_block_tail(struct vmfs_node *node, uint64_t word, uint64_t inside,
			  struct vmfs_run *run);

static int find_mapped(struct vmfs_node *node, uint64_t offset, uint64_t len,
		       struct vmfs_run *out)
{
	uint64_t block_bytes = node->fd.block_bytes;
	uint64_t block = offset / block_bytes, inside = offset % block_bytes;
	struct vmfs_leaf leaf;
	int rc = vmfs_map_leaf(node, block, &leaf);

	if (rc)
		return rc;
	if (!leaf.table) {
		*out = (struct vmfs_run){ .kind = VMFS_RUN_HOLE,
					  .len_bytes = leaf.count * block_bytes - inside };
		return 0;
	}
	rc = word_run(node, vmfs_table_word(node->fs, leaf.table, leaf.index), block, out);
	if (!rc && out->len_bytes <= inside)
		return sub_block_tail(node, vmfs_table_word(node->fs, leaf.table, leaf.index),
				      inside, out);
	if (!rc)
		rc = extend(node, &leaf, block, inside + len, out);
	if (rc)
		return rc;
	if (out->kind != VMFS_RUN_HOLE)
		out->volume_offset_bytes += inside;
	out->len_bytes -= inside;
	return 0;
}

/* The part of a VMFS3 sub-block behind the place where .sbc.sf goes on in another block. */
static int sub_block_tail(struct vmfs_node *node, uint64_t word, uint64_t inside,
			  struct vmfs_run *run)
{
	struct vmfs_res *sbc = &node->fs->res[VMFS_RES_SBC];
	struct vmfs_addr addr;
	uint64_t at;
	int rc;

	vmfs_addr_decode(&node->fs->addr, word, &addr);
	rc = vmfs_res_item_offset(sbc, addr.cluster, addr.item, &at);
	if (!rc)
		rc = vmfs_map_find(sbc->node, at + inside, node->fd.block_bytes - inside, run);
	if (!rc && run->kind != VMFS_RUN_DATA)
		rc = vmfs_damaged(node->fs, "a sub-block lies in a hole of .sbc.sf");
	return rc;
}

int vmfs_map_find(struct vmfs_node *node, uint64_t offset, uint64_t len, struct vmfs_run *out)
{
	int rc;

	if (node->fd.type == VMFS_TYPE_RDM)
		return vmfs_fail(node->fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "it is the map of a raw device, its data are elsewhere");
	CHECK(len > 0);
	if (node->fd.zla == VMFS_ZLA_RESIDENT) {
		CHECK(offset < node->fs->geometry->resident_max);
		*out = (struct vmfs_run){ .kind = VMFS_RUN_RESIDENT,
					  .len_bytes = node->fs->geometry->resident_max - offset };
		rc = 0;
	} else {
		rc = find_mapped(node, offset, len, out);
	}
	if (rc)
		return rc;
	out->file_offset_bytes = offset;
	out->len_bytes = MIN(out->len_bytes, len);
	return 0;
}
