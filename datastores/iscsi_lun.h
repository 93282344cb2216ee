/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_lun.h - single blocks of a unit, and the atomic test-and-set of one, one call at a time.
 *
 * For what locks on a unit itself, as VMFS does: COMPARE AND WRITE where the unit has it, else
 * RESERVE (6), read, compare, write, RELEASE (6).  The two exclude each other only as far as the
 * unit does: all who lock there must see the same unit, which then gives all the same answer.
 * RESERVE (6) is refused while anybody is registered for persistent reservations.
 *
 * Where another session has reserved the unit, each call waits for it, at most timeout_ns: then
 * -EBUSY with ERR_ISCSI_FENCED.
 *
 * Blocking, for a worker; one thread at a time.  A session of its own; one that has died
 * is made anew by the next call.  -EIO with ERR_ISCSI_CONNECT from a call that writes: it may
 * have been carried out, or still be (R2): read again, on the new session, before judging.
 *
 * Units: bytes; a call takes one block of iscsi_lun_unit()->block_bytes, at a multiple of it.
 */
#ifndef BM_ISCSI_LUN_H
#define BM_ISCSI_LUN_H

#include "datastores/iscsi_place.h"

struct iscsi_lun;

/* As iscsi_place_connect() and iscsi_link_probe().  0 and *out (gives). */
MUST_CHECK int iscsi_lun_open(const struct iscsi_place *place, uint64_t timeout_ns,
			      struct iscsi_lun **out, struct err *err);
const struct iscsi_unit *iscsi_lun_unit(const struct iscsi_lun *lun);

MUST_CHECK int iscsi_lun_read(struct iscsi_lun *lun, uint64_t offset_bytes, uint8_t *block,
			      struct err *err);
MUST_CHECK int iscsi_lun_write(struct iscsi_lun *lun, uint64_t offset_bytes, const uint8_t *block,
			       struct err *err);
/* What was written before is durable. */
MUST_CHECK int iscsi_lun_flush(struct iscsi_lun *lun, struct err *err);

/*
 * If the block still holds `expected`, it becomes `replacement`, in one step for all hosts.
 * -EAGAIN: it holds something else (*err is not set).
 */
MUST_CHECK int iscsi_lun_compare_write(struct iscsi_lun *lun, uint64_t offset_bytes,
				       const uint8_t *expected, const uint8_t *replacement,
				       struct err *err);

/*
 * The whole unit for this session alone; every other one's reads and writes are refused.
 */
MUST_CHECK int iscsi_lun_reserve(struct iscsi_lun *lun, struct err *err);
MUST_CHECK int iscsi_lun_release(struct iscsi_lun *lun, struct err *err);

/* Ends the session, and with it what it reserved.  NULL is harmless. */
void iscsi_lun_close(struct iscsi_lun *lun);

#endif
