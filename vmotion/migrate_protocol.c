/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/migrate_protocol.h"

/* ---- actions: bits, carried out from the first to the last ---- */

enum {
	ACT_NAME_HEIR = 1 << 0,
	ACT_SAY_RESERVE = 1 << 1,
	ACT_BEGIN_COPY = 1 << 2,
	ACT_SEND_LAST = 1 << 3,
	ACT_HAND_OVER = 1 << 4,
	ACT_WRITE_COMMITTED = 1 << 5,
	ACT_WRITE_ABORTED = 1 << 6,
	ACT_WRITE_REVERTED = 1 << 7,
	ACT_SAY_GO = 1 << 8,
	ACT_DISOWN_HEIR = 1 << 9,
	ACT_TAKE_BACK = 1 << 10,
	ACT_RESUME = 1 << 11,
	ACT_SAY_ABORT = 1 << 12,
	ACT_RELEASE = 1 << 13,
	ACT_ALARM = 1 << 14,

	ACT_SPAWN = 1 << 15,
	ACT_WRITE_RESERVED = 1 << 16,
	ACT_SAY_RESERVED = 1 << 17,
	ACT_DRAIN_DISKS = 1 << 18,
	ACT_SAY_READY = 1 << 19,
	ACT_TAKE_LOCK = 1 << 20,
	ACT_WRITE_STARTED = 1 << 21,
	ACT_RUN = 1 << 22,
	ACT_RUN_COLD = 1 << 23,
	ACT_SAY_STARTED = 1 << 24,
	ACT_WRITE_DECLINED = 1 << 25,
	ACT_SAY_DECLINED = 1 << 26,
	ACT_SAY_FAILED = 1 << 27,
	ACT_SAY_ASK = 1 << 28,
	ACT_DISCARD = 1 << 29,
};

struct row {
	uint8_t state;
	uint8_t event;
	uint8_t next;
	uint32_t actions;
};

static void act_source(const struct migrate_ops *ops, void *user, uint32_t actions)
{
	if (actions & ACT_NAME_HEIR)
		ops->name_heir(user);
	if (actions & ACT_SAY_RESERVE)
		ops->say(user, MIGRATE_SAY_RESERVE);
	if (actions & ACT_BEGIN_COPY)
		ops->begin_copy(user);
	if (actions & ACT_SEND_LAST)
		ops->send_last(user);
	if (actions & ACT_HAND_OVER)
		ops->hand_over(user);
	if (actions & ACT_WRITE_COMMITTED)
		ops->write(user, MIGRATE_COMMITTED);
	if (actions & ACT_WRITE_ABORTED)
		ops->write(user, MIGRATE_ABORTED);
	if (actions & ACT_WRITE_REVERTED)
		ops->write(user, MIGRATE_REVERTED);
	if (actions & ACT_SAY_GO)
		ops->say(user, MIGRATE_SAY_GO);
	if (actions & ACT_DISOWN_HEIR)
		ops->disown_heir(user);
	if (actions & ACT_TAKE_BACK)
		ops->take_back(user);
	if (actions & ACT_RESUME)
		ops->resume(user);
	if (actions & ACT_SAY_ABORT)
		ops->say(user, MIGRATE_SAY_ABORT);
	if (actions & ACT_RELEASE)
		ops->release(user);
}

static void act_target(const struct migrate_ops *ops, void *user, uint32_t actions)
{
	if (actions & ACT_SPAWN)
		ops->spawn(user, true);         /* R-C1 */
	if (actions & ACT_WRITE_RESERVED)
		ops->write(user, MIGRATE_RESERVED);
	if (actions & ACT_SAY_RESERVED)
		ops->say(user, MIGRATE_SAY_RESERVED);
	if (actions & ACT_DRAIN_DISKS)
		ops->drain_disks(user);
	if (actions & ACT_SAY_READY)
		ops->say(user, MIGRATE_SAY_READY);
	if (actions & ACT_TAKE_LOCK)
		ops->take_lock(user);
	if (actions & ACT_WRITE_STARTED)
		ops->write(user, MIGRATE_STARTED);
	if (actions & (ACT_RUN | ACT_RUN_COLD))
		ops->run(user, (actions & ACT_RUN_COLD) != 0);
	if (actions & ACT_SAY_STARTED)
		ops->say(user, MIGRATE_SAY_STARTED);
	if (actions & ACT_WRITE_DECLINED)
		ops->write(user, MIGRATE_DECLINED);
	if (actions & ACT_DISCARD)
		ops->discard(user);
	if (actions & ACT_SAY_DECLINED)
		ops->say(user, MIGRATE_SAY_DECLINED);
	if (actions & ACT_SAY_FAILED)
		ops->say(user, MIGRATE_SAY_FAILED);
	if (actions & ACT_SAY_ASK)
		ops->say(user, MIGRATE_SAY_ASK);
}

