/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_mkfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/base/uuid.h"
#include "vmfs/vmfs_le.h"
#include "vmfs/vmfs_private.h"

#define BLOCK ((uint64_t)1 << 20)
#define SUB_BLOCK 0x2000u
#define GROUP_OFFSET 0x10000u
#define CLUSTERS_PER_GROUP 64u
#define CLUSTER_HEADER 0x400u
#define FD_BYTES 0x800u
#define FIRST_STAMP 0x201u              /* what ESXi counts the locks of a fresh volume from */
#define VH_BLOCKS 4u
#define FDC_FIRST_BLOCK 4u
#define SYSTEM_FD_COUNT 8u
#define FILES_MAX 65536u                /* what 256 blocks of descriptors hold */
#define FILES_MIN 32u
#define US_PER_S UINT64_C(1000000)

/* One resource file to be. */
struct plan {
	enum vmfs_res_kind kind;
	enum vmfs_system_fd fd;
	uint32_t per_cluster, item_bytes;
	uint64_t item_count;
	uint64_t length, block_count;
	uint64_t first_block;           /* .fdc.sf: of its second block; the first is fixed */
};

struct mkfs {
	struct vmfs_lv lv;
	const struct vmfs_mkfs_options *options;
	uint32_t now_s;
	uint8_t uuid[VMFS_UUID_BYTES], lv_uuid[VMFS_UUID_BYTES], host_uuid[VMFS_UUID_BYTES];
	uint64_t block_count, used_blocks;
	struct plan plans[VMFS_RES_COUNT];
	uint64_t root_block, sdd_block;
	uint64_t stamp;
};

/* ---- the plan ---- */

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
	return MIN(MAX(value, low), high);
}

/* Each file must be mapped by the 256 pointers of its descriptor: that bounds the counts. */
static void size_plans(struct mkfs *mkfs)
{
	uint64_t blocks = mkfs->block_count;
	uint64_t files = mkfs->options->file_count ? mkfs->options->file_count :
						     clamp(blocks * 2, 4096, FILES_MAX);

	mkfs->plans[VMFS_RES_FBB] = (struct plan){ VMFS_RES_FBB, VMFS_FD_FBB, 200, 0, blocks, 0, 0, 0 };
	mkfs->plans[VMFS_RES_FDC] = (struct plan){ VMFS_RES_FDC, VMFS_FD_FDC, 32, FD_BYTES,
		round_up(files, 32), 0, 0, 0 };
	mkfs->plans[VMFS_RES_PBC] = (struct plan){ VMFS_RES_PBC, VMFS_FD_PBC, 16, 0x1000,
		round_down(clamp(blocks / 128, 256, 61440), 16), 0, 0, 0 };
	mkfs->plans[VMFS_RES_SBC] = (struct plan){ VMFS_RES_SBC, VMFS_FD_SBC, 32, SUB_BLOCK,
		round_down(clamp(blocks, 4096, 30720), 32), 0, 0, 0 };
	mkfs->plans[VMFS_RES_PB2] = (struct plan){ VMFS_RES_PB2, VMFS_FD_PB2, 16, 0x1000, 64, 0, 0, 0 };
}

static uint64_t group_bytes(const struct plan *plan)
{
	return CLUSTERS_PER_GROUP * (CLUSTER_HEADER + (uint64_t)plan->per_cluster * plan->item_bytes);
}

static uint64_t group_count(const struct plan *plan)
{
	return div_round_up(plan->item_count, (uint64_t)plan->per_cluster * CLUSTERS_PER_GROUP);
}

static uint64_t plan_length(const struct plan *plan)
{
	uint64_t per_group = (uint64_t)plan->per_cluster * CLUSTERS_PER_GROUP;
	uint64_t rest = plan->item_count % per_group;
	uint64_t length = GROUP_OFFSET + plan->item_count / per_group * group_bytes(plan);

	if (rest)
		length += CLUSTERS_PER_GROUP * CLUSTER_HEADER + rest * plan->item_bytes;
	/* As ESXi does it. */
	return plan->kind == VMFS_RES_FDC ? round_up(length, BLOCK) : length;
}

