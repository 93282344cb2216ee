/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_vmfs_host.c - hosts that share a volume: locks, leases, crashes, frozen processes; a seed each.
 *
 * Three hosts, each with a worker and a renewing thread (coroutines here), on clocks that run
 * up to 1 % fast or slow.  A request that was sent lands within five seconds, whatever becomes
 * of its host; between requests a host, or one of its threads, may be frozen for a minute, or die.
 *
 * The check: when a write to what a lock protects lands, that lock is its sender's on the disk,
 * and nobody buries its sender.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/lib/vmfs_mem.h"
#include "vmfs/vmfs_host.h"
#include "vmfs/vmfs_mkfs.h"

#define DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)
#define HOSTS 3u
#define FLOWS (2 * HOSTS)
#define LOCKS 2u
#define STACK_BYTES (256u << 10)
#define SECONDS UINT64_C(1000000)
#define LAND_US_MAX (5 * SECONDS)
#define RUN_US (400 * SECONDS)
/* Two descriptors of the system stand for what is locked; their data are in the last blocks. */
#define LOCK_PLACE(n) (UINT64_C(0x420000) + (n) * 0x800)
#define DATA_PLACE(n) (UINT64_C(0xF000000) + (n) * 0x1000)

enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_SWAP };

/* A request on its way; it lands whether its sender lives or not. */
struct request {
	enum op op;
	uint64_t offset, land_us;
	size_t len;
	uint8_t out[1024], in[1024], expected[1024];
	int result;
	bool pending;
	unsigned host;
};

struct flow {
	ucontext_t context;
	uint8_t *stack;
	uint64_t wake_us;
	struct request request;
	bool ended;
};

struct host {
	unsigned number;
	struct vmfs_io ios[2];          /* the worker's and the beat's */
	struct vmfs_lv lvs[2];
	struct vmfs_host *host;
	uint64_t generation;            /* of its slot */
	bool stop, beating;
	double rate;
	struct vmfs_watch watch;
	bool watching;
};

static uint64_t current_seed, state, now_us;
static struct vmfs_mem *mem;
static struct host hosts[HOSTS];
static struct flow flows[FLOWS];
static unsigned current;
static ucontext_t scheduler;
static uint64_t locked, written, buried, lost, crashed;

static void on_abort(int signal_number UNUSED)
{
	fprintf(stderr, "reproduce: make check-sim SEED=%" PRIu64 "\n", current_seed);
	_exit(1);
}

static uint64_t chance(uint64_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % bound;
}

static uint64_t host_clock(void *user)
{
	const struct host *host = user;

	return (uint64_t)((double)now_us * host->rate) + 1000 * SECONDS;
}

/* ---- coroutines ---- */

static void yield_until(uint64_t wake_us)
{
	struct flow *flow = &flows[current];

	flow->wake_us = wake_us;
	CHECK(swapcontext(&flow->context, &scheduler) == 0);
}

/* Now and then the whole host stands still, or only this thread of it. */
static void maybe_freeze(void)
{
	uint64_t until = now_us + 5 * SECONDS + chance(60 * SECONDS);
	unsigned host = current / 2;

	if (chance(60))
		return;
	for (unsigned i = 2 * host; i < 2 * host + 2 && chance(3); i++)
		flows[i].wake_us = MAX(flows[i].wake_us, until);
	yield_until(until);
}

static void pause_us(uint64_t us)
{
	yield_until(now_us + us);
	maybe_freeze();
}

/* ---- requests ---- */

/* R-F6: nobody takes a lock from a host whose slot is not free yet, or another's. */
static void judge_breaking(const struct request *request, const uint8_t *now)
{
	struct vmfs_heartbeat slot;
	struct vmfs_lock lock;

	vmfs_lock_decode(now, &lock);
	if (memcmp(now, request->expected, request->len) != 0 || lock.mode == VMFS_LOCK_MODE_FREE ||
	    lock.owner[0] == request->host + 1)
		return;
	vmfs_heartbeat_decode(mem->bytes + VMFS_DATA_OFFSET + lock.heartbeat_offset, &slot);
	CHECK(slot.state == VMFS_HB_FREE || slot.generation != lock.heartbeat_generation);
}

