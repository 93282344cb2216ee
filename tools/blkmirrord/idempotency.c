/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/idempotency.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct idempotency_entry {
	char key[IDEMPOTENCY_KEY_MAX + 1];
	uint64_t request_hash;
	bool answered;
	int status;
	json_t *body;
	struct list waiters;
	struct list node;
};

struct idempotency {
	struct list entries;            /* oldest first */
	uint32_t entry_count;
};

struct idempotency *idempotency_new(void)
{
	struct idempotency *table = calloc(1, sizeof(*table));

	if (table)
		list_init(&table->entries);
	return table;
}

static void entry_free(struct idempotency *table, struct idempotency_entry *entry)
{
	CHECK(list_is_empty(&entry->waiters));
	list_remove(&entry->node);
	table->entry_count--;
	json_decref(entry->body);
	free(entry);
}

void idempotency_free(struct idempotency *table)
{
	if (!table)
		return;
	list_for_each (node, &table->entries)
		entry_free(table, list_entry(node, struct idempotency_entry, node));
	free(table);
}

bool idempotency_key_is_valid(const char *key)
{
	size_t len = strlen(key);

	if (len == 0 || len > IDEMPOTENCY_KEY_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (key[i] <= ' ' || key[i] > '~')
			return false;
	return true;
}

static struct idempotency_entry *entry_find(struct idempotency *table, const char *key)
{
	list_for_each (node, &table->entries) {
		struct idempotency_entry *entry = list_entry(node, struct idempotency_entry, node);

		if (strcmp(entry->key, key) == 0)
			return entry;
	}
	return NULL;
}

static bool make_room(struct idempotency *table)
{
	if (table->entry_count < IDEMPOTENCY_ENTRIES_MAX)
		return true;
	list_for_each (node, &table->entries) {
		struct idempotency_entry *entry = list_entry(node, struct idempotency_entry, node);

		if (entry->answered) {
			entry_free(table, entry);
			return true;
		}
	}
	return false;
}

int idempotency_begin(struct idempotency *table, const char *key, uint64_t request_hash,
		      struct idempotency_waiter *waiter, struct idempotency_entry **out,
		      struct err *err)
{
	struct idempotency_entry *entry;

	if (!idempotency_key_is_valid(key))
		return err_set(err, ERR_BAD_FIELD, -EINVAL,
			       "the Idempotency-Key must have 1 to %u printable characters",
			       IDEMPOTENCY_KEY_MAX);
	entry = entry_find(table, key);
	if (entry && entry->request_hash != request_hash)
		return err_set(err, ERR_KEY_REUSED, -EEXIST,
			       "the Idempotency-Key '%s' stood for another request", key);
	if (entry) {
		*out = NULL;
		if (entry->answered)
			waiter->answered(waiter, entry->status, entry->body);
		else
			list_append(&entry->waiters, &waiter->node);
		return 0;
	}
	if (!make_room(table))
		return err_set(err, ERR_BUSY, -EBUSY, "%u requests are being worked on",
			       table->entry_count);
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(entry->key, sizeof(entry->key), "%s", key);
	entry->request_hash = request_hash;
	list_init(&entry->waiters);
	list_append(&table->entries, &entry->node);
	table->entry_count++;
	*out = entry;
	return 0;
}

void idempotency_finish(struct idempotency *table, struct idempotency_entry *entry, int status,
			json_t *body)
{
	struct list *node;

	entry->answered = true;
	entry->status = status;
	entry->body = json_incref(body);
	while ((node = list_pop(&entry->waiters))) {
		struct idempotency_waiter *waiter =
			list_entry(node, struct idempotency_waiter, node);

		waiter->answered(waiter, status, body);
	}
	/* What failed for a passing reason may be tried again with the same key. */
	if (status == 503)
		entry_free(table, entry);
}

void idempotency_forget_waiter(struct idempotency_waiter *waiter)
{
	list_remove(&waiter->node);
}