static void lay_out(struct mkfs *mkfs)
{
	static const enum vmfs_res_kind order[] = { VMFS_RES_FBB, VMFS_RES_PBC, VMFS_RES_SBC,
						    VMFS_RES_PB2 };
	struct plan *fdc = &mkfs->plans[VMFS_RES_FDC];
	uint64_t next = FDC_FIRST_BLOCK + 1;

	for (unsigned i = 0; i < VMFS_RES_COUNT; i++) {
		struct plan *plan = &mkfs->plans[i];

		plan->length = plan_length(plan);
		plan->block_count = div_round_up(plan->length, BLOCK);
	}
	mkfs->root_block = next++;
	for (unsigned i = 0; i < ARRAY_COUNT(order); i++) {
		mkfs->plans[order[i]].first_block = next;
		next += mkfs->plans[order[i]].block_count;
	}
	mkfs->sdd_block = next++;
	fdc->first_block = next;
	mkfs->used_blocks = next + fdc->block_count - 1;
}

static uint64_t plan_block(const struct plan *plan, uint64_t index)
{
	if (plan->kind != VMFS_RES_FDC)
		return plan->first_block + index;
	return index == 0 ? FDC_FIRST_BLOCK : plan->first_block + index - 1;
}

static uint64_t plan_place(const struct plan *plan, uint64_t offset)
{
	return plan_block(plan, offset / BLOCK) * BLOCK + offset % BLOCK;
}

static uint64_t header_place(const struct plan *plan, uint64_t cluster)
{
	return plan_place(plan, GROUP_OFFSET + cluster / CLUSTERS_PER_GROUP * group_bytes(plan) +
					cluster % CLUSTERS_PER_GROUP * CLUSTER_HEADER);
}

static uint64_t fd_place(enum vmfs_system_fd fd)
{
	return FDC_FIRST_BLOCK * BLOCK + GROUP_OFFSET + CLUSTERS_PER_GROUP * CLUSTER_HEADER +
	       fd * FD_BYTES;
}

/* ---- pieces ---- */

static void put_lock(struct mkfs *mkfs, uint8_t *bytes, enum vmfs_lock_type type, uint64_t place)
{
	struct vmfs_lock lock = {
		.type = type,
		.volume_offset = place,
		.token = 1,
		.mtime = mkfs->stamp++,
	};

	vmfs_lock_encode(&lock, bytes);
}

/* A stretch of one resource, `used` items from the first on taken, in clusters. */
static int write_clusters(struct mkfs *mkfs, const struct plan *plan, uint64_t used)
{
	uint64_t clusters = div_round_up(plan->item_count, plan->per_cluster);

	for (uint64_t i = 0; i < clusters; i++) {
		uint64_t first = i * plan->per_cluster, place = header_place(plan, i);
		uint64_t items = MIN(plan->per_cluster, plan->item_count - first);
		uint64_t taken = used > first ? MIN(used - first, items) : 0;
		uint8_t bytes[CLUSTER_HEADER] = { 0 };
		struct vmfs_cluster5 cluster = {
			.number = (uint32_t)i,
			.item_count = (uint32_t)items,
			.free_count = (uint32_t)(items - taken),
			.first_free = taken < items ? (uint32_t)taken : 0,
			.last_generation = plan->kind == VMFS_RES_FDC && i == 0,
		};
		int rc;

		for (uint64_t item = taken; item < items; item++)
			cluster.bitmap[item / 8] |= (uint8_t)(1 << item % 8);
		put_lock(mkfs, bytes, vmfs_res_lock_type(plan->kind), place);
		vmfs_cluster5_encode(&cluster, bytes + VMFS_CLUSTER5_OFFSET);
		rc = vmfs_lv_write(&mkfs->lv, place, bytes, sizeof(bytes));
		if (rc)
			return rc;
	}
	return 0;
}

static int write_res_header(struct mkfs *mkfs, const struct plan *plan)
{
	uint8_t bytes[VMFS_RES_HEADER_BYTES] = { 0 };
	struct vmfs_res_header header = {
		.per_cluster = plan->per_cluster,
		.clusters_per_group = CLUSTERS_PER_GROUP,
		.group_offset = GROUP_OFFSET,
		.item_bytes = plan->item_bytes,
		.group_bytes = (uint32_t)group_bytes(plan),
		.item_count_low = (uint32_t)plan->item_count,
		.group_count = (uint32_t)group_count(plan),
	};

	vmfs_res_header_encode(&header, bytes);
	return vmfs_lv_write(&mkfs->lv, plan_place(plan, 0), bytes, sizeof(bytes));
}

