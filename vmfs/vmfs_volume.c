/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_volume.c - the open volume: mount, sentences for errors, guarded I/O. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_lock.h"
#include "vmfs/vmfs_private.h"

/* ---- geometry ---- */

static const struct vmfs_geometry geometry_of[] = {
	{ .version = 3, .lock_bytes = 0x200, .hb_bytes = 0x200, .hb_count = 2048,
	  .hb_end = 0x400000, .fd_bytes = 0x800, .fd_data_offset = 0x400, .resident_max = 1024,
	  .pointer_offset = 0x400, .pointer_count = 256, .pointer_bytes = 4,
	  .pointer_block_bytes = 0x1000, .cluster_header_bytes = 0x400, .name_max = 128 },
	{ .version = 5, .lock_bytes = 0x200, .hb_bytes = 0x200, .hb_count = 2048,
	  .hb_end = 0x400000, .fd_bytes = 0x800, .fd_data_offset = 0x400, .resident_max = 1024,
	  .pointer_offset = 0x400, .pointer_count = 256, .pointer_bytes = 4,
	  .pointer_block_bytes = 0x1000, .cluster_header_bytes = 0x400, .name_max = 128 },
	{ .version = 6, .lock_bytes = 0x1000, .hb_bytes = 0x1000, .hb_count = 1024,
	  .hb_end = 0x700000, .fd_bytes = 0x2000, .fd_data_offset = 0x1200, .resident_max = 3584,
	  .pointer_offset = 0x1600, .pointer_count = 320, .pointer_bytes = 8,
	  .pointer_block_bytes = 0x10000, .cluster_header_bytes = 0x2000, .name_max = 256 },
};

const struct vmfs_geometry *vmfs_geometry(unsigned version)
{
	for (unsigned i = 0; i < ARRAY_COUNT(geometry_of); i++)
		if (geometry_of[i].version == version)
			return &geometry_of[i];
	return NULL;
}

/* ---- sentences ---- */

int vmfs_fail(struct vmfs *fs, enum err_id id, int rc, const char *format, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	if (fs->err.id != ERR_NONE)
		return rc;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return err_set(&fs->err, id, rc, "%s", text);
}

void vmfs_say_damaged(struct vmfs *fs, const char *format, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	vmfs_fail(fs, ERR_VMFS_DAMAGED, -EUCLEAN, "the volume is damaged: %.220s", text);
}

void vmfs_begin(struct vmfs *fs)
{
	err_clear(&fs->err);
}

int vmfs_answer(struct vmfs *fs, int rc, struct err *err)
{
	static const struct { int rc; enum err_id id; const char *text; } plain[] = {
		{ -ENOMEM, ERR_NO_MEMORY, "no memory for it" },
		{ -ENOENT, ERR_VMFS_NO_ENTRY, "there is no such file or folder" },
		{ -EEXIST, ERR_VMFS_EXISTS, "the name is taken" },
		{ -ENOTDIR, ERR_VMFS_KIND, "it is no folder" },
		{ -EISDIR, ERR_VMFS_KIND, "it is a folder" },
		{ -EINVAL, ERR_VMFS_KIND, "that cannot be done with it" },
		{ -ENOTEMPTY, ERR_VMFS_NOT_EMPTY, "the folder is not empty" },
		{ -EROFS, ERR_VMFS_READ_ONLY, "the volume is open for reading only" },
		{ -ENOSPC, ERR_VMFS_NO_SPACE, "the volume is full" },
		{ -EFBIG, ERR_VMFS_LIMIT, "no file can be that long here" },
		{ -ENAMETOOLONG, ERR_VMFS_NAME, "the name is empty, too long or holds a '/'" },
	};

	if (rc == 0 || !err)
		return rc;
	if (fs->err.id != ERR_NONE) {
		*err = fs->err;
		return rc;
	}
	for (unsigned i = 0; i < ARRAY_COUNT(plain); i++)
		if (plain[i].rc == rc)
			return err_set(err, plain[i].id, rc, "%s", plain[i].text);
	return err_set(err, ERR_VMFS_IO, rc, "the volume's device failed: %s", err_strerror(rc));
}

int vmfs_may_write(struct vmfs *fs)
{
	if (fs->read_only)
		return -EROFS;
	if (fs->failed)
		return vmfs_fail(fs, ERR_VMFS_IO, -EIO,
				 "an earlier write to the volume failed: open it again");
	return 0;
}

