/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_window.c - changing pointers, one leaf table at a time (VMFS5).
 *
 *   load      the words of the table that covers a block; no table: all holes
 *   (change words[])
 *   reserve   take the pointer blocks that are missing
 *   write_new pointer blocks nobody refers to yet
 *   publish   words of tables in use, and the descriptor
 *
 * All in one transaction.  To shrink, words become 0 and only publish runs; then the caller
 * gives back what vmfs_window_freed() tells.  A table that became empty goes with them.
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define WORDS_PER_SECTOR (VMFS_SECTOR_BYTES / 4u)

/* ---- loading ---- */

static int load_table(struct vmfs_window *window, uint64_t word, uint64_t *place_out)
{
	struct vmfs_node *node = window->node;
	uint8_t *table;
	int rc = vmfs_table_get(node, word, &table, place_out);

	for (uint32_t i = 0; i < window->count && !rc; i++)
		window->words[i] = vmfs_table_word(node->fs, table, i);
	return rc;
}

static int load_deep(struct vmfs_window *window, uint64_t block)
{
	struct vmfs_node *node = window->node;
	uint64_t per = vmfs_words_per_table(node->fs);
	uint8_t *table;
	int rc;

	CHECK(per == VMFS_WINDOW_WORDS);
	window->count = (uint32_t)per;
	window->first_block = block - block % per;
	if (window->depth == 1) {
		window->top_index = (uint32_t)(block / per);
		window->leaf_word = vmfs_node_pointer(node, window->top_index);
	} else {
		window->top_index = (uint32_t)(block / (per * per));
		window->mid_index = (uint32_t)(block / per % per);
		window->mid_word = vmfs_node_pointer(node, window->top_index);
		if (window->mid_word) {
			rc = vmfs_table_get(node, window->mid_word, &table, &window->mid_place);
			if (rc)
				return rc;
			window->leaf_word = vmfs_table_word(node->fs, table, window->mid_index);
		}
	}
	return window->leaf_word ? load_table(window, window->leaf_word, &window->leaf_place) : 0;
}

int vmfs_window_load(struct vmfs_node *node, uint64_t block, struct vmfs_window *out)
{
	int rc = 0;

	CHECK(!node->fs->addr.wide);
	if (block >= vmfs_map_reach(node->fs, node->fd.zla))
		return -EFBIG;
	*out = (struct vmfs_window){ .node = node, .depth = vmfs_map_depth(node->fd.zla) };
	if (out->depth == 0) {
		out->count = node->fs->geometry->pointer_count;
		for (uint32_t i = 0; i < out->count; i++)
			out->words[i] = vmfs_node_pointer(node, i);
	} else {
		rc = load_deep(out, block);
	}
	memcpy(out->before, out->words, sizeof(out->before));
	return rc;
}

/* ---- reserving ---- */

static bool is_empty(const uint64_t *words, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (words[i])
			return false;
	return true;
}

/* In double indirect files the upper level is in .pb2.sf, the lower in .pbc.sf [?]. */
static int take_table(struct vmfs_window *window, bool upper, uint64_t *word_out,
		      uint64_t *place_out)
{
	struct vmfs *fs = window->node->fs;
	bool pb2 = upper || window->node->fd.zla == VMFS_ZLA_PB2;
	struct vmfs_res *res = &fs->res[pb2 ? VMFS_RES_PB2 : VMFS_RES_PBC];
	struct vmfs_addr addr = { 0 };
	uint32_t count;
	uint64_t room;
	int rc;

	if (!res->node)
		return vmfs_fail(fs, ERR_VMFS_LIMIT, -EFBIG, "the volume has no %s",
				 vmfs_res_name(res->kind));
	rc = vmfs_res_take(res, 1, &addr, &count, NULL);
	if (rc)
		return rc;
	*word_out = vmfs_addr_encode(&fs->addr, &addr);
	return vmfs_res_locate(res, addr.cluster, addr.item, place_out, &room);
}

int vmfs_window_reserve(struct vmfs_window *window)
{
	int rc = 0;

	if (window->depth == 0 || is_empty(window->words, window->count))
		return 0;
	if (window->depth == 2 && !window->mid_word) {
		rc = take_table(window, true, &window->mid_word, &window->mid_place);
		window->mid_is_new = window->mid_word != 0;
	}
	if (!rc && !window->leaf_word) {
		rc = take_table(window, false, &window->leaf_word, &window->leaf_place);
		window->leaf_is_new = window->leaf_word != 0;
	}
	return rc;
}

static bool same_block(uint64_t a, uint64_t b)
{
	/* The flags that a word carries beside its block: TBZ and COW of file blocks. */
	const uint64_t flags = (a & 7) == VMFS_ADDR_FB ? 0x30 : 0x20;

	return (a & ~flags) == (b & ~flags);
}

void vmfs_window_abandon(struct vmfs_window *window)
{
	struct vmfs *fs = window->node->fs;
	uint64_t tables[2] = { window->leaf_is_new ? window->leaf_word : 0,
			       window->mid_is_new ? window->mid_word : 0 };

	if (fs->failed)
		return;         /* what is on the disk is not known: what was taken stays lost */
	for (uint32_t i = 0; i < window->count; i++)
		if (same_block(window->words[i], window->before[i]))
			window->words[i] = 0;
	/* A failure here leaves lost space, and the caller has a failure to tell already. */
	(void)vmfs_give_words(fs, window->words, window->count);
	(void)vmfs_give_words(fs, tables, 2);
}

