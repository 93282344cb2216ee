/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_alloc.c - taking items of resource files and giving them back (VMFS5).
 *
 * A cluster's bitmap and counts are one sector.  Taking and giving are part of the transaction
 * that refers to the items, or ceases to; what is given in a transaction cannot be taken in the
 * same one, or data would be written over what is still durably another's.  vmfs_io is
 * synchronous, so no write of ours to an item can still be under way when it is given back
 * (R-F6); whoever writes past it must settle its writes first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

/* ---- one cluster ---- */

static uint32_t count_free(const struct vmfs_cluster *cluster, uint32_t *first_out)
{
	uint32_t count = 0;

	*first_out = 0;
	for (uint32_t item = cluster->fields.item_count; item-- > 0;)
		if (vmfs_cluster_is_free(cluster, item)) {
			*first_out = item;
			count++;
		}
	return count;
}

/* Read for a change: what it says must be true before it is changed. */
static int cluster_begin(struct vmfs_res *res, uint32_t number, struct vmfs_cluster *out)
{
	uint32_t first;
	int rc = vmfs_cluster_read(res, number, out);

	if (rc)
		return rc;
	if (out->lock.mode != VMFS_LOCK_MODE_FREE)
		return vmfs_fail(res->fs, ERR_VMFS_IN_USE, -EBUSY,
				 "cluster %u of %s is locked by a host", number,
				 vmfs_res_name(res->kind));
	if (count_free(out, &first) != out->fields.free_count)
		return vmfs_damaged(res->fs, "cluster %u of %s counts its free items wrongly", number,
				    vmfs_res_name(res->kind));
	return 0;
}

/* The counts follow the bitmap. */
static int cluster_commit(struct vmfs_cluster *cluster)
{
	struct vmfs_cluster5 *fields = &cluster->fields;

	fields->free_count = count_free(cluster, &fields->first_free);
	vmfs_cluster5_encode(fields, cluster->raw + VMFS_CLUSTER5_OFFSET);
	return vmfs_volume_write(cluster->res->fs, cluster->volume_offset + VMFS_CLUSTER5_OFFSET,
				 cluster->raw + VMFS_CLUSTER5_OFFSET, VMFS_CLUSTER5_BYTES);
}

/* ---- taking ---- */

static void take_run(struct vmfs_cluster *cluster, uint32_t want, uint32_t *first_out,
		     uint32_t *count_out)
{
	uint32_t item = 0, count = 0;

	while (!vmfs_cluster_is_free(cluster, item))
		item++;
	*first_out = item;
	while (count < want && item < cluster->fields.item_count &&
	       vmfs_cluster_is_free(cluster, item)) {
		cluster->fields.bitmap[item / 8] &= (uint8_t)~(1 << item % 8);
		item++;
		count++;
	}
	*count_out = count;
}

static void name_item(const struct vmfs_res *res, uint32_t number, uint32_t item,
		      struct vmfs_addr *out)
{
	static const enum vmfs_addr_type types[VMFS_RES_COUNT] = {
		[VMFS_RES_FBB] = VMFS_ADDR_FB, [VMFS_RES_FDC] = VMFS_ADDR_FD,
		[VMFS_RES_PBC] = VMFS_ADDR_PB, [VMFS_RES_SBC] = VMFS_ADDR_SB,
		[VMFS_RES_PB2] = VMFS_ADDR_PB2,
	};

	*out = (struct vmfs_addr){ .type = types[res->kind] };
	if (res->kind == VMFS_RES_FBB) {
		out->block = (uint64_t)number * res->header.per_cluster + item;
		return;
	}
	out->cluster = number;
	out->item = item;
}

/* -EAGAIN: nothing is free in this one. */
static int take_from(struct vmfs_res *res, uint32_t number, uint32_t want,
		     struct vmfs_addr *first_out, uint32_t *count_out, uint32_t *generation_out)
{
	struct vmfs_cluster cluster;
	uint32_t item;
	int rc;

	if (res->full[number / 8] >> number % 8 & 1)
		return -EAGAIN;
	rc = cluster_begin(res, number, &cluster);
	if (rc)
		return rc;
	if (cluster.fields.free_count == 0) {
		res->full[number / 8] |= (uint8_t)(1 << number % 8);
		return -EAGAIN;
	}
	take_run(&cluster, want, &item, count_out);
	if (generation_out)
		*generation_out = ++cluster.fields.last_generation;
	rc = cluster_commit(&cluster);
	if (rc)
		return rc;
	name_item(res, number, item, first_out);
	if (vmfs_addr_fits(&res->fs->addr, first_out))
		return 0;
	return vmfs_damaged(res->fs, "%s has items that no address can name",
			    vmfs_res_name(res->kind));
}

