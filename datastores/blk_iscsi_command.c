/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_iscsi_command.c - one SCSI command of a request: its bytes, its memory, its answer.
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "datastores/blk_iscsi_private.h"

enum {
	OP_UNMAP = 0x42,
	OP_READ_16 = 0x88,
	OP_WRITE_16 = 0x8a,
	OP_SYNC_16 = 0x91,
	OP_WRITE_SAME_16 = 0x93,
	OP_SERVICE_IN_16 = 0x9e,
};
enum { SERVICE_READ_CAPACITY = 0x10, SERVICE_LBA_STATUS = 0x12 };
enum { BIT_FUA = 0x08, BIT_SAME_UNMAP = 0x08 };

#define EXTENTS_ANSWER_BYTES ISCSI_ANSWER_BYTES
#define CAPACITY_ANSWER_BYTES 32u

static void put_be(uint8_t *bytes, uint64_t value, unsigned count)
{
	for (unsigned i = count; i-- > 0; value >>= 8)
		bytes[i] = (uint8_t)value;
}

bool iscsi_has_more_to_send(struct blk_req *req)
{
	const struct iscsi_progress *progress = iscsi_progress_of(req);

	return !progress->error && !progress->lost &&
	       (progress->next_bytes < progress->end_bytes || progress->flush_now);
}

/* ---- what comes next ---- */

static enum iscsi_kind kind_of(const struct blk_iscsi *iscsi, const struct blk_req *req)
{
	switch (req->op) {
	case BLK_READ:
		return ISCSI_READ;
	case BLK_WRITE:
		return ISCSI_WRITE;
	case BLK_WRITE_ZEROES:
		return iscsi->quirks.no_write_same ? ISCSI_WRITE_ZEROES : ISCSI_WRITE_SAME;
	case BLK_DISCARD:
		return ISCSI_UNMAP;
	case BLK_EXTENTS:
		return ISCSI_EXTENTS;
	default:
		CHECK(req->op == BLK_FLUSH);
		return ISCSI_SYNC;
	}
}

static uint64_t most_bytes(const struct blk_iscsi *iscsi, enum iscsi_kind kind)
{
	const struct iscsi_unit *unit = &iscsi->unit;

	switch (kind) {
	case ISCSI_READ:
	case ISCSI_WRITE:
		return unit->max_transfer_bytes;
	case ISCSI_WRITE_ZEROES:
		return MIN(unit->max_transfer_bytes, BLK_ISCSI_ZERO_BYTES);
	case ISCSI_WRITE_SAME:
		return unit->max_write_same_bytes;
	case ISCSI_UNMAP:
		return unit->max_unmap_bytes;
	default:
		return UINT64_MAX;
	}
}

/* The request's memory for the command's range, in pieces that libiscsi may keep. */
static void take_memory(struct iscsi_command *command, struct iscsi_progress *progress)
{
	const struct blk_req *req = command->req;
	uint64_t left_bytes = command->len_bytes;

	while (left_bytes) {
		const struct iovec *piece = &req->iov[progress->iov_index];
		size_t bytes = (size_t)MIN(piece->iov_len - progress->iov_offset_bytes, left_bytes);

		CHECK(command->iov_count < ARRAY_COUNT(command->iov));
		if (bytes)
			command->iov[command->iov_count++] = (struct iovec){
				(uint8_t *)piece->iov_base + progress->iov_offset_bytes, bytes };
		progress->iov_offset_bytes += bytes;
		left_bytes -= bytes;
		if (progress->iov_offset_bytes == piece->iov_len) {
			progress->iov_index++;
			progress->iov_offset_bytes = 0;
		}
	}
}

/*
 * libiscsi does not tell how many bytes came for a read, and a target may answer GOOD without any:
 * the old contents of the memory would pass for data.  So a random word is put to both ends,
 * and one that is still there is an answer without data.
 */
static uint8_t *canary_place(const struct iscsi_command *command, bool at_end)
{
	const struct iovec *iov = &command->iov[at_end ? command->iov_count - 1 : 0];

	if (iov->iov_len < sizeof(command->iscsi->canary))
		return NULL;
	return (uint8_t *)iov->iov_base +
	       (at_end ? iov->iov_len - sizeof(command->iscsi->canary) : 0);
}

static void put_canaries(struct iscsi_command *command)
{
	for (int at_end = 0; at_end <= 1; at_end++) {
		uint8_t *place = canary_place(command, at_end);

		if (place)
			memcpy(place, &command->iscsi->canary, sizeof(command->iscsi->canary));
	}
}

