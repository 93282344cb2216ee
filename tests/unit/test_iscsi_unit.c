/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what a logical unit says of itself is bounded, and doubt is answered with caution. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/overflow.h"
#include "datastores/iscsi_unit.h"

static struct err err;

/* What tgt says of a thin LUN of 64 MiB. */
static const uint8_t tgt_capacity[32] = { 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0 };
static const uint8_t tgt_limits[64] = { 0, 0xb0, 0, 0x3c, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
					0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const uint8_t tgt_provisioning[8] = { 0, 0xb2, 0, 4, 0, 0xe4, 2, 0 };

static struct iscsi_unit thin_unit(void)
{
	struct iscsi_unit unit;

	iscsi_unit_init(&unit, 1);
	assert_int_equal(iscsi_unit_judge_capacity(&unit, tgt_capacity, sizeof(tgt_capacity), &err), 0);
	iscsi_unit_judge_limits(&unit, tgt_limits, sizeof(tgt_limits));
	iscsi_unit_judge_provisioning(&unit, tgt_provisioning, sizeof(tgt_provisioning));
	return unit;
}

static void test_a_thin_unit(void **state)
{
	struct iscsi_unit unit = thin_unit();
	static const uint8_t mode[4] = { 0x17, 0, 0x10, 0 }, protected[4] = { 0x17, 0, 0x80, 0 };

	(void)state;
	assert_int_equal(unit.size_bytes, 64 << 20);
	assert_int_equal(unit.block_bytes, 512);
	assert_int_equal(unit.physical_bytes, 4096);
	assert_int_equal(unit.max_transfer_bytes, ISCSI_TRANSFER_BYTES_MAX);
	assert_true(unit.unmapped_is_zero);
	assert_true(unit.can_write_same_unmap);
	assert_true(unit.max_unmap_bytes > 0);
	assert_int_equal(unit.unmap_align_bytes, 512);
	iscsi_unit_judge_mode(&unit, mode, sizeof(mode));
	assert_true(unit.has_fua);
	assert_false(unit.is_write_protected);
	iscsi_unit_judge_mode(&unit, protected, 3);
	assert_false(unit.is_write_protected);
	iscsi_unit_judge_mode(&unit, protected, 4);
	assert_true(unit.is_write_protected);
}

/* R11: without LBPRZ in both answers, giving space back zeroes nothing. */
static void test_unmapping_needs_zeroes(void **state)
{
	uint8_t capacity[32], page[8];
	struct iscsi_unit unit;

	(void)state;
	memcpy(capacity, tgt_capacity, sizeof(capacity));
	memcpy(page, tgt_provisioning, sizeof(page));
	for (int bits = 0; bits < 4; bits++) {
		capacity[14] = (uint8_t)(0x80 | (bits & 1 ? 0x40 : 0));
		page[5] = (uint8_t)(0xe0 | (bits & 2 ? 4 : 0));
		iscsi_unit_init(&unit, 1);
		assert_int_equal(iscsi_unit_judge_capacity(&unit, capacity, 32, &err), 0);
		iscsi_unit_judge_provisioning(&unit, page, sizeof(page));
		assert_int_equal(unit.can_write_same_unmap, bits == 3);
		assert_int_equal(unit.unmapped_is_zero, bits == 3);
	}
}

static void test_bad_capacities(void **state)
{
	static const struct {
		uint8_t at, value;
	} changes[] = { { 10, 0 }, { 10, 3 }, { 9, 1 }, { 0, 0xff }, { 11, 1 } };
	struct iscsi_unit unit;
	uint8_t capacity[32];

	(void)state;
	iscsi_unit_init(&unit, 1);
	for (size_t i = 0; i < ARRAY_COUNT(changes); i++) {
		memcpy(capacity, tgt_capacity, sizeof(capacity));
		capacity[changes[i].at] = changes[i].value;
		assert_int_equal(iscsi_unit_judge_capacity(&unit, capacity, 32, &err), -EPROTO);
		assert_int_equal(err.id, ERR_ISCSI_PROTOCOL);
	}
	assert_int_equal(iscsi_unit_judge_capacity(&unit, tgt_capacity, 15, &err), -EPROTO);
	memset(capacity, 0xff, 8);
	assert_int_equal(iscsi_unit_judge_capacity(&unit, capacity, 32, &err), -EPROTO);
}

static void test_who_is_a_disk(void **state)
{
	uint8_t inquiry[36] = { 0 };
	struct iscsi_unit unit;

	(void)state;
	iscsi_unit_init(&unit, 7);
	assert_int_equal(iscsi_unit_judge_inquiry(&unit, inquiry, 36, &err), 0);
	inquiry[0] = 0x7f;
	assert_int_equal(iscsi_unit_judge_inquiry(&unit, inquiry, 36, &err), -ENXIO);
	assert_int_equal(err.id, ERR_ISCSI_NO_LUN);
	inquiry[0] = 0x0c;
	assert_int_equal(iscsi_unit_judge_inquiry(&unit, inquiry, 36, &err), -ENOTBLK);
	assert_int_equal(iscsi_unit_judge_inquiry(&unit, inquiry, 4, &err), -EPROTO);
}

static void test_limits(void **state)
{
	struct iscsi_unit unit = thin_unit();
	uint8_t page[64];

	(void)state;
	memcpy(page, tgt_limits, sizeof(page));
	page[11] = 9;                   /* 9 blocks of 512: one physical block */
	page[31] = 16;                  /* granularity */
	page[32] = 0x80;
	page[35] = 17;                  /* alignment 17: 1 */
	page[43] = 8;                   /* WRITE SAME */
	iscsi_unit_judge_limits(&unit, page, sizeof(page));
	assert_int_equal(unit.max_transfer_bytes, 4096);
	assert_int_equal(unit.unmap_align_bytes, 8192);
	assert_int_equal(unit.unmap_start_bytes, 512);
	assert_int_equal(unit.max_write_same_bytes, 4096);
	/* Cut short, or another page: no UNMAP, and no division by zero. */
	iscsi_unit_judge_limits(&unit, page, 12);
	assert_int_equal(unit.max_unmap_bytes, 0);
	page[1] = 0xb1;
	iscsi_unit_judge_limits(&unit, page, sizeof(page));
	assert_int_equal(unit.max_transfer_bytes, ISCSI_TRANSFER_BYTES_MAX);
}

static void test_names(void **state)
{
	static const uint8_t page[] = {
		0, 0x83, 0, 30, 2, 1, 0, 4, 'I', 'E', 'T', ' ',
		1, 0x13, 0, 2, 0x60, 0x01,              /* the port's: not ours */
		1, 3, 0, 8, 0x60, 1, 0x40, 5, 0, 0, 0, 0x1a,
	};
	static const uint8_t long_one[] = { 0, 0x83, 0xff, 0xff, 1, 3, 0, 0xff, 0x60 };
	struct iscsi_unit unit;

	(void)state;
	iscsi_unit_init(&unit, 1);
	iscsi_unit_judge_identity(&unit, page, sizeof(page));
	assert_string_equal(unit.id, "naa.600140050000001a");
	iscsi_unit_init(&unit, 1);
	iscsi_unit_judge_identity(&unit, page, 12);
	assert_string_equal(unit.id, "t10.49455420");
	iscsi_unit_init(&unit, 1);
	iscsi_unit_judge_identity(&unit, long_one, sizeof(long_one));
	assert_string_equal(unit.id, "");
}

static void test_lun_lists(void **state)
{
	static const uint8_t list[8 + 5 * 8] = {
		0, 0, 0, 40, 0, 0, 0, 0,
		0, 1, 0, 0, 0, 0, 0, 0,
		0x41, 2, 0, 0, 0, 0, 0, 0,
		0xc1, 1, 0, 0, 0, 0, 0, 0,      /* well known: left out */
		0, 3, 1, 0, 0, 0, 0, 0,         /* two levels: left out */
		0x00, 5, 0, 0, 0, 0, 0, 0,
	};
	uint32_t luns[ISCSI_LUNS_MAX];

	(void)state;
	assert_int_equal(iscsi_unit_judge_luns(list, sizeof(list), luns), 3);
	assert_int_equal(luns[0], 1);
	assert_int_equal(luns[1], 258);
	assert_int_equal(luns[2], 5);
	assert_int_equal(iscsi_unit_judge_luns(list, 23, luns), 1);
	assert_int_equal(iscsi_unit_judge_luns(list, 7, luns), 0);
}

static void test_extents(void **state)
{
	uint8_t answer[4 + 4 + 3 * 16] = { 0, 0, 0, 52 };
	struct iscsi_unit unit = thin_unit();
	struct blk_extent runs[4];
	struct blk_extents extents = { runs, 4, 0 };
	struct blk_req req = { .op = BLK_EXTENTS, .offset_bytes = 1024, .len_bytes = 8192,
			       .extents = &extents };

	(void)state;
	answer[8 + 11] = 4;             /* blocks 0 to 3 are mapped */
	answer[24 + 7] = 4;
	answer[24 + 11] = 4;            /* 4 to 7 are not */
	answer[24 + 12] = 1;
	answer[40 + 7] = 8;
	answer[40 + 10] = 1;            /* 8 to 263 are anchored */
	answer[40 + 12] = 2;
	assert_int_equal(iscsi_unit_judge_extents(&unit, answer, sizeof(answer), &req), 0);
	assert_int_equal(extents.count, 3);
	assert_int_equal(runs[0].len_bytes, 1024);
	assert_int_equal(runs[0].status, BLK_EXTENT_DATA);
	assert_int_equal(runs[1].len_bytes, 2048);
	assert_int_equal(runs[1].status, BLK_EXTENT_HOLE);
	assert_int_equal(runs[2].len_bytes, 5120);
	assert_int_equal(runs[2].status, BLK_EXTENT_ZERO);
	/* R11: where unmapped space may read as anything, it is data. */
	unit.unmapped_is_zero = false;
	assert_int_equal(iscsi_unit_judge_extents(&unit, answer, sizeof(answer), &req), 0);
	assert_int_equal(extents.count, 1);
	assert_int_equal(runs[0].status, BLK_EXTENT_DATA);
	assert_int_equal(runs[0].len_bytes, 8192);
	/* A gap ends the answer; one that begins after the question is none. */
	answer[24 + 7] = 5;
	assert_int_equal(iscsi_unit_judge_extents(&unit, answer, sizeof(answer), &req), 0);
	assert_int_equal(runs[0].len_bytes, 1024);
	answer[8 + 7] = 3;
	assert_int_equal(iscsi_unit_judge_extents(&unit, answer, sizeof(answer), &req), -EIO);
	assert_int_equal(iscsi_unit_judge_extents(&unit, answer, 8, &req), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_thin_unit),     cmocka_unit_test(test_unmapping_needs_zeroes),
		cmocka_unit_test(test_bad_capacities),  cmocka_unit_test(test_who_is_a_disk),
		cmocka_unit_test(test_limits),          cmocka_unit_test(test_names),
		cmocka_unit_test(test_lun_lists),       cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
