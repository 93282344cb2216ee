/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_iscsi.c - the device: requests become commands, at most COMMANDS at a time.
 *
 *   submit -> waiting -> send (a command per piece) -> libiscsi -> answered -> settle -> done
 *
 * Requests take turns, one command each, so that one of a terabyte does not keep a guest's
 * 4 KiB waiting.  libiscsi answers from inside its calls: its callback only notes the answer, and
 * settle() carries on from there, so done() never runs inside submit.
 *
 * When any session ends, all of them are dropped: a request whose command went with it is
 * *held* until new sessions have passed the barrier (blk_iscsi_links.c), then sent again, or, as
 * a target's write, failed.
 *
 *       UP --a session ends--> RECONNECTING --dialled, barrier answered--> UP
 *                               |       ^
 *                  GIVE_UP_NS   v       | (as before)
 *                              DOWN ----+
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "datastores/blk_iscsi_private.h"

#define TICK_NS (100 * NS_PER_MS)
#define COMMAND_DEADLINE_NS (60 * NS_PER_S)
#define GIVE_UP_NS (180 * NS_PER_S)
#define DOWN_NS (15 * NS_PER_S)
#define REDIAL_FIRST_NS (100 * NS_PER_MS)
#define REDIAL_MOST_NS (4 * NS_PER_S)

static struct blk_iscsi *blk_iscsi_of(struct blk_dev *dev)
{
	return container_of(dev, struct blk_iscsi, dev);
}

static void blk_iscsi_settle(struct blk_iscsi *iscsi);
static void blk_iscsi_drop(struct blk_iscsi *iscsi, const char *why);

static void set_state(struct blk_iscsi *iscsi, enum blk_iscsi_state state)
{
	if (iscsi->state == state)
		return;
	iscsi->state = state;
	if (iscsi->changed)
		iscsi->changed(iscsi->user, state);
}

static bool is_up(const struct blk_iscsi *iscsi)
{
	return iscsi->state == BLK_ISCSI_UP;
}

/* ---- answers, from inside libiscsi ---- */

void blk_iscsi_answered(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_command *command = user;
	struct blk_iscsi *iscsi = command->iscsi;

	(void)context;
	(void)data;
	if (iscsi->dropping)
		return;                 /* all that was sent is held anyway */
	command->status = status;
	list_remove(&command->node);
	list_append(&iscsi->answered, &command->node);
	loop_at_turn_end(iscsi->dev.loop, &iscsi->turn_hook);
}

/* ---- W5: sending ---- */

static void follow_events(struct blk_iscsi *iscsi)
{
	for (unsigned i = 0; i < iscsi->links->count && is_up(iscsi); i++) {
		int events = iscsi_which_events(iscsi->links->links[i]->context);

		watch_set_events(&iscsi->watches[i].watch, WATCH_HANGUP |
				 (events & POLLIN ? WATCH_READ : 0) |
				 (events & POLLOUT ? WATCH_WRITE : 0));
	}
}

/* False: the sessions have been dropped. */
static bool send_command(struct blk_iscsi *iscsi, struct iscsi_command *command)
{
	int rc;

	command->link = iscsi->turn++ % iscsi->links->count;
	command->sent_ns = loop_now_ns(iscsi->dev.loop);
	list_append(&iscsi->sent, &command->node);
	rc = iscsi_command_send(command);
	if (rc == -ENOMEM) {
		list_remove(&command->node);
		command->again_ns = command->sent_ns + TICK_NS;
		list_append(&iscsi->delayed, &command->node);
	} else if (rc) {
		blk_iscsi_drop(iscsi, "a command could not be sent");
		return false;
	}
	if (!iscsi->tick.started)
		timer_start(&iscsi->tick, TICK_NS);
	return true;
}

/*
 * R-F1: compared at each call that may send, not by a timer's flag: what waits in libiscsi's queue
 * counts too.  False: the sessions have been dropped, and with them what was queued.
 */
