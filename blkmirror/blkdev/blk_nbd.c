/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd.c - the device: requests become NBD commands, at most COMMANDS at a time.
 *
 *   submit -> waiting -> send (a command per piece) -> libnbd -> answered -> settle -> done
 *
 * A request is cut into commands where the server takes less than blkdev.h allows,
 * or where its memory lies in small pieces.  Requests take turns, one command each,
 * so that one of a terabyte does not keep a guest's 4 KiB waiting.
 *
 * libnbd answers from inside its calls, with its lock held: its callbacks only note
 * the answer.  settle() carries on from there, either right after the descriptor was
 * served or, for what was answered during a submit, from a turn hook; so done()
 * never runs inside submit nor inside libnbd.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nbd_private.h"

#define COMMANDS 32u
#define BEST_TRANSFER_BYTES (UINT64_C(1) << 20)
/* Of requests that carry no data; lengths are 32 bits on the wire. */
#define RANGE_BYTES_MAX (UINT64_C(1) << 30)
/* A piece of memory at least this long goes without a copy; shorter ones are gathered. */
#define DIRECT_BYTES_MIN (UINT64_C(32) << 10)
#define BOUNCE_BYTES (UINT64_C(128) << 10)
/* Per command, where the server cannot write zeroes by itself. */
#define ZEROES_BYTES (UINT64_C(256) << 10)

_Static_assert(BOUNCE_BYTES >= NBD_BLOCK_BYTES_MAX, "a block fits the bounce buffer");
_Static_assert(ZEROES_BYTES >= NBD_BLOCK_BYTES_MAX, "a block fits the buffer of zeroes");

/* How far a request is; in blk_req.private_bytes. */
struct progress {
	uint64_t next_bytes, end_bytes; /* what has not been sent yet */
	size_t iov_offset_bytes;        /* of next_bytes, inside piece iov_index */
	uint32_t iov_index;
	uint32_t in_flight;             /* commands */
	int error;                      /* the first one; nothing more is sent after it */
	bool flush_after;               /* FUA for a server that only knows flush */
	bool flush_now;                 /* ... and all its data is there */
};

_Static_assert(sizeof(struct progress) <= BLK_REQ_PRIVATE_BYTES, "fits the request");

struct command {
	struct list node;               /* idle or answered */
	struct blk_nbd *nbd;
	struct blk_req *req;
	uint64_t offset_bytes, len_bytes;
	uint8_t *bounce;                /* BOUNCE_BYTES of its own */
	bool scatter;                   /* a read into the bounce buffer, for this place: */
	uint32_t iov_index;
	size_t iov_offset_bytes;
	bool has_status;                /* a block status answer has come */
	int result;
};

struct blk_nbd {
	struct blk_dev dev;
	struct blk_nbd_link *link;
	struct watch watch;
	struct turn_hook settle_hook;
	struct list waiting;            /* blk_req.node: has something to send */
	struct list over;               /* blk_req.node: to be completed by settle */
	struct list idle;               /* command.node */
	struct list answered;           /* command.node */
	struct command commands[COMMANDS];
	uint8_t *bounce;
	uint8_t *zeroes;                /* NULL where the server can zero */
	bool dead;
};

static struct progress *progress_of(struct blk_req *req)
{
	return (struct progress *)(void *)req->private_bytes;
}

static bool has_more_to_send(struct blk_req *req)
{
	const struct progress *progress = progress_of(req);

	return !progress->error &&
	       (progress->next_bytes < progress->end_bytes || progress->flush_now);
}

/* ---- answers, called by libnbd with its lock held ---- */

/* What a connection's end is called differs by moment; our callers know one word for it. */
static int result_of(int error)
{
	switch (error) {
	case 0:
		return 0;
	case ENOTCONN:
	case ESHUTDOWN:
	case EPIPE:
	case ECONNRESET:
		return -EIO;
	default:
		return error > 0 ? -error : -EIO;
	}
}

static int command_answered(void *user, int *error)
{
	struct command *command = user;

	command->result = result_of(*error);
	list_append(&command->nbd->answered, &command->node);
	return 1;                       /* libnbd may forget the command */
}

static int command_status(void *user, const char *context, uint64_t offset, uint32_t *entries,
			  size_t entry_count, int *error)
{
	struct command *command = user;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	if (!command->has_status && offset == command->offset_bytes &&
	    blk_nbd_extents_translate(entries, entry_count, command->len_bytes,
				      command->nbd->dev.limits.block_bytes,
				      command->req->extents) == 0) {
		command->has_status = true;
		return 0;
	}
	*error = EIO;
	return -1;
}

