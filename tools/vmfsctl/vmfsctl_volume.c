/* SPDX-License-Identifier: Apache-2.0 */
/* vmfsctl_volume.c - the verbs for whole volumes: mkfs, fsck. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/units.h"
#include "tools/vmfsctl/vmfsctl.h"
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_mkfs.h"

/* ---- mkfs ---- */

static int open_devices(const struct ctl_args *args, uint64_t size_bytes, struct ctl_volume *out)
{
	struct vmfs_io_file_options options = { .create = size_bytes > 0, .size_bytes = size_bytes };
	struct err err = { 0 };

	for (unsigned i = 0; i < args->count + args->extent_count; i++) {
		const char *path = i < args->count ? args->words[i] : args->extents[i - args->count];

		if (out->io_count == ARRAY_COUNT(out->ios)) {
			err_set(&err, ERR_VMFS_EXTENT, -EINVAL, "a volume has at most 32 devices");
			return ctl_error(&err);
		}
		if (vmfs_io_file_open(path, &options, &out->ios[out->io_count], &err))
			return ctl_error(&err);
		out->io_count++;
	}
	return CTL_DONE;
}

static bool parse_count(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return !errno && *text >= '1' && *text <= '9' && !*end;
}

static int verb_mkfs(const struct ctl_args *args)
{
	struct vmfs_mkfs_options options = { .label = args->label, .overwrite = args->force };
	struct ctl_volume volume = { 0 };
	struct err err = { 0 };
	uint64_t size_bytes = 0;
	int code;

	if (args->version && strcmp(args->version, "5") != 0) {
		err_set(&err, ERR_VMFS_UNSUPPORTED, -ENOTSUP, "only volumes of version 5 are made");
		return ctl_error(&err);
	}
	if (args->files && !parse_count(args->files, &options.file_count)) {
		err_set(&err, ERR_USAGE, -EINVAL, "--files takes a number");
		return ctl_error(&err);
	}
	if (args->size && units_parse_size(args->size, &size_bytes, &err))
		return ctl_error(&err);
	options.reads_zero = size_bytes > 0;
	code = open_devices(args, size_bytes, &volume);
	if (code == CTL_DONE && vmfs_mkfs(volume.ios, volume.io_count, &options, &err))
		code = ctl_error(&err);
	return ctl_release(&volume, code);
}

/* ---- fsck ---- */

static void print_finding(const struct vmfs_finding *finding, void *user UNUSED)
{
	for (const char *c = finding->text; *c; c++)
		putchar((unsigned char)*c < ' ' || *c == 127 ? '?' : *c);
	putchar('\n');
}

static void print_result(const struct vmfs_fsck_result *result)
{
	for (unsigned i = 0; i < VMFS_FOUND_KINDS; i++)
		if (result->found[i])
			printf("%-18s %llu\n", vmfs_finding_name((enum vmfs_finding_kind)i),
			       (unsigned long long)result->found[i]);
	printf("%llu files, %llu folders, %llu links", (unsigned long long)result->files,
	       (unsigned long long)result->folders, (unsigned long long)result->links);
	if (result->hosts)
		printf(", in use by %u host%s", result->hosts, result->hosts == 1 ? "" : "s");
	printf(": %s\n", result->total ? "NOT CLEAN" : "clean");
}

static void print_mended(const char *text, void *user UNUSED)
{
	fputs("mended: ", stdout);
	for (const char *c = text; *c; c++)
		putchar((unsigned char)*c < ' ' || *c == 127 ? '?' : *c);
	putchar('\n');
}

static int repair(const struct ctl_args *args)
{
	static const struct vmfs_repair_calls calls = {
		.found = print_finding, .mended = print_mended, .left = print_finding,
	};
	const struct vmfs_options options = { .repair = true };
	struct vmfs_repair_result result;
	struct ctl_volume volume;
	struct err err = { 0 };
	int code = ctl_open_with(args, &options, &volume);

	if (code)
		return code;
	if (vmfs_repair(volume.fs, &calls, NULL, &result, &err))
		return ctl_release(&volume, ctl_error(&err));
	if (result.mended)
		printf("%llu mended\n", (unsigned long long)result.mended);
	print_result(&result.after);
	return ctl_release(&volume, result.after.total ? CTL_FOUND : CTL_DONE);
}

static int verb_fsck(const struct ctl_args *args)
{
	struct vmfs_fsck_result result;
	struct ctl_volume volume;
	struct err err = { 0 };
	int code;

	if (args->repair)
		return repair(args);
	code = ctl_open(args, true, &volume);
	if (code)
		return code;
	if (vmfs_fsck(volume.fs, print_finding, NULL, &result, &err))
		return ctl_release(&volume, ctl_error(&err));
	print_result(&result);
	return ctl_release(&volume, result.total ? CTL_FOUND : CTL_DONE);
}

const struct ctl_verb ctl_volume_verbs[] = {
	{ "mkfs", "VOLUME [EXTENT]...", "[--label TEXT] [--size N] [--files N] [--version 5] [--force]",
	  "make a VMFS5 volume; --size: in new files", 1, 32, verb_mkfs },
	{ "fsck", "VOLUME", "[--repair]", "check a volume, repair it; exit 3: not clean", 1, 1, verb_fsck },
	{ 0 },
};
