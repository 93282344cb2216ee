/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what is decoded is what is encoded, no two fields share a byte, a rewrite preserves
 * every byte that has no field, and the words and offsets are those that ESXi writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/check.h"
#include "vmfs/vmfs_addr.h"
#include "vmfs/vmfs_format.h"
#include "vmfs/vmfs_le.h"

#define STRUCTURE_MAX VMFS_DIR6_HEADER_BYTES

static uint64_t seed = 42;

static uint64_t chance(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void scribble(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(chance() >> 24);
}

/* Marks the bytes of a field; fails when one is taken already. */
static void take(uint8_t *taken, size_t offset, size_t len, const char *name)
{
	for (size_t i = 0; i < len; i++) {
		if (taken[offset + i])
			fail_msg("%s overlaps another field", name);
		taken[offset + i] = 1;
	}
}

#define TAKE_NUMBER(bits, name, offset) take(taken, offset, (bits) / 8, #name);
#define TAKE_BYTES(count, name, offset) take(taken, offset, count, #name);

#define TEST_STRUCTURE(structure, fields, size)                                                    \
	static void test_##structure(void **state)                                                 \
	{                                                                                          \
		static uint8_t taken[STRUCTURE_MAX], a[STRUCTURE_MAX], b[STRUCTURE_MAX];           \
		struct structure first, second;                                                    \
                                                                                                   \
		(void)state;                                                                       \
		memset(taken, 0, sizeof(taken));                                                   \
		memset(&first, 0, sizeof(first));                                                  \
		memset(&second, 0, sizeof(second));                                                \
		fields(TAKE_NUMBER, TAKE_BYTES)                                                    \
		scribble(a, size);                                                                 \
		scribble(b, size);                                                                 \
		uint8_t *before = malloc(size);                                                    \
		assert_non_null(before);                                                           \
		memcpy(before, b, size);                                                           \
		structure##_decode(a, &first);                                                     \
		structure##_encode(&first, b);                                                     \
		structure##_decode(b, &second);                                                    \
		assert_memory_equal(&first, &second, sizeof(first));                               \
		for (size_t i = 0; i < size; i++)                                                  \
			assert_int_equal(b[i], taken[i] ? a[i] : before[i]);                       \
		free(before);                                                                      \
	}
VMFS_STRUCTURES(TEST_STRUCTURE)

/* ---- addresses ---- */

static const struct vmfs_addr_format vmfs5 = { .dense_sub_blocks = true };
static const struct vmfs_addr_format vmfs3 = { 0 };
static const struct vmfs_addr_format vmfs6 = { .wide = true };

/* Words seen on volumes of real hosts. */
static void test_words_of_esxi(void **state)
{
	static const struct {
		const struct vmfs_addr_format *format;
		uint64_t word;
		struct vmfs_addr addr;
	} known[] = {
		{ &vmfs5, 0x141, { .type = VMFS_ADDR_FB, .block = 5 } },
		{ &vmfs5, 0x341, { .type = VMFS_ADDR_FB, .block = 13 } },
		{ &vmfs5, 0x96E1, { .type = VMFS_ADDR_FB, .block = 603, .tbz = true } },
		{ &vmfs5, 0x00000102, { .type = VMFS_ADDR_SB, .cluster = 4 } },
		{ &vmfs5, 0x10000102, { .type = VMFS_ADDR_SB, .cluster = 4, .item = 1 } },
		{ &vmfs5, 0x01800004, { .type = VMFS_ADDR_FD, .item = 6 } },
		{ &vmfs6, 0x01C00004, { .type = VMFS_ADDR_FD, .item = 7 } },
		{ &vmfs6, UINT64_C(0x0040000000000001), { .type = VMFS_ADDR_FB, .block = 8 } },
		{ &vmfs6, UINT64_C(0x0048000000000001), { .type = VMFS_ADDR_FB, .block = 9 } },
		{ &vmfs6, UINT64_C(0x0100000000000002), { .type = VMFS_ADDR_SB, .item = 1 } },
		{ &vmfs6, 0x5, { .type = VMFS_ADDR_PB2 } },
	};
	struct vmfs_addr addr;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(known); i++) {
		memset(&addr, 0, sizeof(addr));
		vmfs_addr_decode(known[i].format, known[i].word, &addr);
		assert_int_equal(addr.type, known[i].addr.type);
		assert_int_equal(addr.block, known[i].addr.block);
		assert_int_equal(addr.cluster, known[i].addr.cluster);
		assert_int_equal(addr.item, known[i].addr.item);
		assert_int_equal(addr.tbz, known[i].addr.tbz);
		assert_int_equal(addr.other, 0);
		assert_int_equal(vmfs_addr_encode(known[i].format, &known[i].addr), known[i].word);
	}
}

