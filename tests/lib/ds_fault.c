/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ds_fault.h"

#include <errno.h>
#include <libaio.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blkmirror/blkdev/wrap.h"
#include "datastores/datastore_private.h"
#include "tests/lib/loop_thread.h"

static const struct datastore_ops *real;
static const struct ds_disk_ops *real_disk;
static _Atomic uint64_t operations, fail_at, crash_before, crash_after;
static _Atomic unsigned record_failures;

void ds_fault_fail_at(uint64_t nth)
{
	atomic_store(&operations, 0);
	atomic_store(&fail_at, nth);
}

void ds_fault_crash_at(uint64_t nth, bool after)
{
	atomic_store(&operations, 0);
	atomic_store(after ? &crash_after : &crash_before, nth);
}

uint64_t ds_fault_count(void)
{
	return atomic_load(&operations);
}

void record_fault_fail(unsigned count)
{
	atomic_store(&record_failures, count);
}

static uint64_t op_begin(void)
{
	uint64_t nth = atomic_fetch_add(&operations, 1) + 1;

	if (nth == atomic_load(&crash_before))
		_exit(CRASH_EXIT);
	return nth;
}

static void op_end(uint64_t nth)
{
	if (nth == atomic_load(&crash_after))
		_exit(CRASH_EXIT);
}

static int op_fault(uint64_t nth, struct err *err)
{
	if (nth != atomic_load(&fail_at))
		return 0;
	return err_set(err, ERR_DS_IO, -EIO, "injected fault at operation %llu",
		       (unsigned long long)nth);
}

/* Count, fail or crash around the real call. */
#define GUARDED(call)                                                            \
	do {                                                                     \
		uint64_t nth = op_begin();                                       \
		int rc = op_fault(nth, err);                                     \
                                                                                 \
		if (!rc)                                                         \
			rc = (call);                                             \
		op_end(nth);                                                     \
		return rc;                                                       \
	} while (0)

static int fault_mark(struct ds_disk *disk, const struct disk_identity *identity, struct err *err)
{
	GUARDED(real_disk->mark(disk, identity, err));
}

/* ---- devices that hang ---- */

struct hangable {
	struct blk_dev dev;             /* hands requests on to inner, or keeps them */
	struct blk_dev *inner;          /* NULL: free; a fault wrapper around the real one */
	struct blk_dev *real;
	bool hung;                      /* the I/O loop's */
	struct list kept;
};

static struct hangable hangables[4];
static _Atomic bool hangable_wanted;

/* The request is inner's from now on, completion included. */
static void hangable_pass(struct hangable *one, struct blk_req *req)
{
	one->dev.in_flight--;
	blk_submit(one->inner, req);
}

static void hangable_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct hangable *one = container_of(dev, struct hangable, dev);

	if (one->hung && (blk_op_writes(req->op) || req->op == BLK_FLUSH))
		list_append(&one->kept, &req->node);
	else
		hangable_pass(one, req);
}

static void hangable_close(struct blk_dev *dev)
{
	struct hangable *one = container_of(dev, struct hangable, dev);

	blk_close(one->inner);
	blk_close(one->real);
	one->inner = NULL;
}

static _Atomic bool hangable_lost;

static bool hangable_is_lost(const struct blk_dev *dev)
{
	(void)dev;
	return atomic_load(&hangable_lost);
}

void ds_fault_lose(bool lost)
{
	atomic_store(&hangable_lost, lost);
}

static const struct blk_ops hangable_ops = { .name = "hangable", .submit = hangable_submit,
					     .close = hangable_close,
					     .is_lost = hangable_is_lost };

static int hangable_wrap(struct blk_dev **dev)
{
	for (size_t i = 0; i < ARRAY_COUNT(hangables); i++) {
		struct hangable *one = &hangables[i];

		if (one->inner)
			continue;
		blk_dev_init(&one->dev, &hangable_ops, (*dev)->loop, (*dev)->size_bytes,
			     &(*dev)->limits);
		one->real = *dev;
		one->inner = wrap_fault_new(*dev);
		CHECK(one->inner);
		one->hung = false;
		list_init(&one->kept);
		*dev = &one->dev;
		return 0;
	}
	return -ENOSPC;
}

struct hang_call {
	struct task task;
	struct hangable *one;
	bool hung;
	bool fails;
	struct wrap_fault_rule rule;
	struct latch done;
};

static void hang_run(struct task *task)
{
	struct hang_call *call = container_of(task, struct hang_call, task);
	struct list *node;

	call->one->hung = call->hung;
	while (!call->hung && (node = list_pop(&call->one->kept)))
		hangable_pass(call->one, list_entry(node, struct blk_req, node));
	latch_raise(&call->done);
}

void ds_fault_hang(bool hung)
{
	for (size_t i = 0; i < ARRAY_COUNT(hangables); i++) {
		struct hang_call call = { .task.run = hang_run, .one = &hangables[i],
					  .hung = hung, .done = LATCH_INIT };

		if (!hangables[i].inner)
			continue;
		loop_send(hangables[i].dev.loop, &call.task);
		CHECK(latch_wait(&call.done, 10 * NS_PER_S));
	}
}

