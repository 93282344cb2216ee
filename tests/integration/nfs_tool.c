/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_tool HOST PATH NFSPORT MOUNTPORT VERB [...] - the NFS client, for scripts.
 *
 *   mount                          says the limits
 *   files                          every call of a session, checked; leaves the folder empty
 *   create NAME                    one file
 *   race NAME COUNT                so many processes create NAME: exactly one may
 *
 *   write FILE BYTES SEED          makes FILE of that size, writes all of it, flushes
 *   verify FILE BYTES SEED         reads it back
 *   lose FILE BYTES                writes, says "written", waits for a line, flushes: must fail
 *   endure FILE BYTES              writes until a write fails; says "writing" after the first
 *
 * A port of 0: the port mapper is asked.  Exit 0, 1 with "BM-NNNN cause" or "WRONG: ..." on
 * stderr, 2 for bad usage.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nfs.h"
#include "blkmirror/blkdev/nfs_session.h"
#include "tests/lib/io_wait.h"

static struct err err;

#define must(condition)                                                                   \
	do {                                                                              \
		if (!(condition)) {                                                       \
			fprintf(stderr, "WRONG: line %d: %s\n", __LINE__, #condition);    \
			return -EIO;                                                      \
		}                                                                         \
	} while (0)

struct seen {
	unsigned count, named;
	const char *name;
};

static int see(const char *name, const struct nfs_attributes *attributes, void *user)
{
	struct seen *seen = user;

	seen->count++;
	if (strcmp(name, seen->name) == 0)
		seen->named += attributes->kind == NFS_FILE && attributes->size_bytes == 5000;
	return 0;
}

static int see_one(const char *name, const struct nfs_attributes *attributes, void *user)
{
	(void)name;
	(void)attributes;
	(void)user;
	return 77;
}

static int do_names(struct nfs_session *session, const struct nfs_handle *folder)
{
	struct seen seen = { .name = "a2" };
	struct nfs_handle file, again;
	char name[32];

	must(nfs_session_lookup(session, folder, "a", &file) == -ENOENT);
	must(nfs_session_create_exclusive(session, folder, "a", 1, &file) == 0);
	must(nfs_session_create_exclusive(session, folder, "a", 2, &again) == -EEXIST);
	must(nfs_session_lookup(session, folder, "a", &again) == 0);
	must(again.len == file.len && memcmp(again.bytes, file.bytes, file.len) == 0);
	must(nfs_session_set_size(session, &file, 5000) == 0);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		must(nfs_session_create_exclusive(session, folder, name, 9, &again) == 0);
	}
	must(nfs_session_rename(session, folder, "a", folder, "a2") == 0);
	must(nfs_session_list(session, folder, see, &seen) == 0);
	must(seen.count == 301 && seen.named == 1);
	must(nfs_session_list(session, folder, see_one, NULL) == 77);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		must(nfs_session_remove(session, folder, name) == 0);
	}
	return 0;
}

static int do_bytes(struct nfs_session *session, const struct nfs_handle *folder)
{
	static uint8_t bytes[3 << 20], zeroes[5000];
	struct nfs_attributes attributes;
	struct nfs_handle file;

	must(nfs_session_lookup(session, folder, "a2", &file) == 0);
	/* R11: what a larger size adds reads as zeroes. */
	must(nfs_session_read(session, &file, 0, bytes, 8192) == 5000);
	must(memcmp(bytes, zeroes, 5000) == 0);
	must(nfs_session_write_stable(session, &file, 4999, "xyz", 3) == 0);
	must(nfs_session_read(session, &file, 4998, bytes, 8192) == 4);
	must(memcmp(bytes, "\0xyz", 4) == 0);
	must(nfs_session_set_size(session, &file, UINT64_C(8) << 40) == 0);
	must(nfs_session_attributes(session, &file, &attributes) == 0);
	must(attributes.kind == NFS_FILE && attributes.size_bytes == UINT64_C(8) << 40);
	must(attributes.used_bytes < 1 << 20);
	/* More than one request takes. */
	must(nfs_session_read(session, &file, UINT64_C(1) << 40, bytes, sizeof(bytes)) ==
	     sizeof(bytes));
	must(nfs_session_remove(session, folder, "a2") == 0);
	must(nfs_session_attributes(session, &file, &attributes) == -ESTALE);
	return 0;
}

