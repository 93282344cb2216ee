/* SPDX-License-Identifier: Apache-2.0 */
/* dir:// datastores on a real file system: opening, creating, paths, listing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_file.h"
#include "blkmirror/blkdev/blk_file_private.h"
#include "datastores/beneath.h"
#include "datastores/disk_lock.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"
#include "datastores/vmdk.h"
#include "tests/lib/ds_fixture.h"

/* ---- opening a datastore ---- */

static void test_open_refusals(void **state)
{
	char url[160], inside[96], outside[96];
	const char *allowed[] = { inside, NULL };
	struct datastore *kept = test_ds;

	(void)state;
	assert_refused(open_ds("nfs://host/export?version=4", NULL), ERR_NFS_VERSION);
	assert_refused(open_ds("iscsi://127.0.0.1:1/iqn.2001-04.com.example:x", NULL),
		       ERR_ISCSI_CONNECT);
	assert_refused(open_ds("vmfs:///dev/null", NULL), ERR_NOT_SUPPORTED);
	assert_refused(open_ds("dir:///no/such/folder", NULL), ERR_DS_UNREACHABLE);
	assert_refused(open_ds("dir:///etc/passwd", NULL), ERR_DS_UNREACHABLE);
	assert_refused(open_ds("dir://u:p@/srv", NULL), ERR_DS_SECRET_IN_URL);
	assert_refused(open_ds("junk", NULL), ERR_DS_BAD_URL);
	/* allowed_roots are judged where the folder really is: a link does not help. */
	snprintf(inside, sizeof(inside), "%s/ds", test_base);
	snprintf(outside, sizeof(outside), "%s/ds-not", test_base);
	assert_int_equal(mkdir(outside, 0700), 0);
	assert_int_equal(symlink(outside, in("link")), 0);
	snprintf(url, sizeof(url), "dir://%s", in("link"));
	assert_refused(open_ds(url, allowed), ERR_DS_NOT_ALLOWED);
	snprintf(url, sizeof(url), "dir://%s", outside);
	assert_refused(open_ds(url, allowed), ERR_DS_NOT_ALLOWED);
	snprintf(url, sizeof(url), "dir://%s/ds", test_base);
	assert_int_equal(open_ds(url, allowed), 0);
	assert_string_equal(datastore_kind(test_ds), "dir");
	assert_string_equal(datastore_lock_scheme(test_ds), "ofd");
	assert_string_equal(datastore_url(test_ds), url);
	assert_int_equal(datastore_state(test_ds), DS_UP);
	datastore_close(test_ds);
	test_ds = kept;
}

static void test_reserve_adds_up(void **state)
{
	struct ds_space space;
	uint64_t half;

	(void)state;
	assert_int_equal(datastore_space(test_ds, &space, &test_err), 0);
	assert_true(space.free_bytes > 0 && space.free_bytes <= space.capacity_bytes);
	half = space.free_bytes / 2 + (UINT64_C(1) << 30);
	assert_int_equal(datastore_reserve(test_ds, half, &test_err), 0);
	assert_refused(datastore_reserve(test_ds, half, &test_err), ERR_DS_NO_SPACE);
	assert_refused(datastore_reserve(test_ds, UINT64_MAX, &test_err), ERR_DS_NO_SPACE);
	assert_int_equal(datastore_space(test_ds, &space, &test_err), 0);
	assert_int_equal(space.reserved_bytes, half);
	datastore_unreserve(test_ds, half);
	assert_int_equal(datastore_reserve(test_ds, half, &test_err), 0);
	datastore_unreserve(test_ds, half);
}

/* ---- create and stat ---- */

