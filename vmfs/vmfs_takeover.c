/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_takeover.c - the slots of hosts that are gone.
 *
 * A slot in use is looked at, and once more when a lease has passed on our own clock since we
 * first saw it (R-F1).  If anything in it changed, its host lives.  If not, the slot is freed
 * with the atomic primitive: a host that renews in that very moment wins.  What our journal
 * holds for it is carried out right afterwards, before anything else of the volume is read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmfs/vmfs_host.h"
#include "vmfs/vmfs_lock.h"
#include "vmfs/vmfs_private.h"

struct watched {
	uint32_t index;
	uint8_t bytes[VMFS_HB_BYTES];
};

static int slot_read(struct vmfs *fs, uint32_t index, uint8_t bytes[VMFS_HB_BYTES])
{
	return vmfs_volume_read(fs, vmfs_heartbeat_offset(fs, index), bytes, VMFS_HB_BYTES);
}

/* A slot that contradicts itself names no host: it becomes a free one. */
static int mend_slot(struct vmfs *fs, uint32_t index, const uint8_t *bytes)
{
	struct vmfs_heartbeat slot = {
		.state = VMFS_HB_FREE,
		.volume_offset = vmfs_heartbeat_offset(fs, index),
	};
	uint8_t fresh[VMFS_HB_BYTES] = { 0 };

	vmfs_heartbeat_encode(&slot, fresh);
	fs->slots_mended++;
	return vmfs_lv_compare_write(&fs->lv, slot.volume_offset, bytes, fresh, sizeof(fresh));
}

/* All slots that are not free; the caller frees *out. */
static int collect(struct vmfs *fs, struct watched **out, uint32_t *count_out)
{
	uint32_t slots = vmfs_heartbeat_count(fs), count = 0;
	struct watched *list = calloc(slots, sizeof(list[0]));
	int rc = list ? 0 : -ENOMEM;

	*out = list;
	for (uint32_t i = 0; i < slots && !rc; i++) {
		struct watched *watched = &list[count];
		struct vmfs_heartbeat slot;

		rc = slot_read(fs, i, watched->bytes);
		if (rc)
			break;
		vmfs_heartbeat_decode(watched->bytes, &slot);
		rc = vmfs_heartbeat_judge(fs, i, &slot);
		if (rc == -EUCLEAN && fs->options.repair) {
			err_clear(&fs->err);
			rc = mend_slot(fs, i, watched->bytes);
		} else if (!rc && slot.state != VMFS_HB_FREE) {
			watched->index = i;
			count++;
		}
	}
	*count_out = count;
	return rc;
}

static void wait_for_lease(struct vmfs *fs)
{
	uint32_t ms = VMFS_HOST_LEASE_MS + VMFS_HOST_LEASE_MS / 50;       /* clocks differ, by up to 2 % */
	struct timespec left = { ms / 1000, (long)(ms % 1000) * 1000000 };

	if (fs->options.pause_ms) {
		fs->options.pause_ms(ms, fs->options.user);
		return;
	}
	while (clock_nanosleep(CLOCK_BOOTTIME, 0, &left, &left) == EINTR)
		;
}

static int in_use(struct vmfs *fs, uint32_t index)
{
	return vmfs_fail(fs, ERR_VMFS_IN_USE, -EBUSY,
			 "a host uses the volume: heartbeat %u beats", index);
}

/* Nobody but its host understands a journal that is not ours. */
static int judge_journal(struct vmfs *fs, const struct watched *watched,
			 const struct vmfs_heartbeat *slot)
{
	if (!slot->journal_offset && !slot->journal_address)
		return 0;
	if (!fs->options.repair)
		return vmfs_fail(fs, ERR_VMFS_UNCLEAN, -EUCLEAN,
				 "the host of heartbeat %u is gone and left a journal of its own kind",
				 watched->index);
	fs->journals_dropped++;
	return 0;
}

static int free_slot(struct vmfs *fs, const struct watched *watched)
{
	uint8_t now[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc = slot_read(fs, watched->index, now);

	if (rc)
		return rc;
	if (memcmp(now, watched->bytes, sizeof(now)) != 0)
		return in_use(fs, watched->index);
	vmfs_heartbeat_decode(now, &slot);
	rc = judge_journal(fs, watched, &slot);
	if (rc)
		return rc;
	slot.state = VMFS_HB_FREE;
	slot.generation++;
	slot.journal_address = 0;
	slot.journal_offset = 0;
	memset(slot.owner, 0, sizeof(slot.owner));
	vmfs_heartbeat_encode(&slot, now);
	rc = vmfs_lv_compare_write(&fs->lv, slot.volume_offset, watched->bytes, now, sizeof(now));
	if (rc == -EAGAIN)
		return in_use(fs, watched->index);
	fs->slots_freed += !rc;
	return rc;
}

int vmfs_takeover(struct vmfs *fs)
{
	struct watched *list;
	uint32_t count;
	int rc = collect(fs, &list, &count);

	if (!rc && count) {
		wait_for_lease(fs);
		for (uint32_t i = 0; i < count && !rc; i++)
			rc = free_slot(fs, &list[i]);
	}
	free(list);
	return rc ? rc : vmfs_barrier(fs);
}
