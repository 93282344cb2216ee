/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_private.h - what the files of this room share: the open volume and its parts.
 *
 * Inner functions return 0 or -errno.  Where one knows more than the number it says so with
 * vmfs_fail(); the public function's edge (vmfs_answer()) hands the sentence out.
 */
#ifndef BM_VMFS_PRIVATE_H
#define BM_VMFS_PRIVATE_H

#include <errno.h>

#include "blkmirror/base/list.h"
#include "vmfs/vmfs.h"
#include "vmfs/vmfs_addr.h"
#include "vmfs/vmfs_journal.h"
#include "vmfs/vmfs_lv.h"

/* ---- geometry: what differs between the versions ---- */

struct vmfs_geometry {
	unsigned version;
	uint32_t lock_bytes;            /* of a lock block */
	uint32_t hb_bytes;              /* of a heartbeat slot */
	uint32_t hb_count;
	uint64_t hb_end;                /* where the region of the heartbeats ends */
	uint32_t fd_bytes;              /* of a descriptor, lock included */
	uint32_t fd_data_offset;        /* resident data in it */
	uint32_t resident_max;
	uint32_t pointer_offset;        /* pointer array in it */
	uint32_t pointer_count;
	uint32_t pointer_bytes;
	uint32_t pointer_block_bytes;
	uint32_t cluster_header_bytes;
	uint32_t name_max;
};

#define VMFS_FD_BYTES_MAX 0x2000u
#define VMFS_FD5_BYTES 0x800u
#define VMFS_CLUSTER_HEADER_MAX 0x2000u
#define VMFS_POINTER_BLOCK_MAX 0x10000u

const struct vmfs_geometry *vmfs_geometry(unsigned version);

/* ---- nodes ---- */

struct vmfs_node {
	struct vmfs *fs;
	struct list link;               /* fs->nodes */
	uint32_t refs;
	uint32_t address;
	uint64_t volume_offset;         /* of the lock block; metadata and data follow */
	bool unlinked;                  /* freed with the last reference */
	unsigned rank;                  /* see vmfs_map.c */
	struct vmfs_fd fd;
	uint8_t raw[VMFS_FD_BYTES_MAX];
	uint8_t stored[VMFS_FD5_BYTES]; /* VMFS5: as they stand on the disk */
};

bool vmfs_node_is_dir(const struct vmfs_node *node);
/* Reads and judges the descriptor at a known place; for the system's own, before .fdc.sf. */
int vmfs_node_load(struct vmfs *fs, uint32_t address, uint64_t volume_offset,
		   struct vmfs_node *out);
/* What vmfs_node_load() demands of the fields; -ENOENT: a free one. */
int vmfs_node_judge(struct vmfs_node *node, const struct vmfs_lock *lock);
/* A reference without a sentence of its own on errors. */
int vmfs_node_find(struct vmfs *fs, uint32_t address, struct vmfs_node **out);
/* Drops a reference; frees what has no name any more. */
int vmfs_node_drop(struct vmfs_node *node);
/* Metadata and pointers, in one write. */
int vmfs_node_store(struct vmfs_node *node);
uint64_t vmfs_node_pointer(const struct vmfs_node *node, uint32_t index);
void vmfs_node_set_pointer(struct vmfs_node *node, uint32_t index, uint64_t word);

/* ---- resource files ---- */

enum vmfs_res_kind {
	VMFS_RES_FBB,
	VMFS_RES_FDC,
	VMFS_RES_PBC,
	VMFS_RES_SBC,
	VMFS_RES_PB2,
	VMFS_RES_COUNT,
};

struct vmfs_res {
	struct vmfs *fs;
	enum vmfs_res_kind kind;
	struct vmfs_node *node;         /* NULL: the volume has no such file */
	struct vmfs_res_header header;
	uint64_t item_count;
	uint32_t cluster_count;
	uint32_t hint;                  /* the cluster that gave last */
	uint8_t *full;                  /* bit per cluster: nothing was free when we looked last */
};

/* A cluster header in memory. */
struct vmfs_cluster {
	struct vmfs_res *res;
	uint32_t number;
	uint64_t volume_offset;
	struct vmfs_lock lock;
	struct vmfs_cluster5 fields;
	uint8_t raw[VMFS_CLUSTER_HEADER_MAX];
};

const char *vmfs_res_name(enum vmfs_res_kind kind);
enum vmfs_lock_type vmfs_res_lock_type(enum vmfs_res_kind kind);
int vmfs_res_open(struct vmfs *fs, enum vmfs_res_kind kind);
void vmfs_res_close(struct vmfs_res *res);
/* Offset in the resource file of an item, -EUCLEAN when there is none such. */
int vmfs_res_item_offset(const struct vmfs_res *res, uint32_t cluster, uint32_t item,
			 uint64_t *out);
uint64_t vmfs_res_header_offset(const struct vmfs_res *res, uint32_t cluster);
/* Where an item begins in the volume; it is contiguous there for *len_out bytes. */
int vmfs_res_locate(struct vmfs_res *res, uint32_t cluster, uint32_t item, uint64_t *offset_out,
		    uint64_t *len_out);
