/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/disk_record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/uuid.h"

/* ---- uuids ---- */

static struct uuid uuid_of(const uint8_t bytes[16])
{
	struct uuid uuid;

	memcpy(uuid.bytes, bytes, sizeof(uuid.bytes));
	return uuid;
}

bool disk_uuid_is_zero(const uint8_t bytes[16])
{
	struct uuid uuid = uuid_of(bytes);

	return uuid_is_null(&uuid);
}

static void format_uuid(const uint8_t bytes[16], char text[UUID_TEXT_BYTES])
{
	struct uuid uuid = uuid_of(bytes);

	uuid_format(&uuid, text);
}

/* Not the null one. */
static bool parse_uuid(const char *text, uint8_t bytes[16])
{
	struct uuid uuid;

	if (uuid_parse(text, &uuid) || uuid_is_null(&uuid))
		return false;
	memcpy(bytes, uuid.bytes, sizeof(uuid.bytes));
	return true;
}

/* ---- roles ---- */

static const char *const role_names[] = {
	[DISK_LIVE] = "live",
	[DISK_MOVING] = "moving",
	[DISK_INCOMING] = "incoming",
	[DISK_RETIRED] = "retired",
};

const char *disk_role_name(enum disk_role role)
{
	CHECK(role < ARRAY_COUNT(role_names));
	return role_names[role];
}

bool disk_identity_same_copy(const struct disk_identity *a, const struct disk_identity *b)
{
	return a->generation == b->generation && memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0;
}

static bool role_parse(const char *text, enum disk_role *out)
{
	for (unsigned i = 0; i < ARRAY_COUNT(role_names); i++) {
		if (strcmp(text, role_names[i]) == 0) {
			*out = (enum disk_role)i;
			return true;
		}
	}
	return false;
}

static bool role_is_of_a_move(enum disk_role role)
{
	return role == DISK_MOVING || role == DISK_INCOMING;
}

/* ---- the record ---- */

static const char *const key_names[RECORD_KEY_COUNT] = {
	[RECORD_UUID] = "uuid",       [RECORD_GENERATION] = "generation", [RECORD_ROLE] = "role",
	[RECORD_JOURNAL] = "journal", [RECORD_HOST] = "host",
	[RECORD_PROVISION] = "provision", [RECORD_FRESH] = "fresh",
};

const char *disk_record_key_name(enum disk_record_key key)
{
	CHECK(key < RECORD_KEY_COUNT);
	return key_names[key];
}

void disk_record_init(struct disk_record *record)
{
	memset(record, 0, sizeof(*record));
	record->provision = PROVISION_SAME;
}

static bool generation_parse(const char *text, uint64_t *out)
{
	uint64_t value = 0;

	if (!*text || strlen(text) > 18)
		return false;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*out = value;
	return value > 0;
}

static bool journal_is_valid(const char *text)
{
	size_t len = strnlen(text, sizeof(((struct disk_identity *)0)->journal_id));

	if (len == sizeof(((struct disk_identity *)0)->journal_id))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
			return false;
	return true;
}

static bool record_value_ok(struct disk_record *record, enum disk_record_key key,
			    const char *value)
{
	struct disk_identity *identity = &record->identity;

	switch (key) {
	case RECORD_UUID:
		return parse_uuid(value, identity->uuid);
	case RECORD_GENERATION:
		return generation_parse(value, &identity->generation);
	case RECORD_ROLE:
		return role_parse(value, &identity->role);
	case RECORD_JOURNAL:
		if (!journal_is_valid(value))
			return false;
		strcpy(identity->journal_id, value);
		return true;
	case RECORD_HOST:
		return !*value || parse_uuid(value, identity->host_uuid);
	case RECORD_PROVISION:
		return !*value || (provision_parse(value, &record->provision) &&
				   record->provision != PROVISION_SAME);
	case RECORD_FRESH:
		record->fresh = strcmp(value, "1") == 0;
		return record->fresh || !*value || strcmp(value, "0") == 0;
	case RECORD_KEY_COUNT:
		break;
	}
	return false;
}

int disk_record_put(struct disk_record *record, enum disk_record_key key, const char *value)
{
	if (record->seen & 1u << key)
		return -EEXIST;
	record->seen |= 1u << key;
	return record_value_ok(record, key, value) ? 0 : -EINVAL;
}

int disk_record_finish(struct disk_record *record)
{
	unsigned who = 1u << RECORD_UUID | 1u << RECORD_GENERATION | 1u << RECORD_ROLE;

	if (record->seen & who && (record->seen & who) != who)
		return -EINVAL;
	record->assigned = record->seen & who;
	if (!record->assigned)
		return record->identity.journal_id[0] || record->fresh ? -EINVAL : 0;
	if (role_is_of_a_move(record->identity.role) && !record->identity.journal_id[0])
		return -EINVAL;
	return 0;
}

