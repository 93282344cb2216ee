/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: each SCSI answer gets the one verdict that keeps data and fences right. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "datastores/iscsi_sense.h"

static struct iscsi_verdict judge_check(uint8_t key, uint8_t code, uint8_t qualifier)
{
	const struct iscsi_sense sense = { true, key, code, qualifier };

	return iscsi_judge(0x02, &sense);
}

static void test_table(void **state)
{
	static const struct {
		uint8_t key, code, qualifier;
		enum iscsi_action action;
		int error;
		unsigned news;
	} cases[] = {
		{ 0x0, 0x00, 0x00, ISCSI_DONE, 0, 0 },
		{ 0x1, 0x17, 0x01, ISCSI_DONE, 0, 0 },
		{ 0x2, 0x04, 0x01, ISCSI_RETRY_LATER, -EIO, 0 },
		{ 0x2, 0x04, 0x0a, ISCSI_RETRY_LATER, -EIO, 0 },
		{ 0x2, 0x04, 0x14, ISCSI_RETRY_LATER, -ENOSPC, ISCSI_NEWS_SPACE },
		{ 0x2, 0x04, 0x03, ISCSI_FAIL, -EIO, 0 },
		{ 0x2, 0x3a, 0x00, ISCSI_FAIL, -ENOMEDIUM, 0 },
		{ 0x3, 0x11, 0x00, ISCSI_FAIL, -EIO, 0 },
		{ 0x4, 0x44, 0x00, ISCSI_FAIL, -EIO, 0 },
		{ 0x5, 0x20, 0x00, ISCSI_FAIL, -EOPNOTSUPP, 0 },
		{ 0x5, 0x21, 0x00, ISCSI_FAIL, -ERANGE, 0 },
		{ 0x5, 0x24, 0x00, ISCSI_FAIL, -EOPNOTSUPP, 0 },
		{ 0x5, 0x25, 0x00, ISCSI_FAIL, -ENXIO, 0 },
		{ 0x5, 0x55, 0x00, ISCSI_FAIL, -EREMOTEIO, 0 },
		{ 0x6, 0x28, 0x00, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_CAPACITY },
		{ 0x6, 0x29, 0x00, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_RESERVATIONS },
		{ 0x6, 0x29, 0x07, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_RESERVATIONS },
		{ 0x6, 0x2a, 0x01, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_PARAMETERS },
		{ 0x6, 0x2a, 0x03, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_RESERVATIONS },
		{ 0x6, 0x2a, 0x04, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_RESERVATIONS },
		{ 0x6, 0x2a, 0x05, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_RESERVATIONS },
		{ 0x6, 0x2a, 0x09, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_CAPACITY },
		{ 0x6, 0x3f, 0x0e, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_LUNS },
		{ 0x6, 0x38, 0x07, ISCSI_RETRY_NOW, -EIO, ISCSI_NEWS_SPACE },
		{ 0x6, 0x99, 0x99, ISCSI_RETRY_NOW, -EIO, 0 },
		{ 0x7, 0x27, 0x00, ISCSI_FAIL, -EROFS, 0 },
		{ 0x7, 0x27, 0x07, ISCSI_FAIL, -ENOSPC, ISCSI_NEWS_SPACE },
		{ 0x8, 0x00, 0x00, ISCSI_FAIL, -EIO, 0 },
		{ 0xb, 0x4b, 0x00, ISCSI_RETRY_LATER, -EIO, 0 },
		{ 0xd, 0x00, 0x00, ISCSI_FAIL, -ENOSPC, 0 },
		{ 0xe, 0x1d, 0x00, ISCSI_FAIL, -EILSEQ, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct iscsi_verdict verdict =
			judge_check(cases[i].key, cases[i].code, cases[i].qualifier);

		assert_int_equal(verdict.action, cases[i].action);
		assert_int_equal(verdict.error, cases[i].error);
		assert_int_equal(verdict.news, cases[i].news);
	}
}

/* What is no success has an error, what is done has none, whatever the bytes. */
static void test_every_answer_has_a_verdict(void **state)
{
	(void)state;
	for (unsigned status = 0; status < 256; status++) {
		for (unsigned bits = 0; bits < 1u << 16; bits += 7) {
			const struct iscsi_sense sense = { bits & 1, (uint8_t)(bits >> 1 & 15),
							   (uint8_t)(bits >> 5 & 0x7f),
							   (uint8_t)(bits >> 9) };
			struct iscsi_verdict verdict = iscsi_judge((uint8_t)status, &sense);

			assert_int_equal(verdict.action == ISCSI_DONE, verdict.error == 0);
			if (status != 0 && status != 2 && status != 4)
				assert_int_not_equal(verdict.action, ISCSI_DONE);
		}
	}
}

static void test_statuses(void **state)
{
	const struct iscsi_sense none = { 0 };

	(void)state;
	assert_int_equal(iscsi_judge(0x00, &none).action, ISCSI_DONE);
	assert_int_equal(iscsi_judge(0x02, &none).action, ISCSI_FAIL);
	assert_int_equal(iscsi_judge(0x08, &none).action, ISCSI_RETRY_LATER);
	assert_int_equal(iscsi_judge(0x28, &none).action, ISCSI_RETRY_LATER);
	assert_int_equal(iscsi_judge(0x40, &none).action, ISCSI_RETRY_LATER);
	/* R-F2: a fenced host does not try again. */
	assert_int_equal(iscsi_judge(0x18, &none).action, ISCSI_FAIL);
	assert_int_equal(iscsi_judge(0x18, &none).error, -EBADE);
	assert_int_equal(iscsi_judge(0x18, &none).news, ISCSI_NEWS_FENCED);
	assert_int_equal(iscsi_judge(0x77, &none).error, -EIO);
}

static void test_sense_formats(void **state)
{
	uint8_t fixed[18] = { 0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 0x09 };
	uint8_t descriptor[8] = { 0x72, 0x07, 0x27, 0x07 };
	struct iscsi_sense sense = iscsi_sense_parse(fixed, sizeof(fixed));

	(void)state;
	assert_true(sense.valid);
	assert_int_equal(sense.key, 6);
	assert_int_equal(sense.code, 0x2a);
	assert_int_equal(sense.qualifier, 9);
	fixed[0] = 0xf0;                /* with the bit that says "information is valid" */
	assert_int_equal(iscsi_sense_parse(fixed, sizeof(fixed)).key, 6);
	/* Cut short: the key is known, the code is not. */
	sense = iscsi_sense_parse(fixed, 8);
	assert_true(sense.valid);
	assert_int_equal(sense.code, 0);
	assert_false(iscsi_sense_parse(fixed, 2).valid);
	assert_false(iscsi_sense_parse(NULL, 0).valid);
	sense = iscsi_sense_parse(descriptor, sizeof(descriptor));
	assert_int_equal(sense.key, 7);
	assert_int_equal(iscsi_judge(2, &sense).error, -ENOSPC);
	assert_false(iscsi_sense_parse(descriptor, 3).valid);
	descriptor[0] = 0x7e;
	assert_false(iscsi_sense_parse(descriptor, sizeof(descriptor)).valid);
}

/* An earlier write that was acknowledged has been lost: never "done", never a retry. */
static void test_deferred_errors_are_errors(void **state)
{
	(void)state;
	for (unsigned key = 0; key < 16; key++) {
		uint8_t fixed[18] = { 0x71, 0, (uint8_t)key, 0, 0, 0, 0, 10 };
		uint8_t descriptor[8] = { 0x73, (uint8_t)key };
		struct iscsi_sense sense = iscsi_sense_parse(fixed, sizeof(fixed));

		assert_int_equal(iscsi_judge(2, &sense).action, ISCSI_FAIL);
		sense = iscsi_sense_parse(descriptor, sizeof(descriptor));
		assert_int_equal(iscsi_judge(2, &sense).action, ISCSI_FAIL);
	}
}

static void test_retries_end(void **state)
{
	struct iscsi_retry retry = { 0 };
	struct iscsi_verdict verdict;
	uint64_t delay_ns, total_ns = 0;
	unsigned count = 0;

	(void)state;
	do {
		verdict = judge_check(6, 0x29, 0);
		iscsi_retry_count(&retry, &verdict, &delay_ns);
		assert_int_equal(delay_ns, 0);
		assert_true(++count <= ISCSI_RETRY_NOW_MAX + 1);
	} while (verdict.action == ISCSI_RETRY_NOW);
	assert_int_equal(verdict.action, ISCSI_FAIL);
	assert_int_equal(verdict.error, -EIO);
	assert_int_equal(count, ISCSI_RETRY_NOW_MAX + 1);
	for (count = 0, verdict.action = ISCSI_RETRY_LATER; verdict.action == ISCSI_RETRY_LATER;) {
		const struct iscsi_sense none = { 0 };

		verdict = iscsi_judge(0x08, &none);
		iscsi_retry_count(&retry, &verdict, &delay_ns);
		assert_int_equal(delay_ns > 0, verdict.action == ISCSI_RETRY_LATER);
		total_ns += delay_ns;
		assert_true(++count <= ISCSI_RETRY_LATER_MAX + 1);
	}
	assert_int_equal(verdict.error, -EBUSY);
	assert_true(total_ns > 10 * NS_PER_S);
	assert_true(total_ns < 30 * NS_PER_S);
}

static void test_texts(void **state)
{
	const struct iscsi_sense sense = { true, 5, 0x24, 0 }, none = { 0 };
	char text[ISCSI_SENSE_TEXT_BYTES];

	(void)state;
	assert_string_equal(iscsi_sense_text(2, &sense, text), "illegal request, 24/00");
	assert_string_equal(iscsi_sense_text(8, &none, text), "SCSI status 08");
	assert_string_equal(iscsi_sense_text(2, &none, text), "an error without sense data");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_every_answer_has_a_verdict),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_sense_formats),
		cmocka_unit_test(test_deferred_errors_are_errors),
		cmocka_unit_test(test_retries_end),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