/* VMFS3 and VMFS5. */
int vmfs_cluster_read(struct vmfs_res *res, uint32_t number, struct vmfs_cluster *out);
/* The sum over all clusters, as their headers tell it. */
int vmfs_res_free_count(struct vmfs_res *res, uint64_t *out);
bool vmfs_cluster_is_free(const struct vmfs_cluster *cluster, uint32_t item);

/* ---- the volume ---- */

#define VMFS_TABLE_CACHE 32u            /* pointer blocks kept in memory */

struct vmfs_table {
	uint64_t volume_offset;         /* 0: unused */
	uint64_t stamp;
	uint8_t *bytes;
};

struct vmfs {
	struct vmfs_lv lv;
	const struct vmfs_geometry *geometry;
	struct vmfs_addr_format addr;
	struct vmfs_info info;
	struct vmfs_options options;
	bool read_only;
	bool failed;                    /* a write went wrong: no further ones */
	uint32_t slots_mended, slots_freed, journals_dropped;   /* by vmfs_takeover() */
	uint64_t file_block_count;
	struct vmfs_res res[VMFS_RES_COUNT];
	struct list nodes;
	struct vmfs_node *root;
	struct vmfs_table tables[VMFS_TABLE_CACHE];
	uint64_t table_stamp;
	struct vmfs_dir_window *window;
	struct vmfs_txn txn;
	struct vmfs_journal journal;
	struct err err;                 /* why the operation in hand fails */
};

/* Keep the first sentence of this operation; returns rc. */
int vmfs_fail(struct vmfs *fs, enum err_id id, int rc, const char *format, ...) PRINTF_LIKE(4, 5);
void vmfs_say_damaged(struct vmfs *fs, const char *format, ...) PRINTF_LIKE(2, 3);
/* A macro, so that the compiler sees that it is never 0. */
#define vmfs_damaged(fs, ...) (vmfs_say_damaged(fs, __VA_ARGS__), -EUCLEAN)
/* The edge: begin an operation; end it, giving the sentence for rc to *err.  Returns rc. */
void vmfs_begin(struct vmfs *fs);
int vmfs_answer(struct vmfs *fs, int rc, struct err *err);
/* May this operation change the volume? */
int vmfs_may_write(struct vmfs *fs);
uint32_t vmfs_now_s(struct vmfs *fs);

/*
 * The volume's bytes, judged; a failed write makes the volume fail.  vmfs_volume_write() is for
 * metadata: inside a transaction it is part of it.  The others go to the disk at once.
 */
int vmfs_volume_read(struct vmfs *fs, uint64_t offset, void *bytes, size_t len);
/* The same at any offset, of any length. */
int vmfs_volume_read_any(struct vmfs *fs, uint64_t offset, uint8_t *bytes, size_t len);
int vmfs_volume_write(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len);
/* Data of files, and metadata that nothing durable refers to yet. */
int vmfs_volume_write_data(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len);
/* No judging, no journal: for the journal itself. */
int vmfs_volume_put(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len);
int vmfs_volume_zero(struct vmfs *fs, uint64_t offset, uint64_t len);
int vmfs_barrier(struct vmfs *fs);

/* ---- the map: from offsets in a file to the volume ---- */

/* How far a kind of pointer array reaches, in blocks; 0 for an unknown kind. */
uint64_t vmfs_map_reach(const struct vmfs *fs, uint32_t zla);
unsigned vmfs_map_depth(uint32_t zla);
int vmfs_map_find(struct vmfs_node *node, uint64_t offset, uint64_t len, struct vmfs_run *out);
/* Where the block that `word` names for the file's block number `block` is. */
int vmfs_map_place(struct vmfs_node *node, uint64_t word, uint64_t block, uint64_t *offset_out,
		   uint64_t *len_out);
/* The words for a block and its neighbours: a table, or a hole where there is none. */
struct vmfs_leaf {
	const uint8_t *table;           /* NULL: a hole */
	uint64_t index, count;          /* this block in the table; hole: 0 and how many follow */
};
int vmfs_map_leaf(struct vmfs_node *node, uint64_t block, struct vmfs_leaf *out);
uint64_t vmfs_words_per_table(const struct vmfs *fs);
/* The pointer block that `word` names, in the cache: valid until the next call. */
int vmfs_table_get(struct vmfs_node *node, uint64_t word, uint8_t **bytes_out,
		   uint64_t *offset_out);
void vmfs_table_forget(struct vmfs *fs, uint64_t volume_offset);
void vmfs_table_forget_all(struct vmfs *fs);
uint64_t vmfs_table_word(const struct vmfs *fs, const uint8_t *table, uint64_t index);
void vmfs_table_set_word(const struct vmfs *fs, uint8_t *table, uint64_t index, uint64_t word);

/* ---- taking and giving items (VMFS5) ---- */

/* Up to `want` items side by side; -ENOSPC.  generation_out: .fdc.sf only, else NULL. */
int vmfs_res_take(struct vmfs_res *res, uint32_t want, struct vmfs_addr *first_out,
		  uint32_t *count_out, uint32_t *generation_out);
