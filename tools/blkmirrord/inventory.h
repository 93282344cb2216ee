/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inventory.h - the datastores that the operator has named, and the disks attached on them.
 *
 * Both are durable: at start every datastore is opened again and every attachment attached
 * again, before anything else.  A datastore that cannot be reached stays listed, down, with its
 * error, and is tried again with growing pauses; its attachments follow as soon as it is up.
 *
 * A disk whose lock is held is tried again and again (R-J7): its store's worker is not
 * kept meanwhile, and the other disks do not wait.  Nothing tells when such a lock is free
 * (disk_lock.h), so it asks, after 5 ms at first and every 250 ms at last; after half a minute
 * it counts as failed, and is still tried every 5 s.
 *
 * Each entry opens on a worker of its own: what hangs, hangs alone.
 *
 * Threading: main loop.  Ownership: an entry lives until it is removed; while it is in use
 * (ds_entry_get()) removing is refused.
 */
#ifndef BM_INVENTORY_H
#define BM_INVENTORY_H

#include "tools/blkmirrord/events.h"
#include "tools/blkmirrord/store.h"
#include "vmotion/disk.h"

#define INVENTORY_DATASTORES_MAX 256u
#define INVENTORY_ATTACHMENTS_MAX 4096u

struct inventory;

struct ds_entry {
	char name[DS_NAME_BYTES];
	char url[DS_URL_BYTES];
	char *secret_file;              /* or NULL */
	uint64_t bandwidth;             /* UINT64_MAX: unlimited */
	uint32_t budget;                /* 0: the configuration's */
	uint64_t lease_ns;              /* 0: the kind's own */
	struct datastore *datastore;    /* NULL: not open */
	struct err error;               /* why it is down */
	struct ds_space space;          /* as last seen */
	uint32_t users;                 /* jobs, tasks and attachments that need it open */
	struct list node;

	struct inventory *inventory;    /* private from here */
	struct worker *opener;
	struct datastore *unstored;     /* open, and about to be recorded */
	bool opening;
	uint64_t retry_ns;
	struct timer retry, refresh;
	bool refreshing;
	bool gone;                      /* removed; freed when its last question is answered */
	void (*added)(struct ds_entry *entry, const struct err *err, void *user);
	void *added_user;
};

/* A durable attachment: what is to be attached, and (disk) what is. */
struct attachment {
	char id[DISK_ID_BYTES];
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
	enum disk_export export_kind;
	char socket_path[DISK_SOCKET_BYTES];
	char group[DISK_GROUP_BYTES];   /* disk_attach_spec's; "": none */
	bool read_only;
	struct disk *disk;              /* NULL: not attached (yet) */
	struct ds_entry *entry;         /* held while attached */
	struct err error;               /* why not */
	bool attaching;
	struct list node;
	struct inventory *inventory;    /* private from here */
	bool in_move;
	bool lock_waited;               /* counted in lock_waits */
	uint64_t waits_since_ns, pause_ns;
	struct timer again;
};

struct inventory_options {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct disk_service *disks;
	const char *const *allowed_roots;
	uint8_t host_uuid[16];
	uint64_t begun_ns;              /* when the daemon's life began, for the log; 0: not said */
	/* An interrupted move is about that disk: attach it only when that is settled. */
	bool (*in_move)(const char *datastore, const char *path, void *user);
	/* Datastores are up: settle what was interrupted, then inventory_attach_waiting(). */
	void (*came_up)(void *user);
	/* A datastore of the inventory has been tried: it is open, or down (with its error).  Or NULL. */
	void (*tried)(struct ds_entry *entry, void *user);
	void *user;
};

MUST_CHECK int inventory_new(const struct inventory_options *options, struct inventory **out,
			     struct err *err);
/*
 * Load what is stored.  Blocks, so before the loop runs, and before the store's worker has much
 * to write: it would wait for that.
 */
MUST_CHECK int inventory_load(struct inventory *inventory, struct err *err);
/*
 * Begin to open what was loaded; restored() runs once, when every datastore and attachment has
 * been tried.
 */
