/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ledger_book.c - the judge of the crash campaign is judged: it must see each kind of loss.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/ledger_book.h"

#define SECTORS 64u
#define RUN 7u

struct fixture {
	char path[64];
	struct ledger_book *book;
	_Alignas(8) uint8_t disk[SECTORS * LEDGER_SECTOR_BYTES];
};

static struct fixture fixture;

static int set_up(void **state)
{
	(void)state;
	memset(&fixture, 0, sizeof(fixture));
	snprintf(fixture.path, sizeof(fixture.path), "/tmp/test-ledger-XXXXXX");
	assert_true(close(mkstemp(fixture.path)) == 0);
	fixture.book = ledger_book_create(fixture.path, RUN, SECTORS);
	assert_non_null(fixture.book);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ledger_book_close(fixture.book);
	return unlink(fixture.path);
}

static uint8_t *sector_at(uint64_t sector)
{
	return fixture.disk + sector * LEDGER_SECTOR_BYTES;
}

static void put(uint64_t sector, uint32_t count, uint32_t sequence)
{
	for (uint32_t i = 0; i < count; i++)
		ledger_sector_make(sector_at(sector + i), RUN, sector + i, sequence);
}

static uint32_t write_acknowledged(uint64_t sector, uint32_t count)
{
	uint32_t sequence = ledger_book_begin(fixture.book, 0, LEDGER_WRITES, sector, count);

	put(sector, count, sequence);
	ledger_book_answered(fixture.book, 0, NULL);
	return sequence;
}

static struct ledger_verdict look(void)
{
	struct ledger_verdict verdict = { 0 };

	ledger_book_check(fixture.book, 0, SECTORS, fixture.disk, &verdict);
	assert_int_equal(verdict.sectors, SECTORS);
	return verdict;
}

static void test_sound_disk(void **state)
{
	struct ledger_verdict verdict;

	(void)state;
	write_acknowledged(3, 8);
	write_acknowledged(5, 1);
	verdict = look();
	assert_int_equal(ledger_verdict_bad(&verdict), 0);
}

static void test_each_kind_of_wrong_shows(void **state)
{
	uint32_t first, second;

	(void)state;
	first = write_acknowledged(3, 8);
	second = write_acknowledged(3, 8);
	put(4, 1, first);                                       /* an older write's content */
	assert_int_equal(look().lost, 1);
	memset(sector_at(4), 0, LEDGER_SECTOR_BYTES);           /* never written */
	assert_int_equal(look().lost, 1);
	put(4, 1, second + 1);                                  /* nobody has written that */
	assert_int_equal(look().early, 1);
	put(4, 1, second);
	sector_at(4)[511] ^= 1;                                 /* torn */
	assert_int_equal(look().damaged, 1);
	memcpy(sector_at(4), sector_at(5), LEDGER_SECTOR_BYTES); /* another place's */
	assert_int_equal(look().damaged, 1);
	ledger_sector_make(sector_at(4), RUN + 1, 4, second);   /* another run's */
	assert_int_equal(look().damaged, 1);
	put(4, 1, second);
	assert_int_equal(look().lost + look().early + look().damaged, 0);
}

static void test_unanswered_may_be_either(void **state)
{
	uint32_t before, under_way;
	struct ledger_book *reader;
	struct ledger_verdict verdict = { 0 };

	(void)state;
	before = write_acknowledged(3, 8);
	under_way = ledger_book_begin(fixture.book, 9, LEDGER_WRITES, 4, 2);
	assert_true(ledger_book_is_locked(fixture.book, 5, 1));
	assert_false(ledger_book_is_locked(fixture.book, 6, 1));
	put(4, 1, under_way);                                   /* half of it has landed */
	assert_int_equal(look().lost + look().early + look().damaged, 0);
	/* The file alone tells the same. */
	reader = ledger_book_open(fixture.path);
	assert_non_null(reader);
	ledger_book_check(reader, 0, SECTORS, fixture.disk, &verdict);
	assert_int_equal(ledger_verdict_bad(&verdict), 0);
	ledger_book_close(reader);
	ledger_book_answered(fixture.book, 9, NULL);
	assert_int_equal(look().lost, 1);                       /* now the other half must be there */
	put(5, 1, under_way);
	put(6, 1, before);
	assert_int_equal(look().lost, 0);
}

static void test_discard_is_as_it_reads(void **state)
{
	(void)state;
	write_acknowledged(3, 8);
	ledger_book_begin(fixture.book, 2, LEDGER_MAY_ZERO, 3, 4);
	memset(sector_at(3), 0, 2 * LEDGER_SECTOR_BYTES);
	assert_int_equal(look().lost, 0);
	ledger_book_answered(fixture.book, 2, sector_at(3));
	assert_int_equal(look().lost, 0);
	memset(sector_at(5), 0, LEDGER_SECTOR_BYTES);           /* it read as before: so it stays */
	assert_int_equal(look().lost, 1);
}

static void test_zeroes_are_expected(void **state)
{
	(void)state;
	write_acknowledged(3, 8);
	ledger_book_begin(fixture.book, 2, LEDGER_ZEROES, 3, 4);
	ledger_book_answered(fixture.book, 2, NULL);
	assert_int_equal(look().early, 4);
	memset(sector_at(3), 0, 4 * LEDGER_SECTOR_BYTES);
	assert_int_equal(look().early, 0);
}

static void test_damaged_book_is_refused(void **state)
{
	(void)state;
	assert_int_equal(truncate(fixture.path, 100), 0);
	assert_null(ledger_book_open(fixture.path));
	assert_null(ledger_book_open("/nonexistent/book"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sound_disk, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_each_kind_of_wrong_shows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unanswered_may_be_either, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_discard_is_as_it_reads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_zeroes_are_expected, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_book_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
