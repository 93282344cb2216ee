/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a process is tracked exactly, and has noticed nothing when we let it go. */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/mem_child.h"
#include "vmotion/mem_attach.h"
#include "vmotion/mem_blocks.h"
#include "vmotion/mem_inject.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE ((uint64_t)MEM_PAGE_BYTES)
#define MEMORY (16 * MIB)

static bool kernel_can;

static void start(struct mem_child *child)
{
	assert_true(mem_child_start(child, MEMORY, 0));
}

static struct mem_attach *attach_to(const struct mem_child *child)
{
	struct mem_attach_options options = {
		.pid = child->pid, .expected_bytes = child->len_bytes, .tracker = MEM_TRACKER_KERNEL,
	};
	struct mem_attach *attach = NULL;
	struct err err = { 0 };

	mem_child_settle(child);
	if (mem_attach_new(&options, &attach, &err))
		fail_msg("%s", err.cause);
	return attach;
}

static int find_kernel(void **state)
{
	struct mem_attach_options options = { .tracker = MEM_TRACKER_KERNEL };
	struct mem_attach *attach;
	struct mem_child child;
	struct err err = { 0 };

	(void)state;
	if (!mem_child_start(&child, MEMORY, 0))
		return -1;
	options.pid = child.pid;
	kernel_can = mem_attach_new(&options, &attach, &err) == 0;
	if (kernel_can)
		mem_attach_free(attach);
	else
		fprintf(stderr, "cannot attach here: %s\n", err.cause);
	mem_child_end(&child);
	/* Only a kernel that lacks it, or a sandbox that forbids it, is no failure. */
	return kernel_can || err.id == ERR_MEM_KERNEL || err.id == ERR_MEM_PERMISSION ? 0 : -1;
}

#define NEEDS_KERNEL() do { if (!kernel_can) skip(); } while (0)

static struct mem_map harvest(struct mem_attach *attach)
{
	struct mem_map dirty;
	struct err err = { 0 };

	assert_int_equal(mem_map_init(&dirty, mem_attach_space(attach)->page_count), 0);
	if (mem_tracker_harvest(mem_attach_tracker(attach), &dirty, &err))
		fail_msg("%s", err.cause);
	return dirty;
}

/* Exactly these pages, in order of their numbers. */
static void assert_harvest(struct mem_attach *attach, const uint64_t *pages, uint64_t count)
{
	struct mem_map dirty = harvest(attach);
	uint64_t first = 0, run;

	for (uint64_t i = 0; i < count; i++) {
		assert_true(mem_map_find(&dirty, i ? pages[i - 1] + 1 : 0, dirty.page_count, 1,
					 &first, &run));
		assert_int_equal(first, pages[i]);
	}
	assert_int_equal(mem_map_count(&dirty), count);
	mem_map_release(&dirty);
}

static void arm(struct mem_attach *attach)
{
	struct mem_map dirty = harvest(attach);

	mem_map_release(&dirty);
}

/* ---- no trace ---- */

static void test_detaching_leaves_no_trace(void **unused)
{
	struct mem_child child;
	char *before, *during, *after;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	mem_child_do(&child, MEM_CHILD_WRITE, 5 * PAGE, 1);
	before = mem_child_portrait(&child);
	for (int i = 0; i < 20; i++) {
		struct mem_attach *attach = attach_to(&child);

		arm(attach);
		/* While it lasts, the flags of its memory are all that differs. */
		during = mem_child_portrait(&child);
		assert_non_null(strstr(during, " uw"));
		free(during);
		mem_attach_free(attach);
		after = mem_child_portrait(&child);
		assert_string_equal(before, after);
		free(after);
	}
	/* And it writes on, at no fault that anybody must settle. */
	assert_int_equal(mem_child_do(&child, MEM_CHILD_WRITE, 5 * PAGE, 2), 0);
	assert_int_equal(child.bytes[5 * PAGE], 2);
	free(before);
	mem_child_end(&child);
}

