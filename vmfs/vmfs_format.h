/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_format.h - the structures of VMFS3, VMFS5 and VMFS6 on disk.
 *
 * Each structure is one list of fields: N(bits, name, offset) is a little-endian number,
 * B(bytes, name, offset) a run of bytes.  The list makes the struct in memory, its decoder
 * and its encoder, so the three cannot differ; vmfs_format.c asserts that every field lies
 * inside the structure, the unit test that no two overlap.
 *
 * NAME_decode() reads all fields and judges nothing.  NAME_encode() writes the listed fields
 * and leaves every other byte as it is: who rewrites a structure encodes into the bytes that
 * were read, so what we do not know is preserved; who makes a new one encodes into zeroes.
 *
 * What the fields mean was learnt from volumes written by ESXi, from the Debian tools that
 * read them, and from experiments.  A comment says where a field is known less well:
 *   [D]  only another reader relies on it; never seen in use by us
 *   [?]  a guess
 * Fields marked so are decoded for display and preserved; nothing is decided by a [?] field,
 * and we write neither kind, except where the comment says otherwise.
 *
 * Units: bytes, unless the name says otherwise.  Threading: pure functions.
 */
#ifndef BM_VMFS_FORMAT_H
#define BM_VMFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define VMFS_UUID_BYTES 16u
#define VMFS_UUID_TEXT_BYTES 36u        /* 35 characters and a NUL */

#define VMFS_LVM_MAGIC 0xC001D00Du
#define VMFS_LVM_OFFSET UINT64_C(0x100000)      /* of the device header, in the partition */
#define VMFS_LVM_HEADER_BYTES 512u
#define VMFS_LVM_VOLUME_BYTES 512u
#define VMFS_DATA_OFFSET UINT64_C(0x1100000)    /* where data begin on every known device */
#define VMFS_PE_BYTES UINT64_C(0x10000000)      /* 256 MiB */
#define VMFS_PE_ENTRY_BYTES 128u
#define VMFS_PES_PER_MAP 8192u
#define VMFS_PE_BITMAP5_BYTES 1024u
#define VMFS_PE_BITMAP6_BYTES 4096u
#define VMFS_DEVICE_NAME_BYTES 256u
#define VMFS_DEVICE_NAMES 32u

#define VMFS_INFO_MAGIC 0x2FABF15Eu
#define VMFS_INFO_OFFSET UINT64_C(0x200000)
#define VMFS_INFO_BYTES 512u
#define VMFS_CONFIG_PUBLIC 0x2u         /* in every sample; the Debian tools call it "public" */
#define VMFS_CONFIG_DENSE_SBPC 0x4u     /* more than 16 sub-blocks in a cluster */

#define VMFS_HB_OFFSET UINT64_C(0x300000)
#define VMFS_HB_BYTES 512u              /* the known part of a slot */
#define VMFS_HB_FREE 0xABCDEF01u
#define VMFS_HB_ACTIVE 0xABCDEF02u
#define VMFS_HB_REPLAYING 0xABCDEF03u   /* [?] that such a state exists is known, its value is not */

#define VMFS_LOCK_BYTES 512u            /* the known part of a lock block */
#define VMFS_LOCK_HOLDERS 8u
#define VMFS_LOCK_HOLDER_BYTES 32u

enum vmfs_lock_type {
	VMFS_LOCK_FD = 0x10C00001,
	VMFS_LOCK_FBB = 0x10C00002,
	VMFS_LOCK_SBC = 0x10C00003,
	VMFS_LOCK_PBC = 0x10C00004,
	VMFS_LOCK_FDC = 0x10C00005,
	VMFS_LOCK_PB2 = 0x10C00006,
	VMFS_LOCK_JBC = 0x10C00007,
	VMFS_LOCK_LFB = 0x10C00008,
};

enum vmfs_lock_mode {
	VMFS_LOCK_MODE_FREE = 0,
	VMFS_LOCK_MODE_EXCLUSIVE = 1,
	VMFS_LOCK_MODE_READ_ONLY = 2,   /* 2 and 3 from VMware's manuals; not seen on disk */
	VMFS_LOCK_MODE_MULTI_WRITER = 3,
};

