/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_churn IMAGE SEED OPERATIONS TREE - thousands of random changes to a volume, and the tree
 * that must be in it afterwards, written to the local folder TREE for others to compare.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmfs/vmfs.h"

#define FOLDERS 12u
#define FILES 2500u
#define SMALL 9000u
#define LARGE (3u << 19)

struct file {
	bool exists;
	unsigned folder, number;
	uint64_t seed;
	uint64_t size, zero_from;       /* from there on zeroes */
};

static struct vmfs *fs;
static struct vmfs_node *folders[FOLDERS];
static struct file files[FILES];
static uint64_t state;

static uint64_t chance(uint64_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % bound;
}

static void must(int rc, const struct err *err, const char *what)
{
	if (!rc)
		return;
	fprintf(stderr, "vmfs_churn: %s: %d: %s\n", what, rc, err->cause);
	exit(1);
}

static void fill(const struct file *file, uint8_t *bytes)
{
	for (uint64_t i = 0; i < file->size; i++)
		bytes[i] = (uint8_t)(i < file->zero_from ? (file->seed >> i % 57) + i / 253 : 0);
}

static char *name_of(const struct file *file, char name[128])
{
	snprintf(name, 128, "%u-%0*u", file->number, 1 + (int)(file->seed % 60), file->number);
	return name;
}

static void write_file(struct file *file, struct vmfs_node *node)
{
	uint8_t *bytes;
	struct err err = { 0 };

	file->size = chance(20) ? chance(SMALL) : chance(LARGE);
	file->zero_from = file->size;
	bytes = malloc(file->size + 1);
	CHECK(bytes);
	fill(file, bytes);
	must(vmfs_truncate(node, 0, &err), &err, "truncate to 0");
	must(vmfs_write(node, 0, bytes, file->size, &err), &err, "write");
	free(bytes);
}

static void create(struct file *file, unsigned number)
{
	const struct vmfs_attributes attributes = { .mode = 0644 };
	struct vmfs_node *node;
	struct err err = { 0 };
	char name[128];

	*file = (struct file){ .exists = true, .folder = (unsigned)chance(FOLDERS), .number = number,
			       .seed = chance(UINT64_MAX) };
	must(vmfs_create(folders[file->folder], name_of(file, name), &attributes, &node, &err), &err,
	     "create");
	write_file(file, node);
	must(vmfs_node_put(node, &err), &err, "close");
}

static void change(struct file *file)
{
	struct vmfs_node *node, *dir = folders[file->folder];
	struct err err = { 0 };
	char name[128];
	unsigned to;

	name_of(file, name);
	switch (chance(4)) {
	case 0:
		must(vmfs_unlink(dir, name, &err), &err, "unlink");
		file->exists = false;
		return;
	case 1:
		to = (unsigned)chance(FOLDERS);
		must(vmfs_rename(dir, name, folders[to], name, &err), &err, "rename");
		file->folder = to;
		return;
	case 2:
		must(vmfs_lookup(dir, name, &node, &err), &err, "lookup");
		file->size = chance(2) ? chance(file->size + 1) : file->size + chance(20000);
		file->zero_from = MIN(file->zero_from, file->size);
		must(vmfs_truncate(node, file->size, &err), &err, "truncate");
		break;
	default:
		must(vmfs_lookup(dir, name, &node, &err), &err, "lookup");
		write_file(file, node);
	}
	must(vmfs_node_put(node, &err), &err, "close");
}

static void open_folders(void)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct err err = { 0 };

	must(vmfs_walk(fs, "/", &folders[0], &err), &err, "root");
	for (unsigned i = 1; i < FOLDERS; i++) {
		struct vmfs_node *parent = folders[(i - 1) / 3];
		char name[32];

		snprintf(name, sizeof(name), "folder%u", i);
		must(vmfs_mkdir(parent, name, &attributes, &err), &err, "mkdir");
		must(vmfs_lookup(parent, name, &folders[i], &err), &err, "lookup");
	}
}

/* Folder i is inside folder (i - 1) / 3. */
#define PATH_BYTES 4096

static void folder_path(const char *tree, unsigned folder, char *path, size_t len)
{
	char above[PATH_BYTES / 2];

	if (folder == 0) {
		snprintf(path, len, "%s", tree);
		return;
	}
	folder_path(tree, (folder - 1) / 3, above, sizeof(above));
	snprintf(path, len, "%s/folder%u", above, folder);
}

static void write_tree(const char *tree)
{
	char path[PATH_BYTES], whole[PATH_BYTES + 200], name[128];

	for (unsigned i = 1; i < FOLDERS; i++) {
		folder_path(tree, i, path, sizeof(path));
		CHECK(mkdir(path, 0755) == 0);
	}
	for (unsigned i = 0; i < FILES; i++) {
		uint8_t *bytes = malloc(files[i].size + 1);
		int fd;

		CHECK(bytes);
		if (files[i].exists) {
			folder_path(tree, files[i].folder, path, sizeof(path));
			snprintf(whole, sizeof(whole), "%s/%s", path, name_of(&files[i], name));
			fd = open(whole, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
			CHECK(fd >= 0);
			fill(&files[i], bytes);
			CHECK(write(fd, bytes, files[i].size) == (ssize_t)files[i].size);
			close(fd);
		}
		free(bytes);
	}
}

int main(int argc, char **argv)
{
	const struct vmfs_io_file_options file_options = { 0 };
	const struct vmfs_options options = { 0 };
	struct vmfs_io *io;
	struct err err = { 0 };

	if (argc != 5) {
		fprintf(stderr, "usage: vmfs_churn IMAGE SEED OPERATIONS TREE\n");
		return 2;
	}
	state = strtoull(argv[2], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) + 1;
	must(vmfs_io_file_open(argv[1], &file_options, &io, &err), &err, "open");
	must(vmfs_open(&io, 1, &options, &fs, &err), &err, "open");
	open_folders();
	for (uint64_t left = strtoull(argv[3], NULL, 10); left > 0; left--) {
		unsigned number = (unsigned)chance(FILES);

		if (files[number].exists)
			change(&files[number]);
		else
			create(&files[number], number);
	}
	for (unsigned i = 0; i < FOLDERS; i++)
		must(vmfs_node_put(folders[i], &err), &err, "close");
	must(vmfs_close(fs, &err), &err, "close");
	vmfs_io_close(io);
	write_tree(argv[4]);
	return 0;
}