void inventory_start(struct inventory *inventory, void (*restored)(void *user), void *user);
/* Begin no new opens and attaches. */
void inventory_stop(struct inventory *inventory);
/* Nothing attached, nothing in use, no opening under way.  NULL is harmless. */
void inventory_free(struct inventory *inventory);
/* Is an open still under way?  (It cannot be interrupted.) */
bool inventory_is_busy(const struct inventory *inventory);

/* ---- datastores ---- */

/* Open it first; it is kept only when that worked.  added() gets the entry, or NULL and *err. */
void inventory_add(struct inventory *inventory, const char *name, const char *url,
		   const char *secret_file,
		   void (*added)(struct ds_entry *entry, const struct err *err, void *user),
		   void *user);
/* ERR_DS_UNKNOWN, ERR_DS_IN_USE.  0: removed() follows; durable when it says 0, else it is back. */
MUST_CHECK int inventory_remove(struct inventory *inventory, const char *name,
				void (*removed)(int rc, const struct err *err, void *user),
				void *user, struct err *err);
/* 0: durable when stored() says 0. */
MUST_CHECK int inventory_store_settings(struct inventory *inventory, struct ds_entry *entry,
					void (*stored)(int rc, const struct err *err, void *user),
					void *user, struct err *err);
struct ds_entry *inventory_find(struct inventory *inventory, const char *name, struct err *err);
/* The same, and it must be open: ERR_DS_UNKNOWN, ERR_DS_UNREACHABLE. */
struct ds_entry *inventory_open_entry(struct inventory *inventory, const char *name,
				      struct err *err);
struct ds_entry *inventory_next(struct inventory *inventory, struct ds_entry *entry);
void ds_entry_get(struct ds_entry *entry);
void ds_entry_put(struct ds_entry *entry);
/* Down, and waiting to be tried again?  Then try now. */
void ds_entry_retry(struct ds_entry *entry);
/* Ask the store for its space soon. */
void ds_entry_refresh(struct ds_entry *entry);
/* "up", "degraded", "reconnecting", "down" */
const char *ds_entry_state(const struct ds_entry *entry);

/* ---- attachments ---- */

/* Let go of held sockets whose disks are no longer to be attached. */
void inventory_sweep_sockets(struct inventory *inventory);

/* Try every attachment that waits and whose datastore is up. */
void inventory_attach_waiting(struct inventory *inventory);

/* Try this one, if it waits and its datastore is up. */
void inventory_attach(struct inventory *inventory, struct attachment *attachment);

/*
 * A move goes on, and attaches this disk itself: from here to inventory_move_attached() nobody else
 * does.  NULL: nothing of that place is to be attached.
 */
struct attachment *inventory_move_takes(struct inventory *inventory, const char *datastore,
					const char *path);
/* How it is to be attached; all but datastore and path. */
void inventory_move_spec(const struct attachment *attachment, struct disk_attach_spec *out);
void inventory_move_attached(struct attachment *attachment, struct disk *disk,
			     const struct err *err);

/* Remember a disk that has been attached; durable when stored() runs. */
MUST_CHECK int inventory_attached(struct inventory *inventory, struct ds_entry *entry,
				  struct disk *disk,
				  void (*stored)(int rc, const struct err *err, void *user),
				  void *user, struct err *err);
/* A move has changed where it lies; durable when it returns 0 (blocks for one write). */
MUST_CHECK int inventory_moved(struct inventory *inventory, const char *id,
			       struct ds_entry *entry, const char *path);
MUST_CHECK int inventory_forget(struct inventory *inventory, const char *id,
				void (*stored)(int rc, const struct err *err, void *user),
				void *user, struct err *err);
struct attachment *inventory_attachment(struct inventory *inventory, const char *id);
struct attachment *inventory_attachment_of(struct inventory *inventory, const char *datastore,
					   const char *path);
struct attachment *inventory_next_attachment(struct inventory *inventory,
					     struct attachment *attachment);

#endif
