/* SPDX-License-Identifier: Apache-2.0 */
/* inventory_private.h - what inventory.c and attachments.c share. */
#ifndef BM_INVENTORY_PRIVATE_H
#define BM_INVENTORY_PRIVATE_H

#include "tools/blkmirrord/inventory.h"

struct inventory {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct disk_service *disks;
	const char *const *allowed_roots;
	uint8_t host_uuid[16];
	struct list entries;
	struct list attachments;
	uint32_t entry_count, attachment_count;
	uint32_t opens, attaches;       /* under way */
	uint32_t lock_waits;            /* attachments that will be tried again soon */
	uint64_t begun_ns;
	bool (*in_move)(const char *datastore, const char *path, void *user);
	bool stopping;
	bool restoring;
	void (*restored)(void *user);
	void *restored_user;
	void (*came_up)(void *user);
	void (*tried)(struct ds_entry *entry, void *user);
	void *came_up_user;
	bool settling;                  /* from came_up() to inventory_attach_waiting() */
};

/* inventory.c: an entry on the list, not open; NULL: no memory. */
struct ds_entry *ds_entry_new(struct inventory *inventory, const char *name, const char *url,
			      const char *secret_file);
void ds_entry_free(struct ds_entry *entry);
void ds_entry_open(struct ds_entry *entry);
/* It is open and recorded: tell, and try what waited for it. */
void ds_entry_opened(struct ds_entry *entry, struct datastore *datastore);

MUST_CHECK int attachments_load(struct inventory *inventory, struct err *err);
void attachments_free(struct inventory *inventory);
/* Those on it that no interrupted move is about. */
void attachments_attach_on(struct inventory *inventory, struct ds_entry *entry);
/* Nothing is tried again. */
void attachments_stop(struct inventory *inventory);
/* Something that start-up waited for has ended. */
void inventory_check_restored(struct inventory *inventory);

#endif