uint32_t vmfs_now_s(struct vmfs *fs)
{
	if (fs->options.now_s)
		return fs->options.now_s(fs->options.user);
	return (uint32_t)time(NULL);
}

/* ---- guarded I/O ---- */

static int outside(struct vmfs *fs, uint64_t offset, uint64_t len)
{
	return vmfs_damaged(fs, "%llu bytes at %#llx are outside of it", (unsigned long long)len,
			    (unsigned long long)offset);
}

int vmfs_volume_read(struct vmfs *fs, uint64_t offset, void *bytes, size_t len)
{
	int rc;

	if (!vmfs_lv_holds(&fs->lv, offset, len) || offset % VMFS_SECTOR_BYTES)
		return outside(fs, offset, len);
	rc = vmfs_lv_read(&fs->lv, offset, bytes, len);
	if (!rc)
		vmfs_txn_patch(fs, offset, bytes, len);
	return rc ? vmfs_fail(fs, ERR_VMFS_IO, rc, "cannot read %zu bytes at %#llx of the volume: %s",
			      len, (unsigned long long)offset, err_strerror(rc)) : 0;
}

int vmfs_volume_read_any(struct vmfs *fs, uint64_t offset, uint8_t *bytes, size_t len)
{
	uint8_t sector[VMFS_SECTOR_BYTES];

	while (len > 0) {
		size_t skip = (size_t)(offset % VMFS_SECTOR_BYTES), part;
		int rc;

		if (skip == 0 && len >= VMFS_SECTOR_BYTES) {
			part = (size_t)round_down(len, VMFS_SECTOR_BYTES);
			rc = vmfs_volume_read(fs, offset, bytes, part);
		} else {
			part = MIN(len, VMFS_SECTOR_BYTES - skip);
			rc = vmfs_volume_read(fs, offset - skip, sector, sizeof(sector));
			if (!rc)
				memcpy(bytes, sector + skip, part);
		}
		if (rc)
			return rc;
		bytes += part;
		offset += part;
		len -= part;
	}
	return 0;
}

static int wrote(struct vmfs *fs, uint64_t offset, uint64_t len, int rc)
{
	if (!rc)
		return 0;
	fs->failed = true;
	return vmfs_fail(fs, ERR_VMFS_IO, rc, "cannot write %llu bytes at %#llx of the volume: %s",
			 (unsigned long long)len, (unsigned long long)offset, err_strerror(rc));
}

int vmfs_volume_put(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len)
{
	CHECK(!fs->read_only);
	if (fs->failed)
		return -EIO;
	return wrote(fs, offset, len, vmfs_lv_write(&fs->lv, offset, bytes, len));
}

static int judge_write(struct vmfs *fs, uint64_t offset, uint64_t len)
{
	CHECK(!fs->read_only);
	if (!vmfs_lv_holds(&fs->lv, offset, len) || offset % VMFS_SECTOR_BYTES)
		return outside(fs, offset, len);
	return fs->failed ? -EIO : 0;
}

int vmfs_volume_write_data(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len)
{
	int rc = judge_write(fs, offset, len);

	if (!rc)
		rc = vmfs_journal_pass(fs, offset, len);
	if (rc)
		return rc;
	vmfs_txn_take_over(fs, offset, bytes, len);
	return vmfs_volume_put(fs, offset, bytes, len);
}

int vmfs_volume_write(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len)
{
	int rc;

	if (!vmfs_txn_is_open(fs))
		return vmfs_volume_write_data(fs, offset, bytes, len);
	rc = judge_write(fs, offset, len);
	return rc ? rc : vmfs_txn_write(fs, offset, bytes, len);
}

static int write_any(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len,
		     int (*write)(struct vmfs *fs, uint64_t offset, const void *bytes, size_t len))
{
	uint8_t sector[VMFS_SECTOR_BYTES];

	while (len > 0) {
		size_t skip = (size_t)(offset % VMFS_SECTOR_BYTES), part;
		int rc;

		if (skip == 0 && len >= VMFS_SECTOR_BYTES) {
			part = (size_t)round_down(len, VMFS_SECTOR_BYTES);
			rc = write(fs, offset, bytes, part);
		} else {
			part = MIN(len, VMFS_SECTOR_BYTES - skip);
			rc = vmfs_volume_read(fs, offset - skip, sector, sizeof(sector));
			memcpy(sector + skip, bytes, part);
			if (!rc)
				rc = write(fs, offset - skip, sector, sizeof(sector));
		}
		if (rc)
			return rc;
		bytes += part;
		offset += part;
		len -= part;
	}
	return 0;
}

