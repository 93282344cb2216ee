/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_layout.c - which kind of pointers a descriptor has, and its change as a file grows:
 * resident -> sub-blocks -> file blocks -> pointer blocks -> double pointer blocks.
 *
 * While nothing is allocated the kind is one sector's business and free to choose.  Afterwards
 * a change touches the metadata and the pointers, two sectors, in one transaction.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

bool vmfs_node_has_pointers(const struct vmfs_node *node)
{
	if (node->fd.zla == VMFS_ZLA_RESIDENT)
		return false;
	for (uint32_t i = 0; i < node->fs->geometry->pointer_count; i++)
		if (vmfs_node_pointer(node, i))
			return true;
	return false;
}

void vmfs_fd_count_blocks(struct vmfs_fd *fd, int64_t delta)
{
	fd->block_count += (uint64_t)delta;
	/* Equal in the files that we have seen; what else it may mean is not known [?]. */
	fd->new_since_epoch += (uint32_t)delta;
}

static void clear_pointers(struct vmfs_node *node)
{
	const struct vmfs_geometry *geometry = node->fs->geometry;

	memset(node->raw + geometry->pointer_offset, 0,
	       (size_t)geometry->pointer_count * geometry->pointer_bytes);
}

static void set_kind(struct vmfs_node *node, enum vmfs_zla zla)
{
	const struct vmfs_info *info = &node->fs->info;

	node->fd.zla = zla;
	node->fd.block_bytes = zla == VMFS_ZLA_SB || zla == VMFS_ZLA_RESIDENT ?
				       info->sub_block_bytes : info->file_block_bytes;
	node->fd.block_shift = (uint8_t)__builtin_ctzll(node->fd.block_bytes);
}

/* How long a file may be and live in sub-blocks: one of them; folders fill their pointers. */
static uint64_t sub_block_limit(const struct vmfs_node *node)
{
	uint64_t sub = node->fs->info.sub_block_bytes;

	return vmfs_node_is_dir(node) ? sub * node->fs->geometry->pointer_count : sub;
}

static enum vmfs_zla choose(const struct vmfs_node *node, uint64_t length, bool whole_blocks)
{
	const struct vmfs *fs = node->fs;
	uint64_t block = fs->info.file_block_bytes;

	if (!whole_blocks && length <= sub_block_limit(node))
		return VMFS_ZLA_SB;
	if (length <= vmfs_map_reach(fs, VMFS_ZLA_FB) * block)
		return VMFS_ZLA_FB;
	if (length <= vmfs_map_reach(fs, VMFS_ZLA_PB) * block)
		return VMFS_ZLA_PB;
	return VMFS_ZLA_DOUBLE;
}

/* ---- moving the contents to new blocks ---- */

static int take_words(struct vmfs_node *node, enum vmfs_res_kind kind, uint64_t *words,
		      uint32_t count)
{
	struct vmfs *fs = node->fs;
	uint32_t got, taken = 0;
	struct vmfs_addr addr = { 0 };

	while (taken < count) {
		int rc = vmfs_res_take(&fs->res[kind], count - taken, &addr, &got, NULL);

		if (rc) {
			if (!fs->failed)
				(void)vmfs_give_words(fs, words, taken);
			return rc;
		}
		for (uint32_t i = 0; i < got; i++) {
			words[taken++] = vmfs_addr_encode(&fs->addr, &addr);
			if (kind == VMFS_RES_FBB)
				addr.block++;
			else
				addr.item++;
		}
	}
	return 0;
}

static int place_of(struct vmfs *fs, uint64_t word, uint64_t *place_out)
{
	struct vmfs_addr addr;
	uint64_t room;

	vmfs_addr_decode(&fs->addr, word, &addr);
	if (addr.type == VMFS_ADDR_FB) {
		*place_out = addr.block * fs->info.file_block_bytes;
		return 0;
	}
	return vmfs_res_locate(&fs->res[VMFS_RES_SBC], addr.cluster, addr.item, place_out, &room);
}

/* Everything that the file holds into new blocks of `unit` bytes, zeroes behind the end. */
static int copy_out(struct vmfs_node *node, const uint64_t *words, uint32_t count, uint64_t unit)
{
	struct vmfs *fs = node->fs;
	CLEANUP_FREE uint8_t *block = malloc((size_t)unit);

	if (!block)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t at = i * unit, place;
		size_t used = (size_t)MIN(unit, node->fd.length - MIN(node->fd.length, at));
		int rc = vmfs_file_read(node, at, block, used);

		if (rc)
			return rc;
		memset(block + used, 0, (size_t)unit - used);
		rc = place_of(fs, words[i], &place);
		if (!rc)
			rc = vmfs_volume_write_data(fs, place, block, (size_t)unit);
		if (rc)
			return rc;
	}
	return 0;
}

