/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: journals' files are made whole and private, told from records, and never left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/move_journal.h"

#define ID "t1-abcd010203040506"

struct place {
	char dir[64], moves[96];
};

static int make_place(void **state)
{
	static struct place place;

	log_set_level(LOG_LEVEL_NONE);
	strcpy(place.dir, "/tmp/bm-journal-XXXXXX");
	assert_non_null(mkdtemp(place.dir));
	snprintf(place.moves, sizeof(place.moves), "%s/moves", place.dir);
	assert_int_equal(mkdir(place.moves, 0700), 0);
	*state = &place;
	return 0;
}

static int remove_place(void **state)
{
	const struct place *place = *state;
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", place->dir);
	return system(command);
}

static const char *file_of(const struct place *place, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", place->moves, name);
	return path;
}

static void touch(const struct place *place, const char *name)
{
	int fd = open(file_of(place, name), O_CREAT | O_WRONLY, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void test_names(void **state)
{
	(void)state;
	assert_true(move_journal_is_name(ID ".0"));
	assert_true(move_journal_is_name(ID ".63"));
	assert_false(move_journal_is_name(ID));
	assert_false(move_journal_is_name("t1.5-abcd010203040506"));    /* a task's id may have dots */
	assert_false(move_journal_is_name(ID "."));
	assert_false(move_journal_is_name(".5"));
	assert_false(move_journal_is_name("." ID));
}

/* A listing of records does not show them. */
static void test_no_record(void **state)
{
	const struct place *place = *state;
	char ids[4][MOVE_ID_BYTES];
	uint32_t count;

	assert_int_equal(move_journal_make(place->dir, ID, 0, 8192, NULL), 0);
	assert_int_equal(move_record_list(place->dir, ids, 4, &count, NULL), 0);
	assert_int_equal(count, 0);
	touch(place, ID);
	assert_int_equal(move_record_list(place->dir, ids, 4, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_string_equal(ids[0], ID);
}

/* Zeroes that are written, not a hole: no later write of the journal can find the disk full. */
static void test_made(void **state)
{
	const struct place *place = *state;
	struct stat file;
	uint8_t bytes[4096];
	int fd;

	assert_int_equal(move_journal_make(place->dir, ID, 1, 3 << 20, NULL), 0);
	assert_int_equal(stat(file_of(place, ID ".1"), &file), 0);
	assert_int_equal(file.st_size, 3 << 20);
	assert_int_equal(file.st_mode & 07777, 0600);
	assert_true((uint64_t)file.st_blocks * 512 >= 3 << 20);
	/* A second make begins anew. */
	fd = open(file_of(place, ID ".1"), O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 4095), 1);
	close(fd);
	assert_int_equal(move_journal_make(place->dir, ID, 1, 8192, NULL), 0);
	fd = open(file_of(place, ID ".1"), O_RDONLY);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(bytes));
	close(fd);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], 0);
}

static void test_opened(void **state)
{
	const struct place *place = *state;
	struct err err = { 0 };
	int fd = -1;

	assert_int_equal(move_journal_open(place->dir, ID, 0, &fd, &err), -ENOENT);
	assert_int_equal(err.id, ERR_JOURNAL_DAMAGED);
	assert_int_equal(fd, -1);
	assert_int_equal(mkdir(file_of(place, ID ".0"), 0700), 0);
	assert_true(move_journal_open(place->dir, ID, 0, &fd, &err) < 0);
	assert_int_equal(rmdir(file_of(place, ID ".0")), 0);
	assert_int_equal(symlink("/etc/passwd", file_of(place, ID ".0")), 0);
	assert_true(move_journal_open(place->dir, ID, 0, &fd, &err) < 0);
	assert_int_equal(move_journal_make(place->dir, ID, 0, 8192, NULL), 0);
	assert_int_equal(move_journal_open(place->dir, ID, 0, &fd, &err), 0);
	close(fd);
}

static void test_made_in_vain(void **state)
{
	const struct place *place = *state;
	struct err err = { 0 };

	assert_int_equal(rmdir(place->moves), 0);
	assert_int_equal(move_journal_make(place->dir, ID, 0, 8192, &err), -ENOENT);
	assert_int_equal(err.id, ERR_JOURNAL_IO);
}

static void test_removed(void **state)
{
	const struct place *place = *state;

	assert_false(move_journals_exist(place->dir, ID, 2));
	assert_int_equal(move_journal_make(place->dir, ID, 0, 8192, NULL), 0);
	assert_false(move_journals_exist(place->dir, ID, 2));
	assert_int_equal(move_journal_make(place->dir, ID, 1, 8192, NULL), 0);
	assert_true(move_journals_exist(place->dir, ID, 2));
	assert_int_equal(move_journals_remove(place->dir, ID, 2, NULL), 0);
	assert_int_equal(move_journals_remove(place->dir, ID, 2, NULL), 0);
	assert_int_equal(access(file_of(place, ID ".0"), F_OK), -1);
	assert_int_equal(access(file_of(place, ID ".1"), F_OK), -1);
}

/* Only journals, and only without their record. */
static void test_orphans(void **state)
{
	const struct place *place = *state;
	uint32_t count;

	touch(place, ID);
	touch(place, ID ".0");
	touch(place, "t2-abcd010203040506.0");
	touch(place, "t2-abcd010203040506.1");
	touch(place, ".t3-abcd010203040506");
	assert_int_equal(move_journals_remove_orphans(place->dir, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_int_equal(access(file_of(place, ID), F_OK), 0);
	assert_int_equal(access(file_of(place, ID ".0"), F_OK), 0);
	assert_int_equal(access(file_of(place, ".t3-abcd010203040506"), F_OK), 0);
	assert_int_equal(access(file_of(place, "t2-abcd010203040506.0"), F_OK), -1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_names),   TEST(test_no_record),    TEST(test_made),
		TEST(test_opened),  TEST(test_made_in_vain), TEST(test_removed),
		TEST(test_orphans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
