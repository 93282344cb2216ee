/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_fixture.h - a temporary directory, files in it, and blk_file devices on them.
 *
 * Everything asserts through cmocka.  The directory is made below TMPDIR (or /tmp) and
 * removed by file_fixture_release(), with what is in it.
 */
#ifndef BM_TEST_FILE_FIXTURE_H
#define BM_TEST_FILE_FIXTURE_H

#include "blkmirror/blkdev/blk_file.h"
#include "tests/lib/io_wait.h"

struct file_fixture {
	char dir[256];
	struct loop *loop;
	struct io_wait wait;
	uint64_t seed;
	int open_count;                 /* devices */
};

void file_fixture_init(struct file_fixture *fixture);
void file_fixture_release(struct file_fixture *fixture);

/* A sparse file, open with the flags (O_RDWR | O_DIRECT ...); skips the test if refused. */
int file_make(struct file_fixture *fixture, const char *name, uint64_t size_bytes, int flags);
int file_open(struct file_fixture *fixture, const char *name, int flags);

/*
 * Takes fd.  Devices are closed with file_close(): a failed test leaves its devices, and then
 * the loop, which cannot be freed below them, is left too.
 */
struct blk_dev *file_device(struct file_fixture *fixture, int fd, struct blk_file_options options);
void file_close(struct file_fixture *fixture, struct blk_dev *dev);

/* ---- one request, waited for; the result ---- */

int file_write(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes,
	       void *bytes, uint64_t len_bytes, unsigned flags);
int file_read(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes, void *bytes,
	      uint64_t len_bytes);
int file_simple(struct file_fixture *fixture, struct blk_dev *dev, enum blk_op op,
		uint64_t offset_bytes, uint64_t len_bytes, unsigned flags);
int file_extents(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes,
		 uint64_t len_bytes, struct blk_extents *extents);

/* ---- memory and chance ---- */

/* Page-aligned, filled with bytes that depend on seed; free() it. */
uint8_t *file_pattern(uint64_t len_bytes, uint64_t seed);
uint64_t file_random_below(struct file_fixture *fixture, uint64_t bound);

/*
 * A guest at work: many requests of every kind at once against a shadow copy, on stripes that
 * do not overlap; then the file is compared with the shadow.  The device begins all zero.
 */
void file_torture(struct file_fixture *fixture, struct blk_dev *dev, uint32_t request_count);

#endif
