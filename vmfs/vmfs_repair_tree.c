/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_repair_tree.c - every entry names a file, every file has an entry, every count agrees.
 *
 * A folder is read as a whole, its records are judged, and if any is wrong what remains is
 * written back.  What nobody names afterwards is found again in "lost+found", as "fd-" and its
 * address; of a tree that lost its name only the top.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmfs/vmfs_repair_private.h"

#define LOST_AND_FOUND "lost+found"
#define NAME_TRIES 100u

struct visit {
	uint64_t index, parent;         /* descriptors */
	bool done;
};

struct tree {
	struct repair *repair;
	struct visit *visits;           /* each folder once */
	uint64_t count, done;
	struct vmfs_node *lost;         /* "lost+found", when there was need of it */
	uint64_t lost_index;
};

static void enqueue(struct tree *tree, uint64_t index, uint64_t parent, bool done)
{
	tree->repair->fds[index].visited = true;
	tree->visits[tree->count++] = (struct visit){ index, parent, done };
}

/* ---- the records of one folder ---- */

struct records {
	struct vmfs_node *dir;
	uint8_t *bytes;                 /* with room for "." and ".." in front */
	uint64_t count;
	struct name { uint64_t hash, number; } *names;  /* sorted: doubles are neighbours */
	uint8_t *doubles;               /* bit per record */
};

static uint8_t *record_at(const struct records *records, uint64_t number)
{
	return records->bytes + (number + 2) * VMFS_DIRENT5_BYTES;
}

static uint64_t hash_of(const uint8_t *record)
{
	struct vmfs_dirent5 fields;

	vmfs_dirent5_decode(record, &fields);
	return vmfs_dir6_hash((const char *)fields.name,
			      strnlen((const char *)fields.name, sizeof(fields.name)));
}

static int by_hash(const void *a, const void *b)
{
	const struct name *left = a, *right = b;

	if (left->hash != right->hash)
		return left->hash < right->hash ? -1 : 1;
	return left->number < right->number ? -1 : left->number > right->number;
}

static void free_records(struct records *records)
{
	free(records->bytes);
	free(records->names);
	free(records->doubles);
}

static int read_records(struct records *records)
{
	struct vmfs_node *dir = records->dir;
	uint64_t length = MIN(dir->fd.length, VMFS_DIR_BYTES_MAX);

	records->count = length / VMFS_DIRENT5_BYTES;
	records->bytes = calloc(records->count + 2, VMFS_DIRENT5_BYTES);
	records->names = calloc(records->count + 1, sizeof(records->names[0]));
	records->doubles = calloc(1, records->count / 8 + 1);
	if (!records->bytes || !records->names || !records->doubles)
		return -ENOMEM;
	return vmfs_file_read(dir, 0, record_at(records, 0),
			      (size_t)(records->count * VMFS_DIRENT5_BYTES));
}

/* Of two records with one name the first stays, of those that name something. */
static void find_doubles(struct records *records)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < records->count; i++) {
		struct vmfs_dirent5 fields;

		vmfs_dirent5_decode(record_at(records, i), &fields);
		if (fields.fd)
			records->names[count++] = (struct name){ hash_of(record_at(records, i)), i };
	}
	qsort(records->names, count, sizeof(records->names[0]), by_hash);
	for (uint64_t i = 1; i < count; i++)
		if (records->names[i].hash == records->names[i - 1].hash)
			fsck_set(records->doubles, records->names[i].number);
}

/* ---- judging one record ---- */

struct judging {
	struct tree *tree;
	const struct visit *visit;
	bool dot, dotdot, changed;
	bool system_seen[VMFS_FD_SYSTEM_COUNT];
};

