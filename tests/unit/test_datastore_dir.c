/* SPDX-License-Identifier: Apache-2.0 */
/* dir:// datastores on a real file system, in a folder of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_file.h"
#include "blkmirror/blkdev/blk_file_private.h"
#include "datastores/beneath.h"
#include "datastores/datastore_private.h"
#include "datastores/disk_lock.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"
#include "datastores/vmdk.h"

#define MIB (UINT64_C(1) << 20)

static char base[64];           /* the test's folder; the datastore is base/ds */
static struct loop *loop;
static struct datastore *ds;
static struct err err;

/* ---- set-up ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static const char *in(const char *name)
{
	static char path[2][512];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/ds/%s", base, name);
	return path[turn];
}

static int open_ds(const char *url, const char *const *allowed)
{
	struct ds_config config = { .name = "ds1", .url = url, .allowed_roots = allowed };

	memset(&err, 0, sizeof(err));
	return datastore_open(loop, &config, &ds, &err);
}

static int set_up(void **state)
{
	char url[128];

	(void)state;
	strcpy(base, "/tmp/test_ds.XXXXXX");
	assert_non_null(mkdtemp(base));
	assert_int_equal(mkdir(in(""), 0700), 0);
	loop = loop_new();
	assert_non_null(loop);
	snprintf(url, sizeof(url), "dir://%s/ds", base);
	assert_int_equal(open_ds(url, NULL), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	datastore_close(ds);
	loop_free(loop);
	return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put_file(const char *name, const void *bytes, size_t len, uint64_t size_bytes)
{
	int fd = open(in(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	if (size_bytes)
		assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	close(fd);
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(in(name), &st) == 0;
}

static int create(const char *path, uint64_t size_bytes, enum provision provision)
{
	struct ds_create_spec spec = { .size_bytes = size_bytes, .provision = provision };

	memset(&err, 0, sizeof(err));
	return ds_disk_create(ds, path, &spec, &err);
}

static struct ds_disk *open_disk(const char *path, unsigned flags, const char *journal)
{
	struct ds_disk *disk = NULL;

	memset(&err, 0, sizeof(err));
	return ds_disk_open(ds, path, flags, journal, &disk, &err) ? NULL : disk;
}

static struct ds_disk *must_open(const char *path, unsigned flags)
{
	struct ds_disk *disk = open_disk(path, flags, NULL);

	if (!disk)
		fail_msg("cannot open '%s': %s", path, err.cause);
	return disk;
}

static struct ds_disk_info stat_disk(const char *path)
{
	struct ds_disk_info info;

	if (ds_disk_stat(ds, path, &info, &err))
		fail_msg("cannot stat '%s': %s", path, err.cause);
	return info;
}

static bool is_same_copy(const char *path, const struct disk_identity *identity)
{
	struct ds_disk_info info = stat_disk(path);

	return disk_identity_same_copy(&info.identity, identity);
}

static void assert_refused(int rc, enum err_id id)
{
	assert_int_not_equal(rc, 0);
	if (err.id != id)
		fail_msg("%s: %s", err_name(err.id), err.cause);
}

static uint64_t data_bytes_allocated(const char *name)
{
	struct stat st;

	assert_int_equal(stat(in(name), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static unsigned file_count(const char *folder)
{
	struct ds_file_list list;
	unsigned count;

	assert_int_equal(datastore_list(ds, folder, &list, &err), 0);
	count = list.count;
	ds_file_list_release(&list);
	return count;
}

/* ---- opening a datastore ---- */

