/* SPDX-License-Identifier: Apache-2.0 */
/* nfs_lock.c - take a disk's lock file, give it back, break it (R-F4). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "datastores/nfs_keeper_private.h"

/* So often another may be faster than we; then the disk is in use. */
#define RACES_MAX 8
#define STEP_MS 500u

/* ---- what is there ---- */

struct sight {
	const char *data_name;
	uint64_t highest;               /* 0: no lock file */
};

static int see(const char *name, const struct nfs_attributes *attributes, void *user)
{
	struct sight *sight = user;

	(void)attributes;
	sight->highest = MAX(sight->highest, lock_name_generation(name, sight->data_name));
	return 0;
}

static int find_highest(const struct nfs_claim *claim, uint64_t *out)
{
	struct sight sight = { .data_name = claim->data_name };
	int rc = nfs_session_list(claim->session, claim->dir, see, &sight);

	*out = sight.highest;
	return rc;
}

enum holder_kind { HOLDER_NONE, HOLDER_RELEASED, HOLDER_US, HOLDER_OTHER };

struct holder {
	enum holder_kind kind;
	uint64_t generation;
	bool readable;
	struct lock_record record;
	uint64_t stamp;
};

/* -ENOENT: it has gone since the listing. */
static int look(struct nfs_keeper *keeper, const struct nfs_claim *claim, struct holder *out)
{
	char name[DS_FILE_NAME_BYTES], bytes[LOCK_RECORD_BYTES];
	struct nfs_handle file;
	int64_t len;
	int rc;

	*out = (struct holder){ .kind = HOLDER_NONE };
	rc = find_highest(claim, &out->generation);
	if (rc || !out->generation)
		return rc;
	rc = lock_name_format(claim->data_name, out->generation, name);
	if (!rc)
		rc = nfs_session_lookup(claim->session, claim->dir, name, &file);
	if (rc)
		return rc;
	len = nfs_session_read(claim->session, &file, 0, bytes, sizeof(bytes));
	if (len < 0)
		return (int)len;
	out->readable = lock_record_parse(bytes, (size_t)len, &out->record) == 0;
	out->stamp = lock_record_stamp(out->generation, bytes, (size_t)len);
	if (out->readable && out->record.released)
		out->kind = HOLDER_RELEASED;
	else if (out->readable &&
		 memcmp(&out->record.owner, &keeper->owner, sizeof(keeper->owner)) == 0)
		out->kind = HOLDER_US;
	else
		out->kind = HOLDER_OTHER;
	return 0;
}

static struct lease_watch *watch_of(struct nfs_keeper *keeper, const struct nfs_claim *claim)
{
	struct keeper_watch *oldest = &keeper->watches[0];

	for (unsigned i = 0; i < KEEPER_WATCHES; i++) {
		struct keeper_watch *watch = &keeper->watches[i];

		if (watch->watch.seen && watch->dir.len == claim->dir->len &&
		    memcmp(watch->dir.bytes, claim->dir->bytes, watch->dir.len) == 0 &&
		    strcmp(watch->data_name, claim->data_name) == 0) {
			watch->used = ++keeper->watch_uses;
			return &watch->watch;
		}
		if (watch->used < oldest->used)
			oldest = watch;
	}
	*oldest = (struct keeper_watch){ .dir = *claim->dir, .used = ++keeper->watch_uses };
	snprintf(oldest->data_name, sizeof(oldest->data_name), "%s", claim->data_name);
	return &oldest->watch;
}

/* How long until the lock may be taken; 0: now. */
static uint64_t wait_ns(struct nfs_keeper *keeper, const struct nfs_claim *claim,
			const struct holder *holder)
{
	uint64_t now_ns = fence_clock_ns();
	uint64_t claimed_ns = holder->readable ? holder->record.lease_ms * NS_PER_MS : 0;
	uint64_t settled_ns;

	switch (holder->kind) {
	case HOLDER_OTHER:
		return lease_watch_note(watch_of(keeper, claim), &keeper->times, holder->stamp,
					claimed_ns, now_ns);
	case HOLDER_US:
		/* R3: our former life is dead; what it sent lands within this or never. */
		settled_ns = keeper->begun_ns + keeper->times.wire_ns + keeper->times.server_ns;
		return now_ns < settled_ns ? settled_ns - now_ns : 0;
	case HOLDER_NONE:
	case HOLDER_RELEASED:
		break;
	}
	return 0;
}

