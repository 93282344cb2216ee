/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datastores/disk_format.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"
#include "datastores/vmdk.h"

/* As an ESXi 6 writes it: no space at keys of the header, tools' keys in the data base. */
static const char esxi[] = "# Disk DescriptorFile\n"
			   "version=1\n"
			   "encoding=\"UTF-8\"\n"
			   "CID=fffffffe\n"
			   "parentCID=ffffffff\n"
			   "isNativeSnapshot=\"no\"\n"
			   "createType=\"vmfs\"\n"
			   "\n"
			   "# Extent description\n"
			   "RW 8388608 VMFS \"web01-flat.vmdk\"\n"
			   "\n"
			   "# The Disk Data Base \n"
			   "#DDB\n"
			   "\n"
			   "ddb.adapterType = \"lsilogic\"\n"
			   "ddb.geometry.cylinders = \"522\"\n"
			   "ddb.geometry.heads = \"255\"\n"
			   "ddb.geometry.sectors = \"63\"\n"
			   "ddb.longContentID = \"9d6c5e4a8f2b1c3d0e7f6a5bfffffffe\"\n"
			   "ddb.thinProvisioned = \"1\"\n"
			   "ddb.toolsInstallType = \"4\"\n"
			   "ddb.uuid = \"60 00 C2 91 d2 05 3f 9e-7b 37 71 4a 7f 63 0e 01\"\n"
			   "ddb.virtualHWVersion = \"14\"\n";

static struct vmdk vmdk;
static struct err err;

static int parse(const char *text)
{
	memset(&err, 0, sizeof(err));
	return vmdk_parse(text, strlen(text), "web01.vmdk", &vmdk, &err);
}

/* `text` with its first `old` replaced by `fresh`. */
static char *with(const char *text, const char *old, const char *fresh)
{
	static char changed[4096];
	const char *at = strstr(text, old);

	assert_non_null(at);
	snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, fresh,
		 at + strlen(old));
	return changed;
}

static void refuse(const char *text, enum err_id id)
{
	if (parse(text) == 0)
		fail_msg("accepted:\n%s", text);
	if (err.id != id)
		fail_msg("%s (%s) for:\n%s", err_name(err.id), err.cause, text);
	assert_int_not_equal(err.remedy[0], 0);
}

static void accept(const char *text)
{
	if (parse(text))
		fail_msg("refused (%s):\n%s", err.cause, text);
}

static void test_golden_esxi(void **state)
{
	char value[64];

	(void)state;
	accept(esxi);
	assert_int_equal(vmdk.size_bytes, UINT64_C(8388608) * 512);
	assert_string_equal(vmdk.data_name, "web01-flat.vmdk");
	assert_true(vmdk.thin);
	assert_int_equal(vmdk.record.provision, PROVISION_THIN);
	assert_false(vmdk.record.assigned);
	assert_true(vmdk_get(&vmdk, "ddb.geometry.heads", value, sizeof(value)));
	assert_string_equal(value, "255");
	assert_false(vmdk_get(&vmdk, "ddb.none", value, sizeof(value)));
	assert_false(vmdk_get(&vmdk, "ddb.uuid", value, 8));
	assert_int_equal(vmdk.text_len, strlen(esxi));
	assert_memory_equal(vmdk.text, esxi, strlen(esxi));
}

