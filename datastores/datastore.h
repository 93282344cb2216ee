/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datastore.h - a named place that holds disks and VM files.
 *
 * One interface for every kind of URL; a kind implements struct datastore_ops.
 *
 * Threading: everything marked [worker] may block and is called on the datastore's own
 * worker thread (datastore_worker()), one call at a time; what hangs, hangs alone.
 * Calls marked [any] are safe anywhere.  Devices live on I/O loops (blkdev.h).
 *
 * Paths are relative to the datastore's root, '/'-separated, at most DS_PATH_BYTES
 * with the end, never leave the root (no '..', no absolute path, no link that leaves),
 * and are judged here, once: ERR_DS_PATH_ESCAPE.
 *
 * A disk's path names its VMDK descriptor (web01/web01.vmdk, data in web01-flat.vmdk) or
 * a raw file.  Both are marked with an identity: VMDK in ddb.blkmirror.* keys, a raw file
 * in a sidecar NAME.blkmirror; LUNs and NBD exports carry none (protection is host-local).
 */
#ifndef BM_DATASTORE_H
#define BM_DATASTORE_H

#include "blkmirror/base/err.h"
#include "blkmirror/base/worker.h"
#include "blkmirror/blkdev/blkdev.h"

#define DS_NAME_BYTES 65
#define DS_PATH_BYTES 1024
#define DS_URL_BYTES 2048
#define DS_DISK_SIZE_MIN (UINT64_C(1) << 20)
#define DS_DISK_SIZE_MAX (UINT64_C(62) << 40)

struct datastore;
struct ds_disk;

/* ---- who a disk is (R-J4, R-J5) ---- */

enum disk_role {
	DISK_LIVE,              /* an ordinary disk; the authoritative copy */
	DISK_MOVING,            /* source of a move: refuse it without the journal */
	DISK_INCOMING,          /* target of a move: not yet anybody's disk */
	DISK_RETIRED,           /* the old copy, after the switch */
};

/*
 * A disk that blkmirror did not create has none at first (uuid all zero in ds_disk_stat()).
 * It gets one, durably, when it is first opened for writing, before a byte can be
 * written; an open disk without DS_OPEN_READ_ONLY always has one where has_identity is set.
 */
struct disk_identity {
	uint8_t uuid[16];       /* of this copy's lineage; kept over a move */
	uint64_t generation;    /* +1 at each switch-over */
	enum disk_role role;
	char journal_id[40];    /* of the move, for MOVING and INCOMING; "" otherwise */
	uint8_t host_uuid[16];  /* the host that moves it; zero otherwise */
};

/* "live", "moving", "incoming", "retired". */
const char *disk_role_name(enum disk_role role);
bool disk_identity_same_copy(const struct disk_identity *a, const struct disk_identity *b);

/* ---- disks ---- */

enum provision { PROVISION_SAME, PROVISION_THIN, PROVISION_THICK, PROVISION_EAGER };
/* "thin", "thick", "eager"; PROVISION_SAME is "same". */
const char *provision_name(enum provision provision);
bool provision_parse(const char *text, enum provision *out);

enum disk_format { DISK_FORMAT_VMDK, DISK_FORMAT_RAW, DISK_FORMAT_REMOTE };

struct ds_disk_info {
	uint64_t size_bytes;
	uint64_t allocated_bytes;       /* as far as the store tells; else size_bytes */
	enum provision provision;       /* never SAME */
	enum disk_format format;
	uint32_t sector_bytes;          /* smallest I/O */
	bool reads_zero;                /* never-written space is known to read as zeroes (R11) */
	bool read_only;
	bool has_identity;              /* false: LUN, NBD: marks cannot be kept with the disk */
	struct disk_identity identity;
};

struct ds_create_spec {
	uint64_t size_bytes;
	enum provision provision;       /* not SAME */
	const struct disk_identity *identity;   /* NULL: a new uuid, generation 1, LIVE */
};

enum ds_open_flags {
	DS_OPEN_READ_ONLY = 1,
	/* For the move whose journal_id it is: opens MOVING and INCOMING, which are refused otherwise. */
	DS_OPEN_FOR_MOVE = 2,
	DS_OPEN_RETIRED = 4,            /* retired copies are refused otherwise */
	/*
	 * A restarted daemon: the old process's lock may last until its last in-flight request;
	 * wait for it instead of reporting "in use" (R-J7).
	 */
	DS_OPEN_WAIT_LOCK = 8,
};

/* ---- listing ---- */

enum ds_file_kind { DS_FILE_DIR, DS_FILE_DISK, DS_FILE_DISK_DATA, DS_FILE_VMX, DS_FILE_OTHER };

struct ds_file {
	char name[256];
	enum ds_file_kind kind;
	uint64_t size_bytes;            /* of a disk: what the guest sees */
	uint64_t allocated_bytes;
	int64_t modified_s;             /* seconds since 1970 */
};