static void drop(struct judging *judging, const char *name, const char *why)
{
	char shown[VMFS_DIRENT5_NAME_BYTES + 1];

	snprintf(shown, sizeof(shown), "%s", name);
	for (char *c = shown; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
	repair_mended(judging->tree->repair, "folder %#x: '%.80s' was removed: %s",
		      fsck_address_of(judging->tree->repair->fs, judging->visit->index), shown, why);
	judging->changed = true;
}

/* "." and "..": true, and the record names what it should. */
static bool judge_dots(struct judging *judging, struct vmfs_dirent5 *fields, const char *name)
{
	struct repair *repair = judging->tree->repair;
	bool dot = strcmp(name, ".") == 0;
	uint64_t wanted = dot ? judging->visit->index : judging->visit->parent;
	uint32_t address = fsck_address_of(repair->fs, wanted);
	bool *seen = dot ? &judging->dot : &judging->dotdot;

	if (*seen) {
		drop(judging, name, "it is there twice");
		return false;
	}
	*seen = true;
	if (fields->fd != address) {
		repair_mended(repair, "folder %#x: '%s' names %#x now",
			      fsck_address_of(repair->fs, judging->visit->index), name, address);
		fields->fd = address;
		fields->generation = repair->fds[wanted].generation;
		judging->changed = true;
	}
	return true;
}

static const char *why_not(struct judging *judging, const struct vmfs_dirent5 *fields,
			   const char *name, uint64_t *index_out)
{
	struct repair *repair = judging->tree->repair;
	const struct fsck_fd *fd;
	struct vmfs_addr addr;

	vmfs_addr_decode(&repair->fs->addr, fields->fd, &addr);
	if (name[0] == '\0' || strchr(name, '/'))
		return "that is no name";
	if (addr.other || !fsck_index_of(repair->fs, fields->fd, index_out))
		return "it names no descriptor";
	fd = &repair->fds[*index_out];
	if (!fd->type || fd->generation != fields->generation)
		return "what it names is no file";
	if (!fsck_name_fits(repair->fs, judging->visit->index == VMFS_FD_ROOT, name, *index_out))
		return "it names a system file that is called otherwise";
	if (fd->is_dir && fd->visited)
		return "that folder has another name";
	return NULL;
}

/* Does the record stay?  It may be changed. */
static bool judge_record(struct judging *judging, uint8_t *record, bool is_double)
{
	struct repair *repair = judging->tree->repair;
	char name[VMFS_DIRENT5_NAME_BYTES + 1] = "";
	struct vmfs_dirent5 fields;
	const char *reason;
	uint64_t index = 0;

	vmfs_dirent5_decode(record, &fields);
	memcpy(name, fields.name, sizeof(fields.name));
	if (!fields.fd) {
		drop(judging, name, "it is void");
		return false;
	}
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		if (!judge_dots(judging, &fields, name))
			return false;
		vmfs_dirent5_encode(&fields, record);
		return true;
	}
	reason = is_double ? "the name is there twice" : why_not(judging, &fields, name, &index);
	if (reason) {
		drop(judging, name, reason);
		return false;
	}
	if (fields.type != repair->fds[index].type) {
		repair_mended(repair, "folder %#x: '%.80s' is of type %u now",
			      fsck_address_of(repair->fs, judging->visit->index), name,
			      repair->fds[index].type);
		fields.type = repair->fds[index].type;
		vmfs_dirent5_encode(&fields, record);
		judging->changed = true;
	}
	repair->fds[index].names++;
	if (fsck_system_name(repair->fs, index))
		judging->system_seen[index] = true;
	if (repair->fds[index].is_dir)
		enqueue(judging->tree, index, judging->visit->index, false);
	return true;
}

/* ---- one folder ---- */

static void make_record(struct tree *tree, uint8_t *record, uint64_t index, const char *name)
{
	const struct fsck_fd *fd = &tree->repair->fds[index];
	struct vmfs_dirent5 fields = {
		.type = fd->type,
		.fd = fsck_address_of(tree->repair->fs, index),
		.generation = fd->generation,
	};

	memset(record, 0, VMFS_DIRENT5_BYTES);
	memcpy(fields.name, name, strlen(name));
	vmfs_dirent5_encode(&fields, record);
}

/* The records that stay move together; returns where the first is. */
static uint8_t *keep_records(struct judging *judging, struct records *records, uint64_t *count_out)
{
	struct tree *tree = judging->tree;
	uint64_t kept = 0;
	uint8_t *first;

	for (uint64_t i = 0; i < records->count; i++) {
		uint8_t *record = record_at(records, i);

		if (!judge_record(judging, record, fsck_bit(records->doubles, i)))
			continue;
		memmove(record_at(records, kept++), record, VMFS_DIRENT5_BYTES);
	}
	first = record_at(records, 0);
	if (!judging->dotdot) {
		first -= VMFS_DIRENT5_BYTES;
		make_record(tree, first, judging->visit->parent, "..");
	}
	if (!judging->dot) {
		first -= VMFS_DIRENT5_BYTES;
		make_record(tree, first, judging->visit->index, ".");
	}
	if (!judging->dot || !judging->dotdot)
		repair_mended(tree->repair, "folder %#x has '.' and '..' again",
			      fsck_address_of(tree->repair->fs, judging->visit->index));
	judging->changed |= !judging->dot || !judging->dotdot;
	*count_out = kept + !judging->dot + !judging->dotdot;
	return first;
}

static int write_records(struct vmfs_node *dir, const uint8_t *bytes, uint64_t count)
{
	uint64_t length = count * VMFS_DIRENT5_BYTES;
	int rc = 0;

	vmfs_dir_forget(dir->fs);
	if (dir->fd.length > length)
		rc = vmfs_file_truncate(dir, length);
	if (!rc)
		rc = vmfs_file_write(dir, 0, bytes, (size_t)length);
	vmfs_dir_forget(dir->fs);
	return rc;
}