static int in_use(const struct nfs_claim *claim, const struct holder *holder, uint64_t left_ns,
		  struct err *err)
{
	char owner[UUID_TEXT_BYTES] = "";
	unsigned long long left_s = div_round_up(left_ns, NS_PER_S);

	if (holder->kind == HOLDER_US)
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "'%.120s' was locked by this host's former daemon; what that one sent "
			       "may land for %llu s still", claim->path, left_s);
	if (!holder->readable)
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "'%.120s' is locked by a host that cannot be told; its lock is dead if "
			       "it stays as it is for %llu s", claim->path, left_s);
	return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
		       "'%.120s' is locked by the host '%s' (%s); its lock is dead if it stays as it "
		       "is for %llu s", claim->path, holder->record.host,
		       uuid_format(&holder->record.owner, owner), left_s);
}

/* ---- take ---- */

static struct nfs_lock *lock_new(struct nfs_keeper *keeper, const struct nfs_claim *claim,
				 uint64_t generation)
{
	struct nfs_lock *lock = calloc(1, sizeof(*lock));

	if (!lock)
		return NULL;
	lock->fence = fence_new();
	if (!lock->fence) {
		free(lock);
		return NULL;
	}
	lock->keeper = keeper;
	lock->dir = *claim->dir;
	lock->generation = generation;
	lock->readers = claim->shared;
	snprintf(lock->data_name, sizeof(lock->data_name), "%s", claim->data_name);
	lock->record = (struct lock_record){
		.owner = keeper->owner,
		.lease_ms = (uint32_t)(keeper->times.lease_ns / NS_PER_MS),
	};
	snprintf(lock->record.host, sizeof(lock->record.host), "%s", keeper->host);
	list_init(&lock->node);
	return lock;
}

static void lock_free(struct nfs_lock *lock)
{
	fence_put(lock->fence);
	free(lock);
}

static int remove_generation(struct nfs_session *session, const struct nfs_handle *dir,
			     const char *data_name, uint64_t generation)
{
	char name[DS_FILE_NAME_BYTES];
	int rc = lock_name_format(data_name, generation, name);

	return rc ? rc : nfs_session_remove(session, dir, name);
}

/*
 * The next generation, ours if the create succeeds.  -EEXIST: somebody was faster; the caller looks
 * again.  The one that was counted from must still be there: a disk that is deleted takes its
 * lock files with it, and whoever makes it anew counts from one.
 */
static int create_next(const struct nfs_claim *claim, uint64_t from, struct nfs_handle *out)
{
	char name[DS_FILE_NAME_BYTES];
	struct nfs_handle before;
	uint64_t cookie, highest = 0;
	struct uuid random;
	int rc = lock_name_format(claim->data_name, from + 1, name);

	if (rc)
		return rc;
	random = uuid_random();
	memcpy(&cookie, random.bytes, sizeof(cookie));
	rc = nfs_session_create_exclusive(claim->session, claim->dir, name, cookie, out);
	if (rc)
		return rc;
	rc = find_highest(claim, &highest);
	if (!rc && from) {
		rc = lock_name_format(claim->data_name, from, name);
		if (!rc)
			rc = nfs_session_lookup(claim->session, claim->dir, name, &before);
		if (rc == -ENOENT)
			highest = 0;
	}
	if (highest == from + 1)
		return 0;
	(void)remove_generation(claim->session, claim->dir, claim->data_name, from + 1);
	return rc && rc != -ENOENT ? rc : -EEXIST;
}

struct older {
	const char *data_name;
	uint64_t below;
	unsigned count;
	uint64_t generations[32];
};