/* ---- the source ---- */

/* Before COMMITTED is asked for, all that goes wrong ends in ABORTED, and the guest goes on. */
#define SOURCE_FALLS_BACK(state)                                                                   \
	{ state, MIGRATE_CANCEL, SOURCE_ABORTING, ACT_WRITE_ABORTED },                             \
	{ state, MIGRATE_LINK_LOST, SOURCE_ABORTING, ACT_WRITE_ABORTED },                          \
	{ state, MIGRATE_QEMU_FAILED, SOURCE_ABORTING, ACT_WRITE_ABORTED },                        \
	{ state, MIGRATE_QEMU_GONE, SOURCE_ABORTING, ACT_WRITE_ABORTED },                          \
	{ state, MIGRATE_HEARD_FAILED, SOURCE_ABORTING, ACT_WRITE_ABORTED },                       \
	{ state, MIGRATE_HEARD_DECLINED, SOURCE_ABORTING, ACT_WRITE_ABORTED },                     \
	{ state, MIGRATE_HEARD_ASK, SOURCE_ABORTING, ACT_WRITE_ABORTED }

/* Whatever the target still says after the end: it is told the end. */
#define SOURCE_TELLS_END(state)                                                                    \
	{ state, MIGRATE_HEARD_RESERVED, state, ACT_SAY_ABORT },                                   \
	{ state, MIGRATE_HEARD_READY, state, ACT_SAY_ABORT },                                      \
	{ state, MIGRATE_HEARD_FAILED, state, ACT_SAY_ABORT },                                     \
	{ state, MIGRATE_HEARD_DECLINED, state, ACT_SAY_ABORT },                                   \
	{ state, MIGRATE_HEARD_ASK, state, ACT_SAY_ABORT },                                        \
	{ state, MIGRATE_LINK_UP, state, ACT_SAY_ABORT }

/* What has no row is ignored in that state. */
// clang-format off
static const struct row source_rows[] = {
	{ SOURCE_NEW,       MIGRATE_BEGIN,          SOURCE_NAMING,      ACT_NAME_HEIR },        /* R-C7 */
	{ SOURCE_NAMING,    MIGRATE_HEIR_NAMED,     SOURCE_RESERVING,   ACT_SAY_RESERVE },
	{ SOURCE_RESERVING, MIGRATE_HEARD_RESERVED, SOURCE_COPYING,     ACT_BEGIN_COPY },
	{ SOURCE_COPYING,   MIGRATE_PAUSED,         SOURCE_PAUSED,      ACT_SEND_LAST },
	{ SOURCE_PAUSED,    MIGRATE_DRAINED,        SOURCE_HANDING,     ACT_HAND_OVER },        /* R-C4 */
	/* R-C2: only what QEMU calls completed can no longer go on by itself. */
	{ SOURCE_HANDING,   MIGRATE_HEARD_READY,    SOURCE_HANDING_READY, 0 },
	{ SOURCE_HANDING,   MIGRATE_COMPLETED,      SOURCE_HANDING_COMPLETED, 0 },
	{ SOURCE_HANDING_READY, MIGRATE_COMPLETED,  SOURCE_COMMITTING,  ACT_WRITE_COMMITTED },
	{ SOURCE_HANDING_COMPLETED, MIGRATE_HEARD_READY, SOURCE_COMMITTING, ACT_WRITE_COMMITTED },
	SOURCE_FALLS_BACK(SOURCE_NEW),
	SOURCE_FALLS_BACK(SOURCE_NAMING),
	SOURCE_FALLS_BACK(SOURCE_RESERVING),
	SOURCE_FALLS_BACK(SOURCE_COPYING),
	SOURCE_FALLS_BACK(SOURCE_PAUSED),
	SOURCE_FALLS_BACK(SOURCE_HANDING),
	SOURCE_FALLS_BACK(SOURCE_HANDING_READY),
	SOURCE_FALLS_BACK(SOURCE_HANDING_COMPLETED),
	/* R-C3: no time-out, no cancel.  What may have been written is overruled durably or not at all. */
	{ SOURCE_COMMITTING, MIGRATE_WRITTEN,       SOURCE_COMMITTED,   ACT_SAY_GO },
	{ SOURCE_COMMITTING, MIGRATE_WRITE_FAILED,  SOURCE_ABORTING,    ACT_WRITE_ABORTED | ACT_ALARM },
	{ SOURCE_COMMITTED, MIGRATE_HEARD_STARTED,  SOURCE_DONE,        ACT_RELEASE },
	{ SOURCE_COMMITTED, MIGRATE_HEARD_ASK,      SOURCE_COMMITTED,   ACT_SAY_GO },
	{ SOURCE_COMMITTED, MIGRATE_HEARD_READY,    SOURCE_COMMITTED,   ACT_SAY_GO },
	{ SOURCE_COMMITTED, MIGRATE_HEARD_FAILED,   SOURCE_COMMITTED,   ACT_SAY_GO },
	{ SOURCE_COMMITTED, MIGRATE_LINK_UP,        SOURCE_COMMITTED,   ACT_SAY_GO },
	{ SOURCE_COMMITTED, MIGRATE_HEARD_DECLINED, SOURCE_REVERTING,   ACT_WRITE_REVERTED },
	{ SOURCE_COMMITTED, MIGRATE_FORCE,          SOURCE_REVERTING,   ACT_WRITE_REVERTED },   /* R-C9 */
	{ SOURCE_REVERTING, MIGRATE_WRITTEN,        SOURCE_REVERTED,    ACT_TAKE_BACK | ACT_RESUME | ACT_SAY_ABORT },
	{ SOURCE_REVERTING, MIGRATE_WRITE_FAILED,   SOURCE_REVERTING,   ACT_WRITE_REVERTED | ACT_ALARM },
	SOURCE_TELLS_END(SOURCE_REVERTED),
	{ SOURCE_ABORTING,  MIGRATE_WRITTEN,        SOURCE_ABORTED,     ACT_DISOWN_HEIR | ACT_RESUME | ACT_SAY_ABORT },
	{ SOURCE_ABORTING,  MIGRATE_WRITE_FAILED,   SOURCE_ABORTING,    ACT_WRITE_ABORTED | ACT_ALARM },
	SOURCE_TELLS_END(SOURCE_ABORTED),
};

