/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_write.c - changing the data of a file: write, truncate, allocate, discard (VMFS5).
 *
 * Everything goes window by window (vmfs_window.c), each step of it one transaction.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define FREED_MAX (VMFS_WINDOW_WORDS + 2)
/* Blocks that one transaction takes, or clusters that it gives to: that bounds its sectors. */
#define STEP_BLOCKS 64u
#define STEP_CLUSTERS 64u
#define STEP_FOLDER_BYTES (32u << 10)

static bool word_is_tbz(const struct vmfs *fs, uint64_t word)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	return addr.type == VMFS_ADDR_FB && addr.tbz;
}

static uint64_t word_with_tbz(const struct vmfs *fs, uint64_t word, bool tbz)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	addr.tbz = tbz;
	return vmfs_addr_encode(&fs->addr, &addr);
}

/* Copy-on-write blocks belong to more than one file: never written by us. */
static bool word_is_cow(const struct vmfs *fs, uint64_t word)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	return addr.cow;
}

/* ---- taking blocks for a window ---- */

/* Name blocks for the holes among words[first, end); *taken_out: how many. */
static int fill_holes(struct vmfs_window *window, uint32_t first, uint32_t end, bool tbz,
		      uint32_t *taken_out)
{
	struct vmfs *fs = window->node->fs;
	struct vmfs_res *res = &fs->res[window->node->fd.zla == VMFS_ZLA_SB ? VMFS_RES_SBC :
									      VMFS_RES_FBB];
	uint32_t i = first;

	*taken_out = 0;
	while (i < end) {
		struct vmfs_addr addr = { 0 };
		uint32_t run = 0, got;
		int rc;

		while (i + run < end && !window->words[i + run])
			run++;
		if (run == 0) {
			i++;
			continue;
		}
		rc = vmfs_res_take(res, run, &addr, &got, NULL);
		if (rc)
			return rc;
		addr.tbz = tbz && addr.type == VMFS_ADDR_FB;
		for (uint32_t k = 0; k < got; k++) {
			window->words[i++] = vmfs_addr_encode(&fs->addr, &addr);
			if (addr.type == VMFS_ADDR_FB)
				addr.block++;
			else
				addr.item++;
		}
		*taken_out += got;
	}
	return 0;
}

/* ---- data ---- */

/* A block whose old contents count for nothing: data where they are, zeroes around them. */
static int write_fresh(struct vmfs_node *node, uint64_t place, uint64_t inside,
		       const uint8_t *bytes, size_t len)
{
	size_t unit = (size_t)node->fd.block_bytes;
	CLEANUP_FREE uint8_t *block = NULL;

	if (len == unit)
		return vmfs_volume_write_data(node->fs, place, bytes, len);
	block = calloc(1, unit);
	if (!block)
		return -ENOMEM;
	memcpy(block + inside, bytes, len);
	return vmfs_volume_write_data(node->fs, place, block, unit);
}

/*
 * The data for one block.  Words that were holes, or to be zeroed, are fresh.  Full fresh
 * blocks that lie side by side go in one write: `run` blocks at once.
 */
static int write_block(struct vmfs_window *window, uint32_t index, uint64_t inside,
		       const uint8_t *bytes, size_t len)
{
	struct vmfs_node *node = window->node;
	uint64_t place, room, word = window->words[index];
	bool fresh = !window->before[index] || word_is_tbz(node->fs, window->before[index]);
	int rc;

	if (word_is_cow(node->fs, word))
		return vmfs_fail(node->fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "the file shares blocks with another (copy on write)");
	rc = vmfs_map_place(node, word, window->first_block + index, &place, &room);
	if (rc)
		return rc;
	if (room < node->fd.block_bytes)
		return vmfs_damaged(node->fs, "a block of descriptor %#x spans blocks", node->address);
	if (fresh)
		return write_fresh(node, place, inside, bytes, len);
	/* A folder's records are metadata, and change with what they name. */
	if (vmfs_node_is_dir(node))
		return vmfs_volume_write_any(node->fs, place + inside, bytes, len);
	return vmfs_volume_write_data_any(node->fs, place + inside, bytes, len);
}

static bool is_next(struct vmfs_window *window, uint32_t index)
{
	struct vmfs *fs = window->node->fs;
	struct vmfs_addr a, b;

	vmfs_addr_decode(&fs->addr, window->words[index], &a);
	vmfs_addr_decode(&fs->addr, window->words[index + 1], &b);
	return a.type == VMFS_ADDR_FB && b.type == VMFS_ADDR_FB && b.block == a.block + 1 && !b.cow;
}

