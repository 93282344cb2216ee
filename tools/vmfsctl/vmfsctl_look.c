/* SPDX-License-Identifier: Apache-2.0 */
/* vmfsctl_look.c - the verbs that only read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/units.h"
#include "tools/vmfsctl/vmfsctl.h"
#include "vmfs/vmfs_lock.h"

#define COPY_BYTES ((size_t)4 << 20)
#define DEPTH_MAX 64u                   /* folders in folders that a walk goes down */

/* Opens for reading, runs, closes. */
static int with_volume(const struct ctl_args *args,
		       int (*run)(struct ctl_volume *volume, const struct ctl_args *args))
{
	struct ctl_volume volume;
	int code = ctl_open(args, true, &volume);

	return code ? code : ctl_release(&volume, run(&volume, args));
}

/* Opens the path in words[1] too; words[1] may be missing: the root. */
static int with_node(const struct ctl_args *args,
		     int (*run)(struct vmfs_node *node, const struct ctl_args *args))
{
	struct vmfs_node *node;
	struct ctl_volume volume;
	struct err err = { 0 };
	int code = ctl_open(args, true, &volume);

	if (code)
		return code;
	if (vmfs_walk(volume.fs, args->count > 1 ? args->words[1] : "/", &node, &err))
		return ctl_release(&volume, ctl_error(&err));
	code = run(node, args);
	if (vmfs_node_put(node, &err))
		code = ctl_error(&err);
	return ctl_release(&volume, code);
}

/* ---- info, df, locks ---- */

static int run_info(struct ctl_volume *volume, const struct ctl_args *args UNUSED)
{
	char text[FORMAT_BYTES], uuid[VMFS_UUID_TEXT_BYTES], when[32];
	struct vmfs_about about;

	vmfs_about(volume->fs, &about);
	printf("version      VMFS%u (%u.%u)\n", about.version, about.major, about.minor);
	printf("label        %s\n", about.label);
	printf("uuid         %s\n", vmfs_uuid_format(about.uuid, uuid));
	printf("volume uuid  %s\n", vmfs_uuid_format(about.lv_uuid, uuid));
	printf("size         %s\n", format_bytes(text, about.size_bytes));
	printf("devices      %u\n", about.device_count);
	printf("file block   %s\n", format_bytes(text, about.file_block_bytes));
	printf("sub-block    %s\n", format_bytes(text, about.sub_block_bytes));
	printf("created      %s\n", ctl_time_text(about.creation_time, when));
	return CTL_DONE;
}

static int verb_info(const struct ctl_args *args)
{
	return with_volume(args, run_info);
}

static int run_df(struct ctl_volume *volume, const struct ctl_args *args UNUSED)
{
	char total[FORMAT_BYTES], left[FORMAT_BYTES];
	struct vmfs_space space;
	struct err err = { 0 };

	if (vmfs_statfs(volume->fs, &space, &err))
		return ctl_error(&err);
	printf("space           %s, %s free\n", format_bytes(total, space.total_bytes),
	       format_bytes(left, space.free_bytes));
	printf("bytes           %llu, %llu free\n", (unsigned long long)space.total_bytes,
	       (unsigned long long)space.free_bytes);
	printf("files           %llu, %llu free\n", (unsigned long long)space.files_total,
	       (unsigned long long)space.files_free);
	printf("sub-blocks      %llu, %llu free\n", (unsigned long long)space.sub_blocks_total,
	       (unsigned long long)space.sub_blocks_free);
	printf("pointer blocks  %llu, %llu free\n", (unsigned long long)space.pointer_blocks_total,
	       (unsigned long long)space.pointer_blocks_free);
	return CTL_DONE;
}

static int verb_df(const struct ctl_args *args)
{
	return with_volume(args, run_df);
}

static void print_slot(uint32_t index, const struct vmfs_heartbeat *slot, void *user)
{
	char uuid[VMFS_UUID_TEXT_BYTES], host[sizeof(slot->host) + 1] = "";

	/* Some writers leave garbage behind the text. */
	for (unsigned i = 0; i < sizeof(slot->host) && slot->host[i] > ' ' && slot->host[i] < 127; i++)
		host[i] = (char)slot->host[i];
	printf("slot %u  host %s  %s  generation %llu  stamp %llu us  journal at %#llx%s\n", index,
	       vmfs_uuid_format(slot->owner, uuid), host[0] ? host : "-",
	       (unsigned long long)slot->generation, (unsigned long long)slot->stamp_us,
	       (unsigned long long)slot->journal_offset,
	       slot->state == VMFS_HB_ACTIVE ? "" : "  (being replayed)");
	(*(unsigned *)user)++;
}

