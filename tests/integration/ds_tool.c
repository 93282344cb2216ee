/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_tool URL VERB PATH [...] - one call of a datastore, for scripts.
 *
 *   create PATH BYTES thin|thick|eager     stat PATH     delete PATH     resize PATH BYTES
 *   open PATH rw|ro                        opens and closes
 *   hold PATH rw|ro                        opens, prints "held", closes at the end of stdin
 *   wait PATH                              opens with DS_OPEN_WAIT_LOCK and closes
 *
 *   list FOLDER                            a line per entry: kind size name
 *   unlock PATH                            the operator's word
 *
 * DS_TOOL_HOST=N: be the host N (1 to 255), not one of its own each time.
 *
 * Exit 0, or 1 with "BM-NNNN cause" on stderr, or 2 for bad usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/uuid.h"
#include "datastores/datastore.h"

static struct err err;

static int usage(void)
{
	fprintf(stderr, "usage: ds_tool URL create|stat|delete|resize|open|hold|wait PATH ...\n");
	return 2;
}

static int do_create(struct datastore *ds, const char *path, char **args)
{
	struct ds_create_spec spec = { 0 };

	if (!args[0] || !args[1] || !provision_parse(args[1], &spec.provision) ||
	    spec.provision == PROVISION_SAME)
		return usage();
	spec.size_bytes = strtoull(args[0], NULL, 10);
	return ds_disk_create(ds, path, &spec, &err);
}

static int do_stat(struct datastore *ds, const char *path)
{
	struct ds_disk_info info;
	int rc = ds_disk_stat(ds, path, &info, &err);

	if (rc)
		return rc;
	printf("size=%" PRIu64 " allocated=%" PRIu64 " provision=%s generation=%" PRIu64
	       " role=%s identity=%d\n",
	       info.size_bytes, info.allocated_bytes, provision_name(info.provision),
	       info.identity.generation, disk_role_name(info.identity.role), info.has_identity);
	return 0;
}

static int do_resize(struct datastore *ds, const char *path, const char *bytes)
{
	struct ds_disk *disk;
	int rc = ds_disk_open(ds, path, 0, NULL, &disk, &err);

	if (rc)
		return rc;
	rc = ds_disk_resize(disk, strtoull(bytes, NULL, 10), &err);
	ds_disk_close(disk);
	return rc;
}

static int do_open(struct datastore *ds, const char *path, unsigned flags, bool hold)
{
	struct ds_disk *disk;
	char byte;
	int rc = ds_disk_open(ds, path, flags, NULL, &disk, &err);

	if (rc)
		return rc;
	if (hold) {
		printf("held\n");
		fflush(stdout);
		while (read(STDIN_FILENO, &byte, 1) > 0)
			;
	}
	ds_disk_close(disk);
	return 0;
}

static int do_list(struct datastore *ds, const char *folder)
{
	static const char *const kinds[] = {
		[DS_FILE_DIR] = "dir", [DS_FILE_DISK] = "disk", [DS_FILE_DISK_DATA] = "data",
		[DS_FILE_VMX] = "vmx", [DS_FILE_OTHER] = "other",
	};
	struct ds_file_list list;
	int rc = datastore_list(ds, folder, &list, &err);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < list.count; i++)
		printf("%s %" PRIu64 " %s\n", kinds[list.files[i].kind], list.files[i].size_bytes,
		       list.files[i].name);
	ds_file_list_release(&list);
	return 0;
}

static int run(struct datastore *ds, char **args)
{
	const char *verb = args[0], *path = args[1];
	unsigned flags = args[2] && strcmp(args[2], "ro") == 0 ? DS_OPEN_READ_ONLY : 0;

	if (strcmp(verb, "create") == 0)
		return do_create(ds, path, args + 2);
	if (strcmp(verb, "stat") == 0)
		return do_stat(ds, path);
	if (strcmp(verb, "list") == 0)
		return do_list(ds, path);
	if (strcmp(verb, "unlock") == 0)
		return ds_disk_unlock(ds, path, &err);
	if (strcmp(verb, "delete") == 0)
		return ds_disk_delete(ds, path, NULL, &err);
	if (strcmp(verb, "resize") == 0 && args[2])
		return do_resize(ds, path, args[2]);
	if (strcmp(verb, "open") == 0)
		return do_open(ds, path, flags, false);
	if (strcmp(verb, "hold") == 0)
		return do_open(ds, path, flags, true);
	if (strcmp(verb, "wait") == 0)
		return do_open(ds, path, DS_OPEN_WAIT_LOCK, false);
	return usage();
}

int main(int argc, char **argv)
{
	struct ds_config config = { .name = "ds" };
	struct datastore *ds;
	struct uuid random;
	struct loop *loop;
	int rc;

	if (argc < 4)
		return usage();
	config.url = argv[1];
	random = uuid_random();
	if (getenv("DS_TOOL_HOST"))
		random = (struct uuid){ .bytes = { (uint8_t)atoi(getenv("DS_TOOL_HOST")) } };
	memcpy(config.host_uuid, random.bytes, sizeof(config.host_uuid));
	loop = loop_new();
	if (!loop) {
		perror("loop");
		return 1;
	}
	rc = datastore_open(loop, &config, &ds, &err);
	if (!rc) {
		rc = run(ds, argv + 2);
		datastore_close(ds);
	}
	loop_free(loop);
	if (rc < 0)
		fprintf(stderr, "%s %s\n", err_name(err.id), err.cause);
	return rc < 0 ? 1 : rc;
}
