/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_dev URL LUN VERB [...] - the iSCSI device and what lies under it, for scripts.
 *
 *   check               sizes, pieces, zeroes, holes, discard, flush: written and read back
 *   source ROUNDS       a guest's disk: at least ROUNDS rounds of writes, until a line or the end
 *                       comes on stdin, none may fail; then all is read back.  Says "running"
 *                       after the first
 *   target ROUNDS       a move's target: writes may fail; what was written since the last good
 *                       flush counts as unknown then, all else is read back.  The same words
 *   count TIMES         adds 1 to a counter in block 0, TIMES times, by test-and-set; prints it
 *   zero                block 0 becomes zeroes
 *
 * LOCK=1 in the environment: with a reservation.  LOCK=wait: as soon as it can be had, within a
 * minute; says "waiting" when it is refused at first.  HOST=N: another host's identity.
 * Exit 0, or 1 with "BM-NNNN cause" or "WRONG: ..." on stderr, or 2 for bad usage.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"
#include "datastores/blk_iscsi.h"
#include "datastores/iscsi_lun.h"
#include "tests/lib/io_wait.h"

#define OPS 16u
#define SLOT_BYTES (64u << 10)
#define SLOTS 128u              /* 8 MiB are written to */
#define SESSIONS 2u

static struct err err;

#define must(condition)                                                                   \
	do {                                                                              \
		if (!(condition)) {                                                       \
			fprintf(stderr, "WRONG: line %d: %s\n", __LINE__, #condition);    \
			return -EIO;                                                      \
		}                                                                         \
	} while (0)

struct work {
	struct io_wait wait;
	struct blk_dev *dev;
};

static int do_io(struct work *work, struct blk_req req, void *bytes)
{
	const struct iovec iov = { bytes, req.len_bytes };
	struct io_op op = { .req = req };

	if (bytes) {
		op.req.iov = &iov;
		op.req.iov_count = 1;
	}
	return io_do(&work->wait, work->dev, &op);
}

static void fill(uint8_t *bytes, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;

		memcpy(bytes + i, &word, MIN(len - i, (size_t)8));
	}
}

/* ---- check ---- */

static int check_zeroes(struct work *work, uint8_t *bytes, unsigned flags)
{
	static uint8_t wanted[1 << 20];
	uint64_t block_bytes = work->dev->limits.block_bytes;
	struct blk_req zero = { .op = BLK_WRITE_ZEROES, .flags = flags,
				.offset_bytes = block_bytes,
				.len_bytes = sizeof(wanted) - 3 * block_bytes };
	struct blk_req whole = { .op = BLK_WRITE, .len_bytes = sizeof(wanted) };

	fill(wanted, sizeof(wanted), 77);
	must(do_io(work, whole, wanted) == 0);
	must(do_io(work, zero, NULL) == 0);
	memset(wanted + zero.offset_bytes, 0, zero.len_bytes);
	whole.op = BLK_READ;
	must(do_io(work, whole, bytes) == 0);
	must(memcmp(bytes, wanted, sizeof(wanted)) == 0);
	return 0;
}

/* One request in as many pieces of odd sizes as it may have. */
static int check_pieces(struct work *work, uint8_t *bytes)
{
	static uint8_t wanted[BLK_MAX_IOV * 512 * 4];
	struct iovec iov[BLK_MAX_IOV];
	struct io_op op = { .req = { .op = BLK_WRITE, .flags = BLK_FUA, .offset_bytes = 8192,
				     .len_bytes = sizeof(wanted), .iov = iov,
				     .iov_count = BLK_MAX_IOV } };
	size_t at = 0;

	fill(wanted, sizeof(wanted), 3);
	for (unsigned i = 0; i < BLK_MAX_IOV; i++) {
		size_t len = i % 2 ? 2048 - 100 : 2048 + 100;

		iov[i] = (struct iovec){ wanted + at, len };
		at += len;
	}
	must(at == sizeof(wanted));
	must(io_do(&work->wait, work->dev, &op) == 0);
	must(do_io(work, (struct blk_req){ .op = BLK_READ, .offset_bytes = 8192,
					   .len_bytes = sizeof(wanted) }, bytes) == 0);
	must(memcmp(bytes, wanted, sizeof(wanted)) == 0);
	return 0;
}

static int check_holes(struct work *work)
{
	struct blk_extent runs[16];
	struct blk_extents extents = { .runs = runs, .capacity = 16 };
	struct blk_req req = { .op = BLK_EXTENTS, .offset_bytes = 4 << 20, .len_bytes = 4 << 20,
			       .extents = &extents };
	uint64_t sum_bytes = 0;

	must(do_io(work, (struct blk_req){ .op = BLK_WRITE_ZEROES, .flags = BLK_MAY_UNMAP,
					   .offset_bytes = req.offset_bytes,
					   .len_bytes = req.len_bytes }, NULL) == 0);
	must(do_io(work, req, NULL) == 0);
	must(extents.count >= 1);
	for (uint32_t i = 0; i < extents.count; i++)
		sum_bytes += runs[i].len_bytes;
	must(sum_bytes <= req.len_bytes);
	if (work->dev->limits.has_extents)
		must(runs[0].status == BLK_EXTENT_HOLE);
	else
		must(runs[0].status == BLK_EXTENT_DATA && sum_bytes == req.len_bytes);
	printf("extents=%s\n", work->dev->limits.has_extents ? "told" : "data");
	return 0;
}

