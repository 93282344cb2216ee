/* SPDX-License-Identifier: Apache-2.0 */
/* api_hosts.c - the API's hosts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/uuid.h"
#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"

/* ---- JSON ---- */

static json_t *addresses_json(const struct host_entry *entry)
{
	json_t *list = json_array();
	char text[WIRE_PEER_BYTES];

	for (uint32_t i = 0; i < entry->address_count; i++)
		json_array_append_new(list,
				      json_string(wire_address_format(&entry->addresses[i], text)));
	return list;
}

static json_t *entry_json(const struct host_entry *entry)
{
	return json_pack("{s:s, s:o, s:s, s:b}", "name", entry->name, "addresses",
			 addresses_json(entry), "fingerprint", entry->fingerprint, "plain_data",
			 entry->plain_data);
}

static json_t *this_host_json(const struct daemon *daemon)
{
	struct uuid uuid;
	char text[UUID_TEXT_BYTES];

	memcpy(uuid.bytes, daemon->host_uuid, sizeof(uuid.bytes));
	return json_pack("{s:s, s:s, s:s, s:s?}", "uuid", uuid_format(&uuid, text), "fingerprint",
			 hosts_fingerprint(daemon->hosts), "version", BM_VERSION, "listen",
			 daemon->config.listen[0] ? daemon->config.listen : NULL);
}

void api_host_list(struct api_call *call)
{
	const struct daemon *daemon = api_daemon(call);
	json_t *list = json_array();

	for (struct host_entry *entry = hosts_next(daemon->hosts, NULL); entry;
	     entry = hosts_next(daemon->hosts, entry))
		json_array_append_new(list, entry_json(entry));
	api_answer(call, 200,
		   json_pack("{s:o, s:o}", "hosts", list, "this_host", this_host_json(daemon)));
}

/* ---- show: asks it now ---- */

struct show {
	struct api_call *call;
	json_t *answer;
};

static void set_status(json_t *answer, const struct wire_link_status *status)
{
	char uuid[UUID_TEXT_BYTES];
	json_t *told = json_pack("{s:s, s:o, s:I, s:s, s:I}", "uuid",
				 uuid_format(&status->peer, uuid), "version",
				 json_edge_text(status->software), "wire_version",
				 (json_int_t)status->version, "address", status->address,
				 "round_trip_us",
				 (json_int_t)MAX(status->round_trip_ns / NS_PER_US, 1));

	json_object_update_new(answer, told);
}

static void shown(const struct wire_link_status *status, const struct err *err, void *user)
{
	struct show show = *(struct show *)user;

	free(user);
	json_object_set_new(show.answer, "reachable", json_boolean(status != NULL));
	json_object_set_new(show.answer, "error", err ? json_edge_err_object(err) : json_null());
	if (status)
		set_status(show.answer, status);
	api_answer(show.call, 200, show.answer);
}

void api_host_show(struct api_call *call)
{
	struct hosts *hosts = api_daemon(call)->hosts;
	struct err err = { 0 };
	struct host_entry *entry = hosts_find(hosts, api_param(call), &err);
	struct show *show;

	if (!entry) {
		api_fail(call, &err);
		return;
	}
	show = calloc(1, sizeof(*show));
	if (show) {
		show->call = call;
		show->answer = entry_json(entry);
	}
	if (!show || !show->answer)
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
	else if (!hosts_probe(hosts, entry, shown, show, &err))
		return;
	if (show)
		json_decref(show->answer);
	free(show);
	api_fail(call, &err);
}

/* ---- add, remove ---- */

static void added(struct host_entry *entry, const struct err *err, void *user)
{
	struct api_call *call = user;

	if (entry)
		api_answer(call, 201, entry_json(entry));
	else
		api_fail(call, err);
}

void api_host_add(struct api_call *call)
{
	struct host_add_request request;
	struct host_entry model = { 0 };
	struct err err = { 0 };

	if (judge_host_add(api_body(call), &request, &err) ||
	    hosts_parse_addresses(request.addresses, &model, &err)) {
		api_fail(call, &err);
		return;
	}
	snprintf(model.name, sizeof(model.name), "%s", request.name);
	snprintf(model.fingerprint, sizeof(model.fingerprint), "%s", request.fingerprint);
	model.plain_data = request.plain_data;
	hosts_add(api_daemon(call)->hosts, &model, added, call);
}

static void removed(int rc, const struct err *err, void *user)
{
	struct api_call *call = user;

	if (rc)
		api_fail(call, err);
	else
		api_answer(call, 200, json_pack("{s:s}", "removed", api_param(call)));
}

void api_host_remove(struct api_call *call)
{
	struct err err = { 0 };

	if (hosts_remove(api_daemon(call)->hosts, api_param(call), removed, call, &err))
		api_fail(call, &err);
}