/* Full blocks side by side from index on, at most `blocks`. */
static uint32_t run_length(struct vmfs_window *window, uint32_t index, uint64_t blocks)
{
	uint32_t run = 1;

	while (run < blocks && index + run < window->count && is_next(window, index + run - 1))
		run++;
	return run;
}

static int write_data(struct vmfs_window *window, uint64_t offset, const uint8_t *bytes, size_t len)
{
	uint64_t unit = window->node->fd.block_bytes;

	while (len > 0) {
		uint32_t index = (uint32_t)(offset / unit - window->first_block);
		uint64_t inside = offset % unit;
		size_t part = (size_t)MIN(len, unit - inside);
		int rc;

		if (inside == 0 && len >= 2 * unit && !vmfs_node_is_dir(window->node) &&
		    !word_is_cow(window->node->fs, window->words[index])) {
			uint32_t run = run_length(window, index, len / unit);
			uint64_t place, room;

			part = (size_t)(run * unit);
			rc = vmfs_map_place(window->node, window->words[index], offset / unit, &place,
					    &room);
			if (!rc)
				rc = vmfs_volume_write_data(window->node->fs, place, bytes, part);
		} else {
			rc = write_block(window, index, inside, bytes, part);
		}
		if (rc)
			return rc;
		bytes += part;
		offset += part;
		len -= part;
	}
	return 0;
}

/* ---- write ---- */

static uint32_t clear_tbz(struct vmfs_window *window, uint32_t first, uint32_t end)
{
	struct vmfs *fs = window->node->fs;
	uint32_t cleared = 0;

	for (uint32_t i = first; i < end; i++)
		if (word_is_tbz(fs, window->words[i])) {
			window->words[i] = word_with_tbz(fs, window->words[i], false);
			cleared++;
		}
	return cleared;
}

static void count_tbz(struct vmfs_fd *fd, int64_t delta)
{
	uint64_t count = (fd->tbz_count | (uint64_t)fd->tbz_count_high << 32) + (uint64_t)delta;

	fd->tbz_count = (uint32_t)count;
	fd->tbz_count_high = (uint32_t)(count >> 32);
}

static int write_step(struct vmfs_window *window, uint64_t offset, const uint8_t *bytes, size_t len)
{
	struct vmfs_node *node = window->node;
	struct vmfs *fs = node->fs;
	uint64_t unit = node->fd.block_bytes, end = offset + len;
	uint32_t first = (uint32_t)(offset / unit - window->first_block);
	uint32_t last = (uint32_t)(div_round_up(end, unit) - window->first_block);
	bool grows = end > node->fd.length;
	uint32_t taken = 0, cleared = 0;
	int rc = fill_holes(window, first, last, false, &taken);

	if (!rc)
		rc = vmfs_window_reserve(window);
	if (!rc) {
		cleared = clear_tbz(window, first, last);
		rc = write_data(window, offset, bytes, len);
	}
	if (!rc)
		rc = vmfs_window_write_new(window);
	if (rc) {
		vmfs_window_abandon(window);
		return rc;
	}
	if (!taken && !cleared && !grows && node->fd.mtime == vmfs_now_s(fs))
		return 0;
	node->fd.length = MAX(node->fd.length, end);
	node->fd.mtime = vmfs_now_s(fs);
	vmfs_fd_count_blocks(&node->fd, taken);
	count_tbz(&node->fd, -(int64_t)cleared);
	return taken || cleared ? vmfs_window_publish(window) : vmfs_node_store(node);
}

/* The part of a write that one window covers, one transaction. */
static int write_window(struct vmfs_window *window, uint64_t offset, const uint8_t *bytes,
			size_t len)
{
	vmfs_txn_begin(window->node->fs);
	return vmfs_txn_end(window->node->fs, write_step(window, offset, bytes, len));
}

/* What stands between the old end and its block's end is garbage as soon as the file grows. */
static int zero_tail(struct vmfs_node *node)
{
	uint64_t length = node->fd.length, unit = node->fd.block_bytes;
	uint64_t left = (unit - length % unit) % unit;
	struct vmfs_run run;
	int rc;

	if (node->fd.zla == VMFS_ZLA_RESIDENT) {
		memset(node->raw + node->fs->geometry->fd_data_offset + length, 0,
		       node->fs->geometry->resident_max - length);
		return 0;
	}
	if (left == 0)
		return 0;
	rc = vmfs_map_find(node, length, left, &run);
	if (rc || run.kind != VMFS_RUN_DATA)
		return rc;
	{
		CLEANUP_FREE uint8_t *zeroes = calloc(1, (size_t)left);

		if (!zeroes)
			return -ENOMEM;
		return vmfs_volume_write_data_any(node->fs, run.volume_offset_bytes, zeroes,
						  (size_t)left);
	}
}