/* Resident data or sub-blocks become sub-blocks or file blocks. */
static int move_contents(struct vmfs_node *node, enum vmfs_zla zla)
{
	struct vmfs *fs = node->fs;
	bool to_sub_block = zla == VMFS_ZLA_SB;
	uint64_t unit = to_sub_block ? fs->info.sub_block_bytes : fs->info.file_block_bytes;
	uint32_t count = (uint32_t)div_round_up(node->fd.length, unit), old_count = 0;
	uint64_t words[VMFS_WINDOW_WORDS], old[VMFS_WINDOW_WORDS] = { 0 };
	int rc;

	CHECK(count <= fs->geometry->pointer_count);
	if (node->fd.zla == VMFS_ZLA_SB)
		for (uint32_t i = 0; i < fs->geometry->pointer_count; i++)
			if (vmfs_node_pointer(node, i))
				old[old_count++] = vmfs_node_pointer(node, i);
	rc = take_words(node, to_sub_block ? VMFS_RES_SBC : VMFS_RES_FBB, words, count);
	if (rc)
		return rc;
	rc = copy_out(node, words, count, unit);
	if (rc) {
		if (!fs->failed)
			(void)vmfs_give_words(fs, words, count);
		return rc;
	}
	clear_pointers(node);
	set_kind(node, zla);
	for (uint32_t i = 0; i < count; i++)
		vmfs_node_set_pointer(node, i, words[i]);
	vmfs_fd_count_blocks(&node->fd, (int64_t)count - old_count);
	rc = vmfs_node_store(node);
	return rc ? rc : vmfs_give_words(fs, old, old_count);
}

/* The descriptor's pointers move into one pointer block, which it then points at. */
static int push_down(struct vmfs_node *node, enum vmfs_zla zla)
{
	struct vmfs *fs = node->fs;
	enum vmfs_res_kind kind = zla == VMFS_ZLA_DOUBLE ? VMFS_RES_PB2 : VMFS_RES_PBC;
	uint8_t table[VMFS_WINDOW_WORDS * 4] = { 0 };
	struct vmfs_addr addr = { 0 };
	uint64_t place, room, word;
	uint32_t got;
	int rc;

	if (!fs->res[kind].node)
		return -EFBIG;
	rc = vmfs_res_take(&fs->res[kind], 1, &addr, &got, NULL);
	if (rc)
		return rc;
	word = vmfs_addr_encode(&fs->addr, &addr);
	for (uint32_t i = 0; i < fs->geometry->pointer_count; i++)
		vmfs_table_set_word(fs, table, i, vmfs_node_pointer(node, i));
	rc = vmfs_res_locate(&fs->res[kind], addr.cluster, addr.item, &place, &room);
	if (!rc) {
		vmfs_table_forget(fs, place);
		rc = vmfs_volume_write_data(fs, place, table, sizeof(table));
	}
	if (rc) {
		if (!fs->failed)
			(void)vmfs_give_words(fs, &word, 1);
		return rc;
	}
	clear_pointers(node);
	vmfs_node_set_pointer(node, 0, word);
	set_kind(node, zla);
	node->fd.pointer_block_count++;
	return vmfs_node_store(node);
}

/* ---- the decision ---- */

static int grow_once(struct vmfs_node *node, enum vmfs_zla wanted)
{
	switch (node->fd.zla) {
	case VMFS_ZLA_RESIDENT:
		return move_contents(node, wanted == VMFS_ZLA_SB ? VMFS_ZLA_SB : VMFS_ZLA_FB);
	case VMFS_ZLA_SB:
		return move_contents(node, VMFS_ZLA_FB);
	case VMFS_ZLA_FB:
		return push_down(node, VMFS_ZLA_PB);
	case VMFS_ZLA_PB:
		return push_down(node, VMFS_ZLA_DOUBLE);
	default:
		return -EFBIG;
	}
}

static unsigned order_of(uint32_t zla)
{
	switch (zla) {
	case VMFS_ZLA_RESIDENT:
		return 0;
	case VMFS_ZLA_SB:
		return 1;
	case VMFS_ZLA_FB:
		return 2;
	case VMFS_ZLA_PB:
	case VMFS_ZLA_PB2:
		return 3;
	default:
		return 4;
	}
}

int vmfs_layout_prepare(struct vmfs_node *node, uint64_t length, bool whole_blocks)
{
	struct vmfs *fs = node->fs;
	enum vmfs_zla wanted = choose(node, length, whole_blocks);
	uint64_t reach;

	if (!u64_mul(vmfs_map_reach(fs, wanted), fs->info.file_block_bytes, &reach) || length > reach)
		return -EFBIG;
	/* What is in the descriptor may stay there while it fits. */
	if (node->fd.zla == VMFS_ZLA_RESIDENT && node->fd.length > 0 && !whole_blocks &&
	    length <= fs->geometry->resident_max)
		return 0;
	if (!vmfs_node_has_pointers(node) &&
	    (node->fd.zla != VMFS_ZLA_RESIDENT || node->fd.length == 0)) {
		if (order_of(node->fd.zla) < order_of(wanted) || node->fd.length == 0) {
			clear_pointers(node);
			set_kind(node, wanted);
		}
		return 0;
	}
	while (order_of(node->fd.zla) < order_of(wanted)) {
		int rc;

		vmfs_txn_begin(fs);
		rc = vmfs_txn_end(fs, grow_once(node, wanted));

		if (rc)
			return rc;
	}
	return 0;
}