#define VMFS_RES_HEADER_BYTES 512u
#define VMFS_CLUSTER5_OFFSET 0x200u     /* the cluster's own fields, behind its lock block */
#define VMFS_CLUSTER5_BYTES 512u
#define VMFS_CLUSTER5_BITMAP_BYTES 64u  /* what ESXi uses */
#define VMFS_CLUSTER6_BYTES 4096u
#define VMFS_CLUSTER6_BITMAP_BYTES 512u /* up to the first area that we do not understand */

#define VMFS_FD_META_BYTES 512u
#define VMFS_DIRENT5_BYTES 140u
#define VMFS_DIRENT5_NAME_BYTES 128u
#define VMFS_DIRENT6_BYTES 288u
#define VMFS_DIRENT6_NAME_BYTES 256u
#define VMFS_NAME_MAX 127u              /* what ESXi allows, in bytes */

enum vmfs_fd_type {
	VMFS_TYPE_DIR = 2,
	VMFS_TYPE_FILE = 3,
	VMFS_TYPE_SYMLINK = 4,
	VMFS_TYPE_SYSTEM = 5,
	VMFS_TYPE_RDM = 6,
};

/* How the pointer array of a descriptor is to be read. */
enum vmfs_zla {
	VMFS_ZLA_FB = 1,                /* file blocks */
	VMFS_ZLA_SB = 2,                /* sub-blocks */
	VMFS_ZLA_PB = 3,                /* pointer blocks, of file blocks */
	VMFS_ZLA_PB2 = 5,               /* the same through .pb2.sf (VMFS6's .sbc.sf) */
	VMFS_ZLA_DOUBLE = 0x10D0,       /* pointer blocks of pointer blocks */
	VMFS_ZLA_RESIDENT = 0x10D1,     /* the data themselves */
};

#define VMFS_DIR6_VERSION 0xF50001u
#define VMFS_DIR6_VERSION_ALT 0xFDC001u
#define VMFS_DIR6_HEADER_BYTES 0x10000u /* blocks are numbered from here */
#define VMFS_DIR6_KIND_DIRENT 1u
#define VMFS_DIR6_KIND_LINK 2u
#define VMFS_DIR6_KIND_MAP 3u
#define VMFS_DIR6_BLOCK_BYTES 4096u
#define VMFS_DIR6_SLOTS_OFFSET 0x40u

/* ---- fields ---- */

#define VMFS_LVM_HEADER_FIELDS(N, B) \
	N(32, magic, 0x00) \
	N(32, major, 0x04) \
	N(32, minor, 0x08) \
	B(78, scsi_id, 0x0C) \
	N(32, disk_block_bytes, 0x5A) \
	N(64, total_bytes, 0x5E) \
	N(32, volume_count, 0x66) \
	N(32, pe_count, 0x6A)           /* entries in use in the PE table */ \
	N(32, last_pe_index, 0x6E) \
	N(64, generation, 0x72) \
	N(64, data_offset, 0x7A) \
	B(16, device_uuid, 0x82) \
	N(64, init_time_us, 0x92) \
	N(64, mod_time_us, 0x9A) \
	B(16, locked_by, 0xA2) \
	N(64, locked_when_us, 0xB2) \
	N(32, pe_map_count, 0xBE) \
	N(64, extended_offset, 0xC2)    /* [D] */ \
	N(32, md_alignment, 0xCA) \
	N(32, pe_count6, 0xCE) \
	N(32, flags, 0xD2)              /* [D] */

#define VMFS_LVM_VOLUME_FIELDS(N, B) \
	N(64, logical_bytes, 0x00) \
	N(64, generation, 0x08) \
	N(32, state, 0x10) \
	B(64, name, 0x14) \
	B(16, lv_uuid, 0x54) \
	N(32, snapshot_id, 0x64) \
	N(64, creation_time_us, 0x68) \
	N(32, volume_id, 0x70) \
	N(32, pe_count, 0x74) \
	N(64, first_pe, 0x78) \
	N(64, last_pe, 0x80) \
	N(64, mod_time_us, 0x88) \
	N(32, device_count, 0x90) \
	N(32, consumed_pes, 0x110)

