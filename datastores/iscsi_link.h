/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_link.h - one session with an iSCSI target: connected, logged in, its units judged.
 *
 * This is the blocking half, for a worker; a device takes a link over and drives it on its
 * loop (blk_iscsi.h).  Each call keeps its deadline.  libiscsi's own timeouts and its
 * reconnecting are off: a time-out of the library only forgets a command that the target may
 * still carry out (R2).  A link on which anything failed beyond the answer to one command is
 * dead: every later call says -EIO.
 *
 * Sockets drop what is queued when they end (R3); a link that ends idle logs out first.
 * Secrets are given to libiscsi and kept nowhere else.
 */
#ifndef BM_ISCSI_LINK_H
#define BM_ISCSI_LINK_H

#include "datastores/ds_secret.h"
#include "datastores/ds_url.h"
#include "datastores/iscsi_unit.h"

struct iscsi_link;

struct iscsi_login {
	const struct ds_url *url;       /* host, port, iqn; borrowed for the call, like all here */
	const struct ds_secret *secret; /* NULL: no CHAP */
	const uint8_t *host_uuid;       /* 16 bytes: becomes the initiator's name (R-F5) */
	/*
	 * Becomes readable when all that waits on the link is to be given up (an eventfd), for as
	 * long as it lives; 0: nothing does.
	 */
	int cancel_fd;
};

/*
 * Connect and log in.  ERR_ISCSI_CONNECT, ERR_ISCSI_LOGIN (a wrong secret, or not allowed),
 * ERR_ISCSI_NO_TARGET, ERR_ISCSI_PROTOCOL.  0 and *out (gives).
 */
MUST_CHECK int iscsi_link_connect(const struct iscsi_login *login, uint64_t timeout_ns,
				  struct iscsi_link **out, struct err *err);

/* Which units the target has: at most ISCSI_LUNS_MAX.  ERR_ISCSI_COMMAND, ERR_ISCSI_PROTOCOL. */
MUST_CHECK int iscsi_link_luns(struct iscsi_link *link, uint64_t timeout_ns,
			       uint32_t luns[ISCSI_LUNS_MAX], size_t *count, struct err *err);

/*
 * Ask a unit for all that a device of it needs.  ERR_ISCSI_NO_LUN (-ENXIO: no such unit,
 * -ENOTBLK: no disk), ERR_ISCSI_COMMAND, ERR_ISCSI_PROTOCOL.
 */
MUST_CHECK int iscsi_link_probe(struct iscsi_link *link, uint32_t lun, uint64_t timeout_ns,
				struct iscsi_unit *out, struct err *err);

/* TEST UNIT READY: takes the news that wait for a new session. */
MUST_CHECK int iscsi_link_ready(struct iscsi_link *link, uint32_t lun, uint64_t timeout_ns,
				struct err *err);

/*
 * The barrier (R2, R3): LOGICAL UNIT RESET.  0: the target has answered that nothing which it
 * had been sent for the unit, on whichever session, will be carried out any more.
 * ERR_ISCSI_COMMAND, or ERR_ISCSI_CONNECT: no such promise.
 */
MUST_CHECK int iscsi_link_reset_unit(struct iscsi_link *link, uint32_t lun, uint64_t timeout_ns,
				     struct err *err);

/* Where it is connected to, as numbers, so that nothing need be looked up again. */
MUST_CHECK int iscsi_link_peer(const struct iscsi_link *link, char host[DS_URL_HOST_BYTES],
			       uint16_t *port);

/* NULL is harmless.  Waits a second at most for the target to confirm the logout. */
void iscsi_link_free(struct iscsi_link *link);

#endif