struct ds_file_list {
	struct ds_file *files;          /* sorted by name; free with ds_file_list_release() */
	uint32_t count;
	bool truncated;                 /* more than DS_LIST_MAX entries */
};
#define DS_LIST_MAX 10000
void ds_file_list_release(struct ds_file_list *list);

/* ---- the datastore ---- */

struct ds_config {
	const char *name;               /* [A-Za-z0-9][A-Za-z0-9._-]{0,63}, judged here */
	const char *url;
	const char *secret_file;        /* or NULL */
	const char *const *allowed_roots;       /* NULL-terminated; NULL: anything goes */
	uint8_t host_uuid[16];          /* this daemon's identity (R-F5) */
};

struct ds_space {
	uint64_t capacity_bytes;        /* 0: unknown (nbd) */
	uint64_t free_bytes;
	uint64_t reserved_bytes;        /* promised to moves and not yet used */
};

enum ds_state { DS_UP, DS_DEGRADED, DS_RECONNECTING, DS_DOWN };
const char *ds_state_name(enum ds_state state);

/*
 * Open (mount, log in).  Blocks; call it on any worker.  0 and *out (gives), or -errno with
 * *err: ERR_BAD_NAME, ERR_DS_BAD_URL, ERR_DS_SECRET_IN_URL, ERR_DS_NOT_ALLOWED,
 * ERR_DS_UNREACHABLE, ERR_DS_READ_ONLY, ERR_DS_PERMISSION.
 */
MUST_CHECK int datastore_open(struct loop *loop, const struct ds_config *config,
			      struct datastore **out, struct err *err);
/* [loop] No disk may be open.  NULL is harmless. */
void datastore_close(struct datastore *ds);

const char *datastore_name(const struct datastore *ds);         /* [any] */
const char *datastore_url(const struct datastore *ds);          /* [any] without secrets */
const char *datastore_kind(const struct datastore *ds);         /* [any] "dir", "nfs" ... */
const char *datastore_lock_scheme(const struct datastore *ds);  /* [any] "ofd", "lease" ... */
enum ds_state datastore_state(const struct datastore *ds);      /* [any] */
struct worker *datastore_worker(struct datastore *ds);          /* [any] */

/* [loop] changed() runs there after the state has changed; several changes may be one call. */
void datastore_watch_state(struct datastore *ds, void (*changed)(void *user), void *user);

/*
 * [worker] May new disks be made there now?  ERR_DS_READ_ONLY, ERR_DS_PERMISSION, ERR_DS_NO_SPACE ...
 * 0 where that cannot be known without making one.
 */
MUST_CHECK int datastore_probe(struct datastore *ds, struct err *err);

MUST_CHECK int datastore_space(struct datastore *ds, struct ds_space *out, struct err *err); /* [worker] */
MUST_CHECK int datastore_list(struct datastore *ds, const char *dir, struct ds_file_list *out,
			      struct err *err);                                         /* [worker] */

/*
 * [worker] Promise bytes to a move before it starts; refused with ERR_DS_NO_SPACE when free
 * minus promised is less (where the capacity is known).  Asks the store for its free space,
 * which may block; the accounting is atomic.  As the target fills, the move lowers its promise.
 */
MUST_CHECK int datastore_reserve(struct datastore *ds, uint64_t bytes, struct err *err);
void datastore_unreserve(struct datastore *ds, uint64_t bytes);         /* [any] */

/* ---- disks on it ---- */

/* [worker] Creates folders on the way.  ERR_DISK_EXISTS, ERR_DISK_BAD_SIZE, ERR_DS_NO_SPACE ... changes nothing on failure. */
MUST_CHECK int ds_disk_create(struct datastore *ds, const char *path,
			      const struct ds_create_spec *spec, struct err *err);

/*
 * [worker] What is there, without a lock: the provisioning of a disk that was not made here is
 * guessed from its space.  ERR_DISK_UNKNOWN, ERR_DISK_BAD_DESCRIPTOR, ERR_DISK_BAD_FORMAT,
 * ERR_DISK_CHAIN ...
 */
MUST_CHECK int ds_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
			    struct err *err);

/*
 * [worker] Open and lock: one writer, or many readers.  The lock sits on the descriptor that
 * does the I/O (R-J7).  ERR_DISK_IN_USE names the holder as far as it can be known.
 * ERR_DISK_MARKED, ERR_DISK_RETIRED: its role forbids it without the flag (R-J4), judged under
 * the lock.  move_journal_id: with DS_OPEN_FOR_MOVE; else NULL.
 *
 * info.reads_zero (R11) is true for the first writer of a disk that was created here, and for
 * nobody after that: a restarted move must zero what it leaves out.
 */
