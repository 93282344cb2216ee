/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_addr.h"

#include "blkmirror/base/check.h"

#define TBZ_BIT 5u                      /* VMFS3 and VMFS5, file blocks */
#define COW_BIT 4u
#define COW_BIT_OTHERS 5u               /* all other types, and everything in VMFS6 */

/* One field of a word: `bits` from bit `shift` on. */
static uint64_t field_get(uint64_t word, unsigned shift, unsigned bits)
{
	return word >> shift & ((UINT64_C(1) << bits) - 1);
}

static uint64_t field_put(uint64_t value, unsigned shift, unsigned bits)
{
	CHECK(value >> bits == 0);
	return value << shift;
}

/* ---- VMFS3 and VMFS5: 32 bits ---- */

static void decode_narrow(const struct vmfs_addr_format *format, uint64_t word,
			  struct vmfs_addr *out)
{
	switch (out->type) {
	case VMFS_ADDR_FB:
		out->block = field_get(word, 6, 26);
		out->tbz = field_get(word, TBZ_BIT, 1);
		out->cow = field_get(word, COW_BIT, 1);
		break;
	case VMFS_ADDR_SB:
		out->cluster = (uint32_t)field_get(word, 6, 22);
		out->item = (uint32_t)field_get(word, 28, 4);
		if (format->dense_sub_blocks)
			out->item |= (uint32_t)field_get(word, 3, 2) << 4;
		out->cow = field_get(word, COW_BIT_OTHERS, 1);
		break;
	case VMFS_ADDR_PB:
	case VMFS_ADDR_PB2:
		out->cluster = (uint32_t)field_get(word, 6, 22);
		out->item = (uint32_t)field_get(word, 28, 4);
		out->cow = field_get(word, COW_BIT_OTHERS, 1);
		break;
	default:
		break;
	}
}

static uint64_t encode_narrow(const struct vmfs_addr_format *format, const struct vmfs_addr *addr)
{
	uint64_t word = addr->type;

	switch (addr->type) {
	case VMFS_ADDR_FB:
		return word | field_put(addr->block, 6, 26) | field_put(addr->tbz, TBZ_BIT, 1) |
		       field_put(addr->cow, COW_BIT, 1);
	case VMFS_ADDR_SB:
		if (format->dense_sub_blocks)
			word |= field_put(addr->item >> 4, 3, 2);
		return word | field_put(addr->cluster, 6, 22) | field_put(addr->item & 15, 28, 4) |
		       field_put(addr->cow, COW_BIT_OTHERS, 1);
	case VMFS_ADDR_PB:
	case VMFS_ADDR_PB2:
		return word | field_put(addr->cluster, 6, 22) | field_put(addr->item, 28, 4) |
		       field_put(addr->cow, COW_BIT_OTHERS, 1);
	default:
		return word;
	}
}

/* ---- VMFS6: 64 bits ---- */

#define TBZ6_SHIFT 7u                   /* eight bits; any of them: reads as zeroes */
#define TBZ6_BITS 8u

static void decode_wide(uint64_t word, struct vmfs_addr *out)
{
	switch (out->type) {
	case VMFS_ADDR_FB:
		out->block = field_get(word, 15, 31) * VMFS_SMALL_PER_LARGE + field_get(word, 51, 13);
		out->tbz = field_get(word, TBZ6_SHIFT, TBZ6_BITS);
		out->cow = field_get(word, COW_BIT_OTHERS, 1);
		break;
	case VMFS_ADDR_LFB:
		out->block = field_get(word, 15, 31);
		out->tbz = field_get(word, TBZ6_SHIFT, TBZ6_BITS);
		out->cow = field_get(word, COW_BIT_OTHERS, 1);
		break;
	case VMFS_ADDR_SB:
	case VMFS_ADDR_PB:
	case VMFS_ADDR_PB2:
		out->item = (uint32_t)field_get(word, 56, 8);
		out->cluster = (uint32_t)field_get(word, 6, 32);
		/* Bit 5 and four bits above the 32 stay in `other` where they say more. */
		out->cow = field_get(word, COW_BIT_OTHERS, 1);
		break;
	case VMFS_ADDR_JB:
		out->cluster = (uint32_t)field_get(word, 3, 13);
		out->item = (uint32_t)field_get(word, 26, 6);
		break;
	default:
		break;
	}
}