#define VMFS_PE_ENTRY_FIELDS(N, B) \
	N(8, used, 0x00) \
	N(32, pe_id, 0x01) \
	N(32, volume_id, 0x05) \
	N(64, physical_offset, 0x09) \
	N(64, logical_offset, 0x11) \
	N(64, length, 0x19) \
	N(32, version, 0x21)

#define VMFS_INFO_FIELDS(N, B) \
	N(32, magic, 0x00) \
	N(32, major, 0x04) \
	N(8, minor, 0x08) \
	B(16, uuid, 0x09) \
	N(32, config, 0x19) \
	B(128, label, 0x1D) \
	N(32, disk_block_bytes, 0x9D) \
	N(64, file_block_bytes, 0xA1) \
	N(32, creation_time, 0xA9) \
	N(32, snapshot_id, 0xAD) \
	B(16, lv_uuid, 0xB1) \
	N(32, lv_snapshot_id, 0xC1) \
	N(32, fdc_group_offset, 0xD1) \
	N(32, fdc_clusters_per_group, 0xD5) \
	N(32, sub_block_bytes, 0xD9) \
	N(32, journal_slots_per_txn, 0xDD) \
	N(64, pb2_volume_offset, 0xE1) \
	N(32, pb2_fd, 0xE9) \
	B(16, host_uuid, 0xED) \
	N(64, global_generation, 0xFD) \
	N(64, sdd_volume_offset, 0x105) \
	N(32, sdd_fd, 0x10D) \
	N(8, checksum_type, 0x111) \
	N(16, unmap_priority, 0x112) \
	N(32, physical_block_bytes, 0x130) \
	N(32, md_alignment, 0x134) \
	N(16, small_to_large_shift, 0x138) \
	N(16, pointer_block_shift, 0x13E) \
	N(16, small_address_bits, 0x140) \
	N(32, unmap_granularity, 0x144) \
	N(32, journal_block_bytes, 0x148) \
	N(32, lease_ms, 0x14C) \
	N(32, reclaim_ms, 0x150)

#define VMFS_HEARTBEAT_FIELDS(N, B) \
	N(32, state, 0x00) \
	N(64, volume_offset, 0x04)      /* of this very slot */ \
	N(64, generation, 0x0C) \
	N(64, stamp_us, 0x14) \
	B(16, owner, 0x1C) \
	N(32, journal_address, 0x2C) \
	N(32, major, 0x30) \
	N(8, minor, 0x34) \
	N(8, lock_impl, 0x35) \
	B(46, host, 0x36)               /* text; garbage after some writers */ \
	N(64, journal_offset, 0x64)

#define VMFS_LOCK_FIELDS(N, B) \
	N(32, type, 0x00)               /* enum vmfs_lock_type */ \
	N(64, volume_offset, 0x04)      /* of this very lock */ \
	N(64, heartbeat_offset, 0x0C) \
	N(64, heartbeat_generation, 0x14) \
	N(64, token, 0x1C) \
	N(32, mode, 0x24)               /* enum vmfs_lock_mode */ \
	B(16, owner, 0x28) \
	N(64, mtime, 0x38)              /* an opaque stamp */ \
	N(32, holder_count, 0x40)       /* [D] */

/* [D]: VMFS_LOCK_HOLDERS of them from 0x44 of a lock; displayed, never decided by. */
#define VMFS_LOCK_HOLDERS_OFFSET 0x44u
#define VMFS_LOCK_HOLDER_FIELDS(N, B) \
	N(64, heartbeat_offset, 0x00) \
	N(64, heartbeat_generation, 0x08) \
	B(16, owner, 0x10)

