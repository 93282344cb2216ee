/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/nfs_recovery.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"

#define ATTEMPT_NS (3 * NS_PER_S)
#define PAUSE_FIRST_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (2 * NS_PER_S)
#define WAIT_STEP_NS NS_PER_S

struct nfs_recovery {
	struct nfs_recovery_spec spec;
	char name[NFS_SHOWN_BYTES];
	struct fence *fence;
	struct list kept;
	struct nfs_link links[NFS_LINKS_MAX];
	uint8_t *zeroes;                /* write_bytes of them */
	struct loop *loop;
	struct task task;
	void (*done)(void *user, struct nfs_recovered *result);
	void *user;
	struct nfs_recovered result;
	pthread_mutex_t lock;           /* of cancelled against the sending of the message */
	atomic_bool cancelled;
	atomic_uint users;              /* the device, the thread, a message under way */
};

void nfs_kept_free_all(struct list *kept)
{
	struct list *node;

	while ((node = list_pop(kept)))
		free(list_entry(node, struct nfs_kept, node));
}

static void recovery_close_links(struct nfs_recovery *recovery)
{
	for (unsigned i = 0; i < recovery->spec.link_count; i++)
		nfs_link_close(&recovery->links[i]);
}

static void recovery_put(struct nfs_recovery *recovery)
{
	if (atomic_fetch_sub(&recovery->users, 1) > 1)
		return;
	recovery_close_links(recovery);
	nfs_kept_free_all(&recovery->kept);
	fence_put(recovery->fence);
	pthread_mutex_destroy(&recovery->lock);
	free(recovery->zeroes);
	free(recovery);
}

static bool has_ended(const struct nfs_recovery *recovery)
{
	return recovery->cancelled || fence_is_lost(recovery->fence);
}

static void wait_until_ns(struct nfs_recovery *recovery, uint64_t until_ns)
{
	uint64_t now_ns;

	while (!has_ended(recovery) && (now_ns = dial_clock_ns()) < until_ns)
		fence_wait(recovery->fence, MIN(until_ns - now_ns, WAIT_STEP_NS));
}

/* ---- blocking calls on the first link ---- */

struct written {
	uint32_t count;
	writeverf3 verifier;
};

static void take_commit(struct nfs_call *call, const void *data)
{
	memcpy(call->out, ((const COMMIT3res *)data)->COMMIT3res_u.resok.verf, sizeof(writeverf3));
}

static void take_write(struct nfs_call *call, const void *data)
{
	const WRITE3resok *answer = &((const WRITE3res *)data)->WRITE3res_u.resok;
	struct written *written = call->out;

	written->count = answer->count;
	memcpy(written->verifier, answer->verf, sizeof(written->verifier));
}

static int run(struct nfs_recovery *recovery, struct nfs_call *call, int queued)
{
	int rc = queued ? -ENOMEM
			: nfs_link_run(&recovery->links[0], &call->done,
				       dial_clock_ns() + ATTEMPT_NS);

	if (rc) {
		/* Tells the call, which is on our stack. */
		recovery_close_links(recovery);
		return rc;
	}
	return call->rc;
}

static int commit(struct nfs_recovery *recovery, writeverf3 verifier)
{
	struct nfs_call call = { .take = take_commit, .out = verifier };
	COMMIT3args args = { .file = nfs_fh3_of(&recovery->spec.file) };

	return run(recovery, &call,
		   rpc_nfs3_commit_async(recovery->links[0].rpc, nfs_call_answered, &args, &call));
}

