/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int iscsi_place_connect(const struct iscsi_place *place, int cancel_fd, uint64_t timeout_ns,
			struct iscsi_link **out, struct err *err)
{
	struct ds_secret secret = { 0 };
	struct ds_url *url = calloc(1, sizeof(*url));
	struct iscsi_login login = {
		.url = url,
		.secret = place->secret_file[0] ? &secret : NULL,
		.host_uuid = place->host_uuid,
		.cancel_fd = cancel_fd,
	};
	int rc = 0;

	if (!url)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to an iSCSI target");
	snprintf(url->host, sizeof(url->host), "%s", place->host);
	snprintf(url->iqn, sizeof(url->iqn), "%s", place->iqn);
	url->port = place->port;
	if (login.secret)
		rc = ds_secret_read(place->secret_file, &secret, err);
	if (!rc)
		rc = iscsi_link_connect(&login, timeout_ns, out, err);
	ds_secret_wipe(&secret);
	free(url);
	return rc;
}