static bool may_send(struct blk_iscsi *iscsi)
{
	const struct iscsi_lock *lock = iscsi->links->lock;

	if (!lock || iscsi_lock_may_write(lock))
		return true;
	blk_iscsi_drop(iscsi, "the lock could not be renewed in time");
	return false;
}

static void pump_capacity(struct blk_iscsi *iscsi)
{
	struct iscsi_command *command;

	if (!iscsi->ask_capacity || list_is_empty(&iscsi->idle))
		return;
	iscsi->ask_capacity = false;
	command = list_entry(list_pop(&iscsi->idle), struct iscsi_command, node);
	command->req = NULL;
	command->kind = ISCSI_CAPACITY;
	command->retry = (struct iscsi_retry){ 0 };
	command->offset_bytes = command->len_bytes = 0;
	(void)send_command(iscsi, command);
}

/* Sends what may be sent, one command of each request in turn. */
static void blk_iscsi_pump(struct blk_iscsi *iscsi)
{
	if (is_up(iscsi))
		pump_capacity(iscsi);
	while (is_up(iscsi) && !list_is_empty(&iscsi->waiting) && !list_is_empty(&iscsi->idle)) {
		struct blk_req *req = list_entry(list_first(&iscsi->waiting), struct blk_req, node);
		struct iscsi_command *command;

		list_remove(&req->node);
		command = list_entry(list_pop(&iscsi->idle), struct iscsi_command, node);
		iscsi_command_prepare(command, req);
		if (iscsi_has_more_to_send(req))
			list_append(&iscsi->waiting, &req->node);
		if (!send_command(iscsi, command))
			return;
	}
}

/* ---- a request's end ---- */

static void request_reset(struct blk_iscsi *iscsi, struct blk_req *req)
{
	struct iscsi_progress *progress = iscsi_progress_of(req);

	*progress = (struct iscsi_progress){ .next_bytes = req->offset_bytes,
					     .end_bytes = req->offset_bytes + req->len_bytes,
					     .losses_told = progress->losses_told };
	if (req->op == BLK_FLUSH) {
		progress->next_bytes = progress->end_bytes = 0;
		progress->flush_now = true;
	}
	progress->flush_after = blk_op_writes(req->op) && req->flags & BLK_FUA &&
				(req->op != BLK_WRITE || !iscsi->unit.has_fua);
}

/*
 * R9: a flush after a loss fails, and every one that was under way when it happened: each may
 * cover what is lost.
 */
static int flush_result(struct blk_iscsi *iscsi, struct blk_req *req, int error)
{
	struct iscsi_progress *progress = iscsi_progress_of(req);

	if (req->op != BLK_FLUSH)
		return error;
	if (!error && iscsi->losses != progress->losses_told) {
		log_warn("iscsi", "%s: what was written before the connection was lost counts as"
			 " lost", iscsi->name);
		error = -EIO;
	}
	iscsi->losses_told = iscsi->losses;
	return error;
}

static void request_maybe_over(struct blk_iscsi *iscsi, struct blk_req *req)
{
	struct iscsi_progress *progress = iscsi_progress_of(req);

	if (progress->in_flight)
		return;
	if (progress->lost) {
		list_remove(&req->node);
		list_append(&iscsi->held, &req->node);
	} else if (progress->flush_after && !progress->error &&
		   progress->next_bytes == progress->end_bytes) {
		progress->flush_after = false;
		progress->flush_now = true;
		list_append(&iscsi->waiting, &req->node);
	} else if (!iscsi_has_more_to_send(req)) {
		list_remove(&req->node);
		list_append(&iscsi->over, &req->node);
	}
}

/* The command is done with; its request goes on. */
static void command_over(struct blk_iscsi *iscsi, struct iscsi_command *command, int error)
{
	struct blk_req *req = command->req;
	struct iscsi_progress *progress;

	iscsi_command_done_with(command);
	list_append(&iscsi->idle, &command->node);
	if (!req)
		return;
	progress = iscsi_progress_of(req);
	progress->in_flight--;
	if (error && !progress->error) {
		progress->error = error;
		list_remove(&req->node);        /* nothing more is sent of it */
	}
	if (iscsi_has_more_to_send(req) && !list_is_linked(&req->node))
		list_append(&iscsi->waiting, &req->node);       /* WRITE SAME was refused */
	request_maybe_over(iscsi, req);
}

