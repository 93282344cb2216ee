/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_lock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/list.h"
#include "blkmirror/base/log.h"
#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "datastores/iscsi_pr.h"

/* Of each command of the heart: a renewal that takes longer is not worth waiting for. */
#define COMMAND_NS (4 * NS_PER_S)
#define CONNECT_NS (8 * NS_PER_S)
/* The keys of a device's sessions have this bit, the heart's have not. */
#define SESSION_KEY_BIT UINT64_C(0x80000000)

struct iscsi_lock {
	struct iscsi_place place;
	struct lease_times times;
	struct list node;               /* of the units that this process has */
	int stop_fd, kick_fd;           /* the second: a beat is wanted now */
	pthread_t thread;
	/* The heart's, or of who takes and releases the lock. */
	struct iscsi_link *link;        /* NULL: lost, to be made again */
	uint64_t key;                   /* registered, as far as it is known */
	uint32_t generation;            /* of the unit's registrations, after the last beat */
	/* Everybody's. */
	atomic_uint_least64_t valid_until_ns;
	atomic_bool lost;
};

static pthread_mutex_t taken_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list taken = LIST_INIT(taken);

static uint64_t boot_now_ns(void)
{
	struct timespec now;

	CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static struct iscsi_pr pr_of(const struct iscsi_lock *lock, struct iscsi_link *link)
{
	return (struct iscsi_pr){ link, lock->place.lun, COMMAND_NS };
}

static uint32_t host_of(uint64_t key)
{
	return (uint32_t)(key >> 32);
}

bool iscsi_lock_may_write(const struct iscsi_lock *lock)
{
	return !iscsi_lock_is_lost(lock) &&
	       lease_may_send(atomic_load(&lock->valid_until_ns), boot_now_ns());
}

bool iscsi_lock_is_lost(const struct iscsi_lock *lock)
{
	return atomic_load(&lock->lost);
}

/* ---- who has what, in this process ---- */

static int lock_claim(struct iscsi_lock *lock, struct err *err)
{
	bool is_taken = false;

	pthread_mutex_lock(&taken_mutex);
	list_for_each(node, &taken) {
		const struct iscsi_lock *other = list_entry(node, struct iscsi_lock, node);

		is_taken = is_taken || (other->place.lun == lock->place.lun &&
					strcmp(other->place.iqn, lock->place.iqn) == 0);
	}
	if (!is_taken)
		list_append(&taken, &lock->node);
	pthread_mutex_unlock(&taken_mutex);
	return is_taken ? err_set(err, ERR_DISK_IN_USE, -EAGAIN,
				  "lun%u of %s is in use by this daemon", lock->place.lun,
				  lock->place.iqn) : 0;
}

static void lock_unclaim(struct iscsi_lock *lock)
{
	pthread_mutex_lock(&taken_mutex);
	list_remove(&lock->node);
	pthread_mutex_unlock(&taken_mutex);
}

/* ---- taking ---- */

/* All keys of one host but `except` lose their registrations, and the reservation with them. */
static int purge(const struct iscsi_pr *pr, uint64_t own, uint32_t host, uint64_t except,
		 struct err *err)
{
	struct iscsi_keys keys;
	int rc = iscsi_pr_keys(pr, &keys, err);

	for (size_t i = 0; !rc && i < keys.count; i++) {
		bool again = false;

		for (size_t k = 0; k < i; k++)
			again = again || keys.keys[k] == keys.keys[i];
		if (again || keys.keys[i] == own || keys.keys[i] == except ||
		    host_of(keys.keys[i]) != host)
			continue;
		rc = iscsi_pr_preempt(pr, own, keys.keys[i], err);
	}
	return rc;
}

/* The reservation is another's: is he dead?  0: yes, or nobody's or ours. */
static int judge_holder(struct iscsi_lock *lock, const struct iscsi_pr *pr,
			struct iscsi_key_watch *watch, uint32_t *holder, struct err *err)
{
	struct iscsi_reservation reservation;
	uint64_t sent_ns = boot_now_ns();
	int rc = iscsi_pr_holder(pr, &reservation, err);

	*holder = 0;
	if (rc || !reservation.held)
		return rc;
	*holder = host_of(reservation.key);
	if (reservation.type != ISCSI_RESERVATION_TYPE)
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "lun%u of %s is reserved by a program that is no blkmirror (type %u,"
			       " key %016llx)", lock->place.lun, lock->place.iqn,
			       reservation.type, (unsigned long long)reservation.key);
	if (*holder == host_of(lock->key))
		return 0;
	if (iscsi_key_watch_see(watch, reservation.key, sent_ns, boot_now_ns(),
				lock->times.lease_ns)) {
		log_warn("iscsi", "lun%u of %s: host %08x has not been heard of for a whole lease:"
			 " its lock is taken over", lock->place.lun, lock->place.iqn, *holder);
		return 0;
	}
	return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
		       "lun%u of %s is in use by host %08x; if that host is dead, its lock is free"
		       " %u s after the first try", lock->place.lun, lock->place.iqn, *holder,
		       (unsigned)(lock->times.lease_ns / NS_PER_S));
}

