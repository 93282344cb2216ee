/* SPDX-License-Identifier: Apache-2.0 */
/* test_vmx.c - VMX files keep every byte that an edit does not mean; bad ones are refused by name. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "vmotion/vmx.h"
#include "vmotion/vmx_private.h"

static struct vmx *must_parse(const char *text)
{
	struct vmx *vmx = NULL;
	struct err err = { 0 };

	if (vmx_parse(text, strlen(text), "t.vmx", &vmx, &err))
		fail_msg("%s: %s", text, err.cause);
	return vmx;
}

static void assert_text(const struct vmx *vmx, const char *want)
{
	size_t len;
	const char *text = vmx_text(vmx, &len);

	assert_int_equal(len, strlen(want));
	assert_string_equal(text, want);
}

static void assert_value(const struct vmx *vmx, const char *key, const char *want)
{
	char value[VMX_VALUE_BYTES];
	struct err err = { 0 };
	int rc = vmx_get(vmx, key, value, sizeof(value), &err);

	if (rc)
		fail_msg("%s: %d %s", key, rc, err.cause);
	assert_string_equal(value, want);
}

/* ---- reading ---- */

static void test_spellings(void **state)
{
	static const struct {
		const char *line, *value;
	} rows[] = {
		{ "k = \"v\"", "v" },
		{ "k=\"v\"\r", "v" },
		{ "  k\t= \"v\"\t", "v" },
		{ "K = \"v\" # said", "v" },
		{ "k = v", "v" },
		{ "k = two words  # said", "two words" },
		{ "k =", "" },
		{ "k = \"\"", "" },
		{ "k = \"  v  \"", "  v  " },
		{ "k = \"a # b\"", "a # b" },
		{ "k = \"a|22b|7Cc|0Ad\"", "a\"b|c\nd" },
		{ "k = \"|c3|bc\"", "\xc3\xbc" },
		{ "k = \"a|b|\"", "a|b|" },
		{ "k = \"x = y\"", "x = y" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct vmx *vmx = must_parse(rows[i].line);

		assert_value(vmx, "k", rows[i].value);
		assert_text(vmx, rows[i].line);
		vmx_free(vmx);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text;
		enum err_id id;
		const char *says;
	} rows[] = {
		{ "a = \"1\"\nb\n", ERR_VMX_SYNTAX, "line 2" },
		{ "= \"1\"\n", ERR_VMX_SYNTAX, "line 1" },
		{ "# c\n\na = \"1\nb = \"2\"", ERR_VMX_SYNTAX, "line 3 has no closing quote" },
		{ "a = \"1\" 2\n", ERR_VMX_SYNTAX, "goes on" },
		{ "a = x\"1\"\n", ERR_VMX_SYNTAX, "stray quote" },
		{ "a b = \"1\"\n", ERR_VMX_SYNTAX, "line 1" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct vmx *vmx = NULL;
		struct err err = { 0 };

		assert_int_equal(vmx_parse(rows[i].text, strlen(rows[i].text), "t.vmx", &vmx, &err),
				 -EINVAL);
		assert_null(vmx);
		assert_int_equal(err.id, rows[i].id);
		if (!strstr(err.cause, rows[i].says))
			fail_msg("'%s' does not say '%s'", err.cause, rows[i].says);
	}
}

static void test_bounds(void **state)
{
	size_t len = VMX_TEXT_MAX_BYTES + 1;
	char *text = malloc(len);
	struct vmx *vmx = NULL;
	struct err err = { 0 };

	(void)state;
	assert_non_null(text);
	memset(text, '\n', len);
	assert_int_equal(vmx_parse(text, len, "t.vmx", &vmx, &err), -EFBIG);
	assert_int_equal(err.id, ERR_VMX_LIMIT);
	assert_int_equal(vmx_parse(text, len - 1, "t.vmx", &vmx, NULL), 0);
	vmx_free(vmx);
	for (size_t i = 0; i < VMX_ENTRIES_MAX + 1; i++)
		memcpy(text + 4 * i, "a=1\n", 4);
	assert_int_equal(vmx_parse(text, 4 * VMX_ENTRIES_MAX, "t.vmx", &vmx, NULL), 0);
	vmx_free(vmx);
	assert_int_equal(vmx_parse(text, 4 * (VMX_ENTRIES_MAX + 1), "t.vmx", &vmx, NULL), -EFBIG);
	assert_int_equal(vmx_parse("a=\0", 3, "t.vmx", &vmx, &err), -EINVAL);
	memset(text, 'k', VMX_KEY_BYTES);
	text[VMX_KEY_BYTES] = '=';
	assert_int_equal(vmx_parse(text, VMX_KEY_BYTES + 1, "t.vmx", &vmx, &err), -EINVAL);
	assert_int_equal(vmx_parse(text + 1, VMX_KEY_BYTES, "t.vmx", &vmx, &err), 0);
	vmx_free(vmx);
	free(text);
}

static void test_duplicates_are_nobodys(void **state)
{
	struct vmx *vmx = must_parse("a = \"1\"\nA = \"2\"\nb = \"3\"\n");
	char value[8];
	struct err err = { 0 };

	(void)state;
	assert_int_equal(vmx_get(vmx, "a", value, sizeof(value), &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMX_DUPLICATE);
	assert_int_equal(vmx_set(vmx, "a", "4", &err), -EINVAL);
	assert_text(vmx, "a = \"1\"\nA = \"2\"\nb = \"3\"\n");
	assert_true(vmx_has(vmx, "a"));
	assert_int_equal(vmx_remove(vmx, "a"), 2);
	assert_text(vmx, "b = \"3\"\n");
	assert_int_equal(vmx_get(vmx, "a", value, sizeof(value), &err), -ENOENT);
	vmx_free(vmx);
}

static void test_encodings(void **state)
{
	static const struct {
		const char *encoding, *raw, *value; /* value NULL: refused */
	} rows[] = {
		{ "UTF-8", "\xc3\xbc", "\xc3\xbc" },
		{ "utf-8", "\xfc", NULL },
		{ "UTF-8", "|fc", NULL },
		{ "UTF-8", "\xc0\x80", NULL },
		{ "windows-1252", "\xfc \x96 \x80", "\xc3\xbc \xe2\x80\x93 \xe2\x82\xac" },
		{ "windows-1252", "\x81", NULL },
		{ "ISO-8859-1", "\xe4", "\xc3\xa4" },
		{ "US-ASCII", "plain", "plain" },
		{ "US-ASCII", "\xe4", NULL },
		{ "Shift_JIS", "plain", "plain" },
		{ "Shift_JIS", "\x83\x65", NULL },
		{ "UTF-8", "a|00b", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		char text[128], value[32];
		struct err err = { 0 };
		struct vmx *vmx;
		int rc;

		snprintf(text, sizeof(text), ".encoding = \"%s\"\nk = \"%s\"\nother = \"x\"\n",
			 rows[i].encoding, rows[i].raw);
		vmx = must_parse(text);
		rc = vmx_get(vmx, "k", value, sizeof(value), &err);
		assert_int_equal(rc, rows[i].value ? 0 : -EINVAL);
		if (rows[i].value) {
			assert_string_equal(value, rows[i].value);
			/* Written back, it is the same byte for byte. */
			assert_int_equal(vmx_set(vmx, "k", value, NULL), 0);
		} else {
			assert_int_equal(err.id, ERR_VMX_BAD_VALUE);
			assert_int_equal(vmx_set(vmx, "other", "y", NULL), 0);
			assert_int_equal(vmx_set(vmx, "other", "x", NULL), 0);
		}
		assert_text(vmx, text);
		vmx_free(vmx);
	}
}

static void test_value_too_long_for_reader(void **state)
{
	struct vmx *vmx = must_parse("k = \"1234567\"\n");
	char value[8];
	struct err err = { 0 };

	(void)state;
	assert_int_equal(vmx_get(vmx, "k", value, 7, &err), -EINVAL);
	assert_int_equal(vmx_get(vmx, "k", value, 8, &err), 0);
	vmx_free(vmx);
}

/* ---- edits ---- */

static void test_set_touches_one_value(void **state)
{
	struct vmx *vmx = must_parse("#c\r\n  Name =\t\"old\"  # why\r\n\r\nn = 5 # five\r\nlast=\"1\"");

	(void)state;
	assert_int_equal(vmx_set(vmx, "name", "ne\"w|", NULL), 0);
	assert_text(vmx, "#c\r\n  Name =\t\"ne|22w|7C\"  # why\r\n\r\nn = 5 # five\r\nlast=\"1\"");
	assert_int_equal(vmx_set(vmx, "N", "6", NULL), 0);
	assert_text(vmx,
		    "#c\r\n  Name =\t\"ne|22w|7C\"  # why\r\n\r\nn = \"6\" # five\r\nlast=\"1\"");
	assert_int_equal(vmx_set(vmx, "added", "#1\n", NULL), 0);
	assert_text(vmx, "#c\r\n  Name =\t\"ne|22w|7C\"  # why\r\n\r\nn = \"6\" # five\r\n"
			 "last=\"1\"\r\nadded = \"|231|0A\"\r\n");
	assert_value(vmx, "added", "#1\n");
	assert_int_equal(vmx_remove(vmx, "NAME"), 1);
	assert_int_equal(vmx_remove(vmx, "added"), 1);
	assert_text(vmx, "#c\r\n\r\nn = \"6\" # five\r\nlast=\"1\"\r\n");
	assert_int_equal(vmx_remove(vmx, "added"), 0);
	vmx_free(vmx);
}

static void test_bad_sets_change_nothing(void **state)
{
	char *longest = malloc(VMX_VALUE_BYTES + 1);
	struct vmx *vmx = must_parse(".encoding = \"windows-1252\"\nk = \"v\"\n");
	struct err err = { 0 };

	(void)state;
	assert_non_null(longest);
	memset(longest, '"', VMX_VALUE_BYTES);
	longest[VMX_VALUE_BYTES] = '\0';
	assert_int_equal(vmx_set(vmx, "k", longest, &err), -EINVAL);
	assert_int_equal(vmx_set(vmx, "k", "\xe6\x95\xb0", &err), -EINVAL);
	assert_int_equal(vmx_set(vmx, "k", "\xff", &err), -EINVAL);
	assert_int_equal(vmx_set(vmx, "k", "\xf0\x9f\x98\x80", &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMX_BAD_VALUE);
	assert_int_equal(vmx_set(vmx, "a b", "v", &err), -EINVAL);
	assert_int_equal(vmx_set(vmx, "", "v", &err), -EINVAL);
	assert_int_equal(vmx_set(vmx, "a\nb", "v", &err), -EINVAL);
	assert_text(vmx, ".encoding = \"windows-1252\"\nk = \"v\"\n");
	longest[VMX_VALUE_BYTES - 1] = '\0';
	assert_int_equal(vmx_set(vmx, "k", longest, &err), 0);
	assert_value(vmx, "k", longest);
	vmx_free(vmx);
	free(longest);
}

static void test_full_file_refuses_more(void **state)
{
	char *text = malloc(VMX_TEXT_MAX_BYTES);
	struct vmx *vmx = NULL;
	struct err err = { 0 };
	size_t len;

	(void)state;
	assert_non_null(text);
	memset(text, '\n', VMX_TEXT_MAX_BYTES);
	assert_int_equal(vmx_parse(text, VMX_TEXT_MAX_BYTES, "t.vmx", &vmx, NULL), 0);
	assert_int_equal(vmx_set(vmx, "k", "v", &err), -EFBIG);
	assert_int_equal(err.id, ERR_VMX_LIMIT);
	assert_memory_equal(vmx_text(vmx, &len), text, VMX_TEXT_MAX_BYTES);
	vmx_free(vmx);
	free(text);
}

/* A mark that comes to stand at the front by a removal is no byte order mark. */
static void test_byte_order_mark(void **state)
{
	struct vmx *vmx = must_parse("\xef\xbb\xbfname = \"v\"\n");

	(void)state;
	assert_value(vmx, "name", "v");
	assert_int_equal(vmx_set(vmx, "name", "w", NULL), 0);
	assert_text(vmx, "\xef\xbb\xbfname = \"w\"\n");
	assert_int_equal(vmx_remove(vmx, "name"), 1);
	assert_text(vmx, "\xef\xbb\xbf");
	vmx_free(vmx);
	vmx = must_parse("a = 1\n\xef\xbb\xbf= 2\n");
	assert_int_equal(vmx_remove(vmx, "a"), 1);
	assert_text(vmx, "\xef\xbb\xbf= 2\n");
	vmx_free(vmx);
}

static void test_new(void **state)
{
	struct vmx *vmx = NULL;

	(void)state;
	assert_int_equal(vmx_new("n.vmx", &vmx, NULL), 0);
	assert_int_equal(vmx_set(vmx, "displayName", "\xc3\xbc", NULL), 0);
	assert_text(vmx, ".encoding = \"UTF-8\"\ndisplayName = \"\xc3\xbc\"\n");
	assert_string_equal(vmx_name(vmx), "n.vmx");
	vmx_free(vmx);
}

/* ---- golden files: as ESXi and Workstation write them ---- */

#define GOLDEN "tests/golden/vmx"

static char *read_golden(const char *name, size_t *len)
{
	char path[512];
	char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	FILE *file;

	snprintf(path, sizeof(path), GOLDEN "/%s", name);
	file = fopen(path, "rb");
	if (!file || !bytes)
		fail_msg("cannot read %s", path);
	*len = fread(bytes, 1, VMX_TEXT_MAX_BYTES, file);
	fclose(file);
	return bytes;
}

/* Set each key to another value and back: the file is the same again, but for bare values. */
static void edit_and_back(struct vmx *vmx, const char *bytes, size_t len)
{
	char key[VMX_KEY_BYTES], value[VMX_VALUE_BYTES];
	size_t now_len;
	bool odd = strstr(vmx_name(vmx), "odd") != NULL;

	for (unsigned i = 0; vmx_key_at(vmx, i, key); i++) {
		assert_int_equal(vmx_get(vmx, key, value, sizeof(value), NULL), 0);
		if (strcasecmp(key, ".encoding") == 0)
			continue;
		assert_int_equal(vmx_set(vmx, key, "something else", NULL), 0);
		assert_value(vmx, key, "something else");
		assert_int_equal(vmx_set(vmx, key, value, NULL), 0);
	}
	assert_int_equal(vmx_set(vmx, "blkmirror.test", "1", NULL), 0);
	assert_int_equal(vmx_remove(vmx, "blkmirror.test"), 1);
	if (!odd)
		assert_memory_equal(vmx_text(vmx, &now_len), bytes, len);
}

static void test_golden(void **state)
{
	DIR *dir = opendir(GOLDEN);
	struct dirent *entry;
	unsigned count = 0;

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct err err = { 0 };
		struct vmx *vmx = NULL;
		size_t len, same_len;
		char *bytes;

		if (!strstr(entry->d_name, ".vmx"))
			continue;
		bytes = read_golden(entry->d_name, &len);
		if (vmx_parse(bytes, len, entry->d_name, &vmx, &err))
			fail_msg("%s", err.cause);
		assert_memory_equal(vmx_text(vmx, &same_len), bytes, len);
		assert_int_equal(same_len, len);
		edit_and_back(vmx, bytes, len);
		vmx_free(vmx);
		free(bytes);
		count++;
	}
	closedir(dir);
	assert_true(count >= 5);
}

static void test_golden_values(void **state)
{
	static const struct {
		const char *file, *key, *value;
	} rows[] = {
		{ "esxi-linux.vmx", "displayname", "web01 (B\xc3\xbcro \"K\xc3\xb6ln\")" },
		{ "esxi-linux.vmx", "annotation", "Frontend\nTicket #42" },
		{ "workstation-windows.vmx", "displayName",
		  "Buchhaltung S\xc3\xbc" "d \xe2\x80\x93 Test" },
		{ "workstation-odd.vmx", "displayName", "old" },
		{ "workstation-odd.vmx", "scsi0.virtualdev", "lsilogic" },
		{ "workstation-odd.vmx", "scsi0:0.fileName", "old disk.vmdk" },
		{ "workstation-odd.vmx", "pipe", "a|b|c|" },
		{ "esxi-crlf-bom.vmx", ".encoding", "UTF-8" },
		{ "esxi-crlf-bom.vmx", "scsi0:0.filename", "[san-1] db-02/db-02.vmdk" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct vmx *vmx = NULL;
		size_t len;
		char *bytes = read_golden(rows[i].file, &len);

		assert_int_equal(vmx_parse(bytes, len, rows[i].file, &vmx, NULL), 0);
		assert_value(vmx, rows[i].key, rows[i].value);
		vmx_free(vmx);
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spellings),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_duplicates_are_nobodys),
		cmocka_unit_test(test_encodings),
		cmocka_unit_test(test_value_too_long_for_reader),
		cmocka_unit_test(test_set_touches_one_value),
		cmocka_unit_test(test_bad_sets_change_nothing),
		cmocka_unit_test(test_full_file_refuses_more),
		cmocka_unit_test(test_byte_order_mark),
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_golden_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