static int print_lock(struct ctl_volume *volume, struct vmfs_node *node, const char *path)
{
	char uuid[VMFS_UUID_TEXT_BYTES];
	struct vmfs_lock lock;
	struct err err = { 0 };
	bool stale;

	if (vmfs_lock_read(node, &lock, &err))
		return ctl_error(&err);
	if (lock.mode == VMFS_LOCK_MODE_FREE)
		return CTL_DONE;
	if (vmfs_lock_is_stale(volume->fs, &lock, &stale, &err))
		return ctl_error(&err);
	printf("%s  %s  host %s%s\n", path, vmfs_lock_mode_name(lock.mode),
	       vmfs_uuid_format(lock.owner, uuid), stale ? "  (stale)" : "");
	return CTL_DONE;
}

/* Depth first; a folder is walked once on each way down, and the depth is bounded. */
static int walk_locks(struct ctl_volume *volume, struct vmfs_node *dir, const char *path,
		      unsigned depth)
{
	struct vmfs_entry entry;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct vmfs_stat stat;
	uint64_t cursor = 0;
	int rc, code = CTL_DONE;

	while (code == CTL_DONE && (rc = vmfs_readdir(dir, &cursor, &entry, &err)) == 0) {
		char *inner = NULL;

		if (strcmp(entry.name, ".") == 0 || strcmp(entry.name, "..") == 0)
			continue;
		if (asprintf(&inner, "%s/%s", path, entry.name) < 0)
			return ctl_error(&(struct err){ .id = ERR_NO_MEMORY, .cause = "no memory" });
		if (vmfs_node_get(volume->fs, entry.address, &node, &err)) {
			free(inner);
			return ctl_error(&err);
		}
		code = print_lock(volume, node, inner);
		vmfs_node_stat(node, &stat);
		if (code == CTL_DONE && stat.is_directory && depth < DEPTH_MAX)
			code = walk_locks(volume, node, inner, depth + 1);
		free(inner);
		if (vmfs_node_put(node, &err))
			code = ctl_error(&err);
	}
	return code == CTL_DONE && rc != -ENODATA ? ctl_error(&err) : code;
}

static int run_locks(struct ctl_volume *volume, const struct ctl_args *args UNUSED)
{
	struct vmfs_node *root;
	struct err err = { 0 };
	unsigned count = 0;
	int code;

	if (vmfs_heartbeats_walk(volume->fs, print_slot, &count, &err))
		return ctl_error(&err);
	if (count == 0)
		puts("no host uses the volume");
	if (vmfs_walk(volume->fs, "/", &root, &err))
		return ctl_error(&err);
	code = walk_locks(volume, root, "", 0);
	if (vmfs_node_put(root, &err))
		code = ctl_error(&err);
	return code;
}

static int verb_locks(const struct ctl_args *args)
{
	return with_volume(args, run_locks);
}

/* ---- ls, stat ---- */

static void print_name(const char *name)
{
	/* A name from a disk must not drive the terminal. */
	for (; *name; name++)
		putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
}

static int print_entry(struct vmfs_node *node, const char *name, bool long_form)
{
	char mode[11], when[32], target[VMFS_LINK_MAX];
	struct err err = { 0 };
	struct vmfs_stat stat;

	vmfs_node_stat(node, &stat);
	if (long_form)
		printf("%s %3u %5u %5u %14llu %s ", ctl_mode_text(&stat, mode), stat.links, stat.uid,
		       stat.gid, (unsigned long long)stat.length_bytes,
		       ctl_time_text(stat.mtime, when));
	print_name(name);
	if (long_form && stat.type == VMFS_TYPE_SYMLINK) {
		if (vmfs_readlink(node, target, &err))
			return ctl_error(&err);
		fputs(" -> ", stdout);
		print_name(target);
	}
	putchar('\n');
	return CTL_DONE;
}

