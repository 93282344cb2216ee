/* SPDX-License-Identifier: Apache-2.0 */
/* test_move_record.c - a move's record: what is written is read, what is damaged is refused. */
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
#include <sys/syscall.h>
#include <unistd.h>

#include "vmotion/move_record.h"

/* ---- the test's own: what was synced last, and whether that works ---- */

static ino_t synced;
static bool sync_fails;

int fsync(int fd)
{
	struct stat file;

	if (fstat(fd, &file) == 0)
		synced = file.st_ino;
	if (sync_fails) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

struct place {
	char dir[64];
	char file[160];
	struct move_record_disk disks[MOVER_DISKS_MAX];
	struct move_record_info info;
};

static void place_make(struct place *place, uint32_t disk_count)
{
	uint8_t host[16] = { 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5 };

	memset(place, 0, sizeof(*place));
	snprintf(place->dir, sizeof(place->dir), "/tmp/bm-record-XXXXXX");
	assert_non_null(mkdtemp(place->dir));
	memcpy(place->info.host_uuid, host, sizeof(host));
	assert_int_equal(move_record_make_id("t12", host, place->info.id, NULL), 0);
	place->info.disks = place->disks;
	place->info.disk_count = disk_count;
	for (uint32_t i = 0; i < disk_count; i++) {
		struct move_record_disk *disk = &place->disks[i];

		snprintf(disk->source_datastore, sizeof(disk->source_datastore), "ds%u", i);
		snprintf(disk->target_datastore, sizeof(disk->target_datastore), "nas%u", i);
		memset(disk->source_path, 'a' + (int)(i % 26), DS_PATH_BYTES - 1);
		snprintf(disk->target_path, sizeof(disk->target_path), "vm/disk%u.vmdk", i);
		memset(disk->uuid, (int)i + 1, sizeof(disk->uuid));
		disk->source_generation = i + 7;
		disk->target_generation = i + 8;
		disk->source_has_identity = i % 2;
		disk->target_has_identity = true;
	}
	snprintf(place->file, sizeof(place->file), "%s/moves/%s", place->dir, place->info.id);
}

static void place_remove(struct place *place)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", place->dir);
	assert_int_equal(system(command), 0);
}

static struct move_record *create(struct place *place)
{
	struct move_record *record;
	struct err err;

	assert_int_equal(move_record_judge(place->dir, place->info.id, &err), 0);
	assert_int_equal(move_record_create(place->dir, &place->info, &record, &err), 0);
	return record;
}

static void test_round_trip(void **state)
{
	static const uint32_t counts[] = { 1, 2, 3, 63, 64 };

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
		const struct move_record_info *info;
		struct move_record *record, *loaded;
		struct place place;

		place_make(&place, counts[i]);
		record = create(&place);
		assert_int_equal(
			move_record_write(record, MOVE_COMMITTED, MOVE_DELETE_SOURCE, NULL), 0);
		assert_int_equal(move_record_load(place.dir, place.info.id, &loaded, NULL), 0);
		info = move_record_info(loaded);
		assert_int_equal(info->state, MOVE_COMMITTED);
		assert_int_equal(info->flags, MOVE_DELETE_SOURCE);
		assert_int_equal(info->sequence, 2);
		assert_int_equal(info->disk_count, counts[i]);
		assert_string_equal(info->id, "t12-deadbeef01020304");
		assert_memory_equal(info->host_uuid, place.info.host_uuid, 16);
		for (uint32_t d = 0; d < counts[i]; d++) {
			assert_string_equal(info->disks[d].source_path, place.disks[d].source_path);
			assert_string_equal(info->disks[d].target_path, place.disks[d].target_path);
			assert_string_equal(info->disks[d].source_datastore,
					    place.disks[d].source_datastore);
			assert_string_equal(info->disks[d].target_datastore,
					    place.disks[d].target_datastore);
			assert_memory_equal(info->disks[d].uuid, place.disks[d].uuid, 16);
			assert_int_equal(info->disks[d].source_generation, d + 7);
			assert_int_equal(info->disks[d].target_generation, d + 8);
			assert_int_equal(info->disks[d].source_has_identity, d % 2);
		}
		move_record_free(loaded);
		assert_int_equal(move_record_remove(record, NULL), 0);
		assert_int_equal(access(place.file, F_OK), -1);
		move_record_free(record);
		place_remove(&place);
	}
}

/*
 * R-J4: what a killed daemon was just writing can be read before it is durable.  Whoever acts on it
 * makes it so first, or does not act on it.
 */
static void test_read_is_durable(void **state)
{
	struct move_record *record;
	struct place place;
	struct stat file;
	struct err err;

	(void)state;
	place_make(&place, 1);
	assert_int_equal(move_record_create(place.dir, &place.info, &record, &err), 0);
	move_record_free(record);
	assert_int_equal(stat(place.file, &file), 0);
	synced = 0;
	assert_int_equal(move_record_load(place.dir, place.info.id, &record, &err), 0);
	assert_true(synced == file.st_ino);
	move_record_free(record);
	sync_fails = true;
	assert_int_equal(move_record_load(place.dir, place.info.id, &record, &err), -EIO);
	sync_fails = false;
	assert_int_equal(err.id, ERR_JOURNAL_IO);
	place_remove(&place);
}

