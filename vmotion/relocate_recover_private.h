/* SPDX-License-Identifier: Apache-2.0 */
/* relocate_recover_private.h - judging apart from doing, so that it can be tested alone. */
#ifndef BM_VMOTION_RELOCATE_RECOVER_PRIVATE_H
#define BM_VMOTION_RELOCATE_RECOVER_PRIVATE_H

#include "vmotion/relocate_recover.h"

/* What was found at a path. */
struct recover_look {
	int rc;
	struct err err;
	struct ds_disk_info info;       /* rc == 0 */
};

struct recover_looks {
	struct recover_look source, target;
};

/* What is to be done to the two copies of one disk. */
enum recover_action {
	ACTION_SOURCE_LIVE = 1,
	ACTION_SOURCE_RETIRE = 2,
	ACTION_SOURCE_DELETE = 4,
	ACTION_TARGET_LIVE = 8,
	ACTION_TARGET_DELETE = 16,
};

struct recover_plan {
	unsigned actions;
	uint64_t source_generation;     /* for ACTION_SOURCE_LIVE */
};

/* Which side is proved to be authoritative; RECOVER_UNKNOWN and *why when none is. */
enum recover_side recover_judge(const struct move_record_info *move,
				const struct recover_looks *looks, struct err *why);

/*
 * What makes that side the only one.  forced: by the operator's word.  0, or -errno with *err
 * when the kept copy cannot be kept.
 */
MUST_CHECK int recover_plan_disk(const struct move_record_info *move, uint32_t index,
				 const struct recover_looks *looks, enum recover_side keep,
				 bool forced, struct recover_plan *out, struct err *err);

#endif