static int list_dir(struct vmfs_node *dir, const struct ctl_args *args, struct vmfs *fs)
{
	struct vmfs_entry entry;
	struct vmfs_node *node;
	struct err err = { 0 };
	uint64_t cursor = 0;
	int rc, code = CTL_DONE;

	while ((rc = vmfs_readdir(dir, &cursor, &entry, &err)) == 0) {
		if (strcmp(entry.name, ".") == 0 || strcmp(entry.name, "..") == 0)
			continue;
		if (!args->long_form) {
			print_name(entry.name);
			putchar('\n');
			continue;
		}
		/* One that is damaged is told of and does not hide the others. */
		if (vmfs_node_get(fs, entry.address, &node, &err)) {
			print_name(entry.name);
			putchar('\n');
			code = ctl_error(&err);
			continue;
		}
		if (print_entry(node, entry.name, true))
			code = CTL_FAILED;
		if (vmfs_node_put(node, &err))
			code = ctl_error(&err);
	}
	return rc == -ENODATA ? code : ctl_error(&err);
}

static int verb_ls(const struct ctl_args *args)
{
	const char *path = args->count > 1 ? args->words[1] : "/";
	struct ctl_volume volume;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct vmfs_stat stat;
	int code = ctl_open(args, true, &volume);

	if (code)
		return code;
	if (vmfs_walk(volume.fs, path, &node, &err))
		return ctl_release(&volume, ctl_error(&err));
	vmfs_node_stat(node, &stat);
	if (stat.is_directory)
		code = list_dir(node, args, volume.fs);
	else
		code = print_entry(node, path, args->long_form);
	if (vmfs_node_put(node, &err))
		code = ctl_error(&err);
	return ctl_release(&volume, code);
}

static const char *zla_name(uint32_t zla)
{
	switch (zla) {
	case VMFS_ZLA_FB:
		return "file blocks";
	case VMFS_ZLA_SB:
		return "sub-blocks";
	case VMFS_ZLA_PB:
		return "pointer blocks";
	case VMFS_ZLA_PB2:
		return "pointer blocks (pb2)";
	case VMFS_ZLA_DOUBLE:
		return "double pointer blocks";
	case VMFS_ZLA_RESIDENT:
		return "in the descriptor";
	default:
		return "unknown";
	}
}

static int print_runs(struct vmfs_node *node, uint64_t length)
{
	static const char *const kinds[] = { "hole", "zero", "data", "resident" };
	struct err err = { 0 };

	for (uint64_t at = 0; at < length;) {
		struct vmfs_run run;

		if (vmfs_run_at(node, at, length - at, &run, &err))
			return ctl_error(&err);
		printf("run          %llu %llu %s", (unsigned long long)at,
		       (unsigned long long)run.len_bytes, kinds[run.kind]);
		if (run.kind == VMFS_RUN_DATA || run.kind == VMFS_RUN_ZERO)
			printf(" at %#llx", (unsigned long long)run.volume_offset_bytes);
		putchar('\n');
		at += run.len_bytes;
	}
	return CTL_DONE;
}

static int run_stat(struct vmfs_node *node, const struct ctl_args *args)
{
	char mode[11], when[32];
	struct vmfs_stat stat;

	vmfs_node_stat(node, &stat);
	printf("type         %s\n", ctl_type_name(&stat));
	printf("descriptor   %#x, generation %u\n", stat.address, stat.generation);
	printf("mode         %s, %u:%u, %u link%s\n", ctl_mode_text(&stat, mode), stat.uid, stat.gid,
	       stat.links, stat.links == 1 ? "" : "s");
	printf("length       %llu\n", (unsigned long long)stat.length_bytes);
	printf("blocks       %llu of %llu bytes, %llu to be zeroed\n",
	       (unsigned long long)stat.block_count, (unsigned long long)stat.block_bytes,
	       (unsigned long long)stat.to_be_zeroed_count);
	printf("layout       %s (%u)\n", zla_name(stat.zla), stat.zla);
	printf("modified     %s\n", ctl_time_text(stat.mtime, when));
	printf("changed      %s\n", ctl_time_text(stat.ctime, when));
	printf("accessed     %s\n", ctl_time_text(stat.atime, when));
	return args->long_form && stat.type != VMFS_TYPE_RDM ? print_runs(node, stat.length_bytes) :
							       CTL_DONE;
}

static int verb_stat(const struct ctl_args *args)
{
	return with_node(args, run_stat);
}

/* ---- cat, get ---- */

static int put_out(int fd, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		ssize_t put = write(fd, bytes, len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		bytes += put;
		len -= (size_t)put;
	}
	return 0;
}