static int write_resident(struct vmfs_node *node, uint64_t offset, const uint8_t *bytes, size_t len)
{
	memcpy(node->raw + node->fs->geometry->fd_data_offset + offset, bytes, len);
	node->fd.length = MAX(node->fd.length, offset + len);
	node->fd.mtime = vmfs_now_s(node->fs);
	vmfs_txn_begin(node->fs);
	return vmfs_txn_end(node->fs, vmfs_node_store(node));
}

int vmfs_file_write(struct vmfs_node *node, uint64_t offset, const uint8_t *bytes, size_t len)
{
	struct vmfs *fs = node->fs;
	struct vmfs_window window;
	uint64_t end;
	int rc;

	if (len == 0)
		return 0;
	if (!u64_add(offset, len, &end))
		return -EFBIG;
	if (fs->window->dir == node)
		vmfs_dir_forget(fs);
	rc = vmfs_layout_prepare(node, MAX(end, node->fd.length), false);
	/* Only where a gap is left: what is written next to the end shows nothing old. */
	if (!rc && offset > node->fd.length)
		rc = zero_tail(node);
	if (rc)
		return rc;
	if (node->fd.zla == VMFS_ZLA_RESIDENT)
		return write_resident(node, offset, bytes, len);
	while (len > 0 && !rc) {
		uint64_t unit = node->fd.block_bytes, window_end;
		size_t part;

		rc = vmfs_window_load(node, offset / unit, &window);
		if (rc)
			return rc;
		window_end = (window.first_block + window.count) * unit;
		window_end = MIN(window_end, (offset / unit + STEP_BLOCKS) * unit);
		part = (size_t)MIN(len, window_end - offset);
		if (vmfs_node_is_dir(node))
			part = MIN(part, STEP_FOLDER_BYTES);
		rc = write_window(&window, offset, bytes, part);
		bytes += part;
		offset += part;
		len -= part;
	}
	return rc;
}

static int judge_data_change(struct vmfs_node *node)
{
	int rc = vmfs_may_write(node->fs);

	if (rc)
		return rc;
	if (vmfs_node_is_dir(node))
		return -EISDIR;
	if (node->fd.type != VMFS_TYPE_FILE)
		return vmfs_fail(node->fs, ERR_VMFS_KIND, -EINVAL,
				 "only the data of plain files can be changed");
	return 0;
}

int vmfs_write(struct vmfs_node *node, uint64_t offset_bytes, const void *bytes, size_t len_bytes,
	       struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = judge_data_change(node);
	if (!rc)
		rc = vmfs_file_write(node, offset_bytes, bytes, len_bytes);
	return vmfs_answer(node->fs, rc, err);
}

/* ---- taking pointers away ---- */

/* Words [first, end) become holes; publish, and give the blocks back when that is durable. */
static int drop_words(struct vmfs_window *window, uint32_t first, uint32_t end)
{
	struct vmfs_node *node = window->node;
	uint64_t freed[FREED_MAX];
	uint32_t blocks = 0, tbz = 0;
	size_t count;
	int rc;

	for (uint32_t i = first; i < end; i++) {
		if (!window->words[i])
			continue;
		if (word_is_cow(node->fs, window->words[i]))
			return vmfs_fail(node->fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
					 "the file shares blocks with another (copy on write)");
		tbz += word_is_tbz(node->fs, window->words[i]);
		window->words[i] = 0;
		blocks++;
	}
	if (blocks == 0)
		return 0;
	vmfs_fd_count_blocks(&node->fd, -(int64_t)blocks);
	count_tbz(&node->fd, -(int64_t)tbz);
	node->fd.mtime = vmfs_now_s(node->fs);
	vmfs_txn_begin(node->fs);
	rc = vmfs_window_publish(window);
	count = vmfs_window_freed(window, freed);
	if (!rc)
		rc = vmfs_give_words(node->fs, freed, count);
	return vmfs_txn_end(node->fs, rc);
}

static uint64_t cluster_of(const struct vmfs *fs, uint64_t word)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	return addr.type == VMFS_ADDR_FB ? addr.block / fs->res[VMFS_RES_FBB].header.per_cluster :
					   addr.cluster;
}

