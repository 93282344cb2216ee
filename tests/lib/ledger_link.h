/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_link.h - one NBD connection that comes back by itself.
 *
 * libnbd speaks the protocol; what it lacks is here: a lost connection is dialled again at
 * once, then after 1, 2, 4 ... LINK_RETRY_MAX_MS, for ever.  Which requests were lost with it, and
 * what becomes of them, is the owner's business (lost()).
 *
 * Threading: one thread, which polls link_fd().
 */
#ifndef BM_TEST_LEDGER_LINK_H
#define BM_TEST_LEDGER_LINK_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

#define LINK_RETRY_MAX_MS 32u

struct link {
	const char *uri;                /* borrowed */
	/* It was up, and is gone with all that was in it. */
	void (*lost)(struct link *link);
	unsigned index;                 /* the owner's */

	struct nbd_handle *nbd;         /* NULL: waits for the next try */
	bool is_up;                     /* requests may be given to it */
	uint32_t retry_ms;
	uint64_t retry_at_ns;
	uint64_t losses;
	uint64_t down_since_ns, longest_outage_ns;
};

uint64_t link_now_ns(void);

/* uri, lost and index are set; everything else is zero. */
void link_dial(struct link *link);
/* What to poll for; -1: nothing before retry_at_ns.  *events: poll's. */
int link_fd(const struct link *link, short *events);
/* After the poll, in every turn: revents of its descriptor (0: none). */
void link_turn(struct link *link, short revents);
/* Tear it down abruptly (lost() runs), and dial again. */
void link_drop(struct link *link);
void link_close(struct link *link);

#endif
