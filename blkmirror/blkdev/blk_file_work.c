/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file_work.c - what may block, on the device's worker threads ("lanes").
 *
 * Lane 0: zeroing and discard (fallocate), extents (SEEK_HOLE), and the sync of kernels and
 * file systems that cannot do it asynchronously.  Buffered I/O goes to the lane with the
 * least to do.  What is long is done in steps, each queued anew, so that an extents query
 * does not wait for a terabyte of zeroes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_file_private.h"

#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

/* What one job does at most before others get a turn. */
#define ALLOCATE_STEP_BYTES (UINT64_C(1) << 30)
#define WRITE_ZEROES_STEP_BYTES (UINT64_C(32) << 20)
#define EXTENT_RUNS_MAX 1024u

/* Zeroes to write where nothing better exists: 1 MiB a call. */
#define ZERO_PIECE_BYTES 65536u
#define ZERO_PIECES 16

static _Alignas(4096) uint8_t zero_piece[ZERO_PIECE_BYTES];

static struct file_req *file_req_of_job(struct job *job)
{
	return container_of(job, struct file_req, job);
}

static struct blk_req *req_of_job(struct job *job)
{
	return blk_req_of(file_req_of_job(job));
}

static struct blk_file *file_of_job(struct job *job)
{
	return blk_file_of(req_of_job(job)->dev);
}

static void work_done(struct job *job)
{
	blk_file_finish(file_of_job(job), file_req_of_job(job),
			(int)file_req_of_job(job)->result);
}

static void work_queue(struct worker *lane, struct blk_req *req, void (*run)(struct job *job),
		       void (*done)(struct job *job))
{
	struct job *job = &file_req_of(req)->job;

	*job = (struct job){ .run = run, .done = done };
	worker_submit(lane, job);
}

/* ---- sync ---- */

static int sync_data(const struct blk_file *file)
{
	int rc;

	do {
		rc = fdatasync(file->fd) == 0 ? 0 : -errno;
	} while (rc == -EINTR);
	return rc;
}

static void sync_run(struct job *job)
{
	file_req_of_job(job)->result = sync_data(file_of_job(job));
}

void blk_file_work_sync(struct blk_file *file, struct blk_req *req)
{
	work_queue(file->lanes[0], req, sync_run, work_done);
}

/* ---- buffered reads and writes ---- */

/* The caller's pieces from done_bytes on; returns how many. */
static int iov_rest(const struct blk_req *req, uint64_t done_bytes, struct iovec *rest)
{
	int count = 0;

	for (uint32_t i = 0; i < req->iov_count; i++) {
		struct iovec piece = req->iov[i];
		uint64_t skip = MIN(done_bytes, piece.iov_len);

		done_bytes -= skip;
		if (piece.iov_len == skip)
			continue;
		piece.iov_base = (uint8_t *)piece.iov_base + skip;
		piece.iov_len -= skip;
		rest[count++] = piece;
	}
	return count;
}

static ssize_t buffered_write(struct blk_file *file, struct file_req *file_req,
			      const struct iovec *iov, int count, off_t offset)
{
	bool fua = blk_req_of(file_req)->flags & BLK_FUA;
	ssize_t len;

	if (!fua || atomic_load_explicit(&file->lacks_dsync, memory_order_relaxed)) {
		file_req->sync_after = fua;
		return pwritev(file->fd, iov, count, offset);
	}
	len = pwritev2(file->fd, iov, count, offset, RWF_DSYNC);
	if (len >= 0 || !file_rc_is_unsupported(-errno))
		return len;
	file_req->sync_after = true;
	len = pwritev(file->fd, iov, count, offset);
	if (len >= 0 && file_first_sight(&file->lacks_dsync))
		log_info("blk_file", "%s: no RWF_DSYNC here: durable writes are synced after",
			 file->name);
	return len;
}

static int buffered_transfer(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);
	struct iovec rest[BLK_MAX_IOV];

	while (file_req->done_bytes < req->len_bytes) {
		int count = iov_rest(req, file_req->done_bytes, rest);
		off_t offset = (off_t)(req->offset_bytes + file_req->done_bytes);
		ssize_t len;

		if (req->op == BLK_WRITE)
			len = buffered_write(file, file_req, rest, count, offset);
		else
			len = preadv(file->fd, rest, count, offset);
		if (len < 0 && errno != EINTR)
			return -errno;
		if (len == 0)
			return -EIO;    /* the file has been cut */
		if (len > 0)
			file_req->done_bytes += (uint64_t)len;
	}
	return file_req->sync_after ? sync_data(file) : 0;
}

static void buffered_run(struct job *job)
{
	file_req_of_job(job)->result = buffered_transfer(file_of_job(job), file_req_of_job(job));
}

static struct worker *least_busy_lane(const struct blk_file *file)
{
	struct worker *best = file->lanes[0];

