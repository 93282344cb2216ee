/* SPDX-License-Identifier: Apache-2.0 */
/* nfs_keeper.c - renewal: a thread, a connection of its own, every lock of the export. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop.h"
#include "datastores/nfs_keeper_private.h"

/* One renewal of one lock may take so long: less than a period. */
#define RENEW_TIMEOUT_NS (2 * NS_PER_S)

static void sleep_until_ns(struct nfs_keeper *keeper, uint64_t until_ns)
{
	struct timespec until = { .tv_sec = (time_t)(until_ns / NS_PER_S),
				  .tv_nsec = (long)(until_ns % NS_PER_S) };

	while (!keeper->stopping && dial_clock_ns() < until_ns)
		if (pthread_cond_timedwait(&keeper->changed, &keeper->lock, &until) == ETIMEDOUT)
			break;
}

/* R-F3: is it still ours, and is it still the highest?  0, -ESTALE: no; or not to be known. */
static int look_again(struct nfs_session *session, const struct nfs_lock *lock)
{
	struct nfs_handle other;
	char name[DS_FILE_NAME_BYTES], bytes[LOCK_RECORD_BYTES];
	struct lock_record record;
	int64_t len;
	int rc = lock_name_format(lock->data_name, lock->generation + 1, name);

	if (rc)
		return rc;
	rc = nfs_session_lookup(session, &lock->dir, name, &other);
	if (rc != -ENOENT)
		return rc == 0 ? -ESTALE : rc;
	/* By its name: who removes a lock file takes the lock away, whoever he is. */
	rc = lock_name_format(lock->data_name, lock->generation, name);
	if (!rc)
		rc = nfs_session_lookup(session, &lock->dir, name, &other);
	if (rc)
		return rc == -ENOENT ? -ESTALE : rc;
	len = nfs_session_read(session, &other, 0, bytes, sizeof(bytes));
	if (len < 0)
		return (int)len;
	if (lock_record_parse(bytes, (size_t)len, &record) || record.released ||
	    memcmp(&record.owner, &lock->record.owner, sizeof(record.owner)) != 0)
		return -ESTALE;
	return 0;
}

int nfs_lock_renew(struct nfs_session *session, struct nfs_lock *lock,
		   const struct lease_times *times)
{
	char bytes[LOCK_RECORD_BYTES];
	uint64_t sent_ns;
	int rc;

	lock->record.stamp++;
	lock_record_format(&lock->record, bytes);
	/* R-F1: from when it is sent; its answer may be late. */
	sent_ns = fence_clock_ns();
	rc = nfs_session_write_stable(session, &lock->file, 0, bytes, sizeof(bytes));
	if (!rc)
		fence_renew(lock->fence, lease_valid_until_ns(times, sent_ns));
	return rc;
}

/* One lock's turn; the keeper's mutex is not held, lock->renewing is set. */
static int keep_one(struct nfs_keeper *keeper, struct nfs_lock *lock)
{
	int rc;

	if (fence_is_lost(lock->fence))
		return 0;
	if (!keeper->session) {
		rc = nfs_session_open(&keeper->place, RENEW_TIMEOUT_NS, &keeper->session, NULL);
		if (rc)
			return rc;
	}
	rc = look_again(keeper->session, lock);
	if (!rc)
		rc = nfs_lock_renew(keeper->session, lock, &keeper->times);
	if (rc == -ESTALE) {
		log_error("datastore", "the lock of '%s' is lost: this host writes no more to it",
			  lock->data_name);
		fence_lose(lock->fence);
		return 0;
	}
	return rc;
}

static void tell(struct nfs_keeper *keeper, bool renews)
{
	if (keeper->renews == renews)
		return;
	keeper->renews = renews;
	if (keeper->told)
		keeper->told(keeper->user, renews);
}

