/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.h - which method and path leads to which handler.  openapi.json is tested against it.
 */
#ifndef BM_ROUTE_H
#define BM_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "tools/blkmirrord/api_server.h"

struct route {
	const char *method;
	const char *path;               /* "/v1/tasks/{id}/pause" */
	void (*handle)(struct api_call *call);
	bool changes;                   /* logged with who asked; idempotency keys hold */
	bool public;                    /* also on the metrics listener */
};

/*
 * The route of method and path; param gets what stood for {..}.  NULL: none; then
 * *path_known says whether another method has that path.
 */
const struct route *route_find(const char *method, const char *path, char *param,
			       size_t param_bytes, bool *path_known);

/* Walk; NULL past the end. */
const struct route *route_at(unsigned index);

#endif