/* A descriptor of file blocks: the plan's, or those from first_block on. */
static int write_fd(struct mkfs *mkfs, const struct vmfs_fd *given, const struct plan *plan,
		    uint64_t first_block)
{
	static const struct vmfs_addr_format format = { .dense_sub_blocks = true };
	uint64_t place = fd_place(given->address >> 22);
	uint8_t bytes[FD_BYTES] = { 0 };
	struct vmfs_fd fd = *given;

	fd.generation = 1;
	fd.block_bytes = BLOCK;
	fd.mtime = fd.ctime = fd.atime = mkfs->now_s;
	fd.zla = VMFS_ZLA_FB;
	fd.new_since_epoch = (uint32_t)fd.block_count;
	fd.affinity_fd = fd.address;
	fd.tbz_shift = 20;
	fd.block_shift = 20;
	put_lock(mkfs, bytes, VMFS_LOCK_FD, place);
	vmfs_fd_encode(&fd, bytes + VMFS_LOCK_BYTES);
	for (uint64_t i = 0; i < fd.block_count; i++) {
		struct vmfs_addr addr = {
			.type = VMFS_ADDR_FB,
			.block = plan ? plan_block(plan, i) : first_block + i,
		};

		le32_put(bytes + VMFS_LOCK_BYTES + VMFS_FD_META_BYTES + i * 4,
			 (uint32_t)vmfs_addr_encode(&format, &addr));
	}
	return vmfs_lv_write(&mkfs->lv, place, bytes, sizeof(bytes));
}

static int write_fds(struct mkfs *mkfs)
{
	const struct vmfs_fd others[] = {
		{ .address = vmfs_fd_address(0, VMFS_FD_ROOT), .link_count = 3, .type = VMFS_TYPE_DIR,
		  .length = 9 * VMFS_DIRENT5_BYTES, .block_count = 1, .mode = 01755 },
		{ .address = vmfs_fd_address(0, VMFS_FD_VH), .link_count = 1,
		  .type = VMFS_TYPE_SYSTEM, .length = VH_BLOCKS * BLOCK, .block_count = VH_BLOCKS,
		  .mode = 0400 },
		{ .address = vmfs_fd_address(0, VMFS_FD_SDD), .link_count = 2,
		  .type = VMFS_TYPE_SYSTEM, .length = 2 * VMFS_DIRENT5_BYTES, .block_count = 1,
		  .mode = 040700 },
	};
	const uint64_t blocks[] = { mkfs->root_block, 0, mkfs->sdd_block };
	int rc = 0;

	for (unsigned i = 0; i < ARRAY_COUNT(others) && !rc; i++)
		rc = write_fd(mkfs, &others[i], NULL, blocks[i]);
	for (unsigned i = 0; i < VMFS_RES_COUNT && !rc; i++) {
		const struct plan *plan = &mkfs->plans[i];
		struct vmfs_fd fd = {
			.address = vmfs_fd_address(0, plan->fd),
			.link_count = 1,
			.type = VMFS_TYPE_SYSTEM,
			.length = plan->length,
			.block_count = plan->block_count,
			.mode = 0400,
		};

		rc = write_fd(mkfs, &fd, plan, 0);
	}
	return rc;
}

static void put_entry(uint8_t *at, uint32_t type, enum vmfs_system_fd fd, const char *name)
{
	struct vmfs_dirent5 entry = {
		.type = type, .fd = vmfs_fd_address(0, fd), .generation = 1,
	};

	memcpy(entry.name, name, strlen(name));
	vmfs_dirent5_encode(&entry, at);
}