/* ---- the target ---- */

/* Until GO it has promised nothing but to wait: ABORT ends it, without its QEMU it is no use. */
#define TARGET_WAITS(state)                                                                        \
	{ state, MIGRATE_HEARD_ABORT, TARGET_GONE, ACT_DISCARD },                                  \
	{ state, MIGRATE_QEMU_GONE, TARGET_FAILED, ACT_SAY_FAILED },                               \
	{ state, MIGRATE_CANCEL, TARGET_FAILED, ACT_SAY_FAILED },                                  \
	{ state, MIGRATE_LINK_UP, state, ACT_SAY_ASK }

static const struct row target_rows[] = {
	{ TARGET_NEW,       MIGRATE_HEARD_RESERVE,  TARGET_RESERVING,   ACT_WRITE_RESERVED },
	{ TARGET_RESERVING, MIGRATE_WRITTEN,        TARGET_INCOMING,    ACT_SPAWN | ACT_SAY_RESERVED },
	{ TARGET_RESERVING, MIGRATE_WRITE_FAILED,   TARGET_FAILED,      ACT_SAY_FAILED },
	{ TARGET_RESERVING, MIGRATE_HEARD_ABORT,    TARGET_GONE,        ACT_DISCARD },
	{ TARGET_INCOMING,  MIGRATE_STATE_LOADED,   TARGET_LOADED,      ACT_DRAIN_DISKS },      /* R-C5 */
	{ TARGET_LOADED,    MIGRATE_DISKS_FLUSHED,  TARGET_READY,       ACT_SAY_READY },
	TARGET_WAITS(TARGET_INCOMING),
	TARGET_WAITS(TARGET_LOADED),
	TARGET_WAITS(TARGET_READY),
	{ TARGET_READY,     MIGRATE_HEARD_GO,       TARGET_TAKING,      ACT_TAKE_LOCK },        /* R-C7 */
	{ TARGET_READY,     MIGRATE_FORCE,          TARGET_TAKING,      ACT_TAKE_LOCK },
	{ TARGET_FAILED,    MIGRATE_HEARD_GO,       TARGET_DECLINING,   ACT_WRITE_DECLINED },
	{ TARGET_FAILED,    MIGRATE_HEARD_ABORT,    TARGET_GONE,        ACT_DISCARD },
	{ TARGET_FAILED,    MIGRATE_LINK_UP,        TARGET_FAILED,      ACT_SAY_ASK },
	{ TARGET_FAILED,    MIGRATE_FORCE,          TARGET_STARTING_GONE, ACT_WRITE_STARTED },
	{ TARGET_TAKING,    MIGRATE_LOCK_TAKEN,     TARGET_STARTING,    ACT_WRITE_STARTED },
	{ TARGET_TAKING,    MIGRATE_LOCK_FAILED,    TARGET_DECLINING,   ACT_WRITE_DECLINED },
	{ TARGET_TAKING,    MIGRATE_QEMU_GONE,      TARGET_DECLINING,   ACT_WRITE_DECLINED },
	/* R-C3: STARTED is durable before the first instruction. */
	{ TARGET_STARTING,  MIGRATE_WRITTEN,        TARGET_RUNNING,     ACT_RUN | ACT_SAY_STARTED },
	{ TARGET_STARTING,  MIGRATE_WRITE_FAILED,   TARGET_DECLINING,   ACT_WRITE_DECLINED | ACT_ALARM },
	{ TARGET_STARTING,  MIGRATE_QEMU_GONE,      TARGET_STARTING_GONE, 0 },
	{ TARGET_STARTING_GONE, MIGRATE_WRITTEN,    TARGET_RUNNING,     ACT_RUN_COLD | ACT_SAY_STARTED },
	{ TARGET_STARTING_GONE, MIGRATE_WRITE_FAILED, TARGET_DECLINING, ACT_WRITE_DECLINED | ACT_ALARM },
	{ TARGET_RUNNING,   MIGRATE_HEARD_GO,       TARGET_RUNNING,     ACT_SAY_STARTED },
	{ TARGET_RUNNING,   MIGRATE_LINK_UP,        TARGET_RUNNING,     ACT_SAY_STARTED },
	{ TARGET_DECLINING, MIGRATE_WRITTEN,        TARGET_DECLINED,    ACT_DISCARD | ACT_SAY_DECLINED },
	{ TARGET_DECLINING, MIGRATE_WRITE_FAILED,   TARGET_DECLINING,   ACT_WRITE_DECLINED | ACT_ALARM },
	{ TARGET_DECLINED,  MIGRATE_HEARD_GO,       TARGET_DECLINED,    ACT_SAY_DECLINED },
	{ TARGET_DECLINED,  MIGRATE_LINK_UP,        TARGET_DECLINED,    ACT_SAY_DECLINED },
	{ TARGET_DECLINED,  MIGRATE_HEARD_ABORT,    TARGET_GONE,        0 },
	{ TARGET_GONE,      MIGRATE_HEARD_RESERVE,  TARGET_GONE,        ACT_SAY_FAILED },
	{ TARGET_GONE,      MIGRATE_LINK_UP,        TARGET_GONE,        ACT_SAY_FAILED },
	/* A late GO for what was aborted: there is no machine, and there will be none. */
	{ TARGET_GONE,      MIGRATE_HEARD_GO,       TARGET_DECLINING,   ACT_WRITE_DECLINED },
};
// clang-format on

