/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what needs no server: versions, and a server's word as an error's id. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/blkdev/nfs_session.h"

static void test_versions(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(nfs_version_check(0, &err), 0);
	assert_int_equal(nfs_version_check(3, &err), 0);
	assert_int_equal(err.id, ERR_NONE);
	for (uint32_t version = 1; version < 6; version++) {
		if (version == 3)
			continue;
		assert_int_equal(nfs_version_check(version, &err), -ENOTSUP);
		assert_int_equal(err.id, ERR_NFS_VERSION);
	}
	assert_int_equal(nfs_version_check(4, &err), -ENOTSUP);
	assert_non_null(strstr(err.cause, "libnfs " BM_LIBNFS_VERSION));
}

static void test_words(void **state)
{
	static const struct {
		int rc;
		enum err_id id;
	} table[] = {
		{ -ENOENT, ERR_DISK_UNKNOWN },  { -ESTALE, ERR_DISK_UNKNOWN },
		{ -EPERM, ERR_DS_PERMISSION },  { -EACCES, ERR_DS_PERMISSION },
		{ -EROFS, ERR_DS_READ_ONLY },   { -ENOSPC, ERR_DS_NO_SPACE },
		{ -EDQUOT, ERR_DS_NO_SPACE },   { -EFBIG, ERR_DISK_BAD_SIZE },
		{ -EEXIST, ERR_DISK_EXISTS },   { -ETIMEDOUT, ERR_NFS_UNREACHABLE },
		{ -EIO, ERR_DS_IO },            { -EPROTO, ERR_DS_IO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		struct err err = { 0 };

		assert_int_equal(nfs_fail(&err, table[i].rc, "open", "x.img"), table[i].rc);
		assert_int_equal(err.id, table[i].id);
		assert_non_null(strstr(err.cause, "cannot open 'x.img'"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
