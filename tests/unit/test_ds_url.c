/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "datastores/ds_path.h"
#include "datastores/ds_url.h"

/* ---- URLs ---- */

static struct ds_url url;

static void accept(const char *text)
{
	struct err err = { 0 };

	if (ds_url_parse(text, &url, &err))
		fail_msg("'%s' is refused: %s", text, err.cause);
}

static void refuse(const char *text, enum err_id id)
{
	struct err err = { 0 };

	if (ds_url_parse(text, &url, &err) == 0)
		fail_msg("'%s' is accepted", text);
	if (err.id != id)
		fail_msg("'%s' is refused as %s: %s", text, err_name(err.id), err.cause);
}

static void test_url_every_kind(void **state)
{
	(void)state;
	accept("dir:///srv/ds1");
	assert_int_equal(url.kind, DS_URL_DIR);
	assert_string_equal(url.path, "/srv/ds1");
	assert_string_equal(url.host, "");
	accept("dir:///srv/with%20space/%C3%A4");
	assert_string_equal(url.path, "/srv/with space/\xc3\xa4");
	accept("nfs://nas.example:2049/vol/vms?version=4&nfsport=2050&mountport=1&nconnect=16");
	assert_int_equal(url.kind, DS_URL_NFS);
	assert_string_equal(url.host, "nas.example");
	assert_string_equal(url.path, "/vol/vms");
	assert_int_equal(url.nfs_version, 4);
	assert_int_equal(url.nfs_port, 2050);
	assert_int_equal(url.mount_port, 1);
	assert_int_equal(url.nconnect, 16);
	accept("iscsi://[fd00::1]:3261/iqn.2001-04.com.example:storage.disk1");
	assert_int_equal(url.kind, DS_URL_ISCSI);
	assert_string_equal(url.host, "fd00::1");
	assert_int_equal(url.port, 3261);
	assert_string_equal(url.iqn, "iqn.2001-04.com.example:storage.disk1");
	accept("vmfs+iscsi://10.0.0.1/iqn.2001-04.com.example:x/7");
	assert_int_equal(url.kind, DS_URL_VMFS_ISCSI);
	assert_int_equal(url.lun, 7);
	accept("vmfs:///dev/sdb1?extent=/dev/sdc1&extent=/dev/sdd%31");
	assert_int_equal(url.kind, DS_URL_VMFS);
	assert_int_equal(url.extent_count, 2);
	assert_string_equal(url.extents[1], "/dev/sdd1");
	accept("nbd://host:10809/export%2Fa");
	assert_int_equal(url.kind, DS_URL_NBD);
	assert_string_equal(url.path, "export/a");
	assert_int_equal(url.port, 10809);
	accept("nbd://host");
	assert_string_equal(url.path, "");
	accept("nbd+unix:///?socket=/run/x.sock");
	assert_int_equal(url.kind, DS_URL_NBD_UNIX);
	assert_string_equal(url.socket, "/run/x.sock");
	assert_string_equal(url.path, "");
}

static void test_url_secrets_are_refused_and_never_shown(void **state)
{
	static const char *const urls[] = {
		"iscsi://admin:hunter2@host/iqn.2001-04.com.example:x",
		"iscsi://admin%hunter2@host/iqn.2001-04.com.example:x",
		"nfs://hunter2@host/export",
		"dir://a:hunter2@/srv",
		"nbd://host/export?password=hunter2",
		"nbd+unix:///x?socket=/s&tls-psk-file=/hunter2",
		"nfs://host/export?USER=hunter2",
		"nfs://host/export?secret",
		"iscsi://host/iqn.2001-04.com.example:x?chap=hunter2",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(urls); i++) {
		struct err err = { 0 };

		assert_int_not_equal(ds_url_parse(urls[i], &url, &err), 0);
		if (err.id != ERR_DS_SECRET_IN_URL)
			fail_msg("'%s': %s", urls[i], err.cause);
		assert_null(strstr(err.cause, "hunter2"));
		assert_null(strstr(err.remedy, "hunter2"));
	}
}

