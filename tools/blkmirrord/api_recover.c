/* SPDX-License-Identifier: Apache-2.0 */
/* api_recover.c - interrupted moves that wait, and the operator's word on them. */
#include <stdio.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/recovering.h"

static json_t *disks_json(const struct recover_entry *entry)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < entry->disk_count; i++) {
		const struct move_record_disk *disk = &entry->disks[i];
		char source[DS_NAME_BYTES + DS_PATH_BYTES], target[DS_NAME_BYTES + DS_PATH_BYTES];

		snprintf(source, sizeof(source), "%s:%s", disk->source_datastore, disk->source_path);
		snprintf(target, sizeof(target), "%s:%s", disk->target_datastore, disk->target_path);
		json_array_append_new(list, json_pack("{s:o, s:o}", "source",
						      json_edge_text(source), "target",
						      json_edge_text(target)));
	}
	return list;
}

void api_recover_list(struct api_call *call)
{
	struct recovery *recovery = api_daemon(call)->recovery;
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < recovery_count(recovery); i++) {
		struct recover_entry entry;

		recovery_entry(recovery, i, &entry);
		json_array_append_new(
			list, json_pack("{s:s, s:s#, s:s, s:b, s:o, s:o}", "id", entry.id, "task",
					entry.id, (int)strcspn(entry.id, "-"), "authoritative",
					recover_side_name(entry.authoritative), "resumable",
					entry.resumable, "why",
					json_edge_err_object(&entry.why), "disks",
					disks_json(&entry)));
	}
	api_answer(call, 200, json_pack("{s:o}", "recover", list));
}

static void kept(const struct err *err, void *user)
{
	struct api_call *call = user;

	if (err) {
		api_fail(call, err);
		return;
	}
	api_answer(call, 200, json_pack("{s:s}", "recovered", api_param(call)));
	inventory_attach_waiting(api_daemon(call)->inventory);
}

void api_recover(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct recover_request request;
	char id[MOVE_ID_BYTES];
	struct err err = { 0 };

	if (judge_recover(api_body(call), &request, &err)) {
		api_fail(call, &err);
		return;
	}
	if (request.run_here)
		err_set(&err, ERR_NOT_SUPPORTED, 0,
			"this version runs no machines, so none can be run here");
	else if (recovery_is_busy(daemon->recovery))
		err_set(&err, ERR_BUSY, 0, "interrupted moves are being looked through");
	else if (!recovering_find(daemon, api_param(call), id))
		err_set(&err, ERR_RECOVER_UNKNOWN, 0, "nothing of '%.64s' waits for a word",
			api_param(call));
	if (err.id != ERR_NONE)
		api_fail(call, &err);
	else
		recovery_keep(daemon->recovery, id,
			      request.keep_choice ? RECOVER_TARGET : RECOVER_SOURCE, kept, call);
}
