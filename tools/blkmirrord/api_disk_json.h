/* SPDX-License-Identifier: Apache-2.0 */
/* api_disk_json.h - how the API tells about a disk, and what it refuses for all verbs alike. */
#ifndef BM_API_DISK_JSON_H
#define BM_API_DISK_JSON_H

#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"

/* What lies on a datastore, whose copy it is and why, and how it is attached. */
json_t *disk_json(struct daemon *daemon, const struct disk_name *name,
		  const struct ds_disk_info *info);

/* An attachment as INTERFACE's `disk attach` gives it, with what its guest does. */
json_t *attachment_json(const struct attachment *attachment);

/* Neither attached nor moving: 0, or ERR_DS_UNKNOWN, ERR_DISK_ATTACHED, ERR_DISK_MOVING. */
MUST_CHECK int disk_must_be_idle(struct daemon *daemon, const struct disk_name *name,
				 struct err *err);

/* A check's answer. */
json_t *check_report_json(const struct check_report *report);

#endif
