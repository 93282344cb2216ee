/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_journal.c - the journals of a relocation's disks: their files, and opening and closing
 * them on the I/O loop, one after the other.
 *
 * A journal writes to the state directory, which may hang like any other file system: so its
 * device has a submit thread of its own, as a target has (R5).
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file.h"
#include "vmotion/relocate_private.h"

/* ---- files: on the record worker ---- */

int relocate_journal_files_make(struct relocation *relocation, struct err *err)
{
	const struct move_plan *plan = &relocation->plan;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < plan->disk_count; i++)
		rc = move_journal_make(plan->state_dir, plan->journal_id, i,
				       plan->disks[i].journal_bytes, err);
	return rc;
}

int relocate_journal_files_open(struct relocation *relocation, struct err *err)
{
	const struct move_plan *plan = &relocation->plan;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < plan->disk_count; i++)
		rc = move_journal_open(plan->state_dir, plan->journal_id, i,
				       &plan->disks[i].journal_fd, err);
	return rc;
}

void relocate_journal_files_close(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		if (disk->journal_fd >= 0)
			close(disk->journal_fd);
		disk->journal_fd = -1;
	}
}

/* ---- opening: on the I/O loop ---- */

static struct move_disk *journal_disk(struct relocation *relocation)
{
	return &relocation->plan.disks[relocation->io.journal_index];
}

static void journal_open_next(struct relocation *relocation);

static void journal_failed(struct relocation *relocation, int rc)
{
	const struct move_disk *disk = journal_disk(relocation);
	bool damaged = rc == -EBADMSG || rc == -ESTALE;

	/* Of a daemon that died before a byte was copied. */
	if (rc == -ENODATA) {
		relocation->job_rc = err_set(&relocation->job_err, ERR_TASK_INTERRUPTED, rc,
					     "the copy of '%s' had not begun", disk->name);
		relocation->io.journals_done(relocation);
		return;
	}
	relocation->job_rc = err_set(&relocation->job_err,
				     damaged ? ERR_JOURNAL_DAMAGED : ERR_JOURNAL_IO, rc,
				     "the journal of '%s' cannot be used: %s", disk->name,
				     rc == -EBADMSG  ? "it is damaged"
				     : rc == -ESTALE ? "it is another move's, or another disk's"
						     : err_strerror(rc));
	if (damaged)
		err_remedy(&relocation->job_err, "Nothing is lost: the source is authoritative.  Start "
						 "the relocation again.");
	relocation->io.journals_done(relocation);
}

/* Who a journal must say that it is of. */
static void journal_expected(const struct relocation *relocation, const struct move_disk *disk,
			     struct journal_identity *out)
{
	*out = (struct journal_identity){
		.size_bytes = gate_as_dev(disk_gate(disk->disk))->size_bytes,
		.generation = disk->source_identity.generation,
	};
	memcpy(out->disk_uuid, disk->source_identity.uuid, sizeof(out->disk_uuid));
	memcpy(out->journal_id, relocation->plan.journal_id, sizeof(relocation->plan.journal_id));
}

static void note_loaded(struct move_disk *disk)
{
	struct journal_stats stats;

	journal_stats(disk->journal, &stats);
	disk->resumed_active_bytes = stats.loaded_active_bytes;
	disk->resumed_dirty_bytes = stats.loaded_dirty_bytes - stats.loaded_active_bytes;
}

static void journal_opened(struct journal *journal, int result, void *user)
{
	struct relocation *relocation = user;
	struct move_disk *disk = journal_disk(relocation);

	if (result) {
		journal_failed(relocation, result);
		return;
	}
	disk->journal = journal;
	if (relocation->resuming)
		note_loaded(disk);
	relocation->io.journal_index++;
	journal_open_next(relocation);
}

/* What stands in the file is judged against the record, the opened disk and the move. */
static void journal_peeked(const struct journal_identity *found, int result, void *user)
{
	struct relocation *relocation = user;
	struct move_disk *disk = journal_disk(relocation);
	struct journal_identity expected;

	journal_expected(relocation, disk, &expected);
	if (!result && (found->size_bytes != expected.size_bytes ||
			found->generation != expected.generation ||
			memcmp(found->disk_uuid, expected.disk_uuid, sizeof(found->disk_uuid)) ||
			strcmp(found->journal_id, expected.journal_id) != 0))
		result = -ESTALE;
	if (result) {
		journal_failed(relocation, result);
		return;
	}
	disk->align_bytes = found->align_bytes;
	journal_load(disk->journal_device, found, journal_opened, relocation);
}

static void journal_begin(struct relocation *relocation, struct move_disk *disk)
{
	const struct blk_dev *source = disk_device(disk->disk);
	struct journal_identity identity;

	journal_expected(relocation, disk, &identity);
	identity.region_bytes = mover_region_bytes(&relocation->plan.options, source,
						   disk->target_device, identity.size_bytes);
	identity.align_bytes = MAX(source->limits.physical_bytes,
				   disk->target_device->limits.physical_bytes);
	identity.extent_bytes = MIN(JOURNAL_EXTENT_BYTES, 64 * identity.region_bytes);
	journal_create(disk->journal_device, &identity, journal_opened, relocation);
}

static void journal_open_next(struct relocation *relocation)
{
	struct move_disk *disk = journal_disk(relocation);
	struct blk_file_options options = { .submit_thread = true, .depth = 32, .name = "journal" };

	if (relocation->io.journal_index == relocation->plan.disk_count) {
		relocation->job_rc = 0;
		relocation->io.journals_done(relocation);
		return;
	}
	relocation->job_rc = blk_file_new(disk_loop(disk->disk), disk->journal_fd, &options,
					  &disk->journal_device, &relocation->job_err);
	if (relocation->job_rc) {
		relocation->io.journals_done(relocation);
		return;
	}
	disk->journal_fd = -1;          /* the device's now */
	if (relocation->resuming)
		journal_peek(disk->journal_device, journal_peeked, relocation);
	else
		journal_begin(relocation, disk);
}

void relocate_journals_open(struct relocation *relocation,
			    void (*done)(struct relocation *relocation))
{
	relocation->io.journal_index = 0;
	relocation->io.journals_done = done;
	journal_open_next(relocation);
}

/* ---- closing: on the I/O loop, and when nobody asks them any more ---- */

static void journal_close_next(struct relocation *relocation);

static void journal_closed(void *user)
{
	struct relocation *relocation = user;
	struct move_disk *disk = journal_disk(relocation);

	disk->journal = NULL;
	journal_close_next(relocation);
}

static void journal_close_next(struct relocation *relocation)
{
	struct relocate_io *io = &relocation->io;

	for (; io->journal_index < relocation->plan.disk_count; io->journal_index++) {
		struct move_disk *disk = journal_disk(relocation);

		if (disk->journal) {
			journal_close(disk->journal, journal_closed, relocation);
			return;
		}
		blk_close(disk->journal_device);
		disk->journal_device = NULL;
	}
	io->journals_done(relocation);
}

void relocate_journals_close(struct relocation *relocation,
			     void (*done)(struct relocation *relocation))
{
	relocation->io.journal_index = 0;
	relocation->io.journals_done = done;
	journal_close_next(relocation);
}