/* What it was waiting in goes on: EINTR would be news to a program without signal handlers. */
static void test_interrupted_calls_go_on(void **unused)
{
	static const enum mem_child_order orders[] = { MEM_CHILD_POLL, MEM_CHILD_SLEEP };
	struct mem_child child;

	(void)unused;
	NEEDS_KERNEL();
	for (size_t i = 0; i < ARRAY_COUNT(orders); i++) {
		start(&child);
		mem_child_order(&child, orders[i], UINT64_C(300000000), 0);
		for (int k = 0; k < 10; k++)
			mem_attach_free(attach_to(&child));
		/* Whatever it waits in: this is its next order. */
		mem_child_order(&child, MEM_CHILD_WRITE, 0, 77);
		assert_int_equal(mem_child_answer(&child), 0);
		assert_int_equal(mem_child_answer(&child), 0);
		assert_int_equal(child.bytes[0], 77);
		assert_int_equal(mem_child_do(&child, MEM_CHILD_MASK, 0, 0), 0);
		mem_child_end(&child);
	}
}

/* A signal that comes while we hold it is neither lost nor early. */
static void test_signals_wait_for_us(void **unused)
{
	const unsigned long none[6] = { 0 };
	struct mem_inject *inject;
	struct mem_child child;
	struct err err = { 0 };
	int status;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	mem_child_settle(&child);
	assert_int_equal(mem_inject_begin(child.pid, &inject, &err), 0);
	assert_int_equal(kill(child.pid, SIGUSR1), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(mem_inject_syscall(inject, SYS_getpid, none), child.pid);
	assert_int_equal(mem_inject_end(inject, &err), 0);
	/* Unhandled, it ends the program, once it is let go. */
	assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGUSR1);
	mem_child_end(&child);
}

static void test_a_stop_while_we_hold_it_is_kept(void **unused)
{
	const unsigned long none[6] = { 0 };
	struct mem_inject *inject;
	struct mem_child child;
	struct err err = { 0 };
	int status;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	mem_child_settle(&child);
	assert_int_equal(mem_inject_begin(child.pid, &inject, &err), 0);
	assert_int_equal(kill(child.pid, SIGSTOP), 0);
	mem_child_await_stop(&child);
	assert_int_equal(mem_inject_syscall(inject, SYS_getpid, none), child.pid);
	assert_int_equal(mem_inject_end(inject, &err), 0);
	assert_int_equal(waitpid(child.pid, &status, WUNTRACED), child.pid);
	assert_true(WIFSTOPPED(status));
	/* One that is stopped is refused, and stays so. */
	assert_int_equal(mem_inject_begin(child.pid, &inject, &err), -EBUSY);
	assert_int_equal(err.id, ERR_MEM_TRACED);
	assert_int_equal(kill(child.pid, SIGCONT), 0);
	assert_int_equal(mem_child_do(&child, MEM_CHILD_WRITE, 0, 5), 0);
	mem_child_end(&child);
}

/* ---- exact ---- */

static void test_each_write_is_told_once(void **unused)
{
	static const uint64_t two[] = { 3, 4000 }, hole[] = { 77 }, kernel[] = { 9, 10 };
	struct mem_attach *attach;
	struct mem_child child;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	mem_child_do(&child, MEM_CHILD_WRITE, 3 * PAGE, 1);
	mem_child_do(&child, MEM_CHILD_WRITE, 4000 * PAGE, 1);
	mem_child_do(&child, MEM_CHILD_WRITE, 9 * PAGE, 1);
	attach = attach_to(&child);
	arm(attach);
	assert_harvest(attach, NULL, 0);
	mem_child_do(&child, MEM_CHILD_WRITE, 4000 * PAGE + 7, 2);
	mem_child_do(&child, MEM_CHILD_WRITE, 3 * PAGE + 4095, 2);
	assert_harvest(attach, two, 2);
	assert_harvest(attach, NULL, 0);
	mem_child_do(&child, MEM_CHILD_WRITE, 77 * PAGE, 2);    /* never touched before */
	assert_harvest(attach, hole, 1);
	assert_int_equal(mem_child_do(&child, MEM_CHILD_READ_INTO, 9 * PAGE + 4000, 200), 200);
	assert_harvest(attach, kernel, 2);
	assert_harvest(attach, NULL, 0);
	mem_attach_free(attach);
	mem_child_end(&child);
}