/* ---- memory in pieces ---- */

/* Copies between the request's memory from its present place on and `bytes`; moves the place. */
static void iov_copy(const struct blk_req *req, uint32_t *index, size_t *offset_bytes,
		     uint8_t *bytes, uint64_t len_bytes)
{
	while (len_bytes) {
		const struct iovec *piece = &req->iov[*index];
		uint64_t part_bytes = MIN(piece->iov_len - *offset_bytes, len_bytes);
		uint8_t *memory = (uint8_t *)piece->iov_base + *offset_bytes;

		if (req->op == BLK_READ)
			memcpy(memory, bytes, part_bytes);
		else
			memcpy(bytes, memory, part_bytes);
		bytes += part_bytes;
		len_bytes -= part_bytes;
		*offset_bytes += part_bytes;
		if (*offset_bytes == piece->iov_len) {
			(*index)++;
			*offset_bytes = 0;
		}
	}
}

static void iov_skip(const struct blk_req *req, struct progress *progress, uint64_t len_bytes)
{
	while (len_bytes) {
		size_t left_bytes = req->iov[progress->iov_index].iov_len -
				    progress->iov_offset_bytes;
		size_t part_bytes = MIN(left_bytes, len_bytes);

		len_bytes -= part_bytes;
		progress->iov_offset_bytes += part_bytes;
		if (part_bytes == left_bytes) {
			progress->iov_index++;
			progress->iov_offset_bytes = 0;
		}
	}
}

/*
 * The memory and length of the next READ or WRITE command: as much of one piece as
 * the server takes, or, where pieces are short or end inside a block, several of
 * them by way of the bounce buffer.
 */
static uint8_t *command_memory(struct command *command, struct progress *progress)
{
	struct blk_nbd *nbd = command->nbd;
	struct blk_req *req = command->req;
	uint64_t left_bytes = progress->end_bytes - progress->next_bytes;
	uint64_t most_bytes = MIN(left_bytes, nbd->link->max_transfer_bytes);
	const struct iovec *piece;
	uint64_t direct_bytes;

	while (req->iov[progress->iov_index].iov_len == progress->iov_offset_bytes) {
		progress->iov_index++;          /* empty ones */
		progress->iov_offset_bytes = 0;
	}
	piece = &req->iov[progress->iov_index];
	direct_bytes = MIN(piece->iov_len - progress->iov_offset_bytes, most_bytes);
	direct_bytes = round_down(direct_bytes, nbd->dev.limits.block_bytes);
	if (direct_bytes == most_bytes || direct_bytes >= DIRECT_BYTES_MIN) {
		uint8_t *memory = (uint8_t *)piece->iov_base + progress->iov_offset_bytes;

		command->len_bytes = direct_bytes;
		iov_skip(req, progress, direct_bytes);
		return memory;
	}
	command->len_bytes = MIN(most_bytes, BOUNCE_BYTES);
	if (req->op == BLK_WRITE) {
		iov_copy(req, &progress->iov_index, &progress->iov_offset_bytes, command->bounce,
			 command->len_bytes);
	} else {
		command->scatter = true;
		command->iov_index = progress->iov_index;
		command->iov_offset_bytes = progress->iov_offset_bytes;
		iov_skip(req, progress, command->len_bytes);
	}
	return command->bounce;
}

/* ---- W5: sending ---- */