	for (uint32_t i = 1; i < BLK_FILE_LANES; i++)
		if (file->lanes[i] && worker_pending(file->lanes[i]) < worker_pending(best))
			best = file->lanes[i];
	return best;
}

/* ---- zeroing ---- */

/* 0, -EOPNOTSUPP, or another -errno.  Unaligned edges are zeroed by the file system itself. */
static int allocate_zeroes(struct blk_file *file, int mode, uint64_t offset_bytes,
			   uint64_t len_bytes)
{
	int rc;

	do {
		rc = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset_bytes,
			       (off_t)len_bytes) == 0 ? 0 : -errno;
	} while (rc == -EINTR);
	return rc == -ENOSYS || rc == -ENODEV ? -EOPNOTSUPP : rc;
}

static int punch(struct blk_file *file, uint64_t offset_bytes, uint64_t len_bytes)
{
	int rc;

	if (atomic_load_explicit(&file->lacks_punch, memory_order_relaxed))
		return -EOPNOTSUPP;
	rc = allocate_zeroes(file, FALLOC_FL_PUNCH_HOLE, offset_bytes, len_bytes);
	if (rc == -EOPNOTSUPP && file_first_sight(&file->lacks_punch))
		log_info("blk_file", "%s: cannot punch holes: zeroes keep their space", file->name);
	return rc;
}

static int zero_range(struct blk_file *file, uint64_t offset_bytes, uint64_t len_bytes)
{
	int rc;

	if (atomic_load_explicit(&file->lacks_zero_range, memory_order_relaxed))
		return -EOPNOTSUPP;
	rc = allocate_zeroes(file, FALLOC_FL_ZERO_RANGE, offset_bytes, len_bytes);
	if (rc == -EOPNOTSUPP && file_first_sight(&file->lacks_zero_range))
		log_info("blk_file", "%s: cannot zero a range in place: writing zeroes",
			 file->name);
	return rc;
}

static int write_zeroes(struct blk_file *file, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct iovec pieces[ZERO_PIECES];

	while (len_bytes) {
		uint64_t filled_bytes = 0;
		ssize_t len;
		int count = 0;

		while (count < ZERO_PIECES && filled_bytes < len_bytes) {
			uint64_t piece_bytes = MIN(len_bytes - filled_bytes, ZERO_PIECE_BYTES);

			pieces[count++] = (struct iovec){ zero_piece, piece_bytes };
			filled_bytes += piece_bytes;
		}
		len = pwritev(file->fd, pieces, count, (off_t)offset_bytes);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		len = (ssize_t)round_down((uint64_t)len, file->dev.limits.block_bytes);
		if (len == 0)
			return -EIO;
		offset_bytes += (uint64_t)len;
		len_bytes -= (uint64_t)len;
	}
	return 0;
}

/* One step; moves done_bytes on. */
static int zeroes_step(struct blk_file *file, struct file_req *file_req)
{
	const struct blk_req *req = blk_req_of(file_req);
	uint64_t offset_bytes = req->offset_bytes + file_req->done_bytes;
	uint64_t step_bytes = MIN(req->len_bytes - file_req->done_bytes, ALLOCATE_STEP_BYTES);
	int rc = -EOPNOTSUPP;

	/* Where the device only ignores discards, punching would be slower, not thinner. */
	if ((req->flags & BLK_MAY_UNMAP) && file->dev.limits.can_unmap)
		rc = punch(file, offset_bytes, step_bytes);
	if (rc == -EOPNOTSUPP)
		rc = zero_range(file, offset_bytes, step_bytes);
	if (rc == -EOPNOTSUPP) {
		step_bytes = MIN(step_bytes, WRITE_ZEROES_STEP_BYTES);
		rc = write_zeroes(file, offset_bytes, step_bytes);
	}
	if (rc)
		return rc;
	file_req->done_bytes += step_bytes;
	if (file_req->done_bytes == req->len_bytes && (req->flags & BLK_FUA))
		return sync_data(file);
	return 0;
}

static void zeroes_run(struct job *job)
{
	file_req_of_job(job)->result = zeroes_step(file_of_job(job), file_req_of_job(job));
}

/* A hint: a store that cannot take it has lost nothing. */
static void discard_run(struct job *job)
{
	struct file_req *file_req = file_req_of_job(job);
	const struct blk_req *req = blk_req_of(file_req);
	uint64_t step_bytes = MIN(req->len_bytes - file_req->done_bytes, ALLOCATE_STEP_BYTES);
	int rc = punch(file_of_job(job), req->offset_bytes + file_req->done_bytes, step_bytes);

	file_req->result = rc == -EOPNOTSUPP ? 0 : rc;
	file_req->done_bytes += step_bytes;
}