/* A word with one TBZ bit of eight set decodes to `tbz`; which ones they were is in `other`. */
static uint64_t encode_wide(const struct vmfs_addr *addr)
{
	uint64_t word = addr->type;

	switch (addr->type) {
	case VMFS_ADDR_FB:
		return word | field_put(addr->block % VMFS_SMALL_PER_LARGE, 51, 13) |
		       field_put(addr->block / VMFS_SMALL_PER_LARGE, 15, 31) |
		       field_put(addr->tbz, TBZ6_SHIFT, TBZ6_BITS) |
		       field_put(addr->cow, COW_BIT_OTHERS, 1);
	case VMFS_ADDR_LFB:
		return word | field_put(addr->block, 15, 31) |
		       field_put(addr->tbz, TBZ6_SHIFT, TBZ6_BITS) |
		       field_put(addr->cow, COW_BIT_OTHERS, 1);
	case VMFS_ADDR_SB:
	case VMFS_ADDR_PB:
	case VMFS_ADDR_PB2:
		return word | field_put(addr->item, 56, 8) | field_put(addr->cluster, 6, 32) |
		       field_put(addr->cow, COW_BIT_OTHERS, 1);
	case VMFS_ADDR_JB:
		return word | field_put(addr->cluster, 3, 13) | field_put(addr->item, 26, 6);
	default:
		return word;
	}
}

/* ---- both ---- */

static void decode_fd(uint64_t word, struct vmfs_addr *out)
{
	out->cluster = (uint32_t)field_get(word, 6, 16);
	out->item = (uint32_t)field_get(word, 22, 10);
}

void vmfs_addr_decode(const struct vmfs_addr_format *format, uint64_t word, struct vmfs_addr *out)
{
	*out = (struct vmfs_addr){ .type = (enum vmfs_addr_type)(word & 7) };
	if (out->type == VMFS_ADDR_FD)
		decode_fd(word, out);
	else if (format->wide)
		decode_wide(word, out);
	else
		decode_narrow(format, word, out);
	out->other = word ^ vmfs_addr_encode(format, out);
}

uint64_t vmfs_addr_encode(const struct vmfs_addr_format *format, const struct vmfs_addr *addr)
{
	if (addr->type == VMFS_ADDR_FD)
		return vmfs_fd_address(addr->cluster, addr->item) ^ addr->other;
	return (format->wide ? encode_wide(addr) : encode_narrow(format, addr)) ^ addr->other;
}

bool vmfs_addr_fits(const struct vmfs_addr_format *format, const struct vmfs_addr *addr)
{
	bool dense = format->dense_sub_blocks;

	switch (addr->type) {
	case VMFS_ADDR_FB:
		return addr->block < (format->wide ? UINT64_C(1) << 40 : UINT64_C(1) << 26);
	case VMFS_ADDR_LFB:
		return format->wide && addr->block < UINT64_C(1) << 31;
	case VMFS_ADDR_SB:
		return format->wide ? addr->item < 256 :
				      addr->cluster < 1u << 22 && addr->item < (dense ? 64 : 16);
	case VMFS_ADDR_PB:
	case VMFS_ADDR_PB2:
		return format->wide ? addr->item < 256 : addr->cluster < 1u << 22 && addr->item < 16;
	case VMFS_ADDR_FD:
		return addr->cluster < VMFS_FD_CLUSTERS_MAX && addr->item < VMFS_FD_ITEMS_MAX;
	case VMFS_ADDR_JB:
		return format->wide && addr->cluster < 1u << 13 && addr->item < 64;
	default:
		return true;
	}
}

uint32_t vmfs_fd_address(uint32_t cluster, uint32_t item)
{
	return (uint32_t)(VMFS_ADDR_FD | field_put(cluster, 6, 16) | field_put(item, 22, 10));
}