/*
 * Register the heart, shut out who had the unit (none of them can write from here on), then
 * hold it.  holder 0: nobody.
 */
static int seize(struct iscsi_lock *lock, const struct iscsi_pr *pr, uint32_t holder,
		 struct err *err)
{
	struct iscsi_reservation reservation;
	int rc = iscsi_pr_register(pr, 0, lock->key, err);

	if (!rc && holder && holder != host_of(lock->key))
		rc = purge(pr, lock->key, holder, 0, err);
	if (!rc)
		rc = purge(pr, lock->key, host_of(lock->key), 0, err);
	rc = rc ? rc : iscsi_pr_holder(pr, &reservation, err);
	if (!rc && (!reservation.held || reservation.key != lock->key))
		rc = iscsi_pr_reserve(pr, lock->key, err);
	if (rc == -EBADE)
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "lun%u of %s has just been taken by another host", lock->place.lun,
			       lock->place.iqn);
	return rc;
}

/* What the unit's counter says now: see lock_retake(). */
static int note_generation(struct iscsi_lock *lock, const struct iscsi_pr *pr, struct err *err)
{
	struct iscsi_keys keys;
	int rc = iscsi_pr_keys(pr, &keys, err);

	if (!rc)
		lock->generation = keys.generation;
	return rc;
}

static int take(struct iscsi_lock *lock, struct iscsi_key_watch *watch, struct err *err)
{
	uint64_t sent_ns = boot_now_ns();
	struct iscsi_pr pr;
	uint32_t holder;
	int rc = iscsi_place_connect(&lock->place, 0, CONNECT_NS, &lock->link, err);

	if (rc)
		return rc;
	pr = pr_of(lock, lock->link);
	rc = iscsi_link_ready(lock->link, lock->place.lun, COMMAND_NS, err);
	rc = rc ? rc : judge_holder(lock, &pr, watch, &holder, err);
	rc = rc ? rc : seize(lock, &pr, holder, err);
	rc = rc ? rc : note_generation(lock, &pr, err);
	if (!rc)
		atomic_store(&lock->valid_until_ns, lease_valid_until_ns(&lock->times, sent_ns));
	return rc;
}

/* ---- the heart ---- */

static void lock_lose(struct iscsi_lock *lock, const char *why)
{
	if (!atomic_exchange(&lock->lost, true))
		log_error("iscsi", "lun%u of %s: the lock is lost, nothing is written any more: %s",
			  lock->place.lun, lock->place.iqn, why);
}

/*
 * R-F3.  After a loss of the session: is the unit still ours?  A reservation that is gone while
 * the unit's counter of registrations went on was broken and given back: then somebody has
 * written.  A counter that began anew tells that the target forgot everything.
 */
static int lock_retake(struct iscsi_lock *lock, struct err *err)
{
	struct iscsi_pr pr = pr_of(lock, lock->link);
	struct iscsi_reservation reservation;
	struct iscsi_keys keys;
	int rc = iscsi_link_ready(lock->link, lock->place.lun, COMMAND_NS, err);

	rc = rc ? rc : iscsi_pr_holder(&pr, &reservation, err);
	rc = rc ? rc : iscsi_pr_keys(&pr, &keys, err);
	if (rc)
		return rc;
	if (reservation.held && !iscsi_key_same_host(reservation.key, lock->key)) {
		lock_lose(lock, "another host has taken it");
		return -EBADE;
	}
	if (!reservation.held && keys.generation >= lock->generation) {
		lock_lose(lock, "it was broken while this host was away");
		return -EBADE;
	}
	/* Should this be cut short, what it did itself must not be taken for another's doing. */
	if (!reservation.held)
		lock->generation = keys.generation + 1;
	lock->key = iscsi_key_next(lock->key) & ~SESSION_KEY_BIT;
	rc = iscsi_pr_register(&pr, 0, lock->key, err);
	if (!reservation.held && (!rc || err->id == ERR_ISCSI_CONNECT))
		lock->generation++;
	if (!rc && reservation.held)    /* moves the reservation to this session */
		rc = iscsi_pr_preempt(&pr, lock->key, reservation.key, err);
	else if (!rc)
		rc = iscsi_pr_reserve(&pr, lock->key, err);
	return rc ? rc : note_generation(lock, &pr, err);
}

static int lock_renew(struct iscsi_lock *lock, struct err *err)
{
	struct iscsi_pr pr = pr_of(lock, lock->link);
	uint64_t next = iscsi_key_next(lock->key) & ~SESSION_KEY_BIT;
	int rc = iscsi_pr_register(&pr, lock->key, next, err);

	if (!rc) {
		lock->key = next;
		rc = note_generation(lock, &pr, err);
	}
	return rc;
}