/* ---- sessions lost and found ---- */

static void command_lost(struct blk_iscsi *iscsi, struct iscsi_command *command)
{
	struct blk_req *req = command->req;

	iscsi_command_done_with(command);
	list_append(&iscsi->idle, &command->node);
	if (!req) {
		iscsi->ask_capacity = true;
		return;
	}
	iscsi_progress_of(req)->in_flight--;
	iscsi_progress_of(req)->lost = true;
	request_maybe_over(iscsi, req);
}

static void commands_lost(struct blk_iscsi *iscsi, struct list *commands)
{
	struct list *node;

	while ((node = list_pop(commands)))
		command_lost(iscsi, list_entry(node, struct iscsi_command, node));
}

/*
 * What a request has done so far may be gone with the target's memory: one that has begun begins
 * anew, so that FUA means all of it.
 */
static void begun_are_lost(struct blk_iscsi *iscsi)
{
	list_for_each(node, &iscsi->waiting) {
		struct blk_req *req = list_entry(node, struct blk_req, node);
		struct iscsi_progress *progress = iscsi_progress_of(req);

		if (req->op == BLK_FLUSH || progress->next_bytes == req->offset_bytes)
			continue;
		progress->lost = true;
		request_maybe_over(iscsi, req);
	}
}

static void fail_all(struct blk_iscsi *iscsi, struct list *requests)
{
	struct list *node;

	while ((node = list_pop(requests))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		CHECK(!iscsi_progress_of(req)->in_flight);      /* there is no session */
		iscsi_progress_of(req)->error = -EIO;
		list_append(&iscsi->over, &req->node);
	}
	loop_at_turn_end(iscsi->dev.loop, &iscsi->turn_hook);
}

static void blk_iscsi_dial(struct blk_iscsi *iscsi)
{
	if (blk_iscsi_dialer_start(&iscsi->dialer))
		timer_start(&iscsi->redial, REDIAL_MOST_NS);
}

static void redial(struct timer *timer)
{
	blk_iscsi_dial(container_of(timer, struct blk_iscsi, redial));
}

static void blk_iscsi_drop(struct blk_iscsi *iscsi, const char *why)
{
	if (!is_up(iscsi))
		return;
	log_warn("iscsi", "%s: %s; connecting anew", iscsi->name, why);
	iscsi->dropping = true;
	for (unsigned i = 0; i < iscsi->links->count; i++)
		watch_stop(&iscsi->watches[i].watch);
	blk_iscsi_links_drop(iscsi->links);
	iscsi->dropping = false;
	iscsi->away_since_ns = loop_now_ns(iscsi->dev.loop);
	iscsi->attempts = 0;
	set_state(iscsi, BLK_ISCSI_RECONNECTING);
	commands_lost(iscsi, &iscsi->sent);
	commands_lost(iscsi, &iscsi->answered);
	commands_lost(iscsi, &iscsi->delayed);
	begun_are_lost(iscsi);
	if (iscsi->as_target && !iscsi->read_only)
		iscsi->losses++;
	timer_stop(&iscsi->tick);
	loop_at_turn_end(iscsi->dev.loop, &iscsi->turn_hook);
	blk_iscsi_dial(iscsi);
}

/* For good. */
static void blk_iscsi_lose(struct blk_iscsi *iscsi, const char *why)
{
	log_error("iscsi", "%s: given up for good: %s", iscsi->name, why);
	iscsi->dev.lost = true;
	fail_all(iscsi, &iscsi->held);
	fail_all(iscsi, &iscsi->waiting);
	set_state(iscsi, BLK_ISCSI_DOWN);
}

