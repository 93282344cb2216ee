/* SPDX-License-Identifier: Apache-2.0 */
/* test_vm_folder.c - a VMX that is told where its disks are now, and the files that go with it. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmotion/vm_folder.h"

/* ---- the VMX ---- */

static const char before[] =
	"#!/usr/bin/vmware\r\n"
	"displayName = \"web01\"\r\n"
	"memSize = \"64\"\r\n"
	"scsi0.present = \"TRUE\"\r\n"
	"scsi0.virtualDev = \"pvscsi\"\r\n"
	"  SCSI0:0.FileName   =   \"web01.vmdk\"   \r\n"
	"scsi0:0.present = \"TRUE\"\r\n"
	"scsi0:1.present = \"TRUE\"\r\n"
	"scsi0:1.fileName = \"/vmfs/volumes/ds2/web01/data.vmdk\"\r\n"
	"ide0:0.present = \"TRUE\"\r\n"
	"ide0:0.deviceType = \"cdrom-image\"\r\n"
	"ide0:0.fileName = \"tools.iso\"\r\n"
	"unknown.fileName = \"web01.vmdk\"\r\n";

static const struct vm_move_disk moves[] = {
	{ "scsi0:0", "ds1", "web01/web01.vmdk", "ds3", "web01/web01.vmdk", PROVISION_SAME },
	{ "scsi0:1", "ds2", "web01/data.vmdk", "ds4", "web01/data_1.vmdk", PROVISION_SAME },
};

static struct vmx *parse(const char *text)
{
	struct vmx *vmx = NULL;
	struct err err = { 0 };

	if (vmx_parse(text, strlen(text), "t.vmx", &vmx, &err))
		fail_msg("%s", err.cause);
	return vmx;
}

static void rewrite(struct vmx *vmx, const char *home, bool want_changed)
{
	struct err err = { 0 };
	bool changed;

	if (vm_vmx_rewrite(vmx, "ds1", home, "web01/web01.vmx", moves, ARRAY_COUNT(moves), &changed,
			   &err))
		fail_msg("%s", err.cause);
	assert_int_equal(changed, want_changed);
}

static void assert_text(const struct vmx *vmx, const char *want)
{
	size_t len;
	const char *text = vmx_text(vmx, &len);

	if (len != strlen(want) || memcmp(text, want, len) != 0)
		fail_msg("%.*s", (int)len, text);
}

/* The text with what stands there replaced. */
static char *with(const char *text, const char *what, const char *by)
{
	const char *at = strstr(text, what);
	char *out = malloc(strlen(text) + strlen(by) + 1);

	assert_non_null(at);
	sprintf(out, "%.*s%s%s", (int)(at - text), text, by, at + strlen(what));
	return out;
}

/* In its place: only what moved is touched, and a second time nothing. */
static void test_in_place(void **state)
{
	struct vmx *vmx = parse(before);
	char *one = with(before, "\"web01.vmdk\"   ", "\"[ds3] web01/web01.vmdk\"   ");
	char *both = with(one, "/vmfs/volumes/ds2/web01/data.vmdk", "[ds4] web01/data_1.vmdk");

	(void)state;
	rewrite(vmx, "ds1", true);
	assert_text(vmx, both);
	rewrite(vmx, "ds1", false);
	assert_text(vmx, both);
	vmx_free(vmx);
	free(one);
	free(both);
}

/* For another datastore: what stays behind is named with its own, what is beside it by name. */
static void test_for_another_place(void **state)
{
	struct vmx *vmx = parse(before);
	char *two = with(before, "/vmfs/volumes/ds2/web01/data.vmdk", "[ds4] web01/data_1.vmdk");
	char *three = with(two, "\"tools.iso\"", "\"[ds1] web01/tools.iso\"");

	(void)state;
	rewrite(vmx, "ds3", true);
	assert_text(vmx, three);
	vmx_free(vmx);
	free(two);
	free(three);
}