static void test_create_every_provision(void **state)
{
	static const enum provision provisions[] = { PROVISION_THIN, PROVISION_THICK,
						     PROVISION_EAGER };
	static const char *const paths[] = { "a/b/d.vmdk", "a/raw.img" };

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		const char *path = paths[i % 2];
		enum provision provision = provisions[i / 2];
		const char *data = i % 2 ? "a/raw.img" : "a/b/d-flat.vmdk";
		struct ds_disk_info info;

		assert_int_equal(create(path, 5 * MIB + 512, provision), 0);
		info = disk_as_listed(path);
		assert_int_equal(info.size_bytes, 5 * MIB + 512);
		assert_int_equal(info.provision, provision);
		assert_int_equal(info.format, i % 2 ? DISK_FORMAT_RAW : DISK_FORMAT_VMDK);
		assert_int_equal(info.identity.generation, 1);
		assert_int_equal(info.identity.role, DISK_LIVE);
		assert_true(info.has_identity && info.reads_zero);
		if (provision == PROVISION_THIN)
			assert_true(data_bytes_allocated(data) < 64 * 1024);
		else
			assert_true(data_bytes_allocated(data) >= 5 * MIB + 512);
		assert_refused(create(path, 5 * MIB, provision), ERR_DISK_EXISTS);
		assert_int_equal(ds_disk_delete(test_ds, path, NULL, &test_err), 0);
		/* The folder goes with its last file; the one above does not. */
		assert_false(exists(data));
		assert_int_equal(exists("a"), i % 2 == 0);
		assert_false(exists("a/b"));
	}
}

static void test_eager_is_written(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(create("t.img", 4 * MIB, PROVISION_THICK), 0);
	assert_int_equal(create("e.img", 4 * MIB, PROVISION_EAGER), 0);
	fd = open(in("t.img"), O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), -1);
	close(fd);
	fd = open(in("e.img"), O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 4 * MIB);
	close(fd);
}

static void test_create_refusals(void **state)
{
	(void)state;
	assert_refused(create("x.img", 0, PROVISION_THIN), ERR_DISK_BAD_SIZE);
	assert_refused(create("x.img", MIB - 512, PROVISION_THIN), ERR_DISK_BAD_SIZE);
	assert_refused(create("x.img", MIB + 1, PROVISION_THIN), ERR_DISK_BAD_SIZE);
	assert_refused(create("x.img", DS_DISK_SIZE_MAX + 512, PROVISION_THIN), ERR_DISK_BAD_SIZE);
	assert_refused(create("x.img", UINT64_MAX - 511, PROVISION_THIN), ERR_DISK_BAD_SIZE);
	assert_refused(create("x-flat.vmdk", MIB, PROVISION_THIN), ERR_USAGE);
	assert_refused(create("x.blkmirror", MIB, PROVISION_THIN), ERR_USAGE);
	assert_refused(create("x.vmx", MIB, PROVISION_THIN), ERR_USAGE);
	assert_int_equal(file_count(""), 0);
	/* An orphan's data are not overwritten. */
	put_file("x-flat.vmdk", "data", 4, MIB);
	assert_refused(create("x.vmdk", MIB, PROVISION_THIN), ERR_DISK_EXISTS);
	assert_int_equal(file_count(""), 1);
}

/* Counted: a store must not be filled to find out that it is too small. */
static unsigned fallocate_calls;

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	fallocate_calls++;
	return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

/* A size no file system of ours has: everything is undone, folders too. */
static void test_no_space_leaves_nothing(void **state)
{
	struct ds_space space;
	uint64_t too_much;

	(void)state;
	fallocate_calls = 0;
	assert_int_equal(datastore_space(test_ds, &space, &test_err), 0);
	too_much = round_up(space.capacity_bytes + (UINT64_C(1) << 40), MIB);
	assert_int_not_equal(create("n/m/x.vmdk", too_much, PROVISION_THICK), 0);
	assert_true(test_err.id == ERR_DS_NO_SPACE || test_err.id == ERR_DISK_BAD_SIZE);
	assert_int_equal(file_count(""), 0);
	assert_false(exists("n"));
	assert_int_equal(mkdir(in("n"), 0700), 0);
	assert_int_not_equal(create("n/m/x.img", too_much, PROVISION_EAGER), 0);
	assert_true(exists("n"));
	assert_false(exists("n/m"));
	assert_int_equal(fallocate_calls, 0);
}