/* What must hold when a write to protected data lands. */
static void judge_landing(const struct request *request)
{
	const struct host *host = &hosts[request->host];
	struct vmfs_heartbeat slot;
	struct vmfs_lock lock;

	for (unsigned i = 0; i < LOCKS; i++) {
		if (request->op == OP_SWAP && request->offset == VMFS_DATA_OFFSET + LOCK_PLACE(i))
			judge_breaking(request, mem->bytes + VMFS_DATA_OFFSET + LOCK_PLACE(i));
		if (request->op != OP_WRITE || request->offset != VMFS_DATA_OFFSET + DATA_PLACE(i))
			continue;
		vmfs_lock_decode(mem->bytes + VMFS_DATA_OFFSET + LOCK_PLACE(i), &lock);
		CHECK(lock.mode == VMFS_LOCK_MODE_EXCLUSIVE);
		CHECK(lock.owner[0] == host->number + 1);
		vmfs_heartbeat_decode(mem->bytes + VMFS_DATA_OFFSET + lock.heartbeat_offset, &slot);
		CHECK(slot.state == VMFS_HB_ACTIVE);
		CHECK(slot.generation == lock.heartbeat_generation);
		written++;
	}
}

static void land(struct request *request)
{
	struct vmfs_io *io = &mem->io;

	judge_landing(request);
	switch (request->op) {
	case OP_READ:
		request->result = vmfs_io_read(io, request->offset, request->in, request->len);
		break;
	case OP_WRITE:
		request->result = vmfs_io_write(io, request->offset, request->out, request->len);
		break;
	case OP_SWAP:
		request->result = vmfs_io_compare_write(io, request->offset, request->expected,
							request->out, request->len);
		break;
	case OP_FLUSH:
		request->result = 0;
		break;
	}
	request->pending = false;
}

static int call(enum op op, uint64_t offset, const uint8_t *expected, const uint8_t *out, uint8_t *in,
		size_t len)
{
	struct request *request = &flows[current].request;

	CHECK(!request->pending && len <= sizeof(request->out));
	*request = (struct request){ .op = op, .offset = offset, .len = len, .host = current / 2,
				     .pending = true };
	/* Mostly at once, sometimes as late as can be. */
	request->land_us = now_us + 1 + (chance(16) ? chance(5000) : chance(LAND_US_MAX));
	if (out)
		memcpy(request->out, out, len);
	if (expected)
		memcpy(request->expected, expected, len);
	yield_until(request->land_us + 1);
	CHECK(!request->pending);
	if (in)
		memcpy(in, request->in, len);
	maybe_freeze();
	return request->result;
}

static int shim_read(struct vmfs_io *io UNUSED, uint64_t offset, uint8_t *bytes, size_t len)
{
	return call(OP_READ, offset, NULL, NULL, bytes, len);
}

static int shim_write(struct vmfs_io *io UNUSED, uint64_t offset, const uint8_t *bytes, size_t len)
{
	return call(OP_WRITE, offset, NULL, bytes, NULL, len);
}

static int shim_flush(struct vmfs_io *io UNUSED)
{
	return call(OP_FLUSH, 0, NULL, NULL, NULL, 0);
}

static int shim_swap(struct vmfs_io *io UNUSED, uint64_t offset, const uint8_t *expected,
		     const uint8_t *replacement, size_t len)
{
	return call(OP_SWAP, offset, expected, replacement, NULL, len);
}

static const struct vmfs_io_ops shim_ops = {
	.name = "shared", .read = shim_read, .write = shim_write, .flush = shim_flush,
	.compare_write = shim_swap,
};

/* ---- a host ---- */