static int lock_connect_and_retake(struct iscsi_lock *lock, uint64_t *sent_ns, struct err *err)
{
	int rc = iscsi_place_connect(&lock->place, lock->stop_fd, CONNECT_NS, &lock->link, err);

	if (rc) {
		lock->link = NULL;
		return rc;
	}
	/* Of the connecting, nothing proves the lock: the questions do. */
	*sent_ns = boot_now_ns();
	return lock_retake(lock, err);
}

/* One beat.  Whatever fails ends the session, and a new one judges the unit anew. */
static bool lock_beat(struct iscsi_lock *lock)
{
	uint64_t sent_ns = boot_now_ns();
	struct err err = { 0 };
	int rc = -ENOTCONN;

	if (lock->link) {
		rc = lock_renew(lock, &err);
		if (rc) {
			iscsi_link_free(lock->link);
			lock->link = NULL;
		}
	}
	if (rc)
		rc = lock_connect_and_retake(lock, &sent_ns, &err);
	if (!rc) {
		atomic_store(&lock->valid_until_ns, lease_valid_until_ns(&lock->times, sent_ns));
		return true;
	}
	if (!iscsi_lock_is_lost(lock) && rc != -ECANCELED)
		log_warn("iscsi", "lun%u of %s: the lock was not renewed: %s", lock->place.lun,
			 lock->place.iqn, err.cause);
	iscsi_link_free(lock->link);
	lock->link = NULL;
	return false;
}

static void *lock_heart(void *user)
{
	struct iscsi_lock *lock = user;
	struct pollfd pollers[2] = { { .fd = lock->stop_fd, .events = POLLIN },
				     { .fd = lock->kick_fd, .events = POLLIN } };
	uint64_t wait_ns = lock->times.period_ns, kicks;

	while (!iscsi_lock_is_lost(lock)) {
		int rc = poll(pollers, 2, (int)(wait_ns / NS_PER_MS));

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0 || pollers[0].revents)
			break;
		if (pollers[1].revents)
			(void)!read(lock->kick_fd, &kicks, sizeof(kicks));
		/* A beat that failed is tried again soon: a session may just have ended. */
		wait_ns = lock_beat(lock) ? lock->times.period_ns : lock->times.period_ns / 6;
	}
	return NULL;
}

/* ---- the life of a lock ---- */

static void lock_close(struct iscsi_lock *lock)
{
	iscsi_link_free(lock->link);
	if (lock->stop_fd >= 0)
		close(lock->stop_fd);
	if (lock->kick_fd >= 0)
		close(lock->kick_fd);
	free(lock);
}

static struct iscsi_lock *lock_new(const struct iscsi_place *place, const struct lease_times *times)
{
	struct iscsi_lock *lock = calloc(1, sizeof(*lock));

	if (!lock)
		return NULL;
	lock->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lock->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lock->stop_fd < 0 || lock->kick_fd < 0) {
		lock_close(lock);
		return NULL;
	}
	lock->place = *place;
	lock->times = *times;
	lock->key = iscsi_key_first(place->host_uuid);
	list_init(&lock->node);
	return lock;
}

int iscsi_lock_take(const struct iscsi_place *place, const struct lease_times *times,
		    struct iscsi_key_watch *watch, struct iscsi_lock **out, struct err *err)
{
	struct iscsi_lock *lock = lock_new(place, times);
	int rc;

	CHECK(lease_times_check(times) == 0);
	if (!lock)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot lock lun%u", place->lun);
	rc = lock_claim(lock, err);
	if (rc)
		goto free_lock;
	rc = take(lock, watch, err);
	if (rc == -EOPNOTSUPP) {
		log_warn("iscsi", "lun%u of %s knows no persistent reservations: another host can"
			 " write to it", place->lun, place->iqn);
		err_clear(err);
		*out = NULL;
		rc = 0;
		goto unclaim;
	}
	if (rc)
		goto unclaim;
	rc = -pthread_create(&lock->thread, NULL, lock_heart, lock);
	if (rc) {
		rc = err_set(err, ERR_NO_MEMORY, rc, "cannot lock lun%u: %s", place->lun,
			     err_strerror(rc));
		goto unclaim;
	}
	*out = lock;
	return 0;

unclaim:
	lock_unclaim(lock);
free_lock:
	lock_close(lock);
	return rc;
}