static int write_dirs(struct mkfs *mkfs)
{
	static const struct { enum vmfs_system_fd fd; const char *name; } files[] = {
		{ VMFS_FD_FBB, ".fbb.sf" }, { VMFS_FD_FDC, ".fdc.sf" }, { VMFS_FD_PBC, ".pbc.sf" },
		{ VMFS_FD_SBC, ".sbc.sf" }, { VMFS_FD_VH, ".vh.sf" }, { VMFS_FD_PB2, ".pb2.sf" },
		{ VMFS_FD_SDD, ".sdd.sf" },
	};
	uint8_t root[VMFS_SECTOR_BYTES * 3] = { 0 }, sdd[VMFS_SECTOR_BYTES] = { 0 };
	int rc;

	put_entry(root, VMFS_TYPE_DIR, VMFS_FD_ROOT, ".");
	put_entry(root + VMFS_DIRENT5_BYTES, VMFS_TYPE_DIR, VMFS_FD_ROOT, "..");
	for (unsigned i = 0; i < ARRAY_COUNT(files); i++)
		put_entry(root + (2 + i) * VMFS_DIRENT5_BYTES, VMFS_TYPE_SYSTEM, files[i].fd,
			  files[i].name);
	put_entry(sdd, VMFS_TYPE_SYSTEM, VMFS_FD_SDD, ".");
	put_entry(sdd + VMFS_DIRENT5_BYTES, VMFS_TYPE_DIR, VMFS_FD_ROOT, "..");
	rc = vmfs_lv_write(&mkfs->lv, mkfs->root_block * BLOCK, root, sizeof(root));
	return rc ? rc : vmfs_lv_write(&mkfs->lv, mkfs->sdd_block * BLOCK, sdd, sizeof(sdd));
}

static int write_heartbeats(struct mkfs *mkfs)
{
	const struct vmfs_geometry *geometry = vmfs_geometry(5);
	size_t len = (size_t)geometry->hb_count * geometry->hb_bytes;
	CLEANUP_FREE uint8_t *bytes = calloc(1, len);

	if (!bytes)
		return -ENOMEM;
	for (uint32_t i = 0; i < geometry->hb_count; i++) {
		struct vmfs_heartbeat slot = {
			.state = VMFS_HB_FREE,
			.volume_offset = VMFS_HB_OFFSET + (uint64_t)i * geometry->hb_bytes,
		};

		vmfs_heartbeat_encode(&slot, bytes + (size_t)i * geometry->hb_bytes);
	}
	return vmfs_lv_write(&mkfs->lv, VMFS_HB_OFFSET, bytes, len);
}

static int write_info(struct mkfs *mkfs)
{
	uint8_t bytes[VMFS_INFO_BYTES] = { 0 };
	struct vmfs_info info = {
		.magic = VMFS_INFO_MAGIC,
		.major = 14,
		.minor = 81,
		.config = VMFS_CONFIG_PUBLIC | VMFS_CONFIG_DENSE_SBPC,
		.disk_block_bytes = VMFS_SECTOR_BYTES,
		.file_block_bytes = BLOCK,
		.creation_time = mkfs->now_s,
		.snapshot_id = 1,
		.lv_snapshot_id = 1,
		.fdc_group_offset = GROUP_OFFSET,
		.fdc_clusters_per_group = CLUSTERS_PER_GROUP,
		.sub_block_bytes = SUB_BLOCK,
		.journal_slots_per_txn = 8,
		.pb2_volume_offset = fd_place(VMFS_FD_PB2),
		.pb2_fd = vmfs_fd_address(0, VMFS_FD_PB2),
		.global_generation = 1,
		.sdd_volume_offset = fd_place(VMFS_FD_SDD),
		.sdd_fd = vmfs_fd_address(0, VMFS_FD_SDD),
	};

	memcpy(info.uuid, mkfs->uuid, VMFS_UUID_BYTES);
	memcpy(info.lv_uuid, mkfs->lv_uuid, VMFS_UUID_BYTES);
	memcpy(info.host_uuid, mkfs->host_uuid, VMFS_UUID_BYTES);
	if (mkfs->options->label)
		memcpy(info.label, mkfs->options->label, strlen(mkfs->options->label));
	vmfs_info_encode(&info, bytes);
	return vmfs_lv_write(&mkfs->lv, VMFS_INFO_OFFSET, bytes, sizeof(bytes));
}

/* Whatever must read as zero although it is not written: all but the items of .sbc and .pbc. */
static int wipe(struct mkfs *mkfs)
{
	int rc = 0;

	if (mkfs->options->reads_zero)
		return 0;
	rc = vmfs_lv_zero(&mkfs->lv, 0, (FDC_FIRST_BLOCK + 2) * BLOCK);
	for (unsigned i = 0; i < VMFS_RES_COUNT && !rc; i++) {
		const struct plan *plan = &mkfs->plans[i];
		bool whole = plan->kind == VMFS_RES_FDC || plan->kind == VMFS_RES_FBB;

		if (whole) {
			rc = vmfs_lv_zero(&mkfs->lv, plan->first_block * BLOCK,
					  (plan->block_count - (plan->kind == VMFS_RES_FDC)) * BLOCK);
			continue;
		}
		rc = vmfs_lv_zero(&mkfs->lv, plan_place(plan, 0), GROUP_OFFSET);
		for (uint64_t group = 0; group < group_count(plan) && !rc; group++)
			rc = vmfs_lv_zero(&mkfs->lv, header_place(plan, group * CLUSTERS_PER_GROUP),
					  CLUSTERS_PER_GROUP * CLUSTER_HEADER);
	}
	return rc ? rc : vmfs_lv_zero(&mkfs->lv, mkfs->sdd_block * BLOCK, BLOCK);
}