static void test_open_refusals(void **state)
{
	char url[160], inside[96], outside[96];
	const char *allowed[] = { inside, NULL };
	struct datastore *kept = ds;

	(void)state;
	assert_refused(open_ds("nfs://host/export", NULL), ERR_NOT_SUPPORTED);
	assert_refused(open_ds("iscsi://host/iqn.2001-04.com.example:x", NULL), ERR_NOT_SUPPORTED);
	assert_refused(open_ds("vmfs:///dev/null", NULL), ERR_NOT_SUPPORTED);
	assert_refused(open_ds("dir:///no/such/folder", NULL), ERR_DS_UNREACHABLE);
	assert_refused(open_ds("dir:///etc/passwd", NULL), ERR_DS_UNREACHABLE);
	assert_refused(open_ds("dir://u:p@/srv", NULL), ERR_DS_SECRET_IN_URL);
	assert_refused(open_ds("junk", NULL), ERR_DS_BAD_URL);
	/* allowed_roots are judged where the folder really is: a link does not help. */
	snprintf(inside, sizeof(inside), "%s/ds", base);
	snprintf(outside, sizeof(outside), "%s/ds-not", base);
	assert_int_equal(mkdir(outside, 0700), 0);
	assert_int_equal(symlink(outside, in("link")), 0);
	snprintf(url, sizeof(url), "dir://%s", in("link"));
	assert_refused(open_ds(url, allowed), ERR_DS_NOT_ALLOWED);
	snprintf(url, sizeof(url), "dir://%s", outside);
	assert_refused(open_ds(url, allowed), ERR_DS_NOT_ALLOWED);
	snprintf(url, sizeof(url), "dir://%s/ds", base);
	assert_int_equal(open_ds(url, allowed), 0);
	assert_string_equal(datastore_kind(ds), "dir");
	assert_string_equal(datastore_lock_scheme(ds), "ofd");
	assert_string_equal(datastore_url(ds), url);
	assert_int_equal(datastore_state(ds), DS_UP);
	datastore_close(ds);
	ds = kept;
}

