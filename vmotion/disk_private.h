/* SPDX-License-Identifier: Apache-2.0 */
/* disk_private.h - what the files of the disk service share; relocate*.c sees the service too. */
#ifndef BM_VMOTION_DISK_PRIVATE_H
#define BM_VMOTION_DISK_PRIVATE_H

#include "blkmirror/export/nbd_server.h"
#include "vmotion/disk.h"
#include "vmotion/disk_io.h"
#include "vmotion/disk_socket.h"

/* How long an ended mover may wait for late requests before the task ends without it. */
#define RELOCATE_PATIENCE_NS (30 * NS_PER_S)
/* A window of N seconds needs N + 1 samples. */
#define GUEST_SAMPLES (DISK_GUEST_WINDOW_S + 1)

struct guest_sample {
	uint64_t at_ns;
	uint64_t max_ns;                /* since the sample before */
	struct io_snapshot io;
};

struct guest_ring {
	struct guest_sample samples[GUEST_SAMPLES];
	uint32_t count, next;
};

struct disk_service {
	struct loop *main_loop;
	char run_dir[DISK_SOCKET_BYTES];
	struct io_thread **threads;
	uint32_t thread_count;
	struct list disks;
	uint64_t last_number;           /* of ids made up: "d1", "d2" ... */
	struct worker *socket_worker;   /* a socket path may lie on a store that hangs */
	struct worker *record_worker;   /* the state directory's; relocate*.c */
	struct timer sampler;
	struct list relocations;        /* running ones; relocate*.c */
	uint64_t patience_ns;           /* how long an ended mover may wait for late requests */
};

enum disk_state {
	DISK_ATTACHING,
	DISK_ATTACHED,
	DISK_DETACHING,
};

/* The attach or detach that is under way. */
struct disk_op {
	struct job job;
	struct io_call call;
	struct task refusal;
	unsigned open_flags;
	struct ds_disk *opened;         /* A2's result, until it is the disk's */
	bool force;
	int rc;
	struct err err;
	struct blk_req flush;           /* the last one before the device is closed */
	void (*attached)(struct disk *disk, const struct err *err, void *user);
	void (*detached)(const struct err *err, void *user);
	void *user;
};

struct disk {
	struct disk_service *service;
	struct list node;
	enum disk_state state;
	char id[DISK_ID_BYTES];
	char group[DISK_GROUP_BYTES];
	struct datastore *datastore;    /* while attaching; afterwards ask `opened` */
	char path[DS_PATH_BYTES];
	enum disk_export export_kind;
	bool read_only;
	bool moving;
	bool has_socket;
	struct disk_socket sock;
	struct io_thread *thread;
	struct ds_disk *opened;
	struct ds_disk_info info;       /* as at open, or after the last move */
	_Atomic uint32_t clients;
	struct guest_ring guest;
	struct disk_op op;

	/* The I/O loop's, once made. */
	struct blk_dev *device;
	struct gate *gate;
	struct nbd_server *server;
	struct list serving_node;
};

const struct datastore *disk_datastore(const struct disk *disk);
const char *disk_path(const struct disk *disk);

/* disk.c: the table. */
void disk_link(struct disk *disk, struct io_thread *thread);
void disk_unlink(struct disk *disk);
struct disk *disk_by_id(struct disk_service *service, const char *id);
/* disk_guest.c: start sampling when there is something to sample. */
void disk_sampler_init(struct disk_service *service);
void disk_sampler_kick(struct disk_service *service);
/* On the I/O loop: count the clients of its exports from now on, or no more. */
void disk_census_join(struct disk *disk);
void disk_census_leave(struct disk *disk);

#endif