static bool canaries_are_gone(const struct iscsi_command *command)
{
	for (int at_end = 0; at_end <= 1; at_end++) {
		const uint8_t *place = canary_place(command, at_end);

		if (place && memcmp(place, &command->iscsi->canary,
				    sizeof(command->iscsi->canary)) == 0)
			return false;
	}
	return true;
}

void iscsi_command_prepare(struct iscsi_command *command, struct blk_req *req)
{
	struct iscsi_progress *progress = iscsi_progress_of(req);

	command->req = req;
	command->retry = (struct iscsi_retry){ 0 };
	command->iov_count = 0;
	if (progress->next_bytes == progress->end_bytes) {
		CHECK(progress->flush_now);
		progress->flush_now = false;
		command->kind = ISCSI_SYNC;
		command->offset_bytes = command->len_bytes = 0;
	} else {
		command->kind = kind_of(command->iscsi, req);
		command->offset_bytes = progress->next_bytes;
		command->len_bytes = MIN(progress->end_bytes - progress->next_bytes,
					 most_bytes(command->iscsi, command->kind));
		progress->next_bytes = command->kind == ISCSI_EXTENTS
			? progress->end_bytes : progress->next_bytes + command->len_bytes;
		if (command->kind == ISCSI_READ || command->kind == ISCSI_WRITE)
			take_memory(command, progress);
	}
	progress->in_flight++;
}

/* ---- the bytes ---- */

struct wire {
	uint8_t cdb[ISCSI_CDB_BYTES];
	int cdb_bytes;
	int direction;
	uint64_t transfer_bytes;
};

static void put_range(const struct iscsi_command *command, uint8_t *cdb)
{
	uint32_t block_bytes = command->iscsi->unit.block_bytes;

	put_be(cdb + 2, command->offset_bytes / block_bytes, 8);
	put_be(cdb + 10, command->len_bytes / block_bytes, 4);
}

static void wire_data(struct iscsi_command *command, struct wire *wire)
{
	bool writes = command->kind != ISCSI_READ;

	wire->cdb[0] = writes ? OP_WRITE_16 : OP_READ_16;
	if (writes && command->req->flags & BLK_FUA && command->iscsi->unit.has_fua)
		wire->cdb[1] = BIT_FUA;
	put_range(command, wire->cdb);
	wire->direction = writes ? SCSI_XFER_WRITE : SCSI_XFER_READ;
	wire->transfer_bytes = command->len_bytes;
	if (command->kind == ISCSI_WRITE_ZEROES)
		command->data = (struct iscsi_data){ command->len_bytes, command->iscsi->zeroes };
}

static void wire_same(struct iscsi_command *command, struct wire *wire)
{
	const struct iscsi_unit *unit = &command->iscsi->unit;

	wire->cdb[0] = OP_WRITE_SAME_16;
	/* R11: zeroes all the same, what cannot be given back being written. */
	if (command->req->flags & BLK_MAY_UNMAP && unit->can_write_same_unmap)
		wire->cdb[1] = BIT_SAME_UNMAP;
	put_range(command, wire->cdb);
	wire->direction = SCSI_XFER_WRITE;
	wire->transfer_bytes = unit->block_bytes;
	command->data = (struct iscsi_data){ unit->block_bytes, command->iscsi->zeroes };
}

static void wire_unmap(struct iscsi_command *command, struct wire *wire)
{
	uint32_t block_bytes = command->iscsi->unit.block_bytes;
	uint8_t *list = command->parameters;

	wire->cdb[0] = OP_UNMAP;
	wire->cdb_bytes = 10;
	wire->cdb[8] = sizeof(command->parameters);
	memset(list, 0, sizeof(command->parameters));
	put_be(list, sizeof(command->parameters) - 2, 2);
	put_be(list + 2, 16, 2);
	put_be(list + 8, command->offset_bytes / block_bytes, 8);
	put_be(list + 16, command->len_bytes / block_bytes, 4);
	wire->direction = SCSI_XFER_WRITE;
	wire->transfer_bytes = sizeof(command->parameters);
	command->data = (struct iscsi_data){ sizeof(command->parameters), list };
}

