/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idempotency.h - a repeated request gets the first one's answer, and does nothing again.
 *
 * The key is the client's (Idempotency-Key: 1 to 128 printable characters); what it stood
 * for is remembered as a hash of method, path and body.  The same key for another request is
 * refused.  A repeat that comes while the first is still worked on waits for its answer.
 *
 * Bounds: IDEMPOTENCY_ENTRIES_MAX keys; the oldest answered ones are forgotten.  When all are
 * still worked on, a new key is refused with ERR_BUSY.
 */
#ifndef BM_IDEMPOTENCY_H
#define BM_IDEMPOTENCY_H

#include <jansson.h>
#include <stdint.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/list.h"

#define IDEMPOTENCY_ENTRIES_MAX 1024u
#define IDEMPOTENCY_KEY_MAX 128u

struct idempotency;
struct idempotency_entry;

struct idempotency_waiter {
	void (*answered)(struct idempotency_waiter *waiter, int status, json_t *body);  /* borrows body */
	struct list node;               /* list_init() before first use */
};

struct idempotency *idempotency_new(void);
/* Nobody may wait. */
void idempotency_free(struct idempotency *table);

bool idempotency_key_is_valid(const char *key);

/*
 * Announce a request.  0 with *entry: it is new, finish it with idempotency_finish().
 * 0 with *entry NULL: it is a repeat, waiter is answered (at once or later).
 * -errno with *err: ERR_BAD_FIELD (key), ERR_KEY_REUSED, ERR_BUSY, ERR_NO_MEMORY.
 */
MUST_CHECK int idempotency_begin(struct idempotency *table, const char *key, uint64_t request_hash,
				 struct idempotency_waiter *waiter,
				 struct idempotency_entry **entry, struct err *err);
/* Borrows body (takes a reference of its own). */
void idempotency_finish(struct idempotency *table, struct idempotency_entry *entry, int status,
			json_t *body);
void idempotency_forget_waiter(struct idempotency_waiter *waiter);

#endif
