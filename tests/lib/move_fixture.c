/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/move_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tests/lib/loop_thread.h"

#define PATIENCE_NS (60 * NS_PER_S)
#define CHUNK_BYTES (1u << 20)

/* ---- life ---- */

static void watchdog_fired(struct timer *timer)
{
	bool an_answer_came_within_a_minute = false;

	(void)timer;
	CHECK(an_answer_came_within_a_minute);
}

void move_fixture_adopt(struct move_fixture *fixture, const char *root)
{
	*fixture = (struct move_fixture){ .host_uuid = { 0xab, 0xcd, 1, 2, 3, 4, 5, 6 } };
	snprintf(fixture->root, sizeof(fixture->root), "%s", root);
	snprintf(fixture->state_dir, sizeof(fixture->state_dir), "%s/state", root);
	snprintf(fixture->run_dir, sizeof(fixture->run_dir), "%s/run", root);
}

void move_fixture_make(struct move_fixture *fixture)
{
	char path[128], root[64];
	static const char *const folders[] = { "one", "two", "state", "run" };

	strcpy(root, "/tmp/bm-move-XXXXXX");
	CHECK(mkdtemp(root));
	move_fixture_adopt(fixture, root);
	for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", fixture->root, folders[i]);
		CHECK(mkdir(path, 0700) == 0);
	}
}

static struct datastore *open_datastore(struct move_fixture *fixture, const char *name)
{
	char url[128];
	struct ds_config config = { .name = name, .url = url };
	struct datastore *ds;

	snprintf(url, sizeof(url), "dir://%s/%s", fixture->root, name);
	memcpy(config.host_uuid, fixture->host_uuid, sizeof(config.host_uuid));
	CHECK(datastore_open(fixture->loop, &config, &ds, NULL) == 0);
	ds_fault_wrap(ds);
	return ds;
}