static int write_again(struct nfs_recovery *recovery, const struct nfs_kept *kept,
		       const writeverf3 verifier)
{
	uint32_t done_bytes = 0;

	while (done_bytes < kept->len_bytes) {
		uint32_t part_bytes = kept->len_bytes - done_bytes;
		struct written written = { 0 };
		struct nfs_call call = { .take = take_write, .out = &written };
		WRITE3args args = { .file = nfs_fh3_of(&recovery->spec.file),
				    .offset = kept->offset_bytes + done_bytes,
				    .count = part_bytes, .stable = UNSTABLE };
		const uint8_t *bytes = kept->zeroes ? recovery->zeroes : kept->bytes + done_bytes;
		int rc;

		if (!fence_is_open(recovery->fence))
			return -EAGAIN;
		args.data.data_len = part_bytes;
		args.data.data_val = (char *)(uintptr_t)bytes;
		rc = run(recovery, &call,
			 rpc_nfs3_write_async(recovery->links[0].rpc, nfs_call_answered, &args,
					      &call));
		if (rc)
			return rc;
		if (written.count == 0 || written.count > part_bytes)
			return -EPROTO;
		if (memcmp(written.verifier, verifier, sizeof(writeverf3)) != 0)
			return -EAGAIN; /* it restarted once more */
		done_bytes += written.count;
	}
	return 0;
}

/* ---- the steps ---- */

static int connect_all(struct nfs_recovery *recovery)
{
	uint64_t deadline_ns = dial_clock_ns() + ATTEMPT_NS;
	int rc = 0;

	for (unsigned i = 0; i < recovery->spec.link_count && !rc && !has_ended(recovery); i++)
		rc = nfs_link_open(recovery->spec.host, recovery->spec.port, deadline_ns,
				   &recovery->links[i], NULL);
	return rc;
}

/* R3: after this nothing lands that was sent before. */
static void pass_barrier(struct nfs_recovery *recovery, const writeverf3 verifier)
{
	struct nfs_recovery_spec *spec = &recovery->spec;
	uint64_t answered_ns = dial_clock_ns();
	uint64_t settled_ns = MAX(spec->lost_at_ns + NFS_QUARANTINE_WIRE_NS,
				  answered_ns) + NFS_QUARANTINE_SERVER_NS;

	if (!spec->needs_barrier)
		return;
	if (spec->has_verifier && memcmp(spec->verifier, verifier, sizeof(writeverf3)) != 0) {
		log_info("nfs", "%s: the server has restarted", recovery->name);
	} else {
		log_info("nfs", "%s: waiting until what was under way cannot land any more",
			 recovery->name);
		wait_until_ns(recovery, settled_ns);
	}
	if (!has_ended(recovery))
		spec->needs_barrier = false;
}

static int replay(struct nfs_recovery *recovery, const writeverf3 verifier)
{
	writeverf3 after;
	unsigned count = 0;
	int rc = 0;

	if (list_is_empty(&recovery->kept))
		return 0;
	list_for_each (node, &recovery->kept) {
		rc = write_again(recovery, list_entry(node, struct nfs_kept, node), verifier);
		if (rc)
			break;
		count++;
	}
	rc = rc ? rc : commit(recovery, after);
	if (!rc && memcmp(after, verifier, sizeof(after)) != 0)
		rc = -EAGAIN;
	if (rc) {
		/* What of this try is under way must not land after what comes later. */
		recovery->spec.needs_barrier = true;
		recovery->spec.lost_at_ns = dial_clock_ns();
		return rc;
	}
	log_info("nfs", "%s: %u writes that were not committed were written again",
		 recovery->name, count);
	nfs_kept_free_all(&recovery->kept);
	return 0;
}

static int attempt(struct nfs_recovery *recovery)
{
	struct nfs_recovery_spec *spec = &recovery->spec;
	writeverf3 verifier;
	int rc = connect_all(recovery);

	if (!rc && !has_ended(recovery) && !spec->read_only) {
		rc = commit(recovery, verifier);
		if (!rc)
			pass_barrier(recovery, verifier);
	}
	if (rc)
		return rc;
	while (!has_ended(recovery) && !fence_is_open(recovery->fence))        /* R-F3 */
		fence_wait(recovery->fence, WAIT_STEP_NS);
	if (has_ended(recovery) || spec->read_only)
		return 0;
	rc = replay(recovery, verifier);
	memcpy(spec->verifier, verifier, sizeof(verifier));
	spec->has_verifier = true;
	return rc;
}