/* R-E4: what we write ourselves is seen by nobody else. */
static void test_own_writes_are_told_when_marked(void **unused)
{
	static const uint64_t pages[] = { 20, 21, 22 };
	struct mem_attach *attach;
	struct mem_child child;
	uint64_t hva;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	attach = attach_to(&child);
	hva = mem_attach_space(attach)->blocks[0].hva;
	arm(attach);
	memset(child.bytes + 20 * PAGE + 4000, 7, 4400);
	assert_harvest(attach, NULL, 0);
	mem_tracker_mark_written(mem_attach_tracker(attach), hva + 20 * PAGE + 4000, 4400);
	assert_harvest(attach, pages, 3);
	assert_harvest(attach, NULL, 0);
	/* Beside its memory, and around all of it. */
	mem_tracker_mark_written(mem_attach_tracker(attach), hva - PAGE, PAGE);
	mem_tracker_mark_written(mem_attach_tracker(attach), hva + MEMORY, PAGE);
	mem_tracker_mark_written(mem_attach_tracker(attach), hva, 0);
	assert_harvest(attach, NULL, 0);
	mem_attach_free(attach);
	mem_child_end(&child);
}

/* A dirty huge page is told whole: the sender narrows it. */
static void test_huge_pages_are_told(void **unused)
{
	struct mem_attach *attach;
	struct mem_child child;
	struct mem_map dirty;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	for (uint64_t at = 0; at < 4 * MIB; at += PAGE)
		child.bytes[at] = 1;
	if (mem_child_do(&child, MEM_CHILD_COLLAPSE, 0, 4 * MIB)) {
		mem_child_end(&child);
		skip();
	}
	attach = attach_to(&child);
	arm(attach);
	assert_harvest(attach, NULL, 0);
	mem_child_do(&child, MEM_CHILD_WRITE, 2 * MIB + 3 * PAGE, 9);
	dirty = harvest(attach);
	assert_true(mem_map_test(&dirty, 2 * MIB / PAGE + 3));
	assert_true(mem_map_count(&dirty) <= 512);
	mem_map_release(&dirty);
	assert_harvest(attach, NULL, 0);
	mem_attach_free(attach);
	mem_child_end(&child);
}

/* ---- refusals ---- */

static void expect_refusal(pid_t pid, uint64_t expected_bytes, enum err_id id)
{
	struct mem_attach_options options = { .pid = pid, .expected_bytes = expected_bytes };
	struct mem_attach *attach = NULL;
	struct err err = { 0 };

	assert_true(mem_attach_new(&options, &attach, &err) < 0);
	if (err.id != id)
		fail_msg("%s: %s", err_name(err.id), err.cause);
	assert_true(err.cause[0] != '\0');
	assert_true(err.remedy[0] != '\0');
}

static void test_memory_that_is_not_shared_is_refused(void **unused)
{
	struct mem_child child;

	(void)unused;
	assert_true(mem_child_start(&child, 0, 0));
	expect_refusal(child.pid, 0, ERR_MEM_NOT_SHARED);
	mem_child_end(&child);
	start(&child);
	expect_refusal(child.pid, MEMORY + MIB, ERR_MEM_NOT_SHARED);
	mem_child_end(&child);
	expect_refusal(child.pid, 0, ERR_MEM_ATTACH);           /* it has ended */
}

static void test_one_that_is_traced_is_refused(void **unused)
{
	struct mem_child child;
	pid_t tracer;
	int status;

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	tracer = fork();
	if (tracer == 0) {
		if (ptrace(PTRACE_SEIZE, child.pid, NULL, NULL) < 0)
			_exit(1);
		kill(getpid(), SIGSTOP);
		_exit(0);
	}
	assert_int_equal(waitpid(tracer, &status, WUNTRACED), tracer);
	assert_true(WIFSTOPPED(status));
	expect_refusal(child.pid, 0, ERR_MEM_TRACED);
	kill(tracer, SIGKILL);
	waitpid(tracer, &status, 0);
	mem_attach_free(attach_to(&child));
	mem_child_end(&child);
}

static void test_without_permission_it_is_refused(void **unused)
{
	struct mem_child child;
	pid_t other;
	int status;

	(void)unused;
	if (geteuid() != 0)
		skip();
	start(&child);
	other = fork();
	if (other == 0) {
		struct mem_attach_options options = { .pid = child.pid };
		struct mem_attach *attach;
		struct err err = { 0 };

		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(2);
		if (mem_attach_new(&options, &attach, &err) == 0)
			_exit(3);
		_exit(err.id == ERR_MEM_PERMISSION ? 0 : 4);
	}
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	mem_child_end(&child);
}