static uint32_t command_fua(const struct command *command)
{
	bool wanted = command->req->flags & BLK_FUA;

	return wanted && command->nbd->link->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

static int64_t command_send_zeroes(struct command *command, uint64_t left_bytes,
				   nbd_completion_callback answered)
{
	struct blk_nbd *nbd = command->nbd;
	struct nbd_handle *handle = nbd->link->handle;
	uint32_t flags = command_fua(command);

	if (nbd->zeroes) {
		command->len_bytes = MIN(ZEROES_BYTES, nbd->link->max_transfer_bytes);
		command->len_bytes = MIN(command->len_bytes, left_bytes);
		return nbd_aio_pwrite(handle, nbd->zeroes, command->len_bytes,
				      command->offset_bytes, answered, flags);
	}
	if (!(command->req->flags & BLK_MAY_UNMAP))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	command->len_bytes = MIN(left_bytes, RANGE_BYTES_MAX);
	return nbd_aio_zero(handle, command->len_bytes, command->offset_bytes, answered, flags);
}

static int64_t command_send_extents(struct command *command, uint64_t left_bytes,
				    nbd_completion_callback answered)
{
	const nbd_extent_callback status = { .callback = command_status, .user_data = command };
	uint32_t flags = command->req->extents->capacity == 1 ? LIBNBD_CMD_FLAG_REQ_ONE : 0;

	command->len_bytes = MIN(left_bytes, RANGE_BYTES_MAX);
	return nbd_aio_block_status(command->nbd->link->handle, command->len_bytes,
				    command->offset_bytes, status, answered, flags);
}

/* Sets command->len_bytes.  -1: libnbd refused it, and will not answer. */
static int64_t command_send(struct command *command, struct progress *progress)
{
	const nbd_completion_callback answered = { .callback = command_answered,
						   .user_data = command };
	struct nbd_handle *handle = command->nbd->link->handle;
	uint64_t left_bytes = progress->end_bytes - progress->next_bytes;
	uint8_t *memory;

	if (progress->flush_now)
		return nbd_aio_flush(handle, answered, 0);
	switch (command->req->op) {
	case BLK_READ:
		memory = command_memory(command, progress);
		return nbd_aio_pread(handle, memory, command->len_bytes, command->offset_bytes,
				     answered, 0);
	case BLK_WRITE:
		memory = command_memory(command, progress);
		return nbd_aio_pwrite(handle, memory, command->len_bytes, command->offset_bytes,
				      answered, command_fua(command));
	case BLK_WRITE_ZEROES:
		return command_send_zeroes(command, left_bytes, answered);
	case BLK_DISCARD:
		command->len_bytes = MIN(left_bytes, RANGE_BYTES_MAX);
		return nbd_aio_trim(handle, command->len_bytes, command->offset_bytes, answered, 0);
	default:
		CHECK(command->req->op == BLK_EXTENTS);
		return command_send_extents(command, left_bytes, answered);
	}
}

/* One command of the request; there is an idle one. */
static void request_send_one(struct blk_nbd *nbd, struct blk_req *req)
{
	struct command *command = list_entry(list_pop(&nbd->idle), struct command, node);
	struct progress *progress = progress_of(req);

	command->req = req;
	command->offset_bytes = progress->next_bytes;
	command->len_bytes = 0;
	command->scatter = false;
	command->has_status = false;
	progress->in_flight++;
	if (command_send(command, progress) < 0) {
		command->result = nbd_get_errno() ? result_of(nbd_get_errno()) : -EIO;
		list_append(&nbd->answered, &command->node);
	}
	if (progress->flush_now)
		progress->flush_now = false;
	else if (req->op == BLK_EXTENTS)
		progress->next_bytes = progress->end_bytes;     /* it may stop early */
	else
		progress->next_bytes += command->len_bytes;
}

/* ---- the connection ---- */

static void blk_nbd_notice_death(struct blk_nbd *nbd)
{
	struct nbd_handle *handle = nbd->link->handle;
	bool is_dead;

	if (nbd->dead)
		return;
	is_dead = nbd_aio_is_dead(handle);
	if (!is_dead && !nbd_aio_is_closed(handle))
		return;
	nbd->dead = true;
	nbd->dev.lost = true;           /* R2: the mover does not go on with it */
	watch_stop(&nbd->watch);
	log_warn("nbd", "%s: connection lost: %s", nbd->link->name,
		 is_dead && nbd_get_error() ? nbd_get_error() : "the server closed it");
}

static void blk_nbd_follow_direction(struct blk_nbd *nbd)
{
	unsigned direction, events = 0;

	if (nbd->dead)
		return;
	direction = nbd_aio_get_direction(nbd->link->handle);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= WATCH_READ;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= WATCH_WRITE;
	watch_set_events(&nbd->watch, events);
}

/* Sends what may be sent, one command of each request in turn. */
static void blk_nbd_pump(struct blk_nbd *nbd)
{
	while (!nbd->dead && !list_is_empty(&nbd->waiting) && !list_is_empty(&nbd->idle)) {
		struct blk_req *req = list_entry(list_pop(&nbd->waiting), struct blk_req, node);

		request_send_one(nbd, req);
		if (has_more_to_send(req))
			list_append(&nbd->waiting, &req->node);
		blk_nbd_notice_death(nbd);
	}
	blk_nbd_follow_direction(nbd);
	if (!list_is_empty(&nbd->answered) || (nbd->dead && !list_is_empty(&nbd->waiting)))
		loop_at_turn_end(nbd->dev.loop, &nbd->settle_hook);
}

/* ---- settling ---- */

static void request_maybe_over(struct blk_nbd *nbd, struct blk_req *req)
{
	struct progress *progress = progress_of(req);

	if (progress->in_flight)
		return;
	if (!progress->error && progress->flush_after &&
	    progress->next_bytes == progress->end_bytes) {
		progress->flush_after = false;
		progress->flush_now = true;
		list_append(&nbd->waiting, &req->node);
		return;
	}
	if (has_more_to_send(req))
		return;                 /* it waits for its turn */
	list_append(&nbd->over, &req->node);
}

static void command_settle(struct blk_nbd *nbd, struct command *command)
{
	struct blk_req *req = command->req;
	struct progress *progress = progress_of(req);

	if (!command->result && req->op == BLK_EXTENTS && !command->has_status)
		command->result = -EIO; /* "done", and nothing told */
	if (!command->result && command->scatter)
		iov_copy(req, &command->iov_index, &command->iov_offset_bytes, command->bounce,
			 command->len_bytes);
	list_append(&nbd->idle, &command->node);
	progress->in_flight--;
	if (command->result && !progress->error) {
		progress->error = command->result;
		list_remove(&req->node);        /* nothing more is sent of it */
	}
	request_maybe_over(nbd, req);
}

static void blk_nbd_fail_waiting(struct blk_nbd *nbd)
{
	struct list *node;

	while ((node = list_pop(&nbd->waiting))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		if (!progress_of(req)->error)
			progress_of(req)->error = -EIO;
		request_maybe_over(nbd, req);
	}
}

static void blk_nbd_settle(struct blk_nbd *nbd)
{
	struct list over, *node;

	while ((node = list_pop(&nbd->answered)))
		command_settle(nbd, list_entry(node, struct command, node));
	if (nbd->dead)
		blk_nbd_fail_waiting(nbd);
	list_init(&over);
	list_splice(&over, &nbd->over);
	blk_nbd_pump(nbd);
	while ((node = list_pop(&over))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		/* The owner may close the device from the last one: touch it no more. */
		blk_complete(req, progress_of(req)->error);
	}
}

static void blk_nbd_settle_late(struct turn_hook *hook)
{
	blk_nbd_settle(container_of(hook, struct blk_nbd, settle_hook));
}

static void blk_nbd_ready(struct watch *watch, unsigned events)
{
	struct blk_nbd *nbd = container_of(watch, struct blk_nbd, watch);
	struct nbd_handle *handle = nbd->link->handle;

	/* Each call may change the direction, or end the connection: its result is the state. */
	if (events & (WATCH_READ | WATCH_HANGUP) &&
	    nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_READ)
		(void)nbd_aio_notify_read(handle);
	if (events & (WATCH_WRITE | WATCH_HANGUP) &&
	    nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_WRITE)
		(void)nbd_aio_notify_write(handle);
	blk_nbd_notice_death(nbd);
	blk_nbd_settle(nbd);
}

/* ---- the device ---- */

static void blk_nbd_start(struct blk_nbd *nbd, struct blk_req *req)
{
	struct progress *progress = progress_of(req);

	*progress = (struct progress){ .next_bytes = req->offset_bytes,
				       .end_bytes = req->offset_bytes + req->len_bytes };
	if (req->op == BLK_FLUSH) {
		progress->next_bytes = progress->end_bytes = 0;
		progress->flush_now = true;
	} else if (req->flags & BLK_FUA && blk_op_writes(req->op)) {
		progress->flush_after = !nbd->link->can_fua && nbd->link->can_flush;
	}
	list_append(&nbd->waiting, &req->node);
	blk_nbd_pump(nbd);
}

static void blk_nbd_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct blk_nbd *nbd = container_of(dev, struct blk_nbd, dev);

	if (nbd->dead) {
		blk_complete_later(req, -EIO);
	} else if (req->op == BLK_FLUSH && !nbd->link->can_flush) {
		blk_complete_later(req, 0);
	} else if (req->op == BLK_DISCARD && !nbd->link->can_trim) {
		blk_complete_later(req, 0);     /* only a hint */
	} else if (req->op == BLK_EXTENTS && !nbd->link->has_extents) {
		req->extents->runs[0] = (struct blk_extent){ req->len_bytes, BLK_EXTENT_DATA };
		req->extents->count = 1;
		blk_complete_later(req, 0);
	} else {
		blk_nbd_start(nbd, req);
	}
}