static int do_check(struct work *work)
{
	static uint8_t bytes[BLK_MAX_TRANSFER_BYTES], wanted[BLK_MAX_TRANSFER_BYTES];
	struct blk_req req = { .op = BLK_WRITE, .offset_bytes = 4096, .len_bytes = sizeof(wanted) };
	int rc;

	fill(wanted, sizeof(wanted), 1);
	must(do_io(work, req, wanted) == 0);
	req.op = BLK_READ;
	must(do_io(work, req, bytes) == 0);
	must(memcmp(bytes, wanted, sizeof(wanted)) == 0);
	/* The last block, and beyond it nothing. */
	req = (struct blk_req){ .op = BLK_WRITE, .len_bytes = work->dev->limits.block_bytes };
	req.offset_bytes = work->dev->size_bytes - req.len_bytes;
	must(do_io(work, req, wanted) == 0);
	rc = check_pieces(work, bytes);
	rc = rc ? rc : check_zeroes(work, bytes, 0);
	rc = rc ? rc : check_zeroes(work, bytes, BLK_MAY_UNMAP);
	rc = rc ? rc : check_zeroes(work, bytes, BLK_MAY_UNMAP | BLK_FUA);
	rc = rc ? rc : check_holes(work);
	if (rc)
		return rc;
	must(do_io(work, (struct blk_req){ .op = BLK_DISCARD, .len_bytes = 1 << 20 }, NULL) == 0);
	must(do_io(work, (struct blk_req){ .op = BLK_FLUSH }, NULL) == 0);
	return 0;
}

/* ---- source and target ---- */

struct slot {
	uint64_t seed;                  /* what it holds */
	bool unknown;                   /* ... unless its write, or the flush after it, failed */
	bool unflushed;
};

struct storm {
	struct slot slots[SLOTS];
	uint8_t (*data)[SLOT_BYTES];
	struct iovec iov[OPS];
	struct io_op ops[OPS];
	unsigned writes_failed, flushes_failed;
	uint64_t seed;
	bool as_target;
};

/* OPS writes at once, to OPS different places, and a flush when all are back. */
static int storm_round(struct work *work, struct storm *storm)
{
	unsigned first = (unsigned)(storm->seed * 7 % SLOTS);
	int rc;

	for (unsigned i = 0; i < OPS; i++) {
		storm->seed++;
		fill(storm->data[i], SLOT_BYTES, storm->seed);
		storm->iov[i] = (struct iovec){ storm->data[i], SLOT_BYTES };
		storm->ops[i] = (struct io_op){ .req = {
			.op = BLK_WRITE, .offset_bytes = (first + i) % SLOTS * SLOT_BYTES,
			.len_bytes = SLOT_BYTES, .iov = &storm->iov[i], .iov_count = 1 },
			.tag = storm->seed };
		io_submit_op(&work->wait, work->dev, &storm->ops[i]);
	}
	must(io_wait_for(&work->wait, OPS));
	for (unsigned i = 0; i < OPS; i++) {
		struct slot *slot = &storm->slots[(first + i) % SLOTS];

		slot->seed = storm->ops[i].tag;
		slot->unknown = storm->ops[i].req.result != 0;
		slot->unflushed = true;
		storm->writes_failed += slot->unknown;
	}
	rc = do_io(work, (struct blk_req){ .op = BLK_FLUSH }, NULL);
	storm->flushes_failed += rc != 0;
	for (unsigned i = 0; i < SLOTS; i++) {
		storm->slots[i].unknown |= rc && storm->slots[i].unflushed;
		storm->slots[i].unflushed = rc != 0;
	}
	must(rc == 0 || storm->as_target);
	return 0;
}

static int storm_verify(struct work *work, struct storm *storm)
{
	static uint8_t bytes[SLOT_BYTES], wanted[SLOT_BYTES];
	unsigned known = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		if (!storm->slots[i].seed || storm->slots[i].unknown)
			continue;
		must(do_io(work, (struct blk_req){ .op = BLK_READ, .offset_bytes = i * SLOT_BYTES,
						   .len_bytes = SLOT_BYTES }, bytes) == 0);
		fill(wanted, sizeof(wanted), storm->slots[i].seed);
		must(memcmp(bytes, wanted, sizeof(wanted)) == 0);
		known++;
	}
	printf("known=%u writes_failed=%u flushes_failed=%u\n", known, storm->writes_failed,
	       storm->flushes_failed);
	return 0;
}

