/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define CHUNK_BYTES ((size_t)64 << 10)

/* ---- heartbeats ---- */

uint32_t vmfs_heartbeat_count(const struct vmfs *fs)
{
	return fs->geometry->hb_count;
}

uint64_t vmfs_heartbeat_offset(const struct vmfs *fs, uint32_t index)
{
	return VMFS_HB_OFFSET + (uint64_t)index * fs->geometry->hb_bytes;
}

int vmfs_heartbeat_judge(struct vmfs *fs, uint32_t index, const struct vmfs_heartbeat *slot)
{
	/* A state that we do not know is somebody's: VMFS_HB_REPLAYING is a guess. */
	if (slot->state >> 8 != VMFS_HB_FREE >> 8)
		return vmfs_damaged(fs, "heartbeat slot %u says %#x", index, slot->state);
	if (slot->volume_offset != vmfs_heartbeat_offset(fs, index))
		return vmfs_damaged(fs, "heartbeat slot %u does not know its place", index);
	return 0;
}

int vmfs_heartbeat_read(struct vmfs *fs, uint32_t index, struct vmfs_heartbeat *out,
			struct err *err)
{
	uint8_t bytes[VMFS_HB_BYTES];
	int rc;

	CHECK(index < fs->geometry->hb_count);
	vmfs_begin(fs);
	rc = vmfs_volume_read(fs, vmfs_heartbeat_offset(fs, index), bytes, sizeof(bytes));
	if (!rc) {
		vmfs_heartbeat_decode(bytes, out);
		rc = vmfs_heartbeat_judge(fs, index, out);
	}
	return vmfs_answer(fs, rc, err);
}

static int walk(struct vmfs *fs,
		void (*see)(uint32_t index, const struct vmfs_heartbeat *slot, void *user),
		void *user)
{
	CLEANUP_FREE uint8_t *chunk = malloc(CHUNK_BYTES);
	const uint32_t per_chunk = (uint32_t)(CHUNK_BYTES / fs->geometry->hb_bytes);
	struct vmfs_heartbeat slot;
	int rc;

	if (!chunk)
		return -ENOMEM;
	for (uint32_t i = 0; i < fs->geometry->hb_count; i++) {
		if (i % per_chunk == 0) {
			rc = vmfs_volume_read(fs, vmfs_heartbeat_offset(fs, i), chunk, CHUNK_BYTES);
			if (rc)
				return rc;
		}
		vmfs_heartbeat_decode(chunk + (size_t)(i % per_chunk) * fs->geometry->hb_bytes, &slot);
		rc = vmfs_heartbeat_judge(fs, i, &slot);
		if (rc)
			return rc;
		if (slot.state != VMFS_HB_FREE)
			see(i, &slot, user);
	}
	return 0;
}

static void count_slot(uint32_t index UNUSED, const struct vmfs_heartbeat *slot UNUSED, void *user)
{
	(*(uint32_t *)user)++;
}

int vmfs_heartbeats_in_use(struct vmfs *fs, uint32_t *count_out)
{
	uint32_t count = 0;
	int rc = walk(fs, count_slot, &count);

	if (!rc)
		*count_out = count;
	return rc;
}

int vmfs_heartbeats_walk(struct vmfs *fs,
			 void (*see)(uint32_t index, const struct vmfs_heartbeat *slot, void *user),
			 void *user, struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, walk(fs, see, user), err);
}

/* ---- locks ---- */

int vmfs_lock_read(struct vmfs_node *node, struct vmfs_lock *out, struct err *err)
{
	struct vmfs *fs = node->fs;
	uint8_t bytes[VMFS_LOCK_BYTES];
	int rc;

	vmfs_begin(fs);
	rc = vmfs_volume_read(fs, node->volume_offset, bytes, sizeof(bytes));
	if (!rc)
		vmfs_lock_decode(bytes, out);
	return vmfs_answer(fs, rc, err);
}

static int slot_of(struct vmfs *fs, uint64_t offset, uint32_t *index_out)
{
	uint64_t from_start = offset - VMFS_HB_OFFSET;
	uint32_t slot_bytes = fs->geometry->hb_bytes;

	if (offset < VMFS_HB_OFFSET || from_start % slot_bytes ||
	    from_start / slot_bytes >= fs->geometry->hb_count)
		return vmfs_damaged(fs, "a lock names a heartbeat at %#llx",
				    (unsigned long long)offset);
	*index_out = (uint32_t)(from_start / slot_bytes);
	return 0;
}

int vmfs_lock_is_stale(struct vmfs *fs, const struct vmfs_lock *lock, bool *stale_out,
		       struct err *err)
{
	struct vmfs_heartbeat slot;
	uint32_t index;
	int rc;

	vmfs_begin(fs);
	rc = slot_of(fs, lock->heartbeat_offset, &index);
	if (rc)
		return vmfs_answer(fs, rc, err);
	rc = vmfs_heartbeat_read(fs, index, &slot, err);
	if (rc)
		return rc;
	*stale_out = slot.state == VMFS_HB_FREE ||
		     slot.generation != lock->heartbeat_generation ||
		     memcmp(slot.owner, lock->owner, VMFS_UUID_BYTES) != 0;
	return 0;
}

const char *vmfs_lock_mode_name(uint32_t mode)
{
	switch (mode) {
	case VMFS_LOCK_MODE_FREE:
		return "free";
	case VMFS_LOCK_MODE_EXCLUSIVE:
		return "exclusive";
	case VMFS_LOCK_MODE_READ_ONLY:
		return "read-only";
	case VMFS_LOCK_MODE_MULTI_WRITER:
		return "multi-writer";
	default:
		return "unknown";
	}
}
