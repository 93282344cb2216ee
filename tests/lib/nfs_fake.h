/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_fake.h - an NFS server that speaks just enough RPC, on a file in memory, and a device on it.
 *
 * It does less than it was asked, forgets, lies or hangs up as the test says.
 */
#ifndef BM_TESTS_NFS_FAKE_H
#define BM_TESTS_NFS_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#include "blkmirror/blkdev/blk_nfs.h"
#include "tests/lib/io_wait.h"

#define FILE_BYTES (4u << 20)
#define LIMIT_BYTES (64u << 10)
#define CONNECTIONS 3u

struct server {
	int listener;
	uint16_t port;
	pthread_t threads[CONNECTIONS];
	atomic_bool stopping;
	pthread_mutex_t lock;
	uint8_t *file;
	atomic_uint life;               /* the write verifier */
	atomic_uint most_bytes;         /* it does no more than this at once */
	atomic_uint commit_status, write_status;
	atomic_uint commits, unstable, stable;
	atomic_bool says_unstable;      /* whatever was asked */
	atomic_bool reads_too_much, reads_nothing;
	atomic_bool hangs_up;           /* at the next call, and whoever comes */
	atomic_bool swallows;           /* takes a write, carries it out, hangs up */
	uint8_t *safe;                  /* the file as a restart finds it */
};

struct nfs_fake {
	struct server server;
	struct loop *loop;
	struct io_wait wait;
	struct blk_dev *dev;
};

struct nfs_fake *fake_new(enum blk_nfs_role role, bool stable, struct fence *fence);
void fake_free(struct nfs_fake *rig);
int fake_io(struct nfs_fake *rig, enum blk_op op, uint64_t offset, void *bytes, uint64_t len,
	   unsigned flags);
int fake_flush(struct nfs_fake *rig);
/* len bytes that repeat nowhere near; free() them. */
uint8_t *pattern(size_t len);
/* The server dies, with what it had not committed. */
void fake_restart(struct server *server);

#endif