static int write_file_system(struct mkfs *mkfs)
{
	int rc = wipe(mkfs);

	for (unsigned i = 0; i < VMFS_RES_COUNT && !rc; i++) {
		const struct plan *plan = &mkfs->plans[i];
		uint64_t used = plan->kind == VMFS_RES_FBB ? mkfs->used_blocks :
				plan->kind == VMFS_RES_FDC ? SYSTEM_FD_COUNT : 0;

		rc = write_res_header(mkfs, plan);
		if (!rc)
			rc = write_clusters(mkfs, plan, used);
	}
	if (!rc)
		rc = write_fds(mkfs);
	if (!rc)
		rc = write_dirs(mkfs);
	if (!rc)
		rc = write_heartbeats(mkfs);
	if (!rc)
		rc = write_info(mkfs);
	return rc ? rc : vmfs_lv_barrier(&mkfs->lv);
}

/* ---- the devices' headers ---- */

#define DEVICE_NAMES_OFFSET (VMFS_LVM_OFFSET + 0x7E200)
#define PE_BITMAP_OFFSET (VMFS_LVM_OFFSET + 0x80200)
#define PE_TABLE_OFFSET (VMFS_LVM_OFFSET + 0x80600)
#define SCSI_ID_TEXT "BLKMIRR VMFS volume     1.0 "   /* vendor 8, model 16, revision 4 */
#define SCSI_ID_TEXT_OFFSET 6u

static int wipe_device(struct vmfs_io *io, bool reads_zero)
{
	const size_t chunk = (size_t)1 << 20;
	CLEANUP_FREE uint8_t *zeroes = calloc(1, chunk);
	int rc = zeroes ? 0 : -ENOMEM;

	/* The header always: a crash from here on must not show the old volume. */
	if (!rc)
		rc = vmfs_io_write(io, VMFS_LVM_OFFSET, zeroes, chunk);
	if (!rc)
		rc = vmfs_io_flush(io);
	for (uint64_t at = 0; at < VMFS_DATA_OFFSET && !rc && !reads_zero; at += chunk)
		rc = vmfs_io_write(io, at, zeroes, chunk);
	return rc;
}

static int write_pe_table(struct vmfs_io *io, const struct vmfs_extent *extent)
{
	uint32_t count = extent->volume.pe_count;
	size_t table_bytes = (size_t)round_up((uint64_t)count * VMFS_PE_ENTRY_BYTES,
					      VMFS_SECTOR_BYTES);
	CLEANUP_FREE uint8_t *table = calloc(1, table_bytes);
	uint8_t bitmap[VMFS_PE_BITMAP5_BYTES] = { 0 };
	int rc;

	if (!table)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		struct vmfs_pe_entry entry = {
			.used = 1,
			.pe_id = i,
			.physical_offset = VMFS_DATA_OFFSET + i * VMFS_PE_BYTES,
			.logical_offset = extent->start_bytes + i * VMFS_PE_BYTES,
			.length = VMFS_PE_BYTES,
			.version = 1,
		};

		vmfs_pe_entry_encode(&entry, table + (size_t)i * VMFS_PE_ENTRY_BYTES);
		bitmap[i / 8] |= (uint8_t)(1 << i % 8);
	}
	rc = vmfs_io_write(io, PE_BITMAP_OFFSET, bitmap, sizeof(bitmap));
	return rc ? rc : vmfs_io_write(io, PE_TABLE_OFFSET, table, table_bytes);
}

static int write_device_names(struct mkfs *mkfs)
{
	uint8_t names[VMFS_DEVICE_NAMES * VMFS_DEVICE_NAME_BYTES] = { 0 };

	for (unsigned i = 0; i < mkfs->lv.extent_count; i++) {
		char *name = (char *)names + i * VMFS_DEVICE_NAME_BYTES;

		strcpy(name, "blkmirror:00");
		name[10] = (char)('0' + i / 10);
		name[11] = (char)('0' + i % 10);
	}
	return vmfs_io_write(mkfs->lv.extents[0].io, DEVICE_NAMES_OFFSET, names, sizeof(names));
}