static void wire_service(const struct iscsi_command *command, struct wire *wire)
{
	bool extents = command->kind == ISCSI_EXTENTS;

	wire->cdb[0] = OP_SERVICE_IN_16;
	wire->cdb[1] = extents ? SERVICE_LBA_STATUS : SERVICE_READ_CAPACITY;
	if (extents)
		put_be(wire->cdb + 2, command->offset_bytes /
				      command->iscsi->unit.block_bytes, 8);
	wire->transfer_bytes = extents ? EXTENTS_ANSWER_BYTES : CAPACITY_ANSWER_BYTES;
	put_be(wire->cdb + 10, wire->transfer_bytes, 4);
	wire->direction = SCSI_XFER_READ;
}

static void wire_of(struct iscsi_command *command, struct wire *wire)
{
	*wire = (struct wire){ .cdb_bytes = 16, .direction = SCSI_XFER_NONE };
	command->data = (struct iscsi_data){ 0 };
	switch (command->kind) {
	case ISCSI_READ:
	case ISCSI_WRITE:
	case ISCSI_WRITE_ZEROES:
		wire_data(command, wire);
		break;
	case ISCSI_WRITE_SAME:
		wire_same(command, wire);
		break;
	case ISCSI_UNMAP:
		wire_unmap(command, wire);
		break;
	case ISCSI_SYNC:
		wire->cdb[0] = OP_SYNC_16;      /* all of the unit */
		break;
	case ISCSI_EXTENTS:
	case ISCSI_CAPACITY:
		wire_service(command, wire);
		break;
	}
}

int iscsi_command_send(struct iscsi_command *command)
{
	struct iscsi_link *link = command->iscsi->links->links[command->link];
	struct wire wire;

	CHECK(!command->task);
	wire_of(command, &wire);
	command->task = scsi_create_task(wire.cdb_bytes, wire.cdb, wire.direction,
					 (int)wire.transfer_bytes);
	if (!command->task)
		return -ENOMEM;
	_Static_assert(sizeof(struct scsi_iovec) == sizeof(struct iovec), "the same");
	if (command->kind == ISCSI_READ) {
		put_canaries(command);
		scsi_task_set_iov_in(command->task, (struct scsi_iovec *)(void *)command->iov,
				     (int)command->iov_count);
	} else if (command->kind == ISCSI_WRITE) {
		scsi_task_set_iov_out(command->task, (struct scsi_iovec *)(void *)command->iov,
				      (int)command->iov_count);
	}
	if (iscsi_scsi_command_async(link->context, (int)command->iscsi->unit.lun,
				     command->task, blk_iscsi_answered,
				     command->data.data ? &command->data : NULL, command))
		return -EIO;
	return 0;
}

void iscsi_command_done_with(struct iscsi_command *command)
{
	if (command->task)
		scsi_free_scsi_task(command->task);
	command->task = NULL;
}

/* ---- the answer ---- */

/*
 * Short or long where a length was asked for: nothing that may pass for data.  tgt counts none of
 * UNMAP's parameters.
 */
static bool moved_all(const struct iscsi_command *command)
{
	return command->kind == ISCSI_UNMAP ||
	       command->task->residual_status == SCSI_RESIDUAL_NO_RESIDUAL;
}

static int judge_extents(struct iscsi_command *command)
{
	const struct scsi_task *task = command->task;
	size_t len = task->datain.data && task->datain.size > 0 ? (size_t)task->datain.size : 0;

	return iscsi_unit_judge_extents(&command->iscsi->unit, task->datain.data, len,
					command->req);
}

static void judge_capacity(struct iscsi_command *command)
{
	const struct scsi_task *task = command->task;
	size_t len = task->datain.data && task->datain.size > 0 ? (size_t)task->datain.size : 0;
	struct blk_iscsi *iscsi = command->iscsi;
	struct iscsi_unit unit = { .lun = iscsi->unit.lun };
	struct err err = { 0 };

	if (iscsi_unit_judge_capacity(&unit, task->datain.data, len, &err)) {
		log_error("iscsi", "%s: %s", iscsi->name, err.cause);
		return;
	}
	if (unit.size_bytes < iscsi->dev.size_bytes) {
		log_error("iscsi", "%s: the unit has become smaller (%llu bytes): what lies behind"
			  " its end is gone", iscsi->name, (unsigned long long)unit.size_bytes);
	} else if (unit.size_bytes > iscsi->dev.size_bytes) {
		log_info("iscsi", "%s: the unit has grown to %llu bytes: attach the disk anew to"
			 " use them", iscsi->name, (unsigned long long)unit.size_bytes);
	}
}