/* The first of the words before `end` that one transaction can give back. */
static uint32_t step_start(const struct vmfs_window *window, uint32_t first, uint32_t end)
{
	const struct vmfs *fs = window->node->fs;
	uint64_t cluster = UINT64_MAX;
	uint32_t clusters = 0;

	while (end > first) {
		uint64_t word = window->words[end - 1];

		if (word && cluster_of(fs, word) != cluster) {
			if (++clusters > STEP_CLUSTERS)
				break;
			cluster = cluster_of(fs, word);
		}
		end--;
	}
	return end;
}

/* From the end down; the length shrinks with them. */
int vmfs_file_drop(struct vmfs_node *node, uint64_t first, uint64_t end, uint64_t length)
{
	uint64_t unit = node->fd.block_bytes;

	while (first < end) {
		struct vmfs_window window;
		struct vmfs_leaf leaf;
		uint64_t from;
		int rc = vmfs_map_leaf(node, end - 1, &leaf);

		if (!rc && !leaf.table) {
			end = MAX(first, round_down(end - 1, VMFS_WINDOW_WORDS));
			continue;
		}
		if (!rc)
			rc = vmfs_window_load(node, end - 1, &window);
		if (rc)
			return rc;
		from = MAX(first, window.first_block);
		from = window.first_block + step_start(&window, (uint32_t)(from - window.first_block),
						       (uint32_t)(end - window.first_block));
		/* The last step goes to the length itself: a folder's is whole records. */
		node->fd.length = MIN(node->fd.length, from == first ? length :
							 MAX(length, from * unit));
		rc = drop_words(&window, (uint32_t)(from - window.first_block),
				(uint32_t)(end - window.first_block));
		if (rc)
			return rc;
		end = from;
	}
	return 0;
}

/* Behind the last block that may be mapped: others allocate behind the end of a file too. */
static uint64_t mapped_end(const struct vmfs_node *node)
{
	uint64_t blocks = div_round_up(node->fd.length, node->fd.block_bytes);

	if (vmfs_map_depth(node->fd.zla) == 0)
		return node->fs->geometry->pointer_count;
	return round_up(MAX(blocks, 1), VMFS_WINDOW_WORDS);
}

int vmfs_file_truncate(struct vmfs_node *node, uint64_t length)
{
	struct vmfs *fs = node->fs;
	uint64_t old = node->fd.length, unit;
	int rc = 0;

	if (length > old) {
		rc = vmfs_layout_prepare(node, length, false);
		if (!rc)
			rc = zero_tail(node);
	} else if (node->fd.zla != VMFS_ZLA_RESIDENT) {
		unit = node->fd.block_bytes;
		if (vmfs_node_has_pointers(node))
			rc = vmfs_file_drop(node, div_round_up(length, unit), mapped_end(node), length);
	}
	if (rc)
		return rc;
	node->fd.length = length;
	if (length < old)
		rc = zero_tail(node);
	if (rc)
		return rc;
	node->fd.mtime = vmfs_now_s(fs);
	vmfs_txn_begin(fs);
	return vmfs_txn_end(fs, vmfs_node_store(node));
}

int vmfs_truncate(struct vmfs_node *node, uint64_t length_bytes, struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = judge_data_change(node);
	if (!rc && length_bytes != node->fd.length)
		rc = vmfs_file_truncate(node, length_bytes);
	return vmfs_answer(node->fs, rc, err);
}

/* ---- discard ---- */

/* Zero what is data in the range, without changing what is allocated. */
static int zero_range(struct vmfs_node *node, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		struct vmfs_run run;
		size_t part;
		int rc = vmfs_map_find(node, offset, end - offset, &run);

		if (rc)
			return rc;
		part = (size_t)MIN(run.len_bytes, node->fd.block_bytes);
		if (run.kind == VMFS_RUN_DATA) {
			CLEANUP_FREE uint8_t *zeroes = calloc(1, part);

			if (!zeroes)
				return -ENOMEM;
			rc = vmfs_file_write(node, offset, zeroes, part);
			if (rc)
				return rc;
		}
		offset += run.kind == VMFS_RUN_DATA ? part : run.len_bytes;
	}
	return 0;
}