static void join(struct host *host)
{
	struct vmfs_host_options options = { .uuid = { (uint8_t)(host->number + 1) },
					     .now_us = host_clock, .user = host };
	struct vmfs_host *joined = NULL;
	int rc;

	while ((rc = vmfs_host_join(&host->lvs[0], &host->lvs[1], &options, &joined)))
		CHECK(rc == -EBUSY);
	host->host = joined;
	host->watching = false;
}

/* The renewing thread is out of it before it goes. */
static void forget(struct host *host)
{
	host->stop = true;
	while (host->beating)
		pause_us(1000);
	vmfs_host_abandon(host->host);
	host->host = NULL;
	host->stop = false;
}

static int replay(struct vmfs_burial *burial, uint32_t slot UNUSED)
{
	struct host *host = burial->user;
	uint8_t bytes[512] = { 7 };

	if (!vmfs_burial_may_go_on(burial))
		return -ESTALE;
	return vmfs_lv_write(&host->lvs[0], DATA_PLACE(7), bytes, sizeof(bytes));
}

static void look_after(struct host *host, uint32_t slot)
{
	struct vmfs_burial burial = { .replay = replay, .user = host };
	int rc;

	if (!host->watching || host->watch.slot != slot) {
		CHECK(vmfs_watch_begin(host->host, slot, &host->watch) == 0);
		host->watching = true;
		return;
	}
	rc = vmfs_watch_look(host->host, &host->watch);
	if (rc == -EAGAIN)
		return;
	host->watching = false;
	if (rc == -ENOENT)
		return;
	CHECK(rc == 0);
	rc = vmfs_host_bury(host->host, &host->watch, &burial);
	CHECK(rc == 0 || rc == -EBUSY || rc == -ESTALE);
	buried += rc == 0;
}

static void use(struct host *host, unsigned lock)
{
	uint8_t bytes[512] = { (uint8_t)(host->number + 1) };

	for (uint64_t left = 1 + chance(16); left > 0; left--) {
		if (vmfs_host_may_write(host->host))
			CHECK(vmfs_lv_write(&host->lvs[0], DATA_PLACE(lock), bytes, sizeof(bytes)) == 0);
		pause_us(chance(4) ? chance(SECONDS) : chance(8 * SECONDS));
	}
}

static void work(struct host *host)
{
	unsigned lock = (unsigned)chance(LOCKS);
	uint32_t holder = 0;
	int rc = vmfs_host_lock(host->host, LOCK_PLACE(lock), VMFS_LOCK_FD, VMFS_LOCK_MODE_EXCLUSIVE,
				&holder);

	if (rc == 0) {
		locked++;
		use(host, lock);
		if (chance(10) == 0) {
			crashed++;
			forget(host);
			pause_us(chance(30 * SECONDS));
			join(host);
			return;
		}
		rc = vmfs_host_unlock(host->host, LOCK_PLACE(lock), VMFS_LOCK_FD);
		CHECK(rc == 0 || rc == -ESTALE);
	} else if (rc == -EBUSY) {
		look_after(host, holder);
	} else {
		CHECK(rc == -ESTALE);
	}
	if (vmfs_host_is_lost(host->host)) {
		lost++;
		forget(host);
		join(host);
	}
}

static void worker_flow(struct host *host)
{
	join(host);
	while (now_us < RUN_US) {
		work(host);
		pause_us(chance(SECONDS / 2));
	}
}

static void beat_flow(struct host *host)
{
	while (now_us < RUN_US) {
		host->beating = host->host && !host->stop;
		if (host->beating) {
			int rc = vmfs_host_renew(host->host);

			CHECK(rc == 0 || rc == -ESTALE);
		}
		host->beating = false;
		/* Now and then it hangs, while the worker goes on. */
		pause_us(chance(6) ? VMFS_HOST_PULSE_MS * 1000 : chance(20 * SECONDS));
	}
}