/* The system's own files must be found by name: other readers open them so. */
static int name_system_files(struct judging *judging, struct vmfs_node *root)
{
	struct repair *repair = judging->tree->repair;
	const char *name;

	for (uint64_t i = VMFS_FD_ROOT + 1; (name = fsck_system_name(repair->fs, i)); i++) {
		uint8_t record[VMFS_DIRENT5_BYTES];
		int rc;

		if (judging->system_seen[i] || !repair->fds[i].type)
			continue;
		make_record(judging->tree, record, i, name);
		repair_mended(repair, "the root has '%s' again", name);
		rc = vmfs_file_write(root, root->fd.length, record, sizeof(record));
		if (rc)
			return rc;
		repair->fds[i].names++;
		if (repair->fds[i].is_dir && !repair->fds[i].visited)
			enqueue(judging->tree, i, VMFS_FD_ROOT, false);
	}
	return 0;
}

static int see_dir(struct tree *tree, const struct visit *visit)
{
	struct repair *repair = tree->repair;
	struct judging judging = { .tree = tree, .visit = visit };
	struct records records = { 0 };
	uint64_t kept = 0;
	uint8_t *first;
	int rc = vmfs_node_find(repair->fs, fsck_address_of(repair->fs, visit->index), &records.dir);

	if (rc)
		return rc;
	rc = read_records(&records);
	if (!rc) {
		find_doubles(&records);
		judging.changed = records.dir->fd.length != records.count * VMFS_DIRENT5_BYTES;
		first = keep_records(&judging, &records, &kept);
		if (judging.changed)
			rc = write_records(records.dir, first, kept);
	}
	if (!rc && visit->index == VMFS_FD_ROOT)
		rc = name_system_files(&judging, records.dir);
	free_records(&records);
	repair_drop(records.dir);
	return rc;
}

static int walk(struct tree *tree)
{
	int rc = 0;

	while (tree->done < tree->count && !rc) {
		/* A copy: what is found is put behind it. */
		struct visit visit = tree->visits[tree->done++];

		if (!visit.done)
			rc = see_dir(tree, &visit);
	}
	return rc;
}

/* ---- what has no name ---- */

static int make_lost(struct tree *tree)
{
	const struct vmfs_attributes attributes = { .mode = 0700 };
	struct repair *repair = tree->repair;
	struct vmfs *fs = repair->fs;
	char name[32] = LOST_AND_FOUND;
	struct err err;
	int rc = -EEXIST;

	for (unsigned i = 0; i < NAME_TRIES; i++) {
		rc = vmfs_dir_lookup(fs->root, name, &tree->lost);
		if (rc == -ENOENT) {
			rc = vmfs_mkdir(fs->root, name, &attributes, &err);
			if (!rc)
				rc = vmfs_dir_lookup(fs->root, name, &tree->lost);
			break;
		}
		if (rc || vmfs_node_is_dir(tree->lost))
			break;
		repair_drop(tree->lost);
		tree->lost = NULL;
		rc = -EEXIST;
		snprintf(name, sizeof(name), LOST_AND_FOUND "-%u", i + 1);
	}
	if (rc)
		return rc;
	CHECK(fsck_index_of(fs, tree->lost->address, &tree->lost_index));
	if (repair->fds[tree->lost_index].type)
		return 0;
	repair_mended(repair, "the folder '%s' was made", name);
	repair->fds[tree->lost_index] = (struct fsck_fd){
		.generation = tree->lost->fd.generation, .link_count = tree->lost->fd.link_count,
		.type = VMFS_TYPE_DIR, .is_dir = true, .names = 1,
	};
	enqueue(tree, tree->lost_index, VMFS_FD_ROOT, true);
	return 0;
}

static int adopt(struct tree *tree, uint64_t index)
{
	struct repair *repair = tree->repair;
	struct fsck_fd *fd = &repair->fds[index];
	struct vmfs_entry entry = {
		.type = (enum vmfs_fd_type)fd->type,
		.address = fsck_address_of(repair->fs, index),
		.generation = fd->generation,
	}, taken;
	int rc = tree->lost ? 0 : make_lost(tree);

	if (rc)
		return rc;
	snprintf(entry.name, sizeof(entry.name), "fd-%08x", entry.address);
	for (unsigned i = 1; i < NAME_TRIES && vmfs_dir_find(tree->lost, entry.name, &taken) == 0; i++)
		snprintf(entry.name, sizeof(entry.name), "fd-%08x-%u", entry.address, i);
	repair_mended(repair, "descriptor %#x had no name: it is %.40s in " LOST_AND_FOUND,
		      entry.address, entry.name);
	rc = vmfs_dir5_append(tree->lost, &entry);
	if (rc)
		return rc;
	fd->names++;
	if (fd->is_dir)
		enqueue(tree, index, tree->lost_index, false);
	return walk(tree);
}