int vmfs_volume_write_any(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len)
{
	return write_any(fs, offset, bytes, len, vmfs_volume_write);
}

int vmfs_volume_write_data_any(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len)
{
	return write_any(fs, offset, bytes, len, vmfs_volume_write_data);
}

int vmfs_volume_zero(struct vmfs *fs, uint64_t offset, uint64_t len)
{
	int rc = judge_write(fs, offset, len);

	if (!rc)
		rc = vmfs_journal_pass(fs, offset, len);
	if (rc)
		return rc;
	return wrote(fs, offset, len, vmfs_lv_zero(&fs->lv, offset, len));
}

/* A flush that failed once may "succeed" the next time without the data (R9): no more writes. */
int vmfs_barrier(struct vmfs *fs)
{
	int rc;

	if (fs->failed)
		return -EIO;
	rc = vmfs_lv_barrier(&fs->lv);
	if (!rc)
		return 0;
	fs->failed = true;
	return vmfs_fail(fs, ERR_VMFS_IO, rc, "cannot flush the volume's device: %s",
			 err_strerror(rc));
}

/* ---- mount ---- */

static unsigned version_of(const struct vmfs_info *info)
{
	switch (info->major) {
	case 4:
		return 3;
	case 14:
		return 5;
	case 24:
		return 6;
	default:
		return 0;
	}
}

static int judge_info(struct vmfs *fs)
{
	const struct vmfs_info *info = &fs->info;
	uint64_t block = info->file_block_bytes;

	if (info->magic != VMFS_INFO_MAGIC)
		return vmfs_fail(fs, ERR_VMFS_NOT_ONE, -EINVAL,
				 "the devices hold no VMFS file system (its descriptor is missing)");
	if (!version_of(info))
		return vmfs_fail(fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "the file system's version is %u.%u; 4, 14 and 24 are known",
				 info->major, info->minor);
	if (memcmp(info->lv_uuid, fs->lv.extents[0].volume.lv_uuid, VMFS_UUID_BYTES) != 0)
		return vmfs_fail(fs, ERR_VMFS_EXTENT, -EUCLEAN,
				 "the file system belongs to another volume: a snapshot, or a copy");
	if (!is_power_of_two(block) || block < 1u << 20 || block > 8u << 20)
		return vmfs_damaged(fs, "file blocks of %llu bytes", (unsigned long long)block);
	if (version_of(info) == 6 && block != 1u << 20)
		return vmfs_fail(fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "a VMFS6 volume with file blocks other than 1 MiB");
	if (!is_power_of_two(info->sub_block_bytes) ||
	    info->sub_block_bytes < VMFS_SECTOR_BYTES || info->sub_block_bytes > block)
		return vmfs_damaged(fs, "sub-blocks of %u bytes", info->sub_block_bytes);
	return 0;
}

static int read_info(struct vmfs *fs)
{
	uint8_t bytes[VMFS_INFO_BYTES];
	int rc = vmfs_volume_read(fs, VMFS_INFO_OFFSET, bytes, sizeof(bytes));

	if (rc)
		return rc;
	vmfs_info_decode(bytes, &fs->info);
	rc = judge_info(fs);
	if (rc)
		return rc;
	fs->geometry = vmfs_geometry(version_of(&fs->info));
	fs->addr.wide = fs->geometry->version == 6;
	fs->addr.dense_sub_blocks = fs->info.config & VMFS_CONFIG_DENSE_SBPC;
	fs->file_block_count = fs->lv.size_bytes / fs->info.file_block_bytes;
	return 0;
}

/* Order matters: .pbc.sf and .pb2.sf map the others. */
static int open_resources(struct vmfs *fs)
{
	static const enum vmfs_res_kind order[] = {
		VMFS_RES_PBC, VMFS_RES_PB2, VMFS_RES_SBC, VMFS_RES_FDC, VMFS_RES_FBB,
	};

	for (unsigned i = 0; i < ARRAY_COUNT(order); i++) {
		int rc = vmfs_res_open(fs, order[i]);

		if (rc)
			return rc;
	}
	return 0;
}

