/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: hosts take slots and locks as vmfs_host.h says; a lapsed one writes nothing, a lost one
 * does not come back, a file that is shared between processes has its atomic primitive.
 * (How hosts get in each other's way is sim_vmfs_host's.)
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/vmfs_mem.h"
#include "vmfs/vmfs_host.h"
#include "vmfs/vmfs_mkfs.h"

#define DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)
#define SECONDS UINT64_C(1000000)
#define PLACE UINT64_C(0x420000)        /* the lock of a descriptor */

static uint64_t clock_us;

static uint64_t test_clock(void *user)
{
	(void)user;
	return clock_us;
}

struct shared {
	struct vmfs_mem *mem;
	struct vmfs_lv lv;
	struct vmfs_host *hosts[3];
};

static struct vmfs_host *join(struct shared *shared, uint8_t id)
{
	struct vmfs_host_options options = { .uuid = { id }, .name = "host", .now_us = test_clock };
	struct vmfs_host *host;

	assert_int_equal(vmfs_host_join(&shared->lv, &shared->lv, &options, &host), 0);
	return host;
}

static void set_up(struct shared *shared)
{
	const struct vmfs_mkfs_options options = { .reads_zero = true, .now_s = 1, .file_count = 64 };
	struct vmfs_io *io;
	struct err err = { 0 };

	clock_us = 1000 * SECONDS;
	shared->mem = vmfs_mem_new(DEVICE_BYTES);
	io = &shared->mem->io;
	assert_int_equal(vmfs_mkfs(&io, 1, &options, &err), 0);
	assert_int_equal(vmfs_lv_open(&shared->lv, &io, 1, &err), 0);
	for (unsigned i = 0; i < 3; i++)
		shared->hosts[i] = join(shared, (uint8_t)(i + 1));
}

static void tear_down(struct shared *shared)
{
	for (unsigned i = 0; i < 3; i++)
		if (shared->hosts[i])
			assert_int_equal(vmfs_host_leave(shared->hosts[i]), 0);
	vmfs_mem_free(shared->mem);
}

static int take(struct vmfs_host *host, enum vmfs_lock_mode mode)
{
	return vmfs_host_lock(host, PLACE, VMFS_LOCK_FD, mode, NULL);
}

static int give(struct vmfs_host *host)
{
	return vmfs_host_unlock(host, PLACE, VMFS_LOCK_FD);
}

static struct vmfs_lock lock_now(struct shared *shared)
{
	struct vmfs_lock lock;

	vmfs_lock_decode(shared->mem->bytes + VMFS_DATA_OFFSET + PLACE, &lock);
	return lock;
}

static void test_modes(void **state)
{
	struct shared shared;
	uint32_t holder = 99;

	(void)state;
	set_up(&shared);
	assert_int_equal(take(shared.hosts[0], VMFS_LOCK_MODE_EXCLUSIVE), 0);
	assert_int_equal(take(shared.hosts[0], VMFS_LOCK_MODE_EXCLUSIVE), 0);
	assert_int_equal(vmfs_host_lock(shared.hosts[1], PLACE, VMFS_LOCK_FD, VMFS_LOCK_MODE_EXCLUSIVE,
					&holder), -EBUSY);
	assert_int_equal(holder, vmfs_host_slot(shared.hosts[0]));
	assert_int_equal(take(shared.hosts[1], VMFS_LOCK_MODE_READ_ONLY), -EBUSY);
	assert_int_equal(give(shared.hosts[1]), -ESTALE);
	assert_int_equal(give(shared.hosts[0]), 0);
	assert_int_equal(lock_now(&shared).mode, VMFS_LOCK_MODE_FREE);
	assert_int_equal(lock_now(&shared).token, 2);

	for (unsigned mode = VMFS_LOCK_MODE_READ_ONLY; mode <= VMFS_LOCK_MODE_MULTI_WRITER; mode++) {
		assert_int_equal(take(shared.hosts[0], mode), 0);
		assert_int_equal(take(shared.hosts[1], mode), 0);
		assert_int_equal(lock_now(&shared).holder_count, 2);
		assert_int_equal(take(shared.hosts[2], VMFS_LOCK_MODE_EXCLUSIVE), -EBUSY);
		assert_int_equal(take(shared.hosts[2], 5 - mode), -EBUSY);
		assert_int_equal(give(shared.hosts[0]), 0);
		assert_int_equal(take(shared.hosts[2], VMFS_LOCK_MODE_EXCLUSIVE), -EBUSY);
		assert_int_equal(give(shared.hosts[1]), 0);
		assert_int_equal(lock_now(&shared).mode, VMFS_LOCK_MODE_FREE);
		assert_int_equal(lock_now(&shared).holder_count, 0);
	}
	tear_down(&shared);
}

