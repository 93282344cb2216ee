/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_place.h - all that a new session with one unit needs, for whoever must make one later.
 *
 * The secret stays in its file: it is read for each login and wiped after it.
 */
#ifndef BM_ISCSI_PLACE_H
#define BM_ISCSI_PLACE_H

#include "datastores/iscsi_link.h"

struct iscsi_place {
	char host[DS_URL_HOST_BYTES];
	uint16_t port;                  /* 0: the usual one */
	char iqn[DS_URL_IQN_BYTES];
	uint32_t lun;
	char secret_file[DS_PATH_BYTES];        /* "": no CHAP */
	uint8_t host_uuid[16];
};

/*
 * Blocks.  As iscsi_link_connect(), and ERR_DS_SECRET_FILE.  cancel_fd: as in struct
 * iscsi_login.
 */
MUST_CHECK int iscsi_place_connect(const struct iscsi_place *place, int cancel_fd,
				   uint64_t timeout_ns, struct iscsi_link **out, struct err *err);

#endif
