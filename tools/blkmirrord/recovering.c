/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/recovering.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/task_restore.h"
#include "tools/blkmirrord/vms_move.h"

static struct datastore *find_datastore(const char *name, void *user)
{
	struct daemon *daemon = user;
	struct ds_entry *entry = inventory_find(daemon->inventory, name, NULL);

	return entry ? entry->datastore : NULL;
}

static int disk_switched(struct daemon *daemon, const struct move_record_disk *disk)
{
	struct attachment *attachment = inventory_attachment_of(
		daemon->inventory, disk->source_datastore, disk->source_path);
	struct ds_entry *target = inventory_find(daemon->inventory, disk->target_datastore, NULL);

	if (!attachment)
		return 0; /* noted already, or never attached */
	if (!target)
		return -ENOENT;
	return inventory_moved(daemon->inventory, attachment->id, target, disk->target_path);
}

static int move_switched(const struct move_record_info *move, void *user)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < move->disk_count; i++)
		rc = disk_switched(user, &move->disks[i]);
	return rc ? rc : vms_move_committed(((struct daemon *)user)->vms, move->id);
}

static bool move_resume(const struct move_record_info *move, void *user)
{
	return task_restore_resume(move, user);
}

/* Guests come before the deletions that are left. */
static void move_settled(const struct move_record_info *move, enum recover_side side, void *user)
{
	struct daemon *daemon = user;

	for (uint32_t i = 0; i < move->disk_count; i++) {
		const struct move_record_disk *disk = &move->disks[i];
		bool on_target = side == RECOVER_TARGET;
		struct attachment *attachment = inventory_attachment_of(
			daemon->inventory,
			on_target ? disk->target_datastore : disk->source_datastore,
			on_target ? disk->target_path : disk->source_path);

		if (attachment)
			inventory_attach(daemon->inventory, attachment);
	}
}

static void move_ended(const struct move_record_info *move, enum recover_side side, void *user)
{
	task_restore_ended(move, side, user);
}

static void recovering_ran(struct recovery *recovery, const struct err *err, void *user)
{
	struct daemon *daemon = user;

	if (err)
		log_error("recover", "%s (%s)", err->cause, err_name(err->id));
	for (uint32_t i = 0; i < recovery_count(recovery); i++) {
		struct recover_entry entry;

		recovery_entry(recovery, i, &entry);
		log_warn("recover", "%s waits: %s (%s)", entry.id, entry.why.cause,
			 err_name(entry.why.id));
	}
	if (daemon->recover_again) {
		recovering_run(daemon);
		return;
	}
	if (!err)
		task_restore_looked(daemon);
	inventory_attach_waiting(daemon->inventory);
}

void recovering_run(void *user)
{
	struct daemon *daemon = user;

	if (daemon->stopping)
		return;
	daemon->recovered = true;
	daemon->recover_again = recovery_is_busy(daemon->recovery);
	if (!daemon->recover_again)
		recovery_run(daemon->recovery, recovering_ran, daemon);
}

bool recovering_find(struct daemon *daemon, const char *text, char id[MOVE_ID_BYTES])
{
	size_t len = strlen(text);

	for (uint32_t i = 0; i < recovery_count(daemon->recovery); i++) {
		struct recover_entry entry;

		recovery_entry(daemon->recovery, i, &entry);
		if (strcmp(entry.id, text) == 0 ||
		    (strncmp(entry.id, text, len) == 0 && entry.id[len] == '-')) {
			snprintf(id, MOVE_ID_BYTES, "%s", entry.id);
			return true;
		}
	}
	return false;
}

int recovering_new(struct daemon *daemon, struct err *err)
{
	struct recovery_options options = {
		.state_dir = daemon->config.state_dir,
		.find_datastore = find_datastore,
		.switched = move_switched,
		.resume = move_resume,
		.settled = move_settled,
		.ended = move_ended,
		.user = daemon,
	};

	return recovery_new(daemon->disks, &options, &daemon->recovery, err);
}