static const struct row *find_row(const struct row *rows, size_t count, unsigned state,
				  enum migrate_event event)
{
	for (size_t i = 0; i < count; i++)
		if (rows[i].state == state && rows[i].event == event)
			return &rows[i];
	return NULL;
}

static bool rows_are_sound(const struct row *rows, size_t count, unsigned state_count)
{
	for (size_t i = 0; i < count; i++) {
		if (!rows[i].state || rows[i].state >= state_count || !rows[i].next ||
		    rows[i].next >= state_count || rows[i].event >= MIGRATE_EVENT_COUNT)
			return false;
		if (find_row(rows, count, rows[i].state, (enum migrate_event)rows[i].event) !=
		    &rows[i])
			return false;
	}
	return true;
}

bool migrate_tables_are_sound(void)
{
	return rows_are_sound(source_rows, ARRAY_COUNT(source_rows), SOURCE_STATE_COUNT) &&
	       rows_are_sound(target_rows, ARRAY_COUNT(target_rows), TARGET_STATE_COUNT);
}

/* ---- steps ---- */

void migrate_source_init(struct migrate_source *source, const struct migrate_ops *ops, void *user)
{
	*source = (struct migrate_source){ SOURCE_NEW, ops, user };
}

void migrate_target_init(struct migrate_target *target, const struct migrate_ops *ops, void *user)
{
	*target = (struct migrate_target){ TARGET_NEW, ops, user };
}

void migrate_source_step(struct migrate_source *source, enum migrate_event event)
{
	const struct row *row = find_row(source_rows, ARRAY_COUNT(source_rows), source->state,
					 event);

	CHECK(source->state > SOURCE_UNDECIDED && source->state < SOURCE_STATE_COUNT);
	if (!row)
		return;
	source->state = row->next;
	if (row->actions & ACT_ALARM)
		source->ops->alarm(source->user, "a record of the source could not be written");
	act_source(source->ops, source->user, row->actions);
}