/* A VMX that was edited meanwhile to name something else is left as it is. */
static void test_what_is_not_the_source(void **state)
{
	char *edited = with(before, "\"web01.vmdk\"   ", "\"other.vmdk\"   ");
	char *want = with(edited, "/vmfs/volumes/ds2/web01/data.vmdk", "[ds4] web01/data_1.vmdk");
	struct vmx *vmx = parse(edited);

	(void)state;
	rewrite(vmx, "ds1", true);
	assert_text(vmx, want);
	vmx_free(vmx);
	free(edited);
	free(want);
}

static void test_refused_vmx(void **state)
{
	struct vmx *vmx = parse("displayName = \"x\"\nmemSize = \"lots\"\n");
	struct err err = { 0 };
	bool changed;

	(void)state;
	assert_int_equal(vm_vmx_rewrite(vmx, "ds1", "ds1", "x.vmx", NULL, 0, &changed, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMX_BAD_VALUE);
	vmx_free(vmx);
}

/* The memory image goes with the VMX: it is named as one beside it. */
static void test_suspended(void **state)
{
	struct vmx *vmx = parse("displayName = \"x\"\nmemSize = \"4\"\n"
				"blkmirror.suspend.fileName = \"[ds1] web01/x.blkmirror-vmss\"\n");
	char value[128];

	(void)state;
	rewrite(vmx, "ds3", true);
	assert_int_equal(vmx_get(vmx, "blkmirror.suspend.fileName", value, sizeof(value), NULL), 0);
	assert_string_equal(value, "x.blkmirror-vmss");
	vmx_free(vmx);
}

/* ---- files ---- */

static char base[64];
static struct loop *loop;
static struct datastore *stores[2];
static struct err err;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static const char *in(const char *name)
{
	static char path[4][256];
	static unsigned next;
	char *out = path[next++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", base, name);
	return out;
}

static void put(const char *name, const char *text, off_t size)
{
	int fd = open(in(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	if (size)
		assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(in(name), &st) == 0;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(base, "/tmp/test_vm_folder.XXXXXX");
	assert_non_null(mkdtemp(base));
	loop = loop_new();
	for (int i = 0; i < 2; i++) {
		char url[128], name[] = "ds1";
		struct ds_config config = { .name = name, .url = url };

		name[2] = (char)('1' + i);
		snprintf(url, sizeof(url), "dir://%s", in(name));
		assert_int_equal(mkdir(in(name), 0700), 0);
		assert_int_equal(datastore_open(loop, &config, &stores[i], &err), 0);
	}
	assert_int_equal(mkdir(in("ds1/web01"), 0700), 0);
	put("ds1/web01/web01.vmx", before, 0);
	put("ds1/web01/notes.txt", "notes", 0);
	put("ds1/web01/web01.nvram", "nvram", 0);
	put("ds1/web01/tools.iso", "an image", 0);
	put("ds1/web01/old.vmdk", "# no disk", 0);
	put("ds1/web01/x.blkmirror-vmss", "memory", 0);
	put("ds1/web01/vmware.log", "much", VM_FOLDER_FILE_BYTES + 1);
	put("outside", "secret", 0);
	assert_int_equal(symlink("../../outside", in("ds1/web01/out.txt")), 0);
	assert_int_equal(symlink("notes.txt", in("ds1/web01/link.txt")), 0);
	assert_int_equal(mkdir(in("ds1/web01/folder"), 0700), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		datastore_close(stores[i]);
	loop_free(loop);
	return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void read_folder(struct vm_folder *folder)
{
	struct vmx *vmx = parse(before);
	struct vm_findings findings = { 0 };
	struct vm_config *config = NULL;

	assert_int_equal(vm_config_read(vmx, "ds1", "web01/web01.vmx", &config, &findings), 0);
	if (vm_folder_read(stores[0], config, folder, &err))
		fail_msg("%s", err.cause);
	free(config);
	vmx_free(vmx);
}

static void test_what_goes_along(void **state)
{
	struct vm_folder folder;

	(void)state;
	read_folder(&folder);
	assert_int_equal(folder.count, 2);
	assert_string_equal(folder.files[0].name, "notes.txt");
	assert_string_equal(folder.files[1].name, "web01.nvram");
	assert_memory_equal(folder.files[1].bytes, "nvram", 5);
	assert_int_equal(folder.left_count, 2);         /* the log and the link */
	assert_int_equal(vm_folder_write(stores[1], "web01/web01.vmx", &folder, &err), 0);
	assert_true(exists("ds2/web01/notes.txt"));
	/* Again: what is there is ours. */
	assert_int_equal(vm_folder_write(stores[1], "web01/web01.vmx", &folder, &err), 0);
	vm_folder_release(&folder);
}

static void test_never_over_others(void **state)
{
	struct vm_folder folder;

	(void)state;
	read_folder(&folder);
	assert_int_equal(mkdir(in("ds2/web01"), 0700), 0);
	put("ds2/web01/notes.txt", "NOTES", 0);
	assert_int_equal(vm_folder_write(stores[1], "web01/web01.vmx", &folder, &err), -EEXIST);
	assert_int_equal(err.id, ERR_DISK_EXISTS);
	put("ds2/web01/notes.txt", "notes and more", 0);
	assert_int_equal(vm_folder_write(stores[1], "web01/web01.vmx", &folder, &err), -EEXIST);
	vm_folder_release(&folder);
}

/* R-J5: by what they hold, not by their names. */
static void test_deletes_what_was_copied(void **state)
{
	struct vm_folder folder;

	(void)state;
	read_folder(&folder);
	put("ds1/web01/notes.txt", "newer", 0);
	vm_folder_delete(stores[0], "web01/web01.vmx", &folder);
	assert_true(exists("ds1/web01/notes.txt"));
	assert_false(exists("ds1/web01/web01.nvram"));
	assert_true(exists("ds1/web01/web01.vmx"));
	assert_true(exists("ds1/web01/link.txt"));
	vm_folder_release(&folder);
}

static void test_folder_goes_with_its_last_file(void **state)
{
	(void)state;
	assert_int_equal(ds_file_write(stores[1], "x/x.vmx", "x", 1, true, &err), 0);
	assert_int_equal(ds_file_write(stores[1], "x/y", "y", 1, true, &err), 0);
	assert_int_equal(ds_file_delete(stores[1], "x/y", &err), 0);
	assert_true(exists("ds2/x"));
	assert_int_equal(ds_file_delete(stores[1], "x/x.vmx", &err), 0);
	assert_false(exists("ds2/x"));
}

static void test_image(void **state)
{
	char one[3 * 4096 + 7], two[sizeof(one)];
	int source = open(in("image"), O_RDWR | O_CREAT, 0600), target = -1, full;

	(void)state;
	for (size_t i = 0; i < sizeof(one); i++)
		one[i] = (char)(i * 7);
	assert_int_equal(pwrite(source, one, sizeof(one), 5 << 20), sizeof(one));
	assert_int_equal(ds_file_descriptor(stores[1], "new/image", true, &target, &err), 0);
	assert_int_equal(vm_image_copy(source, target, &err), 0);
	assert_int_equal(lseek(target, 0, SEEK_END), (5 << 20) + (off_t)sizeof(one));
	assert_int_equal(pread(target, two, sizeof(two), 5 << 20), sizeof(two));
	assert_memory_equal(one, two, sizeof(one));
	close(target);
	full = open("/dev/full", O_RDWR);
	assert_int_equal(vm_image_copy(source, full, &err), -ENOSPC);
	assert_int_equal(err.id, ERR_DS_IO);
	close(full);
	close(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_for_another_place),
		cmocka_unit_test(test_what_is_not_the_source),
		cmocka_unit_test(test_refused_vmx),
		cmocka_unit_test(test_suspended),
		cmocka_unit_test_setup_teardown(test_what_goes_along, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_never_over_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deletes_what_was_copied, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_folder_goes_with_its_last_file, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_image, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