void move_fixture_open(struct move_fixture *fixture, uint32_t io_threads)
{
	struct disk_service_options options = { .run_dir = fixture->run_dir,
						.io_threads = io_threads };

	log_set_level(getenv("BM_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	fixture->loop = loop_new();
	CHECK(fixture->loop);
	timer_init(&fixture->watchdog, fixture->loop, watchdog_fired);
	fixture->ds[0] = open_datastore(fixture, "one");
	fixture->ds[1] = open_datastore(fixture, "two");
	CHECK(disk_service_new(fixture->loop, &options, &fixture->service, NULL) == 0);
}

void move_fixture_close(struct move_fixture *fixture)
{
	struct disk *disk;

	while ((disk = disk_next(fixture->service, NULL)))
		CHECK(detach(fixture, disk, true) == ERR_NONE);
	disk_service_free(fixture->service);
	datastore_close(fixture->ds[0]);
	datastore_close(fixture->ds[1]);
	loop_free(fixture->loop);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void move_fixture_remove(struct move_fixture *fixture)
{
	CHECK(nftw(fixture->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* ---- waiting ---- */

struct stop_timer {
	struct timer timer;
	bool fired;
};

static void stop_fired(struct timer *timer)
{
	container_of(timer, struct stop_timer, timer)->fired = true;
	loop_stop(timer->loop);
}

void wait_for(struct move_fixture *fixture, const bool *flag)
{
	timer_start(&fixture->watchdog, PATIENCE_NS);
	while (!*flag)
		loop_run(fixture->loop);        /* every answer stops it */
	timer_stop(&fixture->watchdog);
}

void wait_ns(struct move_fixture *fixture, uint64_t ns)
{
	struct stop_timer stop = { .fired = false };

	timer_init(&stop.timer, fixture->loop, stop_fired);
	timer_start(&stop.timer, ns);
	while (!stop.fired)
		loop_run(fixture->loop);
}

static void answer(struct move_fixture *fixture, const struct err *err)
{
	fixture->err = err ? *err : (struct err){ .id = ERR_NONE };
	fixture->answered = true;
	loop_stop(fixture->loop);
}

/* ---- blocking calls, on the datastore's worker as they must be ---- */

struct ds_call {
	struct job job;
	struct move_fixture *fixture;
	struct datastore *ds;
	const char *path;
	int rc;
	struct ds_disk_info info;
	struct ds_space space;
	struct err err;
};

static void ds_call_done(struct job *job)
{
	struct ds_call *call = container_of(job, struct ds_call, job);

	answer(call->fixture, NULL);
}

static void ds_call(struct ds_call *call, void (*run)(struct job *job))
{
	call->job = (struct job){ .run = run, .done = ds_call_done };
	call->fixture->answered = false;
	worker_submit(datastore_worker(call->ds), &call->job);
	wait_for(call->fixture, &call->fixture->answered);
}

static void make_disk_run(struct job *job)
{
	struct ds_call *call = container_of(job, struct ds_call, job);
	struct ds_create_spec spec = { .size_bytes = MOVE_DISK_BYTES,
				       .provision = PROVISION_THIN };

	call->rc = ds_disk_create(call->ds, call->path, &spec, &call->err);
}

void make_disk(struct move_fixture *fixture, unsigned ds, const char *path)
{
	struct ds_call call = { .fixture = fixture, .ds = fixture->ds[ds], .path = path };

	ds_call(&call, make_disk_run);
	CHECK(call.rc == 0);
}

static void stat_run(struct job *job)
{
	struct ds_call *call = container_of(job, struct ds_call, job);

	call->rc = ds_disk_stat(call->ds, call->path, &call->info, &call->err);
}

struct ds_disk_info stat_disk(struct move_fixture *fixture, unsigned ds, const char *path)
{
	struct ds_call call = { .fixture = fixture, .ds = fixture->ds[ds], .path = path };

	ds_call(&call, stat_run);
	CHECK(call.rc == 0);
	return call.info;
}

bool disk_exists(struct move_fixture *fixture, unsigned ds, const char *path)
{
	struct ds_call call = { .fixture = fixture, .ds = fixture->ds[ds], .path = path };

	ds_call(&call, stat_run);
	CHECK(call.rc == 0 || call.err.id == ERR_DISK_UNKNOWN);
	return call.rc == 0;
}

static void space_run(struct job *job)
{
	struct ds_call *call = container_of(job, struct ds_call, job);

	call->rc = datastore_space(call->ds, &call->space, &call->err);
}

uint64_t promised_bytes(struct move_fixture *fixture, unsigned ds)
{
	struct ds_call call = { .fixture = fixture, .ds = fixture->ds[ds] };

	ds_call(&call, space_run);
	CHECK(call.rc == 0);
	return call.space.reserved_bytes;
}

unsigned count_records(struct move_fixture *fixture)
{
	char ids[8][MOVE_ID_BYTES];
	uint32_t count;

	CHECK(move_record_list(fixture->state_dir, ids, 8, &count, NULL) == 0);
	return count;
}

/* ---- attach, detach ---- */

static void attach_answered(struct disk *disk, const struct err *err, void *user)
{
	struct move_fixture *fixture = user;

	fixture->attached = disk;
	answer(fixture, err);
}

struct disk *attach(struct move_fixture *fixture, const struct disk_attach_spec *spec)
{
	fixture->answered = false;
	disk_attach(fixture->service, spec, attach_answered, fixture);
	wait_for(fixture, &fixture->answered);
	return fixture->attached;
}

struct disk *attach_path(struct move_fixture *fixture, unsigned ds, const char *path,
			 const char *id)
{
	struct disk_attach_spec spec = { .datastore = fixture->ds[ds], .path = path, .id = id,
					 .export_kind = DISK_EXPORT_NBD };

	return attach(fixture, &spec);
}

static void detach_answered(const struct err *err, void *user)
{
	answer(user, err);
}

enum err_id detach(struct move_fixture *fixture, struct disk *disk, bool force)
{
	fixture->answered = false;
	disk_detach(disk, force, detach_answered, fixture);
	wait_for(fixture, &fixture->answered);
	return fixture->err.id;
}

/* ---- the guest ---- */

struct guest {
	struct move_fixture *fixture;
	struct disk *disk;
	uint64_t random;
	uint8_t *expected;
	struct blk_req req;
	struct iovec iov;
	uint8_t *buffer;                /* one block */
	uint64_t failures;
	_Atomic uint64_t writes;
	_Atomic bool stopping;
	struct task start;
	struct latch stopped;
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 17;
}

static void guest_wrote(struct blk_req *req);

static void guest_write(struct guest *guest)
{
	uint64_t block = next_random(&guest->random) % (MOVE_DISK_BYTES / 4096);

	for (int i = 0; i < 4096; i += 8) {
		uint64_t word = next_random(&guest->random);

		memcpy(guest->buffer + i, &word, 8);
	}
	memcpy(guest->expected + block * 4096, guest->buffer, 4096);
	guest->iov = (struct iovec){ guest->buffer, 4096 };
	guest->req = (struct blk_req){ .op = BLK_WRITE, .offset_bytes = block * 4096,
				       .len_bytes = 4096, .iov = &guest->iov, .iov_count = 1,
				       .done = guest_wrote };
	blk_submit(gate_as_dev(disk_gate(guest->disk)), &guest->req);
}

static void guest_wrote(struct blk_req *req)
{
	struct guest *guest = container_of(req, struct guest, req);

	guest->failures += req->result != 0;
	atomic_fetch_add(&guest->writes, 1);
	if (atomic_load(&guest->stopping))
		latch_raise(&guest->stopped);
	else
		guest_write(guest);
}

static void guest_begin(struct task *task)
{
	guest_write(container_of(task, struct guest, start));
}

/* One request of a whole disk through its gate, 1 MiB at a time. */
struct sweep {
	struct disk *disk;
	uint8_t *bytes;
	enum blk_op op;
	struct blk_req req;
	struct iovec iov;
	uint64_t at;
	int rc;
	struct task start;
	struct latch done;
};

static void sweep_next(struct sweep *sweep);

static void sweep_done(struct blk_req *req)
{
	struct sweep *sweep = container_of(req, struct sweep, req);

	sweep->rc = req->result;
	sweep->at += CHUNK_BYTES;
	if (sweep->rc || sweep->at == MOVE_DISK_BYTES)
		latch_raise(&sweep->done);
	else
		sweep_next(sweep);
}

static void sweep_next(struct sweep *sweep)
{
	sweep->iov = (struct iovec){ sweep->bytes + sweep->at, CHUNK_BYTES };
	sweep->req = (struct blk_req){ .op = sweep->op, .offset_bytes = sweep->at,
				       .len_bytes = CHUNK_BYTES, .iov = &sweep->iov,
				       .iov_count = 1, .done = sweep_done };
	blk_submit(gate_as_dev(disk_gate(sweep->disk)), &sweep->req);
}

static void sweep_begin(struct task *task)
{
	sweep_next(container_of(task, struct sweep, start));
}

static void sweep_disk(struct disk *disk, enum blk_op op, uint8_t *bytes)
{
	struct sweep sweep = { .disk = disk, .bytes = bytes, .op = op,
			       .start.run = sweep_begin, .done = LATCH_INIT };

	loop_send(disk_loop(disk), &sweep.start);
	CHECK(latch_wait(&sweep.done, PATIENCE_NS));
	CHECK(sweep.rc == 0);
}

static uint8_t *disk_bytes(void)
{
	uint8_t *bytes = aligned_alloc(4096, MOVE_DISK_BYTES);

	CHECK(bytes);
	return bytes;
}

static void fill_pattern(uint8_t *bytes, unsigned seed)
{
	uint64_t state = seed;

	for (uint64_t i = 0; i < MOVE_DISK_BYTES; i += 8) {
		uint64_t word = next_random(&state);

		memcpy(bytes + i, &word, 8);
	}
	/* A hole in the middle, as disks have. */
	memset(bytes + MOVE_DISK_BYTES / 4, 0, MOVE_DISK_BYTES / 4);
}

void fill_disk(struct move_fixture *fixture, struct disk *disk, unsigned seed)
{
	uint8_t *bytes = disk_bytes();

	(void)fixture;
	fill_pattern(bytes, seed);
	sweep_disk(disk, BLK_WRITE, bytes);
	free(bytes);
}

bool disk_has_pattern(struct move_fixture *fixture, struct disk *disk, unsigned seed)
{
	uint8_t *wanted = disk_bytes(), *got = disk_bytes();
	bool same;

	(void)fixture;
	fill_pattern(wanted, seed);
	sweep_disk(disk, BLK_READ, got);
	same = memcmp(wanted, got, MOVE_DISK_BYTES) == 0;
	free(wanted);
	free(got);
	return same;
}

struct guest *guest_start(struct move_fixture *fixture, struct disk *disk, unsigned seed)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	CHECK(guest);
	guest->fixture = fixture;
	guest->disk = disk;
	guest->random = seed;
	guest->expected = disk_bytes();
	guest->buffer = aligned_alloc(4096, 4096);
	guest->stopped = (struct latch)LATCH_INIT;
	fill_pattern(guest->expected, seed);
	sweep_disk(disk, BLK_WRITE, guest->expected);
	guest->start.run = guest_begin;
	loop_send(disk_loop(disk), &guest->start);
	return guest;
}

uint64_t guest_writes(const struct guest *guest)
{
	return atomic_load(&guest->writes);
}

bool guest_stop(struct guest *guest, uint64_t *failures)
{
	uint8_t *got = disk_bytes();
	bool same;

	atomic_store(&guest->stopping, true);
	CHECK(latch_wait(&guest->stopped, PATIENCE_NS));
	sweep_disk(guest->disk, BLK_READ, got);
	same = memcmp(got, guest->expected, MOVE_DISK_BYTES) == 0;
	*failures = guest->failures;
	free(got);
	free(guest->expected);
	free(guest->buffer);
	free(guest);
	return same;
}

/* ---- moves ---- */

static bool state_is_end(enum relocate_state state)
{
	return state == RELOCATE_COMPLETED || state == RELOCATE_FAILED ||
	       state == RELOCATE_CANCELLED;
}

static void move_changed(struct relocation *relocation, void *user)
{
	struct move *move = user;
	uint64_t done_bytes = move->status.done_bytes, total_bytes = move->status.total_bytes;

	move->changes++;
	relocation_status(relocation, &move->status);
	/* Whatever befalls it, the progress shown never falls, and ends at 100 %. */
	CHECK((unsigned __int128)move->status.done_bytes * MAX(total_bytes, UINT64_C(1)) >=
	      (unsigned __int128)done_bytes * move->status.total_bytes);
	CHECK(move->status.total_bytes >= total_bytes);
	CHECK(move->status.state != RELOCATE_COMPLETED || move->status.remaining_bytes == 0);
	move->ended = state_is_end(move->status.state);
	loop_stop(move->fixture->loop);
}

static int move_switched(struct relocation *relocation, void *user)
{
	struct move *move = user;

	(void)relocation;
	move->switched_calls++;
	return move->switched_rc;
}

struct relocate_spec move_spec(struct move_fixture *fixture,
			       const struct relocate_disk_spec *disks, uint32_t count)
{
	static char task_id[16];
	struct relocate_spec spec = {
		.disks = disks, .disk_count = count, .state_dir = fixture->state_dir,
		.task_id = task_id, .switched = move_switched,
		.options = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .verify = true,
			     .max_stun_ns = 5 * NS_PER_S },
	};

	snprintf(task_id, sizeof(task_id), "t%u", ++fixture->moves);
	memcpy(spec.host_uuid, fixture->host_uuid, sizeof(spec.host_uuid));
	return spec;
}

void move_start(struct move *move, struct move_fixture *fixture, const struct relocate_spec *spec)
{
	move->fixture = fixture;
	move->ended = false;
	move->status = (struct relocate_status){ .state = RELOCATE_RUNNING };
	CHECK(relocate_start(fixture->service, spec, move_changed, move, &move->relocation,
			     &fixture->err) == 0);
}

void move_wait_state(struct move *move, enum relocate_state state)
{
	timer_start(&move->fixture->watchdog, PATIENCE_NS);
	while (move->status.state != state) {
		CHECK(!move->ended);
		loop_run(move->fixture->loop);
	}
	timer_stop(&move->fixture->watchdog);
}

void move_wait_ended(struct move *move)
{
	wait_for(move->fixture, &move->ended);
}

void move_free(struct move *move)
{
	relocation_free(move->relocation);
	wait_ns(move->fixture, NS_PER_MS);      /* what is still posted runs */
	CHECK(relocate_count(move->fixture->service) == 0);
}

void move_run(struct move *move, struct move_fixture *fixture, const struct relocate_spec *spec)
{
	move_start(move, fixture, spec);
	move_wait_ended(move);
	move_free(move);
}

static void check_answered(const struct check_report *report, void *user)
{
	struct move_fixture *fixture = user;

	fixture->report = *report;
	answer(fixture, NULL);
}

const struct check_report *check_move(struct move_fixture *fixture,
				      const struct relocate_spec *spec)
{
	fixture->answered = false;
	relocate_check(fixture->service, spec, check_answered, fixture);
	wait_for(fixture, &fixture->answered);
	return &fixture->report;
}

/* ---- recovery ---- */

static struct datastore *find_datastore(const char *name, void *user)
{
	struct move_fixture *fixture = user;

	for (int i = 0; i < 2; i++)
		if (fixture->ds[i] && strcmp(datastore_name(fixture->ds[i]), name) == 0)
			return fixture->ds[i];
	return NULL;
}

static void recover_ran(struct recovery *recovery, const struct err *err, void *user)
{
	(void)recovery;
	answer(user, err);
}

struct recovery *recover(struct move_fixture *fixture)
{
	struct recovery_options options = { .state_dir = fixture->state_dir,
					    .find_datastore = find_datastore, .user = fixture };
	struct recovery *recovery;

	CHECK(recovery_new(fixture->service, &options, &recovery, NULL) == 0);
	fixture->answered = false;
	recovery_run(recovery, recover_ran, fixture);
	wait_for(fixture, &fixture->answered);
	return recovery;
}

struct resuming {
	struct move_fixture *fixture;
	struct move *move;
	bool paused;
};

static struct datastore *resume_find(const char *name, void *user)
{
	return find_datastore(name, ((struct move *)user)->fixture);
}

static bool resume_attach_spec(const char *datastore, const char *path,
			       struct disk_attach_spec *out, void *user)
{
	static char ids[8][2];
	static unsigned next;
	char *id = ids[next++ % 8];

	(void)datastore;
	(void)user;
	id[0] = strrchr(path, '/') ? strrchr(path, '/')[1] : path[0];
	out->id = id;
	out->export_kind = DISK_EXPORT_NBD;
	return true;
}

static void resume_attached(const char *datastore, const char *path, struct disk *disk,
			    const struct err *err, void *user)
{
	(void)datastore;
	(void)path;
	(void)disk;
	(void)err;
	(void)user;
}

static bool resume_found(const struct move_record_info *info, void *user)
{
	struct resuming *resuming = user;
	struct move *move = resuming->move;
	struct relocate_resume_spec spec = {
		.journal_id = info->id, .state_dir = resuming->fixture->state_dir,
		.paused = resuming->paused,
		.options = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .verify = true,
			     .max_stun_ns = 5 * NS_PER_S },
		.ops = { .find_datastore = resume_find, .attach_spec = resume_attach_spec,
			 .attached = resume_attached },
		.switched = move_switched,
	};

	CHECK(!move->relocation);
	memcpy(spec.host_uuid, resuming->fixture->host_uuid, sizeof(spec.host_uuid));
	move->status.state = RELOCATE_RUNNING;
	CHECK(relocate_resume(resuming->fixture->service, &spec, move_changed, move,
			      &move->relocation, NULL) == 0);
	return true;
}

static struct datastore *resuming_find(const char *name, void *user)
{
	return find_datastore(name, ((struct resuming *)user)->fixture);
}

static void resuming_ran(struct recovery *recovery, const struct err *err, void *user)
{
	(void)recovery;
	answer(((struct resuming *)user)->fixture, err);
}

struct recovery *recover_and_resume(struct move_fixture *fixture, struct move *move, bool paused)
{
	struct resuming resuming = { .fixture = fixture, .move = move, .paused = paused };
	struct recovery_options options = { .state_dir = fixture->state_dir,
					    .find_datastore = resuming_find,
					    .resume = resume_found, .user = &resuming };
	struct recovery *recovery;

	*move = (struct move){ .fixture = fixture };
	CHECK(recovery_new(fixture->service, &options, &recovery, NULL) == 0);
	fixture->answered = false;
	recovery_run(recovery, resuming_ran, &resuming);
	wait_for(fixture, &fixture->answered);
	return recovery;
}

static void keep_answered(const struct err *err, void *user)
{
	answer(user, err);
}

enum err_id keep(struct move_fixture *fixture, struct recovery *recovery, const char *id,
		 enum recover_side side)
{
	fixture->answered = false;
	recovery_keep(recovery, id, side, keep_answered, fixture);
	wait_for(fixture, &fixture->answered);
	return fixture->err.id;
}
