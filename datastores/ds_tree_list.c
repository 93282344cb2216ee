/* SPDX-License-Identifier: Apache-2.0 */
/* ds_tree_list.c - what lies in a folder: disks for what they are, their parts, the rest. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "datastores/ds_tree.h"
#include "datastores/lock_file.h"
#include "datastores/provision.h"

struct lister {
	struct ds_tree *tree;
	const char *folder;             /* "" at the root */
	struct tree_node dir;
	struct ds_file_list *list;
	struct vmdk vmdk;               /* scratch */
	char text[VMDK_TEXT_BYTES];     /* scratch */
	uint64_t unnameable_count;
};

/* Files that lie in a VM's folder and are surely no raw disks. */
static bool is_other(const char *name)
{
	static const char *const suffixes[] = {
		".log",	  ".nvram", ".vmsd", ".vmxf", ".vmss",	".vmsn", ".vmem", ".vswp",
		".iso",	  ".lck",   ".txt",  ".json", ".qcow2", ".vdi",	 ".vhd",  ".vhdx",
		".qed",	  ".ova",   ".ovf",  ".gz",   ".xz",	".zst",	 ".zip",  ".tar",
		".vmtx",
	};

	for (size_t i = 0; i < ARRAY_COUNT(suffixes); i++)
		if (ds_path_has_suffix(name, suffixes[i]))
			return true;
	return false;
}

/* A descriptor counts for its disk: the guest's size, the data file's space. */
static bool list_descriptor(struct lister *lister, struct ds_file *file)
{
	const struct tree_ops *files = lister->tree->files;
	struct tree_stat st;
	ssize_t len = files->read_small(lister->tree, &lister->dir, file->name, lister->text,
					sizeof(lister->text));

	if (len < 0 || vmdk_parse(lister->text, (size_t)len, file->name, &lister->vmdk, NULL))
		return false;
	file->size_bytes = lister->vmdk.size_bytes;
	if (files->stat(lister->tree, &lister->dir, lister->vmdk.data_name, &st) == 0) {
		file->allocated_bytes = st.allocated_bytes;
		file->modified_s = MAX(file->modified_s, st.modified_s);
	}
	return true;
}

static enum ds_file_kind kind_of(struct lister *lister, struct ds_file *file)
{
	if (tree_is_companion(file->name))
		return DS_FILE_DISK_DATA;
	if (ds_path_has_suffix(file->name, ".vmx"))
		return DS_FILE_VMX;
	if (ds_path_has_suffix(file->name, VMDK_SUFFIX))
		return list_descriptor(lister, file) ? DS_FILE_DISK : DS_FILE_OTHER;
	if (is_other(file->name) || provision_check_size(file->size_bytes, NULL))
		return DS_FILE_OTHER;
	return DS_FILE_DISK;
}

/* The entry as it stands, or what a link inside the root leads to.  False: not to be listed. */
static bool stat_entry(struct lister *lister, const char *name, const struct tree_stat *known,
		       struct tree_stat *st)
{
	const struct tree_ops *files = lister->tree->files;

	if (known)
		*st = *known;
	else if (files->stat(lister->tree, &lister->dir, name, st))
		return false;
	if (st->kind != TREE_LINK)
		return true;
	return files->stat_link &&
	       files->stat_link(lister->tree, lister->folder, name, st) == 0;
}

static bool is_hidden(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	       ds_path_has_suffix(name, DS_TMP_SUFFIX) ||
	       (name[0] == '.' && strstr(name, LOCK_FILE_INFIX));
}

/* -ENOMEM, 0, or 1 when the list is full. */
static int list_entry_add(const char *name, const struct tree_stat *known, void *user)
{
	struct lister *lister = user;
	struct ds_file *file;
	struct tree_stat st;
	bool full;

	if (is_hidden(name))
		return 0;
	if (!ds_path_part_is_valid(name)) {
		lister->unnameable_count++;
		return 0;
	}
	if (!stat_entry(lister, name, known, &st))
		return 0;
	file = ds_file_list_add(lister->list, &full);
	if (!file)
		return full ? 1 : -ENOMEM;
	snprintf(file->name, sizeof(file->name), "%s", name);
	file->modified_s = st.modified_s;
	file->kind = st.kind == TREE_DIR ? DS_FILE_DIR : DS_FILE_OTHER;
	if (st.kind != TREE_FILE)
		return 0;
	file->size_bytes = st.size_bytes;
	file->allocated_bytes = st.allocated_bytes;
	file->kind = kind_of(lister, file);
	return 0;
}

static int list_entries(struct lister *lister, struct err *err)
{
	struct ds_tree *tree = lister->tree;
	int rc = tree->files->list(tree, &lister->dir, list_entry_add, lister);

	if (lister->unnameable_count)
		log_warn("datastore", "%s: '%s' has %llu files whose names cannot be shown or used",
			 tree->ds.name, lister->folder,
			 (unsigned long long)lister->unnameable_count);
	return rc < 0 ? tree->files->fail(err, rc, "list", lister->folder) : 0;
}

int tree_list(struct datastore *ds, const char *folder, struct ds_file_list *out, struct err *err)
{
	struct ds_tree *tree = ds_tree_of(ds);
	CLEANUP_FREE struct lister *lister = calloc(1, sizeof(*lister));
	int rc;

	if (!lister)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	lister->tree = tree;
	lister->folder = folder;
	lister->list = out;
	rc = tree->files->open_dir(tree, folder, &lister->dir, err);
	if (rc)
		return rc;
	rc = list_entries(lister, err);
	tree->files->close(tree, &lister->dir);
	return rc;
}
