/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: no answer of a logical unit leads out of bounds or to limits that I/O cannot keep. */
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "datastores/iscsi_sense.h"
#include "datastores/iscsi_unit.h"

static void check_limits(const struct iscsi_unit *unit)
{
	CHECK(unit->size_bytes && unit->size_bytes % unit->block_bytes == 0);
	CHECK(is_power_of_two(unit->physical_bytes) && unit->physical_bytes >= unit->block_bytes);
	CHECK(unit->max_transfer_bytes >= unit->block_bytes);
	CHECK(unit->max_transfer_bytes % unit->block_bytes == 0);
	CHECK(unit->max_write_same_bytes >= unit->block_bytes);
	CHECK(unit->max_write_same_bytes % unit->block_bytes == 0);
	CHECK(unit->max_unmap_bytes % unit->block_bytes == 0);
	CHECK(unit->unmap_align_bytes >= unit->block_bytes);
	CHECK(unit->unmap_start_bytes < unit->unmap_align_bytes);
	CHECK(!unit->can_write_same_unmap || unit->unmapped_is_zero);
	CHECK(strnlen(unit->id, sizeof(unit->id)) < sizeof(unit->id));
}

static void check_extents(const struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	struct blk_extent runs[3];
	struct blk_extents extents = { runs, (uint32_t)(len % 3) + 1, 0 };
	uint64_t block = unit->block_bytes, told_bytes = 0;
	struct blk_req req = { .op = BLK_EXTENTS, .extents = &extents };

	req.offset_bytes = MIN((uint64_t)(len ? bytes[0] : 0) * block, unit->size_bytes - block);
	req.len_bytes = MIN(64 * block, unit->size_bytes - req.offset_bytes);
	if (iscsi_unit_judge_extents(unit, bytes, len, &req))
		return;
	CHECK(extents.count >= 1 && extents.count <= extents.capacity);
	for (uint32_t i = 0; i < extents.count; i++) {
		CHECK(runs[i].len_bytes && runs[i].len_bytes % block == 0);
		told_bytes += runs[i].len_bytes;
	}
	CHECK(told_bytes <= req.len_bytes);
}

/* The first byte says how long the first answer is; the rest goes to all other judges. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	uint32_t luns[ISCSI_LUNS_MAX];
	size_t first = len ? MIN((size_t)bytes[0], len - 1) : 0, rest = len ? len - 1 - first : 0;
	uint8_t *capacity = malloc(first + 1), *copy = malloc(rest + 1);
	struct iscsi_sense sense;
	struct iscsi_unit unit;

	CHECK(capacity && copy);
	if (first)
		memcpy(capacity, bytes + 1, first);
	if (rest)
		memcpy(copy, bytes + 1 + first, rest);
	iscsi_unit_init(&unit, 1);
	(void)iscsi_unit_judge_inquiry(&unit, copy, rest, NULL);
	CHECK(iscsi_unit_judge_luns(copy, rest, luns) <= ISCSI_LUNS_MAX);
	sense = iscsi_sense_parse(copy, rest);
	(void)iscsi_judge(2, &sense);
	iscsi_unit_judge_pages(&unit, copy, rest);
	iscsi_unit_judge_identity(&unit, copy, rest);
	if (iscsi_unit_judge_capacity(&unit, capacity, first, NULL) == 0) {
		iscsi_unit_judge_limits(&unit, copy, rest);
		iscsi_unit_judge_provisioning(&unit, copy, rest);
		iscsi_unit_judge_mode(&unit, copy, rest);
		check_limits(&unit);
		check_extents(&unit, copy, rest);
	}
	free(capacity);
	free(copy);
	return 0;
}