static int do_files(struct nfs_session *session)
{
	const struct nfs_handle *root = nfs_session_root(session);
	struct nfs_handle folder;
	struct nfs_space space;
	int rc;

	must(nfs_session_make_dir(session, root, "folder") == 0);
	must(nfs_session_make_dir(session, root, "folder") == -EEXIST);
	must(nfs_session_lookup(session, root, "folder", &folder) == 0);
	must(nfs_session_space(session, &space) == 0);
	must(space.total_bytes > space.free_bytes && space.free_bytes > 0);
	rc = do_names(session, &folder);
	rc = rc ? rc : do_bytes(session, &folder);
	if (rc)
		return rc;
	must(nfs_session_remove_dir(session, root, "folder") == 0);
	return 0;
}

static int do_create(struct nfs_session *session, const char *name)
{
	struct nfs_handle file;
	int rc = nfs_session_create_exclusive(session, nfs_session_root(session), name, 1, &file);

	return rc ? nfs_fail(&err, rc, "create", name) : 0;
}

/* R-F4 */
static int do_race(const struct nfs_place *place, const char *name, int count)
{
	int winners = 0, status;

	for (int i = 0; i < count; i++) {
		if (fork() == 0) {
			struct nfs_session *session;
			struct nfs_handle file;

			if (nfs_session_open(place, 10 * NS_PER_S, &session, &err))
				_exit(3);
			switch (nfs_session_create_exclusive(session, nfs_session_root(session),
							     name, (uint64_t)getpid(), &file)) {
			case 0:
				_exit(0);
			case -EEXIST:
				_exit(1);
			default:
				_exit(3);
			}
		}
	}
	for (int i = 0; i < count; i++) {
		must(wait(&status) > 0);
		must(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
		winners += WEXITSTATUS(status) == 0;
	}
	must(winners == 1);
	return 0;
}

/* ---- the device ---- */

#define DEPTH 16u
#define PART_BYTES (512u << 10)
#define CONNECTIONS 4u

struct work {
	struct loop *loop;
	struct io_wait wait;
	struct blk_dev *dev;
	struct {
		struct io_op op;
		struct iovec iov;
		uint8_t *bytes;
	} slots[DEPTH];
};

static void part_fill(uint8_t *bytes, uint64_t offset_bytes, uint64_t seed)
{
	for (size_t i = 0; i < PART_BYTES / 8; i++) {
		uint64_t value = (offset_bytes + i * 8) * UINT64_C(0x9e3779b97f4a7c15) + seed;

		memcpy(bytes + i * 8, &value, 8);
	}
}

/* One batch of the same operation from offset_bytes on; 0, or the first error. */
static int work_batch(struct work *work, enum blk_op op, uint64_t offset_bytes, unsigned count,
		      uint64_t seed)
{
	for (unsigned i = 0; i < count; i++) {
		if (op == BLK_WRITE)
			part_fill(work->slots[i].bytes, offset_bytes + i * PART_BYTES, seed);
		work->slots[i].iov = (struct iovec){ work->slots[i].bytes, PART_BYTES };
		work->slots[i].op = (struct io_op){
			.req = { .op = op, .offset_bytes = offset_bytes + i * PART_BYTES,
				 .len_bytes = PART_BYTES, .iov = &work->slots[i].iov,
				 .iov_count = 1 },
		};
		io_submit_op(&work->wait, work->dev, &work->slots[i].op);
	}
	if (!io_wait_for(&work->wait, count))
		return -ETIMEDOUT;
	for (unsigned i = 0; i < count; i++)
		if (work->slots[i].op.req.result)
			return work->slots[i].op.req.result;
	return 0;
}

static int work_through(struct work *work, enum blk_op op, uint64_t size_bytes, uint64_t seed)
{
	static uint8_t wanted[PART_BYTES];

	for (uint64_t at = 0; at < size_bytes; at += DEPTH * PART_BYTES) {
		unsigned count = (unsigned)MIN((size_bytes - at) / PART_BYTES, DEPTH);
		int rc = work_batch(work, op, at, count, seed);

		if (rc)
			return rc;
		for (unsigned i = 0; op == BLK_READ && i < count; i++) {
			part_fill(wanted, at + i * PART_BYTES, seed);
			must(memcmp(wanted, work->slots[i].bytes, PART_BYTES) == 0);
		}
	}
	return 0;
}

static int work_flush(struct work *work)
{
	struct io_op flush = { .req = { .op = BLK_FLUSH } };

	return io_do(&work->wait, work->dev, &flush);
}

static int work_verb(struct work *work, uint64_t size_bytes, char **args)
{
	uint64_t seed = args[3] ? strtoull(args[3], NULL, 10) : 0;
	int rc;

	if (strcmp(args[0], "verify") == 0)
		return work_through(work, BLK_READ, size_bytes, seed);
	rc = work_through(work, BLK_WRITE, size_bytes, seed);
	if (rc)
		return rc;
	if (strcmp(args[0], "write") == 0)
		return work_flush(work);
	printf("%s\n", strcmp(args[0], "lose") == 0 ? "written" : "writing");
	fflush(stdout);
	if (strcmp(args[0], "lose") == 0) {
		must(getchar() != EOF);
		must(work_flush(work) == -EIO);
	} else {
		while (!rc)
			rc = work_through(work, BLK_WRITE, size_bytes, seed);
		must(rc == -EIO);
	}
	must(blk_nfs_is_dead(work->dev));
	must(work_batch(work, BLK_WRITE, 0, 1, seed) == -EIO);
	return 0;
}

static int work_open(struct work *work, struct nfs_session *session, const char *name,
		     uint64_t size_bytes, bool make)
{
	const struct nfs_handle *root = nfs_session_root(session);
	const struct blk_nfs_options options = { .reads_zero = true };
	struct blk_nfs_links *links;
	struct nfs_handle file;
	int rc = make ? nfs_session_create_exclusive(session, root, name, 1, &file)
		      : nfs_session_lookup(session, root, name, &file);

	if (rc)
		return nfs_fail(&err, rc, "open", name);
	rc = make ? nfs_session_set_size(session, &file, size_bytes) : 0;
	rc = rc ? rc : blk_nfs_connect(session, &file, CONNECTIONS, 5 * NS_PER_S, &links, &err);
	if (rc)
		return rc;
	rc = blk_nfs_new(work->loop, links, size_bytes, &options, &work->dev, &err);
	if (rc)
		blk_nfs_links_free(links);
	return rc;
}

static int do_device(struct nfs_session *session, char **args)
{
	static struct work work;
	uint64_t size_bytes = strtoull(args[2], NULL, 10);
	int rc;

	must(size_bytes && size_bytes % PART_BYTES == 0);
	work.loop = loop_new();
	must(work.loop);
	io_wait_init(&work.wait, work.loop);
	for (unsigned i = 0; i < DEPTH; i++) {
		work.slots[i].bytes = malloc(PART_BYTES);
		must(work.slots[i].bytes);
	}
	rc = work_open(&work, session, args[1], size_bytes, strcmp(args[0], "verify") != 0);
	rc = rc ? rc : work_verb(&work, size_bytes, args);
	blk_close(work.dev);
	io_wait_pass(&work.wait, NS_PER_MS);
	loop_free(work.loop);
	for (unsigned i = 0; i < DEPTH; i++)
		free(work.slots[i].bytes);
	return rc;
}

static int run(const struct nfs_place *place, char **args)
{
	struct nfs_session *session;
	int rc;

	if (strcmp(args[0], "race") == 0 && args[1] && args[2])
		return do_race(place, args[1], atoi(args[2]));
	rc = nfs_session_open(place, 5 * NS_PER_S, &session, &err);
	if (rc)
		return rc;
	if (strcmp(args[0], "mount") == 0)
		printf("read=%u write=%u\n", (unsigned)nfs_session_limits(session)->read_bytes,
		       (unsigned)nfs_session_limits(session)->write_bytes);
	else if (strcmp(args[0], "files") == 0)
		rc = do_files(session);
	else if (strcmp(args[0], "create") == 0 && args[1])
		rc = do_create(session, args[1]);
	else if (args[1] && args[2])
		rc = do_device(session, args);
	else
		rc = -EINVAL;
	nfs_session_close(session);
	return rc;
}

int main(int argc, char **argv)
{
	struct nfs_place place = { 0 };
	int rc;

	if (argc < 6) {
		fprintf(stderr, "usage: nfs_tool HOST PATH NFSPORT MOUNTPORT VERB [...]\n");
		return 2;
	}
	snprintf(place.host, sizeof(place.host), "%s", argv[1]);
	snprintf(place.path, sizeof(place.path), "%s", argv[2]);
	place.nfs_port = (uint16_t)atoi(argv[3]);
	place.mount_port = (uint16_t)atoi(argv[4]);
	rc = run(&place, argv + 5);
	if (rc && err.id)
		fprintf(stderr, "%s %s\n", err_name(err.id), err.cause);
	else if (rc)
		fprintf(stderr, "failed: %s\n", err_strerror(rc));
	return rc ? 1 : 0;
}