static int do_storm(struct work *work, bool as_target, unsigned rounds)
{
	static struct storm storm;
	struct pollfd stop = { .fd = STDIN_FILENO, .events = POLLIN };
	int rc = 0;

	storm.as_target = as_target;
	storm.data = malloc((size_t)OPS * SLOT_BYTES);
	must(storm.data);
	for (unsigned round = 0; !rc && (round < rounds || poll(&stop, 1, 0) == 0); round++) {
		rc = storm_round(work, &storm);
		if (round == 0) {
			printf("running\n");
			fflush(stdout);
		}
	}
	must(as_target || !storm.writes_failed);
	rc = rc ? rc : storm_verify(work, &storm);
	free(storm.data);
	return rc;
}

/* ---- the atomic test-and-set ---- */

static int do_count(const struct iscsi_place *place, unsigned times)
{
	uint8_t before[4096], after[4096];
	struct iscsi_lun *lun;
	uint64_t value = 0;
	int rc = iscsi_lun_open(place, 10 * NS_PER_S, &lun, &err);

	while (!rc && times) {
		rc = iscsi_lun_read(lun, 0, before, &err);
		if (rc)
			break;
		memcpy(&value, before, sizeof(value));
		value++;
		memcpy(after, before, sizeof(after));
		memcpy(after, &value, sizeof(value));
		rc = iscsi_lun_compare_write(lun, 0, before, after, &err);
		times -= rc == 0;
		if (rc == -EAGAIN)
			rc = 0;
	}
	if (!rc)
		rc = iscsi_lun_flush(lun, &err);
	if (!rc)
		printf("%" PRIu64 "\n", value);
	iscsi_lun_close(lun);
	return rc;
}

static int do_zero(const struct iscsi_place *place)
{
	static const uint8_t zeroes[4096];
	struct iscsi_lun *lun;
	int rc = iscsi_lun_open(place, 10 * NS_PER_S, &lun, &err);

	if (rc)
		return rc;
	rc = iscsi_lun_write(lun, 0, zeroes, &err);
	iscsi_lun_close(lun);
	return rc;
}

/* ---- */

static int run_device(const struct iscsi_place *place, struct iscsi_lock *lock, char **args)
{
	bool as_target = strcmp(args[0], "target") == 0;
	const struct blk_iscsi_options options = { .as_target = as_target, .name = "unit" };
	struct loop *loop = loop_new();
	struct blk_iscsi_links *links;
	struct work work;
	int rc;

	must(loop);
	rc = blk_iscsi_connect(place, lock, false, SESSIONS, &links, &err);
	if (rc)
		return rc;
	io_wait_init(&work.wait, loop);
	rc = blk_iscsi_new(loop, links, &options, &work.dev, &err);
	if (rc) {
		blk_iscsi_links_free(links);
		return rc;
	}
	if (strcmp(args[0], "check") == 0)
		rc = do_check(&work);
	else
		rc = do_storm(&work, as_target, (unsigned)atoi(args[1]));
	blk_close(work.dev);
	loop_free(loop);
	return rc;
}

/* What an operator does: tries again. */
static int take_lock(const struct iscsi_place *place, bool waits, struct iscsi_lock **lock)
{
	struct iscsi_key_watch watch = { 0 };
	int rc = -EAGAIN;

	for (int i = 0; i < 60 && rc == -EAGAIN; i++) {
		rc = iscsi_lock_take(place, &lease_times_default, &watch, lock, &err);
		if (rc != -EAGAIN || !waits)
			break;
		if (i == 0)
			printf("waiting\n");
		fflush(stdout);
		(void)poll(NULL, 0, 1000);
	}
	return rc;
}

static int run(const struct iscsi_place *place, char **args)
{
	const char *lock_wanted = getenv("LOCK");
	struct iscsi_lock *lock = NULL;
	int rc = 0;

	if (strcmp(args[0], "count") == 0)
		return do_count(place, (unsigned)atoi(args[1]));
	if (strcmp(args[0], "zero") == 0)
		return do_zero(place);
	if (lock_wanted && lock_wanted[0])
		rc = take_lock(place, strcmp(lock_wanted, "wait") == 0, &lock);
	rc = rc ? rc : run_device(place, lock, args);
	iscsi_lock_release(lock);
	return rc;
}

int main(int argc, char **argv)
{
	struct iscsi_place place = { 0 };
	const char *host = getenv("HOST");
	struct ds_url url;

	if (argc < 4 || (strcmp(argv[3], "check") != 0 && strcmp(argv[3], "zero") != 0 && argc < 5)) {
		fprintf(stderr, "usage: iscsi_dev URL LUN check|source|target|count|zero [N]\n");
		return 2;
	}
	if (ds_url_parse(argv[1], &url, &err) == 0) {
		snprintf(place.host, sizeof(place.host), "%s", url.host);
		snprintf(place.iqn, sizeof(place.iqn), "%s", url.iqn);
		place.port = url.port;
		place.lun = (uint32_t)atoi(argv[2]);
		place.host_uuid[0] = (uint8_t)atoi(host ? host : "1");
		if (run(&place, argv + 3) == 0)
			return 0;
	}
	if (err.id)
		fprintf(stderr, "%s %s\n", err_name(err.id), err.cause);
	return 1;
}