static int see_older(const char *name, const struct nfs_attributes *attributes, void *user)
{
	struct older *older = user;
	uint64_t generation = lock_name_generation(name, older->data_name);

	(void)attributes;
	if (generation && generation < older->below && older->count < ARRAY_COUNT(older->generations))
		older->generations[older->count++] = generation;
	return 0;
}

/* Our own older files go; what is another's stays (R-F4).  What cannot be told, too. */
static void remove_older(struct nfs_keeper *keeper, const struct nfs_claim *claim,
			 uint64_t below)
{
	struct older older = { .data_name = claim->data_name, .below = below };
	char name[DS_FILE_NAME_BYTES], bytes[LOCK_RECORD_BYTES];

	if (nfs_session_list(claim->session, claim->dir, see_older, &older))
		return;
	for (unsigned i = 0; i < older.count; i++) {
		struct lock_record record;
		struct nfs_handle file;
		int64_t len;

		if (lock_name_format(claim->data_name, older.generations[i], name) ||
		    nfs_session_lookup(claim->session, claim->dir, name, &file))
			continue;
		len = nfs_session_read(claim->session, &file, 0, bytes, sizeof(bytes));
		if (len >= 0 && lock_record_parse(bytes, (size_t)len, &record) == 0 &&
		    uuid_equal(&record.owner, &keeper->owner))
			(void)remove_generation(claim->session, claim->dir, claim->data_name,
						older.generations[i]);
	}
}

static int take_next(struct nfs_keeper *keeper, const struct nfs_claim *claim,
		     const struct holder *holder, struct nfs_lock **out)
{
	struct nfs_lock *lock = lock_new(keeper, claim, holder->generation + 1);
	int rc;

	if (!lock)
		return -ENOMEM;
	rc = create_next(claim, holder->generation, &lock->file);
	if (!rc)
		rc = nfs_lock_renew(claim->session, lock, &keeper->times);
	if (rc) {
		lock_free(lock);
		return rc;
	}
	if (holder->kind == HOLDER_OTHER)
		log_warn("datastore", "'%s': the lock of '%s' was taken over: silent for a lease",
			 claim->path, holder->record.host);
	if (holder->generation)
		remove_older(keeper, claim, lock->generation);
	nfs_keeper_add(keeper, lock);
	*out = lock;
	return 0;
}

/* Another open of this very daemon. */
static int join(struct nfs_lock *lock, const struct nfs_claim *claim, struct nfs_lock **out,
		struct err *err)
{
	if (!lock->readers || !claim->shared)
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN, "'%.160s' is in use by this daemon",
			       claim->path);
	lock->readers++;
	*out = lock;
	return 0;
}

static int take_failed(const struct nfs_claim *claim, int rc, struct err *err)
{
	return nfs_fail(err, rc, "lock", claim->path);
}

/* 1: not yet; *left_ns says how long. */
static int try_once(struct nfs_keeper *keeper, const struct nfs_claim *claim,
		    struct holder *holder, uint64_t *left_ns, struct nfs_lock **out)
{
	for (int race = 0; race < RACES_MAX; race++) {
		int rc = look(keeper, claim, holder);

		if (rc == -ENOENT)
			continue;
		if (rc)
			return rc;
		*left_ns = wait_ns(keeper, claim, holder);
		if (*left_ns)
			return 1;
		rc = take_next(keeper, claim, holder, out);
		if (rc != -EEXIST)
			return rc;
	}
	*left_ns = keeper->times.lease_ns;
	return 1;
}

int nfs_lock_take(struct nfs_keeper *keeper, const struct nfs_claim *claim, struct nfs_lock **out,
		  struct err *err)
{
	struct nfs_lock *ours = nfs_keeper_find(keeper, claim->dir, claim->data_name);
	uint64_t deadline_ns = dial_clock_ns() + claim->wait_ms * NS_PER_MS;
	struct holder holder;
	uint64_t left_ns = 0;
	int rc;