static void test_same_id_is_refused(void **state)
{
	struct move_record *record, *second;
	struct place place;
	struct err err;

	(void)state;
	place_make(&place, 1);
	record = create(&place);
	assert_int_not_equal(move_record_judge(place.dir, place.info.id, &err), 0);
	assert_int_equal(err.id, ERR_DISK_MARKED);
	assert_int_equal(move_record_create(place.dir, &place.info, &second, &err), -EEXIST);
	assert_int_equal(access(place.file, F_OK), 0);
	move_record_free(record);
	place_remove(&place);
}

/* What a crash while it was made leaves is no record, and does not hinder the next. */
static void test_unfinished_record_is_none(void **state)
{
	char ids[4][MOVE_ID_BYTES], path[200];
	struct move_record *record;
	struct place place;
	uint32_t count;
	int fd;

	(void)state;
	place_make(&place, 1);
	assert_int_equal(move_record_list(place.dir, ids, 4, &count, NULL), 0);
	assert_int_equal(count, 0);
	snprintf(path, sizeof(path), "%s/moves", place.dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/moves/.%s", place.dir, place.info.id);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(move_record_list(place.dir, ids, 4, &count, NULL), 0);
	assert_int_equal(count, 0);
	move_record_sweep(place.dir);
	assert_int_not_equal(access(path, F_OK), 0);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	record = create(&place);
	move_record_sweep(place.dir);
	assert_int_equal(move_record_list(place.dir, ids, 4, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_string_equal(ids[0], place.info.id);
	move_record_free(record);
	place_remove(&place);
}

static void flip(const struct place *place, off_t offset)
{
	uint8_t byte;
	int fd = open(place->file, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

/* Every byte of the sector and of the body counts. */
static void test_each_flipped_byte_is_found(void **state)
{
	struct move_record *record, *loaded;
	struct place place;

	(void)state;
	place_make(&place, 2);
	record = create(&place);
	for (off_t at = 0; at < 4096 + 2 * 2304; at = at == 511 ? 4096 : at + 1) {
		struct err err = { .id = ERR_NONE };

		flip(&place, at);
		loaded = NULL;
		assert_int_equal(move_record_load(place.dir, place.info.id, &loaded, &err),
				 -EBADMSG);
		assert_int_equal(err.id, ERR_JOURNAL_DAMAGED);
		if (at < 512) {
			/* The disks are known, what is authoritative is not. */
			assert_non_null(loaded);
			assert_int_equal(move_record_info(loaded)->state, 0);
			assert_int_equal(move_record_info(loaded)->disk_count, 2);
		} else {
			assert_null(loaded);
		}
		move_record_free(loaded);
		flip(&place, at);
	}
	assert_int_equal(move_record_load(place.dir, place.info.id, &loaded, NULL), 0);
	move_record_free(loaded);
	move_record_free(record);
	place_remove(&place);
}

static void test_odd_files_are_refused(void **state)
{
	struct move_record *record, *loaded;
	static const off_t sizes[] = { 0, 1, 511, 4096, 5000, 8191, 1 << 20 };
	struct place place;

	(void)state;
	place_make(&place, 1);
	record = create(&place);
	move_record_free(record);
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct err err;

		loaded = NULL;
		assert_int_equal(truncate(place.file, sizes[i]), 0);
		assert_int_not_equal(move_record_load(place.dir, place.info.id, &loaded, &err), 0);
		assert_int_equal(err.id, ERR_JOURNAL_DAMAGED);
		assert_null(loaded);
	}
	assert_int_equal(move_record_load(place.dir, "nobody", &loaded, NULL), -ENOENT);
	assert_int_equal(move_record_load(place.dir, "../moves/x", &loaded, NULL), -ENOENT);
	place_remove(&place);
}

static void test_ids(void **state)
{
	char id[MOVE_ID_BYTES];
	uint8_t host[16] = { 0 };

	(void)state;
	assert_int_not_equal(move_record_make_id("", host, id, NULL), 0);
	assert_int_not_equal(move_record_make_id("../x", host, id, NULL), 0);
	assert_int_not_equal(move_record_make_id("a23456789012345678901", host, id, NULL), 0);
	assert_int_equal(move_record_make_id("a2345678901234567890", host, id, NULL), 0);
	assert_string_equal(id, "a2345678901234567890-0000000000000000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_read_is_durable),
		cmocka_unit_test(test_same_id_is_refused),
		cmocka_unit_test(test_unfinished_record_is_none),
		cmocka_unit_test(test_each_flipped_byte_is_found),
		cmocka_unit_test(test_odd_files_are_refused),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