static void test_golden_hosted(void **state)
{
	(void)state;
	/* Workstation: FLAT with an offset; tabs and spaces at will; no quotes. */
	accept("# Disk DescriptorFile\r\nversion = 1\r\nCID=7d0a3c5b\r\nparentCID = ffffffff\r\n"
	       "createType=\"monolithicFlat\"\r\n\r\n# Extent description\r\n"
	       "RW\t204800  FLAT \"my disk-flat.vmdk\"  0\r\n\r\n"
	       "ddb.adapterType = \"ide\"\r\n");
	assert_int_equal(vmdk.size_bytes, 204800 * 512);
	assert_string_equal(vmdk.data_name, "my disk-flat.vmdk");
	assert_false(vmdk.thin);
	assert_int_equal(vmdk.record.provision, PROVISION_SAME);
	accept("\n\n  # disk descriptorfile\nVERSION=3\nparentcid=FFFFFFFF\n"
	       "createtype=twoGbMaxExtentFlat\n  rw 2048 flat \"x-f001.vmdk\" 0");
	assert_int_equal(vmdk.size_bytes, 1 << 20);
	assert_string_equal(vmdk.data_name, "x-f001.vmdk");
}

/* As QEMU leaves it after a write: padded.  A zero inside is no padding. */
static void test_golden_padded(void **state)
{
	char text[4096] = "";

	(void)state;
	memcpy(text, esxi, strlen(esxi));
	assert_int_equal(vmdk_parse(text, sizeof(text), "web01.vmdk", &vmdk, &err), 0);
	assert_int_equal(vmdk.text_len, strlen(esxi));
	text[4095] = '\n';
	assert_int_equal(vmdk_parse(text, sizeof(text), "web01.vmdk", &vmdk, &err), -EINVAL);
	assert_int_equal(err.id, ERR_DISK_BAD_DESCRIPTOR);
}

static void test_refused_kinds(void **state)
{
	(void)state;
	refuse(with(esxi, "parentCID=ffffffff", "parentCID=12345678"), ERR_DISK_CHAIN);
	refuse(with(esxi, "isNativeSnapshot=\"no\"", "parentFileNameHint=\"base.vmdk\""),
	       ERR_DISK_CHAIN);
	refuse(with(esxi, "\"vmfs\"", "\"vmfsSparse\""), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "\"vmfs\"", "\"monolithicSparse\""), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "\"vmfs\"", "\"streamOptimized\""), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "\"vmfs\"", "\"vmfsRawDeviceMap\""), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "8388608 VMFS ", "8388608 SPARSE "), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "8388608 VMFS ", "8388608 SESPARSE "), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "8388608 VMFS ", "8388608 ZERO "), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "RW 8388608", "RDONLY 8388608"), ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "\"web01-flat.vmdk\"\n", "\"web01-flat.vmdk\"\nRW 2048 VMFS \"b-flat.vmdk\"\n"),
	       ERR_DISK_BAD_FORMAT);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "FLAT \"web01-flat.vmdk\" 128"),
	       ERR_DISK_BAD_FORMAT);
	refuse("KDMV\x01", ERR_DISK_BAD_FORMAT);
	refuse("COWD\x01", ERR_DISK_BAD_FORMAT);
}

static void test_refused_texts(void **state)
{
	(void)state;
	refuse("", ERR_DISK_BAD_DESCRIPTOR);
	refuse("\n\n", ERR_DISK_BAD_DESCRIPTOR);
	refuse("version=1\n", ERR_DISK_BAD_DESCRIPTOR);
	refuse("# Disk Descriptor\n", ERR_DISK_BAD_DESCRIPTOR);
	refuse("# Disk DescriptorFile\n", ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "version=1\n", ""), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "version=1\n", "version=9\n"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "parentCID=ffffffff\n", ""), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "createType=\"vmfs\"\n", ""), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "RW 8388608", "#W 8388608"), ERR_DISK_BAD_DESCRIPTOR);
	/* Twice what decides: another reader might believe the other one. */
	refuse(with(esxi, "version=1\n", "version=1\nparentCID=ffffffff\n"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "version=1\n", "version=1\nversion=1\n"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "version=1\n", "version=1\ncreateType=\"vmfs\"\n"),
	       ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "version=1\n", "version=1\nbell=\a\n"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "VMFS web01-flat.vmdk"),
	       ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "VMFS \"web01-flat.vmdk"),
	       ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "VMFS \"\""), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "VMFS \"web01-flat.vmdk\" x"),
	       ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "FLAT \"web01-flat.vmdk\""),
	       ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "VMFS \"web01-flat.vmdk\"", "VMFS"), ERR_DISK_BAD_DESCRIPTOR);
}