static void test_memory_that_was_plugged_in_is_noticed(void **unused)
{
	struct mem_attach *attach;
	struct mem_child child;
	struct err err = { 0 };

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	attach = attach_to(&child);
	assert_int_equal(mem_attach_check_same(attach, &err), 0);
	assert_int_equal(mem_child_do(&child, MEM_CHILD_PLUG, 2 * MIB, 0), 0);
	assert_int_equal(mem_attach_check_same(attach, &err), -ESTALE);
	assert_int_equal(err.id, ERR_MEM_TRACK);
	mem_attach_free(attach);
	mem_child_end(&child);
}

static void test_one_that_dies_is_an_error(void **unused)
{
	struct mem_attach *attach;
	struct mem_child child;
	struct mem_map dirty;
	struct err err = { 0 };

	(void)unused;
	NEEDS_KERNEL();
	start(&child);
	attach = attach_to(&child);
	arm(attach);
	mem_child_end(&child);
	assert_int_equal(mem_map_init(&dirty, mem_attach_space(attach)->page_count), 0);
	assert_true(mem_tracker_harvest(mem_attach_tracker(attach), &dirty, &err) < 0);
	assert_int_equal(err.id, ERR_MEM_TRACK);
	mem_map_release(&dirty);
	mem_attach_free(attach);
}

/* ---- lines of maps ---- */

static void test_lines_of_maps(void **unused)
{
	static const struct {
		const char *line;
		bool is_one, shared, writable, memfd, file;
		uint64_t start, offset, inode;
	} rows[] = {
		{ "7f5c40000000-7f5c80000000 rw-s 00000000 00:01 1033                       /memfd:memory-backend-memfd (deleted)\n",
		  true, true, true, true, false, 0x7f5c40000000, 0, 1033 },
		{ "7f5c40000000-7f5c80000000 rw-s 40000000 00:0f 7 /anon_hugepage (deleted)\n",
		  true, true, true, false, true, 0x7f5c40000000, 0x40000000, 7 },
		{ "7f0000000000-7f0000001000 rw-s 00000000 00:01 3 /memfd:vhost-inflight (deleted)\n",
		  true, true, true, false, false, 0x7f0000000000, 0, 3 },
		{ "559d5c6f0000-559d5c6f1000 r--p 00000000 fe:00 99 /usr/bin/qemu\n",
		  true, false, false, false, true, 0x559d5c6f0000, 0, 99 },
		{ "7ffd1000-7ffd2000 rw-p 00000000 00:00 0 \n",
		  true, false, true, false, false, 0x7ffd1000, 0, 0 },
		{ "7ffd2000-7ffd1000 rw-p 00000000 00:00 0 [stack]\n", .is_one = false },
		{ "VmFlags: rd wr\n", .is_one = false },
		{ "", .is_one = false },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct mem_mapping mapping;

		assert_int_equal(mem_mapping_parse(rows[i].line, &mapping), rows[i].is_one);
		if (!rows[i].is_one)
			continue;
		assert_int_equal(mapping.start, rows[i].start);
		assert_int_equal(mapping.offset_bytes, rows[i].offset);
		assert_int_equal(mapping.inode, rows[i].inode);
		assert_int_equal(mapping.is_shared, rows[i].shared);
		assert_int_equal(mapping.is_writable, rows[i].writable);
		assert_int_equal(mapping.is_memfd, rows[i].memfd);
		assert_int_equal(mapping.is_file, rows[i].file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_detaching_leaves_no_trace),
		cmocka_unit_test(test_interrupted_calls_go_on),
		cmocka_unit_test(test_signals_wait_for_us),
		cmocka_unit_test(test_a_stop_while_we_hold_it_is_kept),
		cmocka_unit_test(test_each_write_is_told_once),
		cmocka_unit_test(test_own_writes_are_told_when_marked),
		cmocka_unit_test(test_huge_pages_are_told),
		cmocka_unit_test(test_memory_that_is_not_shared_is_refused),
		cmocka_unit_test(test_one_that_is_traced_is_refused),
		cmocka_unit_test(test_without_permission_it_is_refused),
		cmocka_unit_test(test_memory_that_was_plugged_in_is_noticed),
		cmocka_unit_test(test_one_that_dies_is_an_error),
		cmocka_unit_test(test_lines_of_maps),
	};

	return cmocka_run_group_tests(tests, find_kernel, NULL);
}