/* Is it the unit that we had? */
static const char *unit_differs(const struct blk_iscsi *iscsi)
{
	const struct iscsi_unit *unit = &iscsi->links->unit, *before = &iscsi->unit;

	if (strcmp(unit->id, before->id) != 0)
		return "another unit answers in its place";
	if (unit->block_bytes != before->block_bytes || unit->size_bytes < iscsi->dev.size_bytes)
		return "the unit has become smaller, or has other blocks";
	if (unit->is_write_protected && !before->is_write_protected && !iscsi->read_only)
		return "the unit has been write-protected";
	return NULL;
}

static void session_ready(struct watch *watch, unsigned events);

static int watch_sessions(struct blk_iscsi *iscsi)
{
	int rc = 0;

	for (unsigned i = 0; i < iscsi->links->count && !rc; i++)
		rc = watch_start(&iscsi->watches[i].watch, iscsi->dev.loop,
				 iscsi_get_fd(iscsi->links->links[i]->context),
				 WATCH_READ | WATCH_HANGUP, session_ready);
	for (unsigned i = 0; i < iscsi->links->count && rc; i++)
		watch_stop(&iscsi->watches[i].watch);
	return rc;
}

/* The barrier has been answered: nothing of before can land any more (R2). */
static void release_held(struct blk_iscsi *iscsi)
{
	struct list held, *node;

	list_init(&held);
	list_splice(&held, &iscsi->held);
	while ((node = list_pop(&held))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);
		bool fails = iscsi->as_target &&
			     (blk_op_writes(req->op) || req->op == BLK_FLUSH);

		if (fails || iscsi_progress_of(req)->error) {
			if (req->op == BLK_FLUSH)
				iscsi->losses_told = iscsi->losses;
			iscsi_progress_of(req)->error = -EIO;
			list_append(&iscsi->over, &req->node);
			continue;
		}
		request_reset(iscsi, req);
		list_append(&iscsi->waiting, &req->node);
	}
}

/* What has been tried for so long is told to who waits; a target's writes stay unsettled (R2). */
static void still_away(struct blk_iscsi *iscsi)
{
	uint64_t away_ns = loop_now_ns(iscsi->dev.loop) - iscsi->away_since_ns;

	if (away_ns >= DOWN_NS)
		set_state(iscsi, BLK_ISCSI_DOWN);
	if (away_ns >= GIVE_UP_NS && !iscsi->as_target) {
		log_error("iscsi", "%s: no session for %llu s: requests fail until there is one",
			  iscsi->name, (unsigned long long)(away_ns / NS_PER_S));
		fail_all(iscsi, &iscsi->held);
		fail_all(iscsi, &iscsi->waiting);
	}
}

static void dialer_failed(struct blk_iscsi *iscsi)
{
	const struct iscsi_lock *lock = iscsi->links->lock;
	uint64_t delay_ns = MIN(REDIAL_FIRST_NS << MIN(iscsi->attempts, 10u), REDIAL_MOST_NS);

	if (iscsi->attempts++ == 0)
		log_warn("iscsi", "%s: %s", iscsi->name, iscsi->dialer.err.cause);
	if (lock && iscsi_lock_is_lost(lock)) {
		blk_iscsi_lose(iscsi, "another host has taken it");
		return;
	}
	still_away(iscsi);
	/* Many hosts lose a target at once: they do not come back at once. */
	timer_start(&iscsi->redial, delay_ns + loop_random_below(iscsi->dev.loop, delay_ns));
}

static void dialer_ready(struct watch *watch, unsigned events)
{
	struct blk_iscsi *iscsi = container_of(watch, struct blk_iscsi, dialer_watch);
	const char *differs;

	(void)events;
	blk_iscsi_dialer_finish(&iscsi->dialer);
	if (iscsi->dialer.rc) {
		dialer_failed(iscsi);
		return;
	}
	differs = unit_differs(iscsi);
	if (differs || watch_sessions(iscsi)) {
		blk_iscsi_links_drop(iscsi->links);
		if (differs)
			blk_iscsi_lose(iscsi, differs);
		else
			dialer_failed(iscsi);
		return;
	}
	log_info("iscsi", "%s: connected again after %llu ms", iscsi->name,
		 (unsigned long long)((loop_now_ns(iscsi->dev.loop) - iscsi->away_since_ns) /
				      NS_PER_MS));
	iscsi->ask_capacity = iscsi->links->unit.size_bytes != iscsi->unit.size_bytes;
	iscsi->unit = iscsi->links->unit;
	set_state(iscsi, BLK_ISCSI_UP);
	release_held(iscsi);
	blk_iscsi_settle(iscsi);
}

