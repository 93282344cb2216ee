/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_folder.h - a machine's folder without its disks: what goes along when its configuration moves.
 *
 * A machine's VMX and its small files lie in one folder; they keep their paths and change their
 * datastore.  Files count as small up to VM_FOLDER_FILE_BYTES, VM_FOLDER_TOTAL_BYTES together and
 * VM_FOLDER_FILES_MAX of them; what is beyond stays where it is, and so do links, sub-folders, disks
 * and whatever a drive of the machine names.  At the root of a datastore, where everybody's files
 * may lie, only the VMX itself goes along.
 *
 * All calls but vm_vmx_rewrite() block [worker], each on its datastore's own.
 */
#ifndef BM_VMOTION_VM_FOLDER_H
#define BM_VMOTION_VM_FOLDER_H

#include "vmotion/vm_config.h"

#define VM_FOLDER_FILES_MAX 128u
#define VM_FOLDER_FILE_BYTES (8u << 20)
#define VM_FOLDER_TOTAL_BYTES (32u << 20)

/* ---- where its disks are ---- */

struct vm_move_disk {
	char drive[16];                 /* "scsi0:0", as in the VMX */
	char source_datastore[DS_NAME_BYTES], source_path[DS_PATH_BYTES];
	char target_datastore[DS_NAME_BYTES], target_path[DS_PATH_BYTES];
	enum provision provision;
};

/*
 * Make a VMX that lies at datastore:path good for home:path: drives whose files are a source
 * in disks then name its target, the others what they named.  Lossless: a value that means the same
 * there stays as it is, byte for byte.  Again and again: the second time changes nothing.
 * *changed: it was edited.  0; or -EINVAL, -ENOMEM with *err and the text may be half edited.
 */
MUST_CHECK int vm_vmx_rewrite(struct vmx *vmx, const char *datastore, const char *home,
			      const char *path, const struct vm_move_disk *disks,
			      uint32_t disk_count, bool *changed, struct err *err);

/* ---- the small files ---- */

struct vm_folder_file {
	char name[256];
	char *bytes;
	size_t len;
};

struct vm_folder {
	struct vm_folder_file *files;
	uint32_t count;
	size_t total_bytes;
	char left[256];                 /* the first of those that are too large or too many */
	uint32_t left_count;
};

/* Read all of them.  0, or -errno with *err.  Release in any case. */
MUST_CHECK int vm_folder_read(struct datastore *ds, const struct vm_config *config,
			      struct vm_folder *out, struct err *err);
void vm_folder_release(struct vm_folder *folder);

/*
 * Write them beside the VMX path on ds, and read each back.  One that is there with the same bytes
 * is left alone; with others: ERR_DISK_EXISTS.
 */
MUST_CHECK int vm_folder_write(struct datastore *ds, const char *vmx_path,
			       const struct vm_folder *folder, struct err *err);

/* Delete those that still hold the same bytes.  What cannot be deleted is logged and stays. */
void vm_folder_delete(struct datastore *ds, const char *vmx_path, const struct vm_folder *folder);

/* ---- the memory image, which is not small ---- */

/*
 * Copy what can be read from source_fd into target_fd, an empty file; durable, and read back and
 * compared.  On a thread of its own: it takes as long as the memory is large.
 */
MUST_CHECK int vm_image_copy(int source_fd, int target_fd, struct err *err);

#endif
