/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs.h - VMFS volumes: open, look, read, change.
 *
 *   VMFS5   read and written
 *   VMFS3, VMFS6   read only (what writing them needs is not known well enough)
 *
 * How I/O is split.  A volume is opened on struct vmfs_io, a synchronous interface, and every
 * function here blocks: they belong on a worker's thread (worker.h), one at a time for each
 * volume.  Metadata operations are rare, long chains of dependent reads and ordered writes,
 * which as callbacks nobody could check.  The data of an open file are another matter: a
 * mirror drives them, so they are for a block device of their own on the loop, which keeps the
 * runs that vmfs_run_at() tells, submits to the devices below by vmfs_lv_locate(), and comes to
 * the worker only for what is not mapped yet (vmfs_allocate(), vmfs_discard()).
 *
 * Trust.  Nothing on the disk is trusted: every number is judged before it is used, and
 * memory is bounded by our limits, not by what the disk says.  A structure that contradicts
 * itself gives -EUCLEAN with ERR_VMFS_DAMAGED and the place; we never guess on.
 *
 * What a crash leaves.  Nothing: each change of metadata is one transaction of the redo journal
 * (vmfs_journal.h), which the next opening carries out or leaves.  Opening gives back what files
 * held that had lost their names, too.  The data that a transaction refers to are durable before
 * it: a pointer never shows another file's old bytes.
 *
 *   one transaction                    several, each sound by itself
 *   -------------------------------------------------------------------------------------------
 *   create, mkdir, symlink             write: 64 blocks at a time, new ones with their pointers
 *   unlink, rmdir: the name            allocate: the same
 *   rename, also over another          truncate, discard: a pointer block at a time
 *   attributes, times                  giving back a file without a name: as truncate
 *   a change of the kind of pointers
 *
 * A write into blocks that are allocated already is data and goes past the journal: a crash
 * leaves any part of what was not synced.
 *
 * Two hosts that write at once: not guarded yet beyond vmfs_open()'s refusal when a heartbeat is
 * in use and the devices' own exclusive locks.
 *
 * Units:     bytes; times in seconds since 1970, as on disk (32 bits).
 * Errors:    0 or -errno; with err the sentence.  -EUCLEAN damaged, -ENOTSUP not supported,
 *            -EROFS read-only, -ENOSPC, -EFBIG, -EIO; others as the system calls of that name.
 *            After a write or flush that failed the volume refuses further changes (-EIO): what
 *            the disk holds is not known any more.
 * Threading: one thread at a time.
 * Ownership: nodes are counted; vmfs_close() demands that all are back.
 */
#ifndef BM_VMFS_H
#define BM_VMFS_H

#include "vmfs/vmfs_format.h"
#include "vmfs/vmfs_io.h"

#define VMFS_LABEL_MAX 127u

struct vmfs;
struct vmfs_node;

/* ---- the volume ---- */

struct vmfs_options {
	bool read_only;
	/* For writing: wait for a lease when heartbeats are in use, and free those that stand still. */
	bool take_over;
	/* The same, and heartbeats that contradict themselves are freed: for vmfs_repair(). */
	bool repair;
	/* Seconds since 1970; NULL: the system's. */
	uint32_t (*now_s)(void *user);
	/* NULL: sleeps. */
	void (*pause_ms)(uint32_t ms, void *user);
	void *user;
};

/*
 * Open a volume on all of its devices, in any order.  Borrows the ios.
 *
 * For writing it must be VMFS5 and no host's heartbeat may be in use (-EBUSY,
 * ERR_VMFS_IN_USE): with take_over none that beats.
 */
MUST_CHECK int vmfs_open(struct vmfs_io *const *ios, unsigned count,
			 const struct vmfs_options *options, struct vmfs **out, struct err *err);

/* Flushes.  The volume is gone whatever the result; NULL is harmless. */
int vmfs_close(struct vmfs *fs, struct err *err);

/* Everything done so far is durable. */
MUST_CHECK int vmfs_sync(struct vmfs *fs, struct err *err);

struct vmfs_about {
	unsigned version;               /* 3, 5 or 6 */
	uint32_t major, minor;
	char label[VMFS_LABEL_MAX + 1];
	uint8_t uuid[VMFS_UUID_BYTES];
	uint8_t lv_uuid[VMFS_UUID_BYTES];
	uint32_t creation_time;
	uint64_t size_bytes;
	uint64_t file_block_bytes;
	uint32_t sub_block_bytes;
	unsigned device_count;
	bool read_only;
};

void vmfs_about(const struct vmfs *fs, struct vmfs_about *out);

/*
 * Space.  The counts of a VMFS6 volume rest on a bitmap that is only partly understood [?]:
 * its free bytes are an estimate.
 */
struct vmfs_space {
	uint64_t total_bytes, free_bytes;
	uint64_t files_total, files_free;               /* descriptors */
	uint64_t sub_blocks_total, sub_blocks_free;
	uint64_t pointer_blocks_total, pointer_blocks_free;
};

MUST_CHECK int vmfs_statfs(struct vmfs *fs, struct vmfs_space *out, struct err *err);

/* ---- nodes: files, directories, symbolic links ---- */

struct vmfs_stat {
	uint32_t address;               /* of the descriptor: the inode number */
	uint32_t generation;
	enum vmfs_fd_type type;
	bool is_directory;              /* .sdd.sf is one and has type system */
	uint32_t mode;                  /* permission bits */
	uint32_t links;
	uint32_t uid, gid;
	uint64_t length_bytes;
	uint64_t block_bytes;
	uint64_t block_count;
	uint64_t allocated_bytes;
	uint64_t to_be_zeroed_count;
	uint32_t mtime, ctime, atime;
	uint32_t zla;
};

