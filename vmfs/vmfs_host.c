/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_host.c - the slot of this host: taken, renewed, freed; those of others: watched, buried. */
#include "vmfs/vmfs_host.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_host_private.h"
#include "vmfs/vmfs_le.h"

#define US_PER_MS UINT64_C(1000)
#define DRIFT_MS (VMFS_HOST_LEASE_MS / 50)      /* 2 % */
/* How long after its sending a renewal lets us write. */
#define UNSETTLED_MS (VMFS_HOST_WIRE_MS + VMFS_HOST_SERVER_MS)
#define GRANT_US ((VMFS_HOST_LEASE_MS - UNSETTLED_MS - DRIFT_MS) * US_PER_MS)
/* How long a burier waits. */
#define PATIENCE_US ((VMFS_HOST_LEASE_MS + DRIFT_MS) * US_PER_MS)
#define REPLAY_HOST_OFFSET 0x6Cu        /* [D] */

_Static_assert(VMFS_HOST_LEASE_MS >= 3 * VMFS_HOST_PULSE_MS + UNSETTLED_MS,
	       "R-F1: three renewals fit");

uint64_t vmfs_host_now_us(const struct vmfs_host *host)
{
	struct timespec now;

	if (host->options.now_us)
		return host->options.now_us(host->options.user);
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t slot_place(uint32_t slot)
{
	return VMFS_HB_OFFSET + (uint64_t)slot * VMFS_HB_BYTES;
}

int vmfs_host_read_slot(struct vmfs_lv *lv, uint32_t slot, uint8_t bytes[VMFS_HB_BYTES],
			struct vmfs_heartbeat *out)
{
	int rc = vmfs_lv_read(lv, slot_place(slot), bytes, VMFS_HB_BYTES);

	if (rc)
		return rc;
	vmfs_heartbeat_decode(bytes, out);
	return out->volume_offset == slot_place(slot) && out->state >> 8 == VMFS_HB_FREE >> 8 ?
		       0 : -EUCLEAN;
}

/* ---- the right to write ---- */

bool vmfs_host_is_lost(const struct vmfs_host *host)
{
	return atomic_load(&host->lost);
}

bool vmfs_host_may_write(const struct vmfs_host *host)
{
	return !vmfs_host_is_lost(host) && vmfs_host_now_us(host) < atomic_load(&host->until_us);
}

uint32_t vmfs_host_slot(const struct vmfs_host *host)
{
	return host->slot;
}

/* ---- our slot ---- */

static void fill_slot(const struct vmfs_host *host, struct vmfs_heartbeat *slot)
{
	slot->state = VMFS_HB_ACTIVE;
	slot->generation++;
	slot->stamp_us = vmfs_host_now_us(host);
	slot->major = 14;
	slot->minor = 81;
	slot->lock_impl = 3;
	slot->journal_address = 0;
	slot->journal_offset = 0;
	memcpy(slot->owner, host->options.uuid, VMFS_UUID_BYTES);
	memset(slot->host, 0, sizeof(slot->host));
	if (host->options.name)
		memcpy(slot->host, host->options.name, strnlen(host->options.name,
							       sizeof(slot->host) - 1));
}

/* -EAGAIN: it is not free, or another was faster. */
static int take_slot(struct vmfs_host *host, uint32_t index)
{
	uint64_t sent_us = vmfs_host_now_us(host);
	uint8_t before[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc = vmfs_host_read_slot(host->beat, index, before, &slot);

	if (rc)
		return rc == -EUCLEAN ? -EAGAIN : rc;
	if (slot.state != VMFS_HB_FREE)
		return -EAGAIN;
	fill_slot(host, &slot);
	memcpy(host->last, before, sizeof(before));
	vmfs_heartbeat_encode(&slot, host->last);
	rc = vmfs_lv_compare_write(host->beat, slot_place(index), before, host->last, sizeof(before));
	if (rc)
		return rc;
	host->slot = index;
	host->generation = slot.generation;
	atomic_store(&host->until_us, sent_us + GRANT_US);
	return 0;
}

int vmfs_host_join(struct vmfs_lv *lv, struct vmfs_lv *beat,
		   const struct vmfs_host_options *options, struct vmfs_host **out)
{
	struct vmfs_host *host = calloc(1, sizeof(*host));
	int rc = -EAGAIN;

	if (!host)
		return -ENOMEM;
	host->lv = lv;
	host->beat = beat;
	host->options = *options;
	for (uint32_t i = 0; i < VMFS_HOST_SLOTS && rc == -EAGAIN; i++)
		rc = take_slot(host, i);
	if (rc) {
		free(host);
		return rc == -EAGAIN ? -EBUSY : rc;
	}
	*out = host;
	return 0;
}

/* An answer may have been lost: is the slot as we wrote it, but for the stamp? */
static bool is_ours(const struct vmfs_host *host, const struct vmfs_heartbeat *slot)
{
	return slot->state == VMFS_HB_ACTIVE && slot->generation == host->generation &&
	       memcmp(slot->owner, host->options.uuid, VMFS_UUID_BYTES) == 0;
}

static int lose(struct vmfs_host *host)
{
	atomic_store(&host->lost, true);
	return -ESTALE;
}

/* From the bytes that we know; -EAGAIN: they are others. */
static int renew_once(struct vmfs_host *host)
{
	uint64_t sent_us = vmfs_host_now_us(host);      /* R-F1: the lease counts from the sending */
	uint8_t fresh[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc;

	vmfs_heartbeat_decode(host->last, &slot);
	slot.stamp_us = sent_us;
	memcpy(fresh, host->last, sizeof(fresh));
	vmfs_heartbeat_encode(&slot, fresh);
	rc = vmfs_lv_compare_write(host->beat, slot_place(host->slot), host->last, fresh, sizeof(fresh));
	if (rc)
		return rc;
	memcpy(host->last, fresh, sizeof(fresh));
	atomic_store(&host->until_us, sent_us + GRANT_US);
	return 0;
}

int vmfs_host_renew(struct vmfs_host *host)
{
	struct vmfs_heartbeat slot;
	int rc;

	if (vmfs_host_is_lost(host))
		return -ESTALE;
	rc = renew_once(host);
	if (rc != -EAGAIN)
		return rc;
	rc = vmfs_host_read_slot(host->beat, host->slot, host->last, &slot);
	if (rc)
		return rc == -EUCLEAN ? lose(host) : rc;
	if (!is_ours(host, &slot))
		return lose(host);      /* R-F3 */
	rc = renew_once(host);
	return rc == -EAGAIN ? lose(host) : rc;
}

void vmfs_host_abandon(struct vmfs_host *host)
{
	free(host);
}

static void clear_slot(uint8_t *bytes)
{
	struct vmfs_heartbeat slot;

	vmfs_heartbeat_decode(bytes, &slot);
	slot.state = VMFS_HB_FREE;
	slot.generation++;
	slot.journal_address = 0;
	slot.journal_offset = 0;
	memset(slot.owner, 0, sizeof(slot.owner));
	vmfs_heartbeat_encode(&slot, bytes);
	memset(bytes + REPLAY_HOST_OFFSET, 0, VMFS_UUID_BYTES);
}

int vmfs_host_leave(struct vmfs_host *host)
{
	uint8_t fresh[VMFS_HB_BYTES];
	int rc = host ? vmfs_host_renew(host) : 0;

	if (host && !rc) {
		memcpy(fresh, host->last, sizeof(fresh));
		clear_slot(fresh);
		rc = vmfs_lv_compare_write(host->beat, slot_place(host->slot), host->last, fresh,
					   sizeof(fresh));
	}
	free(host);
	return rc == -EAGAIN ? -ESTALE : rc;
}

/* ---- watching ---- */

int vmfs_watch_begin(struct vmfs_host *host, uint32_t slot, struct vmfs_watch *out)
{
	struct vmfs_heartbeat fields;
	int rc = vmfs_host_read_slot(host->lv, slot, out->seen, &fields);

	out->slot = slot;
	out->since_us = vmfs_host_now_us(host); /* R-F1: from our first sight of it */
	return rc;
}

int vmfs_watch_look(struct vmfs_host *host, struct vmfs_watch *watch)
{
	uint64_t began_us = vmfs_host_now_us(host);
	uint8_t now[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc = vmfs_host_read_slot(host->lv, watch->slot, now, &slot);

	if (rc)
		return rc;
	if (slot.state == VMFS_HB_FREE)
		return -ENOENT;
	if (memcmp(now, watch->seen, sizeof(now)) != 0) {
		memcpy(watch->seen, now, sizeof(now));
		watch->since_us = vmfs_host_now_us(host);
		return -EAGAIN;
	}
	return began_us - watch->since_us >= PATIENCE_US ? 0 : -EAGAIN;
}

/* ---- burial ---- */

bool vmfs_burial_may_go_on(const struct vmfs_burial *burial)
{
	return vmfs_host_may_write(burial->host) && vmfs_host_now_us(burial->host) < burial->until_us;
}

int vmfs_host_bury(struct vmfs_host *host, const struct vmfs_watch *watch,
		   struct vmfs_burial *burial)
{
	uint64_t place = slot_place(watch->slot), sent_us = vmfs_host_now_us(host);
	uint8_t taken[VMFS_HB_BYTES], cleared[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc;

	if (!vmfs_host_may_write(host))
		return -ESTALE;
	memcpy(taken, watch->seen, sizeof(taken));
	vmfs_heartbeat_decode(taken, &slot);
	slot.state = VMFS_HB_REPLAYING;
	slot.stamp_us = sent_us;        /* who watches it begins anew */
	vmfs_heartbeat_encode(&slot, taken);
	memcpy(taken + REPLAY_HOST_OFFSET, host->options.uuid, VMFS_UUID_BYTES);
	rc = vmfs_lv_compare_write(host->lv, place, watch->seen, taken, sizeof(taken));
	if (rc)
		return rc == -EAGAIN ? -EBUSY : rc;
	burial->host = host;
	burial->until_us = sent_us + GRANT_US;
	rc = burial->replay ? burial->replay(burial, watch->slot) : 0;
	if (rc)
		return rc;
	if (!vmfs_burial_may_go_on(burial))
		return -ESTALE;
	memcpy(cleared, taken, sizeof(cleared));
	clear_slot(cleared);
	rc = vmfs_lv_compare_write(host->lv, place, taken, cleared, sizeof(cleared));
	return rc == -EAGAIN ? -EBUSY : rc;
}
