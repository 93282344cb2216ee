/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_keeper_private.h - inside the keeper of locks on NFS.
 *
 *   nfs_keeper.c    the thread that renews
 *   nfs_lock.c      taking, giving back, breaking: on the store's worker
 */
#ifndef BM_NFS_KEEPER_PRIVATE_H
#define BM_NFS_KEEPER_PRIVATE_H

#include <pthread.h>

#include "blkmirror/base/list.h"
#include "blkmirror/blkdev/dial.h"
#include "datastores/nfs_keeper.h"

struct nfs_lock {
	struct nfs_keeper *keeper;
	struct nfs_handle dir, file;
	char data_name[DS_FILE_NAME_BYTES];
	uint64_t generation;
	struct lock_record record;      /* the renewing thread's, once it is on the list */
	struct fence *fence;
	unsigned readers;               /* the worker's; 0: a writer's */
	struct list node;               /* under the keeper's mutex, as all below */
	uint64_t round;
	bool renewing;
};

/* Foreign locks that were looked at, by the worker; the oldest makes room. */
#define KEEPER_WATCHES 64u

struct keeper_watch {
	struct lease_watch watch;
	struct nfs_handle dir;
	char data_name[DS_FILE_NAME_BYTES];
	uint64_t used;
};

struct nfs_keeper {
	struct nfs_place place;
	struct uuid owner;
	struct lease_times times;
	char host[LOCK_HOST_BYTES];
	uint64_t begun_ns;              /* fence_clock_ns(): our former life ended before it */
	void (*told)(void *user, bool renews);
	void *user;

	struct keeper_watch watches[KEEPER_WATCHES];    /* the worker's */
	uint64_t watch_uses;

	pthread_t thread;
	struct nfs_session *session;    /* the thread's */
	bool renews;                    /* the thread's */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list locks;
	uint64_t round;
	bool stopping;
};

/* One renewal on this session: 0, and the fence is open; or -errno. */
MUST_CHECK int nfs_lock_renew(struct nfs_session *session, struct nfs_lock *lock,
			      const struct lease_times *times);

/* [worker], which alone adds and removes. */
struct nfs_lock *nfs_keeper_find(struct nfs_keeper *keeper, const struct nfs_handle *dir,
				 const char *data_name);
void nfs_keeper_add(struct nfs_keeper *keeper, struct nfs_lock *lock);
/* Waits for a renewal of it that is under way: a few seconds at most. */
void nfs_keeper_remove(struct nfs_keeper *keeper, struct nfs_lock *lock);

#endif
