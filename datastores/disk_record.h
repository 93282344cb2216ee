/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_record.h - what a store keeps about a disk: who it is (R-J4, R-J5) and how it was made.
 *
 * The same few fields stand in a VMDK descriptor as ddb.blkmirror.KEY = "value" and in a raw
 * disk's sidecar as KEY=value:
 *
 *   uuid        8-4-4-4-12 hex digits, never all zero
 *   generation  decimal, at least 1
 *   role        live, moving, incoming, retired
 *   journal     id of the move, for moving and incoming; else empty
 *   host        uuid of the moving host; else empty
 *   provision   thin, thick, eager; empty: not known
 *   fresh       1 until the disk is first opened for writing after it was created
 *
 * Any thread.
 */
#ifndef BM_DISK_RECORD_H
#define BM_DISK_RECORD_H

#include "datastores/datastore.h"

#define DISK_RECORD_VALUE_BYTES 40

enum disk_record_key {
	RECORD_UUID,
	RECORD_GENERATION,
	RECORD_ROLE,
	RECORD_JOURNAL,
	RECORD_HOST,
	RECORD_PROVISION,
	RECORD_FRESH,
	RECORD_KEY_COUNT,
};

struct disk_record {
	bool assigned;                  /* false: the store knows no identity yet; identity is zero */
	struct disk_identity identity;
	enum provision provision;       /* PROVISION_SAME: not known */
	/*
	 * Nothing was written since it was created (R11).  Cleared, durably, before the first
	 * open for writing returns, so that a crash can only make it false too early.
	 */
	bool fresh;
	unsigned seen;                  /* private: a bit per key while it is read */
};

/* "uuid" ... */
const char *disk_record_key_name(enum disk_record_key key);

/* Begin to read; then put each value found; then finish, which judges the whole. */
void disk_record_init(struct disk_record *record);
/* 0, -EINVAL for a value that is none, -EEXIST for a key that came before. */
MUST_CHECK int disk_record_put(struct disk_record *record, enum disk_record_key key,
			       const char *value);
/* 0, or -EINVAL: uuid, generation and role come together or not at all; marks name a journal. */
MUST_CHECK int disk_record_finish(struct disk_record *record);

/* The value to store; "" for what is not set.  value: DISK_RECORD_VALUE_BYTES. */
void disk_record_value(const struct disk_record *record, enum disk_record_key key, char *value);

/* A new disk's record: identity as given, or (NULL) a new uuid, generation 1, LIVE. */
MUST_CHECK int disk_record_new(struct disk_record *record, const struct disk_identity *identity,
			       struct err *err);

/* Can it be stored?  -EINVAL with ERR_INTERNAL: a caller's fault. */
MUST_CHECK int disk_identity_check(const struct disk_identity *identity, struct err *err);

/*
 * The gate (R-J4): may this disk be opened so?  LIVE: yes.  MOVING, INCOMING: only with
 * DS_OPEN_FOR_MOVE and the same journal, else -EBUSY, ERR_DISK_MARKED.  RETIRED: only with
 * DS_OPEN_RETIRED, else -EBUSY, ERR_DISK_RETIRED.
 */
MUST_CHECK int disk_identity_may_open(const struct disk_identity *identity, unsigned flags,
				      const char *move_journal_id, const char *path,
				      struct err *err);

/*
 * May it be deleted (R-J5)?  expected: uuid and generation must be these, and if it is
 * RETIRED or INCOMING the role (and journal id), else -ESTALE with ERR_DISK_MARKED.  NULL: it must be LIVE or RETIRED, else -EBUSY with ERR_DISK_MARKED.
 */
MUST_CHECK int disk_record_may_delete(const struct disk_record *record,
				      const struct disk_identity *expected, const char *path,
				      struct err *err);

bool disk_uuid_is_zero(const uint8_t uuid[16]);

#endif
