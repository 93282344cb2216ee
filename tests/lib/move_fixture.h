/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_fixture.h - two local datastores, a disk service and a guest, for tests of moves.
 *
 * Everything is real: files, devices, gates, the mover.  The main loop is the test's own
 * thread: calls that answer later are waited for here, and fail the test after a minute.
 * Asserts through CHECK, so that it serves forked children as well.
 */
#ifndef BM_TESTS_MOVE_FIXTURE_H
#define BM_TESTS_MOVE_FIXTURE_H

#include "datastores/datastore.h"
#include "tests/lib/ds_fault.h"
#include "vmotion/disk.h"
#include "vmotion/relocate.h"
#include "vmotion/relocate_recover.h"

#define MOVE_DISK_BYTES (UINT64_C(8) << 20)

struct move_fixture {
	char root[64];
	char state_dir[96], run_dir[96];
	struct loop *loop;
	struct datastore *ds[2];        /* "one", "two" */
	struct disk_service *service;
	uint8_t host_uuid[16];
	struct timer watchdog;
	unsigned moves;                 /* numbers the task ids */

	/* What the last waited-for call has answered. */
	struct disk *attached;
	struct err err;
	struct check_report report;
	bool answered;
};

/* A new directory with folders for everything; open it with move_fixture_open(). */
void move_fixture_make(struct move_fixture *fixture);
/* Or: one that another process has made. */
void move_fixture_adopt(struct move_fixture *fixture, const char *root);
void move_fixture_open(struct move_fixture *fixture, uint32_t io_threads);
void move_fixture_close(struct move_fixture *fixture);
void move_fixture_remove(struct move_fixture *fixture);

/* Turn the main loop until the flag is up. */
void wait_for(struct move_fixture *fixture, const bool *flag);
/* Turn the main loop that long. */
void wait_ns(struct move_fixture *fixture, uint64_t ns);

void make_disk(struct move_fixture *fixture, unsigned ds, const char *path);
struct ds_disk_info stat_disk(struct move_fixture *fixture, unsigned ds, const char *path);
bool disk_exists(struct move_fixture *fixture, unsigned ds, const char *path);
uint64_t promised_bytes(struct move_fixture *fixture, unsigned ds);
unsigned count_records(struct move_fixture *fixture);

/* NULL and fixture->err on failure. */
struct disk *attach(struct move_fixture *fixture, const struct disk_attach_spec *spec);
struct disk *attach_path(struct move_fixture *fixture, unsigned ds, const char *path,
			 const char *id);
/* The error's id; ERR_NONE: detached. */
enum err_id detach(struct move_fixture *fixture, struct disk *disk, bool force);

/* ---- a guest: writes 4 KiB at random places, one at a time, and knows what must be there ---- */

struct guest;
struct guest *guest_start(struct move_fixture *fixture, struct disk *disk, unsigned seed);
/* Stops it and gives how many writes failed; then compares the disk: false when it differs. */
bool guest_stop(struct guest *guest, uint64_t *failures);
uint64_t guest_writes(const struct guest *guest);
/* Fill a disk with a pattern of that seed, or compare it, through its gate. */
void fill_disk(struct move_fixture *fixture, struct disk *disk, unsigned seed);
bool disk_has_pattern(struct move_fixture *fixture, struct disk *disk, unsigned seed);

/* ---- moves ---- */

struct move {
	struct move_fixture *fixture;
	struct relocation *relocation;
	struct relocate_status status;  /* as of the last changed() */
	bool ended;
	unsigned changes;
	unsigned switched_calls;
	int switched_rc;                /* what switched() answers */
};

struct relocate_spec move_spec(struct move_fixture *fixture,
			       const struct relocate_disk_spec *disks, uint32_t count);
/* CHECKs that it begins. */
void move_start(struct move *move, struct move_fixture *fixture, const struct relocate_spec *spec);
void move_wait_state(struct move *move, enum relocate_state state);
void move_wait_ended(struct move *move);
void move_free(struct move *move);
/* Start, wait, free; the last status stays in *move. */
void move_run(struct move *move, struct move_fixture *fixture, const struct relocate_spec *spec);
const struct check_report *check_move(struct move_fixture *fixture,
				      const struct relocate_spec *spec);

/* ---- recovery ---- */

struct recovery *recover(struct move_fixture *fixture);        /* free it */
/*
 * The same, going on with the move that it finds: *move is that one then (wait for its end, free
 * it), else move->relocation is NULL.  Sources are attached with an export, their ids are
 * their files' first letters.  paused: it stays paused, with the target not fetched.
 */
struct recovery *recover_and_resume(struct move_fixture *fixture, struct move *move, bool paused);
enum err_id keep(struct move_fixture *fixture, struct recovery *recovery, const char *id,
		 enum recover_side side);

#endif