static void recovery_run(struct nfs_recovery *recovery)
{
	uint64_t pause_ns = PAUSE_FIRST_NS;
	int said = 0, rc;

	for (;;) {
		rc = attempt(recovery);
		if (fence_is_lost(recovery->fence))
			rc = -EKEYREVOKED;
		if (!rc || rc == -ESTALE || rc == -EKEYREVOKED || recovery->cancelled)
			break;
		if (rc != said)
			log_warn("nfs", "%s: cannot go on yet: %s", recovery->name,
				 err_strerror(rc));
		said = rc;
		recovery_close_links(recovery);
		wait_until_ns(recovery, dial_clock_ns() + pause_ns);
		pause_ns = MIN(pause_ns * 2, PAUSE_MAX_NS);
	}
	recovery->result = (struct nfs_recovered){ .rc = rc, .links = recovery->links,
						   .has_verifier = recovery->spec.has_verifier };
	memcpy(recovery->result.verifier, recovery->spec.verifier, sizeof(writeverf3));
}

/* ---- to and from the loop ---- */

static void recovery_told(struct task *task)
{
	struct nfs_recovery *recovery = container_of(task, struct nfs_recovery, task);

	if (!recovery->cancelled) {
		recovery->done(recovery->user, &recovery->result);
		recovery_put(recovery); /* the device's */
	}
	recovery_put(recovery);
}

static void *recovery_main(void *user)
{
	struct nfs_recovery *recovery = user;

	pthread_setname_np(pthread_self(), "nfs-recovery");
	recovery_run(recovery);
	/* The loop is there as long as nobody has cancelled. */
	pthread_mutex_lock(&recovery->lock);
	if (!recovery->cancelled) {
		atomic_fetch_add(&recovery->users, 1);
		loop_send(recovery->loop, &recovery->task);
	}
	pthread_mutex_unlock(&recovery->lock);
	recovery_put(recovery);
	return NULL;
}

static struct nfs_recovery *recovery_alloc(const struct nfs_recovery_spec *spec)
{
	struct nfs_recovery *recovery = calloc(1, sizeof(*recovery));

	CHECK(spec->link_count >= 1 && spec->link_count <= NFS_LINKS_MAX);
	if (!recovery)
		return NULL;
	recovery->zeroes = calloc(1, spec->write_bytes);
	if (!recovery->zeroes) {
		free(recovery);
		return NULL;
	}
	pthread_mutex_init(&recovery->lock, NULL);
	recovery->spec = *spec;
	snprintf(recovery->name, sizeof(recovery->name), "%s", spec->name);
	recovery->spec.name = recovery->name;
	list_init(&recovery->kept);
	for (unsigned i = 0; i < NFS_LINKS_MAX; i++)
		recovery->links[i] = (struct nfs_link){ .fd = -1, .dead = true };
	atomic_init(&recovery->users, 2);
	return recovery;
}

int nfs_recovery_start(struct loop *loop, const struct nfs_recovery_spec *spec,
		       struct fence *fence, struct list *kept,
		       void (*done)(void *user, struct nfs_recovered *result), void *user,
		       struct nfs_recovery **out)
{
	struct nfs_recovery *recovery = recovery_alloc(spec);
	pthread_attr_t detached;
	pthread_t thread;
	int rc;

	if (!recovery)
		return -ENOMEM;
	recovery->fence = fence_get(fence);
	recovery->loop = loop;
	recovery->task.run = recovery_told;
	recovery->done = done;
	recovery->user = user;
	list_splice(&recovery->kept, kept);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &detached, recovery_main, recovery);
	pthread_attr_destroy(&detached);
	if (!rc) {
		*out = recovery;
		return 0;
	}
	list_splice(kept, &recovery->kept);
	recovery_put(recovery);
	recovery_put(recovery);
	return -rc;
}

void nfs_recovery_cancel(struct nfs_recovery *recovery)
{
	pthread_mutex_lock(&recovery->lock);
	atomic_store(&recovery->cancelled, true);
	pthread_mutex_unlock(&recovery->lock);
	fence_wake(recovery->fence);
	recovery_put(recovery);
}