void migrate_target_step(struct migrate_target *target, enum migrate_event event)
{
	const struct row *row = find_row(target_rows, ARRAY_COUNT(target_rows), target->state,
					 event);

	CHECK(target->state > TARGET_UNDECIDED && target->state < TARGET_STATE_COUNT);
	if (!row)
		return;
	target->state = row->next;
	if (row->actions & ACT_ALARM)
		target->ops->alarm(target->user, "a record of the target could not be written");
	act_target(target->ops, target->user, row->actions);
}

void migrate_source_recover(struct migrate_source *source, enum migrate_record record)
{
	uint32_t actions;

	switch (record) {
	case MIGRATE_COMMITTED:
		source->state = SOURCE_COMMITTED;
		actions = ACT_SAY_GO;
		break;
	case MIGRATE_ABORTED:
		source->state = SOURCE_ABORTED;
		actions = ACT_DISOWN_HEIR | ACT_RESUME | ACT_SAY_ABORT;
		break;
	case MIGRATE_REVERTED:
		source->state = SOURCE_REVERTED;
		actions = ACT_TAKE_BACK | ACT_RESUME | ACT_SAY_ABORT;
		break;
	default:
		CHECK(record == MIGRATE_NO_RECORD);
		source->state = SOURCE_ABORTING;
		actions = ACT_WRITE_ABORTED;
	}
	act_source(source->ops, source->user, actions);
}

void migrate_target_recover(struct migrate_target *target, enum migrate_record record,
			    bool qemu_lives)
{
	uint32_t actions = 0;

	switch (record) {
	case MIGRATE_NO_RECORD:
		target->state = TARGET_GONE;
		actions = ACT_DISCARD;
		break;
	case MIGRATE_RESERVED:
		/* Whether it ever was ready the source knows: without COMMITTED it says ABORT. */
		target->state = qemu_lives ? TARGET_READY : TARGET_FAILED;
		actions = ACT_SAY_ASK;
		break;
	case MIGRATE_STARTED:
		target->state = TARGET_RUNNING;
		actions = (qemu_lives ? ACT_RUN : ACT_RUN_COLD) | ACT_SAY_STARTED;
		break;
	default:
		CHECK(record == MIGRATE_DECLINED);
		target->state = TARGET_DECLINED;
		actions = ACT_DISCARD | ACT_SAY_DECLINED;
	}
	act_target(target->ops, target->user, actions);
}

bool migrate_source_has_ended(const struct migrate_source *source)
{
	return source->state == SOURCE_DONE || source->state == SOURCE_ABORTED ||
	       source->state == SOURCE_REVERTED;
}

bool migrate_target_has_ended(const struct migrate_target *target)
{
	return target->state == TARGET_RUNNING || target->state == TARGET_GONE;
}

const char *migrate_source_state_name(enum migrate_source_state state)
{
	static const char *const names[SOURCE_STATE_COUNT] = {
		"undecided", "new", "naming", "reserving", "copying", "paused", "handing",
		"handing-ready", "handing-completed", "committing", "committed", "done",
		"aborting", "aborted", "reverting", "reverted",
	};

	CHECK((unsigned)state < SOURCE_STATE_COUNT);
	return names[state];
}

const char *migrate_target_state_name(enum migrate_target_state state)
{
	static const char *const names[TARGET_STATE_COUNT] = {
		"undecided", "new", "reserving", "incoming", "loaded", "ready", "failed",
		"taking", "starting", "starting-gone", "running", "declining", "declined", "gone",
	};

	CHECK((unsigned)state < TARGET_STATE_COUNT);
	return names[state];
}

/* ---- the machine ---- */

enum migrate_resume migrate_resume_how(enum migrate_qemu_status status)
{
	switch (status) {
	case MIGRATE_QEMU_NONE:
	case MIGRATE_QEMU_FAILED_STATUS:
	case MIGRATE_QEMU_CANCELLED:
		return MIGRATE_RESUME_NOTHING;
	case MIGRATE_QEMU_ACTIVE:
	case MIGRATE_QEMU_PRE_SWITCHOVER:
	case MIGRATE_QEMU_DEVICE:
		return MIGRATE_RESUME_CANCEL;
	case MIGRATE_QEMU_COMPLETED:
		return MIGRATE_RESUME_CONT;
	case MIGRATE_QEMU_DEAD:
		return MIGRATE_RESUME_COLD;
	}
	CHECK_NEVER("no status of QEMU");
}

bool migrate_may_pause(uint64_t oldest_request_ns)
{
	return oldest_request_ns <= MIGRATE_REQUEST_AGE_MAX_NS;        /* R-C6 */
}