static void test_hostile_data_names(void **state)
{
	static const char *const names[] = {
		"\"/etc/passwd\"", "\"../x-flat.vmdk\"", "\"a/b-flat.vmdk\"", "\"..\"", "\".\"",
		"\"web01.vmdk\"", "\"WEB01.VMDK\"", "\"a\tb\"", "\"\xff-flat.vmdk\"",
		"\".x.blkmirror-tmp\"",
	};
	char longer[400], changed[8192];

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		refuse(with(esxi, "\"web01-flat.vmdk\"", names[i]), ERR_DISK_BAD_DESCRIPTOR);
	memset(longer, 'x', sizeof(longer));
	snprintf(changed, sizeof(changed), "%s",
		 with(esxi, "\"web01-flat.vmdk\"", "\"NAME\""));
	longer[DS_PATH_PART_BYTES_MAX] = 0;
	accept(with(changed, "NAME", longer));
	longer[DS_PATH_PART_BYTES_MAX] = 'x';
	longer[DS_PATH_PART_BYTES_MAX + 1] = 0;
	refuse(with(changed, "NAME", longer), ERR_DISK_BAD_DESCRIPTOR);
	longer[DS_PATH_PART_BYTES_MAX + 1] = 'x';
	longer[399] = 0;
	refuse(with(changed, "NAME", longer), ERR_DISK_BAD_DESCRIPTOR);
}

static void test_sizes(void **state)
{
	(void)state;
	refuse(with(esxi, "RW 8388608", "RW 2047"), ERR_DISK_BAD_SIZE);
	accept(with(esxi, "RW 8388608", "RW 2048"));
	accept(with(esxi, "RW 8388608", "RW 133143986176"));
	assert_int_equal(vmdk.size_bytes, DS_DISK_SIZE_MAX);
	refuse(with(esxi, "RW 8388608", "RW 133143986177"), ERR_DISK_BAD_SIZE);
	refuse(with(esxi, "RW 8388608", "RW 0"), ERR_DISK_BAD_SIZE);
	refuse(with(esxi, "RW 8388608", "RW -1"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "RW 8388608", "RW 0x1000"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "RW 8388608", "RW 36028797018963968000"), ERR_DISK_BAD_DESCRIPTOR);
	refuse(with(esxi, "RW 8388608", "RW 999999999999999999"), ERR_DISK_BAD_SIZE);
}

static void test_huge(void **state)
{
	char *text = malloc(VMDK_TEXT_BYTES + 1);
	size_t len = strlen(esxi);
	struct disk_record record;

	(void)state;
	assert_non_null(text);
	memset(text, '#', VMDK_TEXT_BYTES + 1);
	memcpy(text, esxi, len);
	assert_int_equal(vmdk_parse(text, VMDK_TEXT_BYTES, "web01.vmdk", &vmdk, &err), 0);
	assert_int_not_equal(vmdk_parse(text, VMDK_TEXT_BYTES + 1, "web01.vmdk", &vmdk, &err), 0);
	assert_int_equal(err.id, ERR_DISK_BAD_DESCRIPTOR);
	memcpy(text, "KDMV", 4);
	assert_int_not_equal(vmdk_parse(text, VMDK_TEXT_BYTES + 1, "web01.vmdk", &vmdk, &err), 0);
	assert_int_equal(err.id, ERR_DISK_BAD_FORMAT);
	/* No room for our keys: refused, and nothing changed. */
	memcpy(text, esxi, 4);
	assert_int_equal(vmdk_parse(text, VMDK_TEXT_BYTES, "web01.vmdk", &vmdk, &err), 0);
	assert_int_equal(disk_record_new(&record, NULL, &err), 0);
	assert_int_equal(vmdk_set_record(&vmdk, &record, &err), -EFBIG);
	assert_int_equal(vmdk.text_len, VMDK_TEXT_BYTES);
	assert_memory_equal(vmdk.text, text, VMDK_TEXT_BYTES);
	assert_false(vmdk.record.assigned);
	free(text);
}

