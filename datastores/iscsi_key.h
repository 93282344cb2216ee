/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_key.h - the key of a persistent reservation as identity and heartbeat (R-F2).
 *
 *	 63              32 31               0
 *	[ host             | beat             ]
 *
 * A reservation has no lease, so the key carries one: the holder registers the next beat every
 * P, and a key that stands still for L on the watcher's own clock, counted from the watcher's
 * first sight of it, is a dead host's.  The host half is drawn from the daemon's UUID (R-F5) and
 * is never 0, so that no key is 0 (which SCSI takes for "no key"); two hosts with the same half
 * are seen as one, and refused by who compares whole names (READ FULL STATUS).
 *
 * Pure; any thread.  Lists come from the target and are bounded here.
 */
#ifndef BM_ISCSI_KEY_H
#define BM_ISCSI_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

#define ISCSI_KEYS_MAX 128u
/* Write Exclusive, Registrants Only: each session of a host must register (T14). */
#define ISCSI_RESERVATION_TYPE 5u

uint64_t iscsi_key_first(const uint8_t host_uuid[16]);
/* The same host's next beat; after the last one comes 0 again. */
uint64_t iscsi_key_next(uint64_t key);
bool iscsi_key_same_host(uint64_t a, uint64_t b);

/* ---- what READ KEYS and READ RESERVATION answer ---- */

struct iscsi_keys {
	uint32_t generation;            /* changes with each registration and preemption */
	uint64_t keys[ISCSI_KEYS_MAX];
	size_t count;
};

/* 0, -EPROTO (cut short), -E2BIG (more than ISCSI_KEYS_MAX: no judgement is safe). */
MUST_CHECK int iscsi_keys_parse(const uint8_t *bytes, size_t len, struct iscsi_keys *out);
bool iscsi_keys_has(const struct iscsi_keys *keys, uint64_t key);

struct iscsi_reservation {
	bool held;
	uint64_t key;                   /* 0: of all registrants */
	uint8_t scope, type;
};

/* 0 or -EPROTO. */
MUST_CHECK int iscsi_reservation_parse(const uint8_t *bytes, size_t len,
				       struct iscsi_reservation *out);

/* ---- watching another's key ---- */

struct iscsi_key_watch {
	uint64_t key;
	uint64_t first_seen_ns;         /* on the watcher's clock */
	bool watching;
};

/*
 * A key was read as the holder's, the question having been *sent* at sent_ns and answered at
 * answered_ns.  A new key counts from its answer, an old one is old until the next question is
 * sent: both err on the side of life.  True: it has stood still for lease_ns.
 */
bool iscsi_key_watch_see(struct iscsi_key_watch *watch, uint64_t key, uint64_t sent_ns,
			 uint64_t answered_ns, uint64_t lease_ns);

#endif