/* Holes stay holes where the output can seek. */
static int copy_run(struct vmfs_node *node, const struct vmfs_run *run, uint8_t *buffer, int fd,
		    bool sparse)
{
	struct err err = { 0 };

	if (sparse && (run->kind == VMFS_RUN_HOLE || run->kind == VMFS_RUN_ZERO))
		return lseek(fd, (off_t)run->len_bytes, SEEK_CUR) < 0 ? -errno : 0;
	for (uint64_t done = 0; done < run->len_bytes;) {
		size_t got;
		int rc = vmfs_read(node, run->file_offset_bytes + done, buffer,
				   (size_t)MIN(run->len_bytes - done, COPY_BYTES), &got, &err);

		if (rc) {
			ctl_error(&err);
			return -ECANCELED;      /* said already */
		}
		rc = put_out(fd, buffer, got);
		if (rc)
			return rc;
		done += got;
	}
	return 0;
}

static int copy_out(struct vmfs_node *node, int fd, bool sparse)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	struct vmfs_stat stat;
	struct err err = { 0 };
	int rc = buffer ? 0 : -ENOMEM;

	vmfs_node_stat(node, &stat);
	for (uint64_t at = 0; at < stat.length_bytes && !rc;) {
		struct vmfs_run run;

		if (vmfs_run_at(node, at, stat.length_bytes - at, &run, &err)) {
			free(buffer);
			return ctl_error(&err);
		}
		rc = copy_run(node, &run, buffer, fd, sparse);
		at += run.len_bytes;
	}
	free(buffer);
	if (!rc && sparse && ftruncate(fd, (off_t)stat.length_bytes))
		rc = -errno;
	if (rc && rc != -ECANCELED) {
		err_set(&err, ERR_LOCAL_FILE, rc, "cannot write the output: %s", err_strerror(rc));
		return ctl_error(&err);
	}
	return rc ? CTL_FAILED : CTL_DONE;
}

static int refuse_dir(const struct vmfs_node *node)
{
	struct err err = { 0 };
	struct vmfs_stat stat;

	vmfs_node_stat(node, &stat);
	if (!stat.is_directory)
		return CTL_DONE;
	err_set(&err, ERR_VMFS_KIND, -EISDIR, "it is a folder");
	return ctl_error(&err);
}

static int run_cat(struct vmfs_node *node, const struct ctl_args *args UNUSED)
{
	int code = refuse_dir(node);

	fflush(stdout);
	return code ? code : copy_out(node, STDOUT_FILENO, false);
}

static int verb_cat(const struct ctl_args *args)
{
	return with_node(args, run_cat);
}

static int run_get(struct vmfs_node *node, const struct ctl_args *args)
{
	const char *path = args->words[2];
	int fd, code = refuse_dir(node);
	struct err err = { 0 };

	if (code)
		return code;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0) {
		err_set(&err, ERR_LOCAL_FILE, -errno, "cannot create '%.150s': %s", path,
			err_strerror(-errno));
		return ctl_error(&err);
	}
	code = copy_out(node, fd, true);
	if (code == CTL_DONE && fsync(fd)) {
		err_set(&err, ERR_LOCAL_FILE, -errno, "cannot flush '%.150s': %s", path,
			err_strerror(-errno));
		code = ctl_error(&err);
	}
	close(fd);
	if (code != CTL_DONE)
		unlink(path);
	return code;
}

static int verb_get(const struct ctl_args *args)
{
	return with_node(args, run_get);
}

const struct ctl_verb ctl_look_verbs[] = {
	{ "info", "VOLUME", "", "what the volume is", 1, 1, verb_info },
	{ "ls", "VOLUME [PATH]", "[-l]", "list a folder", 1, 2, verb_ls },
	{ "stat", "VOLUME PATH", "[-l]", "a file's descriptor; -l: where its data are", 2, 2,
	  verb_stat },
	{ "cat", "VOLUME PATH", "", "a file's data to stdout", 2, 2, verb_cat },
	{ "get", "VOLUME PATH FILE", "", "copy a file out, holes stay holes", 3, 3, verb_get },
	{ "df", "VOLUME", "", "space", 1, 1, verb_df },
	{ "locks", "VOLUME", "", "hosts that use the volume, and what they lock", 1, 1, verb_locks },
	{ 0 },
};