MUST_CHECK int ds_disk_open(struct datastore *ds, const char *path, unsigned flags,
			    const char *move_journal_id, struct ds_disk **out, struct err *err);
const struct ds_disk_info *ds_disk_info(const struct ds_disk *disk);    /* [any] as at open */
const char *ds_disk_path(const struct ds_disk *disk);                   /* [any] */
struct datastore *ds_disk_datastore(const struct ds_disk *disk);        /* [any] */

/*
 * [the I/O loop] The opened disk as a device; once per open.  as_target: a submit thread (R5).
 * Does not block.  Close the device before the disk.
 */
MUST_CHECK int ds_disk_make_dev(struct ds_disk *disk, struct loop *io_loop, bool as_target,
				struct blk_dev **out, struct err *err);

/*
 * [I/O loop, no write in flight] A target has become authoritative: its writes are a guest's from
 * now on, which no copy makes up for, and it keeps what its store may still lose (NFS, M14).
 * Where the store's kind has a submit thread, and nothing at all is in flight, it serves the
 * guest without the hop to it.
 */
void ds_disk_dev_promote(struct blk_dev *dev);

/*
 * [worker] Durable when it returns.  -ENOTSUP without *err where has_identity is false;
 * ERR_DISK_READ_ONLY when it is open for reading only.  After a failure the store may hold the old
 * or the new mark.  ds_disk_info() goes on telling the identity as at open.
 */
MUST_CHECK int ds_disk_mark(struct ds_disk *disk, const struct disk_identity *identity,
			    struct err *err);

/* [worker] Grow only.  ERR_DISK_SHRINK, ERR_DS_NO_SPACE.  A device made before keeps its size. */
MUST_CHECK int ds_disk_resize(struct ds_disk *disk, uint64_t size_bytes, struct err *err);

/* [worker] Bytes in use in the store now (st_blocks and the like). */
MUST_CHECK int ds_disk_allocated(struct ds_disk *disk, uint64_t *out, struct err *err);

/* [worker] Unlocks.  The device made of it must be closed.  NULL is harmless. */
void ds_disk_close(struct ds_disk *disk);

/*
 * [worker] Delete by identity (R-J5): refused with -ESTALE, ERR_DISK_MARKED, when uuid or
 * generation at that path differ from *expected, or, where that is RETIRED or INCOMING, the
 * role or the journal's id (NULL: whoever is there, for an operator's delete; then it must
 * be LIVE or RETIRED, else -EBUSY with ERR_DISK_MARKED).  Judged and done
 * under the writer's lock: ERR_DISK_IN_USE.  Removes data, descriptor, sidecar, and the
 * folder when it is empty then.  What an interrupted create or delete has left of a disk is
 * deleted in the same way; -ENOENT, ERR_DISK_UNKNOWN when nothing is there.
 */
MUST_CHECK int ds_disk_delete(struct datastore *ds, const char *path,
			      const struct disk_identity *expected, struct err *err);

/* [worker] The operator's word that a dead holder's lock is void.  Says what it broke. */
MUST_CHECK int ds_disk_unlock(struct datastore *ds, const char *path, struct err *err);

/* ---- a machine's small files, and its memory image ---- */

/* ERR_NOT_SUPPORTED where the kind holds disks only.  ERR_DISK_UNKNOWN: there is no such file. */

/* [worker] The whole file.  -EFBIG with ERR_TOO_LARGE when it is longer than capacity. */
MUST_CHECK int ds_file_read(struct datastore *ds, const char *path, char *bytes, size_t capacity,
			    size_t *len, struct err *err);
/*
 * [worker] Atomically and durably: after a crash it holds the old bytes or the new.  must_be_new
 * makes the folders on the way, and refuses what is there (ERR_DISK_EXISTS).  One writer at a time.
 */
MUST_CHECK int ds_file_write(struct datastore *ds, const char *path, const char *bytes, size_t len,
			     bool must_be_new, struct err *err);
/* [worker] A plain file, and its folder when that is empty then.  Durable when it returns. */
MUST_CHECK int ds_file_delete(struct datastore *ds, const char *path, struct err *err);
/*
 * [worker] A descriptor (gives) that another process may read or write the file through: for
 * reading; or, with create, for writing a new, empty one (what was there is replaced, folders on the
 * way are made).
 */
MUST_CHECK int ds_file_descriptor(struct datastore *ds, const char *path, bool create, int *fd,
				  struct err *err);

/* ---- names ---- */

/* "DS:path" into its halves; both judged.  ERR_USAGE, ERR_BAD_NAME, ERR_DS_PATH_ESCAPE. */
MUST_CHECK int ds_name_parse(const char *text, char ds_name[DS_NAME_BYTES],
			     char path[DS_PATH_BYTES], struct err *err);
/* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
bool ds_name_is_valid(const char *name);

#endif