void iscsi_lock_release(struct iscsi_lock *lock)
{
	uint64_t stops = 1;
	struct err err = { 0 };
	struct iscsi_pr pr;
	int rc = 0;

	if (!lock)
		return;
	CHECK(write(lock->stop_fd, &stops, sizeof(stops)) == sizeof(stops));
	pthread_join(lock->thread, NULL);
	/* A session that the heart made looks at it wherever it waits, also for what follows. */
	CHECK(read(lock->stop_fd, &stops, sizeof(stops)) == sizeof(stops));
	if (lock->link && !iscsi_lock_is_lost(lock)) {
		pr = pr_of(lock, lock->link);
		/* The device's sessions are gone: nobody else takes their keys from the list. */
		rc = purge(&pr, lock->key, host_of(lock->key), 0, &err);
		rc = rc ? rc : iscsi_pr_release(&pr, lock->key, &err);
		rc = rc ? rc : iscsi_pr_register(&pr, lock->key, 0, &err);
	}
	if (rc)
		log_warn("iscsi", "lun%u of %s: the lock was not given back, and ends with its lease:"
			 " %s", lock->place.lun, lock->place.iqn, err.cause);
	lock_unclaim(lock);
	lock_close(lock);
}

/* ---- a device's sessions ---- */

static int random_session_key(const struct iscsi_lock *lock, uint64_t *key, struct err *err)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_set(err, ERR_INTERNAL, -EIO, "the kernel gives no random numbers");
	*key = iscsi_key_first(lock->place.host_uuid) | SESSION_KEY_BIT | (random >> 1);
	return 0;
}

/* The heart may not have noticed yet: it looks now, not at its next beat. */
static int not_held(struct iscsi_lock *lock, struct err *err)
{
	const uint64_t one = 1;

	CHECK(write(lock->kick_fd, &one, sizeof(one)) == sizeof(one));
	return err_set(err, ERR_ISCSI_FENCED, -EAGAIN,
		       "lun%u is not held by this host at present", lock->place.lun);
}

int iscsi_lock_join(struct iscsi_lock *lock, struct iscsi_link *const *links, size_t count,
		    uint64_t *key, struct err *err)
{
	struct iscsi_pr pr = pr_of(lock, links[0]);
	struct iscsi_reservation reservation;
	uint64_t old = *key, fresh = 0;
	struct iscsi_keys keys;
	int rc;

	if (iscsi_lock_is_lost(lock))
		return err_set(err, ERR_ISCSI_FENCED, -EBADE, "another host has taken lun%u",
			       lock->place.lun);
	rc = iscsi_pr_holder(&pr, &reservation, err);
	if (rc)
		return rc;
	if (!reservation.held || !iscsi_lock_may_write(lock) ||
	    !iscsi_key_same_host(reservation.key, iscsi_key_first(lock->place.host_uuid)))
		return not_held(lock, err);
	rc = random_session_key(lock, &fresh, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < count && !rc; i++) {
		pr.link = links[i];
		rc = iscsi_pr_register(&pr, 0, fresh, err);
	}
	rc = rc ? rc : iscsi_pr_keys(&pr, &keys, err);
	/* R3: what the old sessions may still deliver is refused from here on. */
	if (!rc && old && iscsi_keys_has(&keys, old))
		rc = iscsi_pr_preempt(&pr, fresh, old, err);
	if (!rc)
		*key = fresh;
	return rc == -EBADE ? not_held(lock, err) : rc;
}

/* ---- the operator ---- */

static int break_holder(const struct iscsi_lock *lock, bool *broken, struct err *err)
{
	struct iscsi_pr pr = pr_of(lock, lock->link);
	struct iscsi_reservation reservation;
	/* A key of this host that nothing else uses. */
	uint64_t key = iscsi_key_first(lock->place.host_uuid) | (SESSION_KEY_BIT - 1);
	int rc = iscsi_link_ready(lock->link, lock->place.lun, COMMAND_NS, err);

	rc = rc ? rc : iscsi_pr_holder(&pr, &reservation, err);
	if (rc || !reservation.held)
		return rc;
	*broken = true;
	rc = iscsi_pr_register(&pr, 0, key, err);
	rc = rc ? rc : iscsi_pr_preempt(&pr, key, reservation.key, err);
	rc = rc ? rc : purge(&pr, key, host_of(reservation.key), 0, err);
	rc = rc ? rc : iscsi_pr_release(&pr, key, err);
	return rc ? rc : iscsi_pr_register(&pr, key, 0, err);
}

int iscsi_lock_break(const struct iscsi_place *place, bool *broken, struct err *err)
{
	struct iscsi_lock *lock = lock_new(place, &lease_times_default);
	int rc;

	*broken = false;
	if (!lock)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot unlock lun%u", place->lun);
	rc = lock_claim(lock, err);     /* this daemon's own lock is not broken */
	if (!rc) {
		rc = iscsi_place_connect(place, 0, CONNECT_NS, &lock->link, err);
		rc = rc ? rc : break_holder(lock, broken, err);
		lock_unclaim(lock);
	}
	lock_close(lock);
	return rc;
}