int vmfs_res_take(struct vmfs_res *res, uint32_t want, struct vmfs_addr *first_out,
		  uint32_t *count_out, uint32_t *generation_out)
{
	CHECK(want > 0);
	for (uint32_t i = 0; i < res->cluster_count; i++) {
		uint32_t number = (res->hint + i) % res->cluster_count;
		int rc = take_from(res, number, want, first_out, count_out, generation_out);

		if (rc != -EAGAIN) {
			res->hint = number;
			return rc;
		}
	}
	return vmfs_fail(res->fs, ERR_VMFS_NO_SPACE, -ENOSPC, "nothing is free in %s",
			 vmfs_res_name(res->kind));
}

/* ---- giving ---- */

/* Which resource, cluster and item a word names; -EUCLEAN when none of ours. */
static int resolve(struct vmfs *fs, uint64_t word, struct vmfs_res **res_out,
		   uint32_t *cluster_out, uint32_t *item_out)
{
	struct vmfs_res *res;
	struct vmfs_addr addr;

	vmfs_addr_decode(&fs->addr, word, &addr);
	*cluster_out = addr.cluster;
	*item_out = addr.item;
	switch (addr.type) {
	case VMFS_ADDR_FB:
		res = &fs->res[VMFS_RES_FBB];
		*cluster_out = (uint32_t)(addr.block / res->header.per_cluster);
		*item_out = (uint32_t)(addr.block % res->header.per_cluster);
		break;
	case VMFS_ADDR_SB:
		res = &fs->res[VMFS_RES_SBC];
		break;
	case VMFS_ADDR_PB:
		res = &fs->res[VMFS_RES_PBC];
		break;
	case VMFS_ADDR_PB2:
		res = &fs->res[VMFS_RES_PB2];
		break;
	case VMFS_ADDR_FD:
		res = &fs->res[VMFS_RES_FDC];
		break;
	default:
		return vmfs_damaged(fs, "%#llx cannot be freed", (unsigned long long)word);
	}
	*res_out = res;
	if (!res->node || *cluster_out >= res->cluster_count || *item_out >= res->header.per_cluster ||
	    (uint64_t)*cluster_out * res->header.per_cluster + *item_out >= res->item_count)
		return vmfs_damaged(fs, "%#llx names nothing in %s", (unsigned long long)word,
				    vmfs_res_name(res->kind));
	return 0;
}

static int by_word(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* Neighbours in the sorted list mostly share a cluster: one write for them. */
int vmfs_give_now(struct vmfs *fs, uint64_t *words, size_t count)
{
	struct vmfs_cluster cluster = { 0 };
	uint32_t number, item;
	struct vmfs_res *res;
	int rc = 0;

	qsort(words, count, sizeof(words[0]), by_word);
	for (size_t i = 0; i < count && !rc; i++) {
		if (words[i] == 0)
			continue;
		rc = resolve(fs, words[i], &res, &number, &item);
		if (rc)
			break;
		if (cluster.res != res || cluster.number != number) {
			if (cluster.res)
				rc = cluster_commit(&cluster);
			cluster.res = NULL;
			if (!rc)
				rc = cluster_begin(res, number, &cluster);
			if (rc)
				return rc;
		}
		if (vmfs_cluster_is_free(&cluster, item)) {
			rc = vmfs_damaged(fs, "%#llx is freed, and was free", (unsigned long long)words[i]);
			break;
		}
		cluster.fields.bitmap[item / 8] |= (uint8_t)(1 << item % 8);
		res->full[number / 8] &= (uint8_t)~(1 << number % 8);
	}
	if (cluster.res) {
		int last = cluster_commit(&cluster);

		rc = rc ? rc : last;
	}
	return rc;
}

int vmfs_give_words(struct vmfs *fs, const uint64_t *words, size_t count)
{
	vmfs_txn_begin(fs);
	return vmfs_txn_end(fs, vmfs_txn_give(fs, words, count));
}

int vmfs_give_fd(struct vmfs *fs, uint32_t address)
{
	uint64_t word = address;

	return vmfs_give_words(fs, &word, 1);
}
