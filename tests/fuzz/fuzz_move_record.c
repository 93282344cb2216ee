/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_move_record.c - the record of a move, damaged: refused, or read as it was written.
 *
 * The input patches a good record: 2 bytes of place, 1 of length, then the bytes.  Whatever the
 * patches, a record that loads as intact must say what was written.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/move_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ID "t1-0000000000000001"

static char state_dir[64], path[128];

static void remove_all(void)
{
	char moves[128];

	(void)unlink(path);
	snprintf(moves, sizeof(moves), "%s/moves", state_dir);
	(void)rmdir(moves);
	(void)rmdir(state_dir);
}

static void prepare(void)
{
	/* In memory where that is to be had: each input makes a record durable. */
	snprintf(state_dir, sizeof(state_dir), "%s/bmfuzz.XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	CHECK(mkdtemp(state_dir));
	snprintf(path, sizeof(path), "%s/moves/%s", state_dir, ID);
	log_set_level(LOG_LEVEL_NONE);
	atexit(remove_all);
}

static void make_record(void)
{
	struct move_record_disk disks[2] = {
		{ .source_datastore = "a", .source_path = "x/x.vmdk", .target_datastore = "b",
		  .target_path = "x/x.vmdk", .uuid = { 1 }, .source_generation = 1,
		  .target_generation = 2, .source_has_identity = true,
		  .target_has_identity = true },
		{ .source_datastore = "a", .source_path = "y.img", .target_datastore = "b",
		  .target_path = "y.img", .uuid = { 2 }, .source_generation = 4,
		  .target_generation = 5, .source_has_identity = true },
	};
	struct move_record_info info = { .id = ID, .disk_count = 2, .disks = disks };
	struct move_record *record;

	(void)unlink(path);
	CHECK(move_record_create(state_dir, &info, &record, NULL) == 0);
	move_record_free(record);
}

static bool patch(const uint8_t *data, size_t size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool patched = false;

	CHECK(fd >= 0);
	while (size >= 4) {
		off_t at = (off_t)(data[0] | data[1] << 8);
		size_t len = MIN((size_t)data[2], size - 3);

		if (len)
			patched = pwrite(fd, data + 3, len, at) == (ssize_t)len || patched;
		data += 3 + len;
		size -= 3 + len;
	}
	if (size == 1)
		CHECK(ftruncate(fd, data[0] * 64) == 0);
	close(fd);
	return patched;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct move_record *record = NULL;
	const struct move_record_info *info;

	if (!*state_dir)
		prepare();
	make_record();
	patch(data, size);
	if (move_record_load(state_dir, ID, &record, NULL) == 0) {
		info = move_record_info(record);
		CHECK(strcmp(info->id, ID) == 0);
		CHECK(info->state == MOVE_RESERVED);
		CHECK(info->disk_count == 2);
		CHECK(strcmp(info->disks[0].source_path, "x/x.vmdk") == 0);
		CHECK(info->disks[1].target_generation == 5);
	}
	move_record_free(record);
	return 0;
}