static void test_reserve_adds_up(void **state)
{
	struct ds_space space;
	uint64_t half;

	(void)state;
	assert_int_equal(datastore_space(ds, &space, &err), 0);
	assert_true(space.free_bytes > 0 && space.free_bytes <= space.capacity_bytes);
	half = space.free_bytes / 2 + (UINT64_C(1) << 30);
	assert_int_equal(datastore_reserve(ds, half, &err), 0);
	assert_refused(datastore_reserve(ds, half, &err), ERR_DS_NO_SPACE);
	assert_refused(datastore_reserve(ds, UINT64_MAX, &err), ERR_DS_NO_SPACE);
	assert_int_equal(datastore_space(ds, &space, &err), 0);
	assert_int_equal(space.reserved_bytes, half);
	datastore_unreserve(ds, half);
	assert_int_equal(datastore_reserve(ds, half, &err), 0);
	datastore_unreserve(ds, half);
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
		info = stat_disk(path);
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
		assert_int_equal(ds_disk_delete(ds, path, NULL, &err), 0);
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
	assert_int_equal(datastore_space(ds, &space, &err), 0);
	too_much = round_up(space.capacity_bytes + (UINT64_C(1) << 40), MIB);
	assert_int_not_equal(create("n/m/x.vmdk", too_much, PROVISION_THICK), 0);
	assert_true(err.id == ERR_DS_NO_SPACE || err.id == ERR_DISK_BAD_SIZE);
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
	assert_refused(ds_disk_stat(ds, "q.img", &info, &err), ERR_DISK_BAD_FORMAT);
	assert_non_null(strstr(err.remedy, "qemu-nbd"));
	assert_null(open_disk("q.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_BAD_FORMAT);
	assert_false(exists("q.img.blkmirror"));
	put_file("odd.img", "", 0, MIB + 100);
	assert_refused(ds_disk_stat(ds, "odd.img", &info, &err), ERR_DISK_BAD_SIZE);
	assert_refused(ds_disk_stat(ds, "none.img", &info, &err), ERR_DISK_UNKNOWN);
	assert_refused(ds_disk_stat(ds, "none.vmdk", &info, &err), ERR_DISK_UNKNOWN);
	assert_int_equal(mkdir(in("folder"), 0700), 0);
	assert_refused(ds_disk_stat(ds, "folder", &info, &err), ERR_DISK_BAD_FORMAT);
	assert_int_equal(mkfifo(in("fifo"), 0600), 0);
	assert_refused(ds_disk_stat(ds, "fifo", &info, &err), ERR_DISK_BAD_FORMAT);
	assert_int_equal(create("v.vmdk", MIB, PROVISION_THIN), 0);
	assert_refused(ds_disk_stat(ds, "v-flat.vmdk", &info, &err), ERR_DISK_BAD_FORMAT);
	assert_non_null(strstr(err.remedy, "'v.vmdk'"));
	assert_int_equal(truncate(in("v-flat.vmdk"), MIB - 512), 0);
	assert_refused(ds_disk_stat(ds, "v.vmdk", &info, &err), ERR_DISK_BAD_SIZE);
	assert_int_equal(unlink(in("v-flat.vmdk")), 0);
	assert_refused(ds_disk_stat(ds, "v.vmdk", &info, &err), ERR_DISK_BAD_DESCRIPTOR);
	/* A descriptor whose data are a link, even to a good disk: refused. */
	assert_int_equal(create("w.img", MIB, PROVISION_THIN), 0);
	assert_int_equal(symlink("w.img", in("v-flat.vmdk")), 0);
	assert_int_not_equal(ds_disk_stat(ds, "v.vmdk", &info, &err), 0);
	snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\n"
				     "createType=\"vmfs\"\nRW 4096 VMFS \"short-flat.vmdk\"\n");
	put_file("short.vmdk", text, strlen(text), 0);
	put_file("short-flat.vmdk", "", 0, MIB);
	assert_refused(ds_disk_stat(ds, "short.vmdk", &info, &err), ERR_DISK_BAD_DESCRIPTOR);
	put_file("w.img.blkmirror", "junk", 4, 0);
	assert_refused(ds_disk_stat(ds, "w.img", &info, &err), ERR_DISK_BAD_DESCRIPTOR);
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
	info = stat_disk("g.img");
	assert_int_equal(info.format, DISK_FORMAT_RAW);
	ds_disk_close(must_open("g.img", 0));
}

/* ---- paths that would leave ---- */

static void assert_escapes(const char *path)
{
	struct disk_identity who = { .generation = 1 };
	struct ds_disk_info info;

	memset(&err, 0, sizeof(err));
	assert_refused(ds_disk_stat(ds, path, &info, &err), ERR_DS_PATH_ESCAPE);
	assert_null(open_disk(path, 0, NULL));
	assert_int_equal(err.id, ERR_DS_PATH_ESCAPE);
	assert_refused(create(path, MIB, PROVISION_THIN), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_delete(ds, path, &who, &err), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_delete(ds, path, NULL, &err), ERR_DS_PATH_ESCAPE);
	assert_refused(ds_disk_unlock(ds, path, &err), ERR_DS_PATH_ESCAPE);
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
	snprintf(outside, sizeof(outside), "%s/out", base);
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
	assert_refused(datastore_list(ds, "out", &list, &err), ERR_DS_PATH_ESCAPE);
	assert_refused(datastore_list(ds, "..", &list, &err), ERR_DS_PATH_ESCAPE);
	assert_refused(datastore_list(ds, "up", &list, &err), ERR_DS_PATH_ESCAPE);
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
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	ds_disk_close(disk);
	a = stat_disk("real.img");
	b = stat_disk("e/link.img");
	assert_true(disk_identity_same_copy(&a.identity, &b.identity));
	assert_int_equal(create("e/n.vmdk", MIB, PROVISION_THIN), 0);
	assert_true(exists("d/n-flat.vmdk"));
}

/* ---- locks ---- */

static void test_lock_matrix(void **state)
{
	struct ds_disk *one, *two;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	one = must_open("l.img", 0);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	assert_non_null(strstr(err.cause, "this daemon"));
	assert_null(open_disk("l.img", DS_OPEN_READ_ONLY, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	assert_refused(ds_disk_delete(ds, "l.img", NULL, &err), ERR_DISK_IN_USE);
	assert_refused(ds_disk_unlock(ds, "l.img", &err), ERR_DISK_IN_USE);
	ds_disk_close(one);
	one = must_open("l.img", DS_OPEN_READ_ONLY);
	two = must_open("l.img", DS_OPEN_READ_ONLY);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	ds_disk_close(one);
	assert_null(open_disk("l.img", 0, NULL));
	ds_disk_close(two);
	assert_int_equal(ds_disk_unlock(ds, "l.img", &err), 0);
	ds_disk_close(must_open("l.img", 0));
}

/* A locked description that no process has: it is on its way through a socket. */
static void lock_in_transit(const char *name, int pair[2])
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fd = open(in(name), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(disk_lock_take(fd, DISK_LOCK_WRITE, 0, name, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	assert_int_equal(sendmsg(pair[0], &message, 0), 1);
	close(fd);
}

static void *drop_in_a_moment(void *arg)
{
	int *pair = arg;

	usleep(150 * 1000);
	close(pair[0]);
	close(pair[1]);
	return NULL;
}

static void *close_in_a_moment(void *arg)
{
	usleep(150 * 1000);
	close(*(int *)arg);
	return NULL;
}

/* As a device's, which a busy machine closes later than the loop waits for that. */
static void delete_while_we_close(void)
{
	pthread_t thread;
	int fd;

	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	fd = open(in("l.img"), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(disk_lock_take(fd, DISK_LOCK_WRITE, 0, "l.img", NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, close_in_a_moment, &fd), 0);
	assert_int_equal(ds_disk_delete(ds, "l.img", NULL, &err), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/*
 * The last reference to a file that has just been closed may be a completed request's: its lock
 * ends a moment later.  Who deletes what it has just closed waits for that; nobody else.
 */
static void test_delete_waits_for_a_lock_that_ends(void **state)
{
	struct ds_disk *holder;
	pthread_t thread;
	int pair[2];

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	lock_in_transit("l.img", pair);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	assert_int_equal(pthread_create(&thread, NULL, drop_in_a_moment, pair), 0);
	assert_int_equal(ds_disk_delete(ds, "l.img", NULL, &err), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(access(in("l.img"), F_OK), -1);
	delete_while_we_close();
	/* One that does not end is told in the end. */
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	lock_in_transit("l.img", pair);
	assert_refused(ds_disk_delete(ds, "l.img", NULL, &err), ERR_DISK_IN_USE);
	close(pair[0]);
	close(pair[1]);
	holder = must_open("l.img", 0);
	assert_refused(ds_disk_delete(ds, "l.img", NULL, &err), ERR_DISK_IN_USE);
	assert_non_null(strstr(err.cause, "this daemon"));
	ds_disk_close(holder);
	assert_int_equal(ds_disk_delete(ds, "l.img", NULL, &err), 0);
}

/* Waiting for ourselves would wait for ever: the closer queues behind us. */
static void test_wait_does_not_wait_for_itself(void **state)
{
	struct ds_disk *disk;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	disk = must_open("l.img", 0);
	ds->lock_wait_ms = UINT32_MAX;
	assert_null(open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	ds_disk_close(disk);
}

/* A child that holds the disk's lock until it is told to go. */
static pid_t holder_start(const char *name, int *tell)
{
	int ready[2], go[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(in(name), O_RDWR);

		close(go[1]);
		if (disk_lock_take(fd, DISK_LOCK_WRITE, 0, name, NULL))
			_exit(1);
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		_exit(read(go[0], &byte, 1) == 0 ? 0 : 3);
	}
	close(ready[1]);
	close(go[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*tell = go[1];
	return pid;
}

static void *let_go(void *tell)
{
	/* Not before the opener has been refused once at least: it waits for us anyway. */
	usleep(50 * 1000);
	close(*(int *)tell);
	return NULL;
}

static void test_wait_for_another_process(void **state)
{
	struct ds_disk *disk;
	pthread_t thread;
	char pid_text[32];
	int tell, status;
	pid_t pid;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	pid = holder_start("l.img", &tell);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	snprintf(pid_text, sizeof(pid_text), "(process %d)", (int)pid);
	assert_non_null(strstr(err.cause, pid_text));
	ds->lock_wait_ms = 1;
	assert_null(open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	ds->lock_wait_ms = DS_LOCK_WAIT_MS;
	assert_int_equal(pthread_create(&thread, NULL, let_go, &tell), 0);
	disk = open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL);
	assert_non_null(disk);
	pthread_join(thread, NULL);
	ds_disk_close(disk);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void *replace_and_let_go(void *tell)
{
	usleep(50 * 1000);
	CHECK(unlink(in("l.img")) == 0);
	CHECK(truncate(in("other"), MIB) == 0);
	CHECK(rename(in("other"), in("l.img")) == 0);
	close(*(int *)tell);
	return NULL;
}

/* The lock that was waited for is of a file that has the name no longer: not our disk. */
static void test_replaced_while_waiting(void **state)
{
	pthread_t thread;
	int tell, status;
	pid_t pid;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	put_file("other", "", 0, 0);
	pid = holder_start("l.img", &tell);
	assert_int_equal(pthread_create(&thread, NULL, replace_and_let_go, &tell), 0);
	assert_null(open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL));
	assert_int_equal(err.id, ERR_DISK_UNKNOWN);
	pthread_join(thread, NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* R-J7: the lock lasts as long as the device's descriptor, whatever became of the disk's. */
/* Direct I/O may block its submitter; buffered I/O has threads anyway. */
static bool may_block_its_submitter(struct blk_dev *dev)
{
	const struct blk_file *file = blk_file_of(dev);

	return file->direct && !file->thread;
}

static void test_lock_lives_with_the_device(void **state)
{
	struct ds_disk *disk;
	struct blk_dev *dev;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	disk = must_open("l.img", 0);
	assert_int_equal(ds_disk_make_dev(disk, loop, false, &dev, &err), 0);
	assert_int_equal(dev->size_bytes, MIB);
	assert_true(dev->limits.reads_zero);
	ds_disk_dev_promote(dev);
	ds_disk_close(disk);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_IN_USE);
	blk_close(dev);
	disk = must_open("l.img", 0);
	assert_false(ds_disk_info(disk)->reads_zero);
	assert_int_equal(ds_disk_make_dev(disk, loop, true, &dev, &err), 0);
	assert_false(dev->limits.reads_zero);
	assert_false(may_block_its_submitter(dev));     /* R5 */
	ds_disk_dev_promote(dev);
	blk_close(dev);
	ds_disk_close(disk);
}

/* ---- identity ---- */

static void test_identity_at_first_write(void **state)
{
	static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\n"
				   "parentCID=ffffffff\ncreateType=\"vmfs\"\n"
				   "RW 2048 VMFS \"v-flat.vmdk\"\nddb.uuid = \"60 00\"\n";
	static const char *const paths[] = { "r.img", "v.vmdk" };

	(void)state;
	put_file("r.img", "", 0, MIB);
	put_file("v.vmdk", text, strlen(text), 0);
	put_file("v-flat.vmdk", "", 0, MIB);
	for (size_t i = 0; i < 2; i++) {
		struct ds_disk_info before = stat_disk(paths[i]), after;
		struct ds_disk *disk = must_open(paths[i], DS_OPEN_READ_ONLY);

		assert_true(before.has_identity);
		assert_int_equal(before.identity.generation, 0);
		assert_false(before.reads_zero);
		ds_disk_close(disk);
		assert_int_equal(stat_disk(paths[i]).identity.generation, 0);
		disk = must_open(paths[i], 0);
		after = stat_disk(paths[i]);
		assert_int_equal(after.identity.generation, 1);
		assert_int_equal(after.identity.role, DISK_LIVE);
		assert_true(disk_identity_same_copy(&after.identity, &ds_disk_info(disk)->identity));
		ds_disk_close(disk);
		ds_disk_close(must_open(paths[i], 0));
		assert_true(is_same_copy(paths[i], &after.identity));
	}
}

static void mark(struct ds_disk *disk, struct disk_identity *who, enum disk_role role,
		 const char *journal)
{
	who->role = role;
	strcpy(who->journal_id, journal);
	memset(who->host_uuid, journal[0] ? 7 : 0, 16);
	if (ds_disk_mark(disk, who, &err))
		fail_msg("%s", err.cause);
}

static void test_marks_gate_opens(void **state)
{
	static const char *const paths[] = { "r.img", "v.vmdk" };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const char *path = paths[i];
		struct disk_identity who;
		struct ds_disk *disk;

		assert_int_equal(create(path, MIB, PROVISION_THIN), 0);
		disk = must_open(path, 0);
		who = ds_disk_info(disk)->identity;
		mark(disk, &who, DISK_MOVING, "m1");
		ds_disk_close(disk);
		assert_null(open_disk(path, 0, NULL));
		assert_int_equal(err.id, ERR_DISK_MARKED);
		assert_null(open_disk(path, DS_OPEN_READ_ONLY, NULL));
		assert_int_equal(err.id, ERR_DISK_MARKED);
		assert_null(open_disk(path, DS_OPEN_FOR_MOVE, "m2"));
		assert_int_equal(err.id, ERR_DISK_MARKED);
		assert_refused(ds_disk_delete(ds, path, NULL, &err), ERR_DISK_MARKED);
		assert_int_equal(stat_disk(path).identity.role, DISK_MOVING);
		assert_string_equal(stat_disk(path).identity.journal_id, "m1");
		disk = open_disk(path, DS_OPEN_FOR_MOVE, "m1");
		assert_non_null(disk);
		who.generation++;
		mark(disk, &who, DISK_RETIRED, "");
		ds_disk_close(disk);
		assert_null(open_disk(path, 0, NULL));
		assert_int_equal(err.id, ERR_DISK_RETIRED);
		disk = must_open(path, DS_OPEN_RETIRED);
		mark(disk, &who, DISK_LIVE, "");
		ds_disk_close(disk);
		disk = must_open(path, DS_OPEN_READ_ONLY);
		assert_refused(ds_disk_mark(disk, &who, &err), ERR_DISK_READ_ONLY);
		ds_disk_close(disk);
		assert_int_equal(stat_disk(path).identity.generation, 2);
	}
}

static void test_delete_by_identity(void **state)
{
	static const char *const paths[] = { "f/r.img", "f/v.vmdk" };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const char *path = paths[i];
		struct disk_identity old, fresh;

		assert_int_equal(create(path, MIB, PROVISION_THIN), 0);
		old = stat_disk(path).identity;
		assert_int_equal(ds_disk_delete(ds, path, &old, &err), 0);
		assert_false(exists("f"));
		assert_int_equal(ds_disk_delete(ds, path, &old, &err), -ENOENT);
		assert_int_equal(err.id, ERR_DISK_UNKNOWN);
		/* A new disk at the same path is not the one to delete (R-J5). */
		assert_int_equal(create(path, MIB, PROVISION_THIN), 0);
		fresh = stat_disk(path).identity;
		assert_int_equal(ds_disk_delete(ds, path, &old, &err), -ESTALE);
		assert_int_equal(err.id, ERR_DISK_MARKED);
		old = fresh;
		old.generation++;
		assert_int_equal(ds_disk_delete(ds, path, &old, &err), -ESTALE);
		assert_true(is_same_copy(path, &fresh));
		assert_int_equal(ds_disk_delete(ds, path, &fresh, &err), 0);
	}
	put_file("raw", "", 0, MIB);
	assert_int_equal(ds_disk_delete(ds, "raw", &(struct disk_identity){ .generation = 1 }, &err),
			 -ESTALE);
	assert_true(exists("raw"));
}

/* An incoming copy is who the mover says, from its first instant. */
static void test_create_incoming(void **state)
{
	struct disk_identity who = { .uuid = { 1, 2, 3 }, .generation = 8, .role = DISK_INCOMING,
				     .journal_id = "m9", .host_uuid = { 9 } };
	struct ds_create_spec spec = { .size_bytes = MIB, .provision = PROVISION_EAGER,
				       .identity = &who };
	struct ds_disk *disk;

	(void)state;
	assert_int_equal(ds_disk_create(ds, "in/x.vmdk", &spec, &err), 0);
	assert_null(open_disk("in/x.vmdk", 0, NULL));
	assert_int_equal(err.id, ERR_DISK_MARKED);
	disk = open_disk("in/x.vmdk", DS_OPEN_FOR_MOVE, "m9");
	assert_non_null(disk);
	assert_true(ds_disk_info(disk)->reads_zero);
	ds_disk_close(disk);
	/* R11: a second opener, after a crash say, must not believe in zeroes. */
	disk = open_disk("in/x.vmdk", DS_OPEN_FOR_MOVE, "m9");
	assert_false(ds_disk_info(disk)->reads_zero);
	ds_disk_close(disk);
	who.generation = 0;
	assert_refused(ds_disk_create(ds, "in/y.vmdk", &spec, &err), ERR_INTERNAL);
}

/* R11: written behind our back, it is not fresh whatever the note says. */
static void test_fresh_is_not_believed_blindly(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(create("x.img", MIB, PROVISION_THIN), 0);
	assert_true(stat_disk("x.img").reads_zero);
	fd = open(in("x.img"), O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 8192), 1);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_false(stat_disk("x.img").reads_zero);
}

/* ---- grow ---- */

static void test_resize(void **state)
{
	static const char *const paths[] = { "v.vmdk", "r.img" };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct ds_disk *disk;
		uint64_t allocated;

		assert_int_equal(create(paths[i], MIB + 512, PROVISION_THICK), 0);
		disk = must_open(paths[i], 0);
		assert_refused(ds_disk_resize(disk, MIB, &err), ERR_DISK_SHRINK);
		assert_refused(ds_disk_resize(disk, 2 * MIB + 1, &err), ERR_DISK_BAD_SIZE);
		assert_int_equal(ds_disk_resize(disk, MIB + 512, &err), 0);
		assert_int_equal(ds_disk_resize(disk, 3 * MIB, &err), 0);
		assert_refused(ds_disk_resize(disk, 2 * MIB, &err), ERR_DISK_SHRINK);
		assert_int_equal(ds_disk_allocated(disk, &allocated, &err), 0);
		assert_true(allocated >= 3 * MIB);
		assert_null(open_disk(paths[i], 0, NULL));      /* still locked */
		ds_disk_close(disk);
		assert_int_equal(stat_disk(paths[i]).size_bytes, 3 * MIB);
	}
	/* A resize that was cut between data and descriptor is finished by the next writer. */
	assert_int_equal(truncate(in("v-flat.vmdk"), 4 * MIB), 0);
	assert_int_equal(stat_disk("v.vmdk").size_bytes, 4 * MIB);
	ds_disk_close(must_open("v.vmdk", 0));
	char text[VMDK_TEXT_BYTES + 1] = "";
	int fd = open(in("v.vmdk"), O_RDONLY);

	assert_true(read(fd, text, VMDK_TEXT_BYTES) > 0);
	close(fd);
	assert_non_null(strstr(text, "RW 8192 VMFS"));
}

/* ---- what a crash leaves ---- */

static void test_leftovers(void **state)
{
	struct disk_identity who = { .generation = 1 };
	int tell, status;
	pid_t pid;

	(void)state;
	/* Half-written descriptor updates: never listed, never believed, gone at the next update. */
	assert_int_equal(create("v.vmdk", MIB, PROVISION_THIN), 0);
	who = stat_disk("v.vmdk").identity;
	put_file(".v.vmdk.blkmirror-tmp", "# Disk Descr", 12, 0);
	assert_int_equal(file_count(""), 2);
	assert_true(is_same_copy("v.vmdk", &who));
	ds_disk_close(must_open("v.vmdk", 0));
	assert_false(exists(".v.vmdk.blkmirror-tmp"));
	/* A link as a trap in its place is not followed. */
	put_file("victim", "precious", 8, 0);
	assert_int_equal(symlink("victim", in(".v.vmdk.blkmirror-tmp")), 0);
	struct ds_disk *disk = must_open("v.vmdk", 0);

	mark(disk, &who, DISK_LIVE, "");
	ds_disk_close(disk);
	struct stat st;

	assert_int_equal(stat(in("victim"), &st), 0);
	assert_int_equal(st.st_size, 8);
	/* Create, cut before it had a name. */
	put_file(".n-flat.vmdk.blkmirror-tmp", "", 0, 8 * MIB);
	assert_int_equal(create("n.vmdk", MIB, PROVISION_THIN), 0);
	assert_false(exists(".n-flat.vmdk.blkmirror-tmp"));
	assert_int_equal(stat_disk("n.vmdk").size_bytes, MIB);
	/* The same, and the journal's clean-up comes before any create. */
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(mkdir(in("u"), 0700), 0);
		put_file(i ? "u/.u.img.blkmirror-tmp" : "u/.u-flat.vmdk.blkmirror-tmp", "", 0, MIB);
		assert_int_equal(ds_disk_delete(ds, i ? "u/u.img" : "u/u.vmdk", &who, &err),
				 -ENOENT);
		assert_false(exists("u"));
	}
	/* Create under way in another process. */
	put_file(".m.img.blkmirror-tmp", "", 0, MIB);
	pid = holder_start(".m.img.blkmirror-tmp", &tell);
	assert_refused(create("m.img", MIB, PROVISION_THIN), ERR_DISK_IN_USE);
	assert_true(exists(".m.img.blkmirror-tmp"));
	close(tell);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(create("m.img", MIB, PROVISION_THIN), 0);
	/* Create or delete, cut between meta file and data: deleted by who it says it is. */
	who = stat_disk("m.img").identity;
	assert_int_equal(unlink(in("m.img")), 0);
	assert_refused(create("m.img", MIB, PROVISION_THIN), ERR_DISK_EXISTS);
	who.generation++;
	assert_int_equal(ds_disk_delete(ds, "m.img", &who, &err), -ESTALE);
	who.generation--;
	/* The same copy in another role: a later move's target is not an earlier one's (R-J5). */
	who.role = DISK_INCOMING;
	assert_int_equal(ds_disk_delete(ds, "m.img", &who, &err), -ESTALE);
	who.role = DISK_RETIRED;
	assert_int_equal(ds_disk_delete(ds, "m.img", &who, &err), -ESTALE);
	who.role = DISK_LIVE;
	assert_int_equal(ds_disk_delete(ds, "m.img", &who, &err), 0);
	assert_int_equal(create("m.img", MIB, PROVISION_THIN), 0);
	who = stat_disk("n.vmdk").identity;
	assert_int_equal(unlink(in("n-flat.vmdk")), 0);
	assert_int_equal(ds_disk_delete(ds, "n.vmdk", &who, &err), 0);
	assert_false(exists("n.vmdk"));
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
			assert_int_equal(ds_disk_delete(ds, path, NULL, &err), 0);
		}
		assert_false(exists("race/d.img"));
		assert_int_equal(create(path, MIB, PROVISION_THICK), 0);
		assert_int_equal(ds_disk_delete(ds, path, NULL, &err), 0);
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
	assert_int_equal(datastore_list(ds, "w", &list, &err), 0);
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
	assert_refused(datastore_list(ds, "none", &list, &err), ERR_DISK_UNKNOWN);
	assert_refused(datastore_list(ds, "w/a.vmx", &list, &err), ERR_DISK_UNKNOWN);
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
	assert_int_equal(datastore_list(ds, "many", &list, &err), 0);
	assert_int_equal(list.count, DS_LIST_MAX);
	assert_true(list.truncated);
	ds_file_list_release(&list);
	assert_int_equal(unlink(in("many/0")), 0);
	assert_int_equal(datastore_list(ds, "many", &list, &err), 0);
	assert_int_equal(list.count, DS_LIST_MAX);
	assert_false(list.truncated);
	ds_file_list_release(&list);
}

/* Without root's rights a store that may not be written says so. */
static void test_permission(void **state)
{
	char url[128];
	struct datastore *kept = ds;

	(void)state;
	if (geteuid() == 0) {
		assert_int_equal(chmod(base, 0755), 0);
		assert_int_equal(chmod(in(""), 0555), 0);
		assert_int_equal(seteuid(65534), 0);
	} else {
		assert_int_equal(chmod(in(""), 0555), 0);
	}
	snprintf(url, sizeof(url), "dir://%s/ds", base);
	assert_refused(open_ds(url, NULL), ERR_DS_PERMISSION);
	ds = kept;
	assert_refused(create("x.img", MIB, PROVISION_THIN), ERR_DS_PERMISSION);
	assert_refused(create("f/x.img", MIB, PROVISION_THIN), ERR_DS_PERMISSION);
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(in(""), 0755), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

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
		CASE(test_lock_matrix),
		CASE(test_delete_waits_for_a_lock_that_ends),
		CASE(test_wait_does_not_wait_for_itself),
		CASE(test_wait_for_another_process),
		CASE(test_replaced_while_waiting),
		CASE(test_lock_lives_with_the_device),
		CASE(test_identity_at_first_write),
		CASE(test_marks_gate_opens),
		CASE(test_delete_by_identity),
		CASE(test_create_incoming),
		CASE(test_fresh_is_not_believed_blindly),
		CASE(test_resize),
		CASE(test_leftovers),
		CASE(test_small_files),
		CASE(test_create_race),
		CASE(test_list),
		CASE(test_list_is_bounded),
		CASE(test_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