static int discard(struct vmfs_node *node, uint64_t offset, uint64_t len)
{
	uint64_t unit = node->fd.block_bytes, end, first, last;
	int rc;

	if (offset >= node->fd.length || len == 0)
		return 0;
	end = MIN(len, node->fd.length - offset) + offset;
	if (node->fd.zla == VMFS_ZLA_RESIDENT) {
		memset(node->raw + node->fs->geometry->fd_data_offset + offset, 0, end - offset);
		vmfs_txn_begin(node->fs);
		return vmfs_txn_end(node->fs, vmfs_node_store(node));
	}
	first = div_round_up(offset, unit);
	/* The last block counts as whole when the range reaches the end of the file. */
	last = end == node->fd.length ? div_round_up(end, unit) : end / unit;
	if (first >= last)
		return zero_range(node, offset, end);
	rc = zero_range(node, offset, first * unit);
	if (!rc)
		rc = vmfs_file_drop(node, first, last, node->fd.length);
	if (!rc && last * unit < end)
		rc = zero_range(node, last * unit, end);
	return rc;
}

int vmfs_discard(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes, struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = judge_data_change(node);
	if (!rc)
		rc = discard(node, offset_bytes, len_bytes);
	return vmfs_answer(node->fs, rc, err);
}

/* ---- allocate ---- */

static int zero_fresh(struct vmfs_window *window, uint32_t first, uint32_t end)
{
	struct vmfs_node *node = window->node;

	for (uint32_t i = first; i < end; i++) {
		uint64_t place, room;
		int rc;

		if (window->before[i] && !word_is_tbz(node->fs, window->before[i]))
			continue;
		rc = vmfs_map_place(node, window->words[i], window->first_block + i, &place, &room);
		if (!rc)
			rc = vmfs_volume_zero(node->fs, place, node->fd.block_bytes);
		if (rc)
			return rc;
	}
	return 0;
}

static int allocate_step(struct vmfs_window *window, uint32_t first, uint32_t end,
			 enum vmfs_fill fill)
{
	struct vmfs_node *node = window->node;
	bool lazy = fill == VMFS_FILL_LAZY;
	uint32_t taken = 0, cleared = 0;
	int rc = fill_holes(window, first, end, lazy, &taken);

	if (!rc)
		rc = vmfs_window_reserve(window);
	if (!rc && !lazy) {
		rc = zero_fresh(window, first, end);
		cleared = clear_tbz(window, first, end);
	}
	if (!rc)
		rc = vmfs_window_write_new(window);
	if (rc) {
		vmfs_window_abandon(window);
		return rc;
	}
	if (!taken && !cleared)
		return 0;
	vmfs_fd_count_blocks(&node->fd, taken);
	count_tbz(&node->fd, (lazy ? (int64_t)taken : 0) - (int64_t)cleared);
	return vmfs_window_publish(window);
}

static int allocate_window(struct vmfs_window *window, uint32_t first, uint32_t end,
			   enum vmfs_fill fill)
{
	vmfs_txn_begin(window->node->fs);
	return vmfs_txn_end(window->node->fs, allocate_step(window, first, end, fill));
}

static int allocate(struct vmfs_node *node, uint64_t offset, uint64_t len, enum vmfs_fill fill)
{
	struct vmfs_window window;
	uint64_t end, block, last;
	int rc;

	if (len == 0)
		return 0;
	if (!u64_add(offset, len, &end))
		return -EFBIG;
	rc = vmfs_layout_prepare(node, MAX(end, node->fd.length), true);
	if (!rc && end > node->fd.length)
		rc = zero_tail(node);
	if (rc)
		return rc;
	node->fd.mtime = vmfs_now_s(node->fs);
	block = offset / node->fd.block_bytes;
	last = div_round_up(end, node->fd.block_bytes);
	while (block < last) {
		uint64_t stop;

		rc = vmfs_window_load(node, block, &window);
		if (rc)
			return rc;
		stop = MIN(MIN(last, window.first_block + window.count), block + STEP_BLOCKS);
		rc = allocate_window(&window, (uint32_t)(block - window.first_block),
				     (uint32_t)(stop - window.first_block), fill);
		if (rc)
			return rc;
		block = stop;
	}
	node->fd.length = MAX(node->fd.length, end);
	vmfs_txn_begin(node->fs);
	return vmfs_txn_end(node->fs, vmfs_node_store(node));
}

int vmfs_allocate(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes,
		  enum vmfs_fill fill, struct err *err)
{
	int rc;

	vmfs_begin(node->fs);
	rc = judge_data_change(node);
	if (!rc)
		rc = allocate(node, offset_bytes, len_bytes, fill);
	return vmfs_answer(node->fs, rc, err);
}
