/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.h - the disks that this host has attached: datastore disk -> device -> gate -> export.
 *
 * The disk service owns the I/O threads and the table of attached disks.  Attaching opens and
 * locks the disk (on the datastore's worker), makes its device, gate and export (on an I/O
 * thread) and answers on the main loop.  An attached disk keeps its id, socket and URI over
 * relocations.
 *
 * Threading: every call and callback on the main loop unless marked [any].
 */
#ifndef BM_VMOTION_DISK_H
#define BM_VMOTION_DISK_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/gate.h"
#include "datastores/datastore.h"

#define DISK_ID_BYTES 65
#define DISK_SOCKET_BYTES 108           /* sun_path, with the end */
/* Each byte of the path may need three in the URI. */
#define DISK_URI_BYTES (32 + DISK_ID_BYTES + 3 * DISK_SOCKET_BYTES)
#define DISK_GROUP_BYTES 65
#define DISK_GUEST_WINDOW_S 10

enum disk_export { DISK_EXPORT_NONE, DISK_EXPORT_NBD, DISK_EXPORT_VHOST_USER };
const char *disk_export_name(enum disk_export kind);
bool disk_export_parse(const char *text, enum disk_export *out);

struct disk_service;
struct disk;
struct socket_holder;

struct disk_service_options {
	const char *run_dir;            /* sockets go to RUN-DIR/disks/ID.sock */
	uint32_t io_threads;            /* 0: one per two CPUs, at least 1 */
	uint64_t buffer_bytes;          /* per I/O thread; 0: 64 MiB */
	struct socket_holder *holder;   /* of the exports' sockets (socket_holder.h); NULL: none */
};

MUST_CHECK int disk_service_new(struct loop *main_loop, const struct disk_service_options *options,
				struct disk_service **out, struct err *err);
/* Every disk must be detached, and it must be idle.  Stops and joins the I/O threads. */
void disk_service_free(struct disk_service *service);
/* Sockets are still being made, removed or handed over. */
bool disk_service_is_busy(const struct disk_service *service);

struct disk_attach_spec {
	struct datastore *datastore;
	const char *path;
	enum disk_export export_kind;   /* NONE: attached without an export, for a cold move */
	const char *id;                 /* NULL: "d1", "d2" ... */
	const char *socket_path;        /* NULL: RUN-DIR/disks/ID.sock */
	bool read_only;
	bool wait_lock;                 /* after a restart (R-J7) */
	/* For a move that goes on: opens a disk that is marked MOVING by it (R-J4).  Or NULL. */
	const char *move_journal_id;
	bool hold;                      /* its gate is held: somebody else will release it */
	/*
	 * Disks that are relocated together must live on one I/O thread: disks with the same
	 * group (a machine's id) share one.  NULL: the thread with the fewest disks.
	 */
	const char *group;
	const struct disk *beside;      /* or: on the thread of this one */
};

/*
 * ERR_BAD_NAME, ERR_DISK_ID_TAKEN, ERR_DISK_ATTACHED, ERR_EXPORT_SOCKET, ERR_EXPORT_KIND,
 * ERR_NO_MEMORY, or what ds_disk_open() says (ERR_DISK_IN_USE ...).
 * A failure leaves nothing behind.  attached() gets the disk, or NULL and *err; it runs later,
 * never from inside, save when there is no memory even to remember the call.
 * The spec is copied; the datastore is borrowed until the disk is detached.
 */
void disk_attach(struct disk_service *service, const struct disk_attach_spec *spec,
		 void (*attached)(struct disk *disk, const struct err *err, void *user),
		 void *user);

/*
 * Refused while the disk moves (ERR_DISK_MOVING), and, without force, while a client is connected
 * (ERR_EXPORT_BUSY).  Guest requests in flight are let complete, then the disk is flushed.
 * detached() gets NULL, and the struct is gone then; or *err, and the disk is as it was.  It
 * runs later, never from inside.
 */
void disk_detach(struct disk *disk, bool force,
		 void (*detached)(const struct err *err, void *user), void *user);

/*
 * The daemon ends, the disk's guest does not: as a forced detach, but the export's socket stays
 * where it is, if somebody holds it, and clients that come meanwhile wait for the next daemon.
 */
void disk_leave(struct disk *disk, void (*left)(const struct err *err, void *user), void *user);

/* ---- sockets that are held for disks which are not attached (socket_holder.h) ---- */

/* A disk that is not to be attached again: remove its socket, if one is held. */
void disk_socket_drop(struct disk_service *service, const char *id, const char *path);
/* Let go of all but those of these ids and of attached disks.  Takes ids (malloc'd). */
void disk_sockets_sweep(struct disk_service *service, char (*ids)[DISK_ID_BYTES], size_t count);

/* ---- lookup: disks that are being attached are not found yet ---- */

struct disk *disk_find(struct disk_service *service, const char *id);
struct disk *disk_find_by_path(struct disk_service *service, const struct datastore *ds,
			       const char *path);
/* Walk: NULL gives the first, then each one's next, NULL at the end. */
struct disk *disk_next(struct disk_service *service, struct disk *disk);
/* Is a disk of it attached, or being attached or detached?  Then it must stay open. */
bool disk_service_uses(const struct disk_service *service, const struct datastore *ds);

/* ---- an attached disk ---- */

struct disk_info {
	char id[DISK_ID_BYTES];
	char socket_path[DISK_SOCKET_BYTES];
	char uri[DISK_URI_BYTES];       /* nbd+unix:///ID?socket=PATH; "" without an NBD export */
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
	char group[DISK_GROUP_BYTES];   /* "": none */
	enum disk_export export_kind;
	bool read_only;
	bool moving;                    /* a relocation has it */
	uint32_t clients;               /* at most about a second old */
	struct ds_disk_info disk;       /* as at open, or after the last move */
};
void disk_info(const struct disk *disk, struct disk_info *out);
/* What the guest feels; [any], valid while attached. */
struct io_stats *disk_io_stats(struct disk *disk);

/* What the guest felt in a stretch of time; sampled once a second while attached. */
struct disk_guest_window {
	uint64_t span_ns;               /* 0: not sampled long enough yet; then all is 0 */
	uint64_t max_ns;
	struct io_snapshot io;          /* what happened in the span */
};
/* The last `seconds` (1 to DISK_GUEST_WINDOW_S), or as much of them as there is. */
void disk_guest_window(const struct disk *disk, unsigned seconds, struct disk_guest_window *out);

/* ---- for relocate.c ---- */

struct loop *disk_loop(struct disk *disk);              /* its I/O loop */
struct buf_pool *disk_pool(struct disk *disk);          /* of that loop */
struct gate *disk_gate(struct disk *disk);              /* lives on disk_loop() */
struct blk_dev *disk_device(struct disk *disk);         /* lives on disk_loop() */
struct ds_disk *disk_opened(struct disk *disk);
/* Mark it moving (refuses a second move): 0 or ERR_DISK_MOVING. */
MUST_CHECK int disk_move_begin(struct disk *disk, struct err *err);
/*
 * On the main loop: close its export, so that no guest's request is inside any more; closed()
 * runs later.  For a disk that moves, and only before its detach; without an export harmless.
 */
void disk_unserve(struct disk *disk, void (*closed)(struct disk *disk, void *user), void *user);
/*
 * The move has ended.  With opened != NULL the disk now is that opened disk, on that device (the
 * gate leads there already); gives back the old pair, to be closed by the caller.
 */
void disk_move_end(struct disk *disk, struct ds_disk *opened, struct blk_dev *device,
		   struct ds_disk **old_opened, struct blk_dev **old_device);

#endif