#define VMFS_RES_HEADER_FIELDS(N, B) \
	N(32, per_cluster, 0x00) \
	N(32, clusters_per_group, 0x04) \
	N(32, group_offset, 0x08) \
	N(32, item_bytes, 0x0C) \
	N(32, group_bytes, 0x10) \
	N(32, item_count_low, 0x14) \
	N(32, group_count, 0x18) \
	N(32, item_count_high, 0x1C) \
	N(32, magic6, 0x20)             /* "dmfr" in VMFS6, from here on zero before */ \
	N(32, version6, 0x24) \
	N(32, flags6, 0x28) \
	N(16, affinity_per_cluster6, 0x2C) \
	N(16, affinity_per_item6, 0x2E) \
	N(32, bits_per_item6, 0x30) \
	N(32, child_offset6, 0x34) \
	N(32, parent_per_cluster6, 0x38) \
	N(32, parent_clusters_per_group6, 0x3C) \
	N(32, parent_group_bytes6, 0x40) \
	N(32, converted_clusters6, 0x54)
#define VMFS_RES_MAGIC6 0x72666D64u

/* VMFS3 and VMFS5, at VMFS_CLUSTER5_OFFSET of a cluster header.  A set bit is a free item. */
#define VMFS_CLUSTER5_FIELDS(N, B) \
	N(32, number, 0x00) \
	N(32, item_count, 0x04) \
	N(32, free_count, 0x08) \
	N(32, first_free, 0x0C) \
	B(64, bitmap, 0x10) \
	N(32, last_generation, 0x50)    /* of descriptors handed out; .fdc.sf only */ \
	N(32, priority, 0x60)

/* VMFS6, behind the lock block. */
#define VMFS_CLUSTER6_FIELDS(N, B) \
	N(32, magic, 0x10) \
	N(64, number, 0x18) \
	N(16, item_count, 0x20) \
	N(16, free_count, 0x22) \
	N(32, last_generation, 0x58) \
	N(32, first_free, 0x7C) \
	B(512, bitmap, 0x80)
#define VMFS_CLUSTER6_MAGIC 0x72636D64u /* "dmcr" */

#define VMFS_FD_FIELDS(N, B) \
	N(32, address, 0x00) \
	N(32, generation, 0x04) \
	N(32, link_count, 0x08) \
	N(32, type, 0x0C)               /* enum vmfs_fd_type */ \
	N(32, flags, 0x10) \
	N(64, length, 0x14) \
	N(64, block_bytes, 0x1C) \
	N(64, block_count, 0x24) \
	N(32, mtime, 0x2C) \
	N(32, ctime, 0x30) \
	N(32, atime, 0x34) \
	N(32, uid, 0x38) \
	N(32, gid, 0x3C) \
	N(32, mode, 0x40) \
	N(32, zla, 0x44)                /* enum vmfs_zla */ \
	N(32, tbz_count, 0x48) \
	N(32, cow_count, 0x4C) \
	N(32, new_since_epoch, 0x50)    /* equals block_count in fresh files */ \
	N(32, tbz_count_high, 0x54) \
	N(32, cow_count_high, 0x58) \
	N(32, pointer_block_count, 0x5C) \
	N(32, new_since_epoch_high, 0x60) \
	N(32, signature6, 0x64) \
	N(32, affinity_fd, 0x68) \
	N(32, tbz_shift, 0x6C) \
	N(32, parent_fd6, 0x70) \
	N(8, preallocated, 0x84) \
	N(8, block_shift, 0x89) \
	N(32, large_block_count6, 0x8C)

#define VMFS_DIRENT5_FIELDS(N, B) \
	N(32, type, 0x00) \
	N(32, fd, 0x04) \
	N(32, generation, 0x08) \
	B(128, name, 0x0C)

#define VMFS_DIRENT6_FIELDS(N, B) \
	N(32, type, 0x00) \
	N(32, fd, 0x04) \
	N(32, generation, 0x08) \
	N(32, hash, 0x0C) \
	N(64, own_offset, 0x10) \
	B(256, name, 0x18)