/* ---- settling ---- */

static void settle_answered(struct blk_iscsi *iscsi)
{
	struct list *node;

	while (is_up(iscsi) && (node = list_pop(&iscsi->answered))) {
		struct iscsi_command *command = list_entry(node, struct iscsi_command, node);
		uint64_t delay_ns;
		int error;

		switch (iscsi_command_judge(command, &error, &delay_ns)) {
		case ISCSI_OUTCOME_OVER:
			command_over(iscsi, command, error);
			break;
		case ISCSI_OUTCOME_AGAIN:
			iscsi_command_done_with(command);
			command->again_ns = loop_now_ns(iscsi->dev.loop) + delay_ns;
			list_append(&iscsi->delayed, &command->node);
			break;
		case ISCSI_OUTCOME_LOST:
			list_append(&iscsi->answered, &command->node);
			blk_iscsi_drop(iscsi, "a session ended, or its right to write");
			return;
		}
	}
}

/* Those whose time has come; delays are ticks, "now" is at once. */
static void send_delayed(struct blk_iscsi *iscsi)
{
	uint64_t now_ns = loop_now_ns(iscsi->dev.loop);
	struct list delayed, *node;

	list_init(&delayed);
	list_splice(&delayed, &iscsi->delayed);
	while ((node = list_pop(&delayed))) {
		struct iscsi_command *command = list_entry(node, struct iscsi_command, node);
		bool due = is_up(iscsi) && now_ns >= command->again_ns;

		if (!due) {
			list_append(&iscsi->delayed, &command->node);
		} else if (!send_command(iscsi, command)) {
			break;
		}
	}
	if (!is_up(iscsi))
		commands_lost(iscsi, &iscsi->delayed);
	commands_lost(iscsi, &delayed);
}

static void complete_over(struct blk_iscsi *iscsi)
{
	struct list over, *node;

	list_init(&over);
	list_splice(&over, &iscsi->over);
	while ((node = list_pop(&over))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		/* The owner may close the device from the last one: touch it no more. */
		blk_complete(req, flush_result(iscsi, req, iscsi_progress_of(req)->error));
	}
}

/* All that has been queued in this turn goes out at once. */
static void flush_sockets(struct blk_iscsi *iscsi)
{
	for (unsigned i = 0; i < iscsi->links->count && is_up(iscsi); i++) {
		struct iscsi_context *context = iscsi->links->links[i]->context;

		if (iscsi_which_events(context) & POLLOUT && may_send(iscsi) &&
		    iscsi_service(context, POLLOUT) < 0)
			blk_iscsi_drop(iscsi, "a session ended");
	}
	follow_events(iscsi);
}

static void blk_iscsi_settle(struct blk_iscsi *iscsi)
{
	settle_answered(iscsi);
	send_delayed(iscsi);
	blk_iscsi_pump(iscsi);
	flush_sockets(iscsi);
	complete_over(iscsi);
}

static void turn_ends(struct turn_hook *hook)
{
	blk_iscsi_settle(container_of(hook, struct blk_iscsi, turn_hook));
}

static void session_ready(struct watch *base, unsigned events)
{
	struct iscsi_session_watch *watch = container_of(base, struct iscsi_session_watch, watch);
	struct blk_iscsi *iscsi = watch->iscsi;
	struct iscsi_context *context = iscsi->links->links[watch->index]->context;
	int served = (events & WATCH_READ ? POLLIN : 0) | (events & WATCH_WRITE ? POLLOUT : 0);

	/* An end that libiscsi has met with nothing in flight is told by the hang-up alone. */
	if ((!(served & POLLOUT) || may_send(iscsi)) &&
	    (iscsi_service(context, served) < 0 || events & WATCH_HANGUP))
		blk_iscsi_drop(iscsi, "a session ended");
	blk_iscsi_settle(iscsi);
}