	if (ours)
		return join(ours, claim, out, err);
	for (;;) {
		uint64_t now_ns;

		rc = try_once(keeper, claim, &holder, &left_ns, out);
		if (rc <= 0)
			return rc ? take_failed(claim, rc, err) : 0;
		now_ns = dial_clock_ns();
		/* Our own former life is waited for in any case: it is bounded, and nobody else's. */
		if (holder.kind != HOLDER_US &&
		    (now_ns >= deadline_ns || left_ns > deadline_ns - now_ns))
			return in_use(claim, &holder, left_ns, err);
		left_ns = MIN(left_ns, STEP_MS * NS_PER_MS);
		nanosleep(&(struct timespec){ .tv_sec = (time_t)(left_ns / NS_PER_S),
					      .tv_nsec = (long)(left_ns % NS_PER_S) }, NULL);
	}
}

/* ---- give back ---- */

static void say_released(struct nfs_lock *lock, struct nfs_session *session)
{
	char bytes[LOCK_RECORD_BYTES];
	int rc;

	lock->record.released = true;
	lock->record.stamp++;
	lock_record_format(&lock->record, bytes);
	rc = nfs_session_write_stable(session, &lock->file, 0, bytes, sizeof(bytes));
	if (rc)
		log_warn("datastore", "the lock of '%s' cannot be given back and runs out: %s",
			 lock->data_name, err_strerror(rc));
}

static int see_lower(const char *name, const struct nfs_attributes *attributes, void *user)
{
	struct sight *sight = user;
	uint64_t generation = lock_name_generation(name, sight->data_name);

	(void)attributes;
	/* Kept for the next look: one at a time is enough for what is rare. */
	if (generation && generation < sight->highest) {
		sight->highest = generation;
		return 1;
	}
	return 0;
}

/*
 * The disk is gone: so are those who counted up to us.  Ours goes last, while it still says
 * "held": nobody counts on from it before it is gone.
 */
static void remove_all(struct nfs_lock *lock, struct nfs_session *session)
{
	int rc;

	do {
		struct sight sight = { lock->data_name, lock->generation };

		rc = nfs_session_list(session, &lock->dir, see_lower, &sight);
		if (rc == 1)
			rc = remove_generation(session, &lock->dir, lock->data_name,
					       sight.highest) ? -EIO : 1;
	} while (rc == 1);
	(void)remove_generation(session, &lock->dir, lock->data_name, lock->generation);
}

void nfs_lock_release(struct nfs_lock *lock, struct nfs_session *session, bool gone,
		      uint64_t unsettled_until_ns)
{
	if (lock->readers > 1) {
		lock->readers--;
		return;
	}
	nfs_keeper_remove(lock->keeper, lock);
	if (!fence_is_open(lock->fence))
		log_warn("datastore", "the lock of '%s' has lapsed: it is left as it is",
			 lock->data_name);
	else if (gone)
		remove_all(lock, session);
	else if (fence_clock_ns() < unsettled_until_ns)
		log_warn("datastore", "the lock of '%s' is left to run out: what was sent may still"
				      " land", lock->data_name);
	else
		say_released(lock, session);
	fence_lose(lock->fence);        /* for a device that should still be there */
	lock_free(lock);
}

struct fence *nfs_lock_fence(struct nfs_lock *lock)
{
	return lock->fence;
}

/* ---- break ---- */

int nfs_lock_break(struct nfs_keeper *keeper, const struct nfs_claim *claim, struct err *err)
{
	struct holder holder;
	struct nfs_lock *lock;
	int rc;

	if (nfs_keeper_find(keeper, claim->dir, claim->data_name))
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN, "'%.160s' is in use by this daemon",
			       claim->path);
	rc = look(keeper, claim, &holder);
	if (rc && rc != -ENOENT)
		return take_failed(claim, rc, err);
	if (rc || holder.kind == HOLDER_NONE || holder.kind == HOLDER_RELEASED)
		return 0;
	rc = take_next(keeper, claim, &holder, &lock);
	if (rc)
		return take_failed(claim, rc, err);
	log_warn("datastore", "'%s': the lock of '%s' was broken by the operator", claim->path,
		 holder.readable ? holder.record.host : "an unknown host");
	nfs_lock_release(lock, claim->session, false, 0);
	return 0;
}