/* Nobody's lock is taken because of the place's contents alone. */
static void test_not_a_lock(void **state)
{
	struct shared shared;
	const uint8_t wrong[4] = { 0 };

	(void)state;
	set_up(&shared);
	assert_int_equal(vmfs_host_lock(shared.hosts[0], PLACE + 512, VMFS_LOCK_FD,
					VMFS_LOCK_MODE_EXCLUSIVE, NULL), -EUCLEAN);
	assert_int_equal(vmfs_host_lock(shared.hosts[0], PLACE, VMFS_LOCK_FBB,
					VMFS_LOCK_MODE_EXCLUSIVE, NULL), -EUCLEAN);
	vmfs_mem_poke(shared.mem, VMFS_DATA_OFFSET + PLACE, wrong, sizeof(wrong));
	assert_int_equal(take(shared.hosts[0], VMFS_LOCK_MODE_EXCLUSIVE), -EUCLEAN);
	tear_down(&shared);
}

/* R-F1: the right to write ends 9.68 s after the last renewal was sent; it comes back (R-F3). */
static void test_lapse(void **state)
{
	struct shared shared;

	(void)state;
	set_up(&shared);
	clock_us += 9 * SECONDS;
	assert_true(vmfs_host_may_write(shared.hosts[0]));
	clock_us += 1 * SECONDS;
	assert_false(vmfs_host_may_write(shared.hosts[0]));
	assert_int_equal(take(shared.hosts[0], VMFS_LOCK_MODE_EXCLUSIVE), -ESTALE);
	assert_int_equal(lock_now(&shared).mode, VMFS_LOCK_MODE_FREE);
	assert_int_equal(vmfs_host_renew(shared.hosts[0]), 0);
	assert_true(vmfs_host_may_write(shared.hosts[0]));
	tear_down(&shared);
}

static int seen_by_replay;

static int replay(struct vmfs_burial *burial, uint32_t slot)
{
	struct shared *shared = burial->user;

	/* R-F6: while its journal is carried out its locks stand. */
	assert_true(vmfs_burial_may_go_on(burial));
	assert_int_equal(slot, 0);
	assert_int_equal(take(shared->hosts[2], VMFS_LOCK_MODE_EXCLUSIVE), -EBUSY);
	assert_int_equal(vmfs_host_renew(shared->hosts[0]), -ESTALE);
	seen_by_replay++;
	return 0;
}

static void test_burial(void **state)
{
	struct vmfs_burial burial = { .replay = replay };
	struct vmfs_watch watch, late;
	struct shared shared;
	uint32_t holder;

	(void)state;
	set_up(&shared);
	burial.user = &shared;
	seen_by_replay = 0;
	assert_int_equal(take(shared.hosts[0], VMFS_LOCK_MODE_EXCLUSIVE), 0);
	assert_int_equal(vmfs_host_lock(shared.hosts[1], PLACE, VMFS_LOCK_FD, VMFS_LOCK_MODE_EXCLUSIVE,
					&holder), -EBUSY);
	assert_int_equal(vmfs_watch_begin(shared.hosts[1], holder, &watch), 0);
	clock_us += 16 * SECONDS;
	assert_int_equal(vmfs_watch_look(shared.hosts[1], &watch), -EAGAIN);
	/* It beats: the waiting begins anew. */
	assert_int_equal(vmfs_host_renew(shared.hosts[0]), 0);
	clock_us += 1 * SECONDS;
	assert_int_equal(vmfs_watch_look(shared.hosts[1], &watch), -EAGAIN);
	late = watch;
	clock_us += 16 * SECONDS + SECONDS / 2;
	assert_int_equal(vmfs_watch_look(shared.hosts[1], &watch), 0);
	/* Who buries must have a lease himself. */
	assert_int_equal(vmfs_host_bury(shared.hosts[1], &watch, &burial), -ESTALE);
	assert_int_equal(vmfs_host_renew(shared.hosts[1]), 0);
	assert_int_equal(vmfs_host_renew(shared.hosts[2]), 0);
	assert_int_equal(vmfs_host_bury(shared.hosts[1], &watch, &burial), 0);
	assert_int_equal(seen_by_replay, 1);
	/* Another who saw the same comes too late. */
	assert_int_equal(vmfs_host_bury(shared.hosts[2], &late, &burial), -EBUSY);
	assert_int_equal(vmfs_watch_look(shared.hosts[2], &late), -ENOENT);
	assert_true(vmfs_host_is_lost(shared.hosts[0]));
	assert_false(vmfs_host_may_write(shared.hosts[0]));
	assert_int_equal(take(shared.hosts[1], VMFS_LOCK_MODE_EXCLUSIVE), 0);
	assert_int_equal(give(shared.hosts[0]), -ESTALE);
	assert_int_equal(give(shared.hosts[1]), 0);
	vmfs_host_abandon(shared.hosts[0]);
	shared.hosts[0] = NULL;
	tear_down(&shared);
}