static int write_device_header(struct mkfs *mkfs, const struct vmfs_extent *extent)
{
	uint8_t bytes[VMFS_LVM_HEADER_BYTES + VMFS_LVM_VOLUME_BYTES] = { 0 };
	int rc = write_pe_table(extent->io, extent);

	if (!rc && extent == &mkfs->lv.extents[0])
		rc = write_device_names(mkfs);
	if (!rc)
		rc = vmfs_io_flush(extent->io);
	if (rc)
		return rc;
	vmfs_lvm_header_encode(&extent->header, bytes);
	vmfs_lvm_volume_encode(&extent->volume, bytes + VMFS_LVM_HEADER_BYTES);
	rc = vmfs_io_write(extent->io, VMFS_LVM_OFFSET, bytes, sizeof(bytes));
	return rc ? rc : vmfs_io_flush(extent->io);
}

/* ---- identities and sizes ---- */

/* Time and chance in the form that VMFS gives its UUIDs. */
static void make_uuid(uint32_t now_s, uint8_t out[VMFS_UUID_BYTES])
{
	struct uuid random = uuid_random();

	le32_put(out, now_s);
	memcpy(out + 4, random.bytes, 6);
	memcpy(out + 10, random.bytes + 10, 6);
	out[10] = (uint8_t)((out[10] & 0xfc) | 2);      /* a locally administered MAC */
}

static void fill_extent(struct mkfs *mkfs, struct vmfs_extent *extent, uint64_t first_pe)
{
	uint64_t us = mkfs->now_s * US_PER_S;
	uint32_t count = extent->volume.pe_count;

	extent->header = (struct vmfs_lvm_header){
		.magic = VMFS_LVM_MAGIC,
		.major = 5,
		.minor = 0x15,
		.disk_block_bytes = VMFS_SECTOR_BYTES,
		.total_bytes = extent->io->size_bytes,
		.volume_count = 1,
		.pe_count = count,
		.last_pe_index = count - 1,
		.generation = 3,
		.data_offset = VMFS_DATA_OFFSET,
		.init_time_us = us,
		.mod_time_us = us,
		.pe_map_count = 1,
	};
	memcpy(extent->header.scsi_id + SCSI_ID_TEXT_OFFSET, SCSI_ID_TEXT, strlen(SCSI_ID_TEXT));
	make_uuid(mkfs->now_s, extent->header.device_uuid);
	extent->volume = (struct vmfs_lvm_volume){
		.logical_bytes = mkfs->lv.size_bytes,
		.generation = 2,
		.state = 1,
		.snapshot_id = 1,
		.creation_time_us = us,
		.pe_count = count,
		.first_pe = first_pe,
		.last_pe = first_pe + count - 1,
		.mod_time_us = us,
		.device_count = mkfs->lv.extent_count,
	};
	vmfs_uuid_format(mkfs->lv_uuid, (char *)extent->volume.name);
	memcpy(extent->volume.lv_uuid, mkfs->lv_uuid, VMFS_UUID_BYTES);
	extent->data_offset_bytes = VMFS_DATA_OFFSET;
	extent->start_bytes = first_pe * VMFS_PE_BYTES;
	extent->len_bytes = count * VMFS_PE_BYTES;
}

static int judge_device(const struct mkfs *mkfs, struct vmfs_io *io, unsigned index,
			struct err *err)
{
	uint8_t bytes[VMFS_LVM_HEADER_BYTES];
	uint64_t units;
	int rc;