/* ---- what is not a disk ---- */

static void test_foreign_files(void **state)
{
	struct ds_disk_info info;
	char text[512];

	(void)state;
	put_file("q.img", "QFI\xfb", 4, 2 * MIB);
	assert_refused(ds_disk_stat(test_ds, "q.img", &info, &test_err), ERR_DISK_BAD_FORMAT);
	assert_non_null(strstr(test_err.remedy, "qemu-nbd"));
	assert_null(open_disk("q.img", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_BAD_FORMAT);
	assert_false(exists("q.img.blkmirror"));
	put_file("odd.img", "", 0, MIB + 100);
	assert_refused(ds_disk_stat(test_ds, "odd.img", &info, &test_err), ERR_DISK_BAD_SIZE);
	assert_refused(ds_disk_stat(test_ds, "none.img", &info, &test_err), ERR_DISK_UNKNOWN);
	assert_refused(ds_disk_stat(test_ds, "none.vmdk", &info, &test_err), ERR_DISK_UNKNOWN);
	assert_int_equal(mkdir(in("folder"), 0700), 0);
	assert_refused(ds_disk_stat(test_ds, "folder", &info, &test_err), ERR_DISK_BAD_FORMAT);
	assert_int_equal(mkfifo(in("fifo"), 0600), 0);
	assert_refused(ds_disk_stat(test_ds, "fifo", &info, &test_err), ERR_DISK_BAD_FORMAT);
	assert_int_equal(create("v.vmdk", MIB, PROVISION_THIN), 0);
	assert_refused(ds_disk_stat(test_ds, "v-flat.vmdk", &info, &test_err), ERR_DISK_BAD_FORMAT);
	assert_non_null(strstr(test_err.remedy, "'v.vmdk'"));
	assert_int_equal(truncate(in("v-flat.vmdk"), MIB - 512), 0);
	assert_refused(ds_disk_stat(test_ds, "v.vmdk", &info, &test_err), ERR_DISK_BAD_SIZE);
	assert_int_equal(unlink(in("v-flat.vmdk")), 0);
	assert_refused(ds_disk_stat(test_ds, "v.vmdk", &info, &test_err), ERR_DISK_BAD_DESCRIPTOR);
	/* A descriptor whose data are a link, even to a good disk: refused. */
	assert_int_equal(create("w.img", MIB, PROVISION_THIN), 0);
	assert_int_equal(symlink("w.img", in("v-flat.vmdk")), 0);
	assert_int_not_equal(ds_disk_stat(test_ds, "v.vmdk", &info, &test_err), 0);
	snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\n"
				     "createType=\"vmfs\"\nRW 4096 VMFS \"short-flat.vmdk\"\n");
	put_file("short.vmdk", text, strlen(text), 0);
	put_file("short-flat.vmdk", "", 0, MIB);
	assert_refused(ds_disk_stat(test_ds, "short.vmdk", &info, &test_err), ERR_DISK_BAD_DESCRIPTOR);
	put_file("w.img.blkmirror", "junk", 4, 0);
	assert_refused(ds_disk_stat(test_ds, "w.img", &info, &test_err), ERR_DISK_BAD_DESCRIPTOR);
}

/* A guest that writes a qcow2 header on its raw disk does not lose it. */
static void test_a_guest_may_write_any_magic(void **state)
{
	struct ds_disk_info info;
	int fd;

	(void)state;
	put_file("g.img", "", 0, MIB);
	ds_disk_close(must_open("g.img", 0));
	fd = open(in("g.img"), O_WRONLY);
	assert_int_equal(pwrite(fd, "QFI\xfb", 4, 0), 4);
	close(fd);
	info = disk_as_listed("g.img");
	assert_int_equal(info.format, DISK_FORMAT_RAW);
	ds_disk_close(must_open("g.img", 0));
}

/* ---- paths that would leave ---- */