static void step_done(struct job *job)
{
	struct blk_req *req = req_of_job(job);
	struct file_req *file_req = file_req_of_job(job);

	if (file_req->result == 0 && file_req->done_bytes < req->len_bytes)
		work_queue(file_of_job(job)->lanes[0], req, job->run, step_done);
	else
		work_done(job);
}

/* ---- extents ---- */

static void extents_add(struct blk_extents *extents, uint64_t len_bytes,
			enum blk_extent_status status)
{
	if (len_bytes == 0)
		return;
	if (extents->count && extents->runs[extents->count - 1].status == status)
		extents->runs[extents->count - 1].len_bytes += len_bytes;
	else
		extents->runs[extents->count++] =
			(struct blk_extent){ .len_bytes = len_bytes, .status = status };
}

static int seek_failed(struct blk_file *file, int rc, struct blk_extents *extents,
		       uint64_t rest_bytes)
{
	if (!file_rc_is_unsupported(rc))
		return rc;
	if (file_first_sight(&file->lacks_seek))
		log_info("blk_file", "%s: cannot tell holes from data: all is data", file->name);
	extents_add(extents, rest_bytes, BLK_EXTENT_DATA);
	return 0;
}

/*
 * No data from here on: a hole up to the end of the file.  If somebody has cut the file,
 * what lies behind its end does not read as zeroes but fails, so it is no hole.
 */
static int last_hole(struct blk_file *file, uint64_t at, uint64_t end, struct blk_extents *extents)
{
	uint64_t hole_end;
	struct stat st;

	if (fstat(file->fd, &st) != 0)
		return -errno;
	hole_end = MIN(end, round_down((uint64_t)st.st_size, file->dev.limits.block_bytes));
	hole_end = MAX(hole_end, at);
	extents_add(extents, hole_end - at, BLK_EXTENT_HOLE);
	if (extents->count < extents->capacity)
		extents_add(extents, end - hole_end, BLK_EXTENT_DATA);
	return 0;
}

/*
 * Holes are rounded inward to blocks.  A range that turns into a hole between the two seeks
 * counts as one block of data, so that every round moves on and makes a run or lengthens one;
 * the rounds are bounded too, for a store with holes smaller than a block.
 */
static int find_extents(struct blk_file *file, struct blk_req *req)
{
	struct blk_extents *extents = req->extents;
	uint32_t most = MIN(extents->capacity, EXTENT_RUNS_MAX);
	uint32_t block_bytes = file->dev.limits.block_bytes;
	uint64_t at = req->offset_bytes;
	uint64_t end = req->offset_bytes + req->len_bytes;

	for (uint32_t round = 0; at < end && extents->count < most && round < most; round++) {
		off_t data = lseek(file->fd, (off_t)at, SEEK_DATA);
		uint64_t data_start, hole_start;
		off_t hole;

		if (data < 0 && errno == ENXIO)
			return last_hole(file, at, end, extents);
		if (data < 0)
			return seek_failed(file, -errno, extents, end - at);
		data_start = MAX(at, MIN(end, round_down((uint64_t)data, block_bytes)));
		extents_add(extents, data_start - at, BLK_EXTENT_HOLE);
		at = data_start;
		if (at == end || extents->count == most)
			return 0;
		hole = lseek(file->fd, data, SEEK_HOLE);
		if (hole < 0 && errno != ENXIO)
			return seek_failed(file, -errno, extents, end - at);
		hole_start = hole < 0 ? 0 : round_up((uint64_t)hole, block_bytes);
		hole_start = MIN(end, MAX(hole_start, at + block_bytes));
		extents_add(extents, hole_start - at, BLK_EXTENT_DATA);
		at = hole_start;
	}
	return 0;
}

static void extents_run(struct job *job)
{
	struct blk_file *file = file_of_job(job);
	struct blk_req *req = req_of_job(job);

	req->extents->count = 0;
	file_req_of_job(job)->result = find_extents(file, req);
}

static void extents_of_device(struct blk_req *req)
{
	req->extents->count = 0;
	extents_add(req->extents, req->len_bytes, BLK_EXTENT_DATA);
	blk_complete_later(req, 0);
}

/* ---- the way in ---- */

void blk_file_work(struct blk_file *file, struct blk_req *req)
{
	switch (req->op) {
	case BLK_READ:
	case BLK_WRITE:
		work_queue(least_busy_lane(file), req, buffered_run, work_done);
		return;
	case BLK_WRITE_ZEROES:
		work_queue(file->lanes[0], req, zeroes_run, step_done);
		return;
	case BLK_DISCARD:
		work_queue(file->lanes[0], req, discard_run, step_done);
		return;
	case BLK_EXTENTS:
		if (file->is_block_device)
			extents_of_device(req);
		else
			work_queue(file->lanes[0], req, extents_run, work_done);
		return;
	case BLK_FLUSH:
	case BLK_OP_COUNT:
		break;
	}
	CHECK(false);
}