#define VMFS_DIR6_HEADER_FIELDS(N, B) \
	N(32, version, 0x00) \
	N(32, entry_count, 0x04) \
	N(32, allocated_count, 0x08) \
	N(32, map_block_count, 0x0C)
#define VMFS_DIR6_MAPS_OFFSET 0x10u     /* block numbers of the maps, u32 each */
#define VMFS_DIR6_MAPS 128u
#define VMFS_DIR6_DOT_OFFSET 0x3B8u
#define VMFS_DIR6_DOTDOT_OFFSET 0x4D8u

#define VMFS_DIR6_BLOCK_FIELDS(N, B) \
	N(16, version, 0x00) \
	N(16, kind, 0x02) \
	N(16, slot_count, 0x04) \
	N(16, free_count, 0x06) \
	B(56, bitmap, 0x08)

/* Structure, its field list, and how many bytes it spans on disk. */
#define VMFS_STRUCTURES(S) \
	S(vmfs_lvm_header, VMFS_LVM_HEADER_FIELDS, VMFS_LVM_HEADER_BYTES) \
	S(vmfs_lvm_volume, VMFS_LVM_VOLUME_FIELDS, VMFS_LVM_VOLUME_BYTES) \
	S(vmfs_pe_entry, VMFS_PE_ENTRY_FIELDS, VMFS_PE_ENTRY_BYTES) \
	S(vmfs_info, VMFS_INFO_FIELDS, VMFS_INFO_BYTES) \
	S(vmfs_heartbeat, VMFS_HEARTBEAT_FIELDS, VMFS_HB_BYTES) \
	S(vmfs_lock, VMFS_LOCK_FIELDS, VMFS_LOCK_BYTES) \
	S(vmfs_lock_holder, VMFS_LOCK_HOLDER_FIELDS, VMFS_LOCK_HOLDER_BYTES) \
	S(vmfs_res_header, VMFS_RES_HEADER_FIELDS, VMFS_RES_HEADER_BYTES) \
	S(vmfs_cluster5, VMFS_CLUSTER5_FIELDS, VMFS_CLUSTER5_BYTES) \
	S(vmfs_cluster6, VMFS_CLUSTER6_FIELDS, VMFS_CLUSTER6_BYTES) \
	S(vmfs_fd, VMFS_FD_FIELDS, VMFS_FD_META_BYTES) \
	S(vmfs_dirent5, VMFS_DIRENT5_FIELDS, VMFS_DIRENT5_BYTES) \
	S(vmfs_dirent6, VMFS_DIRENT6_FIELDS, VMFS_DIRENT6_BYTES) \
	S(vmfs_dir6_header, VMFS_DIR6_HEADER_FIELDS, VMFS_DIR6_HEADER_BYTES) \
	S(vmfs_dir6_block, VMFS_DIR6_BLOCK_FIELDS, VMFS_DIR6_SLOTS_OFFSET)

#define VMFS_NUMBER_MEMBER(bits, name, offset) uint##bits##_t name;
#define VMFS_BYTES_MEMBER(bytes, name, offset) uint8_t name[bytes];
#define VMFS_DECLARE(structure, fields, size)                                                      \
	struct structure {                                                                         \
		fields(VMFS_NUMBER_MEMBER, VMFS_BYTES_MEMBER)                                      \
	};                                                                                         \
	void structure##_decode(const uint8_t *bytes, struct structure *out);                      \
	void structure##_encode(const struct structure *in, uint8_t *bytes);
VMFS_STRUCTURES(VMFS_DECLARE)

static inline uint64_t vmfs_res_item_count(const struct vmfs_res_header *header)
{
	return header->item_count_low | (uint64_t)header->item_count_high << 32;
}

/* "61137dd5-df6bc2c8-f0e7-000c29801686"; returns text. */
char *vmfs_uuid_format(const uint8_t uuid[VMFS_UUID_BYTES], char text[VMFS_UUID_TEXT_BYTES]);

/* 64 bits over the name as VMFS6 directories index it; len at most 255. */
uint64_t vmfs_dir6_hash(const char *name, size_t len);

#endif