static void assert_escapes(const char *path)
{
	struct disk_identity who = { .generation = 1 };
	struct ds_disk_info info;

	memset(&test_err, 0, sizeof(test_err));
	assert_refused(ds_disk_stat(test_ds, path, &info, &test_err), ERR_DS_PATH_ESCAPE);
	assert_null(open_disk(path, 0, NULL));
	assert_int_equal(test_err.id, ERR_DS_PATH_ESCAPE);
	assert_refused(create(path, MIB, PROVISION_THIN), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_delete(test_ds, path, &who, &test_err), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_delete(test_ds, path, NULL, &test_err), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_unlock(test_ds, path, &test_err), ERR_DS_PATH_ESCAPE);
}

static void test_no_way_out(void **state)
{
	static const char *const paths[] = {
		"../out/x.img", "/etc/passwd", "a/../../out/x.img", "..", "a//b", "", "./x.img",
		"out/x.img", "out/new.img", "out/new.vmdk", "far/x.img", "x.lnk", "loop1", "loop1/x",
		"up/out/x.img", "proc/x", "a\nb",
	};
	struct ds_file_list list;
	char outside[96], path[128];

	(void)state;
	snprintf(outside, sizeof(outside), "%s/out", test_base);
	assert_int_equal(mkdir(outside, 0700), 0);
	snprintf(path, sizeof(path), "%s/x.img", outside);
	assert_int_equal(close(open(path, O_CREAT | O_RDWR, 0600)), 0);
	assert_int_equal(truncate(path, MIB), 0);
	assert_int_equal(symlink(outside, in("far")), 0);
	assert_int_equal(symlink("../out", in("out")), 0);
	assert_int_equal(symlink("..", in("up")), 0);
	assert_int_equal(symlink("../out/x.img", in("x.lnk")), 0);
	assert_int_equal(symlink("loop2", in("loop1")), 0);
	assert_int_equal(symlink("loop1", in("loop2")), 0);
	assert_int_equal(symlink("/proc/self/root/etc", in("proc")), 0);
	for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
		assert_escapes(paths[i]);
	assert_refused(datastore_list(test_ds, "out", &list, &test_err), ERR_DS_PATH_ESCAPE);
	assert_refused(datastore_list(test_ds, "..", &list, &test_err), ERR_DS_PATH_ESCAPE);
	assert_refused(datastore_list(test_ds, "up", &list, &test_err), ERR_DS_PATH_ESCAPE);
	/* Nothing was made or removed out there. */
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(rmdir(outside), -1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(outside), 0);
}

