/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_unit.h - what a logical unit says about itself, judged once.
 *
 * Each answer comes as bytes from the target and may be anything: it is bounded before it is
 * used, and what makes no sense is -EPROTO with ERR_ISCSI_PROTOCOL.  Optional pages that a
 * target lacks, or cuts short, leave the cautious default of iscsi_unit_init() in place.
 *
 * Units: bytes, also where the wire counts blocks.  Pure; any thread.
 */
#ifndef BM_ISCSI_UNIT_H
#define BM_ISCSI_UNIT_H

#include <stddef.h>

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

#define ISCSI_LUN_MAX 16383u
#define ISCSI_LUNS_MAX 256u             /* of one target; more are not looked at */
#define ISCSI_UNIT_ID_BYTES 132         /* "naa.6001405..." or "t10.IET..." */
#define ISCSI_TRANSFER_BYTES_MAX (UINT64_C(1) << 20)

enum { ISCSI_PAGE_LIMITS = 0xb0, ISCSI_PAGE_PROVISIONING = 0xb2, ISCSI_PAGE_IDENTITY = 0x83 };

struct iscsi_unit {
	uint32_t lun;
	uint64_t size_bytes;
	uint32_t block_bytes, physical_bytes;
	uint64_t max_transfer_bytes;    /* of one READ or WRITE; in physical blocks if it can be */
	uint64_t max_write_same_bytes;
	uint64_t max_unmap_bytes;       /* 0: UNMAP is not to be used */
	uint64_t unmap_align_bytes;     /* granularity; at least a block; need not be a power of two */
	uint64_t unmap_start_bytes;     /* the first aligned place, below unmap_align_bytes */
	bool is_thin;
	bool unmapped_is_zero;          /* LBPRZ, for a thin unit (R11) */
	bool can_write_same_unmap;      /* WRITE SAME (16) with UNMAP zeroes, and gives space back */
	bool has_fua;
	bool is_write_protected;
	bool has_pages[256];            /* VPD */
	char id[ISCSI_UNIT_ID_BYTES];   /* the strongest name of page 83; "" where there is none */
};

void iscsi_unit_init(struct iscsi_unit *unit, uint32_t lun);

/*
 * Standard INQUIRY.  -ENXIO with ERR_ISCSI_NO_LUN: the target has no such unit; -ENOTBLK with
 * ERR_ISCSI_NO_LUN: it is no disk.
 */
MUST_CHECK int iscsi_unit_judge_inquiry(const struct iscsi_unit *unit, const uint8_t *bytes,
					size_t len, struct err *err);

/* READ CAPACITY (16): sizes and LBPME, LBPRZ.  To be called before what follows. */
MUST_CHECK int iscsi_unit_judge_capacity(struct iscsi_unit *unit, const uint8_t *bytes, size_t len,
					 struct err *err);

/* VPD 00: which pages there are. */
void iscsi_unit_judge_pages(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);
/* VPD 83, B0, B2. */
void iscsi_unit_judge_identity(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);
void iscsi_unit_judge_limits(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);
void iscsi_unit_judge_provisioning(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);
/* The header of MODE SENSE (6). */
void iscsi_unit_judge_mode(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);

/* REPORT LUNS: how many of at most ISCSI_LUNS_MAX; those not addressed by a number are left out. */
size_t iscsi_unit_judge_luns(const uint8_t *bytes, size_t len, uint32_t luns[ISCSI_LUNS_MAX]);

/*
 * GET LBA STATUS, for [offset, offset + len) of a request.  -EIO: the answer makes no sense.
 * What is not mapped counts as a hole only where unmapped_is_zero.
 */
MUST_CHECK int iscsi_unit_judge_extents(const struct iscsi_unit *unit, const uint8_t *bytes,
					size_t len, const struct blk_req *req);

#endif