static void test_url_bad_ones(void **state)
{
	static const char *const urls[] = {
		"", "dir", "dir:", "dir:/srv", "dir://", "dir://srv", "dir://host/srv", "file:///srv",
		"DIR:///srv", "dir:///srv/../etc", "dir:///srv/.", "dir:///./srv", "dir:///srv%",
		"dir:///srv%2", "dir:///srv%zz", "dir:///srv%00x", "dir:///srv%0a", "dir:///a\nb",
		"dir:///a%ff", "dir:///srv?x=1", "dir:///srv#frag", "dir:///srv?", /* see below */
		"nfs:///export", "nfs://host", "nfs://host:0/x", "nfs://host:65536/x",
		"nfs://host:/x", "nfs://host:1x/x", "nfs://-host/x", "nfs://ho st/x",
		"nfs://host/x?version=2", "nfs://host/x?version=5", "nfs://host/x?version=",
		"nfs://host/x?version=3&version=4", "nfs://host/x?version=3&",
		"nfs://host/x?version", "nfs://host/x?nconnect=17", "nfs://host/x?nconnect=-1",
		"nfs://host/x?nfsport=99999999999", "nfs://[::1/x", "nfs://[::1]x/x",
		"nfs://[zz]/x", "iscsi://host", "iscsi://host/", "iscsi://host/disk1",
		"iscsi://host/iqn.", "iscsi://host/iqn.a b", "iscsi://host/iqn.2001-04.com.x/0",
		"vmfs+iscsi://host/iqn.2001-04.com.x", "vmfs+iscsi://host/iqn.2001-04.com.x/",
		"vmfs+iscsi://host/iqn.2001-04.com.x/16384",
		"vmfs+iscsi://host/iqn.2001-04.com.x/1/2", "vmfs:///dev/sda?extent=sdb",
		"vmfs:///dev/sda?extent=/../sdb", "nbd+unix:///x", "nbd+unix:///x?socket=rel",
		"nbd+unix://host/x?socket=/s", "nbd+unix:///x?socket=/a&socket=/b",
		"nbd+unix:///x?socket=", "nbds://host/x",
	};
	char text[DS_URL_BYTES + 8];

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(urls); i++) {
		if (strcmp(urls[i], "dir:///srv?") == 0) {
			accept(urls[i]);        /* an empty query says nothing */
			continue;
		}
		refuse(urls[i], ERR_DS_BAD_URL);
	}
	memset(text, 'a', sizeof(text));
	memcpy(text, "dir:///", 7);
	text[DS_URL_BYTES] = 0;
	refuse(text, ERR_DS_BAD_URL);
	text[DS_URL_BYTES - 1] = 0;
	accept(text);
	assert_int_equal(strlen(url.path), DS_URL_BYTES - 1 - 6);
}

static void test_url_bounds_of_lists_and_names(void **state)
{
	char text[DS_URL_BYTES] = "vmfs:///d?", host[400];

	(void)state;
	for (int i = 0; i < DS_URL_EXTENT_MAX; i++)
		strcat(text, i ? "&extent=/e" : "extent=/e");
	accept(text);
	assert_int_equal(url.extent_count, DS_URL_EXTENT_MAX);
	strcat(text, "&extent=/e");
	refuse(text, ERR_DS_BAD_URL);
	memset(host, 'h', sizeof(host));
	snprintf(text, sizeof(text), "nbd://%.253s/x", host);
	accept(text);
	snprintf(text, sizeof(text), "nbd://%.254s/x", host);
	refuse(text, ERR_DS_BAD_URL);
	snprintf(text, sizeof(text), "iscsi://h/iqn.%.219s", host);
	accept(text);
	snprintf(text, sizeof(text), "iscsi://h/iqn.%.220s", host);
	refuse(text, ERR_DS_BAD_URL);
	snprintf(text, sizeof(text), "nbd+unix:///?socket=/%.106s", host);
	accept(text);
	snprintf(text, sizeof(text), "nbd+unix:///?socket=/%.107s", host);
	refuse(text, ERR_DS_BAD_URL);
}

/* ---- paths ---- */

static int check_path(const char *path)
{
	struct err err = { 0 };
	int rc = ds_path_check(path, false, &err);

	if (rc)
		assert_int_equal(err.id, ERR_DS_PATH_ESCAPE);
	return rc;
}