static struct disk_record some_record(enum disk_role role)
{
	struct disk_record record;

	assert_int_equal(disk_record_new(&record, NULL, &err), 0);
	record.provision = PROVISION_EAGER;
	record.fresh = true;
	record.identity.generation = 41;
	record.identity.role = role;
	if (role == DISK_MOVING || role == DISK_INCOMING) {
		strcpy(record.identity.journal_id, "move-1.x_Y");
		memset(record.identity.host_uuid, 0xab, 16);
	}
	return record;
}

static void assert_same_record(const struct disk_record *a, const struct disk_record *b)
{
	assert_int_equal(a->assigned, b->assigned);
	assert_memory_equal(a->identity.uuid, b->identity.uuid, 16);
	assert_int_equal(a->identity.generation, b->identity.generation);
	assert_int_equal(a->identity.role, b->identity.role);
	assert_string_equal(a->identity.journal_id, b->identity.journal_id);
	assert_memory_equal(a->identity.host_uuid, b->identity.host_uuid, 16);
	assert_int_equal(a->provision, b->provision);
	assert_int_equal(a->fresh, b->fresh);
}

/* What we do not know stays, in order, with its line ends; what we set is read back. */
static void test_rewrite_keeps_the_rest(void **state)
{
	char crlf[4096], *at = crlf;
	struct disk_record record;

	(void)state;
	for (const char *from = esxi; *from; from++) {
		if (*from == '\n')
			*at++ = '\r';
		*at++ = *from;
	}
	*at = 0;
	for (int role = DISK_LIVE; role <= DISK_RETIRED; role++) {
		record = some_record((enum disk_role)role);
		accept(crlf);
		assert_int_equal(vmdk_set_record(&vmdk, &record, &err), 0);
		assert_same_record(&vmdk.record, &record);
		assert_memory_equal(vmdk.text, crlf, strlen(crlf));
		for (size_t i = 1; i < vmdk.text_len; i++)
			assert_true(vmdk.text[i] != '\n' || vmdk.text[i - 1] == '\r');
	}
	/* Again: replaced in place, so the length is that of the new values. */
	size_t len = vmdk.text_len;

	assert_int_equal(vmdk_set_record(&vmdk, &record, &err), 0);
	assert_int_equal(vmdk.text_len, len);
	assert_int_equal(vmdk_set_size(&vmdk, DS_DISK_SIZE_MAX, &err), 0);
	assert_int_equal(vmdk.size_bytes, DS_DISK_SIZE_MAX);
	assert_int_equal(vmdk.text_len, len + strlen("133143986176") - strlen("8388608"));
	assert_same_record(&vmdk.record, &record);
}

static void test_rewrite_without_last_newline(void **state)
{
	struct disk_record record = some_record(DISK_LIVE);
	static const char tail[] = "\nodd line\nddb.blkmirror.uuid = \"";
	char unknown[64];

	(void)state;
	accept("# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n"
	       "RW 2048 VMFS \"a-flat.vmdk\"\nddb.blkmirror.later = \"kept\"\nodd line");
	assert_int_equal(vmdk_set_record(&vmdk, &record, &err), 0);
	assert_non_null(memmem(vmdk.text, vmdk.text_len, tail, strlen(tail)));
	assert_true(vmdk_get(&vmdk, "ddb.blkmirror.later", unknown, sizeof(unknown)));
	assert_string_equal(unknown, "kept");
}