/* ---- writing ---- */

static int write_table(struct vmfs_window *window, const uint64_t *words, uint64_t place)
{
	struct vmfs *fs = window->node->fs;
	uint8_t bytes[VMFS_WINDOW_WORDS * 4];

	CHECK(window->count == VMFS_WINDOW_WORDS);
	for (uint32_t i = 0; i < VMFS_WINDOW_WORDS; i++)
		vmfs_table_set_word(fs, bytes, i, words[i]);
	vmfs_table_forget(fs, place);
	return vmfs_volume_write_data(fs, place, bytes, sizeof(bytes));
}

int vmfs_window_write_new(struct vmfs_window *window)
{
	uint64_t mid[VMFS_WINDOW_WORDS] = { 0 };
	int rc = 0;

	if (window->leaf_is_new)
		rc = write_table(window, window->words, window->leaf_place);
	if (!rc && window->mid_is_new) {
		mid[window->mid_index] = window->leaf_word;
		rc = write_table(window, mid, window->mid_place);
	}
	return rc;
}

/* Only the sectors of a table in use that differ. */
static int write_changed(struct vmfs_window *window)
{
	struct vmfs *fs = window->node->fs;
	uint8_t sector[VMFS_SECTOR_BYTES];

	vmfs_table_forget(fs, window->leaf_place);
	for (uint32_t first = 0; first < window->count; first += WORDS_PER_SECTOR) {
		int rc;

		if (memcmp(window->words + first, window->before + first,
			   WORDS_PER_SECTOR * sizeof(uint64_t)) == 0)
			continue;
		for (uint32_t i = 0; i < WORDS_PER_SECTOR; i++)
			vmfs_table_set_word(fs, sector, i, window->words[first + i]);
		rc = vmfs_volume_write(fs, window->leaf_place + first * 4, sector, sizeof(sector));
		if (rc)
			return rc;
	}
	return 0;
}

/* One word of the middle table; *empty_out: that was its last. */
static int write_mid_word(struct vmfs_window *window, uint64_t word, bool *empty_out)
{
	struct vmfs *fs = window->node->fs;
	uint32_t first = window->mid_index - window->mid_index % WORDS_PER_SECTOR;
	uint8_t *table;
	uint64_t place;
	int rc = vmfs_table_get(window->node, window->mid_word, &table, &place);

	if (rc)
		return rc;
	vmfs_table_set_word(fs, table, window->mid_index, word);
	*empty_out = true;
	for (uint32_t i = 0; i < VMFS_WINDOW_WORDS; i++)
		if (vmfs_table_word(fs, table, i))
			*empty_out = false;
	if (*empty_out)
		return 0;
	return vmfs_volume_write(fs, place + first * 4, table + first * 4, VMFS_SECTOR_BYTES);
}

/* The table that refers to the leaf, or the descriptor's own pointer. */
static int publish_upper(struct vmfs_window *window, bool leaf_empty)
{
	struct vmfs_node *node = window->node;
	uint64_t leaf = leaf_empty ? 0 : window->leaf_word;
	bool empty = false;
	int rc;

	if (window->depth == 1) {
		vmfs_node_set_pointer(node, window->top_index, leaf);
		return 0;
	}
	if (!window->mid_is_new && (leaf_empty || window->leaf_is_new)) {
		rc = write_mid_word(window, leaf, &empty);
		if (rc)
			return rc;
		if (empty) {
			vmfs_table_forget(node->fs, window->mid_place);
			node->fd.pointer_block_count -= node->fd.pointer_block_count > 0;
		}
	}
	vmfs_node_set_pointer(node, window->top_index, empty ? 0 : window->mid_word);
	return 0;
}

int vmfs_window_publish(struct vmfs_window *window)
{
	struct vmfs_node *node = window->node;
	bool empty = is_empty(window->words, window->count);
	int rc = 0;

	if (window->depth == 0) {
		for (uint32_t i = 0; i < window->count; i++)
			vmfs_node_set_pointer(node, i, window->words[i]);
		return vmfs_node_store(node);
	}
	if (!window->leaf_word && empty)
		return vmfs_node_store(node);
	if (!window->leaf_is_new && !empty)
		rc = write_changed(window);
	if (!rc)
		rc = publish_upper(window, empty);
	if (rc)
		return rc;
	node->fd.pointer_block_count += window->leaf_is_new + window->mid_is_new;
	if (empty)
		node->fd.pointer_block_count -= node->fd.pointer_block_count > 0;
	return vmfs_node_store(node);
}

size_t vmfs_window_freed(const struct vmfs_window *window, uint64_t *freed)
{
	size_t count = 0;

	for (uint32_t i = 0; i < window->count; i++)
		if (window->before[i] && !same_block(window->words[i], window->before[i]))
			freed[count++] = window->before[i];
	if (window->depth > 0 && window->leaf_word && is_empty(window->words, window->count)) {
		freed[count++] = window->leaf_word;
		if (window->depth == 2 && !vmfs_node_pointer(window->node, window->top_index))
			freed[count++] = window->mid_word;
	}
	return count;
}