static int judge_writing(struct vmfs *fs)
{
	uint32_t active = 0;
	int rc;

	if (fs->lv.read_only)
		return -EROFS;
	if (fs->geometry->version != 5 || fs->lv.major != 5)
		return vmfs_fail(fs, ERR_VMFS_READ_ONLY, -EROFS,
				 "VMFS%u volumes can only be read", fs->geometry->version);
	if (fs->lv.block_bytes != VMFS_SECTOR_BYTES)
		return vmfs_fail(fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "VMFS5 is written on devices of 512-byte sectors only");
	if (fs->options.take_over || fs->options.repair)
		return vmfs_takeover(fs);
	rc = vmfs_heartbeats_in_use(fs, &active);
	if (rc)
		return rc;
	if (active)
		return vmfs_fail(fs, ERR_VMFS_IN_USE, -EBUSY,
				 "%u host%s the volume (heartbeats in use)", active,
				 active == 1 ? " uses" : "s use");
	return 0;
}

static int mount(struct vmfs *fs)
{
	int rc = read_info(fs);

	if (!rc && !fs->read_only)
		rc = judge_writing(fs);
	if (!rc)
		rc = vmfs_journal_open(fs, 0);
	if (!rc)
		rc = open_resources(fs);
	if (!rc)
		rc = vmfs_node_find(fs, vmfs_fd_address(0, VMFS_FD_ROOT), &fs->root);
	if (!rc && !vmfs_node_is_dir(fs->root))
		rc = vmfs_damaged(fs, "the root is no folder");
	return rc || fs->read_only ? rc : vmfs_journal_give_orphans(fs);
}

static void release(struct vmfs *fs)
{
	/* Dropping these writes nothing: none of them can have lost its name. */
	if (fs->root)
		(void)vmfs_node_drop(fs->root);
	for (unsigned i = 0; i < VMFS_RES_COUNT; i++)
		vmfs_res_close(&fs->res[i]);
	for (unsigned i = 0; i < VMFS_TABLE_CACHE; i++)
		free(fs->tables[i].bytes);
	CHECK(list_is_empty(&fs->nodes));
	free(fs->window);
	vmfs_journal_free(fs);
	free(fs);
}

int vmfs_open(struct vmfs_io *const *ios, unsigned count, const struct vmfs_options *options,
	      struct vmfs **out, struct err *err)
{
	struct vmfs *fs = calloc(1, sizeof(*fs));
	int rc;

	if (!fs)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory to open the volume");
	fs->window = calloc(1, sizeof(*fs->window));
	if (!fs->window) {
		free(fs);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory to open the volume");
	}
	list_init(&fs->nodes);
	fs->options = *options;
	fs->read_only = options->read_only;
	rc = vmfs_lv_open(&fs->lv, ios, count, err);
	if (rc) {
		release(fs);
		return rc;
	}
	rc = vmfs_answer(fs, mount(fs), err);
	if (rc) {
		release(fs);
		return rc;
	}
	*out = fs;
	return 0;
}

int vmfs_sync(struct vmfs *fs, struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, fs->read_only ? 0 : vmfs_barrier(fs), err);
}

int vmfs_close(struct vmfs *fs, struct err *err)
{
	int rc;

	if (!fs)
		return 0;
	rc = vmfs_sync(fs, err);
	/* Others do not know our journal: nothing may be left in it. */
	if (!rc)
		rc = vmfs_answer(fs, vmfs_journal_settle(fs), err);
	release(fs);
	return rc;
}

void vmfs_about(const struct vmfs *fs, struct vmfs_about *out)
{
	*out = (struct vmfs_about){
		.version = fs->geometry->version,
		.major = fs->info.major,
		.minor = fs->info.minor,
		.creation_time = fs->info.creation_time,
		.size_bytes = fs->lv.size_bytes,
		.file_block_bytes = fs->info.file_block_bytes,
		.sub_block_bytes = fs->info.sub_block_bytes,
		.device_count = fs->lv.extent_count,
		.read_only = fs->read_only,
	};
	memcpy(out->label, fs->info.label, VMFS_LABEL_MAX);
	memcpy(out->uuid, fs->info.uuid, VMFS_UUID_BYTES);
	memcpy(out->lv_uuid, fs->info.lv_uuid, VMFS_UUID_BYTES);
}