/* Deadlines, and what the unit put off. */
static void tick(struct timer *timer)
{
	struct blk_iscsi *iscsi = container_of(timer, struct blk_iscsi, tick);
	uint64_t now_ns = loop_now_ns(iscsi->dev.loop);
	struct list *oldest = list_first(&iscsi->sent);

	if (oldest && now_ns - list_entry(oldest, struct iscsi_command, node)->sent_ns >=
			      COMMAND_DEADLINE_NS)
		blk_iscsi_drop(iscsi, "a command was not answered in time");
	if (is_up(iscsi) && (!list_is_empty(&iscsi->sent) || !list_is_empty(&iscsi->delayed)))
		timer_start(&iscsi->tick, TICK_NS);
	blk_iscsi_settle(iscsi);
}

/* ---- the device ---- */

static bool knows(const struct blk_iscsi *iscsi, enum blk_op op)
{
	const struct iscsi_unit *unit = &iscsi->unit;

	if (op == BLK_DISCARD)
		return unit->max_unmap_bytes && !iscsi->quirks.no_unmap;
	if (op == BLK_EXTENTS)
		return iscsi->dev.limits.has_extents && !iscsi->quirks.no_extents;
	return true;
}

static void blk_iscsi_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct blk_iscsi *iscsi = blk_iscsi_of(dev);
	bool gave_up = iscsi->state == BLK_ISCSI_DOWN && !iscsi->as_target &&
		       loop_now_ns(dev->loop) - iscsi->away_since_ns >= GIVE_UP_NS;

	if (dev->lost || gave_up) {
		blk_complete_later(req, -EIO);
		return;
	}
	if (!knows(iscsi, req->op)) {
		if (req->op == BLK_EXTENTS) {
			req->extents->runs[0] =
				(struct blk_extent){ req->len_bytes, BLK_EXTENT_DATA };
			req->extents->count = 1;
		}
		blk_complete_later(req, 0);     /* a discard is only a hint */
		return;
	}
	iscsi_progress_of(req)->losses_told = iscsi->losses_told;
	request_reset(iscsi, req);
	list_init(&req->node);
	if (!iscsi_has_more_to_send(req)) {
		blk_complete_later(req, 0);     /* of no bytes */
		return;
	}
	list_append(&iscsi->waiting, &req->node);
	loop_at_turn_end(dev->loop, &iscsi->turn_hook);
}

static void blk_iscsi_free(struct blk_iscsi *iscsi)
{
	if (iscsi->commands)
		for (size_t i = 0; i < BLK_ISCSI_COMMANDS; i++)
			iscsi_command_done_with(&iscsi->commands[i]);
	free(iscsi->commands);
	free(iscsi->zeroes);
	free(iscsi);
}

static void blk_iscsi_close(struct blk_dev *dev)
{
	struct blk_iscsi *iscsi = blk_iscsi_of(dev);

	turn_hook_cancel(&iscsi->turn_hook);
	timer_stop(&iscsi->tick);
	timer_stop(&iscsi->redial);
	watch_stop(&iscsi->dialer_watch);
	blk_iscsi_dialer_release(&iscsi->dialer);
	for (unsigned i = 0; i < iscsi->links->count; i++)
		watch_stop(&iscsi->watches[i].watch);
	iscsi->dropping = true;
	blk_iscsi_links_free(iscsi->links);
	blk_iscsi_free(iscsi);
}

static const struct blk_ops blk_iscsi_ops = {
	.name = "iscsi",
	.submit = blk_iscsi_submit,
	.close = blk_iscsi_close,
};