static void blk_nbd_free(struct blk_nbd *nbd)
{
	free(nbd->zeroes);
	free(nbd->bounce);
	free(nbd);
}

static void blk_nbd_close(struct blk_dev *dev)
{
	struct blk_nbd *nbd = container_of(dev, struct blk_nbd, dev);

	turn_hook_cancel(&nbd->settle_hook);
	watch_stop(&nbd->watch);
	blk_nbd_link_free(nbd->link);
	blk_nbd_free(nbd);
}

static const struct blk_ops blk_nbd_ops = {
	.name = "nbd",
	.submit = blk_nbd_submit,
	.close = blk_nbd_close,
};

static struct blk_limits blk_nbd_limits(const struct blk_nbd_link *link,
					const struct blk_nbd_options *options)
{
	uint64_t best_bytes = MIN(BEST_TRANSFER_BYTES, link->max_transfer_bytes);

	return (struct blk_limits){
		.block_bytes = link->block_bytes,
		.physical_bytes = link->physical_bytes,
		.memory_align_bytes = 1,
		.best_transfer_bytes = (uint32_t)best_bytes,
		.best_depth = COMMANDS,
		.reads_zero = options->reads_zero,
		.can_unmap = link->can_zero && link->can_trim,
		.has_extents = link->has_extents,
		.read_only = options->read_only || link->read_only,
	};
}

