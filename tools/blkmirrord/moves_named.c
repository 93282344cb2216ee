/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/moves_named.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/move_record.h"
#include "vmotion/relocate_recover.h"

struct moves_named {
	struct move_record *records[RECOVER_MOVES_MAX];
	uint32_t count;
	bool any;                       /* it could be any disk */
};

/* False: it could not be read, and is not gone. */
static bool load_one(struct moves_named *named, const char *state_dir, const char *id)
{
	struct move_record *record = NULL;
	struct err err = { 0 };
	int rc = move_record_load(state_dir, id, &record, &err);

	if (record)             /* with a damaged sector the disks are known all the same */
		named->records[named->count++] = record;
	else if (rc != -ENOENT)
		log_warn("recover", "%s: %s: all disks wait for it to be looked at", id, err.cause);
	return record || rc == -ENOENT;
}

int moves_named_load(const char *state_dir, struct moves_named **out, struct err *err)
{
	struct moves_named *named = calloc(1, sizeof(*named));
	char (*ids)[MOVE_ID_BYTES] = calloc(RECOVER_MOVES_MAX, sizeof(*ids));
	struct err why = { 0 };
	uint32_t count = 0;

	if (!named || !ids) {
		free(named);
		free(ids);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	if (move_record_list(state_dir, ids, RECOVER_MOVES_MAX, &count, &why)) {
		log_warn("recover", "%s: all disks wait for the moves to be looked at", why.cause);
		named->any = true;
		count = 0;
	}
	named->any |= count > RECOVER_MOVES_MAX;
	for (uint32_t i = 0; i < MIN(count, RECOVER_MOVES_MAX); i++)
		if (!load_one(named, state_dir, ids[i]))
			named->any = true;
	free(ids);
	*out = named;
	return 0;
}

void moves_named_free(struct moves_named *named)
{
	if (!named)
		return;
	for (uint32_t i = 0; i < named->count; i++)
		move_record_free(named->records[i]);
	free(named);
}

static bool names(const struct move_record_disk *disk, const char *datastore, const char *path)
{
	return (strcmp(disk->source_datastore, datastore) == 0 &&
		strcmp(disk->source_path, path) == 0) ||
	       (strcmp(disk->target_datastore, datastore) == 0 &&
		strcmp(disk->target_path, path) == 0);
}

bool moves_named_has(const struct moves_named *named, const char *datastore, const char *path)
{
	for (uint32_t i = 0; i < named->count; i++) {
		const struct move_record_info *move = move_record_info(named->records[i]);

		for (uint32_t j = 0; j < move->disk_count; j++)
			if (names(&move->disks[j], datastore, path))
				return true;
	}
	return named->any;
}
