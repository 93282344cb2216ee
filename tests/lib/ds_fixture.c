/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/ds_fixture.h"

char test_base[64];
struct loop *test_loop;
struct datastore *test_ds;
struct err test_err;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

const char *in(const char *name)
{
	static char path[2][512];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/ds/%s", test_base, name);
	return path[turn];
}

int open_ds(const char *url, const char *const *allowed)
{
	struct ds_config config = { .name = "ds1", .url = url, .allowed_roots = allowed };

	memset(&test_err, 0, sizeof(test_err));
	return datastore_open(test_loop, &config, &test_ds, &test_err);
}

int set_up(void **state)
{
	char url[128];

	(void)state;
	strcpy(test_base, "/tmp/test_ds.XXXXXX");
	assert_non_null(mkdtemp(test_base));
	assert_int_equal(mkdir(in(""), 0700), 0);
	test_loop = loop_new();
	assert_non_null(test_loop);
	snprintf(url, sizeof(url), "dir://%s/ds", test_base);
	assert_int_equal(open_ds(url, NULL), 0);
	return 0;
}

int tear_down(void **state)
{
	(void)state;
	datastore_close(test_ds);
	loop_free(test_loop);
	return nftw(test_base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void put_file(const char *name, const void *bytes, size_t len, uint64_t size_bytes)
{
	int fd = open(in(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	if (size_bytes)
		assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	close(fd);
}

bool exists(const char *name)
{
	struct stat st;

	return lstat(in(name), &st) == 0;
}

int create(const char *path, uint64_t size_bytes, enum provision provision)
{
	struct ds_create_spec spec = { .size_bytes = size_bytes, .provision = provision };

	memset(&test_err, 0, sizeof(test_err));
	return ds_disk_create(test_ds, path, &spec, &test_err);
}

struct ds_disk *open_disk(const char *path, unsigned flags, const char *journal)
{
	struct ds_disk *disk = NULL;

	memset(&test_err, 0, sizeof(test_err));
	return ds_disk_open(test_ds, path, flags, journal, &disk, &test_err) ? NULL : disk;
}

struct ds_disk *must_open(const char *path, unsigned flags)
{
	struct ds_disk *disk = open_disk(path, flags, NULL);

	if (!disk)
		fail_msg("cannot open '%s': %s", path, test_err.cause);
	return disk;
}

struct ds_disk_info disk_as_listed(const char *path)
{
	struct ds_disk_info info;

	if (ds_disk_stat(test_ds, path, &info, &test_err))
		fail_msg("cannot stat '%s': %s", path, test_err.cause);
	return info;
}

bool is_same_copy(const char *path, const struct disk_identity *identity)
{
	struct ds_disk_info info = disk_as_listed(path);

	return disk_identity_same_copy(&info.identity, identity);
}

void assert_refused(int rc, enum err_id id)
{
	assert_int_not_equal(rc, 0);
	if (test_err.id != id)
		fail_msg("%s: %s", err_name(test_err.id), test_err.cause);
}

uint64_t data_bytes_allocated(const char *name)
{
	struct stat st;

	assert_int_equal(stat(in(name), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

unsigned file_count(const char *folder)
{
	struct ds_file_list list;
	unsigned count;

	assert_int_equal(datastore_list(test_ds, folder, &list, &test_err), 0);
	count = list.count;
	ds_file_list_release(&list);
	return count;
}