/* What the server lacks is made up for, or does not exist; either way the log has it. */
static void blk_nbd_tell_limits(const struct blk_nbd *nbd)
{
	const struct blk_nbd_link *link = nbd->link;

	if (nbd->dev.limits.read_only)
		return;
	if (!link->can_flush)
		log_warn("nbd", "%s: the server has no flush: acknowledged counts as durable",
			 link->name);
	if (!link->can_zero)
		log_info("nbd", "%s: the server cannot write zeroes by itself: they are sent",
			 link->name);
}

static struct blk_nbd *blk_nbd_alloc(struct loop *loop, const struct blk_nbd_link *link,
				     const struct blk_nbd_options *options)
{
	struct blk_limits limits = blk_nbd_limits(link, options);
	struct blk_nbd *nbd = calloc(1, sizeof(*nbd));

	if (!nbd)
		return NULL;
	/* Large enough to come from mmap: pages that no request touches take no memory. */
	nbd->bounce = calloc(COMMANDS, BOUNCE_BYTES);
	if (!link->can_zero)
		nbd->zeroes = calloc(1, ZEROES_BYTES);
	if (!nbd->bounce || (!link->can_zero && !nbd->zeroes)) {
		blk_nbd_free(nbd);
		return NULL;
	}
	blk_dev_init(&nbd->dev, &blk_nbd_ops, loop, link->size_bytes, &limits);
	turn_hook_init(&nbd->settle_hook, blk_nbd_settle_late);
	list_init(&nbd->waiting);
	list_init(&nbd->over);
	list_init(&nbd->idle);
	list_init(&nbd->answered);
	for (size_t i = 0; i < COMMANDS; i++) {
		nbd->commands[i].nbd = nbd;
		nbd->commands[i].bounce = nbd->bounce + i * BOUNCE_BYTES;
		list_append(&nbd->idle, &nbd->commands[i].node);
	}
	return nbd;
}

int blk_nbd_new(struct loop *loop, struct blk_nbd_link *link,
		const struct blk_nbd_options *options, struct blk_dev **out, struct err *err)
{
	struct blk_nbd *nbd;
	int rc;

	LOOP_CHECK(loop);
	if (link->read_only && !options->read_only)
		return err_set(err, ERR_NBD_READ_ONLY, -EROFS,
			       "cannot write to %s: it is read-only", link->name);
	nbd = blk_nbd_alloc(loop, link, options);
	if (!nbd)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot use %s", link->name);
	rc = watch_start(&nbd->watch, loop, link->fd, WATCH_READ, blk_nbd_ready);
	if (rc) {
		blk_nbd_free(nbd);
		return err_set(err, ERR_NBD_CONNECT, rc, "cannot wait for %s: %s", link->name,
			       err_strerror(rc));
	}
	if (options->name)
		snprintf(link->name, sizeof(link->name), "%s", options->name);
	nbd->link = link;
	blk_nbd_follow_direction(nbd);
	blk_nbd_tell_limits(nbd);
	*out = &nbd->dev;
	return 0;
}

bool blk_nbd_is_dead(const struct blk_dev *dev)
{
	CHECK(dev->ops == &blk_nbd_ops);
	return container_of(dev, struct blk_nbd, dev)->dead;
}