/* A link inside is another name of the same disk: one sidecar, one lock. */
static void test_links_that_stay(void **state)
{
	struct ds_disk *disk;
	struct ds_disk_info a, b;

	(void)state;
	put_file("real.img", "", 0, MIB);
	assert_int_equal(mkdir(in("d"), 0700), 0);
	assert_int_equal(symlink("../real.img", in("d/link.img")), 0);
	assert_int_equal(symlink("d", in("e")), 0);
	disk = must_open("e/link.img", 0);
	assert_true(exists("real.img.blkmirror"));
	assert_false(exists("d/link.img.blkmirror"));
	assert_null(open_disk("real.img", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	ds_disk_close(disk);
	a = disk_as_listed("real.img");
	b = disk_as_listed("e/link.img");
	assert_true(disk_identity_same_copy(&a.identity, &b.identity));
	assert_int_equal(create("e/n.vmdk", MIB, PROVISION_THIN), 0);
	assert_true(exists("d/n-flat.vmdk"));
}

/* The steps that create and update rest on: never replace, all or nothing, keep the mode. */
static void test_small_files(void **state)
{
	char bytes[16];
	struct stat st;
	int dir_fd = open(in(""), O_RDONLY | O_DIRECTORY);

	(void)state;
	assert_int_equal(dir_write_small(dir_fd, "a", "one", 3, true), 0);
	assert_int_equal(dir_write_small(dir_fd, "a", "two", 3, true), -EEXIST);
	assert_int_equal(dir_read_small(dir_fd, "a", bytes, sizeof(bytes)), 3);
	assert_memory_equal(bytes, "one", 3);
	assert_false(exists(".a.blkmirror-tmp"));
	assert_int_equal(chmod(in("a"), 0604), 0);
	assert_int_equal(dir_write_small(dir_fd, "a", "three", 5, false), 0);
	assert_int_equal(stat(in("a"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0604);
	assert_int_equal(dir_read_small(dir_fd, "a", bytes, 5), 5);
	assert_int_equal(dir_read_small(dir_fd, "a", bytes, 4), -EFBIG);
	assert_int_equal(dir_write_small(dir_fd, "b", "four", 4, true), 0);
	assert_int_equal(dir_rename_new(dir_fd, "a", "b"), -EEXIST);
	assert_true(exists("a"));
	assert_int_equal(symlink("a", in("l")), 0);
	assert_int_equal(dir_read_small(dir_fd, "l", bytes, sizeof(bytes)), -ELOOP);
	assert_int_equal(dir_read_small(dir_fd, ".", bytes, sizeof(bytes)), -EINVAL);
	/* A rename that cannot succeed leaves the old file and no temporary one. */
	assert_int_equal(mkdir(in("folder"), 0700), 0);
	assert_int_not_equal(dir_write_small(dir_fd, "folder", "x", 1, false), 0);
	assert_false(exists(".folder.blkmirror-tmp"));
	close(dir_fd);
}

/* Several processes create one disk at once: one of them does, and it is whole. */
static void test_create_race(void **state)
{
	enum { CREATORS = 4, ROUNDS = 25 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		const char *path = round % 2 ? "race/d.vmdk" : "race/d.img";
		pid_t pids[CREATORS];
		int winners = 0, status;

		for (int i = 0; i < CREATORS; i++) {
			pids[i] = fork();
			assert_true(pids[i] >= 0);
			if (pids[i] == 0)
				_exit(create(path, MIB, PROVISION_THICK) ? 1 : 0);
		}
		for (int i = 0; i < CREATORS; i++) {
			assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
			assert_true(WIFEXITED(status));
			winners += WEXITSTATUS(status) == 0;
		}
		if (winners > 1)
			fail_msg("%d creators of one disk", winners);
		if (winners == 1) {
			assert_int_equal(file_count("race"), 2);
			ds_disk_close(must_open(path, 0));
			assert_int_equal(ds_disk_delete(test_ds, path, NULL, &test_err), 0);
		}
		assert_false(exists("race/d.img"));
		assert_int_equal(create(path, MIB, PROVISION_THICK), 0);
		assert_int_equal(ds_disk_delete(test_ds, path, NULL, &test_err), 0);
	}
}

/* ---- listing ---- */

static const struct ds_file *find(const struct ds_file_list *list, const char *name)
{
	for (uint32_t i = 0; i < list->count; i++)
		if (strcmp(list->files[i].name, name) == 0)
			return &list->files[i];
	fail_msg("'%s' is not listed", name);
	return NULL;
}

static void test_list(void **state)
{
	struct ds_file_list list;

	(void)state;
	assert_int_equal(create("w/a.vmdk", 2 * MIB, PROVISION_THICK), 0);
	assert_int_equal(create("w/r.img", MIB, PROVISION_THIN), 0);
	put_file("w/a.vmx", "x", 1, 0);
	put_file("w/vmware.log", "x", 1, MIB);
	put_file("w/bad.vmdk", "x", 1, 0);
	put_file("w/small", "x", 1, 0);
	put_file("w/new\nline", "x", 1, 0);
	assert_int_equal(mkdir(in("w/sub"), 0700), 0);
	assert_int_equal(symlink("/etc/passwd", in("w/out")), 0);
	assert_int_equal(symlink("r.img", in("w/also.img")), 0);
	assert_int_equal(datastore_list(test_ds, "w", &list, &test_err), 0);
	assert_int_equal(list.count, 10);
	assert_false(list.truncated);
	for (uint32_t i = 1; i < list.count; i++)
		assert_true(strcmp(list.files[i - 1].name, list.files[i].name) < 0);
	assert_int_equal(find(&list, "a.vmdk")->kind, DS_FILE_DISK);
	assert_int_equal(find(&list, "a.vmdk")->size_bytes, 2 * MIB);
	assert_true(find(&list, "a.vmdk")->allocated_bytes >= 2 * MIB);
	assert_true(find(&list, "a.vmdk")->modified_s > 0);
	assert_int_equal(find(&list, "a-flat.vmdk")->kind, DS_FILE_DISK_DATA);
	assert_int_equal(find(&list, "r.img")->kind, DS_FILE_DISK);
	assert_int_equal(find(&list, "also.img")->kind, DS_FILE_DISK);
	assert_int_equal(find(&list, "r.img.blkmirror")->kind, DS_FILE_DISK_DATA);
	assert_int_equal(find(&list, "a.vmx")->kind, DS_FILE_VMX);
	assert_int_equal(find(&list, "vmware.log")->kind, DS_FILE_OTHER);
	assert_int_equal(find(&list, "bad.vmdk")->kind, DS_FILE_OTHER);
	assert_int_equal(find(&list, "small")->kind, DS_FILE_OTHER);
	assert_int_equal(find(&list, "sub")->kind, DS_FILE_DIR);
	ds_file_list_release(&list);
	assert_refused(datastore_list(test_ds, "none", &list, &test_err), ERR_DISK_UNKNOWN);
	assert_refused(datastore_list(test_ds, "w/a.vmx", &list, &test_err), ERR_DISK_UNKNOWN);
}

static void test_list_is_bounded(void **state)
{
	struct ds_file_list list;

	(void)state;
	assert_int_equal(mkdir(in("many"), 0700), 0);
	for (int i = 0; i < DS_LIST_MAX + 1; i++) {
		char name[32];

		snprintf(name, sizeof(name), "many/%d", i);
		assert_int_equal(mknod(in(name), S_IFREG | 0600, 0), 0);
	}
	assert_int_equal(datastore_list(test_ds, "many", &list, &test_err), 0);
	assert_int_equal(list.count, DS_LIST_MAX);
	assert_true(list.truncated);
	ds_file_list_release(&list);
	assert_int_equal(unlink(in("many/0")), 0);
	assert_int_equal(datastore_list(test_ds, "many", &list, &test_err), 0);
	assert_int_equal(list.count, DS_LIST_MAX);
	assert_false(list.truncated);
	ds_file_list_release(&list);
}

/* Without root's rights a store that may not be written says so. */
static void test_permission(void **state)
{
	char url[128];
	struct datastore *kept = test_ds;

	(void)state;
	if (geteuid() == 0) {
		assert_int_equal(chmod(test_base, 0755), 0);
		assert_int_equal(chmod(in(""), 0555), 0);
		assert_int_equal(seteuid(65534), 0);
	} else {
		assert_int_equal(chmod(in(""), 0555), 0);
	}
	snprintf(url, sizeof(url), "dir://%s/ds", test_base);
	assert_refused(open_ds(url, NULL), ERR_DS_PERMISSION);
	test_ds = kept;
	assert_refused(create("x.img", MIB, PROVISION_THIN), ERR_DS_PERMISSION);
	assert_refused(create("f/x.img", MIB, PROVISION_THIN), ERR_DS_PERMISSION);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(in(""), 0755), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_open_refusals),
		CASE(test_reserve_adds_up),
		CASE(test_create_every_provision),
		CASE(test_eager_is_written),
		CASE(test_create_refusals),
		CASE(test_no_space_leaves_nothing),
		CASE(test_foreign_files),
		CASE(test_a_guest_may_write_any_magic),
		CASE(test_no_way_out),
		CASE(test_links_that_stay),
		CASE(test_small_files),
		CASE(test_create_race),
		CASE(test_list),
		CASE(test_list_is_bounded),
		CASE(test_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