static void fill_limits(const struct iscsi_unit *unit, bool read_only, struct blk_limits *limits)
{
	*limits = (struct blk_limits){
		.block_bytes = unit->block_bytes,
		.physical_bytes = unit->physical_bytes,
		.memory_align_bytes = 1,
		.best_transfer_bytes = (uint32_t)MAX(unit->max_transfer_bytes, unit->block_bytes),
		.best_depth = BLK_ISCSI_COMMANDS / 2,
		.reads_zero = false,            /* R11: nothing is known of what was there */
		.can_unmap = unit->can_write_same_unmap,
		.has_extents = unit->unmapped_is_zero,
		.read_only = read_only,
	};
}

static struct blk_iscsi *blk_iscsi_alloc(struct loop *loop, struct blk_iscsi_links *links,
					 const struct blk_iscsi_options *options)
{
	struct blk_iscsi *iscsi = calloc(1, sizeof(*iscsi));
	struct blk_limits limits;

	if (!iscsi)
		return NULL;
	iscsi->commands = calloc(BLK_ISCSI_COMMANDS, sizeof(*iscsi->commands));
	iscsi->zeroes = calloc(1, BLK_ISCSI_ZERO_BYTES);
	if (!iscsi->commands || !iscsi->zeroes) {
		blk_iscsi_free(iscsi);
		return NULL;
	}
	fill_limits(&links->unit, links->read_only, &limits);
	blk_dev_init(&iscsi->dev, &blk_iscsi_ops, loop, links->unit.size_bytes, &limits);
	iscsi->links = links;
	iscsi->unit = links->unit;
	iscsi->canary = loop_random(loop);
	iscsi->as_target = options->as_target;
	iscsi->read_only = links->read_only;
	iscsi->changed = options->changed;
	iscsi->user = options->user;
	snprintf(iscsi->name, sizeof(iscsi->name), "%s", options->name);
	turn_hook_init(&iscsi->turn_hook, turn_ends);
	timer_init(&iscsi->tick, loop, tick);
	timer_init(&iscsi->redial, loop, redial);
	list_init(&iscsi->waiting);
	list_init(&iscsi->held);
	list_init(&iscsi->over);
	list_init(&iscsi->idle);
	list_init(&iscsi->sent);
	list_init(&iscsi->answered);
	list_init(&iscsi->delayed);
	for (unsigned i = 0; i < BLK_ISCSI_SESSIONS_MAX; i++) {
		iscsi->watches[i].iscsi = iscsi;
		iscsi->watches[i].index = i;
	}
	for (size_t i = 0; i < BLK_ISCSI_COMMANDS; i++) {
		iscsi->commands[i].iscsi = iscsi;
		list_append(&iscsi->idle, &iscsi->commands[i].node);
	}
	return iscsi;
}

int blk_iscsi_new(struct loop *loop, struct blk_iscsi_links *links,
		  const struct blk_iscsi_options *options, struct blk_dev **out, struct err *err)
{
	struct blk_iscsi *iscsi = blk_iscsi_alloc(loop, links, options);
	int rc;

	if (!iscsi)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot use %s", options->name);
	rc = blk_iscsi_dialer_init(&iscsi->dialer, links);
	if (rc)
		goto free_iscsi;
	rc = watch_start(&iscsi->dialer_watch, loop, iscsi->dialer.done_fd, WATCH_READ,
			 dialer_ready);
	if (rc)
		goto release_dialer;
	rc = watch_sessions(iscsi);
	if (rc)
		goto stop_watch;
	follow_events(iscsi);
	*out = &iscsi->dev;
	return 0;

stop_watch:
	watch_stop(&iscsi->dialer_watch);
release_dialer:
	blk_iscsi_dialer_release(&iscsi->dialer);
free_iscsi:
	blk_iscsi_free(iscsi);
	return err_set(err, ERR_ISCSI_CONNECT, rc, "cannot wait for %s: %s", options->name,
		       err_strerror(rc));
}

bool blk_dev_is_iscsi(const struct blk_dev *dev)
{
	return dev->ops == &blk_iscsi_ops;
}

void blk_iscsi_promote(struct blk_dev *dev)
{
	CHECK(blk_dev_is_iscsi(dev));
	blk_iscsi_of(dev)->as_target = false;
}