/*
 * "/a/b" from the root, '/' alone is the root, empty parts are skipped.  "." and ".." and
 * symbolic links on the way are not followed: -ENOTDIR.  Gives a reference.
 */
MUST_CHECK int vmfs_walk(struct vmfs *fs, const char *path, struct vmfs_node **out,
			 struct err *err);

/* The directory that holds the last part of the path, and that part (copied to name). */
MUST_CHECK int vmfs_walk_parent(struct vmfs *fs, const char *path, struct vmfs_node **dir_out,
				char name[VMFS_NAME_MAX + 1], struct err *err);

MUST_CHECK int vmfs_lookup(struct vmfs_node *dir, const char *name, struct vmfs_node **out,
			   struct err *err);
/* By descriptor address; -ENOENT when it is free. */
MUST_CHECK int vmfs_node_get(struct vmfs *fs, uint32_t address, struct vmfs_node **out,
			     struct err *err);

struct vmfs_node *vmfs_node_ref(struct vmfs_node *node);
/* A file that has lost its name is freed with its last reference.  NULL is harmless. */
int vmfs_node_put(struct vmfs_node *node, struct err *err);

void vmfs_node_stat(const struct vmfs_node *node, struct vmfs_stat *out);

struct vmfs_entry {
	enum vmfs_fd_type type;
	uint32_t address;
	uint32_t generation;
	uint64_t cursor;                /* where this entry is; private */
	char name[VMFS_DIRENT6_NAME_BYTES];
};

/* The entry at *cursor (0: the first) and the next cursor.  -ENODATA: no more. */
MUST_CHECK int vmfs_readdir(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out,
			    struct err *err);

/* ---- data ---- */

/* Up to the end of the file; *got_out tells how much that was. */
MUST_CHECK int vmfs_read(struct vmfs_node *node, uint64_t offset_bytes, void *bytes,
			 size_t len_bytes, size_t *got_out, struct err *err);

/* The target of a symbolic link, with a NUL. */
#define VMFS_LINK_MAX 4096u
MUST_CHECK int vmfs_readlink(struct vmfs_node *node, char target[VMFS_LINK_MAX], struct err *err);

enum vmfs_run_kind {
	VMFS_RUN_HOLE,                  /* reads as zeroes, no space */
	VMFS_RUN_ZERO,                  /* reads as zeroes, space is allocated */
	VMFS_RUN_DATA,                  /* at volume_offset_bytes of the logical volume */
	VMFS_RUN_RESIDENT,              /* in the descriptor */
};

struct vmfs_run {
	enum vmfs_run_kind kind;
	uint64_t file_offset_bytes;
	uint64_t len_bytes;
	uint64_t volume_offset_bytes;   /* DATA; ZERO: where the data would be */
};

/*
 * The run that begins at the offset, not beyond offset + len.  Neighbours of one kind may be
 * told as several runs.  Beyond the end of the file: -ENODATA.
 */
MUST_CHECK int vmfs_run_at(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes,
			   struct vmfs_run *out, struct err *err);

/* ---- changes ---- */

/* Grows the file as needed.  All of it or an error; what was written before the error stays. */
MUST_CHECK int vmfs_write(struct vmfs_node *node, uint64_t offset_bytes, const void *bytes,
			  size_t len_bytes, struct err *err);
MUST_CHECK int vmfs_truncate(struct vmfs_node *node, uint64_t length_bytes, struct err *err);

enum vmfs_fill {
	VMFS_FILL_LAZY,                 /* allocated, to be zeroed at the first write */
	VMFS_FILL_ZERO,                 /* allocated and zeroed now */
};

/* Allocate what is a hole in the range; grows the file.  Data stay. */
MUST_CHECK int vmfs_allocate(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes,
			     enum vmfs_fill fill, struct err *err);
/* The range reads as zeroes; whole blocks in it are freed.  The length stays. */
MUST_CHECK int vmfs_discard(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes,
			    struct err *err);

struct vmfs_attributes {
	uint32_t mode;                  /* permission bits */
	uint32_t uid, gid;
};

/* out may be NULL. */
MUST_CHECK int vmfs_create(struct vmfs_node *dir, const char *name,
			   const struct vmfs_attributes *attributes, struct vmfs_node **out,
			   struct err *err);
MUST_CHECK int vmfs_mkdir(struct vmfs_node *dir, const char *name,
			  const struct vmfs_attributes *attributes, struct err *err);
MUST_CHECK int vmfs_symlink(struct vmfs_node *dir, const char *name, const char *target,
			    struct err *err);
/* Files and links, not directories. */
MUST_CHECK int vmfs_unlink(struct vmfs_node *dir, const char *name, struct err *err);
MUST_CHECK int vmfs_rmdir(struct vmfs_node *dir, const char *name, struct err *err);
/* Replaces a file by a file, an empty directory by a directory. */
MUST_CHECK int vmfs_rename(struct vmfs_node *from_dir, const char *from_name,
			   struct vmfs_node *to_dir, const char *to_name, struct err *err);
MUST_CHECK int vmfs_set_attributes(struct vmfs_node *node,
				   const struct vmfs_attributes *attributes, struct err *err);
MUST_CHECK int vmfs_set_times(struct vmfs_node *node, uint32_t atime, uint32_t mtime,
			      struct err *err);

#endif