	if (io->read_only)
		return err_set(err, ERR_VMFS_READ_ONLY, -EROFS, "device %u cannot be written",
			       index + 1);
	if (io->block_bytes != VMFS_SECTOR_BYTES)
		return err_set(err, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
			       "device %u has sectors of %u bytes; VMFS5 wants 512", index + 1,
			       io->block_bytes);
	if (io->size_bytes < VMFS_MKFS_DEVICE_MIN)
		return err_set(err, ERR_VMFS_BAD_SIZE, -EINVAL,
			       "device %u is too small for a VMFS5 volume", index + 1);
	units = (io->size_bytes - VMFS_DATA_OFFSET) / VMFS_PE_BYTES;
	if (units > VMFS_PES_PER_MAP)
		return err_set(err, ERR_VMFS_BAD_SIZE, -EINVAL,
			       "device %u is larger than the 2 TiB that are made here", index + 1);
	if (mkfs->options->overwrite)
		return 0;
	rc = vmfs_io_read(io, VMFS_LVM_OFFSET, bytes, sizeof(bytes));
	if (rc)
		return err_set(err, ERR_VMFS_IO, rc, "cannot read device %u: %s", index + 1,
			       err_strerror(rc));
	if (le32_get(bytes) != VMFS_LVM_MAGIC)
		return 0;
	err_set(err, ERR_VMFS_EXISTS, -EEXIST, "device %u holds a VMFS volume already", index + 1);
	err_remedy(err, "Choose another device, or overwrite that volume with --force.");
	return -EEXIST;
}

static int prepare(struct mkfs *mkfs, struct vmfs_io *const *ios, unsigned count, struct err *err)
{
	uint64_t units = 0;
	int rc;

	if (count == 0 || count > VMFS_EXTENTS_MAX)
		return err_set(err, ERR_VMFS_EXTENT, -EINVAL, "a volume has 1 to %u devices",
			       VMFS_EXTENTS_MAX);
	if (mkfs->options->label && strlen(mkfs->options->label) > VMFS_LABEL_MAX)
		return err_set(err, ERR_VMFS_NAME, -EINVAL, "the label is longer than %u bytes",
			       VMFS_LABEL_MAX);
	if (mkfs->options->file_count &&
	    (mkfs->options->file_count < FILES_MIN || mkfs->options->file_count > FILES_MAX))
		return err_set(err, ERR_VMFS_LIMIT, -EINVAL, "a volume holds %u to %u files", FILES_MIN,
			       FILES_MAX);
	mkfs->lv = (struct vmfs_lv){ .extent_count = count, .major = 5,
				     .block_bytes = VMFS_SECTOR_BYTES, .dirty = true };
	for (unsigned i = 0; i < count; i++) {
		struct vmfs_extent *extent = &mkfs->lv.extents[i];

		rc = judge_device(mkfs, ios[i], i, err);
		if (rc)
			return rc;
		extent->io = ios[i];
		extent->volume.pe_count = (uint32_t)((ios[i]->size_bytes - VMFS_DATA_OFFSET) /
						     VMFS_PE_BYTES);
		units += extent->volume.pe_count;
	}
	mkfs->lv.size_bytes = units * VMFS_PE_BYTES;
	mkfs->block_count = mkfs->lv.size_bytes / BLOCK;
	/* Beyond that .fbb.sf would need more than the 256 blocks that its descriptor maps. */
	if (mkfs->block_count > UINT64_C(48) << 20)
		return err_set(err, ERR_VMFS_BAD_SIZE, -EINVAL,
			       "volumes of more than 48 TiB are not made here");
	return 0;
}

int vmfs_mkfs(struct vmfs_io *const *ios, unsigned count, const struct vmfs_mkfs_options *options,
	      struct err *err)
{
	struct mkfs mkfs = { .options = options, .stamp = FIRST_STAMP };
	uint64_t first_pe = 0;
	int rc = prepare(&mkfs, ios, count, err);

	if (rc)
		return rc;
	mkfs.now_s = options->now_s ? options->now_s : (uint32_t)time(NULL);
	make_uuid(mkfs.now_s, mkfs.uuid);
	make_uuid(mkfs.now_s, mkfs.lv_uuid);
	make_uuid(mkfs.now_s, mkfs.host_uuid);
	for (unsigned i = 0; i < count; i++) {
		fill_extent(&mkfs, &mkfs.lv.extents[i], first_pe);
		first_pe += mkfs.lv.extents[i].volume.pe_count;
	}
	size_plans(&mkfs);
	lay_out(&mkfs);
	for (unsigned i = 0; i < count && !rc; i++)
		rc = wipe_device(ios[i], options->reads_zero);
	if (!rc)
		rc = write_file_system(&mkfs);
	for (unsigned i = 0; i < count && !rc; i++)
		rc = write_device_header(&mkfs, &mkfs.lv.extents[i]);
	return rc ? err_set(err, ERR_VMFS_IO, rc, "cannot write the volume: %s", err_strerror(rc)) : 0;
}