/* With the mutex, which is let go for each lock. */
static void keep_all(struct nfs_keeper *keeper)
{
	bool renews = true;

	keeper->round++;
	for (struct list *node = keeper->locks.next; node != &keeper->locks;) {
		struct nfs_lock *lock = list_entry(node, struct nfs_lock, node);
		int rc;

		if (lock->round == keeper->round) {
			node = node->next;
			continue;
		}
		lock->round = keeper->round;
		lock->renewing = true;
		pthread_mutex_unlock(&keeper->lock);
		rc = keep_one(keeper, lock);
		pthread_mutex_lock(&keeper->lock);
		lock->renewing = false;
		pthread_cond_broadcast(&keeper->changed);
		if (rc)
			renews = false;
		/* The list may have changed meanwhile: from the start, over those that are done. */
		node = keeper->locks.next;
		if (keeper->stopping)
			return;
	}
	tell(keeper, renews);
}

static void *keeper_main(void *user)
{
	struct nfs_keeper *keeper = user;

	pthread_setname_np(pthread_self(), "nfs-lease");
	pthread_mutex_lock(&keeper->lock);
	while (!keeper->stopping) {
		uint64_t begun_ns = dial_clock_ns();

		keep_all(keeper);
		sleep_until_ns(keeper, begun_ns + keeper->times.period_ns);
	}
	pthread_mutex_unlock(&keeper->lock);
	return NULL;
}

struct nfs_keeper *nfs_keeper_new(const struct nfs_place *place, const struct uuid *owner,
				  const struct lease_times *times,
				  void (*told)(void *user, bool renews), void *user)
{
	struct nfs_keeper *keeper = calloc(1, sizeof(*keeper));
	pthread_condattr_t monotonic;

	CHECK(lease_times_check(times) == 0);
	if (!keeper)
		return NULL;
	keeper->place = *place;
	keeper->owner = *owner;
	keeper->times = *times;
	keeper->told = told;
	keeper->user = user;
	keeper->renews = true;
	keeper->begun_ns = fence_clock_ns();
	if (gethostname(keeper->host, sizeof(keeper->host) - 1) < 0)
		keeper->host[0] = 0;
	list_init(&keeper->locks);
	pthread_mutex_init(&keeper->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&keeper->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&keeper->thread, NULL, keeper_main, keeper) == 0)
		return keeper;
	pthread_cond_destroy(&keeper->changed);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
	return NULL;
}

void nfs_keeper_free(struct nfs_keeper *keeper)
{
	if (!keeper)
		return;
	CHECK(list_is_empty(&keeper->locks));
	pthread_mutex_lock(&keeper->lock);
	keeper->stopping = true;
	pthread_cond_broadcast(&keeper->changed);
	pthread_mutex_unlock(&keeper->lock);
	pthread_join(keeper->thread, NULL);
	nfs_session_close(keeper->session);
	pthread_cond_destroy(&keeper->changed);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
}

struct nfs_lock *nfs_keeper_find(struct nfs_keeper *keeper, const struct nfs_handle *dir,
				 const char *data_name)
{
	list_for_each (node, &keeper->locks) {
		struct nfs_lock *lock = list_entry(node, struct nfs_lock, node);

		if (lock->dir.len == dir->len &&
		    memcmp(lock->dir.bytes, dir->bytes, dir->len) == 0 &&
		    strcmp(lock->data_name, data_name) == 0)
			return lock;
	}
	return NULL;
}

void nfs_keeper_add(struct nfs_keeper *keeper, struct nfs_lock *lock)
{
	pthread_mutex_lock(&keeper->lock);
	lock->round = keeper->round;
	list_append(&keeper->locks, &lock->node);
	pthread_mutex_unlock(&keeper->lock);
}

void nfs_keeper_remove(struct nfs_keeper *keeper, struct nfs_lock *lock)
{
	pthread_mutex_lock(&keeper->lock);
	/* A renewal that is under way must not land over what the owner writes next. */
	while (lock->renewing)
		pthread_cond_wait(&keeper->changed, &keeper->lock);
	list_remove(&lock->node);
	pthread_mutex_unlock(&keeper->lock);
}