static void test_slots_run_out(void **state)
{
	struct vmfs_host_options options = { .uuid = { 9 }, .now_us = test_clock };
	struct vmfs_host *more[VMFS_HOST_SLOTS], *host;
	struct shared shared;

	(void)state;
	set_up(&shared);
	for (unsigned i = 3; i < VMFS_HOST_SLOTS; i++)
		more[i] = join(&shared, (uint8_t)(i + 1));
	assert_int_equal(vmfs_host_join(&shared.lv, &shared.lv, &options, &host), -EBUSY);
	for (unsigned i = 3; i < VMFS_HOST_SLOTS; i++)
		assert_int_equal(vmfs_host_leave(more[i]), 0);
	tear_down(&shared);
}

/* ---- a file that processes share ---- */

static struct vmfs_io *open_shared(const char *path, bool shared, int wanted)
{
	const struct vmfs_io_file_options options = { .shared = shared };
	struct vmfs_io *io = NULL;
	struct err err = { 0 };

	assert_int_equal(vmfs_io_file_open(path, &options, &io, &err), wanted);
	return io;
}

static void test_shared_file(void **state)
{
	char path[] = "/tmp/test_vmfs_host.XXXXXX";
	uint8_t zero[512] = { 0 }, one[512] = { 1 }, two[512] = { 2 }, seen[512];
	struct vmfs_io *a, *b;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	a = open_shared(path, true, 0);
	b = open_shared(path, true, 0);
	assert_false(a->exclusive);
	open_shared(path, false, -EBUSY);
	assert_int_equal(vmfs_io_compare_write(a, 4096, zero, one, 512), 0);
	assert_int_equal(vmfs_io_compare_write(b, 4096, zero, two, 512), -EAGAIN);
	assert_int_equal(vmfs_io_compare_write(b, 4096, one, two, 512), 0);
	assert_int_equal(vmfs_io_read(a, 4096, seen, 512), 0);
	assert_memory_equal(seen, two, 512);
	vmfs_io_close(a);
	vmfs_io_close(b);
	a = open_shared(path, false, 0);
	open_shared(path, true, -EBUSY);
	vmfs_io_close(a);
	unlink(path);
}

/* Many processes count in one sector: no count is lost. */
static void test_shared_file_race(void **state)
{
	enum { PROCESSES = 4, COUNTS = 200 };
	char path[] = "/tmp/test_vmfs_host.XXXXXX";
	uint8_t sector[512], next[512];
	struct vmfs_io *io;
	pid_t pids[PROCESSES];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i])
			continue;
		io = open_shared(path, true, 0);
		for (unsigned done = 0; done < COUNTS;) {
			uint16_t count;

			if (vmfs_io_read(io, 0, sector, 512))
				_exit(1);
			memcpy(next, sector, 512);
			memcpy(&count, next, 2);
			count++;
			memcpy(next, &count, 2);
			done += vmfs_io_compare_write(io, 0, sector, next, 512) == 0;
		}
		_exit(0);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	io = open_shared(path, true, 0);
	assert_int_equal(vmfs_io_read(io, 0, sector, 512), 0);
	assert_int_equal(sector[0] | sector[1] << 8, PROCESSES * COUNTS);
	vmfs_io_close(io);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_not_a_lock),
		cmocka_unit_test(test_lapse),
		cmocka_unit_test(test_burial),
		cmocka_unit_test(test_slots_run_out),
		cmocka_unit_test(test_shared_file),
		cmocka_unit_test(test_shared_file_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