static void test_damaged_records(void **state)
{
	static const char *const changes[][2] = {
		{ "generation = \"41\"", "generation = \"0\"" },
		{ "generation = \"41\"", "generation = \"-1\"" },
		{ "generation = \"41\"", "generation = \"9999999999999999999\"" },
		{ "role = \"moving\"", "role = \"mowing\"" },
		{ "role = \"moving\"", "xole = \"moving\"" },
		{ "journal = \"move-1.x_Y\"", "journal = \"\"" },
		{ "journal = \"move-1.x_Y\"", "journal = \"a b\"" },
		{ "journal = \"move-1.x_Y\"",
		  "journal = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"" },
		{ "provision = \"eager\"", "provision = \"same\"" },
		{ "fresh = \"1\"", "fresh = \"2\"" },
		{ "uuid = \"", "uuid = \"x" },
		{ "fresh = \"1\"", "role = \"live\"" },
	};
	struct disk_record record = some_record(DISK_MOVING);
	char text[4096];

	(void)state;
	accept(esxi);
	assert_int_equal(vmdk_set_record(&vmdk, &record, &err), 0);
	snprintf(text, sizeof(text), "%.*s", (int)vmdk.text_len, vmdk.text);
	for (size_t i = 0; i < ARRAY_COUNT(changes); i++) {
		char old[80], fresh[80];

		snprintf(old, sizeof(old), "ddb.blkmirror.%s", changes[i][0]);
		snprintf(fresh, sizeof(fresh), "ddb.blkmirror.%s", changes[i][1]);
		refuse(with(text, old, fresh), ERR_DISK_BAD_DESCRIPTOR);
	}
}

static void test_format_reads_back(void **state)
{
	struct disk_record record = some_record(DISK_INCOMING);
	struct vmdk_spec spec = {
		.size_bytes = UINT64_C(64) << 20, .data_name = "n-flat.vmdk", .record = &record,
		.cid = 0x1234,
	};
	char value[80];

	(void)state;
	assert_int_equal(vmdk_format(&spec, &vmdk, &err), 0);
	assert_int_equal(vmdk.size_bytes, UINT64_C(64) << 20);
	assert_string_equal(vmdk.data_name, "n-flat.vmdk");
	assert_same_record(&vmdk.record, &record);
	assert_false(vmdk.thin);
	assert_true(vmdk_get(&vmdk, "CID", value, sizeof(value)));
	assert_string_equal(value, "00001234");
	assert_true(vmdk_get(&vmdk, "ddb.uuid", value, sizeof(value)));
	assert_int_equal(strlen(value), 47);
	assert_int_equal(value[23], '-');
	record.provision = PROVISION_THIN;
	assert_int_equal(vmdk_format(&spec, &vmdk, &err), 0);
	assert_true(vmdk.thin);
}

/* ---- sidecars ---- */

static void test_sidecar_round_trip_and_damage(void **state)
{
	char text[SIDECAR_BYTES_MAX];

	(void)state;
	for (int role = DISK_LIVE; role <= DISK_RETIRED; role++) {
		struct disk_record record = some_record((enum disk_role)role), back;
		size_t len = sidecar_format(&record, text);

		assert_int_equal(sidecar_parse(text, len, "x", &back, &err), 0);
		assert_same_record(&back, &record);
		/* Any one changed byte is seen; so is any cut. */
		for (size_t i = 0; i < len; i++) {
			text[i] ^= 1;
			assert_int_equal(sidecar_parse(text, len, "x", &back, &err), -EINVAL);
			assert_int_equal(err.id, ERR_DISK_BAD_DESCRIPTOR);
			text[i] ^= 1;
			assert_int_equal(sidecar_parse(text, i, "x", &back, &err), -EINVAL);
		}
	}
}

/* ---- foreign formats ---- */

static void test_formats(void **state)
{
	uint8_t head[512] = { 0 }, tail[512] = { 0 };

	(void)state;
	assert_null(disk_format_of_bytes(head, sizeof(head), tail, sizeof(tail)));
	memcpy(head, "QFI\xfb", 4);
	assert_string_equal(disk_format_of_bytes(head, sizeof(head), tail, 512), "qcow2");
	assert_null(disk_format_of_bytes(head, 3, NULL, 0));
	memset(head, 0, sizeof(head));
	memcpy(head + 64, "\x7f\x10\xda\xbe", 4);
	assert_string_equal(disk_format_of_bytes(head, sizeof(head), NULL, 0), "VDI");
	memset(head, 0, sizeof(head));
	memcpy(tail, "conectix", 8);
	assert_string_equal(disk_format_of_bytes(head, sizeof(head), tail, 512), "fixed VHD");
}

/* ---- gates (R-J4, R-J5) ---- */

static void test_gate_matrix(void **state)
{
	(void)state;
	for (int role = DISK_LIVE; role <= DISK_RETIRED; role++) {
		struct disk_record record = some_record((enum disk_role)role);
		const struct disk_identity *who = &record.identity;
		bool moving = role == DISK_MOVING || role == DISK_INCOMING;
		int plain = disk_identity_may_open(who, 0, NULL, "p", &err);
		enum err_id plain_id = err.id;

		assert_int_equal(plain, role == DISK_LIVE ? 0 : -EBUSY);
		if (moving)
			assert_int_equal(plain_id, ERR_DISK_MARKED);
		if (role == DISK_RETIRED)
			assert_int_equal(plain_id, ERR_DISK_RETIRED);
		assert_int_equal(disk_identity_may_open(who, DS_OPEN_FOR_MOVE, "move-1.x_Y", "p", &err),
				 role == DISK_RETIRED ? -EBUSY : 0);
		assert_int_equal(disk_identity_may_open(who, DS_OPEN_FOR_MOVE, "move-2", "p", &err),
				 role == DISK_LIVE ? 0 : -EBUSY);
		assert_int_equal(disk_identity_may_open(who, 0, "move-1.x_Y", "p", &err),
				 role == DISK_LIVE ? 0 : -EBUSY);
		assert_int_equal(disk_identity_may_open(who, DS_OPEN_RETIRED, NULL, "p", &err),
				 moving ? -EBUSY : 0);
	}
}

static void test_delete_gate(void **state)
{
	struct disk_record record = some_record(DISK_MOVING), none;
	struct disk_identity other = record.identity;

	(void)state;
	disk_record_init(&none);
	assert_int_equal(disk_record_may_delete(&record, &record.identity, "p", &err), 0);
	other.generation++;
	assert_int_equal(disk_record_may_delete(&record, &other, "p", &err), -ESTALE);
	assert_int_equal(err.id, ERR_DISK_MARKED);
	other = record.identity;
	other.uuid[3] ^= 1;
	assert_int_equal(disk_record_may_delete(&record, &other, "p", &err), -ESTALE);
	assert_int_equal(disk_record_may_delete(&none, &other, "p", &err), -ESTALE);
	assert_int_equal(disk_record_may_delete(&record, NULL, "p", &err), -EBUSY);
	assert_int_equal(disk_record_may_delete(&none, NULL, "p", &err), 0);
	record = some_record(DISK_RETIRED);
	assert_int_equal(disk_record_may_delete(&record, NULL, "p", &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_esxi),
		cmocka_unit_test(test_golden_hosted),
		cmocka_unit_test(test_golden_padded),
		cmocka_unit_test(test_refused_kinds),
		cmocka_unit_test(test_refused_texts),
		cmocka_unit_test(test_hostile_data_names),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_rewrite_keeps_the_rest),
		cmocka_unit_test(test_rewrite_without_last_newline),
		cmocka_unit_test(test_damaged_records),
		cmocka_unit_test(test_format_reads_back),
		cmocka_unit_test(test_sidecar_round_trip_and_damage),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_gate_matrix),
		cmocka_unit_test(test_delete_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