static void test_dense_items(void **state)
{
	struct vmfs_addr addr = { .type = VMFS_ADDR_SB, .cluster = 7, .item = 31 };
	struct vmfs_addr back;

	(void)state;
	assert_int_equal(vmfs_addr_encode(&vmfs5, &addr), 0xF00001CAu);
	vmfs_addr_decode(&vmfs5, 0xF00001CA, &back);
	assert_int_equal(back.item, 31);
	vmfs_addr_decode(&vmfs3, 0xF00001CA, &back);     /* bits that VMFS3 has no use for */
	assert_int_equal(back.item, 15);
	assert_int_equal(back.other, 0x8);
	assert_true(vmfs_addr_fits(&vmfs5, &addr));
	assert_false(vmfs_addr_fits(&vmfs3, &addr));
}

/* Any word survives the trip, bits without a meaning included. */
static void test_any_word(void **state)
{
	static const struct vmfs_addr_format *const formats[] = { &vmfs3, &vmfs5, &vmfs6 };
	struct vmfs_addr addr;

	(void)state;
	for (unsigned i = 0; i < 300000; i++) {
		const struct vmfs_addr_format *format = formats[i % 3];
		uint64_t word = format->wide ? chance() : (uint32_t)chance();

		if ((word & 7) == VMFS_ADDR_FD)
			word = (uint32_t)word;
		vmfs_addr_decode(format, word, &addr);
		assert_true(vmfs_addr_encode(format, &addr) == word);
		addr.other = 0;
		/* No block of that type exists, or its item field is wider than what it may hold. */
		if (addr.type < VMFS_ADDR_JB && !(format->wide && addr.type == VMFS_ADDR_FB))
			assert_true(vmfs_addr_fits(format, &addr));
	}
}

static void test_limits_of_words(void **state)
{
	struct vmfs_addr fb = { .type = VMFS_ADDR_FB, .block = (UINT64_C(1) << 26) - 1 };
	struct vmfs_addr fd = { .type = VMFS_ADDR_FD, .cluster = 65535, .item = 1023 };

	(void)state;
	assert_true(vmfs_addr_fits(&vmfs5, &fb));
	assert_int_equal(vmfs_addr_encode(&vmfs5, &fb), 0xFFFFFFC1);
	fb.block++;
	assert_false(vmfs_addr_fits(&vmfs5, &fb));
	assert_true(vmfs_addr_fits(&vmfs6, &fd));
	assert_int_equal(vmfs_fd_address(65535, 1023), 0xFFFFFFC4u);
	fd.item++;
	assert_false(vmfs_addr_fits(&vmfs6, &fd));
}

/* ---- identities and names ---- */

static void test_uuid_text(void **state)
{
	static const uint8_t uuid[16] = { 0xd5, 0x7d, 0x13, 0x61, 0xc8, 0xc2, 0x6b, 0xdf,
					  0xe7, 0xf0, 0x00, 0x0c, 0x29, 0x80, 0x16, 0x86 };
	char text[VMFS_UUID_TEXT_BYTES];

	(void)state;
	assert_string_equal(vmfs_uuid_format(uuid, text), "61137dd5-df6bc2c8-f0e7-000c29801686");
}

static void test_hash(void **state)
{
	static const struct {
		const char *name;
		uint64_t hash;
	} known[] = {
		{ "directory", UINT64_C(0x5f1265850dbc9f66) },
		{ "file1", UINT64_C(0x7b2720d6d2b970eb) },
		{ "file4", UINT64_C(0x599b52377490219a) },
		{ "symlink", UINT64_C(0x6ef0258cfcdd1580) },
		{ "a", UINT64_C(0xb9450c76925060b2) },
		{ "1234567", UINT64_C(0x79df68f748dbfcb2) },
		{ "12345678", UINT64_C(0x8a33a817625c597a) },
	};
	char longest[128];

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(known); i++)
		assert_true(vmfs_dir6_hash(known[i].name, strlen(known[i].name)) == known[i].hash);
	memset(longest, 'x', 127);
	assert_true(vmfs_dir6_hash(longest, 127) == UINT64_C(0x3dfe8951afdb5e22));
}

static void test_numbers(void **state)
{
	uint8_t bytes[9] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };

	(void)state;
	assert_int_equal(le16_get(bytes + 1), 0x0201);
	assert_int_equal(le32_get(bytes + 1), 0x04030201);
	assert_true(le64_get(bytes + 1) == UINT64_C(0x0807060504030201));
	le64_put(bytes + 1, UINT64_C(0x1122334455667788));
	assert_int_equal(bytes[1], 0x88);
	assert_int_equal(bytes[8], 0x11);
	assert_int_equal(bytes[0], 0xff);
}

#define UNIT_STRUCTURE(structure, fields, size) cmocka_unit_test(test_##structure),

int main(void)
{
	const struct CMUnitTest tests[] = {
		VMFS_STRUCTURES(UNIT_STRUCTURE)
		cmocka_unit_test(test_words_of_esxi),
		cmocka_unit_test(test_dense_items),
		cmocka_unit_test(test_any_word),
		cmocka_unit_test(test_limits_of_words),
		cmocka_unit_test(test_uuid_text),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
