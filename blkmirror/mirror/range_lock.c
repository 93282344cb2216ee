/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/range_lock.h"

#define CHUNK_SHIFT 20

void range_lock_init(struct range_lock *lock)
{
	for (size_t i = 0; i < RANGE_LOCK_BUCKETS; i++)
		list_init(&lock->buckets[i]);
	list_init(&lock->wide);
	list_init(&lock->to_tell);
	lock->telling = false;
	lock->sequence = 0;
	lock->count = 0;
}

static uint64_t chunk_of(uint64_t offset_bytes)
{
	return offset_bytes >> CHUNK_SHIFT;
}

static bool is_wide(uint64_t start_bytes, uint64_t end_bytes)
{
	return chunk_of(start_bytes) != chunk_of(end_bytes - 1);
}

static struct list *bucket_of(struct range_lock *lock, uint64_t offset_bytes)
{
	return &lock->buckets[chunk_of(offset_bytes) % RANGE_LOCK_BUCKETS];
}

static struct list *home_of(struct range_lock *lock, const struct range *range)
{
	return is_wide(range->start_bytes, range->end_bytes) ? &lock->wide :
							       bucket_of(lock, range->start_bytes);
}

static bool visit_list(struct list *head, uint64_t start_bytes, uint64_t end_bytes,
		       bool (*visit)(struct range *range, void *user), void *user)
{
	list_for_each(node, head) {
		struct range *other = list_entry(node, struct range, node);

		if (other->start_bytes < end_bytes && start_bytes < other->end_bytes &&
		    !visit(other, user))
			return false;
	}
	return true;
}

bool range_lock_visit(struct range_lock *lock, uint64_t start_bytes, uint64_t end_bytes,
		      bool (*visit)(struct range *range, void *user), void *user)
{
	CHECK(start_bytes < end_bytes);
	if (!visit_list(&lock->wide, start_bytes, end_bytes, visit, user))
		return false;
	if (!is_wide(start_bytes, end_bytes))
		return visit_list(bucket_of(lock, start_bytes), start_bytes, end_bytes, visit, user);
	for (size_t i = 0; i < RANGE_LOCK_BUCKETS; i++)
		if (!visit_list(&lock->buckets[i], start_bytes, end_bytes, visit, user))
			return false;
	return true;
}

static bool stop_at_any(struct range *range, void *user)
{
	(void)range;
	(void)user;
	return false;
}

bool range_lock_overlaps(struct range_lock *lock, uint64_t start_bytes, uint64_t end_bytes)
{
	return !range_lock_visit(lock, start_bytes, end_bytes, stop_at_any, NULL);
}

static bool count_blocker(struct range *other, void *user)
{
	struct range *range = user;

	(void)other;
	range->blockers++;
	return true;
}

static void range_lock_enter(struct range_lock *lock, struct range *range)
{
	range->sequence = lock->sequence++;
	range->held = true;
	list_init(&range->tell_node);
	lock->count++;
	list_append(home_of(lock, range), &range->node);
}

bool range_lock_acquire(struct range_lock *lock, struct range *range)
{
	CHECK(!range->held);
	range->blockers = 0;
	/* Everything in the lock asked earlier. */
	range_lock_visit(lock, range->start_bytes, range->end_bytes, count_blocker, range);
	range_lock_enter(lock, range);
	return range->blockers == 0;
}

bool range_lock_try(struct range_lock *lock, struct range *range)
{
	CHECK(!range->held);
	if (range_lock_overlaps(lock, range->start_bytes, range->end_bytes))
		return false;
	range->blockers = 0;
	range_lock_enter(lock, range);
	return true;
}

struct release {
	struct range_lock *lock;
	const struct range *released;
};

static bool drop_blocker(struct range *other, void *user)
{
	struct release *release = user;

	if (other->sequence < release->released->sequence)
		return true;
	CHECK(other->blockers > 0);
	if (--other->blockers == 0)
		list_append(&release->lock->to_tell, &other->tell_node);
	return true;
}

/*
 * granted() may release and acquire: those releases only add to the list, and the outermost
 * call tells.  A range that is let go before it was told is not told.
 */
static void range_lock_tell(struct range_lock *lock)
{
	struct list *node;

	if (lock->telling)
		return;
	lock->telling = true;
	while ((node = list_pop(&lock->to_tell))) {
		struct range *range = list_entry(node, struct range, tell_node);

		range->granted(range);
	}
	lock->telling = false;
}

/* W7: those that waited for this range go on. */
void range_lock_release(struct range_lock *lock, struct range *range)
{
	struct release release = { .lock = lock, .released = range };

	CHECK(range->held);
	list_remove(&range->node);
	list_remove(&range->tell_node);
	range->held = false;
	lock->count--;
	range_lock_visit(lock, range->start_bytes, range->end_bytes, drop_blocker, &release);
	range_lock_tell(lock);
}