/* Count who is named by a folder without a name. */
static int count_inner(struct tree *tree, uint64_t index)
{
	struct repair *repair = tree->repair;
	struct records records = { 0 };
	int rc = vmfs_node_find(repair->fs, fsck_address_of(repair->fs, index), &records.dir);

	if (rc)
		return rc;
	rc = read_records(&records);
	for (uint64_t i = 0; i < records.count && !rc; i++) {
		struct vmfs_dirent5 fields;
		uint64_t inner;

		vmfs_dirent5_decode(record_at(&records, i), &fields);
		if (strncmp((const char *)fields.name, ".", 2) == 0 ||
		    strncmp((const char *)fields.name, "..", 3) == 0)
			continue;
		if (fsck_index_of(repair->fs, fields.fd, &inner) && inner != index &&
		    repair->fds[inner].generation == fields.generation)
			repair->fds[inner].inner++;
	}
	free_records(&records);
	repair_drop(records.dir);
	return rc;
}

static bool is_lost_dir(const struct fsck_fd *fd)
{
	return fd->type && fd->is_dir && !fd->visited;
}

/* First the tops of trees; what is left then are folders that name each other in a ring. */
static int adopt_dirs(struct tree *tree)
{
	const struct fsck_fd *fds = tree->repair->fds;
	uint64_t count = tree->repair->fs->res[VMFS_RES_FDC].item_count;
	int rc = 0;

	for (uint64_t i = 0; i < count && !rc; i++)
		if (is_lost_dir(&fds[i]))
			rc = count_inner(tree, i);
	for (uint64_t i = 0; i < count && !rc; i++)
		if (is_lost_dir(&fds[i]) && !fds[i].inner)
			rc = adopt(tree, i);
	for (uint64_t i = 0; i < count && !rc; i++)
		if (is_lost_dir(&fds[i]))
			rc = adopt(tree, i);
	return rc;
}

/* An empty one is what a creation left that was cut short. */
static int free_empty(struct tree *tree, uint64_t index)
{
	struct repair *repair = tree->repair;
	struct vmfs_node *node;
	int rc = vmfs_node_find(repair->fs, fsck_address_of(repair->fs, index), &node);

	if (rc)
		return rc;
	if (node->fd.length > 0 || node->fd.type == VMFS_TYPE_RDM) {
		repair_drop(node);
		return adopt(tree, index);
	}
	repair_mended(repair, "descriptor %#x had no name and no data: it is free now", node->address);
	node->fd.link_count = 0;
	rc = vmfs_node_store(node);
	if (!rc)
		rc = vmfs_node_free(node);
	repair_drop(node);
	repair->fds[index].type = 0;
	return rc;
}

static int adopt_all(struct tree *tree)
{
	const struct fsck_fd *fds = tree->repair->fds;
	int rc = adopt_dirs(tree);

	for (uint64_t i = 0; i < tree->repair->fs->res[VMFS_RES_FDC].item_count && !rc; i++)
		if (fds[i].type && !fds[i].is_dir && !fds[i].names)
			rc = free_empty(tree, i);
	return rc;
}

/* ---- the passes ---- */

int repair_tree(struct repair *repair)
{
	struct tree tree = { .repair = repair };
	int rc;

	tree.visits = calloc(repair->fs->res[VMFS_RES_FDC].item_count + 1, sizeof(tree.visits[0]));
	if (!tree.visits)
		return -ENOMEM;
	repair->fds[VMFS_FD_ROOT].names++;
	enqueue(&tree, VMFS_FD_ROOT, VMFS_FD_ROOT, false);
	rc = walk(&tree);
	if (!rc)
		rc = adopt_all(&tree);
	/* Each folder inside another adds a link to that one. */
	for (uint64_t i = 1; i < tree.count && !rc; i++)
		repair->fds[tree.visits[i].parent].names++;
	if (tree.lost)
		repair_drop(tree.lost);
	free(tree.visits);
	return rc;
}

int repair_links(struct repair *repair)
{
	for (uint64_t i = 0; i < repair->fs->res[VMFS_RES_FDC].item_count; i++) {
		const struct fsck_fd *fd = &repair->fds[i];
		uint32_t expected = fd->names + (fd->is_dir ? 1 : 0);
		struct vmfs_node *node;
		int rc;

		if (!fd->type)
			continue;
		rc = vmfs_node_find(repair->fs, fsck_address_of(repair->fs, i), &node);
		if (rc)
			return rc;
		if (node->fd.link_count != expected) {
			repair_mended(repair, "descriptor %#x counts %u links now, not %u", node->address,
				      expected, node->fd.link_count);
			node->fd.link_count = expected;
			rc = vmfs_node_store(node);
		}
		repair_drop(node);
		if (rc)
			return rc;
	}
	return 0;
}