/* Words that our callers know. */
static int error_of(int error)
{
	switch (error) {
	case -ENOSPC:
	case -EROFS:
	case -ENOMEM:
		return error;
	default:
		return -EIO;
	}
}

/* The unit does not know the command: from now on we do without.  False: an error like others. */
static bool do_without(struct iscsi_command *command, int *error)
{
	struct iscsi_quirks *quirks = &command->iscsi->quirks;

	switch (command->kind) {
	case ISCSI_WRITE_SAME:
		quirks->no_write_same = true;
		*error = 0;
		return true;
	case ISCSI_EXTENTS:
		quirks->no_extents = true;
		command->req->extents->runs[0] =
			(struct blk_extent){ command->req->len_bytes, BLK_EXTENT_DATA };
		command->req->extents->count = 1;
		*error = 0;
		return true;
	case ISCSI_UNMAP:
		quirks->no_unmap = true;
		*error = 0;             /* only a hint */
		return true;
	default:
		return false;
	}
}

/* WRITE SAME was refused: its range goes back to the request, to be written. */
static void give_back(struct iscsi_command *command)
{
	struct iscsi_progress *progress = iscsi_progress_of(command->req);

	/* Commands of a request may be refused in any order: the whole of it is written again. */
	progress->next_bytes = command->req->offset_bytes;
}

static enum iscsi_outcome judge_done(struct iscsi_command *command, int *error)
{
	*error = 0;
	if (command->kind == ISCSI_CAPACITY)
		judge_capacity(command);
	else if (command->kind == ISCSI_EXTENTS)
		*error = judge_extents(command);
	else if (!moved_all(command) ||
		 (command->kind == ISCSI_READ && !canaries_are_gone(command)))
		*error = -EIO;
	return ISCSI_OUTCOME_OVER;
}

static void note_news(struct iscsi_command *command, const struct iscsi_verdict *verdict,
		      const struct iscsi_sense *sense)
{
	struct blk_iscsi *iscsi = command->iscsi;
	char text[ISCSI_SENSE_TEXT_BYTES];

	if (verdict->news & ISCSI_NEWS_CAPACITY)
		iscsi->ask_capacity = true;
	if (verdict->news)
		log_info("iscsi", "%s: news from the unit: %s", iscsi->name,
			 iscsi_sense_text((uint8_t)command->status, sense, text));
}

enum iscsi_outcome iscsi_command_judge(struct iscsi_command *command, int *error,
				       uint64_t *delay_ns)
{
	struct iscsi_sense sense = { 0 };
	struct iscsi_verdict verdict;
	char text[ISCSI_SENSE_TEXT_BYTES];

	*delay_ns = 0;
	*error = -EIO;
	/* Statuses above 255 are libiscsi's own: the connection is no good. */
	if (command->status < 0 || command->status > 0xff)
		return ISCSI_OUTCOME_LOST;
	sense = iscsi_task_sense(command->task, command->status);
	verdict = iscsi_judge((uint8_t)command->status, &sense);
	if (verdict.action == ISCSI_DONE)
		return judge_done(command, error);
	note_news(command, &verdict, &sense);
	/* R-F2: who may write is looked at on new sessions, before anything else is sent. */
	if (command->iscsi->links->lock &&
	    verdict.news & (ISCSI_NEWS_FENCED | ISCSI_NEWS_RESERVATIONS))
		return ISCSI_OUTCOME_LOST;
	if (verdict.action != ISCSI_FAIL) {
		iscsi_retry_count(&command->retry, &verdict, delay_ns);
		if (verdict.action != ISCSI_FAIL)
			return ISCSI_OUTCOME_AGAIN;
	}
	*error = verdict.error;
	if (verdict.error == -EOPNOTSUPP && do_without(command, error)) {
		if (command->kind == ISCSI_WRITE_SAME)
			give_back(command);
		return ISCSI_OUTCOME_OVER;
	}
	log_warn("iscsi", "%s: %s of %llu bytes at %llu: %s", command->iscsi->name,
		 command->req ? blk_op_name(command->req->op) : "READ CAPACITY",
		 (unsigned long long)command->len_bytes, (unsigned long long)command->offset_bytes,
		 iscsi_sense_text((uint8_t)command->status, &sense, text));
	*error = error_of(verdict.error);
	return ISCSI_OUTCOME_OVER;
}