static void test_path_good_and_bad(void **state)
{
	static const char *const good[] = {
		"a", "a/b", "web01/web01.vmdk", "..a", "a..", "...", ".hidden", "a b", "\xc3\xa4/x",
		"a:b", "-", "a\\b",
	};
	static const char *const bad[] = {
		"", "/", "/a", "a/", "a//b", "//", ".", "..", "./a", "../a", "a/..", "a/../b",
		"a/.", "a/./b", "a\nb", "a\x7f", "a\x01", "\xff", "\xc3", "\xc0\xaf", "a/\xed\xa0\x80",
		"\xf4\x90\x80\x80", "\xe0\x80\x80", ".x.blkmirror-tmp", "a/.x.BLKMIRROR-TMP",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(good); i++)
		if (check_path(good[i]))
			fail_msg("'%s' is refused", good[i]);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		if (!check_path(bad[i]))
			fail_msg("'%s' is accepted", bad[i]);
	assert_int_equal(ds_path_check("", true, NULL), 0);
}

static void test_path_bounds(void **state)
{
	char path[DS_PATH_BYTES + 300];

	(void)state;
	memset(path, 'a', sizeof(path));
	path[DS_PATH_PART_BYTES_MAX] = 0;
	assert_int_equal(check_path(path), 0);
	path[DS_PATH_PART_BYTES_MAX] = 'a';
	path[DS_PATH_PART_BYTES_MAX + 1] = 0;
	assert_int_not_equal(check_path(path), 0);
	/* Many parts of 31 bytes: the length counts, not only the parts. */
	memset(path, 'a', sizeof(path));
	for (size_t at = 127; at < sizeof(path); at += 128)
		path[at] = '/';
	path[DS_PATH_BYTES - 2] = 0;
	assert_int_equal(check_path(path), 0);
	path[DS_PATH_BYTES - 2] = 'a';
	path[DS_PATH_BYTES] = 0;
	assert_int_not_equal(check_path(path), 0);
	path[0] = 0;
	for (int i = 0; i < DS_PATH_DEPTH_MAX; i++)
		strcat(path, i ? "/a" : "a");
	assert_int_equal(check_path(path), 0);
	strcat(path, "/a");
	assert_int_not_equal(check_path(path), 0);
}

static void test_path_last(void **state)
{
	size_t parent_len;

	(void)state;
	assert_string_equal(ds_path_last("a/b/c", &parent_len), "c");
	assert_int_equal(parent_len, 3);
	assert_string_equal(ds_path_last("a", &parent_len), "a");
	assert_int_equal(parent_len, 0);
	assert_true(ds_path_has_suffix("x.VMDK", ".vmdk"));
	assert_false(ds_path_has_suffix(".vmdk", ".vmdk"));
}

/* ---- names ---- */

static void test_names(void **state)
{
	char name[DS_NAME_BYTES], path[DS_PATH_BYTES], text[80];
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ds_name_parse("ds1:web/a:b.vmdk", name, path, &err), 0);
	assert_string_equal(name, "ds1");
	assert_string_equal(path, "web/a:b.vmdk");
	assert_int_not_equal(ds_name_parse("ds1", name, path, &err), 0);
	assert_int_equal(err.id, ERR_USAGE);
	assert_int_not_equal(ds_name_parse("-ds:x", name, path, &err), 0);
	assert_int_equal(err.id, ERR_BAD_NAME);
	assert_int_not_equal(ds_name_parse(":x", name, path, &err), 0);
	assert_int_equal(err.id, ERR_BAD_NAME);
	assert_int_not_equal(ds_name_parse("ds:", name, path, &err), 0);
	assert_int_equal(err.id, ERR_DS_PATH_ESCAPE);
	assert_int_not_equal(ds_name_parse("ds:../x", name, path, &err), 0);
	assert_int_equal(err.id, ERR_DS_PATH_ESCAPE);
	memset(text, 'a', sizeof(text));
	text[64] = 0;
	assert_true(ds_name_is_valid(text));
	text[64] = 'a';
	text[65] = 0;
	assert_false(ds_name_is_valid(text));
	strcat(text, ":x");
	assert_int_not_equal(ds_name_parse(text, name, path, &err), 0);
	assert_int_equal(err.id, ERR_BAD_NAME);
	assert_false(ds_name_is_valid(""));
	assert_false(ds_name_is_valid("a b"));
	assert_false(ds_name_is_valid("a\xc3\xa4"));
	assert_true(ds_name_is_valid("9.a_B-c"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_url_every_kind),
		cmocka_unit_test(test_url_secrets_are_refused_and_never_shown),
		cmocka_unit_test(test_url_bad_ones),
		cmocka_unit_test(test_url_bounds_of_lists_and_names),
		cmocka_unit_test(test_path_good_and_bad),
		cmocka_unit_test(test_path_bounds),
		cmocka_unit_test(test_path_last),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