/*
 * Gives back what the words name, whatever they are; 0 among them is skipped.  Inside a
 * transaction at its end, so that nothing in it takes the items anew.
 */
int vmfs_give_words(struct vmfs *fs, const uint64_t *words, size_t count);
int vmfs_give_now(struct vmfs *fs, uint64_t *words, size_t count);
int vmfs_give_fd(struct vmfs *fs, uint32_t address);

/* ---- the map, changed (VMFS5) ---- */

#define VMFS_WINDOW_WORDS 1024u         /* of a pointer block; a descriptor has fewer */

/* The words of one leaf table in memory, to be changed and published. */
struct vmfs_window {
	struct vmfs_node *node;
	uint64_t first_block;           /* of the file, at words[0] */
	uint32_t count;
	unsigned depth;
	uint32_t top_index, mid_index;
	uint64_t leaf_word, mid_word;   /* 0: there is none yet */
	uint64_t leaf_place, mid_place;
	bool leaf_is_new, mid_is_new;
	uint64_t words[VMFS_WINDOW_WORDS], before[VMFS_WINDOW_WORDS];
};

int vmfs_window_load(struct vmfs_node *node, uint64_t block, struct vmfs_window *out);
/* Take the pointer blocks that publishing will need. */
int vmfs_window_reserve(struct vmfs_window *window);
/* Give back what was reserved or newly named, when nothing of it was published. */
void vmfs_window_abandon(struct vmfs_window *window);
/* New pointer blocks, before vmfs_window_publish(). */
int vmfs_window_write_new(struct vmfs_window *window);
/* Pointers and descriptor. */
int vmfs_window_publish(struct vmfs_window *window);
/* Words that go away with this window when it has been published; freed[2] tables as well. */
size_t vmfs_window_freed(const struct vmfs_window *window, uint64_t *freed);

/* Make the descriptor's kind of pointers reach `length` bytes. */
int vmfs_layout_prepare(struct vmfs_node *node, uint64_t length, bool whole_blocks);
bool vmfs_node_has_pointers(const struct vmfs_node *node);
/* Gives back all that a descriptor without a name holds, and the descriptor; in steps. */
int vmfs_node_free(struct vmfs_node *node);
/* The same for one that was left by a crash; one that is none is let be. */
int vmfs_node_give_orphan(struct vmfs *fs, uint32_t address);
/* Blocks [first, end) become holes; `length` is the length then. */
int vmfs_file_drop(struct vmfs_node *node, uint64_t first, uint64_t end, uint64_t length);
/* Where a descriptor is. */
int vmfs_node_place(struct vmfs *fs, uint32_t address, uint64_t *out);

int vmfs_volume_write_any(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len);
int vmfs_volume_write_data_any(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len);
int vmfs_file_write(struct vmfs_node *node, uint64_t offset, const uint8_t *bytes, size_t len);
int vmfs_file_truncate(struct vmfs_node *node, uint64_t length);
/* The count of blocks and all that follows it. */
void vmfs_fd_count_blocks(struct vmfs_fd *fd, int64_t delta);

/* File bytes as they stand, without the end of the file as a limit on the map's reach. */
int vmfs_file_read(struct vmfs_node *node, uint64_t offset, uint8_t *bytes, size_t len);

/* ---- directories ---- */

/* Longer ones are not believed: a hostile one could be read for ever. */
#define VMFS_DIR_BYTES_MAX (UINT64_C(64) << 20)

/* A stretch of one directory that was read last. */
#define VMFS_DIR_WINDOW_BYTES 0x10000u
struct vmfs_dir_window {
	const struct vmfs_node *dir;    /* NULL: nothing is held */
	uint64_t start, len;
	uint8_t bytes[VMFS_DIR_WINDOW_BYTES];
};

/* Bytes of a directory, through the window; len at most VMFS_DIR_WINDOW_BYTES. */
int vmfs_dir_read(struct vmfs_node *dir, uint64_t offset, uint8_t *bytes, size_t len);
void vmfs_dir_forget(struct vmfs *fs);
int vmfs_dir_judge_entry(struct vmfs_node *dir, const struct vmfs_entry *entry);
int vmfs_dir5_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out);
int vmfs_dir6_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out);
int vmfs_dir_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out);
/* VMFS5: add a record at the end; publishes it. */
int vmfs_dir5_append(struct vmfs_node *dir, const struct vmfs_entry *entry);
/* VMFS5: take the record at the entry's cursor away. */
int vmfs_dir5_remove(struct vmfs_node *dir, const struct vmfs_entry *entry);
/* VMFS5: let the record at `at` name another descriptor of the same type. */
int vmfs_dir5_point(struct vmfs_node *dir, const struct vmfs_entry *at, uint32_t address,
		    uint32_t generation);
/* Only "." and ".."?  0, -ENOTEMPTY or another error. */
int vmfs_dir_is_empty(struct vmfs_node *dir);
/* -ENOENT: no such name. */
int vmfs_dir_find(struct vmfs_node *dir, const char *name, struct vmfs_entry *out);
int vmfs_dir_lookup(struct vmfs_node *dir, const char *name, struct vmfs_node **out);

#endif
