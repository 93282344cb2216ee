/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/api_disk_json.h"

#include <stdio.h>
#include <string.h>

#include "blkmirror/base/uuid.h"

static const char *format_name(enum disk_format format)
{
	static const char *const names[] = { "vmdk", "raw", "remote" };

	return (unsigned)format < ARRAY_COUNT(names) ? names[format] : "unknown";
}

/* Which copy counts, as far as this one's own marks tell. */
static json_t *authority_json(const struct disk_identity *identity)
{
	char why[256], host[UUID_TEXT_BYTES];
	struct uuid uuid;

	memcpy(uuid.bytes, identity->host_uuid, sizeof(uuid.bytes));
	uuid_format(&uuid, host);
	switch (identity->role) {
	case DISK_LIVE:
		snprintf(why, sizeof(why), "it is live, generation %llu",
			 (unsigned long long)identity->generation);
		break;
	case DISK_MOVING:
		snprintf(why, sizeof(why),
			 "move %s on host %s copies it; it counts until that move's switch record",
			 identity->journal_id, host);
		break;
	case DISK_INCOMING:
		snprintf(why, sizeof(why), "it is the unfinished target of move %s on host %s",
			 identity->journal_id, host);
		break;
	default:
		snprintf(why, sizeof(why), "it is the old copy: the disk moved on after generation %llu",
			 (unsigned long long)identity->generation);
	}
	return json_pack("{s:b, s:s}", "this_copy",
			 identity->role == DISK_LIVE || identity->role == DISK_MOVING, "why", why);
}

static json_t *identity_json(const struct ds_disk_info *info)
{
	char text[UUID_TEXT_BYTES];
	struct uuid uuid;

	if (!info->has_identity)
		return json_null();
	memcpy(uuid.bytes, info->identity.uuid, sizeof(uuid.bytes));
	uuid_format(&uuid, text);
	return json_pack("{s:s, s:I, s:s, s:s?}", "uuid", text, "generation",
			 (json_int_t)info->identity.generation, "role",
			 disk_role_name(info->identity.role), "move",
			 info->identity.journal_id[0] ? info->identity.journal_id : NULL);
}

static json_t *io_json(struct disk *disk)
{
	struct io_snapshot snapshot;

	io_stats_snapshot(disk_io_stats(disk), &snapshot);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "read_ops",
			 (json_int_t)snapshot.read_ops, "read_bytes",
			 (json_int_t)snapshot.read_bytes, "write_ops",
			 (json_int_t)snapshot.write_ops, "write_bytes",
			 (json_int_t)snapshot.write_bytes, "flush_ops",
			 (json_int_t)snapshot.flush_ops, "errors", (json_int_t)snapshot.errors,
			 "p99_us",
			 (json_int_t)(io_snapshot_quantile_ns(&snapshot, 990) / NS_PER_US));
}

json_t *attachment_json(const struct attachment *attachment)
{
	char name[DS_NAME_BYTES + DS_PATH_BYTES];
	struct disk_info info = { 0 };
	json_t *object;

	snprintf(name, sizeof(name), "%s:%s", attachment->datastore, attachment->path);
	if (attachment->disk)
		disk_info(attachment->disk, &info);
	object = json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:I, s:o?, s:o?}", "id",
			   attachment->id, "disk", json_edge_text(name), "export",
			   disk_export_name(attachment->export_kind), "uri", info.uri, "socket",
			   attachment->socket_path, "state",
			   attachment->disk ? "attached" : "waiting", "read_only",
			   attachment->read_only, "moving", info.moving, "clients",
			   (int)info.clients, "size_bytes", (json_int_t)info.disk.size_bytes, "io",
			   attachment->disk ? io_json(attachment->disk) : NULL, "error",
			   attachment->error.id != ERR_NONE
				   ? json_edge_err_object(&attachment->error)
				   : NULL);
	return object;
}

json_t *disk_json(struct daemon *daemon, const struct disk_name *name,
		  const struct ds_disk_info *info)
{
	struct attachment *attachment =
		inventory_attachment_of(daemon->inventory, name->datastore, name->path);
	char text[DS_NAME_BYTES + DS_PATH_BYTES];

	snprintf(text, sizeof(text), "%s:%s", name->datastore, name->path);
	return json_pack("{s:o, s:I, s:I, s:s, s:s, s:i, s:b, s:o, s:o?, s:o?}", "disk",
			 json_edge_text(text), "size_bytes", (json_int_t)info->size_bytes,
			 "allocated_bytes", (json_int_t)info->allocated_bytes, "provision",
			 provision_name(info->provision), "format", format_name(info->format),
			 "sector_bytes", (int)info->sector_bytes, "read_only", info->read_only,
			 "identity", identity_json(info), "authoritative",
			 info->has_identity ? authority_json(&info->identity) : NULL, "attached",
			 attachment ? attachment_json(attachment) : NULL);
}
