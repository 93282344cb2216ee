/* SPDX-License-Identifier: Apache-2.0 */
/* Disks of a dir:// datastore: locks, identities, growth, what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

/* ---- locks ---- */

static void test_lock_matrix(void **state)
{
	struct ds_disk *one, *two;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	one = must_open("l.img", 0);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	assert_non_null(strstr(test_err.cause, "this daemon"));
	assert_null(open_disk("l.img", DS_OPEN_READ_ONLY, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	assert_refused(ds_disk_delete(test_ds, "l.img", NULL, &test_err), ERR_DISK_IN_USE);
	assert_refused(ds_disk_unlock(test_ds, "l.img", &test_err), ERR_DISK_IN_USE);
	ds_disk_close(one);
	one = must_open("l.img", DS_OPEN_READ_ONLY);
	two = must_open("l.img", DS_OPEN_READ_ONLY);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	ds_disk_close(one);
	assert_null(open_disk("l.img", 0, NULL));
	ds_disk_close(two);
	assert_int_equal(ds_disk_unlock(test_ds, "l.img", &test_err), 0);
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
	assert_int_equal(ds_disk_delete(test_ds, "l.img", NULL, &test_err), 0);
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
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	assert_int_equal(pthread_create(&thread, NULL, drop_in_a_moment, pair), 0);
	assert_int_equal(ds_disk_delete(test_ds, "l.img", NULL, &test_err), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(access(in("l.img"), F_OK), -1);
	delete_while_we_close();
	/* One that does not end is told in the end. */
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	lock_in_transit("l.img", pair);
	assert_refused(ds_disk_delete(test_ds, "l.img", NULL, &test_err), ERR_DISK_IN_USE);
	close(pair[0]);
	close(pair[1]);
	holder = must_open("l.img", 0);
	assert_refused(ds_disk_delete(test_ds, "l.img", NULL, &test_err), ERR_DISK_IN_USE);
	assert_non_null(strstr(test_err.cause, "this daemon"));
	ds_disk_close(holder);
	assert_int_equal(ds_disk_delete(test_ds, "l.img", NULL, &test_err), 0);
}

/* Waiting for ourselves would wait for ever: the closer queues behind us. */
static void test_wait_does_not_wait_for_itself(void **state)
{
	struct ds_disk *disk;

	(void)state;
	assert_int_equal(create("l.img", MIB, PROVISION_THIN), 0);
	disk = must_open("l.img", 0);
	test_ds->lock_wait_ms = UINT32_MAX;
	assert_null(open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
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
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	snprintf(pid_text, sizeof(pid_text), "(process %d)", (int)pid);
	assert_non_null(strstr(test_err.cause, pid_text));
	test_ds->lock_wait_ms = 1;
	assert_null(open_disk("l.img", DS_OPEN_WAIT_LOCK, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	test_ds->lock_wait_ms = DS_LOCK_WAIT_MS;
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
	assert_int_equal(test_err.id, ERR_DISK_UNKNOWN);
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
	assert_int_equal(ds_disk_make_dev(disk, test_loop, false, &dev, &test_err), 0);
	assert_int_equal(dev->size_bytes, MIB);
	assert_true(dev->limits.reads_zero);
	ds_disk_dev_promote(dev);
	ds_disk_close(disk);
	assert_null(open_disk("l.img", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_IN_USE);
	blk_close(dev);
	disk = must_open("l.img", 0);
	assert_false(ds_disk_info(disk)->reads_zero);
	assert_int_equal(ds_disk_make_dev(disk, test_loop, true, &dev, &test_err), 0);
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
		struct ds_disk_info before = disk_as_listed(paths[i]), after;
		struct ds_disk *disk = must_open(paths[i], DS_OPEN_READ_ONLY);

		assert_true(before.has_identity);
		assert_int_equal(before.identity.generation, 0);
		assert_false(before.reads_zero);
		ds_disk_close(disk);
		assert_int_equal(disk_as_listed(paths[i]).identity.generation, 0);
		disk = must_open(paths[i], 0);
		after = disk_as_listed(paths[i]);
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
	if (ds_disk_mark(disk, who, &test_err))
		fail_msg("%s", test_err.cause);
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
		assert_int_equal(test_err.id, ERR_DISK_MARKED);
		assert_null(open_disk(path, DS_OPEN_READ_ONLY, NULL));
		assert_int_equal(test_err.id, ERR_DISK_MARKED);
		assert_null(open_disk(path, DS_OPEN_FOR_MOVE, "m2"));
		assert_int_equal(test_err.id, ERR_DISK_MARKED);
		assert_refused(ds_disk_delete(test_ds, path, NULL, &test_err), ERR_DISK_MARKED);
		assert_int_equal(disk_as_listed(path).identity.role, DISK_MOVING);
		assert_string_equal(disk_as_listed(path).identity.journal_id, "m1");
		disk = open_disk(path, DS_OPEN_FOR_MOVE, "m1");
		assert_non_null(disk);
		who.generation++;
		mark(disk, &who, DISK_RETIRED, "");
		ds_disk_close(disk);
		assert_null(open_disk(path, 0, NULL));
		assert_int_equal(test_err.id, ERR_DISK_RETIRED);
		disk = must_open(path, DS_OPEN_RETIRED);
		mark(disk, &who, DISK_LIVE, "");
		ds_disk_close(disk);
		disk = must_open(path, DS_OPEN_READ_ONLY);
		assert_refused(ds_disk_mark(disk, &who, &test_err), ERR_DISK_READ_ONLY);
		ds_disk_close(disk);
		assert_int_equal(disk_as_listed(path).identity.generation, 2);
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
		old = disk_as_listed(path).identity;
		assert_int_equal(ds_disk_delete(test_ds, path, &old, &test_err), 0);
		assert_false(exists("f"));
		assert_int_equal(ds_disk_delete(test_ds, path, &old, &test_err), -ENOENT);
		assert_int_equal(test_err.id, ERR_DISK_UNKNOWN);
		/* A new disk at the same path is not the one to delete (R-J5). */
		assert_int_equal(create(path, MIB, PROVISION_THIN), 0);
		fresh = disk_as_listed(path).identity;
		assert_int_equal(ds_disk_delete(test_ds, path, &old, &test_err), -ESTALE);
		assert_int_equal(test_err.id, ERR_DISK_MARKED);
		old = fresh;
		old.generation++;
		assert_int_equal(ds_disk_delete(test_ds, path, &old, &test_err), -ESTALE);
		assert_true(is_same_copy(path, &fresh));
		assert_int_equal(ds_disk_delete(test_ds, path, &fresh, &test_err), 0);
	}
	put_file("raw", "", 0, MIB);
	assert_int_equal(ds_disk_delete(test_ds, "raw", &(struct disk_identity){ .generation = 1 }, &test_err),
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
	assert_int_equal(ds_disk_create(test_ds, "in/x.vmdk", &spec, &test_err), 0);
	assert_null(open_disk("in/x.vmdk", 0, NULL));
	assert_int_equal(test_err.id, ERR_DISK_MARKED);
	disk = open_disk("in/x.vmdk", DS_OPEN_FOR_MOVE, "m9");
	assert_non_null(disk);
	assert_true(ds_disk_info(disk)->reads_zero);
	ds_disk_close(disk);
	/* R11: a second opener, after a crash say, must not believe in zeroes. */
	disk = open_disk("in/x.vmdk", DS_OPEN_FOR_MOVE, "m9");
	assert_false(ds_disk_info(disk)->reads_zero);
	ds_disk_close(disk);
	who.generation = 0;
	assert_refused(ds_disk_create(test_ds, "in/y.vmdk", &spec, &test_err), ERR_INTERNAL);
}

/* R11: written behind our back, it is not fresh whatever the note says. */
static void test_fresh_is_not_believed_blindly(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(create("x.img", MIB, PROVISION_THIN), 0);
	assert_true(disk_as_listed("x.img").reads_zero);
	fd = open(in("x.img"), O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 8192), 1);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_false(disk_as_listed("x.img").reads_zero);
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
		assert_refused(ds_disk_resize(disk, MIB, &test_err), ERR_DISK_SHRINK);
		assert_refused(ds_disk_resize(disk, 2 * MIB + 1, &test_err), ERR_DISK_BAD_SIZE);
		assert_int_equal(ds_disk_resize(disk, MIB + 512, &test_err), 0);
		assert_int_equal(ds_disk_resize(disk, 3 * MIB, &test_err), 0);
		assert_refused(ds_disk_resize(disk, 2 * MIB, &test_err), ERR_DISK_SHRINK);
		assert_int_equal(ds_disk_allocated(disk, &allocated, &test_err), 0);
		assert_true(allocated >= 3 * MIB);
		assert_null(open_disk(paths[i], 0, NULL));      /* still locked */
		ds_disk_close(disk);
		assert_int_equal(disk_as_listed(paths[i]).size_bytes, 3 * MIB);
	}
	/* A resize that was cut between data and descriptor is finished by the next writer. */
	assert_int_equal(truncate(in("v-flat.vmdk"), 4 * MIB), 0);
	assert_int_equal(disk_as_listed("v.vmdk").size_bytes, 4 * MIB);
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
	who = disk_as_listed("v.vmdk").identity;
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
	assert_int_equal(disk_as_listed("n.vmdk").size_bytes, MIB);
	/* The same, and the journal's clean-up comes before any create. */
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(mkdir(in("u"), 0700), 0);
		put_file(i ? "u/.u.img.blkmirror-tmp" : "u/.u-flat.vmdk.blkmirror-tmp", "", 0, MIB);
		assert_int_equal(ds_disk_delete(test_ds, i ? "u/u.img" : "u/u.vmdk", &who, &test_err),
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
	who = disk_as_listed("m.img").identity;
	assert_int_equal(unlink(in("m.img")), 0);
	assert_refused(create("m.img", MIB, PROVISION_THIN), ERR_DISK_EXISTS);
	who.generation++;
	assert_int_equal(ds_disk_delete(test_ds, "m.img", &who, &test_err), -ESTALE);
	who.generation--;
	/* The same copy in another role: a later move's target is not an earlier one's (R-J5). */
	who.role = DISK_INCOMING;
	assert_int_equal(ds_disk_delete(test_ds, "m.img", &who, &test_err), -ESTALE);
	who.role = DISK_RETIRED;
	assert_int_equal(ds_disk_delete(test_ds, "m.img", &who, &test_err), -ESTALE);
	who.role = DISK_LIVE;
	assert_int_equal(ds_disk_delete(test_ds, "m.img", &who, &test_err), 0);
	assert_int_equal(create("m.img", MIB, PROVISION_THIN), 0);
	who = disk_as_listed("n.vmdk").identity;
	assert_int_equal(unlink(in("n-flat.vmdk")), 0);
	assert_int_equal(ds_disk_delete(test_ds, "n.vmdk", &who, &test_err), 0);
	assert_false(exists("n.vmdk"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