static void fail_run(struct task *task)
{
	struct hang_call *call = container_of(task, struct hang_call, task);

	wrap_fault_set(call->one->inner, call->fails ? &call->rule : NULL);
	latch_raise(&call->done);
}

void ds_fault_fail_io(int error)
{
	for (size_t i = 0; i < ARRAY_COUNT(hangables); i++) {
		struct hang_call call = {
			.task.run = fail_run, .one = &hangables[i], .fails = error != 0,
			.rule = { .ops = 1u << BLK_WRITE | 1u << BLK_WRITE_ZEROES | 1u << BLK_FLUSH,
				  .from_nth = 1, .fail_count = UINT64_MAX, .error = error },
			.done = LATCH_INIT,
		};

		if (!hangables[i].inner)
			continue;
		loop_send(hangables[i].dev.loop, &call.task);
		CHECK(latch_wait(&call.done, 10 * NS_PER_S));
	}
}

void ds_fault_hangable(bool on)
{
	atomic_store(&hangable_wanted, on);
}

static int make_dev(struct ds_disk *disk, struct loop *io_loop, bool as_target,
		    struct blk_dev **out, struct err *err)
{
	int rc = real_disk->make_dev(disk, io_loop, as_target, out, err);

	if (rc || !as_target || !atomic_load(&hangable_wanted))
		return rc;
	return hangable_wrap(out);
}

static int fault_make_dev(struct ds_disk *disk, struct loop *io_loop, bool as_target,
			  struct blk_dev **out, struct err *err)
{
	GUARDED(make_dev(disk, io_loop, as_target, out, err));
}

static struct ds_disk_ops fault_disk_ops;

static int open_wrapped(struct datastore *ds, const char *path, unsigned flags, const char *id,
			struct ds_disk **out, struct err *err)
{
	int rc = real->disk_open(ds, path, flags, id, out, err);

	if (rc)
		return rc;
	real_disk = (*out)->ops;
	fault_disk_ops = *real_disk;
	fault_disk_ops.mark = fault_mark;
	fault_disk_ops.make_dev = fault_make_dev;
	(*out)->ops = &fault_disk_ops;
	return 0;
}

static int fault_open(struct datastore *ds, const char *path, unsigned flags, const char *id,
		      struct ds_disk **out, struct err *err)
{
	GUARDED(open_wrapped(ds, path, flags, id, out, err));
}

static int fault_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
			struct err *err)
{
	GUARDED(real->disk_create(ds, path, spec, err));
}

static int fault_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		      struct err *err)
{
	GUARDED(real->disk_stat(ds, path, out, err));
}

static int fault_delete(struct datastore *ds, const char *path,
			const struct disk_identity *expected, struct err *err)
{
	GUARDED(real->disk_delete(ds, path, expected, err));
}

static int fault_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	GUARDED(real->space(ds, out, err));
}

static struct datastore_ops fault_ops;

void ds_fault_wrap(struct datastore *ds)
{
	if (ds->ops == &fault_ops)
		return;
	real = ds->ops;
	fault_ops = *real;
	fault_ops.disk_open = fault_open;
	fault_ops.disk_create = fault_create;
	fault_ops.disk_stat = fault_stat;
	fault_ops.disk_delete = fault_delete;
	fault_ops.space = fault_space;
	ds->ops = &fault_ops;
}

/* ---- the record ---- */

static bool is_record(int fd)
{
	char link[64], path[4096];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0)
		return false;
	path[length] = '\0';
	return strstr(path, "/moves/") != NULL;
}

static bool take_record_failure(void)
{
	unsigned left = atomic_load(&record_failures);

	while (left && !atomic_compare_exchange_weak(&record_failures, &left, left - 1))
		continue;
	return left > 0;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	ssize_t rc;
	uint64_t nth;

	if (!is_record(fd))
		return syscall(SYS_pwrite64, fd, bytes, count, offset);
	nth = op_begin();
	if (nth == atomic_load(&fail_at) || take_record_failure()) {
		errno = EIO;
		return -1;
	}
	rc = syscall(SYS_pwrite64, fd, bytes, count, offset);
	op_end(nth);
	return rc;
}

static bool crashes_are_wanted(void)
{
	return atomic_load(&crash_before) || atomic_load(&crash_after);
}

/* A journal's writes: moments to crash at.  What their failure leads to is sim_resume's. */
int io_submit(io_context_t context, long count, struct iocb **iocbs)
{
	uint64_t nth = 0;
	int rc;

	for (long i = 0; i < count && crashes_are_wanted(); i++)
		if ((iocbs[i]->aio_lio_opcode == IO_CMD_PWRITEV ||
		     iocbs[i]->aio_lio_opcode == IO_CMD_PWRITE) && is_record(iocbs[i]->aio_fildes))
			nth = op_begin();
	rc = (int)syscall(SYS_io_submit, context, count, iocbs);
	if (nth)
		op_end(nth);
	return rc < 0 ? -errno : rc;
}