void disk_record_value(const struct disk_record *record, enum disk_record_key key, char *value)
{
	const struct disk_identity *identity = &record->identity;

	value[0] = 0;
	switch (key) {
	case RECORD_UUID:
		format_uuid(identity->uuid, value);
		return;
	case RECORD_GENERATION:
		snprintf(value, DISK_RECORD_VALUE_BYTES, "%" PRIu64, identity->generation);
		return;
	case RECORD_ROLE:
		strcpy(value, disk_role_name(identity->role));
		return;
	case RECORD_JOURNAL:
		strcpy(value, identity->journal_id);
		return;
	case RECORD_HOST:
		if (!disk_uuid_is_zero(identity->host_uuid))
			format_uuid(identity->host_uuid, value);
		return;
	case RECORD_PROVISION:
		if (record->provision != PROVISION_SAME)
			strcpy(value, provision_name(record->provision));
		return;
	case RECORD_FRESH:
		strcpy(value, record->fresh ? "1" : "0");
		return;
	case RECORD_KEY_COUNT:
		break;
	}
	CHECK(key < RECORD_KEY_COUNT);
}

int disk_identity_check(const struct disk_identity *identity, struct err *err)
{
	if (disk_uuid_is_zero(identity->uuid) || identity->generation == 0 ||
	    identity->generation > UINT64_C(999999999999999999))
		return err_set(err, ERR_INTERNAL, -EINVAL, "a disk cannot be marked without identity");
	if (identity->role > DISK_RETIRED || !journal_is_valid(identity->journal_id) ||
	    (role_is_of_a_move(identity->role) && !identity->journal_id[0]))
		return err_set(err, ERR_INTERNAL, -EINVAL,
			       "a disk cannot be marked as part of a move without its journal");
	return 0;
}

int disk_record_new(struct disk_record *record, const struct disk_identity *identity,
		    struct err *err)
{
	disk_record_init(record);
	record->assigned = true;
	if (identity) {
		record->identity = *identity;
		return disk_identity_check(identity, err);
	}
	record->identity.generation = 1;
	record->identity.role = DISK_LIVE;
	memcpy(record->identity.uuid, uuid_random().bytes, sizeof(record->identity.uuid));
	return 0;
}

/* ---- gates ---- */

static int refuse_marked(const struct disk_identity *identity, const char *path, const char *verb,
			 struct err *err)
{
	char host[UUID_TEXT_BYTES] = "unknown";

	if (!disk_uuid_is_zero(identity->host_uuid))
		format_uuid(identity->host_uuid, host);
	return err_set(err, ERR_DISK_MARKED, -EBUSY,
		       "'%.100s' is marked %s by the relocation %s of host %s: it cannot be %s",
		       path, disk_role_name(identity->role), identity->journal_id, host, verb);
}

int disk_identity_may_open(const struct disk_identity *identity, unsigned flags,
			   const char *move_journal_id, const char *path, struct err *err)
{
	switch (identity->role) {
	case DISK_LIVE:
		return 0;
	case DISK_MOVING:
	case DISK_INCOMING:
		if (flags & DS_OPEN_FOR_MOVE && move_journal_id &&
		    strcmp(move_journal_id, identity->journal_id) == 0)
			return 0;
		return refuse_marked(identity, path, "opened", err);
	case DISK_RETIRED:
		if (flags & DS_OPEN_RETIRED)
			return 0;
		return err_set(err, ERR_DISK_RETIRED, -EBUSY,
			       "'%.160s' is a retired copy (generation %" PRIu64 ")", path,
			       identity->generation);
	}
	return err_set(err, ERR_INTERNAL, -EINVAL, "a disk of no known role");
}

/* A later move of the same disk to the same path gives it the same generation. */
static bool role_is_expected(const struct disk_identity *there,
			     const struct disk_identity *expected)
{
	switch (expected->role) {
	case DISK_RETIRED:
		return there->role == DISK_RETIRED;
	case DISK_INCOMING:
		return there->role == DISK_INCOMING &&
		       strcmp(there->journal_id, expected->journal_id) == 0;
	default:
		return true;
	}
}

int disk_record_may_delete(const struct disk_record *record, const struct disk_identity *expected,
			   const char *path, struct err *err)
{
	if (!expected) {
		if (record->assigned && role_is_of_a_move(record->identity.role))
			return refuse_marked(&record->identity, path, "deleted", err);
		return 0;
	}
	if (record->assigned && disk_identity_same_copy(&record->identity, expected) &&
	    role_is_expected(&record->identity, expected))
		return 0;
	err_set(err, ERR_DISK_MARKED, -ESTALE, "'%.160s' is another disk now: %s", path,
		record->assigned ? "its identity is not the one to delete" : "it has no identity");
	err_remedy(err, "Look at 'disk show'; delete it by its path when it is not needed.");
	return -ESTALE;
}