static void start_flow(void)
{
	struct host *host = &hosts[current / 2];

	if (current % 2)
		beat_flow(host);
	else
		worker_flow(host);
	flows[current].ended = true;
	CHECK(swapcontext(&flows[current].context, &scheduler) == 0);
}

/* ---- the scheduler ---- */

static uint64_t next_event_us(void)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < FLOWS; i++) {
		if (flows[i].request.pending)
			next = MIN(next, flows[i].request.land_us);
		else if (!flows[i].ended)
			next = MIN(next, flows[i].wake_us);
	}
	return next;
}

static void step(void)
{
	unsigned first = (unsigned)chance(FLOWS);

	for (unsigned k = 0; k < FLOWS; k++) {
		struct flow *flow = &flows[(first + k) % FLOWS];

		if (flow->request.pending && flow->request.land_us <= now_us) {
			land(&flow->request);
			return;
		}
	}
	for (unsigned k = 0; k < FLOWS; k++) {
		current = (first + k) % FLOWS;
		if (!flows[current].ended && !flows[current].request.pending &&
		    flows[current].wake_us <= now_us) {
			CHECK(swapcontext(&scheduler, &flows[current].context) == 0);
			return;
		}
	}
}

static void run_seed(uint64_t seed)
{
	uint64_t next;

	state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
	now_us = 0;
	vmfs_mem_reset(mem);
	for (unsigned i = 0; i < HOSTS; i++) {
		hosts[i].rate = 0.99 + (double)chance(21) / 1000;
		hosts[i].host = NULL;
		hosts[i].stop = hosts[i].beating = false;
	}
	for (unsigned i = 0; i < FLOWS; i++) {
		flows[i].ended = false;
		flows[i].request.pending = false;
		flows[i].wake_us = chance(SECONDS);
		CHECK(getcontext(&flows[i].context) == 0);
		flows[i].context.uc_stack.ss_sp = flows[i].stack;
		flows[i].context.uc_stack.ss_size = STACK_BYTES;
		flows[i].context.uc_link = NULL;
		makecontext(&flows[i].context, start_flow, 0);
	}
	while ((next = next_event_us()) != UINT64_MAX) {
		now_us = MAX(now_us, next);
		step();
	}
	for (unsigned i = 0; i < HOSTS; i++)
		if (hosts[i].host)
			vmfs_host_abandon(hosts[i].host);
}

static void make_base(void)
{
	const struct vmfs_mkfs_options options = { .reads_zero = true, .now_s = 1, .file_count = 64 };
	struct vmfs_io *io;
	struct err err = { 0 };

	mem = vmfs_mem_new(DEVICE_BYTES);
	io = &mem->io;
	CHECK(vmfs_mkfs(&io, 1, &options, &err) == 0);
	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned k = 0; k < 2; k++) {
			hosts[i].number = i;
			hosts[i].ios[k] = mem->io;
			CHECK(vmfs_lv_open(&hosts[i].lvs[k], &io, 1, &err) == 0);
			hosts[i].ios[k].ops = &shim_ops;
			hosts[i].lvs[k].extents[0].io = &hosts[i].ios[k];
		}
	for (unsigned i = 0; i < FLOWS; i++) {
		flows[i].stack = malloc(STACK_BYTES);
		CHECK(flows[i].stack);
	}
	vmfs_mem_mark(mem);
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	signal(SIGABRT, on_abort);
	make_base();
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed);
	}
	for (unsigned i = 0; i < FLOWS; i++)
		free(flows[i].stack);
	vmfs_mem_free(mem);
	printf("%" PRIu64 " seeds: %" PRIu64 " locks, %" PRIu64 " writes, %" PRIu64 " hosts crashed, %" PRIu64
	       " were lost, %" PRIu64 " buried\n", seeds, locked, written, crashed, lost, buried);
	/* Otherwise it shows nothing. */
	CHECK(seeds < 50 || (locked > seeds && buried > seeds / 2 && lost > seeds / 10));
	return 0;
}
